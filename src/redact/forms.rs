//! The forms in which programs print a value again: what else must be looked for when a value is secret.

use super::SHORTEST;
use base64::Engine as _;
use base64::engine::general_purpose::{GeneralPurpose, STANDARD_NO_PAD, URL_SAFE_NO_PAD};
use serde_json::Value;

/// The value and its encodings, each once.
pub fn of(value: &str) -> Vec<String> {
    let mut forms: Vec<String> = named(value).into_iter().map(|(_, text)| text).collect();
    forms.sort();
    forms.dedup();
    forms
}

/// The value and its encodings, each with the name of its kind. Forms shorter than [`SHORTEST`] are left out.
pub fn named(value: &str) -> Vec<(&'static str, String)> {
    let bytes = value.as_bytes();
    let mut forms = vec![("as it is", value.to_string())];
    forms.extend((0..3).flat_map(|shift| [&STANDARD_NO_PAD, &URL_SAFE_NO_PAD].map(|kind| shifted(kind, bytes, shift))));
    forms.extend(URL_SAFE.iter().flat_map(|safe| urls(bytes, safe)).map(|text| ("URL", text)));
    forms.extend(jsons(value).map(|text| ("JSON", text)));
    forms.extend(shells(value).map(|text| ("shell", text)));
    forms.push(("hex", bytes.iter().map(|b| format!("{b:02x}")).collect()));
    forms.push(("hex", bytes.iter().map(|b| format!("{b:02X}")).collect()));
    forms.extend(lines(value).map(|line| ("line", line.to_string())));
    forms.retain(|(_, text)| text.len() >= SHORTEST);
    forms
}

/// The lines of a value that has several: programs print them one at a time. A line that many files share is no secret.
fn lines(value: &str) -> impl Iterator<Item = &str> {
    let several = value.lines().nth(1).is_some() || value.trim() != value;
    let telling = |line: &&str| line.len() >= SHORTEST && !line.starts_with("-----") && !super::is_ordinary(line);
    value.lines().map(str::trim).filter(move |line| several && telling(line))
}

/// Base64 of the value when `shift` other bytes stand before it, without the characters that those bytes decide.
fn shifted(engine: &GeneralPurpose, bytes: &[u8], shift: usize) -> (&'static str, String) {
    let mut padded = vec![0; shift];
    padded.extend_from_slice(bytes);
    let text = engine.encode(&padded);
    let skip = [0, 2, 3][shift];
    // The last character also holds bits of whatever follows the value, unless it ends on a full group.
    let keep = (padded.len() * 8) / 6;
    ("base64", text.get(skip..keep).unwrap_or_default().to_string())
}

/// What stays as it is besides letters and digits: RFC 3986, JavaScript's encodeURIComponent, and user names in Go.
const URL_SAFE: &[&[u8]] = &[b"-_.~", b"-_.~!'()*", b"-_.~$&+,;="];

fn urls(bytes: &[u8], safe: &[u8]) -> [String; 3] {
    let stays = |b: u8| b.is_ascii_alphanumeric() || safe.contains(&b);
    let upper: String =
        bytes.iter().map(|&b| if stays(b) { (b as char).to_string() } else { format!("%{b:02X}") }).collect();
    let lower = bytes.iter().map(|&b| if stays(b) { (b as char).to_string() } else { format!("%{b:02x}") }).collect();
    let form = upper.replace("%20", "+");
    [upper, lower, form]
}

fn jsons(value: &str) -> impl Iterator<Item = String> {
    let text = Value::String(value.to_string()).to_string();
    let plain = text[1..text.len() - 1].to_string();
    // Go, and with it Docker, keeps these out of HTML; Python and others write ASCII only; PHP escapes the slash.
    let go = plain.replace('&', r"\u0026").replace('<', r"\u003c").replace('>', r"\u003e");
    let ascii = plain.chars().map(ascii).collect();
    let slashes = plain.replace('/', r"\/");
    [plain, go, ascii, slashes].into_iter()
}

fn ascii(c: char) -> String {
    if c.is_ascii() {
        return c.into();
    }
    c.encode_utf16(&mut [0; 2]).iter().map(|unit| format!("\\u{unit:04x}")).collect()
}

fn shells(value: &str) -> impl Iterator<Item = String> {
    let escape = |special: fn(char) -> bool| {
        value.chars().map(|c| if special(c) { format!("\\{c}") } else { c.to_string() }).collect::<String>()
    };
    let bare = |c: char| c.is_ascii() && !c.is_ascii_alphanumeric() && !"_@%+=:,./-".contains(c);
    [
        value.replace('\'', r"'\''"),
        value.replace('\'', r#"'"'"'"#),
        escape(|c| "\"$`\\".contains(c)),
        escape(|c| "\"$`\\!".contains(c)),
        escape(bare),
    ]
    .into_iter()
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

    #[test]
    fn lines_of_a_key_are_listed_and_its_first_line_is_not() {
        let forms = of("-----BEGIN X-----\nMIIabcdef\n  enabled\n{\n");
        assert!(forms.contains(&"MIIabcdef".to_string()));
        for shared in ["-----BEGIN X-----", "enabled", "{"] {
            assert!(!forms.contains(&shared.to_string()), "{shared}");
        }
    }
}
