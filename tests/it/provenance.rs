//! What a run was made of: the script and each import in its record, with hash and commit, and whether that is what ran.

use super::home::Home;
use serde_json::{Value, json};
use std::path::Path;
use std::process::Command;

fn git(dir: &Path, words: &[&str]) -> String {
    let author = ["-c", "user.name=a", "-c", "user.email=a@example.com", "-c", "commit.gpgsign=false"];
    let done = Command::new("git").arg("-C").arg(dir).args(author).args(words).output().unwrap();
    assert!(done.status.success(), "{done:?}");
    String::from_utf8(done.stdout).unwrap().trim().to_string()
}

/// A repository in `ops` with a script that imports a module beside it and a built-in one.
fn home() -> Home {
    let home = Home::new();
    std::fs::create_dir_all(home.path("ops/lib")).unwrap();
    home.put("ops/a.rhai", "import \"lib/words\" as words;\nimport \"std/assert\" as assert;\nprint(words::one());\n");
    home.put("ops/lib/words.rhai", "import \"more\" as more;\nfn one() { more::two() }\n");
    home.put("ops/lib/more.rhai", "fn two() { 2 }\n");
    git(&home.path("ops"), &["init", "-q", "-b", "main"]);
    git(&home.path("ops"), &["add", "."]);
    git(&home.path("ops"), &["commit", "-q", "-m", "scripts"]);
    home
}

/// What the newest run says it was made of: role, name, commit, and whether that is not what ran.
fn sources(home: &Home) -> Vec<(String, String, Value, Value)> {
    let text = |value: &Value| value.as_str().unwrap().to_string();
    let records = home.records();
    let sources = records.iter().filter(|record| record["kind"] == "source").map(|record| &record["body"]);
    sources
        .map(|body| {
            assert_eq!(body["sha256"].as_str().unwrap().len(), 64, "{body}");
            (text(&body["role"]), text(&body["name"]), body["commit"].clone(), body["dirty"].clone())
        })
        .collect()
}

#[test]
fn script_and_imports_are_in_the_record_with_their_commit() {
    let home = home();
    home.run(&["ops/a.rhai"]).exits(0).prints("2\n");
    let commit = json!(git(&home.path("ops"), &["rev-parse", "HEAD"]));
    let of = |role: &str, name: &str, dirty: bool| (role.to_string(), name.to_string(), commit.clone(), json!(dirty));
    let built_in = ("import".to_string(), "std/assert.rhai".to_string(), Value::Null, Value::Null);
    let mut wanted = vec![of("script", "ops/a.rhai", false)];
    wanted.extend([of("import", "ops/lib/words.rhai", false), of("import", "ops/lib/more.rhai", false), built_in]);
    assert_eq!(sources(&home), wanted);

    // Changed since, not yet known to git, kept out of it: none of these is what the commit has.
    home.put("ops/lib/more.rhai", "fn two() { 3 }\n");
    home.put("ops/b.rhai", "import \"lib/more\" as more;\nimport \"own/c\" as c;\nprint(more::two() + c::four());\n");
    std::fs::create_dir(home.path("ops/own")).unwrap();
    home.put("ops/own/c.rhai", "fn four() { 4 }\n");
    home.put("ops/.gitignore", "own\n");
    home.run(&["ops/b.rhai"]).exits(0).prints("7\n");
    let wanted = ["ops/b.rhai", "ops/lib/more.rhai", "ops/own/c.rhai"];
    let found = sources(&home);
    assert_eq!(found.iter().map(|source| source.1.as_str()).collect::<Vec<_>>(), wanted);
    assert!(found.iter().all(|source| source.2 == commit && source.3 == true), "{found:?}");
    let short = &commit.as_str().unwrap()[..12];
    let line = format!("script   ops/b.rhai  not as commit {short} has it");
    home.run(&["journal", "show", "last"]).exits(0).shows(&[&line, "import   ops/own/c.rhai  not as commit"]);
    // It is no run that somebody began.
    assert_eq!(home.run(&["runs", "--json"]).exits(0).json_lines().len(), 2);
    home.run(&["journal", "verify"]).exits(0);
}

#[test]
fn without_git_or_outside_of_a_repository_the_hash_is_there_and_no_commit() {
    let home = home();
    home.run_with(&["ops/a.rhai"], "PATH", "").exits(0).prints("2\n");
    assert!(sources(&home).iter().all(|source| source.2.is_null()), "{:?}", sources(&home));
    home.put("alone.rhai", "print(1);\n");
    home.run(&["alone.rhai"]).exits(0);
    assert_eq!(sources(&home), [("script".into(), "alone.rhai".into(), Value::Null, Value::Null)]);
    home.run(&["journal", "show", "last"]).exits(0).shows(&["script   alone.rhai  of no commit that is known"]);
    home.run(&["doctor", "nothing"]).exits(2);
    home.run(&["journal", "show", "last"]).exits(0).shows(&["script   doctor  built in"]);
}

#[test]
fn a_name_that_git_would_read_as_a_pattern_is_a_name() {
    let home = home();
    home.put("ops/[a]*.rhai", "print(1);\n");
    git(&home.path("ops"), &["add", "."]);
    git(&home.path("ops"), &["commit", "-q", "-m", "odd"]);
    home.put("ops/a.rhai", "print(2);\n");
    home.run(&["ops/[a]*.rhai"]).exits(0);
    assert_eq!(sources(&home)[0].3, json!(false), "only the other one was changed");
}

#[test]
fn a_recording_does_not_care_where_its_script_came_from() {
    let home = home();
    home.run(&["ops/a.rhai"]).exits(0);
    let recording = home.run(&["journal", "export", "last"]).exits(0).out;
    home.put("run.jsonl", &recording);
    git(&home.path("ops"), &["commit", "-q", "--allow-empty", "-m", "later"]);
    home.run_with(&["--replay", "run.jsonl", "ops/a.rhai"], "PATH", "").exits(0).prints("2\n");
}

#[test]
fn a_run_is_not_gone_on_with_when_an_import_has_changed_unless_somebody_says_so() {
    let home = Home::new();
    home.put("words.rhai", "fn add(to) { host(\"local\").sh(\"echo x >>\\\"$1\\\"\", [to]); }\n");
    let (log, fail) = (home.put("log", ""), home.put("fail", "yes"));
    home.put(
        "s.rhai",
        &format!(
            "import \"words\" as words;\nstep(\"add\", || {{ words::add(\"{log}\"); () }});\n\
                                 if host(\"local\").read([\"cat\", \"{fail}\"]).out == \"yes\" {{ throw \"no\"; }}\n"
        ),
    );
    home.run(&["--yes", "s.rhai"]).exits(1);
    let before = std::fs::read_to_string(home.path("words.rhai")).unwrap();
    home.put("words.rhai", &format!("{before}// another\n"));
    home.put("fail", "");
    let why = ["was not resumed", "words.rhai is not what it was: its SHA-256 was", "--changed-script"];
    home.run(&["resume", "last", "--yes"]).exits(2).says(&why);
    std::fs::remove_file(home.path("words.rhai")).unwrap();
    home.run(&["resume", "last", "--yes"]).exits(2).says(&["words.rhai, which it imported, cannot be read"]);
    home.put("words.rhai", &format!("{before}// another\n"));
    home.run(&["resume", "last", "--yes", "--changed-script"]).exits(0);
    assert_eq!(std::fs::read_to_string(home.path("log")).unwrap(), "x\n", "the step was not done twice");
}

/// A clone that somebody else made may name programs, and may hide changes.
#[test]
fn what_a_repository_says_of_itself_neither_runs_nor_hides_a_change() {
    let home = home();
    let (dir, ran) = (home.path("ops"), home.path("ran"));
    git(&dir, &["config", "filter.x.clean", &format!("touch {}; cat", ran.display())]);
    git(&dir, &["config", "core.fsmonitor", &format!("touch {}", ran.display())]);
    home.put("ops/.git/info/attributes", "*.rhai filter=x\n");
    git(&dir, &["update-index", "--assume-unchanged", "lib/more.rhai"]);
    let _ = std::fs::remove_file(&ran);
    home.put("ops/lib/more.rhai", "fn two() { 22 }\n");
    home.run(&["--observe", "ops/a.rhai"]).exits(0).prints("22\n");
    assert!(!ran.exists(), "it ran");
    let dirty: Vec<Value> = sources(&home).into_iter().map(|source| source.3).collect();
    assert_eq!(dirty, [json!(false), json!(false), json!(true), Value::Null]);
}

#[test]
fn a_folder_that_is_named_like_what_is_built_in_is_not_taken_for_it() {
    let home = Home::new();
    std::fs::create_dir(home.path("std")).unwrap();
    let log = home.put("log", "");
    home.put("std/check.rhai", &format!("fn add() {{ host(\"local\").sh(\"echo x >>\\\"$1\\\"\", [\"{log}\"]); }}\n"));
    home.put("s.rhai", "import \"./std/check\" as own;\nstep(\"add\", || { own::add(); () });\nif !args::flag(\"go\") { throw \"no\"; }\n");
    home.run(&["--yes", "s.rhai"]).exits(1);
    assert!(home.records().iter().any(|record| record["body"]["name"] == "./std/check.rhai"));
    home.run(&["resume", "last", "--yes"]).exits(1).says(&["no"]);
    home.put("std/check.rhai", "fn add() {}\n");
    home.run(&["resume", "last", "--yes"]).exits(2).says(&["./std/check.rhai is not what it was"]);
}
