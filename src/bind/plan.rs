//! Consent to a plan, and facts that a script relies on.

use super::{Binding, Call, Look};
use crate::error::{Error, Kind, Result};
use crate::gate::verb::{Class, Verb};
use crate::gate::{Did, Effect, Intended, Target};
use rhai::Dynamic;
use serde::Deserialize;
use serde_json::json;

const AUTHORIZE: Verb = Verb {
    name: "plan.authorize",
    class: Class::Read,
    waits: false,
    sig: "authorize(effects: array) -> ()",
    doc: "Decides a whole plan before its first change. Each effect is a map: `verb`, `stack` or `host`, `says` (what \
          a person reads), and for what loses data or service `loses` (what is lost, typed by the person who agrees). \
          Refused effects fail with `refused` before anything changed, naming the flags they lack; the rest is asked \
          for in one question. Consent covers this run. No deadline: a person is waited for.",
    example: r#"authorize([#{ verb: "compose.recreate", stack: "prod", says: "backend" }])"#,
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

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct One {
    verb: String,
    stack: Option<String>,
    host: Option<String>,
    #[serde(default)]
    says: String,
    loses: Option<String>,
}

fn authorize(call: &Call<'_>) -> Result<Dynamic> {
    let effects: Vec<One> = serde_json::from_value(call.json(0)?).map_err(|error| call.bad(&error.to_string()))?;
    let plan = effects.into_iter().map(|one| intended(call, one)).collect::<Result<Vec<_>>>()?;
    call.world.gate.authorize(&plan)?;
    Ok(Dynamic::UNIT)
}

fn intended(call: &Call<'_>, one: One) -> Result<Intended> {
    let verb = super::verb(&one.verb).ok_or_else(|| call.bad(&format!("there is no verb \"{}\"", one.verb)))?;
    let target = match (&one.stack, &one.host) {
        (Some(stack), None) => call.world.stack_target(&*call.world.config.stack(stack)?),
        (None, Some(host)) => call.world.host_target(host),
        _ => return Err(call.bad("each effect names one stack or one host")),
    };
    let class = if one.loses.is_some() { Class::Destroy } else { verb.class };
    Ok(Intended { verb, class, target, says: one.says, lost: one.loses, returns: false })
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
