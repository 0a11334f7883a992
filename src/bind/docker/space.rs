//! Room that Docker can give back without anybody missing what went: never a volume, never an image that has a name, that
//! a container is made of or that is kept to go back to.

use super::engine::Engine;
use super::image::PREFLIGHT;
use super::model::{Container, list, number, text, truth};
use super::{STACK_LABEL, short_id};
use crate::bind::way::Way;
use crate::bind::{self, Binding, Call, Change, Look, Receipt, host};
use crate::error::{Error, Kind, Result, suggestion};
use crate::gate::verb::{Class, Verb};
use crate::gate::{Did, Pass, clock};
use rhai::Dynamic;
use serde_json::{Value, json};
use std::collections::BTreeSet;

const RECLAIMABLE: Verb = Verb {
    name: "docker.reclaimable",
    class: Class::Read,
    waits: false,
    sig: "stack.reclaimable() -> array",
    doc: "What Docker could give back on the stack's host. The largest first. Each is a map: `kind` (`dangling image`, `build \
          cache`, `stopped container`), `id`, `name`, `size_bytes` (what goes with it alone, where the Engine tells) and \
          `why` nobody misses it. Never a volume, and no image that has a name or a digest, that opsh keeps to go back to, \
          or that any container is made of; a container only if no compose project and no opsh made it, and it ended over a \
          day ago. An image that a build by hand left without a name is listed, even of the release before. Fails as `stack.docker`. Deadline 120 s.",
    example: r#"stack("prod").reclaimable()"#,
};

const RECLAIM: Verb = Verb {
    name: "docker.reclaim",
    class: Class::Destroy,
    waits: false,
    sig: "stack.reclaim(kinds: array) -> receipt",
    doc: "Frees room by removing what nobody misses. `kinds` are words of `stack.reclaimable`. It looks anew, shows what would be \
          lost, and removes that, one by one, by id; what is used by then stays. Containers go without their volumes. \
          Cannot be undone. `before` and `after` are maps: `things`, how many are listed, `bytes`, `free_bytes` of the \
          disk that Docker is on; `after` also has `freed_bytes`, by that second look, and `left`, texts that say what \
          did not go and why. Fails with `usage` for a kind that is none, else as `stack.docker`. Deadline 600 s.",
    example: r#"stack("prod").reclaim(["dangling image", "build cache"])"#,
};

/// The bindings of this file.
pub const BINDINGS: &[Binding] = &[Binding::Read(&RECLAIMABLE, reclaimable), Binding::Change(&RECLAIM, reclaim)];

const IMAGE: &str = "dangling image";
const CACHE: &str = "build cache";
const CONTAINER: &str = "stopped container";
const KINDS: [&str; 3] = [IMAGE, CACHE, CONTAINER];

const DAY_S: i64 = 86_400;

/// Everything that could go, the largest first.
async fn listed(engine: &Engine) -> Result<Vec<Value>> {
    let containers = engine.containers_labelled(&[]).await?;
    let used: BTreeSet<&str> = containers.iter().map(|container| container.image_id.as_str()).collect();
    let filters = super::transport::encode(&json!({ "dangling": ["true"] }).to_string());
    let images = engine.get("cannot list images", &format!("/images/json?filters={filters}")).await?;
    let usage = engine.get("cannot ask how much Docker takes", "/system/df?type=image&type=build-cache").await?;
    // Engines before 23 tell only here how much of an image other images need, too.
    let shared = |id: &str| {
        let image = list(&usage, "/Images").iter().find(|image| text(image, "/Id") == id);
        image.map_or(0, |image| number(image, "/SharedSize").max(0))
    };
    let loose = list(&images, "").iter();
    let mut rows: Vec<Value> = loose.filter_map(|image| dangling(image, shared(&text(image, "/Id")), &used)).collect();
    rows.extend(cache(list(&usage, "/BuildCache")));
    let now_s = clock::wall_us() / 1_000_000;
    for container in containers.iter().filter(|container| is_strange(container)) {
        rows.extend(stopped(engine, container, now_s).await?);
    }
    rows.sort_by_key(|row| std::cmp::Reverse(row["size_bytes"].as_i64()));
    Ok(rows)
}

/// A row for an image that has no name and no digest by which one could ask for it, unless it is used or kept.
fn dangling(image: &Value, shared: i64, used: &BTreeSet<&str>) -> Option<Value> {
    let id = text(image, "/Id");
    let named =
        |pointer| list(image, pointer).iter().any(|name| name.as_str().is_some_and(|name| !name.contains("<none>")));
    let kept = image.pointer("/Labels").is_some_and(|labels| labels.get(STACK_LABEL).is_some());
    if named("/RepoTags") || named("/RepoDigests") || kept || used.contains(id.as_str()) {
        return None;
    }
    let size = number(image, "/Size") - shared;
    let why = "it has no name, no container is made of it, and it is not kept to go back to";
    Some(json!({ "kind": IMAGE, "id": id, "name": short_id(&id), "size_bytes": size.max(0), "why": why }))
}

/// One row for what no build uses now.
fn cache(entries: &[Value]) -> Option<Value> {
    let idle: Vec<&Value> = entries.iter().filter(|one| !truth(one, "/InUse")).collect();
    let size: i64 = idle.iter().filter(|one| !truth(one, "/Shared")).map(|one| number(one, "/Size")).sum();
    let why = "builds make it anew; the next one takes longer";
    let name = format!("{} entries", idle.len());
    (!idle.is_empty()).then(|| json!({ "kind": CACHE, "id": CACHE, "name": name, "size_bytes": size, "why": why }))
}

/// No compose project made it, nor does opsh need it, and it does not run.
fn is_strange(container: &Container) -> bool {
    // A container of our own looks that is still there after a day was left behind by a link that was lost.
    let is_own =
        |label: &String| label.starts_with("com.docker.compose.") || label.starts_with("opsh.") && label != PREFLIGHT;
    ["exited", "created", "dead"].contains(&container.state.as_str()) && !container.labels.keys().any(is_own)
}

async fn stopped(engine: &Engine, container: &Container, now_s: i64) -> Result<Option<Value>> {
    let what = format!("cannot inspect container {}", container.name);
    let path = format!("/containers/{}/json?size=1", container.id);
    let seen = match engine.get(&what, &path).await {
        Ok(seen) => seen,
        Err(error) if error.kind == Kind::NotFound => return Ok(None),
        Err(error) => return Err(error),
    };
    let ended = super::model::when(&seen, "/State/FinishedAt").map_or(container.created_s, |at| at.as_second());
    let age_s = now_s - ended.max(container.created_s);
    let why = format!("it is {} for {} days, and no compose project made it", container.state, age_s / DAY_S);
    let size = number(&seen, "/SizeRw");
    let row = json!({ "kind": CONTAINER, "id": container.id, "name": container.name, "size_bytes": size, "why": why });
    Ok((age_s > DAY_S).then_some(row))
}

fn of_kinds(rows: Vec<Value>, kinds: &[String]) -> Vec<Value> {
    rows.into_iter().filter(|row| kinds.iter().any(|kind| row["kind"] == kind.as_str())).collect()
}

fn bytes(rows: &[Value]) -> i64 {
    rows.iter().filter_map(|row| row["size_bytes"].as_i64()).sum()
}

fn reclaimable(call: &Call<'_>) -> Result<Dynamic> {
    let (stack, way) = call.stack_and_way()?;
    let look = Look::at(call.world.stack_target(&stack), "", json!({})).within(120);
    let value =
        call.read(look, way, |pass, way| async move { listed(&way.engine(&pass).await?).await.map(Value::from) })?;
    Ok(bind::map(value))
}

fn reclaim(call: &Call<'_>) -> Result<Receipt> {
    let kinds = call.words(0)?;
    for kind in &kinds {
        if !KINDS.contains(&kind.as_str()) {
            return Err(call.bad(&format!("there is no kind \"{kind}\"; {}", suggestion(kind, KINDS))));
        }
    }
    let (stack, way) = call.stack_and_way()?;
    let target = call.world.stack_target(&stack);
    let look = Look::at(target.clone(), kinds.join(", "), json!({ "kinds": kinds })).within(120);
    let agreed = call.read(look, (way.clone(), kinds.clone()), |pass, (way, kinds)| async move {
        Ok(of_kinds(listed(&way.engine(&pass).await?).await?, &kinds).into())
    })?;
    let agreed: Vec<Value> = agreed.as_array().cloned().unwrap_or_default();
    let says =
        format!("{} of {}, {:.1} MiB", agreed.len(), kinds.join(", "), bytes(&agreed) as f64 / f64::from(1 << 20));
    let ids: Vec<&Value> = agreed.iter().map(|row| &row["id"]).collect();
    let look = Look::at(target, says, json!({ "kinds": kinds, "ids": ids })).within(600);
    let change = Change::of(look).loses(kinds.join(", "));
    call.change(change, (way, kinds, agreed), |pass, (way, kinds, agreed)| async move {
        removed(&pass, &way, &kinds, &agreed).await
    })
}

/// Removes what was agreed to and is still listed.
async fn removed(pass: &Pass, way: &Way, kinds: &[String], agreed: &[Value]) -> Result<Did> {
    let engine = way.engine(pass).await?;
    let before = of_kinds(listed(&engine).await?, kinds);
    let was = json!({ "things": before.len(), "bytes": bytes(&before), "free_bytes": free(pass, way, &engine).await });
    let mut left = Vec::new();
    pass.sending();
    for row in before.iter().filter(|row| agreed.iter().any(|one| one["id"] == row["id"])) {
        match engine.remove_one(row).await {
            Ok(()) => {}
            // Somebody uses it by now, or was quicker: it is a row of the second look, or it is not.
            Err(error) if [Kind::Failed, Kind::NotFound].contains(&error.kind) => {
                left.push(format!("{}: {}", text(row, "/name"), error.why));
            }
            Err(error) => return Err(error),
        }
    }
    let after = of_kinds(listed(&engine).await?, kinds);
    let freed = (bytes(&before) - bytes(&after)).max(0);
    let is = json!({
        "things": after.len(), "bytes": bytes(&after), "free_bytes": free(pass, way, &engine).await,
        "freed_bytes": freed, "left": left,
    });
    Ok(Did { changed: after != before, before: was, after: is, ..Did::default() })
}

/// Bytes free where Docker keeps its things; null when that cannot be told.
async fn free(pass: &Pass, way: &Way, engine: &Engine) -> Value {
    let look = async {
        let (reach, dir) = (way.reach(pass).await?, engine.root_dir().await?);
        host::look(&reach, pass, way.name(), &["df", "-Pk", "--", &dir]).await
    };
    let said = look.await.unwrap_or_default();
    let kib = said.lines().last().and_then(|line| line.split_whitespace().nth(3)?.parse::<i64>().ok());
    kib.map_or(Value::Null, |kib| (kib * 1024).into())
}

impl Engine {
    async fn remove_one(&self, row: &Value) -> Result<()> {
        let (kind, id) = (text(row, "/kind"), text(row, "/id"));
        let what = format!("cannot remove {kind} {}", text(row, "/name"));
        match kind.as_str() {
            // Not by force. The Engine takes with it the unnamed steps of its build that nothing else needs; a kept image is
            // none of them, for its label would be on this one, too.
            IMAGE => {
                let name = self.known_image(&what, &id)?;
                self.change(&what, self.http().delete(&format!("/images/{name}"))).await?;
            }
            CONTAINER => self.remove(&id, false).await?,
            CACHE => {
                self.change(&what, self.http().post_waiting("/build/prune?all=true", None, 300)).await?;
            }
            _ => return Err(Error::new(Kind::Usage, what, "there is no such kind")),
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_image_goes_only_when_nothing_names_uses_or_keeps_it() {
        let image = |more: Value| {
            let mut image =
                json!({ "Id": "sha256:a", "RepoTags": null, "RepoDigests": null, "Labels": null, "Size": 10 });
            more.as_object().into_iter().flatten().for_each(|(key, value)| image[key] = value.clone());
            image
        };
        let none = BTreeSet::new();
        let row =
            dangling(&image(json!({ "RepoTags": ["<none>:<none>"], "RepoDigests": ["<none>@<none>"] })), 4, &none);
        assert_eq!(row.expect("nobody needs it")["size_bytes"], 6);
        assert_eq!(dangling(&image(json!({ "RepoTags": ["app:1"] })), 0, &none), None);
        assert_eq!(dangling(&image(json!({ "RepoDigests": ["app@sha256:b"] })), 0, &none), None);
        assert_eq!(dangling(&image(json!({ "Labels": { "opsh.stack": "shop" } })), 0, &none), None);
        assert_eq!(dangling(&image(json!({})), 0, &BTreeSet::from(["sha256:a"])), None);
    }

    #[test]
    fn cache_that_a_build_uses_is_not_counted() {
        let one = |size: i64, busy: bool, shared: bool| json!({ "Size": size, "InUse": busy, "Shared": shared });
        let row = cache(&[one(1, false, false), one(2, true, false), one(4, false, true)]).expect("two entries");
        assert_eq!((&row["name"], &row["size_bytes"]), (&json!("2 entries"), &json!(1)));
        assert_eq!(cache(&[one(2, true, false)]), None);
    }
}
