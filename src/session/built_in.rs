//! Scripts that are there wherever opsh is: `opsh doctor`, and words at the prompt.

/// Their names.
pub const NAMES: &[&str] =
    &["backup", "deploy", "doctor", "merge-check", "postmortem", "restore", "rollback", "troubleshoot"];

/// The script of that name, with its text.
pub fn find(name: &str) -> Option<(&'static str, &'static str)> {
    let text = match name {
        "backup" => include_str!("../../scripts/backup.rhai"),
        "deploy" => include_str!("../../scripts/deploy.rhai"),
        "doctor" => include_str!("../../scripts/doctor.rhai"),
        "merge-check" => include_str!("../../scripts/merge-check.rhai"),
        "postmortem" => include_str!("../../scripts/postmortem.rhai"),
        "restore" => include_str!("../../scripts/restore.rhai"),
        "rollback" => include_str!("../../scripts/rollback.rhai"),
        "troubleshoot" => include_str!("../../scripts/troubleshoot.rhai"),
        _ => return None,
    };
    NAMES.iter().find(|known| **known == name).map(|name| (*name, text))
}

#[cfg(test)]
mod tests {
    #[test]
    fn every_name_has_its_script() {
        assert!(super::NAMES.iter().all(|name| super::find(name).is_some()));
    }
}
