//! Everything opsh knows about git: the git CLI by argv, on this machine or over ssh.
//!
//! A tag is resolved once to a 40-hex commit, and only that is used afterwards: git accepts tag names that are shell
//! programs, and tags move.

use super::host::{self, HostHandle, words_of};
use super::undo::{Now, Past};
use super::way::Way;
use super::{Binding, Call, Change, Look, Receipt, World};
use crate::bind::ssh::Reach;
use crate::config::Stack;
use crate::error::{Error, Kind, Result, nearest};
use crate::gate::verb::{Class, Verb};
use crate::gate::{Did, Lives, Pass};
use rhai::Dynamic;
use serde_json::{Value, json};
use std::time::Duration;

const HEAD: Verb = Verb {
    name: "git.head",
    class: Class::Read,
    waits: false,
    sig: "repo.head() -> map",
    doc: "The commit that is checked out. `commit` (40 hex), its `tags`, its `subject`, and the `branch`, which is \
          `()` when the head is detached, as a deployed tag leaves it. Fails with `not_found` when the folder is no \
          repository. Deadline 60 s.",
    example: r#"stack("prod").repo.head().commit"#,
};

const TAGS: Verb = Verb {
    name: "git.tags",
    class: Class::Read,
    waits: false,
    sig: "repo.tags(count: int) -> array",
    doc: "The newest tags by version. `count` of them (1 to 1000): `tag`, `commit`, `date` and `kind` (annotated or \
          lightweight). Names that cannot be deployed are listed with `deployable` false. Fails as `repo.status`. \
          Deadline 60 s.",
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
          is no such tag, naming the nearest. Deadline 60 s.",
    example: r#"stack("prod").repo.resolve("v1.8.0").commit"#,
};

const STATUS: Verb = Verb {
    name: "git.status",
    class: Class::Read,
    waits: false,
    sig: "repo.status() -> map",
    doc: "Whether the work tree is clean. `clean` says so; `changed` and `untracked` paths (100 each at most); the \
          `operation` in progress (merge, rebase, …) or `()`; `only_here`: commits that no remote branch and no tag \
          holds. Fails with `failed` when the directory is no checkout. Deadline 60 s.",
    example: r#"stack("prod").repo.status().clean"#,
};

const FILES: Verb = Verb {
    name: "git.files",
    class: Class::Read,
    waits: false,
    sig: "repo.files(commit: string, dir: string) -> array",
    doc: "Names of the files in a folder at a commit. Those directly in `dir` at `commit` (40 hex); an empty array \
          when there is no such folder. Fails with `failed` when the commit is not there. Deadline 60 s.",
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
    doc: "Checks a commit out, and looks that it is there. `commit` is 40 hex; the head is detached. Files that are \
          not in git stay; a work tree with changes is refused with `unmet` before anything happens. Deadline 120 s.",
    example: r#"stack("prod").repo.checkout("0123456789012345678901234567890123456789")"#,
};

/// The bindings of this file.
pub const BINDINGS: &[Binding] = &[
    Binding::Read(&HEAD, head),
    Binding::Read(&TAGS, tags),
    Binding::Read(&RESOLVE, resolve),
    Binding::Read(&STATUS, status),
    Binding::Read(&FILES, files),
    Binding::Read(&HAS, has_file),
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

    /// Every file that ever was directly in `folder` on any branch or tag, by name, with its newest text.
    pub async fn history_of(&self, pass: &Pass, folder: &str) -> Result<Vec<(String, Vec<u8>)>> {
        let git = self.0.git(pass).await?;
        let folder = format!("{}/", folder.trim_end_matches('/'));
        let format = "--format=%x01%H";
        let log = ["log", "--all", "--no-renames", "--diff-filter=AM", "--name-only", "-z", format, "--", &folder];
        let out = git.out(pass, &log).await?;
        let mut found: Vec<(String, Vec<u8>)> = Vec::new();
        let mut commit = "";
        for word in out.split(['\0', '\n']).filter(|word| !word.is_empty()) {
            if let Some(next) = word.strip_prefix('\x01') {
                commit = next;
                continue;
            }
            let Some(name) = word.strip_prefix(&folder).filter(|name| !name.contains('/')) else { continue };
            // Newest first: what was found already is newer.
            if !found.iter().any(|(known, _)| known == name) {
                let text = git.out(pass, &["cat-file", "blob", &format!("{commit}:{word}")]).await?;
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
        Ok(Git { reach, host: self.way.name().into(), dir: self.dir.clone() })
    }
}

/// One git repository as the work of an effect sees it.
struct Git {
    reach: Reach,
    host: String,
    dir: String,
}

impl Git {
    fn words(&self, args: &[&str]) -> Vec<String> {
        // Nothing here may run code of the repository, ask a question, take an optional lock or speak another language.
        let fixed = [
            "env",
            "LC_ALL=C",
            "GIT_TERMINAL_PROMPT=0",
            "GIT_OPTIONAL_LOCKS=0",
            "git",
            "-C",
            &self.dir,
            "--no-pager",
            "-c",
            "core.fsmonitor=false",
            "-c",
            "core.hooksPath=/dev/null",
            "-c",
            "protocol.ext.allow=never",
            "-c",
            "advice.detachedHead=false",
            "-c",
            "core.quotePath=false",
        ];
        fixed.iter().chain(args).map(|word| word.to_string()).collect()
    }

    async fn ran(&self, pass: &Pass, args: &[&str]) -> Result<host::Ran> {
        let words = self.words(args);
        let ran = host::finished(&self.host, &words, self.reach.run(pass, &words_of(words.clone())).await)?;
        let said = ran.err.as_str();
        let what = || format!("git {} failed on {}", args.first().unwrap_or(&""), self.host);
        if ran.code == 127 {
            return Err(Error::new(Kind::NotFound, what(), "there is no git on the host"));
        }
        if said.contains("dubious ownership") {
            let why = format!("{} belongs to another user than the one opsh logs in as", self.dir);
            let line = format!("git config --system --add safe.directory {}     on the host, once", self.dir);
            return Err(Error::new(Kind::Denied, what(), why).next(line));
        }
        if said.contains("not a git repository") || said.contains("cannot change to") {
            return Err(Error::new(Kind::NotFound, what(), format!("{} is no git repository", self.dir)));
        }
        Ok(ran)
    }

    async fn out(&self, pass: &Pass, args: &[&str]) -> Result<String> {
        let ran = self.ran(pass, args).await?;
        self.judged(ran, args)
    }

    fn judged(&self, ran: host::Ran, args: &[&str]) -> Result<String> {
        if ran.code == 0 {
            return Ok(ran.out);
        }
        let what = format!("git {} failed on {}", args.join(" "), self.host);
        let why = format!("exit code {}: {}", ran.code, host::last_lines(&ran.err, 3));
        Err(Error::new(Kind::Failed, what, why).exit(ran.code.into()))
    }

    /// The output, or `None` for an exit code of 1, git's way to say no.
    async fn maybe(&self, pass: &Pass, args: &[&str]) -> Result<Option<String>> {
        let ran = self.ran(pass, args).await?;
        if ran.code == 1 { Ok(None) } else { self.judged(ran, args).map(Some) }
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
        let tags = git.out(&pass, &["tag", "--points-at", &commit]).await?;
        let branch = git.maybe(&pass, &["symbolic-ref", "--quiet", "--short", "HEAD"]).await?;
        let subject = git.out(&pass, &["log", "-1", "--format=%s", &commit]).await?;
        let tags: Vec<&str> = tags.lines().collect();
        let branch = branch.as_deref().map(str::trim);
        Ok(json!({ "commit": commit, "tags": tags, "branch": branch, "subject": subject.trim() }))
    })?;
    Ok(super::map(value))
}

async fn head_of(git: &Git, pass: &Pass) -> Result<String> {
    git.out(pass, &["rev-parse", "--verify", "HEAD^{commit}"]).await.map(|out| out.trim().to_string())
}

fn tags(call: &Call<'_>) -> Result<Dynamic> {
    let count = call.int(0, 1..=1000)?;
    let (tree, repo) = open(call)?;
    let value = call.read(look_at(call, &repo, "", json!({ "count": count })), tree, move |pass, tree| async move {
        let git = tree.git(&pass).await?;
        // The zero byte separates: a tag's name may hold anything else.
        let format =
            "--format=%(refname:short)%00%(objecttype)%00%(*objectname)%00%(objectname)%00%(creatordate:iso-strict)";
        let limit = format!("--count={count}");
        let out = git.out(&pass, &["for-each-ref", "--sort=-v:refname", &limit, format, "refs/tags"]).await?;
        Ok(out.lines().filter_map(parse_tag).collect())
    })?;
    Ok(super::map(value))
}

fn parse_tag(line: &str) -> Option<Value> {
    let fields: Vec<&str> = line.split('\0').collect();
    let [tag, kind, peeled, object, date] = fields.as_slice() else { return None };
    let annotated = *kind == "tag";
    let commit = if annotated { peeled } else { object };
    let kind = if annotated { "annotated" } else { "lightweight" };
    Some(json!({ "tag": tag, "commit": commit, "date": date, "kind": kind, "deployable": check_name(tag).is_ok() }))
}

/// Ok for a name that is a plain tag name everywhere; git itself accepts names that are shell programs.
fn check_name(name: &str) -> Result<(), String> {
    let plain = |c: char| c.is_ascii_alphanumeric() || "._/+-".contains(c);
    if name.is_empty() || name.len() > 200 {
        return Err("a tag name has 1 to 200 characters".into());
    }
    if let Some(bad) = name.chars().find(|c| !plain(*c)) {
        return Err(format!("a tag name holds letters, digits and . _ / + -, not {bad:?}"));
    }
    let odd = !name.starts_with(|c: char| c.is_ascii_alphanumeric()) || name.contains("..") || name.contains("//");
    if odd || name.ends_with(['.', '/']) || name.ends_with(".lock") {
        return Err("git does not accept it as a tag name".into());
    }
    Ok(())
}

fn check_commit(call: &Call<'_>, at: usize) -> Result<String> {
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
    check_name(&tag).map_err(|why| {
        Error::new(Kind::Usage, format!("{tag:?} is not a tag that can be deployed"), why).next(list.clone())
    })?;
    let look = look_at(call, &repo, &tag, json!({ "tag": tag }));
    let value = call.read(look, (tree, tag, list), |pass, (tree, tag, list)| async move {
        let git = tree.git(&pass).await?;
        let host = &git.host;
        let reference = format!("refs/tags/{tag}");
        let peeled = format!("{reference}^{{commit}}");
        let found = git.maybe(&pass, &["rev-parse", "--verify", "--quiet", "--end-of-options", &peeled]).await?;
        let Some(commit) = found.map(|out| out.trim().to_string()) else {
            let names = git.out(&pass, &["tag", "--list", "--sort=-v:refname"]).await?;
            let why = match nearest(&tag, names.lines()) {
                Some(near) => format!("{} on {host} has no such tag; did you mean \"{near}\"?", git.dir),
                None => {
                    let newest: Vec<&str> = names.lines().take(5).collect();
                    format!("{} on {host} has no such tag; the newest are {}", git.dir, newest.join(", "))
                }
            };
            return Err(Error::new(Kind::NotFound, format!("no tag \"{tag}\""), why).next(list));
        };
        // A firewalled origin answers nothing at all; the rollback does not need it.
        let asked = tokio::time::timeout(Duration::from_secs(10), on_origin(&git, &pass, &reference)).await;
        let late = || Error::new(Kind::Timeout, "git ls-remote", "no answer within 10 s");
        let remote = asked.unwrap_or_else(|_| Err(late()));
        let (remote, error) = match remote {
            Ok(remote) => (remote, None),
            Err(error) => (None, Some(error.why)),
        };
        let moved = remote.as_ref().is_some_and(|remote| *remote != commit);
        Ok(json!({ "tag": tag, "commit": commit, "remote": remote, "moved": moved, "remote_error": error }))
    })?;
    Ok(super::map(value))
}

/// What the tag names on origin, by looking only: a fetch would change the clone, and is silent about a moved tag.
async fn on_origin(git: &Git, pass: &Pass, reference: &str) -> Result<Option<String>> {
    let peeled = format!("{reference}^{{}}");
    let out = git.out(pass, &["ls-remote", "--tags", "origin", reference, &peeled]).await?;
    let find = |wanted: &str| out.lines().filter_map(|line| line.split_once('\t')).find(|(_, name)| *name == wanted);
    Ok(find(&peeled).or_else(|| find(reference)).map(|(commit, _)| commit.to_string()))
}

fn status(call: &Call<'_>) -> Result<Dynamic> {
    let (tree, repo) = open(call)?;
    let value = call.read(look_at(call, &repo, "", json!({})), tree, |pass, tree| async move {
        status_of(&tree.git(&pass).await?, &pass).await
    })?;
    Ok(super::map(value))
}

async fn status_of(git: &Git, pass: &Pass) -> Result<Value> {
    let out = git.out(pass, &["status", "--porcelain=v1", "-z", "--untracked-files=normal"]).await?;
    let (mut changed, mut untracked) = (Vec::new(), Vec::new());
    let mut entries = out.split('\0').filter(|entry| entry.len() > 3);
    while let Some(entry) = entries.next() {
        let (state, path) = entry.split_at(3);
        if state.starts_with("??") {
            untracked.push(path)
        } else {
            changed.push(path)
        }
        if state.starts_with(['R', 'C']) {
            // A rename is followed by the old name, which is no entry of its own.
            entries.next();
        }
    }
    let only_here = git.out(pass, &["rev-list", "--max-count=20", "HEAD", "--not", "--remotes", "--tags"]).await?;
    let clean = changed.is_empty();
    changed.truncate(100);
    untracked.truncate(100);
    let only_here: Vec<&str> = only_here.lines().collect();
    let operation = operation(git, pass).await?;
    Ok(json!({
        "clean": clean, "changed": changed, "untracked": untracked, "operation": operation, "only_here": only_here,
    }))
}

async fn operation(git: &Git, pass: &Pass) -> Result<Option<&'static str>> {
    let marks = [
        ("MERGE_HEAD", "merge"),
        ("CHERRY_PICK_HEAD", "cherry-pick"),
        ("REVERT_HEAD", "revert"),
        ("REBASE_HEAD", "rebase"),
    ];
    for (reference, name) in marks {
        if git.maybe(pass, &["rev-parse", "--verify", "--quiet", reference]).await?.is_some() {
            return Ok(Some(name));
        }
    }
    Ok(None)
}

fn files(call: &Call<'_>) -> Result<Dynamic> {
    let (commit, dir) = (check_commit(call, 0)?, call.text(1)?);
    let (tree, repo) = open(call)?;
    let look = look_at(call, &repo, &dir, json!({ "commit": commit, "dir": dir }));
    let value = call.read(look, (tree, commit, dir), |pass, (tree, commit, dir)| async move {
        let git = tree.git(&pass).await?;
        let folder = format!("{}/", dir.trim_end_matches('/'));
        let out = git.out(&pass, &["ls-tree", "-z", "--name-only", &commit, "--", &folder]).await?;
        Ok(out.split('\0').filter_map(|path| path.strip_prefix(&folder)).map(String::from).collect())
    })?;
    Ok(super::map(value))
}

fn has_file(call: &Call<'_>) -> Result<Dynamic> {
    let (commit, path) = (check_commit(call, 0)?, call.text(1)?);
    let (tree, repo) = open(call)?;
    let look = look_at(call, &repo, &path, json!({ "commit": commit, "path": path }));
    let value = call.read(look, (tree, commit, path), |pass, (tree, commit, path)| async move {
        let git = tree.git(&pass).await?;
        let out = git.out(&pass, &["ls-tree", "-z", "--name-only", &commit, "--", &path]).await?;
        Ok(json!(out.split('\0').any(|found| found == path)))
    })?;
    Ok(super::map(value))
}

fn checkout(call: &Call<'_>) -> Result<Receipt> {
    let commit = check_commit(call, 0)?;
    let (tree, repo) = open(call)?;
    // Where we are now is what undo needs; it must be known before the record is written.
    let look = look_at(call, &repo, "", json!({ "before": "checkout" }));
    let before = call.read(look, tree.clone(), |pass, tree| async move {
        head_of(&tree.git(&pass).await?, &pass).await.map(Value::from)
    })?;
    let before = before.as_str().unwrap_or_default().to_string();
    let short = &commit[..12];
    let look = look_at(call, &repo, &format!("{} → {short}", repo.dir), json!({ "dir": repo.dir, "commit": commit }))
        .within(120);
    let change = Change::of(look)
        .undone_by(format!("{}.checkout(\"{before}\")", repo.line), before.as_str())
        .lives(Lives::Run(repo.host.clone()));
    call.change(change, (tree, before, commit), |pass, (tree, before, commit)| async move {
        let git = tree.git(&pass).await?;
        let status = status_of(&git, &pass).await?;
        if status["clean"] != json!(true) {
            let why = format!("the work tree has changes: {}", join(&status["changed"]));
            let error = Error::new(Kind::Unmet, format!("{} was not checked out on {}", &commit[..12], git.host), why);
            return Err(error
                .next(format!("@{} git -C {} diff     see them; commit or remove them by hand", git.host, git.dir)));
        }
        if before != commit {
            // Detached: a checkout that died with the link would leave half a tree and a lock.
            let words = git.words(&["checkout", "--quiet", "--detach", "--end-of-options", &commit]);
            let ran = host::run_durable(&git.reach, &pass, &git.host, &words_of(words)).await?;
            git.judged(ran, &["checkout", &commit])?;
        }
        let after = head_of(&git, &pass).await?;
        if after != commit {
            let why = format!("git said it was done, and HEAD is {after}");
            return Err(Error::new(Kind::Failed, format!("checkout failed on {}", git.host), why));
        }
        Ok(Did { changed: before != commit, before: before.into(), after: after.into(), ..Did::default() })
    })
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hostile_tag_names_are_never_deployable() {
        for name in [
            "v1;touch${IFS}x",
            "v1`id`",
            "v1$(id)",
            "v1|sh",
            "v1'x",
            "v1\"x",
            "v1&x",
            "v1>x",
            "v1{x}",
            "-z",
            "--help",
            "",
            "a..b",
            "a b",
            "v1\n",
            "../x",
            "a.lock",
            "日本",
        ] {
            assert!(check_name(name).is_err(), "{name:?}");
        }
        for name in ["v1.8.0", "release/2026-01", "v1.8.0+build.5"] {
            assert_eq!(check_name(name), Ok(()), "{name:?}");
        }
    }

    #[test]
    fn an_annotated_tag_gives_the_commit_it_points_at() {
        let tag = parse_tag("v1\0tag\0cccc\0oooo\x002026-01-17T07:26:00+09:00").expect("a tag");
        assert_eq!((&tag["commit"], &tag["kind"]), (&json!("cccc"), &json!("annotated")));
        let tag = parse_tag("v1\0commit\0\0cccc\x002026-01-17T07:26:00+09:00").expect("a tag");
        assert_eq!((&tag["commit"], &tag["kind"]), (&json!("cccc"), &json!("lightweight")));
    }
}
