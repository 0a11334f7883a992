//! What scripts may rely on in Rhai: closures that cross modules, imports, errors that name their line, depth, and the
//! memory of the prompt. A newer Rhai must pass all of this before the pin in Cargo.toml moves (1.26 and 1.27 do not).

use opsh::error::{Error, Kind};
use opsh::gate::Grants;
use opsh::gate::policy::Mode;
use opsh::screen::{Options as ScreenOptions, Screen};
use opsh::session::{Options, Session};
use serde_json::{Value, json};
use std::path::PathBuf;
use std::rc::Rc;

/// A folder with scripts and modules.
struct Folder(tempfile::TempDir);

impl Folder {
    fn of(files: &[(&str, &str)]) -> Folder {
        let folder = Folder(tempfile::tempdir().unwrap());
        for (name, text) in files {
            std::fs::write(folder.path(name), text).unwrap();
        }
        folder
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    /// `main.rhai:2:5` for a place in this folder.
    fn places(&self, error: &Error) -> Vec<String> {
        let base = format!("{}/", self.0.path().display());
        error.trace.iter().map(|place| place.to_string().replace(&base, "")).collect()
    }

    fn run(&self) -> Result<Value, Error> {
        let main = self.path("main.rhai");
        on_engine_stack(move || session().1.run_script(&main, &[]))
    }

    /// The value of `main.rhai`.
    fn value(&self) -> Value {
        self.run().unwrap_or_else(|error| panic!("{error} at {:?}", error.trace))
    }

    fn error(&self) -> Error {
        self.run().expect_err("main.rhai fails")
    }
}

fn session() -> (tempfile::TempDir, Session) {
    let state = tempfile::tempdir().unwrap();
    let screen = Rc::new(Screen::new(ScreenOptions { json: false, color: false, terminal: false, width: 100 }));
    let (grants, config) = (Grants::default(), opsh::config::Config::default());
    let state_dir = state.path().to_path_buf();
    let options = Options { mode: Mode::Apply, grants, config, state_dir, replay: None, spill: false };
    let session = Session::new(options, screen).unwrap();
    (state, session)
}

/// As `main` does: a test's own thread has a stack of 2 MiB.
fn on_engine_stack<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> T {
    std::thread::Builder::new().stack_size(64 << 20).spawn(work).unwrap().join().expect("no panic")
}

// ── closures and modules ──

#[test]
fn a_closure_of_the_script_calls_the_scripts_function_and_not_the_modules_of_that_name() {
    let folder = Folder::of(&[
        ("lib.rhai", "fn inner(x) { `lib ${x}` }\nfn each(items, f) { items.map(|item| f.call(item)) }"),
        ("main.rhai", "import \"lib\" as lib;\nfn inner(x) { `main ${x}` }\nlib::each([1, 2], |x| inner(x))"),
    ]);
    assert_eq!(folder.value(), json!(["main 1", "main 2"]));
}

#[test]
fn a_closure_that_a_module_returns_is_callable_and_calls_the_modules_function() {
    let folder = Folder::of(&[
        ("lib.rhai", "fn inner(x) { `lib ${x}` }\nfn make(y) { |x| inner(`${y}${x}`) }"),
        ("main.rhai", "import \"lib\" as lib;\nfn inner(x) { `main ${x}` }\nlib::make(\"a\").call(\"b\")"),
    ]);
    assert_eq!(folder.value(), json!("lib ab"));
}

#[test]
fn a_closure_that_one_module_passes_to_another_calls_the_first_ones_function() {
    let folder = Folder::of(&[
        ("b.rhai", "fn inner() { \"b\" }\nfn apply(f) { f.call() }"),
        ("a.rhai", "import \"b\" as b;\nfn inner() { \"a\" }\nfn go_through_b() { b::apply(|| inner()) }"),
        ("main.rhai", "import \"a\" as a;\nfn inner() { \"main\" }\na::go_through_b()"),
    ]);
    assert_eq!(folder.value(), json!("a"));
}

#[test]
fn a_closure_from_a_module_imported_inside_a_function_works_outside_of_it() {
    let folder = Folder::of(&[
        ("lib.rhai", "fn inner(x) { `lib ${x}` }\nfn make() { |x| inner(x) }"),
        ("main.rhai", "fn get() { import \"lib\" as lib; lib::make() }\nlet f = get();\nf.call(7)"),
    ]);
    assert_eq!(folder.value(), json!("lib 7"));
}

#[test]
fn equal_closures_at_equal_places_of_two_files_stay_apart() {
    let text = |word: &str| format!("fn inner(x) {{ `{word} ${{x}}` }}\nfn make() {{ |x| inner(x) }}");
    let folder = Folder::of(&[
        ("a.rhai", &text("a")),
        ("b.rhai", &text("b")),
        (
            "main.rhai",
            "import \"a\" as a;\nimport \"b\" as b;\nlet f = a::make();\nlet g = b::make();\n[f.call(1), g.call(2), f.call(3)]",
        ),
    ]);
    assert_eq!(folder.value(), json!(["a 1", "b 2", "a 3"]));
}

#[test]
fn a_closure_that_captured_variables_takes_them_along() {
    let folder = Folder::of(&[
        ("lib.rhai", "fn twice(f) { f.call(); f.call(); }"),
        ("main.rhai", "import \"lib\" as lib;\nlet n = 1;\nlib::twice(|| n += 10);\nn"),
    ]);
    assert_eq!(folder.value(), json!(21));
}

#[test]
fn a_module_is_run_once_however_many_import_it() {
    let folder = Folder::of(&[
        ("c.rhai", "const AT = now();\nfn at() { global::AT }"),
        ("a.rhai", "import \"c\" as c;\nfn at() { c::at() }"),
        ("main.rhai", "import \"a\" as a;\nimport \"c\" as c;\na::at() == c::at()"),
    ]);
    assert_eq!(folder.value(), json!(true));
}

#[test]
fn a_nested_import_is_found_beside_its_own_file() {
    let folder = Folder::of(&[("main.rhai", "import \"lib/outer\" as outer;\nouter::word()")]);
    std::fs::create_dir_all(folder.path("lib/deep")).unwrap();
    std::fs::write(folder.path("lib/outer.rhai"), "import \"./deep/inner\" as inner;\nfn word() { inner::word() }")
        .unwrap();
    std::fs::write(folder.path("lib/deep/inner.rhai"), "import \"../../top\" as top;\nfn word() { top::word() }")
        .unwrap();
    std::fs::write(folder.path("top.rhai"), "fn word() { \"found\" }").unwrap();
    assert_eq!(folder.value(), json!("found"));
}

// ── errors ──

#[test]
fn the_error_of_a_closure_that_a_module_calls_is_in_the_file_that_wrote_the_closure() {
    let folder = Folder::of(&[
        ("lib.rhai", "\n\nfn each(f) {\n    f.call(1)\n}"),
        ("main.rhai", "import \"lib\" as lib;\nlib::each(|x|\n    throw \"no\"\n)"),
    ]);
    let places = folder.places(&folder.error());
    assert_eq!(places.first().map(String::as_str), Some("main.rhai:3:5"), "{places:?}");
    assert!(places.iter().any(|place| place.starts_with("lib.rhai:4:")), "{places:?}");
    assert!(places.last().is_some_and(|place| place.starts_with("main.rhai:2:")), "{places:?}");
}

#[test]
fn an_error_two_imports_deep_names_every_file_on_the_way_out() {
    let folder = Folder::of(&[
        ("b.rhai", "fn fall() {\n    missing.x\n}"),
        ("a.rhai", "import \"b\" as b;\nfn fall() { b::fall() }"),
        ("main.rhai", "import \"a\" as a;\n\na::fall()"),
    ]);
    let error = folder.error();
    // An undefined variable is found while the module is compiled: it is the import that fails.
    assert_eq!(folder.places(&error).first().map(String::as_str), Some("b.rhai:2:5"), "{error} {:?}", error.trace);
    assert!(error.why.contains("missing"), "{error}");

    std::fs::write(folder.path("b.rhai"), "fn fall() {\n    throw \"down\"\n}").unwrap();
    let error = folder.error();
    let files: Vec<String> =
        folder.places(&error).iter().map(|place| place.split(':').next().unwrap_or("").to_string()).collect();
    assert_eq!(files, ["b.rhai", "a.rhai", "main.rhai"]);
    assert_eq!(error.why, "down");
}

#[test]
fn the_error_of_a_verb_has_the_place_of_the_call_and_quotes_its_line() {
    let folder = Folder::of(&[("main.rhai", "let x = 1;\n  sleep(-1);\n")]);
    let path = folder.path("main.rhai");
    let excerpt = on_engine_stack(move || {
        let (_state, mut session) = session();
        let error = session.run_script(&path, &[]).expect_err("out of range");
        session.sources().excerpt(error.trace.first()?)
    });
    assert_eq!(excerpt.as_deref(), Some("   2 |   sleep(-1);\n     |   ^^^^^"));
}

#[test]
fn the_line_of_an_imported_file_can_be_quoted_too() {
    let folder = Folder::of(&[
        ("lib.rhai", "// first\nfn fall() { throw \"down\" }"),
        ("main.rhai", "import \"lib\" as lib;\nlib::fall()"),
    ]);
    let path = folder.path("main.rhai");
    let excerpts = on_engine_stack(move || {
        let (_state, mut session) = session();
        let error = session.run_script(&path, &[]).expect_err("thrown");
        error.trace.iter().filter_map(|place| session.sources().excerpt(place)).collect::<Vec<_>>()
    });
    assert_eq!(excerpts.len(), 2, "{excerpts:?}");
    assert!(excerpts[0].contains("2 | fn fall() { throw \"down\" }"), "{excerpts:?}");
    assert!(excerpts[1].contains("2 | lib::fall()"), "{excerpts:?}");
}

#[test]
fn a_module_that_does_not_parse_is_named_with_its_line() {
    let folder = Folder::of(&[("lib.rhai", "fn a() {}\nfn b( {}"), ("main.rhai", "import \"lib\" as lib;\nlib::a()")]);
    let error = folder.error();
    assert_eq!(error.kind, Kind::Usage);
    let places = folder.places(&error);
    assert!(places.first().is_some_and(|place| place.starts_with("lib.rhai:2:")), "{places:?}");
}

#[test]
fn an_import_cycle_is_an_error_that_names_the_way_round() {
    let folder = Folder::of(&[
        ("a.rhai", "import \"b\" as b;"),
        ("b.rhai", "import \"a\" as a;"),
        ("main.rhai", "import \"a\" as a;"),
    ]);
    let error = folder.error();
    assert!(error.why.contains("import cycle"), "{error}");
    assert!(error.why.contains("a.rhai") && error.why.contains("b.rhai"), "{error}");
}

#[test]
fn a_module_that_is_not_there_is_an_error_that_lists_the_built_in_ones() {
    let folder = Folder::of(&[("main.rhai", "import \"std/rolout\" as r;")]);
    let error = folder.error();
    assert_eq!(error.kind, Kind::Usage);
    assert!(error.next.iter().any(|line| line.contains("std/rollout")), "{:?}", error.next);
}

// ── limits ──

#[test]
fn eval_is_gone() {
    for script in ["eval(\"1\")", "let s = \"eval(s)\"; eval(s)"] {
        let folder = Folder::of(&[("main.rhai", script)]);
        let error = folder.error();
        assert!(error.why.contains("eval"), "{error}");
    }
}

#[test]
fn calls_may_nest_127_deep_and_recursion_without_end_is_an_error() {
    let deep =
        "fn f(n) { for x in 0..1 { if n > 1 { switch n { 0 => 0, _ => return 1 + f(n - 1) } } else { return 1 } } }";
    let folder = Folder::of(&[("main.rhai", &format!("{deep}\nf(127)"))]);
    assert_eq!(folder.value(), json!(127));
    for script in ["fn f(n) { 1 + f(n + 1) }\nf(0)", "fn f(g) { g.call(g) }\nf(|g| g.call(g))"] {
        let error = Folder::of(&[("main.rhai", script)]).error();
        assert!(error.why.to_lowercase().contains("stack overflow"), "{error}");
    }
}

#[test]
fn sleep_and_now_are_recorded_verbs_and_not_rhais_own() {
    for (script, verb) in [("sleep(0)", "clock.sleep"), ("now()", "clock.now")] {
        let (state, mut session) = session();
        session.run_code(script).unwrap();
        let journal = opsh::gate::journal::Journal::open(state.path()).unwrap();
        let entries = journal.run("last").unwrap();
        let verbs: Vec<_> = entries.iter().filter_map(|entry| entry.body["verb"].as_str()).collect();
        assert_eq!(verbs, [verb], "{script}");
    }
    let (_state, mut session) = session();
    let error = session.eval("sleep(0.5)").expect_err("whole seconds");
    assert!(error.why.contains("seconds must be of type int, not float"), "{error}");
}

#[test]
fn a_script_runs_as_it_was_written() {
    // The full optimizer calls native functions while it compiles, the simple one drops statements that are needed.
    let (_state, session) = session();
    let engine = opsh::engine::build(session.world());
    assert_eq!(engine.optimization_level(), rhai::OptimizationLevel::None);
}

// ── the prompt ──

#[test]
fn what_was_set_before_a_line_failed_stays_and_the_line_says_its_number() {
    let (_state, mut session) = session();
    session.eval("let a = 1; let b = 2;").unwrap();
    let error = session.eval("a = 10; b = nothing; a = 20;").expect_err("no such variable");
    assert_eq!(error.trace[0].file, "line 2");
    assert_eq!(session.eval("[a, b]").unwrap(), json!([1, 2]), "an unknown variable is found before the line starts");
    session.eval("a = 10; throw \"x\"; a = 20;").expect_err("thrown");
    assert_eq!(session.eval("[a, b]").unwrap(), json!([10, 2]));
    session.eval("let c = ").expect_err("it does not parse");
    assert_eq!(session.eval("a + b").unwrap(), json!(12));
}

#[test]
fn it_is_the_last_value_that_was_one() {
    let (_state, mut session) = session();
    session.eval("40 + 2").unwrap();
    assert_eq!(session.eval("it").unwrap(), json!(42));
    session.eval("let x = 1;").unwrap();
    session.eval("throw \"x\"").expect_err("thrown");
    assert_eq!(session.eval("it + 1").unwrap(), json!(43));
}

#[test]
fn functions_and_imports_and_closures_live_across_lines() {
    let folder = Folder::of(&[("lib.rhai", "fn twice(x) { x * 2 }\nfn make() { |x| twice(x) }")]);
    let (_state, mut session) = session();
    session.eval(&format!("import \"{}\" as lib;", folder.path("lib").display())).unwrap();
    session.eval("fn thrice(x) { x * 3 }").unwrap();
    assert_eq!(session.eval("lib::twice(4) + thrice(1)").unwrap(), json!(11));
    session.eval("let f = lib::make(); let g = |x| thrice(x);").unwrap();
    assert_eq!(session.eval("f.call(5) + g.call(1)").unwrap(), json!(13));
    session.eval("fn thrice(x) { x * 30 }").unwrap();
    assert_eq!(session.eval("thrice(1)").unwrap(), json!(30), "a function that is typed again replaces the old one");
    assert_eq!(session.eval("g.call(1)").unwrap(), json!(3), "a closure keeps the functions it was made with");
}

#[test]
fn an_error_in_a_function_of_an_earlier_line_is_quoted_from_that_line() {
    let (_state, mut session) = session();
    session.eval("fn fall() {\n  throw \"down\"\n}").unwrap();
    let error = session.eval("fall()").expect_err("thrown");
    let excerpt = error.trace.first().and_then(|place| session.sources().excerpt(place)).unwrap_or_default();
    assert!(excerpt.contains("throw \"down\""), "{excerpt} {:?}", error.trace);
}
