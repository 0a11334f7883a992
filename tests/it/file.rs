//! Text files of this machine as verbs: read, put in place whole, and put back.

use super::home::{Home, Ran};
use std::os::unix::fs::{MetadataExt, PermissionsExt, chown};
use std::os::unix::process::CommandExt;
use std::path::Path;

/// The user and the group of whom `nobody` is.
const NOBODY: u32 = 65534;

fn is_root() -> bool {
    // SAFETY: it has no arguments and cannot fail.
    unsafe { libc::geteuid() == 0 }
}

fn set_mode(path: &Path, mode: u32) {
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode)).unwrap();
}

fn mode(path: &Path) -> u32 {
    std::fs::metadata(path).unwrap().permissions().mode() & 0o777
}

#[test]
fn a_file_is_written_whole_or_not_at_all() {
    let home = Home::new();
    let run = |code: &str| home.run(&["--yes", "-e", code]);
    run(
        "file::write(\"n\", \"one\\n\", #{ expect: \"none\" }); print(file::read(\"n\").text + file::read(\"n\").bytes)",
    )
    .exits(0)
    .prints("one\n4\n");
    assert_eq!(mode(&home.path("n")), 0o644);
    run("file::write(\"n\", \"two\", #{ expect: \"none\" })").exits(1).says(&["somebody changed it since it was read"]);
    run("print(file::write(\"n\", \"one\\n\").changed)").exits(0).prints("false\n");
    run("file::write(\"n\", \"x\".to_upper() + \"\"); print(file::read(\"none\") == ())").exits(0).prints("true\n");
    std::os::unix::fs::symlink(home.path("n"), home.path("link")).unwrap();
    run("file::write(\"link\", \"two\")").exits(1).says(&["it is a link to ", "name that file"]);
    set_mode(&home.path("n"), 0o444);
    run("file::write(\"n\", \"two\")").exits(1).says(&["the file is read-only"]);
    run("let t = \"x\"; t.pad(200000, 'x'); file::write(\"n\", t)").exits(2).says(&["the text has 200000 bytes"]);
    run("file::write(\"\", \"x\")").exits(2).says(&["the path is no path of a file"]);
    run("file::write(\"/dev/null\", \"x\")").exits(1).says(&["no plain file"]);
    run("file::put_back(\"n\", \"0123\", \"20261124-061743-k3f9.1\")")
        .exits(1)
        .says(&["no look 20261124-061743-k3f9.1"]);
    assert_eq!(std::fs::read_to_string(home.path("n")).unwrap(), "X");
    let names: Vec<_> = std::fs::read_dir(home.0.path()).unwrap().flatten().map(|entry| entry.file_name()).collect();
    assert!(!names.iter().any(|name| name.to_string_lossy().starts_with(".opsh-")), "{names:?}");
    home.whole_records();
}

#[test]
fn a_file_is_put_in_place_with_no_program_to_be_found_and_undone_from_another_folder() {
    let home = Home::new();
    home.run_with(&["--yes", "-e", "file::write(\"n\", \"one\")"], "PATH", "/nowhere").exits(0);
    let other = home.path("other");
    std::fs::create_dir(&other).unwrap();
    let undone = home.command(&["--yes", "undo", "last"]).current_dir(&other).env("PATH", "/nowhere").output().unwrap();
    Ran::of(undone).exits(0);
    assert!(!home.path("n").exists(), "there was none before");
    // What somebody changed since is theirs.
    home.run(&["--yes", "-e", "file::write(\"n\", \"one\")"]).exits(0);
    home.put("n", "mine");
    home.run(&["--yes", "undo", "last"]).exits(1).says(&["something else is there now"]);
    assert_eq!(std::fs::read_to_string(home.path("n")).unwrap(), "mine");
}

#[test]
fn a_file_keeps_its_owner_group_and_mode_and_other_names_of_it_are_refused() {
    let home = Home::new();
    let path = home.path("n");
    home.put("n", "one");
    let owner =
        if is_root() { (NOBODY, NOBODY) } else { (path.metadata().unwrap().uid(), path.metadata().unwrap().gid()) };
    chown(&path, Some(owner.0), Some(owner.1)).unwrap();
    set_mode(&path, 0o640);
    let same = |home: &Home| {
        let about = home.path("n").metadata().unwrap();
        assert_eq!((about.uid(), about.gid(), about.mode() & 0o777), (owner.0, owner.1, 0o640));
    };
    home.run(&["--yes", "-e", "file::write(\"n\", \"two\")"]).exits(0);
    same(&home);
    home.run(&["--yes", "undo", "last"]).exits(0);
    same(&home);
    std::fs::hard_link(&path, home.path("other")).unwrap();
    home.run(&["--yes", "-e", "file::write(\"n\", \"two\")"]).exits(1).says(&["more than one name (hard links)"]);
    assert_eq!(std::fs::read_to_string(&path).unwrap(), "one");
}

#[test]
fn what_could_not_be_left_as_it_was_is_denied_before_anything_happens() {
    // Only root can make files that another user may not leave to their owner.
    if !is_root() {
        return;
    }
    let home = Home::new();
    chown(home.0.path(), Some(NOBODY), Some(NOBODY)).unwrap();
    let run = |code: &str| {
        let mut command = home.command(&["--yes", "-e", code]);
        Ran::of(command.uid(NOBODY).gid(NOBODY).output().unwrap())
    };
    home.put("n", "one");
    set_mode(&home.path("n"), 0o666);
    run("file::write(\"n\", \"two\")").exits(1).says(&["it could not be left to user 0 and group 0"]);
    assert_eq!(std::fs::read_to_string(home.path("n")).unwrap(), "one");
    // A folder in which files may be made and that may not be read could not be synced afterwards.
    std::fs::create_dir(home.path("d")).unwrap();
    chown(home.path("d"), Some(NOBODY), Some(NOBODY)).unwrap();
    set_mode(&home.path("d"), 0o300);
    run("file::write(\"d/n\", \"two\")").exits(1).says(&["d/n cannot be written", "Permission denied"]);
    assert_eq!(std::fs::read_dir(home.path("d")).unwrap().count(), 0);
}

#[test]
fn what_is_put_back_is_for_no_more_people_than_it_was() {
    let home = Home::new();
    home.run(&["--yes", "-e", "file::write(\"n\", \"one\")"]).exits(0);
    set_mode(&home.path("n"), 0o600);
    home.run(&["--yes", "undo", "last"]).exits(0);
    assert!(!home.path("n").exists());
    let undone = super::undo::runs(&home)[0]["run"].as_str().unwrap().to_string();
    home.run(&["--yes", "undo", &undone]).exits(0);
    assert_eq!(std::fs::read_to_string(home.path("n")).unwrap(), "one");
    assert_eq!(mode(&home.path("n")), 0o600);
    // Nor is the old text shown to those who came to be allowed the new one.
    home.run(&["--yes", "-e", "file::write(\"n\", \"two\")"]).exits(0);
    set_mode(&home.path("n"), 0o644);
    home.run(&["--yes", "undo", "last"]).exits(0);
    assert_eq!(mode(&home.path("n")), 0o600);
}

/// Runs `code` twice at once, and gives what the two print, as numbers.
fn race(home: &Home, code: &str) -> (i64, i64) {
    let both = [(); 2].map(|()| home.command(&["--yes", "-e", code]).spawn().unwrap());
    let [one, two] = both.map(|child| Ran::of(child.wait_with_output().unwrap()).exits(0).out.trim().parse().unwrap());
    (one, two)
}

#[test]
fn of_two_that_make_a_file_at_once_one_does() {
    let home = Home::new();
    std::fs::create_dir(home.path("race")).unwrap();
    // Each writes a text of its own: the same text again changes nothing, and is no failure.
    let code = "let won = 0; let who = file::read(\"/proc/self/stat\").text; for n in 0..60 {
        try { file::write(`race/${n}`, who, #{ expect: \"none\" }); won += 1; } catch {}
    } print(won);";
    let (one, two) = race(&home, code);
    assert_eq!(one + two, 60, "{one} and {two}");
    let names: Vec<_> =
        std::fs::read_dir(home.path("race")).unwrap().flatten().map(|entry| entry.file_name()).collect();
    assert_eq!(names.len(), 60, "{names:?}");
}

#[test]
fn of_two_that_add_to_a_file_at_once_neither_loses_what_the_other_wrote() {
    let home = Home::new();
    home.put("n", "");
    let code = "let won = 0; for n in 0..100 { let old = file::read(\"n\");
        try { file::write(\"n\", old.text + \"x\", #{ expect: old.sha256 }); won += 1; } catch {}
    } print(won);";
    let (one, two) = race(&home, code);
    assert_eq!(home.path("n").metadata().unwrap().len() as i64, one + two, "{one} and {two}");
}

#[test]
fn a_folder_that_stays_locked_is_not_written_to() {
    let home = Home::new();
    std::fs::create_dir(home.path("d")).unwrap();
    let folder = std::fs::File::open(home.path("d")).unwrap();
    folder.lock().unwrap();
    let code = "file::write(\"d/n\", \"one\")";
    home.run(&["--yes", "-e", code]).exits(1).says(&["another program has locked the folder"]);
    assert!(!home.path("d/n").exists());
    drop(folder);
    home.run(&["--yes", "-e", code]).exits(0);
}
