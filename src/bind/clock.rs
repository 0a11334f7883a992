//! Time as verbs: a recording that did not hold it would not be true.

use super::{Binding, Call, Look};
use crate::error::Result;
use crate::gate::verb::{Class, Verb};
use crate::gate::{Target, clock};
use rhai::Dynamic;
use serde_json::json;
use std::time::Duration;

const NOW: Verb = Verb {
    name: "clock.now",
    class: Class::Read,
    waits: false,
    sig: "now() -> string",
    doc: "The time in UTC. RFC 3339 with microseconds: `2026-11-24T06:17:43.120000Z`. Never fails. Deadline 60 s.",
    example: "now()",
};

const SLEEP: Verb = Verb {
    name: "clock.sleep",
    class: Class::Read,
    waits: true,
    sig: "sleep(seconds: int) -> ()",
    doc: "Waits `seconds` (0 to 86400). Fails with `interrupted` at Ctrl-C. In plan mode nothing is waited for after \
          a skipped change. Deadline `seconds` + 60 s.",
    example: "sleep(1)",
};

/// The bindings of this file.
pub const BINDINGS: &[Binding] = &[Binding::Read(&NOW, now), Binding::Read(&SLEEP, sleep)];

fn now(call: &Call<'_>) -> Result<Dynamic> {
    let value = call.read(Look::at(Target::here(), "", json!({})), (), |_, ()| async {
        Ok(json!(clock::rfc3339(clock::wall_us())))
    })?;
    Ok(super::map(value))
}

fn sleep(call: &Call<'_>) -> Result<Dynamic> {
    let seconds = call.int(0, 0..=86400)?.unsigned_abs();
    let look = Look::at(Target::here(), format!("{seconds} s"), json!({ "seconds": seconds })).within(seconds + 60);
    call.read(look, (), move |_, ()| async move {
        tokio::time::sleep(Duration::from_secs(seconds)).await;
        Ok(json!(null))
    })?;
    Ok(Dynamic::UNIT)
}
