//! Lines with a cursor (`|`), and what is offered there.

use super::*;
use crate::session::known::Variable;

fn names() -> Names {
    let all = |names: &str| names.split_whitespace().map(String::from).collect::<Vec<_>>();
    let variable = |name: &str, type_name: &str, keys: &str| Variable {
        name: name.into(),
        type_name: type_name.into(),
        keys: all(keys),
    };
    Names {
        words: vec![
            Word {
                name: "logs".into(),
                signature: "logs SERVICE [--tail N]".into(),
                doc: "its last lines".into(),
                params: all("service"),
                options: all("--tail --since"),
            },
            Word { name: "help".into(), params: all("topic"), ..Word::default() },
        ],
        commands: vec![(":use".into(), "changes the stack".into()), (":reveal".into(), "shows a secret".into())],
        stacks: vec!["prod".into(), "staging".into(), "a\"b\\c".into()],
        hosts: all("prod-1 prod-2 local"),
        host_tags: all("web"),
        services: all("backend db"),
        containers: all("backend-1"),
        tags: all("v1.8.0 v1.9.0"),
        scripts: all("scripts/rollback.rhai deploy.rhai"),
        modules: all("std/backup std/rollout"),
        topics: all("docker docker.restart stack"),
        variables: vec![
            variable("prod", "stack", ""),
            variable("found", "map", "state name needs-quotes"),
            variable("rows", "array", ""),
            variable("web", "host", ""),
        ],
        functions: vec!["ship(tag, to)".into()],
        ..Names::default()
    }
}

/// What the line becomes with each candidate.
fn lines(marked: &str) -> Vec<String> {
    let position = marked.find('|').expect("a cursor");
    let line = marked.replacen('|', "", 1);
    let (start, found) = complete(&line, position, &names());
    found.iter().map(|one| format!("{}{}{}", &line[..start], one.replacement, &line[position..])).collect()
}

#[track_caller]
fn offers(marked: &str, expected: &[&str]) {
    assert_eq!(lines(marked), expected, "{marked}");
}

#[track_caller]
fn offers_among_others(marked: &str, expected: &[&str]) {
    let lines = lines(marked);
    for line in expected {
        assert!(lines.iter().any(|offered| offered == line), "{marked}: {line} is not in {lines:?}");
    }
}

#[track_caller]
fn offers_nothing(marked: &str) {
    offers(marked, &[]);
}

#[test]
fn functions_variables_keywords_and_words_at_the_beginning() {
    offers("sta|", &["stack("]);
    offers("log|", &["logs"]);
    offers("pro|", &["prod"]);
    offers("htt|", &["http::"]);
    offers("shi|", &["ship("]);
    offers("impo|", &["import"]);
    offers("x = sta|", &["x = stack("]);
    offers("sta|(\"prod\")", &["stack(\"prod\")"]);
    offers_among_others("|", &["logs", "prod", "stack(", "batch(", "now()"]);
    offers_nothing("x + log|");
}

#[test]
fn names_that_the_same_text_declares() {
    offers("let alpha = 1;\nalp|", &["let alpha = 1;\nalpha"]);
    offers("let prefix = \"a\"; prefix.sub|", &["let prefix = \"a\"; prefix.sub_string("]);
    offers_among_others("let s = stack(\"prod\").repo;\ns.ta|", &["let s = stack(\"prod\").repo;\ns.tags("]);
    offers_nothing("let sta|");
    offers_nothing("fn sta|");
}

#[test]
fn methods_by_the_type_before_the_dot() {
    offers("prod.recr|", &["prod.recreate("]);
    offers("stack(\"prod\").recr|", &["stack(\"prod\").recreate("]);
    offers("prod?.recr|", &["prod?.recreate("]);
    offers("print(prod.recr|)", &["print(prod.recreate()"]);
    offers("prod.rep|", &["prod.repo"]);
    offers("stack(\"prod\").repo.che|", &["stack(\"prod\").repo.checkout("]);
    offers("web.repo(\"/srv\").che|", &["web.repo(\"/srv\").checkout("]);
    offers("prod.p|", &["prod.pause_cron()", "prod.preflight(", "prod.probe()", "prod.prune_kept(", "prod.ps()"]);
    offers("prod.ps().fil|", &["prod.ps().filter("]);
    offers("[1, 2].fil|", &["[1, 2].filter("]);
    offers("\"a\".sub|", &["\"a\".sub_string("]);
    offers("host(\"local\").rep|", &["host(\"local\").repo("]);
    offers_among_others("hosts(\"web\").|", &["hosts(\"web\").run(", "hosts(\"web\").names"]);
    offers_nothing("hosts(\"web\").rep|");
    offers_nothing("unknown.recr|");
    offers_nothing("prod.repo.recr|");
    offers("for h in hosts(\"web\") { h.rep|", &["for h in hosts(\"web\") { h.repo("]);
    offers("http::g|", &["http::get("]);
    offers("args::fl|", &["args::flag("]);
}

#[test]
fn keys_of_maps_in_scope() {
    offers("found.sta|", &["found.state"]);
    offers("found.nee|", &[]);
    offers("found[\"nee|", &["found[\"needs-quotes\""]);
    offers("found[\"|\"]", &["found[\"name\"]", "found[\"needs-quotes\"]", "found[\"state\"]"]);
    offers_among_others("found.|", &["found.name", "found.state", "found.keys("]);
}

#[test]
fn strings_by_the_name_of_the_parameter() {
    offers("stack(\"pr|", &["stack(\"prod\""]);
    offers("stack(\"pr|\")", &["stack(\"prod\")"]);
    offers("stack(`pr|", &["stack(`prod`"]);
    offers("host(\"prod|", &["host(\"prod-1\"", "host(\"prod-2\""]);
    offers("hosts(\"|", &["hosts(\"local\"", "hosts(\"prod-1\"", "hosts(\"prod-2\"", "hosts(\"web\""]);
    offers("hosts([\"local\", \"prod-1|", &["hosts([\"local\", \"prod-1\""]);
    offers("prod.recreate(\"ba|", &["prod.recreate(\"backend\""]);
    offers("stack(\"prod\").logs(\"|\")", &["stack(\"prod\").logs(\"backend\")", "stack(\"prod\").logs(\"db\")"]);
    offers("unknown.logs(\"d|", &["unknown.logs(\"db\""]);
    offers("prod.mark_bad(\"v1.8|", &["prod.mark_bad(\"v1.8.0\""]);
    offers_nothing("prod.mark_bad(\"v1.8.0\", \"|");
    offers_nothing("print(\"pr|");
    offers_nothing("\"pr|");
    offers("let x = `a ${stack(\"st|", &["let x = `a ${stack(\"staging\""]);
}

#[test]
fn what_needs_escaping_in_a_string_is_escaped() {
    offers("stack(\"a|", &[r#"stack("a\"b\\c""#]);
    offers(r#"stack("a\"b|"#, &[r#"stack("a\"b\\c""#]);
    offers("stack(`a|", &[r#"stack(`a"b\c`"#]);
}

#[test]
fn options_of_a_call() {
    offers("prod.logs(\"db\", #{ ta|", &["prod.logs(\"db\", #{ tail: "]);
    offers("prod.logs(\"db\", #{ tail: 5, sin|", &["prod.logs(\"db\", #{ tail: 5, since_s: "]);
    offers_nothing("prod.logs(#{ ta|");
    offers_nothing("#{ sta|");
}

#[test]
fn modules_scripts_commands_and_places() {
    offers("import \"std/ro|", &["import \"std/rollout\""]);
    offers(":load scr|", &[":load scripts/rollback.rhai"]);
    offers(":|", &[":reveal", ":use"]);
    offers(":u|", &[":use"]);
    offers("@prod|", &["@prod-1", "@prod-2", "@prod/"]);
    offers("@prod/|", &["@prod/backend", "@prod/db"]);
    offers_nothing("@prod-1 df |");
    offers_nothing("!l|");
}

#[test]
fn arguments_and_options_of_words() {
    offers("logs |", &["logs backend", "logs db"]);
    offers("help docker.r|", &["help docker.restart"]);
    offers("help(\"docker.r|", &["help(\"docker.restart\""]);
    offers("logs ba|", &["logs backend"]);
    offers("logs backend --t|", &["logs backend --tail"]);
    offers_nothing("logs backend |");
    offers("logs = sta|", &["logs = stack("]);
}

#[test]
fn nothing_within_comments_and_numbers_and_beyond_ascii_the_cursor_is_right() {
    offers_nothing("// sta|");
    offers_nothing("/* sta|");
    offers_nothing("12|");
    offers("let 名前 = 1; 名|", &["let 名前 = 1; 名前"]);
    offers("print(\"日本語\"); sta|", &["print(\"日本語\"); stack("]);
}

#[test]
fn a_list_shows_signature_and_summary() {
    let (_, found) = complete("prod.recr", 9, &names());
    assert!(found[0].display.starts_with("recreate(service: string) -> receipt  "), "{found:?}");
    let (_, found) = complete(":u", 2, &names());
    assert_eq!(found[0].display, ":use  changes the stack");
}

#[test]
fn every_place_of_every_line_can_be_completed() {
    for line in
        ["stack(\"prod\").repo.tags(5)[0].x", "#{ a: [1, `b ${c}`] }.a", "fn f(x) { x.y(|a| a) } ))] 'x", ":use あ @x"]
    {
        for position in (0..=line.len()).filter(|at| line.is_char_boundary(*at)) {
            let (start, _) = complete(line, position, &names());
            assert!(start <= position && line.is_char_boundary(start), "{line} {position}");
        }
    }
}

/// True when Rhai knows the method with some arguments.
fn is_known(receiver: &str, method: &str) -> bool {
    let values = ["1", "'c'", "\"a\"", "|x| 1", "|x, y| 1", "[1]", "#{}"];
    let mut arguments = vec![String::new()];
    arguments.extend(values.iter().map(ToString::to_string));
    let pairs = values.iter().flat_map(|one| values.iter().map(move |two| format!("{one}, {two}")));
    arguments.extend(pairs);
    arguments.push("0, 1, [1]".into());
    arguments.into_iter().any(|arguments| {
        let code = format!("let x = {receiver}; x.{method}({arguments})");
        let result = rhai::Engine::new().eval::<rhai::Dynamic>(&code);
        !matches!(result.as_ref().map_err(|error| &**error), Err(rhai::EvalAltResult::ErrorFunctionNotFound(..)))
    })
}

#[test]
fn every_method_is_one_of_rhai() {
    for (receiver, methods) in METHODS {
        let value = match *receiver {
            "array" => "[1, 2]",
            "string" => "\"ab\"",
            "map" => "#{ a: 1 }",
            "int" => "1",
            _ => "1.5",
        };
        let wrong: Vec<&str> = methods.split_whitespace().filter(|method| !is_known(value, method)).collect();
        assert!(wrong.is_empty(), "{receiver}: {wrong:?}");
        assert!(!is_known(value, "no_such_method"));
    }
}
