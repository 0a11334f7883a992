//! The environment of services: what compose files ask for, what the env file has, and what the containers run with.
//! Names and states only: values are compared where they are read, and go no further.

use super::{Compose, Place, open};
use crate::bind::docker::{self, model::Env};
use crate::bind::git::Repository;
use crate::bind::values::literal;
use crate::bind::{Binding, Call, Look, host};
use crate::error::{Error, Kind, Result};
use crate::gate::Pass;
use crate::gate::verb::{Class, Verb};
use rhai::Dynamic;
use serde_json::{Value, json};
use std::collections::{BTreeMap, BTreeSet};

const NEEDS: Verb = Verb {
    name: "compose.env_needs",
    class: Class::Read,
    waits: false,
    sig: "stack.env_needs(commit: string) -> array",
    doc: "Variables that a commit's compose files need. `commit` is 40 hex; each is a map: `name`, `required` \
          (`${NAME:?}`: compose refuses to go on without it), `fallback` (the file brings a value), `set` (the env file on the \
          host has it). Values are never shown. Fails with `not_found` when the commit has no such compose file. \
          Deadline 60 s.",
    example: r#"stack("prod").env_needs("0123456789012345678901234567890123456789").filter(|v| v.required && !v.set)"#,
};

const DRIFT: Verb = Verb {
    name: "compose.env_drift",
    class: Class::Read,
    waits: false,
    sig: "stack.env_drift() -> array",
    doc: "Where containers run with another environment. Than the files say, that is; each is a map: `service`, `name`, \
          `state`: `differs` (another value), `missing` (the container lacks it) or `extra` (only the container has it, \
          and its image does not). Empty when all agree. Values are compared and never shown. A restart does not apply \
          a changed env file; `stack.recreate` does. Fails as `stack.config`. Deadline 60 s.",
    example: r#"stack("prod").env_drift()"#,
};

/// The bindings of this file.
pub const BINDINGS: &[Binding] = &[Binding::Read(&NEEDS, needs), Binding::Read(&DRIFT, drift)];

// ── what the files ask for ──

fn needs(call: &Call<'_>) -> Result<Dynamic> {
    let commit = crate::bind::git::check_commit(call, 0)?;
    let place = open(call)?;
    let repository = Repository::of_stack(call.world, &place.stack)?;
    let look = Look::at(call.world.stack_target(&place.stack), commit[..12].to_string(), json!({ "commit": commit }));
    let value = call.read(look, (place, repository, commit), |pass, (place, repository, commit)| async move {
        let mut wanted = BTreeMap::new();
        for file in &place.stack.compose.files {
            let text = repository.text_at(&pass, &commit, file).await?;
            wanted_by(&text).into_iter().for_each(|want| merge(&mut wanted, want));
        }
        let set = place.env_file_keys(&pass).await?;
        let row = |want: &Want| {
            json!({ "name": want.name, "required": want.required, "fallback": want.default, "set": set.contains(&want.name) })
        };
        Ok(wanted.values().map(row).collect())
    })?;
    Ok(crate::bind::map(value))
}

/// A variable that a compose file asks for.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Want {
    name: String,
    /// `${NAME:?…}` or `${NAME?…}`.
    required: bool,
    /// `${NAME:-…}` or `${NAME-…}`.
    default: bool,
}

/// Asked for twice: once without mercy counts.
fn merge(wanted: &mut BTreeMap<String, Want>, want: Want) {
    let known = wanted.entry(want.name.clone()).or_insert_with(|| want.clone());
    known.required |= want.required;
    known.default &= want.default;
}

/// As compose reads it: `$$` is a dollar sign, `${A:-${B}}` asks for both, comments ask for nothing.
fn wanted_by(text: &str) -> Vec<Want> {
    let mut found = Vec::new();
    for line in text.lines().filter(|line| !line.trim_start().starts_with('#')) {
        let mut rest = line;
        while let Some((_, after)) = rest.split_once('$') {
            rest = match after.strip_prefix('$') {
                Some(escaped) => escaped,
                None => {
                    found.extend(want_at(after));
                    after
                }
            };
        }
    }
    found
}

/// The variable that begins after a dollar sign.
fn want_at(text: &str) -> Option<Want> {
    let braced = text.starts_with('{');
    let name_on = text.strip_prefix('{').unwrap_or(text);
    let end = name_on.find(|c: char| !(c.is_ascii_alphanumeric() || c == '_')).unwrap_or(name_on.len());
    let (name, rest) = name_on.split_at(end);
    if name.is_empty() || name.starts_with(|c: char| c.is_ascii_digit()) {
        return None;
    }
    let rest = rest.strip_prefix(':').unwrap_or(rest);
    Some(Want {
        name: name.into(),
        required: braced && rest.starts_with('?'),
        default: braced && rest.starts_with('-'),
    })
}

impl Place {
    /// Names of the variables that the env file on the host sets.
    async fn env_file_keys(&self, pass: &Pass) -> Result<BTreeSet<String>> {
        let Some(env_file) = &self.stack.compose.env_file else { return Ok(BTreeSet::new()) };
        let path = format!("{}/{env_file}", self.stack.dir);
        let reach = self.way.reach(pass).await?;
        // Only what stands before the sign of equality leaves the host.
        let script = "sed -n 's/^[[:space:]]*\\(export[[:space:]][[:space:]]*\\)\\{0,1\\}\\([A-Za-z_][A-Za-z0-9_]*\\)[[:space:]]*=.*/\\2/p' \"$1\"";
        let text = host::look(&reach, pass, &self.stack.host, &["sh", "-c", script, "opsh", &path]).await?;
        Ok(text.lines().map(String::from).collect())
    }
}

// ── what runs ──

fn drift(call: &Call<'_>) -> Result<Dynamic> {
    let place = open(call)?;
    let look = Look::at(call.world.stack_target(&place.stack), "", json!({}));
    let value = call.read(look, place, |pass, place| async move {
        let compose = place.compose(&pass).await?;
        compose.drifted(&compose.parsed(&pass).await?).await
    })?;
    Ok(crate::bind::map(value))
}

/// Keys in which what runs for a service differs from the files; empty when that cannot be told.
pub fn stale(call: &Call<'_>, service: &str) -> Result<Vec<String>> {
    let place = open(call)?;
    let look = Look::at(call.world.stack_target(&place.stack), "", json!({ "environment of": service }));
    let found = call.read(look, (place, service.to_string()), |pass, (place, service)| async move {
        let compose = place.compose(&pass).await?;
        // Whoever restarts a service has trouble enough: files that cannot be read are no reason to refuse.
        let Ok(config) = compose.parsed(&pass).await else { return Ok(json!([])) };
        compose.drifted(&json!({ "services": { &service: config["services"][&service] } })).await
    })?;
    let keys = found.as_array().into_iter().flatten().filter_map(|row| row["name"].as_str());
    Ok(keys.map(String::from).collect())
}

impl Compose {
    /// Rows for every service that has a container.
    async fn drifted(&self, config: &Value) -> Result<Value> {
        let services = config["services"].as_object().into_iter().flatten();
        let mut rows = Vec::new();
        for (service, wanted) in services {
            if docker::look_for(&self.engine, &self.stack, service).await?.is_none() {
                continue;
            }
            let detail = docker::detail(&self.engine, &self.stack, service).await?;
            let image = self.engine.image(&detail.image_id).await?.map(|image| image.env).unwrap_or_default();
            rows.extend(compared(service, &environment(wanted), &detail.env, &image));
        }
        Ok(rows.into())
    }

    /// Fails when what runs for a service still differs from what the files say.
    pub(super) async fn same_environment(&self, pass: &Pass, service: &str) -> Result<()> {
        let config = self.parsed(pass).await?;
        let rows = self.drifted(&json!({ "services": { service: config["services"][service] } })).await?;
        let keys: Vec<&str> = rows.as_array().into_iter().flatten().filter_map(|row| row["name"].as_str()).collect();
        if keys.is_empty() {
            return Ok(());
        }
        let why = format!("it runs, and its environment still differs from the files in {}", keys.join(", "));
        Err(Error::new(Kind::Failed, format!("{service} was not recreated on {}", self.stack.host), why)
            .next(format!("stack({}).env_drift()     what differs", literal(&self.stack.name))))
    }
}

/// Variables that compose gives to a service; `None` for one that is passed on from compose's own environment.
fn environment(service: &Value) -> BTreeMap<String, Option<String>> {
    // What compose prints of its configuration could be read by it again: a dollar sign is two.
    let plain = |text: &str| text.replace("$$", "$");
    let text = |value: &Value| match value {
        Value::Null => None,
        Value::String(text) => Some(plain(text)),
        other => Some(other.to_string()),
    };
    match &service["environment"] {
        Value::Object(map) => map.iter().map(|(key, value)| (key.clone(), text(value))).collect(),
        Value::Array(list) => list
            .iter()
            .filter_map(Value::as_str)
            .map(|line| match line.split_once('=') {
                Some((key, value)) => (key.to_string(), Some(plain(value))),
                None => (line.to_string(), None),
            })
            .collect(),
        _ => BTreeMap::new(),
    }
}

fn compared(service: &str, wanted: &BTreeMap<String, Option<String>>, now: &Env, image: &Env) -> Vec<Value> {
    let row = |key: &str, state: &str| json!({ "service": service, "name": key, "state": state });
    let of_files = wanted.iter().filter_map(|(key, value)| {
        // One without a value is set only when compose's own environment has it, and that is empty.
        let value = value.as_ref()?;
        match now.get(key) {
            None => Some(row(key, "missing")),
            Some(there) if there != value => Some(row(key, "differs")),
            Some(_) => None,
        }
    });
    // What the image brought is in the container too; compose adds nothing of its own.
    let extra = now.minus(image);
    let extra = extra.keys().filter(|key| !wanted.contains_key(*key)).map(|key| row(key, "extra"));
    of_files.chain(extra).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn wanted(text: &str) -> Vec<(String, bool, bool)> {
        wanted_by(text).into_iter().map(|want| (want.name, want.required, want.default)).collect()
    }

    #[test]
    fn what_a_compose_file_asks_for_is_read_as_compose_does() {
        for (text, wants) in [
            ("a: ${A}", vec![("A", false, false)]),
            ("a: $A-$B", vec![("A", false, false), ("B", false, false)]),
            ("a: ${A:?must be set}", vec![("A", true, false)]),
            ("a: ${A?must be set}", vec![("A", true, false)]),
            ("a: ${A:-x}${B-y}", vec![("A", false, true), ("B", false, true)]),
            ("a: ${A:-${B:?}}", vec![("A", false, true), ("B", true, false)]),
            ("a: $$A $${B} $$$C", vec![("C", false, false)]),
            ("  # a: ${A:?}", vec![]),
            ("a: $1 ${} $", vec![]),
        ] {
            let wants: Vec<_> =
                wants.into_iter().map(|(name, required, default)| (name.to_string(), required, default)).collect();
            assert_eq!(wanted(text), wants, "{text}");
        }
    }

    #[test]
    fn a_variable_that_is_asked_for_twice_is_required_if_it_once_is() {
        let mut all = BTreeMap::new();
        wanted_by("a: ${A:-x}\nb: ${A:?}").into_iter().for_each(|want| merge(&mut all, want));
        assert_eq!(all["A"], Want { name: "A".into(), required: true, default: false });
    }

    #[test]
    fn containers_are_compared_by_key_and_no_value_is_told() {
        let env =
            |pairs: &[(&str, &str)]| Env::new(pairs.iter().map(|(key, value)| (key.to_string(), value.to_string())));
        let service =
            json!({ "environment": { "SAME": "1", "PORT": 8080, "OTHER": "new-value", "GONE": "x", "PASSED": null } });
        let now = env(&[("PATH", "/bin"), ("SAME", "1"), ("PORT", "8080"), ("OTHER", "old-value"), ("LEFT", "z")]);
        let rows = json!(compared("backend", &environment(&service), &now, &env(&[("PATH", "/bin")])));
        let states: Vec<_> = rows
            .as_array()
            .unwrap()
            .iter()
            .map(|row| (row["name"].as_str().unwrap(), row["state"].as_str().unwrap()))
            .collect();
        assert_eq!(states, [("GONE", "missing"), ("OTHER", "differs"), ("LEFT", "extra")]);
        assert!(!rows.to_string().contains("value"));
    }

    #[test]
    fn an_environment_is_a_map_or_a_list() {
        let list = json!({ "environment": ["A=b=$$c", "PASSED"] });
        assert_eq!(environment(&list), BTreeMap::from([("A".into(), Some("b=$c".into())), ("PASSED".into(), None)]));
    }
}
