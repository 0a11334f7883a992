//! Passwords within the values of variables: in URLs and in connection strings.

use super::shapes::{may_have_token, token_in};
use regex::Regex;
use std::sync::LazyLock;

/// `pass` of `scheme://user:pass@host`, of each URL, a token in place of the user, and of `password=pass` and `Pwd=pass`. A password in a URL comes
/// as it stands there and as its percent signs mean it.
pub fn passwords_in(value: &str) -> Vec<String> {
    let mut found = Vec::new();
    for (at, _) in value.match_indices("://") {
        let rest = &value[at + 3..];
        // A password that was not encoded may hold a slash; one URL may hold another in its query.
        let authority = rest.split(['/', '?', '#', ',', ' ', '\n']).next().unwrap_or_default();
        let may_be = may_have_token(&value.as_bytes()[..at + 3]);
        let login = authority.rsplit_once('@').map(|(login, _)| login).filter(|_| may_be);
        let token = login.and_then(|login| std::str::from_utf8(token_in(login.as_bytes())?).ok());
        found.extend(token.into_iter().flat_map(|token| [token.to_string(), decoded(token)]));
        for part in [rest, authority] {
            let password = part.rsplit_once('@').and_then(|(login, _)| login.split_once(':')).map(|(_, word)| word);
            found.extend(password.into_iter().flat_map(|password| [password.to_string(), decoded(password)]));
        }
    }
    found.extend(PAIR.captures_iter(value).filter_map(|pair| {
        let quoted = pair.get(1).or(pair.get(2))?;
        Some(quoted.as_str().to_string())
    }));
    found
}

static PAIR: LazyLock<Regex> = LazyLock::new(|| {
    Regex::new(r#"(?i)\b(?:password|passwd|pwd)\s*=\s*(?:['"{]([^'"}]+)['"}]|([^\s;&'"]+))"#)
        .expect("the pattern is a constant that a test compiles")
});

/// The text with `%41` as `A`; as it is when that is no text.
fn decoded(text: &str) -> String {
    let bytes = text.as_bytes();
    let (mut out, mut at) = (Vec::new(), 0);
    while let Some(&byte) = bytes.get(at) {
        let digits = bytes.get(at + 1..at + 3).filter(|_| byte == b'%').and_then(|two| std::str::from_utf8(two).ok());
        match digits.and_then(|two| u8::from_str_radix(two, 16).ok()) {
            Some(code) => {
                out.push(code);
                at += 3;
            }
            None => {
                out.push(byte);
                at += 1;
            }
        }
    }
    String::from_utf8(out).unwrap_or_else(|_| text.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn passwords_are_found_in_urls_and_connection_strings() {
        for (value, password) in [
            ("postgres://vrc:open@ses@db:5432/vrc", "open@ses"),
            ("postgres://vrc:p%40ss%2Fw@db/vrc?contact=a@b", "p@ss/w"),
            ("redis://:only-pw@cache:6379/0", "only-pw"),
            ("https://0123456789abcdef@o1.example/7", "0123456789abcdef"),
            ("redis://fedcba9876543210@cache:6379", "fedcba9876543210"),
            ("amqp://u:first@a,amqp://u:second@b", "first"),
            ("amqp://u:first@a,amqp://u:second@b", "second"),
            ("Host=db;Username=u;Password=ado-pw;Pooling=true", "ado-pw"),
            ("host=db user=u password='lib pq'", "lib pq"),
            ("Server=db;Pwd={odbc;pw};", "odbc;pw"),
            ("jdbc:postgresql://db/x?user=u&password=jdbc-pw&ssl=true", "jdbc-pw"),
        ] {
            assert!(passwords_in(value).iter().any(|found| found == password), "{password} in {value}");
        }
        assert!(passwords_in("https://example.org/a:b").is_empty());
    }
}
