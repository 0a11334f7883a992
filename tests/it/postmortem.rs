//! Postmortems of real runs on this machine: what is filled in, what a person wrote in it, and the files and the journal
//! that the script reads.

use super::home::{Home, Ran};
use std::os::unix::fs::PermissionsExt;

const SCRIPT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/scripts/postmortem.rhai");

/// Looks, a change that is said twice, one that fails, one with an inverse.
const WORK: &str = r#"
let h = host("local");
h.read(["ls", "/"]);
h.run(["touch", "DIR/made"], #{ undo: `host("local").run(["rm", "DIR/made"])` });
for n in 0..2 { h.run(["true"]); }
try { h.read(["cat", "/there/is/none"]); } catch {}
try { h.run(["sh", "-c", "echo '# | <b>`x`</b> @channel'; exit 3"]); } catch {}
"#;

/// A home in Tokyo in which `code` ran as `s.rhai`.
fn after(code: &str) -> Home {
    let home = Home::new();
    home.put("opsh.toml", "[screen]\ntimezone = \"Asia/Tokyo\"\n");
    work(&home, code);
    home
}

fn work(home: &Home, code: &str) {
    home.put("s.rhai", &code.replace("DIR", &home.0.path().display().to_string()));
    alice(home, &["--yes", "s.rhai"]).exits(0);
}

fn alice(home: &Home, words: &[&str]) -> Ran {
    home.run_with(words, "USER", "alice")
}

/// Runs the script with these words, agreed to beforehand.
fn postmortem(home: &Home, words: &[&str]) -> Ran {
    alice(home, &[&["--yes", SCRIPT], words].concat())
}

fn text(home: &Home, name: &str) -> String {
    std::fs::read_to_string(home.path(name)).unwrap()
}

/// What a person reads of it, with a word for everything that another run has otherwise.
fn plain(home: &Home, name: &str) -> String {
    let text = text(home, name).replace(&home.0.path().display().to_string(), "DIR");
    let (text, _) = text.split_once("<!-- opsh").unwrap();
    let mut text = text.to_string();
    for (pattern, word) in [
        (r"\d{8}-\d{6}-\w{4}", "RUN"),
        (r"\[\w{4} #", "[RUN #"),
        (r"#\d+", "#N"),
        (r"- \d{4}-\d\d-\d\d (\d\d:\d\d)", "- $1"),
        (r"\d{4}-\d\d-\d\d", "DATE"),
        (r"\d\d:\d\d(–\d\d:\d\d)?", "HH:MM"),
        (r"\d+\.\d (秒|s)", "N $1"),
    ] {
        text = regex::Regex::new(pattern).unwrap().replace_all(&text, word).into_owned();
    }
    text
}

const GOLDEN: &str = r"# インシデント報告: [要記入: タイトル]

**日時**: DATE HH:MM - HH:MM JST（要確認: 最初と最後の記録からの案） [RUN #N–#N]
**影響範囲**: [要記入: 影響を受けたサービス/ユーザー数]
**重大度**: [要記入: Critical / High / Medium / Low]

## タイムライン

- [要記入: HH:MM] - 障害検知
- HH:MM - 対応者Aが s.rhai を開始 [RUN #N]
- HH:MM - 調査: 1 回の確認（host.read） [RUN #N…]
- HH:MM - 変更: host.run（local） touch DIR/made: 成功 [RUN #N]
- HH:MM - 変更: host.run（local） true: 成功 ×2 [RUN #N–#N]
- HH:MM - 確認に失敗: host.read（local）: exit code 1: cat: /there/is/none: No such file or directory [RUN #N]
- HH:MM - 変更: host.run（local） SHELL [RUN #N]
- HH:MM - 実行の終了: 成功 [RUN #N]
- [要記入: HH:MM] - 原因特定

## 根本原因

[要記入: 原因の詳細説明]
- 候補（記録にある事実）: 変更: host.run（local） SHELL [RUN #N]

## 対応内容

- 実行 RUN: s.rhai（対応者A）: 成功 [RUN #N]
- 変更: host.run（local） touch DIR/made: 成功、N 秒 [RUN #N]
- 変更: host.run（local） true: 成功 ×2、N 秒 [RUN #N–#N]
- 変更: host.run（local） SHELL、N 秒 [RUN #N]

## 再発防止策

- [ ] [要記入: アクションアイテム1]
- [ ] [要記入: アクションアイテム2]

## 教訓

[要記入: 今後に活かすべき学び]

";

/// What the hostile change and its failure are as Markdown.
const SHELL: &str = r"sh -c 'echo '\\''\# \| &lt;b&gt;\`x\`&lt;/b&gt; ＠channel'\\''; exit 3': 失敗: exit code 3: \# \| &lt;b&gt;\`x\`&lt;/b&gt; ＠channel";

#[test]
fn the_journal_fills_the_template_and_the_rest_is_marked_for_a_person() {
    let home = after(WORK);
    postmortem(&home, &["last", "--out", "p.md"])
        .exits(0)
        .prints("p.md is written: 9 place(s) are left for a person\n");
    assert_eq!(plain(&home, "p.md"), GOLDEN.replace("SHELL", SHELL));
}

#[test]
fn in_english_it_tells_the_same_records() {
    let home = after(WORK);
    postmortem(&home, &["last", "--out", "ja.md"]).exits(0);
    postmortem(&home, &["last", "--out", "en.md", "--lang", "en", "--title", "A <b>test</b>", "--names"]).exits(0);
    let (ja, en) = (text(&home, "ja.md"), text(&home, "en.md"));
    let marks = |text: &str| -> Vec<String> {
        let (text, _) = text.split_once("<!-- opsh").unwrap();
        text.lines()
            .filter_map(|line| Some(line.rsplit_once(" [")?.1.to_string()))
            .filter(|mark| mark.contains('#'))
            .collect()
    };
    assert_eq!(marks(&ja), marks(&en));
    for part in ["# Incident report: A &lt;b&gt;test&lt;/b&gt;\n", "- **", "alice began s.rhai"] {
        assert_eq!(en.contains(part), part != "- **", "{part}: {en}");
    }
    // Each record that is named can be looked up.
    let run = marks(&en)[0].split(' ').next().unwrap().to_string();
    let shown = home.run(&["journal", "show", &run, "--all"]).exits(0).out;
    for mark in marks(&en) {
        let number = mark.split(['#', '…', '–', ']']).nth(1).unwrap().to_string();
        assert!(shown.lines().any(|line| line.starts_with(&format!("#{number} "))), "{mark}: {shown}");
    }
}

#[test]
fn what_a_person_wrote_stays_and_undo_brings_the_text_before_back() {
    let home = after(WORK);
    postmortem(&home, &["last", "--out", "p.md"]).exits(0);
    let again = postmortem(&home, &["last", "--out", "p.md"]).exits(0);
    assert_eq!(again.out, "p.md is as it would be written: nothing to do\n");
    assert!(!home.records().iter().any(|record| record["kind"] == "effect.begin"), "{:?}", home.records());

    let by_hand = text(&home, "p.md")
        .replace("[要記入: Critical / High / Medium / Low]", "High")
        .replace("- [ ] [要記入: アクションアイテム1]", "- [x] 監視を足す")
        .replace("- [要記入: HH:MM] - 原因特定", "- 10:00 - 分かった\n\n### 図\n\n| a | b |\n|---|---|");
    std::fs::write(home.path("p.md"), &by_hand).unwrap();
    std::fs::set_permissions(home.path("p.md"), std::fs::Permissions::from_mode(0o640)).unwrap();
    let first = super::undo::runs(&home).iter().find(|run| run["what"] == "s.rhai").unwrap()["run"].clone();
    work(&home, "host(\"local\").run([\"touch\", \"DIR/second\"]);");
    let renewed = postmortem(&home, &[first.as_str().unwrap(), "last", "--out", "p.md"]).exits(0);
    assert!(renewed.out.starts_with("p.md is written, with what people wrote in it: "), "{}", renewed.out);
    let text_now = text(&home, "p.md");
    for line in by_hand.split("<!-- opsh").next().unwrap().lines().filter(|line| !line.starts_with("**日時**")) {
        assert!(text_now.lines().any(|other| other == line), "{line}\n{text_now}");
    }
    assert!(text_now.contains("touch") && text_now.matches("が s.rhai を開始").count() == 2, "{text_now}");
    assert_eq!(std::fs::metadata(home.path("p.md")).unwrap().permissions().mode() & 0o777, 0o640);

    alice(&home, &["undo", "last", "--yes"]).exits(0);
    assert_eq!(text(&home, "p.md"), by_hand);
    let last = super::undo::runs(&home)[0]["run"].as_str().unwrap().to_string();
    alice(&home, &["undo", &last, "--yes"]).exits(0);
    assert_eq!(text(&home, "p.md"), text_now, "an undo can be undone");
    home.whole_records();
}

#[test]
fn a_file_that_is_no_postmortem_is_left_alone() {
    let home = after(WORK);
    home.put("notes.md", "# Notes\n\nmine\n");
    postmortem(&home, &["last", "--out", "notes.md"]).exits(1).says(&["notes.md is not renewed, and stays as it is"]);
    assert_eq!(text(&home, "notes.md"), "# Notes\n\nmine\n");
    std::fs::create_dir(home.path("folder.md")).unwrap();
    postmortem(&home, &["last", "--out", "folder.md"]).exits(1).says(&["no plain file"]);
    std::fs::write(home.path("latin.md"), b"# \xe4\n").unwrap();
    postmortem(&home, &["last", "--out", "latin.md"]).exits(1).says(&["no UTF-8 text"]);
    postmortem(&home, &["last", "--lang", "fr"]).exits(2).says(&["--lang is ja or en, not fr"]);
    postmortem(&home, &["zzzz"]).exits(1).says(&["no run \"zzzz\""]);
    postmortem(&Home::new(), &["last"]).exits(1).says(&["the journal has no run that it could be of"]);
}

#[test]
fn observed_planned_refused_or_where_nothing_can_be_written_nothing_is_written() {
    let home = after(WORK);
    alice(&home, &["--observe", SCRIPT, "last", "--out", "p.md"]).exits(3).says(&["only observes"]);
    alice(&home, &[SCRIPT, "last", "--out", "p.md"]).exits(3).says(&["--yes was not given"]);
    let plan = alice(&home, &["--plan", SCRIPT, "last", "--out", "p.md"]).exits(0);
    assert!(plan.err.contains("would: ") && plan.err.contains("undo: file::put_back("), "{}", plan.err);
    assert!(plan.out.starts_with("# インシデント報告: "), "{}", plan.out);
    assert!(!home.path("p.md").exists());
    postmortem(&home, &["last", "--out", "none/p.md"]).exits(1).says(&["there is no folder"]);
    let closed = postmortem(&home, &["last", "--out", "/sys/p.md"]).exits(1);
    assert!(closed.err.contains("/sys/p.md cannot be written"), "{}", closed.err);
    home.whole_records();
}

#[test]
fn a_change_cut_short_may_have_happened_and_an_undo_is_told_with_its_run() {
    let home = after(WORK);
    let put =
        "let h = host(\"local\"); h.run([\"true\"], #{ undo: `host(\"local\").run([\"touch\", \"DIR/back\"])` });";
    work(&home, put);
    alice(&home, &["undo", "last", "--yes"]).exits(0);
    let undone = super::undo::runs(&home)[1]["run"].as_str().unwrap().to_string();
    postmortem(&home, &[&undone, "--out", "undone.md", "--lang", "en"]).exits(0);
    assert!(text(&home, "undone.md").contains("true: done, undone by "), "{}", text(&home, "undone.md"));

    home.put("s.rhai", "host(\"local\").run([\"true\"]);");
    let killed = home.run_with(&["--yes", "s.rhai"], "OPSH_TEST_KILL", "performed:1");
    assert_eq!(killed.signal, Some(9), "{killed:?}");
    postmortem(&home, &["last", "--out", "ja.md"]).exits(0);
    postmortem(&home, &["last", "--out", "en.md", "--lang", "en"]).exits(0);
    assert!(text(&home, "ja.md").contains("true: 結果不明: 実行された可能性がある ["), "{}", text(&home, "ja.md"));
    assert!(text(&home, "en.md").contains("true: OUTCOME UNKNOWN: it may have happened ["), "{}", text(&home, "en.md"));
    let run = super::undo::runs(&home).iter().find(|run| run["unknown"] == 1).unwrap()["run"].clone();
    home.run(&["journal", "settle", run.as_str().unwrap(), "it was not"]).exits(0);
    postmortem(&home, &["last", "--out", "ja.md"]).exits(0);
    assert!(text(&home, "ja.md").contains("人の確認: it was not ["), "{}", text(&home, "ja.md"));
}

#[test]
fn notes_of_a_sitting_are_lines_whatever_is_written_in_them() {
    let home = after(WORK);
    home.put("lines", ":note <script>alert(1)</script> | `x` [a](b) @channel \u{202e}txt.exe\nnow()\n");
    alice(&home, &["--typed", "lines"]).exits(0);
    let sitting = super::undo::runs(&home).iter().find(|run| run["what"] == "prompt").unwrap()["run"].clone();
    postmortem(&home, &[sitting.as_str().unwrap(), "--out", "p.md"]).exits(0);
    let line = r"メモ: &lt;script&gt;alert(1)&lt;/script&gt; \| \`x\` \[a\](b) ＠channel txt.exe [";
    assert!(text(&home, "p.md").contains(line), "{}", text(&home, "p.md"));
}

#[test]
fn no_secret_reaches_the_file() {
    let home = after(WORK);
    let secret = "canary-Zk4pQ0vXw7Lm";
    home.put("opsh.toml", "[host.far]\nssh = \"root@127.0.0.1\"\npassword = \"env:FAR_PASSWORD\"\n");
    home.put("s.rhai", &format!("host(\"local\").run([\"sh\", \"-c\", \"echo {secret}; exit 1\"]);"));
    let with = |words: &[&str]| home.run_with(words, "FAR_PASSWORD", secret);
    with(&["--yes", "s.rhai"]);
    with(&["--yes", SCRIPT, "last", "--out", "p.md"]).exits(0);
    assert!(!text(&home, "p.md").contains(secret));
    let refused = with(&["--yes", SCRIPT, "last", "--out", "q.md", "--title", secret]).exits(2);
    assert!(
        refused.err.contains("line 1 of the text holds a secret") && !home.path("q.md").exists(),
        "{}",
        refused.err
    );
    // What a person wrote there is theirs; only there is no undo then, and that is said beforehand.
    let by_hand = text(&home, "p.md").replace("[要記入: 原因の詳細説明]", &format!("it was {secret}"));
    std::fs::write(home.path("p.md"), &by_hand).unwrap();
    let plan = with(&["--plan", SCRIPT, "last", "--out", "p.md", "--lang", "en"]).exits(0);
    assert!(!plan.err.contains("undo:"), "{}", plan.err);
    with(&["--yes", SCRIPT, "last", "--out", "p.md", "--lang", "en"]).exits(0);
    assert!(text(&home, "p.md").contains(&format!("it was {secret}")), "{}", text(&home, "p.md"));
    let everything: String = home.all_records().iter().map(ToString::to_string).collect();
    assert!(!everything.contains(secret));
}

#[test]
fn the_hour_that_comes_twice_says_which_of_both_it_is() {
    let home = Home::new();
    home.put("opsh.toml", "[screen]\ntimezone = \"Europe/Berlin\"\n");
    let code = r#"
import "std/postmortem" as postmortem;
let note = |seq, at| #{ seq: seq, at: `2026-10-${at}Z`, kind: "note", effect: (), target: (), class: (), body: #{ text: `n${seq}` } };
let run = #{
    run: "20261025-000000-aaaa", short: "aaaa", at: "2026-10-25T00:31:00Z", actor: "alice", what: "x", mode: "apply",
    outcome: "ok", changes: 0, unknown: 0, looks: [],
    records: [note.call(1, "25T00:31:00"), note.call(2, "25T01:31:00"), note.call(3, "25T01:40:00")],
};
print(postmortem::text_of(postmortem::document([run], #{ lang: "en", title: "", names: false })));
"#;
    let script = home.put("s.rhai", code);
    home.run(&[&script]).exits(0).shows(&[
        "2026-10-25 02:31 CEST - 02:40 CET",
        "- 02:31 - note: n1",
        "- 02:31 CET - note: n2",
        "- 02:40 - note: n3",
    ]);
}
