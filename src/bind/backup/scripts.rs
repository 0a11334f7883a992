//! What runs as POSIX sh on the database's host. Words come as `$1`, `$2`, … and are never parsed by a shell; names reach
//! the server as psql variables and are quoted by it.

use crate::bind::db::psql;

/// `$1` folder, `$2` how a backup's name begins. Prints what is there as `word value` lines, then two
/// lines for each backup: size and name, and what was written down about it.
pub const LOOK: &str = r#"export LC_ALL=C
dir=$1; near=$dir
while [ ! -e "$near" ]; do near=$(dirname "$near"); done
echo "at $(date -u +%Y%m%dT%H%M%SZ)"
echo "real $(readlink -f "$near")"
echo "free_kib $(df -Pk "$near" | awk 'NR == 2 { print $4 }')"
if [ -d "$dir" ] && ! { [ -r "$dir" ] && [ -x "$dir" ]; }; then echo "closed yes"; exit 0; fi
echo files
for file in "$dir/$2"-*.dump; do
  [ -f "$file" ] || continue
  size=$(wc -c <"$file") || continue
  echo $size "${file##*/}"
  printf '%s\n' "$(head -n 1 "$file.json" 2>/dev/null)"
done"#;

/// Functions of everything below. A program in the container is never part of a pipe whose status is that of another.
const COMMON: &str = r#"set -eu
export LC_ALL=C
umask 077
no() { echo "$*" >&2; exit 1; }
inside() { docker exec -i "$container" "$@"; }
sql() { sql_in=$1; shift; opsh_sql "$container" "$role" "$sql_in" "$@"; }
tables() {
  sql "$1" <<'END'
SELECT c.oid FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
WHERE c.relkind IN ('r', 'p', 'f') AND c.relpersistence <> 't'
  AND n.nspname NOT IN ('pg_catalog', 'information_schema') AND n.nspname NOT LIKE 'pg\_toast%'
  AND NOT EXISTS (SELECT FROM pg_depend d WHERE d.classid = 'pg_class'::regclass AND d.objid = c.oid AND d.deptype = 'e');
END
}
room() { df -Pk "$dir" | awk 'NR == 2 && $4 < 1024 { exit 1 }' || no "the disk of $dir is full"; }
# $1 a dump: writes its list, the oids of its tables and the rows of each table to files in $work, or says what is wrong.
prove() {
  size=$(($(wc -c <"$1")))
  [ $size -gt 1024 ] || no "it is $size bytes long: that is no dump"
  inside pg_restore -l <"$1" >"$work/list" 2>"$work/said" || no "it cannot be listed: $(tail -n 2 "$work/said")"
  grep -Fxq ";     dbname: $db" "$work/list" || no "it is a dump of another database: $(sed -n 's/^;  *dbname: //p' "$work/list")"
  awk '$2 == 1259 && ($4 == "TABLE" || $4 $5 == "FOREIGNTABLE") { print $3 }' "$work/list" >"$work/listed"
  # Its list stands at the beginning: only reading all of it shows that the rest is there.
  { inside pg_restore -a -f - <"$1" 2>"$work/said" && code=0 || code=$?; echo $code >"$work/code"; } | awk '
    open && $0 == "\\." { print name "\t" rows; open = 0; next }
    open { rows++; next }
    /^COPY .* FROM stdin;$/ { name = substr($0, 6); sub(/ FROM stdin;$/, "", name); sub(/ \(.*\)$/, "", name); rows = 0; open = 1 }' >"$work/rows"
  [ "$(cat "$work/code")" = 0 ] || no "it cannot be read to its end: $(tail -n 2 "$work/said")"
}
"#;

/// `$1` container, `$2` role, `$3` database, `$4` folder, `$5` name, `$6` what is known before, as the beginning of a JSON
/// object, `$7` oids of tables that must be in it.
const DUMP: &str = r#"container=$1 role=$2 db=$3 dir=$4 name=$5 head=$6 touches=$7
[ -d "$dir" ] || mkdir -p "$dir" || no "make it once: install -d -m 700 -o $(id -un) $dir"
[ -O "$dir" ] || no "$dir belongs to another account than $(id -un)"
chmod 700 "$dir"
if command -v flock >/dev/null; then
  exec 9<"$dir"; flock -n 9 || no "another backup is being made in $dir"
  # Whoever left these is gone, or would hold the lock.
  rm -rf "$dir"/*.part "$dir"/*.work
fi
file=$dir/$name work=$dir/$name.work
[ ! -e "$file" ] || no "$file is there already"
trap 'rm -rf "$work" "$file.part" "$file.json.part"' EXIT
trap 'exit 1' HUP INT TERM
mkdir "$work" || no "$dir cannot be written to"
began=$(date +%s)
tables "$db" >"$work/before" 2>"$work/said" || no "its tables cannot be listed: $(tail -n 2 "$work/said")"
docker exec "$container" pg_dump -Fc -w -U "$role" -d "$db" >"$file.part" 2>"$work/said" || {
  code=$?; room; no "pg_dump ended with $code: $(tail -n 3 "$work/said")"; }
room
prove "$file.part"
tables "$db" >"$work/after" 2>"$work/said" || no "its tables cannot be listed: $(tail -n 2 "$work/said")"
grep -Fxf "$work/before" "$work/after" >"$work/wanted" || :
lacks=$(grep -Fvxf "$work/listed" "$work/wanted" | wc -l)
[ $((lacks)) = 0 ] || no "$((lacks)) of $(($(wc -l <"$work/wanted"))) tables are not in the dump"
for oid in $touches; do grep -Fxq "$oid" "$work/listed" || no "the table with oid $oid is not in the dump"; done
sum=$(sha256sum <"$file.part") || no "sha256sum failed"
rows=$(awk -F '\t' '{ gsub(/\\/, "\\\\", $1); gsub(/"/, "\\\"", $1); printf "%s\"%s\":%s", (NR > 1 ? "," : ""), $1, $2 }' "$work/rows")
printf '%s,"size_bytes":%s,"sha256":"%s","tables":%s,"rows":{%s},"took_s":%s}\n' "$head" "$size" "${sum%% *}" \
  $(($(wc -l <"$work/listed"))) "$rows" $(($(date +%s) - began)) >"$file.json.part"
sync "$file.part" "$file.json.part" 2>/dev/null || sync
mv "$file.json.part" "$file.json"
mv "$file.part" "$file"
sync "$dir" 2>/dev/null || sync"#;

/// The script of a dump.
pub fn dump() -> String {
    format!("{}{COMMON}{DUMP}", psql::sh())
}

/// What goes for both: databases change their names, which nobody may be connected to meanwhile.
const SWAP: &str = r#"admin() { sql "$admin" -v db="$db" -v new="$new" -v old="$old"; }
ends() {
  admin <<'END'
SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity WHERE datname IN (:'db', :'new') \g /dev/null
END
}
# Both names change in one transaction, or none. It waits 5 s for sessions to end, and lets no new ones in meanwhile.
swap() {
  for tries in 1 2 3; do
    { sleep 1; ends || :; } 2>/dev/null &
    ends
    admin <<'END' 2>"$said" && done=1 || done=0
BEGIN;
SELECT format('ALTER DATABASE %I RENAME TO %I', :'db', :'old') \gexec
SELECT format('ALTER DATABASE %I RENAME TO %I', :'new', :'db') \gexec
SELECT format('ALTER DATABASE %I RESET default_transaction_read_only', :'db') \gexec
COMMIT;
END
    wait
    [ $done = 0 ] || return 0
  done
  no "the names were not changed: $(tail -n 2 "$said")"
}
admin=postgres
echo 'SELECT 1' | sql postgres >/dev/null 2>&1 || admin=template1
"#;

/// `$1` container, `$2` role, `$3` database, `$4` the file, `$5` its size, `$6` its digest, `$7` the new database's name
/// until it takes the place of the old one, `$8` the old one's from then on. Until the names change nothing is lost.
const RESTORE: &str = r#"size_then=$5 sum_then=$6 work=$file.restore said=$file.restore/said
trap 'exit 1' HUP INT TERM
rm -rf "$work"; mkdir "$work" || no "${file%/*} cannot be written to"
gone() {
  admin <<'END'
SELECT format('DROP DATABASE IF EXISTS %I', :'new') \gexec
END
}
trap 'code=$?; [ $code = 0 ] || gone || :; rm -rf "$work"; exit $code' EXIT
[ $(($(wc -c <"$file"))) = "$size_then" ] || no "it does not have the size that it was proved with"
sum=$(sha256sum <"$file")
[ "${sum%% *}" = "$sum_then" ] || no "its sha256 is not the one that was written down"
prove "$file"
admin <<'END' || no "no database could be made"
SELECT format('CREATE DATABASE %I TEMPLATE template0 OWNER %I ENCODING %L LC_COLLATE %L LC_CTYPE %L', :'new',
    pg_get_userbyid(d.datdba), pg_encoding_to_char(d.encoding), d.datcollate, d.datctype)
  || CASE j->>'datlocprovider'
    WHEN 'i' THEN format(' LOCALE_PROVIDER icu ICU_LOCALE %L', coalesce(j->>'datlocale', j->>'daticulocale'))
    WHEN 'b' THEN format(' LOCALE_PROVIDER builtin BUILTIN_LOCALE %L', j->>'datlocale') ELSE '' END
FROM pg_database d, to_jsonb(d) AS j WHERE d.datname = :'db' \gexec
END
inside pg_restore -w -U "$role" -d "$new" -e <"$file" || no "pg_restore failed"
# What belongs to the database and is in no dump of it: limit, rights, settings. The new one is not frozen.
admin <<'END' || no "rights and settings of the old database could not be given to the new one"
SELECT format('ALTER DATABASE %I CONNECTION LIMIT %s', :'new', datconnlimit) FROM pg_database WHERE datname = :'db' \gexec
SELECT format('REVOKE ALL ON DATABASE %I FROM PUBLIC', :'new') FROM pg_database
  WHERE datname = :'db' AND datacl IS NOT NULL \gexec
SELECT format('GRANT %s ON DATABASE %I TO %s%s', a.privilege_type, :'new',
    CASE a.grantee WHEN 0 THEN 'PUBLIC' ELSE quote_ident(pg_get_userbyid(a.grantee)) END,
    CASE WHEN a.is_grantable THEN ' WITH GRANT OPTION' ELSE '' END)
  FROM pg_database d, aclexplode(d.datacl) AS a WHERE d.datname = :'db' AND a.grantee <> d.datdba \gexec
SELECT format('ALTER %s SET %I TO %s',
    CASE s.setrole WHEN 0 THEN format('DATABASE %I', :'new')
      ELSE format('ROLE %I IN DATABASE %I', pg_get_userbyid(s.setrole), :'new') END, name,
    CASE WHEN value IN ('', '""') THEN quote_literal('')
      WHEN name IN ('search_path', 'temp_tablespaces', 'local_preload_libraries', 'session_preload_libraries') THEN value
      ELSE quote_literal(value) END)
  FROM pg_db_role_setting s JOIN pg_database d ON d.oid = s.setdatabase, unnest(s.setconfig) AS c,
    split_part(c, '=', 1) AS name, substr(c, strpos(c, '=') + 1) AS value
  WHERE d.datname = :'db' AND name <> 'default_transaction_read_only' \gexec
END
# Rows are counted as they are copied: a SELECT would be planned, and planning computes what roles put into their indexes.
{ sql "$new" <<'END' && code=0 || code=$?; echo $code >"$work/code"; } | awk '
  index($0, "\\.\t") == 1 { if (open) print name "\t" rows; name = substr($0, 4); rows = 0; open = 1; next }
  { rows++ }
  END { if (open) print name "\t" rows }' >"$work/counted"
ANALYZE;
SELECT format('SELECT %L', '\.' || chr(9) || format('%I.%I', n.nspname, c.relname)), format('COPY %I.%I TO STDOUT', n.nspname, c.relname)
FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
WHERE c.relkind = 'r' AND n.nspname NOT IN ('pg_catalog', 'information_schema') AND n.nspname NOT LIKE 'pg\_toast%' \gexec
END
[ "$(cat "$work/code")" = 0 ] || no "the rows of the new database could not be counted"
grep -Fvxf "$work/counted" "$work/rows" >"$work/lacking" && no "the new database does not have the rows of the dump: $(head -n 3 "$work/lacking")"
swap"#;

/// The script of a restore.
pub fn restore() -> String {
    format!("{}{COMMON}container=$1 role=$2 db=$3 file=$4 new=$7 old=$8\n{SWAP}{RESTORE}", psql::sh())
}

/// The script that puts another database in the place of the one that serves: as [`RESTORE`], with `$4` the one and `$5`
/// the name of the other from then on.
pub fn swap() -> String {
    let begin = "container=$1 role=$2 db=$3 new=$4 old=$5 said=$(mktemp)\ntrap 'rm -f \"$said\"' EXIT\n";
    let there = "[ \"$(echo \"SELECT count(*) FROM pg_database WHERE datname = :'new'\" | admin)\" = 1 ] || \
                 no \"there is no database $new\"\n";
    format!("{}{COMMON}{begin}{SWAP}{there}swap", psql::sh())
}
