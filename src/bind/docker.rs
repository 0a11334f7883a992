//! Docker as scripts see it: containers, logs and images of a stack, over the Engine API. `transport` is the way
//! to it.

mod claim;
mod container;
mod end;
pub mod engine;
pub mod exec;
mod fault;
pub mod image;
pub mod inside;
pub mod keep;
pub mod logs;
pub mod model;
pub mod once;
pub mod space;
pub mod stacks;
#[cfg(test)]
mod testing;
pub mod transport;
pub mod wait;

pub use claim::{find, look_for, named, only};

use super::ssh::{Complaints, Reach};
use super::undo::{Now, Past};
use super::values::literal;
use super::{Binding, Call, Change, Look, Receipt, compose, host};
use crate::config::Stack;
use crate::error::{Error, Kind, Result};
use crate::gate::verb::{Class, Verb};
use crate::gate::{Did, Pass, clock};
use crate::redact;
use engine::Engine;
use logs::LogQuery;
use model::{Detail, Image};
use rhai::Dynamic;
use serde::Deserialize;
use serde_json::{Value, json};
use std::sync::atomic::AtomicBool;
use std::sync::{Arc, Mutex};

/// The label that says which commit an image was built from.
pub const REVISION: &str = "org.opencontainers.image.revision";

/// Labels of images that opsh built or kept.
pub const STACK_LABEL: &str = "opsh.stack";
/// The service that such an image belongs to.
pub const SERVICE_LABEL: &str = "opsh.service";

const CONNECT: Verb = Verb {
    name: "docker.connect",
    class: Class::Read,
    waits: false,
    sig: "stack.docker() -> map",
    doc: "Reaches the Docker Engine of the stack's host. It rides on the open login; returns its `engine` version, \
          and the newest and oldest `api` it speaks (`oldest_api`). Fails with `denied` when the account may not use the socket, `unreachable` when no Engine runs. \
          Deadline 30 s.",
    example: r#"stack("prod").docker().engine"#,
};

const PS: Verb = Verb {
    name: "docker.ps",
    class: Class::Read,
    waits: false,
    sig: "stack.ps() -> array",
    doc: "The stack's containers, stopped ones too. Each is a map: `service`, `container`, `image`, `state`, \
          `health`, `restarts`, `since` (seconds since it started or stopped, as Docker words it). `service` is empty for a \
          container that has the labels of compose from its image only. Fails as \
          `stack.docker`. Deadline 60 s.",
    example: r#"stack("prod").ps()"#,
};

const CONTAINER: Verb = Verb {
    name: "docker.container",
    class: Class::Read,
    waits: false,
    sig: "stack.container(service: string) -> map",
    doc: "What runs for a service. A map: `id`, `name`, `image_id`, `image` (the reference it was made from), \
          `revision` (the commit its image is labelled with, or `()`), `state`, `health` (`()` without a health \
          check), `restarts`, `oom`, `exit`, `env` (key names, never values), `compose` (the compose version that \
          made it). Of several containers it is the running one with the lowest number. Fails with `not_found` when the \
          service has no container, `unmet` when something else claims to be one. Deadline 60 s.",
    example: r#"stack("prod").container("backend").image_id"#,
};

const LOGS: Verb = Verb {
    name: "docker.logs",
    class: Class::Read,
    waits: false,
    sig: "stack.logs(service: string, options?: #{ tail: int, since_s: int, grep: string, follow: bool }) -> array",
    doc: "The service's newest log lines, oldest first. Each is `#{ at, stream, text }`. Options: `tail` (1 to 100000 \
          lines, default 100), `since_s` (0 to 4294967295: only the last so many seconds), `grep` (only \
          lines that hold this text), `follow` (shows them as they are written until Ctrl-C or the container's end, \
          and returns none). Fails with `not_found` when the service has no container. Deadline 60 s, or a day when \
          it is followed.",
    example: r#"stack("prod").logs("backend", #{ tail: 50 })"#,
};

const IMAGE: Verb = Verb {
    name: "docker.image",
    class: Class::Read,
    waits: false,
    sig: "stack.image(reference: string) -> map",
    doc: "An image on the stack's host. A map: `id`, `tags`, `revision`, `created`, `size_bytes`; `()` when it is not \
          there. Fails as `stack.docker`. Deadline 60 s.",
    example: r#"stack("prod").image("postgres:16-alpine")"#,
};

const KEPT: Verb = Verb {
    name: "docker.kept_image",
    class: Class::Read,
    waits: false,
    sig: "stack.kept_image(service: string, commit: string) -> map",
    doc: "The newest image that opsh built of a commit. For this service, from `commit` (40 hex), on the stack's \
          host, as `stack.image`; `()` when there is none. Fails as `stack.docker`. Deadline 60 s.",
    example: r#"stack("prod").kept_image("backend", "0123456789012345678901234567890123456789")"#,
};

const MISSING: Verb = Verb {
    name: "docker.missing_files",
    class: Class::Read,
    waits: false,
    sig: "stack.missing_files(image_id: string, paths: array) -> array",
    doc: "Which of these are no programs in an image. Those of `paths` (absolute) that are not executable files in \
          it. Nothing is run: a container is made from the image, never started, and removed. Fails with `not_found` \
          when there is no such image. Deadline 60 s.",
    example: r#"stack("prod").missing_files("sha256:0000", ["/app/server"])"#,
};

const TAG: Verb = Verb {
    name: "docker.tag",
    class: Class::Change,
    waits: false,
    sig: "stack.tag_image(image_id: string, reference: string) -> receipt",
    doc: "Makes a reference name an image. `reference` is `repository:tag`; the next recreate uses the image. \
          `before` and `after` are image ids. Fails with `not_found` when the image is not there. Deadline 60 s.",
    example: r#"stack("prod").tag_image("sha256:0000", "vrcshift_backend:latest")"#,
};

const RESTART: Verb = Verb {
    name: "docker.restart",
    class: Class::Change,
    waits: false,
    sig: "stack.restart(service: string, grace_s?: int) -> receipt",
    doc: "Stops a service's container and starts it again. It has `grace_s` seconds (0 to 600, default 10) to stop \
          before it is killed. Image and environment stay the same, so a changed env file is not applied (`stack.recreate` does), \
          which is said when there is one. \
          For a service that holds data it is of class destroy. Fails with `not_found`, `timeout`, or `unmet` when the \
          service has several containers, or something else claims to be one. Deadline \
          `grace_s` + 60 s.",
    example: r#"stack("prod").restart("backend", 10)"#,
};

/// The bindings of this file.
pub const BINDINGS: &[Binding] = &[
    Binding::Read(&CONNECT, connect),
    Binding::Read(&PS, ps),
    Binding::Read(&CONTAINER, container),
    Binding::Read(&LOGS, logs),
    Binding::Read(&IMAGE, image),
    Binding::Read(&KEPT, kept_image),
    Binding::Read(&MISSING, missing_files),
    Binding::Undoable(&TAG, tag_image, tag_now),
    Binding::Change(&RESTART, restart),
];

/// Over the local socket, or over `docker system dial-stdio` in a channel of the open login.
pub async fn dialled(pass: Pass, host: &str, reach: Reach, opened: Arc<AtomicBool>) -> Result<Engine> {
    let pass = Arc::new(pass);
    if matches!(reach, Reach::Local) {
        let dial = transport::telling(transport::unix_dial("/var/run/docker.sock"), opened);
        return Engine::connect(&pass, host, dial, Arc::new(String::new)).await;
    }
    // What the newest channel complains about is the only text that says why a socket cannot be used.
    let newest: Arc<Mutex<Complaints>> = Arc::default();
    let told = Arc::clone(&newest);
    let reason = Arc::new(move || told.lock().map(|complaints| complaints.text()).unwrap_or_default());
    // The connection is used for as long as it lives under the pass it was opened with.
    let kept = Arc::clone(&pass);
    let dial: transport::Dial = Arc::new(move || {
        let (pass, reach, newest) = (Arc::clone(&kept), reach.clone(), Arc::clone(&newest));
        Box::pin(async move {
            let words = ["docker", "system", "dial-stdio"].map(String::from);
            let stream = reach.stream(&pass, &words).await.map_err(std::io::Error::other)?.killing();
            if let Ok(mut newest) = newest.lock() {
                *newest = stream.complaints();
            }
            Ok(Box::new(stream) as Box<dyn transport::Io>)
        })
    });
    Engine::connect(&pass, host, transport::telling(dial, opened), reason).await
}

/// The service's container in detail; values of its environment that are secret are hidden from now on.
pub async fn detail(engine: &Engine, stack: &Stack, service: &str) -> Result<Detail> {
    let container = find(engine, stack, service).await?;
    let detail = engine.inspect(&container.id).await?;
    learn_secrets(&detail, stack.host.as_str());
    Ok(detail)
}

/// Hides from now on what a container's environment and commands tell of secrets.
pub fn learn_secrets(detail: &Detail, host: &str) {
    let mut learner = redact::Learner::of_container();
    detail.env.pairs().iter().for_each(|(name, value)| learner.variable(name, value));
    [&detail.entrypoint, &detail.cmd, &detail.health_test].iter().for_each(|words| learner.words(words));
    learner.finish(&format!("container {} on {host}", detail.name));
}

fn connect(call: &Call<'_>) -> Result<Dynamic> {
    let (stack, way) = call.stack_and_way()?;
    let value = call.read(Look::at(call.world.stack_target(&stack), "", json!({})), way, |pass, way| async move {
        let version = way.engine(&pass).await?.version().await?;
        Ok(json!({ "engine": version.engine, "api": version.api, "oldest_api": version.oldest_api }))
    })?;
    Ok(super::map(value))
}

fn ps(call: &Call<'_>) -> Result<Dynamic> {
    let (stack, way) = call.stack_and_way()?;
    let value = call.read(
        Look::at(call.world.stack_target(&stack), "", json!({})),
        (stack, way),
        |pass, (stack, way)| async move {
            let engine = way.engine(&pass).await?;
            let mut rows = Vec::new();
            for container in engine.containers(&stack.compose.project).await? {
                let detail = engine.inspect(&container.id).await?;
                let health = detail.health.map(|health| health.status);
                let service = if container.is_inherited { "" } else { container.service.as_str() };
                rows.push(json!({
                "service": service, "container": container.name, "image": container.image_ref,
                "state": container.state, "health": health, "restarts": detail.restart_count, "since": since(&container.status),
            }));
            }
            rows.sort_by_key(|row| row["service"].as_str().map(String::from));
            Ok(rows.into())
        },
    )?;
    Ok(super::map(value))
}

/// `3 d` of `Up 3 days (healthy)`, `exit 1, 2 min ago` of `Exited (1) 2 minutes ago`: health has a column of its own, and a
/// screen is not wide.
fn since(status: &str) -> String {
    const SHORT: &[(&str, &str)] = &[
        ("Less than a second", "0 s"),
        ("About a minute", "1 min"),
        ("About an hour", "1 h"),
        (" seconds", " s"),
        (" second", " s"),
        (" minutes", " min"),
        (" hours", " h"),
        (" days", " d"),
        (" weeks", " wk"),
        (" months", " mo"),
        (" years", " y"),
    ];
    let health = ["(healthy)", "(unhealthy)", "(health: starting)"];
    let status = health.iter().find_map(|words| status.strip_suffix(words)).unwrap_or(status).trim_end();
    let short = SHORT.iter().fold(status.to_string(), |text, (long, short)| text.replace(long, short));
    match short.strip_prefix("Exited (").and_then(|rest| rest.split_once(") ")) {
        Some((code, ago)) => format!("exit {code}, {ago}"),
        None => short.strip_prefix("Up ").map_or(short.clone(), String::from),
    }
}

fn container(call: &Call<'_>) -> Result<Dynamic> {
    let service = call.text(0)?;
    let (stack, way) = call.stack_and_way()?;
    let look = Look::at(call.world.stack_target(&stack), service.clone(), json!({ "service": service }));
    let value = call.read(look, (stack, way, service), |pass, (stack, way, service)| async move {
        let engine = way.engine(&pass).await?;
        let detail = detail(&engine, &stack, &service).await?;
        let image = engine.image(&detail.image_id).await?;
        let revision = image.and_then(|image| image.revision());
        let keys: Vec<&str> = detail.env.keys().collect();
        let health = detail.health.as_ref().map(|health| health.status.clone());
        Ok(json!({
            "id": detail.id, "name": detail.name, "image_id": detail.image_id, "image": detail.image_ref,
            "revision": revision, "state": detail.state, "health": health, "restarts": detail.restart_count,
            "oom": detail.oom_killed, "exit": detail.exit_code, "env": keys, "compose": detail.compose_version,
        }))
    })?;
    Ok(super::map(value))
}

/// Lines of a log that are asked for at once.
const MOST_LINES: u32 = 100_000;

/// A log is followed for a day at most.
const FOLLOWED_S: u64 = 86_400;

#[derive(Deserialize)]
#[serde(deny_unknown_fields, default)]
struct LogOptions {
    tail: u32,
    since_s: Option<u32>,
    grep: Option<String>,
    follow: bool,
}

impl Default for LogOptions {
    fn default() -> LogOptions {
        LogOptions { tail: 100, since_s: None, grep: None, follow: false }
    }
}

fn logs(call: &Call<'_>) -> Result<Dynamic> {
    let service = call.text(0)?;
    let options: LogOptions = call.options(1)?;
    call.in_range("tail", options.tail, 1..=MOST_LINES)?;
    let (stack, way) = call.stack_and_way()?;
    let mut args = json!({ "service": service, "tail": options.tail, "since_s": options.since_s });
    if let Some(text) = &options.grep {
        args["grep"] = json!(text);
    }
    if options.follow {
        args["follow"] = json!(true);
    }
    let look = Look::at(call.world.stack_target(&stack), service.clone(), args);
    let look = if options.follow { look.within(FOLLOWED_S) } else { look };
    let value =
        call.read(look, (stack, way, service, Arc::new(options)), |pass, (stack, way, service, options)| async move {
            let engine = way.engine(&pass).await?;
            let id = detail(&engine, &stack, &service).await?.id;
            let since_s = options.since_s.map(|ago| clock::wall_us() / 1_000_000 - i64::from(ago));
            // Lines are chosen here: the newest that hold a text may stand far from the end.
            let tail = if options.grep.is_some() && !options.follow { MOST_LINES } else { options.tail };
            let query = LogQuery { since_s, grep: options.grep.clone(), ..LogQuery::newest(tail, host::KEEP) };
            if options.follow {
                engine.follow(&id, &query, &pass).await?;
                return Ok(json!([]));
            }
            let lines = engine.logs(&id, &query).await?.lines;
            let older = lines.len().saturating_sub(options.tail as usize);
            let line =
                |line: logs::LogLine| json!({ "at": line.at.to_string(), "stream": line.stream, "text": line.text });
            Ok(lines.into_iter().skip(older).map(line).collect())
        })?;
    Ok(super::map(value))
}

fn image_json(image: Image) -> Value {
    let revision = image.revision();
    json!({
        "id": image.id, "tags": image.tags, "revision": revision, "size_bytes": image.size_bytes,
        "created": image.created.map(|at| at.to_string()),
    })
}

fn image(call: &Call<'_>) -> Result<Dynamic> {
    let reference = call.text(0)?;
    let (stack, way) = call.stack_and_way()?;
    let look = Look::at(call.world.stack_target(&stack), reference.clone(), json!({ "reference": reference }));
    let value = call.read(look, (way, reference), |pass, (way, reference)| async move {
        Ok(way.engine(&pass).await?.image(&reference).await?.map_or(Value::Null, image_json))
    })?;
    Ok(super::map(value))
}

fn kept_image(call: &Call<'_>) -> Result<Dynamic> {
    let (service, commit) = (call.text(0)?, call.text(1)?);
    let (stack, way) = call.stack_and_way()?;
    let look =
        Look::at(call.world.stack_target(&stack), service.clone(), json!({ "service": service, "commit": commit }));
    let value = call.read(look, (stack, way, service, commit), |pass, (stack, way, service, commit)| async move {
        let engine = way.engine(&pass).await?;
        let own = |image: &Image| {
            let label = |name: &str| image.labels.get(name).map(String::as_str);
            label(STACK_LABEL) == Some(&stack.compose.project) && label(SERVICE_LABEL) == Some(&service)
        };
        let mut images = engine.images_labelled(REVISION, &commit).await?;
        images.retain(own);
        images.sort_by_key(|image| std::cmp::Reverse(image.created));
        Ok(images.into_iter().next().map_or(Value::Null, image_json))
    })?;
    Ok(super::map(value))
}

fn missing_files(call: &Call<'_>) -> Result<Dynamic> {
    let (image_id, paths) = (call.text(0)?, call.words(1)?);
    let (stack, way) = call.stack_and_way()?;
    let look =
        Look::at(call.world.stack_target(&stack), paths.join(" "), json!({ "image_id": image_id, "paths": paths }));
    let value = call.read(look, (way, image_id, paths), |pass, (way, image_id, paths)| async move {
        let found = way.engine(&pass).await?.has_files(&image_id, &paths).await?;
        Ok(found.into_iter().filter(|file| !file.executable).map(|file| file.path).collect())
    })?;
    Ok(super::map(value))
}

fn tag_image(call: &Call<'_>) -> Result<Receipt> {
    let (image_id, reference) = (call.text(0)?, call.text(1)?);
    let (stack, way) = call.stack_and_way()?;
    let Some((repository, tag)) = reference.rsplit_once(':').filter(|(_, tag)| !tag.contains('/')) else {
        return Err(call.bad(&format!("reference must be repository:tag, not \"{reference}\"")));
    };
    let (repository, tag) = (repository.to_string(), tag.to_string());
    let target = call.world.stack_target(&stack);
    let args = json!({ "image_id": image_id, "reference": reference });
    let says = format!("{reference} → {}", short_id(&image_id));
    let wanted = || Change::of(Look::at(target.clone(), says.clone(), args.clone()));
    call.intends(wanted)?;
    let look = Look::at(target.clone(), reference.clone(), json!({ "reference": reference }));
    let before = call.read(look, (way.clone(), reference.clone()), |pass, (way, reference)| async move {
        Ok(way.engine(&pass).await?.image(&reference).await?.map_or(Value::Null, |image| image.id.into()))
    })?;
    let mut change = wanted();
    if let Some(old) = before.as_str() {
        change = change.undone_by(
            format!("stack({}).tag_image({}, {})", literal(&stack.name), literal(old), literal(&reference)),
            old,
        );
    }
    let (repository, tag) = (repository.to_string(), tag.to_string());
    let context = (stack, way, image_id, reference, repository, tag, before);
    call.change(change, context, |pass, context| async move {
        let (stack, way, image_id, reference, repository, tag, before) = context;
        let engine = way.engine(&pass).await?;
        let missing = || {
            let why = format!("image {} is not on {}", short_id(&image_id), stack.host);
            Error::new(Kind::NotFound, format!("{reference} was not tagged"), why)
        };
        let wanted = engine.image(&image_id).await?.ok_or_else(missing)?.id;
        if before.as_str() != Some(&wanted) {
            pass.sending();
            engine.tag(&wanted, &repository, &tag).await?;
        }
        let after = engine.image(&reference).await?.map(|image| image.id);
        if after.as_deref() != Some(&wanted) {
            let why = format!("{reference} names {}", after.as_deref().map_or("nothing", short_id));
            return Err(Error::new(Kind::Failed, format!("{reference} was not tagged"), why));
        }
        Ok(Did { changed: before.as_str() != Some(&wanted), before, after: wanted.into(), ..Did::default() })
    })
}

/// Which image the reference names now.
fn tag_now(past: &Past<'_>) -> Result<Now> {
    let (_, way) = past.stack()?;
    let (reference, image_id) = (past.text("reference"), past.text("image_id"));
    let names = reference.clone();
    past.look(reference, (way, names, image_id), |pass, (way, reference, image_id)| async move {
        let engine = way.engine(&pass).await?;
        let now = engine.image(&reference).await?.map(|image| image.id);
        let wanted = engine.image(&image_id).await?.map(|image| image.id);
        Ok((json!(now), json!(wanted)))
    })
}

/// `7c41d2…` for `sha256:7c41d2…`.
pub fn short_id(id: &str) -> &str {
    id.strip_prefix("sha256:").map_or(id, |hex| hex.get(..12).unwrap_or(hex))
}

fn restart(call: &Call<'_>) -> Result<Receipt> {
    let (service, grace) = (call.text(0)?, call.int_or(1, 10, 0..=600)?);
    let (stack, way) = call.stack_and_way()?;
    let target = call.world.stack_target(&stack);
    let args = json!({ "service": service, "grace_s": grace });
    let look = Look::at(target.clone(), service.clone(), args).within(grace.unsigned_abs() + 60);
    let mut change = Change::of(look);
    if stack.is_stateful(&service) {
        change = change.loses(service.clone());
    }
    call.intends(|| change.clone())?;
    // A name that is not there is no question to ask a person.
    let look = Look::at(target, service.clone(), json!({ "service": service, "before": "restart" }));
    let context = (Arc::clone(&stack), way.clone(), service.clone());
    let found = call.read(look, context.clone(), |pass, (stack, way, service)| async move {
        let container = only(&way.engine(&pass).await?, &stack, &service).await?;
        Ok(json!({ "id": container.id, "name": container.name }))
    })?;
    if let Some(name) = found["name"].as_str() {
        change.look.says = claim::shown(&service, name);
    }
    let stale = compose::env::stale(call, &service)?;
    if !stale.is_empty() {
        let line = format!("stack({}).recreate({})", literal(&stack.name), literal(&service));
        let keys = stale.join(", ");
        call.world
            .gate
            .say(&format!("warning: a restart does not apply what changed in the files: {keys}; {line} does"));
    }
    call.change(change, context, move |pass, (stack, way, service)| async move {
        let engine = way.engine(&pass).await?;
        let before = only(&engine, &stack, &service).await?;
        let began = engine.inspect(&before.id).await?.started_at;
        pass.sending();
        engine.restart(&before.id, grace.unsigned_abs() as u32).await?;
        let after = engine.inspect(&before.id).await?;
        if after.state != "running" || after.started_at == began {
            let why = format!("it is {} and has not started again", after.state);
            return Err(Error::new(Kind::Failed, format!("{service} did not restart on {}", stack.host), why).next(
                format!(
                    "stack({}).logs({}, #{{ tail: 50 }})     its last lines",
                    literal(&stack.name),
                    literal(&service)
                ),
            ));
        }
        Ok(Did { changed: true, before: json!(before.state), after: json!(after.state), ..Did::default() })
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn how_long_is_said_in_a_few_letters() {
        for (status, short) in [
            ("Up 3 days (healthy)", "3 d"),
            ("Up 42 seconds (health: starting)", "42 s"),
            ("Up About a minute", "1 min"),
            ("Up Less than a second", "0 s"),
            ("Exited (137) 2 minutes ago", "exit 137, 2 min ago"),
            ("Restarting (1) 5 seconds ago", "Restarting (1) 5 s ago"),
            ("Created", "Created"),
        ] {
            assert_eq!(since(status), short, "{status}");
        }
    }
}
