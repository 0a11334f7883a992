//! Every option of ssh_config(5), and who decides about it. What decides whom opsh trusts, what travels beside its
//! channels, or what its words mean, is opsh's, whatever the operator's ssh_config says: ssh takes the first of two
//! values, and those of the command line come first. What says who the operator is and which way leads to a host is the
//! operator's.

use super::Login;
use crate::gate::Pass;
use std::process::Stdio;
use tokio::sync::OnceCell;

/// Party that decides about an option.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Rule {
    /// opsh, always with this value.
    Set(&'static str),
    /// opsh, with a value that follows from the login; see [`of_login`] and `launch.rs`.
    Login,
    /// opsh, by `ClearAllForwardings=yes`: nothing is forwarded, so the option has nothing to say.
    Cleared,
    /// The operator's ssh_config.
    Operator,
}
use Rule::{Cleared, Login as OfLogin, Operator, Set};

/// The functions of ssh that say why a connection ended, and that a host went silent.
const SAID_BELOW: &str = "packet.c:sshpkt_vfatal():*,clientloop.c:server_alive_check():*";

/// Keyword, rule, reason.
pub const TABLE: &[(&str, Rule, &str)] = &[
    // Whose host key is believed.
    ("StrictHostKeyChecking", Set("ask"), "the question carries the fingerprint; opsh answers it by the pin, else no"),
    ("UserKnownHostsFile", OfLogin, "opsh's own list alone says which key a host has"),
    ("GlobalKnownHostsFile", Set("/dev/null"), "as UserKnownHostsFile"),
    ("KnownHostsCommand", Set("none"), "a program would add keys that nobody adopted"),
    ("HostKeyAlias", OfLogin, "a key belongs to the host's name in opsh.toml"),
    ("CheckHostIP", Set("no"), "keys of addresses would contradict the key of the name"),
    ("NoHostAuthenticationForLocalhost", Set("no"), "a forwarded port of this machine is another host"),
    ("VerifyHostKeyDNS", Set("no"), "DNS would vouch for a key that nobody adopted"),
    ("UpdateHostKeys", Set("no"), "a server would write into opsh's list"),
    ("HashKnownHosts", Set("no"), "opsh reads its list by name"),
    ("FingerprintHash", Set("sha256"), "pins and questions are compared in this form"),
    ("VisualHostKey", Set("no"), "the question about a key is read by opsh"),
    ("GSSAPIKeyExchange", Set("no"), "Kerberos would vouch for a host without any host key"),
    ("GSSAPITrustDns", Set("no"), "DNS would choose the name that Kerberos vouches for"),
    ("RevokedHostKeys", Operator, "it only refuses keys"),
    ("CASignatureAlgorithms", Operator, "opsh's list names no authority, so it decides nothing"),
    ("HostKeyAlgorithms", Operator, "an old server may need ssh-rsa; the key itself is compared all the same"),
    // How it travels.
    ("Ciphers", Operator, "an old server may need others"),
    ("MACs", Operator, "an old server may need others"),
    ("KexAlgorithms", Operator, "an old server may need others"),
    ("GSSAPIKexAlgorithms", Operator, "without GSSAPIKeyExchange it decides nothing"),
    ("GSSAPIRenewalForcesRekey", Operator, "it changes no trust"),
    ("RequiredRSASize", Operator, "it only refuses keys"),
    ("WarnWeakCrypto", Operator, "it only warns"),
    ("RekeyLimit", Operator, "it changes no trust"),
    ("Compression", Operator, "a slow line may need it"),
    ("ObscureKeystrokeTiming", Operator, "it concerns keys typed at a terminal"),
    ("AddressFamily", Operator, "the way to the host"),
    ("BindAddress", Operator, "the way to the host"),
    ("BindInterface", Operator, "the way to the host"),
    ("IPQoS", Operator, "the way to the host"),
    ("TCPKeepAlive", Operator, "ServerAliveInterval notices a lost host first"),
    ("ConnectionAttempts", Operator, "the whole login has a limit of its own"),
    ("ConnectTimeout", OfLogin, "a silent host is given up in time"),
    ("ServerAliveInterval", OfLogin, "alive_s in opsh.toml"),
    ("ServerAliveCountMax", OfLogin, "alive_s in opsh.toml"),
    ("Hostname", Operator, "what an alias stands for"),
    ("Port", Operator, "port in opsh.toml comes first"),
    ("User", Operator, "the user in opsh.toml comes first"),
    ("CanonicalizeHostname", Operator, "what a name stands for; its key is kept under opsh's name"),
    ("CanonicalDomains", Operator, "as CanonicalizeHostname"),
    ("CanonicalizeFallbackLocal", Operator, "as CanonicalizeHostname"),
    ("CanonicalizeMaxDots", Operator, "as CanonicalizeHostname"),
    ("CanonicalizePermittedCNAMEs", Operator, "as CanonicalizeHostname"),
    (
        "ProxyJump",
        Operator,
        "which hosts to go through; opsh starts their ssh itself, so that its own list holds there, too",
    ),
    (
        "ProxyCommand",
        Operator,
        "it carries bytes that only the host whose key is known can read; its program is the operator's",
    ),
    ("ProxyUseFdpass", Operator, "it belongs to ProxyCommand; opsh's own jumps set it to no"),
    ("RefuseConnection", Operator, "it only refuses"),
    ("VersionAddendum", Operator, "it only names the client"),
    // Identity of the operator.
    ("IdentityFile", Operator, "identity in opsh.toml comes first"),
    ("IdentitiesOnly", Operator, "with identity in opsh.toml it is yes"),
    ("IdentityAgent", Operator, "where the operator's keys are"),
    ("CertificateFile", Operator, "belongs to the operator's keys"),
    ("PKCS11Provider", Operator, "where the operator's keys are; a library of this machine"),
    ("SecurityKeyProvider", Operator, "where the operator's keys are; a library of this machine"),
    ("PubkeyAuthentication", Operator, "a method that the operator may leave out"),
    ("PubkeyAcceptedAlgorithms", Operator, "an old server may need others"),
    ("PasswordAuthentication", Operator, "a method that the operator may leave out"),
    ("KbdInteractiveAuthentication", Operator, "a method that the operator may leave out"),
    ("KbdInteractiveDevices", Operator, "a hint to the server"),
    ("PreferredAuthentications", Operator, "the order of methods"),
    ("HostbasedAuthentication", Operator, "proves this machine to the server, not the server to opsh"),
    ("HostbasedAcceptedAlgorithms", Operator, "as HostbasedAuthentication"),
    ("EnableSSHKeysign", Operator, "as HostbasedAuthentication"),
    ("GSSAPIAuthentication", Operator, "a method that the operator may leave out"),
    ("GSSAPIClientIdentity", Operator, "who the operator is"),
    ("GSSAPIServerIdentity", Operator, "belongs to GSSAPIAuthentication"),
    ("GSSAPIDelegateCredentials", Set("no"), "the host could act as the operator"),
    ("AddKeysToAgent", Set("no"), "a key that opsh unlocked would stay open behind it"),
    ("BatchMode", Set("no"), "opsh answers the questions"),
    ("NumberOfPasswordPrompts", Set("2"), "the second question proves that the first answer was wrong"),
    // Effects beside opsh's channels.
    ("ClearAllForwardings", Set("yes"), "forwardings in ssh_config are for people"),
    ("LocalForward", Cleared, ""),
    ("RemoteForward", Cleared, ""),
    ("DynamicForward", Cleared, ""),
    ("GatewayPorts", Cleared, ""),
    ("PermitRemoteOpen", Cleared, ""),
    ("StreamLocalBindMask", Cleared, ""),
    ("StreamLocalBindUnlink", Cleared, ""),
    ("ExitOnForwardFailure", Set("no"), "nothing is forwarded"),
    ("ForwardAgent", Set("no"), "the host could act as the operator"),
    ("ForwardX11", Set("no"), "the host could read the operator's screen"),
    ("ForwardX11Trusted", Set("no"), "as ForwardX11"),
    ("ForwardX11Timeout", Operator, "without ForwardX11 it decides nothing"),
    ("XAuthLocation", Operator, "without ForwardX11 it decides nothing"),
    ("Tunnel", Set("no"), "the host would get a network device here"),
    ("TunnelDevice", Operator, "without Tunnel it decides nothing"),
    ("PermitLocalCommand", Set("no"), "a program would run here at each login"),
    ("LocalCommand", Operator, "without PermitLocalCommand it decides nothing"),
    ("RemoteCommand", Set("none"), "opsh says what runs there"),
    ("RequestTTY", Set("no"), "a terminal would change what is read"),
    ("SessionType", Set("none"), "the login itself runs nothing"),
    ("StdinNull", Set("no"), "opsh gives ssh its stdin"),
    ("ForkAfterAuthentication", Set("no"), "opsh ends the ssh that it started"),
    ("ControlMaster", OfLogin, "each login has a socket of its own"),
    ("ControlPath", OfLogin, "each login has a socket of its own"),
    ("ControlPersist", Set("no"), "no login outlives opsh"),
    ("ChannelTimeout", Set("none"), "opsh says when a channel ends"),
    ("EscapeChar", Set("none"), "no byte of data is a command to ssh"),
    ("EnableEscapeCommandline", Set("no"), "as EscapeChar"),
    ("SendEnv", Operator, "what the operator wants to be set there; opsh sends no environment of its own"),
    ("SetEnv", Operator, "what the operator wants to be set there"),
    // Messages of ssh.
    ("LogLevel", Set("ERROR"), "of what ssh says of itself; a server's texts come below it, and are not read"),
    ("LogVerbose", Set(SAID_BELOW), "causes that ssh says below this LogLevel, marked with where they come from"),
    ("SyslogFacility", Operator, "ssh writes to a file of opsh's"),
    // How ssh_config is read: it is the operator's own file, like ~/.profile, and may run programs of theirs.
    ("Host", Operator, "the operator's own file"),
    ("Match", Operator, "the operator's own file"),
    ("Include", Operator, "the operator's own file"),
    ("Tag", Operator, "the operator's own file"),
    ("IgnoreUnknown", Operator, "the operator's own file"),
];

/// For TCP and the server's first word, in seconds; ssh counts it.
const CONNECT_S: u32 = 10;

/// The options that every ssh of a login gets, that to a jump host as well: `KEYWORD=VALUE`.
pub async fn options(pass: &Pass, login: &Login) -> Vec<String> {
    let mut all = of_login(login);
    all.extend(constant(pass).await.iter().cloned());
    all
}

fn of_login(login: &Login) -> Vec<String> {
    let (interval, count) = alive(login.alive_s);
    vec![
        format!("UserKnownHostsFile=\"{}\"", login.known_hosts.display()),
        format!("ConnectTimeout={CONNECT_S}"),
        format!("ServerAliveInterval={interval}"),
        format!("ServerAliveCountMax={count}"),
    ]
}

/// Seconds between signs of life, and how many unanswered ones end a link: three of them in `alive_s`, as far as whole
/// seconds allow.
fn alive(alive_s: u32) -> (u32, u32) {
    let interval = alive_s.div_ceil(3).max(1);
    (interval, (alive_s / interval).max(1))
}

/// The options with constant values that the ssh of this machine knows. One that it does not know it cannot have from
/// the operator's ssh_config either.
async fn constant(pass: &Pass) -> &'static [String] {
    static KNOWN: OnceCell<Vec<String>> = OnceCell::const_new();
    KNOWN.get_or_init(|| known(pass)).await
}

async fn known(_: &Pass) -> Vec<String> {
    let set = TABLE.iter().filter_map(|(keyword, rule, _)| match rule {
        Set(value) => Some(format!("{keyword}={value}")),
        _ => None,
    });
    let mut options: Vec<String> = set.collect();
    // Each turn leaves one out.
    for _ in 0..TABLE.len() {
        let mut command = tokio::process::Command::new("ssh");
        command.args(["-F", "none", "-G"]).args(options.iter().flat_map(|option| ["-o", option])).args(["--", "host"]);
        command.env("LC_ALL", "C.UTF-8").stdin(Stdio::null()).kill_on_drop(true);
        // Without an ssh the login says so.
        let Ok(output) = command.output().await else { break };
        let text = String::from_utf8_lossy(&output.stderr).to_lowercase();
        let unknown = text.lines().find_map(|line| line.split_once("bad configuration option: ").map(|(_, name)| name));
        let Some(unknown) = unknown.filter(|_| !output.status.success()) else { break };
        let before = options.len();
        options.retain(|option| option.split('=').next().is_none_or(|name| !name.eq_ignore_ascii_case(unknown.trim())));
        if options.len() == before {
            break;
        }
    }
    options
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::process::Command;

    fn said(program: &str, words: &[&str]) -> Option<String> {
        let output = Command::new(program).args(words).output().ok()?;
        output.status.success().then(|| String::from_utf8_lossy(&output.stdout).into_owned())
    }

    fn in_table(keyword: &str) -> bool {
        TABLE.iter().any(|(known, ..)| known.eq_ignore_ascii_case(keyword))
    }

    #[test]
    fn every_keyword_of_ssh_config_is_in_the_table() {
        let Some(page) = said("zcat", &["/usr/share/man/man5/ssh_config.5.gz"]) else {
            crate::bind::ssh::tests::skip("no manual page ssh_config(5)");
            return;
        };
        let keywords: Vec<&str> = page.lines().filter_map(|line| line.strip_prefix(".It Cm ")).collect();
        let keywords: Vec<&str> = keywords.into_iter().filter(|word| word.starts_with(char::is_uppercase)).collect();
        assert!(keywords.len() > 80, "{} keywords are on the page", keywords.len());
        let absent: Vec<&&str> = keywords.iter().filter(|word| !in_table(word)).collect();
        assert!(absent.is_empty(), "nobody decided about {absent:?}");
    }

    #[test]
    fn every_option_that_ssh_reports_is_in_the_table() {
        let Some(all) = said("ssh", &["-F", "none", "-G", "--", "host"]) else {
            crate::bind::ssh::tests::skip("no ssh");
            return;
        };
        let absent: Vec<&str> =
            all.lines().filter_map(|line| line.split(' ').next()).filter(|word| !in_table(word)).collect();
        assert!(absent.is_empty(), "nobody decided about {absent:?}");
    }

    #[test]
    fn every_row_has_a_reason_and_stands_once() {
        for (at, (keyword, rule, why)) in TABLE.iter().enumerate() {
            assert!(!why.is_empty() || *rule == Cleared, "{keyword}");
            assert!(TABLE[..at].iter().all(|(other, ..)| !other.eq_ignore_ascii_case(keyword)), "{keyword}");
        }
    }

    #[tokio::test]
    async fn the_operators_file_changes_nothing_that_is_set() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("config");
        let other = "KnownHostsCommand /bin/cat /x\nStrictHostKeyChecking no\nForkAfterAuthentication yes\nForwardAgent yes\n\
                     AddKeysToAgent yes\nPermitLocalCommand yes\nLocalForward 1 h:2\nRemoteForward 3 h:4\nLogLevel QUIET\n\
                     UpdateHostKeys yes\nVerifyHostKeyDNS yes\nNoHostAuthenticationForLocalhost yes\nTunnel yes\n\
                     FingerprintHash md5\nSessionType default\nControlPersist yes\nBatchMode yes\nGSSAPIKeyExchange yes\n\
                     UserKnownHostsFile /evil\nGlobalKnownHostsFile /evil\n";
        std::fs::write(&file, other).unwrap();
        let login = Login::new("web", "web", "/list".into(), "/c".into());
        let options = options(&Pass::for_tests(), &login).await;
        let asked = |extra: &[&str]| {
            let mut words = vec!["-G"];
            words.extend_from_slice(extra);
            words.extend(options.iter().flat_map(|option| ["-o", option.as_str()]));
            words.extend(["--", "web"]);
            said("ssh", &words).unwrap()
        };
        let (without, with) = (asked(&["-F", "none"]), asked(&["-F", file.to_str().unwrap()]));
        let differs: Vec<&str> = with.lines().filter(|line| !without.lines().any(|other| other == *line)).collect();
        // Reported, and cleared before anything is forwarded.
        let differs: Vec<&&str> = differs.iter().filter(|line| !line.contains("forward ")).collect();
        assert!(differs.is_empty(), "{differs:?}");
        assert!(with.contains("clearallforwardings yes") && !with.contains("knownhostscommand"), "{with}");
    }

    #[test]
    fn silence_ends_a_link_within_its_time_and_half_of_it() {
        assert_eq!((alive(2), alive(15), alive(120)), ((1, 2), (5, 3), (40, 3)));
        for alive_s in 2..=120 {
            let (interval, count) = alive(alive_s);
            let noticed = interval * count..=interval * (count + 1);
            let end = *noticed.end();
            assert!(end >= alive_s && end <= alive_s + alive_s.div_ceil(2), "{alive_s}: {noticed:?}");
            assert!(interval * count <= alive_s, "{alive_s}");
        }
    }
}
