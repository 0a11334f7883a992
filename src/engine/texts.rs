//! Lists and maps as texts, with a bound. Scripts share a long text as often as they like; the text of a list holds a copy of
//! each, and memory is only looked at between two operations.

use crate::bind::values::{self, RhaiResult};
use crate::shield;
use rhai::{Array, Dynamic, Engine, FuncRegistration, ImmutableString, Map, NativeCallContext};

/// Registers them, in place of Rhai's own, for both types: an exact type wins over Rhai's functions for any value.
pub fn register(engine: &mut Engine) {
    of_type::<Array>(engine);
    of_type::<Map>(engine);
}

fn of_type<T: Clone + 'static>(engine: &mut Engine)
where
    Dynamic: From<T>,
{
    for name in ["to_string", "to_debug", "debug"] {
        register_pure(engine, name, |context: NativeCallContext<'_>, value: &mut T| -> RhaiResult<String> {
            let value = value.clone().into();
            // A text with `${…}` in it calls `to_string`, and where that fails it writes the value without any bound.
            values::check_text(&value).unwrap_or_else(|error| shield::stop(error));
            written(&context, &value)
        });
    }
    engine.register_fn("+", |context: NativeCallContext<'_>, text: ImmutableString, value: T| -> RhaiResult<String> {
        Ok(format!("{text}{}", written(&context, &value.into())?))
    });
    engine.register_fn("+", |context: NativeCallContext<'_>, value: T, text: ImmutableString| -> RhaiResult<String> {
        Ok(written(&context, &value.into())? + text.as_str())
    });
    for name in ["+=", "append"] {
        let append = |context: NativeCallContext<'_>, text: &mut ImmutableString, value: T| -> RhaiResult<()> {
            text.make_mut().push_str(&written(&context, &value.into())?);
            Ok(())
        };
        engine.register_fn(name, append);
    }
}

/// Registers a function that takes its first argument as `&mut` and leaves it as it is, constants included. Rhai copies a
/// variable that is given by value, and ends the program when it cannot put it back because the call panicked: no guard runs.
pub fn register_pure<A: 'static, const N: usize, const X: bool, R: rhai::Variant + Clone, const F: bool>(
    engine: &mut Engine,
    name: &str,
    function: impl rhai::RhaiNativeFunc<A, N, X, R, F> + 'static,
) {
    FuncRegistration::new(name).with_purity(true).register_into_engine(engine, function);
}

/// The value as Rhai writes it.
fn written(context: &NativeCallContext<'_>, value: &Dynamic) -> RhaiResult<String> {
    values::check_text(value).map_err(|error| values::thrown(error, context.call_position()))?;
    let mut out = String::new();
    write(context, value, &mut out)?;
    Ok(out)
}

fn write(context: &NativeCallContext<'_>, value: &Dynamic, out: &mut String) -> RhaiResult<()> {
    if let Ok(items) = value.as_array_ref() {
        out.push('[');
        for (at, item) in items.iter().enumerate() {
            out.push_str(if at == 0 { "" } else { ", " });
            write(context, item, out)?;
        }
        out.push(']');
    } else if let Ok(map) = value.as_map_ref() {
        out.push_str("#{");
        for (at, (key, item)) in map.iter().enumerate() {
            out.push_str(if at == 0 { "" } else { ", " });
            out.push_str(&format!("{key:?}: "));
            write(context, item, out)?;
        }
        out.push('}');
    } else {
        let text = context.call_native_fn_raw("to_debug", true, &mut [&mut value.flatten_clone()])?;
        out.push_str(&text.into_string().unwrap_or_else(|_| format!("{value:?}")));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use rhai::{Dynamic, Engine};

    const VALUES: &str = r#"[1, -2.5, true, (), 'c', "a \" and a \n", [], [[], [1]], #{}, #{ a: 1, "b c": ["x"] }, 1..3, || 1, blob(2, 7)]"#;

    #[test]
    fn lists_and_maps_are_written_as_rhai_writes_them() {
        let mut ours = Engine::new();
        super::register(&mut ours);
        for script in [
            "v.to_string()",
            "v.to_debug()",
            "debug(v)",
            "`x${v}y`",
            "\"x\" + v",
            "v + \"x\"",
            "let s = \"x\"; s += v; s",
            "let s = \"x\"; s.append(v); s",
            "`${v[9]}`",
            "v[9] + \"\"",
            "let w = v; let f = || w; `${w}`",
        ] {
            let script = format!("let v = {VALUES}; {script}");
            let text = |engine: &Engine| engine.eval::<Dynamic>(&script).map(|value| format!("{value:?}"));
            assert_eq!(text(&ours).unwrap(), text(&Engine::new()).unwrap(), "{script}");
        }
    }

    #[test]
    fn a_function_that_panics_is_an_error_where_its_argument_is_a_variable() {
        let mut engine = Engine::new();
        super::register_pure(&mut engine, "fails", |value: &mut i64| -> i64 { panic!("a bug with {value}") });
        for script in ["let x = 1; fails(x)", "let x = 1; x.fails()", "const X = 1; fails(X)", "fails(1)"] {
            let error = crate::shield::run(|| engine.eval::<i64>(script)).expect_err(script);
            assert!(error.why.contains("a bug with 1"), "{}", error.why);
        }
    }
}
