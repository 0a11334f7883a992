//! Imports: the importing file's own folder first, then the embedded `stdlib/` under `std/`.

use crate::bind::provenance;
use crate::bind::values::{self, ExitCode};
use crate::bind::world::World;
use crate::config::trust;
use crate::error::{Error, Kind};
use crate::gate::journal::Source;
use crate::sources::{self, Origin};
use crate::whole::{self, Link};
use rhai::{Dynamic, Engine, EvalAltResult, Module, ModuleResolver, Position, Scope, Shared};
use std::cell::RefCell;
use std::collections::HashMap;
use std::path::{Component, Path, PathBuf};
use std::rc::Rc;

/// The embedded standard library.
const EMBEDDED: &[(&str, &str)] = &[
    ("std/assert", include_str!("../../stdlib/assert.rhai")),
    ("std/backup", include_str!("../../stdlib/backup.rhai")),
    ("std/check", include_str!("../../stdlib/check.rhai")),
    ("std/merge", include_str!("../../stdlib/merge.rhai")),
    ("std/postmortem", include_str!("../../stdlib/postmortem.rhai")),
    ("std/preflight", include_str!("../../stdlib/preflight.rhai")),
    ("std/rollout", include_str!("../../stdlib/rollout.rhai")),
    ("std/status", include_str!("../../stdlib/status.rhai")),
    ("std/text", include_str!("../../stdlib/text.rhai")),
    ("std/troubleshoot", include_str!("../../stdlib/troubleshoot.rhai")),
];

/// Names of the embedded modules.
pub fn embedded_names() -> impl Iterator<Item = &'static str> + Clone {
    EMBEDDED.iter().map(|(name, _)| *name)
}

/// Text of an embedded module.
pub fn embedded(name: &str) -> Option<&'static str> {
    EMBEDDED.iter().find(|(known, _)| *known == name).map(|(_, text)| *text)
}

/// The exit code of a script that is about to end. Rhai forgets it at the end of the module that the script ends in.
pub type Ending = Rc<RefCell<Option<ExitCode>>>;

/// Finds, compiles and keeps modules. A module's name is its path, so that errors name the file they are in.
pub struct Modules {
    world: Rc<World>,
    ending: Ending,
    /// Each with the text that it is of: a file that was corrected is another module.
    loaded: RefCell<HashMap<String, (String, Shared<Module>)>>,
    loading: RefCell<Vec<String>>,
    /// The hash of each module that a run's record says last that it imported, by run and module.
    noted: RefCell<HashMap<(String, String), String>>,
}

impl Modules {
    /// A resolver that remembers texts for errors, and writes down what a run imports.
    pub fn new(world: Rc<World>, ending: Ending) -> Modules {
        Modules { world, ending, loaded: RefCell::default(), loading: RefCell::default(), noted: RefCell::default() }
    }

    /// Once a run, before anything of the module is called.
    fn note(&self, name: &str, origin: &Origin, text: &str) {
        let (key, digest) = ((self.world.gate.run_id(), name.to_string()), provenance::digest(text));
        if self.noted.borrow_mut().insert(key, digest.clone()) == Some(digest) {
            return;
        }
        let file = origin.file().map(|file| std::fs::canonicalize(file).unwrap_or_else(|_| file.into()));
        provenance::note(&self.world, "import", name, file.as_deref(), text);
    }

    /// The text that a module has now, by the name and the file that a run noted.
    pub fn text_now(source: &Source) -> Option<String> {
        match &source.file {
            Some(file) => whole::text(Path::new(file), Link::Followed, sources::LONGEST).ok(),
            None => embedded(source.name.trim_end_matches(".rhai")).map(String::from),
        }
    }

    fn load(&self, engine: &Engine, name: &str, text: &str, position: Position) -> Result<Module, Box<EvalAltResult>> {
        let inside = |error: Box<EvalAltResult>| match *error {
            // An end of the script cannot be caught by the caller.
            EvalAltResult::Exit(..) | EvalAltResult::ErrorTerminated(..) | EvalAltResult::ErrorDataTooLarge(..) => {
                error
            }
            _ => Box::new(EvalAltResult::ErrorInModule(name.into(), error, position)),
        };
        let mut ast = engine.compile(sources::code(text)).map_err(|error| inside(error.into()))?;
        ast.set_source(name);
        self.ending.take();
        let module = values::shielded(|| Module::eval_ast_as_new(Scope::new(), &ast, engine)).map_err(inside)?;
        match self.ending.borrow().clone() {
            Some(exit) => Err(EvalAltResult::Exit(Dynamic::from(exit), position).into()),
            None => Ok(module),
        }
    }
}

/// A module that was found, and is not read yet.
pub struct Found {
    /// Its name, as errors have it.
    pub name: String,
    /// Its file; none for what is built in.
    file: Option<PathBuf>,
}

impl Found {
    /// The module that a text from `importer` means by `path`; `None` for a built-in one that there is not.
    pub fn at(importer: &Origin, path: &str) -> Option<Found> {
        if path.starts_with("std/") || *importer == Origin::BuiltIn {
            let own = path.trim_start_matches("./");
            let name = if path.starts_with("std/") { path.to_string() } else { format!("std/{own}") };
            return embedded(&name).map(|_| Found { name: format!("{name}.rhai"), file: None });
        }
        let folder = importer.file().and_then(Path::parent).unwrap_or(Path::new("."));
        let file = tidy(&folder.join(path).with_extension("rhai"));
        // What is built in has that name.
        let own = if file.starts_with("std") { Path::new(".").join(&file) } else { file };
        Some(Found { name: own.display().to_string(), file: Some(own) })
    }

    /// Its text; `None` when there is none.
    pub fn read(&self) -> Option<(String, Origin)> {
        let Some(file) = &self.file else {
            return embedded(self.name.trim_end_matches(".rhai")).map(|text| (text.to_string(), Origin::BuiltIn));
        };
        if self.is_plain() { sources::read(file).ok() } else { None }
    }

    /// False for a pipe or a device, reading which would never end, and for what is too long to be a module.
    #[expect(clippy::disallowed_methods, reason = "a script's imports are part of the script")]
    fn is_plain(&self) -> bool {
        let is_plain =
            |file: &PathBuf| std::fs::metadata(file).is_ok_and(|file| file.is_file() && file.len() <= sources::LONGEST);
        self.file.as_ref().is_none_or(is_plain)
    }

    /// Fails with `usage` for a file that somebody else could have written. The owner of the importing file is trusted: a
    /// person named that one.
    fn judge(&self, importer: &Origin) -> Result<(), Error> {
        let Some(file) = &self.file else { return Ok(()) };
        trust::judge(file, importer.owner()).map_err(|fact| {
            let why = format!("the script imports it, and {fact}");
            Error::new(Kind::Usage, format!("module {} was not imported", self.name), why).next(format!(
                "ls -l {}     who owns it; take it over with chown and chmod go-w, if you trust it",
                file.display()
            ))
        })
    }
}

/// A path without `.` and `..`, so that one file has one name.
fn tidy(path: &Path) -> PathBuf {
    let mut tidy = PathBuf::new();
    for part in path.components() {
        match part {
            Component::CurDir => {}
            Component::ParentDir if matches!(tidy.components().next_back(), Some(Component::Normal(_))) => {
                tidy.pop();
            }
            other => tidy.push(other),
        }
    }
    tidy
}

impl ModuleResolver for Modules {
    fn resolve(
        &self,
        engine: &Engine,
        importer: Option<&str>,
        path: &str,
        position: Position,
    ) -> Result<Shared<Module>, Box<EvalAltResult>> {
        let importer = importer.map(|name| self.world.sources.origin(name)).unwrap_or_default();
        let missing = || Box::new(EvalAltResult::ErrorModuleNotFound(path.into(), position));
        let found = Found::at(&importer, path).filter(Found::is_plain).ok_or_else(missing)?;
        found.judge(&importer).map_err(|error| values::thrown(error, position))?;
        let (text, origin) = found.read().ok_or_else(missing)?;
        let name = found.name;
        self.note(&name, &origin, &text);
        // A file that was loaded before may have another owner by now.
        self.world.sources.put(&name, &text, origin);
        if let Some((_, module)) = self.loaded.borrow().get(&name).filter(|(loaded, _)| *loaded == text) {
            return Ok(module.clone());
        }
        if self.loading.borrow().contains(&name) {
            // Rhai's own resolver overflows the stack here.
            let cycle = format!("import cycle: {} -> {name}", self.loading.borrow().join(" -> "));
            return Err(Box::new(EvalAltResult::ErrorRuntime(cycle.into(), position)));
        }
        self.loading.borrow_mut().push(name.clone());
        let module = self.load(engine, &name, &text, position);
        self.loading.borrow_mut().pop();
        let module: Shared<Module> = module?.into();
        self.loaded.borrow_mut().insert(name, (text, module.clone()));
        Ok(module)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_are_tidied_and_leading_dots_kept() {
        assert_eq!(tidy(Path::new("a/./b/../c.rhai")), Path::new("a/c.rhai"));
        assert_eq!(tidy(Path::new("../x.rhai")), Path::new("../x.rhai"));
    }
}
