//! Known values in base64 that was broken into lines, as `base64` does after 76 characters.

use super::keys::LONG;

/// The text with each such block as one line where something in it is hidden; `None` where nothing is.
pub fn hide(text: &str, clean: &dyn Fn(&str) -> String) -> Option<String> {
    if !text.lines().any(|line| line.len() >= LONG && is_base64(line)) {
        return None;
    }
    let lines: Vec<&str> = text.split_inclusive('\n').collect();
    let (mut out, mut is_hidden, mut at) = (String::new(), false, 0);
    while at < lines.len() {
        // All lines of a block have one length, but for the last.
        let length = bare(lines[at]).len();
        let full =
            lines[at..].iter().take_while(|line| length >= LONG && is_base64(line) && bare(line).len() == length);
        let mut count = full.count();
        let is_last = |line: &&str| is_base64(line) && (1..length).contains(&bare(line).len());
        count += usize::from(count > 0 && lines.get(at + count).is_some_and(is_last));
        if count < 2 {
            out += lines[at];
            at += 1;
            continue;
        }
        let block = &lines[at..at + count];
        let joined: String = block.iter().map(|line| bare(line)).collect();
        let cleaned = clean(&joined);
        if cleaned == joined {
            out.extend(block.iter().copied());
        } else {
            is_hidden = true;
            out += &cleaned;
            out += &block[count - 1][bare(block[count - 1]).len()..];
        }
        at += count;
    }
    is_hidden.then_some(out)
}

fn bare(line: &str) -> &str {
    line.trim_end_matches(['\r', '\n'])
}

fn is_base64(line: &str) -> bool {
    bare(line).bytes().all(|b| b.is_ascii_alphanumeric() || b"+/=-_".contains(&b))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_line_end_parts_is_hidden_and_other_blocks_stay() {
        let clean = |text: &str| text.replace("SECRET", "•");
        let line = "A".repeat(LONG - 3);
        let text = format!("head\n{line}SEC\nRET{line}\nBBB=\ntail\n");
        assert_eq!(hide(&text, &clean), Some(format!("head\n{line}•{line}BBB=\ntail\n")));
        for text in [format!("{line}AAA\n{line}AAA\n"), "SEC\nRET\n".into(), String::new()] {
            assert_eq!(hide(&text, &clean), None, "{text}");
        }
    }
}
