//! Several hosts as one: `hosts("web")`, one verb on all of them, and an error that holds both halves.

use super::function::Function;
use super::host::HostHandle;
use super::way::Way;
use super::{Call, Change, Look, Receipt, World, values};
use crate::error::{Error, Kind, Result};
use crate::gate::verb::Class;
use crate::gate::{ALL, Did, Done, Effect, HERE, Pass, Target, is_not_tried};
use rhai::{Array, Dynamic, Engine, EvalAltResult, NativeCallContext};
use serde_json::{Value, json};
use std::future::Future;
use std::rc::Rc;

/// `hosts("web")`: at least one host, each once, in order.
#[derive(Clone)]
pub struct HostsHandle(Vec<HostHandle>);

impl HostsHandle {
    /// Names in order.
    pub fn names(&self) -> Vec<String> {
        self.0.iter().map(HostHandle::name).collect()
    }
}

impl IntoIterator for HostsHandle {
    type Item = HostHandle;
    type IntoIter = std::vec::IntoIter<HostHandle>;

    fn into_iter(self) -> Self::IntoIter {
        self.0.into_iter()
    }
}

/// What else scripts can do with several hosts.
pub const FUNCTIONS: &[Function] = &[
    Function::new(
        "hosts(which: any) -> hosts",
        "Several hosts of opsh.toml. `which` is a tag, or a list of names and hosts; each host is there once. Verbs of \
         `host` go to all of them, and a `for` loop goes over them. Fails with `usage` for a tag or name that opsh.toml \
         does not have, naming the nearest, and for none at all.",
        r#"hosts(["local"])"#,
    ),
    Function::new("hosts.names -> array", "Names of the hosts, in their order.", r#"hosts(["local"]).names"#),
    Function::new("hosts.len -> int", "How many hosts they are.", r#"hosts(["local"]).len"#),
];

/// Registers the constructors `hosts(TAG)` and `hosts([…])`, and what a script asks of a fleet itself.
pub fn register(engine: &mut Engine, world: &Rc<World>) {
    engine.register_type_with_name::<HostsHandle>("hosts");
    let world = Rc::clone(world);
    engine.register_fn(
        "hosts",
        move |context: NativeCallContext<'_>, which: Dynamic| -> std::result::Result<HostsHandle, Box<EvalAltResult>> {
            chosen(&world, &which).map_err(|error| values::thrown(error, context.call_position()))
        },
    );
    engine.register_iterator::<HostsHandle>();
    engine.register_fn("len", |hosts: &mut HostsHandle| hosts.0.len() as i64);
    engine.register_get("len", |hosts: &mut HostsHandle| hosts.0.len() as i64);
    engine.register_get("names", |hosts: &mut HostsHandle| -> Array {
        hosts.names().into_iter().map(Dynamic::from).collect()
    });
    engine.register_fn("to_string", |hosts: &mut HostsHandle| hosts.names().join(", "));
    engine.register_fn("to_debug", |hosts: &mut HostsHandle| format!("hosts({:?})", hosts.names()));
}

fn chosen(world: &World, which: &Dynamic) -> Result<HostsHandle> {
    if let Ok(tag) = which.as_immutable_string_ref() {
        let tagged = world.config.tagged(&tag)?;
        return Ok(HostsHandle(tagged.into_iter().map(HostHandle::of).collect()));
    }
    let wrong = |why: String| {
        Error::new(Kind::Usage, "hosts was called wrongly", why)
            .next("hosts(\"web\")     every host of that tag in opsh.toml")
            .next("hosts([\"web-1\", \"web-2\"])     these hosts")
    };
    let list = which
        .as_array_ref()
        .map_err(|_| wrong(format!("it takes a tag or a list of hosts, not {}", values::type_name(which))))?;
    let mut hosts: Vec<HostHandle> = Vec::new();
    for item in list.iter() {
        let host = match (item.as_immutable_string_ref(), item.read_lock::<HostHandle>()) {
            (Ok(name), _) => super::host::named(world, &name)?,
            (_, Some(host)) => host.clone(),
            _ => return Err(wrong(format!("the list holds {}, not names or hosts", values::type_name(item)))),
        };
        if hosts.iter().all(|known| known.name() != host.name()) {
            hosts.push(host);
        }
    }
    if hosts.is_empty() { Err(wrong("the list is empty".into())) } else { Ok(HostsHandle(hosts)) }
}

/// What a verb gave on each host before the dot.
pub struct Each<T> {
    rows: Vec<Row<T>>,
    /// The dot was behind one host: its value is the result, and its error the error.
    single: bool,
    /// The script wants the rows, whatever failed.
    partial: bool,
}

impl<T> Each<T> {
    /// With what was given as something else.
    pub fn map<U>(self, how: impl Fn(T) -> U) -> Each<U> {
        let row = |row: Row<T>| Row { name: row.name, result: row.result.map(&how) };
        Each { rows: self.rows.into_iter().map(row).collect(), single: self.single, partial: self.partial }
    }
}

impl Each<Value> {
    /// The value for the script: that of the one host, or a list in order. Fails when one failed; for a fleet with what
    /// became of each.
    pub fn into_value(mut self, call: &Call<'_>) -> Result<Value> {
        if self.partial {
            return Ok(outcomes("host", self.rows).into());
        }
        if self.single
            && let Some(row) = self.rows.pop()
        {
            return row.result;
        }
        if self.rows.iter().any(|row| row.result.is_err()) {
            return Err(call.both_halves("host", self.rows));
        }
        Ok(self.rows.into_iter().filter_map(|row| Some(with_host(row.result.ok()?, row.name))).collect())
    }
}

/// What became of one of several, by its name.
pub struct Row<T> {
    /// Name of the host, or of the verb.
    pub name: String,
    /// What it gave.
    pub result: Result<T>,
}

fn with_host(value: Value, host: String) -> Value {
    let mut row = match value {
        Value::Object(row) => row,
        other => serde_json::Map::from_iter([("value".to_string(), other)]),
    };
    row.insert("host".into(), host.into());
    row.into()
}

/// Each row as scripts see it: `#{ host, ok: true, value }` or `#{ host, ok: false, error }`.
pub fn outcomes(what: &str, rows: Vec<Row<Value>>) -> Vec<Value> {
    let outcome = |row: Row<Value>| match row.result {
        Ok(value) => json!({ what: row.name, "ok": true, "value": value }),
        Err(error) => json!({ what: row.name, "ok": false, "error": error.to_json() }),
    };
    rows.into_iter().map(outcome).collect()
}

/// Lines of an error that are about single hosts; `results` has all.
const LINES: usize = 10;

impl Call<'_> {
    /// The hosts before the dot, and whether it is one that was named as such.
    fn hosts(&self) -> Result<(Vec<HostHandle>, bool)> {
        match self.this::<HostHandle>() {
            Ok(host) => Ok((vec![host], true)),
            Err(_) => self.this::<HostsHandle>().map(|hosts| (hosts.0, false)),
        }
    }

    /// True when the dot is behind `hosts(…)`, even of one host.
    pub fn is_fleet(&self) -> bool {
        self.this::<HostsHandle>().is_ok()
    }

    /// Performs a read on each host before the dot; all are tried. `partial`: what failed is a row, not an error.
    pub fn read_each<C, F>(
        &self,
        partial: bool,
        look: impl Fn(Target) -> Look,
        context: C,
        work: impl Fn(Pass, Way, C) -> F + 'static,
    ) -> Result<Each<Value>>
    where
        C: Clone + 'static,
        F: Future<Output = Result<Value>> + Send + 'static,
    {
        let work = move |pass, way, context| {
            let work = work(pass, way, context);
            async move { work.await.map(Did::value) }
        };
        let effect = |target| self.look(look(target));
        Ok(self.each(partial, ALL, effect, context, work)?.map(Done::into_value))
    }

    /// Performs a change on each host before the dot: on the first, then on `batch` at a time, and not past a
    /// batch with a failure.
    pub fn change_each<C, F>(
        &self,
        batch: usize,
        change: impl Fn(Target) -> Change,
        context: C,
        work: impl Fn(Pass, Way, C) -> F + 'static,
    ) -> Result<Each<Receipt>>
    where
        C: Clone + 'static,
        F: Future<Output = Result<Did>> + Send + 'static,
    {
        let effect = |target| self.effect(change(target));
        Ok(self.each(false, batch, effect, context, work)?.map(Receipt::of))
    }

    fn each<C, F>(
        &self,
        partial: bool,
        batch: usize,
        effect: impl Fn(Target) -> Effect,
        context: C,
        work: impl Fn(Pass, Way, C) -> F + 'static,
    ) -> Result<Each<Done>>
    where
        C: Clone + 'static,
        F: Future<Output = Result<Did>> + Send + 'static,
    {
        let (hosts, single) = self.hosts()?;
        let names: Vec<String> = hosts.iter().map(HostHandle::name).collect();
        let ways = names.iter().map(|name| self.world.way(name)).collect::<Result<Vec<Way>>>()?;
        let effects = names.iter().map(|name| effect(self.world.host_target(name))).collect();
        let results = self.perform(effects, batch, move |at, pass| work(pass, ways[at].clone(), context.clone()))?;
        let rows = names.into_iter().zip(results).map(|(name, result)| Row { name, result }).collect();
        Ok(Each { rows, single, partial })
    }

    /// One error for several of which some failed: the reason of each, what was done and what was not tried, and all
    /// results.
    pub fn both_halves(&self, what: &str, rows: Vec<Row<Value>>) -> Error {
        let error = Error { trace: self.place.iter().cloned().collect(), ..self.summed_up(what, &rows) };
        Error { results: outcomes(what, rows), ..error }
    }

    fn summed_up(&self, what: &str, rows: &[Row<Value>]) -> Error {
        let name = |row: &Row<Value>| row.name.clone();
        let errors = rows.iter().filter_map(|row| Some((row.name.as_str(), row.result.as_ref().err()?)));
        let (untried, failed): (Vec<_>, Vec<_>) = errors.partition(|(_, error)| is_not_tried(error));
        if failed.len() == rows.len()
            && let Some(error) = one_decision(&failed)
        {
            return Error { host: None, ..error.clone() };
        }
        let mut why = reasons(&failed);
        if self.verb.class != Class::Read {
            let done: Vec<String> = rows.iter().filter(|row| row.result.is_ok()).map(name).collect();
            let untried: Vec<String> = untried.iter().map(|(name, _)| name.to_string()).collect();
            why.extend(touched(&done, &untried));
        }
        let title = format!("{} failed on {} of {} {what}s", self.verb.name, failed.len(), rows.len());
        Error { next: next_lines(&failed), ..Error::new(worst(&failed), title, why.join("\n")) }
    }
}

/// The reason of each, as far as a screen has room.
fn reasons(failed: &[(&str, &Error)]) -> Vec<String> {
    let mut lines: Vec<String> = failed.iter().take(LINES).map(reason).collect();
    if failed.len() > LINES {
        lines.push(format!("and {} more", failed.len() - LINES));
    }
    lines
}

/// What to type next, each line once.
fn next_lines(failed: &[(&str, &Error)]) -> Vec<String> {
    let mut next: Vec<String> = Vec::new();
    for line in failed.iter().flat_map(|(_, error)| &error.next) {
        if next.len() < LINES && !next.contains(line) {
            next.push(line.clone());
        }
    }
    next
}

/// `web-3: exit code 1`, and for a verb with its place: `docker.ps on prod: …`.
fn reason((name, error): &(&str, &Error)) -> String {
    let elsewhere = error.host.iter().find(|host| host != name && *host != HERE);
    let on = elsewhere.map_or(String::new(), |host| format!(" on {host}"));
    format!("{name}{on}: {}", error.why.lines().next().unwrap_or(""))
}

/// The error that all have in common, word for word: one decision was taken for all.
fn one_decision<'a>(failed: &[(&str, &'a Error)]) -> Option<&'a Error> {
    let (_, first) = failed.first()?;
    failed.iter().all(|(_, error)| (&error.what, &error.why) == (&first.what, &first.why)).then_some(first)
}

/// What may have happened outweighs what did not; then what all have in common.
fn worst(failed: &[(&str, &Error)]) -> Kind {
    let all = |kind| failed.iter().all(|(_, error)| error.kind == kind);
    let any = |kind: &Kind| failed.iter().any(|(_, error)| error.kind == *kind);
    let common = failed.first().map(|(_, error)| error.kind).filter(|kind| all(*kind));
    [Kind::Unknown, Kind::Interrupted].into_iter().find(any).or(common).unwrap_or(Kind::Failed)
}

/// Where a change that stopped was done, and where not.
fn touched(done: &[String], untried: &[String]) -> Vec<String> {
    let mut lines = Vec::new();
    if !done.is_empty() {
        lines.push(format!("done on {}", some_of(done)));
    }
    match (done, untried) {
        (_, []) => {}
        ([], untried) => lines.push(format!("it was the first: nothing was done on the other {}", untried.len())),
        (_, untried) => lines.push(format!("not tried on {}", some_of(untried))),
    }
    lines
}

fn some_of(names: &[String]) -> String {
    let shown = names[..names.len().min(LINES)].join(", ");
    if names.len() > LINES { format!("{shown} and {} more", names.len() - LINES) } else { shown }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(words: &str) -> Vec<String> {
        words.split_whitespace().map(String::from).collect()
    }

    #[test]
    fn what_may_have_happened_outweighs_every_other_failure() {
        use Kind::*;
        for (kinds, kind) in [
            (vec![Failed, Unreachable, Unknown, Interrupted], Unknown),
            (vec![Failed, Interrupted], Interrupted),
            (vec![Denied, Denied], Denied),
            (vec![Denied, Unreachable], Failed),
        ] {
            let errors: Vec<Error> = kinds.iter().map(|kind| Error::new(*kind, "", "")).collect();
            assert_eq!(worst(&errors.iter().map(|error| ("a", error)).collect::<Vec<_>>()), kind, "{kinds:?}");
        }
    }

    #[test]
    fn a_change_that_stopped_says_where_it_was_done_and_where_not() {
        assert_eq!(touched(&names("a b"), &names("c")), ["done on a, b", "not tried on c"]);
        assert_eq!(touched(&[], &names("b c")), ["it was the first: nothing was done on the other 2"]);
        assert_eq!(touched(&names("a"), &[]), ["done on a"]);
        assert_eq!(some_of(&names("1 2 3 4 5 6 7 8 9 10 11 12")), "1, 2, 3, 4, 5, 6, 7, 8, 9, 10 and 2 more");
    }

    #[test]
    fn a_line_to_type_next_is_said_once_and_many_reasons_are_cut_short() {
        let error = Error::new(Kind::Failed, "", "no room\nat all").next("df").host("prod");
        let failed: Vec<(&str, &Error)> = (0..12).map(|_| ("docker.ps", &error)).collect();
        assert_eq!(next_lines(&failed), ["df"]);
        let lines = reasons(&failed);
        assert_eq!((lines.len(), lines[0].as_str()), (11, "docker.ps on prod: no room"));
        assert_eq!(lines[10], "and 2 more");
    }
}
