//! Judges the functions that a statement calls, before it runs. A READ ONLY transaction ends neither a session nor keeps a
//! function from dropping a slot: "in observe nothing changes" needs every function to be known.
//!
//! The server itself tells: it analyses the statement as a prepared one, which executes nothing, and prints the tree of
//! it after the rules (`debug_print_rewritten`), in which views, row policies, operators, casts and aggregates stand
//! with the functions that they are. Names, overloads, quoting and the search path are thus never read twice. A tree
//! with a node that is not known here is refused, as is a function that is not on the lists below. This costs one more
//! call of psql. A role that is no superuser cannot keep the tree out of the server's own log.

use super::{begun, failed, psql, typed, variable, wrapped};
use crate::bind::docker::engine::Engine;
use crate::config::Stack;
use crate::error::{Error, Kind, Result};
use serde_json::{Value, json};
use std::collections::BTreeSet;

/// Bytes of a tree that are kept: the largest views of PostgreSQL's own take some hundred KiB.
const TREE: usize = 8 << 20;

/// Prefix of the refusal on its way back.
const REFUSED: &str = "opsh refuses:";

/// Nodes of which everything that can run is collected, in small letters, as PostgreSQL 12 to 17 name them.
const NODES: &[&str] = &[
    "aggref",
    "alias",
    "array",
    "arraycoerceexpr",
    "arrayexpr",
    "arrayref",
    "booleantest",
    "boolexpr",
    "case",
    "caseexpr",
    "casetestexpr",
    "casewhen",
    "coalesce",
    "coalesceexpr",
    "coercetodomain",
    "coerceviaio",
    "collate",
    "collateexpr",
    "commontableexpr",
    "const",
    "convertrowtypeexpr",
    "ctecycleclause",
    "ctesearchclause",
    "distinctexpr",
    "fieldselect",
    "fromexpr",
    "funcexpr",
    "groupingfunc",
    "groupingset",
    "joinexpr",
    "jsonconstructorexpr",
    "jsonformat",
    "jsonispredicate",
    "jsonreturning",
    "jsonvalueexpr",
    "minmax",
    "minmaxexpr",
    "namedargexpr",
    "nullifexpr",
    "nulltest",
    "opexpr",
    "param",
    "query",
    "rangetblentry",
    "rangetblfunction",
    "rangetblref",
    "relabeltype",
    "row",
    "rowcompare",
    "rowcompareexpr",
    "rowexpr",
    "rte",
    "rtepermissioninfo",
    "scalararrayopexpr",
    "setoperationstmt",
    "settodefault",
    "sortgroupclause",
    "sqlvaluefunction",
    "sublink",
    "subscriptingref",
    "tablefunc",
    "tablesampleclause",
    "targetentry",
    "var",
    "when",
    "windowclause",
    "windowfunc",
    "xmlexpr",
];

/// Functions of PostgreSQL's own that it calls volatile although they only look.
const VOLATILE: &[&str] = &[
    "bernoulli",
    "clock_timestamp",
    "current_query",
    "gen_random_uuid",
    "pg_blocking_pids",
    "pg_collation_actual_version",
    "pg_control_checkpoint",
    "pg_control_init",
    "pg_control_recovery",
    "pg_control_system",
    "pg_current_logfile",
    "pg_current_wal_flush_lsn",
    "pg_current_wal_insert_lsn",
    "pg_current_wal_lsn",
    "pg_database_collation_actual_version",
    "pg_database_size",
    "pg_get_backend_memory_contexts",
    "pg_get_multixact_members",
    "pg_get_shmem_allocations",
    "pg_get_wait_events",
    "pg_get_wal_replay_pause_state",
    "pg_get_wal_resource_managers",
    "pg_hba_file_rules",
    "pg_ident_file_mappings",
    "pg_indexes_size",
    "pg_is_in_recovery",
    "pg_is_wal_replay_paused",
    "pg_jit_available",
    "pg_last_committed_xact",
    "pg_last_wal_receive_lsn",
    "pg_last_wal_replay_lsn",
    "pg_last_xact_replay_timestamp",
    "pg_lock_status",
    "pg_ls_archive_statusdir",
    "pg_ls_logdir",
    "pg_ls_tmpdir",
    "pg_ls_waldir",
    "pg_notification_queue_usage",
    "pg_partition_ancestors",
    "pg_partition_tree",
    "pg_prepared_xact",
    "pg_relation_size",
    "pg_replication_origin_progress",
    "pg_safe_snapshot_blocking_pids",
    "pg_sequence_last_value",
    "pg_show_all_file_settings",
    "pg_show_replication_origin_status",
    "pg_sleep",
    "pg_sleep_for",
    "pg_sleep_until",
    "pg_table_size",
    "pg_tablespace_size",
    "pg_total_relation_size",
    "pg_xact_commit_timestamp",
    "pg_xact_commit_timestamp_origin",
    "pg_xact_status",
    "random",
    "random_normal",
    "system",
    "timeofday",
    "txid_status",
    "uuidv4",
    "uuidv7",
];

/// Functions that PostgreSQL does not call volatile, and that run other statements or take a transaction's number.
const NOT_STABLE: &[&str] = &["pg_current_xact_id", "txid_current"];

/// Extensions whose functions do what their volatility says; `dblink`, `tablefunc` and `xml2` run text as a statement.
const EXTENSIONS: &[&str] = &[
    "btree_gin",
    "btree_gist",
    "citext",
    "cube",
    "earthdistance",
    "fuzzystrmatch",
    "hstore",
    "intarray",
    "isn",
    "ltree",
    "pg_stat_statements",
    "pg_trgm",
    "pgcrypto",
    "postgis",
    "seg",
    "timescaledb",
    "unaccent",
    "uuid-ossp",
    "vector",
];

/// Volatile functions of those extensions that only look.
const OF_EXTENSIONS: &[&str] = &[
    "gen_random_bytes",
    "gen_random_uuid",
    "pg_stat_statements",
    "pg_stat_statements_info",
    "uuid_generate_v1",
    "uuid_generate_v1mc",
    "uuid_generate_v4",
];

/// The script's lines that judge on the server, and fail there, what the statement calls. Fails with `usage` where that
/// cannot be told.
pub async fn calls_of(engine: &Engine, stack: &Stack, sql: &str, params: &[Value]) -> Result<String> {
    let bad = |why: String| Error::new(Kind::Usage, failed(stack), why);
    let own = super::of_stack(stack)?.reads.as_slice();
    let asked = analysis(sql, params, own).map_err(bad)?;
    let said = psql(engine, stack, asked, TREE).await?;
    if said.left_out > 0 {
        return Err(bad("what it calls takes more than 8 MiB to tell: ask for less at a time".into()));
    }
    let calls = Calls::in_tree(&said.err).map_err(bad)?;
    Ok(judgement(&calls, own))
}

/// Script for psql that has the statement analysed. First the functions are judged that analysis itself may run: those
/// of a domain's check, by a constant. Then a cursor is opened for the PREPARE, which always fails: by that the server
/// tells whether it is one statement. Only then is it executed, which analyses what it prepares.
fn analysis(sql: &str, params: &[Value], own: &[String]) -> Result<String, String> {
    let types = params.iter().map(|param| Ok(typed(param)?.1)).collect::<Result<Vec<&str>, String>>()?.join(", ");
    let types = if types.is_empty() { String::new() } else { format!("({types})") };
    let mut lines = begun();
    lines.push(judgement(&Calls::default(), own));
    lines.push(format!("\\set q {}", variable(&format!("PREPARE opsh{types} AS {}", wrapped(sql)))?));
    lines.extend(
        [
            "SELECT set_config('opsh.q', :'q', true) AS q \\gset",
            "SELECT CASE WHEN rolsuper THEN set_config('log_min_messages', 'panic', true) END AS q FROM pg_catalog.pg_roles \
             WHERE rolname = current_user \\gset",
            "SET LOCAL client_min_messages = log; SET LOCAL debug_pretty_print = off; SET LOCAL debug_print_rewritten = on;",
            "DO 'DECLARE c refcursor; q text := current_setting(''opsh.q''); BEGIN BEGIN OPEN c FOR EXECUTE q; \
             EXCEPTION WHEN invalid_cursor_definition THEN IF position(''PREPARE'' in SQLERRM) = 0 THEN RAISE; END IF; \
             END; EXECUTE q; END';",
            "ROLLBACK;",
        ]
        .map(String::from),
    );
    Ok(lines.join("\n") + "\n")
}

/// Objects that a statement uses, by their numbers.
#[derive(Debug, Default, PartialEq)]
struct Calls {
    functions: BTreeSet<u32>,
    operators: BTreeSet<u32>,
    relations: BTreeSet<u32>,
}

impl Calls {
    /// Those in what the server printed. Trees of the DO that asked for it stand there too: ours has the name `opsh`.
    fn in_tree(said: &str) -> Result<Calls, String> {
        // Lines are broken at white space, and names have none that is not escaped.
        let said = said.split_whitespace().collect::<Vec<_>>().join(" ");
        let trees: Vec<&str> = said.split("({QUERY").filter(|tree| tree.contains(":aliasname opsh ")).collect();
        let [tree] = trees.as_slice() else {
            return Err("the server did not tell which functions it calls".into());
        };
        let (mut calls, mut nodes) = (Calls::default(), 1);
        let mut tokens = tree.split(' ').peekable();
        while let Some(token) = tokens.next() {
            if let Some(node) = token.trim_start_matches('(').strip_prefix('{') {
                let node = node.trim_end_matches(['}', ')']).to_ascii_lowercase();
                if !NODES.contains(&node.as_str()) {
                    return Err(format!("it cannot be told which functions a node {node} calls"));
                }
                nodes += 1;
            }
            let set = match token {
                key if FUNCTIONS.contains(&key) => &mut calls.functions,
                key if OPERATORS.contains(&key) => &mut calls.operators,
                ":relid" => &mut calls.relations,
                _ => continue,
            };
            // One number, or a list of them: `(o 96 97)`.
            let is_list = tokens.next_if_eq(&"(o").is_some();
            for token in tokens.by_ref() {
                set.extend(token.trim_end_matches(['}', ')']).parse::<u32>().ok().filter(|oid| *oid != 0));
                if !is_list || token.ends_with(')') {
                    break;
                }
            }
        }
        // A brace of a name has a backslash before it: each other one is a node that was looked at.
        match tree.matches('{').count() - tree.matches("\\{").count() + 1 == nodes {
            true => Ok(calls),
            false => Err("the server did not tell in a known form which functions it calls".into()),
        }
    }
}

/// Text before the number of a function.
const FUNCTIONS: &[&str] = &[
    ":aggfnoid",
    ":endInRangeFunc",
    ":funcid",
    ":hashfuncid",
    ":negfuncid",
    ":opfuncid",
    ":startInRangeFunc",
    ":tsmhandler",
    ":winfnoid",
];

/// Text before the number of an operator, or of several.
const OPERATORS: &[&str] = &[":cycle_mark_neop", ":eqop", ":opno", ":opnos", ":sortop"];

/// Names and numbers as SQL has them in a list; never an empty one.
fn listed(items: impl IntoIterator<Item = String>, none: &str) -> String {
    let items: Vec<String> = items.into_iter().collect();
    if items.is_empty() { none.into() } else { items.join(", ") }
}

/// Lines that fail on the server when one of these is not known to change nothing, or a relation is another server's.
/// Besides them, whatever the database may call unnamed: by a domain's check, a cast to JSON, the order of a type, and
/// an index or constraint of the relation that calls a function of constants, which planning does. Unnamed functions in
/// C are a superuser's, as those are by which types are read and written: those that are not volatile are let be.
fn judgement(calls: &Calls, own: &[String]) -> String {
    let numbers = |set: &BTreeSet<u32>| listed(set.iter().map(u32::to_string), "0");
    let text = |name: &str| format!("'{}'", name.replace('\'', "''"));
    let names = |list: &[&str]| listed(list.iter().map(|name| text(name)), "''");
    let own = listed(own.iter().map(|name| text(name)), "''");
    let called = r"regexp_matches(c.conbin::text, ':(?:funcid|opfuncid|hashfuncid|negfuncid) ([0-9]+)', 'g')";
    let folded = r"\{FUNCEXPR :funcid ([0-9]+) [^{]*:args (?:<>|\((?:\{CONST [^{}]*\} ?)+\))";
    let sql = format!(
        "DECLARE bad text; BEGIN WITH RECURSIVE \
         relation AS (SELECT oid FROM pg_catalog.pg_class WHERE oid IN ({relations}) \
         UNION SELECT inhrelid FROM pg_catalog.pg_inherits JOIN relation ON inhparent = relation.oid), \
         constant AS (SELECT tree FROM relation JOIN pg_catalog.pg_index i ON i.indrelid = relation.oid, \
         LATERAL (VALUES (i.indexprs::text), (i.indpred::text)) AS trees(tree) \
         UNION ALL SELECT c.conbin::text FROM relation JOIN pg_catalog.pg_constraint c ON c.conrelid = relation.oid), \
         unnamed(oid) AS (SELECT ({called})[1]::oid FROM pg_catalog.pg_constraint c WHERE c.contypid <> 0 AND c.contype = 'c' \
         UNION SELECT (regexp_matches(tree, '{folded}', 'g'))[1]::oid FROM constant \
         UNION SELECT castfunc FROM pg_catalog.pg_cast WHERE casttarget IN (114, 3802) AND castfunc >= 16384 \
         UNION SELECT amproc FROM pg_catalog.pg_amproc WHERE amproc >= 16384), \
         called AS (SELECT oid FROM pg_catalog.pg_proc WHERE oid IN ({functions}) \
         UNION SELECT oprcode FROM pg_catalog.pg_operator WHERE oid IN ({operators}) \
         UNION SELECT p.oid FROM unnamed JOIN pg_catalog.pg_proc p ON p.oid = unnamed.oid \
         WHERE NOT (p.oid >= 16384 AND p.prolang = 13 AND p.provolatile <> 'v')), \
         judged AS (SELECT n.nspname || '.' || p.proname AS name, \
         (p.oid < 16384 AND (p.proname IN ({volatile}) OR p.proname LIKE 'pg\\_stat\\_get\\_%' OR (p.provolatile <> 'v' \
         AND p.proname NOT IN ({not_stable}) AND p.proname NOT LIKE '%\\_to\\_xml%'))) \
         OR n.nspname || '.' || p.proname IN ({own}) \
         OR ((p.provolatile <> 'v' OR p.proname IN ({of_extensions})) AND EXISTS (SELECT 1 FROM pg_catalog.pg_depend d \
         JOIN pg_catalog.pg_extension e ON e.oid = d.refobjid AND d.refclassid = 'pg_catalog.pg_extension'::regclass \
         WHERE d.classid = 'pg_catalog.pg_proc'::regclass AND d.objid = p.oid AND d.deptype = 'e' \
         AND e.extname IN ({extensions}))) AS known \
         FROM called JOIN pg_catalog.pg_proc p ON p.oid = called.oid JOIN pg_catalog.pg_namespace n ON n.oid = p.pronamespace) \
         SELECT string_agg(DISTINCT name, ' ') INTO bad FROM (SELECT name FROM judged WHERE NOT known UNION ALL \
         SELECT 'foreign:' || c.relname FROM relation JOIN pg_catalog.pg_class c ON c.oid = relation.oid \
         WHERE c.relkind = 'f') AS found; \
         IF bad IS NOT NULL THEN RAISE EXCEPTION '{REFUSED} %', bad; END IF; END",
        functions = numbers(&calls.functions),
        operators = numbers(&calls.operators),
        relations = numbers(&calls.relations),
        volatile = names(VOLATILE),
        not_stable = names(NOT_STABLE),
        of_extensions = names(OF_EXTENSIONS),
        extensions = names(EXTENSIONS),
    );
    format!("DO {};", text(&sql))
}

/// Functions that the server refused.
pub fn refused(said: &str) -> Option<Vec<String>> {
    let (_, calls) = said.rsplit_once(REFUSED)?;
    Some(calls.lines().next()?.split_whitespace().map(String::from).collect())
}

/// The error of a statement that calls these.
pub fn refusal(stack: &Stack, calls: &[String]) -> Error {
    let (foreign, functions): (Vec<&String>, Vec<&String>) =
        calls.iter().partition(|call| call.starts_with("foreign:"));
    let mut whys = Vec::new();
    if !functions.is_empty() {
        let names: Vec<&str> = functions.iter().map(|name| name.as_str()).collect();
        whys.push(format!("it may call {}, which is not known to change nothing", names.join(", ")));
    }
    if let Some(table) = foreign.first().and_then(|name| name.strip_prefix("foreign:")) {
        whys.push(format!("{table} is a foreign table: another server runs the query"));
    }
    let error = Error::new(Kind::Usage, failed(stack), whys.join("; "));
    let Some(db) = &stack.db else { return error };
    let own: Vec<&&String> = functions.iter().filter(|name| !name.starts_with("pg_catalog.")).collect();
    let error = match own.is_empty() {
        true => error,
        false => error.next(format!("db = {{ …, reads = {} }} in opsh.toml     when it only reads", json!(own))),
    };
    let words = json!(["psql", "-U", db.user, "-d", db.name, "-c", "…"]);
    error.next(format!("stack({}).exec({}, {words})     runs it as a change", json!(stack.name), json!(db.service)))
}

#[cfg(test)]
mod tests;
