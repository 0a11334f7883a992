//! Stacks that nobody wrote down: what the labels of compose say of a host's containers.

use super::engine::Engine;
use super::model::{Detail, Project};
use crate::bind::host::{self, HostHandle};
use crate::bind::ssh::Reach;
use crate::bind::{self, Binding, Call, Look};
use crate::error::{Kind, Result};
use crate::gate::Pass;
use crate::gate::verb::{Class, Verb};
use rhai::Dynamic;
use serde_json::{Value, json};

const STACKS: Verb = Verb {
    name: "docker.stacks",
    class: Class::Read,
    waits: false,
    sig: "host.stacks() -> array",
    doc: "The compose projects on a host, as labels tell. Each is a map: `project`, `dir`, `files` and `env_file` \
          (relative to `dir` where they are in it; of compose 1, which does not say, the env file that is named as the \
          compose file is, `()` without one), `services`, and `db` (`service`, `user`, `name`), when one of them runs \
          PostgreSQL. Stopped containers count. Fails with `unreachable` when there is no Docker Engine. Deadline 60 s.",
    example: r#"host("prod-1").stacks()"#,
};

/// The bindings of this file.
pub const BINDINGS: &[Binding] = &[Binding::Read(&STACKS, stacks)];

fn stacks(call: &Call<'_>) -> Result<Dynamic> {
    let host = call.this::<HostHandle>()?.name();
    let way = call.world.way(&host)?;
    let look = Look::at(call.world.host_target(&host), "", json!({}));
    let value = call.read(look, (way, host), |pass, (way, host)| async move {
        let (engine, reach) = (way.engine(&pass).await?, way.reach(&pass).await?);
        let mut rows = Vec::new();
        for project in engine.projects().await? {
            rows.push(row(&engine, &reach, &pass, &host, project).await?);
        }
        Ok(rows.into())
    })?;
    Ok(bind::map(value))
}

async fn row(engine: &Engine, reach: &Reach, pass: &Pass, host: &str, project: Project) -> Result<Value> {
    let dir = project.working_dir;
    let within = |path: &String| path.strip_prefix(&format!("{dir}/")).unwrap_or(path).to_string();
    let files: Vec<String> = project.config_files.iter().map(within).collect();
    let mut env_file = project.environment_files.first().map(within);
    if env_file.is_none() {
        // A folder that is gone, or that this account may not read, has no env file to tell of.
        let listed = match host::look(reach, pass, host, &["ls", "-A", "--", &dir]).await {
            Err(error) if [Kind::Timeout, Kind::Unreachable, Kind::Unknown].contains(&error.kind) => return Err(error),
            listed => listed.unwrap_or_default(),
        };
        env_file = env_file_of(&files, &listed.lines().collect::<Vec<_>>());
    }
    let mut db = Value::Null;
    for container in engine.containers(&project.name).await? {
        let detail = engine.inspect(&container.id).await?;
        db = if db.is_null() { database(&detail) } else { db };
    }
    Ok(json!({
        "project": project.name, "dir": dir, "files": files, "env_file": env_file, "services": project.services, "db": db,
    }))
}

/// `.env.prod` for `docker-compose.prod.yml`, when it is there.
fn env_file_of(files: &[String], there: &[&str]) -> Option<String> {
    let middle = |file: &String| {
        let stem = file.strip_suffix(".yml").or(file.strip_suffix(".yaml"))?;
        stem.split_once('.').map(|(_, middle)| format!(".env.{middle}"))
    };
    files.iter().filter_map(middle).find(|name| there.contains(&name.as_str()))
}

/// What the official image is told by its environment.
fn database(detail: &Detail) -> Value {
    let set = |name: &str| detail.env.pairs().iter().find(|(key, _)| key == name).map(|(_, value)| value.to_string());
    if set("PGDATA").is_none() && set("POSTGRES_DB").is_none() && set("POSTGRES_USER").is_none() {
        return Value::Null;
    }
    let user = set("POSTGRES_USER").unwrap_or_else(|| "postgres".into());
    json!({ "service": detail.service, "name": set("POSTGRES_DB").unwrap_or_else(|| user.clone()), "user": user })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_env_file_is_found_by_the_name_of_the_compose_file() {
        let files = |name: &str| vec!["base.yml".to_string(), name.to_string()];
        let there = [".env", ".env.prod", ".git"];
        assert_eq!(env_file_of(&files("docker-compose.prod.yml"), &there).as_deref(), Some(".env.prod"));
        assert_eq!(env_file_of(&files("docker-compose.dev.yaml"), &there), None);
        assert_eq!(env_file_of(&files("compose.yml"), &there), None);
    }
}
