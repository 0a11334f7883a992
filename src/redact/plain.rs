//! Words that opsh itself shows in every plan and question: verbs, names of opsh.toml, services. A value that is made of
//! them is hidden only when somebody declared it: dots in place of the words would hide what is agreed to.

use std::collections::BTreeSet;

/// Words of opsh's own sentences about a change, and of the programs that changes run.
const OWN: &[&str] = &[
    "would",
    "undo",
    "this",
    "lost",
    "until",
    "undone",
    "cannot",
    "type",
    "enter",
    "stop",
    "somebody",
    "else",
    "works",
    "there",
    "change",
    "plan",
    "from",
    "with",
    "docker",
    "compose",
    "image",
    "container",
    "service",
    "stack",
    "host",
    "local",
    "restart",
    "start",
    "pull",
    "build",
    "force",
    "recreate",
    "deps",
    "detach",
    "exec",
    "file",
    "write",
    "checkout",
    "branch",
    "commit",
    "migrate",
    "rollback",
    "database",
    "dump",
    "restore",
    "psql",
    "kill",
    "lock",
    "work",
    "replace",
    "remove",
    "delete",
    "under",
    "name",
    "next",
    "opsh",
];

/// Plain words in lower case.
#[derive(Default)]
pub struct Plain(BTreeSet<String>);

impl Plain {
    pub fn new() -> Plain {
        let mut plain = Plain::default();
        plain.add(OWN.iter().copied());
        plain
    }

    /// Takes the words of texts: `docker.restart` has two.
    pub fn add<'a>(&mut self, texts: impl IntoIterator<Item = &'a str>) {
        self.0.extend(texts.into_iter().flat_map(|text| parts(text).map(str::to_ascii_lowercase).collect::<Vec<_>>()));
    }

    /// True when hiding this value would hide nothing but plain words, or parts of them: `front` of `frontend`,
    /// `e: docker` of `compose: docker`.
    pub fn is_made_of(&self, value: &str) -> bool {
        let value = value.to_ascii_lowercase();
        let words: Vec<&str> = parts(&value).collect();
        let begins = value.starts_with(|c: char| !c.is_alphanumeric());
        let ends = value.ends_with(|c: char| !c.is_alphanumeric());
        match words.as_slice() {
            [] => false,
            [one] => self.has(|word| match (begins, ends) {
                (false, false) => word.contains(one),
                (true, false) => word.starts_with(one),
                (false, true) => word.ends_with(one),
                (true, true) => word == *one,
            }),
            [first, between @ .., last] => {
                self.has(|word| if begins { word == *first } else { word.ends_with(first) })
                    && between.iter().all(|one| self.0.contains(*one))
                    && self.has(|word| if ends { word == *last } else { word.starts_with(last) })
            }
        }
    }

    fn has(&self, is: impl Fn(&str) -> bool) -> bool {
        self.0.iter().any(|word| is(word))
    }
}

fn parts(text: &str) -> impl Iterator<Item = &str> {
    text.split(|c: char| !c.is_alphanumeric()).filter(|part| !part.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_value_of_plain_words_is_told_from_a_password() {
        let mut plain = Plain::new();
        plain.add(["docker.restart", "web-1", "frontend", "/srv/app/deploy"]);
        for value in ["docker", "Restart", "front", "r.rest", "/srv/app", "e: docker", " would: ", "frontend", "tend "]
        {
            assert!(plain.is_made_of(value), "{value:?}");
        }
        for value in ["dockerx", "front-9", "hunter2", "e-s-t-a-c", "....!!", "", "restart restart1", "front tend"] {
            assert!(!plain.is_made_of(value), "{value:?}");
        }
    }
}
