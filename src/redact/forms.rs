//! The forms in which programs print a value again: what else must be looked for when a value is secret.

use super::SHORTEST;
use base64::Engine as _;
use base64::engine::general_purpose::{GeneralPurpose, STANDARD_NO_PAD, URL_SAFE_NO_PAD};
use serde_json::Value;

/// A kind of forms, and what a value becomes in them.
type Kind = (&'static str, fn(&str) -> Vec<String>);

/// Every kind that is looked for. A kind is added here and nowhere else: the tests of properties go through this list.
pub const KINDS: &[Kind] = &[
    ("as it is", |value| vec![value.into()]),
    ("base64", base64s),
    ("base32", base32s),
    ("URL", |value| URL_SAFE.iter().flat_map(|safe| urls(value, safe)).collect()),
    ("URL, twice", |value| URL_SAFE.iter().flat_map(|safe| urls(value, safe)).flat_map(|url| percents(&url)).collect()),
    ("JSON", jsons),
    ("JSON in JSON", nested_jsons),
    ("shell", shells),
    ("ANSI-C quoting", ansi_c),
    ("backslash before quotes", |value| quoted_by(value, "\\")),
    ("doubled quotes", |value| vec![value.replace('\'', "''"), value.replace('"', "\"\"")]),
    ("XML", xmls),
    ("debug", |value| vec![inner(&format!("{value:?}")), value.escape_default().to_string()]),
    ("hex", hexes),
    ("line", |value| lines(value).map(String::from).collect()),
];

/// The value and its encodings, each once.
pub fn of(value: &str) -> Vec<String> {
    let mut forms: Vec<String> = named(value).into_iter().map(|(_, text)| text).collect();
    forms.sort();
    forms.dedup();
    forms
}

/// A value of more bytes is looked for in the kinds of [`OF_LONG`] only: all of them have 160 bytes for one of the value.
const LONG: usize = 4096;

/// Kinds in which a file comes back: a key, a service account.
const OF_LONG: &[&str] = &["as it is", "base64", "JSON", "line"];

/// The value and its encodings, each with the name of its kind. Forms shorter than [`SHORTEST`] are left out.
pub fn named(value: &str) -> Vec<(&'static str, String)> {
    let endings = if value.len() > LONG { vec![value.to_string()] } else { line_ends(value) };
    let of_kind = |(name, forms): &Kind| {
        let all: Vec<String> = endings.iter().flat_map(|value| forms(value)).collect();
        let name = *name;
        all.into_iter().map(move |form| (name, form))
    };
    let mut forms: Vec<(&str, String)> =
        KINDS.iter().filter(|(name, _)| value.len() <= LONG || OF_LONG.contains(name)).flat_map(of_kind).collect();
    forms.retain(|(_, text)| text.len() >= SHORTEST);
    forms
}

/// The value with its line ends as other systems have them. A carriage return elsewhere is left out or taken for one.
fn line_ends(value: &str) -> Vec<String> {
    let mut all = vec![value.to_string()];
    if value.contains(char::is_control) {
        // The screen leaves out what acts on a terminal.
        all.push(super::escapes::strip(value));
    }
    if value.contains(['\r', '\n']) {
        let unix = value.replace("\r\n", "\n");
        all.extend([
            unix.replace('\n', "\r\n"),
            unix.replace('\r', ""),
            unix.replace('\r', "\n"),
            value.replace('\r', ""),
        ]);
        all.push(unix);
        all.extend(all.clone().iter().map(|value| value.trim_end_matches(['\r', '\n']).to_string()));
    }
    all.sort();
    all.dedup();
    all
}

/// The lines of a value that has several: programs print them one at a time. A line that many files share is no secret.
fn lines(value: &str) -> impl Iterator<Item = &str> {
    let several = value.lines().nth(1).is_some() || value.trim() != value;
    let telling = |line: &&str| line.len() >= SHORTEST && !line.starts_with("-----") && !super::is_ordinary(line);
    value.lines().map(str::trim).filter(move |line| several && telling(line))
}

// ── encodings of bytes ──

fn base64s(value: &str) -> Vec<String> {
    (0..3)
        .flat_map(|shift| [&STANDARD_NO_PAD, &URL_SAFE_NO_PAD].map(|kind| shifted(kind, value.as_bytes(), shift)))
        .collect()
}

/// Base64 of the value when `shift` other bytes stand before it, without the characters that those bytes decide.
fn shifted(engine: &GeneralPurpose, bytes: &[u8], shift: usize) -> String {
    let mut padded = vec![0; shift];
    padded.extend_from_slice(bytes);
    let text = engine.encode(&padded);
    let skip = [0, 2, 3][shift];
    // The last character also holds bits of whatever follows the value, unless it ends on a full group.
    let keep = (padded.len() * 8) / 6;
    text.get(skip..keep).unwrap_or_default().to_string()
}

/// Base32 without what the bytes behind the value decide.
fn base32s(value: &str) -> Vec<String> {
    const LETTERS: &[u8; 32] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZ234567";
    let bits = |at: usize| value.as_bytes()[at / 8] >> (7 - at % 8) & 1;
    let group = |at: usize| (0..5).fold(0, |sum, bit| sum << 1 | usize::from(bits(at * 5 + bit)));
    let upper: String = (0..value.len() * 8 / 5).map(|at| char::from(LETTERS[group(at)])).collect();
    vec![upper.to_ascii_lowercase(), upper]
}

fn hexes(value: &str) -> Vec<String> {
    let hex = |before: &str, upper: bool| -> String {
        let one = |byte: u8| if upper { format!("{before}{byte:02X}") } else { format!("{before}{byte:02x}") };
        value.bytes().map(one).collect()
    };
    ["", ":", " ", r"\x"]
        .iter()
        .flat_map(|before| [false, true].map(|upper| hex(before, upper).trim_start_matches([':', ' ']).into()))
        .collect()
}

// ── URLs ──

/// What stays as it is besides letters and digits: RFC 3986, JavaScript's encodeURIComponent, and user names in Go.
const URL_SAFE: &[&[u8]] = &[b"-_.~", b"-_.~!'()*", b"-_.~$&+,;="];

fn urls(value: &str, safe: &[u8]) -> [String; 3] {
    let stays = |b: u8| b.is_ascii_alphanumeric() || safe.contains(&b);
    let upper: String =
        value.bytes().map(|b| if stays(b) { (b as char).to_string() } else { format!("%{b:02X}") }).collect();
    let lower = value.bytes().map(|b| if stays(b) { (b as char).to_string() } else { format!("%{b:02x}") }).collect();
    let form = upper.replace("%20", "+");
    [upper, lower, form]
}

/// A URL within a URL: only percent and plus signs change, or all that is no letter.
fn percents(url: &str) -> Vec<String> {
    [vec![url.replace('%', "%25"), url.replace('%', "%25").replace('+', "%2B")], urls(url, URL_SAFE[0]).to_vec()]
        .concat()
}

// ── strings of languages ──

/// A quoted text without its quotes.
fn inner(text: &str) -> String {
    text[1..text.len() - 1].to_string()
}

fn json(value: &str) -> String {
    inner(&Value::String(value.to_string()).to_string())
}

fn jsons(value: &str) -> Vec<String> {
    let plain = json(value);
    // Go, and with it Docker, keeps these out of HTML; Python and others write ASCII only; PHP escapes the slash.
    let go = plain.replace('&', r"\u0026").replace('<', r"\u003c").replace('>', r"\u003e");
    let ascii = plain.chars().map(ascii).collect();
    let slashes = plain.replace('/', r"\/");
    vec![plain, go, ascii, slashes]
}

/// How deep a JSON text in a string of another is looked for.
const DEPTH: usize = 4;

fn nested_jsons(value: &str) -> Vec<String> {
    let mut all = jsons(value);
    let mut layer = all.clone();
    for _ in 1..DEPTH {
        layer = layer.iter().map(|text| json(text)).collect();
        all.extend(layer.iter().cloned());
    }
    all
}

fn ascii(c: char) -> String {
    if c.is_ascii() {
        return c.into();
    }
    c.encode_utf16(&mut [0; 2]).iter().map(|unit| format!("\\u{unit:04x}")).collect()
}

fn shells(value: &str) -> Vec<String> {
    let escape = |special: fn(char) -> bool| {
        value.chars().map(|c| if special(c) { format!("\\{c}") } else { c.to_string() }).collect::<String>()
    };
    let bare = |c: char| c.is_ascii() && !c.is_ascii_alphanumeric() && !"_@%+=:,./-".contains(c);
    vec![
        value.replace('\'', r"'\''"),
        value.replace('\'', r#"'"'"'"#),
        escape(|c| "\"$`\\".contains(c)),
        escape(|c| "\"$`\\!".contains(c)),
        escape(bare),
    ]
}

/// `$'…'` of bash, ksh and zsh: what is not ASCII may be octal, hexadecimal or as it is.
fn ansi_c(value: &str) -> Vec<String> {
    let written = |quote: bool, other: fn(char) -> String| -> String {
        let one = |c: char| match c {
            '\\' => r"\\".into(),
            '\'' => r"\'".into(),
            '"' if quote => "\\\"".into(),
            '\n' => r"\n".into(),
            '\t' => r"\t".into(),
            '\r' => r"\r".into(),
            '\u{1b}' => r"\E".into(),
            '\u{7}' => r"\a".into(),
            c if c.is_ascii_control() => format!("\\{:03o}", c as u32),
            c if c.is_ascii() => c.to_string(),
            c => other(c),
        };
        value.chars().map(one).collect()
    };
    let octal = |c: char| c.encode_utf8(&mut [0; 4]).bytes().map(|byte| format!("\\{byte:03o}")).collect();
    let hex = |c: char| c.encode_utf8(&mut [0; 4]).bytes().map(|byte| format!("\\x{byte:02x}")).collect();
    let kinds: [fn(char) -> String; 3] = [octal, hex, |c| c.to_string()];
    kinds.into_iter().flat_map(|other| [false, true].map(|quote| written(quote, other))).collect()
}

/// The text with this before each quote of one kind, or of both; backslashes as they are or doubled.
fn quoted_by(value: &str, before: &str) -> Vec<String> {
    let doubled = value.replace('\\', r"\\");
    let of = |text: &str| {
        let single = text.replace('\'', &format!("{before}'"));
        [text.replace('"', &format!("{before}\"")), single.replace('"', &format!("{before}\"")), single]
    };
    [value, &doubled].into_iter().flat_map(of).chain([doubled.clone()]).collect()
}

/// XML and HTML: named, decimal and hexadecimal references, for what must be one, or for every character.
fn xmls(value: &str) -> Vec<String> {
    const QUOTES: [[&str; 2]; 6] = [
        ["\"", "'"],
        ["&quot;", "'"],
        ["&quot;", "&#39;"],
        ["&quot;", "&apos;"],
        ["&#34;", "&#39;"],
        ["&quot;", "&#x27;"],
    ];
    let named = |[double, single]: [&str; 2]| {
        let text = value.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;");
        // The semicolons of these are no quotes.
        text.replace('"', double).replace('\'', single)
    };
    let mut all: Vec<String> = QUOTES.into_iter().map(named).collect();
    all.push(all[2].replace("&#39;", "&#039;"));
    all.push(all[1].replace("&gt;", ">"));
    all.push(all[0].replace("&gt;", ">"));
    // Characters that are not ASCII, as references.
    let referred = |text: &String| {
        text.chars().map(|c| if c.is_ascii() { c.to_string() } else { format!("&#{};", c as u32) }).collect()
    };
    let references: Vec<String> = all.iter().map(referred).collect();
    all.extend(references);
    // A page that shows the text of a page.
    let twice: Vec<String> = all.iter().map(|text| text.replace('&', "&amp;")).collect();
    all.extend(twice);
    let every: [fn(u32) -> String; 4] =
        [|c| format!("&#{c};"), |c| format!("&#x{c:x};"), |c| format!("&#x{c:X};"), |c| format!("&#X{c:X};")];
    all.extend(every.map(|reference| value.chars().map(|c| reference(c as u32)).collect()));
    let marks: [fn(u32) -> String; 3] = [|c| format!("&#{c};"), |c| format!("&#x{c:x};"), |c| format!("&#x{c:X};")];
    all.extend(marks.map(|reference| {
        value.chars().map(|c| if c.is_ascii_alphanumeric() { c.to_string() } else { reference(c as u32) }).collect()
    }));
    all
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_dialect_of_an_encoding_is_listed() {
        let forms = of("pä'ss&w/ rd");
        for form in [
            "p%C3%A4%27ss%26w%2F%20rd",
            "p%c3%a4%27ss%26w%2f%20rd",
            "p%C3%A4%27ss%26w%2F+rd",
            "p%C3%A4'ss%26w%2F%20rd",
            r"pä'ss\u0026w/ rd",
            r"p\u00e4'ss&w/ rd",
            r"pä'ss&w\/ rd",
            r"pä'\''ss&w/ rd",
            r#"pä'"'"'ss&w/ rd"#,
            r"pä\'ss\&w/\ rd",
            "70c3a42773732677",
            "70C3A42773732677",
        ] {
            assert!(forms.iter().any(|listed| listed.starts_with(form)), "{form}");
        }
    }

    /// Printed forms of a value with every character that is special somewhere.
    #[test]
    fn forms_of_other_languages_are_listed() {
        let forms = of("p'a\"s\\&<é\tw+rd");
        for form in [
            // jq -n --arg x … '{a: ({b: $x} | tojson)}'
            r#"p'a\\\"s\\\\&<é\\tw+rd"#,
            // python3: html.escape, xml.sax.saxutils.quoteattr, repr
            "p&#x27;a&quot;s\\&amp;&lt;é\tw+rd",
            "p'a&quot;s\\&amp;&lt;é\tw+rd",
            // PHP htmlspecialchars
            "p&#039;a&quot;s\\&amp;&lt;é\tw+rd",
            // SQL and CSV
            "p''a\"s\\&<é\tw+rd",
            "p'a\"\"s\\&<é\tw+rd",
            // bash: printf %q in the C locale, declare -p
            r#"p\'a"s\\&<\303\251\tw+rd"#,
            // python3: json.dumps twice
            r#"p'a\\\"s\\\\&<\\u00e9\\tw+rd"#,
            "p%2527a%2522s%255C%2526%253C%25C3%25A9%2509w%252Brd",
            "p%2527a%2522s%255c%2526%253c%25c3%25a9%2509w%252brd",
            r#"p\'a"s\\&<é\tw+rd"#,
        ] {
            assert!(forms.iter().any(|listed| listed == form), "{form}");
        }
    }

    #[test]
    fn a_carriage_return_in_a_value_may_be_lost_or_taken_for_a_line_end() {
        let forms = of("first-half\rsecond-half\r\nthird-part");
        for form in [
            "first-half\rsecond-half\r\nthird-part",
            "first-half\rsecond-half\nthird-part",
            "first-halfsecond-half\nthird-part",
            "first-half\nsecond-half\nthird-part",
        ] {
            assert!(forms.iter().any(|listed| listed == form), "{form:?}");
        }
        assert!(of("only-one\r").contains(&"only-one".to_string()));
    }

    #[test]
    fn base32_is_as_the_programs_write_it() {
        // printf hunter2-long | base32
        assert!(of("hunter2-long").iter().any(|form| form.starts_with("NB2W45DFOIZC23DPNZT")));
    }

    #[test]
    fn lines_of_a_key_are_listed_and_its_first_line_is_not() {
        let forms = of("-----BEGIN X-----\nMIIabcdef\n  enabled\n{\n");
        assert!(forms.contains(&"MIIabcdef".to_string()));
        for shared in ["-----BEGIN X-----", "enabled", "{"] {
            assert!(!forms.contains(&shared.to_string()), "{shared}");
        }
    }
}
