//! Help from the verbs and functions themselves: `opsh help`, `help` at the prompt, and `help()` in scripts.

use crate::bind::function::Function;
use crate::bind::{self, World, values};
use crate::engine::{self, modules};
use crate::error::{Error, Kind, Result, nearest, suggestion};
use crate::gate::verb::{Signature, Verb};
use crate::screen::Screen;
use rhai::{Engine, EvalAltResult, NativeCallContext};
use std::collections::BTreeSet;
use std::rc::Rc;
use std::sync::LazyLock;

/// One thing that scripts can call, as help and reference show it.
pub struct Entry {
    /// `docker.restart`, `stack.repo`, `args::need`, `print`.
    pub name: String,
    /// The system of a verb; what a function belongs to: `host`, `stack`, `args` or `script`.
    pub group: &'static str,
    /// The verb's class; `script` for a function, which touches nothing else.
    pub class: &'static str,
    /// How it is called.
    pub sig: &'static str,
    /// All that is said about it.
    pub doc: &'static str,
    /// A line that calls it.
    pub example: &'static str,
    /// It taken apart.
    pub signature: Signature,
    /// Types that it is called on: `host`, and `hosts` too where it goes to each of them; none for a global function.
    pub receivers: Vec<&'static str>,
}

impl Entry {
    fn of_verb(binding: &'static bind::Binding) -> Entry {
        let verb = binding.verb();
        let group = verb.name.split('.').next().unwrap_or(verb.name);
        let (class, signature) = (verb.class.word(), verb.signature());
        let receivers = binding.receivers(&signature);
        let Verb { name, sig, doc, example, .. } = verb;
        Entry { name: (*name).into(), group, class, sig, doc, example, signature, receivers }
    }

    fn of_function(function: &'static Function) -> Entry {
        let signature = function.signature();
        let (name, group) = match (signature.receiver, signature.module) {
            (Some(receiver), _) => (format!("{receiver}.{}", signature.name), receiver),
            (_, Some(module)) => (format!("{module}::{}", signature.name), module),
            // A constructor stands with what it makes.
            _ if signature.name == signature.result => (signature.name.into(), signature.result),
            _ => (signature.name.into(), "script"),
        };
        let Function { sig, doc, example } = function;
        let receivers = signature.receiver.into_iter().collect();
        Entry { name, group, class: "script", sig, doc, example, signature, receivers }
    }

    /// The first sentence of the doc.
    pub fn summary(&self) -> &'static str {
        self.doc.split_once(". ").map_or(self.doc, |(first, _)| first).trim_end_matches('.')
    }

    /// True for `stack.repo`, which is read without being called.
    pub fn is_property(&self) -> bool {
        !self.sig.contains('(')
    }

    fn belongs_to(&self, group: &str) -> bool {
        self.group == group || self.signature.receiver == Some(group)
    }

    fn detail(&self) -> String {
        format!("{}     {}\n\n{}\n\nexample: {}", self.sig, self.class, self.doc, self.example)
    }
}

/// Every verb by system, then every function.
pub fn entries() -> std::slice::Iter<'static, Entry> {
    static ENTRIES: LazyLock<Vec<Entry>> = LazyLock::new(|| {
        let verbs = bind::all().map(Entry::of_verb);
        verbs.chain(engine::functions().map(Entry::of_function)).collect()
    });
    ENTRIES.iter()
}

/// What a name means.
pub enum Found {
    /// A system, a receiver, a module: all that belongs to it.
    Group(Vec<&'static Entry>),
    /// A verb or function; several when receivers share its name.
    These(Vec<&'static Entry>),
}

/// What `name` means: a system (`docker`), a receiver (`stack`), a verb (`docker.restart`), a function (`args::need`),
/// or the last word of one (`restart`). Fails with the nearest name.
pub fn find(name: &str) -> Result<Found> {
    let all = |wanted: &dyn Fn(&Entry) -> bool| entries().filter(|entry| wanted(entry)).collect::<Vec<_>>();
    let group = all(&|entry| entry.belongs_to(name));
    if !group.is_empty() {
        return Ok(Found::Group(group));
    }
    let exact = all(&|entry| entry.name == name);
    let these = if exact.is_empty() { all(&|entry| entry.signature.name == name) } else { exact };
    if these.is_empty() { Err(unknown(name)) } else { Ok(Found::These(these)) }
}

fn unknown(name: &str) -> Error {
    let names = || entries().map(|entry| entry.name.as_str());
    let groups: BTreeSet<&str> = entries().map(|entry| entry.group).collect();
    let words = entries().map(|entry| entry.signature.name);
    let (what, why) = if name.contains('/') {
        ("module", suggestion(name, modules::embedded_names()))
    } else if name.contains('.') {
        ("verb", suggestion(name, names()))
    } else if let (None, Some(near)) = (nearest(name, groups.iter().copied()), nearest(name, names().chain(words))) {
        ("function", format!("did you mean \"{near}\"?"))
    } else {
        ("system", suggestion(name, groups.iter().copied()))
    };
    Error::new(Kind::Usage, format!("no {what} \"{name}\""), why).next("opsh help     every verb")
}

/// Shows what [`text`] gives.
pub fn show(screen: &Screen, name: Option<&str>) -> Result<()> {
    screen.print(&text(screen, name)?);
    Ok(())
}

/// Everything in a table, what belongs to `name` in one, or what `name` means in full; of a built-in module all of it.
pub fn text(screen: &Screen, name: Option<&str>) -> Result<String> {
    if let Some(name) = name.filter(|name| modules::embedded(name).is_some()) {
        return super::doc::markdown(Some(name));
    }
    let shown = match name.map(find).transpose()? {
        Some(Found::These(these)) => {
            return Ok(these.iter().map(|entry| entry.detail()).collect::<Vec<_>>().join("\n\n"));
        }
        Some(Found::Group(entries)) => entries,
        None => entries().collect(),
    };
    let row = |entry: &&Entry| [entry.name.as_str(), entry.class, entry.summary()].map(String::from).to_vec();
    let table = screen.lines_of(&["verb", "class", "what it does"], shown.iter().map(row).collect());
    Ok(format!("{table}\n\nopsh help VERB explains one; a script starts at stack(NAME) or host(NAME)"))
}

/// Ok for the name of a verb; else an error with the nearest one.
pub fn check_verb(name: &str) -> Result<()> {
    if bind::verb(name).is_some() {
        return Ok(());
    }
    let names: Vec<&str> = bind::all().map(|binding| binding.verb().name).collect();
    let why = suggestion(name, names.iter().copied());
    Err(Error::new(Kind::Usage, format!("no verb \"{name}\""), why).next("opsh help     every verb"))
}

/// Registers `help()` and `help(NAME)`.
pub fn register(engine: &mut Engine, world: &Rc<World>) {
    let screen = world.gate.screen().clone();
    let answer = move |context: &NativeCallContext<'_>, name: Option<&str>| {
        show(&screen, name).map_err(|error| values::thrown(error, context.call_position()))
    };
    let all = answer.clone();
    engine.register_fn("help", move |context: NativeCallContext<'_>| -> std::result::Result<(), Box<EvalAltResult>> {
        all(&context, None)
    });
    engine.register_fn(
        "help",
        move |context: NativeCallContext<'_>, name: &str| -> std::result::Result<(), Box<EvalAltResult>> {
            answer(&context, Some(name))
        },
    );
}
