//! Whether a branch merges, and whether a squash is why not: real repositories, each the history of one accident.

use crate::home::{Home, Ran};
use serde_json::{Value, json};
use std::collections::{BTreeMap, HashMap};
use std::fmt::Write as _;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

/// Git without the machine's own settings.
pub fn git(dir: &Path) -> Command {
    let mut command = Command::new("git");
    command.arg("-C").arg(dir).args(["-c", "user.name=t", "-c", "user.email=t@t", "-c", "advice.detachedHead=false"]);
    command.env("GIT_CONFIG_GLOBAL", "/dev/null").env("GIT_CONFIG_SYSTEM", "/dev/null").env("LC_ALL", "C.UTF-8");
    command.env("GIT_AUTHOR_DATE", "2026-01-17T07:26:00Z").env("GIT_COMMITTER_DATE", "2026-01-17T07:26:00Z");
    command.stdin(Stdio::null());
    command
}

#[track_caller]
pub fn said(command: &mut Command) -> String {
    let Output { status, stdout, stderr } = command.output().unwrap();
    assert!(status.success(), "{command:?}: {}", String::from_utf8_lossy(&stderr));
    String::from_utf8(stdout).unwrap().trim().to_string()
}

type Content = BTreeMap<String, Vec<u8>>;

/// A history as it is told to `git fast-import`: one process makes it all.
pub struct Story {
    stream: Vec<u8>,
    contents: HashMap<String, Content>,
    marks: HashMap<String, usize>,
    dir: PathBuf,
}

impl Story {
    pub fn new(dir: &Path) -> Story {
        Story { stream: Vec::new(), contents: HashMap::new(), marks: HashMap::new(), dir: dir.into() }
    }

    /// A commit with the content of `like` (a commit's name; its first parent when empty) and these changes.
    pub fn commit(&mut self, name: &str, branch: &str, parents: &[&str], like: &str, changes: &[(&str, &str)]) {
        let changes: Vec<(&str, &[u8])> = changes.iter().map(|(path, text)| (*path, text.as_bytes())).collect();
        self.commit_bytes(name, branch, parents, like, &changes);
    }

    pub fn commit_bytes(&mut self, name: &str, branch: &str, parents: &[&str], like: &str, changes: &[(&str, &[u8])]) {
        let like = if like.is_empty() { parents.first().copied().unwrap_or("") } else { like };
        let mut content = self.contents.get(like).cloned().unwrap_or_default();
        for (path, bytes) in changes {
            match bytes.strip_prefix(b"gone") {
                Some(b"") => drop(content.remove(*path)),
                _ => drop(content.insert(path.to_string(), bytes.to_vec())),
            }
        }
        let mark = self.marks.len() + 1;
        self.marks.insert(name.into(), mark);
        let at = 1_700_000_000 + mark;
        let mut head = format!("commit refs/heads/{branch}\nmark :{mark}\ncommitter t <t@t> {at} +0000\n");
        let _ = write!(head, "data {}\n{name}\n", name.len());
        match parents.split_first() {
            // A branch that is there already would go on otherwise.
            None => head = format!("reset refs/heads/{branch}\n\n{head}"),
            Some((first, others)) => {
                let _ = writeln!(head, "from :{}", self.marks[*first]);
                others.iter().for_each(|other| writeln!(head, "merge :{}", self.marks[*other]).unwrap());
            }
        }
        head.push_str("deleteall\n");
        self.stream.extend(head.bytes());
        for (path, bytes) in &content {
            let path = path.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n");
            self.stream.extend(format!("M 100644 inline \"{path}\"\ndata {}\n", bytes.len()).bytes());
            self.stream.extend(bytes);
            self.stream.push(b'\n');
        }
        self.contents.insert(name.into(), content);
    }

    /// A repository without a commit; its folder.
    pub fn told_empty(self) -> PathBuf {
        std::fs::create_dir_all(&self.dir).unwrap();
        said(git(&self.dir).args(["init", "--quiet", "--initial-branch=main"]));
        self.dir
    }

    /// The repository, with a work tree at `main`.
    pub fn told(self) -> Repo {
        std::fs::create_dir_all(&self.dir).unwrap();
        said(git(&self.dir).args(["init", "--quiet", "--initial-branch=main"]));
        let marks = self.dir.join(".git/marks");
        let mut import = git(&self.dir);
        import.args(["fast-import", "--quiet", "--force"]).arg(format!("--export-marks={}", marks.display()));
        let mut child = import.stdin(Stdio::piped()).spawn().unwrap();
        child.stdin.take().unwrap().write_all(&self.stream).unwrap();
        assert!(child.wait().unwrap().success());
        said(git(&self.dir).args(["reset", "--quiet", "--hard"]));
        let ids = std::fs::read_to_string(marks).unwrap();
        let ids: HashMap<&str, &str> = ids.lines().filter_map(|line| line.split_once(' ')).collect();
        let id = |mark: &usize| ids[format!(":{mark}").as_str()].to_string();
        Repo { ids: self.marks.iter().map(|(name, mark)| (name.clone(), id(mark))).collect(), dir: self.dir }
    }
}

/// A repository and its commits by the names that its story gave them.
pub struct Repo {
    pub dir: PathBuf,
    ids: HashMap<String, String>,
}

impl Repo {
    pub fn id(&self, name: &str) -> &str {
        &self.ids[name]
    }

    /// `main, develop` of the story by name.
    fn names(&self, list: &Value) -> Vec<String> {
        let commits = list.as_array().unwrap().iter().map(|one| one["commit"].as_str().unwrap());
        commits.map(|id| self.name(id)).collect()
    }

    fn name(&self, id: &str) -> String {
        self.ids.iter().find(|(_, known)| *known == id).map_or(format!("unknown {id}"), |(name, _)| name.clone())
    }

    /// Squash, last commit in it, how many, how it was seen, what took it back.
    fn squashes(&self, check: &Value) -> Vec<(String, String, i64, String, String)> {
        let squashes = check["squashes"].as_array().unwrap().iter();
        let told = squashes.map(|one| {
            let reverted = one["reverted_by"].as_str().map_or(String::new(), |id| self.name(id));
            let (commit, last) = (one["commit"].as_str().unwrap(), one["up_to"].as_str().unwrap());
            let by = one["by"].as_str().unwrap().to_string();
            (self.name(commit), self.name(last), one["contains"].as_i64().unwrap(), by, reverted)
        });
        told.collect()
    }

    /// Everything in the folder of git, and when it was written; a look may only touch objects, as each one in git does.
    fn state(&self) -> String {
        let script = "find .git -type f ! -path '*/objects/*' -printf '%p %s %T@\\n' -o -path '*/objects/*' -printf '%p %s\\n' | sort";
        said(Command::new("sh").current_dir(&self.dir).args(["-c", script]))
    }

    /// Types the lines of a repair in a copy, but for the push, and merges; then what `git show` says of each path.
    fn repaired(&self, check: &Value, paths: &[&str]) -> Vec<String> {
        let copy = self.dir.with_extension("copy");
        let _ = std::fs::remove_dir_all(&copy);
        said(git(Path::new("/")).arg("clone").arg("--quiet").arg(&self.dir).arg(&copy));
        said(git(&copy).args(["switch", "--quiet", "develop"]));
        let lines: Vec<&str> = check["repair"].as_array().unwrap().iter().map(|line| line.as_str().unwrap()).collect();
        let (push, lines) = lines.split_last().expect("a repair");
        assert_eq!(*push, "git push origin develop");
        said(git(&copy).args(["config", "user.name", "t"]));
        said(git(&copy).args(["config", "user.email", "t@t"]));
        let typed = format!("set -e\n{}\ngit push --quiet origin develop", lines.join("\n"));
        said(Command::new("sh").current_dir(&copy).args(["-c", &typed]).env("GIT_CONFIG_GLOBAL", "/dev/null"));
        said(git(&copy).args(["switch", "--quiet", "main"]));
        said(git(&copy).args(["merge", "--quiet", "--no-edit", "develop"]));
        paths.iter().map(|path| std::fs::read_to_string(copy.join(path)).unwrap_or_default()).collect()
    }
}

fn code(dir: &Path, target: &str, source: &str) -> String {
    format!("host(\"local\").repo({:?}).merge_check({target:?}, {source:?})", dir.display().to_string())
}

#[track_caller]
fn check(home: &Home, repo: &Repo) -> Value {
    let before = repo.state();
    let check = checked(home, &repo.dir, "main", "develop");
    assert!(before == repo.state(), "a look changed the clone");
    check
}

#[track_caller]
fn checked(home: &Home, dir: &Path, target: &str, source: &str) -> Value {
    home.run(&["--json", "-e", &code(dir, target, source)]).exits(0).json_lines().remove(0)
}

#[track_caller]
fn refused(home: &Home, dir: &Path, target: &str, source: &str) -> Ran {
    let ran = home.run(&["-e", &code(dir, target, source)]);
    assert_ne!(ran.code, Some(0), "{ran:?}");
    ran
}

fn found(squash: &str, last: &str, contains: i64, by: &str) -> (String, String, i64, String, String) {
    (squash.into(), last.into(), contains, by.into(), String::new())
}

/// Lines of a file in which only line `at` says `word`.
fn lines(at: usize, word: &str) -> String {
    (0..20).map(|line| if line == at { format!("{word}\n") } else { format!("line {line}\n") }).collect()
}

/// Two commits on develop, squashed on main, and one more on develop that touches the same line.
fn squashed(dir: &Path) -> Story {
    let mut story = Story::new(dir);
    story.commit("base", "main", &[], "", &[("a", "1\n"), ("b", "1\n")]);
    story.commit("d1", "develop", &["base"], "", &[("a", "2\n")]);
    story.commit("d2", "develop", &["d1"], "", &[("a", "3\n"), ("b", "3\n")]);
    story.commit("s1", "main", &["base"], "d2", &[]);
    story.commit("d3", "develop", &["d2"], "", &[("a", "4\n")]);
    story
}

#[test]
fn a_squash_is_found_by_its_content_and_its_repair_works_as_it_is_typed() {
    let home = Home::new();
    let repo = squashed(&home.path("r")).told();
    let check = check(&home, &repo);
    assert_eq!(check["verdict"], "conflicts_by_squash", "{check}");
    assert_eq!(repo.squashes(&check), [found("s1", "d2", 2, "tree")]);
    assert_eq!((&check["conflicts"], &check["conflicts_after_repair"]), (&json!(["a"]), &json!([])));
    assert_eq!(
        (repo.names(&check["only_on_source"]), repo.names(&check["only_on_target"])),
        (vec!["d3".into()], vec![])
    );
    let s1 = &repo.id("s1")[..12];
    let record = format!("git merge -s ours -m 'record squash {s1} of main' {s1}");
    assert_eq!(check["repair"], json!(["git switch develop", record, "git push origin develop"]));
    assert_eq!(repo.repaired(&check, &["a", "b"]), ["4\n", "3\n"]);
    let check = checked(&home, &repo.dir, "main", "develop");
    assert_eq!((&check["verdict"], &check["squashes"]), (&json!("clean"), &json!([])), "{check}");
}

#[test]
fn a_hotfix_before_the_squash_is_kept_by_the_repair() {
    let home = Home::new();
    let mut story = Story::new(&home.path("r"));
    story.commit("base", "main", &[], "", &[("a", &lines(0, "0")), ("fix", "no\n")]);
    story.commit("d1", "develop", &["base"], "", &[("a", &lines(10, "1"))]);
    story.commit("d2", "develop", &["d1"], "", &[("a", &lines(10, "2"))]);
    story.commit("hot", "main", &["base"], "", &[("fix", "yes\n")]);
    story.commit("s1", "main", &["hot"], "d2", &[("fix", "yes\n")]);
    story.commit("late", "main", &["s1"], "", &[("late", "yes\n")]);
    story.commit("d3", "develop", &["d2"], "", &[("a", &lines(10, "3"))]);
    let repo = story.told();
    let check = check(&home, &repo);
    assert_eq!(check["verdict"], "conflicts_by_squash", "{check}");
    assert_eq!(repo.squashes(&check), [found("s1", "d2", 2, "patch-id")]);
    assert_eq!(repo.names(&check["only_on_target"]), ["late", "hot"]);
    let lost: Vec<&Value> =
        check["only_on_target"].as_array().unwrap().iter().map(|one| &one["lost_by_ours"]).collect();
    assert_eq!(lost, [&json!(false), &json!(true)], "only what came before the squash");
    assert_eq!(check["repair"][1], format!("git merge --no-edit {}", &repo.id("hot")[..12]), "{check}");
    assert_eq!(repo.repaired(&check, &["a", "fix", "late"]), [lines(10, "3").as_str(), "yes\n", "yes\n"]);
}

#[test]
fn squashes_in_a_row_are_found_each_from_the_last() {
    let home = Home::new();
    let mut story = Story::new(&home.path("r"));
    story.commit("base", "main", &[], "", &[("a", "0\n")]);
    let (mut dev, mut main) = ("base".to_string(), "base".to_string());
    for round in 1..=3 {
        for step in 1..=2 {
            let name = format!("d{round}{step}");
            story.commit(&name, "develop", &[&dev], "", &[("a", &format!("{round}{step}\n"))]);
            dev = name;
        }
        let name = format!("s{round}");
        story.commit(&name, "main", &[&main], &dev, &[]);
        main = name;
    }
    story.commit("d4", "develop", &[&dev], "", &[("a", "4\n")]);
    let repo = story.told();
    let check = check(&home, &repo);
    let expected = [found("s1", "d12", 2, "tree"), found("s2", "d22", 2, "tree"), found("s3", "d32", 2, "tree")];
    assert_eq!(repo.squashes(&check), expected);
    assert_eq!(check["verdict"], "conflicts_by_squash");
    assert_eq!(check["repair"].as_array().unwrap().len(), 3, "one record ties all of them: {check}");
    assert_eq!(repo.repaired(&check, &["a"]), ["4\n"]);
}

#[test]
fn hotfixes_between_squashes_do_not_hide_them() {
    let home = Home::new();
    let mut story = Story::new(&home.path("r"));
    story.commit("base", "main", &[], "", &[("a", "0\n")]);
    story.commit("d1", "develop", &["base"], "", &[("a", "1\n")]);
    story.commit("d2", "develop", &["d1"], "", &[("a", "2\n"), ("b", "2\n")]);
    story.commit("h1", "main", &["base"], "", &[("h1", "x\n")]);
    story.commit("s1", "main", &["h1"], "d2", &[("h1", "x\n")]);
    story.commit("d3", "develop", &["d2"], "", &[("a", "3\n")]);
    story.commit("d4", "develop", &["d3"], "", &[("b", "4\n")]);
    story.commit("h2", "main", &["s1"], "", &[("h2", "x\n")]);
    story.commit("s2", "main", &["h2"], "d4", &[("h1", "x\n"), ("h2", "x\n")]);
    story.commit("d5", "develop", &["d4"], "", &[("a", "5\n")]);
    let repo = story.told();
    let check = check(&home, &repo);
    assert_eq!(repo.squashes(&check), [found("s1", "d2", 2, "patch-id"), found("s2", "d4", 2, "patch-id")]);
    assert_eq!(check["verdict"], "conflicts_by_squash", "{check}");
    assert_eq!(repo.repaired(&check, &["a", "b", "h1", "h2"]), ["5\n", "4\n", "x\n", "x\n"]);
}

#[test]
fn a_rebase_merge_is_a_squash_of_each_commit() {
    let home = Home::new();
    let mut story = Story::new(&home.path("r"));
    story.commit("base", "main", &[], "", &[("a", "0\n")]);
    story.commit("d1", "develop", &["base"], "", &[("a", "1\n")]);
    story.commit("d2", "develop", &["d1"], "", &[("a", "2\n")]);
    story.commit("hot", "main", &["base"], "", &[("fix", "x\n")]);
    story.commit("c1", "main", &["hot"], "d1", &[("fix", "x\n")]);
    story.commit("c2", "main", &["c1"], "d2", &[("fix", "x\n")]);
    let repo = story.told();
    let check = check(&home, &repo);
    assert_eq!(repo.squashes(&check), [found("c1", "d1", 1, "patch-id"), found("c2", "d2", 1, "patch-id")]);
    assert_eq!(check["verdict"], "clean_but_squashed", "{check}");
    assert_eq!(
        (repo.names(&check["only_on_source"]), repo.names(&check["only_on_target"])),
        (vec![], vec!["hot".into()])
    );
    assert_eq!(repo.repaired(&check, &["a", "fix"]), ["2\n", "x\n"]);
}

#[test]
fn merge_commits_are_healthy() {
    let home = Home::new();
    let mut story = Story::new(&home.path("r"));
    story.commit("base", "main", &[], "", &[("a", "0\n")]);
    story.commit("d1", "develop", &["base"], "", &[("a", "1\n")]);
    story.commit("m1", "main", &["base", "d1"], "d1", &[]);
    story.commit("d2", "develop", &["d1"], "", &[("a", "2\n")]);
    let repo = story.told();
    let check = check(&home, &repo);
    assert_eq!((&check["verdict"], &check["squashes"], &check["repair"]), (&json!("clean"), &json!([]), &json!([])));
    let check = checked(&home, &repo.dir, "main", repo.id("d1"));
    assert_eq!(check["why"], format!("main has all of {} already", repo.id("d1")));
}

#[test]
fn a_real_conflict_after_a_squash_is_told_apart() {
    let home = Home::new();
    let mut story = squashed(&home.path("r"));
    story.commit("d4", "develop", &["d3"], "", &[("b", "5\n")]);
    story.commit("own", "main", &["s1"], "", &[("b", "9\n")]);
    let repo = story.told();
    let check = check(&home, &repo);
    assert_eq!(check["verdict"], "conflicts_real", "{check}");
    assert_eq!((&check["conflicts"], &check["conflicts_after_repair"]), (&json!(["a", "b"]), &json!(["b"])));
    assert_eq!(check["repair"].as_array().unwrap().len(), 3, "it still takes one conflict away: {check}");
}

#[test]
fn a_squash_that_was_taken_back_is_no_reason() {
    let home = Home::new();
    let mut story = squashed(&home.path("r"));
    story.commit("other", "main", &["s1"], "", &[("c", "1\n")]);
    story.commit("back", "main", &["other"], "base", &[("c", "1\n")]);
    let repo = story.told();
    let check = check(&home, &repo);
    assert_eq!(repo.squashes(&check), [("s1".into(), "d2".into(), 2, "tree".into(), "back".into())]);
    assert_eq!((&check["verdict"], &check["repair"]), (&json!("clean"), &json!([])), "{check}");
    assert_eq!(repo.names(&check["only_on_source"]), ["d3", "d2", "d1"]);
    assert_eq!(repo.names(&check["only_on_target"]), ["other"]);
}

#[test]
fn a_squash_resolved_by_hand_is_not_guessed() {
    let home = Home::new();
    let mut story = Story::new(&home.path("r"));
    story.commit("base", "main", &[], "", &[("a", "0\n")]);
    story.commit("d1", "develop", &["base"], "", &[("a", "1\n")]);
    story.commit("hot", "main", &["base"], "", &[("a", "hot\n")]);
    story.commit("s1", "main", &["hot"], "", &[("a", "hot and 1\n")]);
    let repo = story.told();
    let check = check(&home, &repo);
    assert_eq!((&check["verdict"], &check["squashes"]), (&json!("conflicts_real"), &json!([])));
    assert!(
        check["why"].as_str().unwrap().contains("does not rule out one whose conflicts were resolved by hand"),
        "{check}"
    );
}

#[test]
fn a_change_of_white_space_or_of_a_binary_is_not_another_of_its_kind() {
    let home = Home::new();
    let mut story = Story::new(&home.path("r"));
    let py = |indent: &str| format!("if x:\n    a()\n{indent}b()\n");
    story.commit_bytes("base", "main", &[], "", &[("p.py", b"if x:\n    a()\n"), ("i.png", b"\0base")]);
    story.commit_bytes("d1", "develop", &["base"], "", &[("p.py", py("    ").as_bytes()), ("i.png", b"\0one")]);
    story.commit_bytes("m1", "main", &["base"], "", &[("p.py", py("").as_bytes()), ("i.png", b"\0two")]);
    let repo = story.told();
    let check = check(&home, &repo);
    assert_eq!((&check["verdict"], &check["squashes"]), (&json!("conflicts_real"), &json!([])), "{check}");
    assert_eq!(check["conflicts"], json!(["i.png", "p.py"]));
}

#[test]
fn a_binary_that_was_squashed_over_a_hotfix_is_seen() {
    let home = Home::new();
    let mut story = Story::new(&home.path("r"));
    story.commit_bytes("base", "main", &[], "", &[("i.png", b"\0base")]);
    story.commit_bytes("d1", "develop", &["base"], "", &[("i.png", b"\0one")]);
    story.commit_bytes("d2", "develop", &["d1"], "", &[("i.png", b"\0two")]);
    story.commit("hot", "main", &["base"], "", &[("fix", "x\n")]);
    story.commit("s1", "main", &["hot"], "d2", &[("fix", "x\n")]);
    story.commit_bytes("d3", "develop", &["d2"], "", &[("i.png", b"\0three")]);
    let repo = story.told();
    let check = check(&home, &repo);
    assert_eq!(repo.squashes(&check), [found("s1", "d2", 2, "patch-id")]);
    assert_eq!((&check["verdict"], &check["conflicts"]), (&json!("conflicts_by_squash"), &json!(["i.png"])));
}

#[test]
fn renames_octopuses_and_commits_without_a_change_are_followed() {
    let home = Home::new();
    let mut story = Story::new(&home.path("r"));
    story.commit("base", "main", &[], "", &[("old", &lines(0, "0")), ("b", "0\n")]);
    story.commit("d1", "develop", &["base"], "", &[("old", "gone"), ("new", &lines(1, "1"))]);
    story.commit("x", "x", &["d1"], "", &[("x", "1\n")]);
    story.commit("y", "y", &["d1"], "", &[("y", "1\n")]);
    story.commit("octopus", "develop", &["d1", "x", "y"], "", &[("x", "1\n"), ("y", "1\n")]);
    story.commit("empty", "develop", &["octopus"], "", &[]);
    story.commit("void", "main", &["base"], "", &[]);
    story.commit("s1", "main", &["void"], "empty", &[]);
    story.commit("d2", "develop", &["empty"], "", &[("new", &lines(1, "2"))]);
    let repo = story.told();
    let check = check(&home, &repo);
    assert_eq!(repo.squashes(&check), [found("s1", "empty", 5, "tree")], "the newest of equal content");
    assert_eq!(check["verdict"], "conflicts_by_squash", "{check}");
    assert_eq!(repo.repaired(&check, &["old", "new", "x"]), ["", lines(1, "2").as_str(), "1\n"]);
}

#[test]
fn a_criss_cross_has_two_bases_and_one_answer() {
    let home = Home::new();
    let mut story = Story::new(&home.path("r"));
    story.commit("base", "main", &[], "", &[("a", "0\n"), ("b", "0\n")]);
    story.commit("m1", "main", &["base"], "", &[("a", "1\n")]);
    story.commit("d1", "develop", &["base"], "", &[("b", "1\n")]);
    story.commit("m2", "main", &["m1", "d1"], "", &[("b", "1\n")]);
    story.commit("d2", "develop", &["d1", "m1"], "", &[("a", "1\n")]);
    story.commit("d3", "develop", &["d2"], "", &[("b", "2\n")]);
    story.commit("s1", "main", &["m2"], "d3", &[]);
    story.commit("d4", "develop", &["d3"], "", &[("b", "3\n")]);
    let repo = story.told();
    assert_eq!(said(git(&repo.dir).args(["merge-base", "--all", "main", "develop"])).lines().count(), 2);
    let check = check(&home, &repo);
    assert_eq!(repo.squashes(&check), [found("s1", "d3", 2, "tree")]);
    assert_eq!((&check["verdict"], &check["conflicts"]), (&json!("conflicts_by_squash"), &json!(["b"])));
    assert_eq!(repo.repaired(&check, &["a", "b"]), ["1\n", "3\n"]);
}

#[test]
fn histories_without_a_common_commit_are_unrelated_unless_the_clone_is_shallow() {
    let home = Home::new();
    let mut story = Story::new(&home.path("r"));
    story.commit("base", "main", &[], "", &[("a", "0\n")]);
    story.commit("other", "develop", &[], "", &[("a", "1\n")]);
    let repo = story.told();
    let check = check(&home, &repo);
    assert_eq!((&check["verdict"], &check["conflicts"]), (&json!("unrelated"), &json!([])));
    assert!(check["why"].as_str().unwrap().contains("no commit in common"), "{check}");

    let whole = squashed(&home.path("whole")).told();
    let url = format!("file://{}", whole.dir.display());
    let shallow = home.path("shallow");
    said(git(&home.path("")).args(["clone", "--quiet", "--depth=1", "--no-single-branch", &url]).arg(&shallow));
    let ran = refused(&home, &shallow, "main", "origin/develop").exits(1);
    ran.says(&["is a shallow clone", "fetch --unshallow"]);
}

#[test]
fn two_hundred_commits_on_each_side_are_compared() {
    let home = Home::new();
    let mut story = Story::new(&home.path("r"));
    story.commit("base", "main", &[], "", &[("a", "0\n")]);
    let (mut dev, mut main) = ("base".to_string(), "base".to_string());
    for at in 0..200 {
        let (d, m) = (format!("d{at}"), format!("m{at}"));
        story.commit(&d, "develop", &[&dev], "", &[(&format!("src/{at}"), "x\n"), ("a", &format!("{at}\n"))]);
        story.commit(&m, "main", &[&main], "", &[(&format!("own/{at}"), "y\n")]);
        (dev, main) = (d, m);
    }
    let own: Vec<(String, &str)> = (0..200).map(|at| (format!("own/{at}"), "y\n")).collect();
    let own: Vec<(&str, &str)> = own.iter().map(|(path, text)| (path.as_str(), *text)).collect();
    story.commit("s1", "main", &[&main], &dev, &own);
    story.commit("last", "develop", &[&dev], "", &[("a", "last\n")]);
    let repo = story.told();
    let check = check(&home, &repo);
    assert_eq!(repo.squashes(&check), [found("s1", "d199", 200, "patch-id")]);
    assert_eq!((&check["verdict"], &check["conflicts"]), (&json!("conflicts_by_squash"), &json!(["a"])));
    assert_eq!(check["only_on_target"].as_array().unwrap().len(), 100);
    assert_eq!(check["repair"].as_array().unwrap().len(), 4, "{}", check["repair"]);
}

#[test]
fn names_are_branches_tags_or_commits_and_never_options() {
    let home = Home::new();
    let repo = squashed(&home.path("origin")).told();
    said(git(&repo.dir).args(["update-ref", "refs/heads/-z", "develop"]));
    said(git(&repo.dir).args(["update-ref", "refs/heads/$(touch${IFS}owned)", "develop"]));
    said(git(&repo.dir).args(["tag", "both", "main"]));
    said(git(&repo.dir).args(["branch", "both", "develop"]));
    said(git(&repo.dir).args(["tag", "release", "develop"]));
    let clone = home.path("clone");
    said(git(&home.path("")).args(["clone", "--quiet"]).arg(&repo.dir).arg(&clone));

    let verdict = |source: &str| checked(&home, &repo.dir, "main", source);
    for source in
        ["develop", "refs/heads/develop", "release", repo.id("d3"), &repo.id("d3")[..10], "-z", "$(touch${IFS}owned)"]
    {
        assert_eq!(verdict(source)["verdict"], "conflicts_by_squash", "{source}");
    }
    assert_eq!(verdict("-z")["no_repair"], "git takes the name -z for an option: rename the branch first");
    assert_eq!(verdict("$(touch${IFS}owned)")["repair"][0], "git switch '$(touch${IFS}owned)'");
    assert!(verdict("release")["no_repair"].as_str().unwrap().contains("is no branch"));
    let of_remote = checked(&home, &clone, "main", "origin/develop");
    let typed = json!(["git switch develop", "git merge --ff-only origin/develop"]);
    assert_eq!(json!(&of_remote["repair"].as_array().unwrap()[..2]), typed);

    refused(&home, &clone, "main", "develop")
        .exits(1)
        .says(&["no branch \"develop\"", "did you mean \"origin/develop\"?"]);
    refused(&home, &repo.dir, "man", "develop").exits(1).says(&["did you mean \"main\"?"]);
    refused(&home, &repo.dir, "main", "both").exits(2).says(&["refs/heads/both and refs/tags/both", "in full"]);
    for name in ["", "a b", "main~1", "main^", "main..develop", "@{upstream}", "x\ny", ":/x"] {
        refused(&home, &repo.dir, "main", name).exits(2).says(&["is no name that git gives"]);
    }
    for name in ["--help", "-h", "--output=owned"] {
        refused(&home, &repo.dir, name, "develop").exits(1).says(&["has no such branch or tag"]);
    }
    assert!(!repo.dir.join("owned").exists() && !home.path("owned").exists());
}

#[test]
fn a_bare_clone_is_checked_too_and_names_with_odd_letters_are_told_whole() {
    let home = Home::new();
    let mut story = squashed(&home.path("r"));
    let odd = ["new\nline", "quo\"te", "sp ace", "日本"];
    let all = |text: &'static str| odd.map(|path| (path, text));
    story.commit("d4", "develop", &["d3"], "", &all("develop\n"));
    story.commit("m2", "main", &["s1"], "", &all("main\n"));
    let repo = story.told();
    let bare = home.path("bare.git");
    said(git(&home.path("")).args(["clone", "--quiet", "--bare"]).arg(&repo.dir).arg(&bare));
    let check = checked(&home, &bare, "main", "develop");
    assert_eq!(check["conflicts_after_repair"], json!(odd), "{check}");
    assert_eq!(check["verdict"], "conflicts_real");
}

#[test]
fn programs_that_the_clone_names_are_not_run() {
    let home = Home::new();
    let mut story = squashed(&home.path("r"));
    story.commit("attributes", "main", &["s1"], "", &[(".gitattributes", "* merge=own diff=own\n")]);
    let repo = story.told();
    let touch = format!("touch '{}'; true", home.path("owned").display());
    for name in ["merge.own.driver", "diff.own.command", "diff.own.textconv", "diff.external", "core.fsmonitor"] {
        said(git(&repo.dir).args(["config", name, &touch]));
    }
    let check = check(&home, &repo);
    assert_eq!(check["verdict"], "conflicts_by_squash", "{check}");
    assert!(!home.path("owned").exists());
    git(&repo.dir).args(["merge", "--quiet", "--no-edit", "develop"]).output().unwrap();
    assert!(home.path("owned").exists(), "git itself runs them");
}

/// A git of another version in front of the real one.
fn other_version(home: &Home, version: &str) -> String {
    let bin = home.path("bin");
    std::fs::create_dir_all(&bin).unwrap();
    let path = std::env::var("PATH").unwrap();
    let script = format!(
        "#!/bin/sh\nfor word; do test \"$word\" != version || {{ echo 'git version {version}'; exit; }}; done\nPATH='{path}' exec git \"$@\"\n"
    );
    std::fs::write(bin.join("git"), script).unwrap();
    said(Command::new("chmod").arg("+x").arg(bin.join("git")));
    format!("{}:{path}", bin.display())
}

#[test]
fn an_older_git_is_named_with_the_version_that_is_needed() {
    let home = Home::new();
    let repo = squashed(&home.path("r")).told();
    let ask = code(&repo.dir, "main", "develop");
    let path = other_version(&home, "2.39.5 (Apple Git-154)");
    let ran = home.run_with(&["-e", &ask], "PATH", &path).exits(1);
    ran.says(&["git.merge_check cannot be done on local", "git 2.40 or newer is needed", "2.39.5 (Apple Git-154)"]);
    let path = other_version(&home, "3.0.0");
    home.run_with(&["-e", &ask], "PATH", &path).exits(0);
}

#[test]
fn the_script_says_what_conflicts_why_and_what_to_type() {
    let home = Home::new();
    let repo = squashed(&home.path("r")).told();
    let script = format!("{}/scripts/merge-check.rhai", env!("CARGO_MANIFEST_DIR"));
    let dir = repo.dir.display().to_string();
    let short = |name: &str| repo.id(name)[..12].to_string();
    let (s1, d2) = (short("s1"), short("d2"));
    let ran = home.run(&[&script, "main", "develop", "--dir", &dir]).exits(1);
    let screen = format!(
        "develop → main: 1 file would conflict\n  conflict  a\n  why       {s1} on main is the work of develop up to {d2} \
         without its history, so git merges the same work twice\n  squash    {s1} \"s1\" is 2 commits up to {d2}: the content \
         is the same\n  type this, and nothing conflicts; no force push is needed:\n    git switch develop\n    git merge -s \
         ours -m 'record squash {s1} of main' {s1}\n    git push origin develop\n"
    );
    let ran = ran.prints(&screen);
    ran.says(&[
        "error: develop → main: 1 file would conflict",
        "git merges the same work twice",
        "git push origin develop",
    ]);

    said(git(&repo.dir).args(["branch", "--force", "develop", repo.id("d2")]));
    let ran = home.run(&[&script, "main", "develop", "--dir", &dir]).exits(0);
    ran.shows(&["merges today, and will conflict at the next change", "no force push is needed"]);
    let mut here = home.command(&[&script, "main", "main"]);
    let ran = Ran::of(here.current_dir(&repo.dir).output().unwrap()).exits(0);
    ran.prints("main → main: merges without a conflict\n  why       main has all of main already\n");
}
