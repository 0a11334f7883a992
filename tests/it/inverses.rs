//! What an inverse may be and do: only what was shown, and all of it or said to be half done.

use super::home::{Home, Ran};
use std::os::unix::fs::{PermissionsExt, chown};

/// Runs one line, agreed to beforehand.
fn line(home: &Home, code: &str) -> Ran {
    let dir = home.path("").display().to_string();
    home.run(&["--yes", "-e", &code.replace("DIR", dir.trim_end_matches('/'))])
}

/// As another version of opsh, or somebody who can write the journal, would have recorded the changes.
fn rewrite(home: &Home, key: &str, value: &str) {
    let database = rusqlite::Connection::open(home.journal()).unwrap();
    database.execute_batch("DROP TRIGGER journal_no_update").unwrap();
    let sql = "UPDATE journal SET body = json_set(body, ?1, ?2) WHERE kind = 'effect.begin'";
    assert!(database.execute(sql, [key, value]).unwrap() > 0);
}

#[test]
fn a_change_of_an_unknown_verb_is_never_taken_back() {
    let home = Home::new();
    line(&home, "host(\"local\").run([\"touch\", \"DIR/a\"], #{ undo: `host(\"local\").run([\"rm\", \"DIR/a\"])` })")
        .exits(0);
    rewrite(&home, "$.verb", "host.run_next");
    for words in [&["undo", "last"][..], &["--yes", "undo", "last"]] {
        let ran = home.run(words).exits(0).prints("nothing to undo\n");
        ran.says(&["this opsh has no verb host.run_next", "its inverse is host(\"local\").run([\"rm\""]);
        assert!(home.path("a").exists(), "{words:?}");
    }
    let listed = home.run(&["runs"]).exits(0);
    assert!(!listed.out.contains("opsh undo"), "{}", listed.out);
}

#[test]
fn an_inverse_imports_no_file() {
    let home = Home::new();
    home.put("lib.rhai", "fn back() { host(\"local\").run([\"touch\", \"there\"]) }");
    let touch = |inverse: &str| format!("host(\"local\").run([\"touch\", \"DIR/a\"], #{{ undo: `{inverse}` }})");
    for inverse in [
        "import \"lib\" as l; l::back()",
        "if true { import \"./lib\" as l; l::back(); }",
        "fn f() { import \"lib\" as l; l::back() } f()",
        "let name = \"lib\"; import name as l; l::back()",
    ] {
        let refused = line(&home, &touch(inverse)).exits(2);
        refused.says(&["may import only std/", "write the calls themselves"]);
        assert!(!home.path("a").exists(), "{inverse}");
    }
    line(&home, &touch("import \"std/text\" as t; host(\"local\").run([\"rm\", \"DIR/a\"])")).exits(0);
    home.run(&["--yes", "undo", "last"]).exits(0);
    assert!(!home.path("a").exists());

    // One that an older opsh recorded.
    line(&home, &touch("host(\"local\").run([\"rm\", \"DIR/a\"])")).exits(0);
    rewrite(&home, "$.inverse", "import \"lib\" as l; l::back(); host(\"local\").run([\"true\"])");
    home.run(&["--yes", "undo", "last"]).exits(2).says(&[
        "nothing was done",
        "may import only std/",
        "opsh journal show",
    ]);
    assert!(!home.path("there").exists());
}

/// The inverse removes three files; the second one is a folder.
fn half_undone(home: &Home) {
    std::fs::create_dir(home.path("d")).unwrap();
    let inverse = "for x in [\"a\", \"b\", \"c\"] { host(\"local\").run([\"rm\", \"DIR/d/\" + x]) }";
    line(home, &format!("host(\"local\").run([\"true\"], #{{ undo: `{inverse}` }})")).exits(0);
    home.put("d/a", "");
    std::fs::create_dir(home.path("d/b")).unwrap();
    home.put("d/c", "");
    home.run(&["--yes", "undo", "last"]).exits(4).says(&["a person is needed"]);
    std::fs::remove_dir(home.path("d/b")).unwrap();
    home.put("d/b", "");
    assert!(!home.path("d/a").exists());
}

#[test]
fn half_an_inverse_is_not_said_to_be_undone() {
    let home = Home::new();
    half_undone(&home);
    let refused = home.run(&["--yes", "undo", "last"]).exits(3);
    refused.says(&["/d/a     done already", "/d/b     failed: ", "stopped half way", "--allow host.run"]);
    home.run(&["undo", "last", "--plan"]).exits(0).says(&["/d/a     done already"]);
    assert!(home.path("d/b").exists() && home.path("d/c").exists());

    // An attempt that fails at its first call does not make it forgotten.
    home.run(&["--yes", "--allow", "host.run", "undo", "last"]).exits(4);
    home.run(&["--yes", "undo", "last"]).exits(3).says(&["/d/a     done already", "stopped half way"]);

    home.put("d/a", "");
    let again = home.run(&["--yes", "--allow", "host.run", "undo", "last"]).exits(0);
    assert!(again.out.starts_with("undone: 1 of 1"), "{}", again.out);
    assert!(!home.path("d/a").exists() && !home.path("d/b").exists() && !home.path("d/c").exists());
    home.run(&["--yes", "undo", "last"]).exits(0).prints("nothing to undo\n");
}

#[test]
fn an_inverse_that_was_killed_before_its_end_is_half_done() {
    if !cfg!(debug_assertions) {
        return super::skip::skip("a release build of opsh cannot be told when to die");
    }
    for (inverse, whole) in [
        ("host(\"local\").run([\"touch\", \"DIR/x\"])", true),
        ("for x in [\"x\", \"y\"] { host(\"local\").run([\"touch\", \"DIR/\" + x]) }", false),
        ("host(\"local\").run([\"touch\", \"DIR/x\"]); host(\"local\").run([\"touch\", \"DIR/y\"])", false),
    ] {
        let home = Home::new();
        line(&home, &format!("host(\"local\").run([\"true\"], #{{ undo: `{inverse}` }})")).exits(0);
        let killed = home.run_with(&["undo", "last", "--yes"], "OPSH_TEST_KILL", "performed:1");
        assert_eq!(killed.signal, Some(libc::SIGKILL), "{killed:?}");
        let again = home.run(&["undo", "last", "--yes"]);
        match whole {
            true => drop(again.exits(0).prints("nothing to undo\n")),
            false => drop(again.exits(3).says(&["/x     done already", "stopped half way"])),
        }
    }
}

// ── looking changes nothing ──

#[test]
fn a_command_that_knows_no_mode_is_refused_in_one() {
    let home = Home::new();
    line(&home, "host(\"local\").run([\"sleep\", \"20\"], #{ within_s: 1 })").exits(4);
    let before = home.run(&["journal", "verify"]).exits(0).out;
    for mode in ["--plan", "--observe"] {
        for (words, named) in [
            (&["journal", "prune", "--before", "0d", "--yes"][..], "journal prune"),
            (&["journal", "settle", "last", "it slept"], "journal settle"),
            (&["attach", "last"], "attach RUN"),
        ] {
            let words: Vec<&str> = std::iter::once(mode).chain(words.iter().copied()).collect();
            home.run(&words).exits(2).says(&[mode, named, "without "]);
        }
        home.run(&[mode, "journal", "show", "last"]).exits(0);
        home.run(&[mode, "runs"]).exits(0);
    }
    assert_eq!(home.run(&["journal", "verify"]).exits(0).out, before);
    home.run(&["journal", "settle", "last", "it slept"]).exits(0);
}

#[test]
fn an_undo_that_only_looks_settles_nothing() {
    let home = Home::new();
    if !cfg!(debug_assertions) {
        return super::skip::skip("a release build of opsh cannot be told when to die");
    }
    let code = "host(\"local\").run([\"touch\", \"DIR/a\"], #{ undo: `host(\"local\").run([\"rm\", \"DIR/a\"])` })";
    let dir = home.path("").display().to_string();
    let code = code.replace("DIR", dir.trim_end_matches('/'));
    home.run_with(&["--yes", "-e", &code], "OPSH_TEST_KILL", "performed:1");
    let results = || std::fs::read_dir(home.path("state/opsh/runs")).unwrap().count();
    let settled = || {
        let database = rusqlite::Connection::open(home.journal()).unwrap();
        let count = "SELECT count(*) FROM journal WHERE kind = 'effect.settled'";
        database.query_row(count, [], |row| row.get::<_, i64>(0)).unwrap()
    };
    assert_eq!(results(), 1);
    home.run(&["undo", "last", "--plan"]).exits(0).says(&["it happened", "would: rm"]);
    home.run(&["--observe", "undo", "last"]).exits(3);
    assert_eq!((results(), settled()), (1, 0), "nothing was settled or removed");
    home.run(&["--yes", "undo", "last"]).exits(0);
    assert_eq!(settled(), 1);
    assert!(!home.path("a").exists());
}

// ── what a record names ──

/// Somebody else: the user `nobody`.
const STRANGER: u32 = 65534;

fn is_root() -> bool {
    // SAFETY: a system call without arguments.
    unsafe { libc::geteuid() == 0 }
}

/// Runs in a folder of the home.
fn run_in(home: &Home, dir: &str, words: &[&str]) -> Ran {
    Ran::of(home.command(words).current_dir(home.path(dir)).output().unwrap())
}

const FAILS_ONCE: &str = "let h = host(\"local\");
step(\"first\", || { h.run([\"true\"]); () });
if h.read([\"ls\"]).out.contains(\"fail\") { throw \"no\" }
file::write(\"out.txt\", \"new\");";

#[test]
fn a_configuration_that_a_record_names_is_judged_like_a_found_one() {
    if !is_root() {
        return super::skip::skip("only root can give a folder away");
    }
    let home = Home::new();
    std::fs::create_dir_all(home.path("shared/proj")).unwrap();
    std::fs::create_dir(home.path("home")).unwrap();
    home.put("shared/proj/opsh.toml", "[host.web]\nssh = \"nobody@127.0.0.1\"\n");
    let touch = home.path("a").display().to_string();
    let code =
        format!("host(\"local\").run([\"touch\", {touch:?}], #{{ undo: `host(\"local\").run([\"rm\", {touch:?}])` }})");
    run_in(&home, "shared/proj", &["--yes", "-e", &code]).exits(0);
    home.put("shared/proj/s.rhai", "host(\"local\").run([\"true\"]); throw \"no\"");
    run_in(&home, "shared/proj", &["--yes", "s.rhai"]).exits(1);

    std::fs::rename(home.path("shared/proj"), home.path("shared/old")).unwrap();
    std::fs::create_dir(home.path("shared/proj")).unwrap();
    let program = home.put("shared/proj/pw.sh", &format!("#!/bin/sh\ntouch {}\necho pw\n", home.path("ran").display()));
    std::fs::set_permissions(&program, std::fs::Permissions::from_mode(0o755)).unwrap();
    home.put(
        "shared/proj/opsh.toml",
        &format!("[host.web]\nssh = \"nobody@127.0.0.1\"\npassword = \"cmd:{program}\"\n"),
    );
    home.put("shared/proj/s.rhai", "host(\"local\").run([\"true\"]); throw \"no\"");
    for name in ["", "/opsh.toml", "/s.rhai", "/pw.sh"] {
        chown(home.path(&format!("shared/proj{name}")), Some(STRANGER), None).unwrap();
    }
    let runs = super::undo::runs(&home);
    let first = runs.last().unwrap()["run"].as_str().unwrap();
    for words in [&["undo", first, "--plan"][..], &["--yes", "undo", first], &["--yes", "resume", "last"]] {
        let ran = run_in(&home, "home", words).exits(2);
        ran.says(&["shared/proj", "belongs to user 65534"]);
        assert!(home.path("a").exists() && !home.path("ran").exists(), "{words:?}");
    }
    // The old folder is back.
    std::fs::rename(home.path("shared/proj"), home.path("shared/new")).unwrap();
    std::fs::rename(home.path("shared/old"), home.path("shared/proj")).unwrap();
    run_in(&home, "home", &["--yes", "undo", first]).exits(0);
    assert!(!home.path("a").exists());
}

#[test]
fn a_run_is_not_undone_or_resumed_where_its_names_mean_others() {
    let home = Home::new();
    let (dir, name) = (home.path("repo"), home.path("repo").display().to_string());
    let commits = super::undo::repository(&dir);
    let config = |dir: &str, more: &str| {
        let compose = "compose = { files = [\"c.yml\"], project = \"p\" }\n";
        home.put("opsh.toml", &format!("[stack.prod]\nhost = \"local\"\ndir = \"{dir}\"\n{more}{compose}"));
    };
    config(&name, "");
    home.put("s.rhai", &format!("stack(\"prod\").repo.checkout(\"{}\"); throw \"no\"", commits[1]));
    home.run(&["--yes", "s.rhai"]).exits(1);
    config("/elsewhere", "");
    for verb in ["undo", "resume"] {
        let ran = home.run(&["--yes", verb, "last"]).exits(2);
        ran.says(&[
            "prod is not what it was",
            &format!("it was {name} on local"),
            "and is /elsewhere on local",
            "opsh --config ",
        ]);
    }
    config(&name, "cron = [\"batch\"]\n");
    home.run(&["--yes", "undo", "last"]).exits(2).says(&["its table is "]);
    // Blanks and comments are no difference, and a person may say that the file is right as it is.
    config(&name, "# as before\n");
    home.run(&["undo", "last", "--plan"]).exits(0);
    config(&name, "cron = [\"batch\"]\n");
    let path = home.path("opsh.toml").display().to_string();
    home.run(&["--config", &path, "--yes", "undo", "last"]).exits(0);
    assert_eq!(super::undo::head(&dir), commits[0]);
}

#[test]
fn a_host_that_only_the_inverse_names_must_mean_the_same_too() {
    let home = Home::new();
    home.put("opsh.toml", "[host.db]\nssh = \"a@127.0.0.1:1\"\n");
    line(&home, "host(\"local\").run([\"true\"], #{ undo: `host(\"db\").run([\"reboot\"])` })").exits(0);
    home.put("opsh.toml", "[host.db]\nssh = \"a@127.0.0.1:2\"\n");
    home.run(&["undo", "last", "--plan"]).exits(2).says(&["db is not what it was", "opsh --config "]);
}

#[test]
fn a_run_goes_on_and_back_in_its_own_folder() {
    let home = Home::new();
    for dir in ["r1", "r2"] {
        std::fs::create_dir(home.path(dir)).unwrap();
        home.put(&format!("{dir}/out.txt"), dir);
    }
    home.put("r1/s.rhai", FAILS_ONCE);
    home.put("r1/fail", "");
    run_in(&home, "r1", &["--yes", "s.rhai"]).exits(1);
    std::fs::remove_file(home.path("r1/fail")).unwrap();
    let read = |name: &str| std::fs::read_to_string(home.path(name)).unwrap();
    run_in(&home, "r2", &["--yes", "resume", "last"]).exits(0).says(&["r1, where run "]);
    assert_eq!((read("r1/out.txt").as_str(), read("r2/out.txt").as_str()), ("new", "r2"));

    home.put("r2/x", "");
    let code = "host(\"local\").run([\"touch\", \"x\"], #{ undo: `host(\"local\").run([\"rm\", \"x\"])` })";
    run_in(&home, "r1", &["--yes", "-e", code]).exits(0);
    run_in(&home, "r2", &["--yes", "undo", "last"]).exits(0);
    assert!(!home.path("r1/x").exists() && home.path("r2/x").exists());

    run_in(&home, "r1", &["--yes", "-e", code]).exits(0);
    std::fs::rename(home.path("r1"), home.path("r3")).unwrap();
    run_in(&home, "r2", &["--yes", "undo", "last"]).exits(2).says(&["it worked in ", "cd /", "r1 && opsh undo "]);
    assert!(home.path("r2/x").exists());
}

// ── imports ──

#[test]
fn a_file_with_the_name_of_a_line_vouches_for_nobody() {
    if !is_root() {
        return super::skip::skip("only root can give a file away");
    }
    let home = Home::new();
    std::fs::create_dir(home.path("open")).unwrap();
    std::fs::set_permissions(home.path("open"), std::fs::Permissions::from_mode(0o1777)).unwrap();
    let ran = home.path("ran").display().to_string();
    home.put("open/x.rhai", &format!("fn f() {{ host(\"local\").run([\"touch\", {ran:?}]) }}"));
    for name in ["line 1", "line 2", "own.rhai"] {
        home.put(&format!("open/{name}"), "import \"x\" as x; x::f()");
    }
    for name in ["x.rhai", "line 1", "line 2"] {
        chown(home.path(&format!("open/{name}")), Some(STRANGER), None).unwrap();
    }
    for code in ["import \"x\" as x; x::f()", "if true { import \"x\" as x; x::f() }"] {
        let refused = run_in(&home, "open", &["--yes", "-e", code]).exits(2);
        refused.says(&["module x.rhai was not imported", "belongs to user 65534"]);
    }
    home.put("open/typed", "1\nif true { import \"x\" as x; x::f() }\n");
    run_in(&home, "open", &["--yes", "--typed", "typed"]).says(&["module x.rhai was not imported"]);
    run_in(&home, "open", &["--yes", "own.rhai"]).exits(2).says(&["module x.rhai was not imported"]);
    // What cannot be read is not tried, either.
    std::fs::set_permissions(home.path("open/x.rhai"), std::fs::Permissions::from_mode(0o000)).unwrap();
    run_in(&home, "open", &["--yes", "own.rhai"]).exits(2).says(&["belongs to user 65534"]);
    assert!(!home.path("ran").exists());

    // A person who names the file of somebody trusts that one, whatever name the path gives it.
    std::fs::set_permissions(home.path("open/x.rhai"), std::fs::Permissions::from_mode(0o644)).unwrap();
    run_in(&home, "open", &["--yes", "./line 1"]).exits(0);
    assert!(home.path("ran").exists());
}

/// Writes a password into a file, and takes that back.
const ROTATE: &str = r#"
let put = |p| ["sh", "-c", `echo PASSWORD=${p} > DIR/f.env`];
host("local").run(put.call("new-value-2"), #{ undo: `host("local").run(["sh", "-c", "echo PASSWORD=old-value-1 > DIR/f.env"])` });
"#;

#[test]
fn an_inverse_whose_secret_the_record_hides_is_not_performed_with_the_mark_in_its_place() {
    let home = Home::new();
    let now = || std::fs::read_to_string(home.path("f.env")).unwrap();
    let said = "what takes it back holds a secret, which the journal does not keep: opsh undo will not take it back";
    let (dir, plan) = (home.path("").display().to_string(), ROTATE.replace("DIR", "."));
    home.run(&["--plan", "-e", &plan]).exits(0).says(&[said]);
    line(&home, ROTATE).exits(0).says(&[said]);
    let undone = home.run(&["--yes", "undo", "last"]).exits(0).prints("nothing to undo\n");
    undone.says(&["which the journal does not keep: take it back by hand", "opsh journal show "]);
    assert_eq!(now(), "PASSWORD=new-value-2\n");
    // The process that made the change knows the line.
    let guarded = format!("undo::guard(|| {{ {ROTATE} throw \"sick\"; }})");
    home.put("s.rhai", &guarded.replace("DIR", dir.trim_end_matches('/')));
    home.run(&["--yes", "s.rhai"]).exits(1).says(&["taken back: 1 of 1"]);
    assert_eq!(now(), "PASSWORD=old-value-1\n");
}

#[test]
fn a_harmless_name_that_is_a_secret_too_is_said_before_the_change() {
    let home = Home::new();
    home.put(".env", "DB_PASSWORD=walrus-shop\n");
    let stack = "host = \"local\"\ndir = \".\"\ncompose = { files = [\"c.yml\"], project = \"p\" }\n";
    let dir = home.path("").display().to_string();
    home.put("opsh.toml", &format!("[stack.s]\n{}", stack.replace("\".\"", &format!("{dir:?}"))));
    let code = "host(\"local\").read([\"true\"]); file::write(\"DIR/walrus-shop\", \"x\")";
    line(&home, code).exits(0).says(&["what takes it back holds a secret"]);
    home.run(&["--yes", "undo", "last"]).exits(0).says(&["take it back by hand"]).prints("nothing to undo\n");
    assert!(home.path("walrus-shop").exists());
}

#[test]
fn a_line_with_a_mark_in_place_of_a_secret_is_not_performed() {
    let home = Home::new();
    let refused = line(&home, "host(\"local\").run([\"touch\", \"DIR/•••#3f9a\"])").exits(2);
    refused.says(&["the line was not performed", "have it read the secret where it is"]);
    assert!(!home.path("•••#3f9a").exists());
    home.put("s.rhai", "//! usage: opsh s.rhai NAME\nprint(script().words);\n");
    home.run(&["s.rhai", "•••#3f9a"]).exits(2).says(&["s.rhai was not run"]);
    let refused = line(&home, "host(\"local\").run([\"true\"], #{ undo: \"x(`••\" + \"•#3f9a`)\" })").exits(2);
    refused.says(&["undo has a mark"]);
}

#[test]
fn a_guard_takes_back_what_has_the_name_of_a_secret() {
    let home = Home::new();
    home.put(".env", "DB_PASSWORD=walrus-shop\n");
    let dir = home.path("").display().to_string();
    let stack = format!("host = \"local\"\ndir = {dir:?}\ncompose = {{ files = [\"c.yml\"], project = \"p\" }}\n");
    home.put("opsh.toml", &format!("[stack.s]\n{stack}"));
    line(&home, "undo::guard(|| { file::write(\"DIR/walrus-shop\", \"x\"); throw \"sick\"; })")
        .exits(1)
        .says(&["taken back: 1 of 1 effects"]);
    assert!(!home.path("walrus-shop").exists());
}
