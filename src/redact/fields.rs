//! Texts that announce a secret besides `NAME=`: fields of INI, TOML, YAML and XML, options, headers, files of logins. And
//! which values under such a name are ordinary: operators must read `token_count: 5` and `password: expired`.

/// Where a value ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ends {
    /// With its line.
    Line,
    /// With its line, a comma or a bracket.
    Flow,
    /// With a blank.
    Blank,
    /// With this quote.
    Quote(u8),
    /// With a tag.
    Tag,
}

/// How sure it is that the value is a secret.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sure {
    /// Whatever it is.
    Always,
    /// Unless it is a sentence, an ordinary word, a placeholder or a small number.
    UnlessOrdinary,
    /// Only as `user:password` in base64.
    IfLogin,
    /// When it is `user:password`.
    IfPair,
}

/// The field that the last byte of `context` announces, as [`super::shapes`] asks for each byte; `is_secret` says whether a name is one of a secret.
pub fn announced(context: &[u8], is_secret: &dyn Fn(&[u8]) -> bool) -> Option<(Ends, Sure)> {
    let (&last, before) = context.split_last()?;
    let counts = |name: &[u8]| is_secret(name) && !is_measure(name);
    match last {
        b'=' => assigned(before, &counts),
        b' ' | b'\t' => spaced(before, &counts),
        b'\'' | b'"' => quoted(before, last, &counts),
        b'>' => {
            let name = name(before);
            (before[..before.len() - name.len()].ends_with(b"<") && counts(name)).then_some((Ends::Tag, Sure::Always))
        }
        b':' if is_cookie(before) => Some((cookie_ends(before), Sure::Always)),
        b':' => is_pgpass(line(before)).then_some((Ends::Line, Sure::Always)),
        b'p' | b'a' | b'u' if before.ends_with(b" -") => {
            short(&String::from_utf8_lossy(line(before)), last).map(|sure| (Ends::Blank, sure))
        }
        _ => None,
    }
}

/// What stands behind an option of one letter in a line that names one of these programs.
pub fn short(line: &str, letter: u8) -> Option<Sure> {
    let names = |programs: &[&str]| programs.iter().any(|program| line.contains(program));
    match letter {
        b'p' if names(&["mysql", "mariadb", "sshpass"]) => Some(Sure::Always),
        b'a' if names(&["redis-cli", "valkey-cli"]) => Some(Sure::Always),
        b'u' if names(&["curl"]) => Some(Sure::IfPair),
        _ => None,
    }
}

/// True for an entry of a map whose name is that of a header with a secret, or of a login.
pub fn is_entry(name: &str, value: &str) -> bool {
    let is_cookie = ["cookie", "set-cookie"].iter().any(|one| name.eq_ignore_ascii_case(one));
    let is_all = is_header(name.as_bytes()) || is_cookie;
    !value.is_empty() && (is_all || (name.eq_ignore_ascii_case("auth") && !is_ordinary(value)))
}

/// `NAME =`, `;PWD=`, `?key=`.
fn assigned(before: &[u8], counts: &dyn Fn(&[u8]) -> bool) -> Option<(Ends, Sure)> {
    let trimmed = before.trim_ascii_end();
    // A key of Ruby, PHP or Perl is quoted: `'NAME' => `.
    let trimmed = trimmed.strip_suffix(b"'").or(trimmed.strip_suffix(b"\"")).unwrap_or(trimmed);
    let name = name(trimmed);
    let behind = trimmed[..trimmed.len() - name.len()].last().copied();
    let is = |names: &[&str]| names.iter().any(|one| name.eq_ignore_ascii_case(one.as_bytes()));
    if trimmed.len() == before.len() {
        let query = matches!(behind, Some(b'?' | b'&'))
            && is(&[
                "key",
                "sig",
                "signature",
                "auth",
                "pass",
                "pwd",
                "session",
                "sid",
                "x-amz-signature",
                "x-goog-signature",
            ]);
        let connection = name == b"Pwd" || (behind == Some(b';') && is(&["pwd"]));
        return if query { Some((Ends::Flow, Sure::Always)) } else { connection.then_some((Ends::Flow, Sure::Always)) };
    }
    if before[trimmed.len()..].contains(&b'\n') || !counts(name) {
        return None;
    }
    Some((if begins_line(trimmed, name) { Ends::Line } else { Ends::Blank }, Sure::Always))
}

/// `NAME: `, `--NAME `, `password ` of a .netrc.
fn spaced(before: &[u8], counts: &dyn Fn(&[u8]) -> bool) -> Option<(Ends, Sure)> {
    if let Some(text) = before.strip_suffix(b":") {
        let name = name(text);
        let flow = text[..text.len() - name.len()].trim_ascii_end().last().is_some_and(|b| b"{,".contains(b));
        let ends = match (begins_line(text, name), flow) {
            (true, _) => Ends::Line,
            (_, true) => Ends::Flow,
            _ => return None,
        };
        return counts(name).then_some((ends, Sure::UnlessOrdinary));
    }
    let name = name(before);
    // A Dockerfile, and the history of an image.
    if [&b"ENV "[..], b"ARG "].iter().any(|word| before[..before.len() - name.len()].ends_with(word)) && counts(name) {
        return Some((Ends::Line, Sure::Always));
    }
    if name.starts_with(b"--") {
        return counts(name).then_some((Ends::Blank, Sure::UnlessOrdinary));
    }
    let netrc = name == b"password" && [&b"machine "[..], b"login "].iter().all(|word| holds(before, word));
    netrc.then_some((Ends::Blank, Sure::Always))
}

/// `'NAME': '`, `"--NAME", "`, `"auth": "`, `PASSWORD '`.
fn quoted(before: &[u8], quote: u8, counts: &dyn Fn(&[u8]) -> bool) -> Option<(Ends, Sure)> {
    let key = |separator: &[u8]| {
        let key = before.trim_ascii_end().strip_suffix(separator)?.trim_ascii_end().strip_suffix(&[quote])?;
        let name = name(key);
        key[..key.len() - name.len()].ends_with(&[quote]).then_some(name)
    };
    if let Some(name) = key(b":") {
        if name == b"auth" {
            return Some((Ends::Quote(quote), Sure::IfLogin));
        }
        let cookie = ["cookie", "set-cookie"].iter().any(|one| name.eq_ignore_ascii_case(one.as_bytes()));
        return (cookie || (quote == b'\'' && counts(name))).then_some((Ends::Quote(quote), Sure::Always));
    }
    if let Some(name) = key(b",") {
        return (name.starts_with(b"--") && counts(name)).then_some((Ends::Quote(quote), Sure::UnlessOrdinary));
    }
    let lower = before[before.len().saturating_sub(16)..].to_ascii_lowercase();
    let sql = quote == b'\'' && [&b"password "[..], b"identified by "].iter().any(|words| lower.ends_with(words));
    sql.then_some((Ends::Quote(quote), Sure::Always))
}

/// True for the option of a program whose next word is a secret: `--password`.
pub fn is_option(word: &str) -> bool {
    let name = word.as_bytes();
    word.starts_with("--")
        && self::name(name).len() == name.len()
        && super::names::is_secret_name_in_text(word)
        && !is_measure(name)
}

/// Names of headers that hold a secret.
pub fn is_header(name: &[u8]) -> bool {
    let name = name.to_ascii_lowercase();
    let listed: &[&[u8]] = &[
        b"authorization",
        b"proxy-authorization",
        b"private-token",
        b"job-token",
        b"deploy-token",
        b"api-key",
        b"apikey",
    ];
    let ends: &[&[u8]] = &[b"-token", b"-key", b"-secret", b"-password", b"-auth", b"-authorization", b"-signature"];
    listed.contains(&name.as_slice()) || (name.starts_with(b"x-") && ends.iter().any(|end| name.ends_with(end)))
}

fn is_cookie(before: &[u8]) -> bool {
    let name = name(before);
    ["cookie", "set-cookie"].iter().any(|one| name.eq_ignore_ascii_case(one.as_bytes()))
}

/// A header that is a quoted word of a command ends with its quote.
fn cookie_ends(before: &[u8]) -> Ends {
    let open = before[..before.len() - name(before).len()].last();
    open.filter(|b| b"'\"".contains(b)).map_or(Ends::Line, |quote| Ends::Quote(*quote))
}

/// `host:port:database:user`.
fn is_pgpass(line: &[u8]) -> bool {
    let fields: Vec<&[u8]> = line.split(|b| *b == b':').collect();
    let [host, port, database, user] = fields[..] else { return false };
    let is_port = port == b"*" || (!port.is_empty() && port.iter().all(u8::is_ascii_digit));
    is_port
        && [host, database, user].iter().all(|field| !field.is_empty() && !field.iter().any(u8::is_ascii_whitespace))
}

/// The name that the text ends with.
fn name(text: &[u8]) -> &[u8] {
    let is_name = |b: &&u8| b.is_ascii_alphanumeric() || b"_-.".contains(b);
    let length = text.iter().rev().take_while(is_name).count();
    &text[text.len() - length..]
}

/// The last line of the text.
pub fn line(text: &[u8]) -> &[u8] {
    text.rsplit(|b| *b == b'\n' || *b == b'\r').next().unwrap_or_default()
}

/// Whether the name is the first word of its line, behind what lists, changes and shells have there.
fn begins_line(text: &[u8], name: &[u8]) -> bool {
    let line = line(text);
    let before = &line[..line.len() - name.len()];
    let before = before.strip_suffix(b"export ").unwrap_or(before);
    before.iter().all(|b| b.is_ascii_whitespace() || b"-+\"'".contains(b) || !b.is_ascii())
}

fn holds(text: &[u8], part: &[u8]) -> bool {
    text.windows(part.len()).any(|window| window == part)
}

/// A name that says how many, how long or which, and holds no secret: `token_count`, `tokens`, `secret_name`.
fn is_measure(name: &[u8]) -> bool {
    const LAST: &[&str] = &[
        "age",
        "algorithm",
        "at",
        "count",
        "enabled",
        "expires",
        "expiry",
        "field",
        "file",
        "format",
        "id",
        "ids",
        "in",
        "index",
        "interval",
        "len",
        "length",
        "limit",
        "max",
        "min",
        "name",
        "names",
        "path",
        "policy",
        "prompt",
        "rate",
        "ref",
        "required",
        "rotation",
        "size",
        "source",
        "state",
        "status",
        "store",
        "timeout",
        "total",
        "ttl",
        "type",
        "uri",
        "url",
        "usage",
        "used",
        "version",
    ];
    const ENDS: &[&str] =
        &["tokens", "passwords", "secrets", "keys", "credentials", "webhooks", "count", "length", "expiry"];
    let lower = String::from_utf8_lossy(name).to_ascii_lowercase();
    let last = lower.rsplit(['_', '-', '.']).next().unwrap_or_default();
    (last.len() < lower.len() && LAST.contains(&last)) || ENDS.iter().any(|end| lower.ends_with(end))
}

/// A value that is no secret although it stands where one may stand.
pub fn is_ordinary(value: &str) -> bool {
    const WORDS: &[&str] = &[
        "absent",
        "accepted",
        "active",
        "authentication",
        "bad",
        "changed",
        "configured",
        "correct",
        "default",
        "denied",
        "disabled",
        "empty",
        "enabled",
        "expired",
        "expires",
        "failed",
        "false",
        "file",
        "found",
        "generated",
        "hidden",
        "incorrect",
        "invalid",
        "key",
        "missing",
        "mismatch",
        "new",
        "nil",
        "no",
        "none",
        "not",
        "null",
        "off",
        "ok",
        "old",
        "on",
        "optional",
        "password",
        "present",
        "prompt",
        "read",
        "received",
        "redacted",
        "refreshed",
        "rejected",
        "removed",
        "required",
        "revoked",
        "rotated",
        "secret",
        "sent",
        "set",
        "skipped",
        "string",
        "token",
        "true",
        "unchanged",
        "undefined",
        "unknown",
        "unset",
        "updated",
        "used",
        "valid",
        "value",
        "verified",
        "wrong",
        "yes",
    ];
    let word = value.trim_end_matches(['.', ',', ';', '!', '?', ':']);
    let lower = word.to_ascii_lowercase();
    let placeholder = ["<", "${", "$(", "{{", "[", "|", ">", "!", "*", "&", "-"]
        .iter()
        .any(|start| word.starts_with(start))
        || (word.len() > 1 && word.starts_with('$') && word[1..].bytes().all(|b| b.is_ascii_uppercase() || b == b'_'));
    // Where opsh takes a secret from is none.
    let source = ["env:", "file:", "cmd:", "prompt:"].iter().any(|start| word.starts_with(start));
    let digits = word.len() < 9 && word.bytes().all(|b| b.is_ascii_digit() || b == b'.');
    word.is_empty() || digits || placeholder || source || WORDS.contains(&lower.as_str()) || value.contains([' ', '\t'])
}

/// True for `user:password` in base64, as Docker's config.json has it.
pub fn is_login(value: &[u8]) -> bool {
    use base64::Engine as _;
    let text = base64::engine::general_purpose::STANDARD_NO_PAD
        .decode(value.trim_ascii_end().strip_suffix(b"==").unwrap_or(value.strip_suffix(b"=").unwrap_or(value)));
    text.is_ok_and(|text| {
        text.iter().position(|b| *b == b':').is_some_and(|at| at > 0) && std::str::from_utf8(&text).is_ok()
    })
}

/// True for `user:password`; with a `$` in it, somebody else puts it there.
pub fn is_pair(value: &[u8]) -> bool {
    value.iter().position(|b| *b == b':').is_some_and(|at| at + 1 < value.len()) && !value.contains(&b'$')
}

#[cfg(test)]
mod tests {
    use crate::redact::shapes::Shapes;

    fn whole(text: &str) -> String {
        let (mut shapes, mut out) = (Shapes::default(), Vec::new());
        let mark = |value: &str| format!("<{value}>");
        shapes.feed(text.as_bytes(), &mut out, &mark);
        shapes.end(&mut out, &mark);
        String::from_utf8(out).expect("text")
    }

    #[test]
    fn each_field_hides_the_secret_and_nothing_else() {
        for (text, shown) in [
            ("password = hunter2\nuser = a", "password = <hunter2>\nuser = a"),
            ("[db]\ndb_password = \"hun ter\" # old", "[db]\ndb_password = \"<hun ter>\" # old"),
            ("password = two words ; note\n", "password = <two words> ; note\n"),
            ("host=db password = hunter2 user = b", "host=db password = <hunter2> user = b"),
            ("'password' => 'hunter2',", "'password' => '<hunter2>',"),
            ("password: hunter2\nuser: a", "password: <hunter2>\nuser: a"),
            ("  db_password: \"hun ter\"\n", "  db_password: \"<hun ter>\"\n"),
            ("- api_key: 'k3y-value'  # note\n", "- api_key: '<k3y-value>'  # note\n"),
            ("{user: a, password: hunter2}", "{user: a, password: <hunter2>}"),
            ("Login { user: \"a\", password: \"hunter2\" }", "Login { user: \"a\", password: \"<hunter2>\" }"),
            ("psql --password hunter2 -h db", "psql --password <hunter2> -h db"),
            ("x --token=abc.d --y", "x --token=<abc.d> --y"),
            ("[\"--api-key\", \"k3y\", \"-v\"]", "[\"--api-key\", \"<k3y>\", \"-v\"]"),
            ("mysqldump -u root -phunter2 db", "mysqldump -u root -p<hunter2> db"),
            ("Cookie: sid=abc; theme=dark\r\nHost: x", "Cookie: <sid=abc; theme=dark>\r\nHost: x"),
            ("set-cookie: sid=abc; Path=/\n", "set-cookie: <sid=abc; Path=/>\n"),
            ("curl -H 'Cookie: sid=abc; b=c' http://x", "curl -H 'Cookie: <sid=abc; b=c>' http://x"),
            ("X-Vault-Token: hvs.abc\n", "X-Vault-Token: <hvs.abc>\n"),
            ("X-Api-Key: abc\nX-Amz-Security-Token: d\n", "X-Api-Key: <abc>\nX-Amz-Security-Token: <d>\n"),
            ("Proxy-Authorization: Basic YWJj", "Proxy-Authorization: Basic <YWJj>"),
            ("Server=db;UID=sa;PWD=abc;Pooling=1", "Server=db;UID=sa;PWD=<abc>;Pooling=1"),
            ("Server=db;Pwd=abc;", "Server=db;Pwd=<abc>;"),
            ("https://x/y?key=abc&page=2", "https://x/y?key=<abc>&page=2"),
            ("db.example:5432:vrc:u:hunter2\n*:*:*:u:x y\n", "db.example:5432:vrc:u:<hunter2>\n*:*:*:u:<x y>\n"),
            ("machine h\n  login u\n  password hunter2\n", "machine h\n  login u\n  password <hunter2>\n"),
            ("\"auths\":{\"r\":{\"auth\":\"dTpwdw==\"}}", "\"auths\":{\"r\":{\"auth\":\"<dTpwdw==>\"}}"),
            ("{'password': 'hunter2', 'a': 1}", "{'password': '<hunter2>', 'a': 1}"),
            ("<db_password>hunter2</db_password>", "<db_password><hunter2></db_password>"),
            ("ALTER ROLE a PASSWORD 'hunter2';", "ALTER ROLE a PASSWORD '<hunter2>';"),
        ] {
            assert_eq!(whole(text), shown);
        }
    }

    #[test]
    fn fields_that_say_how_many_or_how_are_shown() {
        for text in [
            "token_count: 5\n",
            "tokens: 4096\n",
            "passwords: 3 changed\n",
            "max_tokens = 100\n",
            "password: expired\n",
            "token: not found in header\n",
            "password authentication failed for user \"x\"\n",
            "FATAL:  password authentication failed for user \"vrcshift\"\n",
            "secret_name: db-credentials\n",
            "password_file = /run/x\n",
            "access_token_expires_in: 3600\n",
            "if token == expected { ok }\n",
            "Usage: login <user> <password>\n",
            "  --password string   the password\n",
            "  --token <TOKEN>\n",
            "psql --password -h db\n",
            "error: password: invalid length\n",
            "password: ${DB_PASSWORD:?}\n",
            "src/a.rs:12:5: error: x\n",
            "root:x:0:0:root:/root:/bin/bash\n",
            "10.0.0.1:5432 -> 10.0.0.2:80\n",
            "\"auth\": \"none\"",
            "ls -p\n",
            "cd /;PWD\n",
            "session key exchange: curve25519\n",
        ] {
            assert_eq!(whole(text), text);
        }
    }
}
