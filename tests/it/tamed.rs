//! A repository whose every setting names a program: reads run none of them.

use crate::git::sh;
use crate::home::Home;
use serde_json::json;

/// Settings that name a program; `@` is a script that leaves a file behind.
const NAMED: &str = r#"
git config alias.log '!@'
git config alias.status '!@'
git config core.alternateRefsCommand @
git config core.askPass @
git config core.editor @
git config core.fsmonitor @
git config core.gitProxy @
git config core.hooksPath hooks
git config core.pager @
git config core.sshCommand @
git config credential.helper '!@'
git config credential.https://127.0.0.1:1.helper '!@'
git config diff.evil.command @
git config diff.evil.textconv @
git config diff.external @
git config diff.submodule diff
git config filter.evil.clean @
git config filter.evil.process @
git config filter.evil.required true
git config filter.evil.smudge @
git config 'filter.e=v.clean' @
git config "filter.e'v.clean" @
git config gpg.program @
git config gpg.ssh.program @
git config http.saveCookies true
git config http.cookieFile made
git config log.showSignature true
git config merge.evil.driver @
git config pager.log @
git config pager.status @
git config protocol.allow always
git config protocol.ext.allow always
git config remote.origin.receivepack @
git config remote.origin.uploadpack @
git config status.submoduleSummary true
git config submodule.recurse true
git config uploadpack.packObjectsHook @
git config --file more filter.included.clean @
git config include.path ../more
git config extensions.worktreeConfig true
git config --worktree filter.tree.clean @
"#;

/// A repository with those settings, files that they are about, a submodule that has the like, and a signed commit.
const MAKE: &str = r#"
git init --quiet -b main . && mkdir hooks
for hook in post-index-change post-checkout reference-transaction fsmonitor-watchman pre-auto-gc; do
    printf '#!/bin/sh\n: >@made\n' >hooks/$hook && chmod 755 hooks/$hook
done
git init --quiet -b main sub && (cd sub && echo 1 >a && echo 'a filter=evil diff=evil' >.gitattributes && git add . && git commit --quiet -m sub)
printf '[submodule "sub"]\n\tpath = sub\n\turl = ./sub\n' >.gitmodules
echo 'a filter=evil diff=evil merge=evil' >.gitattributes
printf 'b filter=e=v\nc filter=e'"'"'v\nd filter=included\ne filter=tree\n' >>.gitattributes
for name in a b c d e; do echo 1 >$name; done
git add . && git commit --quiet -m one && git branch side && echo 2 >a && git commit --quiet -am two
git checkout --quiet side && echo 3 >a && (cd sub && echo 2 >a && git commit --quiet -am more) && git commit --quiet -am three
git cat-file commit HEAD | sed '/^committer/a gpgsig -----BEGIN PGP SIGNATURE-----\n \n x\n -----END PGP SIGNATURE-----' >signed
git checkout --quiet main && git reset --quiet --hard $(git hash-object -t commit -w signed) && rm signed && git tag v1
(cd sub && git config filter.evil.clean @ && git config core.fsmonitor @ && git config diff.evil.textconv @ && echo 1 >a)
"#;

#[test]
fn no_read_runs_a_program_that_the_repository_names() {
    let home = Home::new();
    let dir = home.path("r");
    std::fs::create_dir(&dir).unwrap();
    let (script, made) = (home.path("canary"), home.path("made"));
    std::fs::write(&script, format!("#!/bin/sh\n: >'{}'\n", made.display())).unwrap();
    sh(&home.path("."), &format!("chmod 755 '{}'", script.display()));
    let at = script.display().to_string();
    sh(&dir, &MAKE.replace("@made", &made.display().to_string()).replace('@', &at));
    sh(&dir, &NAMED.replace('@', &at));
    assert!(!made.exists());
    // New times: git has to look into the files, and so to filter them.
    let touch = || sh(&dir, "touch -d '2001-01-01' a b c d e sub/a");
    touch();
    sh(&dir, "git show >/dev/null 2>&1 || :");
    assert!(made.exists(), "the settings are none that git itself obeys");
    std::fs::remove_file(&made).unwrap();

    let repo = format!("host(\"local\").repo({:?})", dir.display().to_string());
    let head = sh(&dir, "git rev-parse HEAD");
    let head = head.trim();
    let verbs = ["head()", "tags(5)", "status()", "merge_check(\"main\", \"side\")"].map(String::from);
    let of_files = [format!("files(\"{head}\", \".\")"), format!("has_file(\"{head}\", \"a\")")];
    let mut lines: Vec<String> = verbs.iter().chain(&of_files).map(|verb| format!("{repo}.{verb}")).collect();
    for words in [
        "cat-file -p HEAD:a",
        "describe --always",
        "log",
        "log --format=%G? -1",
        "log -p",
        "log -p --all -S1",
        "log --stat side",
        "ls-files -m",
        "ls-files -cds",
        "ls-tree HEAD",
        "merge-base main side",
        "rev-list --all",
        "rev-parse HEAD",
        "show",
        "show HEAD:a",
        "show -p --raw side",
        "status",
        "status -s --untracked-files=all",
        "status --porcelain=v2",
    ] {
        let words: Vec<&str> = std::iter::once("git").chain(words.split(' ')).collect();
        let options = json!({ "dir": dir, "check": false }).to_string();
        lines.push(format!("host(\"local\").read({}, #{options})", json!(words)));
    }
    for line in &lines {
        touch();
        home.run(&["--observe", "-e", line]).exits(0);
        assert!(!made.exists(), "{line}");
    }
    for origin in [
        format!("ext::{at} x"),
        "ssh://git@127.0.0.1:1/x".into(),
        "git://127.0.0.1:1/x".into(),
        "https://127.0.0.1:1/x".into(),
        "evil://x".into(),
        dir.display().to_string(),
    ] {
        sh(&dir, &format!("git config remote.origin.url '{origin}'"));
        let line = format!("{repo}.resolve(\"v1\")");
        home.run(&["--observe", "-e", &line]).exits(0);
        assert!(!made.exists(), "{line} of {origin}");
    }
    sh(
        &dir,
        "git config remote.origin.vcs ext; git config remote.origin.promisor true; git config extensions.partialClone origin",
    );
    sh(
        &dir,
        &format!("git config remote.origin.url '{at} x'; rm -f .git/objects/$(git rev-parse HEAD:a | sed 's#^..#&/#')"),
    );
    let show = json!(["git", "show", "HEAD:a"]);
    let options = json!({ "dir": dir, "check": false }).to_string();
    for line in [format!("{repo}.resolve(\"v1\")"), format!("host(\"local\").read({show}, #{options})")] {
        home.run(&["--observe", "-e", &line]).exits(0);
        assert!(!made.exists(), "{line} of a partial clone");
    }
}

#[test]
fn a_checkout_runs_the_filters_of_its_repository() {
    let home = Home::new();
    let dir = home.path("r");
    std::fs::create_dir(&dir).unwrap();
    sh(
        &dir,
        "git init --quiet -b main . && echo 'a filter=up' >.gitattributes && echo one >a && git add . && git commit --quiet -m one",
    );
    sh(&dir, "echo two >a && git commit --quiet -am two && git config filter.up.smudge 'tr a-z A-Z'");
    let one = sh(&dir, "git rev-parse HEAD^");
    let code = format!("host(\"local\").repo({:?}).checkout(\"{}\")", dir.display().to_string(), one.trim());
    home.run(&["--yes", "-e", &code]).exits(0);
    assert_eq!(std::fs::read_to_string(dir.join("a")).unwrap(), "ONE\n", "a change was consented to");
}
