//! Everything about turning words into text that a shell, any shell, turns back into the same words. Pure, but for the
//! secrets that [`readable`] hides.

use crate::redact;

/// Longest program text, in bytes, that is sent to a host: Linux takes 128 KiB for one argument, and a longer one
/// fails there with an exit status that looks like the command's own.
pub const LONGEST: usize = 120 * 1024;

/// `word` in single quotes, for POSIX shells.
pub fn quote(word: &str) -> String {
    format!("'{}'", word.replace('\'', r"'\''"))
}

/// A word as a person types it in a shell: as it is where it is plain, quoted otherwise.
pub fn shell_word(word: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || "._/+-@:=,".contains(c);
    if !word.is_empty() && word.chars().all(plain) { word.into() } else { quote(word) }
}

/// All words, each quoted, with spaces between them.
pub fn quote_all(words: &[String]) -> String {
    words.iter().map(|word| quote(word)).collect::<Vec<_>>().join(" ")
}

/// `text` as one line of printable ASCII without quote, backslash or bang of its own; `printf %b` gives `text` back.
///
/// Inside single quotes such a line means the same to bash, dash, zsh, ksh, fish and tcsh.
pub fn encode(text: &str) -> String {
    let mut line = String::with_capacity(text.len() + text.len() / 4);
    for byte in text.bytes() {
        match byte {
            b'\'' | b'\\' | b'!' => octal(&mut line, byte),
            b' '..=b'~' => line.push(char::from(byte)),
            _ => octal(&mut line, byte),
        }
    }
    line
}

fn octal(line: &mut String, byte: u8) {
    line.push_str("\\0");
    for shift in [6, 3, 0] {
        line.push(char::from(b'0' + ((byte >> shift) & 7)));
    }
}

/// The command line that makes any login shell run `script` under `sh`, with the script's text in `$opsh_c`.
///
/// The dot guards newlines at the end, which `$(…)` would drop.
pub fn armour(script: &str) -> String {
    format!(r#"exec sh -c 'opsh_c=$(printf %b. "$1"); eval "${{opsh_c%.}}"' opsh '{}'"#, encode(script))
}

/// The same with two more words, `$2` and `$3` of the `sh`; they consist of letters and digits.
pub fn armour_with(script: &str, [second, third]: &[String; 2]) -> String {
    format!("{} {second} {third}", armour(script))
}

/// Why `words` cannot be run as they are, if so.
pub fn refuse_words(words: &[String]) -> Option<String> {
    let Some(first) = words.first() else { return Some("there is no word to run".into()) };
    if first.is_empty() || first.starts_with('-') {
        return Some(format!("the program's name is {first:?}: a name that is empty or starts with - is not run"));
    }
    words.iter().find(|word| word.contains('\0')).map(|word| format!("the word {word:?} contains a NUL byte"))
}

/// Why a variable with this name and value cannot be set, if so. The value is not part of the answer.
pub fn refuse_variable(name: &str, value: &str) -> Option<String> {
    let letter = |c: char| c.is_ascii_alphabetic() || c == '_';
    if !name.starts_with(letter) || !name.chars().all(|c| letter(c) || c.is_ascii_digit()) {
        return Some(format!("{name:?} is not a name that an environment variable can have"));
    }
    value.contains('\0').then(|| format!("the value of {name} contains a NUL byte"))
}

/// Words as a person reads them: quoted where they would look like others, or like more words than there are. Secrets are
/// hidden before that: the quotes of a shell within a quoted word are no quotes to who looks for one.
pub fn readable(words: &[String]) -> String {
    let is_plain = |c: char| c.is_alphanumeric() || "_@%+=:,./-{}~^".contains(c);
    let one = |word: &String| match word {
        word if !word.is_empty() && word.replace(redact::MARK, "").chars().all(is_plain) => word.clone(),
        word if word.contains('\'') && !word.contains(['"', '$', '`', '\\', '!', '\n']) => format!("\"{word}\""),
        word => quote(word),
    };
    redact::clean_words(words).iter().map(one).collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests {
    use super::super::test_quoting::Dice;
    use super::*;
    use std::process::Command;

    fn printed_by(shell: &[&str], line: &str) -> Vec<u8> {
        let mut command = Command::new(shell[0]);
        command.args(&shell[1..]).arg(line).output().unwrap().stdout
    }

    #[test]
    fn readable_words_can_be_told_apart() {
        let of = |words: &[&str]| readable(&words.iter().map(|word| word.to_string()).collect::<Vec<_>>());
        assert_eq!(of(&["rm", "-rf", "a b"]), "rm -rf 'a b'");
        assert_eq!(of(&["rm", "-rf", "a", "b"]), "rm -rf a b");
        assert_eq!(of(&["echo", "", "it's", "$X"]), "echo '' \"it's\" '$X'");
        assert_eq!(of(&["docker", "ps", "--format={{.Names}}"]), "docker ps --format={{.Names}}");
    }

    #[test]
    fn a_secret_in_a_word_is_hidden_before_the_word_is_quoted() {
        let of = |words: &[&str]| readable(&words.iter().map(|word| word.to_string()).collect::<Vec<_>>());
        for words in [
            &["isql", "-c", "ALTER ROLE app PASSWORD 'LEAK-1'"][..],
            &["sh", "-c", "mysql -p'LEAK-1'"],
            &["x", "--password", "it's-LEAK"],
            &["docker", "run", "-e", "DB_PASSWORD=a&b LEAK"],
        ] {
            // The screen hides what is secret in the line once more.
            let line = redact::clean(&of(words));
            assert!(!line.contains("LEAK"), "{line}");
        }
        let line = redact::clean(&of(&["isql", "-c", "ALTER ROLE app PASSWORD 'old-1'"]));
        assert!(line.starts_with("isql -c \"ALTER ROLE app PASSWORD '•••#") && line.ends_with("'\""), "{line}");
    }

    #[test]
    fn two_hundred_random_words_survive_every_shell() {
        let mut dice = Dice::new(0x5eed);
        let words: Vec<String> = (0..200).map(|_| dice.word()).collect();
        let expected: Vec<u8> = words.iter().flat_map(|word| [word.as_bytes(), b"\0"].concat()).collect();
        let script = format!("exec printf '%s\\0' {}", quote_all(&words));
        let shells: [&[&str]; 6] = [
            &["dash", "-c"],
            &["bash", "-c"],
            &["busybox", "sh", "-c"],
            &["fish", "-c"],
            &["tcsh", "-c"],
            &["zsh", "-c"],
        ];
        for shell in shells {
            if Command::new(shell[0]).arg("-c").arg("true").output().is_err() {
                // zsh is welcome, the others are promised.
                if shell[0] != "zsh" {
                    crate::bind::ssh::tests::skip(&format!("no {}", shell[0]));
                }
                continue;
            }
            assert_eq!(printed_by(shell, &armour(&script)), expected, "{shell:?} changed the armoured words");
            if !["fish", "tcsh"].contains(&shell[0]) {
                assert_eq!(printed_by(shell, &script), expected, "{shell:?} changed the quoted words");
            }
        }
    }

    #[test]
    fn what_cannot_be_a_word_or_a_variable_is_refused_with_the_reason() {
        assert!(refuse_words(&[]).is_some_and(|why| why.contains("no word")));
        assert!(refuse_words(&["-c".into()]).is_some_and(|why| why.contains("starts with -")));
        assert!(refuse_words(&["a".into(), "b\0c".into()]).is_some_and(|why| why.contains("NUL")));
        assert_eq!(refuse_words(&["a".into(), "".into()]), None);
        assert!(refuse_variable("A B", "x").is_some());
        assert!(refuse_variable("1A", "x").is_some());
        assert!(refuse_variable("A", "se\0cret").is_some_and(|why| !why.contains("cret")));
        assert_eq!(refuse_variable("PGPASSWORD", "x"), None);
    }

    #[test]
    fn what_a_person_types_is_quoted_only_where_a_shell_would_read_it() {
        assert_eq!(shell_word("origin/feature-1"), "origin/feature-1");
        assert_eq!(
            (shell_word(""), shell_word("a b"), shell_word("$(id)")),
            ("''".into(), "'a b'".into(), "'$(id)'".into())
        );
    }
}
