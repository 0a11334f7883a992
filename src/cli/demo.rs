//! `opsh demo`: an incident of the practice lab, played from recordings that are inside: the alarm, looking around at the
//! prompt, what the page says, the plan, the rollback, and a postmortem on the disk.

use crate::config::Config;
use crate::error::{Error, Kind, Result};
use crate::gate::Grants;
use crate::gate::policy::Mode;
use crate::screen::Screen;
use crate::session::{Options, Replay, Session};
use crate::shell;
use crate::shell::guide::{self, Guide};
use clap::Args;
use std::path::{Path, PathBuf};
use std::rc::Rc;

#[derive(Args, Debug)]
pub struct Demo {
    /// Go through it without waiting for a key
    #[arg(long)]
    auto: bool,
    /// A new folder for its journal and the postmortem; without it a new one among the temporary files
    #[arg(long, value_name = "DIR")]
    dir: Option<PathBuf>,
}

const CONFIG: &str = include_str!("demo/opsh.toml");
const LOOK: &str = include_str!("demo/look.guide");

/// Recordings of one evening in the lab, in their order.
const RECORDINGS: &[(&str, &str)] = &[
    ("look", include_str!("demo/look.jsonl")),
    ("plan", include_str!("demo/plan.jsonl")),
    ("rollback", include_str!("demo/rollback.jsonl")),
    ("well", include_str!("demo/well.jsonl")),
];

/// A command line, as it is shown, with what is said before it.
struct Scene {
    says: &'static [&'static str],
    shown: &'static str,
}

const PLAN: Scene = Scene {
    says: &[
        "Back to v1.8.0 as it should be done. A plan first: it looks, and changes nothing.",
        "It finds what the page does not know: the image of v1.8.0 must be built, and two migrations must go down first,",
        "with the image that knows them.",
    ],
    shown: "opsh --plan scripts/rollback.rhai v1.8.0",
};

const ROLLBACK: Scene = Scene {
    says: &[
        "Now for real. What loses data is agreed to by name: --allow migrate.down. At a terminal without it opsh asks.",
        "Everything is recorded before it is touched. Should it stop half-way, opsh undo and opsh resume know where.",
    ],
    shown: "opsh --yes --allow migrate.down scripts/rollback.rhai v1.8.0",
};

const WELL: Scene = Scene { says: &["Is it well?"], shown: "opsh -e 'print(stack(\"prod\").status().text)'" };

const POSTMORTEM: Scene = Scene {
    says: &["It is. The postmortem, from the record: what was seen and done, each line with its source."],
    shown: "opsh scripts/postmortem.rhai",
};

/// Plays it. Fails with `usage` without a terminal and `--auto`, or when the folder is not new; `failed` when a scene does.
pub fn run(demo: &Demo, screen: &Rc<Screen>) -> Result<()> {
    let options = screen.options();
    if !demo.auto && !options.terminal {
        return Err(Error::new(Kind::Usage, "nothing was played", "there is no terminal to type at")
            .next("opsh demo --auto     goes through it by itself"));
    }
    let stage = Stage::set(demo, screen)?;
    screen.say("This is a recording of an evening in the practice lab: real output of a real server, and nothing is reached or changed.");
    screen.say(&format!("Its journal and the postmortem are written to {}.", stage.dir.display()));
    if !demo.auto {
        screen.say(
            "Enter runs the line that is there. Ctrl-U takes it out, to type another at the prompt. Ctrl-D leaves.",
        );
    }
    match stage.play() {
        Err(error) if error.kind == Kind::Interrupted => {
            screen.say("left before the end. opsh demo     goes through it from the beginning");
            Ok(())
        }
        played => played,
    }
}

/// Where it is played.
struct Stage<'a> {
    dir: PathBuf,
    auto: bool,
    screen: &'a Rc<Screen>,
}

impl<'a> Stage<'a> {
    #[expect(clippy::disallowed_methods, reason = "the demo's own folder: it is made for what it writes")]
    fn set(demo: &Demo, screen: &'a Rc<Screen>) -> Result<Stage<'a>> {
        let cannot = |dir: &Path, error: std::io::Error| {
            Error::new(Kind::Usage, format!("{} cannot be used for the demo", dir.display()), error.to_string())
                .next("opsh demo --dir DIR     a folder that is not there yet")
        };
        let dir = match &demo.dir {
            Some(dir) => {
                let dir = super::working_dir().join(dir);
                std::fs::DirBuilder::new().create(&dir).map_err(|error| cannot(&dir, error))?;
                dir
            }
            None => {
                let made = tempfile::Builder::new().prefix("opsh-demo-").tempdir();
                made.map_err(|error| cannot(&std::env::temp_dir(), error))?.keep()
            }
        };
        let files = RECORDINGS.iter().map(|(name, text)| (format!("{name}.jsonl"), *text));
        for (name, text) in files.chain([("opsh.toml".to_string(), CONFIG)]) {
            std::fs::write(dir.join(name), text).map_err(|error| cannot(&dir, error))?;
        }
        Ok(Stage { dir, auto: demo.auto, screen })
    }

    fn play(&self) -> Result<()> {
        let mut guide = Guide::parse(LOOK);
        let mut session = self.session(Some("look"))?;
        if self.auto {
            self.shown(guide::play(&mut session, &mut guide), &session)?;
        } else {
            shell::run_guided(&mut session, &mut guide)?;
            if !guide.is_done() {
                return Err(left());
            }
        }
        drop(session);
        let back = |session: &mut Session| session.run_built_in("rollback", &["v1.8.0".into()]).map(drop);
        self.scene(&PLAN, "plan", back)?;
        self.scene(&ROLLBACK, "rollback", back)?;
        self.scene(&WELL, "well", |session| session.run_code("print(stack(\"prod\").status().text)").map(drop))?;
        self.postmortem()
    }

    /// What the recordings tell, from the demo's journal: this is no replay.
    fn postmortem(&self) -> Result<()> {
        let runs = RECORDINGS.iter().filter(|(name, _)| ["look", "rollback"].contains(name));
        let runs: Vec<String> = runs.filter_map(|(_, text)| run_of(text)).collect();
        let file = self.dir.join("postmortem.md").display().to_string();
        self.announce(&POSTMORTEM, &format!("{} {} --lang en --out {file}", POSTMORTEM.shown, runs.join(" ")))?;
        let mut session = self.session(None)?;
        let argv = [runs, vec!["--lang".into(), "en".into(), "--out".into(), file.clone()]].concat();
        let written = session.run_built_in("postmortem", &argv).map(drop);
        self.shown(written, &session)?;
        for line in [
            "",
            &format!("The postmortem is {file}; what is marked [to fill in] a person knows."),
            "That was all of it, and nothing was reached. To go on:",
            &format!("  opsh --state-dir {}/state runs     what the demo left in its journal", self.dir.display()),
            "  tests/lab/lab up     in opsh's repository: these releases on a production server in a box, to be broken",
        ] {
            self.screen.say(line);
        }
        Ok(())
    }

    fn scene(&self, scene: &Scene, recording: &str, plays: impl FnOnce(&mut Session) -> Result<()>) -> Result<()> {
        self.announce(scene, scene.shown)?;
        let mut session = self.session(Some(recording))?;
        let played = plays(&mut session);
        self.shown(played, &session)
    }

    /// Says what comes, and waits for Enter.
    fn announce(&self, scene: &Scene, shown: &str) -> Result<()> {
        self.screen.say("");
        scene.says.iter().for_each(|said| self.screen.say(&format!("# {said}")));
        if self.auto {
            self.screen.say(&format!("$ {shown}"));
            return Ok(());
        }
        loop {
            let typed = self.screen.ask(&format!("$ {shown}     Enter runs it:")).ok_or_else(left)?;
            match typed.trim() {
                "" => return Ok(()),
                line if line == shown => return Ok(()),
                "q" | "quit" | "exit" => return Err(left()),
                _ => self.screen.say("the recording goes on with that line: Enter runs it, q leaves"),
            }
        }
    }

    /// A session whose journal is the demo's, with a recording in place of the world, or with nothing to reach.
    fn session(&self, recording: Option<&str>) -> Result<Session> {
        let replay = recording.map(|name| Replay {
            file: self.dir.join(format!("{name}.jsonl")),
            record: true,
            fail_at: None,
            patient: !self.auto,
        });
        let grants = Grants { yes: true, allow: Vec::new(), under: Vec::new() };
        let config = Config::load(Some(&self.dir.join("opsh.toml")), &self.dir)?;
        let state_dir = self.dir.join("state");
        let options = Options { mode: Mode::Apply, grants, config, state_dir, spill: false, replay };
        Session::new(options, Rc::clone(self.screen))
    }

    /// An error is shown with the text that it is in, which the session has.
    fn shown(&self, result: Result<()>, session: &Session) -> Result<()> {
        result.map_err(|error| {
            self.screen.error(&error, session.sources());
            Error::new(Kind::Failed, "the demo stopped", "see above").next("opsh demo     begins anew")
        })
    }
}

fn left() -> Error {
    Error::new(Kind::Interrupted, "the demo was left", "before its end")
}

/// The run that a recording is of.
fn run_of(recording: &str) -> Option<String> {
    let first: serde_json::Value = serde_json::from_str(recording.lines().next()?).ok()?;
    first["run"].as_str().map(String::from)
}
