//! `opsh runs`, `opsh undo`, `opsh resume`: what was done, and how to go back or on from there.

use crate::config::Config;
use crate::error::Result;
use crate::gate::journal::{Journal, Story};
use crate::screen::Screen;
use crate::session::{resume, runs, undo};
use clap::Args;
use serde_json::Value;
use std::path::Path;

#[derive(Args, Debug)]
pub struct Runs {
    /// How many
    #[arg(default_value_t = 20)]
    count: usize,
    /// One JSON object a line
    #[arg(long)]
    json: bool,
}

/// What may also stand behind the command.
#[derive(Args, Debug, Clone)]
pub struct Agreed {
    /// Agree to changes beforehand
    #[arg(long)]
    pub yes: bool,
    /// Agree beforehand to this verb, which loses data or service; may be given several times
    #[arg(long, value_name = "VERB")]
    pub allow: Vec<String>,
    /// Agree beforehand to changes although HOLDER, as opsh names them, has the lock; may be given several times
    #[arg(long, value_name = "HOLDER")]
    pub under_lock_of: Vec<String>,
}

#[derive(Args, Debug)]
pub struct Undo {
    /// Run id, the beginning or end of one, or `last`: the newest run that changed something
    pub run: String,
    #[command(flatten)]
    pub agreed: Agreed,
    /// Show what would be undone, and do nothing
    #[arg(long)]
    pub plan: bool,
    /// Undo the rest although something was destroyed that cannot come back
    #[arg(long)]
    pub partly: bool,
}

#[derive(Args, Debug)]
pub struct Resume {
    /// Run id, the beginning or end of one, or `last`
    pub run: String,
    #[command(flatten)]
    pub agreed: Agreed,
    /// Go on although the script is not what it was
    #[arg(long)]
    pub changed_script: bool,
}

/// The newest runs, and below them what needs attention.
pub fn list(runs: &Runs, state_dir: &Path, screen: &Screen) -> Result<()> {
    let journal = super::journal::open(state_dir, screen)?;
    runs::list(&journal, runs.count, runs.json || screen.options().json, None, screen)
}

/// The configuration that a run used: the names in its record mean what that one says. One that used none gets none.
pub fn config_of(story: &Story) -> Result<Config> {
    match &story.facts["config"] {
        Value::String(path) => Config::recorded(Path::new(path)),
        _ => Ok(Config::default()),
    }
}

/// The run that is to be taken back.
pub fn to_undo(run: &str, state_dir: &Path, in_replay: bool) -> Result<Story> {
    undo::find(&Journal::open(state_dir)?, run, in_replay, None)
}

/// A run, and those that it went on with, newest first.
pub fn chain(story: Story, state_dir: &Path) -> Result<Vec<Story>> {
    resume::chain(&Journal::open(state_dir)?, story)
}

/// The run that is to be gone on with.
pub fn to_resume(run: &str, state_dir: &Path) -> Result<Story> {
    resume::find(&Journal::open(state_dir)?, run)
}
