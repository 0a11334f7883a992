//! Files that are whole or not there: written beside their name as `NAME.part`, on the disk, and then given the name. What dies
//! in between leaves nothing under the name, and the next one takes the place of its part.
//!
//! And plain files that are read whole: a pipe, a device or an endless file under their name is an error, and no wait.

use std::fs::{File, OpenOptions};
use std::io::{BufWriter, Error, ErrorKind, Read, Result, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

/// A file that is being written; one that is dropped before it was finished is removed.
#[derive(Debug)]
pub struct Part {
    path: PathBuf,
    part: PathBuf,
    /// None once it has its name.
    file: Option<BufWriter<File>>,
}

/// Whether the name of a file may be a symlink.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Link {
    /// The user chose the name, or owns its folder: a link is followed, and stays one.
    Followed,
    /// The folder can be anybody's: a link in it leads where somebody else chose.
    Refused,
}

/// Opens a plain file for reading. Fails at once for a pipe, a device, a folder, and a link that may not be one.
pub fn open(path: &Path, link: Link) -> Result<File> {
    let no_follow = if link == Link::Refused { libc::O_NOFOLLOW } else { 0 };
    let opened = File::options().read(true).custom_flags(libc::O_NONBLOCK | libc::O_NOCTTY | no_follow).open(path);
    let file = opened.map_err(|error| match error.raw_os_error() {
        Some(libc::ELOOP) if link == Link::Refused => Error::new(ErrorKind::InvalidInput, "it is a symlink"),
        _ => error,
    })?;
    if !file.metadata()?.is_file() {
        return Err(Error::new(ErrorKind::InvalidInput, "it is not a plain file"));
    }
    Ok(file)
}

/// All of what is open, when it is at most `most` bytes.
pub fn bytes(file: impl Read, most: u64) -> Result<Vec<u8>> {
    let mut bytes = Vec::new();
    file.take(most.saturating_add(1)).read_to_end(&mut bytes)?;
    if bytes.len() as u64 > most {
        return Err(Error::new(ErrorKind::FileTooLarge, format!("it is longer than {} KiB", most >> 10)));
    }
    Ok(bytes)
}

/// The text of a plain file of at most `most` bytes.
pub fn text(path: &Path, link: Link, most: u64) -> Result<String> {
    text_in(open(path, link)?, most)
}

/// The text of what is open, a pipe, too, when it is at most `most` bytes.
pub fn text_in(file: impl Read, most: u64) -> Result<String> {
    String::from_utf8(bytes(file, most)?).map_err(|_| Error::new(ErrorKind::InvalidData, "it is not UTF-8"))
}

/// At most the first `most` bytes of a plain file, as text.
pub fn begin(path: &Path, link: Link, most: u64) -> Result<String> {
    let mut bytes = Vec::new();
    open(path, link)?.take(most).read_to_end(&mut bytes)?;
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

/// Writes a whole file: one that is there is replaced, and keeps who may read it; a new one has `mode`. Fails when another
/// thing than a plain file has the name.
pub fn replace(path: &Path, link: Link, text: &str, mode: u32) -> Result<()> {
    let path = match link {
        Link::Followed => std::fs::canonicalize(path).unwrap_or_else(|_| path.into()),
        Link::Refused => path.into(),
    };
    let mode = match open(&path, Link::Refused) {
        Ok(there) => there.metadata()?.permissions().mode() & 0o7777,
        Err(error) if error.kind() == ErrorKind::NotFound => mode,
        Err(error) => return Err(error),
    };
    let mut part = Part::begin(&path, mode)?;
    part.write_all(text.as_bytes())?;
    part.replace()
}

impl Part {
    /// Begins a file that must not be there yet. Fails with `AlreadyExists` when it is, and while another opsh writes it.
    pub fn create(path: &Path, mode: u32) -> Result<Part> {
        if std::fs::symlink_metadata(path).is_ok() {
            return Err(ErrorKind::AlreadyExists.into());
        }
        Part::begin(path, mode)
    }

    #[expect(clippy::disallowed_methods, reason = "the home of opsh's own files that must be whole")]
    fn begin(path: &Path, mode: u32) -> Result<Part> {
        let mut name = path.file_name().ok_or(ErrorKind::InvalidInput)?.to_os_string();
        name.push(".part");
        let part = path.with_file_name(name);
        // Whoever writes one holds a lock on it. A part that nobody holds is what a dead one left.
        match File::options().read(true).custom_flags(libc::O_NOFOLLOW | libc::O_NONBLOCK).open(&part) {
            Ok(left) => {
                left.try_lock().map_err(|_| busy(&part))?;
                std::fs::remove_file(&part)?;
            }
            Err(error) if error.kind() == ErrorKind::NotFound => {}
            // A link, or nothing that may be read: it is removed as a name, and never written through.
            Err(_) => std::fs::remove_file(&part)?,
        }
        let file = OpenOptions::new().write(true).create_new(true).mode(mode & 0o7777).open(&part)?;
        file.try_lock().map_err(|_| busy(&part))?;
        Ok(Part { path: path.into(), part, file: Some(BufWriter::new(file)) })
    }

    /// Gives it its name, unless another file has got that meanwhile.
    #[expect(clippy::disallowed_methods, reason = "the home of opsh's own files that must be whole")]
    pub fn finish(mut self) -> Result<()> {
        self.sync()?;
        // A rename would replace a file that came meanwhile; a link does not.
        match std::fs::hard_link(&self.part, &self.path) {
            Ok(()) => {
                self.file = None;
                std::fs::remove_file(&self.part)?;
            }
            Err(error) if error.kind() == ErrorKind::AlreadyExists => return Err(error),
            // A file system without links: nothing else is left to look with.
            Err(_) if std::fs::symlink_metadata(&self.path).is_err() => {
                std::fs::rename(&self.part, &self.path)?;
                self.file = None;
            }
            Err(error) => return Err(error),
        }
        sync_folder(&self.path)
    }

    /// Gives it its name, in place of a file that has it.
    #[expect(clippy::disallowed_methods, reason = "the home of opsh's own files that must be whole")]
    pub fn replace(mut self) -> Result<()> {
        self.sync()?;
        std::fs::rename(&self.part, &self.path)?;
        self.file = None;
        sync_folder(&self.path)
    }

    /// All of it is on the disk, and the part is still this one.
    fn sync(&mut self) -> Result<()> {
        let Some(out) = &mut self.file else { return Err(ErrorKind::InvalidInput.into()) };
        out.flush()?;
        let (own, there) = (out.get_ref().metadata()?, std::fs::symlink_metadata(&self.part)?);
        if (own.dev(), own.ino()) != (there.dev(), there.ino()) {
            return Err(busy(&self.part));
        }
        out.get_ref().sync_all()
    }
}

impl Write for Part {
    fn write(&mut self, bytes: &[u8]) -> Result<usize> {
        self.file.as_mut().ok_or(ErrorKind::InvalidInput)?.write(bytes)
    }

    fn flush(&mut self) -> Result<()> {
        self.file.as_mut().ok_or(ErrorKind::InvalidInput)?.flush()
    }
}

impl Drop for Part {
    #[expect(clippy::disallowed_methods, reason = "the home of opsh's own files that must be whole")]
    fn drop(&mut self) {
        if self.file.is_some() {
            let _ = std::fs::remove_file(&self.part);
        }
    }
}

/// The name is on the disk, too.
#[expect(clippy::disallowed_methods, reason = "the home of opsh's own files that must be whole")]
fn sync_folder(path: &Path) -> Result<()> {
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    match File::open(folder)?.sync_all() {
        // Errors of file systems that cannot sync a folder.
        Err(error) if error.kind() != ErrorKind::InvalidInput => Err(error),
        _ => Ok(()),
    }
}

fn busy(part: &Path) -> Error {
    Error::new(ErrorKind::ResourceBusy, format!("{} is being written by another opsh", part.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(folder: &Path) -> Vec<String> {
        let mut names: Vec<String> = std::fs::read_dir(folder)
            .unwrap()
            .flatten()
            .map(|entry| entry.file_name().into_string().unwrap())
            .collect();
        names.sort();
        names
    }

    #[test]
    fn a_file_has_its_name_only_when_it_is_whole() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("x");
        let mut part = Part::create(&path, 0o600).unwrap();
        part.write_all(b"half").unwrap();
        assert_eq!(names(dir.path()), ["x.part"]);
        assert_eq!(Part::create(&path, 0o600).unwrap_err().kind(), ErrorKind::ResourceBusy, "it is written now");
        drop(part);
        assert!(names(dir.path()).is_empty());
        std::fs::write(dir.path().join("x.part"), "left by a dead one").unwrap();
        let mut part = Part::create(&path, 0o600).unwrap();
        part.write_all(b"whole").unwrap();
        part.finish().unwrap();
        assert_eq!(names(dir.path()), ["x"]);
        assert_eq!(std::fs::read_to_string(&path).unwrap(), "whole");
        assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        assert_eq!(Part::create(&path, 0o600).unwrap_err().kind(), ErrorKind::AlreadyExists);
    }

    #[test]
    fn a_file_that_came_meanwhile_stays() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("x");
        let part = Part::create(&path, 0o600).unwrap();
        std::fs::write(&path, "another").unwrap();
        assert_eq!(part.finish().unwrap_err().kind(), ErrorKind::AlreadyExists);
        assert_eq!(std::fs::read_to_string(&path).unwrap(), "another");
        assert_eq!(names(dir.path()), ["x"]);
    }

    #[test]
    fn a_link_is_never_written_through() {
        let dir = tempfile::tempdir().unwrap();
        let (path, victim) = (dir.path().join("x"), dir.path().join("victim"));
        std::fs::write(&victim, "kept").unwrap();
        std::os::unix::fs::symlink(&victim, dir.path().join("x.part")).unwrap();
        replace(&path, Link::Refused, "new", 0o640).unwrap();
        assert_eq!(std::fs::read_to_string(&victim).unwrap(), "kept");
        assert_eq!(names(dir.path()), ["victim", "x"]);
        replace(&path, Link::Refused, "newer", 0o600).unwrap();
        assert_eq!(std::fs::read_to_string(&path).unwrap(), "newer");
        assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o640, "who may read it stays");
    }

    #[test]
    fn a_link_is_followed_only_when_the_caller_says_so() {
        let dir = tempfile::tempdir().unwrap();
        let (path, victim) = (dir.path().join("x"), dir.path().join("victim"));
        std::fs::write(&victim, "kept").unwrap();
        std::os::unix::fs::symlink(&victim, &path).unwrap();
        assert!(replace(&path, Link::Refused, "new", 0o600).unwrap_err().to_string().contains("it is a symlink"));
        assert!(text(&path, Link::Refused, 9).unwrap_err().to_string().contains("it is a symlink"));
        assert_eq!(text(&path, Link::Followed, 9).unwrap(), "kept");
        replace(&path, Link::Followed, "new", 0o600).unwrap();
        assert_eq!((std::fs::read_to_string(&victim).unwrap().as_str(), path.is_symlink()), ("new", true));
    }

    #[test]
    fn only_a_plain_file_with_an_end_is_read() {
        let dir = tempfile::tempdir().unwrap();
        let (pipe, long) = (dir.path().join("pipe"), dir.path().join("long"));
        assert!(std::process::Command::new("mkfifo").arg(&pipe).status().unwrap().success());
        std::fs::write(&long, "12345").unwrap();
        for path in [&pipe, Path::new("/dev/zero"), dir.path()] {
            let error = text(path, Link::Followed, 9).unwrap_err().to_string();
            assert!(error.contains("it is not a plain file"), "{}: {error}", path.display());
        }
        assert!(text(&long, Link::Refused, 4).unwrap_err().to_string().contains("it is longer than"));
        assert_eq!(text(&long, Link::Refused, 5).unwrap(), "12345");
    }

    #[test]
    fn a_part_that_was_taken_away_is_not_named() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("x");
        let part = Part::create(&path, 0o600).unwrap();
        std::fs::remove_file(dir.path().join("x.part")).unwrap();
        std::fs::write(dir.path().join("x.part"), "of another").unwrap();
        assert!(part.finish().is_err());
        assert!(!path.exists());
    }
}
