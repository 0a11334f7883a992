//! The line of Rhai that takes a change back: what it may hold, which verbs it calls, and its evaluation.

use crate::bind::{Binding, World, values};
use crate::error::{Error, Kind, Result};
use crate::gate::journal::Told;
use crate::gate::verb::{Class, Verb};
use crate::redact;
use crate::sources::Origin;
use rhai::{AST, ASTNode, Dynamic, Engine, Expr, Scope, Stmt};

/// The name that errors and places carry of the inverse of a change.
pub fn name(change: &Told) -> String {
    format!("the inverse of {}", change.id)
}

/// The line, parsed. Fails with why it cannot be an inverse: a secret is hidden in it, it is no Rhai, or it imports a file, whose text may be another
/// one by the time it is needed, and which nobody who agrees to the line has seen.
pub fn parse(engine: &Engine, line: &str) -> std::result::Result<AST, String> {
    if redact::is_hidden(line) {
        return Err("undo has a mark (•••#…) in place of a secret: read the secret in the line instead".into());
    }
    let ast = engine.compile(line).map_err(|error| format!("undo is no line of Rhai: {error}"))?;
    let mut imported = None;
    ast.walk(&mut |path| {
        if let Some(ASTNode::Stmt(Stmt::Import(import, _))) = path.last() {
            match &import.0 {
                Expr::StringConstant(module, _) if module.starts_with("std/") => {}
                Expr::StringConstant(module, _) => imported = Some(format!("\"{module}\"")),
                _ => imported = Some("a module whose name is not written in it".into()),
            }
        }
        imported.is_none()
    });
    match imported {
        Some(module) => Err(format!(
            "undo imports {module}, and may import only std/… modules: write the calls themselves in the line"
        )),
        None => Ok(ast),
    }
}

/// The inverse of a change, ready to be evaluated.
pub fn compile(engine: &Engine, world: &World, change: &Told) -> Result<AST> {
    let (name, line) = (name(change), change.inverse.as_deref().unwrap_or_default());
    world.sources.put(&name, line, Origin::Typed);
    let mut ast = parse(engine, line).map_err(|why| {
        Error::new(Kind::Usage, format!("{name} cannot be performed; nothing was done"), format!("{why}: {line}"))
            .next(format!("opsh journal show {}     what the run did, and each inverse", change.run))
    })?;
    ast.set_source(name.as_str());
    Ok(ast)
}

/// Performs the inverse of a change.
pub fn evaluate(engine: &Engine, world: &World, change: &Told) -> Result<()> {
    let ast = compile(engine, world, change)?;
    let result = values::shielded(|| engine.eval_ast_with_scope::<Dynamic>(&mut Scope::new(), &ast));
    result.map(drop).map_err(|error| values::cause(&error))
}

/// Names of the verbs that the line of an inverse calls.
pub fn named(engine: &Engine, change: &Told) -> Vec<&'static str> {
    let Ok(ast) = parse(engine, change.inverse.as_deref().unwrap_or_default()) else { return Vec::new() };
    let mut called: Vec<String> = Vec::new();
    ast.walk(&mut |path| {
        called.extend(path.last().and_then(call_in).map(String::from));
        true
    });
    let is_called = |verb: &&'static Verb| called.iter().any(|name| name == verb.signature().name);
    crate::bind::all().map(Binding::verb).filter(is_called).map(|verb| verb.name).collect()
}

/// Name of the function that a node calls.
fn call_in<'a>(node: &'a ASTNode<'_>) -> Option<&'a str> {
    match node {
        ASTNode::Expr(Expr::FnCall(call, _) | Expr::MethodCall(call, _)) | ASTNode::Stmt(Stmt::FnCall(call, _)) => {
            Some(call.name.as_str())
        }
        _ => None,
    }
}

/// How many changes an inverse makes when it is evaluated to its end; `None` when the line alone does not tell: with a loop,
/// a condition, a function of its own, a module or several hosts.
pub fn changes_in(engine: &Engine, change: &Told) -> Option<usize> {
    let ast = parse(engine, change.inverse.as_deref().unwrap_or_default()).ok()?;
    let (mut tells, mut calls) = (ast.iter_functions().next().is_none(), 0);
    ast.walk(&mut |path| {
        tells &= match path.last() {
            Some(ASTNode::Stmt(statement)) => {
                matches!(statement, Stmt::Noop(_) | Stmt::Expr(_) | Stmt::FnCall(..) | Stmt::Var(..))
            }
            Some(ASTNode::Expr(Expr::And(..) | Expr::Or(..) | Expr::Coalesce(..) | Expr::Stmt(_))) => false,
            _ => true,
        };
        if let Some(name) = path.last().and_then(call_in) {
            let mut verbs = crate::bind::all().map(Binding::verb).filter(|verb| verb.signature().name == name);
            calls += usize::from(verbs.any(|verb| verb.class != Class::Read));
            tells &= name != "hosts";
        }
        tells
    });
    (tells && calls > 0).then_some(calls)
}
