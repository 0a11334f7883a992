//! What the names of an `opsh.toml` mean: recorded with each change, and compared before a run is undone or resumed.

use super::{Config, LOCAL, trust, untrusted};
use crate::error::Result;
use serde_json::Value;
use sha2::{Digest, Sha256};
use std::collections::BTreeMap;
use std::path::Path;

impl Config {
    /// The configuration that a record names. Nobody named the file now, and it may be another one by now: it is judged as
    /// one that was found. Fails as [`Config::load`].
    pub fn recorded(path: &Path) -> Result<Config> {
        if path.is_file() || path.is_symlink() {
            trust::judge(path, None).map_err(|fact| untrusted(path, &fact))?;
        }
        Config::load(Some(path), path)
    }

    /// What a host or stack of the file is: its login, its folder, and a digest of its tables. `None` for any other name,
    /// and for a configuration that stands in no file.
    pub fn meaning(&self, name: &str) -> Option<String> {
        self.path.as_ref()?;
        let table = |kind, name: &str| self.tables.get(&(kind, name.to_string())).cloned().unwrap_or_default();
        let host = |name: &str| match self.hosts.get(name) {
            Some(host) => {
                format!("{}:{} (its table is {})", host.ssh, host.port.unwrap_or(22), table(HOST, name))
            }
            None => LOCAL.into(),
        };
        let stack = self
            .stacks
            .get(name)
            .map(|stack| format!("{} on {} (its table is {})", stack.dir, host(&stack.host), table(STACK, name)));
        let both = [stack, self.hosts.contains_key(name).then(|| host(name))];
        let both: Vec<String> = both.into_iter().flatten().collect();
        (!both.is_empty()).then(|| both.join("; "))
    }

    /// The same of each name.
    pub fn meanings(&self) -> BTreeMap<String, String> {
        let names = self.hosts.keys().chain(self.stacks.keys());
        names.filter_map(|name| Some((name.clone(), self.meaning(name)?))).collect()
    }

    /// Names that stand in plans and questions: hosts and where they are, stacks, their folders, files and services.
    pub fn shown_names(&self) -> Vec<&str> {
        let hosts = self.hosts.iter().flat_map(|(name, host)| [name.as_str(), &host.ssh]);
        let stacks = self.stacks.iter().flat_map(|(name, stack)| {
            let compose = [name.as_str(), &stack.dir, &stack.compose.project].into_iter();
            let files = stack.compose.files.iter().chain(&stack.compose.env_file).map(String::as_str);
            let service = [stack.db.as_ref().map(|db| &db.service), stack.migrate.as_ref().map(|it| &it.service)];
            let services = stack.services.keys().chain(service.into_iter().flatten()).map(String::as_str);
            compose.chain(files).chain(services)
        });
        hosts.chain(stacks).collect()
    }
}

const HOST: &str = "host";
const STACK: &str = "stack";

/// Digests of tables, by their kind and name.
pub(super) type Tables = BTreeMap<(&'static str, String), String>;

/// The digests of the tables of hosts and stacks in the text of a file. The order of keys, blanks and comments make no
/// difference.
pub(super) fn tables(text: &str) -> Tables {
    let file: Value = toml::from_str(text).unwrap_or_default();
    let of = |kind: &'static str| {
        let tables = file[kind].as_object().into_iter().flatten();
        tables.map(move |(name, table)| ((kind, name.clone()), digest(table))).collect::<Vec<_>>()
    };
    of(HOST).into_iter().chain(of(STACK)).collect()
}

/// Enough of a digest to tell two tables apart.
fn digest(table: &Value) -> String {
    Sha256::digest(table.to_string().as_bytes()).iter().take(6).map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn meaning(text: &str, name: &str) -> Option<String> {
        Config::parse(text, Path::new("/x/opsh.toml")).expect("valid").meaning(name)
    }

    #[test]
    fn a_name_means_its_login_its_folder_and_its_table() {
        let host = "[host.web]\nssh = \"deploy@web\"\nport = 2222\n";
        let stack = |more: &str| {
            format!(
                "{host}[stack.prod]\nhost = \"web\"\ndir = \"/srv\"\n{more}compose = {{ files = [\"c.yml\"], project = \"p\" }}\n"
            )
        };
        let web = meaning(host, "web").expect("it is there");
        assert!(web.starts_with("deploy@web:2222 (its table is "), "{web}");
        let prod = meaning(&stack(""), "prod").expect("it is there");
        assert!(prod.starts_with(&format!("/srv on {web} (its table is ")), "{prod}");
        assert_eq!(meaning(&stack("# a comment\n"), "prod"), Some(prod.clone()));
        assert_ne!(meaning(&stack("cron = [\"batch\"]\n"), "prod"), Some(prod));
        assert_ne!(meaning(&format!("{host}password = \"env:PW\"\n"), "web"), Some(web), "how it logs in counts");
        assert_eq!(meaning(host, "other"), None);
        assert_eq!(Config::found(host).expect("valid").meaning("web"), None, "no file has that name");
    }
}
