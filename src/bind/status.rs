//! The verb that looks at all of a stack at once; `stdlib/status.rhai`, which it calls, says what is wrong.

use super::preflight::decided_by;
use super::{Binding, Call, RhaiResult};
use crate::gate::verb::{Class, Verb};
use rhai::{Dynamic, NativeCallContext};

const STATUS: Verb = Verb {
    name: "status.look",
    class: Class::Read,
    waits: false,
    sig: "stack.status() -> map",
    doc: "How the stack is right now, on one screen. A map: `stack`, `host`, `wrong` (lines, each with what to type; empty \
          when nothing looks wrong) and `screen`, the same with services, disks, API, checkout, last change, schema, \
          backup and load. A look that failed is a line of `wrong`. Changes nothing. Whether it is fit for a release says \
          `stack.preflight`. Fails with `interrupted` at Ctrl-C. No deadline: that of each look.",
    example: r#"print(stack("prod").status().screen)"#,
};

/// The bindings of this file.
pub const BINDINGS: &[Binding] = &[Binding::Calls(&STATUS, look)];

const CODE: &str = r#"import "std/status" as status; status::look(p)"#;

fn look(context: &NativeCallContext<'_>, call: &Call<'_>) -> RhaiResult {
    decided_by(context, call, CODE, Dynamic::UNIT)
}
