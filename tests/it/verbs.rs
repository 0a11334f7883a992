//! The registry keeps its promises: every verb is named, classed, documented, shown by a line that compiles, and
//! performed by something in this repository.

use opsh::bind::{self, Binding};
use opsh::error::Kind;
use opsh::gate::verb::{Class, Verb};
use rhai::{ASTNode, Engine, Expr, Stmt};
use std::collections::BTreeSet;
use std::path::Path;
use std::rc::Rc;

/// Types that a parameter may have.
const KINDS: &[&str] = &["string", "int", "bool", "array", "map", "closure", "any"];
/// What a call may return besides.
const RESULTS: &[&str] = &["receipt", "()"];
/// Receivers that scripts get from a constructor or another verb.
const RECEIVERS: &[&str] = &["host", "stack", "repo", "db"];

fn verbs() -> impl Iterator<Item = &'static Verb> {
    bind::all().map(Binding::verb)
}

/// Fails with the names of all verbs for which `wrong` has something to say.
fn each(wrong: impl Fn(&'static Binding) -> Option<String>) {
    let found: Vec<String> =
        bind::all().filter_map(|one| wrong(one).map(|why| format!("{}: {why}", one.verb().name))).collect();
    assert!(found.is_empty(), "\n  {}", found.join("\n  "));
}

fn engine() -> (tempfile::TempDir, Engine) {
    use opsh::{gate, screen, session};
    let state = tempfile::tempdir().unwrap();
    let options = session::Options {
        mode: gate::policy::Mode::Observe,
        grants: gate::Grants::default(),
        config: opsh::config::Config::default(),
        state_dir: state.path().to_path_buf(),
        replay: None,
        spill: false,
    };
    let quiet = screen::Options { json: false, color: false, terminal: false, width: 100 };
    let session = session::Session::new(options, Rc::new(screen::Screen::new(quiet))).unwrap();
    let engine = opsh::engine::build(session.world());
    (state, engine)
}

#[test]
fn names_are_unique_and_begin_with_their_system() {
    let mut seen = BTreeSet::new();
    each(|one| {
        let name = one.verb().name;
        let (system, rest) = name.split_once('.').unwrap_or((name, ""));
        let is_word = |word: &str| !word.is_empty() && word.chars().all(|c| c.is_ascii_lowercase() || c == '_');
        (!is_word(system) || !is_word(rest)).then(|| "is not system.verb".into())
    });
    for verb in verbs() {
        assert!(seen.insert(verb.name), "{} is there twice", verb.name);
        assert!(bind::verb(verb.name).is_some_and(|found| std::ptr::eq(found, verb)), "{}", verb.name);
    }
    assert!(seen.len() > 30, "{seen:?}");
}

#[test]
fn calls_are_unique_too() {
    let mut seen = BTreeSet::new();
    for verb in verbs() {
        let signature = verb.signature();
        assert!(
            seen.insert((signature.receiver, signature.module, signature.name)),
            "{} is called as another",
            verb.sig
        );
    }
}

#[test]
fn options_are_named_with_their_types_and_explained() {
    each(|one| {
        let verb = one.verb();
        let options = verb.signature().params.into_iter().flat_map(|param| param.options);
        let wrong = |(name, kind): &(&str, &str)| !KINDS.contains(kind) || !verb.doc.contains(&format!("`{name}"));
        let refers = ["Options, result", "as `host.", "its option `"].iter().any(|words| verb.doc.contains(words));
        options.into_iter().find(wrong).filter(|_| !refers).map(|option| format!("{option:?} is not explained"))
    });
}

#[test]
fn a_verb_that_changes_returns_a_receipt_and_one_that_looks_does_not() {
    each(|one| {
        let (verb, changes) = (one.verb(), one.changes());
        let receipt = verb.sig.ends_with("-> receipt");
        match (verb.class, changes, receipt) {
            (Class::Read, false, false) => None,
            (Class::Change | Class::Destroy, true, true) => None,
            _ => Some(format!("class {}, returns a receipt: {changes}, {}", verb.class.word(), verb.sig)),
        }
    });
}

#[test]
fn only_a_look_can_wait_for_earlier_changes() {
    each(|one| (one.verb().waits && one.verb().class != Class::Read).then(|| "waits, and is not a read".into()));
}

#[test]
fn every_signature_is_made_of_known_parts() {
    each(|one| {
        let signature = one.verb().signature();
        let (_, result) = one.verb().sig.rsplit_once(") -> ")?;
        if signature.receiver.is_some_and(|receiver| !RECEIVERS.contains(&receiver)) {
            return Some(format!("unknown receiver in {}", one.verb().sig));
        }
        if !KINDS.contains(&result) && !RESULTS.contains(&result) {
            return Some(format!("unknown result in {}", one.verb().sig));
        }
        let unknown = signature.params.iter().find(|param| !KINDS.contains(&param.kind));
        let late = signature.params.iter().skip_while(|param| !param.optional).find(|param| !param.optional);
        unknown.or(late).map(|param| format!("{} has a type that is not known, or follows an optional one", param.name))
    });
    each(|one| (!one.verb().sig.contains(") -> ")).then(|| format!("{} says no result", one.verb().sig)));
    each(|one| {
        let signature = one.verb().signature();
        let word = |name: &str| !name.is_empty() && name.chars().all(|c| c.is_ascii_lowercase() || c == '_');
        let names = signature.params.iter().map(|param| param.name).chain([signature.name]);
        names.into_iter().find(|name| !word(name)).map(|name| format!("\"{name}\" is not a name"))
    });
}

#[test]
fn every_number_has_its_unit_and_its_range() {
    let range = regex::Regex::new(r"\b\d+ to \d+\b").unwrap();
    each(|one| {
        let verb = one.verb();
        let numbers = verb.signature().params.into_iter().filter(|param| param.kind == "int");
        let without = numbers.map(|param| param.name).find(|name| {
            let Some((_, after)) = verb.doc.split_once(&format!("`{name}`")) else { return true };
            let sentence = after.split(". ").next().unwrap_or(after);
            !range.is_match(sentence)
        });
        without.map(|name| format!("the doc does not say `{name}` with its range (0 to 600) and unit"))
    });
    // Options are documented by hand: a name in back-ticks that ends in a unit is a number, and has a range or default.
    each(|one| {
        let doc = one.verb().doc;
        let options = doc.split("Options: ").nth(1).or_else(|| doc.split("Option: ").nth(1))?;
        let names = options.split('`').skip(1).step_by(2);
        names.filter(|name| name.ends_with("_s") || name.ends_with("_ms")).find_map(|name| {
            let after = options.split(&format!("`{name}`")).nth(1).unwrap_or("");
            let range = range.find(after).is_some_and(|found| found.start() < 40);
            (!range).then(|| format!("the doc gives no range for the option `{name}`"))
        })
    });
}

#[test]
fn every_doc_says_how_it_fails() {
    let kinds = [
        Kind::Usage,
        Kind::NotFound,
        Kind::Refused,
        Kind::Unreachable,
        Kind::Denied,
        Kind::Timeout,
        Kind::Interrupted,
        Kind::Unknown,
        Kind::Failed,
        Kind::Unmet,
        Kind::Journal,
    ];
    let others = ["Fails as `", "failures as `", "As `", "Never fails"];
    each(|one| {
        let names_a_kind = kinds.iter().any(|kind| one.verb().doc.contains(&format!("`{}`", kind.word())));
        let refers = others.iter().any(|words| one.verb().doc.contains(words));
        (!names_a_kind && !refers).then(|| "the doc does not say how it fails, or that it never does".into())
    });
    each(|one| {
        // What stands in back-ticks after "ails with" is a kind of error.
        let (_, after) = one.verb().doc.split_once("ails with `")?;
        let word = after.split('`').next()?;
        Kind::from_word(word).is_none().then(|| format!("\"{word}\" is no kind of error"))
    });
}

/// Calls in a script: receiver or module given or not, name, number of arguments.
fn calls(engine: &Engine, code: &str) -> Result<Vec<(bool, String, usize)>, String> {
    let ast = engine.compile(code).map_err(|error| error.to_string())?;
    let mut calls = Vec::new();
    ast.walk(&mut |nodes| {
        match nodes.last() {
            Some(ASTNode::Expr(Expr::MethodCall(call, _))) => {
                calls.push((true, call.name.to_string(), call.args.len()))
            }
            Some(ASTNode::Expr(Expr::FnCall(call, _)) | ASTNode::Stmt(Stmt::FnCall(call, _))) => {
                calls.push((!call.namespace.is_empty(), call.name.to_string(), call.args.len()))
            }
            _ => {}
        }
        true
    });
    Ok(calls)
}

#[test]
fn every_example_compiles_and_calls_its_verb_as_the_signature_says() {
    let (_state, engine) = engine();
    each(|one| {
        let (verb, signature) = (one.verb(), one.verb().signature());
        let calls = match calls(&engine, verb.example) {
            Ok(calls) => calls,
            Err(error) => return Some(error),
        };
        let required = signature.params.iter().filter(|param| !param.optional).count();
        let of_something = signature.receiver.is_some() || signature.module.is_some();
        let fits = |(on, name, count): &(bool, String, usize)| {
            *on == of_something && name == signature.name && (required..=signature.params.len()).contains(count)
        };
        (!calls.iter().any(fits)).then(|| format!("{} is not called in: {} ({calls:?})", verb.sig, verb.example))
    });
}

/// Text of every file below `dir` whose name ends so.
fn texts(dir: &Path, ends: &[&str], out: &mut Vec<String>) {
    for entry in std::fs::read_dir(dir).unwrap().flatten() {
        let path = entry.path();
        if path.is_dir() {
            texts(&path, ends, out);
        } else if ends.iter().any(|end| path.to_string_lossy().ends_with(end)) && !path.ends_with("it/verbs.rs") {
            out.push(std::fs::read_to_string(&path).unwrap());
        }
    }
}

#[test]
fn every_verb_is_used_by_a_test_or_a_script() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut all = Vec::new();
    for dir in ["tests/it", "scripts", "stdlib"] {
        texts(&root.join(dir), &[".rs", ".rhai"], &mut all);
    }
    each(|one| {
        let signature = one.verb().signature();
        let call = match (signature.receiver, signature.module) {
            (Some(_), _) => format!(".{}(", signature.name),
            (_, Some(module)) => format!("{module}::{}(", signature.name),
            _ => format!("{}(", signature.name),
        };
        let word = |text: &String| {
            text.match_indices(&call).any(|(at, _)| {
                !text[..at].ends_with(|c: char| c.is_alphanumeric() || c == '_' || c == ':')
                    || call.contains(['.', ':'])
            })
        };
        (!all.iter().any(word)).then(|| format!("`{call}` is in no test and no script"))
    });
}
