//! The walk over a script: what it calls, with the types of the variables that are in scope at each place.

use super::callees::{Callee, Callees, Misfit, is_handle};
use super::chain::{Part, taken_apart};
use super::{Rule, text};
use crate::bind;
use crate::error::nearest;
use crate::session::help::{self, Entry};
use rhai::{AST, ASTNode, Expr, FnCallExpr, FnPtr, Position, ScriptFuncDef, Stmt, Token};
use std::collections::BTreeSet;

/// What is wrong at a place.
pub struct Found {
    pub rule: Rule,
    pub at: Position,
    pub why: String,
    pub fix: String,
}

/// A variable in scope.
struct Variable {
    name: String,
    /// Its type as signatures call it, when that is known wherever it is used.
    kind: Option<&'static str>,
    /// It is text with something pasted into it.
    pasted: bool,
}

/// The closure of a step or a guard that the walk is in.
#[derive(Clone, Copy)]
struct Within {
    of: &'static str,
    /// How many variables are from outside.
    outside: usize,
}

pub struct Walk<'a> {
    ast: &'a AST,
    pub callees: Callees,
    scope: Vec<Variable>,
    /// Names that are set again somewhere: of another type, perhaps.
    set_again: BTreeSet<String>,
    within: Option<Within>,
    /// How many variables are from outside the closure that the walk is in.
    outside: usize,
    /// The walk is in words that go to a host, which are then looked through, and whether they go on to another one.
    words: Option<Words>,
    pub found: Vec<Found>,
}

#[derive(Clone, Copy)]
struct Words {
    remote: bool,
}

/// Verbs and functions whose strings are a host's address, or words for a program there.
const REACHING: &[&str] = &["batch", "exec", "get", "host", "hosts", "http", "read", "run", "sh", "terminal"];

impl<'a> Walk<'a> {
    /// A walk over the script at `path`.
    pub fn new(path: &str, ast: &'a AST) -> Walk<'a> {
        let (mut set_again, mut keys) = (BTreeSet::new(), BTreeSet::new());
        ast.walk(&mut |nodes| {
            match nodes.last() {
                Some(ASTNode::Stmt(Stmt::Assignment(set))) => match &set.1.lhs {
                    Expr::Variable(variable, ..) => drop(set_again.insert(variable.1.to_string())),
                    lhs => drop(lhs.walk(&mut Vec::new(), &mut |nodes| {
                        if let Some(ASTNode::Expr(Expr::Property(property, _))) = nodes.last() {
                            keys.insert(property.2.to_string());
                        }
                        true
                    })),
                },
                Some(ASTNode::Expr(Expr::Map(map, _))) => {
                    keys.extend(map.0.iter().map(|(key, _)| key.name.to_string()))
                }
                _ => {}
            }
            true
        });
        let (callees, missing) = Callees::of(path, ast, keys);
        let mut walk = Walk {
            ast,
            callees,
            scope: Vec::new(),
            set_again,
            within: None,
            outside: 0,
            words: None,
            found: Vec::new(),
        };
        for import in missing {
            walk.say(Rule::UnknownModule, import.position, import.why, "opsh doc     the modules that are built in");
        }
        walk
    }

    /// All of it.
    pub fn run(mut self) -> Vec<Found> {
        self.block(self.ast.statements(), true);
        for function in self.ast.iter_fn_def().filter(|function| !function.name.contains('$')) {
            self.scope.clear();
            self.function(function, 0);
        }
        self.names_of_functions();
        self.found
    }

    /// To Rhai the name of a function is that function in the closures of the modules that are imported, too, whatever
    /// variable of that name they use from outside.
    fn names_of_functions(&mut self) {
        for function in self.ast.iter_fn_def() {
            if let Some(module) = self.callees.captured_in(&function.name) {
                let why = format!("a closure of {module} would get this function for its variable {}", function.name);
                self.say(Rule::FunctionName, function.body.position(), why, "give the function another name");
            }
        }
    }

    pub fn say(&mut self, rule: Rule, at: Position, why: impl Into<String>, fix: impl Into<String>) {
        self.found.push(Found { rule, at, why: why.into(), fix: fix.into() });
    }

    /// The body of a function, or of a closure whose first parameters are what it captured.
    fn function(&mut self, function: &ScriptFuncDef, captured: usize) {
        let depth = self.scope.len();
        for name in function.params.iter().skip(captured) {
            self.declare(name, None, false);
        }
        self.block(function.body.statements(), true);
        self.scope.truncate(depth);
    }

    fn declare(&mut self, name: &str, kind: Option<&'static str>, pasted: bool) {
        let kind = kind.filter(|_| !self.set_again.contains(name));
        self.scope.push(Variable { name: name.into(), kind, pasted });
    }

    fn variable(&self, name: &str) -> Option<&Variable> {
        self.scope.iter().rev().find(|variable| variable.name == name)
    }

    /// The statements of a block, of which the last one is its value when that is used.
    fn block(&mut self, statements: &[Stmt], used: bool) {
        let depth = self.scope.len();
        for (at, statement) in statements.iter().enumerate() {
            self.statement(statement, used && at + 1 == statements.len());
        }
        self.scope.truncate(depth);
    }

    fn statement(&mut self, statement: &Stmt, used: bool) {
        match statement {
            Stmt::Var(variable, ..) => {
                let (name, value, _) = &**variable;
                self.expr(value);
                self.declare(&name.name, self.kind(value), self.is_pasted(value));
            }
            Stmt::If(parts, _) => {
                self.expr(&parts.expr);
                self.block(parts.body.statements(), used);
                self.block(parts.branch.statements(), used);
            }
            Stmt::Switch(parts, _) => {
                self.expr(&parts.0);
                for case in &parts.1.expressions {
                    self.expr(&case.lhs);
                    self.value(&case.rhs, used);
                }
            }
            Stmt::While(parts, _) | Stmt::Do(parts, ..) => {
                self.expr(&parts.expr);
                self.block(parts.body.statements(), false);
            }
            Stmt::For(parts, _) => {
                let (name, counter, parts) = &**parts;
                self.expr(&parts.expr);
                let depth = self.scope.len();
                let kind = self.kind(&parts.expr).filter(|kind| *kind == "hosts").map(|_| "host");
                self.declare(&name.name, kind, false);
                if let Some(counter) = counter {
                    self.declare(&counter.name, Some("int"), false);
                }
                self.block(parts.body.statements(), false);
                self.scope.truncate(depth);
            }
            Stmt::Assignment(parts) => {
                self.assigned(&parts.1.lhs);
                self.expr(&parts.1.lhs);
                self.expr(&parts.1.rhs);
            }
            Stmt::FnCall(call, at) => {
                if !used {
                    self.unused_call(call, *at);
                }
                self.call(call, *at);
            }
            Stmt::Block(block) => self.block(block.statements(), used),
            Stmt::TryCatch(parts, _) => {
                self.block(parts.body.statements(), used);
                let depth = self.scope.len();
                if let Expr::Variable(error, ..) = &parts.expr {
                    self.declare(&error.1, None, false);
                }
                self.block(parts.branch.statements(), used);
                self.scope.truncate(depth);
            }
            Stmt::Expr(value) => self.value(value, used),
            Stmt::BreakLoop(Some(value), ..) | Stmt::Return(Some(value), ..) => self.expr(value),
            Stmt::Import(import, _) => self.expr(&import.0),
            _ => {}
        }
    }

    /// An expression that stands as a statement.
    fn value(&mut self, value: &Expr, used: bool) {
        match value {
            Expr::Stmt(block) if !used && self.closure_of(value).is_none() => self.block(block.statements(), false),
            _ => {
                if !used {
                    self.unused(value);
                }
                self.expr(value);
            }
        }
    }

    fn expr(&mut self, value: &Expr) {
        if let Some((closure, captured)) = self.closure_of(value) {
            let words = self.words.take();
            let outside = std::mem::replace(&mut self.outside, self.scope.len());
            self.function(closure, captured);
            (self.words, self.outside) = (words, outside);
            return;
        }
        match value {
            Expr::StringConstant(text, at) => self.text(text, *at),
            Expr::InterpolatedString(parts, _) => parts.iter().for_each(|part| self.expr(part)),
            Expr::Array(items, _) => self.array(items),
            Expr::Map(map, _) => map.0.iter().for_each(|(_, value)| self.expr(value)),
            Expr::Variable(variable, _, at) => match variable.2.path.first() {
                Some(module) => drop(self.module(&module.name, module.pos)),
                None => self.named(&variable.1, *at),
            },
            Expr::Stmt(block) => self.block(block.statements(), true),
            Expr::FnCall(call, at) => self.call(call, *at),
            Expr::Dot(..) | Expr::Index(..) => self.chain(value),
            Expr::And(parts, _) | Expr::Or(parts, _) | Expr::Coalesce(parts, _) => {
                parts.iter().for_each(|part| self.expr(part));
            }
            _ => {}
        }
    }

    /// The function behind a closure, and how many variables it captures.
    fn closure_of(&self, value: &Expr) -> Option<(&'a ScriptFuncDef, usize)> {
        match value {
            Expr::DynamicConstant(value, _) => {
                let name = value.read_lock::<FnPtr>()?.fn_name().to_string();
                self.ast.iter_fn_def().find(|function| function.name == name.as_str()).map(|function| (&**function, 0))
            }
            // What captures is shared first, then bound to the function.
            Expr::Stmt(block) => match block.statements() {
                [Stmt::Share(_), Stmt::Expr(bound)] => match &**bound {
                    Expr::FnCall(call, _) => {
                        let (closure, _) = self.closure_of(call.args.first()?)?;
                        Some((closure, call.args.len() - 1))
                    }
                    _ => None,
                },
                _ => None,
            },
            _ => None,
        }
    }

    fn named(&mut self, name: &str, at: Position) {
        let declared = self.scope.iter().rposition(|variable| variable.name == name);
        let is_own = self.callees.is_own(name);
        if is_own && declared.is_some_and(|at| at < self.outside) {
            let why = format!("in this closure {name} is the function {name}, and not the variable");
            self.say(Rule::FunctionName, at, why, "give one of them another name");
        }
        if is_own || declared.is_some() {
            return;
        }
        let near = nearest(name, self.scope.iter().map(|variable| variable.name.as_str())).map(str::to_string);
        let fix = near.map_or_else(
            || "declare it with let; a function sees its parameters and nothing outside".into(),
            |near| format!("did you mean \"{near}\"?"),
        );
        self.say(Rule::UnknownVariable, at, format!("nothing here is named {name}"), fix);
    }

    fn module(&mut self, name: &str, at: Position) -> bool {
        let is_there = self.callees.has_module(name);
        if !is_there {
            let near = nearest(name, self.callees.modules()).map(str::to_string);
            let fix = near.map_or_else(
                || format!("import \"…\" as {name};     at the top of the file"),
                |near| format!("did you mean \"{near}\"?"),
            );
            self.say(Rule::UnknownModule, at, format!("no module here is named {name}"), fix);
        }
        is_there
    }

    fn call(&mut self, call: &FnCallExpr, at: Position) {
        let (name, given) = (call.name.as_str(), call.args.len());
        let mut callee = None;
        if call.is_operator_call() || name.contains('$') {
            // Operators take what they take.
        } else if let Some(module) = call.namespace.path.first() {
            if self.module(&module.name, module.pos) && call.namespace.path.len() == 1 {
                callee = self.callees.qualified(&module.name, name, given);
                if let Some(misfit) = callee.as_ref().and_then(|callee| callee.misfit(given)) {
                    let near = nearest(name, self.callees.exports(&module.name)).map(str::to_string);
                    let what = format!("{}::{name}", module.name);
                    self.misfit(Rule::UnknownFunction, misfit, &what, given, at, near);
                }
            }
        } else {
            let found = self.callees.function(name, given);
            match found.misfit(given) {
                Some(Misfit::Unknown) if self.variable(name).is_some() => {
                    let why = format!("{name} is a variable, and no function is named so");
                    self.say(Rule::UnknownFunction, at, why, format!("{name}.call(…)     calls the closure in it"));
                }
                Some(Misfit::Unknown) if name == "timestamp" => {
                    self.say(Rule::UnknownFunction, at, "there is no timestamp in opsh", "now()     is the time");
                }
                Some(misfit) => {
                    let near = nearest(name, self.callees.functions()).map(str::to_string);
                    self.misfit(Rule::UnknownFunction, misfit, name, given, at, near);
                }
                None => {}
            }
            callee = Some(found);
        }
        if let Some(callee) = &callee {
            self.options(callee, &call.args);
        }
        if call.namespace.is_empty() && ["batch", "authorize"].contains(&name) {
            self.verbs(call.args.first());
        }
        if let (true, "exit", [code]) = (call.namespace.is_empty(), name, call.args.as_slice()) {
            self.exit_code(code);
        }
        self.arguments(name, &call.args);
    }

    /// Arguments that `exit` refuses at run time.
    fn exit_code(&mut self, code: &Expr) {
        let is_wrong = match code {
            Expr::IntegerConstant(code, _) => u8::try_from(*code).is_err(),
            // A number with a sign is one, too.
            Expr::FnCall(call, _) if call.name == "-" && call.args.len() == 1 => true,
            Expr::Unit(_) => true,
            code => self.kind(code).is_some_and(|kind| kind != "int"),
        };
        if is_wrong {
            let why = "an exit code is a whole number from 0 to 255";
            self.say(Rule::ExitCode, code.position(), why, "exit(1)     the script failed");
        }
    }

    fn method(&mut self, kind: Option<&'static str>, call: &FnCallExpr, at: Position) {
        let (name, given) = (call.name.as_str(), call.args.len());
        let callee = self.callees.method(kind, name, given);
        if let Some(misfit) = callee.misfit(given) {
            let near = nearest(name, Callees::methods(kind)).map(str::to_string);
            let what = kind.map_or_else(|| format!(".{name}"), |kind| format!("{kind}.{name}"));
            self.misfit(Rule::UnknownMethod, misfit, &what, given, at, near);
        }
        self.options(&callee, &call.args);
        let to_shell = name == "sh" && !callee.entries.is_empty();
        if let Some(script) = call.args.first().filter(|script| to_shell && self.is_pasted(script)) {
            self.pasted(script.start_position());
        }
        self.arguments(name, &call.args);
    }

    fn misfit(&mut self, unknown: Rule, misfit: Misfit, what: &str, given: usize, at: Position, near: Option<String>) {
        match misfit {
            Misfit::Unknown => {
                let kind = if unknown == Rule::UnknownMethod { "method" } else { "function" };
                let fix = near
                    .map_or_else(|| "opsh help     what there is".into(), |near| format!("did you mean \"{near}\"?"));
                self.say(unknown, at, format!("there is no {kind} {what}"), fix);
            }
            Misfit::Takes(counts) => {
                let word = what.rsplit(['.', ':']).next().unwrap_or(what);
                let fix = match help::entries().any(|entry| entry.signature.name == word) {
                    true => format!("opsh help {word}     how it is called"),
                    false => format!("give it {counts}"),
                };
                self.say(Rule::Arity, at, format!("{what} takes {counts} argument(s), not {given}"), fix);
            }
        }
    }

    /// The arguments of a call.
    fn arguments(&mut self, name: &str, arguments: &[Expr]) {
        let closes = match name {
            "step" => Some("step"),
            "guard" => Some("guard"),
            _ => None,
        };
        let (words, within) = (self.words, self.within);
        if REACHING.contains(&name) {
            self.words = Some(Words { remote: arguments.iter().any(is_remote) || name.starts_with("host") });
        }
        for argument in arguments {
            if let Some(of) = closes.filter(|_| self.closure_of(argument).is_some()) {
                self.within = Some(Within { of, outside: self.scope.len() });
            }
            self.expr(argument);
            self.within = within;
        }
        self.words = words;
    }

    /// Keys of literal maps that are options.
    fn options<'c>(&mut self, callee: &Callee, arguments: &'c [Expr]) {
        let Some(Entry { signature, .. }) = callee.only() else { return };
        let literal = |(at, argument): (usize, &'c Expr)| match argument {
            Expr::Map(map, _) => signature.params.get(at).map(|param| (param, map)),
            _ => None,
        };
        let maps = arguments.iter().enumerate().filter_map(literal);
        for (param, map) in maps.filter(|(param, _)| !param.options.is_empty()) {
            let known = || param.options.iter().map(|(name, _)| *name);
            for (key, _) in map.0.iter().filter(|(key, _)| !known().any(|name| name == key.name.as_str())) {
                let why = format!("{} has no option {}", signature.name, key.name);
                let fix = match nearest(&key.name, known()) {
                    Some(near) => format!("did you mean \"{near}\"?"),
                    None => format!("it has {}", known().collect::<Vec<_>>().join(", ")),
                };
                self.say(Rule::Option, key.pos, why, fix);
            }
        }
    }

    /// Names of verbs in the list that `batch` or `authorize` is given.
    fn verbs(&mut self, list: Option<&Expr>) {
        let Some(Expr::Array(items, _)) = list else { return };
        for item in items.iter().filter(|item| matches!(item, Expr::Map(..))) {
            let fix = "[\"docker.restart\", stack(\"prod\"), \"backend\"]     the verb says what it does";
            self.say(Rule::UnknownFunction, item.start_position(), "a plan is a list of calls, not of maps", fix);
        }
        let named = items.iter().filter_map(|item| match item {
            Expr::Array(parts, _) => parts.first(),
            _ => None,
        });
        for verb in named {
            let Expr::StringConstant(name, at) = verb else { continue };
            if bind::verb(name).is_none() {
                let near = nearest(name, bind::all().map(|binding| binding.verb().name));
                let fix = near.map_or("opsh help     every verb".into(), |near| format!("did you mean \"{near}\"?"));
                self.say(Rule::UnknownFunction, *at, format!("there is no verb {name}"), fix);
            }
        }
    }

    fn chain(&mut self, value: &Expr) {
        let (root, parts) = taken_apart(value);
        self.expr(root);
        let mut kind = self.kind(root);
        for part in parts {
            match part {
                Part::Method(call, at) => self.method(kind, call, at),
                Part::Property(name, at) => self.property(kind, name, at),
                Part::Index(index) => self.expr(index),
            }
            kind = self.kind_of(kind, &part);
        }
    }

    fn property(&mut self, kind: Option<&'static str>, name: &str, at: Position) {
        let Some(kind) = kind.filter(|kind| is_handle(Some(kind)) && Callees::property(kind, name).is_none()) else {
            return;
        };
        let fix = match self.callees.method(Some(kind), name, 0).misfit(0) {
            Some(Misfit::Unknown) => match nearest(name, Callees::methods(Some(kind))) {
                Some(near) => format!("did you mean \"{near}\"?"),
                None => format!("opsh help {kind}     what it has"),
            },
            _ => format!("{name}(…)     it is a method"),
        };
        self.say(Rule::UnknownMethod, at, format!("there is no property {kind}.{name}"), fix);
    }

    /// The type of an expression, when signatures, variables or its own look tell it.
    pub fn kind(&self, value: &Expr) -> Option<&'static str> {
        if self.closure_of(value).is_some() {
            return Some("closure");
        }
        match value {
            Expr::IntegerConstant(..) => Some("int"),
            Expr::FloatConstant(..) => Some("float"),
            Expr::BoolConstant(..) => Some("bool"),
            Expr::CharConstant(..) => Some("char"),
            Expr::StringConstant(..) | Expr::InterpolatedString(..) => Some("string"),
            Expr::Array(..) => Some("array"),
            Expr::Map(..) => Some("map"),
            Expr::Variable(variable, ..) if variable.2.is_empty() => self.variable(&variable.1)?.kind,
            Expr::FnCall(call, _) if !call.is_operator_call() => {
                let given = call.args.len();
                let callee = match call.namespace.path.first() {
                    Some(module) => self.callees.qualified(&module.name, &call.name, given)?,
                    None => self.callees.function(&call.name, given),
                };
                callee.only().and_then(|entry| result(entry.signature.result))
            }
            Expr::Dot(..) | Expr::Index(..) => {
                let (root, parts) = taken_apart(value);
                parts.iter().fold(self.kind(root), |kind, part| self.kind_of(kind, part))
            }
            _ => None,
        }
    }

    /// The type of a part of a chain, after what is of type `kind`.
    pub fn kind_of(&self, kind: Option<&'static str>, part: &Part<'_>) -> Option<&'static str> {
        match part {
            Part::Method(call, _) => {
                let callee = self.callees.method(kind, &call.name, call.args.len());
                // On several hosts a verb gives a list of its results.
                let is_one = |entry: &&Entry| kind != Some("hosts") && (kind.is_some() || entry.receivers.len() == 1);
                callee.only().filter(is_one).and_then(|entry| result(entry.signature.result))
            }
            Part::Property(name, _) => result(Callees::property(kind?, name)?.signature.result),
            Part::Index(_) => None,
        }
    }

    /// An assignment to what a step or a guard did not declare itself.
    fn assigned(&mut self, to: &Expr) {
        let root = match to {
            Expr::Dot(..) | Expr::Index(..) => taken_apart(to).0,
            to => to,
        };
        let (Some(within), Expr::Variable(variable, _, at)) = (self.within, root) else { return };
        let name = variable.1.as_str();
        let declared = self.scope.iter().rposition(|known| known.name == name);
        if declared.is_none_or(|at| at >= within.outside) {
            return;
        }
        let (why, fix) = match within.of {
            "step" => (
                format!("{name} is from outside the step: a resumed run passes over the step, and {name} stays unset"),
                format!("let {name} = step(\"…\", || …);     its value is recorded"),
            ),
            _ => (
                format!("{name} is from outside the guard, which takes back what was done and not what {name} is"),
                format!("let {name} = undo::guard(|| …);     gives it as the guard's value"),
            ),
        };
        self.say(Rule::CapturedAssignment, *at, why, fix);
    }

    fn array(&mut self, items: &[Expr]) {
        let is_shell = |item: &Expr| matches!(item, Expr::StringConstant(word, _) if SHELLS.contains(&word.as_str()));
        if let [shell, rest @ ..] = items
            && is_shell(shell)
            && let [Expr::StringConstant(flag, _), script, ..] = rest
            && flag.starts_with('-')
            && flag.ends_with('c')
            && self.is_pasted(script)
        {
            self.pasted(script.start_position());
        }
        items.iter().for_each(|item| self.expr(item));
    }

    fn pasted(&mut self, at: Position) {
        let why = "a value is pasted into text that a shell parses: a blank or a quote in it makes it other commands";
        self.say(Rule::InterpolatedSh, at, why, "sh(\"… \\\"$1\\\" …\", [value])     words are never parsed");
    }

    /// True for text with something in it that is no constant.
    fn is_pasted(&self, value: &Expr) -> bool {
        match value {
            Expr::InterpolatedString(parts, _) => parts.iter().any(|part| !matches!(part, Expr::StringConstant(..))),
            Expr::FnCall(call, _) if call.op_token == Some(Token::Plus) => {
                let is_text = |part: &Expr| self.kind(part) == Some("string") || self.is_pasted(part);
                let is_fixed = |part: &Expr| part.is_constant();
                call.args.iter().any(is_text) && !call.args.iter().all(is_fixed)
            }
            Expr::Variable(variable, ..) => self.variable(&variable.1).is_some_and(|known| known.pasted),
            _ => false,
        }
    }

    fn text(&mut self, text: &str, at: Position) {
        let within = self.words.and_then(|words| {
            let login = || text::login(text).filter(|_| words.remote).map(ToString::to_string);
            text::address_within(text).or_else(login)
        });
        if let Some(address) = within.or_else(|| text::address(text)) {
            let fix = "name it in opsh.toml, [host.NAME], and write host(\"NAME\")";
            self.say(Rule::HostAddress, at, format!("the address {address} stands in the script"), fix);
        }
        if let Some(option) = text::blind_trust(text) {
            let why = format!("{option} trusts whoever answers");
            self.say(Rule::HostKeyChecking, at, why, "opsh host adopt NAME     trusts one key, once");
        }
    }
}

/// Programs that parse a word as their script.
const SHELLS: &[&str] = &["sh", "bash", "dash", "ash", "zsh", "/bin/sh", "/bin/bash"];

fn is_remote(argument: &Expr) -> bool {
    match argument {
        Expr::StringConstant(text, _) => text::is_remote(text),
        Expr::Array(items, _) | Expr::InterpolatedString(items, _) => items.iter().any(is_remote),
        _ => false,
    }
}

/// A result as the type of a value; none for one that may be anything.
fn result(word: &'static str) -> Option<&'static str> {
    match word {
        "any" | "()" => None,
        "receipt" => Some("map"),
        word => Some(word),
    }
}
