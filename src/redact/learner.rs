//! Values that are taken for secrets because of the name that they stand under.

use super::known::{Learned, Origin, known};
use super::{fields, is_ordinary, is_secret_name, is_too_short, variables, warn};
use serde_json::Value;
use std::collections::BTreeSet;

/// Bytes of forms that one stack and one container may have looked for.
const MOST_OF_A_STACK: usize = 2 << 20;
const MOST_OF_A_CONTAINER: usize = 512 << 10;

/// Learns the values of one place: the files of a stack, or a container. [`Learner::finish`] says which are not hidden.
#[must_use = "what is not hidden must be said"]
pub struct Learner {
    origin: Origin,
    room: usize,
    /// Values for which there was no room.
    left_out: usize,
    /// Names before values that are words which opsh shows itself.
    plain: BTreeSet<String>,
}

impl Learner {
    /// For the files of a stack.
    pub fn of_files() -> Learner {
        Learner { origin: Origin::Files, room: MOST_OF_A_STACK, left_out: 0, plain: BTreeSet::new() }
    }

    /// For a container, which has little room: anybody's image is one.
    pub fn of_container() -> Learner {
        Learner { origin: Origin::Containers, room: MOST_OF_A_CONTAINER, left_out: 0, plain: BTreeSet::new() }
    }

    /// Hides a value and its encodings everywhere from now on, because it stands under the name of a secret. Unlike a
    /// [`super::Secret`], which somebody declared, it is only taken for one: ordinary words and small numbers are left alone.
    pub fn value(&mut self, name: &str, value: &str) {
        if is_ordinary(value.trim()) || is_too_short(value) {
            return;
        }
        let Some(mut known) = known() else { return };
        match known.take(value, self.origin, &mut self.room) {
            Learned::Yes => {}
            Learned::Plain => drop(self.plain.insert(name.into())),
            Learned::TooMany => self.left_out += 1,
        }
    }

    /// Hides what a variable of an environment holds: all of it under a secret's name, and under any name the passwords in
    /// URLs and connection strings.
    pub fn variable(&mut self, name: &str, value: &str) {
        if is_secret_name(name) {
            self.value(name, value);
            // A service account is an object whose parts are printed alone.
            if let Ok(Value::Object(parts)) = serde_json::from_str(value) {
                let texts = parts.iter().filter_map(|(name, part)| Some((name, part.as_str()?)));
                texts.filter(|(name, _)| is_secret_name(name)).for_each(|(name, part)| self.value(name, part));
            }
        }
        variables::passwords_in(value).iter().for_each(|password| self.value(name, password));
    }

    /// Hides the values behind options of a command that name a secret: `--requirepass X`, `--password=X`, `redis-cli -a X`;
    /// also within a word that is a command for a shell. A value that holds a `$` is put there by somebody else.
    pub fn words(&mut self, words: &[String]) {
        let is_redis = words.iter().any(|word| word.ends_with("redis-cli"));
        for (at, word) in words.iter().enumerate() {
            let (option, value) = match word.split_once('=') {
                Some((option, value)) => (option, Some(value)),
                None => (word.as_str(), words.get(at + 1).map(String::as_str)),
            };
            let is_named = fields::is_option(option) || (is_redis && option == "-a");
            // A word of a command is a whole value, blanks and all.
            let is_value = |value: &&str| !value.contains('$') && (value.contains(' ') || !fields::is_ordinary(value));
            if let Some(value) = value.filter(|value| is_named && is_value(value)) {
                self.value(option, value);
            }
            if word.contains(char::is_whitespace)
                && let Some(inner) = shlex::split(word)
                && inner.len() > 1
            {
                self.words(&inner);
            }
        }
    }

    /// Warns of the values that are not hidden; `place` is where they stand: `container web on h`.
    pub fn finish(self, place: &str) {
        if self.left_out > 0 {
            warn(format!(
                "opsh does not hide {} values under names of secrets of {place}: there are more, or longer ones, than it can \
                 look for",
                self.left_out
            ));
        }
        if let Some(first) = self.plain.first() {
            let others = match self.plain.len() - 1 {
                0 => String::new(),
                count => format!(" (and {count} more)"),
            };
            warn(format!(
                "the value of {first}{others} of {place} is a word that opsh shows itself (a verb, a name of opsh.toml, a \
                 service): it is not hidden"
            ));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::{add_plain, clean, warnings};
    use super::*;

    #[test]
    fn values_behind_options_of_a_command_are_learned() {
        let words = |words: &[&str]| {
            let mut learner = Learner::of_files();
            learner.words(&words.iter().map(|word| word.to_string()).collect::<Vec<_>>());
            learner.finish("a test");
        };
        words(&["redis-server", "--requirepass", "opt-redis-71"]);
        words(&["sh", "-c", "exec mysqld --password='opt inner 72' --port 33061"]);
        words(&["CMD", "redis-cli", "-a", "opt-client-73", "ping"]);
        words(&["x", "--token=opt-equal-74", "--requirepass", "${PW-opt-not-75}", "--name", "opt-not-76"]);
        for value in ["opt-redis-71", "opt inner 72", "opt-client-73", "opt-equal-74"] {
            assert!(!clean(&format!("x {value} y")).contains(value), "{value}");
        }
        for value in ["opt-not-76", "33061"] {
            assert_eq!(clean(value), value);
        }
        let text = clean("redis-server --requirepass another-one-77 --port 6379");
        assert!(!text.contains("another-one-77") && text.ends_with(" --port 6379"), "{text}");
    }

    #[test]
    fn an_environment_masks_no_word_that_opsh_shows_itself() {
        add_plain(&["learner.verb", "learnerfrontend"]);
        let mut learner = Learner::of_container();
        for (name, value) in [("X_PASSWORD", "learnerfront"), ("Y_SECRET", "r.ver"), ("Z_TOKEN", "learner-real-5")] {
            learner.variable(name, value);
        }
        learner.finish("container plain on h");
        assert_eq!(clean("learner.verb  learnerfrontend"), "learner.verb  learnerfrontend");
        assert!(!clean("x learner-real-5").contains("real"));
        let warned = warnings();
        let is_told = |text: &String| text.contains("X_PASSWORD (and 1 more) of container plain on h");
        assert!(warned.iter().any(is_told) && !warned.iter().any(|text| text.contains("learnerfront")), "{warned:?}");
    }
}
