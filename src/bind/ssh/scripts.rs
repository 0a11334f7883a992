//! Everything that runs as `sh` on the other side: the supervising shell and the durable runs. Works on dash, bash, busybox.
//!
//! All names start with `opsh_`: assigning to a name that the login exported would change it for the command too.

use super::quote;
use crate::redact::Secret;

/// The supervising shell. It is the same text for every command: program and data come over its stdin, never in argv.
///
/// stdin is `NONCE GRACE BYTES`, the program as one [`quote::encode`]d line, BYTES of data for the program's stdin, `go`;
/// from then on it is the lifeline: when it closes, the process group gets INT, then TERM and KILL, GRACE seconds apart.
/// The shell itself survives what it forwards and writes its records to both outputs, so that each is known to be
/// complete even while a background child holds it open.
pub const SUPERVISE: &str = r#"opsh_l=; { IFS= read -r opsh_l </proc/$$/stat; } 2>/dev/null
set -- ${opsh_l##*) }
[ "${3:-$$}" = $$ ] || exec setsid sh -c "${opsh_c%.}"
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
opsh_ended() { [ -e "$opsh_d/rc" ] && IFS= read -r opsh_s <"$opsh_d/rc" && opsh_s="rc $opsh_s"; }
opsh_look() {
  if [ ! -e "$opsh_d/pid" ]; then opsh_s=never
  elif opsh_ended; then :
  elif opsh_alive; then opsh_s="running $opsh_pid"
  else opsh_ended || opsh_s=died; fi
}
[ ! -e "$opsh_b" ] || opsh_own "$opsh_b" || opsh_no "$opsh_b is not a directory of this user alone (mode 0700)"
"#;

/// The detached shell of a durable run: `$1` is the directory, `$2` a nonce; the program comes in the environment.
///
/// `pid` is linked, so exactly one of several starts wins; `done` is held open for as long as this shell lives, so a
/// reader of it wakes up when the run ends, however it ends. `rc` appears complete or not at all.
const JOB: &str = r#"opsh_p=$opsh_prog; opsh_u=$opsh_mask; unset opsh_prog opsh_mask
opsh_d=$1; opsh_f=$1/pid.$2; trap : INT TERM HUP
IFS= read -r opsh_boot </proc/sys/kernel/random/boot_id; IFS= read -r opsh_l </proc/$$/stat; set -- ${opsh_l##*) }
[ ! -p "$opsh_d/done" ] || exec 7<>"$opsh_d/done"
printf '%s %s %s\n' $$ "${20}" "$opsh_boot" >"$opsh_f" && ln "$opsh_f" "$opsh_d/pid"; opsh_r=$?; rm -f "$opsh_f"
[ $opsh_r = 0 ] || exit 0
echo $$ >&4; exec 4>&-
opsh_no() { printf '%s' "$*" >"$opsh_d/no"; exit 125; }
(trap - INT TERM HUP; umask "$opsh_u"; exec 7>&-; eval "$opsh_p") >"$opsh_d/out" 2>"$opsh_d/err"; opsh_r=$?
exec </dev/null
echo $opsh_r >"$opsh_d/rc.new" && mv -f "$opsh_d/rc.new" "$opsh_d/rc""#;

/// Prints `new PID`, or what [`look`] prints when this id was started before.
const START: &str = r#"command -v setsid >/dev/null || opsh_no 'the host has no setsid, which is needed to detach a run'
exec 5<&0; opsh_mask=$(umask); umask 077
mkdir -p "$opsh_d" && opsh_own "$opsh_b" || opsh_no "cannot make $opsh_d"
[ -p "$opsh_d/done" ] || mkfifo "$opsh_d/done" 2>/dev/null
trap : INT TERM HUP
[ -e "$opsh_d/pid" ] || opsh_s=$(opsh_prog=$opsh_prog opsh_mask=$opsh_mask setsid sh -c "$opsh_job" opsh "$opsh_d" "$opsh_f" <&5 5<&- 4>&1 >/dev/null 2>&1 &)
if [ -n "$opsh_s" ]; then echo "new $opsh_s"
elif opsh_look; [ "$opsh_s" = never ]; then opsh_no "the run did not start in $opsh_d"
else echo "$opsh_s"; fi"#;

/// Waits without polling: opening `done` both ways never blocks, and once only the reading end is left, a read ends
/// when the run does. The sleep is for hosts without `mkfifo`.
const WAIT: &str = r#"opsh_look
case $opsh_s in running*) [ ! -p "$opsh_d/done" ] || { exec 8<>"$opsh_d/done"; exec 9<"$opsh_d/done"; exec 8>&-; read -r opsh_l <&9; exec 9<&-; };; esac
while opsh_look; do case $opsh_s in running*) sleep 1;; *) break;; esac; done
opsh_sum() { [ -e "$1" ] || { echo '0 -'; return; }; set -- "$1" $(sha256sum <"$1" 2>/dev/null); echo "$(($(wc -c <"$1"))) ${2:--}"; }
opsh_show() { [ -e "$1" ] || return 0; if [ $(($(wc -c <"$1"))) -le $opsh_keep ]; then cat "$1"; else head -c $opsh_head "$1"; tail -c $opsh_tail "$1"; fi; }
echo "$opsh_s"; opsh_sum "$opsh_d/out"; opsh_sum "$opsh_d/err"
if [ -e "$opsh_d/no" ]; then cat "$opsh_d/no"; echo; else echo; fi
opsh_show "$opsh_d/out"; opsh_show "$opsh_d/err" >&2"#;

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

/// The script that starts `program` detached under `id`.
pub fn start(id: &str, nonce: &str, program: &str) -> String {
    let (program, job) = (quote::quote(program), quote::quote(JOB));
    format!("opsh_s=; opsh_f={nonce}; opsh_prog={program}; opsh_job={job}\n{}{START}", place(id))
}

/// The script that waits for the end and prints state, sizes, digests, refusal and at most `keep` bytes of each output.
pub fn wait(id: &str, keep: usize, head: usize) -> String {
    format!("opsh_keep={keep}; opsh_head={head}; opsh_tail={}\n{}{WAIT}", keep - head, place(id))
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

/// The script of a plain byte stream: a record on stdout says that the program is there, then it takes over.
pub fn stream(nonce: &str, words: &[String]) -> Result<String, String> {
    if let Some(why) = quote::refuse_words(words) {
        return Err(why);
    }
    let first = words.first().map(String::as_str).unwrap_or_default();
    Ok(format!(
        "command -v {} >/dev/null 2>&1 || {{ printf '\\036opsh {nonce} no %s\\n' {}; exit 127; }}\nprintf '\\036opsh {nonce} start\\n'; exec {}",
        quote::quote(first),
        quote::quote(&format!("there is no program {first}").replace('\n', " ")),
        quote::quote_all(words)
    ))
}
