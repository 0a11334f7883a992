//! From Rhai's nested errors to opsh's: one cause, and the places from the innermost outwards.

use crate::bind::{self, values};
use crate::error::{Error, Kind, Place, nearest};
use rhai::{EvalAltResult, Position};

/// The error, with every place on the way out. `main` names the script or line that was run.
pub fn translate(error: &EvalAltResult, main: &str) -> Error {
    let mut trace = Vec::new();
    let root = flatten(error, main, &mut trace);
    trace.dedup();
    Error { trace, ..cause(root, main) }
}

/// A call error holds the caller's position and the callee's source: positions inside belong to the callee.
fn flatten<'a>(error: &'a EvalAltResult, file: &str, trace: &mut Vec<Place>) -> &'a EvalAltResult {
    match error {
        EvalAltResult::ErrorInFunctionCall(_, source, inner, position) => {
            let callee = if source.is_empty() { file } else { source.as_str() };
            let root = flatten(inner, callee, trace);
            trace.extend(place(file, *position));
            root
        }
        EvalAltResult::ErrorInModule(module, inner, position) => {
            let root = flatten(inner, module, trace);
            trace.extend(place(file, *position));
            root
        }
        other => {
            trace.extend(place(file, other.position()));
            other
        }
    }
}

fn place(file: &str, position: Position) -> Option<Place> {
    Some(Place { file: file.into(), line: position.line()?, column: position.position().unwrap_or(1) })
}

fn cause(root: &EvalAltResult, main: &str) -> Error {
    match root {
        EvalAltResult::ErrorParsing(kind, _) => {
            Error::new(Kind::Usage, format!("{main} does not parse"), kind.to_string())
        }
        EvalAltResult::ErrorFunctionNotFound(signature, _) => unknown_function(signature),
        EvalAltResult::ErrorModuleNotFound(name, _) => {
            let known = super::modules::embedded_names().collect::<Vec<_>>().join(", ");
            Error::new(Kind::Usage, format!("no module \"{name}\""), "it is neither a file nor built in")
                .next(format!("built in: {known}"))
        }
        other => values::cause(other),
    }
}

/// Rhai says `runn (Host, &str)`; a person wants to know which verb was meant.
fn unknown_function(signature: &str) -> Error {
    let name = signature.split([' ', '(']).next().unwrap_or(signature).trim();
    let name = name.rsplit("::").next().unwrap_or(name);
    let verbs = bind::all().map(bind::Binding::verb).map(|verb| (verb.signature().name, verb.sig, verb.example));
    let functions = super::functions().map(|one| (one.signature().name, one.sig, one.example));
    let known: Vec<_> = verbs.chain(functions).collect();
    if let Some((_, sig, example)) = known.iter().find(|(known, ..)| *known == name) {
        return Error::new(Kind::Usage, format!("{name} was called wrongly"), format!("it is called as {sig}"))
            .next(format!("{example}     an example"));
    }
    if matches!(name, "to_int" | "to_float") && signature.contains("str") {
        let parse = name.replace("to_", "parse_");
        let why = "a text is not a number yet: it is read with another function";
        return Error::new(Kind::Usage, format!("a text has no {name}"), why).next(format!("{parse}(text)"));
    }
    let why = match nearest(name, known.iter().map(|(known, ..)| *known)) {
        Some(near) => format!("did you mean \"{near}\"?"),
        None => format!("there is none for ({signature})"),
    };
    Error::new(Kind::Usage, format!("no function \"{name}\""), why).next("opsh help     every verb")
}
