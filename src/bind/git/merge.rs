//! Whether one branch merges into another, and whether a squash is why not.
//!
//! A squash puts the work of a branch on another one without its history, so that git merges the same work once more
//! and finds that both sides changed the same lines. It is found by content: a commit of the target whose tree is that
//! of a commit of the source, or whose change is that of all the source's commits since the last squash. With that
//! commit of the source as the base of the merge one sees what the conflicts would be if the histories were tied.

use super::cli::Git;
use super::graph::{Commit, FORMAT, Graph, PatchIds, Side, Squash, Step};
use super::tags::commits_of;
use crate::bind::ssh::shell_word;
use crate::error::{Error, Kind, Result, nearest};
use crate::gate::Pass;
use serde_json::{Value, json};
use std::fmt::Write;

/// Commits that only one side has; more is no branch, and would take minutes.
const MOST: usize = 20_000;
/// How often changes since another squash are named; each time is a trip that compares every open commit.
const MOST_LOOKS: usize = 20;
/// Commits that a list of the result holds.
const LISTED: usize = 100;

/// The names of changes, in one trip. Reads `A COMMIT` (a change of the target), `R TREE TREE` (one taken back),
/// `C COMMIT` (a change of the source) and `B COMMIT` (all that the source did since `$1`). Those since `$1` follow a
/// line `=`, and are named only when they touch the very paths of an `A`: most touch others, and naming is the dear part.
const PATCH_IDS: &str = r#"
base=$1; shift
asked=$(cat)
of() { printf '%s\n' "$asked" | sed -n "s/^$1 //p"; }
raw() { "$@" diff-tree --stdin -r --raw --root --no-renames --no-ext-diff; }
named() {
    "$@" diff-tree --stdin -p -U3 --root --full-index --no-color --no-renames --no-ext-diff --no-textconv |
        "$@" patch-id --verbatim
}
{ of A; of R; of C; } | named "$@"
echo =
{ of A | raw "$@"; echo =; of B | sed "s/\$/ $base/" | raw "$@"; } | awk -v base="$base" '
    function ended() {
        if (name != "" && !of_source) wanted[paths] = 1
        if (name != "" && of_source && paths in wanted) print name, base
    }
    /^:/ { paths = paths "\n" substr($0, index($0, "\t") + 1); next }
    { ended(); name = $1; paths = "" }
    $0 == "=" { name = ""; of_source = 1 }
    END { ended() }' | named "$@"
"#;

/// Merges without a work tree. What they write goes to a folder of its own, which is removed again, so that the clone
/// stays as it is. Reads `plain TARGET SOURCE`, `based TARGET SOURCE BASE`, then the steps of a repair of the source
/// (`merge X`, `ours X`) and `repaired TARGET`, which merges the result and says how it differs from `based`.
const MERGES: &str = r#"
dir=$(mktemp -d) || exit
trap 'rm -rf "$dir"' EXIT
trap 'exit 1' HUP INT TERM
mkdir "$dir/info" &&
    "$@" rev-parse --path-format=absolute --git-path objects >"$dir/info/alternates" || exit
export GIT_OBJECT_DIRECTORY="$dir"
export GIT_AUTHOR_NAME=opsh GIT_AUTHOR_EMAIL=opsh GIT_COMMITTER_NAME=opsh GIT_COMMITTER_EMAIL=opsh
merged() {
    into=$1 from=$2; shift 2
    "$@" merge-tree --write-tree --no-messages --name-only -z ${base:+"--merge-base=$base"} "$into" "$from" >"$dir/merged"
    code=$?
    test "$code" -le 1 || exit "$code"
    content=$(tr '\0' '\n' <"$dir/merged" | head -n 1)
}
# Nothing of this is kept: it need not reach the disk.
set -- "$@" -c core.fsync=none
show() { cat "$dir/merged" && printf '/%s\0' "$code"; }
while read -r step a b base; do
    case $step in
    plain) tip=$b; merged "$a" "$b" "$@"; show ;;
    based) merged "$a" "$b" "$@"; show; based=$content ;;
    merge) merged "$tip" "$a" "$@"; test "$code" = 0 || exit 0 ;;
    ours) content="$tip^{tree}" ;;
    repaired)
        merged "$a" "$tip" "$@"; show
        "$@" diff-tree -r -z --no-renames --name-only "$based" "$content" >"$dir/merged" || exit
        show ;;
    esac
    case $step in
    merge | ours) tip=$("$@" commit-tree -m repair -p "$tip" -p "$a" "$content") || exit ;;
    esac
done
"#;

/// A branch, tag or commit as somebody named it.
struct Named {
    name: String,
    /// `refs/heads/develop`, or the name itself where that is none of a ref.
    reference: String,
    commit: String,
}

/// Looks whether `source` merges into `target`.
pub async fn check(git: Git, pass: &Pass, target: &str, source: &str) -> Result<Value> {
    new_enough(&git, pass).await?;
    let (target, source) = both(&git, pass, target, source).await?;
    let bases = git.maybe(pass, &["merge-base", "--all", &target.commit, &source.commit]).await?;
    let Some(base) = bases.as_deref().and_then(|bases| bases.lines().next()) else {
        return unrelated(&git, pass, &target, &source).await;
    };
    let graph = graph(&git, pass, &target, &source).await?;
    let (squashes, ids) = squashes(&git, pass, &graph, &target.commit, base).await?;
    let found = Found { target, source, graph, squashes, ids };
    let merges = merges(&git, pass, &found).await?;
    Ok(found.told(&merges))
}

/// Fails with `unmet` for a git that cannot merge without a work tree, or not from a base of our choice.
async fn new_enough(git: &Git, pass: &Pass) -> Result<()> {
    let said = git.out(pass, &["version"]).await?;
    if version(&said).is_some_and(|version| version >= (2, 40)) {
        return Ok(());
    }
    let why = format!("git 2.40 or newer is needed on {}, which has \"{}\"", git.host, said.trim());
    let next = "host(\"local\").repo(DIR).merge_check(TARGET, SOURCE)     in a clone where git is newer";
    Err(Error::new(Kind::Unmet, format!("git.merge_check cannot be done on {}", git.host), why).next(next))
}

fn version(said: &str) -> Option<(u32, u32)> {
    let mut parts = said.trim().strip_prefix("git version ")?.split(['.', ' ']);
    Some((parts.next()?.parse().ok()?, parts.next()?.parse().ok()?))
}

/// Resolves both once: a branch that moves meanwhile does not mix two states.
async fn both(git: &Git, pass: &Pass, target: &str, source: &str) -> Result<(Named, Named)> {
    let (of_target, of_source) = (meanings(target)?, meanings(source)?);
    let asked = of_target.iter().chain(&of_source).cloned();
    let commits = commits_of(git, pass, asked).await?;
    let (to, from) = commits.split_at(of_target.len().min(commits.len()));
    let target = one(git, pass, target, of_target.into_iter().zip(to)).await?;
    let source = one(git, pass, source, of_source.into_iter().zip(from)).await?;
    Ok((target, source))
}

/// What a name may mean. Fails with `usage` for one that git does not give to a ref.
fn meanings(name: &str) -> Result<Vec<String>> {
    let odd = |c: char| c.is_control() || " ~^:?*[\\".contains(c);
    if name.is_empty() || name.len() > 250 || name.contains(odd) || name.contains("..") || name.contains("@{") {
        let why = "a branch, a tag or a commit is meant: main, origin/main, v1.8.0, 40 hexadecimal digits";
        return Err(Error::new(Kind::Usage, format!("{name:?} is no name that git gives"), why));
    }
    if name.starts_with("refs/") || name == "HEAD" {
        return Ok(vec![name.into()]);
    }
    let mut names: Vec<String> =
        ["refs/heads/", "refs/remotes/", "refs/tags/"].map(|kind| format!("{kind}{name}")).into();
    if (7..=64).contains(&name.len()) && name.bytes().all(|byte| byte.is_ascii_hexdigit()) {
        names.push(name.into());
    }
    Ok(names)
}

async fn one(
    git: &Git,
    pass: &Pass,
    name: &str,
    meant: impl Iterator<Item = (String, &Option<String>)>,
) -> Result<Named> {
    let found: Vec<(String, &String)> = meant.filter_map(|(name, commit)| Some((name, commit.as_ref()?))).collect();
    let here = format!("{} on {}", git.dir, git.host);
    let Some((reference, commit)) = found.first() else {
        let refs =
            git.out(pass, &["for-each-ref", "--format=%(refname)", "refs/heads", "refs/remotes", "refs/tags"]).await?;
        let near = near(name, &refs).map_or(String::new(), |near| format!("; did you mean \"{near}\"?"));
        let why = format!("{here} has no such branch or tag{near}");
        return Err(Error::new(Kind::NotFound, format!("no branch \"{name}\""), why));
    };
    if let Some((other, _)) = found.iter().find(|(_, other)| other != commit) {
        let why = format!("in {here} it is {reference} and {other}, which are different commits");
        let what = format!("{name:?} means more than one thing");
        return Err(Error::new(Kind::Usage, what, why).next(format!("{reference}     or {other}, in full")));
    }
    Ok(Named { name: name.into(), reference: reference.clone(), commit: commit.to_string() })
}

/// The branch that was meant: the same one of a remote, or one whose name is nearly the same.
fn near<'a>(name: &str, refs: &'a str) -> Option<&'a str> {
    let short = |name: &'a str| name.splitn(3, '/').nth(2);
    let names: Vec<&str> = refs.lines().filter_map(short).collect();
    let of_remote = names.iter().find(|known| known.strip_suffix(name).is_some_and(|rest| rest.ends_with('/')));
    of_remote.copied().or_else(|| nearest(name, names.iter().copied()))
}

async fn unrelated(git: &Git, pass: &Pass, target: &Named, source: &Named) -> Result<Value> {
    if git.out(pass, &["rev-parse", "--is-shallow-repository"]).await?.trim() == "true" {
        let why = format!("{} is a shallow clone: where the branches part is cut off", git.dir);
        let error = Error::new(Kind::Unmet, format!("git.merge_check cannot be done on {}", git.host), why);
        return Err(error.next(format!("git -C {} fetch --unshallow     get all of the history", shell_word(&git.dir))));
    }
    let why = format!("{} and {} have no commit in common: git refuses to merge them", target.name, source.name);
    Ok(json!({
        "verdict": "unrelated", "why": why, "target": target.name, "source": source.name,
        "target_commit": target.commit, "source_commit": source.commit, "squashes": [], "conflicts": [],
        "conflicts_after_repair": [], "only_on_target": [], "only_on_source": [], "repair": [],
        "no_repair": "a squash leaves a common commit, and there is none",
    }))
}

async fn graph(git: &Git, pass: &Pass, target: &Named, source: &Named) -> Result<Graph> {
    let range = format!("{}...{}", target.commit, source.commit);
    let limit = format!("--max-count={}", MOST + 1);
    let how = ["rev-list", "--topo-order", "--left-right", "--boundary", "--no-commit-header", "--encoding=UTF-8"];
    let listed = git.out(pass, &[how.as_slice(), &[FORMAT, &limit, &range, "--"]].concat()).await?;
    let graph = Graph::parse(&listed);
    if graph.len() <= MOST {
        return Ok(graph);
    }
    let why = format!("{} and {} are more than {MOST} commits apart", target.name, source.name);
    Err(Error::new(Kind::Unmet, format!("git.merge_check cannot be done on {}", git.host), why))
}

/// The squashes, oldest first. After each one the next is looked for in what the source did since.
async fn squashes(git: &Git, pass: &Pass, graph: &Graph, tip: &str, base: &str) -> Result<(Vec<Squash>, PatchIds)> {
    let candidates = graph.candidates(tip);
    let (mut found, mut base, mut looks) = (Vec::new(), base.to_string(), 0);
    let mut open = graph.beyond(&base);
    if candidates.is_empty() || open.is_empty() {
        return Ok((found, PatchIds::new()));
    }
    let mut changes = Changes::all(git, pass, graph, &candidates, &open, &base).await?;
    for (at, candidate) in candidates.iter().enumerate() {
        let mut same = graph.match_of(candidate, &base, &open, &changes.alone);
        if same.is_none() && !open.is_empty() {
            if changes.base != base && looks < MOST_LOOKS {
                looks += 1;
                changes.since = Changes::since(git, pass, &candidates[at..], &open, &base).await?;
                changes.base.clone_from(&base);
            }
            same = changes.match_since(candidate, &open, &base);
        }
        let Some((last, by)) = same else { continue };
        let past = graph.past(&last.id);
        let contains = open.iter().filter(|one| past.contains(one.id.as_str())).count();
        let reverted_by = graph.revert_of(candidate, tip, &changes.alone);
        let reverted = reverted_by.is_some();
        found.push(Squash { commit: candidate.id.clone(), up_to: last.id.clone(), contains, by, reverted_by });
        // What was taken back is work that the target lacks.
        if !reverted {
            base.clone_from(&last.id);
            open = graph.beyond(&base);
        }
    }
    Ok((found, changes.alone))
}

/// Names of changes.
struct Changes {
    /// Of single commits, and of changes that are taken back.
    alone: PatchIds,
    /// Of everything that the source did since `base`, by the last commit of it.
    since: PatchIds,
    base: String,
}

impl Changes {
    /// All of them.
    async fn all(
        git: &Git,
        pass: &Pass,
        graph: &Graph,
        candidates: &[&Commit],
        open: &[&Commit],
        base: &str,
    ) -> Result<Changes> {
        let mut asked = String::new();
        for one in candidates {
            if let Some(before) = graph.parent(&one.id) {
                let _ = writeln!(asked, "R {} {}", one.tree, before.tree);
            }
        }
        for one in open {
            let _ = writeln!(asked, "C {}", one.id);
        }
        Changes::named(git, pass, asked, candidates, open, base).await
    }

    /// Only those since `base`, and of the candidates.
    async fn since(git: &Git, pass: &Pass, candidates: &[&Commit], open: &[&Commit], base: &str) -> Result<PatchIds> {
        Changes::named(git, pass, String::new(), candidates, open, base).await.map(|changes| changes.since)
    }

    async fn named(
        git: &Git,
        pass: &Pass,
        mut asked: String,
        candidates: &[&Commit],
        open: &[&Commit],
        base: &str,
    ) -> Result<Changes> {
        candidates.iter().for_each(|one| asked.push_str(&format!("A {}\n", one.id)));
        open.iter().for_each(|one| asked.push_str(&format!("B {}\n", one.id)));
        let said = git.script(pass, "patch-id", PATCH_IDS, &[base], &asked).await?;
        let (alone, since) = said.split_once("=\n").unwrap_or((&said, ""));
        let ids = |lines: &str| -> PatchIds {
            let pairs = lines.lines().filter_map(|line| line.split_once(' '));
            pairs.map(|(id, name)| (name.to_string(), id.to_string())).collect()
        };
        Ok(Changes { alone: ids(alone), since: ids(since), base: base.into() })
    }

    fn match_since<'a>(
        &self,
        candidate: &Commit,
        open: &[&'a Commit],
        base: &str,
    ) -> Option<(&'a Commit, &'static str)> {
        let id = self.alone.get(&candidate.id).filter(|_| self.base == base)?;
        open.iter().find(|one| self.since.get(&one.id) == Some(id)).map(|one| (*one, "patch-id"))
    }
}

/// What was found about two branches before anything is merged.
struct Found {
    target: Named,
    source: Named,
    graph: Graph,
    squashes: Vec<Squash>,
    ids: PatchIds,
}

/// Paths in conflict, and whether there is any.
type Conflicts = (Vec<String>, bool);

/// How the merges came out.
struct Merges {
    plain: Conflicts,
    /// From the base that tied histories would have; `None` when nothing was squashed.
    based: Option<Conflicts>,
    /// The repair leads to just that.
    repairs: bool,
}

async fn merges(git: &Git, pass: &Pass, found: &Found) -> Result<Merges> {
    let (target, source) = (&found.target.commit, &found.source.commit);
    let live = found.live();
    let mut asked = format!("plain {target} {source}\n");
    if let Some(last) = live.last() {
        let _ = writeln!(asked, "based {target} {source} {}", last.up_to);
        for step in found.graph.repair(&live) {
            let _ = match step {
                Step::Merge(id) => writeln!(asked, "merge {id}"),
                Step::Ours(id) => writeln!(asked, "ours {id}"),
            };
        }
        let _ = writeln!(asked, "repaired {target}");
    }
    let said = git.script(pass, "merge-tree", MERGES, &[], &asked).await?;
    let parts = parts(&said);
    let conflicts = |part: &(Vec<&str>, bool)| -> Conflicts {
        (part.0.iter().skip(1).map(|path| path.to_string()).collect(), part.1)
    };
    let plain = parts.first().map(conflicts).unwrap_or_default();
    let based = parts.get(1).map(conflicts);
    let repairs = match (&based, parts.get(2).map(conflicts), parts.get(3)) {
        // Where there is a conflict, its marks have other names.
        (Some(based), Some(repaired), Some((differ, _))) => {
            *based == repaired && differ.iter().all(|path| based.0.iter().any(|known| known == path))
        }
        _ => false,
    };
    Ok(Merges { plain, based, repairs })
}

/// The entries of each merge, and whether it ended with 1. No path begins with a slash.
fn parts(said: &str) -> Vec<(Vec<&str>, bool)> {
    let mut parts = Vec::new();
    let mut entries = Vec::new();
    for entry in said.split('\0').filter(|entry| !entry.is_empty()) {
        match entry.strip_prefix('/') {
            Some(code) => parts.push((std::mem::take(&mut entries), code != "0")),
            None => entries.push(entry),
        }
    }
    parts
}

impl Found {
    /// Squashes that were not taken back.
    fn live(&self) -> Vec<&Squash> {
        self.squashes.iter().filter(|squash| squash.reverted_by.is_none()).collect()
    }

    fn told(&self, merges: &Merges) -> Value {
        let live = self.live();
        let (conflicts, conflicting) = &merges.plain;
        let (after, still) = merges.based.as_ref().unwrap_or(&merges.plain);
        let verdict = match (conflicting, still) {
            (false, _) if live.is_empty() => "clean",
            (false, _) => "clean_but_squashed",
            (true, false) => "conflicts_by_squash",
            (true, true) => "conflicts_real",
        };
        let lost = self.lost_by_ours(&live);
        let only_on_target = self.graph.only_on_target(&self.squashes, &self.ids);
        let only_on_target = only_on_target.iter().take(LISTED).map(
            |one| json!({ "commit": one.id, "subject": one.subject, "lost_by_ours": lost.contains(&one.id.as_str()) }),
        );
        let only_on_source = self.graph.only_on_source(&live);
        let only_on_source =
            only_on_source.iter().take(LISTED).map(|one| json!({ "commit": one.id, "subject": one.subject }));
        let repair = self.repair(merges, &live);
        let (repair, no_repair) = match repair {
            Ok(lines) => (lines, None),
            Err(why) => (Vec::new(), Some(why)),
        };
        json!({
            "verdict": verdict, "why": self.why(verdict, merges), "target": self.target.name, "source": self.source.name,
            "target_commit": self.target.commit, "source_commit": self.source.commit,
            "squashes": self.squashes.iter().map(|squash| self.squash_told(squash)).collect::<Vec<_>>(),
            "conflicts": conflicts, "conflicts_after_repair": after,
            "only_on_target": only_on_target.collect::<Vec<_>>(), "only_on_source": only_on_source.collect::<Vec<_>>(),
            "repair": repair, "no_repair": no_repair,
        })
    }

    fn squash_told(&self, squash: &Squash) -> Value {
        let subject = self.graph.get(&squash.commit).map_or("", |commit| &commit.subject);
        json!({
            "commit": squash.commit, "subject": subject, "contains": squash.contains, "up_to": squash.up_to,
            "by": squash.by, "reverted_by": squash.reverted_by,
        })
    }

    /// Commits of the target that recording the last squash alone would take out again.
    fn lost_by_ours(&self, live: &[&Squash]) -> Vec<&str> {
        match live.last() {
            Some(last) if last.by == "patch-id" => self.graph.past(&last.commit).into_iter().collect(),
            _ => Vec::new(),
        }
    }

    fn why(&self, verdict: &str, merges: &Merges) -> String {
        let (source, target) = (&self.source.name, &self.target.name);
        let live = self.live();
        let already = match live.last() {
            Some(last) => format!(
                "{} on {target} is the work of {source} up to {} without its history",
                short(&last.commit),
                short(&last.up_to)
            ),
            None => String::new(),
        };
        match verdict {
            "clean" if self.graph.of(Side::Source).next().is_none() => format!("{target} has all of {source} already"),
            "clean" => format!("{source} merges into {target} without a conflict"),
            "clean_but_squashed" => {
                format!("{source} merges into {target}, but {already}: the next change to the same lines will conflict")
            }
            "conflicts_by_squash" => format!("{already}, so git merges the same work twice"),
            _ if live.is_empty() => format!(
                "{source} and {target} changed the same lines; no commit of {target} was found to be a squash of \
                 {source}, which does not rule out one whose conflicts were resolved by hand"
            ),
            _ => {
                let left = merges.based.as_ref().map_or(0, |(paths, _)| paths.len());
                format!("{already}; with the histories tied, {left} file(s) were still changed on both sides")
            }
        }
    }

    /// The lines to type on a clone of the source, or why there are none.
    fn repair(&self, merges: &Merges, live: &[&Squash]) -> Result<Vec<String>, String> {
        if live.is_empty() {
            return Err("nothing was squashed".into());
        }
        if !merges.repairs {
            return Err("recording the squash would take commits that only the target has out of it, or would not help: merge by hand".into());
        }
        let (target, source) = (&self.target.name, &self.source.name);
        let of_remote = self.source.reference.strip_prefix("refs/remotes/").and_then(|name| name.split_once('/'));
        let (remote, branch) = match (self.source.reference.strip_prefix("refs/heads/"), of_remote) {
            (Some(branch), _) => (None, branch),
            (None, Some((remote, branch))) => (Some(remote), branch),
            _ => return Err(format!("{source} is no branch that could get another commit")),
        };
        if branch.starts_with('-') || remote.is_some_and(|remote| remote.starts_with('-')) {
            return Err(format!("git takes the name {source} for an option: rename the branch first"));
        }
        let mut lines = vec![format!("git switch {}", shell_word(branch))];
        lines.extend(remote.map(|remote| format!("git merge --ff-only {}", shell_word(&format!("{remote}/{branch}")))));
        for step in self.graph.repair(live) {
            lines.push(match step {
                Step::Merge(id) => format!("git merge --no-edit {}", short(&id)),
                Step::Ours(id) => {
                    let message = shell_word(&format!("record squash {} of {target}", short(&id)));
                    format!("git merge -s ours -m {message} {}", short(&id))
                }
            });
        }
        lines.push(format!("git push {} {}", shell_word(remote.unwrap_or("origin")), shell_word(branch)));
        Ok(lines)
    }
}

/// Enough of a commit's name for any repository that a person types in.
fn short(commit: &str) -> &str {
    &commit[..commit.len().min(12)]
}
