//! Files that the operators of a stack share: the folder `.opsh` in its checkout, on its host.
//!
//! Whoever can deploy can write there, it is in no release, and git neither shows nor cleans it. So an account that may
//! write in the checkout could put a symlink or a pipe there, and a root login would write through it: each file is opened
//! first, and then the descriptor is checked. Each file carries the number of its format.

use crate::config::Stack;
use crate::error::{Error, Kind};
use crate::gate::Pass;
use serde_json::Value;

/// Newest format of the shared files that this opsh understands. A line without a number has format 1.
pub const FORMAT: u64 = 1;

/// The folder, absolute.
pub fn folder(stack: &Stack) -> String {
    format!("{}/.opsh", stack.dir.trim_end_matches('/'))
}

/// Format of a line of a shared file.
pub fn format_of(line: &Value) -> u64 {
    match &line["format"] {
        Value::Null => 1,
        // A number that is too large for this opsh, or no number, is of one that is not known.
        format => format.as_u64().unwrap_or(u64::MAX),
    }
}

/// A shared file that an account made which has no business there: nothing is read from it or written to it.
pub fn not_trusted(what: &str, host: &str, folder: &str, why: &str) -> Error {
    let look = format!("host({}).read([\"ls\", \"-la\", {}]).out", Value::from(host), Value::from(folder));
    Error::new(Kind::Unmet, what, why).host(host).next(format!(
        "{look}     what is there; an administrator moves it away, corrects its owner, or adds you to its group"
    ))
}

/// A shared file that a newer opsh wrote: this one shows it, and does not write beside it.
pub fn too_new(what: &str, file: &str) -> Error {
    let why = format!("a newer opsh wrote {file}; this opsh ({}) only reads it", env!("CARGO_PKG_VERSION"));
    Error::new(Kind::Unmet, what, why).next("opsh --version     install the version that your colleague uses")
}

/// Says of the lines of a shared file that was read that a newer opsh wrote some of them: they may mean more than is shown.
pub fn say_if_newer(pass: &Pass, text: &str, file: &str) {
    let is_newer = |line| serde_json::from_str(line).is_ok_and(|line| format_of(&line) > FORMAT);
    if text.lines().any(is_newer) {
        let version = env!("CARGO_PKG_VERSION");
        pass.warn(
            "beside.newer",
            format!("a newer opsh wrote {file}: this one ({version}) may not show all that it says"),
        );
    }
}

/// Prints the file `$2` of the folder `$1`; nothing when it is not there.
pub const READ: &str = r#"opsh_folder "$1"; opsh_r=$?; [ $opsh_r != 0 ] || { opsh_file "$2"; opsh_r=$?; }
case $opsh_r in 0) cat <&7;; 1) ;; *) echo "$opsh_why" >&2; exit $((70 + opsh_r));; esac"#;

/// Appends the line `$3` to the file `$2` of the folder `$1`.
pub const APPEND: &str = r#"opsh_folder "$1" make && opsh_add "$2" "$3"; opsh_r=$?
[ $opsh_r = 0 ] || { echo "$opsh_why" >&2; exit $((70 + opsh_r)); }"#;

/// The error of [`READ`] and [`APPEND`] when they say that a file is not to be used.
pub fn refused(code: i32, said: &str, what: &str, host: &str, folder: &str) -> Option<Error> {
    match code {
        72 => Some(not_trusted(what, host, folder, said.trim())),
        74 => Some(too_new(what, said.trim())),
        _ => None,
    }
}

/// Functions in POSIX sh for the folder and its files; works on dash, bash and busybox.
///
/// `opsh_folder DIR [make]` enters the folder after it was checked, and `opsh_file NAME` opens a file of it for reading as
/// descriptor 7, of which `opsh_first` prints the first line, of 64 KiB at most. Both give 0, 1 (not there), 2 (there, and not to be used) or 3 (cannot be used), with the reason in
/// `opsh_why`. `opsh_add NAME LINE` appends a line and waits until it is on the disk; `opsh_put NAME` replaces a file by
/// its standard input, and `opsh_mv FROM TO` renames one, whatever a link at `TO` leads to; 4 means that a newer opsh wrote
/// the file.
///
/// Nobody but the owner, root and the group can open the files, and so have them locked: the folder is 2770, and a file 0660. A
/// folder that root makes belongs to the owner of the checkout, and to its group when that may write there.
///
/// Legitimate owners are root, this account, the owner of the checkout, and whoever is in the checkout's group when that
/// may write there. A file is checked by its descriptor, which nobody can swap: a plain file with one name, and the very
/// one that the name stands for without following links. It is written by that descriptor, never by the name. `set -C`
/// makes a file only where there is nothing, whatever a name there would lead to.
pub const FILES: &str = r#"opsh_uid=$(id -u); opsh_format=1
opsh_odd() { opsh_why="$opsh_f/$1 $2"; return 2; }
opsh_ls() { opsh_qi=; opsh_qm=; opsh_qk=; opsh_qu=; opsh_qg=; IFS=' ' read -r opsh_qi opsh_qm opsh_qk opsh_qu opsh_qg opsh_ql <<OPSH
$(LC_ALL=C ls "$@" 2>/dev/null)
OPSH
}
opsh_groups() { opsh_ql=$(getent passwd "$1" || grep "^[^:]*:[^:]*:$1:" /etc/passwd) && id -G "${opsh_ql%%:*}"; }
opsh_known() {
  case $1 in '') return 1;; 0|"$opsh_uid"|"$opsh_tu") return 0;; esac
  case $opsh_tm in ?????w*) ;; *) return 1;; esac
  for opsh_ql in $(opsh_groups "$1" 2>/dev/null); do [ "$opsh_ql" != "$opsh_tg" ] || return 0; done
  return 1
}
opsh_folder() {
  opsh_f=$1; opsh_why=; opsh_ql=${1%/.opsh}; opsh_ls -Ldin "${opsh_ql:-/}"; opsh_tm=$opsh_qm; opsh_tu=$opsh_qu; opsh_tg=$opsh_qg
  [ ! -L "$1" ] || { opsh_why="$1 is a symlink"; return 2; }
  opsh_qn=
  if [ ! -e "$1" ]; then
    [ -n "${2-}" ] || return 1
    opsh_why=$( (umask 002; mkdir -p "${1%/.opsh}/" && umask 007 && mkdir "$1") 2>&1) && opsh_qn=1 || [ -d "$1" ] || return 3
  fi
  [ -d "$1" ] || { opsh_why="$1 is no folder"; return 3; }
  cd "$1" 2>/dev/null || {
    opsh_ls -ldi "$1"; opsh_why="$1 (mode $opsh_qm) is for $opsh_qu and the group $opsh_qg; user id $opsh_uid is not in that group"; return 2; }
  opsh_ls -din "$1"; opsh_qf=$opsh_qi; opsh_ls -din .
  [ -n "$opsh_qi" ] && [ "$opsh_qf" = "$opsh_qi" ] || { opsh_why="$1 was exchanged while it was looked at"; return 2; }
  opsh_known "$opsh_qu" || { opsh_why="$1 belongs to user id $opsh_qu (mode $opsh_qm), who is neither you, root, the owner of the checkout nor in its group"; return 2; }
  case $opsh_qm in ????????w*) opsh_why="$1 can be written by everybody (mode $opsh_qm)"; return 2;; esac
  [ -n "${2-}" ] || return 0
  if [ -n "$opsh_qn" ] && [ "$opsh_qu" = "$opsh_uid" ] && [ -z "$(ls -A .)" ]; then
    case $opsh_tm in ?????w*) chgrp "$opsh_tg" .;; esac 2>/dev/null
    chmod 2770 . 2>/dev/null; [ "$opsh_qu" = "$opsh_tu" ] || chown "$opsh_tu" . 2>/dev/null
  fi
  # A folder of an earlier opsh is narrowed only when those keep it who may write the checkout.
  case $opsh_qm in
  ???????---*) ;;
  *) case $opsh_tm in
    ?????w*) { [ "$opsh_qg" = "$opsh_tg" ] || chgrp "$opsh_tg" .; } 2>/dev/null && chmod 2770 . 2>/dev/null;;
    *) chmod o-rwx . 2>/dev/null;;
    esac;;
  esac
  [ -e .gitignore ] || [ -L .gitignore ] || (umask 007; set -C; echo '*' >.gitignore) 2>/dev/null
  return 0
}
opsh_file() {
  opsh_why=
  for opsh_ql in 1 2 3 4 5 6 7 8; do
    [ ! -L "$1" ] || { opsh_odd "$1" 'is a symlink'; return; }
    [ -e "$1" ] || return 1
    [ -f "$1" ] || { opsh_odd "$1" 'is no plain file'; return; }
    { command exec 7<"$1"; } 2>/dev/null || { [ -e "$1" ] || continue; opsh_odd "$1" 'cannot be read'; return 3; }
    opsh_ls -din "$1"; opsh_qf=$opsh_qi; opsh_ls -Ldin /proc/self/fd/7
    [ -n "$opsh_qi" ] && [ "$opsh_qi" = "$opsh_qf" ] && [ "$1" -ef /proc/self/fd/7 ] || { opsh_qi=; continue; }
    break
  done
  [ -n "$opsh_qi" ] || { exec 7<&-; opsh_odd "$1" 'was exchanged while it was looked at'; return; }
  case $opsh_qm in -*) ;; *) exec 7<&-; opsh_odd "$1" "is no plain file (mode $opsh_qm)"; return;; esac
  [ "$opsh_qk" = 1 ] || { exec 7<&-; opsh_odd "$1" "has $opsh_qk names (hard links), owner user id $opsh_qu, mode $opsh_qm"; return; }
  opsh_known "$opsh_qu" || { exec 7<&-; opsh_odd "$1" "belongs to user id $opsh_qu (mode $opsh_qm), who is neither you, root, the owner of the checkout nor in its group"; return; }
}
opsh_first() { head -c 65536 /proc/self/fd/7 | head -n 1; }
opsh_newer() {
  opsh_ql=$(printf %s "$1" | tr -d ' \t\r\n')
  while :; do
    case $opsh_ql in *'"format":'*) opsh_ql=${opsh_ql#*'"format":'};; *) return 1;; esac
    case $opsh_ql in ''|[1-$opsh_format]|[1-$opsh_format][,}]*) ;; *) return 0;; esac
  done
}
opsh_mv() {
  [ ! -L "$2" ] || rm -f "$2"
  case $(mv --help 2>&1) in *-T*) mv -fT "$1" "$2" && return;; *)
    [ ! -L "$2" ] && [ ! -d "$2" ] && command exec 7<"$1" && mv -f "$1" "$2" && [ ! -L "$2" ] && [ "$2" -ef /proc/self/fd/7 ] && exec 7<&- && return
  esac 2>/dev/null
  exec 7<&-; opsh_odd "$2" 'cannot be put in place'; return 3
}
opsh_make() { (umask 007; set -C; : >"$1") 2>/dev/null || [ -e "$1" ] || [ -L "$1" ] || { opsh_odd "$1" 'cannot be made'; return 3; }; }
opsh_add() {
  opsh_file "$1"; opsh_r=$?
  [ $opsh_r != 1 ] || { opsh_make "$1" && opsh_file "$1"; opsh_r=$?; }
  [ $opsh_r = 0 ] || return $opsh_r
  opsh_newer "$(tail -n 1 /proc/self/fd/7)" && { exec 7<&-; opsh_odd "$1" ''; return 4; }
  if [ -n "$(tail -c 1 /proc/self/fd/7)" ]; then set -- "$1" "
$2"; fi
  { printf '%s\n' "$2" >>/proc/self/fd/7; } 2>/dev/null || {
    (umask 007; rm -f "$1.$$"; set -C; { cat /proc/self/fd/7; printf '%s\n' "$2"; } >"$1.$$") 2>/dev/null && opsh_mv "$1.$$" "$1" && opsh_file "$1"
  } || { rm -f "$1.$$"; exec 7<&-; opsh_odd "$1" 'cannot be written: permission denied, or no space left'; return 3; }
  sync -d /proc/self/fd/7 2>/dev/null || :
  exec 7<&-
}
opsh_put() {
  opsh_file "$1"; case $? in 2) return 2;; esac
  exec 7<&-
  (umask 007; rm -f "$1.$$"; set -C; cat >"$1.$$") 2>/dev/null && opsh_mv "$1.$$" "$1" || { rm -f "$1.$$"; opsh_odd "$1" 'cannot be written: permission denied, or no space left'; return 3; }
}
"#;
