//! Which tables, columns, indexes, views, sequences and types migrations make and take away, and so which must be there
//! when the ledger is right. Pure: text in, expectations out; what is not understood makes no claim.

use super::files::Files;
use super::sql::parse;
use crate::bind::db::in_path;
use serde_json::{Value, json};
use sqlparser::ast::{
    AlterIndexOperation, AlterTableOperation, Ident, ObjectName, ObjectType, RenameTableNameKind, Statement,
};

/// Something that a migration makes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Object {
    what: &'static str,
    /// Schema, if it is named, and name.
    name: Vec<String>,
    /// The table that it goes away with.
    on: Option<Vec<String>>,
}

/// What one statement does to what is there.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Step {
    /// Makes it; `anyway` when it may be there already.
    Makes { object: Object, anyway: bool },
    /// Takes it away, and what goes with it.
    Takes(Object),
    /// Takes away what nobody can tell.
    TakesSome,
}

/// What must be there, or must not, when the ledger is right.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Expectation {
    /// The migration that makes it.
    pub version: i64,
    /// It.
    pub object: Object,
    /// It must be there.
    pub there: bool,
}

/// For each of a list of objects (`i`, `kind`, `name`, `part`) whether it is there.
pub const THERE: &str = concat!(
    "SELECT o.i, CASE o.kind \
     WHEN 'column' THEN EXISTS (SELECT FROM pg_attribute WHERE attrelid = ",
    in_path!("to_regclass", "o.name"),
    " AND attname = o.part AND attnum > 0 AND NOT attisdropped) WHEN 'type' THEN ",
    in_path!("to_regtype", "o.name"),
    " IS NOT NULL ELSE ",
    in_path!("to_regclass", "o.name"),
    " IS NOT NULL END AS there FROM jsonb_to_recordset($1::jsonb) AS o(i int, kind text, name text, part text) ORDER BY o.i"
);

impl Object {
    fn new(what: &'static str, name: &ObjectName) -> Option<Object> {
        names(name).map(|name| Object { what, name, on: None })
    }

    fn column(table: &[String], column: &Ident) -> Object {
        let mut name = table.to_vec();
        name.push(folded(column));
        Object { what: "column", name, on: Some(table.to_vec()) }
    }

    /// `column shifts.note`.
    pub fn says(&self) -> String {
        format!("{} {}", self.what, self.name.join("."))
    }

    /// As [`THERE`] wants it.
    pub fn to_json(&self, i: usize) -> Value {
        let quoted = |name: &[String]| {
            name.iter().map(|part| format!("\"{}\"", part.replace('"', "\"\""))).collect::<Vec<_>>().join(".")
        };
        match (self.what, self.name.split_last()) {
            ("column", Some((part, table))) => json!({ "i": i, "kind": "column", "name": quoted(table), "part": part }),
            (kind, _) => json!({ "i": i, "kind": kind, "name": quoted(&self.name), "part": null }),
        }
    }

    /// True when taking `taken` away takes this along.
    fn goes_with(&self, taken: &Object) -> bool {
        let same = |one: &[String], other: &[String]| {
            // A name without its schema may be in any.
            let length = one.len().min(other.len());
            one[one.len() - length..] == other[other.len() - length..]
        };
        let itself = (self.what == "column") == (taken.what == "column") && same(&self.name, &taken.name);
        let with_table = self.on.as_ref().is_some_and(|on| taken.what == "table" && same(on, &taken.name));
        // An index may be on the column.
        let with_column = self.what == "index"
            && taken.what == "column"
            && self.on.as_ref().zip(taken.on.as_ref()).is_some_and(|(one, other)| same(one, other));
        itself || with_table || with_column
    }
}

impl Step {
    fn may_take(&self, object: &Object) -> bool {
        match self {
            Step::Makes { .. } => false,
            Step::Takes(taken) => object.goes_with(taken),
            Step::TakesSome => true,
        }
    }
}

fn folded(ident: &Ident) -> String {
    if ident.quote_style.is_some() { ident.value.clone() } else { ident.value.to_lowercase() }
}

/// At most schema and name: another database cannot be asked.
fn names(name: &ObjectName) -> Option<Vec<String>> {
    let parts: Option<Vec<String>> = name.0.iter().map(|part| part.as_ident().map(folded)).collect();
    parts.filter(|parts| matches!(parts.len(), 1 | 2))
}

/// `name`, in the schema of `table` when it has none of its own.
fn beside(table: &[String], name: &ObjectName) -> Option<Vec<String>> {
    let mut name = names(name)?;
    if let ([schema, _], [_]) = (table, &name[..]) {
        name.insert(0, schema.clone());
    }
    Some(name)
}

fn steps(text: &str) -> Vec<Step> {
    match parse(text) {
        Ok(statements) => {
            statements.iter().flat_map(|one| steps_of(one).unwrap_or_else(|| vec![Step::TakesSome])).collect()
        }
        Err(_) => vec![Step::TakesSome],
    }
}

fn makes(object: Object, anyway: bool) -> Vec<Step> {
    vec![Step::Makes { object, anyway }]
}

/// `None` when it cannot be told.
fn steps_of(statement: &Statement) -> Option<Vec<Step>> {
    Some(match statement {
        Statement::CreateTable(table) if table.temporary => Vec::new(),
        Statement::CreateTable(table) => makes(Object::new("table", &table.name)?, table.if_not_exists),
        Statement::CreateView(view) if view.temporary => Vec::new(),
        Statement::CreateView(view) => makes(Object::new("view", &view.name)?, view.or_replace || view.if_not_exists),
        Statement::CreateIndex(index) => {
            let table = names(&index.table_name)?;
            let Some(name) = &index.name else { return Some(Vec::new()) };
            let name = beside(&table, name)?;
            makes(Object { what: "index", name, on: Some(table) }, index.if_not_exists)
        }
        Statement::CreateSequence { temporary: true, .. } => Vec::new(),
        Statement::CreateSequence { name, if_not_exists, .. } => makes(Object::new("sequence", name)?, *if_not_exists),
        Statement::CreateType { name, .. } => makes(Object::new("type", name)?, false),
        Statement::CreateDomain(domain) => makes(Object::new("type", &domain.name)?, false),
        Statement::AlterTable(alter) => {
            let table = names(&alter.name)?;
            let all: Option<Vec<Vec<Step>>> =
                alter.operations.iter().map(|operation| steps_of_table(&table, operation)).collect();
            all?.concat()
        }
        Statement::AlterIndex { name, operation: AlterIndexOperation::RenameIndex { index_name } } => {
            let old = Object::new("index", name)?;
            let renamed = beside(&old.name, index_name)?;
            let mut both = vec![Step::Takes(old)];
            both.extend(makes(Object { what: "index", name: renamed, on: None }, false));
            both
        }
        Statement::Drop { object_type, names, cascade: false, .. } => {
            let what = match object_type {
                ObjectType::Table => "table",
                ObjectType::View | ObjectType::MaterializedView => "view",
                ObjectType::Index => "index",
                ObjectType::Sequence => "sequence",
                ObjectType::Type => "type",
                _ => return None,
            };
            names.iter().map(|name| Object::new(what, name).map(Step::Takes)).collect::<Option<Vec<Step>>>()?
        }
        Statement::Insert(_)
        | Statement::Update { .. }
        | Statement::Delete(_)
        | Statement::Truncate(_)
        | Statement::Query(_)
        | Statement::Comment { .. }
        | Statement::Grant(_)
        | Statement::Revoke(_)
        | Statement::CreateFunction(_)
        | Statement::CreateTrigger(_)
        | Statement::DropTrigger(_)
        | Statement::CreateExtension(_)
        | Statement::CreateSchema { .. }
        | Statement::CreatePolicy(_)
        | Statement::StartTransaction { .. }
        | Statement::Commit { .. }
        | Statement::Set(_)
        | Statement::Analyze(_) => Vec::new(),
        _ => return None,
    })
}

fn steps_of_table(table: &[String], operation: &AlterTableOperation) -> Option<Vec<Step>> {
    use AlterTableOperation as Op;
    let takes = |column: &Ident| Step::Takes(Object::column(table, column));
    Some(match operation {
        Op::AddColumn { column_def, if_not_exists, .. } => {
            makes(Object::column(table, &column_def.name), *if_not_exists)
        }
        Op::DropColumn { column_names, drop_behavior: None, .. } => column_names.iter().map(takes).collect(),
        Op::RenameColumn { old_column_name, new_column_name } => {
            let mut both = vec![takes(old_column_name)];
            both.extend(makes(Object::column(table, new_column_name), false));
            both
        }
        Op::RenameTable { table_name: RenameTableNameKind::To(name) | RenameTableNameKind::As(name) } => {
            let mut both = vec![Step::Takes(Object { what: "table", name: table.to_vec(), on: None })];
            both.extend(makes(Object { what: "table", name: beside(table, name)?, on: None }, false));
            both
        }
        Op::AddConstraint { .. }
        | Op::DropConstraint { drop_behavior: None, .. }
        | Op::RenameConstraint { .. }
        | Op::ValidateConstraint { .. }
        | Op::AlterColumn { .. }
        | Op::OwnerTo { .. }
        | Op::EnableRowLevelSecurity
        | Op::DisableRowLevelSecurity
        | Op::ForceRowLevelSecurity
        | Op::NoForceRowLevelSecurity
        | Op::EnableTrigger { .. }
        | Op::DisableTrigger { .. } => Vec::new(),
        _ => return None,
    })
}

/// What an up leaves behind that was not there before; empty when that cannot be told.
pub fn left_by(up: &str) -> Vec<Object> {
    let steps = steps(up);
    let lasting = steps.iter().enumerate().filter_map(|(at, step)| match step {
        Step::Makes { object, .. } if !steps[at..].iter().any(|later| later.may_take(object)) => Some(object.clone()),
        _ => None,
    });
    lasting.collect()
}

/// What must be there and what must not, when the ledger is right. `elsewhere` has files of applied versions that the
/// image does not know.
///
/// A pending migration makes what is not there yet, unless one before it takes that away first, or it says IF NOT EXISTS.
/// What an applied one made is there, unless it or a later applied one takes it away. Of what is not understood nothing
/// is expected, nor of what came before it (applied) or comes after it (pending).
pub fn expected(applied: &[i64], files: &Files, elsewhere: &Files) -> Vec<Expectation> {
    let ups = |version: &i64| files.get(version).or_else(|| elsewhere.get(version)).and_then(|file| file.up.as_deref());
    let steps_of = |version: &i64| ups(version).map_or_else(|| vec![Step::TakesSome], steps);
    let done: Vec<(i64, Step)> =
        applied.iter().flat_map(|version| steps_of(version).into_iter().map(|step| (*version, step))).collect();
    let mut expected = Vec::new();
    for (at, (version, step)) in done.iter().enumerate() {
        let Step::Makes { object, .. } = step else { continue };
        if !done[at..].iter().any(|(_, later)| later.may_take(object)) {
            expected.push(Expectation { version: *version, object: object.clone(), there: true });
        }
    }
    let mut before: Vec<Step> = Vec::new();
    for (version, _) in files.iter().filter(|(version, file)| file.up.is_some() && !applied.contains(version)) {
        for step in steps_of(version) {
            if let Step::Makes { object, anyway: false } = &step
                && !before.iter().any(|one| one.may_take(object))
            {
                expected.push(Expectation { version: *version, object: object.clone(), there: false });
            }
            before.push(step);
        }
    }
    expected
}

#[cfg(test)]
mod tests {
    use super::super::files::File;
    use super::*;

    fn files(ups: &[(i64, &str)]) -> Files {
        let file = |up: &str| File { up: Some(up.into()), ..File::default() };
        ups.iter().map(|(version, up)| (*version, file(up))).collect()
    }

    fn told(applied: &[i64], ups: &[(i64, &str)]) -> Vec<String> {
        let word = |there| if there { "+" } else { "-" };
        expected(applied, &files(ups), &Files::new())
            .iter()
            .map(|one| format!("{} {}{}", one.version, word(one.there), one.object.says()))
            .collect()
    }

    #[test]
    fn what_applied_migrations_made_is_expected_and_what_pending_ones_make_is_not() {
        let ups = [
            (1, "CREATE TABLE a (id int); CREATE INDEX a_i ON a (id); CREATE TYPE mood AS ENUM ('x')"),
            (2, "ALTER TABLE A ADD COLUMN Note text; CREATE VIEW v AS SELECT 1; INSERT INTO a VALUES (1)"),
            (3, "CREATE TABLE \"B\" (); ALTER TABLE a ADD COLUMN IF NOT EXISTS n int; CREATE TABLE IF NOT EXISTS c ()"),
        ];
        let found = told(&[1, 2], &ups);
        assert_eq!(
            found,
            ["1 +table a", "1 +index a_i", "1 +type mood", "2 +column a.note", "2 +view v", "3 -table B"]
        );
    }

    #[test]
    fn what_a_later_one_takes_away_or_renames_is_not_expected() {
        for (take, left) in [
            ("DROP TABLE a", &[][..]),
            ("DROP TABLE s.a", &[]),
            ("ALTER TABLE a DROP COLUMN note", &["1 +table a"]),
            ("ALTER TABLE a RENAME COLUMN note TO hint", &["1 +table a", "2 +column a.hint"]),
            ("ALTER TABLE a RENAME TO b", &["2 +table b"]),
            ("DROP INDEX a_i", &["1 +table a", "1 +column a.note"]),
            ("ALTER INDEX a_i RENAME TO a_j", &["1 +table a", "1 +column a.note", "2 +index a_j"]),
            ("DROP TABLE z CASCADE", &[]),
            ("DO $$ BEGIN END $$", &[]),
            ("this is no SQL", &[]),
            ("ALTER TABLE a ALTER COLUMN note SET NOT NULL", &["1 +table a", "1 +column a.note", "1 +index a_i"]),
        ] {
            let one = "CREATE TABLE a (id int); ALTER TABLE a ADD COLUMN note text; CREATE INDEX a_i ON a (id)";
            assert_eq!(told(&[1, 2], &[(1, one), (2, take)]), left, "{take}");
        }
        // Applied and known to nobody: what it took away cannot be told.
        assert_eq!(told(&[1, 2], &[(1, "CREATE TABLE a ()")]), [""; 0]);
    }

    #[test]
    fn a_pending_one_may_make_again_what_it_or_one_before_it_takes_away() {
        let ups = [
            (1, "DROP TABLE a; CREATE TABLE a ()"),
            (2, "CREATE TABLE b ()"),
            (3, "nonsense"),
            (4, "CREATE TABLE c ()"),
        ];
        assert_eq!(told(&[], &ups), ["2 -table b"]);
        assert_eq!(told(&[], &[(1, "CREATE OR REPLACE VIEW v AS SELECT 1; CREATE TEMPORARY TABLE t ()")]), [""; 0]);
    }

    #[test]
    fn names_reach_the_database_quoted_and_folded() {
        let up =
            "CREATE TABLE App.\"Odd\"\"One\" (); CREATE INDEX I ON app.t (x); ALTER TABLE app.T ADD COLUMN \"C\" int";
        let asked: Vec<Value> = left_by(up).iter().enumerate().map(|(i, object)| object.to_json(i)).collect();
        assert_eq!(
            asked,
            [
                json!({ "i": 0, "kind": "table", "name": "\"app\".\"Odd\"\"One\"", "part": null }),
                json!({ "i": 1, "kind": "index", "name": "\"app\".\"i\"", "part": null }),
                json!({ "i": 2, "kind": "column", "name": "\"app\".\"t\"", "part": "C" }),
            ]
        );
        assert!(left_by("CREATE TABLE a (); DROP TABLE a").is_empty());
    }
}
