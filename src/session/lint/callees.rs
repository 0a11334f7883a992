//! What a call may mean: verbs and functions with their signatures, Rhai's own, those of the script and of what it imports.

use crate::engine::{self, modules};
use crate::session::help::{self, Entry};
use crate::sources::{self, Origin};
use rhai::{AST, Array, Dynamic, Engine, Expr, FnAccess, FnPtr, ImmutableString, Map, Position, Stmt};
use std::any::TypeId;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::LazyLock;

/// What the evaluator answers itself, with as many arguments as there are.
const EVALUATED: &[&str] =
    &["Fn", "call", "curry", "debug", "is_def_fn", "is_def_var", "is_shared", "print", "type_of"];
/// What every value of opsh's own types has besides.
const EVERYWHERE: &[&str] = &["to_debug", "to_string"];
/// Types whose methods and properties are all in the signatures.
const HANDLES: &[&str] = &["db", "host", "hosts", "repo", "stack"];

/// One of Rhai's own functions.
struct Native {
    name: String,
    params: Vec<TypeId>,
}

/// All of Rhai's standard library. Its `timestamp` fails in opsh, whatever it is given.
fn natives() -> impl Iterator<Item = &'static Native> {
    static NATIVES: LazyLock<Vec<Native>> = LazyLock::new(|| {
        let native = |info: rhai::FuncInfo<'_>| {
            let about = info.metadata;
            Some(Native { name: about.name.to_string(), params: about.param_types.to_vec() })
        };
        Engine::new().collect_fn_metadata(None, native, true)
    });
    NATIVES.iter().filter(|native| native.name != "timestamp")
}

fn type_id(kind: &str) -> Option<TypeId> {
    Some(match kind {
        "array" => TypeId::of::<Array>(),
        "bool" => TypeId::of::<bool>(),
        "char" => TypeId::of::<char>(),
        "closure" => TypeId::of::<FnPtr>(),
        "float" => TypeId::of::<f64>(),
        "int" => TypeId::of::<i64>(),
        "map" => TypeId::of::<Map>(),
        "string" => TypeId::of::<ImmutableString>(),
        _ => return None,
    })
}

/// True for a type of opsh's own.
pub fn is_handle(kind: Option<&str>) -> bool {
    kind.is_some_and(|kind| HANDLES.contains(&kind))
}

/// All that one name can mean where it stands.
#[derive(Default)]
pub struct Callee {
    /// How many arguments it may be given, without what stands before the dot; any when it is not known what it is.
    counts: Option<BTreeSet<usize>>,
    /// The verbs and functions among it.
    pub entries: Vec<&'static Entry>,
    /// Something else is called so, too.
    pub others: bool,
}

/// Why a call cannot be.
pub enum Misfit {
    /// There is no such thing.
    Unknown,
    /// It takes so many arguments.
    Takes(String),
}

impl Callee {
    fn anything() -> Callee {
        Callee { others: true, ..Callee::default() }
    }

    fn of(mut entries: Vec<&'static Entry>, given: usize, others: BTreeSet<usize>) -> Callee {
        let mut counts: BTreeSet<usize> = entries.iter().flat_map(|entry| entry.signature.counts()).collect();
        entries.retain(|entry| entry.signature.counts().contains(&given));
        let of_others = others.contains(&given);
        counts.extend(others);
        Callee { counts: Some(counts), entries, others: of_others }
    }

    /// Whether it can be called with so many.
    pub fn misfit(&self, given: usize) -> Option<Misfit> {
        let counts = self.counts.as_ref()?;
        match counts.len() {
            _ if counts.contains(&given) => None,
            0 => Some(Misfit::Unknown),
            _ => Some(Misfit::Takes(numbers(counts))),
        }
    }

    /// The one verb or function it must be, if there is one.
    pub fn only(&self) -> Option<&'static Entry> {
        match self.entries.as_slice() {
            [only] if !self.others => Some(only),
            _ => None,
        }
    }
}

fn numbers(counts: &BTreeSet<usize>) -> String {
    let words: Vec<String> = counts.iter().map(ToString::to_string).collect();
    match words.split_last() {
        Some((last, [])) => last.clone(),
        Some((last, rest)) => format!("{} or {last}", rest.join(", ")),
        None => String::new(),
    }
}

/// Functions by name, with how many arguments they take.
type Functions = BTreeMap<String, BTreeSet<usize>>;

/// What a script's calls may mean.
pub struct Callees {
    script: Functions,
    /// By alias; none for one that is found only when the script runs.
    imports: BTreeMap<String, Option<Functions>>,
    /// Variables that closures of these modules, and of those that they import, use from outside; each with a module's name.
    captured: BTreeMap<String, String>,
    /// Keys of maps: one may hold a closure.
    keys: BTreeSet<String>,
}

/// An import that finds nothing.
pub struct Missing {
    /// Where it stands.
    pub position: Position,
    /// Why it finds nothing.
    pub why: String,
}

impl Callees {
    /// Of the script at `path`, with the imports that find nothing.
    pub fn of(path: &str, ast: &AST, keys: BTreeSet<String>) -> (Callees, Vec<Missing>) {
        let mut imported = Imported::default();
        let mut missing = Vec::new();
        let script = Origin::File { path: path.into(), owner: None };
        let mut imports = BTreeMap::new();
        each_import(ast, |import, alias| {
            let found = match import {
                Expr::StringConstant(name, position) => imported.exports_of(&script, name).map_err(|why| {
                    missing.push(Missing { position: *position, why });
                }),
                _ => Err(()),
            };
            imports.insert(alias.into(), found.ok());
        });
        let script = functions(ast, FnAccess::Private);
        (Callees { script, imports, captured: imported.captured, keys }, missing)
    }

    /// The module with a closure that uses a variable of this name from outside.
    pub fn captured_in(&self, name: &str) -> Option<&str> {
        self.captured.get(name).map(String::as_str)
    }

    /// True for a function of the script.
    pub fn is_own(&self, name: &str) -> bool {
        self.script.contains_key(name)
    }

    fn own(&self, name: &str) -> BTreeSet<usize> {
        self.script.get(name).cloned().unwrap_or_default()
    }

    /// `name(…)`. What has a receiver may be called with it as the first argument, too.
    pub fn function(&self, name: &str, given: usize) -> Callee {
        if EVALUATED.contains(&name) {
            return Callee::anything();
        }
        let called = || help::entries().filter(|entry| entry.signature.name == name && !entry.is_property());
        let plain = called().filter(|entry| entry.receivers.is_empty() && entry.signature.module.is_none()).collect();
        let mut others = self.own(name);
        others.extend(natives().filter(|native| native.name == name).map(|native| native.params.len()));
        let methods = called().filter(|entry| !entry.receivers.is_empty());
        others.extend(methods.flat_map(|entry| entry.signature.counts()).map(|count| count + 1));
        Callee::of(plain, given, others)
    }

    /// `module::name(…)`; none when there is no such module.
    pub fn qualified(&self, module: &str, name: &str, given: usize) -> Option<Callee> {
        match self.imports.get(module) {
            Some(None) => return Some(Callee::anything()),
            Some(Some(exported)) => {
                return Some(Callee::of(Vec::new(), given, exported.get(name).cloned().unwrap_or_default()));
            }
            None if !is_built_in(module) => return None,
            None => {}
        }
        let of_module = |entry: &&Entry| entry.signature.module == Some(module) && entry.signature.name == name;
        Some(Callee::of(help::entries().filter(of_module).collect(), given, BTreeSet::new()))
    }

    /// True when `module::…` means something.
    pub fn has_module(&self, module: &str) -> bool {
        self.imports.contains_key(module) || is_built_in(module) || module == "global"
    }

    /// `value.name(…)`, of a value of this type if that is known.
    pub fn method(&self, kind: Option<&str>, name: &str, given: usize) -> Callee {
        let may_hold_it = matches!(kind, None | Some("map")) && self.keys.contains(name);
        if EVALUATED.contains(&name) || may_hold_it || (is_handle(kind) && EVERYWHERE.contains(&name)) {
            return Callee::anything();
        }
        let on = |entry: &&Entry| match kind {
            Some(kind) if is_handle(Some(kind)) => entry.receivers.contains(&kind),
            Some(_) => false,
            None => !entry.receivers.is_empty(),
        };
        let named = || help::entries().filter(|entry| entry.signature.name == name && !entry.is_property());
        let first = kind.map(|kind| type_id(kind).unwrap_or(TypeId::of::<Dynamic>()));
        let takes = |native: &&Native| match (native.params.first(), first) {
            (Some(param), Some(first)) => *param == first || *param == TypeId::of::<Dynamic>(),
            (param, _) => param.is_some(),
        };
        // What stands before the dot is `this` of a script's function, and never its first argument.
        let mut others = self.own(name);
        let natives = natives().filter(|native| native.name == name).filter(takes);
        others.extend(natives.map(|native| native.params.len() - 1));
        let plain = named().filter(|entry| entry.receivers.is_empty() && entry.signature.module.is_none());
        others.extend(plain.flat_map(|entry| entry.signature.counts()).filter_map(|count| count.checked_sub(1)));
        if kind == Some("hosts") && name == "len" {
            others.insert(0);
        }
        Callee::of(named().filter(on).collect(), given, others)
    }

    /// The property of a value of opsh's own; what is a method is none.
    pub fn property(kind: &str, name: &str) -> Option<&'static Entry> {
        help::entries().find(|e| e.signature.name == name && e.is_property() && e.receivers.contains(&kind))
    }

    /// Names that may have been meant: what `kind` has, or every method when that is not known.
    pub fn methods(kind: Option<&str>) -> Vec<&'static str> {
        let of_opsh = help::entries().filter(|entry| match kind {
            Some(kind) => entry.receivers.contains(&kind),
            None => !entry.receivers.is_empty(),
        });
        let first = kind.and_then(type_id);
        let of_rhai = natives().filter(|native| match first {
            Some(first) => native.params.first() == Some(&first),
            None => kind.is_none() && !native.params.is_empty(),
        });
        let words = of_rhai.map(|native| native.name.as_str()).filter(|name| is_word(name));
        of_opsh.map(|entry| entry.signature.name).chain(words).collect()
    }

    /// Names of functions that may have been meant.
    pub fn functions(&self) -> Vec<&str> {
        let plain = help::entries().filter(|entry| entry.receivers.is_empty() && entry.signature.module.is_none());
        let rhais = natives().map(|native| native.name.as_str()).filter(|name| is_word(name));
        let own = self.script.keys().map(String::as_str);
        plain.map(|entry| entry.signature.name).chain(own).chain(rhais).collect()
    }

    /// Names of a module's functions.
    pub fn exports(&self, module: &str) -> Vec<&str> {
        match self.imports.get(module) {
            Some(found) => found.iter().flat_map(|exported| exported.keys()).map(String::as_str).collect(),
            None => {
                let of_module = help::entries().filter(|entry| entry.signature.module == Some(module));
                of_module.map(|entry| entry.signature.name).collect()
            }
        }
    }

    /// Names of modules that may have been meant.
    pub fn modules(&self) -> Vec<&str> {
        let built_in = help::entries().filter_map(|entry| entry.signature.module);
        self.imports.keys().map(String::as_str).chain(built_in).collect()
    }
}

fn is_built_in(module: &str) -> bool {
    help::entries().any(|entry| entry.signature.module == Some(module))
}

fn is_word(name: &str) -> bool {
    name.starts_with(|c: char| c.is_ascii_alphabetic()) && !name.contains('$')
}

/// The functions of a text; of a module only those that others may call.
fn functions(ast: &AST, access: FnAccess) -> Functions {
    let mut functions = Functions::new();
    let seen = ast.iter_functions().filter(|one| !one.name.contains('$'));
    for one in seen.filter(|one| access.is_private() || !one.access.is_private()) {
        functions.entry(one.name.into()).or_default().insert(one.params.len());
    }
    functions
}

fn each_import(ast: &AST, mut each: impl FnMut(&Expr, &str)) {
    ast.walk(&mut |path| {
        if let Some(rhai::ASTNode::Stmt(Stmt::Import(import, _))) = path.last() {
            each(&import.0, &import.1.name);
        }
        true
    });
}

/// Variables that closures use from outside.
fn captured(ast: &AST) -> BTreeSet<String> {
    let mut captured = BTreeSet::new();
    ast.walk(&mut |path| {
        if let Some(rhai::ASTNode::Stmt(Stmt::Share(shared))) = path.last() {
            captured.extend(shared.iter().map(|(variable, _)| variable.name.to_string()));
        }
        true
    });
    captured
}

/// What was read of modules.
#[derive(Default)]
struct Imported {
    seen: BTreeSet<String>,
    captured: BTreeMap<String, String>,
}

impl Imported {
    /// What a module that is imported by a text from `importer` exports.
    fn exports_of(&mut self, importer: &Origin, name: &str) -> Result<Functions, String> {
        let found = modules::Found::at(importer, name).and_then(|found| Some((found.read()?, found.name)));
        let Some(((text, origin), file)) = found else {
            let known: Vec<&str> = modules::embedded_names().collect();
            return Err(format!("\"{name}\" is neither a file nor built in ({})", known.join(", ")));
        };
        let ast = engine::parser()
            .compile(sources::code(&text))
            .map_err(|error| format!("\"{name}\" does not parse: {error}"))?;
        if self.seen.insert(file.clone()) {
            self.captured.extend(captured(&ast).into_iter().map(|variable| (variable, name.to_string())));
            each_import(&ast, |import, _| {
                if let Expr::StringConstant(name, _) = import {
                    // What is wrong with it is a finding of the module.
                    let _ = self.exports_of(&origin, name);
                }
            });
        }
        Ok(functions(&ast, FnAccess::Public))
    }
}
