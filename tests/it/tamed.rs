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

/// A canary in `home`: the words that run it, and the file that it leaves.
fn canary(home: &Home) -> (String, std::path::PathBuf) {
    let (script, made) = (home.path("canary"), home.path("made"));
    std::fs::write(&script, format!("#!/bin/sh\n: >'{}'\ncat\n", made.display())).unwrap();
    sh(&home.path("."), "chmod 755 canary");
    (script.display().to_string(), made)
}

/// Lines of Rhai that look at the clone in `dir`.
fn looks(dir: &std::path::Path) -> Vec<String> {
    let read = |words: &str| {
        let words: Vec<&str> = words.split(' ').collect();
        format!("host(\"local\").read({}, #{})", json!(words), json!({ "dir": dir, "check": false }))
    };
    let repo = format!("host(\"local\").repo({:?})", dir.display().to_string());
    let verbs = ["status()", "head()", "resolve(\"v1\")"].map(|verb| format!("{repo}.{verb}"));
    let reads = ["git status -s", "git log -1 --format=%G?", "git show"].map(read);
    verbs.into_iter().chain(reads).collect()
}

/// A signed commit with a tag, a file that a filter is for, and an origin.
const SIGNED: &str = r#"
git init --quiet -b main . && echo '* filter=x diff=x' >.gitattributes && echo 1 >f && git add . && git commit --quiet -m one
git cat-file commit HEAD | sed '/^committer/a gpgsig -----BEGIN PGP SIGNATURE-----\n \n x\n -----END PGP SIGNATURE-----' >signed
git reset --quiet --hard $(git hash-object -t commit -w signed) && rm signed && git tag v1 && echo 2 >f
git remote add origin ssh://git@127.0.0.1:1/x
"#;

#[test]
fn settings_that_only_a_condition_across_files_shows_run_nothing() {
    let home = Home::new();
    let dir = home.path("r");
    std::fs::create_dir(&dir).unwrap();
    let (at, made) = canary(&home);
    sh(&dir, SIGNED);
    let hide = r#"git config extensions.worktreeConfig true
printf '[includeIf "hasconfig:remote.*.url:ssh://git@127.0.0.1:1/*"]\n path = evil.inc\n' >.git/config.worktree
for name in filter.x.clean diff.x.textconv diff.x.command gpg.program core.sshCommand core.fsmonitor; do
    git config --file .git/evil.inc $name CANARY
done"#;
    sh(&dir, &hide.replace("CANARY", &at));
    sh(&dir, "git status >/dev/null 2>&1 || :");
    assert!(made.exists(), "git itself does not obey the condition");
    std::fs::remove_file(&made).unwrap();
    for line in looks(&dir) {
        sh(&dir, "touch -d 2001-01-01 f");
        home.run(&["--observe", "-e", &line]).exits(0);
        assert!(!made.exists(), "{line}");
    }
}

#[test]
fn settings_that_change_while_git_looks_run_nothing() {
    let home = Home::new();
    let dir = home.path("r");
    std::fs::create_dir(&dir).unwrap();
    let (at, made) = canary(&home);
    sh(&dir, SIGNED);
    // A git that, before each command but the two that ask, gives the repository the settings of somebody else.
    let bin = home.path("bin");
    std::fs::create_dir(&bin).unwrap();
    let git = format!(
        "#!/bin/sh\nPATH=${{PATH#*:}}\ncase \" $* \" in *' config '* | *' rev-parse '*) ;; *) cp '{0}/evil' '{0}/r/.git/config'; : >'{0}/exchanged' ;; esac\nexec git \"$@\"\n",
        home.path("").display()
    );
    std::fs::write(bin.join("git"), git).unwrap();
    sh(
        &home.path(""),
        &format!(
            "chmod 755 bin/git; cp r/.git/config good; cp good evil; for name in filter.x.clean diff.x.textconv gpg.program core.sshCommand core.fsmonitor; do git config --file evil $name '{at}'; done"
        ),
    );
    let path = format!("{}:{}", bin.display(), std::env::var("PATH").unwrap());
    for line in looks(&dir) {
        sh(&dir, "cp ../good .git/config; rm -f ../exchanged; touch -d 2001-01-01 f");
        home.run_with(&["--observe", "-e", &line], "PATH", &path).exits(0);
        assert!(home.path("exchanged").exists() && !made.exists(), "{line}");
    }
}

#[test]
fn a_look_at_a_signature_leaves_the_home_as_it_was() {
    let home = Home::new();
    let dir = home.path("r");
    std::fs::create_dir(&dir).unwrap();
    sh(&dir, SIGNED);
    let mine = home.path("mine");
    std::fs::create_dir(&mine).unwrap();
    let words = json!(["git", "log", "-1", "--format=%G?"]);
    let line = format!("host(\"local\").read({words}, #{{\"dir\": {:?}}}).out", dir.display().to_string());
    home.run_with(&["--observe", "-e", &line], "HOME", &mine.display().to_string()).exits(0);
    assert!(!mine.join(".gnupg").exists());
}

#[test]
fn a_commit_is_never_another_one_in_its_place() {
    let home = Home::new();
    let dir = home.path("r");
    std::fs::create_dir(&dir).unwrap();
    sh(&dir, "git init --quiet -b main . && echo good >a && git add . && git commit --quiet -m good && git tag v1");
    sh(&dir, "git checkout --quiet -b evil && echo evil >a && echo evil >b && git add . && git commit --quiet -m evil");
    sh(&dir, "git replace v1 evil && git rev-parse evil >.git/info/grafts && git checkout --quiet evil");
    let good = sh(&dir, "GIT_NO_REPLACE_OBJECTS=1 git rev-parse v1");
    let good = good.trim();
    let repo = format!("host(\"local\").repo({:?})", dir.display().to_string());
    let files = home.run(&["--json", "-e", &format!("{repo}.files(\"{good}\", \".\")")]).exits(0).json_lines();
    assert_eq!(files, [json!(["a"])]);
    let words = json!(["git", "log", "--format=%s", "evil"]);
    let log = format!("host(\"local\").read({words}, #{{\"dir\": {:?}}}).out", dir.display().to_string());
    let log = home.run(&["--json", "-e", &log]).exits(0).json_lines();
    assert_eq!(log, [json!("evil\ngood\n")], "a graft cuts no history off");
    home.run(&["--yes", "-e", &format!("{repo}.checkout(\"{good}\")")]).exits(0);
    assert_eq!(std::fs::read_to_string(dir.join("a")).unwrap(), "good\n");
    assert!(!dir.join("b").exists());
}

/// Clones of every sort, each with the settings that make it one.
const SORTS: &str = r#"
git init --quiet -b main plain && cd plain && mkdir s && echo 1 >a && echo 1 >s/b && printf 'x\r\n' >crlf && git add . && git commit --quiet -m one
git tag -a v1 -m v1 && git branch side && echo 2 >a && git commit --quiet -am two && cd ..
git clone --quiet --bare plain bare.git && git --git-dir bare.git worktree add --quiet tree-of-bare side
git -C plain worktree add --quiet --detach ../tree v1 && echo more >>tree/a && echo x >tree/new
git clone --quiet --shared plain shared && (cd shared && git branch -q --track t origin/side && echo 3 >a && git commit --quiet -am three)
git clone --quiet --depth 1 "file://$PWD/plain" shallow
git clone --quiet --separate-git-dir apart.git plain apart && (cd apart && git config core.worktree ../apart && git rm -q a)
git clone --quiet plain sparse && (cd sparse && git sparse-checkout set --cone --sparse-index s && echo 2 >s/b)
git clone --quiet plain 'it'"'"'s "odd"' && (cd it* && git checkout -q -b 'a"b' && git config 'branch.a"b.remote' origin && git config 'branch.a"b.merge' refs/heads/main && git config 'url.x\"y.insteadOf' 'C:\z "')
git init --quiet -b main super && (cd super && git -c protocol.file.allow=always submodule --quiet add ../plain sub && git commit --quiet -m sub && cd sub && git checkout --quiet v1)
git clone --quiet plain crlf && (cd crlf && git config core.autocrlf true && rm crlf && git checkout --quiet . && git config core.fileMode false && chmod 755 a)
git clone --quiet plain link && (cd link && ln -sf refs/heads/main .git/HEAD && git update-index --split-index && echo 9 >a && git add a)
git init --quiet -b main --object-format=sha256 sha && (cd sha && echo 1 >a && git add . && git commit --quiet -m one && echo 2 >a)
if git init --quiet -b main --ref-format=reftable table 2>/dev/null; then
    cd table && echo 1 >a && git add . && git commit --quiet -m one && git tag v1 && git branch side && git worktree add --quiet ../tree-of-table side && echo 2 >a
fi
"#;

#[test]
fn a_tame_repository_answers_as_it_answers_git() {
    let home = Home::new();
    let all = home.path("all");
    std::fs::create_dir(&all).unwrap();
    sh(&all, SORTS);
    let mut folders: Vec<_> = std::fs::read_dir(&all).unwrap().map(|entry| entry.unwrap().path()).collect();
    folders.retain(|folder| !folder.ends_with("apart.git"));
    folders.extend([all.join("plain/s"), all.join("tree/s"), all.join("super/sub")]);
    folders.sort();
    assert!(folders.len() > 14, "{folders:?}");
    let asked = [
        "git status --porcelain=v2 -b",
        "git log --all --decorate --format=%H%d%s",
        "git rev-parse HEAD --show-toplevel",
        "git rev-parse --show-prefix --is-bare-repository --is-inside-work-tree --is-shallow-repository",
        "git rev-parse --abbrev-ref @{upstream}",
        "git ls-files -s -t --eol",
        "git log -p -g -2 --format=%H",
    ];
    for dir in &folders {
        // One opsh for each clone.
        let reads: Vec<String> = asked
            .iter()
            .map(|words| {
                let words: Vec<&str> = words.split(' ').collect();
                let options = json!({ "dir": dir, "check": false });
                format!("answers.push(host(\"local\").read({}, #{options}));", json!(words))
            })
            .collect();
        let code = format!("let answers = []; {} answers", reads.join(" "));
        let answers = home.run(&["--observe", "--json", "-e", &code]).exits(0).json_lines().remove(0);
        for (at, words) in asked.iter().enumerate() {
            // The one difference that is meant: nothing is asked of a submodule's own work tree.
            let plain = words.replacen("git status", "git status --ignore-submodules=dirty", 1);
            let plain = sh(
                dir,
                &format!(
                    "git -c core.quotePath=false {} 2>/dev/null || echo \"code $?\"",
                    &plain.replace("%H%d%s", "'%H%d%s'")[4..]
                ),
            );
            let code = &answers[at]["code"];
            let ours = answers[at]["out"].as_str().unwrap().to_string();
            let ours = if *code == json!(0) { ours } else { format!("{ours}code {code}\n") };
            assert_eq!(ours.trim(), plain.trim(), "{words} in {}", dir.display());
        }
    }
}

#[test]
fn git_is_started_in_one_place() {
    // A setting is written to a file that opsh made.
    let allowed = ["git config --file \"$settings\""];
    let (mut open, mut found) = (vec![std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("src/bind")], Vec::new());
    while let Some(path) = open.pop() {
        if path.is_dir() {
            open.extend(std::fs::read_dir(&path).unwrap().map(|entry| entry.unwrap().path()));
        } else if !path.ends_with("bind/git.rs") && !path.to_string_lossy().contains("/bind/git/") {
            let text = std::fs::read_to_string(&path).unwrap();
            let starts =
                |line: &&str| ["git -C", "git -c", "git rev-", "git worktree"].iter().any(|word| line.contains(word));
            let code = text.split("#[cfg(test)]").next().unwrap().lines().map(str::trim);
            let code = code.filter(|line| !line.starts_with("//") && !allowed.iter().any(|known| line.contains(known)));
            found.extend(code.filter(starts).map(|line| format!("{}: {line}", path.display())));
        }
    }
    found.retain(|line| !line.contains("reads/"));
    assert!(found.is_empty(), "git is not tamed there: {found:#?}");
}

#[test]
fn no_file_outside_that_the_repository_names_is_opened() {
    let home = Home::new();
    let dir = home.path("r");
    std::fs::create_dir(&dir).unwrap();
    crate::git::sh(&dir, "git init -q; echo x >f; git add f; git commit -qm one; mkfifo ../pipe");
    let pipe = home.path("pipe");
    for key in ["core.excludesFile", "core.attributesFile"] {
        crate::git::sh(&dir, &format!("git config {key} '{}'", pipe.display()));
    }
    // Whoever opens the pipe waits for who writes into it.
    let dir = dir.display();
    let code = format!(
        "host(\"local\").read([\"git\", \"status\", \"-s\"], #{{ dir: \"{dir}\", within_s: 30 }}).out + host(\"local\").repo(\"{dir}\").status().clean"
    );
    home.run(&["--observe", "-e", &code]).exits(0).prints("true\n");
}
