//! Everything opsh knows about git: the git CLI by argv, on this machine or over ssh.
//!
//! A tag is resolved once to a 40-hex commit, and only that is used afterwards: git accepts tag names that are shell
//! programs, and tags move.

mod cli;
mod graph;
mod merge;
mod status;
mod tags;
pub mod tame;

use super::host::{self, HostHandle, words_of};
use super::ssh::{Reach, shell_word};
use super::undo::{Now, Past};
use super::values::literal;
use super::way::Way;
use super::{Binding, Call, Change, Look, Receipt, World};
use crate::config::Stack;
use crate::error::{Error, Kind, Result};
use crate::gate::verb::{Class, Verb};
use crate::gate::{Did, Lives, Pass};
use cli::Git;
pub use cli::anothers;
use rhai::Dynamic;
use serde_json::{Value, json};
use std::collections::BTreeSet;
use std::time::Duration;

const HEAD: Verb = Verb {
    name: "git.head",
    class: Class::Read,
    waits: false,
    sig: "repo.head() -> map",
    doc: "The commit that is checked out. `commit` (40 hex), its `tags`, its `subject`, and the `branch`, which is \
          `()` when the head is detached, as a deployed tag leaves it. In a bare clone: that of the branch that is its \
          HEAD. Fails with `not_found` when the folder is no repository, `unmet` when it has no commit yet, `denied` \
          when it belongs to another user. Deadline 60 s.",
    example: r#"stack("prod").repo.head().commit"#,
};

const TAGS: Verb = Verb {
    name: "git.tags",
    class: Class::Read,
    waits: false,
    sig: "repo.tags(count?: int) -> array",
    doc: "The newest tags by version. `count` of them (1 to 1000, default 10), `v1.10.0` before `v1.9.0`, and that before \
          `v1.9.0-rc.1`: `tag`, `commit` (`()` when it is one of something else), `date` and `kind` (`lightweight`, \
          `annotated`, or `signed`: it has a signature, which is not verified here). Names that cannot be deployed are \
          listed with `deployable` false. Fails as `repo.head`. Deadline 60 s.",
    example: r#"stack("prod").repo.tags(10)"#,
};

const RESOLVE: Verb = Verb {
    name: "git.resolve",
    class: Class::Read,
    waits: false,
    sig: "repo.resolve(tag: string) -> map",
    doc: "The commit that a tag names, here and on origin. `commit` (40 hex) is the one here, `remote`: the commit it \
          names on origin, `()` when origin does not have it or cannot be asked (`remote_error` says why). `moved` is \
          true when the two differ. Fails with `usage` for a name that is no plain tag name, `not_found` when there \
          is no such tag, naming the nearest, or the line that fetches it when origin has it. Deadline 60 s.",
    example: r#"stack("prod").repo.resolve("v1.8.0").commit"#,
};

const STATUS: Verb = Verb {
    name: "git.status",
    class: Class::Read,
    waits: false,
    sig: "repo.status() -> map",
    doc: "Whether the work tree is clean. `clean` says so; `changed` and `untracked` paths (100 each at most), and of the \
          changed ones those in `unlooked` that git was told not to look at (`git update-index --assume-unchanged`, \
          `--skip-worktree`); the `operation` in progress (merge, rebase, am, cherry-pick, revert, bisect) or `()`; `only_here`: commits that no \
          remote branch and no tag holds (20 at most); `lock_age_s`: the age of an `index.lock` in seconds, `()` without \
          one: git works there now, or died there; `shallow`: whether older history is cut off. No filter of the \
          repository runs, and of submodules only commits are compared. Fails as `repo.head`, \
          and with `unmet` for a bare clone, which has no work tree. Deadline 60 s.",
    example: r#"stack("prod").repo.status().clean"#,
};

const FILES: Verb = Verb {
    name: "git.files",
    class: Class::Read,
    waits: false,
    sig: "repo.files(commit: string, dir: string) -> array",
    doc: "Names of the files in a folder at a commit. Those directly in `dir` (from the top of the repository, which \
          is `\".\"`) at `commit` (40 hex); an empty array when there is no such folder. Fails with `failed` when the commit is not there. Deadline 60 s.",
    example: r#"stack("prod").repo.files("0123456789012345678901234567890123456789", "backend/migrations")"#,
};

const HAS: Verb = Verb {
    name: "git.has_file",
    class: Class::Read,
    waits: false,
    sig: "repo.has_file(commit: string, path: string) -> bool",
    doc: "Whether a file is there at a commit (40 hex). Fails with `failed` when the commit is not there. Deadline 60 \
          s.",
    example: r#"stack("prod").repo.has_file("0123456789012345678901234567890123456789", "docker-compose.yml")"#,
};

const CHECKOUT: Verb = Verb {
    name: "git.checkout",
    class: Class::Change,
    waits: false,
    sig: "repo.checkout(commit: string) -> receipt",
    doc: "Checks a commit out, and looks that it is there. `commit` is 40 hex; the head is detached. Filters of the \
          repository run, hooks do not. Files that are not in git stay; a work tree with changes, or in which another git works or stopped half-way, is refused with \
          `unmet` before anything happens. Deadline 120 s.",
    example: r#"stack("prod").repo.checkout("0123456789012345678901234567890123456789")"#,
};

const MERGE_CHECK: Verb = Verb {
    name: "git.merge_check",
    class: Class::Read,
    waits: false,
    sig: "repo.merge_check(target: string, source: string) -> map",
    doc: "Whether a branch merges into another, or why not. `target` and `source` are branches, \
          tags or commits of the clone (`main`, `origin/main`, `v1.8.0`); what origin has besides is not fetched. \
          `verdict` is `clean`, `clean_but_squashed` (a later change to the same lines will conflict), \
          `conflicts_by_squash` (nothing conflicts once the histories are tied), `conflicts_real` (both changed the same \
          lines, or the cause is unknown) or `unrelated`; `why` says it in a sentence. `squashes` are commits on \
          the target that have the source's work without its history: `commit`, `subject`, `contains` (how many commits), \
          `up_to` (the last of them), `by` (`tree`: equal content, `patch-id`: equal change), `reverted_by`. `conflicts` \
          and `conflicts_after_repair` are paths. `only_on_target` and `only_on_source` (100 at most) are commits whose \
          work the other side lacks; `lost_by_ours` marks those that recording the squash alone would drop. `repair` is \
          what to type, without a force push, and empty with the reason in `no_repair` unless it was seen to lose \
          nothing. Nothing is written to the clone; merge drivers are not run, what they would merge is a conflict. Fails \
          with `usage` for a name that git gives to nothing, `not_found` when there is no such branch, naming the nearest, \
          `unmet` when git is older than 2.40, a shallow clone has no common commit, or more than 20000 commits lie \
          between. Deadline 60 s.",
    example: r#"host("local").repo("/srv/app").merge_check("main", "develop").verdict"#,
};

/// Files of one folder in all of its history, and bytes in all of them.
const MOST_FILES: usize = 20_000;
const MOST_HISTORY: usize = 64 << 20;

/// A firewalled origin answers nothing at all, and nobody should wait for it: what it says is one more opinion.
const ORIGIN_WITHIN: Duration = Duration::from_secs(10);

/// The bindings of this file.
pub const BINDINGS: &[Binding] = &[
    Binding::Read(&HEAD, head),
    Binding::Read(&TAGS, tags),
    Binding::Read(&RESOLVE, resolve),
    Binding::Read(&STATUS, status),
    Binding::Read(&FILES, files),
    Binding::Read(&HAS, has_file),
    Binding::Read(&MERGE_CHECK, merge_check),
    Binding::Undoable(&CHECKOUT, checkout, checked_out_now),
];

/// `stack("prod").repo`, `host("local").repo(DIR)`.
#[derive(Clone)]
pub struct RepoHandle {
    host: String,
    dir: String,
    /// The line of Rhai that makes this handle.
    line: String,
}

impl RepoHandle {
    /// The checkout that a stack is deployed from.
    pub fn of_stack(stack: &Stack) -> RepoHandle {
        let line = format!("stack({}).repo", json!(stack.name));
        RepoHandle { host: stack.host.clone(), dir: stack.dir.clone(), line }
    }

    /// Any clone on a host.
    pub fn of_host(host: &HostHandle, dir: &str) -> RepoHandle {
        let line = format!("host({}).repo({})", json!(host.name()), json!(dir));
        RepoHandle { host: host.name(), dir: dir.into(), line }
    }

    /// `prod-1:/opt/vrcshift`.
    pub fn name(&self) -> String {
        format!("{}:{}", self.host, self.dir)
    }
}

/// A stack's repository for the verbs of other systems.
#[derive(Clone)]
pub struct Repository(Tree);

impl Repository {
    /// The checkout that a stack is deployed from.
    pub fn of_stack(world: &World, stack: &Stack) -> Result<Repository> {
        Ok(Repository(Tree { way: world.way(&stack.host)?, dir: stack.dir.clone() }))
    }

    /// The commit that is checked out.
    pub async fn head(&self, pass: &Pass) -> Result<String> {
        head_of(&self.0.git(pass).await?, pass).await
    }

    /// The commit that a tag names here. Fails with `usage` for a name that is no plain tag name, `not_found` when there
    /// is no such tag, naming the nearest.
    pub async fn commit_of(&self, pass: &Pass, tag: &str, list: &str) -> Result<String> {
        tags::check_name(tag).map_err(|why| Error::new(Kind::Usage, format!("no tag {tag:?}"), why))?;
        tags::here(&self.0.git(pass).await?, pass, tag, list).await
    }

    /// The newest `count` tags by version that can be deployed, each with its commit.
    pub async fn newest_tags(&self, pass: &Pass, count: usize) -> Result<Vec<(String, String)>> {
        let listed = tags::list(&self.0.git(pass).await?, pass, count as i64).await?;
        let deployable = listed.as_array().into_iter().flatten().filter(|tag| tag["deployable"] == json!(true));
        let text = |value: &Value| value.as_str().unwrap_or_default().to_string();
        Ok(deployable.map(|tag| (text(&tag["tag"]), text(&tag["commit"]))).collect())
    }

    /// Names of the files directly in `folder` at a commit.
    pub async fn names_at(&self, pass: &Pass, commit: &str, folder: &str) -> Result<Vec<String>> {
        names_at(&self.0.git(pass).await?, pass, commit, folder).await
    }

    /// A file of a commit. Fails with `not_found` when the commit does not have it.
    pub async fn text_at(&self, pass: &Pass, commit: &str, path: &str) -> Result<String> {
        let git = self.0.git(pass).await?;
        let name = format!("{commit}:{path}");
        if git.maybe(pass, &["cat-file", "-e", &name]).await.is_ok_and(|there| there.is_some()) {
            return git.out(pass, &["cat-file", "blob", &name]).await;
        }
        let why = format!("{} on {} has no file {path} at {}", git.dir, git.host, &commit[..12]);
        Err(Error::new(Kind::NotFound, format!("no {path}"), why))
    }

    /// Every file that ever was directly in `folder` on any branch or tag, by name, with its newest text.
    pub async fn history_of(&self, pass: &Pass, folder: &str) -> Result<Vec<(String, Vec<u8>)>> {
        let git = self.0.git(pass).await?;
        let folder = format!("{}/", folder.trim_end_matches('/'));
        let what = ["log", "--all", "--raw", "--no-abbrev", "--no-renames", "--diff-filter=AM", "--format="];
        let out = git.out(pass, &[&what[..], &["-z", "--", &folder]].concat()).await?;
        let (mut found, mut left) = (Vec::new(), MOST_HISTORY);
        let mut known = BTreeSet::new();
        let mut words = out.split('\0');
        // `:MODE MODE OBJECT OBJECT STATE`, and then a name, whatever that holds.
        while let Some(state) = words.next() {
            let Some(state) = state.trim_start_matches('\n').strip_prefix(':') else { continue };
            let state: Vec<&str> = state.split(' ').collect();
            let ([_, mode, _, object, _], Some(path)) = (state.as_slice(), words.next()) else { continue };
            let Some(name) = path.strip_prefix(&folder).filter(|name| !name.contains('/')) else { continue };
            // Newest first: what was found already is newer. A submodule has no text.
            if !mode.starts_with("16") && known.insert(name) {
                let text = git.out(pass, &["cat-file", "blob", object]).await?;
                if known.len() > MOST_FILES || text.len() > left {
                    let why = format!("{folder} held more than {MOST_FILES} files or {} MiB", MOST_HISTORY >> 20);
                    return Err(Error::new(Kind::Failed, format!("cannot read the history of {folder}"), why));
                }
                left -= text.len();
                found.push((name.to_string(), text.into_bytes()));
            }
        }
        Ok(found)
    }
}

/// One git repository on one host.
#[derive(Clone)]
struct Tree {
    way: Way,
    dir: String,
}

impl Tree {
    async fn git(&self, pass: &Pass) -> Result<Git> {
        let reach = self.way.reach(pass).await?;
        Ok(Git::new(reach, self.way.name(), &self.dir))
    }
}

fn open(call: &Call<'_>) -> Result<(Tree, RepoHandle)> {
    let repo: RepoHandle = call.this()?;
    Ok((Tree { way: call.world.way(&repo.host)?, dir: repo.dir.clone() }, repo))
}

fn look_at(call: &Call<'_>, repo: &RepoHandle, says: &str, args: Value) -> Look {
    let mut args = args;
    args["repo"] = json!(repo.name());
    Look::at(call.world.host_target(&repo.host), says, args)
}

fn head(call: &Call<'_>) -> Result<Dynamic> {
    let (tree, repo) = open(call)?;
    let value = call.read(look_at(call, &repo, "", json!({})), tree, |pass, tree| async move {
        let git = tree.git(&pass).await?;
        let commit = head_of(&git, &pass).await?;
        let points = format!("--points-at={commit}");
        let tags = git.out(&pass, &["for-each-ref", &points, "--format=%(refname:lstrip=2)", "refs/tags"]).await?;
        let branch = branch_of(&git, &pass).await?;
        let subject = git.out(&pass, &["log", "-1", "--format=%s", &commit]).await?;
        let tags: Vec<&str> = tags.lines().collect();
        Ok(json!({ "commit": commit, "tags": tags, "branch": branch, "subject": subject.trim() }))
    })?;
    Ok(super::map(value))
}

async fn head_of(git: &Git, pass: &Pass) -> Result<String> {
    if let Some(commit) = git.maybe(pass, &["rev-parse", "--verify", "--quiet", "HEAD^{commit}"]).await? {
        return Ok(commit.trim().into());
    }
    let on = branch_of(git, pass).await?.map_or(String::new(), |branch| format!(": the branch \"{branch}\" is empty"));
    let why = format!("{} has no commit yet{on}", git.dir);
    Err(Error::new(Kind::Unmet, format!("no commit is checked out on {}", git.host), why))
}

/// The branch that HEAD is. git's own short name would be another one where a tag has the same.
async fn branch_of(git: &Git, pass: &Pass) -> Result<Option<String>> {
    let head = git.maybe(pass, &["symbolic-ref", "--quiet", "HEAD"]).await?;
    Ok(head.map(|name| name.trim().trim_start_matches("refs/heads/").to_string()))
}

fn tags(call: &Call<'_>) -> Result<Dynamic> {
    let count = call.int_or(0, 10, 1..=1000)?;
    let (tree, repo) = open(call)?;
    let value = call.read(look_at(call, &repo, "", json!({ "count": count })), tree, move |pass, tree| async move {
        let git = tree.git(&pass).await?;
        tags::list(&git, &pass, count).await
    })?;
    Ok(super::map(value))
}

/// Argument `at` as a commit: 40 hexadecimal digits.
pub fn check_commit(call: &Call<'_>, at: usize) -> Result<String> {
    let commit = call.text(at)?;
    if commit.len() == 40 && commit.bytes().all(|byte| byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte)) {
        return Ok(commit);
    }
    Err(call
        .bad(&format!("commit must be 40 hexadecimal digits, not \"{commit}\"; repo.resolve(TAG).commit gives them")))
}

fn resolve(call: &Call<'_>) -> Result<Dynamic> {
    let tag = call.text(0)?;
    let (tree, repo) = open(call)?;
    let list = format!("{}.tags(10)     the tags there are", repo.line);
    tags::check_name(&tag).map_err(|why| {
        Error::new(Kind::Usage, format!("{tag:?} is not a tag that can be deployed"), why).next(list.clone())
    })?;
    let look = look_at(call, &repo, &tag, json!({ "tag": tag }));
    let value = call.read(look, (tree, tag, list), |pass, (tree, tag, list)| async move {
        let git = tree.git(&pass).await?;
        let here = tags::here(&git, &pass, &tag, &list).await;
        let asked = match &here {
            Err(error) if error.kind != Kind::NotFound => return Err(error.clone()),
            _ => tokio::time::timeout(ORIGIN_WITHIN, tags::on_origin(&git, &pass, &tag)).await,
        };
        let commit = here.map_err(|error| match &asked {
            Ok(Ok(Some(commit))) => tags::not_fetched(&git, &tag, commit).next(&list),
            _ => error,
        })?;
        let why = || format!("no answer within {} s", ORIGIN_WITHIN.as_secs());
        let late = |_| Err(Error::new(Kind::Timeout, "git ls-remote", why()));
        Ok(tags::told(&tag, &commit, asked.unwrap_or_else(late)))
    })?;
    Ok(super::map(value))
}

fn status(call: &Call<'_>) -> Result<Dynamic> {
    let (tree, repo) = open(call)?;
    let value = call.read(look_at(call, &repo, "", json!({})), tree, |pass, tree| async move {
        status::of(&tree.git(&pass).await?, &pass).await
    })?;
    Ok(super::map(value))
}

fn merge_check(call: &Call<'_>) -> Result<Dynamic> {
    let (target, source) = (call.text(0)?, call.text(1)?);
    let (tree, repo) = open(call)?;
    let says = format!("{source} → {target}");
    let look = look_at(call, &repo, &says, json!({ "target": target, "source": source }));
    let value = call.read(look, (tree, target, source), |pass, (tree, target, source)| async move {
        merge::check(tree.git(&pass).await?, &pass, &target, &source).await
    })?;
    Ok(super::map(value))
}

fn files(call: &Call<'_>) -> Result<Dynamic> {
    let (commit, dir) = (check_commit(call, 0)?, call.text(1)?);
    let (tree, repo) = open(call)?;
    let look = look_at(call, &repo, &dir, json!({ "commit": commit, "dir": dir }));
    let value = call.read(look, (tree, commit, dir), |pass, (tree, commit, dir)| async move {
        Ok(json!(names_at(&tree.git(&pass).await?, &pass, &commit, &dir).await?))
    })?;
    Ok(super::map(value))
}

async fn names_at(git: &Git, pass: &Pass, commit: &str, dir: &str) -> Result<Vec<String>> {
    let folder = match dir.trim_end_matches('/') {
        "" | "." => String::new(),
        dir => format!("{dir}/"),
    };
    let mut words = vec!["ls-tree", "--full-tree", "-z", "--name-only", commit];
    words.extend((!folder.is_empty()).then_some(["--", &folder]).into_iter().flatten());
    let out = git.out(pass, &words).await?;
    let names = out.split('\0').filter_map(|path| path.strip_prefix(&folder)).filter(|name| !name.is_empty());
    Ok(names.map(String::from).collect())
}

fn has_file(call: &Call<'_>) -> Result<Dynamic> {
    let (commit, path) = (check_commit(call, 0)?, call.text(1)?);
    let (tree, repo) = open(call)?;
    let look = look_at(call, &repo, &path, json!({ "commit": commit, "path": path }));
    let value = call.read(look, (tree, commit, path), |pass, (tree, commit, path)| async move {
        let git = tree.git(&pass).await?;
        let out = git.out(&pass, &["ls-tree", "--full-tree", "-z", "--name-only", &commit, "--", &path]).await?;
        Ok(json!(out.split('\0').any(|found| found == path)))
    })?;
    Ok(super::map(value))
}

fn checkout(call: &Call<'_>) -> Result<Receipt> {
    let commit = check_commit(call, 0)?;
    let (tree, repo) = open(call)?;
    let short = &commit[..12];
    let look = look_at(call, &repo, &format!("{} → {short}", repo.dir), json!({ "dir": repo.dir, "commit": commit }))
        .within(120);
    let change = Change::of(look);
    call.intends(|| change.clone())?;
    // Where we are now is what undo needs; it must be known before the record is written.
    let look = look_at(call, &repo, "", json!({ "before": "checkout" }));
    let before = call.read(look, tree.clone(), |pass, tree| async move {
        head_of(&tree.git(&pass).await?, &pass).await.map(Value::from)
    })?;
    let before = before.as_str().unwrap_or_default().to_string();
    let change = change
        .undone_by(format!("{}.checkout({})", repo.line, literal(&before)), before.as_str())
        .lives(Lives::Run(repo.host.clone()));
    call.change(change, (tree, before, commit), |pass, (tree, before, commit)| async move {
        let git = tree.git(&pass).await?;
        free_to_move(&git, &pass, &commit).await?;
        if before != commit {
            // Detached: a checkout that died with the link would leave half a tree and a lock.
            let words = git.words(&["checkout", "--quiet", "--detach", &commit]);
            let ran = host::run_durable(git.reach(), &pass, &git.host, &words_of(words)).await?;
            git.judged(ran, &format!("checkout {commit}"))?;
        }
        let after = head_of(&git, &pass).await?;
        if after != commit {
            let why = format!("git said it was done, and HEAD is {after}");
            return Err(Error::new(Kind::Failed, format!("checkout failed on {}", git.host), why));
        }
        Ok(Did { changed: before != commit, before: before.into(), after: after.into(), ..Did::default() })
    })
}

/// Fails with `unmet` where a checkout would meet changes, or somebody who is in the middle of something.
async fn free_to_move(git: &Git, pass: &Pass, commit: &str) -> Result<()> {
    let status = status::of(git, pass).await?;
    let see = |words: &str| format!("@{} git -C {} {words}", git.host, shell_word(&git.dir));
    let (why, next) = if status["clean"] != json!(true) {
        let why = format!("the work tree has changes: {}", join(&status["changed"]));
        let unlooked = join(&status["unlooked"]);
        if unlooked.is_empty() {
            (why, see("diff     see them; commit or remove them by hand"))
        } else {
            let why = format!("{why}; git was told not to look at {unlooked}");
            (why, see("ls-files -v     h and S mark files that git does not look at"))
        }
    } else if let Some(age) = status["lock_age_s"].as_i64() {
        let why = format!("{} has an index.lock, {age} s old: another git works there, or died there", git.dir);
        (why, format!("@{} ps -C git     when there is none, remove the lock by hand", git.host))
    } else if let Some(operation) = status["operation"].as_str() {
        (
            format!("a git {operation} is in progress in {}", git.dir),
            see("status     see how far it is; end it by hand"),
        )
    } else {
        return Ok(());
    };
    Err(Error::new(Kind::Unmet, format!("{} was not checked out on {}", &commit[..12], git.host), why).next(next))
}

/// Which commit is checked out now.
fn checked_out_now(past: &Past<'_>) -> Result<Now> {
    let (dir, commit) = (past.text("dir"), past.text("commit"));
    let tree = Tree { way: past.world.way(past.target)?, dir: dir.clone() };
    past.look(format!("HEAD of {dir}"), (tree, commit), |pass, (tree, commit)| async move {
        let now = head_of(&tree.git(&pass).await?, &pass).await?;
        Ok((now.into(), commit.into()))
    })
}

fn join(list: &Value) -> String {
    let names = list.as_array().map(|items| items.iter().filter_map(Value::as_str).take(5).collect::<Vec<_>>());
    names.unwrap_or_default().join(", ")
}

/// The commit that is checked out in a folder.
pub async fn head_at(reach: &Reach, pass: &Pass, host: &str, dir: &str) -> Result<String> {
    head_of(&Git::new(reach.clone(), host, dir), pass).await
}

/// `commit` and `dirty` of the text of a file in a folder of this machine.
pub async fn committed(pass: &Pass, folder: &str, name: &str, text: &str) -> Result<Value> {
    status::committed(&Git::new(Reach::Local, "local", folder), pass, name, text).await
}
