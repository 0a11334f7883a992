//! `migrate = { … }` of a stack: a migration tool as data. What a preset leaves open is filled in from the preset; what
//! none covers is spelled out under `command`.

use serde::Deserialize;
use std::num::NonZeroUsize;

/// The migration tool of a stack, with everything that its preset or its own keys say.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(try_from = "Written")]
pub struct Migrate {
    /// Name of the preset, for people.
    pub preset: String,
    /// Service whose image holds the tool.
    pub service: String,
    /// Directory of the migration files in the repository.
    pub files: String,
    /// Directory of the migration files in the image.
    pub image_files: String,
    /// What the tool is like.
    pub tool: Tool,
}

/// What opsh must know of a tool. Everything that differs between tools is here.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tool {
    /// Where it writes down what is applied.
    pub ledger: Ledger,
    /// How its files are named, and what is in one.
    pub names: Grammar,
    /// The order in which it applies versions.
    pub order: Order,
    /// Words that apply pending migrations.
    pub up: Words,
    /// Words that take applied migrations back, as many as the `{n}` among them says.
    pub down: Words,
    /// Words that print its state; empty when it has none. Never trusted, and never run by opsh: shown to a person.
    pub status: Words,
}

/// Where a tool writes down what is applied.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ledger {
    /// One row for each applied version, or golang-migrate's one row.
    pub kind: LedgerKind,
    /// The table, with its schema or without.
    pub table: String,
    /// The column of the version.
    pub version: String,
}

/// Shapes of ledgers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum LedgerKind {
    /// One row for each applied version.
    Rows,
    /// One row `(version, dirty)`: everything up to that version is applied, and there is no history.
    Golang,
}

/// How versions follow one another for the tool.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Order {
    /// As numbers: 9 before 10.
    Numbers,
    /// As text, which does for time stamps: 10 before 9, so all must be of one length.
    Timestamps,
}

/// A command that may hold `{n}` (how many) and `{files}` (the folder in the image).
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(transparent)]
pub struct Words(Vec<String>);

/// A file name with `{version}`, `{name}`, `{dir}` (up or down) and `{ext}` in it. With `{dir}` a migration is a pair of
/// files; without it is one file with `-- migrate:up` and `-- migrate:down` in it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Grammar(Vec<Piece>);

#[derive(Clone, Debug, PartialEq, Eq)]
enum Piece {
    Text(String),
    Version,
    Name,
    Dir,
    Ext,
}

/// What a file name says.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Named {
    /// Digits, as they stand.
    pub version: String,
    /// The rest, for people.
    pub name: String,
    /// `up` or `down`, where the name says it.
    pub is_up: Option<bool>,
}

/// Names of the presets.
const PRESETS: [&str; 4] = ["vrcshift", "golang-migrate", "dbmate", "command"];

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Written {
    preset: String,
    service: String,
    files: Option<String>,
    image_files: Option<String>,
    up: Option<Words>,
    down: Option<Words>,
    status: Option<Words>,
    ledger: Option<WrittenLedger>,
    files_name: Option<String>,
    versions: Option<Order>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct WrittenLedger {
    kind: Option<LedgerKind>,
    table: String,
    version: Option<String>,
}

impl TryFrom<Written> for Migrate {
    type Error = String;

    fn try_from(written: Written) -> Result<Migrate, String> {
        let preset = match written.preset.as_str() {
            "command" => None,
            name => Some(
                preset(name).ok_or_else(|| format!("no migration preset \"{name}\"; known: {}", PRESETS.join(", ")))?,
            ),
        };
        let lacks = |key: &str| format!("migrate.{key} is missing: the preset \"command\" knows no tool");
        let filled = |own: Option<Words>, of: fn(&Tool) -> &Words, key: &str| {
            own.or_else(|| preset.as_ref().map(|tool| of(tool).clone())).ok_or_else(|| lacks(key))
        };
        let (up, down) = (filled(written.up, |tool| &tool.up, "up")?, filled(written.down, |tool| &tool.down, "down")?);
        let status = filled(written.status, |tool| &tool.status, "status").unwrap_or_default();
        let ledger = match written.ledger {
            Some(own) => own.checked()?,
            None => preset.as_ref().map(|tool| tool.ledger.clone()).ok_or_else(|| lacks("ledger"))?,
        };
        let names = match &written.files_name {
            Some(text) => Grammar::parse(text)?,
            None => preset.as_ref().map_or_else(|| Grammar::parse(PAIRS), |tool| Ok(tool.names.clone()))?,
        };
        let order = written.versions.or(preset.as_ref().map(|tool| tool.order)).unwrap_or(Order::Numbers);
        up.check("up")?;
        down.check("down")?;
        if !down.counts() {
            return Err("migrate.down has no {n}: without a count many tools take everything back".into());
        }
        let tool = Tool { ledger, names, order, up, down, status };
        Ok(Migrate {
            preset: written.preset,
            service: written.service,
            files: written.files.unwrap_or_else(|| "backend/migrations".into()),
            image_files: written.image_files.unwrap_or_else(|| "/app/migrations".into()),
            tool,
        })
    }
}

const PAIRS: &str = "{version}_{name}.{dir}.sql";

/// dbmate takes one back at a time. The loop is in the container, so that it goes on when opsh does not.
const DBMATE_DOWN: &str = r#"n=$1; while [ "$n" -gt 0 ]; do dbmate --no-dump-schema --migrations-dir "$2" rollback || exit; n=$((n - 1)); done"#;

/// golang-migrate takes its database as an argument and from nowhere else; the variable is read in the container. Whoever
/// looks at the processes of the host sees arguments, so the password goes by PGPASSWORD, as its driver takes it too.
const GOLANG: &str = r#"files=$1 url=$DATABASE_URL rest=${DATABASE_URL#*://}; shift
place=${rest%%/*} login=${rest%%/*}; login=${login%@*}
case $place in *:*@*)
  PGPASSWORD=$(printf %s "${login#*:}" | LC_ALL=C awk 'BEGIN { for (i = 0; i < 256; i++) byte[sprintf("%02X", i)] = sprintf("%c", i) }
    { while (match($0, /%[0-9A-Fa-f][0-9A-Fa-f]/)) {
        text = text substr($0, 1, RSTART - 1) byte[toupper(substr($0, RSTART + 1, 2))]; $0 = substr($0, RSTART + 3) }
      printf "%s", text $0 }')
  export PGPASSWORD; url=${url%%://*}://${login%%:*}@${rest#"$login@"};;
esac
exec migrate -path "$files" -database "$url" "$@""#;

fn preset(name: &str) -> Option<Tool> {
    let words = |words: &[&str]| Words(words.iter().map(|word| word.to_string()).collect());
    let ledger = |kind| Ledger { kind, table: "schema_migrations".into(), version: "version".into() };
    let grammar = |text| Grammar::parse(text).expect("the presets' own grammars are good");
    Some(match name {
        "vrcshift" => Tool {
            ledger: ledger(LedgerKind::Rows),
            names: grammar(PAIRS),
            order: Order::Numbers,
            up: words(&["/app/migrate", "-action=up", "-steps={n}"]),
            down: words(&["/app/migrate", "-action=down", "-steps={n}"]),
            status: words(&["/app/migrate", "-action=status"]),
        },
        "golang-migrate" => Tool {
            ledger: ledger(LedgerKind::Golang),
            names: grammar("{version}_{name}.{dir}.{ext}"),
            order: Order::Numbers,
            up: words(&["sh", "-c", GOLANG, "migrate", "{files}", "up", "{n}"]),
            down: words(&["sh", "-c", GOLANG, "migrate", "{files}", "down", "{n}"]),
            status: words(&["sh", "-c", GOLANG, "migrate", "{files}", "version"]),
        },
        "dbmate" => Tool {
            ledger: ledger(LedgerKind::Rows),
            names: grammar("{version}{name}.sql"),
            order: Order::Timestamps,
            up: words(&["dbmate", "--no-dump-schema", "--migrations-dir", "{files}", "migrate"]),
            down: words(&["sh", "-c", DBMATE_DOWN, "dbmate", "{n}", "{files}"]),
            status: words(&["dbmate", "--migrations-dir", "{files}", "status"]),
        },
        _ => return None,
    })
}

impl Words {
    /// The words for so many migrations: never for none, which many tools read as all.
    pub fn of(&self, count: NonZeroUsize, files: &str) -> Vec<String> {
        self.0.iter().map(|word| word.replace("{n}", &count.to_string()).replace("{files}", files)).collect()
    }

    /// True when the words say how many.
    pub fn counts(&self) -> bool {
        self.0.iter().any(|word| word.contains("{n}"))
    }

    /// The program, when the words name it by its path.
    pub fn program(&self) -> Option<&str> {
        self.0.first().map(String::as_str).filter(|word| word.starts_with('/'))
    }

    fn check(&self, key: &str) -> Result<(), String> {
        if self.0.first().is_none_or(|program| program.trim().is_empty()) {
            return Err(format!("migrate.{key} names no program"));
        }
        for word in &self.0 {
            let mut rest = word.as_str();
            while let Some((_, after)) = rest.split_once('{') {
                let Some((inside, later)) = after.split_once('}') else { break };
                let is_name = !inside.is_empty() && inside.bytes().all(|b| b.is_ascii_lowercase());
                if is_name && !matches!(inside, "n" | "files") {
                    return Err(format!("migrate.{key} has {{{inside}}}; known: {{n}}, {{files}}"));
                }
                rest = later;
            }
        }
        Ok(())
    }
}

impl WrittenLedger {
    /// Names go into SQL as they are: nothing but what an identifier is made of.
    fn checked(self) -> Result<Ledger, String> {
        let is_name = |name: &str| {
            name.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_')
                && name.chars().all(|c| c.is_ascii_alphanumeric() || c == '_')
        };
        let version = self.version.unwrap_or_else(|| "version".into());
        let parts: Vec<&str> = self.table.split('.').collect();
        if parts.len() > 2 || !parts.iter().all(|part| is_name(part)) {
            return Err(format!("migrate.ledger.table \"{}\" is no plain name of a table", self.table));
        }
        if !is_name(&version) {
            return Err(format!("migrate.ledger.version \"{version}\" is no plain name of a column"));
        }
        Ok(Ledger { kind: self.kind.unwrap_or(LedgerKind::Rows), table: self.table, version })
    }
}

impl Ledger {
    /// Schema, if it is named, and table.
    pub fn parts(&self) -> (Option<&str>, &str) {
        match self.table.split_once('.') {
            Some((schema, table)) => (Some(schema), table),
            None => (None, &self.table),
        }
    }
}

impl Grammar {
    fn parse(text: &str) -> Result<Grammar, String> {
        let bad = |why: &str| format!("migrate.files_name \"{text}\" {why}");
        let (mut pieces, mut rest) = (Vec::new(), text);
        while !rest.is_empty() {
            let (before, after) = rest.split_once('{').unwrap_or((rest, ""));
            if !before.is_empty() {
                pieces.push(Piece::Text(before.into()));
            }
            if before.len() == rest.len() {
                break;
            }
            let (inside, later) = after.split_once('}').ok_or_else(|| bad("has a { without its }"))?;
            let piece = match inside {
                "version" => Piece::Version,
                "name" => Piece::Name,
                "dir" => Piece::Dir,
                "ext" => Piece::Ext,
                _ => return Err(bad("may have {version}, {name}, {dir} and {ext} in it, and nothing else in braces")),
            };
            if pieces.contains(&piece) {
                return Err(bad(&format!("has {{{inside}}} twice")));
            }
            pieces.push(piece);
            rest = later;
        }
        if !pieces.contains(&Piece::Version) {
            return Err(bad("has no {version}"));
        }
        Ok(Grammar(pieces))
    }

    /// True when a migration is a pair of files.
    pub fn is_pairs(&self) -> bool {
        self.0.contains(&Piece::Dir)
    }

    /// What the name of a file says; `None` for one that is no migration's.
    pub fn read(&self, file: &str) -> Option<Named> {
        if file.contains('/') {
            return None;
        }
        let mut named = read(&self.0, file)?;
        named.name = named.name.trim_matches('_').to_string();
        Some(named)
    }
}

/// Reads from the left, each open piece as long as the rest allows.
fn read(pieces: &[Piece], text: &str) -> Option<Named> {
    let Some((first, rest)) = pieces.split_first() else { return text.is_empty().then(Named::default) };
    match first {
        Piece::Text(fixed) => read(rest, text.strip_prefix(fixed.as_str())?),
        Piece::Version => {
            let digits = text.bytes().take_while(u8::is_ascii_digit).count();
            let (version, after) = text.split_at(digits);
            (digits > 0).then(|| read(rest, after)).flatten().map(|named| Named { version: version.into(), ..named })
        }
        Piece::Dir => {
            let (is_up, after) = match text.strip_prefix("up") {
                Some(after) => (true, after),
                None => (false, text.strip_prefix("down")?),
            };
            read(rest, after).map(|named| Named { is_up: Some(is_up), ..named })
        }
        Piece::Name | Piece::Ext => {
            let ends = (0..=text.len()).rev().filter(|end| text.is_char_boundary(*end));
            ends.into_iter().find_map(|end| {
                let named = read(rest, &text[end..])?;
                Some(if *first == Piece::Name { Named { name: text[..end].into(), ..named } } else { named })
            })
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn written(text: &str) -> Result<Migrate, String> {
        #[derive(Deserialize)]
        struct One {
            migrate: Migrate,
        }
        toml::from_str::<One>(&format!("migrate = {{ service = \"backend\", {text} }}"))
            .map(|one| one.migrate)
            .map_err(|error| error.message().to_string())
    }

    const COMMAND: &str = r#"preset = "command", up = ["/app/m", "up"], down = ["/app/m", "down", "{n}"],
        ledger = { table = "app.done", version = "id" }"#;

    #[test]
    fn a_preset_is_data_and_own_keys_win() {
        let own =
            written(r#"preset = "vrcshift", image_files = "/m", up = ["/other", "{n}", "{files}"]"#).expect("good");
        let three = NonZeroUsize::new(3).expect("three");
        assert_eq!(own.tool.up.of(three, &own.image_files), ["/other", "3", "/m"]);
        assert_eq!(own.tool.down.of(three, "/m"), ["/app/migrate", "-action=down", "-steps=3"]);
        assert_eq!(own.tool.down.program(), Some("/app/migrate"));
        for name in PRESETS.iter().filter(|name| **name != "command") {
            let migrate = written(&format!("preset = \"{name}\"")).expect("good");
            assert!(migrate.tool.down.counts(), "{name}");
        }
        let golang = written("preset = \"golang-migrate\"").expect("good");
        assert_eq!(golang.tool.ledger.kind, LedgerKind::Golang);
        let command = written(COMMAND).expect("good");
        assert_eq!((command.tool.ledger.parts(), command.tool.ledger.version.as_str()), ((Some("app"), "done"), "id"));
        assert!(command.tool.names.is_pairs() && !command.tool.up.counts());
    }

    #[test]
    fn mistakes_name_what_is_known() {
        for (text, word) in [
            ("preset = \"flyway\"", "no migration preset \"flyway\"; known: vrcshift, golang-migrate, dbmate, command"),
            ("preset = \"vrcshift\", stepps = 1", "unknown field `stepps`, expected one of `preset`, `service`"),
            ("preset = \"command\", down = [\"m\", \"{n}\"]", "migrate.up is missing"),
            ("preset = \"command\", up = [\"m\"], down = [\"m\", \"{n}\"]", "migrate.ledger is missing"),
            ("preset = \"vrcshift\", down = [\"/app/migrate\", \"-action=down\"]", "migrate.down has no {n}"),
            ("preset = \"vrcshift\", up = []", "migrate.up names no program"),
            ("preset = \"vrcshift\", up = [\"m\", \"{steps}\"]", "has {steps}; known: {n}, {files}"),
            ("preset = \"vrcshift\", files_name = \"{name}.sql\"", "has no {version}"),
            ("preset = \"vrcshift\", files_name = \"{version}_{vresion}.sql\"", "nothing else in braces"),
            ("preset = \"vrcshift\", ledger = { table = \"a; DROP TABLE b\" }", "no plain name of a table"),
            ("preset = \"vrcshift\", ledger = { table = \"a\", version = \"v--\" }", "no plain name of a column"),
            ("preset = \"vrcshift\", ledger = { table = \"a\", kind = \"flat\" }", "expected `rows` or `golang`"),
            ("preset = \"vrcshift\", versions = \"dates\"", "expected `numbers` or `timestamps`"),
        ] {
            let error = written(text).expect_err(word);
            assert!(error.contains(word), "{text}: {error}");
        }
    }

    #[test]
    fn names_are_read_as_each_tool_reads_them() {
        let named = |grammar: &str, file: &str| {
            let found = Grammar::parse(grammar).expect("good").read(file)?;
            Some((found.version, found.name, found.is_up))
        };
        let some = |version: &str, name: &str, is_up| Some((version.to_string(), name.to_string(), is_up));
        assert_eq!(named(PAIRS, "046_a_b.up.sql"), some("046", "a_b", Some(true)));
        assert_eq!(named(PAIRS, "046_a.up.down.sql"), some("046", "a.up", Some(false)));
        for other in ["README.md", "x_y.up.sql", "046.up.sql", "046_a.sql", "old/046_a.up.sql", "_a.up.sql", ""] {
            assert_eq!(named(PAIRS, other), None, "{other}");
        }
        let golang = "{version}_{name}.{dir}.{ext}";
        assert_eq!(named(golang, "1_a.down.psql"), some("1", "a", Some(false)));
        assert_eq!(named("{version}{name}.sql", "20260124_notes.sql"), some("20260124", "notes", None));
        assert_eq!(named("{version}{name}.sql", "20260124.sql"), some("20260124", "", None));
        assert_eq!(named("V{version}__{name}.sql", "V7__日本.sql"), some("7", "日本", None));
    }
}
