//! The verb that calls `stdlib/status.rhai`, which looks at a stack, judges and makes one screen of it.

use super::{Binding, Call, RhaiResult, preflight};
use crate::gate::verb::{Class, Verb};
use rhai::NativeCallContext;

const STATUS: Verb = Verb {
    name: "status.look",
    class: Class::Read,
    waits: false,
    sig: "stack.status() -> map",
    doc: "How the stack is now, on one screen. What looks wrong comes first, with what to type; then containers, API, disks, \
          release, schema, sessions, lock and freeze, backup, host. A map: `stack`, `host`, `verdict` (OK, WARN, BAD), `wrong` \
          (`state`, `why`, `next`), `rows` (`what`, `said`), `lines` of the screen and its `text`: `print(stack(\"prod\") \
          .status().text)`. A look that fails is a row, \"could not look\", and counts as WARN. Whether it could take a \
          release is `stack.preflight`. Fails with `interrupted` at Ctrl-C. No deadline: that of each look.",
    example: r#"print(stack("prod").status().text)"#,
};

/// The bindings of this file.
pub const BINDINGS: &[Binding] = &[Binding::Calls(&STATUS, status)];

const CODE: &str = r#"import "std/status" as status; status::look(p)"#;

fn status(context: &NativeCallContext<'_>, call: &Call<'_>) -> RhaiResult {
    preflight::of_module(context, call, CODE, None)
}
