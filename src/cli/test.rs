//! `opsh test`: past runs and small functions as tests. Each is an opsh of its own in which a recording answers in place of
//! the world, so that none can reach anything, and none can see what another one did.

mod case;
mod child;
mod functions;
mod sweep;

use crate::error::{Error, Kind, Result};
use crate::screen::Screen;
use crate::whole::Link;
use case::Case;
use clap::Args;
use functions::Function;
use serde_json::json;
use std::collections::BTreeMap;
use std::num::NonZeroU32;
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::sync::mpsc;

#[derive(Args, Debug)]
pub struct Test {
    /// Case folders, *_test.rhai files, or folders of them; `tests` when there is one, else this folder
    paths: Vec<PathBuf>,
    /// Let effect N of each case fail, from 1, and show what it says then
    #[arg(long, value_name = "N")]
    fail_at: Option<NonZeroU32>,
    /// Let each effect of each case fail in turn, and take back from there what was done
    #[arg(long, conflicts_with_all = ["fail_at", "update"])]
    sweep: bool,
    /// Rewrite what the cases are to show; the difference is the review
    #[arg(long, conflicts_with = "fail_at")]
    update: bool,
    /// One JSON object a line
    #[arg(long)]
    json: bool,
}

/// One test.
enum One {
    /// A folder with a recording.
    Case(Case),
    /// A function of a *_test.rhai file.
    Function(Function),
}

/// What became of a test: a line about it, or why it failed.
type Verdict = std::result::Result<String, String>;

impl One {
    fn name(&self) -> String {
        match self {
            One::Case(case) => case.name(),
            One::Function(function) => function.name(),
        }
    }

    fn verdict(&self, test: &Test) -> Verdict {
        match self {
            One::Function(function) => function.verdict(),
            One::Case(case) if test.sweep => sweep::verdict(case),
            One::Case(case) => match test.fail_at {
                Some(at) => sweep::failing(case, at.get()),
                None => case.verdict(test.update),
            },
        }
    }
}

/// Runs what is below the paths. Fails with `failed` when a test did, and with `usage` when there is none.
pub fn run(test: &Test, screen: &Screen) -> Result<()> {
    let mut tests = Vec::new();
    match (test.paths.as_slice(), Path::new("tests").is_dir()) {
        ([], true) => find(Path::new("tests"), Link::Refused, &mut tests)?,
        ([], false) => find(Path::new("."), Link::Refused, &mut tests)?,
        (paths, _) => paths.iter().try_for_each(|path| find(path, Link::Followed, &mut tests))?,
    }
    if test.sweep || test.fail_at.is_some() {
        // Nothing that can fail is in typed lines or functions that is not in them as a matter of course.
        tests.retain(|one| matches!(one, One::Case(case) if !case.is_typed()));
    }
    if tests.is_empty() {
        return Err(Error::new(Kind::Usage, "nothing was tested", "no case folder and no *_test.rhai is there")
            .next("opsh journal export RUN > CASE/recording.jsonl     makes a case of a run: docs/scripts.md"));
    }
    let json = test.json || screen.options().json;
    let mut failed = 0;
    in_order(
        &tests,
        |one| one.verdict(test),
        |one, verdict| {
            failed += usize::from(verdict.is_err());
            let name = one.name();
            match (json, verdict) {
                (true, verdict) => {
                    let (ok, says) = (verdict.is_ok(), verdict.unwrap_or_else(|why| why));
                    screen.json(&json!({ "test": name, "ok": ok, "says": says }));
                }
                (_, Ok(says)) if says.is_empty() => screen.print(&format!("ok      {name}")),
                (_, Ok(says)) => screen.print(&format!("ok      {name}     {says}")),
                (_, Err(why)) => screen.print(&format!("FAILED  {name}\n  {}", why.trim_end().replace('\n', "\n  "))),
            }
        },
    );
    let passed = tests.len() - failed;
    match json {
        true => screen.json(&json!({ "passed": passed, "failed": failed })),
        false => screen.print(&format!("{passed} passed, {failed} failed")),
    }
    match failed {
        0 => Ok(()),
        _ => Err(Error::new(Kind::Failed, "not every test passed", format!("{failed} of {} failed", tests.len()))),
    }
}

/// Every test at a path: itself, or what is below it. `link` says whether the path itself may be one.
fn find(path: &Path, link: Link, tests: &mut Vec<One>) -> Result<()> {
    let cannot = |why: String| Error::new(Kind::Usage, format!("{} cannot be tested", path.display()), why);
    if path.is_file() {
        let functions = functions::of(path, link)?;
        if functions.is_empty() {
            return Err(cannot("no function in it begins with test_".into()));
        }
        tests.extend(functions.into_iter().map(One::Function));
        return Ok(());
    }
    if Case::is_at(path) {
        tests.push(One::Case(Case::read(path)?));
        return Ok(());
    }
    let found = below(path, "_test.rhai").map_err(|error| cannot(error.to_string()))?;
    found.iter().try_for_each(|path| find(path, Link::Refused, tests))
}

/// Folders and files of this ending in a folder, by name. Where builds and the like are, nobody keeps scripts.
pub(super) fn below(folder: &Path, ending: &str) -> std::io::Result<Vec<PathBuf>> {
    let mut found: Vec<PathBuf> = std::fs::read_dir(folder)?.flatten().map(|entry| entry.path()).collect();
    found.retain(|path| {
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        match path.is_dir() {
            true => !path.is_symlink() && !name.starts_with('.') && name != "target",
            false => name.ends_with(ending),
        }
    });
    found.sort();
    Ok(found)
}

/// Does `work` for each item, as many at once as there are processors, and `tell`s of each in their order.
fn in_order<T: Sync, R: Send>(items: &[T], work: impl Fn(&T) -> R + Sync, mut tell: impl FnMut(&T, R)) {
    let (sender, results) = mpsc::channel();
    let next = Mutex::new(items.iter().enumerate());
    let take = || next.lock().unwrap_or_else(std::sync::PoisonError::into_inner).next();
    let at_once = std::thread::available_parallelism().map_or(1, usize::from).min(items.len());
    std::thread::scope(|scope| {
        for _ in 0..at_once {
            let (sender, work, take) = (sender.clone(), &work, &take);
            scope.spawn(move || {
                while let Some((at, item)) = take() {
                    // Nobody listens any more only when telling panicked.
                    let _ = sender.send((at, work(item)));
                }
            });
        }
        drop(sender);
        let mut waiting = BTreeMap::new();
        let mut told = 0;
        for (at, result) in results {
            waiting.insert(at, result);
            while let Some(result) = waiting.remove(&told) {
                tell(&items[told], result);
                told += 1;
            }
        }
    });
}
