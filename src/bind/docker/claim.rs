//! Which containers belong to a service. The labels of compose say so. An image can have the same labels, and its containers
//! inherit them: such a label does not prove that compose made the container.

use super::engine::Engine;
use super::model::{Container, labels, list, text};
use super::transport::encode;
use crate::bind::values::literal;
use crate::bind::{Call, Look};
use crate::config::Stack;
use crate::error::{Error, Kind, Result, nearest, suggestion};
use crate::gate::Did;
use crate::gate::policy::Mode;
use crate::gate::verb::{Class, Verb};
use serde_json::json;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

const PROJECT: &str = "com.docker.compose.project";
const NUMBER: &str = "com.docker.compose.container-number";

/// Labels that compose gives to each of its containers. Into an image that it builds compose 2 writes project and service only.
const OWN: [&str; 5] =
    [PROJECT, "com.docker.compose.service", NUMBER, "com.docker.compose.config-hash", "com.docker.compose.oneoff"];

impl Engine {
    /// Marks the containers of a project that have all labels of compose from their image: compose did not make them.
    pub(super) async fn mark_inherited(&self, project: &str, containers: &mut [Container]) -> Result<()> {
        let filters = encode(&json!({ "label": [format!("{PROJECT}={project}")] }).to_string());
        let what = format!("cannot list the images labelled {PROJECT}={project}");
        // Also those between two steps of a build: a container can be made of any.
        let found = self.get(&what, &format!("/images/json?all=1&filters={filters}")).await?;
        let of_images: BTreeMap<String, BTreeMap<String, String>> =
            list(&found, "").iter().map(|image| (text(image, "/Id"), labels(image, "/Labels"))).collect();
        for container in containers {
            let from = of_images.get(&container.image_id);
            let is_inherited = |key: &&str| match (container.labels.get(*key), from) {
                (None, _) => true,
                (Some(_), None) => false,
                (own, Some(from)) => from.get(*key) == own,
            };
            container.is_inherited = OWN.iter().all(is_inherited);
        }
        Ok(())
    }
}

/// As [`find`]; `None` only when the Engine says that there is none.
pub async fn look_for(engine: &Engine, stack: &Stack, service: &str) -> Result<Option<Container>> {
    match find(engine, stack, service).await {
        Ok(container) => Ok(Some(container)),
        Err(error) if error.kind == Kind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

/// A container of a service that is not a one-off: one that runs before one that does not, then the one with the lowest number.
/// Fails with `unmet` when something else claims to be one.
pub async fn find(engine: &Engine, stack: &Stack, service: &str) -> Result<Container> {
    all_of(engine, stack, service).await.map(|(first, _)| first)
}

/// The container of a service that has one. Fails with `unmet` when there are several: what is done to one of them is not done
/// to the service.
pub async fn only(engine: &Engine, stack: &Stack, service: &str) -> Result<Container> {
    let (first, others) = all_of(engine, stack, service).await?;
    let mine = || std::iter::once(&first).chain(&others);
    let replicas: BTreeSet<&str> = mine().map(number).collect();
    if replicas.len() > 1 {
        let all: Vec<&str> = mine().map(|container| container.name.as_str()).collect();
        let why = format!("it has {} containers, and this is for one: {}", replicas.len(), all.join(", "));
        let look = format!("stack({}).ps()     all that runs", literal(&stack.name));
        return Err(Error::new(Kind::Unmet, several(stack, service), why).host(&stack.host).next(look));
    }
    Ok(first)
}

/// The containers of a service, as [`find`] prefers them: the first, and the others. There is at least one.
async fn all_of(engine: &Engine, stack: &Stack, service: &str) -> Result<(Container, Vec<Container>)> {
    let all = engine.containers(&stack.compose.project).await?;
    let names: Vec<String> = all.iter().map(|container| container.service.clone()).collect();
    let mut mine = of_service(stack, service, all)?.into_iter();
    let first = mine.next().ok_or_else(|| no_container(stack, service, &names))?;
    Ok((first, mine.collect()))
}

fn several(stack: &Stack, service: &str) -> String {
    format!("{service} of {} is not one container", stack.name)
}

fn number(container: &Container) -> &str {
    container.labels.get(NUMBER).map_or("", String::as_str)
}

/// The containers of a service, in the order of [`find`].
fn of_service(stack: &Stack, service: &str, all: Vec<Container>) -> Result<Vec<Container>> {
    let mut mine: Vec<Container> = all.into_iter().filter(|container| container.service == service).collect();
    let named = |which: &dyn Fn(&&Container) -> bool| -> Vec<String> {
        mine.iter().filter(which).map(|container| container.name.clone()).collect()
    };
    let look = format!("stack({}).ps()     all that runs", literal(&stack.name));
    let refused = |why: String| {
        let what = format!("it cannot be told which container is {service} of {}", stack.name);
        Err(Error::new(Kind::Unmet, what, why).host(&stack.host).next(look.clone()))
    };
    let false_ones = named(&|container| container.is_inherited);
    if !false_ones.is_empty() {
        let names = false_ones.join(", ");
        return refused(format!("compose did not make {names}: its labels are those of its image"));
    }
    // While compose recreates a container, and when it failed to, the old one is there with the same number and does not run.
    let is_twin = |one: &&Container| {
        let twins = mine.iter().filter(|other| other.is_up() && number(other) == number(one));
        one.is_up() && twins.count() > 1
    };
    let twins = named(&is_twin);
    if !twins.is_empty() {
        return refused(format!("these run with the same number, and compose runs one of each: {}", twins.join(", ")));
    }
    let place = |one: &Container| (one.state != "running", number(one).parse::<u64>().unwrap_or(0));
    mine.sort_by_key(place);
    Ok(mine)
}

fn no_container(stack: &Stack, service: &str, names: &[String]) -> Error {
    let known = names.iter().map(String::as_str);
    let slip = nearest(service, known.clone()).is_some();
    let why = format!(
        "project {} on {} has no container of it; {}",
        stack.compose.project,
        stack.host,
        suggestion(service, known)
    );
    let error = Error::new(Kind::NotFound, format!("no service \"{service}\" in {}", stack.name), why)
        .next(format!("stack({}).ps()     what runs", literal(&stack.name)));
    if slip {
        return error;
    }
    let bring_back = format!("stack({}).recreate({})", literal(&stack.name), literal(service));
    error.next(format!("{bring_back}     make it from the image that compose names"))
}

/// A look of opsh's own at the container that a change is for.
const NAMED: Verb = Verb {
    name: "docker.named",
    class: Class::Read,
    waits: false,
    sig: "stack.named(service: string) -> string",
    doc: "Looks which container a change is for.",
    example: "",
};

/// The service as a plan shows it: with the container that the change is for, where that can be told.
pub fn named(call: &Call<'_>, stack: &Arc<Stack>, service: &str) -> String {
    let gate = &call.world.gate;
    let Ok(way) = call.world.way(&stack.host) else { return service.into() };
    if gate.is_replay() || gate.mode() == Mode::Observe {
        return service.into();
    }
    let look = Look::at(call.world.stack_target(stack), service, json!({ "service": service }));
    let effect = crate::bind::Change::of(look).effect(&NAMED);
    let name = gate.look_inside(&effect, |pass| {
        let (way, stack, service) = (way.clone(), Arc::clone(stack), service.to_owned());
        async move { find(&way.engine(&pass).await?, &stack, &service).await.map(|one| Did::value(json!(one.name))) }
    });
    // Why there is none is the change's to say.
    name.ok().and_then(|name| Some(shown(service, name.as_str()?))).unwrap_or_else(|| service.into())
}

/// `backend (container vrcshift_backend_1)`.
pub fn shown(service: &str, container: &str) -> String {
    format!("{service} (container {container})")
}

#[cfg(test)]
mod tests {
    use super::super::testing::Lab;
    use super::*;

    fn stack(lab: &Lab) -> Arc<Stack> {
        let text = format!(
            "[stack.s]\nhost = \"local\"\ndir = \"/srv\"\ncompose = {{ files = [\"c.yml\"], project = \"{}\" }}\n",
            lab.name
        );
        crate::config::Config::found(&text).expect("valid").stack("s").expect("there")
    }

    fn made(lab: &Lab, number: &str) -> Vec<String> {
        let project = format!("{PROJECT}={}", lab.name);
        let own =
            ["com.docker.compose.service=web", "com.docker.compose.oneoff=False", "com.docker.compose.config-hash=f00"];
        let number = format!("{NUMBER}={number}");
        [project.as_str(), &number].iter().chain(&own).map(|label| format!("--label={label}")).collect()
    }

    fn run(lab: &Lab, name: &str, number: &str) -> String {
        let labels = made(lab, number);
        lab.run(name, &labels.iter().map(String::as_str).collect::<Vec<_>>(), &["sleep", "600"])
    }

    /// An image `NAME:tag` that has these labels.
    fn labelled(lab: &Lab, tag: &str, labels: &[String]) {
        let labels: Vec<String> = labels.iter().map(|label| label.replace("--label=", "LABEL ")).collect();
        let made = lab.docker(&["create", &lab.image("v1"), "true"]);
        let changes = labels.iter().flat_map(|label| ["-c", label.as_str()]);
        let words: Vec<&str> = ["commit"].into_iter().chain(changes).chain([made.as_str()]).collect();
        let image = lab.image(tag);
        lab.docker(&[&words[..], &[&image]].concat());
        lab.docker(&["rm", &made]);
    }

    #[tokio::test]
    async fn a_container_with_the_labels_of_its_image_is_no_service() {
        let Some(lab) = Lab::open().await else { return };
        let stack = stack(&lab);
        labelled(&lab, "evil", &made(&lab, "1"));
        let evil = lab.called("a-evil");
        lab.docker(&["run", "-d", "--name", &evil, &lab.image("evil"), "sleep", "600"]);
        for find in [find(&lab.engine, &stack, "web").await, only(&lab.engine, &stack, "web").await] {
            let error = find.unwrap_err();
            assert!(error.kind == Kind::Unmet && error.why.contains(&evil), "{error}");
        }
        run(&lab, "web", "1");
        assert!(find(&lab.engine, &stack, "web").await.unwrap_err().why.contains(&evil), "whatever else there is");
        lab.docker(&["rm", "-f", &evil]);
        assert_eq!(find(&lab.engine, &stack, "web").await.unwrap().name, lab.called("web"));
    }

    #[tokio::test]
    async fn a_container_of_an_image_that_compose_built_is_its_service() {
        let Some(lab) = Lab::open().await else { return };
        let stack = stack(&lab);
        labelled(
            &lab,
            "built",
            &made(&lab, "1")
                .into_iter()
                .filter(|label| !label.contains("number") && !label.contains("hash") && !label.contains("oneoff"))
                .collect::<Vec<_>>(),
        );
        let name = lab.called("web");
        let labels = made(&lab, "1");
        let options: Vec<&str> =
            ["run", "-d", "--name", &name].into_iter().chain(labels.iter().map(String::as_str)).collect();
        lab.docker(&[&options[..], &[&lab.image("built"), "sleep", "600"]].concat());
        assert_eq!(only(&lab.engine, &stack, "web").await.unwrap().name, name);
    }

    #[tokio::test]
    async fn replicas_are_told_apart_from_twins_and_leftovers() {
        let Some(lab) = Lab::open().await else { return };
        let (stack, engine) = (stack(&lab), &lab.engine);
        let old = run(&lab, "a-old", "1");
        lab.docker(&["stop", "-t", "0", &old]);
        run(&lab, "web-1", "1");
        assert_eq!(only(engine, &stack, "web").await.unwrap().name, lab.called("web-1"), "a leftover is none");
        run(&lab, "b-web-10", "10");
        run(&lab, "c-web-2", "2");
        assert_eq!(find(engine, &stack, "web").await.unwrap().name, lab.called("web-1"));
        let error = only(engine, &stack, "web").await.unwrap_err();
        assert!(error.kind == Kind::Unmet && error.why.contains(&lab.called("c-web-2")), "{error}");
        lab.docker(&["start", &old]);
        let error = find(engine, &stack, "web").await.unwrap_err();
        assert!(error.kind == Kind::Unmet && error.why.contains(&lab.called("a-old")), "{error}");
        assert_eq!(look_for(engine, &stack, "none").await.unwrap().map(|one| one.name), None);
    }
}
