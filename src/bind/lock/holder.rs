//! The holder of a lock: a small shell on the stack's host that has the lock for as long as it is spoken to.
//!
//! It is started over the one login and reads lines from its stdin; at their end it ends, and the kernel frees the lock:
//! whether the scope was left, opsh was killed, the laptop died or the link was lost. A link that falls silent without an
//! end is told by the silence: it ends itself after [`SILENCE_S`].

use crate::bind::ssh::{Command, Reach, Stream};
use crate::bind::{beside, host};
use crate::error::{Error, Kind, Result};
use crate::gate::Pass;
use crate::redact;
use serde_json::Value;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

/// Seconds without a word after which a holder ends itself; opsh says something each [`BEAT_S`].
const SILENCE_S: u32 = 60;
/// Seconds between two words to a holder that has nothing else to hear.
pub const BEAT_S: u64 = 10;

/// `$1` is the folder, `$2` the id of the intent. Requests are `WORD NUMBER JSON`, answers `NUMBER WORD UPTIME JSON`. `no`
/// says why there can be no lock, `odd` which file is not to be trusted, `newer` which one a newer opsh wrote; each is the
/// last answer.
///
/// `try` takes the lock or says that it is busy, each with the `lock.json` that is there; `who` writes one; `work` says
/// whether a durable run of an earlier holder still has `work.lock`; `brief` is `try` and `who` in one, and takes nothing
/// while such a run goes on; `free` gives the lock back and keeps the holder. `did` is a change that begins now. `tell`
/// adds a line to the intent, on the disk before the answer, and `close` adds its last one and puts it away. While the
/// holder lives it has the intent's file locked, shared: somebody is at it. Ages are differences of the uptime: no clock
/// that is set can falsify them.
const HOLD: &str = r#"opsh_n=0; opsh_w=; opsh_who=; opsh_intent=intent-$2
opsh_end() { printf '%s %s 0 %s\n' "$opsh_n" "$1" "$(printf %s "$2" | tr '\n' ' ')"; exit 0; }
opsh_no() { opsh_end no "$*"; }
opsh_check() { case $1 in 0) ;; 2) opsh_end odd "$opsh_why";; 4) opsh_end newer "$opsh_why";; *) return 1;; esac; }
opsh_up() { opsh_u=0; IFS='. ' read -r opsh_u opsh_l </proc/uptime; }
opsh_say() { printf '%s %s %s %s\n' "$opsh_n" "$1" "$opsh_u" "$2"; }
opsh_date() { date -u +%Y-%m-%dT%H:%M:%SZ; }
opsh_alive() { IFS= read -r opsh_l <"/proc/$$/stat" && set -- ${opsh_l##*) } && [ "${20}" = "$opsh_at" ]; } 2>/dev/null
opsh_unwatch() { [ -z "$opsh_w" ] || { kill $opsh_w; wait $opsh_w; } 2>/dev/null; }
opsh_watch() {
  opsh_unwatch
  ( exec </dev/null >/dev/null 2>&1 6<&- 7<&- 8<&- 9<&-
    opsh_s=; trap 'kill $opsh_s; exit' TERM; sleep "$opsh_silence" & opsh_s=$!; wait $opsh_s
    opsh_alive && kill $$ ) & opsh_w=$!
}
opsh_sign() {
  opsh_put lock.json <<OPSH
{"format":1,"holder":$opsh_who,$opsh_me,"since":"$opsh_since","since_up":$opsh_first,"last":$opsh_last,"last_up":$opsh_late}
OPSH
}
opsh_trim() {
  opsh_file changes.jsonl && [ $(($(wc -c </proc/self/fd/7))) -gt 1048576 ] || { exec 7<&-; return 0; }
  tail -n 1000 /proc/self/fd/7 | opsh_put changes.jsonl
}
opsh_line() { opsh_l="{\"format\":1,\"at\":\"$(opsh_date)\",${1#?}"; }
opsh_note() { opsh_line "$1"; opsh_add changes.jsonl "$opsh_l"; opsh_check $?; }
opsh_seen() {
  opsh_l=null; opsh_file lock.json; case $? in
  0) ! opsh_newer "$(head -c 65536 /proc/self/fd/7)" || opsh_end newer "$opsh_f/lock.json"; opsh_l=$(opsh_first);;
  2) opsh_end odd "$opsh_why";;
  esac
  exec 7<&-; [ -n "$opsh_l" ] || opsh_l=null
}
opsh_take() {
  flock -n 9; opsh_r=$?; opsh_seen
  case $opsh_r in 0) opsh_r=got;; 1) opsh_r=busy; opsh_l=$(printf '%s\n' "$opsh_l" | opsh_true);; *) opsh_no "flock ends with $opsh_r";; esac
}
opsh_mine() {
  opsh_who=$1; opsh_since=$(opsh_date); opsh_first=$opsh_u; opsh_last=null; opsh_late=$opsh_u
  opsh_sign; opsh_check $? || opsh_no "$opsh_why"; opsh_trim; opsh_watch
}
opsh_told() { opsh_line "$1"; opsh_add "$opsh_intent.jsonl" "$opsh_l"; opsh_check $?; }
opsh_old() {
  ls -t 2>/dev/null | { opsh_k=0; while IFS= read -r opsh_l; do
    case $opsh_l in intent-*[!0-9a-f]*.done) continue;; intent-*.done) opsh_k=$((opsh_k + 1));; *) continue;; esac
    [ $opsh_k -le 200 ] || rm -f "$opsh_l"
  done; }
}
opsh_folder "$1" make; opsh_check $? || opsh_no "$opsh_why"
command -v flock >/dev/null || opsh_no 'the host has no flock'
opsh_lock() { opsh_file "$1" && return; [ $? = 1 ] || return 2; opsh_make "$1" && opsh_file "$1"; }
opsh_lock work.lock; opsh_check $? || opsh_no "$opsh_why"; exec 8<&7
opsh_lock lock; opsh_check $? || opsh_no "$opsh_why"; exec 9<&7 7<&-
IFS= read -r opsh_b </proc/sys/kernel/random/boot_id; IFS= read -r opsh_l </proc/$$/stat; set -- ${opsh_l##*) }; opsh_at=${20}
opsh_me="\"pid\":$$,\"start\":${opsh_at:-0},\"boot\":\"$opsh_b\""
opsh_up; opsh_say ready null; opsh_has=
while IFS=' ' read -r opsh_c opsh_n opsh_x; do
  opsh_up
  case $opsh_c in
  try) opsh_take; opsh_say $opsh_r "$opsh_l";;
  who) opsh_mine "$opsh_x"; opsh_say ok null;;
  brief) opsh_take
    [ $opsh_r = busy ] || flock -n 8 && flock -u 8 || { flock -u 9; opsh_r=works; }
    opsh_was=$opsh_l; [ $opsh_r != got ] || opsh_mine "$opsh_x"; opsh_say $opsh_r "$opsh_was";;
  free) flock -u 9; opsh_who=;;
  work) if flock -n 8; then flock -u 8; opsh_say free null; else opsh_say works null; fi;;
  did) opsh_last=$opsh_x; opsh_late=$opsh_u; opsh_k=0; [ -z "$opsh_who" ] || { opsh_sign; opsh_k=$?; opsh_check $opsh_k; }
    if opsh_note "$opsh_x" && [ $opsh_k = 0 ]; then opsh_say ok null; else opsh_say full "$opsh_why"; fi; opsh_watch;;
  tell) if opsh_told "$opsh_x"; then
      [ -n "$opsh_has" ] || { opsh_file "$opsh_intent.jsonl" && exec 6<&7 7<&- && flock -s 6 && opsh_has=1; }
      opsh_say ok null
    else opsh_say full "$opsh_why"; fi; opsh_watch;;
  close) if [ ! -e "$opsh_intent.jsonl" ] || opsh_told "$opsh_x" && opsh_mv "$opsh_intent.jsonl" "$opsh_intent.done"; then opsh_say ok null
    else opsh_say full "$opsh_why"; fi; opsh_old;;
  beat) opsh_watch;;
  end) break;;
  esac
done 2>/dev/null
opsh_unwatch"#;

/// Functions that ask the kernel who has the lock, which is open as descriptor 9: `lock.json` is only what somebody wrote.
///
/// `opsh_locks PID` is true when that process has it open and locked; an account sees that of its own processes, root of all.
/// `opsh_is PID FENCE` is true for a process that opsh started as the holder of this fence: what another one was started
/// with, nobody else can write. `opsh_stranger` prints process and user id of one that has it. `opsh_true` passes the line of a
/// `lock.json` on when its holder has the lock, as far as this account can see, and else one that says that somebody
/// unknown has it.
const KERNEL: &str = r#"opsh_locks() {
  for opsh_y in /proc/$1/fd/*; do
    [ "$opsh_y" -ef /proc/self/fd/9 ] && grep -q '^lock:.*FLOCK' "/proc/$1/fdinfo/${opsh_y##*/}" && return
  done
  return 1
} 2>/dev/null
opsh_is() { [ -n "$2" ] && [ "$(tr '\0' '\n' <"/proc/$1/cmdline" | tail -n 1)" = "$2" ]; } 2>/dev/null
opsh_stranger() {
  for opsh_x in /proc/[0-9]*; do
    ! opsh_locks "${opsh_x#/proc/}" || { opsh_ls -ldin "$opsh_x"; echo "${opsh_x#/proc/} $opsh_qu"; return; }
  done
  # An account that cannot see what others have open is told the process, when that one still lives.
  opsh_ls -Ldin /proc/self/fd/9
  while IFS=' ' read -r opsh_y opsh_k opsh_k opsh_k opsh_p opsh_x opsh_k; do
    case $opsh_p in ''|0|*[!0-9]*) continue;; esac
    case $opsh_x in *":$opsh_qi") opsh_ls -ldin "/proc/$opsh_p"; [ -z "$opsh_qu" ] || { echo "$opsh_p $opsh_qu"; return; };; esac
  done </proc/locks
} 2>/dev/null
opsh_true() {
  IFS= read -r opsh_l; opsh_k=; opsh_p=${opsh_l##*'"pid":'}; opsh_p=${opsh_p%%[!0-9]*}
  case $opsh_l in *'"fence":"'*) opsh_k=${opsh_l#*'"fence":"'}; opsh_k=${opsh_k%%\"*};; esac
  [ -r /proc/1/cmdline ] || { printf '%s\n' "$opsh_l"; return; }
  if opsh_is "${opsh_p:-0}" "$opsh_k" && { [ ! -r "/proc/$opsh_p/fd" ] || opsh_locks "$opsh_p"; }; then printf '%s\n' "$opsh_l"; return; fi
  for opsh_x in /proc/[0-9]*; do
    ! { opsh_locks "${opsh_x#/proc/}" && opsh_is "${opsh_x#/proc/}" "$opsh_k"; } || { printf '%s\n' "$opsh_l"; return; }
  done
  set -- $(opsh_stranger); opsh_l=${1:+.pid-$1.uid-$2}
  printf '{"format":1,"holder":{"by":"somebody-unknown%s","why":"a process that is no opsh has the lock file locked"}}\n' "$opsh_l"
}
"#;

/// Ends the holder of a fence. `$1` is the folder, `$2` the fence. Ends only a process that has the lock, as the kernel says,
/// and that opsh started for this fence. Prints `ended`, `free` (nobody had the lock), `other` (another fence has it),
/// `stays`, or `unknown PID UID` when a process has it that is no such holder; both numbers are missing for one that this
/// account cannot see.
const END: &str = r#"opsh_folder "$1" && opsh_file lock; case $? in 0) exec 9<&7;; 1) echo free; exit;; *) echo "$opsh_why" >&2; exit;; esac
opsh_other() {
  [ -n "$1" ] || return 1
  opsh_l=; opsh_file lock.json; case $? in 0) opsh_l=$(opsh_first);; 1) ;; *) echo "$opsh_why" >&2; exit;; esac; exec 7<&-
  case $opsh_l in *"\"fence\":\"$1\""*) return 1;; *) return 0;; esac
}
opsh_free() { flock -n 9 && flock -u 9; }
! opsh_free || { echo free; exit; }
! opsh_other "$2" || { echo other; exit; }
opsh_s=
for opsh_p in /proc/[0-9]*; do
  opsh_p=${opsh_p#/proc/}
  ! { opsh_locks "$opsh_p" && opsh_is "$opsh_p" "$2"; } || { kill -s TERM "$opsh_p" && opsh_s="$opsh_s $opsh_p"; }
done
# Whoever only looks has it for a moment, too.
for opsh_x in 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17 18 19 20; do
  ! opsh_free && ! opsh_other "$2" || { [ -n "$opsh_s" ] && echo ended || echo free; exit; }
  sleep 0.1 2>/dev/null || sleep 1
done
for opsh_p in $opsh_s; do ! opsh_locks "$opsh_p" || { echo stays; exit; }; done
echo "unknown $(opsh_stranger)""#;

/// How the folders stand, without taking anything; `read` of `intent.rs` is its other half. The block of a folder stands
/// between `at N` and `end N`. Its lines are a state with the uptime: `free`, `busy` (somebody has the lock), `works` (nobody
/// has, and what was left running goes on), `none` (there is no lock); `odd` (a file is not to be used) and `blind` (something cannot be
/// looked at); for each intent that is open `intent alive FILE` or `intent left FILE`; and `more` when there are more. Text of a
/// file stands below its line, each line of it behind a blank: no file says anything in another's place. Of each
/// file a bounded part is read: [`LOOK_BYTES`] are enough for all of a folder.
const LOOK: &str = r#"LC_ALL=C; export LC_ALL
opsh_text() { printf '%s\n' "$1"; sed 's/^/ /'; echo; }
opsh_not() { printf '%s' "$opsh_why" | opsh_text "$1"; }
opsh_may() { case $1 in 2) opsh_not odd;; 3) opsh_not blind;; *) return 1;; esac; }
opsh_look() {
  opsh_folder "$1"; opsh_r=$?; [ $opsh_r = 0 ] || { opsh_may $opsh_r || echo none; return; }
  command -v flock >/dev/null || { echo none; return; }
  opsh_file lock; opsh_r=$?; [ $opsh_r = 0 ] || { opsh_may $opsh_r || echo none; return; }
  opsh_s=busy; exec 9<&7; ! flock -sn 7 || {
    exec 9<&-; opsh_s=free; opsh_file work.lock; opsh_r=$?; [ $opsh_r != 0 ] || flock -xn 7 || opsh_s=works
    ! opsh_may $opsh_r || return
  }
  IFS='. ' read -r opsh_u opsh_l </proc/uptime
  opsh_file lock.json; opsh_r=$?
  if [ $opsh_r = 0 ]; then opsh_first | { [ $opsh_s = busy ] && opsh_true || cat; } | opsh_text "$opsh_s $opsh_u"; else echo "$opsh_s $opsh_u"; opsh_may $opsh_r; fi
  opsh_k=0
  for opsh_x in intent-*.jsonl; do
    [ -e "$opsh_x" ] || [ -L "$opsh_x" ] || continue
    opsh_k=$((opsh_k + 1)); [ $opsh_k -le 24 ] || { echo more; break; }
    opsh_file "$opsh_x"; opsh_r=$?; [ $opsh_r = 0 ] || { opsh_may $opsh_r; continue; }
    opsh_s=alive; ! flock -xn 7 || opsh_s=left
    case $opsh_x in *[!A-Za-z0-9._-]*) opsh_x=intent-?.jsonl;; esac
    { head -c 16384 /proc/self/fd/7 | head -n 1; echo; tail -c 65536 /proc/self/fd/7 | tail -n 12; } | opsh_text "intent $opsh_s ${opsh_x%.jsonl}"
  done
}
opsh_n=0
for opsh_dir in "$@"; do echo "at $opsh_n"; ( opsh_look "$opsh_dir" 2>/dev/null ); echo "end $opsh_n"; opsh_n=$((opsh_n + 1)); done"#;

/// Bytes that [`LOOK`] prints of one folder at most.
const LOOK_BYTES: usize = 2 << 20;

/// Prints the last `$2` lines of what was changed, of the last [`host::KEEP`] bytes.
const CHANGES: &str = r#"opsh_folder "$1"; opsh_r=$?; [ $opsh_r != 0 ] || { opsh_file changes.jsonl; opsh_r=$?; }
case $opsh_r in 0) tail -c 1048576 <&7 | tail -n "$2";; 1) ;; *) echo "$opsh_why" >&2; exit 1;; esac"#;

/// Ends the intents of run `$2`: adds the line `$3` to each and puts it away. Prints how many.
const SETTLE: &str = r#"opsh_folder "$1" || { [ $? = 1 ] && echo 0 && exit 0; echo "$opsh_why" >&2; exit 1; }
opsh_k=0
for opsh_x in intent-*.jsonl; do
  opsh_file "$opsh_x" || continue
  opsh_l=$(opsh_first); case $opsh_l in *"\"run\":\"$2\""*) ;; *) continue;; esac
  flock -xn 7 || { echo "somebody is at it" >&2; exit 3; }
  opsh_add "$opsh_x" "{\"format\":1,\"at\":\"$(date -u +%Y-%m-%dT%H:%M:%SZ)\",${3#?}" && opsh_mv "$opsh_x" "${opsh_x%.jsonl}.done" || { echo "$opsh_why" >&2; exit 1; }
  opsh_k=$((opsh_k + 1))
done
echo $opsh_k"#;

fn words(script: &str, args: &[&str]) -> Vec<String> {
    ["sh", "-c", script, "opsh"].iter().chain(args).map(|word| word.to_string()).collect()
}

/// Words that end the holder of this fence.
pub fn end(folder: &str, fence: &str) -> Vec<String> {
    words(&with_files(&format!("{KERNEL}{END}")), &[folder, fence])
}

/// Looks at the locks of these folders.
pub fn look(folders: &[String]) -> Command {
    let names: Vec<&str> = folders.iter().map(String::as_str).collect();
    Command {
        keep: LOOK_BYTES * folders.len(),
        ..host::words_of(words(&with_files(&format!("{KERNEL}{LOOK}")), &names))
    }
}

/// Words that close the intents of a run.
pub fn settle(folder: &str, run: &str, line: &Value) -> Vec<String> {
    words(&with_files(SETTLE), &[folder, run, &redact::clean_json(line.clone()).to_string()])
}

fn with_files(script: &str) -> String {
    format!("{}{script}", beside::FILES)
}

/// Words that print the last `count` changes.
pub fn changes(folder: &str, count: i64) -> Vec<String> {
    words(&with_files(CHANGES), &[folder, &count.to_string()])
}

/// What a `lock.json` says of whose it is.
pub fn fence(seen: &Value) -> Option<&str> {
    seen["holder"]["fence"].as_str()
}

/// A holder that listens.
pub struct Holder {
    stream: Stream,
    heard: Vec<u8>,
    asked: u64,
    /// Why a line that was told could not be written.
    pub unwritten: Option<String>,
    /// It has the lock, and has said whose it is.
    pub holds: bool,
}

/// An answer of a holder.
#[derive(Debug)]
pub struct Answer {
    /// `got`, `busy`, `ok`, `free`, `works`, `full`, or the last one: `no`, `odd`, `newer`.
    pub word: String,
    /// The host's uptime in seconds.
    pub up: i64,
    /// What came with it.
    pub value: Value,
    /// The same as text: the reason of a `no`.
    pub text: String,
}

impl Answer {
    /// The error for files that are not to be used: another account made them, or a newer opsh.
    pub fn refusal(&self, host: &str, folder: &str) -> Option<Error> {
        let what = format!("nothing was changed under {folder} on {host}");
        match self.word.as_str() {
            "odd" => Some(beside::not_trusted(&what, host, folder, &self.text)),
            "newer" => Some(beside::too_new(&what, &self.text)),
            _ => None,
        }
    }
}

/// The holder ended, or the link to it.
#[derive(Debug)]
pub struct Gone;

impl Holder {
    /// Starts one. `Ok(Err(why))` when there can be no lock in this folder.
    ///
    /// Fails as [`Reach::stream`] does.
    pub async fn start(pass: &Pass, reach: &Reach, folder: &str, intent: &str) -> Result<Result<Holder, String>> {
        Holder::start_for(SILENCE_S, pass, reach, folder, intent).await
    }

    async fn start_for(
        silence_s: u32,
        pass: &Pass,
        reach: &Reach,
        folder: &str,
        intent: &str,
    ) -> Result<Result<Holder, String>> {
        let script = format!("opsh_silence={silence_s}\n{}", with_files(&format!("{KERNEL}{HOLD}")));
        let stream = reach.stream(pass, &words(&script, &[folder, intent])).await?;
        let mut holder = Holder { stream, heard: Vec::new(), asked: 0, unwritten: None, holds: false };
        match holder.answer().await {
            Ok(answer) if answer.word == "ready" => Ok(Ok(holder)),
            Ok(answer) => answer.refusal(reach.name(), folder).map_or(Ok(Err(answer.text)), Err),
            Err(Gone) => {
                let why = holder.stream.complaints().text();
                Err(Error::new(Kind::Unreachable, format!("the lock on {} cannot be asked for", reach.name()), why)
                    .host(reach.name()))
            }
        }
    }

    /// Asks, and waits for the answer. Dropping the future loses the answer, not the holder.
    pub async fn ask(&mut self, word: &str, value: &Value) -> Result<Answer, Gone> {
        self.send(word, value).await?;
        self.answer().await
    }

    /// Says something that has no answer. The holder writes it into files that others may read: what is secret is hidden only
    /// now, when the login has taught it.
    pub async fn send(&mut self, word: &str, value: &Value) -> Result<(), Gone> {
        self.asked += 1;
        let value = redact::clean_json(value.clone());
        let line = format!("{word} {} {value}\n", self.asked);
        self.stream.write_all(line.as_bytes()).await.map_err(|_| Gone)?;
        self.stream.flush().await.map_err(|_| Gone)
    }

    /// Ends it, and waits until the lock is free.
    pub async fn end(mut self) {
        let _ = self.send("end", &Value::Null).await;
        while self.answer().await.is_ok() {}
    }

    /// The answer to the last question; earlier ones that nobody waited for are passed over.
    async fn answer(&mut self) -> Result<Answer, Gone> {
        loop {
            let line = self.line().await?;
            let mut parts = line.splitn(4, ' ');
            let (number, word) = (parts.next().unwrap_or(""), parts.next().unwrap_or("").to_string());
            let (up, text) = (parts.next().unwrap_or(""), parts.next().unwrap_or("").trim().to_string());
            if word == "full" {
                self.unwritten = Some(text.clone());
            }
            if number == self.asked.to_string() || ["no", "odd", "newer"].contains(&word.as_str()) {
                let value = serde_json::from_str(&text).unwrap_or_default();
                return Ok(Answer { word, up: up.parse().unwrap_or(0), value, text });
            }
        }
    }

    async fn line(&mut self) -> Result<String, Gone> {
        let mut piece = [0; 4096];
        loop {
            if let Some(end) = self.heard.iter().position(|byte| *byte == b'\n') {
                let line: Vec<u8> = self.heard.drain(..=end).collect();
                return Ok(String::from_utf8_lossy(&line[..end]).into_owned());
            }
            match self.stream.read(&mut piece).await {
                Ok(n @ 1..) if self.heard.len() < LONGEST => self.heard.extend_from_slice(&piece[..n]),
                _ => return Err(Gone),
            }
        }
    }
}

/// Bytes of one line that are read: a `lock.json` has a few hundred.
const LONGEST: usize = 256 << 10;

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;
    use std::time::Duration;

    #[tokio::test]
    async fn a_holder_that_hears_nothing_ends_itself_and_one_that_hears_something_does_not() {
        let (pass, dir) = (Pass::for_tests(), tempfile::tempdir().expect("a folder"));
        let folder = dir.path().join(".opsh").display().to_string();
        let started = Holder::start_for(1, &pass, &Reach::Local, &folder, "0123").await.expect("a shell");
        let mut holder = started.expect("a folder that can be written");
        assert_eq!(holder.ask("try", &Value::Null).await.expect("an answer").word, "got");
        let signed = holder.ask("who", &json!({ "fence": "f" })).await.expect("an answer");
        assert_eq!(signed.word, "ok", "{signed:?}");
        for _ in 0..8 {
            tokio::time::sleep(Duration::from_millis(250)).await;
            holder.send("beat", &Value::Null).await.expect("it listens");
        }
        assert_eq!(holder.ask("work", &Value::Null).await.expect("twice its patience has passed").word, "free");
        let ended = tokio::time::timeout(Duration::from_secs(30), holder.answer()).await;
        assert!(matches!(ended, Ok(Err(Gone))), "{ended:?}");
    }
}
