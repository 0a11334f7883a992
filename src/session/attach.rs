//! `opsh attach [RUN]`: work that goes on on the hosts, whoever began it. Who and what it is, its output, its end.

use super::Session;
use crate::bind::undo;
use crate::config::LOCAL;
use crate::error::{Error, Kind, Result};
use crate::gate::policy::Mode;
use crate::screen::one_line;
use serde_json::{Value, json};

impl Session {
    /// Without a run lists what goes on on every host; with one waits for its work to end, and settles what this journal
    /// did not know of it. `run` is a run's id or the end of it, from any machine.
    ///
    /// Fails with `not_found` when no host that was reached has work of that run, `failed` when some of it ended with an
    /// exit code other than 0 or was cut short, `unreachable` when no host was reached, `stuck` when this journal has it and nobody can say what it did, and as `host.works` and `host.wait_for`.
    pub fn attach(&mut self, run: Option<&str>) -> Result<()> {
        let run = run.map(|run| self.full_id(run));
        self.gate().begin_run("attach", json!({ "run": run }))?;
        let result = match &run {
            Some(run) => self.attach_to(run),
            None => self.attach_to_none(),
        };
        self.gate().end_run(result.as_ref().err());
        result
    }

    /// Lists what goes on. That nothing does is said only when the journal, which may know more, can be read.
    fn attach_to_none(&mut self) -> Result<()> {
        let (mut works, everywhere) = self.works()?;
        works.retain(|work| work["state"] == json!("running"));
        self.show_works(&works);
        if works.is_empty() {
            let known = self.gate().journal().and_then(|journal| journal.runs(1));
            known.map_err(|error| Error { what: "it is not known what goes on".into(), ..error })?;
            let where_reached = if everywhere { "" } else { " on the hosts that were reached" };
            self.gate().screen().print(&format!("nothing goes on{where_reached}"));
        }
        Ok(())
    }

    /// The id as the journal here has it, if it does.
    fn full_id(&self, run: &str) -> String {
        let known = self.gate().journal().and_then(|journal| journal.story(run));
        known.map_or_else(|_| run.to_string(), |story| story.run)
    }

    fn attach_to(&mut self, run: &str) -> Result<()> {
        let (mut works, _) = self.works()?;
        works.retain(|work| work["run"].as_str().is_some_and(|of| of == run || of.ends_with(run)));
        if works.is_empty() {
            let why = "no host that was reached has work of it: it ended and was read, or it never began";
            return Err(Error::new(Kind::NotFound, format!("nothing of run {run} goes on"), why)
                .next("opsh attach     what goes on on every host")
                .next(format!("opsh runs     what is known of {run} here")));
        }
        self.show_works(&works);
        let mut failed = Vec::new();
        for work in &works {
            match self.wait_for(work) {
                Ok(ended) if ended["code"] == json!(0) => {}
                Ok(ended) => failed.push(format!("{} ended with exit code {}", text(work, "id"), ended["code"])),
                Err(error) if error.kind == Kind::Failed => failed.push(error.why),
                Err(error) => return Err(error),
            }
        }
        // A sitting that observes for the sake of its stack may say what a person asked for; one that was started so may not.
        let mode = if self.refuse_fixed().is_ok() { Mode::Apply } else { self.gate().mode() };
        self.in_mode(mode, "attach", |session| session.settle_known(run))?;
        match failed.is_empty() {
            true => Ok(()),
            false => Err(Error::new(Kind::Failed, format!("work of run {run} failed"), failed.join("\n"))),
        }
    }

    /// What goes on on every host of opsh.toml and on this machine, and whether all of them were reached; one that was not
    /// is said and passed over. Fails with `unreachable` when there are others than this machine, none of them was
    /// reached and nothing goes on here, and `interrupted`.
    fn works(&mut self) -> Result<(Vec<Value>, bool)> {
        let config = &self.world.config;
        let names: Vec<String> = config.host_names().chain([LOCAL]).map(String::from).collect();
        let others = names.len() - 1;
        let rows = self.eval(&format!("hosts({}).works(#{{ partial: true }})", json!(names)))?;
        let (mut works, mut reached, mut elsewhere) = (Vec::new(), 0, 0);
        for row in rows.as_array().into_iter().flatten() {
            reached += usize::from(row["value"]["works"].is_array());
            elsewhere += usize::from(row["value"]["works"].is_array() && row["host"] != json!(LOCAL));
            match row["value"]["works"].as_array() {
                Some(found) => works.extend(found.iter().map(|work| {
                    let mut work = work.clone();
                    work["host"] = row["host"].clone();
                    work
                })),
                None => self.gate().screen().warn(&format!("{}: {}", text(row, "host"), text(&row["error"], "why"))),
            }
        }
        let not = |kind, why| Error::new(kind, "it is not known what goes on", why);
        match elsewhere {
            _ if crate::interrupt::is_interrupted() => Err(not(Kind::Interrupted, "Ctrl-C")),
            0 if (others > 0 || reached == 0) && works.is_empty() => Err(not(Kind::Unreachable, "no host was reached")),
            _ => Ok((works, reached == names.len())),
        }
    }

    fn show_works(&self, works: &[Value]) {
        let screen = self.gate().screen();
        for work in works {
            let (host, id, by, at) = (text(work, "host"), text(work, "id"), text(work, "by"), text(work, "at"));
            let what = format!("{}  {}  {}", text(work, "verb"), text(work, "target"), text(work, "says"));
            let lock = if work["container"] == json!(true) { ", the lock is held" } else { "" };
            match work["state"].as_str().unwrap_or("?") {
                "running" => screen.print(&format!("{host}  {what}\n  running as {id}, started by {by} at {at}{lock}")),
                state => {
                    screen.print(&format!("{host}  {what}\n  {} as {id}, started by {by} at {at}", one_line(state)))
                }
            }
        }
    }

    fn wait_for(&mut self, work: &Value) -> Result<Value> {
        let [host, id] = ["host", "id"].map(|key| work[key].as_str().unwrap_or_default());
        let ended = self.eval(&format!("host({}).wait_for({}, #{{ within_s: 86400 }})", json!(host), json!(id)))?;
        self.gate().screen().print(&format!("{host}  {} ended with exit code {}", one_line(id), ended["code"]));
        Ok(ended)
    }

    /// Settles the changes of a run that is in this journal and whose outcome nobody knew.
    fn settle_known(&self, run: &str) -> Result<()> {
        let story = match self.gate().journal().and_then(|journal| journal.story(run)) {
            Err(error) if error.kind == Kind::NotFound => return Ok(()),
            story => story.map_err(|error| Error { what: format!("what run {run} did is not known"), ..error })?,
        };
        let what = format!("what run {} did is not known", story.run);
        undo::settle(&self.world, &mut story.changes.clone()).map_err(|error| Error { what, ..error })
    }
}

/// A value that somebody else wrote, as a part of a line.
fn text(value: &Value, key: &str) -> String {
    one_line(value[key].as_str().unwrap_or("?"))
}
