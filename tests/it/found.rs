//! Files that nobody named: an `opsh.toml` above the working directory, a script and a module beside it. Root makes them
//! another user's; who is not root can still make them writable by others.

use super::home::{Home, Ran};
use super::skip::skip;
use std::os::unix::fs::{PermissionsExt, chown, symlink};
use std::path::Path;

/// A user and a group that are nobody here.
const STRANGER: u32 = 54_321;

/// A configuration whose host would run a program for its password.
const CONFIG: &str = "[host.web]\nssh = \"root@127.0.0.1\"\nport = 1\npassword = \"cmd:touch ran\"\n";

/// True when this test may give files away.
fn is_root() -> bool {
    // A file that was just made belongs to who runs the test.
    let home = Home::new();
    std::os::unix::fs::MetadataExt::uid(&std::fs::metadata(home.0.path()).unwrap()) == 0
}

fn mode(path: &Path, mode: u32) {
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode)).unwrap();
}

/// A folder with an `opsh.toml`, and a folder two below it to start from.
fn found() -> Home {
    let home = Home::new();
    std::fs::create_dir_all(home.path("above/a/b")).unwrap();
    home.put("above/opsh.toml", CONFIG);
    home
}

/// Asks for what the configuration names, from two folders below it.
fn start(home: &Home, words: &[&str]) -> Ran {
    let words: Vec<&str> = words.iter().copied().chain(["-e", "print(host(\"web\").name)"]).collect();
    Ran::of(home.command(&words).current_dir(home.path("above/a/b")).output().unwrap())
}

#[track_caller]
fn obeyed(home: &Home) {
    assert!(start(home, &[]).exits(0).out.contains("web"));
}

/// It is not read, and the error has the fact and the line that names the file.
#[track_caller]
fn refused(home: &Home, fact: &str) {
    let ran = start(home, &[]).exits(2);
    assert!(ran.err.contains("was found and is not used") && ran.err.contains(fact), "{}", ran.err);
    assert!(ran.err.contains("opsh --config /"), "{}", ran.err);
    let config = home.path("above/opsh.toml").display().to_string();
    assert!(start(home, &["--config", &config]).exits(0).out.contains("web"), "who names it decides");
    assert!(!home.path("above/a/b/ran").exists() && !home.path("above/ran").exists(), "nothing ran");
}

#[test]
fn ones_own_configuration_is_found_upwards() {
    let home = found();
    obeyed(&home);
    mode(&home.path("above"), 0o1777);
    obeyed(&home);
}

#[test]
fn a_configuration_that_others_can_write_is_not_used() {
    let home = found();
    mode(&home.path("above/opsh.toml"), 0o666);
    refused(&home, "can be written by everybody (mode 666");
    mode(&home.path("above/opsh.toml"), 0o644);
    obeyed(&home);
    mode(&home.path("above"), 0o777);
    refused(&home, "above can be written by everybody (mode 777");
}

#[test]
fn a_configuration_in_a_folder_that_can_be_moved_is_not_used() {
    let home = found();
    std::fs::create_dir(home.path("open")).unwrap();
    std::fs::rename(home.path("above"), home.path("open/above")).unwrap();
    symlink("open/above", home.path("above")).unwrap();
    mode(&home.path("open"), 0o777);
    refused(&home, "open can be written by everybody");
}

#[test]
fn a_strangers_configuration_is_not_used() {
    if !is_root() {
        return skip("only root gives files to another user");
    }
    let home = found();
    chown(home.path("above/opsh.toml"), Some(STRANGER), None).unwrap();
    refused(&home, "belongs to user 54321 (mode 644)");
    // In a sticky folder everybody may put a file; whose it is decides.
    mode(&home.path("above"), 0o1777);
    refused(&home, "opsh.toml belongs to user 54321");
    chown(home.path("above/opsh.toml"), Some(0), None).unwrap();
    obeyed(&home);
    mode(&home.path("above"), 0o755);
    chown(home.path("above"), Some(STRANGER), None).unwrap();
    refused(&home, "above belongs to user 54321");
}

#[test]
fn a_configuration_of_a_shared_group_is_not_used() {
    if !is_root() {
        return skip("only root gives files to another user");
    }
    let home = found();
    chown(home.path("above/opsh.toml"), None, Some(STRANGER)).unwrap();
    obeyed(&home);
    mode(&home.path("above/opsh.toml"), 0o664);
    refused(&home, "can be written by group 54321 (mode 664");
    chown(home.path("above/opsh.toml"), None, Some(0)).unwrap();
    obeyed(&home);
}

#[test]
fn a_link_to_a_configuration_is_judged_with_its_target() {
    let home = found();
    std::fs::create_dir(home.path("kept")).unwrap();
    std::fs::rename(home.path("above/opsh.toml"), home.path("kept/real.toml")).unwrap();
    symlink("../kept/real.toml", home.path("above/opsh.toml")).unwrap();
    obeyed(&home);
    mode(&home.path("kept"), 0o777);
    refused(&home, "kept can be written by everybody");
    mode(&home.path("kept"), 0o755);
    if is_root() {
        std::os::unix::fs::lchown(home.path("above/opsh.toml"), Some(STRANGER), None).unwrap();
        refused(&home, "opsh.toml belongs to user 54321");
    }
}

#[test]
fn a_link_that_leads_nowhere_does_not_hide_the_configuration_above() {
    let home = found();
    symlink("/nowhere/opsh.toml", home.path("above/a/opsh.toml")).unwrap();
    let ran = start(&home, &[]).exits(2);
    assert!(ran.err.contains("above/a/opsh.toml was found and is not used"), "{}", ran.err);
}

#[test]
fn a_strangers_script_does_not_stand_for_a_built_in_one() {
    let home = Home::new();
    std::fs::create_dir(home.path("scripts")).unwrap();
    let path =
        home.put("scripts/doctor.rhai", "//! Mine.\n//!\n//! usage: opsh scripts/doctor.rhai\nprint(\"it ran\");\n");
    assert!(home.run(&["scripts/doctor.rhai"]).exits(0).out.contains("it ran"));
    mode(&home.path("scripts"), 0o777);
    for typed in ["scripts/doctor.rhai", "./scripts/doctor.rhai"] {
        let ran = home.run(&[typed]).exits(2);
        assert!(!ran.out.contains("it ran") && ran.err.contains("can be written by everybody"), "{}", ran.err);
        assert!(ran.err.contains(&format!("opsh {}", home.0.path().display())), "{}", ran.err);
    }
    assert!(home.run(&[&path]).exits(0).out.contains("it ran"), "who names it decides");
    let typed = home.put("lines", "doctor\n");
    let ran = home.run(&["--typed", &typed]);
    assert!(!ran.out.contains("it ran") && ran.err.contains("can be written by everybody"), "{ran:?}");
}

#[test]
fn a_module_that_others_can_write_is_not_imported() {
    let home = Home::new();
    let script = home.put(
        "own.rhai",
        "//! Mine.\n//!\n//! usage: opsh own.rhai\nimport \"words\" as words;\nprint(words::said());\n",
    );
    home.put("words.rhai", "fn said() { \"it ran\" }\n");
    assert!(home.run(&[&script]).exits(0).out.contains("it ran"));
    mode(&home.path("words.rhai"), 0o666);
    let ran = home.run(&[&script]);
    assert!(ran.code != Some(0) && !ran.out.contains("it ran"), "{ran:?}");
    assert!(ran.err.contains("words.rhai can be written by everybody"), "{}", ran.err);
}

#[test]
fn a_standard_module_is_not_shadowed_by_a_file() {
    let home = Home::new();
    std::fs::create_dir(home.path("std")).unwrap();
    home.put("std/text.rhai", "fn short(commit) { \"it ran\" }\n");
    let code = "import \"std/text\" as text; print(text::short(\"0123456789abcdef0123\"))";
    assert!(!home.run(&["-e", code]).exits(0).out.contains("it ran"));
}
