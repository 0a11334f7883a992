//! What of a long text fits the terminal.

use super::Size;
use super::stream::columns;

/// A part of a text.
#[derive(Debug, PartialEq, Eq)]
pub struct Part<'a> {
    pub shown: &'a str,
    /// Lines that are not shown.
    pub left: usize,
    /// It is the end of the text, not its beginning.
    pub is_end: bool,
}

/// Rows that are kept for what was typed, for the line about the rest, and for the next prompt.
const KEPT: usize = 3;

/// The whole lines, at least one, that fit the terminal: the first ones, or the last ones of what is read from its end.
/// `None` when the text fits.
pub fn part(text: &str, size: Size, from_end: bool) -> Option<Part<'_>> {
    let (width, height) = (usize::from(size.columns), usize::from(size.rows));
    let rows = |line: &str| line.chars().map(columns).sum::<usize>().div_ceil(width).max(1);
    // A terminal that does not say how high it is holds anything.
    if height == 0 || text.split('\n').map(rows).sum::<usize>() <= height {
        return None;
    }
    let room = height.saturating_sub(KEPT);
    let mut used = 0;
    let mut fits = |line: &&str| {
        used += rows(line);
        used <= room
    };
    let all = text.split('\n').count();
    let count = match from_end {
        true => text.rsplit('\n').take_while(&mut fits).count(),
        false => text.split('\n').take_while(&mut fits).count(),
    };
    let left = all - count.max(1);
    if left == 0 {
        return None;
    }
    let mut ends = text.match_indices('\n').map(|(at, _)| at);
    let shown = match from_end {
        true => &text[ends.nth(left - 1)? + 1..],
        false => &text[..ends.nth(all - left - 1)?],
    };
    Some(Part { shown, left, is_end: from_end })
}

#[cfg(test)]
mod tests {
    use super::*;

    const SMALL: Size = Size { columns: 10, rows: 6 };

    #[test]
    fn what_fits_is_whole() {
        assert_eq!(part("", SMALL, false), None);
        assert_eq!(part("1\n2\n3\n4\n5\n6", SMALL, false), None);
        assert_eq!(part(&"x".repeat(60), SMALL, false), None);
        assert_eq!(part(&"1\n".repeat(99), Size { columns: 10, rows: 0 }, false), None);
    }

    #[test]
    fn what_is_longer_is_cut_at_a_line() {
        let text = "1\n2\n3\n4\n5\n6\n7";
        assert_eq!(part(text, SMALL, false), Some(Part { shown: "1\n2\n3", left: 4, is_end: false }));
        assert_eq!(part(text, SMALL, true), Some(Part { shown: "5\n6\n7", left: 4, is_end: true }));
    }

    #[test]
    fn a_line_that_wraps_takes_its_rows() {
        let text = format!("{}\n2\n3\n4\n5", "x".repeat(11));
        assert_eq!(part(&text, SMALL, false), None);
        let text = format!("{text}\n6");
        let shown = format!("{}\n2", "x".repeat(11));
        assert_eq!(part(&text, SMALL, false), Some(Part { shown: &shown, left: 4, is_end: false }));
        // Wide characters take two columns, and one line is shown however long it is.
        let text = format!("{}\n2\n3\n4", "あ".repeat(20));
        assert_eq!(part(&text, SMALL, false), Some(Part { shown: &"あ".repeat(20), left: 3, is_end: false }));
    }
}
