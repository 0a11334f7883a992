//! Help from the verbs themselves: `opsh help`, and `help` at the prompt.

use crate::bind;
use crate::error::{Error, Kind, Result, suggestion};
use crate::gate::verb::Verb;
use crate::screen::Screen;

/// Every verb, those of one system, or one of them in full.
pub fn show(screen: &Screen, name: Option<&str>) -> Result<()> {
    let verbs: Vec<_> = bind::all().map(bind::Binding::verb).collect();
    if let Some(verb) = verbs.iter().find(|verb| Some(verb.name) == name) {
        screen.print(&format!("{}     {}\n\n{}\n\nexample: {}", verb.sig, verb.class.word(), verb.doc, verb.example));
        return Ok(());
    }
    let of_system = |verb: &&&Verb| name.is_none_or(|name| verb.name.split('.').next() == Some(name));
    let row = |verb: &&Verb| [verb.name, verb.class.word(), verb.sig].map(String::from).to_vec();
    let rows: Vec<_> = verbs.iter().filter(of_system).map(row).collect();
    if let (Some(name), true) = (name, rows.is_empty()) {
        let systems: std::collections::BTreeSet<&str> =
            verbs.iter().filter_map(|verb| verb.name.split('.').next()).collect();
        if !name.contains('.') {
            let why = suggestion(name, systems.iter().copied());
            return Err(Error::new(Kind::Usage, format!("no system \"{name}\""), why).next("opsh help     every verb"));
        }
        return check_verb(name);
    }
    screen.table(&["verb", "class", "call"], rows);
    screen.print("\nopsh help VERB explains one; stack(NAME) and host(NAME) are where scripts start");
    Ok(())
}

/// Ok for the name of a verb; else an error with the nearest one.
pub fn check_verb(name: &str) -> Result<()> {
    if bind::verb(name).is_some() {
        return Ok(());
    }
    let names: Vec<&str> = bind::all().map(|binding| binding.verb().name).collect();
    let why = suggestion(name, names.iter().copied());
    Err(Error::new(Kind::Usage, format!("no verb \"{name}\""), why).next("opsh help     every verb"))
}
