//! How results, output and candidates lie on the screen: within the terminal as it is now, also in characters of two columns.

use super::home::Home;
use super::terminal::{SIZES, Terminal};
use std::fs::File;
use std::io::Write;
use std::process::Command;

const PROMPT: &str = "opsh ›";
const CTRL_L: &str = "\x0c";

/// The sizes, each with the other one.
const CHANGES: [((u16, u16), (u16, u16)); 2] = [(SIZES[0], SIZES[1]), (SIZES[1], SIZES[0])];

fn at_prompt(home: &Home, (columns, rows): (u16, u16)) -> Terminal {
    let terminal = Terminal::start(home, columns, rows, &[]);
    terminal.until_line(PROMPT);
    terminal
}

fn clear(terminal: &Terminal) {
    terminal.keys(CTRL_L).wait_for("a clear screen", |screen| screen.cursor_position() == (0, 7));
}

/// What the rows show, without blanks at their ends. None of them was too long for the terminal.
#[track_caller]
fn rows(terminal: &Terminal) -> Vec<String> {
    terminal.look(|screen| {
        let (rows, columns) = screen.size();
        let shown: Vec<String> = screen.rows(0, columns.get()).map(|row| row.trim_end().to_string()).collect();
        assert!((0..rows.get()).all(|row| !screen.row_wrapped(row)), "{}", screen.contents());
        shown
    })
}

/// Columns that a text takes.
fn columns(text: &str) -> usize {
    text.chars().map(|c| if c.is_ascii() || "│┊".contains(c) { 1 } else { 2 }).sum()
}

#[test]
fn a_table_fits_the_terminal_as_it_is_now() {
    for (before, now) in CHANGES {
        let home = Home::new();
        let terminal = at_prompt(&home, before);
        terminal.says(&format!("let t = [#{{ name: \"障害\", says: \"{}終\" }}]", "接続不可".repeat(18)), &[]);
        let shown = |(columns_now, _): (u16, u16)| {
            clear(&terminal);
            terminal.says("t", &["終"]).until_line(PROMPT);
            let rows = rows(&terminal);
            let widest = rows.iter().map(|row| columns(row)).max().unwrap();
            // What fits no more is on the next row, and not earlier than it has to be.
            assert!((usize::from(columns_now) - 4..=usize::from(columns_now)).contains(&widest), "{rows:?}");
            assert_eq!(rows.concat().matches(['接', '続', '不', '可', '終']).count(), 73, "{rows:?}");
        };
        shown(before);
        terminal.resize(now.0, now.1);
        shown(now);
        terminal.leave();
    }
}

#[test]
fn keys_of_two_columns_have_their_values_below_each_other() {
    for size in SIZES {
        let home = Home::new();
        let terminal = at_prompt(&home, size);
        terminal.says("#{ \"障害対応\": \"one\", short: \"two\" }", &["two"]).until_line(PROMPT);
        let rows = rows(&terminal);
        let column = |value: &str| rows.iter().find_map(|row| row.strip_suffix(value)).map(columns);
        assert_eq!((column("one"), column("two")), (Some(10), Some(10)), "{rows:?}");
        terminal.leave();
    }
}

#[test]
fn a_list_of_candidates_fits_the_terminal_as_it_is_now() {
    for (before, now) in CHANGES {
        let home = Home::new();
        std::fs::create_dir(home.path("scripts")).unwrap();
        for first in ['甲', '乙'] {
            home.put(&format!("scripts/{first}{}.rhai", "障害対応".repeat(16)), "");
        }
        let terminal = at_prompt(&home, before);
        terminal.keys(":load scr").until_line("opsh › :load scr");
        terminal.resize(now.0, now.1);
        terminal.keys("\t").until("甲障").until("乙障").until_line("opsh › :load scripts/");
        let rows = rows(&terminal);
        let listed: Vec<&String> = rows.iter().filter(|row| row.contains("障害")).collect();
        assert_eq!(listed.len(), 2, "{rows:?}");
        for row in listed {
            assert!((usize::from(now.0) - 6..=usize::from(now.0)).contains(&columns(row)), "{row}");
        }
        terminal.keys("\x15").until_line(PROMPT);
        terminal.leave();
    }
}

/// Repeats what it reads, without a line end where a line goes on.
const REPEATS: &str = r#"while read -r line && test "$line" != end; do
    printf '%s' "${line%+}"
    test "$line" = "${line%+}" && echo
done <"${0%/*}/pipe"
"#;

/// The rows that a line of output takes.
fn behind_bars(line: &str, width: u16) -> Vec<String> {
    let chars: Vec<char> = line.chars().collect();
    let parts = chars.chunks((usize::from(width) - 4) / 2).enumerate();
    parts.map(|(at, part)| format!("  {} {}", if at == 0 { '│' } else { '┊' }, String::from_iter(part))).collect()
}

#[test]
fn output_is_broken_at_the_edge_of_the_terminal_as_it_is_now() {
    for (before, now) in CHANGES {
        let home = Home::new();
        let path = home.path("pipe");
        assert!(Command::new("mkfifo").arg(&path).status().unwrap().success());
        let mut pipe = File::options().read(true).write(true).open(&path).unwrap();
        let script = home.put("repeats.sh", REPEATS);
        let terminal = at_prompt(&home, before);
        let next = terminal.prompts() + 1;
        terminal.keys(&format!("!sh {script}\r")).agree();
        let text = "出力の行".repeat(20);
        let is_shown = |line: &str, (width, _): (u16, u16)| {
            let (wanted, rows) = (behind_bars(line, width), rows(&terminal));
            assert!(rows.windows(wanted.len()).any(|rows| rows == wanted), "{wanted:?} in {rows:?}");
        };
        pipe.write_all(format!("{text}一\n").as_bytes()).unwrap();
        terminal.until("一");
        is_shown(&format!("{text}一"), before);

        // In the middle of a line.
        pipe.write_all("続+\n".as_bytes()).unwrap();
        terminal.until("│ 続");
        terminal.resize(now.0, now.1);
        pipe.write_all(format!("{text}二\n{text}三\nend\n").as_bytes()).unwrap();
        terminal.until_prompts(next).until("✓ host.run");
        is_shown(&format!("続{text}二"), now);
        is_shown(&format!("{text}三"), now);
        terminal.leave();
    }
}

#[test]
fn another_size_while_a_line_of_two_rows_is_edited_leaves_the_cursor_in_its_place() {
    for (before, now) in CHANGES {
        let home = Home::new();
        let terminal = at_prompt(&home, before);
        let (row, _) = terminal.cursor();
        let text = "障害".repeat(40);
        // One column is left at the end of a row, which half of a character would need.
        let place = |(columns, _): (u16, u16), chars: usize| {
            let (first, others) = ((usize::from(columns) - 9) / 2, usize::from(columns) / 2);
            match chars.checked_sub(first) {
                None => (row, (9 + 2 * chars) as u16),
                Some(rest) => (row + 1 + (rest / others) as u16, (2 * (rest % others)) as u16),
            }
        };
        let at = |chars: usize, size| {
            let place = place(size, chars);
            terminal.wait_for(&format!("the cursor at {place:?}"), |screen| screen.cursor_position() == place);
        };
        terminal.keys(&format!("\"a{text}"));
        at(80, before);
        terminal.keys(&"\x1b[D".repeat(3));
        at(77, before);
        terminal.resize(now.0, now.1);
        at(77, now);
        terminal.keys("と");
        at(78, now);
        terminal.keys("\x05\".len() + 1000");
        let whole = format!("opsh › \"a{}と害障害\".len() + 1000", "障害".repeat(38) + "障");
        terminal.wait_for("all of it", |screen| screen.contents().replace('\n', "").contains(&whole));
        terminal.says("", &["1082"]).until_line(PROMPT);
        assert_eq!(terminal.screen().matches("opsh ›").count(), 2, "{}", terminal.screen());
        terminal.leave();
    }
}
