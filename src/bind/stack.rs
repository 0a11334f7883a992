//! Stacks as objects in scripts: `stack("prod")`, `.repo`, `.db`, `.name`, `.host`.

use super::db::DbHandle;
use super::function::Function;
use super::git::RepoHandle;
use super::values::literal;
use super::way::Way;
use super::{Call, World};
use crate::bind::values::thrown;
use crate::config::Stack;
use crate::config::migrate::LedgerKind;
use crate::error::{Error, Kind, Result};
use rhai::{Dynamic, Engine, EvalAltResult, NativeCallContext};
use serde_json::{Value, json};
use std::collections::BTreeSet;
use std::rc::Rc;
use std::sync::Arc;

/// Where scripts start with a stack, and what opsh.toml says of it.
pub const FUNCTIONS: &[Function] = &[
    Function::new(
        "stack(name: string) -> stack",
        "A stack of opsh.toml. Nothing is reached before it is needed. Fails with `usage` for a name that opsh.toml \
         does not have, naming the nearest.",
        r#"stack("prod")"#,
    ),
    Function::new("stack.name -> string", "The stack's name.", r#"stack("prod").name"#),
    Function::new(
        "stack.host -> string",
        "Name of the host that the stack is on. `host(stack.host)` is the host itself.",
        r#"host(stack("prod").host)"#,
    ),
    Function::new("stack.dir -> string", "Absolute path of the stack's checkout.", r#"stack("prod").dir"#),
    Function::new("stack.repo -> repo", "The checkout that the stack is deployed from.", r#"stack("prod").repo"#),
    Function::new("stack.db -> db", "The stack's database.", r#"stack("prod").db"#),
    Function::new(
        "stack.migrate -> map",
        "Where the stack's migrations are. A map: `service`, whose image holds the tool, `files`, their folder in \
         the repository, and `ledger`: `rows`, one for each, or `version`, the newest alone; `()` when the stack has none.",
        r#"stack("prod").migrate"#,
    ),
    Function::new(
        "stack.compose_file -> string",
        "Name of the stack's first compose file.",
        r#"stack("prod").compose_file"#,
    ),
    Function::new(
        "stack.expects(service: string) -> array",
        "Files that an image of a service must have. As opsh.toml lists them; empty when it lists none.",
        r#"stack("prod").expects("backend")"#,
    ),
    Function::new(
        "stack.wants -> map",
        "What opsh.toml wants to be so. A map: `files` (compose files), `env_file`, `services` (those it names: in \
         `services`, `migrate` and `db`), `db` (`service`, `user`, `name`; or `()`), `backup` (`dir`, `fresh_h`; `()` without \
         a database), `cron` (texts), `branches` (`target`, `source`; or `()`), `probes` (how many).",
        r#"stack("prod").wants.files"#,
    ),
];

/// `stack("prod")`.
#[derive(Clone)]
pub struct StackHandle(pub Arc<Stack>);

impl StackHandle {
    /// The stack's name.
    pub fn name(&self) -> &str {
        &self.0.name
    }
}

/// Registers the constructor `stack(NAME)` and the stack's properties.
pub fn register(engine: &mut Engine, world: &Rc<World>) {
    engine.register_type_with_name::<StackHandle>("stack");
    let world = Rc::clone(world);
    engine.register_fn(
        "stack",
        move |context: NativeCallContext<'_>, name: &str| -> std::result::Result<StackHandle, Box<EvalAltResult>> {
            world.gate.uses(name);
            world.config.stack(name).map(StackHandle).map_err(|error| thrown(error, context.call_position()))
        },
    );
    engine.register_get("name", |stack: &mut StackHandle| stack.name().to_string());
    engine.register_get("host", |stack: &mut StackHandle| stack.0.host.clone());
    engine.register_get("dir", |stack: &mut StackHandle| stack.0.dir.clone());
    engine.register_get("repo", |stack: &mut StackHandle| RepoHandle::of_stack(&stack.0));
    engine.register_get("db", |stack: &mut StackHandle| DbHandle(Arc::clone(&stack.0)));
    engine.register_get("migrate", |stack: &mut StackHandle| match &stack.0.migrate {
        Some(migrate) => super::map(json!({
            "service": migrate.service, "files": migrate.files,
            "ledger": if migrate.tool.ledger.kind == LedgerKind::Rows { "rows" } else { "version" },
        })),
        None => Dynamic::UNIT,
    });
    engine.register_get("compose_file", |stack: &mut StackHandle| stack.0.compose.files[0].clone());
    engine.register_fn("expects", |stack: &mut StackHandle, service: &str| -> Dynamic {
        stack.0.service(service).expects.into_iter().map(Dynamic::from).collect::<Vec<_>>().into()
    });
    engine.register_get("wants", |stack: &mut StackHandle| super::map(wants(&stack.0)));
    engine.register_fn("to_string", |stack: &mut StackHandle| stack.name().to_string());
    engine.register_fn("to_debug", |stack: &mut StackHandle| format!("stack({})", literal(stack.name())));
}

fn wants(stack: &Stack) -> Value {
    let mut services: BTreeSet<&str> = stack.services.keys().map(String::as_str).collect();
    services.extend(stack.migrate.as_ref().map(|migrate| migrate.service.as_str()));
    services.extend(stack.db.as_ref().map(|db| db.service.as_str()));
    let backup = stack.db.as_ref().map(|_| json!({ "dir": stack.backup.dir, "fresh_h": stack.backup.fresh_h }));
    let db = stack.db.as_ref().map(|db| json!({ "service": db.service, "user": db.user, "name": db.name }));
    let branches = stack.branches.as_ref().map(|two| json!({ "target": two.target, "source": two.source }));
    json!({
        "files": stack.compose.files, "env_file": stack.compose.env_file, "services": services, "backup": backup,
        "db": db, "cron": stack.cron, "branches": branches, "probes": stack.probe.len(),
    })
}

impl Call<'_> {
    /// The stack before the dot.
    pub fn stack(&self) -> Result<Arc<Stack>> {
        self.this::<StackHandle>().map(|handle| handle.0)
    }

    /// The stack before the dot, and the way to its host.
    pub fn stack_and_way(&self) -> Result<(Arc<Stack>, Way)> {
        let stack = self.stack()?;
        let way = self.world.way(&stack.host)?;
        Ok((stack, way))
    }
}

/// An error for a stack whose configuration lacks something.
pub fn lacks(stack: &Stack, what: &str, line: &str) -> Error {
    Error::new(Kind::Usage, format!("stack {} has no {what}", stack.name), "opsh.toml does not say it")
        .next(format!("[stack.{}] {line}", stack.name))
}
