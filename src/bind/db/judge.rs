//! Judges the functions that a statement calls, before it runs. A READ ONLY transaction ends neither a session nor keeps a
//! function from dropping a slot: "in observe nothing changes" needs every function to be known.
//!
//! The server itself tells: it analyses the statement as a prepared one, which executes nothing, and prints the tree of
//! it after the rules (`debug_print_rewritten`), in which views, row policies, operators, casts and aggregates stand
//! with the functions that they are. Names, overloads, quoting and the search path are thus never read twice. A tree
//! with a node that is not known here is refused, as is a function that is not on the lists below. A role that is no superuser cannot keep the tree out of the server's own log.

use super::{OWN_PATH, PATH, begun, failed, fetched, opened, set, setting, typed, wrapped};
use crate::config::Stack;
use crate::error::{Error, Kind};
use serde_json::{Value, json};
use std::collections::BTreeSet;

/// Bytes of a tree that are kept: the largest views of PostgreSQL's own take some hundred KiB.
const TREE: usize = 8 << 20;

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

/// Functions that PostgreSQL does not call volatile, and that run other statements, take a transaction's number, or read a
/// value of a type that they are told as they run.
const NOT_STABLE: &[&str] = &[
    "array_in",
    "domain_in",
    "multirange_in",
    "pg_current_xact_id",
    "pg_input_error_info",
    "pg_input_is_valid",
    "range_in",
    "record_in",
    "txid_current",
];

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

/// The last thing on standard error before psql waits for more. A tree has no blank that is not escaped in a name.
pub(super) const HEARD: &str = " opsh heard";

/// One session of psql, in which a statement is analysed, judged and run, each when the one before is heard. What was
/// analysed holds its locks until the transaction ends, and what runs is what was judged: it is opened before anything of
/// it is fetched, and its tree must call the same.
pub struct Talk {
    params: Vec<Value>,
    own: Vec<String>,
    heard: String,
    step: Step,
    untold: Option<String>,
}

#[derive(PartialEq)]
enum Step {
    Analysed,
    Judged(Calls),
    Fetched,
}

/// What psql is told next.
pub enum Reply {
    Wait,
    Say(String),
    Last(String),
}

/// How it ended.
pub enum End {
    /// Its rows are on standard output.
    Answered,
    /// These are not known to change nothing.
    Refused(Vec<Value>),
    /// It cannot be told what it calls.
    Untold(String),
}

impl Talk {
    /// A talk about a statement, and what psql is told first: the statement as a prepared one, to be analysed. Before that
    /// the functions are judged that analysis itself may run: those of a domain's check, by a constant of an array, a row or a
    /// range that the domain is in. Then a cursor is opened for the PREPARE, which always fails: by that the server tells whether it is one statement. Only then is it
    /// executed, which analyses what it prepares.
    pub fn about(sql: &str, params: &[Value], own: &[String]) -> Result<(Talk, String), String> {
        let types = params.iter().map(|param| Ok(typed(param)?.1)).collect::<Result<Vec<&str>, String>>()?.join(", ");
        let types = if types.is_empty() { String::new() } else { format!("({types})") };
        let mut lines = begun();
        lines.extend(set(&wrapped(sql), params)?);
        if may_read_parts(sql) {
            lines.push(judgement(&Calls::default(), NAMED, own));
        }
        lines.push(setting("prepare", &format!("PREPARE opsh{types} AS {}", wrapped(sql)))?);
        lines.push(
            "SELECT CASE WHEN rolsuper THEN set_config('log_min_messages', 'panic', true) END AS v FROM pg_roles \
             WHERE rolname = current_user \\gset"
                .into(),
        );
        lines.extend([
            PRINTED.into(),
            format!(
                "DO 'DECLARE c refcursor; q text := current_setting(''opsh.prepare''); BEGIN BEGIN {OWN_PATH} \
                 OPEN c FOR EXECUTE q; \
                 EXCEPTION WHEN invalid_cursor_definition THEN IF position(''PREPARE'' in SQLERRM) = 0 THEN RAISE; END IF; \
                 END; {OWN_PATH} EXECUTE q; {PATH} END';"
            ),
            heard(),
        ]);
        let (params, own) = (params.to_vec(), own.to_vec());
        let talk = Talk { params, own, heard: String::new(), step: Step::Analysed, untold: None };
        Ok((talk, lines.join("\n") + "\n"))
    }

    /// Hears a piece of what psql says on standard error.
    pub fn hear(&mut self, said: &str) -> Reply {
        self.heard.push_str(said);
        let next = if self.heard.len() > TREE {
            Err("what it calls takes more than 8 MiB to tell: ask for less at a time".into())
        } else if self.heard.trim_end().ends_with(HEARD) {
            Calls::in_tree(&std::mem::take(&mut self.heard)).and_then(|calls| self.next(calls))
        } else {
            return Reply::Wait;
        };
        next.unwrap_or_else(|why| {
            self.untold.get_or_insert(why);
            Reply::Last("\\q\n".into())
        })
    }

    fn next(&mut self, calls: Calls) -> Result<Reply, String> {
        match &self.step {
            Step::Analysed => {
                let lines = [judgement(&calls, "", &self.own), PRINTED.into(), opened(&self.params, true)?, heard()];
                self.step = Step::Judged(calls);
                Ok(Reply::Say(lines.join("\n") + "\n"))
            }
            Step::Judged(judged) if *judged == calls => {
                self.step = Step::Fetched;
                Ok(Reply::Last(fetched(true)))
            }
            Step::Judged(_) => Err("somebody changed what it calls at this moment: ask again".into()),
            Step::Fetched => Ok(Reply::Wait),
        }
    }

    /// What became of it, by what psql wrote on standard output and an exit code of 0. Before anything is fetched it is
    /// the judge alone that writes there.
    pub fn end(self, out: &str) -> End {
        match (self.untold, self.step, serde_json::from_str(out)) {
            (Some(why), ..) => End::Untold(why),
            (_, Step::Fetched, _) => End::Answered,
            (_, _, Ok(calls)) => End::Refused(calls),
            _ => End::Untold("the server did not tell which functions it calls".into()),
        }
    }
}

/// From here on the server prints trees.
const PRINTED: &str = "SET LOCAL client_min_messages = log; SET LOCAL debug_pretty_print = off; \
                       SET LOCAL debug_print_rewritten = on;";

/// Lines after which psql has said all and waits.
fn heard() -> String {
    let quiet = "SET LOCAL debug_print_rewritten = off; SET LOCAL client_min_messages = error;";
    format!("{quiet}\nDO 'BEGIN RAISE INFO ''%'', ''{}''; END';", HEARD.trim())
}

/// Objects that a statement uses, by their numbers.
#[derive(Debug, Default, PartialEq)]
struct Calls {
    functions: BTreeSet<u32>,
    operators: BTreeSet<u32>,
    relations: BTreeSet<u32>,
    types: BTreeSet<u32>,
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
                key if TYPES.contains(&key) => &mut calls.types,
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

/// Text before the number of a type, or of several, of which a value is made: by a coercion, a constant or a function. What is
/// only passed on, as a column is, was checked when it was written.
const TYPES: &[&str] = &[
    ":aggtype",
    ":coltypes",
    ":consttype",
    ":funccoltypes",
    ":funcresulttype",
    ":opresulttype",
    ":resulttype",
    ":typid",
    ":wintype",
];

/// False for a text in which no constant can be an array, a row or a range: those begin with a bracket. Of such a constant
/// analysis reads the parts, which runs the checks of their domains; those of a whole constant run with the statement.
fn may_read_parts(sql: &str) -> bool {
    let begins = |rest: &str| rest.trim_start().starts_with(['(', '[', '{']);
    sql.contains('\\')
        || sql.to_ascii_lowercase().contains("uescape")
        || sql.match_indices(['\'', '$']).any(|(at, _)| begins(&sql[at + 1..]))
}

/// Types that a constant can become before the statement is analysed: those with a name in the text, those of each relation
/// (its row is a type) and each function with a name in it, and those of operators, whose names need not stand there. A name
/// that may be spelled otherwise counts as one that is there.
const NAMED: &str = r#"UNION SELECT oid FROM pg_type, spelled WHERE oid >= 16384 AND (typname::text COLLATE "C" ~ '[^ !#-~]' OR
          anyhow OR position(lower(typname::text COLLATE "C") IN text) > 0)
          UNION SELECT unnest(proargtypes::oid[] || coalesce(proallargtypes, '{}') || prorettype) FROM pg_proc, spelled WHERE
          oid >= 16384 AND (proname::text COLLATE "C" ~ '[^ !#-~]' OR anyhow OR position(lower(proname::text COLLATE "C") IN text) > 0)
          UNION SELECT unnest(ARRAY[oprleft, oprright]) FROM pg_operator WHERE oid >= 16384"#;

/// Names and numbers as SQL has them in a list; never an empty one.
fn listed(items: impl IntoIterator<Item = String>, none: &str) -> String {
    let items: Vec<String> = items.into_iter().collect();
    if items.is_empty() { none.into() } else { items.join(", ") }
}

/// Lines that end the session when one of these is not known to change nothing, or a relation is another server's: then
/// they print what is wrong as JSON. Besides them, whatever the database may call unnamed: by the check of a domain of which
/// a value is made, or of one in `named`, a cast to JSON, the order of a type, and by each index, constraint, key of partitions, statistic and range type of the relation:
/// planning computes parts of their expressions, nobody guesses which. Policies and rules stand in the tree where they
/// apply. Unnamed functions in C are a superuser's, as those are by which types are read and written: those that are not
/// volatile are let be.
fn judgement(calls: &Calls, named: &str, own: &[String]) -> String {
    let numbers = |set: &BTreeSet<u32>| listed(set.iter().map(u32::to_string), "0");
    let text = |name: &str| format!("'{}'", name.replace('\'', "''"));
    let names = |list: &[&str]| listed(list.iter().map(|name| text(name)), "''");
    let keys = |keys: &[&str]| keys.iter().map(|key| &key[1..]).collect::<Vec<_>>().join("|");
    // Of catalogs that have a column only in newer versions, by its name in JSON.
    let newer = |row: &str, column: &str| format!("to_jsonb({row})->>'{column}'");
    let sql = format!(
        r#"WITH RECURSIVE relation AS (SELECT oid FROM pg_class WHERE oid IN ({relations})
          UNION SELECT inhrelid FROM pg_inherits JOIN relation ON inhparent = relation.oid),
        spelled AS (SELECT lower(current_setting('opsh.q') COLLATE "C") AS text, current_setting('opsh.q') ~* 'u&"' AS anyhow),
        of_relation(text) AS (SELECT conbin::text FROM pg_constraint WHERE conrelid IN (SELECT oid FROM relation)
          UNION ALL SELECT part FROM pg_index, LATERAL (VALUES (indexprs::text), (indpred::text)) AS parts(part)
          WHERE indrelid IN (SELECT oid FROM relation)
          UNION ALL SELECT partexprs::text FROM pg_partitioned_table WHERE partrelid IN (SELECT oid FROM relation)
          UNION ALL SELECT {statistic} FROM pg_statistic_ext s WHERE stxrelid IN (SELECT oid FROM relation)
          UNION ALL SELECT adbin::text FROM pg_attrdef JOIN pg_attribute ON attrelid = adrelid AND attnum = adnum
          WHERE attgenerated <> '' AND adrelid IN (SELECT oid FROM relation)),
        made(oid) AS (SELECT oid FROM pg_type WHERE oid IN ({types})
          UNION SELECT unnest(string_to_array(found[1], ' ')::oid[])
          FROM of_relation, LATERAL regexp_matches(text, ':(?:{type_keys}) \(?(?:o )?([0-9]+(?: [0-9]+)*)', 'g') AS found
          {named}
          UNION SELECT part.oid FROM made, LATERAL (SELECT * FROM pg_type WHERE oid = made.oid OFFSET 0) AS t LEFT JOIN pg_range r
          ON t.oid IN (r.rngtypid, ({multirange})::oid), LATERAL (VALUES (typelem), (typbasetype), (rngtypid), (rngsubtype)
            UNION ALL SELECT atttypid FROM pg_attribute WHERE attrelid = typrelid AND attnum > 0
            UNION ALL SELECT unnest(string_to_array(found[1], ' ')::oid[]) FROM pg_constraint,
            LATERAL regexp_matches(conbin::text, ':(?:{type_keys}) \(?(?:o )?([0-9]+(?: [0-9]+)*)', 'g') AS found
            WHERE contypid = t.oid AND contype = 'c') AS part(oid)),
        kind(oid) AS (SELECT atttypid FROM relation JOIN pg_attribute ON attrelid = relation.oid
          UNION SELECT oid FROM made
          UNION SELECT part.oid FROM kind, LATERAL (SELECT * FROM pg_type WHERE oid = kind.oid OFFSET 0) AS t LEFT JOIN pg_range r
          ON t.oid IN (r.rngtypid, ({multirange})::oid), LATERAL (VALUES (typelem), (typbasetype), (rngtypid), (rngsubtype)) AS part(oid)),
        tree(text) AS (SELECT text FROM of_relation UNION ALL SELECT conbin::text FROM pg_constraint
          WHERE contypid <> 0 AND contypid IN (SELECT oid FROM made) AND contype = 'c'),
        unnamed(oid) AS (SELECT found[1]::oid FROM tree, LATERAL regexp_matches(text, ':(?:{function_keys}) ([0-9]+)', 'g') AS found
          UNION SELECT oprcode::oid FROM pg_operator JOIN (SELECT unnest(string_to_array(found[1], ' '))::oid AS oid
          FROM tree, LATERAL regexp_matches(text, ':(?:{operator_keys}) \(?(?:o )?([0-9]+(?: [0-9]+)*)', 'g') AS found) AS used USING (oid)
          UNION SELECT part.oid FROM pg_range JOIN kind ON kind.oid = rngtypid,
          LATERAL (VALUES (rngcanonical::oid), (rngsubdiff::oid)) AS part(oid) WHERE part.oid >= 16384
          UNION SELECT castfunc FROM pg_cast WHERE casttarget IN (114, 3802) AND castfunc >= 16384
          UNION SELECT amproc::oid FROM pg_amproc WHERE amproc::oid >= 16384),
        called AS (SELECT oid FROM pg_proc WHERE oid IN ({functions})
          UNION SELECT oprcode FROM pg_operator WHERE oid IN ({operators})
          UNION SELECT p.oid FROM unnamed JOIN pg_proc p ON p.oid = unnamed.oid
          WHERE NOT (p.oid >= 16384 AND p.prolang IN (12, 13) AND p.provolatile <> 'v')),
        judged AS (SELECT n.nspname || '.' || p.proname AS name, format('%I.%I', n.nspname, p.proname) AS quoted,
          oidvectortypes(p.proargtypes) AS types, p.oid,
          (p.oid < 16384 AND (p.proname IN ({volatile}) OR p.proname LIKE 'pg\_stat\_get\_%' OR (p.provolatile <> 'v'
            AND p.proname NOT IN ({not_stable}) AND p.proname NOT LIKE '%\_to\_xml%')))
          OR (o.rolsuper AND p.prolang IN (12, 13) AND (p.provolatile <> 'v' OR p.proname IN ({of_extensions}))
            AND EXISTS (SELECT FROM pg_depend d JOIN pg_extension e ON e.oid = d.refobjid AND d.refclassid = 'pg_extension'::regclass
            WHERE d.classid = 'pg_proc'::regclass AND d.objid = p.oid AND d.deptype = 'e' AND e.extname IN ({extensions}))) AS known,
          o.rolsuper OR o.rolname = session_user AS trusted,
          (SELECT array_agg(q.oid::regprocedure::text ORDER BY 1) FROM pg_proc q
            WHERE q.pronamespace = n.oid AND q.proname = p.proname) AS same, o.rolname AS owner
          FROM called JOIN pg_proc p ON p.oid = called.oid JOIN pg_namespace n ON n.oid = p.pronamespace
          JOIN pg_roles o ON o.oid = p.proowner),
        listed AS (SELECT judged.*, EXISTS (SELECT FROM unnest(ARRAY[{own}]::text[]) AS entry
            WHERE CASE WHEN split_part(entry, '(', 1) IN (name, quoted) AND entry LIKE '%)'
            THEN to_regprocedure(entry) = judged.oid ELSE false END) AS is_one,
          EXISTS (SELECT FROM unnest(ARRAY[{own}]::text[]) AS entry WHERE entry IN (name, quoted)) AS is_name FROM judged)
        SELECT json_agg(DISTINCT jsonb_build_object('name', name, 'call', quoted || '(' || types || ')', 'why', why,
          'owner', owner, 'same', same)) AS refused FROM (
          SELECT name, quoted, types, owner, same, CASE WHEN NOT (is_one OR is_name) THEN 'unknown' WHEN NOT trusted THEN 'owner'
          ELSE 'several' END AS why FROM listed
          WHERE NOT (known OR (trusted AND (is_one OR (is_name AND cardinality(same) = 1))))
          UNION ALL SELECT relname, relname, '', NULL, NULL, 'foreign' FROM pg_class JOIN relation USING (oid) WHERE relkind = 'f'
          UNION ALL SELECT found[1], found[1], '', NULL, NULL, 'node' FROM tree, LATERAL regexp_matches(text, '[{{]([A-Za-z]+)', 'g') AS found
          WHERE lower(found[1]) NOT IN ({nodes}, 'coercetodomainvalue')) AS found"#,
        multirange = newer("r", "rngmultitypid"),
        statistic = newer("s", "stxexprs"),
        function_keys = keys(FUNCTIONS),
        operator_keys = keys(OPERATORS),
        functions = numbers(&calls.functions),
        operators = numbers(&calls.operators),
        relations = numbers(&calls.relations),
        types = numbers(&calls.types),
        type_keys = keys(TYPES),
        volatile = names(VOLATILE),
        not_stable = names(NOT_STABLE),
        of_extensions = names(OF_EXTENSIONS),
        extensions = names(EXTENSIONS),
        nodes = names(NODES),
        own = own.iter().map(|name| text(name)).collect::<Vec<_>>().join(", "),
    );
    format!("{sql} \\gset\n\\if :{{?refused}}\n\\echo :refused\n\\q\n\\endif")
}

/// The error of a statement that calls these.
pub fn refusal(stack: &Stack, calls: &[Value]) -> Error {
    let of = |why: &'static str, key: &'static str| {
        calls.iter().filter(move |call| call["why"] == why).filter_map(move |call| call[key].as_str())
    };
    let (unknown, mut whys) = (of("unknown", "call").collect::<Vec<_>>(), Vec::new());
    if !unknown.is_empty() {
        whys.push(format!("it may call {}, which is not known to change nothing", unknown.join(", ")));
    }
    for call in calls.iter().filter(|call| call["why"] == "owner") {
        let (call, owner) = (said(&call["call"]), said(&call["owner"]));
        whys.push(format!("it may call {call}, which belongs to {owner}: that role can make it another one"));
    }
    for call in calls.iter().filter(|call| call["why"] == "several") {
        let same: Vec<&str> = call["same"].as_array().into_iter().flatten().filter_map(Value::as_str).collect();
        whys.push(format!("reads in opsh.toml has \"{}\", and that is {}", said(&call["name"]), same.join(" and ")));
    }
    whys.extend(
        of("foreign", "name").map(|table| format!("{table} is a foreign table: another server runs the query")),
    );
    whys.extend(of("node", "name").map(|node| format!("it cannot be told which functions a node {node} calls")));
    let error = Error::new(Kind::Usage, failed(stack), whys.join("; "));
    let Some(db) = &stack.db else { return error };
    let own = unknown.into_iter().filter(|name| !name.starts_with("pg_catalog."));
    let own: Vec<&str> = own.chain(of("several", "call")).collect();
    let error = match own.is_empty() {
        true => error,
        false => error.next(format!("db = {{ …, reads = {} }} in opsh.toml     when it only reads", json!(own))),
    };
    let words = super::psql::typed(db);
    error.next(format!("stack({}).exec({}, {words})     runs it as a change", json!(stack.name), json!(db.service)))
}

fn said(value: &Value) -> &str {
    value.as_str().unwrap_or_default()
}

#[cfg(test)]
mod tests;
