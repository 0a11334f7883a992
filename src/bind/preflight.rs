//! What a preflight looks at that no other verb does: room on the disks, the clock, cron tables. What all looks together
//! mean is decided by `stdlib/preflight.rhai`, which `stack.preflight` calls.

use super::ssh::Reach;
use super::stack::StackHandle;
use super::way::Way;
use super::{Binding, Call, Look, RhaiResult, host, values};
use crate::config::Stack;
use crate::error::{Error, Kind, Result};
use crate::gate::verb::{Class, Verb};
use crate::gate::{Pass, clock};
use rhai::{Dynamic, NativeCallContext, Scope};
use serde_json::{Value, json};
use std::sync::Arc;

const LOOK: Verb = Verb {
    name: "preflight.look",
    class: Class::Read,
    waits: false,
    sig: "stack.preflight(tag?: string) -> map",
    doc: "Whether the stack is well, or fit for a release. Looks at everything at once and changes nothing. A map: \
          `stack`, `host`, `tag`, `verdict` (OK, WARN or BAD: the worst of the rows) and `rows`: `check`, `state` (OK, \
          WARN, BAD, or UNKNOWN when a look failed, which counts as WARN), `why`, the fact, and `next`, what to type, or \
          `()`. With `tag` that release is looked at too. A host that cannot be reached is a row. The verdict is \
          written into the journal. Fails with `interrupted` at Ctrl-C. No deadline: that of each look.",
    example: r#"stack("prod").preflight("v1.8.0").verdict"#,
};

const ROOM: Verb = Verb {
    name: "preflight.room",
    class: Class::Read,
    waits: false,
    sig: "stack.room() -> array",
    doc: "How full the disks are that the stack needs. One map each for the checkout, Docker's own folder and that of the \
          backups: `what`, `dir`, `real` (where it, or the nearest folder above it that is there, really is), \
          `free_bytes`, `size_bytes`, `free_inodes`, `inodes` (0 where the disk does not count them), `disk` (`tmpfs`, \
          `ext2/ext3`, …). Without an Engine Docker's is left out. Fails with `failed` when df gives no numbers. \
          Deadline 60 s.",
    example: r#"stack("prod").room().filter(|d| d.free_bytes * 10 < d.size_bytes)"#,
};

const CLOCK: Verb = Verb {
    name: "preflight.clock",
    class: Class::Read,
    waits: false,
    sig: "stack.clock() -> map",
    doc: "How far the host's clock is from this one. `ahead_ms` is negative when the host's is behind; it is right to \
          `within_ms`, half the time that the question took. Fails with `failed` when the host does not tell its time. \
          Deadline 60 s.",
    example: r#"stack("prod").clock().ahead_ms"#,
};

const CRON: Verb = Verb {
    name: "preflight.cron",
    class: Class::Read,
    waits: false,
    sig: "stack.cron() -> map",
    doc: "Whether cron will do what opsh.toml expects. `entries`: for each text of `cron` its `entry`, and where it stands \
          in a line that is no comment (`found`: `crontab of deploy`, `/etc/cron.d/shop`; or `()`), blanks counted \
          once; `unread`: tables that this account may not read. Fails with `usage` when opsh.toml expects nothing. \
          Deadline 60 s.",
    example: r#"stack("prod").cron().entries.filter(|e| e.found == ())"#,
};

/// The bindings of this file.
pub const BINDINGS: &[Binding] = &[
    Binding::Calls(&LOOK, look),
    Binding::Read(&ROOM, room),
    Binding::Read(&CLOCK, clock_of),
    Binding::Read(&CRON, cron),
];

/// A module cannot add a method to a type: the verb is the method, and the module decides.
const CODE: &str = r#"import "std/preflight" as preflight; preflight::look(p, tag)"#;

fn look(context: &NativeCallContext<'_>, call: &Call<'_>) -> RhaiResult {
    let thrown = |error| values::thrown(error, context.call_position());
    let tag = call.given(0).map(|_| call.text(0)).transpose().map_err(thrown)?;
    let report = of_module(context, call, CODE, tag)?;
    call.world.gate.note("preflight", values::to_json(&report));
    Ok(report)
}

/// What a line of an embedded module makes of the stack `p` and of `tag`, which is `()` without one.
pub fn of_module(context: &NativeCallContext<'_>, call: &Call<'_>, code: &str, tag: Option<String>) -> RhaiResult {
    let thrown = |error| values::thrown(error, context.call_position());
    let stack = call.stack().map_err(thrown)?;
    let mut scope = Scope::new();
    scope.push("p", StackHandle(stack)).push_dynamic("tag", tag.map_or(Dynamic::UNIT, Dynamic::from));
    let report = context.engine().eval_with_scope::<Dynamic>(&mut scope, code);
    report.map_err(|error| thrown(values::cause(&error)))
}

/// Looks at the stack's host, with nothing but the stack.
fn read<F>(call: &Call<'_>, work: impl Fn(Pass, Arc<Stack>, Way) -> F + 'static) -> Result<Dynamic>
where
    F: Future<Output = Result<Value>> + Send + 'static,
{
    let (stack, way) = call.stack_and_way()?;
    let look = Look::at(call.world.stack_target(&stack), "", json!({}));
    let value = call.read(look, (stack, way), move |pass, (stack, way)| work(pass, stack, way))?;
    Ok(super::map(value))
}

/// `$1`, `$2`, …: folders. Prints a line for each: free and all KiB, free and all inodes, the kind of disk, the real path.
const DISKS: &str = r#"export LC_ALL=C
for dir do
  near=$dir
  while [ ! -e "$near" ]; do near=$(dirname "$near"); done
  space=$(df -Pk "$near" | awk 'NR == 2 { print $4, $2 }')
  inodes=$(df -Pi "$near" 2>/dev/null | awk 'NR == 2 { print $4, $2 }')
  case $inodes in *[!0-9\ ]*|'') inodes='0 0' ;; esac
  echo "$space $inodes $(stat -f -c %T "$near" | tr ' ' '_') $(readlink -f "$near")"
done"#;

fn room(call: &Call<'_>) -> Result<Dynamic> {
    read(call, |pass, stack, way| async move {
        let reach = way.reach(&pass).await?;
        let docker = match way.engine(&pass).await {
            Ok(engine) => engine.root_dir().await?,
            Err(_) => String::new(),
        };
        let backup = stack.db.as_ref().map_or("", |_| stack.backup.dir.as_str());
        let dirs = [("checkout", stack.dir.as_str()), ("docker", &docker), ("backups", backup)];
        let dirs: Vec<_> = dirs.into_iter().filter(|(_, dir)| !dir.is_empty()).collect();
        let mut words = vec!["sh", "-c", DISKS, "opsh"];
        words.extend(dirs.iter().map(|(_, dir)| dir));
        let said = host::look(&reach, &pass, &stack.host, &words).await?;
        let rows = dirs.iter().zip(said.lines()).map(|((what, dir), line)| disk(what, dir, line));
        let rows: Option<Vec<Value>> = rows.collect();
        rows.filter(|rows| rows.len() == dirs.len()).map(Value::from).ok_or_else(|| {
            let what = format!("the disks of {} cannot be told", stack.host);
            Error::new(Kind::Failed, what, format!("df said: {}", said.trim())).host(&stack.host)
        })
    })
}

/// A line of [`DISKS`]; `None` when it is none.
fn disk(what: &str, dir: &str, line: &str) -> Option<Value> {
    let mut words = line.splitn(6, ' ');
    let numbers: Vec<u64> = words.by_ref().take(4).map_while(|word| word.parse().ok()).collect();
    let [free, size, free_inodes, inodes] = numbers[..] else { return None };
    Some(json!({
        "what": what, "dir": dir, "free_bytes": free * 1024, "size_bytes": size * 1024, "free_inodes": free_inodes,
        "inodes": inodes, "disk": words.next()?, "real": words.next()?,
    }))
}

fn clock_of(call: &Call<'_>) -> Result<Dynamic> {
    read(call, |pass, stack, way| async move {
        // The login is no part of the time that the question takes.
        let reach: Reach = way.reach(&pass).await?;
        let before = clock::wall_us();
        let said = host::look(&reach, &pass, &stack.host, &["date", "+%s.%N"]).await?;
        let (ahead_ms, within_ms) = ahead(before, clock::wall_us(), said.trim()).ok_or_else(|| {
            let what = format!("the clock of {} cannot be told", stack.host);
            Error::new(Kind::Failed, what, format!("date said: {}", said.trim())).host(&stack.host)
        })?;
        Ok(json!({ "ahead_ms": ahead_ms, "within_ms": within_ms }))
    })
}

/// How many milliseconds the clock that said `said` (seconds, and a fraction where its `date` knows one) is ahead, and how
/// wrong that may be, when the question began and ended at these microseconds.
fn ahead(before_us: i64, after_us: i64, said: &str) -> Option<(i64, i64)> {
    let (seconds, fraction) = said.split_once('.').unwrap_or((said, ""));
    let seconds: i64 = seconds.parse().ok()?;
    // Without a fraction it may be any moment of that second.
    let (there_us, unsure_us) = match fraction.get(..6).and_then(|digits| digits.parse::<i64>().ok()) {
        Some(us) => (seconds * 1_000_000 + us, 0),
        None => (seconds * 1_000_000 + 500_000, 500_000),
    };
    let half_us = (after_us - before_us).abs() / 2;
    Some(((there_us - before_us - half_us) / 1000, (half_us + unsure_us) / 1000))
}

/// Prints `= NAME` before each table, `? NAME` for one that may not be read, and the lines of a table behind a blank.
const TABLES: &str = r#"export LC_ALL=C
me=$(id -un)
if command -v crontab >/dev/null; then
  if said=$(crontab -l 2>&1); then
    echo "= crontab of $me"; printf '%s\n' "$said" | sed 's/^/ /'
  else
    case $said in *"no crontab for"*) ;; *) echo "? crontab of $me" ;; esac
  fi
fi
for file in /etc/crontab /etc/cron.d/*; do
  [ -f "$file" ] || continue
  case $file in *'~'|*.dpkg-*|*.rpm*|*.bak|*.old|*.orig|*.disabled) continue ;; esac
  if [ -r "$file" ]; then echo "= $file"; sed 's/^/ /' "$file"; echo; else echo "? $file"; fi
done"#;

/// Fails with `usage` when opsh.toml names nothing that cron should do.
pub fn expects_cron(stack: &Stack) -> Result<()> {
    if stack.cron.is_empty() {
        return Err(super::stack::lacks(stack, "cron entries", "cron = [\"/app/batch\"]     what must stand in them"));
    }
    Ok(())
}

fn cron(call: &Call<'_>) -> Result<Dynamic> {
    let stack = call.stack()?;
    expects_cron(&stack)?;
    read(call, |pass, stack, way| async move {
        let reach = way.reach(&pass).await?;
        let said = host::look(&reach, &pass, &stack.host, &["sh", "-c", TABLES]).await?;
        // Only where each stands is told: a cron table may hold passwords.
        let tables = Tables::parse(&said);
        let entry = |text: &String| json!({ "entry": text, "found": tables.place_of(text) });
        Ok(json!({ "entries": stack.cron.iter().map(entry).collect::<Vec<_>>(), "unread": tables.unread }))
    })
}

#[derive(Debug, Default)]
struct Tables<'a> {
    /// Each line that is no comment, blanks counted once, with the table that it stands in.
    lines: Vec<(&'a str, String)>,
    unread: Vec<&'a str>,
}

impl<'a> Tables<'a> {
    fn parse(said: &'a str) -> Tables<'a> {
        let (mut tables, mut name) = (Tables::default(), "");
        for line in said.lines() {
            match (line.strip_prefix("= "), line.strip_prefix("? ")) {
                (Some(table), _) => name = table,
                (_, Some(table)) => tables.unread.push(table),
                _ if line.trim_start().starts_with('#') => {}
                _ => tables.lines.push((name, with_single_blanks(line))),
            }
        }
        tables
    }

    fn place_of(&self, text: &str) -> Option<&'a str> {
        let text = with_single_blanks(text);
        self.lines.iter().find(|(_, line)| line.contains(&text)).map(|(name, _)| *name)
    }
}

/// Words with one blank between them.
pub fn with_single_blanks(text: &str) -> String {
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn half_of_the_round_trip_is_not_the_clocks_fault() {
        let at = 1_700_000_000_000_000;
        assert_eq!(ahead(at, at + 200_000, "1700000000.100000000"), Some((0, 100)));
        assert_eq!(ahead(at, at + 200_000, "1700000045.100000000"), Some((45_000, 100)));
        assert_eq!(ahead(at, at, "1699999990.000000000"), Some((-10_000, 0)));
        // A date without %N: any moment of that second.
        assert_eq!(ahead(at, at, "1700000000.%N"), Some((500, 500)));
        assert_eq!(ahead(at, at, "Tue"), None);
    }

    #[test]
    fn a_text_stands_in_a_table_when_a_line_that_is_no_comment_holds_it() {
        let said = "= crontab of deploy\n # 5 4 * * * /app/old\n 5 4  * * *\t/app/batch -job=expire\n? /etc/cron.d/secret\n\
                    = /etc/cron.d/shop\n 0 3 * * * root /usr/bin/dump\n\n";
        let tables = Tables::parse(said);
        assert_eq!(tables.place_of("/app/batch  -job=expire"), Some("crontab of deploy"));
        assert_eq!(tables.place_of("0 3 * * * root /usr/bin/dump"), Some("/etc/cron.d/shop"));
        assert_eq!(tables.place_of("/app/old"), None, "it is commented out");
        assert_eq!(tables.unread, ["/etc/cron.d/secret"]);
    }

    #[test]
    fn a_disk_is_told_whole_or_not_at_all() {
        let row = disk("backups", "/var/backups/opsh", "10 100 5 50 ext2/ext3 /srv/my backups").expect("a line of df");
        assert_eq!((&row["free_bytes"], &row["inodes"]), (&json!(10240), &json!(50)));
        assert_eq!((&row["disk"], &row["real"]), (&json!("ext2/ext3"), &json!("/srv/my backups")));
        assert_eq!(disk("checkout", "/srv", " 0 0 tmpfs /srv"), None);
    }
}
