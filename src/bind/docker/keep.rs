//! Images that are kept to go back to: a name of their own for what runs now, and an end to those that nobody needs.

use super::engine::Engine;
use super::model::Image;
use super::{SERVICE_LABEL, STACK_LABEL, find, short_id};
use crate::bind::{Binding, Call, Change, Look, Receipt};
use crate::config::Stack;
use crate::error::{Error, Kind, Result};
use crate::gate::Did;
use crate::gate::verb::{Class, Verb};
use serde_json::json;
use std::collections::BTreeSet;

const KEEP: Verb = Verb {
    name: "docker.keep",
    class: Class::Change,
    waits: false,
    sig: "stack.keep_image(service: string) -> receipt",
    doc: "Names the image that a service runs now. The name is `PROJECT_SERVICE:opsh-was-ID`, so that no \
          cleaning of unnamed images takes it once another one runs; one that opsh built has such a name already. \
          Nothing that runs is touched. `after` is the image's id. Fails with `not_found` when the service has no \
          container. Deadline 60 s.",
    example: r#"stack("prod").keep_image("backend")"#,
};

const PRUNE: Verb = Verb {
    name: "docker.prune_kept",
    class: Class::Change,
    waits: false,
    sig: "stack.prune_kept(service: string, keep: int) -> receipt",
    doc: "Removes kept images but the newest. Of the images that opsh built or kept for a service the newest `keep` (1 \
          to 100) stay, and each one that a container is made of; nothing else is ever removed. An image that is gone \
          can be built again from its commit. Fails as `stack.docker`. `before` and `after` list their names. Deadline 120 s.",
    example: r#"stack("prod").prune_kept("backend", 5)"#,
};

/// The bindings of this file.
pub const BINDINGS: &[Binding] = &[Binding::Adds(&KEEP, keep, None), Binding::Change(&PRUNE, prune)];

/// What every kept image of a service is named, up to what tells them apart.
fn prefix(stack: &Stack, service: &str) -> String {
    format!("{}_{service}:opsh-", stack.compose.project)
}

fn keep(call: &Call<'_>) -> Result<Receipt> {
    let service = call.text(0)?;
    let (stack, way) = call.stack_and_way()?;
    let look = Look::at(call.world.stack_target(&stack), service.clone(), json!({ "service": service }));
    // A name more takes nothing from anybody: there is nothing to take back.
    call.change(Change::of(look), (stack, way, service), |pass, (stack, way, service)| async move {
        let engine = way.engine(&pass).await?;
        let id = find(&engine, &stack, &service).await?.image_id;
        let what = || format!("the image of {service} was not kept on {}", stack.host);
        let gone = || Error::new(Kind::NotFound, what(), format!("image {} is no longer there", short_id(&id)));
        let own = prefix(&stack, &service);
        let has_name = |image: &Image| image.tags.iter().any(|tag| tag.starts_with(&own));
        let before = engine.image(&id).await?.ok_or_else(gone)?;
        let changed = !has_name(&before);
        if changed {
            let (repository, tag) = own.split_once(':').expect("the prefix has a colon");
            pass.sending();
            engine.tag(&id, repository, &format!("{tag}was-{}", short_id(&id))).await?;
            if !engine.image(&id).await?.is_some_and(|image| has_name(&image)) {
                return Err(Error::new(Kind::Failed, what(), "the Engine said that it was named, and it is not"));
            }
        }
        Ok(Did { changed, before: json!(id), after: json!(id), ..Did::default() })
    })
}

fn prune(call: &Call<'_>) -> Result<Receipt> {
    let (service, keep) = (call.text(0)?, call.int(1, 1..=100)? as usize);
    let (stack, way) = call.stack_and_way()?;
    let args = json!({ "service": service, "keep": keep });
    let says = format!("all but {keep} kept images of {service}");
    let look = Look::at(call.world.stack_target(&stack), says, args).within(120);
    call.change(Change::of(look), (stack, way, service), move |pass, (stack, way, service)| async move {
        let engine = way.engine(&pass).await?;
        let used = engine.containers_labelled(&[]).await?.into_iter().map(|container| container.image_id).collect();
        let images = kept(&engine, &stack, &service).await?;
        let own = prefix(&stack, &service);
        let (before, surplus) = (names(&images, &own), surplus(&images, &used, keep));
        for image in &surplus {
            pass.sending();
            for tag in image.tags.iter().filter(|tag| tag.starts_with(&own)) {
                engine.untag(tag, true).await?;
            }
        }
        let after = names(&kept(&engine, &stack, &service).await?, &own);
        Ok(Did { changed: before != after, before: json!(before), after: json!(after), ..Did::default() })
    })
}

/// The images that opsh built or kept for a service, newest first.
async fn kept(engine: &Engine, stack: &Stack, service: &str) -> Result<Vec<Image>> {
    let mut images = engine.images_labelled(STACK_LABEL, &stack.compose.project).await?;
    images.retain(|image| image.labels.get(SERVICE_LABEL).is_some_and(|label| label == service));
    let labelled: BTreeSet<String> = images.iter().map(|image| image.id.clone()).collect();
    let named = engine.images_named(&format!("{}*", prefix(stack, service))).await?;
    images.extend(named.into_iter().filter(|image| !labelled.contains(&image.id)));
    images.sort_by_key(|image| std::cmp::Reverse(image.created));
    Ok(images)
}

fn names(images: &[Image], prefix: &str) -> Vec<String> {
    images.iter().flat_map(|image| &image.tags).filter(|tag| tag.starts_with(prefix)).cloned().collect()
}

/// What is neither among the newest `keep` nor used by a container.
fn surplus<'a>(images: &'a [Image], used: &BTreeSet<String>, keep: usize) -> Vec<&'a Image> {
    images.iter().skip(keep).filter(|image| !used.contains(&image.id)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_newest_and_the_used_ones_stay() {
        let image = |id: &str| Image { id: id.into(), ..Image::default() };
        let images = [image("e"), image("d"), image("c"), image("b"), image("a")];
        let used = BTreeSet::from(["a".to_string()]);
        let ids = |keep| surplus(&images, &used, keep).iter().map(|image| image.id.clone()).collect::<Vec<_>>();
        assert_eq!(ids(2), ["c", "b"]);
        assert!(ids(5).is_empty());
    }
}
