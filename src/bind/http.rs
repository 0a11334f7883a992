//! HTTP probes: from here with the time of each phase, and from a stack's host, where the service listens.

mod client;

use super::fleet::Each;
use super::ssh::{Command, Reach};
use super::values::literal;
use super::way::Way;
use super::{Binding, Call, Look, host, stack};
use crate::config::{From, Probe, Stack};
use crate::error::{Error, Kind, Result};
use crate::gate::verb::{Class, Verb};
use crate::gate::{Pass, Target, clock};
use crate::redact;
use rhai::Dynamic;
use serde::Deserialize;
use serde_json::{Value, json};
use std::sync::Arc;
use std::time::{Duration, Instant};

const GET: Verb = Verb {
    name: "http.get",
    class: Class::Read,
    waits: false,
    sig: "http::get(url: string, options?: #{ timeout_ms: int }) -> map",
    doc: "GETs a URL from this machine. Returns `status`, `body` (64 KiB at most), and milliseconds per phase: \
          `dns_ms`, `connect_ms`, `tls_ms`, `first_byte_ms`, `total_ms`. Option: `timeout_ms` (100 to 60000, default \
          10000). Redirects are not followed. Fails with `unreachable` naming the phase, or `timeout`; a status such \
          as 500 is a result, not a failure. Deadline 15 s, or `timeout_ms` + 5 s.",
    example: r#"http::get("http://127.0.0.1:1/", #{ timeout_ms: 500 }).status"#,
};

const HOST_GET: Verb = Verb {
    name: "http.host_get",
    class: Class::Read,
    waits: false,
    sig: "host.http(url: string, options?: #{ timeout_ms: int, partial: bool }) -> map",
    doc: "GETs a URL on the host, with its curl. So it reaches what listens only there. Options, result and failures \
          as `http::get`; `not_found` when the host has no curl. Deadline 15 s, or `timeout_ms` + 5 s. On `hosts(…)` as \
          `host.read`, with its option `partial`.",
    example: r#"host("prod-1").http("http://127.0.0.1:8080/api/v1/shifts").status"#,
};

const PROBE: Verb = Verb {
    name: "http.probe",
    class: Class::Read,
    waits: false,
    sig: "stack.probe() -> array",
    doc: "Asks every probe of the stack once. Each may take 5 s, and its row is `url`, `status` (0 when there was no \
          answer), `expect`, `ok`, `ms`, and `said`, the beginning of the body or the error; of an https probe from here also \
          `certificate_ends` and `certificate_left_s` (negative when it has ended). Fails with `usage` when \
          the stack has no probes; no answer, or a wrong one, is a row. Deadline 60 s.",
    example: r#"stack("prod").probe()"#,
};

const WAIT: Verb = Verb {
    name: "http.wait_healthy",
    class: Class::Read,
    waits: true,
    sig: "stack.wait_healthy(options?: #{ within_s: int, times: int }) -> array",
    doc: "Asks the stack's probes until all are well. Every one must answer as expected `times` times in a row (1 to \
          100, default 3), half a second apart, within `within_s` (1 to 3600, default 60). Returns the last answers \
          as `stack.probe`. Fails with `unmet` and the last answers. Deadline 90 s, or `within_s` + 30 s.",
    example: r#"stack("prod").wait_healthy(#{ within_s: 30 })"#,
};

/// The bindings of this file.
pub const BINDINGS: &[Binding] = &[
    Binding::Read(&GET, get),
    Binding::ReadEach(&HOST_GET, host_get),
    Binding::Read(&PROBE, probe),
    Binding::Read(&WAIT, wait_healthy),
];

/// Bytes of a body that are kept.
const BODY: usize = 64 << 10;

#[derive(Deserialize)]
#[serde(deny_unknown_fields, default)]
struct GetOptions {
    timeout_ms: u64,
}

impl Default for GetOptions {
    fn default() -> GetOptions {
        GetOptions { timeout_ms: 10_000 }
    }
}

fn timeout(call: &Call<'_>, timeout_ms: u64) -> Result<Duration> {
    call.in_range("timeout_ms", timeout_ms, 100..=60_000).map(Duration::from_millis)
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields, default)]
struct HostGetOptions {
    timeout_ms: u64,
    partial: bool,
}

impl Default for HostGetOptions {
    fn default() -> HostGetOptions {
        HostGetOptions { timeout_ms: 10_000, partial: false }
    }
}

fn get(call: &Call<'_>) -> Result<Dynamic> {
    let url = call.text(0)?;
    let timeout = timeout(call, call.options::<GetOptions>(1)?.timeout_ms)?;
    let look = Look::at(Target::here(), url.clone(), json!({ "url": url })).within(timeout.as_secs() + 5);
    let value = call.read(look, url, move |pass, url| async move {
        client::get(&pass, &url, timeout, BODY).await.map(client::Answer::into_json)
    })?;
    Ok(super::map(value))
}

fn host_get(call: &Call<'_>) -> Result<Each<Value>> {
    let url = call.text(0)?;
    let HostGetOptions { timeout_ms, partial } = call.options(1)?;
    let timeout = timeout(call, timeout_ms)?;
    let args = json!({ "url": url });
    let look = |host| Look::at(host, url.clone(), args.clone()).within(timeout.as_secs() + 5);
    call.read_each(partial, look, url.clone(), move |pass, way, url| async move {
        let reach = way.reach(&pass).await?;
        curl(&reach, &pass, way.name(), &url, timeout).await.map(client::Answer::into_json)
    })
}

/// What curl writes after the body; the mark cannot stand in a body by chance.
const WRITE_OUT: &str =
    "\\n%{http_code} %{time_namelookup} %{time_connect} %{time_appconnect} %{time_starttransfer} %{time_total}";

/// Asks with the host's curl. The URL travels on standard input: it may hold a token.
async fn curl(reach: &Reach, pass: &Pass, name: &str, url: &str, timeout: Duration) -> Result<client::Answer> {
    let what = || format!("GET {url} failed on {name}");
    if url.chars().any(|c| c.is_control() || c == '"' || c == '\\' || c == ' ') {
        return Err(Error::new(
            Kind::Usage,
            what(),
            "a URL holds no spaces, quotes, backslashes or control characters",
        ));
    }
    let words: Vec<String> =
        ["curl", "-q", "-sS", "--globoff", "-K", "-"].iter().map(|word| word.to_string()).collect();
    let seconds = timeout.as_secs_f64();
    let config =
        format!("url = \"{url}\"\nmax-time = {seconds}\nproto = \"=http,https\"\nwrite-out = \"{WRITE_OUT}\"\n");
    let command = Command { stdin: config.into_bytes(), keep: BODY, ..host::words_of(words.clone()) };
    let ran = host::finished(name, &words, reach.run(pass, &command).await)?;
    let why = || redact::last_lines(&ran.err, 1);
    match ran.code {
        0 => parse_curl(&ran.out).ok_or_else(|| Error::new(Kind::Failed, what(), "curl's answer was not understood")),
        127 => {
            Err(Error::new(Kind::NotFound, what(), "the host has no curl").next("apt-get install curl     on the host"))
        }
        28 => Err(Error::new(Kind::Timeout, what(), format!("no answer within {seconds} s")).host(name).exit(28)),
        _ => Err(Error::new(Kind::Unreachable, what(), why()).host(name).exit(ran.code.into())),
    }
}

fn parse_curl(out: &str) -> Option<client::Answer> {
    let (body, last) = out.rsplit_once('\n')?;
    let mut fields = last.split(' ');
    let status = fields.next()?.parse().ok()?;
    let ms: Vec<f64> =
        fields.map(|field| field.parse::<f64>().map(|seconds| seconds * 1000.0)).collect::<Result<_, _>>().ok()?;
    let [dns, connect, tls, first, total] = ms.as_slice() else { return None };
    Some(client::Answer {
        status,
        body: body.into(),
        dns_ms: *dns,
        connect_ms: connect - dns,
        tls_ms: if *tls > 0.0 { tls - connect } else { 0.0 },
        first_byte_ms: first - tls.max(*connect),
        total_ms: *total,
    })
}

fn probes(call: &Call<'_>) -> Result<(Arc<Stack>, Way)> {
    let stack = call.stack()?;
    if stack.probe.is_empty() {
        return Err(stack::lacks(&stack, "probe", "probe = [{ url = \"http://127.0.0.1:8080/…\", expect = 200 }]"));
    }
    let way = call.world.way(&stack.host)?;
    Ok((stack, way))
}

fn probe(call: &Call<'_>) -> Result<Dynamic> {
    let (stack, way) = probes(call)?;
    let look = Look::at(call.world.stack_target(&stack), "", json!({}));
    let value = call.read(look, (stack, way), |pass, (stack, way)| async move {
        ask_all(&way.reach(&pass).await?, &pass, &stack).await.map(Value::from)
    })?;
    Ok(super::map(value))
}

/// One row for each probe of the stack.
pub async fn ask_all(reach: &Reach, pass: &Pass, stack: &Stack) -> Result<Vec<Value>> {
    let mut answers = Vec::new();
    for probe in &stack.probe {
        answers.push(ask(reach, pass, stack, probe).await?);
    }
    Ok(answers)
}

/// A row for any answer of the service, also for none; an error when it could not be asked: a lost link says nothing about
/// the service.
async fn ask(reach: &Reach, pass: &Pass, stack: &Stack, probe: &Probe) -> Result<Value> {
    let timeout = Duration::from_secs(5);
    let mut ends = None;
    let answer = match probe.from {
        From::Host => curl(reach, pass, &stack.host, &probe.url, timeout).await,
        From::Here => client::get_seeing(pass, &probe.url, timeout, BODY, &mut ends).await,
    };
    let (status, ms, said) = match answer {
        Ok(answer) => (answer.status, answer.total_ms, answer.body),
        Err(error) if probe.from == From::Host && (error.exit.is_none() || error.kind == Kind::NotFound) => {
            return Err(error);
        }
        Err(error) => (0, 0.0, error.why),
    };
    let said = redact::cut(&said, 200);
    let ms = (ms * 10.0).round() / 10.0;
    let ok = status == probe.expect;
    let mut row =
        json!({ "url": probe.url, "status": status, "expect": probe.expect, "ok": ok, "ms": ms, "said": said });
    if let Some(ends_us) = ends.and_then(|seconds| i64::try_from(seconds).ok()).map(|seconds| seconds * 1_000_000) {
        row["certificate_ends"] = json!(clock::rfc3339(ends_us));
        row["certificate_left_s"] = json!((ends_us - clock::wall_us()) / 1_000_000);
    }
    Ok(row)
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields, default)]
struct WaitOptions {
    within_s: u64,
    times: u32,
}

impl Default for WaitOptions {
    fn default() -> WaitOptions {
        WaitOptions { within_s: 60, times: 3 }
    }
}

fn wait_healthy(call: &Call<'_>) -> Result<Dynamic> {
    let options: WaitOptions = call.options(0)?;
    if !(1..=3600).contains(&options.within_s) || !(1..=100).contains(&options.times) {
        return Err(call.bad("within_s must be 1 to 3600 and times 1 to 100"));
    }
    let (stack, way) = probes(call)?;
    let says = format!("{} probe(s), {} times", stack.probe.len(), options.times);
    let args = json!({ "within_s": options.within_s, "times": options.times });
    let look = Look::at(call.world.stack_target(&stack), says, args).within(options.within_s + 30);
    let context = (stack, way, Arc::new(options));
    let value = call.read(look, context, |pass, (stack, way, options)| async move {
        settle(&way.reach(&pass).await?, &pass, &stack, &options).await
    })?;
    Ok(super::map(value))
}

async fn settle(reach: &Reach, pass: &Pass, stack: &Stack, options: &WaitOptions) -> Result<Value> {
    let began = Instant::now();
    let mut in_a_row = 0;
    loop {
        let answers = ask_all(reach, pass, stack).await?;
        let bad = answers.iter().find(|answer| answer["ok"] != json!(true)).cloned();
        in_a_row = if bad.is_none() { in_a_row + 1 } else { 0 };
        if in_a_row >= options.times {
            return Ok(answers.into());
        }
        if began.elapsed() >= Duration::from_secs(options.within_s) {
            let why = match bad {
                Some(bad) => {
                    let said = bad["said"].as_str().unwrap_or("");
                    format!(
                        "{} answers {} instead of {}: {said}",
                        bad["url"].as_str().unwrap_or(""),
                        bad["status"],
                        bad["expect"]
                    )
                }
                None => format!("it was not healthy {} times in a row", options.times),
            };
            let what = format!("{} is not healthy after {} s", stack.name, options.within_s);
            return Err(
                Error::new(Kind::Unmet, what, why).next(format!("stack({}).ps()     what runs", literal(&stack.name)))
            );
        }
        tokio::time::sleep(Duration::from_millis(500)).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn curls_times_become_phases() {
        let answer =
            parse_curl("line one\nline two\n500 0.001000 0.003000 0.000000 0.010000 0.011000").expect("parsed");
        assert_eq!((answer.status, answer.body.as_str()), (500, "line one\nline two"));
        assert_eq!((answer.dns_ms, answer.connect_ms, answer.tls_ms), (1.0, 2.0, 0.0));
        assert_eq!((answer.first_byte_ms.round(), answer.total_ms), (7.0, 11.0));
        assert!(parse_curl("garbage").is_none());
    }
}
