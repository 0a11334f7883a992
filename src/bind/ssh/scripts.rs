//! Everything that runs as `sh` on the other side: the supervising shell and the durable runs. Works on dash, bash, busybox.
//!
//! All names start with `opsh_`: assigning to a name that the login exported would change it for the command too.

use super::quote;
use crate::bind::beside;
use crate::gate::Hold;
use crate::redact::Secret;

/// The supervising shell. It is the same text for every command: program and data come over its stdin, never in argv.
///
/// A start-up file may put another program in its place, which would read its stdin as commands. So it says hello first
/// ([`super::hello`]), and opsh sends nothing before that. Then stdin is `NONCE GRACE BYTES`, the program as one [`quote::encode`]d line, BYTES of data for the program's stdin, `go`;
/// from then on it is the lifeline: when it closes, the process group gets INT, then TERM and KILL, GRACE seconds apart.
/// The shell itself survives what it forwards and writes its records to both outputs, so that each is known to be
/// complete even while a background child holds it open.
pub const SUPERVISE: &str = r#"opsh_a=${2-}; opsh_b=${3-}; opsh_l=; { IFS= read -r opsh_l </proc/$$/stat; } 2>/dev/null
set -- ${opsh_l##*) }
[ "${3:-$$}" = $$ ] || exec setsid sh -c "${opsh_c%.}" opsh - "$opsh_a" "$opsh_b"
[ -z "$opsh_a" ] || printf '\036opsh %s%s hello\n' "$opsh_b" "$opsh_a"
exec 3<&0 6>&2 </dev/null 2>/dev/null
opsh_say() { printf '\036opsh %s %s\n' "$opsh_n" "$*"; printf '\036opsh %s %s\n' "$opsh_n" "$*" >&6; }
opsh_take() {
  if dd if=/dev/null of=/dev/null count=0 iflag=fullblock; then
    [ $(($1 / 65536)) = 0 ] || dd bs=65536 count=$(($1 / 65536)) iflag=fullblock || return
    [ $(($1 % 65536)) = 0 ] || dd bs=$(($1 % 65536)) count=1 iflag=fullblock
  else dd bs=1 count="$1"; fi <&3
}
opsh_stage() {
  opsh_t=${TMPDIR:-/tmp}
  [ "$1" -gt 8388608 ] || for opsh_t in "$XDG_RUNTIME_DIR" /dev/shm "${TMPDIR:-/tmp}"; do [ -d "$opsh_t" ] && [ -w "$opsh_t" ] && break; done
  opsh_f=$opsh_t/.opsh-$opsh_n
  (umask 077; set -C; : >"$opsh_f") || return
  exec 4>>"$opsh_f" 5<"$opsh_f"; rm -f "$opsh_f"
  opsh_take "$1" >&4 || return
  exec 4>&-
}
IFS=' ' read -r opsh_n opsh_g opsh_k <&3 && IFS= read -r opsh_p <&3 || exit 74
opsh_p=$(printf '%b.' "$opsh_p"); opsh_p=${opsh_p%.}
if [ "$opsh_k" = 0 ]; then exec 5</dev/null
else opsh_stage "$opsh_k" || { opsh_say "no there is no room in $opsh_t for the data of its stdin"; exit 74; }; fi
IFS= read -r opsh_l <&3 && [ "$opsh_l" = go ] || exit 74
opsh_say start $$
opsh_i=; trap 'opsh_i=1' INT TERM HUP
{ trap '' INT TERM HUP; exec 5<&- 6>&-
  while IFS= read -r opsh_l; do :; done
  kill -s INT 0; sleep "$opsh_g"; kill -s TERM 0; sleep "$opsh_g"; kill -s KILL 0; } <&3 >/dev/null &
opsh_w=$!
opsh_no() { printf '\036opsh %s no %s\n' "$opsh_n" "$*" >&2; exit 125; }
(trap - INT TERM HUP; exec 2>&6 3<&- 6>&-; eval "$opsh_p") <&5 5<&-
opsh_r=$?
kill -s KILL $opsh_w; wait $opsh_w
opsh_say end $opsh_r
[ -z "$opsh_i" ] || { kill -s TERM 0; sleep 1; kill -s KILL 0; }
exit $opsh_r"#;

/// Seconds between the signals that end an abandoned command: enough to unlock and clean up, short for one who waits.
pub const GRACE_S: u32 = 2;

/// Defines `opsh_d`, the directory of a run, in a base directory that is ours alone.
const PLACE: &str = r#"opsh_b=${XDG_STATE_HOME:-${HOME:?}/.local/state}/opsh/runs; opsh_d=$opsh_b/$opsh_id
opsh_own() { set -- $(ls -ldn "$1"); case $1 in drwx------*) [ "$3" = "$(id -u)" ];; *) false;; esac; }
opsh_alive() {
  IFS=' ' read -r opsh_pid opsh_at opsh_boot <"$opsh_d/pid" && IFS= read -r opsh_l </proc/sys/kernel/random/boot_id || return 1
  [ "$opsh_l" = "$opsh_boot" ] && IFS= read -r opsh_l <"/proc/$opsh_pid/stat" || return 1
  set -- ${opsh_l##*) }
  [ "$1" != Z ] && [ "${20}" = "$opsh_at" ]
} 2>/dev/null
opsh_ended() { [ -e "$opsh_d/rc" ] && IFS=' ' read -r opsh_s <"$opsh_d/rc" && opsh_s="rc $opsh_s"; }
opsh_look() {
  if [ ! -e "$opsh_d/pid" ]; then opsh_s=never
  elif opsh_ended; then :
  elif opsh_alive; then opsh_s="running $opsh_pid"
  else opsh_ended || opsh_s=died; fi
}
[ ! -e "$opsh_b" ] || opsh_own "$opsh_b" || opsh_no "$opsh_b is not a directory of this user alone (mode 0700)"
"#;

/// Bytes of the beginning, and at least so many of the end, that a host keeps of each output of a durable run.
pub const KEPT_THERE: usize = 8 << 20;

/// More than six whole days, as `find` counts them: a week is enough to come back for a result.
const SWEPT_AFTER_DAYS: &str = "+6";

/// The detached shell of a durable run: `$1` is the directory, `$2` a nonce; the program comes in the environment.
///
/// `pid` is linked, so exactly one of several starts wins; `done` is held open for as long as this shell lives, so a
/// reader of it wakes up when the run ends, however it ends. `rc` appears complete or not at all.
///
/// Each output goes through a pipe to a keeper, which writes at once what it reads: to `out`, and from 8 MiB on to
/// `out.OFFSET`, segments of 8 to 16 MiB of which the last two stay. The keepers ignore signals and outlive the
/// command, so that it is never stopped by its output. What a full disk has no room for they only count, give or take
/// 64 KiB; that count and the status overwrite bytes that have been there from the start.
///
/// The status is written when both keepers have seen the end, or, while a child in the background holds a pipe open,
/// once the files stand still, or after a second. Descriptors are redirected by `exec` in subshells, because busybox
/// leaks the saved ones of a redirected compound command to the program.
const JOB: &str = r#"opsh_p=$opsh_prog; opsh_u=$opsh_mask; opsh_a=$opsh_about; opsh_k=$opsh_lock; unset opsh_prog opsh_mask opsh_about opsh_lock
opsh_d=$1; opsh_f=$1/pid.$2; trap : INT TERM HUP
IFS= read -r opsh_boot </proc/sys/kernel/random/boot_id; IFS= read -r opsh_l </proc/$$/stat; set -- ${opsh_l##*) }
[ ! -p "$opsh_d/done" ] || exec 7<>"$opsh_d/done"
printf '%s %s %s\n' $$ "${20}" "$opsh_boot" >"$opsh_f" && ln "$opsh_f" "$opsh_d/pid"; opsh_r=$?; rm -f "$opsh_f"
[ $opsh_r = 0 ] || exit 0
printf '%s\n' "$opsh_a" >"$opsh_d/about"
for opsh_l in rc.new out.lost err.lost; do printf '%20s\n' 0 >"$opsh_d/$opsh_l"; done
echo $$ >&4; exec 4>&-
opsh_no() { printf '%s' "$*" >"$opsh_d/no"; exit 125; }
opsh_keep() {
  trap '' INT TERM HUP; opsh_f=$opsh_d/$1; opsh_o=; opsh_at=0; opsh_n=0
  while opsh_l=$(LC_ALL=C dd bs=65536 count=128 2>&1 >>"$opsh_f"); do
    set -- "$1" $opsh_l
    [ "$2" != 0+0 ] || break
    case $9 in bytes*) opsh_n=$((opsh_n + $8));; *) opsh_n=$(($(wc -c <"$opsh_f")));; esac
    [ $opsh_n -ge 8388608 ] || continue
    [ -z "$opsh_o" ] || rm -f "$opsh_o"
    [ $opsh_at = 0 ] || opsh_o=$opsh_f
    opsh_at=$((opsh_at + opsh_n)); opsh_n=0; opsh_f=$opsh_d/$1.$opsh_at
  done
  [ "$2" = 0+0 ] || printf '%20s\n' $(($(wc -c))) 1<>"$opsh_d/$1.lost"
  echo "$1" >&4
}
opsh_run() {
  trap : INT TERM HUP
  (trap - INT TERM HUP; umask "$opsh_u"; exec <&8 4>&- 8<&- 6<&-; eval "$opsh_p"); opsh_r=$?
  [ -z "$opsh_k" ] || flock -u 6
  exec >/dev/null 2>&1 8<&-; echo rc $opsh_r >&4
  for opsh_l in 1 2 3 4; do
    opsh_s=$(ls -ln "$opsh_d"); sleep 0.25 || sleep 1
    [ ! -e "$opsh_d/rc" ] && [ "$opsh_s" != "$(ls -ln "$opsh_d")" ] || break
  done
  echo late >&4
}
opsh_end() {
  trap '' INT TERM HUP; opsh_r=; opsh_n=0
  while IFS=' ' read -r opsh_l opsh_s; do
    case $opsh_l in rc) opsh_r=$opsh_s;; late) break;; *) opsh_n=$((opsh_n + 1));; esac
    [ -z "$opsh_r" ] || [ $opsh_n -lt 2 ] || break
  done
  [ -z "$opsh_r" ] || { printf '%20s\n' "$opsh_r" 1<>"$opsh_d/rc.new" && mv -f "$opsh_d/rc.new" "$opsh_d/rc"; }
}
( exec 4>&1 8<&0 >/dev/null 7>&-
  ( exec 3>&1 >/dev/null
    ( exec 2>&3 3>&-; opsh_run ) | ( exec 3>&- 8<&-; opsh_keep out ) & ) | ( exec 8<&-; opsh_keep err ) &
) | ( opsh_end )"#;

/// Prints `new PID`, or what [`look`] prints when this id was started before. A new run sweeps up old ones.
///
/// Under a lock it holds the folder's `work.lock` shared, on descriptor 6, before it looks whether the lock is still its
/// starter's: whoever takes the lock writes his fence into it first and then waits for `work.lock`, so one of the two sees
/// the other, and neither has it for longer than a moment. The job inherits the descriptor, keeps it from the program, and unlocks when the program has ended,
/// whoever has a copy by then.
const START: &str = r#"command -v setsid >/dev/null || opsh_no 'the host has no setsid, which is needed to detach a run'
exec 5<&0; opsh_mask=$(umask); umask 077
mkdir -p "$opsh_d" && opsh_own "$opsh_b" || opsh_no "cannot make $opsh_d"
[ -p "$opsh_d/done" ] || mkfifo "$opsh_d/done" 2>/dev/null
trap : INT TERM HUP
opsh_held() {
  opsh_x=$PWD; opsh_y=$opsh_f; opsh_l=; opsh_why=
  opsh_folder "$opsh_lock" && opsh_file work.lock && exec 6<&7 && flock -s 6 && opsh_file lock.json && { IFS= read -r opsh_l <&7 || :; }; opsh_r=$?
  exec 7<&-; opsh_f=$opsh_y; CDPATH= cd -- "$opsh_x"
  [ $opsh_r = 0 ] || opsh_no "$opsh_unusable${opsh_why:-$opsh_lock holds none any more}"
  case $opsh_l in *"\"fence\":\"$opsh_fence\""*) ;; *) false;; esac
}
[ -e "$opsh_d/pid" ] || [ -z "$opsh_lock" ] || opsh_held || opsh_no "$opsh_taken"
[ -e "$opsh_d/pid" ] || opsh_s=$(opsh_prog=$opsh_prog opsh_mask=$opsh_mask opsh_about=$opsh_about opsh_lock=$opsh_lock setsid sh -c "$opsh_job" opsh "$opsh_d" "$opsh_f" <&5 5<&- 4>&1 >/dev/null 2>&1 &)
if [ -n "$opsh_s" ]; then
  echo "new $opsh_s"
  find "$opsh_b"/* -prune -type d -mtime $opsh_old 2>/dev/null | while IFS= read -r opsh_d; do
    opsh_look; case $opsh_s in running*) ;; *) rm -rf "$opsh_d";; esac
  done
elif opsh_look; [ "$opsh_s" = never ]; then opsh_no "the run did not start in $opsh_d"
else echo "$opsh_s"; fi"#;

/// Reading what the keepers wrote. `opsh_next` finds the segment of `$1` that comes after offset `$2`; `opsh_last` sets
/// offset and size of the last one, the bytes that a full disk had no room for, and the length of the whole output.
const OUTPUTS: &str = r#"opsh_next() {
  opsh_y=
  for opsh_x in "$opsh_d/$1".[0-9]*; do
    opsh_x=${opsh_x##*.}; case $opsh_x in *[!0-9]*) continue;; esac
    [ "$opsh_x" -gt "$2" ] && { [ -z "$opsh_y" ] || [ "$opsh_x" -lt "$opsh_y" ]; } && opsh_y=$opsh_x
  done
  [ -n "$opsh_y" ]
}
opsh_file() { opsh_f=$opsh_d/$1; [ $2 = 0 ] || opsh_f=$opsh_f.$2; }
opsh_last() {
  opsh_a=0; while opsh_next $1 $opsh_a; do opsh_a=$opsh_y; done
  opsh_file $1 $opsh_a; opsh_z=$(($(wc -c <"$opsh_f")))
  opsh_e=0; [ ! -s "$opsh_d/$1.lost" ] || IFS=' ' read -r opsh_e <"$opsh_d/$1.lost"
  opsh_whole=$((opsh_a + opsh_z + opsh_e))
}
opsh_cat() { cat "$opsh_d/$1"; set -- $1 0; while opsh_next $1 $2; do set -- $1 $opsh_y; cat "$opsh_d/$1.$2"; done; }
"#;

/// Waits without polling: opening `done` both ways never blocks, and once only the reading end is left, a read ends
/// when the run does. The sleep is for hosts without `mkfifo`.
///
/// Only while somebody watches, what is new is passed on four times a second: with `at OFFSET` records where a segment
/// begins, from the beginning or, when `opsh_late` is set, the last 64 KiB. The result comes after an `answer` record.
const WAIT: &str = r#"opsh_done() {
  [ ! -p "$opsh_d/done" ] || { exec 8<>"$opsh_d/done"; exec 9<"$opsh_d/done"; exec 8>&-; read -r opsh_l <&9; exec 9<&-; }
  while opsh_look; do case $opsh_s in running*) sleep 1;; *) break;; esac; done
}
opsh_record() { printf '\036opsh %s %s\n' "$opsh_n" "$*"; }
opsh_open() { opsh_file $1 $3; eval "command exec $2<\"\$opsh_f\"" 2>/dev/null && eval "opsh_at_$1=$3" && opsh_record at $4; }
opsh_first() {
  [ -e "$opsh_d/$1" ] || return
  [ -n "$opsh_late" ] && opsh_last $1 && [ $((opsh_a + opsh_z)) -gt 65536 ] || { opsh_open $1 $2 0 0; return; }
  [ $opsh_z -gt 65536 ] || opsh_z=65536
  opsh_open $1 $2 $opsh_a $((opsh_a + opsh_z - 65536)) && tail -c +$((opsh_z - 65535)) <&$2
}
opsh_drain() {
  eval "opsh_a=\$opsh_at_$1"
  [ -n "$opsh_a" ] || opsh_first $1 $2 || return
  while eval "opsh_next $1 \$opsh_at_$1"; do cat <&$2; opsh_open $1 $2 $opsh_y $opsh_y; done
  cat <&$2
}
opsh_rest() { [ ! -e "$opsh_d/$1" ] || { opsh_last $1; [ $opsh_e = 0 ] || opsh_record at $opsh_whole; }; }
opsh_ticks() {
  ( while echo; do sleep 0.25 || sleep 1; done ) 2>/dev/null & opsh_t=$!
  opsh_done; echo end; kill $opsh_t
}
opsh_look
if [ -n "$opsh_live" ]; then
  opsh_at_out=; opsh_at_err=
  case $opsh_s in running*) opsh_ticks;; *) echo end;; esac | while read -r opsh_l; do
    opsh_drain out 8; opsh_drain err 9 >&2
    [ "$opsh_l" = end ] || continue
    opsh_rest out; opsh_rest err >&2; break
  done
  opsh_look
elif [ -z "$opsh_now" ]; then
  case $opsh_s in running*) opsh_done;; esac
fi
opsh_record answer; opsh_record answer >&2; echo "$opsh_s"
case $opsh_s in running*) exit;; esac
opsh_sum() {
  [ -e "$opsh_d/$1" ] || { echo '0 -'; return; }
  opsh_last $1; set -- $1 $opsh_whole -
  [ $(($(opsh_cat $1 | wc -c))) != $2 ] || set -- $1 $2 $(opsh_cat $1 | sha256sum 2>/dev/null)
  echo "$2 ${3:--}"
}
opsh_show() {
  [ -e "$opsh_d/$1" ] || return 0
  opsh_last $1
  if [ $opsh_whole -le $opsh_keep ]; then opsh_cat $1
  else head -c $opsh_head "$opsh_d/$1"; opsh_cat $1 | tail -c +$((opsh_head + 1)) | tail -c $opsh_tail; fi
}
opsh_sum out; opsh_sum err
if [ -e "$opsh_d/no" ]; then cat "$opsh_d/no"; echo; else echo; fi
opsh_show out; opsh_show err >&2"#;

/// Prints a line `ID TAB STATE TAB AGE TAB ABOUT` for each run; the age in seconds counts from its start.
const LIST: &str = r#"opsh_t=$(date +%s)
for opsh_d in "$opsh_b"/*; do
  [ -e "$opsh_d/pid" ] || continue
  opsh_look; opsh_a=; IFS= read -r opsh_a <"$opsh_d/about"
  printf '%s\t%s\t%s\t%s\n' "${opsh_d##*/}" "$opsh_s" "$((opsh_t - $(date -r "$opsh_d/pid" +%s || echo "$opsh_t")))" "$opsh_a"
done 2>/dev/null"#;

/// The program text for a command: its environment, its directory, its words. Ends by becoming the command.
///
/// Fails with the reason when something in it cannot be sent.
pub fn program(words: &[String], cwd: Option<&str>, env: &[(String, Secret)]) -> Result<String, String> {
    if let Some(why) = quote::refuse_words(words) {
        return Err(why);
    }
    let mut text = String::new();
    for (name, value) in env {
        if let Some(why) = quote::refuse_variable(name, value.expose()) {
            return Err(why);
        }
        text += &format!("export {name}={}\n", quote::quote(value.expose()));
    }
    if let Some(dir) = cwd {
        text += &enter(dir)?;
    }
    text += &format!("exec {}", quote::quote_all(words));
    if text.len() > quote::LONGEST {
        return Err(format!(
            "its words and variables are {} bytes long; at most {} can be sent: pass long data by stdin",
            text.len(),
            quote::LONGEST
        ));
    }
    Ok(text)
}

fn enter(dir: &str) -> Result<String, String> {
    if dir.is_empty() || dir.contains('\0') {
        return Err(format!("{dir:?} is not a directory's name"));
    }
    // `cd -- -` would still go to the previous directory, and CDPATH would send a relative name elsewhere.
    let dir = if dir == "-" { "./-" } else { dir };
    let reason = quote::quote(&format!("cannot enter the directory {dir}").replace('\n', " "));
    Ok(format!("CDPATH= cd -- {} 2>/dev/null || opsh_no {reason}\n", quote::quote(dir)))
}

/// Why a run does not start whose lock is not its starter's any more.
pub const TAKEN_OVER: &str = "the lock of the stack was taken over by somebody else";

/// Why a run does not start beside whose lock a file is not what it should be; the reason follows.
pub const UNUSABLE: &str = "the lock of the stack cannot be used: ";

/// The script that starts `program` detached under `id`, under that lock.
pub fn start(id: &str, nonce: &str, program: &str, about: &str, hold: Option<&Hold>) -> String {
    let (program, about, job) = (quote::quote(program), quote::quote(about), quote::quote(JOB));
    let (lock, fence) = hold.map_or((String::new(), String::new()), |hold| (hold.folder.clone(), hold.fence.clone()));
    let files = if lock.is_empty() { "" } else { beside::FILES };
    let (lock, fence, taken) = (quote::quote(&lock), quote::quote(&fence), quote::quote(TAKEN_OVER));
    let unusable = quote::quote(UNUSABLE);
    format!(
        "opsh_s=; opsh_f={nonce}; opsh_prog={program}; opsh_about={about}; opsh_old={SWEPT_AFTER_DAYS}; opsh_job={job}\n\
         opsh_lock={lock}; opsh_fence={fence}; opsh_taken={taken}; opsh_unusable={unusable}\n{files}{}{START}",
        place(id)
    )
}

/// How long to wait for a run, and what to pass on meanwhile.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Watch {
    /// Only say how it stands now.
    Now,
    /// To its end.
    Silently,
    /// To its end, showing its outputs from the beginning.
    FromStart,
    /// To its end, showing its outputs from their last 64 KiB on.
    FromLate,
}

/// The script that waits for the end and prints state, sizes, digests, refusal and at most `keep` bytes of each output.
pub fn wait(id: &str, keep: usize, head: usize, watch: Watch) -> String {
    let (now, live, late) = match watch {
        Watch::Now => ("1", "", ""),
        Watch::Silently => ("", "", ""),
        Watch::FromStart => ("", "1", ""),
        Watch::FromLate => ("", "1", "1"),
    };
    format!(
        "opsh_keep={keep}; opsh_head={head}; opsh_tail={}; opsh_now={now}; opsh_live={live}; opsh_late={late}\n{}{OUTPUTS}{WAIT}",
        keep - head,
        place(id)
    )
}

/// The script that lists all runs of this account.
pub fn list() -> String {
    format!("{}{LIST}", place(""))
}

/// The script that prints `never`, `running PID`, `rc N` or `died`.
pub fn look(id: &str) -> String {
    format!("{}opsh_look; echo \"$opsh_s\"", place(id))
}

/// The script that sends a signal to the run's process group, if it is running, and prints its state before that.
pub fn signal(id: &str, signal: &str) -> String {
    format!("{}opsh_look; echo \"$opsh_s\"; case $opsh_s in running*) kill -s {signal} -- -$opsh_pid;; esac", place(id))
}

/// The script that removes the run's directory, unless it is running, and prints its state before that.
pub fn forget(id: &str) -> String {
    format!("{}opsh_look; echo \"$opsh_s\"; case $opsh_s in running*) ;; *) rm -rf \"$opsh_d\";; esac", place(id))
}

fn place(id: &str) -> String {
    format!("opsh_id={}\n{PLACE}", quote::quote(id))
}

/// The shell of a plain byte stream: says hello, reads its program as one [`quote::encode`]d line, and becomes it. What
/// follows in its stdin is the program's, since `read` takes no byte of a pipe beyond the end of the line.
pub const STREAM: &str = r#"opsh_a=${2-}; opsh_b=${3-}
[ -z "$opsh_a" ] || printf '\036opsh %s%s hello\n' "$opsh_b" "$opsh_a"
IFS= read -r opsh_p || exit 74
opsh_p=$(printf '%b.' "$opsh_p"); eval "${opsh_p%.}""#;

/// The program of a stream: records on stdout say that the words' program is there, and its process id; then it takes over.
pub fn stream(nonce: &str, words: &[String]) -> Result<String, String> {
    if let Some(why) = quote::refuse_words(words) {
        return Err(why);
    }
    let first = words.first().map(String::as_str).unwrap_or_default();
    Ok(format!(
        "command -v {} >/dev/null 2>&1 || {{ printf '\\036opsh {nonce} no %s\\n' {}; exit 127; }}\n\
         printf '\\036opsh {nonce} pid %s\\n\\036opsh {nonce} start\\n' $$; exec {}",
        quote::quote(first),
        quote::quote(&format!("there is no program {first}").replace('\n', " ")),
        quote::quote_all(words)
    ))
}
