//! Values as a person reads them: tables, lines of a log, `key  value` lines.

use super::human::Zone;
use super::stream::columns;
use super::visible;
use comfy_table::{Cell, ColumnConstraint, ContentArrangement, Table, presets};
use serde_json::Value;

/// Columns that come first, in this order; the rest follow by name.
const FIRST: &[&str] = &[
    "service",
    "name",
    "tag",
    "version",
    "container",
    "image",
    "state",
    "status",
    "verdict",
    "health",
    "commit",
    "date",
    "at",
    "by",
];

/// Lines of a row of a table that is to be low.
const LOW: usize = 2;

/// As [`show`], with at most two lines for each row of a table.
pub fn show_low(value: &Value, width: u16, zone: &Zone) -> String {
    match value {
        Value::Array(items) if is_table(items) && !is_log(value) => table(items, width, zone, Some(LOW)),
        other => show(other, width, zone),
    }
}

fn is_table(items: &[Value]) -> bool {
    !items.is_empty() && items.iter().all(Value::is_object)
}

/// A value as a person reads it.
pub fn show(value: &Value, width: u16, zone: &Zone) -> String {
    match value {
        Value::Null => String::new(),
        Value::String(text) => text.clone(),
        Value::Array(items) if is_log(value) => log(items, zone),
        Value::Array(items) if is_table(items) => table(items, width, zone, None),
        Value::Array(items) => items.iter().map(short).collect::<Vec<_>>().join("\n"),
        Value::Object(map) => {
            let wide = |key: &str| key.chars().map(columns).sum::<usize>();
            let longest = map.keys().map(|key| wide(key)).max().unwrap_or(0);
            let blanks = |key: &str| " ".repeat(longest - wide(key));
            let line = |key: &String| format!("{key}{}  {}", blanks(key), cell(key, &map[key], zone));
            order(map.keys().map(String::as_str).collect())
                .iter()
                .map(|key| line(&key.to_string()))
                .collect::<Vec<_>>()
                .join("\n")
        }
        other => other.to_string(),
    }
}

/// Lines of a log, the newest of which tell most.
pub fn is_log(value: &Value) -> bool {
    value.as_array().is_some_and(|items| !items.is_empty() && items.iter().all(is_log_line))
}

/// `#{ at, stream, text }`: lines are read as lines, and a column would fold them.
fn is_log_line(item: &Value) -> bool {
    item.as_object()
        .is_some_and(|map| map.len() == 3 && ["at", "stream", "text"].iter().all(|key| map.contains_key(*key)))
}

fn log(items: &[Value], zone: &Zone) -> String {
    let text = |item: &Value, key: &str| item[key].as_str().unwrap_or_default().to_string();
    let line = |item: &Value| format!("{}  {}", zone.of_line(&text(item, "at")), text(item, "text"));
    items.iter().map(line).collect::<Vec<_>>().join("\n")
}

fn order(mut keys: Vec<&str>) -> Vec<&str> {
    keys.sort_by_key(|key| (FIRST.iter().position(|first| first == key).unwrap_or(FIRST.len()), *key));
    keys.dedup();
    keys
}

fn table(items: &[Value], width: u16, zone: &Zone, height: Option<usize>) -> String {
    let names =
        order(items.iter().filter_map(Value::as_object).flat_map(|map| map.keys()).map(String::as_str).collect());
    let row = |item: &Value| {
        names.iter().map(|column| item.get(column).map(|value| cell(column, value, zone)).unwrap_or_default()).collect()
    };
    lines_of(&names, items.iter().map(row).collect(), width, height)
}

/// Rows under their headings, fitted to the width; each of at most `height` lines.
pub fn lines_of(columns: &[&str], rows: Vec<Vec<String>>, width: u16, height: Option<usize>) -> String {
    let mut table = Table::new();
    table.load_preset(presets::NOTHING).set_content_arrangement(ContentArrangement::Dynamic).set_width(width);
    table.set_header(columns.iter().map(|column| Cell::new(column.to_uppercase())));
    table.add_rows(rows.into_iter().map(|row| row.iter().map(|cell| on_one_line(cell)).collect::<Vec<_>>()));
    keep_narrow(&mut table, width);
    if let Some(height) = height {
        table.set_truncation_indicator("…");
        for row in table.row_iter_mut() {
            row.max_height(height);
        }
    }
    for column in table.column_iter_mut() {
        column.set_padding((0, PADDING));
    }
    // Nothing stands behind the last one.
    if let Some(last) = columns.len().checked_sub(1).and_then(|last| table.column_mut(last)) {
        last.set_padding((0, 0));
    }
    table.lines().map(|line| line.trim_end().to_string()).collect::<Vec<_>>().join("\n")
}

/// A line end in a cell could forge a row, and a tab a column.
fn on_one_line(cell: &str) -> String {
    let cell = cell.trim_end_matches('\n');
    if !cell.contains(['\n', '\t', '\r']) && !cell.contains("          ") {
        return cell.into();
    }
    visible::short_blanks(&visible::shown(cell, |c| matches!(c, '\n' | '\t' | '\r')))
}

/// Blanks between two columns.
const PADDING: u16 = 2;

/// Columns of the screen that a long value is left at least.
const WRAPPED: u16 = 10;

/// Columns of short values, such as times, stay on one line; those with long ones share what is left.
fn keep_narrow(table: &mut Table, width: u16) {
    let widths = table.column_max_content_widths();
    let mut order: Vec<usize> = (0..widths.len()).collect();
    order.sort_by_key(|&at| widths[at]);
    let least = |at: &usize| widths[*at].min(WRAPPED) + PADDING;
    let (mut room, mut wider) = (u32::from(width), order.iter().map(least).map(u32::from).sum::<u32>());
    for at in order {
        wider -= u32::from(least(&at));
        let left = room.checked_sub(u32::from(widths[at]) + u32::from(PADDING)).filter(|left| *left >= wider);
        let (Some(left), Some(column)) = (left, table.column_mut(at)) else { return };
        room = left;
        column.set_constraint(ColumnConstraint::ContentWidth);
    }
}

/// The value of a key.
fn cell(key: &str, value: &Value, zone: &Zone) -> String {
    zone.word(key, value).unwrap_or_else(|| short(value))
}

fn short(value: &Value) -> String {
    match value {
        Value::Null => "-".into(),
        Value::String(text) => text.clone(),
        Value::Array(items) if items.iter().all(|item| !item.is_object() && !item.is_array()) => {
            items.iter().map(short).collect::<Vec<_>>().join(", ")
        }
        other => other.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn tokyo() -> Zone {
        Zone::named("Asia/Tokyo").expect("a zone")
    }

    #[test]
    fn a_list_of_maps_is_a_table_with_the_telling_columns_first() {
        let value = json!([
            {"state": "running", "service": "backend", "restarts": 0},
            {"state": "running", "service": "db", "restarts": 12},
        ]);
        assert_eq!(show(&value, 80, &tokyo()), "SERVICE  STATE    RESTARTS\nbackend  running  0\ndb       running  12");
    }

    #[test]
    fn short_columns_stay_on_one_line_and_a_low_table_has_two_lines_a_row() {
        let value = json!([{"at": "2026-01-02T20:04:05Z", "name": "one", "why": "so many words ".repeat(9)}]);
        let lines = |shown: String| shown.lines().map(String::from).collect::<Vec<_>>();
        let whole = lines(show(&value, 60, &tokyo()));
        assert_eq!((&whole[0][..], whole.len()), ("NAME  AT                       WHY", 6));
        assert_eq!(whole[1], "one   2026-01-03 05:04:05 JST  so many words so many words");
        assert!(whole.iter().all(|line| line.len() <= 60), "{whole:?}");
        let low = lines(show_low(&value, 60, &tokyo()));
        assert_eq!((&low[..2], low.len()), (&whole[..2], 3));
        assert!(low[2].ends_with('…'), "{low:?}");
        assert_eq!(show_low(&json!(["a", "b"]), 60, &tokyo()), "a\nb");
    }

    #[test]
    fn a_map_is_lines_and_a_list_of_words_is_one_a_line() {
        assert_eq!(show(&json!({"zeta": 1, "name": "x"}), 80, &tokyo()), "name  x\nzeta  1");
        assert_eq!(show(&json!(["a", "b"]), 80, &tokyo()), "a\nb");
    }

    #[test]
    fn lines_of_a_log_stay_lines() {
        let line = |text: &str| json!({"at": "2026-01-02T03:04:05.678901Z", "stream": "stdout", "text": text});
        let long = "x".repeat(100);
        let shown = show(&json!([line(&long), line("b")]), 40, &tokyo());
        assert_eq!(shown, format!("2026-01-02T12:04:05+09:00  {long}\n2026-01-02T12:04:05+09:00  b"));
    }

    #[test]
    fn times_durations_and_sizes_are_worded_in_tables_and_lines() {
        let value = json!({"at": "2026-01-02T20:04:05Z", "age_s": 90, "size_bytes": 2048, "name": "x"});
        let shown =
            "NAME  AT                       AGE_S       SIZE_BYTES\nx     2026-01-03 05:04:05 JST  1 min 30 s  2.0 KiB";
        assert_eq!(show(&json!([value]), 80, &tokyo()), shown);
        let shown = "name        x\nat          2026-01-03 05:04:05 JST\nage_s       1 min 30 s\nsize_bytes  2.0 KiB";
        assert_eq!(show(&value, 80, &tokyo()), shown);
    }
}
