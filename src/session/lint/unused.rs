//! Results that nobody looks at, of which some say that it went wrong.

use super::Rule;
use super::callees::Callee;
use super::chain::{Part, taken_apart};
use super::walk::Walk;
use crate::bind;
use crate::session::help::Entry;
use rhai::{Expr, FnCallExpr, Position};

/// Rhai's functions that change nothing and call nothing.
const PURE: &[&str] = &[
    "abs",
    "contains",
    "ends_with",
    "get",
    "index_of",
    "is_empty",
    "keys",
    "len",
    "split",
    "starts_with",
    "sub_string",
    "to_debug",
    "to_float",
    "to_int",
    "to_json",
    "to_lower",
    "to_string",
    "to_upper",
    "type_of",
    "values",
];

/// Reads that are made for what they throw: that there is a host, an Engine, a container, a tag, and that a program ended well.
const CHECKS: &[&str] = &[
    "args::need",
    "args::number",
    "docker.connect",
    "docker.container",
    "docker.read",
    "git.resolve",
    "host.connect",
    "host.read",
];

/// Changes that end well, and whose receipt says what did not.
const PARTIAL: &[(&str, &str)] = &[
    ("docker.reclaim", "what did not go is in `after.left`"),
    ("docker.terminal", "how it ended is in `after.code`, and any code ends well"),
    ("host.terminal", "how it ended is in `after.code`, and any code ends well"),
];

impl Walk<'_> {
    /// A statement whose value nobody looks at.
    pub fn unused(&mut self, value: &Expr) {
        match value {
            Expr::FnCall(call, at) => self.unused_call(call, *at),
            Expr::Dot(..) | Expr::Index(..) => {
                let (root, mut parts) = taken_apart(value);
                let Some(last) = parts.pop() else { return };
                let kind = parts.iter().fold(self.kind(root), |kind, part| self.kind_of(kind, part));
                match last {
                    Part::Method(call, at) => {
                        let callee = self.callees.method(kind, &call.name, call.args.len());
                        self.unused_result(&callee, call, at);
                    }
                    Part::Property(name, at) => self.thrown_away(at, &format!("the property {name}")),
                    Part::Index(index) => self.thrown_away(index.start_position(), "the element"),
                }
            }
            Expr::Unit(_) => {}
            value if value.is_pure() => self.thrown_away(value.start_position(), "the value"),
            _ => {}
        }
    }

    pub fn unused_call(&mut self, call: &FnCallExpr, at: Position) {
        if call.is_operator_call() {
            let at = call.args.first().map_or(at, Expr::start_position);
            return self.thrown_away(at, &format!("the result of {}", call.name));
        }
        let callee = match call.namespace.path.first() {
            Some(module) => self.callees.qualified(&module.name, &call.name, call.args.len()),
            None => Some(self.callees.function(&call.name, call.args.len())),
        };
        if let Some(callee) = callee {
            self.unused_result(&callee, call, at);
        }
    }

    fn unused_result(&mut self, callee: &Callee, call: &FnCallExpr, at: Position) {
        let name = call.name.as_str();
        if let Some((first, rest)) = callee.entries.split_first() {
            let is_for_it = |entry: &&Entry| is_read_for_its_result(entry, &call.args);
            if let Some((_, says)) = PARTIAL.iter().find(|(verb, _)| *verb == first.name) {
                let fix = format!("let done = ….{name}(…);     and look at it");
                self.say(Rule::UnusedResult, at, format!("{} does not fail then: {says}", first.name), fix);
            } else if !callee.others && is_for_it(first) && rest.iter().all(is_for_it) {
                let why = format!("{} does not fail when what it finds is bad: only its result says so", first.name);
                self.say(Rule::UnusedResult, at, why, "look at it, print it, or expect(…) something of it");
            }
        } else if callee.others && PURE.contains(&name) && !self.callees.is_own(name) && call.namespace.is_empty() {
            self.thrown_away(at, &format!("the result of {name}"));
        }
    }

    fn thrown_away(&mut self, at: Position, what: &str) {
        let why = format!("{what} is thrown away, and nothing else happens here");
        self.say(Rule::UnusedResult, at, why, "expect(…) it, use it, or leave it out");
    }
}

/// True for a read that does not throw when what it finds is bad.
fn is_read_for_its_result(entry: &Entry, arguments: &[Expr]) -> bool {
    let option = |name: &str, value: bool| {
        let maps =
            arguments.iter().filter_map(|argument| if let Expr::Map(map, _) = argument { Some(map) } else { None });
        maps.flat_map(|map| &map.0)
            .any(|(key, given)| key.name == name && matches!(given, Expr::BoolConstant(given, _) if *given == value))
    };
    let looks = entry.class == "script" || entry.class == "read";
    let waits = bind::verb(&entry.name).is_some_and(|verb| verb.waits);
    let throws = CHECKS.contains(&entry.name.as_str()) && !option("check", false) && !option("partial", true);
    looks && !waits && !throws && !option("follow", true) && !["()", "any"].contains(&entry.signature.result)
}
