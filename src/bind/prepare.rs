//! A call that is prepared and not performed: its verb checks the arguments and says what it would do, for a person to
//! agree to. `later("…")` stands for an argument that an earlier call of the plan makes known.

use super::batch::{self, Parts};
use super::fleet::HostsHandle;
use super::function::Function;
use super::host::HostHandle;
use super::values::{self, to_json, type_name};
use super::{Binding, Call, Change};
use crate::error::{Error, Kind, Result};
use crate::gate::verb::Class;
use crate::gate::{Effect, Intended};
use rhai::{Dynamic, Engine};
use serde_json::{Value, json};
use std::cell::RefCell;

/// Functions about plans that are no verbs.
pub const FUNCTIONS: &[Function] = &[Function::new(
    "later(words: string) -> later",
    "An argument of a plan that is not known yet. `words` (1 to 100 characters) say what makes it known; the \
     question shows them, marked as what comes later. It covers any text in that argument of that call, and only `authorize` \
     takes it: for the `image_id` of `stack.tag_image`, `stack.migrate_up`, `stack.migrate_down` and `stack.record_release`. \
     Fails with `usage` for other words.",
    r#"later("the image that is built")"#,
)];

/// Arguments that may stand for any value, by verb. An argument that says what is done is none of them.
const MAY_BE_LATER: &[(&str, &str)] = &[
    ("docker.tag", "image_id"),
    ("migrate.up", "image_id"),
    ("migrate.down", "image_id"),
    ("release.record", "image_id"),
];

/// Characters in the words of a placeholder.
const LONGEST: usize = 100;

/// An argument that is not known yet.
#[derive(Clone)]
pub struct Later(String);

impl Later {
    fn new(words: &str) -> Result<Later> {
        let is_plain = |c: char| c.is_alphanumeric() || " .,:;-_/'\"".contains(c);
        if words.trim().is_empty() || words.chars().count() > LONGEST || !words.chars().all(is_plain) {
            let why = format!("words must be 1 to {LONGEST} letters, digits, blanks and .,:;-_/'\"");
            return Err(Error::new(Kind::Usage, "later was called wrongly", why)
                .next("later(\"the image that is built\")     an example"));
        }
        Ok(Later(words.into()))
    }

    /// As a question shows it.
    fn shown(&self) -> String {
        format!("(later: {})", self.0)
    }
}

/// Registers `later(words)`.
pub fn register(engine: &mut Engine) {
    engine.register_type_with_name::<Later>("later");
    engine.register_fn("later", |context: rhai::NativeCallContext<'_>, words: &str| {
        Later::new(words).map_err(|error| values::thrown(error, context.call_position()))
    });
    engine.register_fn("to_string", |later: &mut Later| later.shown());
    engine.register_fn("to_debug", |later: &mut Later| later.shown());
}

/// Takes what a verb would do, while it is called for that only.
#[derive(Default)]
pub struct Preparing {
    effects: RefCell<Vec<Effect>>,
    /// The verb said what its arguments tell, before it looked at the world.
    before_looking: RefCell<bool>,
    /// An argument is a placeholder: nothing can be looked at with it.
    has_later: bool,
}

impl Preparing {
    /// Ends the verb's function at its change. A read is performed: it changes nothing, and the verb says more after it.
    pub fn take(&self, effects: Vec<Effect>) -> Result<()> {
        if effects.iter().all(|effect| effect.class == Class::Read) && !self.has_later {
            return Ok(());
        }
        if effects.iter().all(|effect| effect.class != Class::Read) {
            *self.effects.borrow_mut() = effects;
        }
        Err(Error::new(Kind::Failed, "a call is prepared", "it is performed when it was agreed to"))
    }
}

impl Call<'_> {
    /// Says what this call will do as far as its arguments tell, before the verb looks at the world: what an earlier call of
    /// the plan makes need not be there yet. Ends the verb when it is called for that only.
    pub fn intends(&self, change: impl FnOnce() -> Change) -> Result<()> {
        let Some(preparing) = self.preparing else { return Ok(()) };
        *preparing.before_looking.borrow_mut() = true;
        preparing.take(vec![self.effect(change())])
    }

    /// The call: its receiver, unless the target of the effect names it, and its arguments.
    pub fn as_json(&self) -> Value {
        let (on, args) = match self.signature.receiver {
            Some(_) => (self.args.first(), self.args.get(1..).unwrap_or_default()),
            None => (None, self.args),
        };
        // A verb of hosts has an effect on each.
        let on = on.filter(|on| !on.is::<HostHandle>() && !on.is::<HostsHandle>());
        let on = on.map(|on| json!([type_name(on), to_json(on)]));
        json!({ "on": on, "args": args.iter().map(|arg| to_json(arg)).collect::<Vec<_>>() })
    }
}

/// Fails with `usage` when a placeholder is among the arguments of a call that is to be performed.
pub fn refuse_later(call: &Call<'_>) -> Result<()> {
    let takes = call.verb.name == super::plan::AUTHORIZE.name;
    if takes || !call.args.iter().any(|arg| has_later(arg)) {
        return Ok(());
    }
    Err(call.bad("later(…) stands for a value in authorize only: give the value itself"))
}

fn has_later(value: &Dynamic) -> bool {
    if let Ok(items) = value.as_array_ref() {
        return items.iter().any(has_later);
    }
    if let Ok(map) = value.as_map_ref() {
        return map.values().any(has_later);
    }
    value.is::<Later>()
}

/// The effects of a call of a plan, as its verb says them.
pub fn prepared(call: &Call<'_>, entry: Dynamic) -> Result<Vec<Intended>> {
    let Parts { binding, signature, mut args } = batch::taken_apart(entry).map_err(|why| call.bad(&why))?;
    let verb = binding.verb();
    if !binding.changes() {
        let why = match binding {
            Binding::Calls(..) => "calls a script: name what that calls",
            _ => "changes nothing: nobody needs to agree to it",
        };
        return Err(call.bad(&format!("{} {why}", verb.name)));
    }
    batch::fits(binding, &signature, &args).map_err(|why| call.bad(&why))?;
    let receivers = usize::from(!binding.receivers(&signature).is_empty());
    let mut later = Vec::new();
    for (at, arg) in args.iter_mut().enumerate().skip(receivers) {
        let param = signature.params.get(at - receivers).map_or("", |param| param.name);
        let path = vec!["args".to_string(), (at - receivers).to_string()];
        fill(arg, param, &path, verb.name, &mut later).map_err(|why| call.bad(&why))?;
    }
    let preparing = Preparing { has_later: !later.is_empty(), ..Preparing::default() };
    let args: Vec<&mut Dynamic> = args.iter_mut().collect();
    let inner = Call::new(call.world, verb, &signature, &args);
    let result = binding.perform(&Call { place: call.place.clone(), preparing: Some(&preparing), ..inner });
    let effects = preparing.effects.take();
    if effects.is_empty() {
        drop(result?);
        return Err(call.bad(&format!("{} cannot be prepared with a value that is not known yet", verb.name)));
    }
    let is_exact = !preparing.before_looking.take() && later.is_empty();
    Ok(effects.iter().map(|effect| Intended { later: later.clone(), is_exact, ..effect.intended() }).collect())
}

/// Puts words in the place of each placeholder, and notes where it is. Fails where the verb takes none.
fn fill(
    value: &mut Dynamic,
    name: &str,
    path: &[String],
    verb: &str,
    later: &mut Vec<Vec<String>>,
) -> Result<(), String> {
    if let Some(words) = value.read_lock::<Later>().map(|later| later.shown()) {
        if !MAY_BE_LATER.contains(&(verb, name)) {
            return Err(format!("{name} of {verb} cannot be later(…): it says what is done"));
        }
        *value = words.into();
        later.push(path.to_vec());
        return Ok(());
    }
    let within = |key: &str| path.iter().cloned().chain([key.to_string()]).collect::<Vec<_>>();
    if let Ok(mut map) = value.as_map_mut() {
        return map.iter_mut().try_for_each(|(key, value)| fill(value, key, &within(key), verb, later));
    }
    if let Ok(mut items) = value.as_array_mut() {
        // An item has no name of its own that a verb could allow.
        let item = |(at, value): (usize, &mut Dynamic)| fill(value, "an item", &within(&at.to_string()), verb, later);
        return items.iter_mut().enumerate().try_for_each(item);
    }
    Ok(())
}
