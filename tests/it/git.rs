//! Verbs of git on clones of every sort, with real git: what they tell, and what they never run.
use crate::home::{Home, Ran};
use crate::merge_check::{Repo, Story, git, said};
use serde_json::{Value, json};
use std::net::TcpListener;
use std::path::Path;
use std::process::Command;

/// What `repo.CALL` says of the clone in `dir`.
fn ask(home: &Home, dir: &Path, call: &str) -> Ran {
    home.run(&["--json", "-e", &format!("host(\"local\").repo({:?}).{call}", dir.display().to_string())])
}

#[track_caller]
fn value(home: &Home, dir: &Path, call: &str) -> Value {
    ask(home, dir, call).exits(0).json_lines().remove(0)
}

/// Kind and reason of an error.
#[track_caller]
fn error(home: &Home, dir: &Path, call: &str) -> (String, String) {
    let ran = ask(home, dir, call);
    let error: Value = serde_json::from_str(&ran.err).unwrap_or_else(|_| panic!("{call}: {ran:?}"));
    (error["kind"].as_str().unwrap().into(), error["why"].as_str().unwrap().into())
}

/// Two commits on main.
fn two(dir: &Path) -> Repo {
    let mut story = Story::new(dir);
    story.commit("one", "main", &[], "", &[("a", "1\n"), ("sub/b", "1\n"), ("sub/new\nline", "1\n"), ("日本", "1\n")]);
    story.commit("two", "main", &["one"], "", &[("a", "2\n")]);
    story.told()
}

pub fn sh(dir: &Path, script: &str) -> String {
    let mut sh = Command::new("sh");
    sh.current_dir(dir)
        .args(["-ec", script])
        .env("GIT_CONFIG_GLOBAL", "/dev/null")
        .env("GIT_CONFIG_SYSTEM", "/dev/null");
    for role in ["AUTHOR", "COMMITTER"] {
        sh.env(format!("GIT_{role}_NAME"), "t").env(format!("GIT_{role}_EMAIL"), "t@t");
    }
    said(&mut sh)
}

// ── clones of every sort ──

#[test]
fn a_bare_clone_tells_everything_but_the_state_of_a_work_tree() {
    let home = Home::new();
    let repo = two(&home.path("r"));
    let bare = home.path("bare.git");
    sh(&repo.dir, &format!("git tag v1 && git clone --quiet --bare . '{}'", bare.display()));
    let head = value(&home, &bare, "head()");
    assert_eq!(head, json!({ "commit": repo.id("two"), "tags": ["v1"], "branch": "main", "subject": "two" }));
    assert_eq!(value(&home, &bare, "tags(5)")[0]["commit"], repo.id("two"));
    assert_eq!(value(&home, &bare, "resolve(\"v1\")")["remote"], repo.id("two"));
    let one = repo.id("one");
    assert_eq!(value(&home, &bare, &format!("files(\"{one}\", \"sub\")")), json!(["b", "new\nline"]));
    assert_eq!(value(&home, &bare, &format!("files(\"{one}\", \".\")")), json!(["a", "sub", "日本"]));
    assert_eq!(value(&home, &bare, &format!("files(\"{one}\", \"none\")")), json!([]));
    assert_eq!(value(&home, &bare, &format!("has_file(\"{one}\", \"sub/new\\nline\")")), true);
    assert_eq!(value(&home, &bare, &format!("has_file(\"{one}\", \"sub/c\")")), false);
    let (kind, why) = error(&home, &bare, "status()");
    assert!(kind == "unmet" && why.contains("is a bare clone: it has no work tree"), "{kind}: {why}");
    let ran = home.run(&["--yes", "-e", &format!("host(\"local\").repo({:?}).checkout(\"{one}\")", bare.display())]);
    ran.exits(1).says(&["is a bare clone"]);
}

#[test]
fn paths_are_those_from_the_top_in_a_folder_of_a_clone_too() {
    let home = Home::new();
    let repo = two(&home.path("r"));
    let one = repo.id("one");
    assert_eq!(value(&home, &repo.dir.join("sub"), &format!("has_file(\"{one}\", \"sub/b\")")), true);
    assert_eq!(value(&home, &repo.dir.join("sub"), &format!("files(\"{one}\", \"sub/\")")), json!(["b", "new\nline"]));
}

#[test]
fn an_empty_repository_says_that_it_has_no_commit_yet() {
    let home = Home::new();
    let dir = home.path("r");
    said(git(&home.path("")).args(["init", "--quiet", "--initial-branch=main"]).arg(&dir));
    let (kind, why) = error(&home, &dir, "head()");
    assert!(kind == "unmet" && why.ends_with("has no commit yet: the branch \"main\" is empty"), "{kind}: {why}");
    std::fs::write(dir.join("a"), "").unwrap();
    let status = value(&home, &dir, "status()");
    assert_eq!(
        (&status["clean"], &status["untracked"], &status["only_here"]),
        (&json!(true), &json!(["a"]), &json!([]))
    );
    assert_eq!(value(&home, &dir, "tags(5)"), json!([]));
    let (kind, why) = error(&home, &dir, "resolve(\"v1\")");
    assert!(kind == "not_found" && why.contains("has no tags at all"), "{kind}: {why}");
    assert_eq!(error(&home, &dir, "merge_check(\"main\", \"develop\")").0, "not_found");
}

#[test]
fn a_folder_that_is_no_repository_and_one_that_is_not_there_are_not_found() {
    let home = Home::new();
    std::fs::create_dir(home.path("plain")).unwrap();
    let hex = "0".repeat(40);
    let calls = ["head()", "tags(1)", "status()", "resolve(\"v1\")", "merge_check(\"a\", \"b\")"].map(String::from);
    for call in calls.into_iter().chain([format!("files(\"{hex}\", \"x\")"), format!("has_file(\"{hex}\", \"x\")")]) {
        for dir in ["plain", "missing"] {
            let (kind, why) = error(&home, &home.path(dir), &call);
            assert!(kind == "not_found" && why.contains("is no git repository"), "{dir}.{call}: {kind}: {why}");
        }
    }
}

#[test]
fn a_clone_of_another_user_is_told_with_its_owner() {
    let home = Home::new();
    let repo = two(&home.path("r"));
    for call in ["head()", "status()", "tags(1)", "merge_check(\"main\", \"main\")"] {
        let code = format!("host(\"local\").repo({:?}).{call}", repo.dir.display());
        let ran = home.run_with(&["-e", &code], "GIT_TEST_ASSUME_DIFFERENT_OWNER", "1").exits(1);
        let ran = ran.says(&["opsh is another user there", "run opsh as the owner of the checkout"]);
        assert!(!ran.err.contains("safe.directory"), "{}", ran.err);
    }
}

#[test]
fn the_environment_does_not_lead_to_another_repository() {
    let home = Home::new();
    let (repo, other) = (two(&home.path("r")), Story::new(&home.path("other")).told_empty());
    let code = format!("host(\"local\").repo({:?}).head().commit", repo.dir.display());
    let ran = home.run_with(&["-e", &code], "GIT_DIR", &other.join(".git").display().to_string()).exits(0);
    ran.prints(&format!("{}\n", repo.id("two")));
}

// ── status ──

#[test]
fn a_status_sees_what_somebody_is_in_the_middle_of() {
    let home = Home::new();
    let mut story = Story::new(&home.path("r"));
    story.commit("base", "main", &[], "", &[("a", "0\n")]);
    story.commit("d1", "develop", &["base"], "", &[("a", "1\n")]);
    story.commit("m1", "main", &["base"], "", &[("a", "2\n")]);
    let repo = story.told();
    sh(&repo.dir, "git format-patch --quiet --stdout main..develop > ../patch");
    let begins = [
        ("merge", "git merge develop || true", "git merge --abort"),
        ("cherry-pick", "git cherry-pick develop || true", "git cherry-pick --abort"),
        ("revert", "git revert --no-edit HEAD~1 || true", "git revert --abort"),
        ("rebase", "git rebase --merge develop || true", "git rebase --abort"),
        ("rebase", "git rebase --apply develop || true", "git rebase --abort"),
        ("am", "git am ../patch || true", "git am --abort"),
        ("bisect", "git bisect start HEAD HEAD~1", "git bisect reset"),
    ];
    for (operation, begin, end) in begins {
        sh(&repo.dir, begin);
        assert_eq!(value(&home, &repo.dir, "status()")["operation"], operation, "{begin}");
        sh(&repo.dir, end);
    }
    let status = value(&home, &repo.dir, "status()");
    let only_here = sh(&repo.dir, "git rev-list HEAD");
    let only_here: Vec<&str> = only_here.lines().collect();
    let expected = json!({
        "clean": true, "changed": [], "unlooked": [], "untracked": [], "operation": null, "only_here": only_here, "shallow": false,
        "lock_age_s": null,
    });
    assert_eq!(status, expected);
    sh(
        &repo.dir,
        "git checkout --quiet --detach && git merge develop || true; git checkout --quiet --force main -- a; git add a",
    );
    let code = format!("host(\"local\").repo({:?}).checkout(\"{}\")", repo.dir.display(), repo.id("base"));
    home.run(&["--yes", "-e", &code]).exits(1).says(&["a git merge is in progress"]);
}

#[test]
fn a_file_that_git_was_told_not_to_look_at_is_looked_at() {
    let (home, dir) = (Home::new(), tempfile::tempdir().unwrap());
    two(dir.path());
    let git = |script: &str| sh(dir.path(), &format!("odd=$(printf 'odd\\n name'); {script}"));
    git("printf x >\"$odd\"; printf x >s; printf x >same; git add .; git commit -qm more");
    git("git update-index --assume-unchanged same \"$odd\"; git update-index --skip-worktree s");
    assert_eq!(value(&home, dir.path(), "status()")["clean"], json!(true));
    git("echo y >\"$odd\"; echo y >s; echo y >a");
    let before = git("git ls-files -v; sha1sum .git/index");
    for from in [dir.path().into(), dir.path().join("sub")] {
        let seen = value(&home, &from, "status()");
        assert_eq!((&seen["clean"], &seen["changed"]), (&json!(false), &json!(["a", "odd\n name", "s"])));
        assert_eq!(seen["unlooked"], json!(["odd\n name", "s"]));
    }
    let one = git("git rev-parse HEAD~1");
    let code = format!("host(\"local\").repo({:?}).checkout(\"{}\")", dir.path().display().to_string(), one.trim());
    home.run(&["--yes", "-e", &code]).exits(1).says(&["git was told not to look at odd", "name, s\n", "ls-files -v"]);
    assert_eq!(git("git ls-files -v; sha1sum .git/index"), before, "its marks are as they were");
    // What a sparse checkout leaves out is no change.
    git("git update-index --no-assume-unchanged \"$odd\"; git checkout -q -f HEAD; git sparse-checkout init --cone");
    assert!(!dir.path().join("sub/b").exists());
    assert_eq!(value(&home, dir.path(), "status()")["changed"], json!(["s"]));
}

#[test]
fn a_lock_that_was_left_has_an_age_and_stops_a_checkout() {
    let home = Home::new();
    let repo = two(&home.path("r"));
    sh(&repo.dir, "touch -d '1 hour ago' .git/index.lock");
    let age = value(&home, &repo.dir, "status()")["lock_age_s"].as_i64().unwrap();
    assert!((3600..3900).contains(&age), "{age}");
    let code = format!("host(\"local\").repo({:?}).checkout(\"{}\")", repo.dir.display(), repo.id("one"));
    home.run(&["--yes", "-e", &code])
        .exits(1)
        .says(&["has an index.lock, 3", "another git works there, or died there"]);
    assert_eq!(value(&home, &repo.dir, "head()")["branch"], "main");
}

#[test]
fn odd_paths_and_thousands_of_changes_are_counted_right() {
    let home = Home::new();
    let repo = two(&home.path("r"));
    sh(
        &repo.dir,
        "git mv 日本 'new
name'; printf x > 'quo\"te'; printf x > a; git -c core.quotePath=true status >/dev/null",
    );
    let status = value(&home, &repo.dir, "status()");
    assert_eq!((&status["changed"], &status["untracked"]), (&json!(["a", "new\nname"]), &json!(["quo\"te"])));
    sh(
        &repo.dir,
        "git reset --quiet --hard; mkdir many; i=0; while test $i -lt 4000; do : > many/$i; i=$((i+1)); done; git add many",
    );
    let status = value(&home, &repo.dir, "status()");
    assert_eq!((status["clean"].as_bool(), status["changed"].as_array().unwrap().len()), (Some(false), 100));
}

#[test]
fn a_shallow_clone_says_so_and_what_is_nowhere_else_is_listed() {
    let home = Home::new();
    let repo = two(&home.path("r"));
    let clone = home.path("clone");
    sh(&repo.dir, &format!("git clone --quiet --depth=1 'file://{}' '{}'", repo.dir.display(), clone.display()));
    sh(&clone, "git commit --quiet --allow-empty -m hotfix");
    let status = value(&home, &clone, "status()");
    assert_eq!((&status["shallow"], &status["only_here"]), (&json!(true), &json!([sh(&clone, "git rev-parse HEAD")])));
}

// ── tags ──

#[test]
fn tags_stand_newest_version_first_and_a_release_above_its_candidates() {
    let home = Home::new();
    let repo = two(&home.path("r"));
    let newest_first = ["v2", "v2-beta", "v1.10.0", "v1.9.0", "v1.9.0-rc.10", "v1.9.0-rc.2", "v1.9.0-alpha", "v1.8.0"];
    sh(&repo.dir, &format!("for tag in {}; do git tag $tag; done", newest_first.join(" ")));
    // A branch of the same name does not change the tag's.
    sh(&repo.dir, "git branch v2 HEAD~1");
    let tags = value(&home, &repo.dir, "tags(100)");
    let names: Vec<&str> = tags.as_array().unwrap().iter().map(|tag| tag["tag"].as_str().unwrap()).collect();
    assert_eq!(names, newest_first);
    assert_eq!(value(&home, &repo.dir, "tags(1)")[0]["commit"], repo.id("two"));
    assert_eq!(value(&home, &repo.dir, "resolve(\"v2\")")["commit"], repo.id("two"));
    sh(&repo.dir, "git checkout --quiet v2 --");
    assert_eq!(value(&home, &repo.dir, "head()")["branch"], "v2");
}

#[test]
fn a_tag_says_what_it_is_and_which_commit_is_at_its_end() {
    let home = Home::new();
    let repo = two(&home.path("r"));
    sh(
        &repo.dir,
        "git tag plain HEAD~1; git tag -a -m 'a note' noted HEAD~1; git tag -a -m again chain noted 2>/dev/null",
    );
    sh(&repo.dir, "git tag tree HEAD^{tree}; git tag -a -m file file HEAD:a");
    let key = home.path("key");
    sh(&repo.dir, &format!("ssh-keygen -q -t ed25519 -N '' -f '{}'", key.display()));
    let sign = "-c gpg.format=ssh -c user.signingkey";
    sh(&repo.dir, &format!("git {sign}='{}' tag -s -m release signed HEAD~1", key.display()));
    let tags = value(&home, &repo.dir, "tags(100)");
    let told = |name: &str| {
        let tag = tags.as_array().unwrap().iter().find(|tag| tag["tag"] == name).unwrap_or_else(|| panic!("{name}"));
        (tag["kind"].as_str().unwrap().to_string(), tag["commit"].clone(), tag["deployable"].as_bool().unwrap())
    };
    let one = json!(repo.id("one"));
    for (name, kind) in [("plain", "lightweight"), ("noted", "annotated"), ("chain", "annotated"), ("signed", "signed")]
    {
        assert_eq!(told(name), (kind.into(), one.clone(), true), "{name}");
        assert_eq!(value(&home, &repo.dir, &format!("resolve(\"{name}\")"))["commit"], one, "{name}");
    }
    assert_eq!(told("tree"), ("lightweight".into(), Value::Null, false));
    assert_eq!(told("file"), ("annotated".into(), Value::Null, false));
    let (kind, why) = error(&home, &repo.dir, "resolve(\"tree\")");
    assert!(kind == "not_found" && why.contains("a tag of something that is no commit"), "{kind}: {why}");
}

#[test]
fn hostile_names_are_listed_and_neither_run_nor_deployed() {
    let home = Home::new();
    let repo = two(&home.path("r"));
    let hostile = [
        "v1;touch${IFS}owned",
        "v1`touch${IFS}owned`",
        "v1$(touch${IFS}owned)",
        "v1|touch",
        "v1'x",
        "v1\"x",
        "v1&x",
        "v1>owned",
        "v1{x}",
        "-z",
        "--help",
        "日本",
    ];
    for name in hostile {
        said(git(&repo.dir).args(["update-ref", &format!("refs/tags/{name}"), "HEAD"]));
    }
    let tags = value(&home, &repo.dir, "tags(100)");
    let mut listed: Vec<&str> = tags.as_array().unwrap().iter().map(|tag| tag["tag"].as_str().unwrap()).collect();
    listed.sort();
    let mut expected = hostile.to_vec();
    expected.sort();
    assert_eq!(listed, expected);
    let all = tags.as_array().unwrap();
    assert!(all.iter().all(|tag| tag["deployable"] == false && tag["commit"] == repo.id("two")), "{tags}");
    assert_eq!(value(&home, &repo.dir, "head()")["tags"].as_array().unwrap().len(), hostile.len());
    for name in hostile {
        assert_eq!(error(&home, &repo.dir, &format!("resolve({name:?})")).0, "usage", "{name}");
    }
    assert!(!repo.dir.join("owned").exists() && !home.path("owned").exists());
}

#[test]
fn a_tag_that_was_moved_on_origin_is_seen_without_a_fetch() {
    let home = Home::new();
    let repo = two(&home.path("origin"));
    sh(&repo.dir, "git tag v1 HEAD~1; git tag -a -m x v2 HEAD~1");
    let clone = home.path("clone");
    sh(&repo.dir, &format!("git clone --quiet . '{}'", clone.display()));
    sh(&repo.dir, "git tag --force v1 HEAD; git tag --force -a -m x v2 HEAD; git tag v3");
    sh(&clone, "git fetch --quiet; git tag own");
    for tag in ["v1", "v2"] {
        let moved = value(&home, &clone, &format!("resolve(\"{tag}\")"));
        let (here, there) = (repo.id("one"), repo.id("two"));
        let expected = json!({ "tag": tag, "commit": here, "remote": there, "moved": true, "remote_error": null });
        assert_eq!(moved, expected, "git fetch did not tell, and did not take it over");
    }
    assert_eq!(value(&home, &clone, "resolve(\"own\")")["remote"], Value::Null);
    assert_eq!(value(&home, &clone, "resolve(\"own\")")["moved"], false);
}

#[test]
fn an_origin_that_is_not_there_refuses_or_is_silent_is_a_note() {
    let home = Home::new();
    let repo = two(&home.path("r"));
    sh(&repo.dir, "git tag v1");
    let noted = || {
        let told = value(&home, &repo.dir, "resolve(\"v1\")");
        assert_eq!((&told["commit"], &told["moved"]), (&json!(repo.id("two")), &json!(false)));
        told["remote_error"].as_str().unwrap().to_string()
    };
    assert!(noted().contains("'origin' does not appear to be a git repository"));
    sh(&repo.dir, "git remote add origin ../gone");
    assert!(noted().contains("'../gone' does not appear to be a git repository"));
    // Whatever code an address asks for.
    sh(&repo.dir, "git remote set-url origin 'ext::touch owned'");
    assert!(noted().contains("transport 'ext' not allowed"));
    let silent = TcpListener::bind("127.0.0.1:0").unwrap();
    sh(&repo.dir, &format!("git remote set-url origin git://{}/x", silent.local_addr().unwrap()));
    assert_eq!(noted(), "no answer within 10 s");
    assert!(!repo.dir.join("owned").exists());
}

// ── what is never run ──

#[test]
fn programs_that_a_clone_names_are_not_run() {
    let home = Home::new();
    let repo = two(&home.path("r"));
    let owned = home.path("owned");
    let script = format!("#!/bin/sh\ntouch '{}'\n", owned.display());
    for hook in ["post-checkout", "post-index-change", "reference-transaction"] {
        std::fs::write(repo.dir.join(".git/hooks").join(hook), &script).unwrap();
    }
    let program = home.put("program", &script);
    sh(&repo.dir, &format!("chmod +x .git/hooks/post-* .git/hooks/reference-* '{program}'"));
    let key = home.path("key");
    sh(&repo.dir, &format!("ssh-keygen -q -t ed25519 -N '' -f '{}'", key.display()));
    let sign = format!("-c gpg.format=ssh -c user.signingkey='{}'", key.display());
    sh(&repo.dir, &format!("git -c core.hooksPath=/dev/null {sign} commit --quiet --allow-empty -S -m signed"));
    for name in
        ["core.fsmonitor", "core.pager", "pager.tag", "gpg.program", "gpg.ssh.program", "diff.external", "core.editor"]
    {
        sh(&repo.dir, &format!("git config {name} '{program}'"));
    }
    sh(&repo.dir, "git config log.showSignature true");
    sh(&repo.dir, "git -c core.hooksPath=/dev/null -c core.fsmonitor=false tag v1");
    for call in ["head()", "status()", "tags(5)", "resolve(\"v1\")", "merge_check(\"main\", \"v1\")"] {
        value(&home, &repo.dir, call);
        assert!(!owned.exists(), "{call}");
    }
    let code = format!("host(\"local\").repo({:?}).checkout(\"{}\").changed", repo.dir.display(), repo.id("one"));
    home.run(&["--yes", "-e", &code]).exits(0).prints("true\n");
    assert!(!owned.exists());
    git(&repo.dir).args(["log", "-1"]).output().unwrap();
    git(&repo.dir).args(["status"]).output().unwrap();
    assert!(owned.exists(), "git itself runs them");
}
