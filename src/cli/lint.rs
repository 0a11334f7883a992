//! `opsh lint`: what is wrong with scripts, without running a line of them.

use crate::error::{Error, Kind, Result};
use crate::screen::Screen;
use crate::session::lint::{self, Finding};
use crate::session::text_of_plain;
use crate::whole::{self, Link};
use clap::Args;
use serde_json::json;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

/// Bytes of the command of a case.
const LONGEST: u64 = 1 << 20;

#[derive(Args, Debug)]
pub struct Lint {
    /// Scripts, or folders of them; `scripts` and `stdlib` when they are there, else this folder
    paths: Vec<PathBuf>,
    /// One JSON object a line
    #[arg(long)]
    json: bool,
}

/// Looks through what is at the paths, and adds what is wrong with hosts. Fails with `failed` when something is wrong, and with
/// `usage` when there is nothing to look through.
pub fn run(lint: &Lint, hosts: impl FnOnce() -> Result<Vec<Finding>>, screen: &Screen) -> Result<()> {
    let mut files = Vec::new();
    let named = if lint.paths.is_empty() { usual() } else { lint.paths.clone() };
    named.iter().try_for_each(|path| find(path, Link::Followed, &mut files))?;
    if files.is_empty() {
        return Err(Error::new(Kind::Usage, "nothing was looked through", "no *.rhai file is there")
            .next("opsh lint PATH…     files, or folders of them"));
    }
    let json = lint.json || screen.options().json;
    let mut kept = BTreeMap::new();
    let mut findings = Vec::new();
    for (file, link) in &files {
        let cases = kept.entry(home_of(file)).or_insert_with_key(|home| commands(&home.join("tests/cases")));
        findings.extend(lint::lint(&file.display().to_string(), &text_of_plain(file, *link)?, cases.as_deref()));
    }
    findings.extend(hosts()?);
    findings.iter().for_each(|finding| show(finding, json, screen));
    let counted = |count: usize, what: &str| format!("{count} {what}{}", if count == 1 { "" } else { "s" });
    let summary = format!("{} in {}", counted(findings.len(), "finding"), counted(files.len(), "file"));
    if !json {
        screen.print(&summary);
    }
    match findings.len() {
        0 => Ok(()),
        _ => Err(Error::new(Kind::Failed, "not everything is as it should be", summary)),
    }
}

fn show(finding: &Finding, json: bool, screen: &Screen) {
    let Finding { path, line, column, rule, why, fix } = finding;
    let rule = rule.word();
    if json {
        let object = json!({ "path": path, "line": line, "column": column, "rule": rule, "why": why, "fix": fix });
        return screen.json(&object);
    }
    screen.print(&format!("{path}:{line}:{column}  {rule}  {why}\n  {fix}"));
}

/// Where scripts are when nobody says.
fn usual() -> Vec<PathBuf> {
    let folders: Vec<PathBuf> =
        ["scripts", "stdlib"].map(PathBuf::from).into_iter().filter(|path| path.is_dir()).collect();
    if folders.is_empty() { vec![PathBuf::from(".")] } else { folders }
}

/// Every script at a path: itself, or what is below it. `link` says whether the path itself may be one.
fn find(path: &Path, link: Link, files: &mut Vec<(PathBuf, Link)>) -> Result<()> {
    if path.is_file() {
        files.push((path.strip_prefix(".").unwrap_or(path).to_path_buf(), link));
        return Ok(());
    }
    let cannot = |why: String| Error::new(Kind::Usage, format!("{} cannot be looked through", path.display()), why);
    let found = super::test::below(path, ".rhai").map_err(|error| cannot(error.to_string()))?;
    found.iter().filter(|path| path.is_file() || path.is_dir()).try_for_each(|path| find(path, Link::Refused, files))
}

/// The folder that has the folder of a script, or of the folder of scripts that it is below.
fn home_of(file: &Path) -> PathBuf {
    let scripts = file.ancestors().skip(1).find(|folder| folder.file_name().is_some_and(|name| name == "scripts"));
    scripts.or(file.parent()).and_then(Path::parent).unwrap_or(Path::new("")).to_path_buf()
}

/// What the cases in a folder run; none when there is no such folder.
fn commands(cases: &Path) -> Option<Vec<String>> {
    let entries = std::fs::read_dir(cases).ok()?;
    let command = |case: PathBuf| whole::text(&case.join("command"), Link::Refused, LONGEST).ok();
    Some(entries.flatten().filter_map(|entry| command(entry.path())).collect())
}
