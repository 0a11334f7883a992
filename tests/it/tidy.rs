//! The architecture, read from the syntax trees of `src/`: layers, homes, and the few things that exist once.

mod cuts;

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
    (
        &["sources", "redact", "interrupt", "memory", "shield"],
        "facts that anybody may need: texts, secrets, Ctrl-C, memory, panics",
    ),
    (
        &["error", "whole"],
        "the one error type, which everything throws, and files that are whole, which know nothing else",
    ),
];

/// Layers that may name only these paths, although more stands right of them.
const NARROW: &[(&str, &[&str], &str)] = &[
    (
        "main",
        &["bind::ssh::askpass", "cli::main", "redact::seal_process"],
        "ssh runs the program as its askpass helper; memory with secrets is sealed before anything is read",
    ),
    (
        "cli",
        &[
            "bind::host",
            "bind::secret",
            "bind::ssh::HostKey",
            "config",
            "error",
            "gate::Grants",
            "gate::clock",
            "gate::journal",
            "gate::policy::Mode",
            "gate::replay::FailAt",
            "redact",
            "screen",
            "session",
            "shell",
            "shield",
            "sources",
            "whole",
        ],
        "it starts a session; besides, it lists verbs, shows the journal, checks a secret and adopts host keys, which are no scripts",
    ),
    (
        "shell",
        &["error", "redact::clean", "screen::head", "screen::size", "session", "whole"],
        "it hands lines to a session, shows the mode, keeps a history without secrets, and fits its lists to the terminal",
    ),
    (
        "bind",
        &["config", "error", "gate", "memory", "redact", "shield", "sources", "whole"],
        "a binding returns values: what is shown, and when, is the gate's and the engine's",
    ),
    ("gate", &["error", "interrupt", "redact", "screen", "whole"], "it decides about verbs, not about systems"),
];

/// A crate that touches the world, or is large enough to leak into everything, is named in these places only. `a/b`
/// is the file `a/b.rs` with the folder `a/b/`; `a/*` is the files directly in `a/`.
const HOMES: &[(&str, &[&str], &str)] = &[
    ("aho_corasick", &["redact"], "finding what is secret"),
    ("base64", &["bind/docker/image", "redact"], "encodings of what is secret, and the Engine's word on a file"),
    ("clap", &["cli"], "the command line"),
    ("comfy_table", &["screen"], "tables"),
    ("futures_util", &["bind/docker"], "the Engine's streams"),
    ("http_body_util", &["bind/docker/transport", "bind/http/client"], "HTTP"),
    ("hyper", &["bind/docker/image", "bind/docker/transport", "bind/http/client"], "HTTP"),
    ("hyper_util", &["bind/docker/transport", "bind/http/client"], "HTTP"),
    (
        "jiff",
        &["gate/clock", "bind/docker", "screen"],
        "time: the clock is the gate's, the Engine's stamps are parsed, the zone is shown",
    ),
    (
        "libc",
        &[
            "bind/secret",
            "bind/ssh",
            "config/trust",
            "gate/clock",
            "gate/fault",
            "gate/journal",
            "redact",
            "screen",
            "whole",
        ],
        "what std lacks",
    ),
    ("openssh", &["bind/ssh"], "ssh"),
    ("regex", &["redact"], "shapes of what is secret"),
    ("rhai", &["bind", "bind/*", "engine", "session"], "the language: the gate, ssh and the Engine do not know it"),
    ("rusqlite", &["gate/journal"], "the journal's database"),
    ("rustls_native_certs", &["bind/http/client"], "the system's certificates"),
    ("rustyline", &["shell/editor"], "the line editor"),
    ("serde_yaml_ng", &["bind/compose"], "compose's configuration"),
    ("similar", &["cli/test"], "what a case shows and what it is to show"),
    ("sqlparser", &["bind/migrate"], "what a migration does"),
    ("strsim", &["error"], "the name that was meant"),
    ("tar", &["bind/docker/image"], "files of an image"),
    ("tempfile", &["cli/demo", "cli/test"], "a folder of its own for a test, and for the demo"),
    (
        "tokio",
        &[
            "bind/*",
            "bind/docker",
            "bind/http",
            "bind/lock",
            "bind/secret",
            "bind/ssh",
            "gate/pass",
            "gate/wait",
            "gate/wave",
            "interrupt",
        ],
        "waiting",
    ),
    ("tokio_rustls", &["bind/http/client"], "TLS"),
    ("toml", &["config"], "opsh.toml"),
    ("tower_service", &["bind/docker/transport"], "the Engine's transport"),
    // The standard library's ways to the world.
    (
        "std::env",
        &["bind/secret", "bind/ssh", "cli", "gate/fault", "gate/journal", "screen", "session/undo"],
        "settings",
    ),
    (
        "std::fs",
        &[
            "bind/file",
            "bind/ssh",
            "cli/*",
            "cli/test",
            "config",
            "engine/modules",
            "gate/clock",
            "gate/journal",
            "session",
            "sources",
            "whole",
        ],
        "files that are opsh's own: scripts, cases, configuration, secrets, journal, known hosts; those that scripts name",
    ),
    ("std::net", &["bind/ssh", "config/address", "session/lint/text"], "connections; whether a text is an address"),
    ("std::os::unix::net", &["bind/ssh"], "sockets"),
    ("std::process::Stdio", &["bind/secret", "bind/ssh", "cli/test"], "processes; a test is an opsh of its own"),
    ("std::process::exit", &["gate/wait"], "the third Ctrl-C; every other end returns from main"),
    (
        "std::thread",
        &["gate/journal", "gate/wait", "cli"],
        "the engine's thread, the I/O thread, a journal that is busy",
    ),
    ("tokio::net", &["bind/docker/transport", "bind/http/client", "bind/ssh"], "connections"),
    ("tokio::process", &["bind/secret", "bind/ssh"], "processes; the command that prints a secret"),
    ("tokio::runtime::Builder", &["gate/wait"], "the one runtime"),
    ("tokio::signal", &["gate/wait"], "Ctrl-C"),
];

/// Crates that only compute: anybody may name them.
const PURE: &[&str] = &["getrandom", "shlex", "serde", "serde_json", "sha2", "core", "alloc", "std"];

const LONGEST_FILE: usize = 700;

/// One source file, and what was read from its syntax tree.
#[derive(Default)]
struct File {
    /// `bind/ssh/link`, without `.rs`.
    name: String,
    text: String,
    names: Vec<Name>,
    calls: Vec<Call>,
    /// Lines of `unsafe`.
    unsafes: Vec<usize>,
    /// Attributes as text.
    attributes: Vec<(usize, String)>,
}

/// A path as written, made absolute: `crate::gate::Pass`, `rhai::Engine`.
#[derive(Debug)]
struct Name {
    path: String,
    line: usize,
    test: bool,
}

/// A method or macro that is called, with the method whose result it is called on.
#[derive(Debug)]
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
    fn product(&self) -> impl Iterator<Item = &Name> {
        self.names.iter().filter(|name| !name.test)
    }

    fn is_in(&self, homes: &[&str]) -> bool {
        homes.iter().any(|home| match home.strip_suffix("/*") {
            Some(folder) => self.name.rsplit_once('/').is_some_and(|(parent, _)| parent == folder),
            None => is_below(&self.name, home, "/"),
        })
    }
}

/// `a/b/c` is below `a/b`, and `a/bc` is not.
fn is_below(name: &str, base: &str, between: &str) -> bool {
    name.strip_prefix(base).is_some_and(|rest| rest.is_empty() || rest.starts_with(between))
}

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// Every file that `main.rs` and `lib.rs` reach through `mod`.
fn files() -> &'static [File] {
    static FILES: std::sync::OnceLock<Vec<File>> = std::sync::OnceLock::new();
    FILES.get_or_init(|| {
        let mut files = Vec::new();
        for entry in ["main", "lib"] {
            read(entry.into(), false, &mut files);
        }
        files
    })
}

fn read(name: String, test: bool, files: &mut Vec<File>) {
    let path = root().join("src").join(&name).with_extension("rs");
    let text = std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    let syntax = syn::parse_file(&text).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    let module = if name == "lib" || name == "main" { Vec::new() } else { name.split('/').map(String::from).collect() };
    let file = File { name, text, ..File::default() };
    let mut reader = Reader { file, module, test, children: Vec::new(), imports: BTreeMap::new() };
    reader.visit_file(&syntax);
    let Reader { file, children, .. } = reader;
    files.push(file);
    for (child, test) in children {
        read(child, test, files);
    }
}

/// Crates that a path may begin with: the dependencies and the standard library.
fn crates() -> &'static BTreeSet<String> {
    static CRATES: std::sync::OnceLock<BTreeSet<String>> = std::sync::OnceLock::new();
    CRATES.get_or_init(|| {
        let manifest: toml::Table = std::fs::read_to_string(root().join("Cargo.toml")).unwrap().parse().unwrap();
        let named = |table: &str| manifest[table].as_table().unwrap().keys().cloned().collect::<Vec<_>>();
        let ours = named("dependencies").into_iter().chain(named("dev-dependencies"));
        ours.map(|name| name.replace('-', "_")).chain(["std", "core", "alloc"].map(String::from)).collect()
    })
}

struct Reader {
    file: File,
    module: Vec<String>,
    test: bool,
    /// Modules in files of their own.
    children: Vec<(String, bool)>,
    /// What a `use` made of a name: `bind` is `crate::bind`.
    imports: BTreeMap<String, Vec<String>>,
}

impl Reader {
    /// `super::x`, `crate::x` and `x` after `use crate::…::x` become `crate::…`, names of crates stay; what is local
    /// is left out.
    fn name(&mut self, segments: &[String], line: usize) {
        if let Some(import) = self.imports.get(&segments[0]).filter(|import| import.as_slice() != segments) {
            let path = [import, &segments[1..]].concat().join("::");
            return self.file.names.push(Name { path, line, test: self.test });
        }
        let mut module = self.module.clone();
        let mut rest = segments;
        match rest[0].as_str() {
            "crate" => (module, rest) = (Vec::new(), &rest[1..]),
            "opsh" => (module, rest) = (Vec::new(), &rest[1..]),
            "self" => rest = &rest[1..],
            "super" => {
                while rest.first().is_some_and(|segment| segment == "super") {
                    module.pop();
                    rest = &rest[1..];
                }
            }
            first if crates().contains(first) => {
                let path = segments.join("::");
                return self.file.names.push(Name { path, line, test: self.test });
            }
            _ => return,
        }
        let path = std::iter::once("crate").chain(module.iter().chain(rest).map(String::as_str));
        let path = path.collect::<Vec<_>>().join("::");
        self.file.names.push(Name { path, line, test: self.test });
    }

    fn import(&mut self, segments: &[String], line: usize, alias: Option<&syn::Ident>) {
        let seen = self.file.names.len();
        self.name(segments, line);
        let local = alias.map(ToString::to_string).or_else(|| segments.last().cloned());
        if let (Some(name), Some(local)) = (self.file.names.get(seen), local) {
            self.imports.insert(local, name.path.split("::").map(String::from).collect());
        }
    }

    fn tree(&mut self, tree: &syn::UseTree, before: &[String]) {
        let with = |ident: &syn::Ident| [before, &[ident.to_string()]].concat();
        match tree {
            syn::UseTree::Path(path) => self.tree(&path.tree, &with(&path.ident)),
            syn::UseTree::Group(group) => group.items.iter().for_each(|item| self.tree(item, before)),
            syn::UseTree::Name(name) if name.ident == "self" => self.import(before, name.span().start().line, None),
            syn::UseTree::Name(name) => self.import(&with(&name.ident), name.span().start().line, None),
            syn::UseTree::Rename(name) => {
                self.import(&with(&name.ident), name.span().start().line, Some(&name.rename));
            }
            syn::UseTree::Glob(glob) => self.name(before, glob.span().start().line),
        }
    }

    /// What a macro is given is not parsed: every `a::b` in it counts as a path, every `.name(` as a call.
    fn tokens(&mut self, tokens: TokenStream) {
        let tokens: Vec<TokenTree> = tokens.into_iter().collect();
        let punct =
            |at: usize, wanted: char| matches!(tokens.get(at), Some(TokenTree::Punct(p)) if p.as_char() == wanted);
        let mut at = 0;
        while at < tokens.len() {
            match &tokens[at] {
                TokenTree::Group(group) => self.tokens(group.stream()),
                TokenTree::Ident(ident) if ident == "unsafe" => self.file.unsafes.push(ident.span().start().line),
                TokenTree::Ident(ident) => {
                    let line = ident.span().start().line;
                    let called = at > 0 && punct(at - 1, '.') || punct(at + 1, '!');
                    if called {
                        self.call(ident.to_string(), String::new(), line);
                    }
                    let mut segments = vec![ident.to_string()];
                    while punct(at + 1, ':') && punct(at + 2, ':') {
                        let Some(TokenTree::Ident(next)) = tokens.get(at + 3) else { break };
                        segments.push(next.to_string());
                        at += 3;
                    }
                    if segments.len() > 1 {
                        self.name(&segments, line);
                    }
                }
                _ => {}
            }
            at += 1;
        }
    }

    fn call(&mut self, name: String, on: String, line: usize) {
        self.file.calls.push(Call { name, on, line, test: self.test });
    }

    fn within(&mut self, attributes: &[syn::Attribute], visit: impl FnOnce(&mut Reader)) {
        let before = self.test;
        self.test |= attributes.iter().any(is_for_tests);
        visit(self);
        self.test = before;
    }
}

fn is_for_tests(attribute: &syn::Attribute) -> bool {
    let text = tokens_of(attribute);
    text.starts_with("cfg(test") || text == "test" || text.starts_with("tokio::test")
}

/// `cfg(test)`, without the spaces of printed tokens.
fn tokens_of(attribute: &syn::Attribute) -> String {
    match &attribute.meta {
        syn::Meta::Path(path) => segments(path).join("::"),
        syn::Meta::List(list) => format!("{}({})", segments(&list.path).join("::"), list.tokens),
        syn::Meta::NameValue(pair) => segments(&pair.path).join("::"),
    }
}

fn segments(path: &syn::Path) -> Vec<String> {
    path.segments.iter().map(|segment| segment.ident.to_string()).collect()
}

impl<'ast> Visit<'ast> for Reader {
    fn visit_item_use(&mut self, item: &'ast syn::ItemUse) {
        self.within(&item.attrs, |reader| reader.tree(&item.tree, &[]));
    }

    fn visit_item_mod(&mut self, item: &'ast syn::ItemMod) {
        self.within(&item.attrs, |reader| {
            reader.module.push(item.ident.to_string());
            match item.content {
                Some(_) => visit::visit_item_mod(reader, item),
                // A file of the tests, used by a unit test besides.
                None if reader.test && item.attrs.iter().any(|attribute| attribute.path().is_ident("path")) => {}
                None => reader.children.push((reader.module.join("/"), reader.test)),
            }
            reader.module.pop();
        });
    }

    fn visit_item_fn(&mut self, item: &'ast syn::ItemFn) {
        self.within(&item.attrs, |reader| visit::visit_item_fn(reader, item));
    }

    fn visit_impl_item_fn(&mut self, item: &'ast syn::ImplItemFn) {
        self.within(&item.attrs, |reader| visit::visit_impl_item_fn(reader, item));
    }

    fn visit_path(&mut self, path: &'ast syn::Path) {
        let segments = segments(path);
        if segments.len() > 1 {
            self.name(&segments, path.span().start().line);
        }
        visit::visit_path(self, path);
    }

    /// `pub(in super::super)` names no dependency.
    fn visit_vis_restricted(&mut self, _: &'ast syn::VisRestricted) {}

    fn visit_macro(&mut self, call: &'ast syn::Macro) {
        let path = segments(&call.path);
        self.call(path.last().cloned().unwrap_or_default(), String::new(), call.span().start().line);
        self.tokens(call.tokens.clone());
        visit::visit_macro(self, call);
    }

    fn visit_attribute(&mut self, attribute: &'ast syn::Attribute) {
        self.file.attributes.push((attribute.span().start().line, tokens_of(attribute)));
        if let syn::Meta::List(list) = &attribute.meta {
            self.tokens(list.tokens.clone());
        }
        visit::visit_attribute(self, attribute);
    }

    fn visit_expr_method_call(&mut self, call: &'ast syn::ExprMethodCall) {
        let on = match &*call.receiver {
            syn::Expr::MethodCall(inner) => inner.method.to_string(),
            _ => String::new(),
        };
        self.call(call.method.to_string(), on, call.method.span().start().line);
        visit::visit_expr_method_call(self, call);
    }

    fn visit_expr_unsafe(&mut self, block: &'ast syn::ExprUnsafe) {
        self.file.unsafes.push(block.unsafe_token.span.start().line);
        visit::visit_expr_unsafe(self, block);
    }

    fn visit_item_impl(&mut self, item: &'ast syn::ItemImpl) {
        self.file.unsafes.extend(item.unsafety.iter().map(|token| token.span.start().line));
        self.within(&item.attrs, |reader| visit::visit_item_impl(reader, item));
    }

    fn visit_signature(&mut self, signature: &'ast syn::Signature) {
        self.file.unsafes.extend(signature.unsafety.iter().map(|token| token.span.start().line));
        visit::visit_signature(self, signature);
    }
}

fn none(what: &str, found: Vec<String>) {
    assert!(found.is_empty(), "{what}:\n  {}", found.join("\n  "));
}

fn rank(layer: &str) -> Option<usize> {
    LAYERS.iter().position(|(names, _)| names.contains(&layer))
}

/// `gate::Pass` of `crate::gate::Pass`.
fn inside(name: &Name) -> Option<&str> {
    name.path.strip_prefix("crate::")
}

#[test]
fn every_file_of_src_is_part_of_the_program() {
    fn list(dir: &Path, out: &mut BTreeSet<PathBuf>) {
        for entry in std::fs::read_dir(dir).unwrap().flatten() {
            let path = entry.path();
            if path.is_dir() {
                list(&path, out);
            } else if path.extension().is_some_and(|end| end == "rs") {
                out.insert(path);
            }
        }
    }
    let mut there = BTreeSet::new();
    list(&root().join("src"), &mut there);
    let reached: BTreeSet<PathBuf> =
        files().iter().map(|file| root().join("src").join(&file.name).with_extension("rs")).collect();
    assert_eq!(there, reached);
}

#[test]
fn every_file_of_tests_is_part_of_the_test_program() {
    let mut left = Vec::new();
    for (parent, dir) in [("main.rs", "tests/it"), ("live.rs", "tests/it/live")] {
        let text = std::fs::read_to_string(root().join("tests/it").join(parent)).unwrap();
        for entry in std::fs::read_dir(root().join(dir)).unwrap().flatten() {
            let name = entry.file_name().into_string().unwrap();
            let module = name.strip_suffix(".rs").filter(|module| *module != "main");
            let is_there = |module: &str| text.lines().any(|line| line.ends_with(&format!("mod {module};")));
            left.extend(module.filter(|module| !is_there(module)).map(|module| format!("{dir}/{module}.rs")));
        }
    }
    none("in no module", left);
}

#[test]
fn a_layer_names_only_what_stands_right_of_it() {
    let mut wrong = Vec::new();
    for file in files().iter().filter(|file| file.name != "lib") {
        let Some(own) = rank(file.layer()) else { panic!("src/{}.rs is in no layer: say in LAYERS which", file.name) };
        for name in &file.names {
            let Some(layer) = inside(name).and_then(|path| path.split("::").next()) else { continue };
            match rank(layer) {
                Some(other) if layer == file.layer() || other > own => {}
                Some(_) => wrong.push(format!("{} names {}", file.at(name.line), name.path)),
                None => wrong.push(format!("{} names {}, which is in no layer", file.at(name.line), name.path)),
            }
        }
    }
    none("imports go right only (LAYERS)", wrong);
}

#[test]
fn the_narrow_layers_name_only_what_they_need() {
    for (layer, allowed, why) in NARROW {
        let mut wrong = Vec::new();
        let mut used = BTreeSet::new();
        for file in files().iter().filter(|file| file.layer() == *layer) {
            for name in file.product() {
                let Some(path) = inside(name).filter(|path| !is_below(path, layer, "::")) else { continue };
                // An imported module: what is taken from it is seen where it is taken.
                if rank(path).is_some() {
                    continue;
                }
                match allowed.iter().find(|base| is_below(path, base, "::")) {
                    Some(base) => drop(used.insert(*base)),
                    None => wrong.push(format!("{} names {path}", file.at(name.line))),
                }
            }
        }
        none(&format!("{layer}: {why}"), wrong);
        let idle = allowed.iter().filter(|base| !used.contains(*base)).map(|base| base.to_string()).collect();
        none(&format!("{layer} is allowed what it does not need"), idle);
    }
}

#[test]
fn a_binding_does_not_touch_the_screen() {
    let calls = files().iter().filter(|file| file.layer() == "bind").flat_map(|file| {
        let on_screen = file.calls.iter().filter(|call| !call.test && call.on == "screen");
        on_screen.map(move |call| format!("{} {}", file.at(call.line), call.name))
    });
    none("a binding returns values, and asks for a secret through its pass", calls.collect());
}

#[test]
fn a_crate_that_touches_the_world_is_named_at_its_home_only() {
    for (owned, homes, why) in HOMES {
        let mut wrong = Vec::new();
        let mut used: BTreeSet<&str> = BTreeSet::new();
        for file in files() {
            for name in file.product().filter(|name| is_below(&name.path, owned, "::")) {
                if !file.is_in(homes) {
                    wrong.push(format!("{} names {}", file.at(name.line), name.path));
                }
                used.extend(homes.iter().copied().filter(|home| file.is_in(&[home])));
            }
        }
        none(&format!("{owned} ({why}) belongs to {}", homes.join(", ")), wrong);
        let idle = homes.iter().filter(|home| !used.contains(*home)).map(|home| home.to_string()).collect();
        none(&format!("{owned} is not named in all of its homes"), idle);
    }
}

#[test]
fn every_dependency_is_used_and_has_a_home_or_only_computes() {
    let mut named: BTreeMap<&str, String> = BTreeMap::new();
    for file in files() {
        for name in file.product().filter(|name| inside(name).is_none()) {
            named.entry(name.path.split("::").next().unwrap_or("")).or_insert_with(|| file.at(name.line));
        }
    }
    let homeless = named
        .iter()
        .filter(|(name, _)| !PURE.contains(name) && !HOMES.iter().any(|(owned, _, _)| is_below(owned, name, "::")));
    none("in neither HOMES nor PURE", homeless.map(|(name, at)| format!("{name} ({at})")).collect());
    let manifest: toml::Table = std::fs::read_to_string(root().join("Cargo.toml")).unwrap().parse().unwrap();
    let listed = manifest["dependencies"].as_table().unwrap().keys();
    let unused = listed.filter(|name| !named.contains_key(name.replace('-', "_").as_str()));
    none("in Cargo.toml, and named nowhere in src", unused.cloned().collect());
}

#[test]
fn the_readme_tells_the_same_homes() {
    let text = std::fs::read_to_string(root().join("src/README.md")).unwrap();
    let table = text.lines().skip_while(|line| !line.contains("foreign crate")).skip(2);
    let mut told = 0;
    for row in table.take_while(|line| line.starts_with('|')) {
        let cells: Vec<&str> = row.split('|').collect();
        let places: Vec<&str> = row.split('`').skip(1).step_by(2).map(|place| place.trim_end_matches(".rs")).collect();
        let names = cells[3].split('(').next().unwrap_or("").split(',').map(|name| name.trim().replace('-', "_"));
        for name in names.filter(|name| !name.is_empty()) {
            told += 1;
            let owned = HOMES.iter().find(|(owned, _, _)| *owned == name);
            let (_, homes, _) = owned.unwrap_or_else(|| panic!("{name} has no home in HOMES: {row}"));
            let is_told = |home: &&&str| places.iter().any(|place| is_below(home, place.trim_end_matches('/'), "/"));
            let untold: Vec<_> = homes.iter().filter(|home| !is_told(home)).collect();
            assert!(untold.is_empty(), "{name} is at home in {untold:?} too: {row}");
        }
    }
    assert!(told >= 12, "the table of homes was not found: {told}");
}

#[test]
fn there_is_one_place_that_waits() {
    let waits = files().iter().flat_map(|file| {
        let calls = file.calls.iter().filter(|call| call.name == "block_on" && !call.test);
        calls.map(|call| file.at(call.line))
    });
    let waits: Vec<String> = waits.collect();
    assert_eq!(waits.len(), 1, "{waits:?}");
    assert!(waits[0].starts_with("src/gate/wait.rs"), "{waits:?}");
}

#[test]
fn nothing_is_left_to_do_later() {
    // Put together here, so that this file may be searched too.
    let words = [["FIX", "ME"].concat(), ["XX", "X"].concat(), ["TO", "DO"].concat()];
    let mut left = Vec::new();
    for file in files() {
        let lines = file.text.lines().enumerate();
        left.extend(
            lines.filter(|(_, line)| words.iter().any(|word| line.contains(word))).map(|(at, _)| file.at(at + 1)),
        );
        let calls = file.calls.iter().filter(|call| ["todo", "dbg", "unimplemented"].contains(&call.name.as_str()));
        left.extend(calls.map(|call| format!("{} {}!", file.at(call.line), call.name)));
        let ignored = file.attributes.iter().filter(|(_, text)| text.starts_with("ignore"));
        left.extend(ignored.map(|(line, _)| format!("{} #[ignore]", file.at(*line))));
    }
    none("left for later", left);
}

#[test]
fn every_file_says_what_it_owns_and_is_short_enough_to_read() {
    let silent = files().iter().filter(|file| !file.text.starts_with("//! "));
    none("the first line is not //!", silent.map(|file| file.at(1)).collect());
    let long = files().iter().map(|file| (file, file.text.lines().count())).filter(|(_, lines)| *lines > LONGEST_FILE);
    none("longer than 700 lines", long.map(|(file, lines)| file.at(lines)).collect());
}

#[test]
fn every_unsafe_says_above_it_why_it_is_sound() {
    let mut silent = Vec::new();
    let mut seen = 0;
    for file in files() {
        let lines: Vec<&str> = file.text.lines().map(str::trim_start).collect();
        for line in &file.unsafes {
            seen += 1;
            let above = lines[..line - 1].iter().rev().take_while(|line| line.starts_with("//"));
            if !above.into_iter().any(|line| line.starts_with("// SAFETY: ")) {
                silent.push(file.at(*line));
            }
        }
    }
    assert!(seen > 5, "the test sees too little: {seen}");
    none("unsafe without // SAFETY: above it", silent);
}

#[test]
fn a_lint_is_silenced_only_with_a_reason() {
    let mut silent = Vec::new();
    for file in files() {
        let silences =
            |text: &str| text.starts_with("allow(") || text.starts_with("expect(") || text.contains("allow (");
        let without = file.attributes.iter().filter(|(_, text)| silences(text) && !text.contains("reason"));
        silent.extend(without.map(|(line, text)| format!("{} {text}", file.at(*line))));
    }
    none("no reason", silent);
}
