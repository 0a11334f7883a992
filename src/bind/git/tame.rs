//! Git that runs no program which the repository names: filters, textconv, external diffs, hooks, monitors, signature
//! checkers, transports and credential helpers. Whoever can write the repository's settings would run code otherwise,
//! in observe and as the account that opsh logs in as.
//!
//! Programs that the account's own settings and the system's name are kept: an origin over ssh needs its key, files of LFS their
//! filter.

/// Settings that are the same for every repository.
const SETTINGS: &[&str] = &[
    "core.fsmonitor=false",
    "core.hooksPath=/dev/null",
    "protocol.ext.allow=never",
    "log.showSignature=false",
    "submodule.recurse=false",
    "status.submoduleSummary=false",
    "diff.autoRefreshIndex=false",
    "advice.detachedHead=false",
    "core.quotePath=false",
    // A release is newer than what was released before it to be tried.
    "versionsort.suffix=-",
];

/// Protocols over which a read may ask an origin. The rest are programs: `ext::`, and helpers that a setting names.
pub const ASKS: &str = "file:git:http:https:ssh";

/// No protocol at all: a partial clone would fetch what it lacks.
pub const STAYS: &str = "none";

/// Overrides each setting of the repository that names a program, then becomes the words after `$1`, the folder.
/// Names with a wildcard cannot be overridden unread; a subsection may hold anything but a line break. A git that does
/// not know the form for names with `=` refuses to run. An old git without `--name-only` is refused here.
const TAME: &str = r#"
dir=$1 quote=\'
shift
names() { git -C "$dir" config "$1" --includes --name-only --list 2>/dev/null; }
found=$(names --local; test "$?" != 129 || echo "too old"; names --worktree)
case $found in "too old"*)
    echo "this git is older than 2.6, and cannot be kept from running what the repository names" >&2
    exit 128 ;;
esac
more=$(printf '%s\n' "$found" | while IFS= read -r name; do
    case $name in
        filter.*.clean | filter.*.smudge | filter.*.process) value= ;;
        core.askpass | credential.helper | credential.*.helper) value= ;;
        filter.*.required | http.savecookies | http.*.savecookies) value=false ;;
        gpg.program | gpg.*.program) value=false ;;
        diff.*.textconv) value=cat ;;
        diff.external | diff.*.command | core.alternaterefscommand) value=true ;;
        core.sshcommand) value=ssh ;;
        remote.*.uploadpack) value=git-upload-pack ;;
        remote.*.receivepack) value=git-receive-pack ;;
        *) continue ;;
    esac
    case $name in *"$quote"*) name=$(printf %s "$name" | sed "s/'/'\\\\''/g") ;; esac
    case $name in
        *=*) printf " '%s'='%s'" "$name" "$value" ;;
        *) printf " '%s=%s'" "$name" "$value" ;;
    esac
done)
test -z "$more" || export GIT_CONFIG_PARAMETERS="${GIT_CONFIG_PARAMETERS:+$GIT_CONFIG_PARAMETERS }${more# }"
exec "$@"
"#;

/// Nothing of git may ask a question, take an optional lock, start a pager or mean another repository.
pub fn env() -> Vec<String> {
    let fixed = ["env", "-u", "GIT_DIR", "-u", "GIT_WORK_TREE", "-u", "GIT_INDEX_FILE", "-u", "GIT_EXTERNAL_DIFF"];
    let set = ["LC_ALL=C", "GIT_TERMINAL_PROMPT=0", "GIT_OPTIONAL_LOCKS=0"];
    fixed.iter().chain(&set).map(|word| word.to_string()).collect()
}

/// How git begins.
pub fn git() -> Vec<String> {
    let settings = SETTINGS.iter().flat_map(|setting| ["-c", *setting]);
    ["git", "--no-pager"].into_iter().chain(settings).map(String::from).collect()
}

/// These words, in which git is run on the repository in `dir`, so that they run nothing which it names.
pub fn tamed(dir: &str, protocols: &str, words: Vec<String>) -> Vec<String> {
    let allow = format!("GIT_ALLOW_PROTOCOL={protocols}");
    // An empty proxy command overrides the setting core.gitProxy, which has several values.
    let set = ["GIT_NO_LAZY_FETCH=1", "GIT_PROXY_COMMAND=", "GIT_ASKPASS=", "SSH_ASKPASS_REQUIRE=never", &allow];
    let sh = ["sh", "-c", TAME, "opsh", dir];
    env().into_iter().chain(set.iter().chain(&sh).map(|word| word.to_string())).chain(words).collect()
}

/// A read of git (`git log -p`) as it is run in the working directory; other words as they are.
pub fn read(words: &[String]) -> Vec<String> {
    let [program, verb, rest @ ..] = words else { return words.to_vec() };
    if program != "git" {
        return words.to_vec();
    }
    // Options win over what the repository sets. A submodule is another repository, with settings of its own.
    let more: &[&str] = match verb.as_str() {
        "log" | "show" => &["--no-ext-diff", "--no-textconv", "--submodule=short"],
        "status" => &["--ignore-submodules=dirty"],
        _ => &[],
    };
    let more = std::iter::once(verb.clone()).chain(more.iter().map(|word| word.to_string()));
    tamed(".", STAYS, git().into_iter().chain(more).chain(rest.iter().cloned()).collect())
}

/// Whether git refused a repository because another user owns it.
pub fn is_anothers(said: &str) -> bool {
    said.contains("dubious ownership") || said.contains("is owned by someone else")
}
