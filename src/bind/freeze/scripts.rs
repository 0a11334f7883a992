//! What runs as POSIX sh on the stack's host: `$1` the folder beside the stack, `$2` compose project, `$3` service of the
//! database, `$4` role, `$5` database, then the script's own words.

/// Functions of all of them. The container is looked for each time: it may be another one when the time is over.
pub const COMMON: &str = r#"set -eu
export LC_ALL=C
folder=$1 project=$2 service=$3 role=$4 db=$5 note=$1/freeze.json
shift 5
no() { echo "$*" >&2; exit 1; }
trusted() {
  trust=0; opsh_folder "$folder" ${1-} || trust=$?
  [ $trust != 0 ] || opsh_file freeze.json || trust=$?
  case $trust in 0) exec 7<&-;; 2) echo "$opsh_why" >&2; exit 72;; esac
}
sql() {
  container=$(docker ps -q --no-trunc --filter "label=com.docker.compose.project=$project" \
    --filter "label=com.docker.compose.service=$service" --filter label=com.docker.compose.oneoff=False | head -n 1)
  [ -n "$container" ] || no "the database has no container that runs"
  opsh_sql "$container" "$role" "$db"
}
writable() {
  sql <<'END'
SET default_transaction_read_only = off;
SELECT format('ALTER DATABASE %I RESET default_transaction_read_only', current_database()) \gexec
END
}
# Ends the sessions that began before now, and fails when one is still there after 10 s. They hold the old setting.
anew() {
  sql <<'END'
SELECT clock_timestamp() AS t \gset
SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity WHERE datname = current_database()
  AND pid <> pg_backend_pid() AND backend_type = 'client backend' AND application_name <> 'pg_dump' \g /dev/null
SELECT set_config('opsh.t', :'t', false) \g /dev/null
DO $$ BEGIN
  FOR tries IN 1..100 LOOP
    PERFORM pg_stat_clear_snapshot();
    EXIT WHEN NOT EXISTS (SELECT FROM pg_stat_activity WHERE datname = current_database() AND pid <> pg_backend_pid()
      AND backend_type = 'client backend' AND application_name <> 'pg_dump'
      AND backend_start < current_setting('opsh.t')::timestamptz);
    IF tries = 100 THEN RAISE 'a session that began before does not end'; END IF;
    PERFORM pg_sleep(0.1);
  END LOOP;
END $$;
END
}
"#;

/// Exit code when a file beside the stack is not to be used.
pub const NOT_TRUSTED: i32 = 72;

/// Prints the host's clock in seconds, and what lies beside the stack.
pub const LOOK: &str = r#"trusted; date +%s; head -n 1 "$note" 2>/dev/null || :"#;

/// `$1` the beginning of a JSON object, `$2` seconds. Fails when somebody else was first.
pub const NOTE: &str = r#"trusted make
[ $trust != 3 ] || no "$opsh_why"
[ ! -e "$note" ] || ! opsh_newer "$(head -n 1 "$note")" || no "a newer opsh wrote $note: freeze with that one"
now=$(date +%s) end=$(($(date +%s) + $2))
utc() { date -u -d "@$1" +%Y-%m-%dT%H:%M:%SZ; }
old=$(sed -n 's/.*"until_s":\([0-9]*\)}$/\1/p' "$note" 2>/dev/null || :)
[ -z "$old" ] || [ "$old" -gt "$now" ] || rm -f "$note"
(set -C; printf '{"format":1,%s,"since":"%s","until":"%s","until_s":%s}\n' "${1#?}" "$(utc $now)" "$(utc $end)" $end >"$note") 2>/dev/null ||
  no "$note cannot be made: somebody else freezes it, or this account may not write there""#;

/// Makes new sessions read-only, ends the old ones, and looks. What fails is taken back.
pub const FREEZE: &str = r#"back() { code=$?; [ $code = 0 ] || { writable || :; rm -f "$note"; }; exit $code; }
trap back EXIT
trap 'exit 1' HUP INT TERM
sql <<'END'
SELECT format('ALTER DATABASE %I SET default_transaction_read_only = on', current_database()) \gexec
END
anew
seen=$(echo 'SHOW default_transaction_read_only' | sql)
[ "$seen" = on ] || no "a new session of $role begins with default_transaction_read_only = $seen: the role has a setting of its own""#;

/// Makes new sessions write again, and ends the old ones.
pub const THAW: &str = r#"writable
anew
rm -f "$note""#;

/// `$1` the effect that froze it, `$2` seconds. Ends the freeze when they are over, unless it was ended before. It counts
/// by the clock that nobody sets.
pub const WATCH: &str = r#"up() { IFS=' .' read -r up _ </proc/uptime; }
holds() { grep -Fq "\"effect\":\"$effect\"" "$note" 2>/dev/null; }
effect=$1; up; end=$((up + $2))
trusted
while holds && up && [ $up -lt $end ]; do sleep 1; done
holds || exit 0
# A database that is down comes back as it was left: it is waited for however long that takes.
until writable && anew; do holds || exit 0; sleep 1; done
! holds || rm -f "$note""#;
