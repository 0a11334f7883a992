//! Text files of this machine as verbs: read, put in place whole, and put back.

use super::home::{Home, Ran};
use std::os::unix::fs::PermissionsExt;

#[test]
fn a_file_is_written_whole_or_not_at_all() {
    let home = Home::new();
    let run = |code: &str| home.run(&["--yes", "-e", code]);
    run(
        "file::write(\"n\", \"one\\n\", #{ expect: \"none\" }); print(file::read(\"n\").text + file::read(\"n\").bytes)",
    )
    .exits(0)
    .prints("one\n4\n");
    assert_eq!(std::fs::metadata(home.path("n")).unwrap().permissions().mode() & 0o777, 0o644);
    run("file::write(\"n\", \"two\", #{ expect: \"none\" })").exits(1).says(&["somebody changed it since it was read"]);
    run("print(file::write(\"n\", \"one\\n\").changed)").exits(0).prints("false\n");
    run("file::write(\"n\", \"x\".to_upper() + \"\"); print(file::read(\"none\") == ())").exits(0).prints("true\n");
    std::os::unix::fs::symlink(home.path("n"), home.path("link")).unwrap();
    run("file::write(\"link\", \"two\")").exits(1).says(&["it is a link to ", "name that file"]);
    std::fs::set_permissions(home.path("n"), std::fs::Permissions::from_mode(0o444)).unwrap();
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
