//! `opsh USER@HOST`, with no opsh.toml: one host, and the stacks that the labels of compose tell of.

use super::Session;
use crate::bind::World;
use crate::config::{Address, Config};
use crate::engine;
use crate::error::{Error, Kind, Result};
use serde_json::{Value, json};
use std::rc::Rc;

/// A host as it is typed: `root@203.0.113.10`, `deploy@web.example:2222`, `deploy@[2001:db8::1]:2222`.
pub struct Place {
    /// `root@203.0.113.10`.
    login: String,
    /// Name of the host in this session: what stands behind the `@`, without brackets.
    pub name: String,
    port: Option<u16>,
    /// No key was accepted: a person is asked for a password.
    asks: bool,
}

impl Place {
    /// `None` for a word that is no `USER@HOST`.
    pub fn parse(word: &str) -> Option<Place> {
        let Address { user, host, port } = Address::parse(word).ok()?;
        let user = user?;
        let plain = |text: &str, more: &str| text.chars().all(|c| c.is_alphanumeric() || more.contains(c));
        let is_one = plain(&user, "-_.") && plain(&host, "-_.:");
        let login = if host.contains(':') { format!("{user}@[{host}]") } else { format!("{user}@{host}") };
        is_one.then_some(Place { login, name: host, port, asks: false })
    }

    /// A configuration with this host and these rows of `host.stacks`.
    pub fn config(&self, stacks: &Value) -> Result<Config> {
        Config::found(&self.toml(stacks))
    }

    /// The same as the text of an opsh.toml.
    pub fn toml(&self, stacks: &Value) -> String {
        let name = quoted(&json!(self.name));
        let mut text = format!("[host.{name}]\nssh = {}\n", quoted(&json!(self.login)));
        if let Some(port) = self.port {
            text += &format!("port = {port}\n");
        }
        if self.asks {
            text += "password = \"prompt:\"\n";
        }
        for stack in stacks.as_array().into_iter().flatten() {
            text += &format!("\n[stack.{}]\nhost = {name}\n", quoted(&stack["project"]));
            text += &format!("dir = {}\n", quoted(&stack["dir"]));
            let env_file = &stack["env_file"];
            let env_file =
                if env_file.is_null() { String::new() } else { format!("env_file = {}, ", quoted(env_file)) };
            let (files, project) = (quoted(&stack["files"]), quoted(&stack["project"]));
            text += &format!("compose = {{ files = {files}, {env_file}project = {project} }}\n");
            let services =
                stack["services"].as_array().into_iter().flatten().map(|name| format!("{} = {{}}", quoted(name)));
            text += &format!("services = {{ {} }}\n", services.collect::<Vec<_>>().join(", "));
            let db = &stack["db"];
            if !db.is_null() {
                let part = |key: &str| quoted(&db[key]);
                let (service, user, name) = (part("service"), part("user"), part("name"));
                text += &format!("db = {{ service = {service}, user = {user}, name = {name} }}\n");
            }
        }
        text
    }
}

/// Strings and lists of them are written alike in JSON and TOML, but for one character.
fn quoted(value: &Value) -> String {
    value.to_string().replace('\u{7f}', "\\u007f")
}

impl Session {
    /// Looks which stacks a host has, as a run of its own, and goes on with a configuration that names them. A host
    /// without a Docker Engine has none.
    pub fn discover(&mut self, place: &Place) -> Result<Config> {
        self.gate().begin_run(&format!("discover {}", place.login), json!({}))?;
        let result = self.eval(&format!("host({}).stacks()", super::words::literal(&place.name)));
        self.gate().end_run(result.as_ref().err());
        let stacks = match result {
            Err(error) if error.kind == Kind::NotFound => {
                self.gate().screen().warn(&format!("no stacks: {}", error.why));
                json!([])
            }
            other => other?,
        };
        let usable = |stack: &&Value| {
            stack["dir"].as_str().is_some_and(|dir| dir.starts_with('/')) && stack["files"] != json!([])
        };
        let usable: Vec<&Value> = stacks.as_array().into_iter().flatten().filter(usable).collect();
        let names: Vec<&str> = usable.iter().filter_map(|stack| stack["project"].as_str()).collect();
        let said =
            if names.is_empty() { "no compose project".to_string() } else { format!("stack {}", names.join(", ")) };
        self.gate().screen().say(&format!("{}: {said}", place.name));
        place.config(&json!(usable))
    }

    /// The same session, in which the login asks for a password.
    pub fn with_password(self, place: &mut Place) -> Result<Session> {
        place.asks = true;
        self.world.ways.borrow_mut().remove(&place.name);
        self.with_config(place.config(&Value::Null)?)
    }

    /// The same session with another configuration: what is connected stays connected.
    pub fn with_config(self, config: Config) -> Result<Session> {
        let Session { engine, scope, functions, world, .. } = self;
        drop((engine, scope, functions));
        let world = Rc::into_inner(world);
        let world = world.ok_or_else(|| Error::new(Kind::Failed, "opsh has a bug", "the session is still in use"))?;
        Ok(Session::around(Rc::new(World { config, ..world })))
    }

    /// A session in this world.
    pub(super) fn around(world: Rc<World>) -> Session {
        world.gate.set_meanings(world.config.meanings());
        let mut engine = engine::build(&world);
        super::help::register(&mut engine, &world);
        Session {
            engine,
            world,
            scope: rhai::Scope::new(),
            functions: rhai::AST::empty(),
            lines: 0,
            exited: None,
            sitting: Default::default(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_host_as_it_is_typed_is_told_from_a_script() {
        let place = Place::parse("deploy@web-1.example:2222").expect("a place");
        assert_eq!(
            (place.login.as_str(), place.name.as_str(), place.port),
            ("deploy@web-1.example", "web-1.example", Some(2222))
        );
        for (word, login, port) in
            [("u@[::1]:2414", "u@[::1]", Some(2414)), ("u@[::1]", "u@[::1]", None), ("u@::1", "u@[::1]", None)]
        {
            let place = Place::parse(word).expect("a place");
            assert_eq!((place.login.as_str(), place.name.as_str(), place.port), (login, "::1", port));
            let config = place.config(&Value::Null).expect("a configuration");
            assert_eq!(config.host("::1").expect("a host").ssh, login);
        }
        for word in [
            "scripts/a@b.rhai",
            "root@",
            "@host",
            "root@h:",
            "root@h:x",
            "root@h:99999",
            "-o@h",
            "root@-oProxyCommand=x",
            "a b@c",
        ] {
            assert!(Place::parse(word).is_none(), "{word}");
        }
    }

    #[test]
    fn what_was_found_is_a_configuration_whatever_it_is_called() {
        let place = Place::parse("root@203.0.113.10").expect("a place");
        let stacks = json!([
            { "project": "vrc.shift \"x\"", "dir": "/opt/a b", "files": ["a.yml", "b\\.yml"], "env_file": ".env.prod",
              "services": ["backend", "d b"], "db": { "service": "d b", "user": "u", "name": "n\u{7f}" } },
            { "project": "other", "dir": "/srv/o", "files": ["compose.yml"], "env_file": null, "services": [], "db": null },
        ]);
        let config = place.config(&stacks).expect("a configuration");
        assert_eq!(config.stack_names().collect::<Vec<_>>(), ["other", "vrc.shift \"x\""]);
        let stack = config.stack("vrc.shift \"x\"").expect("a stack");
        assert_eq!((stack.host.as_str(), stack.dir.as_str(), stack.sandbox), ("203.0.113.10", "/opt/a b", false));
        assert_eq!(stack.compose.files, ["a.yml", "b\\.yml"]);
        assert_eq!(stack.db.as_ref().map(|db| db.name.as_str()), Some("n\u{7f}"));
        assert!(config.path.is_none() && config.host("203.0.113.10").is_ok());
    }
}
