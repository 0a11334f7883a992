//! Everything about keeping the beginning and the end of an output of any length, in bounded memory.

use super::records::hex;
use crate::redact;
use sha2::{Digest, Sha256};
use std::collections::VecDeque;

/// The head and tail of an output, with its true length and digest.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Kept {
    /// The first bytes; whole lines when something was left out.
    pub head: Vec<u8>,
    /// The last bytes, also in whole lines; follows `head` directly when nothing was left out.
    pub tail: Vec<u8>,
    /// Length of the whole output in bytes.
    pub total: u64,
    /// SHA-256 of the whole output in lower-case hex; empty when the host has no `sha256sum`.
    pub sha256: String,
}

impl Kept {
    /// Bytes that were read and are in neither half.
    pub fn left_out(&self) -> u64 {
        self.total.saturating_sub((self.head.len() + self.tail.len()) as u64)
    }

    /// The output as text, with one line where bytes were left out. Bytes that are not UTF-8 show as `\u{fffd}`.
    pub fn text(&self) -> String {
        if self.left_out() == 0 {
            return String::from_utf8_lossy(&[self.head.as_slice(), &self.tail].concat()).into_owned();
        }
        let (head, tail) = (String::from_utf8_lossy(&self.head), String::from_utf8_lossy(&self.tail));
        let newline = if head.is_empty() || head.ends_with('\n') { "" } else { "\n" };
        format!("{head}{newline}… {} bytes left out …\n{tail}", self.left_out())
    }

    /// What a host cut out of an output of `total` bytes: everything, or `keep` bytes in two halves.
    pub(super) fn cut(bytes: Vec<u8>, total: u64, keep: usize, sha256: String) -> Kept {
        let (mut head, mut tail) = (bytes, Vec::new());
        if total > head.len() as u64 {
            tail = head.split_off(head_share(keep).min(head.len()));
            redact::whole_lines(&mut head, &mut tail);
        }
        Kept { head, tail, total, sha256 }
    }
}

/// Bytes of `keep` that are for the head; the rest is for the tail.
pub(super) fn head_share(keep: usize) -> usize {
    keep / 2
}

/// Takes an output piece by piece.
pub(super) struct Keeper {
    head: Vec<u8>,
    tail: VecDeque<u8>,
    head_room: usize,
    tail_room: usize,
    total: u64,
    digest: Sha256,
}

impl Keeper {
    pub fn new(keep: usize) -> Keeper {
        let head_room = head_share(keep);
        Keeper {
            head: Vec::new(),
            tail: VecDeque::new(),
            head_room,
            tail_room: keep - head_room,
            total: 0,
            digest: Sha256::new(),
        }
    }

    pub fn take(&mut self, bytes: &[u8]) {
        self.total += bytes.len() as u64;
        self.digest.update(bytes);
        let (first, rest) = bytes.split_at(bytes.len().min(self.head_room - self.head.len()));
        self.head.extend_from_slice(first);
        let last = &rest[rest.len().saturating_sub(self.tail_room)..];
        let surplus = (self.tail.len() + last.len()).saturating_sub(self.tail_room);
        self.tail.drain(..surplus);
        self.tail.extend(last);
    }

    pub fn done(self) -> Kept {
        let (mut head, mut tail) = (self.head, Vec::from(self.tail));
        if self.total > (head.len() + tail.len()) as u64 {
            redact::whole_lines(&mut head, &mut tail);
        }
        Kept { head, tail, total: self.total, sha256: hex(&self.digest.finalize()) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn kept(keep: usize, pieces: &[&str]) -> Kept {
        let mut keeper = Keeper::new(keep);
        pieces.iter().for_each(|piece| keeper.take(piece.as_bytes()));
        keeper.done()
    }

    #[test]
    fn a_short_output_is_kept_whole() {
        let kept = kept(10, &["abc", "defg", "hij"]);
        assert_eq!(kept.text(), "abcdefghij");
        assert_eq!(kept.sha256, "72399361da6a7754fec986dca5b7cbaf1c810a28ded4abaf56b2106d06cb78b0");
    }

    #[test]
    fn a_long_output_keeps_both_ends_and_says_what_is_missing() {
        let kept = kept(10, &["ab\nc", "", "efghijklmnop\n", "rst", "uv\nyz"]);
        assert_eq!(kept.text(), "ab\n… 20 bytes left out …\nyz");
        assert_eq!((kept.total, kept.sha256.len()), (25, 64));
    }

    #[test]
    fn keeping_nothing_still_counts() {
        let kept = kept(0, &["abc", "def"]);
        assert_eq!((kept.total, kept.text().as_str()), (6, "… 6 bytes left out …\n"));
    }

    #[test]
    fn what_the_host_cut_reads_the_same() {
        let cut = Kept::cut(b"ab\nxw\nyz".to_vec(), 26, 8, String::new());
        assert_eq!(cut.text(), "ab\n… 21 bytes left out …\nyz");
        assert_eq!(Kept::cut(b"abc".to_vec(), 3, 6, String::new()).text(), "abc");
    }
}
