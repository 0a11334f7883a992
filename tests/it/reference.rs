//! The reference is whole: each verb and each function that scripts can call is in `opsh doc` and `opsh help`, with its
//! deadline, and `docs/reference.md` is what `opsh doc` writes. `UPDATE=1` rewrites the file.

use opsh::bind::{self, Binding};
use opsh::engine;
use std::collections::BTreeSet;
use std::path::Path;
use std::process::{Command, Output};

const CONFIG: &str = r#"
[stack.prod]
host = "local"
dir = "/srv/app"
compose = { files = ["docker-compose.yml"], project = "app" }
"#;

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn opsh(words: &[&str]) -> Output {
    let home = tempfile::tempdir().unwrap();
    std::fs::write(home.path().join("opsh.toml"), CONFIG).unwrap();
    let mut command = Command::new(env!("CARGO_BIN_EXE_opsh"));
    command.args(words).current_dir(home.path()).env("XDG_STATE_HOME", home.path().join("state"));
    command.output().unwrap()
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8(bytes.to_vec()).unwrap()
}

fn shown(words: &[&str]) -> String {
    let output = opsh(words);
    assert!(output.status.success(), "{words:?}: {}", text(&output.stderr));
    text(&output.stdout)
}

/// Fails with a line for each thing for which `wrong` has something to say.
fn each<T>(all: impl Iterator<Item = T>, wrong: impl Fn(T) -> Option<String>) {
    let found: Vec<String> = all.filter_map(wrong).collect();
    assert!(found.is_empty(), "\n  {}", found.join("\n  "));
}

#[test]
fn every_verb_names_its_deadline() {
    let deadline = regex::Regex::new(r"Deadline (`[a-z_]+` \+ )?\d+ s\b|No deadline:").unwrap();
    each(bind::all().map(Binding::verb), |verb| {
        (!deadline.is_match(verb.doc)).then(|| format!("{}: the doc says no `Deadline N s`", verb.name))
    });
    // An option that sets the deadline is named with it.
    each(bind::all().map(Binding::verb), |verb| {
        let (_, said) = verb.doc.split_once("Deadline ")?;
        let sets = ["`within_s`", "`timeout_ms`", "`grace_s`"].into_iter().find(|option| verb.doc.contains(option))?;
        (!said.contains(sets)).then(|| format!("{}: {sets} sets the deadline, which does not say so", verb.name))
    });
}

#[test]
fn every_doc_begins_with_a_summary_that_fits_a_line_of_help() {
    let docs = bind::all().map(|one| (one.verb().name, one.verb().doc));
    each(docs.chain(engine::functions().map(|one| (one.sig, one.doc))), |(name, doc)| {
        let first = doc.split(". ").next().unwrap_or(doc).trim_end_matches('.');
        (first.chars().count() > 48).then(|| format!("{name}: longer than 48 characters: {first}"))
    });
}

#[test]
fn help_fits_eighty_columns() {
    for words in [&["help"][..], &["help", "docker"], &["help", "stack"], &["help", "args"]] {
        let help = shown(words);
        each(help.lines(), |line| (line.chars().count() > 80).then(|| line.to_string()));
    }
}

#[test]
fn the_reference_holds_every_verb_and_every_function_in_full() {
    let reference = shown(&["doc"]);
    let verbs = bind::all().map(|one| (one.verb().sig, one.verb().doc, one.verb().example));
    each(verbs.chain(engine::functions().map(|one| (one.sig, one.doc, one.example))), |(sig, doc, example)| {
        let whole = [sig, doc, example].iter().all(|part| reference.contains(part));
        (!whole).then(|| format!("{sig} is not there in full"))
    });
    for verb in bind::all().map(Binding::verb) {
        assert!(reference.contains(&format!("\n### {}\n\n`{}`, {}\n", verb.name, verb.sig, verb.class.word())));
        assert!(reference.contains(shown(&["doc", verb.name]).trim_end()), "{}", verb.name);
    }
}

#[test]
fn a_name_means_a_system_a_receiver_a_verb_a_function_or_the_last_word_of_one() {
    for (name, there) in [
        ("git", "### git.checkout"),
        ("stack", "### docker.ps"),
        ("docker.restart", "### docker.restart"),
        ("args::need", "### args::need"),
        ("recreate", "### compose.recreate"),
        ("name", "### stack.name"),
    ] {
        let doc = shown(&["doc", name]);
        assert!(doc.contains(there) && !doc.contains("# Reference"), "{name}: {doc}");
    }
    let unknown = opsh(&["doc", "recrate"]);
    assert_eq!(unknown.status.code(), Some(2));
    assert!(text(&unknown.stderr).contains("did you mean \"recreate\"?"), "{}", text(&unknown.stderr));
}

#[test]
fn scripts_can_ask_for_help_too() {
    assert_eq!(shown(&["-e", "help()"]), shown(&["help"]));
    assert_eq!(shown(&["-e", "help(\"docker\")"]), shown(&["help", "docker"]));
    assert_eq!(shown(&["-e", "help(\"docker.restart\")"]), shown(&["help", "docker.restart"]));
    let unknown = opsh(&["-e", "help(\"docker.restrat\")"]);
    assert!(text(&unknown.stderr).contains("did you mean \"docker.restart\"?"), "{}", text(&unknown.stderr));
}

#[test]
fn the_file_in_docs_is_what_opsh_doc_writes() {
    let (path, written) = (root().join("docs/reference.md"), shown(&["doc"]));
    if std::env::var_os("UPDATE").is_some() {
        std::fs::create_dir_all(root().join("docs")).unwrap();
        std::fs::write(&path, &written).unwrap();
    }
    let kept = std::fs::read_to_string(&path).unwrap_or_default();
    assert!(kept == written, "docs/reference.md is of another opsh: UPDATE=1 cargo test --test it reference");
}

/// Names in `register_fn("name"`, `register_get("name"` and `FuncRegistration::new("name")` of a file and those below.
fn registered(dir: &Path, names: &mut BTreeSet<String>) {
    let call = regex::Regex::new(
        r#"(?:register_fn|register_get|register_pure|FuncRegistration::new)\((?:\s*engine,)?\s*"(\w+)""#,
    )
    .unwrap();
    for entry in std::fs::read_dir(dir).unwrap().flatten() {
        let path = entry.path();
        if path.is_dir() {
            registered(&path, names);
        } else {
            let source = std::fs::read_to_string(path).unwrap();
            names.extend(call.captures_iter(&source).map(|found| found[1].to_string()));
        }
    }
}

#[test]
fn every_function_that_is_registered_is_documented_and_every_documented_one_is_registered() {
    let mut there = BTreeSet::new();
    registered(&root().join("src"), &mut there);
    // How a handle is printed, the clock that is refused, and what does the same as Rhai's own within bounds.
    for name in [
        "to_string",
        "to_debug",
        "timestamp",
        "pad",
        "blob",
        "replace",
        "dedup",
        "split",
        "split_rev",
        "to_chars",
        "to_array",
    ] {
        assert!(there.remove(name), "{name}");
    }
    let documented: BTreeSet<String> = engine::functions().map(|one| one.signature().name.to_string()).collect();
    assert_eq!(there, documented);
}

#[test]
fn every_function_answers_as_its_example_calls_it() {
    each(engine::functions(), |one| {
        let output = opsh(&["-e", one.example]);
        let said = text(&output.stderr);
        // A line has no arguments of a script.
        let fine = output.status.success() || said.contains("TAG is missing");
        (!fine).then(|| format!("{}: {said}", one.example))
    });
}

#[test]
fn a_module_is_explained_by_its_name() {
    for command in ["doc", "help"] {
        let shown = shown(&[command, "std/rollout"]);
        for part in ["import \"std/rollout\" as rollout;", "rollout::effects(plan)", "The changes of a plan"] {
            assert!(shown.contains(part), "{command}: {part}: {shown}");
        }
    }
    let error = text(&opsh(&["doc", "std/rolout"]).stderr);
    assert!(error.contains("no module \"std/rolout\"") && error.contains("did you mean \"std/rollout\"?"), "{error}");
}
