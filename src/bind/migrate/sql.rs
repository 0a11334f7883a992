//! What migration files do, read with a SQL parser: whether old code can live with it, and what a down would lose.
//! Home of `sqlparser`. Pure: text in, judgement out; what cannot be parsed is judged for the worse.

use crate::redact;
use sqlparser::ast::{
    AlterColumnOperation, AlterTableOperation, AlterTypeOperation, ColumnOption, ColumnOptionDef, IndexColumn,
    NullsDistinctOption, ObjectName, ObjectType, Statement, TableConstraint,
};
use sqlparser::dialect::PostgreSqlDialect;
use sqlparser::parser::Parser;
use sqlparser::tokenizer::{Token, Tokenizer, Whitespace};

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

/// The statements of a file.
pub fn parse(text: &str) -> Result<Vec<Statement>, String> {
    Parser::parse_sql(&PostgreSqlDialect {}, text).map_err(|error| error.to_string())
}

/// True when running the text would do nothing: no file, no statement, only comments or an empty transaction.
pub fn is_empty(text: Option<&str>) -> bool {
    let nothing = |one: &Statement| matches!(one, Statement::StartTransaction { .. } | Statement::Commit { .. });
    text.is_none_or(|text| matches!(parse(text), Ok(statements) if statements.iter().all(nothing)))
}

/// What a person should know before the migration is taken back: comments that say it cannot be undone. `up` and `down`
/// are the texts of the migration.
pub fn warns(up: Option<&str>, down: Option<&str>) -> Vec<String> {
    let comments = [up, down].into_iter().flatten().flat_map(comments);
    comments.filter(|comment| is_warning(comment)).map(|comment| format!("its comment says: {comment}")).collect()
}

/// A demand that a file makes of the rows that are there.
#[derive(Debug, PartialEq, Eq)]
pub struct Stop {
    /// The statement, in words.
    pub what: String,
    /// A query whose `n` counts the rows that do not fit; `None` when that cannot be asked.
    pub count_sql: Option<String>,
}

/// Every demand of a down file, in order.
pub fn stops(text: &str) -> Vec<Stop> {
    parse(text).unwrap_or_default().iter().flat_map(stops_of).collect()
}

fn stops_of(statement: &Statement) -> Vec<Stop> {
    match statement {
        Statement::CreateIndex(index) if index.unique => {
            let rest = index.predicate.as_ref().map_or("TRUE".into(), |predicate| format!("({predicate})"));
            let count_sql =
                (index.nulls_distinct != Some(false)).then(|| repeated(&index.table_name, &index.columns, &rest));
            vec![Stop { what: first_words(&statement.to_string()), count_sql }]
        }
        Statement::AlterTable(alter) => {
            let demanding = alter.operations.iter().filter(|operation| is_demanding(operation));
            let stop = |operation: &AlterTableOperation| Stop {
                what: first_words(&format!("ALTER TABLE {} {operation}", alter.name)),
                count_sql: misfits(&alter.name, operation),
            };
            demanding.map(stop).collect()
        }
        _ => Vec::new(),
    }
}

/// Counts the rows of a table that an operation would trip over.
fn misfits(table: &ObjectName, operation: &AlterTableOperation) -> Option<String> {
    let count = |rest: String| Some(format!("SELECT count(*) AS n FROM {table} WHERE {rest}"));
    match operation {
        AlterTableOperation::AddConstraint { constraint: TableConstraint::Check(check), .. } => {
            // A check that gives null lets the row pass, and so does this.
            count(format!("NOT ({})", check.expr))
        }
        AlterTableOperation::AddConstraint { constraint: TableConstraint::Unique(unique), .. }
            if unique.nulls_distinct != NullsDistinctOption::NotDistinct =>
        {
            Some(repeated(table, &unique.columns, "TRUE"))
        }
        AlterTableOperation::AddConstraint { constraint: TableConstraint::ForeignKey(key), .. }
            if key.columns.len() == key.referred_columns.len() =>
        {
            let pairs = key.columns.iter().zip(&key.referred_columns);
            let same: Vec<String> =
                pairs.map(|(here, there)| format!("opsh_there.{there} = opsh_here.{here}")).collect();
            let known: Vec<String> = key.columns.iter().map(|column| format!("{column} IS NOT NULL")).collect();
            let (there, known) = (&key.foreign_table, known.join(" AND "));
            let found = format!("SELECT FROM {there} AS opsh_there WHERE {}", same.join(" AND "));
            Some(format!("SELECT count(*) AS n FROM {table} AS opsh_here WHERE {known} AND NOT EXISTS ({found})"))
        }
        AlterTableOperation::AlterColumn { column_name, op: AlterColumnOperation::SetNotNull } => {
            count(format!("{column_name} IS NULL"))
        }
        // Each row would have a null there.
        AlterTableOperation::AddColumn { column_def, .. } if !column_def.options.iter().any(is_unique) => {
            count("TRUE".into())
        }
        _ => None,
    }
}

fn is_unique(option: &ColumnOptionDef) -> bool {
    matches!(option.option, ColumnOption::Unique(_))
}

/// Counts the rows that repeat the values of others; nulls differ from each other.
fn repeated(table: &ObjectName, columns: &[IndexColumn], rest: &str) -> String {
    let columns: Vec<String> = columns.iter().map(|one| one.column.expr.to_string()).collect();
    let known = columns.iter().map(|column| format!(" AND ({column}) IS NOT NULL")).collect::<String>();
    let by = columns.join(", ");
    format!(
        "SELECT coalesce(sum(opsh_rows - 1), 0)::bigint AS n FROM (SELECT count(*) AS opsh_rows FROM {table} \
         WHERE {rest}{known} GROUP BY {by} HAVING count(*) > 1) AS opsh_repeated"
    )
}

fn is_demanding(operation: &AlterTableOperation) -> bool {
    match operation {
        AlterTableOperation::AddConstraint { constraint, not_valid } => {
            !not_valid
                && matches!(
                    constraint,
                    TableConstraint::Check(_)
                        | TableConstraint::Unique(_)
                        | TableConstraint::PrimaryKey(_)
                        | TableConstraint::ForeignKey(_)
                )
        }
        AlterTableOperation::AlterColumn { op, .. } => {
            matches!(op, AlterColumnOperation::SetNotNull | AlterColumnOperation::SetDataType { .. })
        }
        AlterTableOperation::AddColumn { .. } => !adds_only(operation),
        _ => false,
    }
}

/// Words by which people say in a comment that there is no way back.
const NO_WAY_BACK: [&str; 7] =
    ["irrevers", "will fail", "cannot be undone", "失われ", "完全ではありません", "戻せ", "元に戻りません"];

fn is_warning(comment: &str) -> bool {
    let text = comment.to_lowercase();
    NO_WAY_BACK.iter().any(|words| text.contains(words))
}

/// The comments of a text, each on one line.
fn comments(text: &str) -> Vec<String> {
    let line = |text: &str| text.split_whitespace().collect::<Vec<_>>().join(" ");
    let Ok(tokens) = Tokenizer::new(&PostgreSqlDialect {}, text).tokenize() else {
        return text.lines().filter_map(|one| one.trim().strip_prefix("--")).map(line).collect();
    };
    let comment = |token: &Token| match token {
        Token::Whitespace(Whitespace::SingleLineComment { comment, .. } | Whitespace::MultiLineComment(comment)) => {
            Some(line(comment))
        }
        _ => None,
    };
    tokens.iter().filter_map(comment).collect()
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
    redact::cut_line(statement, 70)
}

fn is_additive(statement: &Statement) -> bool {
    match statement {
        Statement::CreateTable(_) | Statement::CreateType { .. } | Statement::Comment { .. } => true,
        // Replacing one changes what old code reads.
        Statement::CreateView(view) => !view.or_replace,
        // A unique index can refuse what old code writes.
        Statement::CreateIndex(index) => !index.unique,
        Statement::AlterTable(alter) => alter.operations.iter().all(adds_only),
        Statement::AlterType(alter) => matches!(alter.operation, AlterTypeOperation::AddValue(_)),
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
        | Statement::Comment { .. }
        | Statement::StartTransaction { .. }
        | Statement::Commit { .. } => Vec::new(),
        Statement::AlterType(alter) if matches!(alter.operation, AlterTypeOperation::AddValue(_)) => Vec::new(),
        // New rows take none away, unless they replace some.
        Statement::Insert(insert) if insert.on.is_none() && !insert.replace_into => Vec::new(),
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
        assert!(losses("BEGIN; INSERT INTO t VALUES (1); ALTER TYPE m ADD VALUE 'x'; COMMIT").is_empty());
        assert!(matches!(losses("INSERT INTO t VALUES (1) ON CONFLICT (a) DO UPDATE SET b = 1")[..], [Loss::Other(_)]));
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
        assert!(is_empty(Some("BEGIN; COMMIT;")) && is_empty(Some("BEGIN;\n-- nothing\nCOMMIT;")));
        assert!(!is_empty(Some("DROP TABLE t")) && !is_empty(Some("not sql")));
    }

    #[test]
    fn a_down_that_present_rows_may_stop_is_told() {
        let down = "ALTER TABLE t ADD CONSTRAINT c CHECK (s IN ('a')); ALTER TABLE t ALTER COLUMN a SET NOT NULL; \
                    ALTER TABLE t ADD COLUMN b int NOT NULL; ALTER TABLE t ADD COLUMN d int; CREATE UNIQUE INDEX i ON t (a); \
                    ALTER TABLE t ADD CONSTRAINT f FOREIGN KEY (a) REFERENCES u (a) NOT VALID";
        let found = stops(down);
        assert_eq!(found.len(), 4, "{found:?}");
        for (stop, (words, counts)) in found.iter().zip([
            ("c CHECK", "FROM t WHERE NOT (s IN ('a'))"),
            ("a SET NOT NULL", "FROM t WHERE a IS NULL"),
            ("b INT NOT NULL", "FROM t WHERE TRUE"),
            ("UNIQUE INDEX i", "FROM t WHERE TRUE AND (a) IS NOT NULL GROUP BY a HAVING count(*) > 1"),
        ]) {
            let sql = stop.count_sql.as_deref().unwrap_or_default();
            assert!(stop.what.contains(words) && sql.contains(counts), "{stop:?}");
        }
        let key = stops("ALTER TABLE t ADD CONSTRAINT f FOREIGN KEY (a) REFERENCES u (b)");
        assert_eq!(
            key[0].count_sql.as_deref(),
            Some(
                "SELECT count(*) AS n FROM t AS opsh_here WHERE a IS NOT NULL AND NOT EXISTS \
                 (SELECT FROM u AS opsh_there WHERE opsh_there.b = opsh_here.a)"
            )
        );
        assert_eq!(stops("ALTER TABLE t ALTER COLUMN a TYPE int USING a::int")[0].count_sql, None);
        assert!(stops("DROP TABLE t").is_empty() && stops("no sql").is_empty());
    }

    #[test]
    fn a_comment_that_says_there_is_no_way_back_is_told_in_both_languages() {
        for (up, down) in [
            ("-- This is IRREVERSIBLE.\nDROP TABLE t", ""),
            ("DROP TABLE t", "/* the rows of t\n   will fail the check */ SELECT 1"),
            ("DROP TABLE t", "-- データは失われます\nCREATE TABLE t ()"),
            ("DROP TABLE t", "-- ロールバックは完全ではありません\nCREATE TABLE t ()"),
            ("DROP TABLE t", "-- 元の値には戻せない\nDO 'unfinished"),
        ] {
            let found = warns(Some(up), Some(down));
            assert!(found.len() == 1 && found[0].starts_with("its comment says: "), "{found:?}");
        }
        assert!(warns(Some("INSERT INTO t VALUES ('irreversible')"), Some("-- fine\nDELETE FROM t")).is_empty());
    }
}
