//! The environment of services: what the files say, what the containers run with, and what applies the one to the other.

use super::lab::Lab;
use super::opsh::Opsh;
use serde_json::{Value, json};

const ENV: &str = "/opt/vrcshift/.env.prod";

fn drift(opsh: &Opsh<'_>) -> Vec<(String, String)> {
    let rows = opsh.eval("stack(\"prod\").env_drift()");
    let text = |value: &Value| value.as_str().unwrap().to_string();
    rows.as_array().unwrap().iter().map(|row| (text(&row["name"]), text(&row["state"]))).collect()
}

#[test]
fn a_changed_env_file_is_seen_is_not_applied_by_a_restart_and_is_by_a_recreate() {
    let Some(lab) = Lab::take() else { return };
    lab.have("GOOD");
    let opsh = Opsh::new(&lab);
    assert_eq!(drift(&opsh), []);
    let _env = lab.afterwards(&format!(
        "cp {ENV}.was {ENV}; rm {ENV}.was; cd /opt/vrcshift; docker-compose -f docker-compose.prod.yml --env-file .env.prod up -d"
    ));
    lab.sh(&format!("cp {ENV} {ENV}.was; sed -i 's/^LOG_LEVEL=.*//' {ENV}; echo 'LOG_LEVEL=de$bug' >>{ENV}"));
    assert_eq!(drift(&opsh), [("LOG_LEVEL".to_string(), "differs".to_string())]);

    let restart = opsh.run(&["--yes", "-e", "stack(\"prod\").restart(\"backend\", 5)"]).exits(0);
    let said =
        "a restart does not apply what changed in the files: LOG_LEVEL; stack(\"prod\").recreate(\"backend\") does";
    assert!(restart.err.contains(said), "{}", restart.err);
    assert_eq!(drift(&opsh).len(), 1);

    opsh.run(&["--yes", "-e", "stack(\"prod\").recreate(\"backend\")"]).exits(0);
    assert_eq!(drift(&opsh), []);
    let quiet = opsh.run(&["--yes", "-e", "stack(\"prod\").restart(\"backend\", 5)"]).exits(0);
    assert!(!quiet.err.contains("warning"), "{}", quiet.err);
}

#[test]
fn the_variables_that_a_release_needs_are_named_and_one_that_is_not_set_stops_it() {
    let Some(lab) = Lab::take() else { return };
    let (good, opsh) = (lab.have("GOOD"), Opsh::new(&lab));
    let needs = opsh.eval(&format!("stack(\"prod\").env_needs(\"{}\")", good.commit));
    let of = |name: &str| needs.as_array().unwrap().iter().find(|row| row["name"] == name).unwrap().clone();
    assert_eq!(of("JWT_SECRET"), json!({ "name": "JWT_SECRET", "required": true, "fallback": false, "set": true }));
    assert_eq!(of("MIGRATE_SLEEP_MS")["set"], false);

    let _tag =
        lab.afterwards("git -C /opt/vrcshift tag -d needs-a-key; git -C /srv/git/vrcshift.git tag -d needs-a-key");
    lab.sh(
        "cd /opt/vrcshift; export GIT_INDEX_FILE=/tmp/index; git read-tree HEAD; \
         { git show HEAD:docker-compose.prod.yml | sed 's/^      JWT_SECRET:/      NEW_KEY: ${NEW_KEY:?NEW_KEY is required}\\n&/'; } >/tmp/file; \
         git update-index --cacheinfo 100644,$(git hash-object -w /tmp/file),docker-compose.prod.yml; \
         export GIT_AUTHOR_NAME=a GIT_AUTHOR_EMAIL=a GIT_COMMITTER_NAME=a GIT_COMMITTER_EMAIL=a; \
         git tag needs-a-key $(git commit-tree -m x -p HEAD $(git write-tree)); git push -q origin needs-a-key; rm /tmp/index /tmp/file",
    );
    let before = lab.state();
    opsh.run(&["--yes", "scripts/deploy.rhai", "needs-a-key"])
        .exits(1)
        .explains(&["needs NEW_KEY, which the env file does not have"]);
    assert_eq!(lab.state(), before);
    let missing = format!("stack(\"prod\").env_needs(\"{}\")", "0".repeat(40));
    opsh.run(&["-e", &missing]).exits(1).explains(&["has no file docker-compose.prod.yml"]);
}
