//! Output of remote programs as it comes: behind a bar that no line of opsh's own has, and without acting on the
//! terminal.

use super::visible::{is_dangerous, one_line, visible};
use super::{Screen, Tone, terminal_width};
use crate::redact::{self, escapes::Escapes};
use std::io::Write;

/// Shows one stream of remote output on standard error. Nothing is shown with `--json`, where standard error is for
/// errors as JSON. What a stream still holds back is shown when it ends, or is dropped.
pub struct Streamer<'a> {
    screen: &'a Screen,
    id: u64,
    lines: Lines,
}

impl<'a> Streamer<'a> {
    pub(super) fn new(screen: &'a Screen, label: &str) -> Streamer<'a> {
        let id = screen.streams.get() + 1;
        screen.streams.set(id);
        Streamer { screen, id, lines: Lines::new(label) }
    }

    /// Shows what may be shown by now; an unfinished line too.
    pub fn feed(&mut self, bytes: &[u8]) {
        self.show(|lines| lines.feed(bytes));
    }

    /// Shows the rest and ends the line.
    pub fn end(self) {}

    fn show(&mut self, take: impl FnOnce(&mut Lines) -> Vec<Piece>) {
        if self.screen.options.json {
            return;
        }
        if self.screen.open.get() != self.id {
            self.lines.interrupt();
        }
        // A line that does not fit goes on behind the bar; in a file it need not fit.
        self.lines.width = terminal_width(2).map(usize::from);
        let pieces = take(&mut self.lines);
        if pieces.is_empty() {
            return;
        }
        if self.screen.open.get() == self.id {
            self.screen.idle()
        } else {
            self.screen.fresh_line()
        }
        let text: String = pieces.iter().map(|piece| self.painted(piece)).collect();
        let mut stderr = std::io::stderr().lock();
        // A closed pipe is the reader's way to say that it has enough.
        let _ = stderr.write_all(text.as_bytes()).and_then(|()| stderr.flush());
        self.screen.open.set(if self.lines.is_open() { self.id } else { 0 });
    }

    fn painted(&self, piece: &Piece) -> String {
        let text = if piece.text.is_empty() { String::new() } else { self.screen.paint(Tone::Dim, &piece.text) };
        if piece.ends { text + "\n" } else { text }
    }
}

impl Drop for Streamer<'_> {
    fn drop(&mut self) {
        self.show(Lines::end);
    }
}

/// A line, or what there is of it.
#[derive(Debug, PartialEq, Eq)]
struct Piece {
    text: String,
    ends: bool,
}

/// Bytes to lines behind a bar.
struct Lines {
    label: String,
    /// Columns of the terminal.
    width: Option<usize>,
    /// The beginning of a character whose other bytes have not come.
    partial: Vec<u8>,
    escapes: Escapes,
    /// A carriage return came: what follows restarts the line, which here is a new one.
    restarts: bool,
    /// Nothing came since the last line end.
    is_empty: bool,
    cleaner: redact::Stream,
    /// Columns of the line that is on the screen; 0 when none is.
    column: usize,
    /// The line goes on where one was broken.
    goes_on: bool,
}

impl Lines {
    fn new(label: &str) -> Lines {
        Lines {
            label: one_line(label),
            width: None,
            partial: Vec::new(),
            escapes: Escapes::default(),
            restarts: false,
            is_empty: true,
            cleaner: redact::Stream::new(),
            column: 0,
            goes_on: false,
        }
    }

    fn is_open(&self) -> bool {
        self.column > 0
    }

    /// Something else was written after the unfinished line.
    fn interrupt(&mut self) {
        if self.is_open() {
            (self.column, self.goes_on) = (0, true);
        }
    }

    fn feed(&mut self, bytes: &[u8]) -> Vec<Piece> {
        let text = self.decode(bytes);
        let plain = self.plain(&text);
        let cleaned = self.cleaner.feed(plain.as_bytes());
        self.lay_out(&String::from_utf8_lossy(&cleaned))
    }

    fn end(&mut self) -> Vec<Piece> {
        let rest = String::from_utf8_lossy(&std::mem::take(&mut self.partial)).into_owned();
        let plain = self.plain(&rest);
        let mut cleaned = self.cleaner.feed(plain.as_bytes());
        cleaned.extend(self.cleaner.end());
        let mut text = String::from_utf8_lossy(&cleaned).into_owned();
        if self.is_open() || !(text.is_empty() || text.ends_with('\n')) {
            text.push('\n');
        }
        self.lay_out(&text)
    }

    /// Characters, with U+FFFD for what is none.
    fn decode(&mut self, bytes: &[u8]) -> String {
        self.partial.extend_from_slice(bytes);
        let all = std::mem::take(&mut self.partial);
        let mut text = String::with_capacity(all.len());
        for chunk in all.utf8_chunks() {
            text.push_str(chunk.valid());
            let is_last = chunk.invalid().as_ptr_range().end == all.as_ptr_range().end;
            match chunk.invalid() {
                [] => {}
                begun if is_last && is_beginning(begun) => self.partial = begun.to_vec(),
                _ => text.push(char::REPLACEMENT_CHARACTER),
            }
        }
        text
    }

    /// Without sequences, before secrets are looked for: one with colours in its middle is found all the same.
    fn plain(&mut self, text: &str) -> String {
        let mut plain = String::with_capacity(text.len());
        for c in text.chars().filter(|c| self.escapes.is_text(*c)) {
            match c {
                '\r' => self.restarts = true,
                '\n' => {
                    plain.push('\n');
                    (self.restarts, self.is_empty) = (false, true);
                }
                c => {
                    if std::mem::take(&mut self.restarts) && !self.is_empty {
                        plain.push('\n');
                    }
                    plain.push(c);
                    self.is_empty = false;
                }
            }
        }
        plain
    }

    fn lay_out(&mut self, text: &str) -> Vec<Piece> {
        let mut pieces = Vec::new();
        let mut line = String::new();
        for c in text.chars() {
            if c == '\n' {
                self.begin(&mut line);
                pieces.push(Piece { text: std::mem::take(&mut line), ends: true });
                (self.column, self.goes_on) = (0, false);
                continue;
            }
            let shown = self.shown(c);
            let columns = shown.chars().map(columns).sum::<usize>();
            if self.is_open() && self.width.is_some_and(|width| self.column + columns > width) {
                pieces.push(Piece { text: std::mem::take(&mut line), ends: true });
                (self.column, self.goes_on) = (0, true);
            }
            self.begin(&mut line);
            line.push_str(&shown);
            self.column += columns;
        }
        if !line.is_empty() {
            pieces.push(Piece { text: line, ends: false });
        }
        pieces
    }

    /// The bar, at the beginning of a line.
    fn begin(&mut self, line: &mut String) {
        if self.is_open() {
            return;
        }
        let bar = if self.goes_on { "┊ " } else { "│ " };
        let label = if self.label.is_empty() { String::new() } else { format!("{} ", self.label) };
        let begin = format!("  {label}{bar}");
        self.column = begin.chars().map(columns).sum();
        line.push_str(&begin);
    }

    fn shown(&self, c: char) -> String {
        match c {
            '\t' => " ".repeat(8 - self.column % 8),
            c if is_dangerous(c) => visible(c),
            c => c.into(),
        }
    }
}

/// How many columns a character takes at most; the bar takes one.
pub fn columns(c: char) -> usize {
    let narrow = (c as u32) < 0x1100 || ('\u{2500}'..='\u{257f}').contains(&c);
    if narrow { 1 } else { 2 }
}

/// Whether more bytes can make a character of these.
fn is_beginning(bytes: &[u8]) -> bool {
    std::str::from_utf8(bytes).is_err_and(|error| error.error_len().is_none())
}

/// The beginning of a line, as much of it as takes at most so many columns.
pub fn head(line: &str, room: usize) -> &str {
    let mut used = 0;
    let mut beyond = line.char_indices().skip_while(|(_, c)| {
        used += columns(*c);
        used <= room
    });
    beyond.next().map_or(line, |(at, _)| &line[..at])
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::redact::Secret;

    /// All that is written for these chunks.
    fn shown(chunks: &[&[u8]], width: Option<usize>) -> String {
        let mut lines = Lines::new("");
        lines.width = width;
        let mut pieces: Vec<Piece> = chunks.iter().flat_map(|chunk| lines.feed(chunk)).collect();
        pieces.extend(lines.end());
        pieces.iter().map(|piece| format!("{}{}", piece.text, if piece.ends { "\n" } else { "" })).collect()
    }

    #[test]
    fn half_of_a_character_is_no_part_of_a_head() {
        assert_eq!(head("ab日本", 5), "ab日");
        assert_eq!(head("ab日本", 6), "ab日本");
        assert_eq!(head("", 0), "");
    }

    #[test]
    fn an_unfinished_line_is_shown_at_once_and_ended_at_the_end() {
        let mut lines = Lines::new("prod-1");
        assert_eq!(
            lines.feed(b"[sudo] password: "),
            [Piece { text: "  prod-1 │ [sudo] password: ".into(), ends: false }]
        );
        assert_eq!(lines.end(), [Piece { text: "".into(), ends: true }]);
        assert!(!lines.is_open());
    }

    #[test]
    fn a_carriage_return_cannot_write_over_a_line() {
        assert_eq!(shown(&[b"1 %\r2 %\r\n3\r", b"\n4\r\r5\r"], None), "  │ 1 %\n  │ 2 %\n  │ 3\n  │ 4\n  │ 5\n");
        assert_eq!(shown(&[b"\r\x1b[Kx"], None), "  │ x\n");
    }

    #[test]
    fn what_acts_on_a_terminal_is_left_out_or_made_visible() {
        let hostile = "a\x1b[2Jb\x1b]52;c;aGk=\x07c\u{202e}d\0e\x08f\u{9b}5A\x1bP+q\x1b\\g".as_bytes();
        assert_eq!(shown(&[hostile], None), "  │ abc<202e>d␀e␈fg\n");
        let bytes: Vec<&[u8]> = hostile.chunks(1).collect();
        assert_eq!(shown(&bytes, None), "  │ abc<202e>d␀e␈fg\n");
    }

    #[test]
    fn broken_characters_are_replaced_and_split_ones_are_not() {
        assert_eq!(
            shown(&[b"\xe7\xa7", b"\x98 \xff\xfe ", b"\xf0\x9f", b"x\xc3"], None),
            "  │ 秘 \u{fffd}\u{fffd} \u{fffd}x\u{fffd}\n"
        );
    }

    #[test]
    fn a_line_that_does_not_fit_goes_on_behind_the_bar() {
        let forged = "          ✓ docker.tag prod";
        let text = shown(&[forged.as_bytes()], Some(14));
        assert!(text.lines().all(|line| line.starts_with("  │ ") || line.starts_with("  ┊ ")), "{text}");
        assert!(text.lines().count() > 2 && text.lines().all(|line| line.chars().count() <= 14), "{text}");
    }

    #[test]
    fn a_line_that_was_interrupted_goes_on_as_such() {
        let mut lines = Lines::new("");
        lines.feed(b"begun: ");
        lines.interrupt();
        assert_eq!(lines.feed(b"and\n"), [Piece { text: "  ┊ and".into(), ends: true }]);
    }

    #[test]
    fn a_secret_is_hidden_across_chunks_and_colours() {
        let _secret = Secret::new("streamed-canary-7");
        let text = shown(&[b"x streamed-", b"\x1b[31mcana", b"ry\x1b[0m-7\r", b"\ny"], None);
        assert!(text.starts_with("  │ x •••#") && text.ends_with("\n  │ y\n"), "{text}");
    }

    #[test]
    fn tabs_are_spaces_and_empty_lines_stay() {
        assert_eq!(shown(&[b"a\tb\n\nc\n"], None), "  │ a   b\n  │ \n  │ c\n");
    }
}
