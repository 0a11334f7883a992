//! Everything about the records that the supervising shell writes into a command's output, and taking them out again.

/// What the supervising shell said.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Record {
    /// The program is about to start: what came before it was noise of the login shell.
    Start,
    /// The process id that a stream's program is about to have.
    Pid(u32),
    /// The program was not started, and why.
    No(String),
    /// The program ended with this status, as a shell counts it.
    End(i32),
    /// What follows begins at this byte of the output that is watched.
    At(u64),
    /// What was watched is over; what follows is the answer of a script of ours.
    Answer,
}

/// Splits one stream into output and records, whatever the borders of the pieces.
pub struct Splitter {
    tag: Vec<u8>,
    pending: Vec<u8>,
}

/// Longest record in bytes; a longer one is output that looks like it.
const LONGEST_RECORD: usize = 2048;

impl Splitter {
    /// A splitter for the records with this nonce.
    pub fn new(nonce: &str) -> Splitter {
        Splitter { tag: format!("\u{1e}opsh {nonce} ").into_bytes(), pending: Vec::new() }
    }

    /// Takes a piece and gives back, in order, what is known to be output (`Ok`) and the records in it (`Err`).
    pub fn feed(&mut self, piece: &[u8]) -> Vec<Result<Vec<u8>, Record>> {
        if self.pending.is_empty() && !piece.contains(&self.tag[0]) {
            return vec![Ok(piece.to_vec())];
        }
        self.pending.extend_from_slice(piece);
        let mut parts = Vec::new();
        let mut output = Vec::new();
        loop {
            let mark = self.pending.iter().position(|b| *b == self.tag[0]).unwrap_or(self.pending.len());
            output.extend(self.pending.drain(..mark));
            if self.incomplete() {
                break;
            }
            match self.take_record() {
                Some(record) => {
                    parts.push(Ok(std::mem::take(&mut output)));
                    parts.push(Err(record));
                }
                None => output.extend(self.pending.drain(..1)),
            }
        }
        parts.push(Ok(output));
        parts
    }

    /// What is left at the end of the stream; it was no record after all.
    pub fn rest(self) -> Vec<u8> {
        self.pending
    }

    /// Whether `pending` is empty, or may still become a record.
    fn incomplete(&self) -> bool {
        if self.pending.len() < self.tag.len() {
            return self.tag.starts_with(&self.pending);
        }
        self.pending.starts_with(&self.tag) && self.pending.len() < LONGEST_RECORD && !self.pending.contains(&b'\n')
    }

    fn take_record(&mut self) -> Option<Record> {
        let line = self.pending.strip_prefix(self.tag.as_slice())?;
        let length = line.iter().position(|b| *b == b'\n')?;
        let record = parse(&String::from_utf8_lossy(&line[..length]))?;
        self.pending.drain(..self.tag.len() + length + 1);
        Some(record)
    }
}

fn parse(text: &str) -> Option<Record> {
    match text.split_once(' ').unwrap_or((text, "")) {
        ("start", _) => Some(Record::Start),
        ("pid", pid) => pid.parse().ok().map(Record::Pid),
        ("no", why) => Some(Record::No(why.into())),
        ("at", offset) => offset.trim().parse().ok().map(Record::At),
        ("answer", "") => Some(Record::Answer),
        ("end", status) => status.trim().parse().ok().map(Record::End),
        _ => None,
    }
}

/// Lower-case hex.
pub fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// 128 random bits in hex, so that no output holds our records by chance or by guess.
pub fn nonce() -> Result<String, String> {
    let mut bits = [0; 16];
    getrandom::fill(&mut bits).map_err(|e| format!("this machine gives no random numbers: {e}"))?;
    Ok(hex(&bits))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn split(stream: &[u8], size: usize) -> (Vec<u8>, Vec<Record>) {
        let (mut output, mut records) = (Vec::new(), Vec::new());
        let mut splitter = Splitter::new("ab");
        for part in stream.chunks(size).flat_map(|piece| splitter.feed(piece)) {
            match part {
                Ok(bytes) => output.extend(bytes),
                Err(record) => records.push(record),
            }
        }
        output.extend(splitter.rest());
        (output, records)
    }

    #[test]
    fn records_are_found_whatever_the_borders_and_the_rest_is_untouched() {
        let stream =
            b"noise\x1eopsh ab start 7\nout\x1e\x1eopsh cd end 1\n\x1eopsh ab what\n\x1eopsh ab end 3\nmore\x1eop";
        for size in 1..stream.len() {
            let (output, records) = split(stream, size);
            assert_eq!(records, [Record::Start, Record::End(3)], "pieces of {size}");
            assert_eq!(output, b"noiseout\x1e\x1eopsh cd end 1\n\x1eopsh ab what\nmore\x1eop", "pieces of {size}");
        }
    }

    #[test]
    fn a_refusal_carries_its_reason() {
        let (output, records) = split(b"\x1eopsh ab no cannot enter /x\n", 4);
        assert_eq!((output.len(), records), (0, vec![Record::No("cannot enter /x".into())]));
    }
}
