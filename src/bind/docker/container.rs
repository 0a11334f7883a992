//! Containers and compose projects: listing, inspecting, starting, stopping, removing.

use super::engine::Engine;
use super::model::{Container, Detail, Env, Health, Port, Project, labels, list, number, text, truth, when, words};
use super::transport::encode;
use crate::error::{Kind, Result};
use serde_json::{Value, json};
use std::collections::BTreeMap;

const PROJECT: &str = "com.docker.compose.project";
const SERVICE: &str = "com.docker.compose.service";
const VERSION: &str = "com.docker.compose.version";

/// Both generations of compose mark the containers of `run` with True.
const NO_ONE_OFFS: &str = "com.docker.compose.oneoff=False";

impl Engine {
    /// Containers of a compose project in all states, without one-offs; sorted by name. None at all is an empty list.
    pub async fn containers(&self, project: &str) -> Result<Vec<Container>> {
        let mine = format!("{PROJECT}={project}");
        let what = format!("cannot list the containers of {project}");
        let mut found = self.labelled(&what, &[&mine, NO_ONE_OFFS]).await?;
        self.mark_inherited(project, &mut found).await?;
        Ok(found)
    }

    /// Containers in all states that carry all of these labels (`key` or `key=value`); sorted by name.
    pub async fn containers_labelled(&self, labels: &[&str]) -> Result<Vec<Container>> {
        self.labelled("cannot list containers", labels).await
    }

    /// Compose projects that have containers, by name.
    pub async fn projects(&self) -> Result<Vec<Project>> {
        let found = self.labelled("cannot list compose projects", &[PROJECT, NO_ONE_OFFS]).await?;
        Ok(group(&found))
    }

    /// Everything about one container, by id or name. Errors: `not_found`.
    pub async fn inspect(&self, id_or_name: &str) -> Result<Detail> {
        let what = format!("cannot inspect container {id_or_name}");
        let name = self.known_name(&what, id_or_name)?;
        let seen = self.get(&what, &format!("/containers/{name}/json")).await?;
        detail(&seen).map_err(|why| self.error(Kind::Failed, &what, why))
    }

    /// Inspects these containers at the same time; the answers are in their order.
    pub async fn inspect_all(&self, ids: &[String]) -> Vec<Result<Detail>> {
        futures_util::future::join_all(ids.iter().map(|id| self.inspect(id))).await
    }

    /// Starts a container; one that already runs is left alone.
    pub async fn start(&self, id: &str) -> Result<()> {
        let what = format!("cannot start container {id}");
        let name = self.known_name(&what, id)?;
        self.change(&what, self.http().post(&format!("/containers/{name}/start"), None)).await.map(drop)
    }

    /// Stops a container: SIGTERM, then SIGKILL after `grace_s` seconds. One that does not run is left alone.
    pub async fn stop(&self, id: &str, grace_s: u32) -> Result<()> {
        let what = format!("cannot stop container {id}");
        let name = self.known_name(&what, id)?;
        let path = format!("/containers/{name}/stop?t={}", seconds(grace_s));
        self.change(&what, self.http().post_waiting(&path, None, grace_s)).await.map(drop)
    }

    /// Stops with `grace_s` seconds of grace, then starts. The environment stays as it was: that needs a recreate.
    pub async fn restart(&self, id: &str, grace_s: u32) -> Result<()> {
        let what = format!("cannot restart container {id}");
        let name = self.known_name(&what, id)?;
        let path = format!("/containers/{name}/restart?t={}", seconds(grace_s));
        self.change(&what, self.http().post_waiting(&path, None, grace_s)).await.map(drop)
    }

    /// Removes a stopped container, and its anonymous volumes when `volumes`. One that runs is an error.
    pub async fn remove(&self, id: &str, volumes: bool) -> Result<()> {
        let what = format!("cannot remove container {id}");
        let name = self.known_name(&what, id)?;
        self.change(&what, self.http().delete(&format!("/containers/{name}?v={volumes}"))).await.map(drop)
    }

    async fn labelled(&self, what: &str, labels: &[&str]) -> Result<Vec<Container>> {
        let filters = encode(&json!({ "label": labels }).to_string());
        let found = self.get(what, &format!("/containers/json?all=1&filters={filters}")).await?;
        let mut found: Vec<Container> = list(&found, "").iter().map(container).collect();
        found.sort_by(|a, b| a.name.cmp(&b.name));
        Ok(found)
    }
}

/// The Engine counts grace in signed 32 bits.
fn seconds(grace_s: u32) -> i32 {
    i32::try_from(grace_s).unwrap_or(i32::MAX)
}

fn container(value: &Value) -> Container {
    let labels = labels(value, "/Labels");
    let label = |key: &str| labels.get(key).cloned().unwrap_or_default();
    let status = text(value, "/Status");
    Container {
        id: text(value, "/Id"),
        name: text(value, "/Names/0").trim_start_matches('/').to_owned(),
        service: label(SERVICE),
        project: label(PROJECT),
        image_id: text(value, "/ImageID"),
        image_ref: text(value, "/Image"),
        state: text(value, "/State"),
        health: health_in(&status),
        status,
        created_s: number(value, "/Created"),
        ports: listed_ports(value),
        labels,
        is_inherited: false,
    }
}

/// Lists say the health only inside the status, up to API 1.51.
fn health_in(status: &str) -> Option<String> {
    let words = ["unhealthy", "healthy", "starting"];
    let bracket = status.rsplit_once('(')?.1;
    words.iter().find(|word| bracket.contains(*word)).map(|word| (*word).to_owned())
}

fn listed_ports(value: &Value) -> Vec<Port> {
    let port = |value: &Value| Port {
        inside: u16::try_from(number(value, "/PrivatePort")).unwrap_or_default(),
        protocol: text(value, "/Type"),
        address: text(value, "/IP"),
        outside: u16::try_from(number(value, "/PublicPort")).ok().filter(|port| *port > 0),
    };
    let mut ports: Vec<Port> = list(value, "/Ports").iter().map(port).collect();
    ports.sort();
    ports
}

/// Inspect keeps ports as `"8080/tcp": [{ "HostIp", "HostPort" }]`, or null when not published.
fn inspected_ports(value: &Value) -> Vec<Port> {
    let Some(map) = value.pointer("/NetworkSettings/Ports").and_then(Value::as_object) else { return Vec::new() };
    let mut ports = Vec::new();
    for (key, bindings) in map {
        let (inside, protocol) = key.split_once('/').unwrap_or((key, "tcp"));
        let port = |address: String, outside: Option<u16>| Port {
            inside: inside.parse().unwrap_or_default(),
            protocol: protocol.to_owned(),
            address,
            outside,
        };
        match list(bindings, "") {
            [] => ports.push(port(String::new(), None)),
            bound => ports.extend(bound.iter().map(|b| port(text(b, "/HostIp"), text(b, "/HostPort").parse().ok()))),
        }
    }
    ports.sort();
    ports
}

fn detail(value: &Value) -> Result<Detail, String> {
    let labels = labels(value, "/Config/Labels");
    let label = |key: &str| labels.get(key).cloned().unwrap_or_default();
    Ok(Detail {
        id: text(value, "/Id"),
        name: text(value, "/Name").trim_start_matches('/').to_owned(),
        service: label(SERVICE),
        project: label(PROJECT),
        compose_version: label(VERSION),
        image_id: text(value, "/Image"),
        image_ref: text(value, "/Config/Image"),
        state: text(value, "/State/Status"),
        health: health(value),
        health_test: words(value, "/Config/Healthcheck/Test"),
        started_at: when(value, "/State/StartedAt"),
        finished_at: when(value, "/State/FinishedAt"),
        exit_code: number(value, "/State/ExitCode"),
        error: text(value, "/State/Error"),
        oom_killed: truth(value, "/State/OOMKilled"),
        restart_count: number(value, "/RestartCount"),
        restart_policy: text(value, "/HostConfig/RestartPolicy/Name"),
        env: Env::read(value, "/Config/Env")?,
        networks: networks(value),
        network_mode: text(value, "/HostConfig/NetworkMode"),
        cmd: words(value, "/Config/Cmd"),
        entrypoint: words(value, "/Config/Entrypoint"),
        user: text(value, "/Config/User"),
        working_dir: text(value, "/Config/WorkingDir"),
        extra_hosts: words(value, "/HostConfig/ExtraHosts"),
        ports: inspected_ports(value),
        tty: truth(value, "/Config/Tty"),
        labels,
    })
}

fn health(value: &Value) -> Option<Health> {
    let status = text(value, "/State/Health/Status");
    // Engines differ in how they say "no health check": null, an empty word, or `none`.
    if status.is_empty() || status == "none" {
        return None;
    }
    let last = list(value, "/State/Health/Log").last();
    let output = last.map(|last| text(last, "/Output").trim().to_owned()).unwrap_or_default();
    Some(Health { status, failing: number(value, "/State/Health/FailingStreak"), output })
}

fn networks(value: &Value) -> BTreeMap<String, Vec<String>> {
    let Some(map) = value.pointer("/NetworkSettings/Networks").and_then(Value::as_object) else {
        return BTreeMap::new();
    };
    map.iter().map(|(name, end)| (name.clone(), words(end, "/Aliases"))).collect()
}

fn group(containers: &[Container]) -> Vec<Project> {
    let mut projects: BTreeMap<&str, Vec<&Container>> = BTreeMap::new();
    for container in containers.iter().filter(|container| !container.project.is_empty()) {
        projects.entry(&container.project).or_default().push(container);
    }
    projects.into_iter().map(|(name, members)| project(name, &members)).collect()
}

fn project(name: &str, members: &[&Container]) -> Project {
    // The newest container tells best which files made the stack that runs now.
    let newest = members.iter().max_by_key(|container| container.created_s);
    let label = |key: &str| newest.and_then(|c| c.labels.get(key)).cloned().unwrap_or_default();
    let working_dir = label("com.docker.compose.project.working_dir");
    let mut services: Vec<String> = members.iter().map(|container| container.service.clone()).collect();
    services.sort();
    services.dedup();
    Project {
        name: name.to_owned(),
        config_files: paths(&working_dir, &label("com.docker.compose.project.config_files")),
        environment_files: paths(&working_dir, &label("com.docker.compose.project.environment_file")),
        working_dir,
        services,
        compose_version: label(VERSION),
    }
}

/// compose 1 writes these paths relative to the directory, compose 2 absolute.
fn paths(dir: &str, label: &str) -> Vec<String> {
    let parts = label.split(',').map(str::trim).filter(|path| !path.is_empty());
    parts.map(|path| std::path::Path::new(dir).join(path).to_string_lossy().into_owned()).collect()
}

#[cfg(test)]
mod tests {
    use super::super::testing::Lab;
    use super::*;

    #[test]
    fn the_health_in_a_status_is_found() {
        assert_eq!(health_in("Up 3 hours (unhealthy)").as_deref(), Some("unhealthy"));
        assert_eq!(health_in("Up 1 second (health: starting)").as_deref(), Some("starting"));
        assert_eq!(health_in("Exited (0) 3 minutes ago"), None);
    }

    #[test]
    fn relative_compose_files_become_absolute() {
        assert_eq!(paths("/opt/app", "a.yml,/etc/b.yml"), ["/opt/app/a.yml", "/etc/b.yml"]);
        assert!(paths("/opt/app", "").is_empty());
    }

    #[tokio::test]
    async fn a_project_is_found_by_its_labels_without_its_one_offs() {
        let Some(lab) = Lab::open().await else { return };
        let p = format!("com.docker.compose.project={}", lab.name);
        let l = ["com.docker.compose.service=web", "com.docker.compose.project.working_dir=/opt/x"];
        let files = "com.docker.compose.project.config_files=prod.yml";
        let web = ["--label", &p, "--label", l[0], "--label", l[1], "--label", files];
        let no = ["--label", "com.docker.compose.oneoff=False"];
        let yes = ["--label", "com.docker.compose.oneoff=True"];
        let id = lab.run("web", &[&web[..], &no, &["-p", "127.0.0.1::80"]].concat(), &["sleep", "60"]);
        lab.run("once", &[&web[..], &yes].concat(), &["sleep", "60"]);
        let found = lab.engine.containers(&lab.name).await.unwrap();
        assert_eq!(found.iter().map(|c| c.id.as_str()).collect::<Vec<_>>(), [id.as_str()]);
        assert_eq!((found[0].service.as_str(), found[0].state.as_str()), ("web", "running"));
        assert!(found[0].ports[0].outside.is_some() && found[0].ports[0].inside == 80);
        let projects = lab.engine.projects().await.unwrap();
        let mine = projects.iter().find(|p| p.name == lab.name).unwrap();
        assert_eq!((&mine.config_files[0][..], &mine.services[..]), ("/opt/x/prod.yml", &["web".to_owned()][..]));
    }

    #[tokio::test]
    async fn inspect_keeps_the_environment_out_of_every_text() {
        let Some(lab) = Lab::open().await else { return };
        let id = lab.run("a", &["-e", "JWT_SECRET=canary-51ab", "-p", "127.0.0.1::80/udp"], &["sleep", "60"]);
        let seen = lab.engine.inspect(&lab.called("a")).await.unwrap();
        assert_eq!((&seen.id, seen.env.get("JWT_SECRET")), (&id, Some("canary-51ab")));
        assert_eq!((seen.state.as_str(), seen.health.is_none(), seen.tty), ("running", true, false));
        assert_eq!(seen.ports[0].protocol, "udp");
        assert!(seen.started_at.is_some() && seen.finished_at.is_none());
        let texts = [format!("{seen:?}"), serde_json::to_string(&seen).unwrap()];
        assert!(texts.iter().all(|t| t.contains("JWT_SECRET") && !t.contains("canary-51ab")), "{texts:?}");
    }

    #[tokio::test]
    async fn stop_start_restart_and_remove_do_what_they_say() {
        let Some(lab) = Lab::open().await else { return };
        let id = lab.run("a", &[], &["sleep", "60"]);
        let engine = &lab.engine;
        let state = async || engine.inspect(&id).await.unwrap().state;
        assert_eq!(engine.remove(&id, true).await.unwrap_err().kind, Kind::Failed);
        engine.stop(&id, 0).await.unwrap();
        engine.stop(&id, 0).await.unwrap();
        assert_eq!(state().await, "exited");
        engine.start(&id).await.unwrap();
        assert_eq!(state().await, "running");
        let before = engine.inspect(&id).await.unwrap().started_at;
        engine.restart(&id, 0).await.unwrap();
        assert!(engine.inspect(&id).await.unwrap().started_at > before);
        engine.stop(&id, 0).await.unwrap();
        engine.remove(&id, true).await.unwrap();
        let gone = engine.inspect(&id).await.unwrap_err();
        assert_eq!(gone.kind, Kind::NotFound);
        assert!(gone.why.contains("No such container"), "{gone}");
        assert_eq!(engine.inspect("../images/json").await.unwrap_err().kind, Kind::Usage);
    }
}
