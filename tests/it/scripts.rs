//! Every script says how it is called, and every module what its functions do; both are read as opsh reads them.

use crate::home::Home;
use opsh::engine::modules;
use opsh::session::header::Header;
use rhai::{AST, Engine, OptimizationLevel};
use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// Path below the repository and text of each Rhai file in `dir`.
fn sources(dir: &str) -> Vec<(String, String)> {
    fn find(dir: &Path, out: &mut Vec<PathBuf>) {
        for entry in std::fs::read_dir(dir).unwrap().flatten() {
            match entry.path() {
                path if path.is_dir() => find(&path, out),
                path if path.extension().is_some_and(|end| end == "rhai") => out.push(path),
                // What runs a check by itself lies beside it.
                path if path.extension().is_some_and(|end| end == "service" || end == "timer") => {}
                path => panic!("{} is no .rhai file", path.display()),
            }
        }
    }
    let mut paths = Vec::new();
    find(&root().join(dir), &mut paths);
    assert!(!paths.is_empty(), "{dir} is empty");
    paths.sort();
    let name = |path: &PathBuf| path.strip_prefix(root()).unwrap().display().to_string();
    paths.iter().map(|path| (name(path), std::fs::read_to_string(path).unwrap())).collect()
}

fn compile(name: &str, text: &str) -> AST {
    let mut engine = Engine::new();
    engine.set_optimization_level(OptimizationLevel::None).set_max_expr_depths(256, 128).disable_symbol("eval");
    engine.compile(text).unwrap_or_else(|error| panic!("{name}: {error}"))
}

/// The `//!` lines at the top.
fn header(text: &str) -> Vec<&str> {
    let lines = text.lines().skip_while(|line| line.starts_with("#!"));
    lines.map_while(|line| line.strip_prefix("//!")).map(str::trim).collect()
}

#[test]
fn every_script_says_what_it_does_and_how_it_is_called() {
    for (name, text) in sources("scripts") {
        let first = header(&text).first().copied().unwrap_or("");
        assert!(first.ends_with('.'), "{name}: the first line is not //! and a sentence");
        let usage = Header::parse(&text).usage;
        let words: Vec<&str> = usage.split_whitespace().collect();
        assert_eq!(words.get(..2), Some(&["opsh", name.as_str()][..]), "{name}: usage: {usage}");
        compile(&name, &text);
    }
}

#[test]
fn a_script_reads_the_arguments_that_its_usage_names_and_no_others() {
    let given = regex::Regex::new(r#"args::(?:option|flag|number)\("([^"]+)"|args::need\(\d+, "([^"]+)""#).unwrap();
    for (name, text) in sources("scripts") {
        let usage = Header::parse(&text).usage;
        let read: BTreeSet<String> = given
            .captures_iter(&text)
            .map(|found| found.get(1).map_or_else(|| found[2].to_string(), |name| format!("--{}", name.as_str())))
            .collect();
        let tokens: Vec<&str> = usage.split([' ', '[', ']']).filter(|word| !word.is_empty()).skip(2).collect();
        let is_name =
            |word: &&&str| word.starts_with("--") || word.chars().all(|c| c.is_uppercase() || c == '_' || c == '…');
        let named: BTreeSet<String> =
            tokens.iter().filter(is_name).map(|word| word.trim_end_matches('…').into()).collect();
        // The value after an option is an example, not a word of its own.
        assert_eq!(read, named, "{name}: usage: {usage}");
    }
}

#[test]
fn every_module_is_built_in_and_says_what_it_is_for() {
    let names: BTreeSet<String> = modules::embedded_names().map(String::from).collect();
    let mut there = BTreeSet::new();
    for (path, text) in sources("stdlib") {
        let name = path.replace("stdlib/", "std/").replace(".rhai", "");
        assert_eq!(modules::embedded(&name), Some(text.as_str()), "{name} is not the one that is built in");
        let first = header(&text).first().copied().unwrap_or("");
        assert!(first.ends_with('.'), "{path}: the first line is not //! and a sentence");
        there.insert(name);
    }
    assert_eq!(there, names);
}

#[test]
fn every_function_that_a_module_offers_is_documented() {
    for (path, text) in sources("stdlib") {
        let ast = compile(&path, &text);
        let lines: Vec<&str> = text.lines().collect();
        let mut offered = 0;
        for function in ast.iter_functions().filter(|function| !function.name.starts_with("anon$")) {
            let is_it = |line: &&str| {
                line.starts_with(&format!("fn {}(", function.name))
                    || line.starts_with(&format!("private fn {}(", function.name))
            };
            let at = lines.iter().position(is_it).unwrap_or_else(|| panic!("{path}: {}", function.name));
            let documented = at > 0 && lines[at - 1].starts_with("///");
            let private = lines[at].starts_with("private ");
            offered += usize::from(!private);
            assert!(
                documented || private,
                "{path}:{}: {} has neither a doc comment nor `private`",
                at + 1,
                function.name
            );
        }
        assert!(offered > 0, "{path} offers nothing");
    }
}

#[test]
fn no_module_names_a_host() {
    // Names live in opsh.toml: a module that knows one works for one operator only.
    let name = regex::Regex::new(r#"\b(?:host|stack)\("|\b\d+\.\d+\.\d+\.\d+\b"#).unwrap();
    for (path, text) in sources("stdlib") {
        let code = text.lines().enumerate().filter(|(_, line)| !line.trim_start().starts_with("//"));
        // In back-ticks stands what a person is told to type, with the name put in.
        let named = code.filter(|(_, line)| name.is_match(&line.replace("(\"${", "("))).map(|(at, _)| at + 1);
        assert_eq!(named.collect::<Vec<_>>(), [0usize; 0], "lines of {path}");
    }
}

#[test]
fn a_script_that_opsh_names_runs_where_its_file_is_not_and_says_so() {
    let home = Home::new();
    home.put(
        "opsh.toml",
        "[stack.shop]\nhost = \"local\"\ndir = \"/nowhere\"\ncompose = { files = [\"c.yml\"], project = \"p\" }\n",
    );
    let built_in = "scripts/doctor.rhai is not here: the one that is built in runs";
    home.run(&["scripts/doctor.rhai", "shop"]).exits(1).says(&[built_in]).shows(&["shop on local: BAD"]);
    home.run(&["scripts/rollback.rhai", "--help"])
        .exits(0)
        .says(&["scripts/rollback.rhai is not here"])
        .shows(&["usage: "]);
    let check = home.run(&["--observe", "scripts/checks/containers.rhai", "--stack", "shop"]);
    assert!(check.out.starts_with("CONTAINERS "), "{check:?}");

    // A file that is there is what runs.
    std::fs::create_dir(home.path("scripts")).unwrap();
    home.put("scripts/doctor.rhai", "print(\"mine\");");
    let mine = home.run(&["scripts/doctor.rhai"]).exits(0).shows(&["mine"]);
    assert!(mine.err.is_empty(), "{mine:?}");
    home.run(&["scripts/nothing.rhai"]).exits(2).says(&["script scripts/nothing.rhai cannot be read"]);
}
