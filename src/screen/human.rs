//! Times in the configured zone, durations and sizes, as a person reads them. What a number is, its name says: `age_s`,
//! `took_ms`, `free_bytes`. Values stay as they are; only what is shown of them is worded.

use jiff::Timestamp;
use jiff::tz::TimeZone;
use serde_json::Value;

/// The zone that times are shown in.
pub struct Zone(TimeZone);

impl Zone {
    /// That of this machine.
    pub fn system() -> Zone {
        Zone(TimeZone::system())
    }

    /// By its IANA name: `Asia/Tokyo`.
    pub fn named(name: &str) -> Result<Zone, String> {
        TimeZone::get(name).map(Zone).map_err(|_| format!("\"{name}\" is no IANA time zone such as \"Asia/Tokyo\""))
    }

    /// `2026-11-24 15:17:43 JST`.
    pub fn time(&self, at: Timestamp) -> String {
        at.to_zoned(self.0.clone()).strftime("%Y-%m-%d %H:%M:%S %Z").to_string()
    }

    /// An RFC 3339 time, to the minute: `2026-11-24 15:17 JST`; any other text as it is.
    pub fn minute(&self, text: &str) -> String {
        match stamp(text) {
            Some(at) => at.to_zoned(self.0.clone()).strftime("%Y-%m-%d %H:%M %Z").to_string(),
            None => text.into(),
        }
    }

    /// The time of a line of a log, to the second: `2026-11-24T15:17:43+09:00`. What else it is known to helps nobody
    /// who reads.
    pub fn of_line(&self, text: &str) -> String {
        let Some(at) = stamp(text) else { return text.into() };
        let at = at.to_zoned(self.0.clone());
        let offset = if at.offset().is_zero() { "Z".into() } else { at.strftime("%:z").to_string() };
        format!("{}{offset}", at.strftime("%Y-%m-%dT%H:%M:%S"))
    }

    /// What a value named `key` is for a person, when it is a time, a duration or a size.
    pub fn word(&self, key: &str, value: &Value) -> Option<String> {
        match value {
            Value::String(text) => stamp(text).map(|at| self.time(at)),
            Value::Number(number) => quantity(key, number.as_f64()?),
            _ => None,
        }
    }
}

/// A text that is an RFC 3339 time and nothing else.
fn stamp(text: &str) -> Option<Timestamp> {
    let is_one = text.len() >= 20 && text.as_bytes()[4] == b'-' && text.as_bytes()[10] == b'T';
    is_one.then(|| text.parse().ok()).flatten()
}

fn quantity(key: &str, amount: f64) -> Option<String> {
    let key = key.to_ascii_lowercase();
    if !amount.is_finite() || amount < 0.0 {
        return None;
    }
    if key.ends_with("_ms") {
        return Some(if amount < 1000.0 { format!("{amount} ms") } else { span(amount / 1000.0) });
    }
    if key.ends_with("_s") {
        return Some(span(amount));
    }
    (key == "bytes" || key.ends_with("_bytes")).then(|| size(amount))
}

/// Seconds in the two greatest units that they have: `0.4 s`, `12 s`, `3 min 5 s`, `1 h 15 min`.
pub fn span(seconds: f64) -> String {
    if seconds < 10.0 && seconds.fract() != 0.0 {
        return format!("{seconds:.1} s");
    }
    let whole = seconds.round() as u64;
    let two = |great: u64, name: &str, small: u64, less: &str| match whole % great / small {
        0 => format!("{} {name}", whole / great),
        rest => format!("{} {name} {rest} {less}", whole / great),
    };
    match whole {
        ..60 => format!("{whole} s"),
        60..3600 => two(60, "min", 1, "s"),
        3600..86400 => two(3600, "h", 60, "min"),
        _ => two(86400, "d", 3600, "h"),
    }
}

/// Bytes in the greatest unit of 1024 that they have.
fn size(bytes: f64) -> String {
    const UNITS: [&str; 5] = ["KiB", "MiB", "GiB", "TiB", "PiB"];
    if bytes < 1024.0 {
        return format!("{bytes} B");
    }
    let mut amount = bytes / 1024.0;
    let mut unit = 0;
    // What would be rounded to 1024 is one of the next unit.
    while amount >= 1023.95 && unit + 1 < UNITS.len() {
        amount /= 1024.0;
        unit += 1;
    }
    format!("{amount:.1} {}", UNITS[unit])
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn tokyo() -> Zone {
        Zone::named("Asia/Tokyo").expect("a zone")
    }

    #[test]
    fn times_are_in_the_zone_and_say_which() {
        let at = json!("2026-11-24T17:00:05.678Z");
        assert_eq!(tokyo().word("at", &at).as_deref(), Some("2026-11-25 02:00:05 JST"));
        // The hour that a change of clocks repeats is told apart.
        let berlin = Zone::named("Europe/Berlin").expect("a zone");
        for (text, shown) in [("2026-10-25T00:30:00Z", "02:30 CEST"), ("2026-10-25T01:30:00Z", "02:30 CET")] {
            assert_eq!(berlin.minute(text), format!("2026-10-25 {shown}"));
        }
        assert_eq!(tokyo().of_line("2026-11-24T17:00:05.678Z"), "2026-11-25T02:00:05+09:00");
        assert_eq!(Zone::named("UTC").expect("a zone").of_line("2026-11-24T17:00:05.678Z"), "2026-11-24T17:00:05Z");
        assert!(Zone::named("Tokyo/Asia").is_err());
    }

    #[test]
    fn what_is_no_time_stays_as_it_is() {
        for text in [
            "",
            "2026-11-24",
            "2026-11-24T17",
            "v1.2",
            "2026-13-24T17:00:05Z",
            "at 2026-11-24T17:00:05Z",
            "日本語日本語日本語",
        ] {
            assert_eq!(tokyo().word("at", &json!(text)), None, "{text}");
            assert_eq!(tokyo().minute(text), text);
        }
    }

    #[test]
    fn the_name_says_what_a_number_is() {
        for (key, value, shown) in [
            ("took_ms", json!(12), "12 ms"),
            ("took_ms", json!(1500), "1.5 s"),
            ("age_s", json!(59), "59 s"),
            ("age_s", json!(3599), "59 min 59 s"),
            ("age_s", json!(3600), "1 h"),
            ("age_s", json!(200_000), "2 d 7 h"),
            ("free_bytes", json!(1023), "1023 B"),
            ("bytes", json!(1_048_575), "1.0 MiB"),
            ("SIZE_BYTES", json!(5_368_709_120u64), "5.0 GiB"),
        ] {
            assert_eq!(tokyo().word(key, &value).as_deref(), Some(shown), "{key}");
        }
        for (key, value) in [("inodes", json!(1024)), ("pids", json!(7)), ("age_s", json!(-1)), ("age_s", json!("x"))] {
            assert_eq!(tokyo().word(key, &value), None, "{key}");
        }
    }
}
