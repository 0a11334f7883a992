//! Migration files: names by the tool's grammar, up and down from two files or from the sections of one. Pure.

use crate::config::migrate::{Named, Order, Tool};
use sha2::{Digest, Sha256};
use std::collections::BTreeMap;

/// One migration as an image has it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct File {
    /// Without version and direction.
    pub name: String,
    /// Text of its up, if there is one.
    pub up: Option<String>,
    /// Text of its down, if there is one.
    pub down: Option<String>,
}

impl File {
    /// Tells files apart that have the same version: 16 hex digits of what both texts hash to.
    pub fn digest(&self) -> String {
        let mut hash = Sha256::new();
        for text in [&self.up, &self.down] {
            // The length keeps the end of one text from being taken for the beginning of the other.
            hash.update(text.as_ref().map_or(0, |text| text.len() + 1).to_le_bytes());
            hash.update(text.as_deref().unwrap_or_default());
        }
        hash.finalize().iter().take(8).map(|byte| format!("{byte:02x}")).collect()
    }
}

/// Migrations by version.
pub type Files = BTreeMap<i64, File>;

/// The files of a folder.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Known {
    /// What is a migration.
    pub files: Files,
    /// Names of the files that the tool does not take for migrations.
    pub ignored: Vec<String>,
}

/// Sorts the files of a folder. Fails, saying why, when two share a version, when a version does not fit 64 bits, and
/// when the tool compares versions as text and their lengths differ: then its newest one is not the newest.
pub fn parse(tool: &Tool, found: &[(String, Vec<u8>)]) -> Result<Known, String> {
    let mut known = Known::default();
    let mut lengths: BTreeMap<usize, String> = BTreeMap::new();
    for (path, text) in found {
        let Some(named) = tool.names.read(path) else {
            known.ignored.push(path.clone());
            continue;
        };
        let version: i64 = named
            .version
            .parse()
            .map_err(|_| format!("version {} does not fit 64 bits, so its order cannot be told", named.version))?;
        lengths.entry(named.version.len()).or_insert_with(|| path.clone());
        add(&mut known.files, version, named, String::from_utf8_lossy(text).into_owned())?;
    }
    if let (Order::Timestamps, [one, other, ..]) = (tool.order, &lengths.values().collect::<Vec<_>>()[..]) {
        return Err(format!("versions of different lengths, as in {one} and {other}, are not in order for this tool"));
    }
    known.ignored.sort();
    Ok(known)
}

fn add(files: &mut Files, version: i64, named: Named, text: String) -> Result<(), String> {
    let twice = |one: &str, other: &str| Err(format!("version {version} is both {one} and {other}"));
    if let Some(file) = files.get(&version)
        && (file.name != named.name || named.is_up.is_none())
    {
        return twice(&file.name, &named.name);
    }
    let file = files.entry(version).or_insert_with(|| File { name: named.name.clone(), ..File::default() });
    match named.is_up {
        None => (file.up, file.down) = sections(&text),
        Some(is_up) => {
            let side = if is_up { &mut file.up } else { &mut file.down };
            if side.is_some() {
                return twice(&named.name, &named.name);
            }
            *side = Some(text);
        }
    }
    Ok(())
}

/// What follows `-- migrate:up` and `-- migrate:down`, each up to the other.
fn sections(text: &str) -> (Option<String>, Option<String>) {
    let (mut up, mut down, mut now) = (None::<String>, None::<String>, None);
    for line in text.lines() {
        if let Some(is_up) = heading(line) {
            now = Some(is_up);
            let side = if is_up { &mut up } else { &mut down };
            side.get_or_insert_default();
            continue;
        }
        let side = match now {
            Some(true) => &mut up,
            Some(false) => &mut down,
            None => continue,
        };
        if let Some(text) = side {
            text.push_str(line);
            text.push('\n');
        }
    }
    (up, down)
}

/// `-- migrate:up transaction:false` too.
fn heading(line: &str) -> Option<bool> {
    let mut words = line.strip_prefix("--")?.split_whitespace();
    match words.next()? {
        "migrate:up" => Some(true),
        "migrate:down" => Some(false),
        _ => None,
    }
}

#[cfg(test)]
pub mod tests {
    use super::*;
    use crate::config::Config;
    use crate::config::Migrate;
    use std::path::Path;

    /// The tool of a preset, or what `migrate = { … }` says.
    pub fn tool_of(preset: &str) -> Tool {
        configured(&format!("preset = \"{preset}\"")).tool
    }

    /// What `migrate = { … }` says.
    pub fn configured(keys: &str) -> Migrate {
        let text = format!(
            "[stack.s]\nhost = \"local\"\ndir = \"/x\"\ncompose = {{ files = [\"c\"], project = \"p\" }}\n\
             migrate = {{ service = \"backend\", {keys} }}\n"
        );
        let config = Config::parse(&text, Path::new("/opsh.toml")).expect("a good configuration");
        config.stack("s").expect("it is there").migrate.clone().expect("it has a tool")
    }

    fn found(names: &[&str]) -> Vec<(String, Vec<u8>)> {
        names.iter().map(|name| (name.to_string(), b"SELECT 1".to_vec())).collect()
    }

    #[test]
    fn files_are_paired_by_version_and_what_is_no_migration_is_named() {
        let known = parse(
            &tool_of("vrcshift"),
            &found(&["046_a.up.sql", "046_a.down.sql", "README.md", "x_y.up.sql", "20260101_b.up.sql"]),
        )
        .expect("good");
        assert_eq!(known.files.keys().copied().collect::<Vec<_>>(), [46, 20_260_101]);
        assert!(known.files[&46].down.is_some() && known.files[&20_260_101].down.is_none());
        assert_eq!(known.ignored, ["README.md", "x_y.up.sql"]);
    }

    #[test]
    fn versions_that_cannot_be_told_apart_or_ordered_are_refused() {
        for (preset, names, why) in [
            ("vrcshift", &["007_a.up.sql", "007_b.up.sql"][..], "version 7 is both a and b"),
            ("vrcshift", &["007_a.up.sql", "7_b.down.sql"], "version 7 is both a and b"),
            ("vrcshift", &["007_a.up.sql", "7_a.up.sql"], "version 7 is both a and a"),
            ("golang-migrate", &["1_a.up.sql", "1_a.up.psql"], "version 1 is both a and a"),
            ("dbmate", &["20260101_a.sql", "20260101_b.sql"], "version 20260101 is both a and b"),
            ("dbmate", &["9_a.sql", "10_b.sql"], "not in order for this tool"),
            ("vrcshift", &["20260124061743000001_a.up.sql"], "does not fit 64 bits"),
        ] {
            let error = parse(&tool_of(preset), &found(names)).expect_err(why);
            assert!(error.contains(why), "{names:?}: {error}");
        }
    }

    #[test]
    fn one_file_has_two_sections() {
        let text = "-- about it\n-- migrate:up transaction:false\nCREATE TABLE a ();\n--migrate:down\nDROP TABLE a;\n";
        let parse_one = |text: &str| {
            let known = parse(&tool_of("dbmate"), &[("20260101000000_a.sql".into(), text.into())]).expect("good");
            known.files[&20_260_101_000_000].clone()
        };
        let file = parse_one(text);
        assert_eq!((file.up.as_deref(), file.down.as_deref()), (Some("CREATE TABLE a ();\n"), Some("DROP TABLE a;\n")));
        let file = parse_one("-- migrate:up\nSELECT 1;\n-- migrate:down\n\n");
        assert_eq!(file.down.as_deref(), Some("\n"));
        let file = parse_one("-- migrate:up\n-- migrate:downwards is no heading\n");
        assert_eq!(file.down, None);
        assert_eq!(parse_one("CREATE TABLE a ();").up, None);
    }
}
