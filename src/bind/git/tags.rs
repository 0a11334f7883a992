//! Tags: which there are, newest version first, and the commit that one names, here and on origin.

use super::cli::Git;
use crate::error::{Error, Kind, Result, nearest};
use crate::gate::Pass;
use serde_json::{Value, json};

/// The newest `count` tags by version.
pub async fn list(git: &Git, pass: &Pass, count: i64) -> Result<Value> {
    // The zero byte separates: a tag's name may hold nearly anything else.
    let format = "--format=%(refname:lstrip=2)%00%(objecttype)%00%(if)%(contents:signature)%(then)signed%(end)%00%(creatordate:iso-strict)";
    let limit = format!("--count={count}");
    let listed = git.out(pass, &["for-each-ref", "--sort=-v:refname", &limit, format, "refs/tags"]).await?;
    let tags: Vec<Tag<'_>> = listed.lines().filter_map(Tag::parse).collect();
    // A tag may be one of a tag, of a tree or of a file, and only newer gits tell the last of a chain in a list.
    let commits = commits_of(git, pass, tags.iter().map(|tag| format!("refs/tags/{}", tag.name))).await?;
    Ok(tags.iter().zip(commits).map(|(tag, commit)| tag.to_json(commit)).collect())
}

/// The commits that these names mean, in order; `None` for a name that means none. No name may hold a line break.
pub async fn commits_of(git: &Git, pass: &Pass, names: impl Iterator<Item = String>) -> Result<Vec<Option<String>>> {
    // On standard input no name is an option.
    let asked: String = names.map(|name| format!("{name}^{{commit}}\n")).collect();
    let said = git.fed(pass, &["cat-file", "--batch-check=%(objectname)"], &asked).await?;
    let commit = |line: &str| (!line.contains(' ')).then(|| line.to_string());
    Ok(said.lines().map(commit).collect())
}

struct Tag<'a> {
    name: &'a str,
    kind: &'static str,
    date: &'a str,
}

impl<'a> Tag<'a> {
    fn parse(line: &'a str) -> Option<Tag<'a>> {
        let fields: Vec<&str> = line.split('\0').collect();
        let [name, object, signed, date] = fields.as_slice() else { return None };
        let kind = match (*object, *signed) {
            ("tag", "signed") => "signed",
            ("tag", _) => "annotated",
            _ => "lightweight",
        };
        Some(Tag { name, kind, date })
    }

    fn to_json(&self, commit: Option<String>) -> Value {
        let deployable = commit.is_some() && check_name(self.name).is_ok();
        json!({ "tag": self.name, "commit": commit, "date": self.date, "kind": self.kind, "deployable": deployable })
    }
}

/// Ok for a name that is a plain tag name everywhere; git itself accepts names that are shell programs.
pub fn check_name(name: &str) -> Result<(), String> {
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

/// The commit that a tag names here; `list` is the line that shows the tags there are.
pub async fn here(git: &Git, pass: &Pass, tag: &str, list: &str) -> Result<String> {
    let found = commits_of(git, pass, std::iter::once(format!("refs/tags/{tag}"))).await?;
    match found.into_iter().next().flatten() {
        Some(commit) => Ok(commit),
        None => Err(no_such(git, pass, tag).await?.next(list)),
    }
}

/// What a tag is, from the commit that it names here, and what origin said.
pub fn told(tag: &str, commit: &str, origin: Result<Option<String>>) -> Value {
    let (remote, error) = match origin {
        Ok(remote) => (remote, None),
        Err(error) => (None, Some(error.why)),
    };
    let moved = remote.as_ref().is_some_and(|remote| remote != commit);
    json!({ "tag": tag, "commit": commit, "remote": remote, "moved": moved, "remote_error": error })
}

/// The error of a tag that only origin has, with the line that brings it: a fetch is a change, and nobody's but a person's.
pub fn not_fetched(git: &Git, tag: &str, commit: &str) -> Error {
    let commit = commit.get(..12).unwrap_or(commit);
    let why = format!("origin has it, as {commit}, and {} on {} has not fetched it", git.dir, git.host);
    let words = json!(["git", "-C", git.dir, "fetch", "origin", "tag", tag]);
    let line = format!("host({}).run({words})     fetches it, and nothing else", json!(git.host));
    Error::new(Kind::NotFound, format!("no tag \"{tag}\" here"), why).next(line)
}

async fn no_such(git: &Git, pass: &Pass, tag: &str) -> Result<Error> {
    let names =
        git.out(pass, &["for-each-ref", "--sort=-v:refname", "--format=%(refname:lstrip=2)", "refs/tags"]).await?;
    let names: Vec<&str> = names.lines().collect();
    let here = format!("{} on {}", git.dir, git.host);
    let why = match nearest(tag, names.iter().copied()) {
        _ if names.contains(&tag) => format!("in {here} it is a tag of something that is no commit"),
        Some(near) => format!("{here} has no such tag; did you mean \"{near}\"?"),
        None if names.is_empty() => format!("{here} has no tags at all"),
        None => format!("{here} has no such tag; the newest are {}", names[..names.len().min(5)].join(", ")),
    };
    Ok(Error::new(Kind::NotFound, format!("no tag \"{tag}\""), why))
}

/// What the tag names on origin, by looking only: a fetch would change the clone, and is silent about a moved tag.
pub async fn on_origin(git: &Git, pass: &Pass, tag: &str) -> Result<Option<String>> {
    let reference = &format!("refs/tags/{tag}");
    let peeled = format!("{reference}^{{}}");
    let out =
        git.out(pass, &["ls-remote", "--upload-pack=git-upload-pack", "--tags", "origin", reference, &peeled]).await?;
    let find = |wanted: &str| out.lines().filter_map(|line| line.split_once('\t')).find(|(_, name)| *name == wanted);
    Ok(find(&peeled).or_else(|| find(reference)).map(|(commit, _)| commit.to_string()))
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
    fn only_a_tag_object_can_be_signed() {
        let kind = |line: &str| Tag::parse(line).expect("a tag").kind;
        assert_eq!(kind("v1\0tag\0\x002026-01-17T07:26:00+09:00"), "annotated");
        assert_eq!(kind("v1\0tag\0signed\x002026-01-17T07:26:00+09:00"), "signed");
        assert_eq!(kind("v1\0commit\0signed\x002026-01-17T07:26:00+09:00"), "lightweight");
        assert!(Tag::parse("a complaint").is_none());
    }

    #[test]
    fn a_tag_of_no_commit_is_not_deployable() {
        let tag = Tag::parse("v1\0blob\0\0").expect("a tag").to_json(None);
        assert_eq!((&tag["commit"], &tag["deployable"]), (&Value::Null, &json!(false)));
    }
}
