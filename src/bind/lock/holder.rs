//! The holder of a lock: a small shell on the stack's host that has the lock for as long as it is spoken to.
//!
//! It is started over the one login and reads lines from its stdin; at their end it ends, and the kernel frees the lock:
//! whether the scope was left, opsh was killed, the laptop died or the link was lost. A link that falls silent without an
//! end is told by the silence: it ends itself after [`SILENCE_S`].

use crate::bind::beside;
use crate::bind::ssh::{Reach, Stream};
use crate::error::{Error, Kind, Result};
use crate::gate::Pass;
use serde_json::Value;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

/// Seconds without a word after which a holder ends itself; opsh says something each [`BEAT_S`].
const SILENCE_S: u32 = 60;
/// Seconds between two words to a holder that has nothing else to hear.
pub const BEAT_S: u64 = 10;

/// `$1` is the folder. Requests are `WORD NUMBER JSON`, answers `NUMBER WORD UPTIME JSON`; `no` says why there can be no
/// lock, and is the last.
///
/// `try` takes the lock or says that it is busy, each with the `lock.json` that is there; `who` writes one; `work` says
/// whether a durable run of an earlier holder still has `work.lock`; `did` is a change that begins now. Ages are differences
/// of the uptime: no clock that is set can falsify them. What other accounts own is replaced instead of appended to.
const HOLD: &str = r#"opsh_f=$1; opsh_n=0; opsh_w=
opsh_no() { printf '%s no 0 %s\n' "$opsh_n" "$(printf %s "$*" | tr '\n' ' ')"; exit 0; }
opsh_up() { opsh_u=0; IFS='. ' read -r opsh_u opsh_l </proc/uptime; }
opsh_say() { printf '%s %s %s %s\n' "$opsh_n" "$1" "$opsh_u" "$2"; }
opsh_date() { date -u +%Y-%m-%dT%H:%M:%SZ; }
opsh_files() { opsh_make "$1" && for opsh_x in lock work.lock; do [ -e "$1/$opsh_x" ] || (umask 002; : >"$1/$opsh_x") || return; done; }
opsh_alive() { IFS= read -r opsh_l <"/proc/$$/stat" && set -- ${opsh_l##*) } && [ "${20}" = "$opsh_at" ]; } 2>/dev/null
opsh_unwatch() { [ -z "$opsh_w" ] || { kill $opsh_w; wait $opsh_w; } 2>/dev/null; }
opsh_watch() {
  opsh_unwatch
  ( exec </dev/null >/dev/null 2>&1 8<&- 9<&-
    opsh_s=; trap 'kill $opsh_s; exit' TERM; sleep "$opsh_silence" & opsh_s=$!; wait $opsh_s
    opsh_alive && kill $$ ) & opsh_w=$!
}
opsh_put() (
  umask 002
  printf '{"holder":%s,%s,"since":"%s","since_up":%s,"last":%s,"last_up":%s}\n' "$opsh_who" "$opsh_me" "$opsh_since" \
    "$opsh_first" "$opsh_last" "$opsh_late" >"$opsh_f/lock.json.$$" && mv -f "$opsh_f/lock.json.$$" "$opsh_f/lock.json"
)
opsh_trim() (
  umask 002; opsh_c=$opsh_f/changes.jsonl
  [ ! -e "$opsh_c" ] || [ $(($(wc -c <"$opsh_c"))) -le 1048576 ] || { tail -n 1000 "$opsh_c" >"$opsh_c.$$" && mv -f "$opsh_c.$$" "$opsh_c"; }
)
opsh_note() (
  umask 002; opsh_c=$opsh_f/changes.jsonl; opsh_l=$(printf '{"at":"%s",%s' "$(opsh_date)" "${1#?}")
  { [ ! -e "$opsh_c" ] || [ -w "$opsh_c" ]; } && printf '%s\n' "$opsh_l" >>"$opsh_c" && exit
  cp "$opsh_c" "$opsh_c.$$" && printf '%s\n' "$opsh_l" >>"$opsh_c.$$" && mv -f "$opsh_c.$$" "$opsh_c"
)
opsh_l=$(opsh_files "$1" 2>&1) || opsh_no "$opsh_l"
command -v flock >/dev/null || opsh_no 'the host has no flock'
command exec 8<"$1/work.lock" 9<"$1/lock" || opsh_no "the files in $1 cannot be opened"
IFS= read -r opsh_b </proc/sys/kernel/random/boot_id; IFS= read -r opsh_l </proc/$$/stat; set -- ${opsh_l##*) }; opsh_at=${20}
opsh_me="\"pid\":$$,\"start\":${opsh_at:-0},\"boot\":\"$opsh_b\""
opsh_up; opsh_say ready null
while IFS=' ' read -r opsh_c opsh_n opsh_x; do
  opsh_up
  case $opsh_c in
  try) flock -n 9; opsh_r=$?; opsh_l=null; [ ! -s "$opsh_f/lock.json" ] || IFS= read -r opsh_l <"$opsh_f/lock.json"
    case $opsh_r in 0) opsh_say got "$opsh_l";; 1) opsh_say busy "$opsh_l";; *) opsh_no "flock ends with $opsh_r";; esac;;
  who) opsh_who=$opsh_x; opsh_since=$(opsh_date); opsh_first=$opsh_u; opsh_last=null; opsh_late=$opsh_u
    opsh_l=$(opsh_put 2>&1) || opsh_no "$opsh_l"; opsh_trim; opsh_say ok null; opsh_watch;;
  work) if flock -n 8; then flock -u 8; opsh_say free null; else opsh_say works null; fi;;
  did) opsh_last=$opsh_x; opsh_late=$opsh_u; opsh_put; opsh_note "$opsh_x"; opsh_say ok null; opsh_watch;;
  beat) opsh_watch;;
  end) break;;
  esac
done 2>/dev/null
opsh_unwatch"#;

/// Ends a holder that is not ours to speak to. `$1` is the folder, `$2` the fence, `$3` to `$5` process, its start time and
/// boot. Prints `other` when somebody else has the lock, `gone`, `ended`, or `stays`.
const END: &str = r#"opsh_l=; IFS= read -r opsh_l <"$1/lock.json"
case $opsh_l in *"\"fence\":\"$2\""*) ;; *) echo other; exit;; esac
opsh_pid=$3; opsh_at=$4; opsh_boot=$5
opsh_alive() {
  IFS= read -r opsh_l </proc/sys/kernel/random/boot_id && [ "$opsh_l" = "$opsh_boot" ] || return
  IFS= read -r opsh_l <"/proc/$opsh_pid/stat" && set -- ${opsh_l##*) } && [ "$1" != Z ] && [ "${20}" = "$opsh_at" ]
} 2>/dev/null
opsh_alive || { echo gone; exit; }
kill -s TERM "$opsh_pid" || exit
for opsh_x in 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17 18 19 20; do
  opsh_alive || { echo ended; exit; }
  sleep 0.1 2>/dev/null || sleep 1
done
echo stays"#;

/// Who has the lock, without taking it: `free`, or `busy UPTIME JSON`; `none` where there is no lock.
const LOOK: &str = r#"[ -e "$1/lock" ] && command -v flock >/dev/null || { echo none; exit; }
exec 9<"$1/lock"
flock -sn 9 && { echo free; exit; }
IFS='. ' read -r opsh_u opsh_l </proc/uptime; opsh_l=null; [ ! -s "$1/lock.json" ] || IFS= read -r opsh_l <"$1/lock.json"
echo "busy $opsh_u $opsh_l""#;

/// Prints the last `$2` lines of what was changed.
const CHANGES: &str = r#"[ ! -e "$1/changes.jsonl" ] || tail -n "$2" "$1/changes.jsonl""#;

fn words(script: &str, args: &[&str]) -> Vec<String> {
    ["sh", "-c", script, "opsh"].iter().chain(args).map(|word| word.to_string()).collect()
}

/// Words that end the holder in `seen`, a `lock.json`.
pub fn end(folder: &str, seen: &Value) -> Vec<String> {
    let number = |key: &str| seen[key].as_u64().unwrap_or(0).to_string();
    let boot = seen["boot"].as_str().unwrap_or("");
    words(END, &[folder, fence(seen).unwrap_or(""), &number("pid"), &number("start"), boot])
}

/// Words that look at the lock.
pub fn look(folder: &str) -> Vec<String> {
    words(LOOK, &[folder])
}

/// Words that print the last `count` changes.
pub fn changes(folder: &str, count: i64) -> Vec<String> {
    words(CHANGES, &[folder, &count.to_string()])
}

/// What [`look`] printed: the host's uptime in seconds and its `lock.json`, when somebody has the lock.
pub fn looked(text: &str) -> Option<(i64, Value)> {
    let (up, json) = text.trim().strip_prefix("busy ")?.split_once(' ')?;
    Some((up.parse().unwrap_or(0), serde_json::from_str(json).unwrap_or_default()))
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
    /// It has the lock, and has said whose it is.
    pub holds: bool,
}

/// An answer of a holder.
#[derive(Debug)]
pub struct Answer {
    /// `got`, `busy`, `ok`, `free`, `works`, or `no`.
    pub word: String,
    /// The host's uptime in seconds.
    pub up: i64,
    /// What came with it.
    pub value: Value,
    /// The same as text: the reason of a `no`.
    pub text: String,
}

/// The holder ended, or the link to it.
#[derive(Debug)]
pub struct Gone;

impl Holder {
    /// Starts one. `Ok(Err(why))` when there can be no lock in this folder.
    ///
    /// Fails as [`Reach::stream`] does.
    pub async fn start(pass: &Pass, reach: &Reach, folder: &str) -> Result<Result<Holder, String>> {
        Holder::start_for(SILENCE_S, pass, reach, folder).await
    }

    async fn start_for(silence_s: u32, pass: &Pass, reach: &Reach, folder: &str) -> Result<Result<Holder, String>> {
        let script = format!("opsh_silence={silence_s}\nopsh_make() {{ {}\n}}\n{HOLD}", beside::MAKE);
        let stream = reach.stream(pass, &words(&script, &[folder])).await?;
        let mut holder = Holder { stream, heard: Vec::new(), asked: 0, holds: false };
        match holder.answer().await {
            Ok(answer) if answer.word == "ready" => Ok(Ok(holder)),
            Ok(answer) => Ok(Err(answer.text)),
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

    /// Says something that has no answer.
    pub async fn send(&mut self, word: &str, value: &Value) -> Result<(), Gone> {
        self.asked += 1;
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
            if number == self.asked.to_string() || word == "no" {
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
        let started = Holder::start_for(1, &pass, &Reach::Local, &folder).await.expect("a shell");
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

    #[test]
    fn what_a_look_prints_is_read_and_what_is_not_ours_says_nothing() {
        assert!(looked("free\n").is_none() && looked("none\n").is_none() && looked("").is_none());
        let (up, seen) = looked("busy 77 {\"holder\":{\"fence\":\"f\"}}\n").expect("somebody has it");
        assert_eq!((up, fence(&seen)), (77, Some("f")));
        let (_, seen) = looked("busy 77 no json\n").expect("somebody has it");
        assert_eq!(fence(&seen), None);
    }
}
