//! What migration files do, read with a SQL parser: whether old code can live with it, and what a down would lose.
//! Home of `sqlparser`. Pure: text in, judgement out; what cannot be parsed is judged for the worse.

use sqlparser::ast::{AlterTableOperation, ColumnOption, ObjectName, ObjectType, Statement};
use sqlparser::dialect::PostgreSqlDialect;
use sqlparser::parser::Parser;

/// What an up file does.
#[derive(Debug, PartialEq, Eq)]
pub struct Up {
    /// Code of before can go on using the schema.
    pub additive: bool,
    /// In words.
    pub does: String,
}

/// Something that a down file deletes.
#[derive(Debug, PartialEq, Eq)]
pub enum Loss {
    /// A table with its rows.
    Table(String),
    /// A column with its values.
    Column(String, String),
    /// A statement that may delete and that nobody can count.
    Other(String),
}

impl Loss {
    /// In words.
    pub fn what(&self) -> String {
        match self {
            Loss::Table(table) => format!("table {table}"),
            Loss::Column(table, column) => format!("column {table}.{column}"),
            Loss::Other(statement) => statement.clone(),
        }
    }

    /// A query whose `n` counts what would be lost.
    pub fn count_sql(&self) -> Option<String> {
        match self {
            Loss::Table(table) => Some(format!("SELECT count(*) AS n FROM {table}")),
            Loss::Column(table, column) => Some(format!("SELECT count({column}) AS n FROM {table}")),
            Loss::Other(_) => None,
        }
    }
}

fn parse(text: &str) -> Result<Vec<Statement>, String> {
    Parser::parse_sql(&PostgreSqlDialect {}, text).map_err(|error| error.to_string())
}

/// True when running the text would do nothing: no file, no statement, only comments.
pub fn is_empty(text: Option<&str>) -> bool {
    text.is_none_or(|text| matches!(parse(text), Ok(statements) if statements.is_empty()))
}

/// Judges an up file.
pub fn judge_up(text: &str) -> Up {
    match parse(text) {
        Ok(statements) => Up {
            additive: statements.iter().all(is_additive),
            does: statements.iter().map(|statement| first_words(&statement.to_string())).collect::<Vec<_>>().join("; "),
        },
        Err(error) => Up { additive: false, does: format!("not understood: {error}") },
    }
}

fn first_words(statement: &str) -> String {
    let text = statement.split_whitespace().collect::<Vec<_>>().join(" ");
    if text.chars().count() <= 70 { text } else { text.chars().take(69).chain(['…']).collect() }
}

fn is_additive(statement: &Statement) -> bool {
    match statement {
        Statement::CreateTable(_) | Statement::CreateType { .. } | Statement::Comment { .. } => true,
        // Replacing one changes what old code reads.
        Statement::CreateView(view) => !view.or_replace,
        // A unique index can refuse what old code writes.
        Statement::CreateIndex(index) => !index.unique,
        Statement::AlterTable(alter) => alter.operations.iter().all(adds_only),
        Statement::AlterType(alter) => matches!(alter.operation, sqlparser::ast::AlterTypeOperation::AddValue(_)),
        _ => false,
    }
}

/// A new column that old code can leave out.
fn adds_only(operation: &AlterTableOperation) -> bool {
    let AlterTableOperation::AddColumn { column_def, .. } = operation else { return false };
    let has = |wanted: fn(&ColumnOption) -> bool| column_def.options.iter().any(|option| wanted(&option.option));
    let not_null = has(|option| matches!(option, ColumnOption::NotNull | ColumnOption::PrimaryKey(_)));
    let has_default = has(|option| matches!(option, ColumnOption::Default(_)));
    let unique = has(|option| matches!(option, ColumnOption::Unique(_)));
    (!not_null || has_default) && !unique
}

/// What a down file would delete, in order.
pub fn losses(text: &str) -> Vec<Loss> {
    match parse(text) {
        Ok(statements) => statements.iter().flat_map(losses_of).collect(),
        Err(error) => vec![Loss::Other(format!("a down file that is not understood: {error}"))],
    }
}

fn losses_of(statement: &Statement) -> Vec<Loss> {
    match statement {
        Statement::Drop { object_type: ObjectType::Table, names, cascade: false, .. } => {
            names.iter().map(|name| Loss::Table(name.to_string())).collect()
        }
        // An index or a view holds nothing of its own, as long as nothing that hangs on it goes along.
        Statement::Drop { object_type: ObjectType::Index | ObjectType::View, cascade: false, .. }
        | Statement::CreateTable(_)
        | Statement::CreateIndex(_)
        | Statement::CreateView(_)
        | Statement::CreateType { .. }
        | Statement::Comment { .. } => Vec::new(),
        Statement::AlterTable(alter) => {
            alter.operations.iter().flat_map(|one| column_losses(&alter.name, one)).collect()
        }
        // What is not known to be harmless is a loss that nobody can count.
        other => vec![Loss::Other(first_words(&other.to_string()))],
    }
}

fn column_losses(table: &ObjectName, operation: &AlterTableOperation) -> Vec<Loss> {
    use AlterTableOperation as Op;
    match operation {
        Op::DropColumn { column_names, drop_behavior: None, .. } => {
            column_names.iter().map(|column| Loss::Column(table.to_string(), column.to_string())).collect()
        }
        Op::RenameColumn { .. }
        | Op::RenameTable { .. }
        | Op::RenameConstraint { .. }
        | Op::AddColumn { .. }
        | Op::AddConstraint { .. }
        | Op::DropConstraint { .. } => Vec::new(),
        Op::AlterColumn { op, .. } if !op.to_string().contains("TYPE") => Vec::new(),
        other => vec![Loss::Other(format!("ALTER TABLE {table} {}", first_words(&other.to_string())))],
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_only_adds_is_additive() {
        for text in [
            "CREATE TABLE t (id bigserial PRIMARY KEY, name text NOT NULL)",
            "CREATE INDEX i ON t (a); COMMENT ON TABLE t IS 'x'",
            "ALTER TABLE t ADD COLUMN note text",
            "ALTER TABLE t ADD COLUMN IF NOT EXISTS n int NOT NULL DEFAULT 0",
            "CREATE TYPE mood AS ENUM ('a')",
            "ALTER TYPE mood ADD VALUE 'b'",
            "-- a comment\nCREATE TABLE u ()",
        ] {
            assert!(judge_up(text).additive, "{text}: {:?}", judge_up(text));
        }
    }

    #[test]
    fn what_old_code_can_trip_over_is_not() {
        for text in [
            "ALTER TABLE t RENAME COLUMN a TO b",
            "ALTER TABLE t DROP COLUMN a",
            "ALTER TABLE t ADD COLUMN n int NOT NULL",
            "ALTER TABLE t ADD COLUMN n int UNIQUE",
            "ALTER TABLE t ALTER COLUMN a SET NOT NULL",
            "ALTER TABLE t ADD CONSTRAINT c CHECK (a > 0)",
            "CREATE UNIQUE INDEX i ON t (a)",
            "UPDATE t SET a = 1",
            "DROP TABLE t",
            "CREATE TABLE u (); DROP TABLE t",
            "this is no SQL",
        ] {
            assert!(!judge_up(text).additive, "{text}");
        }
    }

    #[test]
    fn losses_are_named_with_what_counts_them() {
        let found = losses(
            "ALTER TABLE s.shifts DROP COLUMN note, DROP COLUMN \"Odd\"; DROP TABLE IF EXISTS a, b; DROP INDEX i;",
        );
        let words: Vec<String> = found.iter().map(Loss::what).collect();
        assert_eq!(words, ["column s.shifts.note", "column s.shifts.\"Odd\"", "table a", "table b"]);
        assert_eq!(found[0].count_sql().as_deref(), Some("SELECT count(note) AS n FROM s.shifts"));
        assert!(matches!(losses("DELETE FROM t")[..], [Loss::Other(_)]));
        for harmless in
            ["ALTER TABLE t RENAME COLUMN b TO a", "DROP INDEX i", "ALTER TABLE t ALTER COLUMN a DROP NOT NULL"]
        {
            assert!(losses(harmless).is_empty(), "{harmless}: {:?}", losses(harmless));
        }
        for unknown in [
            "DROP TABLE a CASCADE",
            "DROP TYPE x CASCADE",
            "WITH d AS (DELETE FROM t RETURNING 1) SELECT * FROM d",
            "CALL purge()",
            "ALTER TABLE t ALTER COLUMN a TYPE int USING 0",
            "TRUNCATE t",
            "DROP SEQUENCE s",
        ] {
            assert!(matches!(losses(unknown)[..], [Loss::Other(_)]), "{unknown}: {:?}", losses(unknown));
        }
        assert!(matches!(losses("nonsense here")[..], [Loss::Other(_)]));
    }

    #[test]
    fn text_without_statements_is_empty() {
        assert!(is_empty(None) && is_empty(Some("-- x\n")) && is_empty(Some(" ; ")));
        assert!(!is_empty(Some("DROP TABLE t")) && !is_empty(Some("not sql")));
    }
}
