//! What a session can name without asking a host or running a line: variables, functions, modules, script files.

use super::{Session, help};
use crate::bind::values;
use crate::config::LOCAL;
use crate::engine::modules;
use serde_json::Value;
use std::collections::BTreeSet;
use std::sync::{Arc, Mutex};
use std::time::SystemTime;

/// Keywords of Rhai that scripts here can use.
pub const KEYWORDS: &[&str] = &[
    "as", "break", "catch", "const", "continue", "do", "else", "export", "false", "fn", "for", "global", "if",
    "import", "in", "let", "loop", "private", "return", "switch", "this", "throw", "true", "try", "until", "while",
];

/// A variable of the session.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Variable {
    /// Its name.
    pub name: String,
    /// Its type as signatures call it: `stack`, `host`, `map`, `array`, `string`.
    pub type_name: String,
    /// Of a map: its keys.
    pub keys: Vec<String>,
}

impl Session {
    /// The variables that a line may use, by name.
    pub fn variables(&self) -> Vec<Variable> {
        let variable = |(name, _, value): (&str, bool, rhai::Dynamic)| {
            let keys = value.as_map_ref().map(|map| map.keys().map(ToString::to_string).collect()).unwrap_or_default();
            Variable { name: name.into(), type_name: values::type_name(&value).into(), keys }
        };
        self.scope.iter().map(variable).collect()
    }

    /// Functions of earlier lines, as `name(a, b)`.
    pub fn functions(&self) -> Vec<String> {
        let named = self.functions.iter_functions().filter(|function| !function.name.contains('$'));
        named.map(|function| format!("{}({})", function.name, function.params.join(", "))).collect()
    }

    /// Hosts by name, `local` too.
    pub fn hosts(&self) -> Vec<String> {
        self.world.config.host_names().chain([LOCAL]).map(String::from).collect()
    }

    /// Words that `hosts(TAG)` finds hosts by.
    pub fn host_tags(&self) -> Vec<String> {
        let config = &self.world.config;
        let hosts = config.host_names().filter_map(|name| config.host(name).ok());
        let tags: BTreeSet<String> = hosts.flat_map(|host| host.tags.clone()).collect();
        tags.into_iter().collect()
    }

    /// Stacks by name.
    pub fn stacks(&self) -> Vec<String> {
        self.world.config.stack_names().map(String::from).collect()
    }

    /// Services that opsh.toml says something of.
    pub fn services(&self) -> Vec<String> {
        let config = &self.world.config;
        let stacks = config.stack_names().filter_map(|name| config.stack(name).ok());
        let names: BTreeSet<String> =
            stacks.flat_map(|stack| stack.service_names()).chain(self.seen().services.iter().cloned()).collect();
        names.into_iter().collect()
    }
}

/// Names that values of this sitting had: nothing is asked for them.
#[derive(Debug, Default)]
pub struct Seen {
    /// Of `ps` and the like.
    pub services: Vec<String>,
    /// Of containers.
    pub containers: Vec<String>,
    /// Of releases.
    pub tags: Vec<String>,
}

/// Names that come from a host while a line is typed.
pub type Arrived = Arc<Mutex<Seen>>;

impl Seen {
    /// Keeps the names in a list of maps. What has a control character is left out: Tab would write it to the terminal.
    pub fn take(&mut self, value: &Value) {
        for (key, names) in
            [("service", &mut self.services), ("container", &mut self.containers), ("tag", &mut self.tags)]
        {
            let given = value.as_array().into_iter().flatten().filter_map(|row| row[key].as_str());
            for name in given.filter(|name| !name.contains(char::is_control)) {
                if !names.iter().any(|known| known == name) {
                    names.push(name.into());
                }
            }
        }
    }
}

/// What `import "…"` finds everywhere.
pub fn modules() -> Vec<String> {
    modules::embedded_names().map(String::from).collect()
}

/// What `help` explains: systems and receivers, then verbs and functions.
pub fn topics() -> Vec<String> {
    let groups: BTreeSet<&str> = help::entries().map(|entry| entry.group).collect();
    groups.into_iter().map(String::from).chain(help::entries().map(|entry| entry.name.clone())).collect()
}

/// The folders that script files are offered of, and what stands before their names.
const FOLDERS: [(&str, &str); 2] = [(".", ""), ("scripts", "scripts/")];

/// When a name was last put into each of [`FOLDERS`], or taken out of it; a folder that is not there has no time.
#[expect(clippy::disallowed_methods, reason = "which scripts there are is no effect")]
pub fn scripts_changed() -> [Option<SystemTime>; 2] {
    FOLDERS.map(|(folder, _)| std::fs::metadata(folder).and_then(|about| about.modified()).ok())
}

/// Scripts in the working directory and in its `scripts/`, by path.
pub fn scripts() -> Vec<String> {
    let mut found = Vec::new();
    for (folder, before) in FOLDERS {
        // A folder that is not there holds none.
        let Ok(entries) = std::fs::read_dir(folder) else { continue };
        let names = entries.flatten().filter_map(|entry| entry.file_name().into_string().ok());
        found.extend(names.filter(|name| name.ends_with(".rhai")).map(|name| format!("{before}{name}")));
    }
    found.sort();
    found
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn each_name_is_kept_once_and_none_that_a_terminal_would_obey() {
        let mut seen = Seen::default();
        let rows =
            json!([{ "service": "web", "container": "shop-web-1" }, { "service": "\u{1b}[2Jdb" }, { "tag": "v1" }]);
        seen.take(&rows);
        seen.take(&rows);
        assert_eq!(
            (seen.services, seen.containers, seen.tags),
            (vec!["web".into()], vec!["shop-web-1".into()], vec!["v1".into()])
        );
    }
}
