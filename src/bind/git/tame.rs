//! Git that looks, and runs nothing which the repository names: filters, textconv, external diffs, hooks, monitors, signature
//! checkers, transports and credential helpers. Whoever can write the repository's settings would run code otherwise,
//! in observe and as the account that opsh logs in as.
//!
//! Git never works with the settings of the repository: it gets a folder of its own as its git folder, in which all but the
//! settings are links into the repository's. Its `config` has what the repository says under the names of [`KEEPS`], as
//! git itself read it once. What is not on that list is not there, whoever hides it, and whoever changes it meanwhile.
//!
//! Programs that the account's own settings and the system's name are kept: an origin over ssh needs its key, files of LFS their
//! filter. Conditions there that name a git folder (`includeIf "gitdir:…"`) do not hold, since it is another one.

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
    "advice.graftFileDeprecated=false",
    "core.quotePath=false",
    "column.ui=never",
    "i18n.logOutputEncoding=UTF-8",
    // A checker of signatures makes files in the account's home.
    "gpg.program=false",
    "gpg.openpgp.program=false",
    "gpg.ssh.program=false",
    "gpg.x509.program=false",
    // A release is newer than what was released before it to be tried.
    "versionsort.suffix=-",
];

/// What a repository's own settings may say: nothing here names a program, or where one is. `*` is any subsection.
const KEEPS: &[&str] = &[
    "branch.*.merge",
    "branch.*.remote",
    "core.abbrev",
    "core.autocrlf",
    "core.checkroundtripencoding",
    "core.checkstat",
    "core.commitgraph",
    "core.eol",
    "core.filemode",
    "core.ignorecase",
    "core.multipackindex",
    "core.precomposeunicode",
    "core.repositoryformatversion",
    "core.sharedrepository",
    "core.sparsecheckout",
    "core.sparsecheckoutcone",
    "core.symlinks",
    "core.trustctime",
    "diff.algorithm",
    "diff.renamelimit",
    "diff.renames",
    "extensions.objectformat",
    "extensions.refstorage",
    "http.*.proxy",
    "http.*.sslcainfo",
    "http.proxy",
    "http.sslcainfo",
    "index.sparse",
    "merge.directoryrenames",
    "merge.renamelimit",
    "merge.renames",
    "merge.renormalize",
    "remote.*.fetch",
    "remote.*.url",
    "submodule.*.url",
    "url.*.insteadof",
];

/// Protocols over which a read may ask an origin. The rest are programs: `ext::`, and helpers that a setting names.
pub const ASKS: &str = "file:git:http:https:ssh";

/// No protocol at all: a partial clone would fetch what it lacks.
pub const STAYS: &str = "none";

/// The status of tamed words in a folder that is in no repository which git can read.
pub const NOWHERE: i32 = 231;

/// The status of tamed words in a repository of another user, which git does not open.
pub const ANOTHERS: i32 = 232;

/// `$1` is a folder, and after it stand words. They are run with a git folder in which nothing but links, `HEAD` and vetted
/// settings are; a linked work tree has two, as in the repository. Every merge driver has a name there, and always
/// says "conflict". What the repository says of filters is no setting there: `filters`, beside the git folder, names it. Whether a repository is another user's, git is asked: it opens it once it is told that all are safe.
const TAME: &str = r#"
dir=$1
shift
for at in /dev/shm "${TMPDIR:-/tmp}"; do
    own=$(TMPDIR=$at mktemp -d 2>/dev/null) && break
done
test -d "$own" || { echo "no folder could be made in /dev/shm or ${TMPDIR:-/tmp}" >&2; exit 1; }
trap 'rm -rf "$own"' EXIT
trap 'exit 1' HUP INT TERM
ask() { git -C "$dir" "$@" </dev/null; }
at=$(ask rev-parse --absolute-git-dir 2>"$own/said") || {
    code=$?
    cat "$own/said" >&2
    test "$code" != 127 || exit 127
    printf '[safe]\n\tdirectory = *\n' >"$own/.gitconfig"
    export HOME="$own" XDG_CONFIG_HOME="$own" GIT_CONFIG_GLOBAL="$own/.gitconfig"
    ! ask rev-parse --git-dir >/dev/null 2>&1 || exit @ANOTHERS
    exit @NOWHERE
}
is=$(ask rev-parse --is-bare-repository --is-inside-work-tree) || exit
bare=true
case $is in *true)
    top=$(ask rev-parse --show-toplevel) || exit
    bare=false
    export GIT_WORK_TREE="$top" ;;
esac
copy() {
    mkdir "$2" && ln -s "$1"/* "$2" || exit
    (cd "$2" && rm -f HEAD commondir config config.worktree hooks) || exit
    test ! -e "$1/HEAD" || cp -P "$1/HEAD" "$2/HEAD" || exit
}
shared=$at settings=$own/git/config
if test -f "$at/commondir"; then
    shared=$(cat "$at/commondir") settings=$own/shared/config
    case $shared in /*) ;; *) shared=$at/$shared ;; esac
    copy "$shared" "$own/shared"
fi
copy "$at" "$own/git"
test "$shared" = "$at" || printf '%s\n' "$own/shared" >"$own/git/commondir" || exit
# Before 2.26 git does not tell whose a setting is, and has no condition that sees the settings of another file.
scopes=1
ask config --show-scope -z --list >"$own/list" 2>/dev/null || {
    scopes=0
    ask config --local --includes -z --list >"$own/list" || exit
}
: >"$own/filters"
tr '\n\000' '\001\n' <"$own/list" | awk -v filters="$own/filters" -v bare="$bare" -v scopes="$scopes" -v keeps="@KEEPS" '
    function quoted(text) { gsub(/[\\"]/, "\\\\&", text); return "\"" text "\"" }
    BEGIN {
        count = split(keeps, names, " ")
        for (at = 1; at <= count; at++) keep[names[at]] = 1
        print "[core]\n\tbare = " bare
    }
    scopes == 1 && NR % 2 == 1 { own = $0 == "local" || $0 == "worktree"; next }
    scopes == 0 { own = 1 }
    {
        end = index($0, "\001")
        key = end ? substr($0, 1, end - 1) : $0
        value = end ? substr($0, end + 1) : "true"
        dot = index(key, ".")
        section = substr(key, 1, dot - 1)
        name = substr(key, dot + 1)
        head = "[" section "]"
        if (match(name, /\.[^.]*$/)) {
            head = "[" section " " quoted(substr(name, 1, RSTART - 1)) "]"
            name = substr(name, RSTART + 1)
            section = section ".*"
        }
        if (section == "filter.*" && (name == "smudge" || name == "process")) {
            if (own) print key >filters
            next
        }
        if (section "." name == "merge.*.driver") value = "false"
        else if (!own || !(section "." name in keep) || index(value, "\001")) next
        print head "\n\t" name " = " quoted(value)
    }' >"$settings" || exit
rm "$own/list"
export GIT_DIR="$own/git" GIT_OBJECT_DIRECTORY="$shared/objects"
"$@"
exit $?
"#;

/// Nothing of git may ask a question, take an optional lock, start a pager, mean another repository, or show one commit in
/// the place of another.
pub fn env() -> Vec<String> {
    let other = [
        "GIT_DIR",
        "GIT_COMMON_DIR",
        "GIT_WORK_TREE",
        "GIT_INDEX_FILE",
        "GIT_OBJECT_DIRECTORY",
        "GIT_ALTERNATE_OBJECT_DIRECTORIES",
        "GIT_NAMESPACE",
        "GIT_EXTERNAL_DIFF",
    ];
    let set = [
        "LC_ALL=C",
        "GIT_TERMINAL_PROMPT=0",
        "GIT_OPTIONAL_LOCKS=0",
        "GIT_NO_REPLACE_OBJECTS=1",
        "GIT_GRAFT_FILE=/dev/null",
    ];
    let unset = other.iter().flat_map(|name| ["-u", *name]);
    ["env"].into_iter().chain(unset).chain(set).map(String::from).collect()
}

/// How git begins.
pub fn git() -> Vec<String> {
    let settings = SETTINGS.iter().flat_map(|setting| ["-c", *setting]);
    ["git", "--no-pager"].into_iter().chain(settings).map(String::from).collect()
}

/// These words, in which git is run on the repository in `dir`, so that they run nothing which it names. They end with
/// [`NOWHERE`] or [`ANOTHERS`] where they were not run.
pub fn tamed(dir: &str, protocols: &str, words: Vec<String>) -> Vec<String> {
    let allow = format!("GIT_ALLOW_PROTOCOL={protocols}");
    let numbers = [("@NOWHERE", NOWHERE), ("@ANOTHERS", ANOTHERS)];
    let script = numbers.iter().fold(TAME.to_string(), |script, (name, code)| script.replace(name, &code.to_string()));
    let script = script.replace("@KEEPS", &KEEPS.join(" "));
    let set = ["GIT_NO_LAZY_FETCH=1", "GIT_ASKPASS=", "SSH_ASKPASS_REQUIRE=never", &allow];
    let sh = ["sh", "-c", &script, "opsh", dir];
    env().into_iter().chain(set.iter().chain(&sh).map(|word| word.to_string())).chain(words).collect()
}

/// A read of git (`git log -p`) as it is run in the working directory; other words as they are.
pub fn read(words: &[String]) -> Vec<String> {
    let [program, verb, rest @ ..] = words else { return words.to_vec() };
    if program != "git" {
        return words.to_vec();
    }
    // Options win over what the account sets. A submodule is another repository, with settings of its own.
    let more: &[&str] = match verb.as_str() {
        "log" | "show" => &["--no-ext-diff", "--no-textconv", "--submodule=short"],
        "status" => &["--ignore-submodules=dirty"],
        _ => &[],
    };
    let more = std::iter::once(verb.clone()).chain(more.iter().map(|word| word.to_string()));
    tamed(".", STAYS, git().into_iter().chain(more).chain(rest.iter().cloned()).collect())
}
