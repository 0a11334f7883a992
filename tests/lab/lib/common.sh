# Settings, messages and small helpers of the lab. Sourced, never run.
# shellcheck shell=bash

LAB_HERE=$(cd -- "$(dirname -- "${BASH_SOURCE[0]}")/.." && pwd -P)
LAB_REPO=$(cd -- "$LAB_HERE/../.." && pwd -P)

# Installed programs live there even when an ordinary user's PATH does not say so.
PATH=$PATH:/usr/local/sbin:/usr/sbin:/sbin:$HOME/.cargo/bin

say() { printf 'lab: %s\n' "$*" >&2; }
# die WHAT [WHAT-TO-DO-NEXT] [CODE]
die() {
  say "$1"
  [[ -z ${2:-} ]] || printf '     next: %s\n' "$2" >&2
  exit "${3:-1}"
}

# Everything that can be set, with its default. Nothing else in the lab knows these values.
settings() {
  : "${LAB_NAME:=opsh-lab}"
  : "${LAB_DIR:=$LAB_REPO/target/lab/$LAB_NAME}"
  : "${LAB_BUILD:=$LAB_REPO/target/lab/.build}"
  : "${LAB_TAG_OLD:=v1.7.0}" "${LAB_TAG_GOOD:=v1.8.0}" "${LAB_TAG_ADDITIVE:=v1.8.1}" "${LAB_TAG_BAD:=v1.9.0}"
  : "${LAB_FIRST_MIGRATION:=43}"
  : "${LAB_COLUMN:=name}" "${LAB_COLUMN_NEW:=title}"
  : "${LAB_DB_INTERVAL:=1s}" "${LAB_BACKEND_INTERVAL:=30s}"
  : "${LAB_BOOT_MS:=300}"
  mkdir -p -- "$LAB_BUILD"
  LAB_BUILD=$(cd -- "$LAB_BUILD" && pwd -P)
  [[ $LAB_DIR == /* ]] || LAB_DIR=$PWD/$LAB_DIR

  check LAB_NAME '^[a-z0-9][a-z0-9_.-]{0,40}$' 'lower-case letters, digits and - . _'
  check LAB_DIR '^/[^[:space:]:,"'\'']*$' 'a path without spaces, colons, commas and quotes'
  check LAB_BUILD '^/[^[:space:]:,"'\'']*$' 'a path without spaces, colons, commas and quotes'
  local name
  for name in LAB_TAG_OLD LAB_TAG_GOOD LAB_TAG_ADDITIVE LAB_TAG_BAD; do
    check "$name" '^[A-Za-z0-9][A-Za-z0-9_.-]{0,60}$' 'a simple git tag'
  done
  [[ $(printf '%s\n' "$LAB_TAG_OLD" "$LAB_TAG_GOOD" "$LAB_TAG_ADDITIVE" "$LAB_TAG_BAD" main | sort -u | wc -l) == 5 ]] ||
    die 'the four LAB_TAG_… must differ from each other and from main' '' 2
  check LAB_FIRST_MIGRATION '^[1-9][0-9]{0,2}$' 'a number from 1 to 990'
  ((LAB_FIRST_MIGRATION <= 990)) || die "LAB_FIRST_MIGRATION=$LAB_FIRST_MIGRATION is not a number from 1 to 990" '' 2
  for name in LAB_COLUMN LAB_COLUMN_NEW; do
    check "$name" '^[a-z][a-z0-9_]{0,40}$' 'a plain SQL name in lower case'
    case ${!name} in
      id | note | member_id | created_at | all | and | any | as | asc | case | cast | check | column | default | desc | do | \
        else | end | false | for | from | grant | group | having | in | into | limit | not | null | offset | on | only | or | \
        order | primary | references | select | table | then | to | true | union | unique | user | using | when | where | with)
        die "$name=${!name} is a column the table already has, or a word SQL keeps for itself" '' 2 ;;
    esac
  done
  [[ $LAB_COLUMN != "$LAB_COLUMN_NEW" ]] || die 'LAB_COLUMN and LAB_COLUMN_NEW must differ' '' 2
  for name in LAB_DB_INTERVAL LAB_BACKEND_INTERVAL; do check "$name" '^[0-9]+(ms|s|m)$' 'a time like 500ms or 10s'; done
  check LAB_BOOT_MS '^[0-9]{1,5}$' 'milliseconds'
}

check() { # check NAME PATTERN WHAT-IT-SHOULD-BE
  [[ ${!1} =~ $2 ]] || die "$1=${!1} is not $3" '' 2
}

# The settings that make one lab different from another, as KEY=VALUE lines.
settings_lines() {
  local name
  for name in LAB_TAG_OLD LAB_TAG_GOOD LAB_TAG_ADDITIVE LAB_TAG_BAD LAB_FIRST_MIGRATION LAB_COLUMN LAB_COLUMN_NEW \
    LAB_DB_INTERVAL LAB_BACKEND_INTERVAL LAB_BOOT_MS; do
    printf '%s=%s\n' "$name" "${!name}"
  done
}

# digest FILE-OR-DIRECTORY…: one short hash of names and contents, relative to the lab's own directory.
digest() {
  (cd -- "$LAB_HERE" && find "$@" -type f -not -path '*/target/*' -print0 | LC_ALL=C sort -z | xargs -0 sha256sum) | short_hash
}
short_hash() { sha256sum | cut -c1-16; }

# poll SECONDS COMMAND…: until the command succeeds; fails when the time is over.
poll() {
  local tries=$(($1 * 10)) try
  shift
  for ((try = 0; try < tries; try++)); do
    ! "$@" || return 0
    sleep 0.1
  done
  return 1
}

# quietly WHAT COMMAND…: runs it with its output kept aside, shown only when it fails.
quietly() {
  local what=$1 log
  shift
  log=$(mktemp "$LAB_BUILD/tmp/log.XXXXXX")
  if "$@" >"$log" 2>&1 </dev/null; then
    rm -f "$log"
  else
    say "$what failed. The end of what it said:"
    tail -n 15 "$log" | sed 's/^/     | /' >&2
    rm -f "$log"
    return 1
  fi
}

# lock NAME FILE: one lab command at a time on the same thing. Nothing that outlives the command may inherit it.
lock() {
  local fd
  mkdir -p -- "$(dirname -- "$2")"
  exec {fd}>"$2"
  flock -n "$fd" || { say "waiting for another lab command ($1)"; flock -w 900 "$fd" || die "the other command does not end" "look for it with: ps aux | grep tests/lab"; }
  LAB_LOCKS+=("$fd")
}
LAB_LOCKS=()
unlock() { # the innermost one
  local fd=${LAB_LOCKS[-1]}
  unset 'LAB_LOCKS[-1]'
  exec {fd}>&-
}
