//! The checks against a server that is well, and against one that is not.

use super::lab::{Lab, ROOT};
use super::opsh::Opsh;

fn check(opsh: &Opsh<'_>, words: &str, code: i32, said: &[&str]) {
    let script = format!("{ROOT}/scripts/checks/{words}");
    let words: Vec<&str> = std::iter::once("--observe").chain(script.split(' ')).collect();
    opsh.run(&words).exits(code).prints(said);
}

#[test]
fn a_check_is_ok_on_a_good_server_and_finds_what_is_wrong_on_a_bad_one() {
    let Some(lab) = Lab::take() else { return };
    lab.have("GOOD");
    let opsh = Opsh::new(&lab);
    let (before, ledger) = (lab.state(), lab.release("GOOD").ledger);
    let newest = ledger.last().expect("it has migrations");
    check(&opsh, "containers.rhai", 0, &["CONTAINERS OK: 2 of 2 run | 'running'=2;;;0;2 'backend restarts'=0c"]);
    check(&opsh, "disk.rhai --warn 1: --crit 0:", 0, &["DISK OK: /opt/vrcshift ", "'/opt/vrcshift inodes'="]);
    let well = format!("MIGRATIONS OK: {} applied, {newest} is the newest, none pending", ledger.len());
    check(&opsh, "migrations.rhai", 0, &[&well]);
    assert_eq!(lab.state(), before);

    check(&opsh, "disk.rhai --warn 100: --crit 0:", 1, &["DISK WARNING: /opt/vrcshift has ", " % of its bytes free; "]);
    lab.sql(&format!("DELETE FROM schema_migrations WHERE version = {newest}"));
    let _clean = lab.afterwards(&format!(
        "docker start vrc-shift-backend; docker exec vrc-shift-db psql -Xq -U vrcshift -d vrcshift -c \
         'INSERT INTO schema_migrations (version) VALUES ({newest}) ON CONFLICT DO NOTHING'"
    ));
    let unrecorded = newest.to_string();
    let said = [
        "MIGRATIONS CRITICAL: the schema contradicts the ledger: ",
        &unrecorded,
        "\nWARNING: the running image has migrations",
    ];
    check(&opsh, "migrations.rhai", 2, &said);
    lab.sh("docker stop vrc-shift-backend");
    check(
        &opsh,
        "containers.rhai",
        2,
        &["CONTAINERS CRITICAL: backend does not run: exited, exit code ", "'running'=1"],
    );
}
