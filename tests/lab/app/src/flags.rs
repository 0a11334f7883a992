//! Go's `flag` package, as far as `/app/migrate` uses it: `-x v`, `-x=v`, `--x` alike; the first word
//! that is not a flag ends the flags, and whatever follows is silently left alone.

#[derive(Debug, PartialEq, Eq)]
pub struct Flags {
    pub action: String,
    pub steps: i64,
}

#[derive(Debug, PartialEq, Eq)]
pub enum Stop {
    Help,
    Wrong(String),
}

pub fn parse(words: &[String]) -> Result<Flags, Stop> {
    let mut flags = Flags { action: "up".into(), steps: 0 };
    let mut rest = words.iter();
    while let Some(word) = rest.next() {
        if word.len() < 2 || !word.starts_with('-') || word == "--" {
            break;
        }
        let name = word.strip_prefix("--").unwrap_or(&word[1..]);
        if name.is_empty() || name.starts_with('-') || name.starts_with('=') {
            return Err(Stop::Wrong(format!("bad flag syntax: {word}")));
        }
        let (name, inline) = match name.split_once('=') {
            Some((n, v)) => (n, Some(v.to_string())),
            None => (name, None),
        };
        if !matches!(name, "action" | "steps") {
            return Err(match name {
                "h" | "help" => Stop::Help,
                _ => Stop::Wrong(format!("flag provided but not defined: -{name}")),
            });
        }
        let Some(value) = inline.or_else(|| rest.next().cloned()) else {
            return Err(Stop::Wrong(format!("flag needs an argument: -{name}")));
        };
        if name == "action" {
            flags.action = value;
        } else {
            let parsed = value.parse::<i64>();
            flags.steps =
                parsed.map_err(|_| Stop::Wrong(format!("invalid value {value:?} for flag -steps: parse error")))?;
        }
    }
    Ok(flags)
}

pub fn usage(program: &str) -> String {
    format!(
        "Usage of {program}:\n  -action string\n    \tMigration action: up, down, status (default \"up\")\n  \
         -steps int\n    \tNumber of migrations to run (0 = all)\n"
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn p(line: &str) -> Result<Flags, Stop> {
        parse(&line.split_whitespace().map(String::from).collect::<Vec<_>>())
    }

    fn flags(action: &str, steps: i64) -> Result<Flags, Stop> {
        Ok(Flags { action: action.into(), steps })
    }

    #[test]
    fn both_dashes_and_both_ways_to_give_a_value() {
        assert_eq!(p("-action=down -steps=2"), flags("down", 2));
        assert_eq!(p("--action down --steps 2"), flags("down", 2));
        assert_eq!(p("-steps=-1"), flags("up", -1));
    }

    #[test]
    fn a_plain_word_ends_the_flags() {
        assert_eq!(p("down 1"), flags("up", 0));
        assert_eq!(p("-steps=1 down -action=down"), flags("up", 1));
        assert_eq!(p("- -action=down"), flags("up", 0));
        assert_eq!(p("-- -action=down"), flags("up", 0));
    }

    #[test]
    fn wrong_words() {
        assert_eq!(p("-n 1"), Err(Stop::Wrong("flag provided but not defined: -n".into())));
        assert_eq!(p("-steps"), Err(Stop::Wrong("flag needs an argument: -steps".into())));
        assert_eq!(p("-steps=x"), Err(Stop::Wrong("invalid value \"x\" for flag -steps: parse error".into())));
        assert_eq!(p("---x"), Err(Stop::Wrong("bad flag syntax: ---x".into())));
        assert_eq!(p("-h"), Err(Stop::Help));
    }
}
