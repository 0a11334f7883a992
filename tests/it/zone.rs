//! Times on the screen are in the zone of opsh.toml; values are not.

use crate::home::Home;

const TOKYO: &str = "[screen]\ntimezone = \"Asia/Tokyo\"\n";

#[test]
fn times_are_shown_in_the_zone_of_the_configuration_and_values_are_not() {
    let home = Home::new();
    home.put("opsh.toml", TOKYO);
    let code = "#{ at: \"2026-11-24T17:00:05Z\", age_s: 7200, size_bytes: 2048 }";
    home.run(&["-e", code])
        .exits(0)
        .prints("at          2026-11-25 02:00:05 JST\nage_s       2 h\nsize_bytes  2.0 KiB\n");
    let values = home.run(&["--json", "-e", code]).exits(0).json_lines();
    assert_eq!(values[0]["at"], "2026-11-24T17:00:05Z");
    assert_eq!((&values[0]["age_s"], &values[0]["size_bytes"]), (&7200.into(), &2048.into()));
    home.run(&["-e", "local_time(\"2026-11-24T17:00:05Z\")"]).exits(0).prints("2026-11-25 02:00 JST\n");
    home.run(&["-e", "local_time(\"some time\")"]).exits(0).prints("some time\n");
    for words in [["journal", "list"], ["journal", "show"], ["runs", "9"]] {
        let words = if words[1] == "show" { vec!["journal", "show", "last"] } else { words.to_vec() };
        let ran = home.run(&words).exits(0);
        assert!(ran.out.contains(" JST  "), "{}", ran.out);
    }
    assert!(home.records()[0]["at"].as_str().unwrap().ends_with('Z'));
}

#[test]
fn without_one_it_is_that_of_the_machine() {
    let home = Home::new();
    let ran = home.run_with(&["-e", "local_time(\"2026-07-24T17:00:05Z\")"], "TZ", "Europe/Berlin");
    ran.exits(0).prints("2026-07-24 19:00 CEST\n");
}

#[test]
fn a_zone_that_is_none_is_refused_and_the_record_is_shown_all_the_same() {
    let home = Home::new();
    home.put("opsh.toml", "[screen]\ntimezone = \"Tokyo\"\n");
    let ran = home.run(&["-e", "1"]).exits(2);
    assert!(ran.err.contains("screen.timezone is not valid") && ran.err.contains("\"Asia/Tokyo\""), "{}", ran.err);
    home.run(&["runs"]).exits(0).prints("no runs yet\n");
}
