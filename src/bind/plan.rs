//! Consent to a plan, and facts that a script relies on.

use super::{Binding, Call, Look, lock, prepare, values};
use crate::error::{Error, Kind, Result};
use crate::gate::verb::{Class, Verb};
use crate::gate::{Did, Effect, Intended, Target};
use rhai::Dynamic;
use serde_json::{Value, json};

/// Consent to a plan.
pub const AUTHORIZE: Verb = Verb {
    name: "plan.authorize",
    class: Class::Read,
    waits: false,
    sig: "authorize(calls: array) -> ()",
    doc: "Decides a whole plan before its first change. Each call is a list as `batch` takes it: the verb's name, what stands \
          before the dot, then the arguments; `later(\"…\")` stands for an `image_id` that is not known yet. Each verb checks \
          its arguments and says what it would do and what would be lost; inverses that the script wrote are shown in full. \
          Refused calls fail with `refused` before anything changed, naming the flags they lack; the rest is asked for in \
          one question. Consent covers each of these calls once, with these arguments: any other call asks again. No \
          deadline: a person is waited for.",
    example: r#"authorize([["compose.recreate", stack("prod"), "backend"]])"#,
};

const EXPECT: Verb = Verb {
    name: "plan.expect",
    class: Class::Read,
    waits: true,
    sig: "expect(fact: bool, what: string, why: string) -> ()",
    doc: "Stops the script when a fact is not so. Fails with `unmet` when `fact` is false: `what` was expected, `why` \
          is the fact that denies it. A replay judges it anew. Deadline 60 s.",
    example: r#"expect(1 + 1 == 2, "arithmetic holds", "it gave something else")"#,
};

/// The bindings of this file.
pub const BINDINGS: &[Binding] = &[Binding::Read(&AUTHORIZE, authorize), Binding::Read(&EXPECT, expect)];

fn authorize(call: &Call<'_>) -> Result<Dynamic> {
    let mut plan: Vec<Intended> = Vec::new();
    for (at, entry) in call.list(0)?.into_iter().enumerate() {
        if entry.is_map() {
            return Err(old_form(&entry));
        }
        let effects = prepare::prepared(call, entry)
            .map_err(|error| Error { why: format!("entry {}: {}", at + 1, error.why), ..error })?;
        plan.extend(effects);
    }
    lock::look_for_plan(call.world, &mut plan)?;
    call.world.gate.authorize(&plan)?;
    Ok(Dynamic::UNIT)
}

/// A map with words of the script: what it says need not be what is called.
fn old_form(entry: &Dynamic) -> Error {
    let entry = values::to_json(entry);
    let verb = entry["verb"].as_str().unwrap_or("docker.restart");
    let on = match (&entry["stack"], &entry["host"]) {
        (_, Value::String(host)) => format!("host({})", json!(host)),
        (Value::String(stack), _) => format!("stack({})", json!(stack)),
        _ => "stack(\"prod\")".into(),
    };
    let why = "an effect is a list, the call that is made later, not a map: its verb says what it does and loses";
    let error = Error::new(Kind::Usage, "plan.authorize was called wrongly", why);
    error.next(format!("authorize([[\"{verb}\", {on}, …]])     the arguments of the call in place of …"))
}

fn expect(call: &Call<'_>) -> Result<Dynamic> {
    let fact = call.json(0)?;
    let (what, why) = (call.text(1)?, call.text(2)?);
    let Some(fact) = fact.as_bool() else {
        return Err(call.bad(&format!("fact must be true or false, not {fact}")));
    };
    let look = Look::at(Target::here(), what.clone(), json!({ "what": what, "fact": fact }));
    let verdict = if fact { Ok(json!(true)) } else { Err(Error::new(Kind::Unmet, format!("not so: {what}"), why)) };
    let effect = Effect { known: Some(verdict.clone()), ..call.look(look) };
    call.one(effect, verdict, |_, verdict| async move { verdict.map(Did::value) })?;
    Ok(Dynamic::UNIT)
}

#[cfg(test)]
mod tests {
    use crate::bind::{self, Binding};

    #[test]
    fn every_verb_in_every_combination_has_the_answer_of_the_policy_table() {
        crate::gate::tests::table::hold(&bind::all().map(Binding::verb).collect::<Vec<_>>());
    }
}
