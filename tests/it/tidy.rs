//! The architecture, read from the syntax trees of `src/`: layers, homes, and the few things that exist once.

use proc_macro2::{TokenStream, TokenTree};
use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use syn::spanned::Spanned;
use syn::visit::{self, Visit};

/// Layers from left to right; a layer names only what stands right of it. Two on one line do not know each other.
const LAYERS: &[(&[&str], &str)] = &[
    (&["main"], "starts the thread that everything runs on"),
    (&["cli"], "flags and exit codes: the only one that knows there is a command line"),
    (&["shell"], "the prompt: one more way to hand text to a session"),
    (&["session"], "the one API of prompt, scripts and tests"),
    (&["engine"], "Rhai as opsh wants it, from the list of bindings"),
    (&["bind"], "verbs: what is known of each system, behind the door"),
    (&["gate"], "the door: it cannot know what it guards, or it could not guard it all"),
    (&["config", "screen"], "what was decided before, and what is shown; neither asks the other"),
    (&["sources", "redact", "interrupt"], "facts that anybody may need: texts, secrets, Ctrl-C"),
    (&["error"], "the one error type: a thing that knows something else could not be thrown everywhere"),
];

/// Layers that may name only these paths, although more stands right of them.
const NARROW: &[(&str, &[&str], &str)] = &[
    ("main", &["bind::ssh::askpass", "cli::main"], "ssh runs the program as its askpass helper"),
    (
        "cli",
        &[
            "bind::all",
            "bind::verb",
            "bind::Binding",
            "bind::host",
            "bind::ssh::HostKey",
            "config",
            "error",
            "gate::Grants",
            "gate::clock",
            "gate::journal",
            "gate::policy::Mode",
            "gate::verb::Verb",
            "screen",
            "session",
            "shell",
            "sources",
        ],
        "it starts a session; besides, it lists verbs, shows the journal and adopts host keys, which are no scripts",
    ),
    ("shell", &["error", "gate::policy::Mode", "session"], "it hands lines to a session and shows the mode"),
    (
        "bind",
        &["config", "error", "gate", "redact", "sources"],
        "a binding returns values: what is shown, and when, is the gate's and the engine's",
    ),
    ("gate", &["error", "interrupt", "redact", "screen"], "it decides about verbs, not about systems"),
];

/// A crate that touches the world, or is large enough to leak into everything, is named in these places only. `a/b`
/// is the file `a/b.rs` with the folder `a/b/`; `a/*` is the files directly in `a/`.
const HOMES: &[(&str, &[&str], &str)] = &[
    ("bollard", &["bind/docker"], "the Docker Engine"),
    ("clap", &["cli"], "the command line"),
    ("comfy_table", &["screen"], "tables"),
    ("futures_util", &["bind/docker"], "the Engine's streams"),
    ("http_body_util", &["bind/docker/transport", "bind/http/client"], "HTTP"),
    ("hyper", &["bind/docker/transport", "bind/docker/wait", "bind/http/client"], "HTTP"),
    ("hyper_util", &["bind/docker/transport", "bind/http/client"], "HTTP"),
    ("jiff", &["gate/clock", "bind/docker"], "time: the clock is the gate's, the Engine's stamps are parsed"),
    ("libc", &["bind/host", "bind/ssh", "gate/clock", "gate/fault", "gate/journal", "screen"], "what std lacks"),
    ("openssh", &["bind/ssh"], "ssh"),
    ("rhai", &["bind", "bind/*", "engine", "session"], "the language: the gate, ssh and the Engine do not know it"),
    ("rusqlite", &["gate/journal"], "the journal's database"),
    ("rustls_native_certs", &["bind/http/client"], "the system's certificates"),
    ("rustyline", &["shell"], "the line editor"),
    ("serde_yaml_ng", &["bind/compose"], "compose's configuration"),
    ("sqlparser", &["bind/migrate"], "what a migration does"),
    ("tar", &["bind/docker/image"], "files of an image"),
    ("tokio", &["bind/*", "bind/docker", "bind/http", "bind/ssh", "gate/wait", "interrupt"], "waiting"),
    ("tokio_rustls", &["bind/http/client"], "TLS"),
    ("toml", &["config"], "opsh.toml"),
    ("tower_service", &["bind/docker/transport"], "bollard's transport"),
    // The standard library's ways to the world.
    ("std::env", &["bind/host", "bind/secret", "bind/ssh", "cli", "gate/fault", "gate/journal", "screen"], "settings"),
    (
        "std::fs",
        &["bind/secret", "bind/ssh", "config", "engine/modules", "gate/clock", "gate/journal", "session"],
        "files that are opsh's own: scripts, configuration, secrets, journal, known hosts",
    ),
    ("std::net", &["bind/ssh"], "connections"),
    ("std::os::unix::net", &["bind/ssh"], "sockets"),
    ("std::process::Command", &["bind/secret", "bind/ssh"], "processes"),
    ("std::process::exit", &["gate/wait"], "the third Ctrl-C; every other end returns from main"),
    ("std::thread", &["gate/wait", "main", "redact", "bind/ssh"], "threads: the engine's and the I/O thread"),
    ("tokio::net", &["bind/docker/transport", "bind/http/client", "bind/ssh"], "connections"),
    ("tokio::process", &["bind/ssh"], "processes"),
    ("tokio::runtime", &["gate/wait"], "the one runtime"),
    ("tokio::signal", &["gate/wait"], "Ctrl-C"),
];

/// Crates that only compute: anybody may name them.
const PURE: &[&str] =
    &["aho_corasick", "base64", "getrandom", "regex", "serde", "serde_json", "sha2", "strsim", "core", "alloc", "std"];

const LONGEST_FILE: usize = 700;

/// One source file, parsed.
struct File {
    /// `bind/ssh/link`, without `.rs`.
    name: String,
    text: String,
    syntax: syn::File,
    /// It is compiled into tests only.
    test: bool,
    names: Vec<Name>,
    calls: Vec<Call>,
    unsafe_lines: Vec<usize>,
}

/// A path as written, made absolute: `crate::gate::Pass`, `rhai::Engine`.
struct Name {
    path: Vec<String>,
    line: usize,
    test: bool,
}

/// A method or macro that is called, and the method its receiver is the result of.
struct Call {
    name: String,
    on: String,
    line: usize,
    test: bool,
}

impl File {
    fn layer(&self) -> &str {
        self.name.split('/').next().unwrap_or("")
    }

    fn at(&self, line: usize) -> String {
        format!("src/{}.rs:{line}", self.name)
    }

    /// What the product names, tests left out.
    fn product_names(&self) -> impl Iterator<Item = &Name> {
        self.names.iter().filter(|name| !name.test)
    }
}

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// Every file that `main.rs` and `lib.rs` reach through `mod`.
fn files() -> &'static [File] {
    static FILES: std::sync::OnceLock<Vec<File>> = std::sync::OnceLock::new();
    // Token spans are not Sync, so only what was read from the trees is kept, beside trees that nobody shares.
    FILES.get_or_init(|| {
        let mut files = Vec::new();
        add_file("main", false, &mut files);
        add_file("lib", false, &mut files);
        files
    })
}

// SAFETY: a syntax tree holds `Rc`s of spans; `files` builds it once, and readers only look at it: none of them clones
// or drops a token, which is what would touch a count.
unsafe impl Sync for File {}
// SAFETY: as above; the value never leaves the `OnceLock` that owns it.
unsafe impl Send for File {}
