//! A script's header: the `//!` lines at its top. It is the script's `--help`, and its `usage:` line is what the
//! arguments are checked against before anything runs.

use crate::bind::world::Args;
use crate::error::{Error, Kind, Result, suggestion};

/// The header taken apart.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Header {
    /// Every line, without the `//!`.
    pub text: String,
    /// What follows `usage:`.
    pub usage: String,
    /// It says `exit: plugin`: its exit code is a monitoring plugin's.
    pub is_plugin: bool,
    /// Names of the words that must be there.
    required: Vec<String>,
    /// Names of the words that may be there; one that ends in `…` takes any number.
    optional: Vec<String>,
    /// Options that take a value.
    options: Vec<String>,
    /// Options that take none.
    flags: Vec<String>,
}

impl Header {
    /// Reads the header of a script.
    pub fn parse(script: &str) -> Header {
        let script = script.strip_prefix('\u{feff}').unwrap_or(script);
        let lines = script.lines().skip_while(|line| line.starts_with("#!")).map_while(|line| line.strip_prefix("//!"));
        let text = lines.map(|line| line.strip_prefix(' ').unwrap_or(line)).collect::<Vec<_>>().join("\n");
        let after = |key: &str| text.lines().find_map(|line| line.trim().strip_prefix(key)).unwrap_or("").trim();
        let (usage, is_plugin) = (after("usage:").to_string(), after("exit:").starts_with("plugin"));
        let mut header = Header { text, usage: usage.clone(), is_plugin, ..Header::default() };
        // `opsh` and the script's own path come first.
        for item in items(&usage).into_iter().skip(2) {
            header.add(&item);
        }
        header
    }

    fn add(&mut self, item: &str) {
        let optional = item.starts_with('[');
        let item = item.trim_start_matches('[').trim_end_matches(']').trim();
        match item.strip_prefix("--").map(|rest| rest.split_once(' ').unwrap_or((rest, ""))) {
            Some((name, "")) => self.flags.push(name.into()),
            Some((name, _)) => self.options.push(name.into()),
            None if optional => self.optional.push(item.into()),
            None => self.required.push(item.into()),
        }
    }

    /// True when it takes `--name VALUE`.
    pub fn has_option(&self, name: &str) -> bool {
        self.options.iter().any(|known| known == name)
    }

    /// Name of the first word that is no option.
    pub fn first_word(&self) -> Option<&str> {
        self.required.first().or(self.optional.first()).map(String::as_str)
    }

    /// The help text.
    pub fn help(&self, script: &str) -> String {
        if self.text.is_empty() { format!("{script} has no header (//! lines at its top)") } else { self.text.clone() }
    }

    /// Sorts `argv` into words, options and flags; what the usage line does not know is an error.
    pub fn check(&self, script: &str, argv: &[String]) -> Result<Args> {
        let mut args = Args { script: script.into(), usage: self.usage.clone(), ..Args::default() };
        let mut rest = argv.iter();
        while let Some(word) = rest.next() {
            if word == "--" {
                args.words.extend(rest.by_ref().cloned());
            } else if let Some(option) = word.strip_prefix("--") {
                self.take_option(option, &mut rest, &mut args)?;
            } else {
                args.words.push(word.clone());
            }
        }
        if self.usage.is_empty() {
            return Ok(args);
        }
        if let Some(missing) = self.required.get(args.words.len()) {
            return Err(self.wrong(format!("{missing} is missing")));
        }
        let most = self.required.len() + self.optional.len();
        let open_ended = self.optional.iter().chain(&self.required).any(|name| name.ends_with('…'));
        match args.words.get(most) {
            Some(extra) if !open_ended => Err(self.wrong(format!("\"{extra}\" is one word too many"))),
            _ => Ok(args),
        }
    }

    fn take_option<'a>(
        &self,
        option: &str,
        rest: &mut impl Iterator<Item = &'a String>,
        args: &mut Args,
    ) -> Result<()> {
        let (name, value) =
            option.split_once('=').map_or((option, None), |(name, value)| (name, Some(value.to_string())));
        if self.flags.iter().any(|flag| flag == name) && value.is_none() {
            args.flags.insert(name.into());
            return Ok(());
        }
        if self.options.iter().any(|known| known == name) {
            let value = value.or_else(|| rest.next().cloned());
            let value = value.ok_or_else(|| self.wrong(format!("--{name} takes a value")))?;
            args.options.insert(name.into(), value);
            return Ok(());
        }
        if ["plan", "observe", "yes", "allow", "replay", "json", "config", "state-dir"].contains(&name) {
            let error = self.wrong(format!("--{name} is an option of opsh, not of the script"));
            return Err(error.next(format!("opsh --{name} {} …     it goes before the script", args.script)));
        }
        let known = self.options.iter().chain(&self.flags).map(String::as_str);
        Err(self.wrong(format!("no option --{name}; {}", suggestion(name, known))))
    }

    fn wrong(&self, why: String) -> Error {
        Error::new(Kind::Usage, "the script was not started", why).next(format!("usage: {}", self.usage))
    }
}

/// Splits a usage line at spaces outside brackets.
fn items(usage: &str) -> Vec<String> {
    let mut items = vec![String::new()];
    let mut depth = 0;
    for c in usage.chars() {
        match c {
            '[' => depth += 1,
            ']' => depth -= 1,
            _ => {}
        }
        if c == ' ' && depth == 0 {
            items.push(String::new())
        } else if let Some(last) = items.last_mut() {
            last.push(c)
        }
    }
    items.retain(|item| !item.is_empty());
    items
}

#[cfg(test)]
mod tests {
    use super::*;

    const SCRIPT: &str = "//! Roll a stack back.\n//!\n//! usage: opsh scripts/rollback.rhai TAG [--stack prod] [--data-loss-ok]\nlet x = 1;";

    fn check(argv: &[&str]) -> Result<Args> {
        let argv: Vec<String> = argv.iter().map(|word| word.to_string()).collect();
        Header::parse(SCRIPT).check("scripts/rollback.rhai", &argv)
    }

    #[test]
    fn the_header_is_the_help() {
        assert!(Header::parse(SCRIPT).help("x").starts_with("Roll a stack back.\n\nusage:"));
        assert!(Header::parse("let x = 1;").help("x.rhai").contains("no header"));
    }

    #[test]
    fn words_options_and_flags_are_told_apart() {
        let args = check(&["v1.8.0", "--stack", "staging", "--data-loss-ok"]).expect("valid");
        assert_eq!(args.words, ["v1.8.0"]);
        assert_eq!(args.options["stack"], "staging");
        assert!(args.flags.contains("data-loss-ok"));
        assert_eq!(check(&["v1", "--stack=x"]).expect("valid").options["stack"], "x");
        assert_eq!(check(&["--", "--odd"]).expect("valid").words, ["--odd"]);
    }

    #[test]
    fn mistakes_are_usage_errors_that_say_what_is_wrong() {
        for (argv, why) in [
            (&[][..], "TAG is missing"),
            (&["a", "b"], "\"b\" is one word too many"),
            (&["a", "--stak", "x"], "did you mean \"stack\"?"),
            (&["a", "--stack"], "--stack takes a value"),
            (&["a", "--plan"], "an option of opsh"),
        ] {
            let error = check(argv).expect_err(why);
            assert!(error.why.contains(why), "{}", error.why);
            assert_eq!(error.kind, Kind::Usage);
        }
    }
}
