//! Where the journal's files lie: private, on a disk of this machine, and set aside when SQLite cannot read them.

use super::clock;
use std::fs::{DirBuilder, File, OpenOptions};
use std::io::{Error, ErrorKind, Result};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

/// File systems that other machines write to as well: SQLite's WAL needs memory that all its writers share.
const NETWORK: &[&str] = &[
    "9p",
    "afs",
    "beegfs",
    "ceph",
    "cifs",
    "coda",
    "gfs2",
    "gluster",
    "glusterfs",
    "lustre",
    "ncpfs",
    "nfs",
    "nfs4",
    "ocfs2",
    "orangefs",
    "pvfs2",
    "smb2",
    "smb3",
    "smbfs",
    "vboxsf",
    "vmhgfs",
];

/// The same by FUSE: `fuse.NAME`, or the part before `#` of its source. Others (an encrypted folder, NTFS) are local.
const FUSE: &[&str] = &[
    "afpfs",
    "ceph",
    "cephfs",
    "curlftpfs",
    "davfs",
    "davfs2",
    "gcsfuse",
    "glusterfs",
    "goofys",
    "gvfsd-fuse",
    "hdfs",
    "httpfs",
    "jmtpfs",
    "juicefs",
    "moosefs",
    "mfs",
    "rclone",
    "s3fs",
    "smbnetfs",
    "sshfs",
    "vmhgfs-fuse",
    "webdavfs",
];

/// Makes the folder 0700 when it is not there. A folder that is there is taken as it is, unless others may write to it
/// or it lies on another machine: it may be anybody's, and is not ours to change.
#[expect(clippy::disallowed_methods, reason = "the journal's own folder, made before anything can be recorded")]
pub fn make_private(dir: &Path) -> Result<()> {
    DirBuilder::new().recursive(true).mode(0o700).create(dir)?;
    check_private(dir)?;
    match network(dir) {
        Some(kind) => Err(Error::other(format!("{} is on a network file system ({kind})", dir.display()))),
        None => Ok(()),
    }
}

/// Fails for a folder that others may write to, or that is another user's; one that is not there is nobody's yet.
#[expect(clippy::disallowed_methods, reason = "the folder of opsh's own files, judged before anything is read")]
pub fn check_private(dir: &Path) -> Result<()> {
    let meta = match std::fs::metadata(dir) {
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(()),
        meta => meta?,
    };
    if meta.uid() != user() {
        return Err(Error::other(format!("{} belongs to another user", dir.display())));
    }
    if meta.mode() & 0o022 != 0 {
        return Err(Error::other(format!("others may write to {}: chmod go-w it", dir.display())));
    }
    Ok(())
}

/// The user that opsh runs as.
pub fn user() -> u32 {
    // SAFETY: geteuid has no preconditions and cannot fail.
    unsafe { libc::geteuid() }
}

/// The database file, made 0600 before SQLite opens it: its companions get the same mode.
#[expect(clippy::disallowed_methods, reason = "the journal's own file, made before anything can be recorded")]
pub fn make_file(path: &Path) -> Result<()> {
    OpenOptions::new().create(true).append(true).mode(0o600).open(path).map(drop)
}

/// Device and number of the file that has this name now.
pub fn identity(path: &Path) -> Option<(u64, u64)> {
    std::fs::symlink_metadata(path).ok().map(|meta| (meta.dev(), meta.ino()))
}

/// The network file system that `path` lies on.
#[expect(clippy::disallowed_methods, reason = "the kernel's own list of what is mounted where")]
pub fn network(path: &Path) -> Option<String> {
    let mounts = std::fs::read_to_string("/proc/self/mountinfo").ok()?;
    network_of(&mounts, &path.canonicalize().ok()?)
}

/// The same from the text of `/proc/self/mountinfo`: the mount with the longest path above, of equal ones the last,
/// which covers those before it.
pub(super) fn network_of(mounts: &str, path: &Path) -> Option<String> {
    let above = mounts.lines().filter_map(|line| {
        let (left, right) = line.split_once(" - ")?;
        let point = PathBuf::from(unescaped(left.split(' ').nth(4)?));
        path.starts_with(&point).then(|| (point.components().count(), right))
    });
    let (_, right) = above.max_by_key(|(depth, _)| *depth)?;
    let mut words = right.split(' ');
    let (kind, source) = (words.next()?, words.next().unwrap_or(""));
    let is_network = match kind.strip_prefix("fuse") {
        Some("" | "blk") => source.split_once('#').is_some_and(|(program, _)| FUSE.contains(&program)),
        Some(name) => FUSE.contains(&name.trim_start_matches('.')),
        None => NETWORK.contains(&kind),
    };
    is_network.then(|| kind.to_string())
}

/// `\040` and its like, as the kernel writes blanks in paths.
fn unescaped(text: &str) -> String {
    ["\\040", "\\011", "\\012", "\\134"]
        .iter()
        .zip([" ", "\t", "\n", "\\"])
        .fold(text.into(), |text: String, (from, to)| text.replace(from, to))
}

/// Held by who sets a journal aside: of two that find it broken, one moves it, the other finds the fresh one.
#[expect(clippy::disallowed_methods, reason = "the lock beside the journal")]
pub fn lock(dir: &Path) -> Result<File> {
    let file = OpenOptions::new().create(true).append(true).mode(0o600).open(dir.join("journal.lock"))?;
    file.lock()?;
    Ok(file)
}

/// Moves the database and its companions to `journal.db.broken-TIME`; returns that path.
#[expect(clippy::disallowed_methods, reason = "the journal's own files, which SQLite cannot read")]
pub fn set_aside(path: &Path) -> Result<PathBuf> {
    let base = format!("{}.broken-{}", path.display(), clock::stamp());
    let mut aside = PathBuf::from(&base);
    let mut n = 1;
    while aside.exists() {
        n += 1;
        aside = PathBuf::from(format!("{base}-{n}"));
    }
    // The log first: should this stop half way, a database without it is an older one, and one beside a foreign log
    // would be worse.
    for end in ["-wal", "-shm", ""] {
        let with = |path: &Path| PathBuf::from(format!("{}{end}", path.display()));
        match std::fs::rename(with(path), with(&aside)) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
    }
    Ok(aside)
}
