//! `:reveal TAG`: shows the value behind a tag, to a person at the terminal and to nobody else.

use super::Session;
use crate::error::{Error, Kind, Result};
use crate::redact;
use serde_json::json;

/// The tag of a line `:reveal 3f9a` or `:reveal •••#3f9a`; `None` for any other line.
pub fn tag_of(line: &str) -> Option<&str> {
    let rest = line.trim().strip_prefix(":reveal")?;
    (rest.is_empty() || rest.starts_with(char::is_whitespace)).then(|| rest.trim().trim_start_matches(['•', '#']))
}

/// True for what can be a tag; anything else may be a value that somebody typed.
pub fn is_tag(text: &str) -> bool {
    (4..=64).contains(&text.len()) && text.bytes().all(|b| b"0123456789abcdef".contains(&b))
}

/// Asks, records that it was looked at, by its tag, and shows the value. Fails when the tag was not shown in this
/// session, when there is no terminal, when the journal cannot record it, or when the answer is not y.
pub fn show(session: &Session, tag: &str) -> Result<()> {
    let refused = |why: &str| Error::new(Kind::Refused, "nothing was revealed", why);
    let screen = session.gate().screen();
    if !screen.is_private() {
        return Err(refused("a secret is shown to a terminal only: standard input, output and error must be one"));
    }
    let secret = is_tag(tag).then(|| redact::behind(tag)).flatten().ok_or_else(|| unknown(tag))?;
    session.gate().journal()?;
    let question = format!("Show the value of •••#{tag} on this terminal, where it stays in its history? [y/N]");
    if screen.ask(&question).as_deref() != Some("y") {
        return Err(refused("the answer was not y"));
    }
    session.gate().note_before("secret.reveal", json!({ "tag": tag }))?;
    screen.reveal(&secret);
    Ok(())
}

/// What was typed is repeated only when it can be no secret.
fn unknown(tag: &str) -> Error {
    let named = if is_tag(tag) { format!("no tag \"{tag}\" in this session") } else { "that is no tag".into() };
    let known = redact::tags();
    let why = match known.len() {
        0 => "no secret was hidden in this session so far".into(),
        count => {
            let some: Vec<String> = known.iter().take(12).map(|tag| format!("#{tag}")).collect();
            format!("hidden in this session: {}{}", some.join(" "), if count > 12 { " …" } else { "" })
        }
    };
    Error::new(Kind::NotFound, named, why).next(":reveal TAG     the digits after •••#")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tag_is_read_with_and_without_its_dots() {
        for line in [":reveal 3f9a", "  :reveal •••#3f9a ", ":reveal #3f9a"] {
            assert_eq!(tag_of(line), Some("3f9a"));
        }
        assert_eq!(tag_of(":reveal"), Some(""));
        for line in [":revealed 3f9a", "reveal 3f9a", "x"] {
            assert_eq!(tag_of(line), None, "{line}");
        }
    }

    #[test]
    fn what_was_typed_instead_of_a_tag_is_not_repeated() {
        let error = unknown("hunter2");
        assert!(!format!("{error:?}").contains("hunter2"));
        assert!(unknown("0000ffff").what.contains("0000ffff"));
    }
}
