//! Builds the Rhai engine: limits, imports, print to the screen, and errors with their places.

mod bounded;
pub mod deep;
pub mod errors;
mod json;
pub mod modules;
pub mod natives;
mod order;
mod texts;

use crate::bind::function::{self, Function};
use crate::bind::values::{self, ExitCode, NO_MEMORY, RhaiResult};
use crate::bind::{self, World};
use crate::error::{Error, Kind};
use crate::{interrupt, memory, redact};
use modules::{Ending, Modules};
use rhai::{AST, Array, Dynamic, Engine, EvalAltResult, Map, Module, NativeCallContext, OptimizationLevel, Scope};
use std::rc::Rc;

/// Functions for text, help and a script's own arguments; `help` is registered by the session, which has the texts.
const FUNCTIONS: &[Function] = &[
    Function::new(
        "print(value: any) -> ()",
        "Shows a value as the screen does. A list of maps is a table, a map is lines; with `--json` it goes to \
         standard error.",
        r#"print([#{ tag: "v1", state: "here" }])"#,
    ),
    Function::new(
        "table(value: any) -> string",
        "What `print` would show, as text.",
        r#"table([#{ tag: "v1", state: "here" }])"#,
    ),
    Function::new(
        "local_time(at: string) -> string",
        "A time as the screen shows it. `at` is as RFC 3339; returns it to the minute, with the name of its zone, which is \
         `timezone` of `[screen]` in opsh.toml, or this machine's. Any other text is returned as it is.",
        r#"local_time("2026-11-24T17:00:05Z")"#,
    ),
    Function::new(
        "hidden(text: string) -> string",
        "A text with what is secret in it hidden. The screen hides it anyway, when it is whole: hide it before a text is \
         cut, or half of a secret may be left.",
        r#"hidden("the API answers 500").sub_string(0, 12)"#,
    ),
    Function::new(
        "help(name?: string) -> ()",
        "Explains verbs and functions at the screen. Without `name` it lists them all; `name` is a system (`docker`), \
         a receiver (`stack`), a verb (`docker.restart`) or a function. Fails with `usage` for another name, naming \
         the nearest.",
        r#"help("docker.restart")"#,
    ),
    Function::new(
        "exit(code?: int) -> ()",
        "Ends the script with an exit code. `code` is from 0 to 255, and 0 when it is left out; anything else fails with \
         `usage`. It cannot be caught, ends functions, steps and imported modules, and counts as a failure (`failed`) unless \
         it is 0: `undo::guard` takes back what it did, and a step is not finished. A check ends with `check::result` \
         instead: with `exit` it is UNKNOWN. At the prompt it leaves opsh.",
        "exit(0)",
    ),
    Function::new(
        "parse_json(text: string) -> any",
        "The value of a JSON text. An object is a map, `null` is `()`, a number without a fraction or an exponent an int. \
         Nothing in the text is evaluated. Fails with `failed` for what is no JSON, a key that stands twice in one object, \
         a whole number beyond 64 bits, and more than 127 levels.",
        r#"parse_json("[1, {\"a\": null}]")"#,
    ),
    Function::new(
        "to_json(value: any) -> string",
        "A value as JSON on one line. `value` is a map, an array, a string, a number, a bool or `()`. Keys are in the order \
         of the alphabet. Fails with `usage` for what has no JSON (a closure, a host, NaN) and for more than 100 levels.",
        r#"to_json(#{ tags: ["v1"], count: 1 })"#,
    ),
    Function::new("mode() -> string", "How this run treats changes. One of `apply`, `plan`, `observe`.", "mode()"),
    Function::new(
        "args::need(at: int, name: string) -> string",
        "Word `at` of the script's arguments. `at` counts from 0, as far as there are words. Fails with `usage`, \
         naming `name`, when it is not there.",
        r#"args::need(0, "TAG")"#,
    ),
    Function::new(
        "args::option(name: string, default: string) -> string",
        "The value of an option of the script. That is `--name VALUE`; `default` when it was not given.",
        r#"args::option("stack", "prod")"#,
    ),
    Function::new(
        "args::number(name: string, default: int, least: int, most: int) -> int",
        "The value of an option that is a whole number. That is `--name N`, from `least` to `most`; `default` when it \
         was not given. Fails with `usage` for anything else.",
        r#"args::number("healthy-within", 60, 1, 3600)"#,
    ),
    Function::new(
        "args::flag(name: string) -> bool",
        "Whether a flag of the script was given: `--name`.",
        r#"args::flag("data-loss-ok")"#,
    ),
    Function::new("args::words() -> array", "The script's arguments that are no options.", "args::words()"),
];

/// Every function that is no verb.
pub fn functions() -> impl Iterator<Item = &'static Function> {
    FUNCTIONS.iter().chain(function::all())
}

/// An engine with every verb registered.
pub fn build(world: &Rc<World>) -> Engine {
    let mut engine = Engine::new();
    limit(&mut engine);
    let ending = Ending::default();
    engine.set_module_resolver(Modules::new(Rc::clone(world), Rc::clone(&ending)));
    let screen = world.gate.screen().clone();
    engine.on_print(move |text| screen.print(text));
    let screen = world.gate.screen().clone();
    engine.on_debug(move |text, source, position| {
        screen.say(&format!("debug {}:{position:?}: {text}", source.unwrap_or("")));
    });
    engine.on_progress(|_| match memory::is_over() {
        _ if interrupt::is_interrupted() => Some("interrupted".into()),
        true => {
            memory::give_room();
            Some(NO_MEMORY.into())
        }
        false => None,
    });
    deep::watch(&mut engine);
    // Rhai's own clock would leave no record.
    engine.register_fn("timestamp", || -> Result<Dynamic, Box<EvalAltResult>> {
        Err("there is no timestamp(): now() is the time, and each receipt has its took_ms".into())
    });
    register_text(&mut engine, world);
    register_exit(&mut engine, ending);
    json::register(&mut engine);
    bounded::register(&mut engine);
    texts::register(&mut engine);
    order::register(&mut engine);
    let from = Rc::clone(world);
    engine.register_fn("mode", move || from.gate.mode().word());
    engine.register_static_module("args", args(world).into());
    bind::register(&mut engine, world);
    engine
}

/// Evaluates a script or a line from its beginning. A panic is an error.
pub fn run(engine: &Engine, scope: &mut Scope<'static>, ast: &AST) -> RhaiResult {
    memory::take_room();
    values::shielded(|| engine.eval_ast_with_scope(scope, ast))
}

/// An engine that only parses: the limits of [`build`], and a name may mean anything.
pub fn parser() -> Engine {
    let mut engine = Engine::new_raw();
    limit(&mut engine);
    engine.set_strict_variables(false);
    engine
}

fn limit(engine: &mut Engine) {
    // The optimizer calls native functions while it compiles: `if false { restart() }` would restart.
    engine.set_optimization_level(OptimizationLevel::None);
    engine.set_max_strings_interned(0);
    engine.set_strict_variables(true);
    engine.set_fail_on_invalid_map_property(true);
    engine.disable_symbol("eval");
    // Size limits make `push` linear in the array's length, so only depth is limited; the engine runs on a thread
    // whose stack holds these depths.
    engine.set_max_call_levels(128).set_max_expr_depths(256, 128);
    engine.set_max_modules(200);
}

/// `print(map)` shows what the screen would, and `table(value)` is that as text. Rhai's own `print` of a list or map
/// would win by its exact type; what a `print` returns is what `on_print` is given.
fn register_text(engine: &mut Engine, world: &Rc<World>) {
    let screen = world.gate.screen().clone();
    let show = move |context: &NativeCallContext<'_>, value: Dynamic| -> RhaiResult<String> {
        values::check_text(&value).map_err(|error| values::thrown(error, context.call_position()))?;
        Ok(screen.show(&values::to_json(&value)))
    };
    let shown = show.clone();
    texts::register_pure(engine, "print", move |context: NativeCallContext<'_>, map: &mut Map| {
        shown(&context, map.clone().into())
    });
    let shown = show.clone();
    texts::register_pure(engine, "print", move |context: NativeCallContext<'_>, list: &mut Array| {
        shown(&context, list.clone().into())
    });
    let shown = show.clone();
    texts::register_pure(engine, "print", move |context: NativeCallContext<'_>, value: &mut Dynamic| {
        shown(&context, value.clone())
    });
    texts::register_pure(engine, "table", move |context: NativeCallContext<'_>, value: &mut Dynamic| {
        show(&context, value.clone())
    });
    let screen = world.gate.screen().clone();
    engine.register_fn("local_time", move |at: &str| screen.minute(at));
    engine.register_fn("hidden", redact::clean);
}

/// `exit(N)` ends the script, wherever it is called, with an exit code. Rhai's own makes any value the script's value, and
/// the process says that all is well.
fn register_exit(engine: &mut Engine, ending: Ending) {
    let exit = move |context: &NativeCallContext<'_>, code: u8| -> RhaiResult {
        let exit = ExitCode { code, place: bind::place(context) };
        ending.replace(Some(exit.clone()));
        Err(EvalAltResult::Exit(Dynamic::from(exit), context.call_position()).into())
    };
    let succeed = exit.clone();
    engine.register_fn("exit", move |context: NativeCallContext<'_>| succeed(&context, 0));
    engine.register_fn("exit", move |context: NativeCallContext<'_>, code: Dynamic| -> RhaiResult {
        match code.as_int().map(u8::try_from) {
            Ok(Ok(code)) => exit(&context, code),
            other => {
                let given = match other {
                    Ok(_) => code.to_string(),
                    Err(_) => format!("a value of type {}", values::type_name(&code)),
                };
                let why = format!("an exit code is a whole number from 0 to 255, not {given}");
                let error = Error::new(Kind::Usage, "exit was called wrongly", why);
                let error = error.next("exit(1)     the script failed").next("throw \"WHY\"     fails, and says why");
                Err(values::thrown(error, context.call_position()))
            }
        }
    });
}

/// The functions that are named `args::…` in [`FUNCTIONS`].
fn args(world: &Rc<World>) -> Module {
    let mut module = Module::new();
    let from = Rc::clone(world);
    rhai::FuncRegistration::new("need").set_into_module(
        &mut module,
        move |context: NativeCallContext<'_>, at: i64, name: &str| -> Result<String, Box<EvalAltResult>> {
            let at = usize::try_from(at).unwrap_or(usize::MAX);
            from.need(at, name).map_err(|error| values::thrown(error, context.call_position()))
        },
    );
    let from = Rc::clone(world);
    rhai::FuncRegistration::new("option").set_into_module(&mut module, move |name: &str, default: &str| -> String {
        from.args.borrow().options.get(name).cloned().unwrap_or_else(|| default.into())
    });
    let from = Rc::clone(world);
    rhai::FuncRegistration::new("number").set_into_module(
        &mut module,
        move |context: NativeCallContext<'_>,
              name: &str,
              default: i64,
              least: i64,
              most: i64|
              -> Result<i64, Box<EvalAltResult>> {
            from.number(name, default, least..=most).map_err(|error| values::thrown(error, context.call_position()))
        },
    );
    let from = Rc::clone(world);
    rhai::FuncRegistration::new("flag")
        .set_into_module(&mut module, move |name: &str| -> bool { from.args.borrow().flags.contains(name) });
    let from = Rc::clone(world);
    rhai::FuncRegistration::new("words").set_into_module(&mut module, move || -> Dynamic {
        from.args.borrow().words.iter().map(|word| Dynamic::from(word.clone())).collect::<Vec<_>>().into()
    });
    module
}

/// The error of a script that does not parse.
pub fn unparsable(name: &str, error: &rhai::ParseError) -> Error {
    let position = error.position();
    let mut parsed = Error::new(Kind::Usage, format!("{name} does not parse"), error.err_type().to_string());
    if let (Some(line), column) = (position.line(), position.position().unwrap_or(1)) {
        parsed.trace.push(crate::error::Place { file: name.into(), line, column });
    }
    parsed
}
