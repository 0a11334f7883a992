//! Environments and core files of opsh's processes hold no secret of opsh.toml.

use super::home::Home;

#[test]
fn no_process_of_opsh_keeps_a_secret_variable() {
    let home = Home::new();
    home.put("opsh.toml", "[host.h]\nssh = \"nobody@127.0.0.1\"\npassword = \"env:OPSH_IT_GONE\"\n");
    let looks = "for file in /proc/[0-9]*/environ; do \
                   tr '\\0' '\\n' <\"$file\" 2>/dev/null | grep -q \"^OPSH_IT_$1=.\" && echo \"in $file\"; \
                 done; echo \"core $(ulimit -c) $(ulimit -Hc)\"";
    let line = |name: &str| format!("host(\"local\").sh({looks:?}, [\"{name}\"])");
    let run = |name: &str| {
        let mut command = home.command(&["--yes", "--json", "-e", &line(name)]);
        command.env("OPSH_IT_GONE", "a-value-that-is-gone").env("OPSH_IT_STAYS", "x");
        super::home::Ran::of(command.output().unwrap()).exits(0).out
    };
    assert!(run("STAYS").contains("in /proc/"), "the look finds what is there");
    let out = run("GONE");
    assert!(!out.contains("in /proc/") && out.contains("core 0 0"), "{out}");
}
