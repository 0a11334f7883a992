//! Clocks, boot id, process identity and random names: what a record needs to be placed in time. Home of `jiff`.

use jiff::Timestamp;
use jiff::tz::TimeZone;
use std::sync::LazyLock;

/// Wall clock, microseconds since 1970.
#[expect(clippy::disallowed_methods, reason = "the home of the clock")]
pub fn wall_us() -> i64 {
    Timestamp::now().as_microsecond() - set_back_us()
}

#[cfg(debug_assertions)]
fn set_back_us() -> i64 {
    super::fault::clock_back_us()
}

#[cfg(not(debug_assertions))]
fn set_back_us() -> i64 {
    0
}

/// The present for the name of a file: `20261124-061743`.
pub fn stamp() -> String {
    let now = Timestamp::from_microsecond(wall_us()).unwrap_or_default();
    now.strftime("%Y%m%d-%H%M%S").to_string()
}

/// A time that a person names, in microseconds since 1970: an RFC 3339 time, `2026-10-01` (its midnight in this
/// machine's zone), or an age such as `90d` or `12h`.
pub fn parse_before(text: &str) -> Option<i64> {
    if let Ok(at) = text.parse::<Timestamp>() {
        return Some(at.as_microsecond());
    }
    if let Ok(date) = text.parse::<jiff::civil::Date>() {
        return Some(date.to_zoned(TimeZone::system()).ok()?.timestamp().as_microsecond());
    }
    let (unit, hours) = [("d", 24), ("h", 1)].into_iter().find(|(unit, _)| text.ends_with(unit))?;
    let count: i64 = text.strip_suffix(unit)?.parse::<u32>().ok()?.into();
    Some(wall_us() - count * hours * 3_600_000_000)
}

/// Clock that never goes back, microseconds since boot, counting sleep.
pub fn monotonic_us() -> i64 {
    let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: `time` is a valid timespec for the whole call.
    unsafe { libc::clock_gettime(libc::CLOCK_BOOTTIME, &mut time) };
    time.tv_sec * 1_000_000 + time.tv_nsec / 1000
}

/// `2026-11-24T06:17:43.120000Z`.
pub fn rfc3339(at_us: i64) -> String {
    Timestamp::from_microsecond(at_us).map(|at| format!("{at:.6}")).unwrap_or_else(|_| at_us.to_string())
}

/// A new run id, sortable by time: `20261124-061743-k3f9`.
#[expect(clippy::disallowed_methods, reason = "the home of the clock")]
pub fn run_id() -> String {
    const LETTERS: &[u8; 32] = b"abcdefghjkmnpqrstuvwxyz023456789";
    let mut random = [0u8; 4];
    // Without randomness the time still tells runs apart.
    let _ = getrandom::fill(&mut random);
    let tail: String = random.iter().map(|byte| LETTERS[usize::from(byte % 32)] as char).collect();
    format!("{}-{tail}", Timestamp::now().strftime("%Y%m%d-%H%M%S"))
}

/// Length of what [`run_id`] gives.
const RUN_ID_LENGTH: usize = "20261124-061743-k3f9".len();

/// The text when it has the form of [`run_id`]. A run id of a file, a label or a journal that others may write becomes a
/// word of a shell in lines that are typed: anything else is no run.
pub fn as_run_id(text: &str) -> Option<&str> {
    let is_one = |(at, c): (usize, u8)| match at {
        8 | 15 => c == b'-',
        ..15 => c.is_ascii_digit(),
        _ => c.is_ascii_lowercase() || c.is_ascii_digit(),
    };
    (text.len() == RUN_ID_LENGTH && text.bytes().enumerate().all(is_one)).then_some(text)
}

/// The run of an effect's id, `RUN.NUMBER`, when both have their form.
pub fn run_of_effect(effect: &str) -> Option<&str> {
    let (run, number) = effect.split_once('.')?;
    let is_number = !number.is_empty() && number.len() <= 9 && number.bytes().all(|c| c.is_ascii_digit());
    as_run_id(run).filter(|_| is_number)
}

/// This machine's name, for colleagues; empty when it has none.
pub fn machine() -> String {
    read("/proc/sys/kernel/hostname").unwrap_or_default().trim().to_string()
}

/// Id of this boot of the machine.
pub fn boot() -> &'static str {
    static BOOT: LazyLock<String> = LazyLock::new(|| {
        let text = read("/proc/sys/kernel/random/boot_id").unwrap_or_default();
        text.trim().to_string()
    });
    &BOOT
}

/// A process, told apart from a later one with the same pid.
#[derive(Debug, PartialEq, Eq)]
pub struct Process {
    /// Process id.
    pub pid: i64,
    /// Start time in clock ticks since boot.
    pub start: i64,
    /// The boot it ran in, and behind a colon the namespace of its pid. Older records have the boot only.
    pub boot: String,
}

impl Process {
    /// opsh itself.
    pub fn this() -> Process {
        let pid = i64::from(std::process::id());
        let boot = pids().map_or_else(|| boot().into(), |pids| format!("{}:{pids}", boot()));
        Process { pid, start: start_of(pid).unwrap_or(0), boot }
    }

    /// True while it runs, and when that cannot be told: a pid of another namespace, such as a container's, means nothing
    /// here. A live run that is taken for a dead one is worse than the other way round, and no run survives the boot.
    pub fn may_live(&self) -> bool {
        let (of_boot, of_pids) = match self.boot.split_once(':') {
            Some((boot, pids)) => (boot, pids.parse().ok()),
            None => (self.boot.as_str(), None),
        };
        let is_elsewhere = of_pids.is_some() && of_pids != pids();
        of_boot == boot() && (is_elsewhere || start_of(self.pid) == Some(self.start))
    }
}

/// The namespace that the pids of this process are of.
#[expect(clippy::disallowed_methods, reason = "the kernel's own file about this process")]
fn pids() -> Option<u64> {
    use std::os::unix::fs::MetadataExt;
    std::fs::metadata("/proc/self/ns/pid").ok().map(|file| file.ino())
}

/// Field 22 of `/proc/PID/stat`; the name in field 2 may hold spaces and brackets.
fn start_of(pid: i64) -> Option<i64> {
    let text = read(&format!("/proc/{pid}/stat"))?;
    text.rsplit_once(')')?.1.split_whitespace().nth(19)?.parse().ok()
}

#[expect(clippy::disallowed_methods, reason = "the kernel's own files about this process and boot")]
fn read(path: &str) -> Option<String> {
    std::fs::read_to_string(path).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_process_is_alive_and_a_reused_pid_is_not_it() {
        let this = Process::this();
        assert!(this.start > 0 && this.may_live());
        let at = |start, boot: String| Process { pid: this.pid, start, boot };
        assert!(!at(this.start - 1, this.boot.clone()).may_live());
        assert!(!at(this.start - 1, boot().into()).may_live(), "as an older opsh wrote it");
        assert!(at(this.start, boot().into()).may_live());
    }

    #[test]
    fn of_a_pid_in_another_namespace_nothing_is_known_but_that_it_ends_with_the_boot() {
        let of = |boot: String| Process { pid: 1, start: 1, boot };
        assert!(of(format!("{}:17", boot())).may_live());
        assert!(!of("0a0a0a0a-0000-0000-0000-000000000000:17".into()).may_live());
    }

    #[test]
    fn a_person_names_a_time_or_an_age() {
        assert_eq!(parse_before("2026-11-24T06:00:00Z"), Some(1_795_500_000_000_000));
        assert!(parse_before("2026-10-01").is_some_and(|at| rfc3339(at).starts_with("2026-")));
        let ago = wall_us() - parse_before("90d").expect("an age");
        assert!((90 * 86_400_000_000 - 5_000_000..=90 * 86_400_000_000).contains(&ago), "{ago}");
        for wrong in ["", "d", "-3d", "90", "90m", "yesterday", "2026-13-01"] {
            assert_eq!(parse_before(wrong), None, "{wrong}");
        }
    }

    #[test]
    fn times_have_their_documented_form() {
        assert_eq!(rfc3339(1_795_500_000_123_456), "2026-11-24T06:00:00.123456Z");
        assert_eq!(as_run_id(&run_id()).map(str::len), Some(RUN_ID_LENGTH));
    }

    #[test]
    fn a_run_id_has_one_form() {
        assert_eq!(run_of_effect("20261124-061743-k3f9.12"), Some("20261124-061743-k3f9"));
        for no in
            ["", "r", "20261124-061743-k3f9; x", "20261124-061743-k3 9", "20261124-061743-K3f9", "２0261124-061743-k3"]
        {
            assert_eq!(as_run_id(no), None, "{no}");
        }
        for no in ["20261124-061743-k3f9", "20261124-061743-k3f9.", "20261124-061743-k3f9.1;x", "r.1"] {
            assert_eq!(run_of_effect(no), None, "{no}");
        }
    }
}
