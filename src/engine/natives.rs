//! Every function that Rhai's own packages register, and what each could do: a newer Rhai cannot bring one that nobody looked at.
//!
//! A function that could do more than compute is replaced in `bounded.rs`, `json.rs` or by a verb; a test compares this list
//! with the engine.

/// Effects that a function could have if nothing replaced it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Power {
    /// Computes with what it is given: what it returns is at most a constant number of times as large.
    Computes,
    /// Calls a closure of the script, once for each item.
    Calls,
    /// Writes to the screen.
    Shows,
    /// Ends the script.
    Ends,
    /// Waits, or reads a clock.
    Time,
    /// Makes a program of a text.
    Compiles,
    /// Takes memory by a number that it is given.
    ByNumber,
    /// Takes many times the memory of what it is given.
    ByPieces,
    /// Takes memory by the product of the sizes that it is given.
    ByProduct,
}

/// Functions by power: the name, then each count of arguments with the number of overloads that take so many.
pub const NATIVES: &[(Power, &[&str])] = &[
    (
        Power::Computes,
        &[
            "! 1x1",
            "!= 2x15",
            "% 2x12",
            "& 2x9",
            "* 2x12",
            "** 2x11",
            "+ 1x7 2x25",
            "+= 2x8",
            "- 1x7 2x15",
            "-= 2x2",
            "/ 2x12",
            "< 2x13",
            "<< 2x9",
            "<= 2x13",
            "== 2x15",
            "> 2x13",
            ">= 2x13",
            ">> 2x9",
            "E 0x1",
            "PI 0x1",
            "^ 2x9",
            "abs 1x7",
            "acos 1x1",
            "acosh 1x1",
            "append 2x7",
            "as_string 1x1",
            "asin 1x1",
            "asinh 1x1",
            "atan 1x1 2x1",
            "atanh 1x1",
            "bits 1x1 2x3 3x1",
            "bytes 1x1",
            "ceiling 1x1",
            "chars 1x1 2x3 3x1",
            "chop 2x2",
            "clear 1x4",
            "contains 2x7",
            "cos 1x1",
            "cosh 1x1",
            "crop 2x3 3x1",
            "end 1x2",
            "ends_with 2x2",
            "exp 1x1",
            "extract 2x6 3x2",
            "floor 1x1",
            "fraction 1x1",
            "get 2x4",
            "get$bits 1x1",
            "get$bytes 1x1",
            "get$ceiling 1x1",
            "get$chars 1x1",
            "get$end 1x2",
            "get$floor 1x1",
            "get$fraction 1x1",
            "get$int 1x1",
            "get$is_anonymous 1x1",
            "get$is_empty 1x5",
            "get$is_even 1x10",
            "get$is_exclusive 1x2",
            "get$is_finite 1x1",
            "get$is_inclusive 1x2",
            "get$is_infinite 1x1",
            "get$is_nan 1x1",
            "get$is_odd 1x10",
            "get$is_zero 1x12",
            "get$len 1x3",
            "get$name 1x1",
            "get$round 1x1",
            "get$start 1x2",
            "get$tag 1x1",
            "get_bit 2x1",
            "get_bits 2x2 3x1",
            "get_fn_metadata_list 0x1 1x1 2x1",
            "hypot 2x1",
            "insert 3x2",
            "int 1x1",
            "is_anonymous 1x1",
            "is_empty 1x6",
            "is_even 1x10",
            "is_exclusive 1x2",
            "is_finite 1x1",
            "is_inclusive 1x2",
            "is_infinite 1x1",
            "is_nan 1x1",
            "is_odd 1x10",
            "is_zero 1x12",
            "keys 1x1",
            "len 1x4",
            "ln 1x1",
            "log 1x1 2x1",
            "make_lower 1x2",
            "make_upper 1x2",
            "max 2x20",
            "min 2x20",
            "mixin 2x1",
            "name 1x1",
            "order_desc 1x1",
            "parse_be_float 2x2 3x1",
            "parse_be_int 2x2 3x1",
            "parse_float 1x1",
            "parse_int 1x1 2x1",
            "parse_le_float 2x2 3x1",
            "parse_le_int 2x2 3x1",
            "pop 1x3 2x1",
            "push 2x2",
            "range 2x21 3x11",
            "remove 2x5",
            "reverse 1x2",
            "round 1x1",
            "set 3x4",
            "set$tag 2x1",
            "set_bit 3x1",
            "set_bits 3x2 4x1",
            "set_tag 2x1",
            "shift 1x2",
            "sign 1x7",
            "sin 1x1",
            "sinh 1x1",
            "sort_desc 1x1",
            "splice 3x4 4x2",
            "sqrt 1x1",
            "start 1x2",
            "starts_with 2x2",
            "sub_string 2x3 3x1",
            "tag 1x1",
            "take 1x1",
            "tan 1x1",
            "tanh 1x1",
            "to_binary 1x10",
            "to_blob 1x1",
            "to_debug 1x10",
            "to_degrees 1x1",
            "to_float 1x12",
            "to_hex 1x10",
            "to_int 1x13",
            "to_json 1x1",
            "to_lower 1x2",
            "to_octal 1x10",
            "to_radians 1x1",
            "to_string 1x9",
            "to_upper 1x2",
            "trim 1x1",
            "truncate 2x3",
            "values 1x1",
            "write_ascii 3x2 4x1",
            "write_be 3x4 4x2",
            "write_le 3x4 4x2",
            "write_utf8 3x2 4x1",
            "| 2x9",
        ],
    ),
    (
        Power::Calls,
        &[
            "all 2x2",
            "dedup 1x1 2x2",
            "drain 2x7 3x2",
            "fill_with 2x1",
            "filter 2x3",
            "find 2x1 3x1",
            "find_map 2x1 3x1",
            "for_each 2x1",
            "index_of 2x5 3x5",
            "map 2x3",
            "order 1x1 2x1",
            "order_by 2x1",
            "reduce 2x2 3x2",
            "reduce_rev 2x2 3x2",
            "retain 2x7 3x2",
            "some 2x2",
            "sort 1x1 2x2",
            "sort_by 2x1",
            "zip 3x1",
        ],
    ),
    (Power::Shows, &["debug 0x1 1x10", "print 0x1 1x9"]),
    (Power::Ends, &["exit 0x1 1x1"]),
    (Power::Time, &["elapsed 1x1", "get$elapsed 1x1", "sleep 1x2", "timestamp 0x1"]),
    (Power::Compiles, &["parse_json 1x1"]),
    (Power::ByNumber, &["blob 0x1 1x1 2x1", "pad 3x4"]),
    (Power::ByPieces, &["split 1x1 2x5 3x2", "split_rev 2x2 3x2", "to_array 1x1", "to_chars 1x1"]),
    (Power::ByProduct, &["replace 3x4"]),
];

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    #[test]
    fn every_function_of_rhai_is_on_the_list() {
        let mut counts = std::collections::BTreeMap::<(String, usize), usize>::new();
        let native = |info: rhai::FuncInfo<'_>| Some((info.metadata.name.to_string(), info.metadata.param_types.len()));
        for one in rhai::Engine::new().collect_fn_metadata(None, native, true) {
            *counts.entry(one).or_default() += 1;
        }
        let there: BTreeSet<String> =
            counts.into_iter().map(|((name, takes), count)| format!("{name} {takes}x{count}")).collect();
        let listed: BTreeSet<String> = NATIVES
            .iter()
            .flat_map(|(_, rows)| rows.iter())
            .flat_map(|row| {
                let (name, counts) = row.split_once(' ').expect("a name and counts");
                counts.split(' ').map(move |count| format!("{name} {count}"))
            })
            .collect();
        let new: Vec<_> = there.difference(&listed).collect();
        let gone: Vec<_> = listed.difference(&there).collect();
        assert!(new.is_empty(), "Rhai has functions that nobody looked at: {new:?}");
        assert!(gone.is_empty(), "Rhai has these no more: {gone:?}");
    }
}
