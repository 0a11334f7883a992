//! What a release is: the files the image was built from. Nothing of it comes from the environment, so
//! the same image is the same release whatever the work tree beside it says.

use std::collections::BTreeMap;
use std::path::Path;

const APP: &str = "/app";

pub struct Release {
    pub version: String,
    settings: BTreeMap<String, String>,
}

impl Release {
    pub fn read() -> Release {
        let version = text("VERSION").trim().to_string();
        let settings = text("app.conf")
            .lines()
            .filter(|l| !l.trim_start().starts_with('#'))
            .filter_map(|l| l.split_once('='))
            .map(|(k, v)| (k.trim().to_string(), v.trim().to_string()))
            .collect();
        Release { version: if version.is_empty() { "unknown".into() } else { version }, settings }
    }

    pub fn setting<'a>(&'a self, key: &str, default: &'a str) -> &'a str {
        self.settings.get(key).map_or(default, String::as_str)
    }
}

fn text(file: &str) -> String {
    std::fs::read_to_string(Path::new(APP).join(file)).unwrap_or_default()
}
