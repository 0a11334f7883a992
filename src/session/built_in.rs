//! Scripts that are there wherever opsh is: `opsh doctor`, and words at the prompt.

use crate::config::trust;
use crate::error::{Error, Kind, Result};
use std::path::Path;

/// Each with its text. Those in a folder are no words.
const SCRIPTS: &[(&str, &str)] = &[
    ("backup", include_str!("../../scripts/backup.rhai")),
    ("checks/containers", include_str!("../../scripts/checks/containers.rhai")),
    ("checks/disk", include_str!("../../scripts/checks/disk.rhai")),
    ("checks/migrations", include_str!("../../scripts/checks/migrations.rhai")),
    ("deploy", include_str!("../../scripts/deploy.rhai")),
    ("doctor", include_str!("../../scripts/doctor.rhai")),
    ("merge-check", include_str!("../../scripts/merge-check.rhai")),
    ("postmortem", include_str!("../../scripts/postmortem.rhai")),
    ("restore", include_str!("../../scripts/restore.rhai")),
    ("rollback", include_str!("../../scripts/rollback.rhai")),
    ("troubleshoot", include_str!("../../scripts/troubleshoot.rhai")),
];

/// Names of those that are words at the prompt.
pub fn words() -> impl Iterator<Item = &'static str> {
    SCRIPTS.iter().map(|(name, _)| *name).filter(|name| !name.contains('/'))
}

/// The script of that name, with its text.
pub fn find(name: &str) -> Option<(&'static str, &'static str)> {
    SCRIPTS.iter().copied().find(|(known, _)| *known == name)
}

/// What runs where nothing is at this path.
pub fn in_place_of(path: &Path) -> Option<(&'static str, &'static str)> {
    named(path).filter(|_| !path.exists())
}

/// Fails with `usage` for a file that has the name of a built-in script and that somebody else could have written: a
/// runbook says that name in any folder.
pub fn refuse_strangers(path: &Path) -> Result<()> {
    if named(path).is_some() && path.exists() { trusted(path) } else { Ok(()) }
}

/// Fails with `usage` for a script that is found by its name and that somebody else could have written.
pub fn trusted(path: &Path) -> Result<()> {
    trust::judge(path, None).map_err(|fact| {
        let full = std::path::absolute(path).unwrap_or_else(|_| path.into());
        Error::new(
            Kind::Usage,
            format!("script {} was not run", path.display()),
            format!("it was found by its name, and {fact}"),
        )
        .next(format!("opsh {} …     run that file, if you know who wrote it", full.display()))
    })
}

/// The script that this path is, in a folder where they are kept: `scripts/rollback.rhai`.
fn named(path: &Path) -> Option<(&'static str, &'static str)> {
    let path = path.strip_prefix(".").unwrap_or(path);
    let name = path.strip_prefix("scripts").ok()?.to_str()?.strip_suffix(".rhai")?;
    find(name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_path_that_is_said_everywhere_names_one() {
        let named = |path: &str| named(Path::new(path)).map(|(name, _)| name);
        assert_eq!(
            (named("scripts/rollback.rhai"), named("./scripts/checks/disk.rhai")),
            (Some("rollback"), Some("checks/disk"))
        );
        for other in
            ["rollback.rhai", "scripts/rollback", "scripts/x/rollback.rhai", "/scripts/rollback.rhai", "scripts/x.rhai"]
        {
            assert_eq!(named(other), None, "{other}");
        }
    }
}
