//! The list of bindings: each verb becomes a native function, with help and policy from the same constant.

pub mod values;
pub mod way;
pub mod work;
pub mod world;

pub mod activity;
pub mod backup;
pub mod batch;
pub mod beside;
pub mod clock;
pub mod compose;
pub mod cron;
pub mod db;
pub mod docker;
pub mod facts;
pub mod file;
pub mod fleet;
pub mod freeze;
pub mod function;
pub mod git;
pub mod hints;
pub mod host;
pub mod http;
pub mod journal;
pub mod lesson;
pub mod lock;
pub mod migrate;
pub mod names;
pub mod plan;
pub mod preflight;
pub mod prepare;
pub mod provenance;
pub mod releases;
pub mod runs;
pub mod secret;
pub mod service;
pub mod ssh;
pub mod stack;
pub mod status;
pub mod terminal;
pub mod undo;

use crate::error::{Error, Kind, Place, Result};
use crate::gate::verb::{Class, Param, Signature, Verb};
use crate::gate::{ALL, Did, Done, Effect, Lives, Pass, Target};
use batch::Collector;
use fleet::Each;
use prepare::Preparing;
use rhai::{Dynamic, Engine, FnPtr, FuncRegistration, Module, NativeCallContext, RhaiFunc, Shared};
use serde::de::DeserializeOwned;
use serde_json::{Value, json};
use std::any::TypeId;
use std::collections::BTreeMap;
use std::fmt::Display;
use std::future::Future;
use std::ops::RangeInclusive;
use std::rc::Rc;
use std::time::Duration;
use undo::Probe;
pub use values::RhaiResult;
use values::{from_json, to_json};
pub use world::World;

/// A verb and what performs it. A changing verb can only return a receipt.
pub enum Binding {
    /// Returns a value.
    Read(&'static Verb, fn(&Call<'_>) -> Result<Dynamic>),
    /// Sets a state.
    Change(&'static Verb, fn(&Call<'_>) -> Result<Receipt>),
    /// Sets a state that can be looked at later, so that going back and going on know what is there now.
    Undoable(&'static Verb, fn(&Call<'_>) -> Result<Receipt>, Probe),
    /// Makes something that harms nobody by being there, and that going back leaves. A probe where it can be looked at.
    Adds(&'static Verb, fn(&Call<'_>) -> Result<Receipt>, Option<Probe>),
    /// Calls a closure of the script, or a module.
    Calls(&'static Verb, fn(&NativeCallContext<'_>, &Call<'_>) -> RhaiResult),
    /// Returns a value of each host before the dot.
    ReadEach(&'static Verb, fn(&Call<'_>) -> Result<Each<Value>>),
    /// Sets a state on each host before the dot.
    ChangeEach(&'static Verb, fn(&Call<'_>) -> Result<Each<Receipt>>),
}

impl Binding {
    /// The verb.
    pub fn verb(&self) -> &'static Verb {
        match self {
            Binding::Read(verb, _) | Binding::Change(verb, _) => verb,
            Binding::Undoable(verb, ..) | Binding::Adds(verb, ..) | Binding::Calls(verb, _) => verb,
            Binding::ReadEach(verb, _) | Binding::ChangeEach(verb, _) => verb,
        }
    }

    /// True when a script gets a receipt: one for each host, when there are several.
    pub fn changes(&self) -> bool {
        matches!(self, Binding::Change(..) | Binding::ChangeEach(..) | Binding::Undoable(..) | Binding::Adds(..))
    }

    /// Performs the verb. One that calls a closure of the script needs more than this and fails.
    fn perform(&self, call: &Call<'_>) -> Result<Dynamic> {
        match self {
            Binding::Calls(..) => Err(call.bad("it calls a script: it cannot be part of something else")),
            Binding::Read(_, perform) => perform(call),
            Binding::Change(_, perform) | Binding::Undoable(_, perform, _) | Binding::Adds(_, perform, _) => {
                perform(call).map(|receipt| map(receipt.to_json()))
            }
            Binding::ReadEach(_, perform) => perform(call)?.into_value(call).map(map),
            Binding::ChangeEach(_, perform) => {
                perform(call)?.map(|receipt| receipt.to_json()).into_value(call).map(map)
            }
        }
    }

    /// Words of the types that the verb is called on; none for a function of its own.
    pub fn receivers(&self, signature: &Signature) -> Vec<&'static str> {
        let several = matches!(self, Binding::ReadEach(..) | Binding::ChangeEach(..)).then_some("hosts");
        signature.receiver.into_iter().chain(several).collect()
    }
}

/// Every binding there is, by system.
pub fn all() -> impl Iterator<Item = &'static Binding> {
    [
        activity::BINDINGS,
        backup::BINDINGS,
        backup::restore::BINDINGS,
        batch::BINDINGS,
        clock::BINDINGS,
        compose::BINDINGS,
        compose::env::BINDINGS,
        cron::BINDINGS,
        db::BINDINGS,
        docker::BINDINGS,
        docker::inside::BINDINGS,
        docker::keep::BINDINGS,
        docker::space::BINDINGS,
        docker::stacks::BINDINGS,
        facts::BINDINGS,
        file::BINDINGS,
        freeze::BINDINGS,
        git::BINDINGS,
        host::BINDINGS,
        http::BINDINGS,
        journal::BINDINGS,
        lock::BINDINGS,
        migrate::BINDINGS,
        plan::BINDINGS,
        preflight::BINDINGS,
        releases::BINDINGS,
        runs::BINDINGS,
        service::BINDINGS,
        status::BINDINGS,
        terminal::BINDINGS,
        work::BINDINGS,
    ]
    .into_iter()
    .flatten()
}

/// The verb of that name.
pub fn verb(name: &str) -> Option<&'static Verb> {
    all().map(Binding::verb).find(|verb| verb.name == name)
}

/// What a changing verb returns: whether it changed something, the state before and after, how long it took.
#[derive(Debug, Default)]
pub struct Receipt {
    /// The state is not what it was.
    pub changed: bool,
    /// Plan mode: nothing was done.
    pub skipped: bool,
    /// State before.
    pub before: Value,
    /// State after.
    pub after: Value,
    /// Milliseconds.
    pub took_ms: u64,
}

impl Receipt {
    fn of(done: Done) -> Receipt {
        match done {
            Done::Did(did, took) => Receipt {
                changed: did.changed,
                skipped: false,
                before: did.before,
                after: did.after,
                took_ms: took.as_millis() as u64,
            },
            Done::Skipped => Receipt { skipped: true, ..Receipt::default() },
        }
    }

    fn to_json(&self) -> Value {
        let took = self.took_ms;
        json!({
            "changed": self.changed, "skipped": self.skipped, "before": self.before, "after": self.after, "took_ms": took,
        })
    }
}

/// Registers every verb, and the types and constructors that scripts start from.
pub fn register(engine: &mut Engine, world: &Rc<World>) {
    let mut modules: BTreeMap<&'static str, Module> = BTreeMap::new();
    for binding in all() {
        register_one(engine, &mut modules, world, binding);
    }
    for (name, module) in modules {
        engine.register_static_module(name, module.into());
    }
    host::register(engine, world);
    fleet::register(engine, world);
    stack::register(engine, world);
    prepare::register(engine);
    hints::register(engine);
}

fn register_one(
    engine: &mut Engine,
    modules: &mut BTreeMap<&'static str, Module>,
    world: &Rc<World>,
    binding: &'static Binding,
) {
    let signature: &'static Signature = Box::leak(Box::new(binding.verb().signature()));
    let receivers: Vec<Option<TypeId>> = match binding.receivers(signature) {
        none if none.is_empty() => vec![None],
        words => words.into_iter().map(values::type_id).collect(),
    };
    let shapes = receivers.into_iter().flat_map(|receiver| signature.counts().map(move |given| (receiver, given)));
    for (receiver, given) in shapes {
        let mut types: Vec<TypeId> = receiver.into_iter().collect();
        types.extend(std::iter::repeat_n(TypeId::of::<Dynamic>(), given));
        let world = Rc::clone(world);
        let perform = move |context: NativeCallContext<'_>, args: &mut [&mut Dynamic]| {
            let call = Call { place: place(&context), ..Call::new(&world, binding.verb(), signature, args) };
            prepare::refuse_later(&call).map_err(|error| values::thrown(error, context.call_position()))?;
            if let Binding::Calls(_, perform) = binding {
                return perform(&context, &call);
            }
            binding.perform(&call).map_err(|error| values::thrown(error, context.call_position()))
        };
        match signature.module {
            Some(module) => {
                let module = modules.entry(module).or_default();
                let func = native(move |context, args| perform(context.expect("it was registered with one"), args));
                // No `Pure`: a panic in one of those ends the program (see `register_pure`).
                let func = RhaiFunc::Method { func, has_context: true, is_pure: true, is_volatile: true };
                FuncRegistration::new(signature.name).set_into_module_raw(module, types, func);
            }
            None => {
                // Rhai's own functions win by their exact types: its `sleep(int)` ignores Ctrl-C and leaves no record.
                if let ([Param { kind: "int", .. }], None) = (signature.params.as_slice(), signature.receiver) {
                    for exact in [TypeId::of::<i64>(), TypeId::of::<f64>()] {
                        engine.register_raw_fn(signature.name, [exact], perform.clone());
                    }
                }
                engine.register_raw_fn(signature.name, types, perform);
            }
        }
    }
}

/// What Rhai calls for a function of a module.
type Native = dyn Fn(Option<NativeCallContext<'_>>, &mut [&mut Dynamic]) -> RhaiResult;

/// Names the closure's type, for inference.
fn native(func: impl Fn(Option<NativeCallContext<'_>>, &mut [&mut Dynamic]) -> RhaiResult + 'static) -> Shared<Native> {
    Shared::new(func)
}

/// Where a script calls.
pub fn place(context: &NativeCallContext<'_>) -> Option<Place> {
    let position = context.call_position();
    let file = context.call_source()?.to_string();
    Some(Place { file, line: position.line()?, column: position.position().unwrap_or(1) })
}

/// One call of a verb by a script: its arguments, and the way to the gate.
pub struct Call<'a> {
    /// Everything that outlives the call.
    pub world: &'a Rc<World>,
    /// The verb.
    pub verb: &'static Verb,
    signature: &'a Signature,
    place: Option<Place>,
    args: &'a [&'a mut Dynamic],
    /// Set when the call is one of a batch.
    collector: Option<&'a Collector<'a>>,
    /// Set when the call is only prepared, for a person to agree to.
    preparing: Option<&'a Preparing>,
}

impl<'a> Call<'a> {
    fn new(
        world: &'a Rc<World>,
        verb: &'static Verb,
        signature: &'a Signature,
        args: &'a [&'a mut Dynamic],
    ) -> Call<'a> {
        Call { world, verb, signature, place: None, args, collector: None, preparing: None }
    }
}

impl Call<'_> {
    /// The object before the dot.
    pub fn this<T: Clone + 'static>(&self) -> Result<T> {
        let found = self.args.first().and_then(|value| value.read_lock::<T>().map(|value| value.clone()));
        found.ok_or_else(|| self.bad("it was not called on an object of its type"))
    }

    fn given(&self, at: usize) -> Option<&Dynamic> {
        let offset = usize::from(self.signature.receiver.is_some());
        self.args.get(at + offset).map(|value| &**value).filter(|value| !value.is_unit())
    }

    fn param(&self, at: usize) -> &Param {
        &self.signature.params[at]
    }

    fn required(&self, at: usize) -> Result<&Dynamic> {
        self.given(at).ok_or_else(|| self.bad(&format!("{} is missing", self.param(at).name)))
    }

    /// An error about the arguments; nothing was done.
    pub fn bad(&self, why: &str) -> Error {
        Error::new(Kind::Usage, format!("{} was called wrongly", self.verb.name), why)
            .next(format!("{}     {}", self.verb.sig, "how it is called"))
            .next(format!("{}     an example", self.verb.example))
    }

    fn wrong_type(&self, at: usize, value: &Dynamic) -> Error {
        let Param { name, kind, .. } = self.param(at);
        self.bad(&format!("{name} must be of type {kind}, not {}", values::type_name(value)))
    }

    /// Argument `at` as text.
    pub fn text(&self, at: usize) -> Result<String> {
        let value = self.required(at)?;
        value.clone().into_string().map_err(|_| self.wrong_type(at, value))
    }

    /// Argument `at` as a whole number within `range`.
    pub fn int(&self, at: usize, range: RangeInclusive<i64>) -> Result<i64> {
        let value = self.required(at)?;
        let number = value.as_int().map_err(|_| self.wrong_type(at, value))?;
        self.in_range(self.param(at).name, number, range)
    }

    /// Argument `at` as a whole number within `range`, or `default` when it was left out.
    pub fn int_or(&self, at: usize, default: i64, range: RangeInclusive<i64>) -> Result<i64> {
        if self.given(at).is_none() { Ok(default) } else { self.int(at, range) }
    }

    /// A number that must lie within `range`; `name` says which it is.
    pub fn in_range<N: PartialOrd + Display>(&self, name: &str, number: N, range: RangeInclusive<N>) -> Result<N> {
        if range.contains(&number) {
            return Ok(number);
        }
        Err(self.bad(&format!("{name} must be {} to {}, not {number}", range.start(), range.end())))
    }

    /// Argument `at` as a list of anything.
    pub fn list(&self, at: usize) -> Result<Vec<Dynamic>> {
        let value = self.required(at)?;
        value.clone().into_array().map_err(|_| self.wrong_type(at, value))
    }

    /// Argument `at` as a list of words; numbers count as words.
    pub fn words(&self, at: usize) -> Result<Vec<String>> {
        let list = self.list(at)?;
        list.into_iter()
            .map(|item| match item.as_int() {
                Ok(number) => Ok(number.to_string()),
                Err(_) => item.into_string().map_err(|kind| {
                    self.bad(&format!("{} must hold strings and numbers, not {kind}", self.param(at).name))
                }),
            })
            .collect()
    }

    /// Argument `at` as a closure.
    pub fn closure(&self, at: usize) -> Result<FnPtr> {
        let value = self.required(at)?;
        value.clone().try_cast().ok_or_else(|| self.wrong_type(at, value))
    }

    /// Argument `at` as JSON.
    pub fn json(&self, at: usize) -> Result<Value> {
        let value = self.required(at)?;
        values::check_size(value).map_err(|error| self.bad(&error.why))?;
        Ok(to_json(value))
    }

    /// Argument `at` as options; absent means the defaults, an unknown key is an error that lists the known ones.
    pub fn options<T: DeserializeOwned + Default>(&self, at: usize) -> Result<T> {
        let Some(value) = self.given(at) else { return Ok(T::default()) };
        if !value.is_map() {
            return Err(self.wrong_type(at, value));
        }
        values::check_size(value).map_err(|error| self.bad(&error.why))?;
        serde_json::from_value(to_json(value)).map_err(|error| self.bad(&error.to_string()))
    }

    /// Performs a read. `work` gets a copy of `context` each time: it is called again when its link was lost.
    pub fn read<C, F>(&self, look: Look, context: C, work: impl Fn(Pass, C) -> F + 'static) -> Result<Value>
    where
        C: Clone + 'static,
        F: Future<Output = Result<Value>> + Send + 'static,
    {
        let work = move |pass, context| {
            let work = work(pass, context);
            async move { work.await.map(Did::value) }
        };
        self.one(self.look(look), context, work).map(Done::into_value)
    }

    /// Performs a change.
    pub fn change<C, F>(&self, change: Change, context: C, work: impl Fn(Pass, C) -> F + 'static) -> Result<Receipt>
    where
        C: Clone + 'static,
        F: Future<Output = Result<Did>> + Send + 'static,
    {
        self.one(self.effect(change), context, work).map(Receipt::of)
    }

    fn one<C, F>(&self, effect: Effect, context: C, work: impl Fn(Pass, C) -> F + 'static) -> Result<Done>
    where
        C: Clone + 'static,
        F: Future<Output = Result<Did>> + Send + 'static,
    {
        let mut results = self.perform(vec![effect], ALL, move |_, pass| work(pass, context.clone()))?;
        results.pop().expect("one effect has one result")
    }

    /// Every effect of every verb goes through here; `work` gets the place of its effect in `effects`.
    fn perform<F>(
        &self,
        effects: Vec<Effect>,
        batch: usize,
        work: impl Fn(usize, Pass) -> F + 'static,
    ) -> Result<Vec<Result<Done>>>
    where
        F: Future<Output = Result<Did>> + Send + 'static,
    {
        if let Some(preparing) = self.preparing {
            preparing.take(effects.clone())?;
        }
        match self.collector {
            Some(collector) => collector.ask(effects, work),
            None => {
                let mut effects = effects;
                let others = lock::look(self.world, &effects)?;
                effects.iter_mut().zip(others).for_each(|(effect, other)| effect.other = other);
                let under = lock::over(self.world, &effects)?;
                let results = self.world.gate.perform_all(&effects, batch, |at, pass| {
                    lock::within(under[at].as_ref(), pass, |pass| work(at, pass))
                });
                work::offer_to_end(self.world);
                Ok(results)
            }
        }
    }

    /// A read, whatever else the verb does.
    fn look(&self, look: Look) -> Effect {
        Effect { class: Class::Read, ..self.effect(Change::of(look)) }
    }

    fn effect(&self, change: Change) -> Effect {
        // Of a read nobody is asked.
        let call = if self.verb.class == Class::Read { Value::Null } else { self.as_json() };
        Effect { place: self.place.clone(), call, ..change.effect(self.verb) }
    }
}

/// What a read names: where, with what, how long.
#[derive(Clone)]
pub struct Look {
    /// Where.
    pub target: Target,
    /// For the record.
    pub args: Value,
    /// For a person.
    pub says: String,
    /// How long it may take.
    pub deadline: Duration,
}

impl Look {
    /// A look at `target` with a deadline of 60 s.
    pub fn at(target: Target, says: impl Into<String>, args: Value) -> Look {
        Look { target, args, says: says.into(), deadline: Duration::from_secs(60) }
    }

    /// With another deadline, in seconds.
    pub fn within(mut self, seconds: u64) -> Look {
        self.deadline = Duration::from_secs(seconds);
        self
    }
}

/// What a change names besides.
#[derive(Clone)]
pub struct Change {
    /// Where, with what, how long.
    pub look: Look,
    /// Only when it differs from the verb's: never lower than `change`.
    pub class: Option<Class>,
    /// Further words of the question.
    pub aside: Option<String>,
    /// The line of Rhai that takes it back.
    pub inverse: Option<String>,
    /// The state that it goes back to; null when it is not known.
    pub before: Value,
    /// What is lost.
    pub lost: Option<String>,
    /// It comes back whole when this is undone.
    pub returns: bool,
    /// How it goes on when opsh does not.
    pub lives: Lives,
}

impl Change {
    /// The effect of `verb` that no line of a script stands for.
    pub fn effect(self, verb: &'static Verb) -> Effect {
        Effect {
            verb,
            class: self.class.unwrap_or(verb.class),
            target: self.look.target,
            args: self.look.args,
            call: Value::Null,
            says: self.look.says,
            aside: self.aside,
            inverse: self.inverse,
            before: self.before,
            lost: self.lost,
            returns: self.returns,
            place: None,
            deadline: self.look.deadline,
            lives: self.lives,
            other: None,
            known: None,
        }
    }

    /// A change without an inverse, which ends with opsh.
    pub fn of(look: Look) -> Change {
        let (before, lives) = (Value::Null, Lives::No);
        Change { look, class: None, aside: None, inverse: None, before, lost: None, returns: false, lives }
    }

    /// A change whose work goes on when opsh does not.
    pub fn lives(mut self, lives: Lives) -> Change {
        self.lives = lives;
        self
    }

    /// With its inverse, and the state that it goes back to.
    pub fn undone_by(mut self, line: impl Into<String>, before: impl Into<Value>) -> Change {
        self.inverse = Some(line.into());
        self.before = before.into();
        self
    }

    /// As a destroy that loses `what`.
    pub fn loses(mut self, what: impl Into<String>) -> Change {
        self.class = Some(Class::Destroy);
        self.lost = Some(what.into());
        self
    }

    /// As a destroy that takes `what` away until it is undone, and then it is whole again.
    pub fn takes_away(self, what: impl Into<String>) -> Change {
        Change { returns: true, ..self.loses(what) }
    }
}

/// A Rhai map from JSON, for verbs that return one.
pub fn map(value: Value) -> Dynamic {
    from_json(&value)
}
