//! One screen of a stack: what looks wrong stands first, and a look that fails hides no other.

use super::lab::Lab;
use super::opsh::Opsh;

fn shown(opsh: &Opsh<'_>) -> String {
    opsh.eval("stack(\"prod\").status().screen").as_str().unwrap().to_string()
}

#[test]
fn what_looks_wrong_stands_first_with_what_to_type() {
    let Some(lab) = Lab::take() else { return };
    let good = lab.bring("GOOD");
    let opsh = Opsh::new(&lab);
    let screen = shown(&opsh);
    assert!(screen.starts_with("prod on prod-1: nothing looks wrong\n"), "{screen}");
    let rows = [
        "service   backend  running",
        "api       200 in",
        "schema    4 applied, 0 pending",
        "backup    none",
        "disk      ",
    ];
    for row in rows {
        assert!(screen.lines().any(|line| line.starts_with(row)), "{row}\n{screen}");
    }
    assert!(screen.contains(&good.commit[..12]) && screen.contains(&good.tag), "{screen}");
    assert!(screen.lines().count() <= 24, "{screen}");

    let started = lab.afterwards("docker start vrc-shift-backend");
    lab.exec(&["docker", "kill", "vrc-shift-backend"]);
    let wrong = opsh.eval("stack(\"prod\").status().wrong");
    let wrong: Vec<&str> = wrong.as_array().unwrap().iter().map(|line| line.as_str().unwrap()).collect();
    for line in ["BAD      backend is exited", "BAD      http://127.0.0.1:8080/api/v1/shifts answers 0"] {
        assert!(wrong.iter().any(|shown| shown.starts_with(line)), "{line}\n{wrong:#?}");
    }
    assert!(wrong[0].ends_with("logs backend"), "{wrong:#?}");
    drop(started);
    lab.until("the API answers", 60, "curl -sf http://127.0.0.1:8080/api/v1/shifts");

    // The checkout cannot be asked, and everything else still is.
    let hidden = lab.afterwards("mv /opt/vrcshift/.git.away /opt/vrcshift/.git");
    lab.sh("mv /opt/vrcshift/.git /opt/vrcshift/.git.away");
    let screen = shown(&opsh);
    assert!(screen.lines().any(|line| line.starts_with("UNKNOWN  head: ")), "{screen}");
    assert!(screen.contains("service   backend  running"), "{screen}");
    drop(hidden);
}
