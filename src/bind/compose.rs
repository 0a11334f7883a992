//! Compose: the CLI of either generation on the host, for building, configuring and recreating only.
//!
//! Compose 1 answers an option it does not know with its usage and exit code 0, and `up` reuses any image that already
//! has the right name: success is what the Engine says afterwards, never what compose printed.

pub mod env;
pub mod secrets;
mod yaml;

use super::docker::wait::Goal;
use super::docker::{self, engine::Engine, short_id};
use super::git::tame;
use super::ssh::{Command, Reach, quote_all};
use super::undo::{Now, Past};
use super::values::literal;
use super::way::Way;
use super::world::Versions;
use super::{Binding, Call, Change, Look, Receipt, host};
use crate::config::Stack;
use crate::error::{Error, Kind, Result, suggestion};
use crate::gate::verb::{Class, Verb};
use crate::gate::{Did, Lives, Pass};
use crate::redact;
use rhai::Dynamic;
use serde_json::{Value, json};
use std::sync::Arc;
use std::time::Duration;

const CONFIG: Verb = Verb {
    name: "compose.config",
    class: Class::Read,
    waits: false,
    sig: "stack.config() -> map",
    doc: "What compose makes of the stack's files now. They and the env file are read on the host: `compose` is the \
          version used; `services` maps each service to `image` (the reference that a recreate uses), `builds` (bool) \
          and `env` (key names, never values). Fails with `not_found` for a missing file, `failed` with compose's own \
          words for a file that is not valid or a variable that is not set. Deadline 60 s.",
    example: r#"stack("prod").config().services.backend.image"#,
};

const BUILD: Verb = Verb {
    name: "compose.build",
    class: Class::Change,
    waits: false,
    sig: "stack.build(service: string, commit: string) -> receipt",
    doc: "Builds a service's image from a commit. `commit` (40 hex) is built in a clean work tree beside the \
          checkout, while the old one serves; nothing that runs and no tag in use is touched. The image is labelled \
          with the commit and kept as `PROJECT_SERVICE:opsh-COMMIT`; `after` is its id. Runs detached on the host. \
          Fails with `failed` and the end of what compose said, or `unknown` when the link is lost. Deadline 1800 s.",
    example: r#"stack("prod").build("backend", "0123456789012345678901234567890123456789")"#,
};

const RECREATE: Verb = Verb {
    name: "compose.recreate",
    class: Class::Change,
    waits: false,
    sig: "stack.recreate(service: string) -> receipt",
    doc: "Replaces a service's container. The new one is made of the image that its reference names now and the \
          environment of the env file, without touching other services and without building. `before` and `after` are \
          image ids, read from the Engine; its environment is compared with the files once more. For a service that holds data and runs it is of class destroy; one that \
          has no container is brought back. Runs detached on the host. Fails with `failed` when the container is not \
          running afterwards, or not from that image. Deadline 300 s.",
    example: r#"stack("prod").recreate("backend")"#,
};

/// The bindings of this file.
pub const BINDINGS: &[Binding] = &[
    Binding::Read(&CONFIG, config),
    Binding::Adds(&BUILD, build, None),
    Binding::Undoable(&RECREATE, recreate, recreated_now),
];

/// A stack, and the way to the host that its compose is called on.
#[derive(Clone)]
struct Place {
    way: Way,
    stack: Arc<Stack>,
    known: Arc<Versions>,
}

/// Compose as it is called on one host for one stack.
struct Compose {
    reach: Reach,
    engine: Engine,
    stack: Arc<Stack>,
    known: Arc<Versions>,
}

/// Which compose: its first words, version, and what it needs in its environment.
struct Generation {
    words: Vec<String>,
    version: String,
}

impl Generation {
    fn is_first(&self) -> bool {
        self.version.starts_with("1.")
    }
}

fn open(call: &Call<'_>) -> Result<Place> {
    let stack = call.stack()?;
    Ok(Place { way: call.world.way(&stack.host)?, stack, known: Arc::clone(&call.world.composes) })
}

impl Place {
    async fn compose(&self, pass: &Pass) -> Result<Compose> {
        let (reach, engine) = (self.way.reach(pass).await?, self.way.engine(pass).await?);
        Ok(Compose { reach, engine, stack: Arc::clone(&self.stack), known: Arc::clone(&self.known) })
    }
}

impl Compose {
    /// The generation that made the stack's containers, else the one that is there: mixing them recreates everything,
    /// the database too.
    async fn generation(&self, pass: &Pass, service: &str) -> Result<Generation> {
        let containers = self.engine.containers(&self.stack.compose.project).await?;
        let label = "com.docker.compose.version";
        // The service's own container says it best; one that another tool made says nothing about it.
        let mut of_service: Vec<_> = containers.iter().filter(|container| container.service == service).collect();
        of_service.extend(&containers);
        let made_by = of_service.iter().find_map(|container| container.labels.get(label)).cloned();
        let first = made_by.as_deref().is_some_and(|version| version.starts_with("1."));
        let mut candidates = [vec!["docker", "compose"], vec!["docker-compose"]];
        if first {
            candidates.reverse();
        }
        for words in candidates {
            if let Some(generation) = self.probe(pass, &words).await?
                && (made_by.is_none() || generation.is_first() == first)
            {
                return Ok(generation);
            }
        }
        let host = &self.stack.host;
        let why = match made_by {
            Some(version) => {
                format!("its containers were made by compose {version}, and {host} has none of that generation")
            }
            None => format!("neither \"docker compose\" nor \"docker-compose\" works on {host}"),
        };
        Err(Error::new(Kind::NotFound, format!("no compose for {}", self.stack.name), why))
    }

    async fn probe(&self, pass: &Pass, words: &[&str]) -> Result<Option<Generation>> {
        let key = (self.stack.host.clone(), words.join(" "));
        let known = self.known.lock().ok().and_then(|known| known.get(&key).cloned());
        let version = match known {
            Some(version) => version,
            None => {
                let version = self.ask_version(pass, words).await?;
                if let Ok(mut known) = self.known.lock() {
                    known.insert(key, version.clone());
                }
                version
            }
        };
        let words = words.iter().map(|word| word.to_string()).collect();
        Ok(version.map(|version| Generation { words, version }))
    }

    /// `None` when there is no such command, or it is not compose.
    async fn ask_version(&self, pass: &Pass, words: &[&str]) -> Result<Option<String>> {
        let all: Vec<String> = words.iter().chain(&["version", "--short"]).map(|word| word.to_string()).collect();
        let ran = host::finished(&self.stack.host, &all, self.reach.run(pass, &host::words_of(all.clone())).await)?;
        let version = ran.out.trim().trim_start_matches('v').to_string();
        Ok((ran.code == 0 && version.starts_with(|c: char| c.is_ascii_digit())).then_some(version))
    }

    /// The words up to the subcommand, with absolute paths below `dir`. The env file always is the stack's own.
    fn words(&self, generation: &Generation, dir: &str, project: &str) -> Vec<String> {
        let compose = &self.stack.compose;
        let mut words = generation.words.clone();
        words.extend(["--project-directory".into(), dir.into(), "-p".into(), project.into()]);
        for file in &compose.files {
            words.extend(["-f".into(), format!("{dir}/{file}")]);
        }
        if let Some(env_file) = &compose.env_file {
            words.extend(["--env-file".into(), format!("{}/{env_file}", self.stack.dir)]);
        }
        words
    }

    /// A clean environment: compose prefers the caller's variables to the env file. Compose 1 dies half way through a
    /// recreate with an Engine that speaks API 1.45 or newer, unless it is told to speak an older one.
    async fn in_clean_environment(&self, generation: &Generation, script: &str, words: Vec<String>) -> Result<Command> {
        let api = self.engine.version().await?.api;
        let newer = api.strip_prefix("1.").and_then(|minor| minor.parse::<u32>().ok()).is_some_and(|minor| minor > 44);
        let pinned = if generation.is_first() && newer { " COMPOSE_API_VERSION=1.41" } else { "" };
        let clean = format!(
            "clean() {{ env -i PATH=\"$PATH\" HOME=\"$HOME\" LC_ALL=C DOCKER_BUILDKIT=0{pinned} \"$@\"; }}\n{script}"
        );
        let mut all = vec!["sh".to_string(), "-c".into(), clean, "opsh".into()];
        all.extend(words);
        Ok(host::words_of(all))
    }

    async fn missing_files(&self, pass: &Pass, dir: &str) -> Result<()> {
        let compose = &self.stack.compose;
        let files = compose.files.iter().map(|file| format!("{dir}/{file}"));
        let env_file = compose.env_file.iter().map(|file| format!("{}/{file}", self.stack.dir));
        for file in files.chain(env_file) {
            let words: Vec<String> = ["test", "-r", &file].iter().map(|word| word.to_string()).collect();
            let ran =
                host::finished(&self.stack.host, &words, self.reach.run(pass, &host::words_of(words.clone())).await)?;
            if ran.code != 0 {
                let host = &self.stack.host;
                let why = format!("{file} is not on {host}, or cannot be read there");
                return Err(Error::new(Kind::NotFound, format!("no compose for {}", self.stack.name), why)
                    .next(format!(
                        "host({}).read([\"ls\", \"-la\", {}]).out     what is there",
                        literal(host),
                        literal(dir)
                    ))
                    .next(format!(
                        "[stack.{}] compose = {{ files = […], env_file = … }}     in opsh.toml",
                        self.stack.name
                    )));
            }
        }
        Ok(())
    }

    async fn config(&self, pass: &Pass) -> Result<Value> {
        let parsed = self.parsed(pass).await?;
        let generation = self.generation(pass, "").await?;
        let joint = if generation.is_first() { "_" } else { "-" };
        Ok(json!({ "compose": generation.version, "services": services(&parsed, &self.stack.compose.project, joint) }))
    }

    /// Compose's whole configuration, with the values of variables: it stays within an effect.
    async fn parsed(&self, pass: &Pass) -> Result<Value> {
        self.missing_files(pass, &self.stack.dir).await?;
        let generation = self.generation(pass, "").await?;
        let mut words = self.words(&generation, &self.stack.dir, &self.stack.compose.project);
        words.push("config".into());
        let shown = words.clone();
        let command = self.in_clean_environment(&generation, "clean \"$@\"", words).await?;
        let ran = host::finished(&self.stack.host, &shown, self.reach.run(pass, &command).await)?
            .checked(&self.stack.host, &shown)?;
        yaml::parse(&ran.out).map_err(|why| {
            Error::new(Kind::Failed, format!("compose config of {} cannot be read", self.stack.name), why)
        })
    }
}

/// The parts of compose's configuration that are safe to keep: no values of environment variables.
fn services(config: &Value, project: &str, joint: &str) -> Value {
    let Some(services) = config.get("services").and_then(Value::as_object) else { return json!({}) };
    let short = |(name, service): (&String, &Value)| {
        let image = service.get("image").and_then(Value::as_str).map(String::from);
        let builds = service.get("build").is_some();
        let env: Vec<String> = match service.get("environment") {
            Some(Value::Object(map)) => map.keys().cloned().collect(),
            Some(Value::Array(list)) => list
                .iter()
                .filter_map(Value::as_str)
                .filter_map(|line| line.split('=').next())
                .map(String::from)
                .collect(),
            _ => Vec::new(),
        };
        let image = with_tag(&image.unwrap_or_else(|| format!("{project}{joint}{name}")));
        (name.clone(), json!({ "image": image, "builds": builds, "env": env }))
    };
    Value::Object(services.iter().map(short).collect())
}

/// `name` means `name:latest`.
fn with_tag(image: &str) -> String {
    let last = image.rsplit('/').next().unwrap_or(image);
    if last.contains(':') || last.contains('@') { image.into() } else { format!("{image}:latest") }
}

fn config(call: &Call<'_>) -> Result<Dynamic> {
    let place = open(call)?;
    let target = call.world.stack_target(&place.stack);
    let value = call.read(Look::at(target, "", json!({})), place, |pass, place| async move {
        place.compose(&pass).await?.config(&pass).await
    })?;
    Ok(super::map(value))
}

/// $1 checkout, $2 a folder for what is made, $3 commit, $4 service, $5 reference to keep it as, $6 project label, $7 a name
/// for the image as compose builds it, $8 the stack's env file, $9 the first compose file, then the compose words, whose last
/// `-f` is the file that gives the service that name: its own `image:` may be the one in use. Compose 1 wants one version in
/// all files. `look` is git, tamed.
///
/// What the commit brings may be links to anywhere: opsh's own file stands beside the tree, and what is read of the tree
/// must be in it. A filter that only the repository names is not run, and a file that needs it is an error.
///
/// One build at a time: a second one would remove the tree and the names that the first, whose opsh may be gone, works
/// with. The lock is on the checkout's directory, which every account of the stack can open.
const BUILD_SCRIPT: &str = r#"set -euC
dir=$1 work=$2 commit=$3 service=$4 keep=$5 project=$6 built=$7 env=$8 file=$9
shift 9
tree=$work/tree
no() { echo "$*" >&2; exit 1; }
if command -v flock >/dev/null; then exec 9<"$dir"; flock 9; fi
leave() { rm -rf "$work"; docker image rm "$built" >/dev/null 2>&1 || :; }
rm -rf "$work"
trap leave EXIT
mkdir -m 700 "$work"
mkdir "$tree"
filters=${GIT_DIR%/git}/filters settings=$GIT_DIR/config
[ -e "$settings" ] || settings=${GIT_DIR%/git}/shared/config
while IFS= read -r filter; do
  filter=${filter%.*}
  git config --file "$settings" "$filter.smudge" false
  git config --file "$settings" "$filter.required" true
done <"$filters"
(
  export GIT_WORK_TREE="$tree" GIT_INDEX_FILE="$GIT_DIR/opsh.index"
  look read-tree "$commit" && look checkout-index --all
) || {
  [ ! -s "$filters" ] || echo "filters that only the repository's settings name are not run by a build: $(sort -u "$filters" | tr '\n' ' ')" >&2
  no "the files of $commit could not be made"
}
real=$(readlink -f "$tree")
inside() {
  case $(readlink -f "$1")/ in "$real"/*) ;; *) no "${1#"$tree"/} of $commit leads out of its tree" ;; esac
}
last=
for word; do
  [ "$last" != -f ] || [ "$word" = "$work/own.yml" ] || inside "$word"
  last=$word
done
if [ -n "$env" ]; then
  inside "$(dirname "$tree/$env")"
  if [ -e "$tree/$env" ] || [ -L "$tree/$env" ]; then inside "$tree/$env"; else ln -s "$dir/$env" "$tree/$env"; fi
fi
{ grep '^version:' "$tree/$file" || :; printf 'services:\n  "%s":\n    image: "%s"\n' "$service" "$built"; } >"$work/own.yml"
clean "$@" build "$service" >&2
printf 'FROM %s\n' "$built" | clean docker build --quiet \
  --label "org.opencontainers.image.revision=$commit" --label "opsh.stack=$project" --label "opsh.service=$service" \
  --tag "$keep" -
"#;

fn build(call: &Call<'_>) -> Result<Receipt> {
    let (service, commit) = (call.text(0)?, call.text(1)?);
    if commit.len() != 40 || !commit.bytes().all(|byte| byte.is_ascii_hexdigit()) {
        return Err(call.bad(&format!("commit must be 40 hexadecimal digits, not \"{commit}\"")));
    }
    if !service.starts_with(|c: char| c.is_ascii_alphanumeric())
        || !service.chars().all(|c| c.is_ascii_alphanumeric() || "._-".contains(c))
    {
        return Err(call.bad(&format!("\"{service}\" is no name of a service")));
    }
    let place = open(call)?;
    let short = commit[..12].to_string();
    let target = call.world.stack_target(&place.stack);
    let args = json!({ "service": service, "commit": commit });
    let look = Look::at(target, format!("{service} from {short}"), args).within(1800);
    // A kept image takes nothing from anybody: there is nothing to take back.
    let change = Change::of(look).lives(Lives::Run(place.stack.host.clone()));
    call.change(change, (place, service, commit), |pass, (place, service, commit)| async move {
        place.compose(&pass).await?.build(&pass, &service, &commit).await
    })
}

impl Compose {
    async fn build(&self, pass: &Pass, service: &str, commit: &str) -> Result<Did> {
        let (stack, short) = (&self.stack, &commit[..12]);
        let generation = self.generation(pass, service).await?;
        let work = format!("{}/.git/opsh", stack.dir);
        // Under a project of its own, so that no name in use is given to the new image.
        let project = format!("opsh-{short}");
        let keep = format!("{}_{service}:opsh-{short}", stack.compose.project);
        let built = format!("{project}/{}:building", service.to_lowercase());
        let compose = &stack.compose;
        let env = compose.env_file.clone().unwrap_or_default();
        let mut words: Vec<String> =
            [&stack.dir, &work, commit, service, &keep, &compose.project, &built, &env, &compose.files[0]]
                .iter()
                .map(|word| word.to_string())
                .collect();
        words.extend(self.words(&generation, &format!("{work}/tree"), &project));
        words.extend(["-f".into(), format!("{work}/own.yml")]);
        let script = format!("look() {{ {} \"$@\"; }}\n{BUILD_SCRIPT}", quote_all(&tame::git()));
        let command = self.in_clean_environment(&generation, &script, words).await?;
        let command = Command { words: tame::tamed(&stack.dir, tame::STAYS, command.words), ..command };
        let ran = host::run_durable(&self.reach, pass, &stack.host, &command).await?;
        let what = || format!("{service} was not built from {short} on {}", stack.host);
        if ran.code != 0 {
            let why = format!("exit code {}: {}", ran.code, redact::last_lines(&ran.err, 8));
            return Err(Error::new(Kind::Failed, what(), why).exit(ran.code.into()));
        }
        let image = self.engine.image(&keep).await?;
        match image {
            Some(image) if image.revision().as_deref() == Some(commit) => {
                Ok(Did { changed: true, after: image.id.into(), ..Did::default() })
            }
            _ => {
                let why = format!(
                    "compose said it was done, and there is no image {keep} of that commit: {}",
                    redact::last_lines(&ran.err, 4)
                );
                Err(Error::new(Kind::Failed, what(), why))
            }
        }
    }
}

fn recreate(call: &Call<'_>) -> Result<Receipt> {
    let service = call.text(0)?;
    let place = open(call)?;
    let stack = Arc::clone(&place.stack);
    let target = call.world.stack_target(&stack);
    let look = Look::at(target.clone(), service.clone(), json!({ "service": service }));
    call.intends(|| {
        let change = Change::of(look.clone());
        // Whether it runs is not known yet: to lose it is the most that can happen.
        if stack.is_stateful(&service) { change.loses(service.clone()) } else { change }
    })?;
    let before = call.read(look, (place.clone(), service.clone()), |pass, (place, service)| async move {
        let compose = place.compose(&pass).await?;
        let config = compose.config(&pass).await?;
        let known = config["services"].as_object().into_iter().flat_map(|map| map.keys());
        let names: Vec<&str> = known.map(String::as_str).collect();
        let Some(reference) = config["services"][&service]["image"].as_str() else {
            let why = suggestion(&service, names.iter().copied());
            return Err(Error::new(Kind::NotFound, format!("no service \"{service}\""), why));
        };
        let running = docker::look_for(&compose.engine, &compose.stack, &service).await?;
        Ok(json!({ "reference": reference, "image_id": running.map(|container| container.image_id) }))
    })?;
    let reference = before["reference"].as_str().unwrap_or_default().to_string();
    let look =
        Look::at(target, format!("{service} from {reference}"), json!({ "service": service, "reference": reference }))
            .within(300);
    let mut change = Change::of(look);
    // Bringing back one that is not there interrupts nobody.
    if stack.is_stateful(&service) && !before["image_id"].is_null() {
        change = change.loses(service.clone());
    }
    if let Some(old) = before["image_id"].as_str() {
        let name = json!(stack.name);
        let (image, reference, service) = (json!(old), json!(reference), json!(service));
        let line = format!("stack({name}).tag_image({image}, {reference}); stack({name}).recreate({service})");
        change = change.undone_by(line, old);
    }
    let old = before["image_id"].clone();
    let change = change.lives(Lives::Run(stack.host.clone()));
    let context = (place, service, reference, old);
    call.change(change, context, |pass, (place, service, reference, old)| async move {
        place.compose(&pass).await?.recreate(&pass, &service, &reference, old).await
    })
}

/// Which image the service runs now, and which one its reference names.
fn recreated_now(past: &Past<'_>) -> Result<Now> {
    let (stack, way) = past.stack()?;
    let (service, reference) = (past.text("service"), past.text("reference"));
    let of = format!("image of {service}");
    past.look(of, (stack, way, service, reference), |pass, (stack, way, service, reference)| async move {
        let engine = way.engine(&pass).await?;
        let now = docker::look_for(&engine, &stack, &service).await?.map(|container| container.image_id);
        let wanted = engine.image(&reference).await?.map(|image| image.id);
        Ok((json!(now), json!(wanted)))
    })
}

impl Compose {
    async fn recreate(&self, pass: &Pass, service: &str, reference: &str, before: Value) -> Result<Did> {
        let stack = &self.stack;
        let what = || format!("{service} was not recreated on {}", stack.host);
        let wanted = self.engine.image(reference).await?.map(|image| image.id).ok_or_else(|| {
            let why = format!("there is no image {reference} on {}", stack.host);
            Error::new(Kind::NotFound, what(), why).next(format!(
                "stack({}).build({}, COMMIT)     makes one",
                literal(&stack.name),
                literal(service)
            ))
        })?;
        let old = docker::look_for(&self.engine, stack, service).await?.map(|container| container.id);
        let generation = self.generation(pass, service).await?;
        let mut words = self.words(&generation, &stack.dir, &stack.compose.project);
        words.extend(["up", "-d", "--no-deps", "--no-build"].map(String::from));
        words.push(service.into());
        let command = self.in_clean_environment(&generation, "clean \"$@\"", words).await?;
        let ran = host::run_durable(&self.reach, pass, &stack.host, &command).await?;
        let found = docker::look_for(&self.engine, stack, service).await?;
        let said = redact::last_lines(&ran.err, 6);
        let Some(now) = found else {
            return Err(Error::new(Kind::Failed, what(), format!("it has no container now. compose said: {said}")));
        };
        if ran.code != 0 || now.image_id != wanted {
            let why = format!(
                "compose ended with {}; {} runs {}, not {}. compose said: {said}",
                ran.code,
                now.name,
                short_id(&now.image_id),
                short_id(&wanted)
            );
            return Err(Error::new(Kind::Failed, what(), why).exit(ran.code.into()));
        }
        // A container that dies at once was "started" too: two steady seconds tell.
        self.engine.wait_state(&now.id, Goal::Running { steady_s: 2 }, Duration::from_secs(60)).await?;
        self.same_environment(pass, service).await?;
        let changed = old.as_ref() != Some(&now.id);
        Ok(Did { changed, before, after: now.image_id.into(), ..Did::default() })
    }
}

#[cfg(test)]
mod tests {
    use super::docker::{REVISION, SERVICE_LABEL, STACK_LABEL};
    use super::*;

    #[test]
    fn the_script_sets_the_labels_that_are_looked_for() {
        for label in [REVISION, STACK_LABEL, SERVICE_LABEL] {
            assert!(BUILD_SCRIPT.contains(&format!("\"{label}=")), "{label}");
        }
    }

    /// The script of a build of the checkout `r` in `dir`, with a compose that shows the file it is told to use last.
    #[expect(clippy::disallowed_methods, reason = "a test runs the script of a build")]
    fn built(dir: &std::path::Path, prepare: &str, env: &str) -> (bool, String) {
        let run = |words: &[String]| {
            let mut command = std::process::Command::new(&words[0]);
            let who = ["GIT_AUTHOR_NAME", "GIT_AUTHOR_EMAIL", "GIT_COMMITTER_NAME", "GIT_COMMITTER_EMAIL"];
            command.args(&words[1..]).current_dir(dir).envs(who.map(|name| (name, "t")));
            let ran = command.stdin(std::process::Stdio::null()).output().expect("a shell");
            let said = [ran.stdout, ran.stderr].map(|said| String::from_utf8_lossy(&said).into_owned());
            (ran.status.success(), said.concat())
        };
        let at = |name: &str| dir.join(name).display().to_string();
        let begin = "rm -rf r && git init -q r && cd r && echo services: >c.yml && echo 'x filter=x' >.gitattributes && echo 1 >x";
        let end = "git add . && git commit -q -m one && git rev-parse HEAD";
        let made = run(&["sh", "-ec", &format!("{begin}\n{prepare}\n{end}")].map(String::from));
        assert!(made.0, "{}", made.1);
        let commit = made.1.trim();
        let script = format!(
            "look() {{ {} \"$@\"; }}\nclean() {{ if test \"$1\" = compose; then cat {} >&2; cd {}; find . -type f; fi; }}\n{BUILD_SCRIPT}",
            quote_all(&tame::git()),
            at("r/.git/opsh/own.yml"),
            at("r/.git/opsh/tree")
        );
        let (repo, work) = (at("r"), at("r/.git/opsh"));
        let file = format!("{work}/tree/c.yml");
        let own = format!("{work}/own.yml");
        let first =
            ["sh", "-c", &script, "opsh", &repo, &work, commit, "web", "keep", "shop", "opsh/web:building", env];
        let rest = ["c.yml", "compose", "-f", &file, "-f", &own];
        let words = first.iter().chain(&rest).map(|word| word.to_string());
        let ran = run(&tame::tamed(&repo, tame::STAYS, words.collect()));
        assert!(!dir.join("r/.git/opsh").exists());
        ran
    }

    #[test]
    fn a_build_writes_and_reads_nothing_outside_of_its_tree_and_runs_nothing_of_the_repository() {
        let home = tempfile::tempdir().expect("a folder");
        let dir = home.path();
        std::fs::write(dir.join("victim"), "stays\n").expect("a file");
        let (well, said) = built(dir, "ln -s ../../../../victim .opsh.yml; ln -s ../../../../victim own.yml", ".env");
        assert!(well && said.contains("image: \"opsh/web:building\"") && said.contains("./x\n"), "{said}");
        for (link, env) in [("rm c.yml; ln -s ../../../../victim c.yml", ""), ("ln -s ../../../.. conf", "conf/victim")]
        {
            let (well, said) = built(dir, link, env);
            assert!(!well && said.contains("leads out of its tree"), "{link}: {said}");
        }
        let (well, said) = built(dir, "git config filter.x.smudge 'touch ../made; cat'", "");
        assert!(!well && said.contains("filter.x.smudge"), "{said}");
        assert!(!dir.join("made").exists());
        assert_eq!(std::fs::read_to_string(dir.join("victim")).expect("the victim"), "stays\n");
        assert!(!dir.join("victim/own.yml").exists());
    }

    #[test]
    fn a_service_without_an_image_is_named_after_project_and_generation() {
        let config = json!({"services": {
            "backend": {"build": {"context": "./backend"}, "environment": {"JWT_SECRET": "x"}},
            "db": {"image": "postgres:16", "environment": ["A=b"]},
        }});
        let first = services(&config, "vrcshift", "_");
        assert_eq!(
            first["backend"],
            json!({"image": "vrcshift_backend:latest", "builds": true, "env": ["JWT_SECRET"]})
        );
        assert_eq!(first["db"], json!({"image": "postgres:16", "builds": false, "env": ["A"]}));
        assert_eq!(services(&config, "vrcshift", "-")["backend"]["image"], "vrcshift-backend:latest");
        assert!(!first.to_string().contains("\"x\""), "values of variables are not kept");
    }

    #[test]
    fn an_image_without_a_tag_means_latest() {
        assert_eq!(with_tag("localhost:5000/app"), "localhost:5000/app:latest");
        assert_eq!(with_tag("app:1"), "app:1");
    }
}
