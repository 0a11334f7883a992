//! Images: identity, tags, and what files they hold, without running anything of theirs.

use super::engine::Engine;
use super::fault::if_there;
use super::model::{Env, Image, labels, list, number, text, when, words};
use super::transport::{Wire, encode, next_chunk};
use crate::error::{Kind, Result};
use crate::gate::Remains;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use hyper::header::HeaderMap;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use std::collections::HashMap;
use std::hash::{BuildHasher, Hasher, RandomState};
use std::io::Read;
use std::path::Path;
use std::time::Duration;

/// On containers that are made only to look into an image.
pub const PREFLIGHT: &str = "opsh.preflight";

/// What an image holds at a path, symlinks followed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct InImage {
    /// The path as it was asked for.
    pub path: String,
    /// Something is there.
    pub present: bool,
    /// It is a file with an execute bit.
    pub executable: bool,
}

/// Bounds for reading a directory.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// At most so many files.
    pub files: usize,
    /// At most so many bytes in all of them.
    pub bytes: usize,
}

/// Files by path, with what they hold.
type Files = Vec<(String, Vec<u8>)>;

/// The Engine's word on a path in a container.
#[derive(Debug, Deserialize)]
struct PathStat {
    mode: u32,
    #[serde(rename = "linkTarget", default)]
    link_target: String,
}

/// Header of the answer that says what is at a path: JSON in base64.
const PATH_STAT: &str = "X-Docker-Container-Path-Stat";

fn path_stat(head: &HeaderMap) -> Result<PathStat, Wire> {
    let text = head.get(PATH_STAT).map(|value| STANDARD.decode(value));
    let stat = text.and_then(|text| serde_json::from_slice(&text.ok()?).ok());
    stat.ok_or_else(|| Wire::Text(format!("it has no {PATH_STAT}")))
}

/// Go's bits in a file mode.
const GO_DIR: u32 = 1 << 31;
const GO_SYMLINK: u32 = 1 << 27;
/// Pipes, sockets and devices.
const GO_SPECIAL: u32 = 1 << 26 | 1 << 25 | 1 << 24 | 1 << 21;

impl Engine {
    /// An image by id or reference; None when it is not there.
    pub async fn image(&self, reference: &str) -> Result<Option<Image>> {
        let what = format!("cannot inspect image {reference}");
        let name = self.known_image(&what, reference)?;
        let answer = self.http().get_json(&format!("/images/{name}/json")).await;
        let found = self.read(&what, async { if_there(answer) }).await?;
        found.as_ref().map(image).transpose().map_err(|why| self.error(Kind::Failed, &what, why))
    }

    /// Images with this label, newest first.
    pub async fn images_labelled(&self, label: &str, value: &str) -> Result<Vec<Image>> {
        let what = format!("cannot list images labelled {label}={value}");
        self.images_where(&what, json!({ "label": [format!("{label}={value}")] })).await
    }

    /// Images with a name of this pattern, `*` for anything, newest first.
    pub async fn images_named(&self, pattern: &str) -> Result<Vec<Image>> {
        self.images_where(&format!("cannot list images named {pattern}"), json!({ "reference": [pattern] })).await
    }

    async fn images_where(&self, what: &str, filters: Value) -> Result<Vec<Image>> {
        let filters = encode(&filters.to_string());
        let found = self.get(what, &format!("/images/json?filters={filters}")).await?;
        let mut images = Vec::new();
        for id in list(&found, "").iter().map(|image| text(image, "/Id")) {
            images.extend(self.image(&id).await?);
        }
        images.sort_by_key(|image| std::cmp::Reverse(image.created));
        Ok(images)
    }

    /// Gives an image the name `repo:tag`, taking it from the image that had it.
    pub async fn tag(&self, image_id: &str, repo: &str, tag: &str) -> Result<()> {
        let what = format!("cannot tag image {image_id} as {repo}:{tag}");
        let (name, repo) = (self.known_image(&what, image_id)?, self.known_image(&what, repo)?);
        let path = format!("/images/{name}/tag?repo={}&tag={}", encode(repo), encode(tag));
        self.change(&what, self.http().post(&path, None)).await.map(drop)
    }

    /// Takes the name `repo:tag` away. The last name of an image is refused (`unmet`) unless `even_last`, for then the
    /// Engine deletes the image. Errors: `usage` for an id, `not_found`.
    pub async fn untag(&self, reference: &str, even_last: bool) -> Result<()> {
        let what = format!("cannot untag {reference}");
        let name = self.known_image(&what, reference)?;
        let last = name.rsplit('/').next().unwrap_or(name);
        if !last.contains(':') || name.contains('@') || name.starts_with("sha256:") {
            return Err(self.error(Kind::Usage, &what, "the name has the form repo:tag"));
        }
        let Some(image) = self.image(name).await? else {
            return Err(self.error(Kind::NotFound, &what, "there is no image with this name"));
        };
        if image.tags.len() < 2 && !even_last {
            return Err(self.error(Kind::Unmet, &what, format!("it is the last name of image {}", image.id)));
        }
        self.change(&what, self.http().delete(&format!("/images/{name}"))).await.map(drop)
    }

    /// Which of these absolute paths an image holds, in the order given. Nothing of the image runs.
    ///
    /// Makes a container that never starts, labelled [`PREFLIGHT`], and removes it; when the future is dropped the
    /// runtime removes it as soon as it is driven again.
    pub async fn has_files(&self, image_id: &str, paths: &[String]) -> Result<Vec<InImage>> {
        let what = format!("cannot look into image {image_id}");
        let scratch = self.scratch(&what, image_id).await?;
        let found = self.stat_all(&what, &scratch.name, paths).await;
        scratch.remove(&what).await?;
        found
    }

    /// The files of a directory in an image and below it, by path relative to it; None when it is not there.
    ///
    /// Symlinks among the files are left out. Errors: `failed` when it is not a directory or exceeds the limits.
    pub async fn read_dir(&self, image_id: &str, path: &str, limits: Limits) -> Result<Option<Files>> {
        let what = format!("cannot read {path} in image {image_id}");
        let scratch = self.scratch(&what, image_id).await?;
        let found = self.read_tree(&what, &scratch.name, path, limits).await;
        scratch.remove(&what).await?;
        found
    }

    async fn stat_all(&self, what: &str, container: &str, paths: &[String]) -> Result<Vec<InImage>> {
        let mut found = Vec::new();
        for path in paths {
            let stat = self.stat(what, container, path).await?.map(|(_, stat)| stat);
            let executable = |s: &PathStat| s.mode & (GO_DIR | GO_SPECIAL) == 0 && s.mode & 0o111 != 0;
            let (present, executable) = (stat.is_some(), stat.as_ref().is_some_and(executable));
            found.push(InImage { path: path.clone(), present, executable });
        }
        Ok(found)
    }

    /// Where a path leads and what is there. A broken link or a circle of links leads nowhere.
    async fn stat(&self, what: &str, container: &str, path: &str) -> Result<Option<(String, PathStat)>> {
        let mut path = path.to_owned();
        for _ in 0..8 {
            let mut answer = self.http().head(&archive_url(container, &path)).await.and_then(|head| path_stat(&head));
            if let Err(Wire::Refused { status: 500.., message }) = &mut answer {
                *message = self.refusal(container, &path).await;
                if leads_nowhere(message) {
                    return Ok(None);
                }
            }
            let Some(stat) = self.read(what, async { if_there(answer) }).await? else { return Ok(None) };
            if stat.mode & GO_SYMLINK == 0 {
                return Ok(Some((path, stat)));
            }
            let parent = Path::new(&path).parent().unwrap_or(Path::new("/"));
            path = parent.join(&stat.link_target).to_string_lossy().into_owned();
        }
        Ok(None)
    }

    /// Why a path cannot be looked at: an answer to HEAD has no body, so the question is put again as a GET.
    async fn refusal(&self, container: &str, path: &str) -> String {
        match self.http().get(&archive_url(container, path)).await {
            Err(Wire::Refused { message, .. }) => message,
            _ => String::new(),
        }
    }

    async fn read_tree(&self, what: &str, container: &str, path: &str, limits: Limits) -> Result<Option<Files>> {
        let Some((path, stat)) = self.stat(what, container, path).await? else { return Ok(None) };
        if stat.mode & GO_DIR == 0 {
            return Err(self.error(Kind::Failed, what, format!("{path} is not a directory")));
        }
        let mut body = self.read(what, self.http().get(&archive_url(container, &path))).await?.into_body();
        let mut tar = Vec::new();
        // Headers and padding come to 1 KiB a file, a little more for long names.
        let most = limits.bytes + limits.files.saturating_mul(4096) + (1 << 16);
        while let Some(chunk) = self.read(what, next_chunk(&mut body)).await? {
            tar.extend_from_slice(&chunk);
            if tar.len() > most {
                return Err(self.too_much(what, limits));
            }
        }
        match files_in(&tar, limits) {
            Ok(Some(files)) => Ok(Some(files)),
            Ok(None) => Err(self.too_much(what, limits)),
            Err(e) => Err(self.error(Kind::Failed, what, format!("the archive is broken: {e}"))),
        }
    }

    fn too_much(&self, what: &str, limits: Limits) -> crate::error::Error {
        let why = format!("it holds more than {} files or {} bytes", limits.files, limits.bytes);
        self.error(Kind::Failed, what, why)
    }

    /// A container that shows an image's files and never starts.
    async fn scratch(&self, what: &str, image: &str) -> Result<Scratch> {
        let image = self.known_image(what, image)?.to_owned();
        // Named by us, so that it can be removed even when the answer to the creation never came.
        let name = format!("opsh-preflight-{:016x}", RandomState::new().build_hasher().finish());
        let body = json!({
            "Image": image,
            "Entrypoint": ["/opsh/never-runs"],
            "Labels": { PREFLIGHT: "1" },
            "HostConfig": { "NetworkMode": "none" },
        });
        let mut scratch = Scratch { engine: self.clone(), name, made: false, armed: true };
        let path = format!("/containers/create?name={}", scratch.name);
        match self.read(what, self.http().post(&path, Some(&body))).await {
            Ok(_) => {
                scratch.made = true;
                Ok(scratch)
            }
            Err(e) => {
                // A refusal made nothing; only an unseen answer leaves something to remove.
                scratch.disarm_when(matches!(e.kind, Kind::NotFound | Kind::Failed));
                Err(e)
            }
        }
    }

    /// True when it was there.
    async fn remove_scratch(&self, what: &str, name: &str) -> Result<bool> {
        let answer = self.http().delete(&format!("/containers/{name}?v=true&force=true")).await;
        Ok(self.read(what, async { if_there(answer) }).await?.is_some())
    }
}

/// Removes its container when dropped before [`Scratch::remove`] was done.
struct Scratch {
    engine: Engine,
    name: String,
    /// The Engine said that it made it.
    made: bool,
    armed: bool,
}

impl Scratch {
    async fn remove(mut self, what: &str) -> Result<()> {
        self.engine.remove_scratch(what, &self.name).await?;
        self.armed = false;
        Ok(())
    }

    fn disarm_when(mut self, nothing_made: bool) {
        self.armed = !nothing_made;
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        if !self.armed {
            return;
        }
        let (engine, name, made) = (self.engine.clone(), std::mem::take(&mut self.name), self.made);
        let left = Remains {
            why: format!("container {name}, made to look into the image, is left on {}", engine.host()),
            next: format!("docker rm -fv {name}     on {}, removes it", engine.host()),
        };
        self.engine.clear(left.clone(), async move {
            let mut failed = false;
            // A creation whose answer nobody waited for may only come to pass after the first try.
            for pause_ms in [0, 200, 1000, 3000] {
                tokio::time::sleep(Duration::from_millis(pause_ms)).await;
                match engine.remove_scratch("cannot clean up", &name).await {
                    Ok(there) if there || made => return None,
                    removed => failed = removed.is_err(),
                }
            }
            failed.then_some(left)
        });
    }
}

fn archive_url(container: &str, path: &str) -> String {
    format!("/containers/{container}/archive?path={}", encode(path))
}

/// A circle of links, or a file where a directory should be, is a 500 to the Engine. To us it is "not there".
fn leads_nowhere(message: &str) -> bool {
    message.contains("too many links") || message.contains("not a directory")
}

/// Regular files of an archive by path below its first component; None when they exceed the limits. A second name of a file
/// comes as a hard link, and counts as much as the file before it is copied.
fn files_in(tar: &[u8], limits: Limits) -> std::io::Result<Option<Files>> {
    let mut files = Files::new();
    let mut places: HashMap<String, usize> = HashMap::new();
    let mut left = limits.bytes;
    let below = |path: &Path| path.components().skip(1).collect::<std::path::PathBuf>().to_string_lossy().into_owned();
    for entry in tar::Archive::new(tar).entries()? {
        let mut entry = entry?;
        let kind = entry.header().entry_type();
        let first = match kind.is_hard_link() {
            true => entry.link_name()?.and_then(|path| places.get(&below(&path)).copied()),
            false => None,
        };
        if !kind.is_file() && first.is_none() {
            continue;
        }
        let mut bytes = Vec::new();
        match first.and_then(|place| files.get(place)) {
            Some((_, first)) if first.len() > left => return Ok(None),
            Some((_, first)) => bytes.clone_from(first),
            // A header may tell of more than there is; one byte too many is enough to know.
            None => drop(entry.by_ref().take(left as u64 + 1).read_to_end(&mut bytes)?),
        }
        if bytes.len() > left || files.len() == limits.files {
            return Ok(None);
        }
        left -= bytes.len();
        let name = below(&entry.path()?);
        places.insert(name.clone(), files.len());
        files.push((name, bytes));
    }
    files.sort();
    Ok(Some(files))
}

fn image(value: &Value) -> Result<Image, String> {
    Ok(Image {
        id: text(value, "/Id"),
        tags: words(value, "/RepoTags"),
        labels: labels(value, "/Config/Labels"),
        created: when(value, "/Created"),
        size_bytes: number(value, "/Size"),
        env: Env::read(value, "/Config/Env")?,
        entrypoint: words(value, "/Config/Entrypoint"),
        cmd: words(value, "/Config/Cmd"),
        user: text(value, "/Config/User"),
        working_dir: text(value, "/Config/WorkingDir"),
        architecture: text(value, "/Architecture"),
        os: text(value, "/Os"),
    })
}

#[cfg(test)]
mod tests {
    use super::super::testing::Lab;
    use super::*;
    use crate::bind::ssh::Reach;
    use crate::gate::Pass;

    const LIMITS: Limits = Limits { files: 10, bytes: 10_000 };

    #[tokio::test]
    async fn an_image_is_found_by_tag_and_id_and_label() {
        let Some(lab) = Lab::open().await else { return };
        let id = lab.import("v2");
        let image = lab.engine.image(&lab.image("v2")).await.unwrap().unwrap();
        assert_eq!((&image.id, image.env.get("APP_VERSION")), (&id, Some("v2")));
        assert!(image.size_bytes > 100_000 && image.created.is_some() && image.os == "linux");
        assert_eq!(lab.engine.image(&id).await.unwrap().unwrap().tags, [lab.image("v2")]);
        assert!(lab.engine.image("opsh-none:v1").await.unwrap().is_none());
        let found = lab.engine.images_labelled("opsh.test", &lab.name).await.unwrap();
        assert_eq!((found.len(), &found[0].id), (2, &id));
    }

    #[tokio::test]
    async fn a_tag_moves_and_the_last_one_stays() {
        let Some(lab) = Lab::open().await else { return };
        let (engine, id) = (&lab.engine, lab.import("v2"));
        engine.tag(&id, &lab.name, "v1").await.unwrap();
        assert_eq!(engine.image(&lab.image("v1")).await.unwrap().unwrap().id, id);
        engine.untag(&lab.image("v1"), false).await.unwrap();
        assert_eq!(engine.untag(&lab.image("v2"), false).await.unwrap_err().kind, Kind::Unmet);
        assert_eq!(engine.untag(&lab.image("v1"), false).await.unwrap_err().kind, Kind::NotFound);
        assert_eq!(engine.untag(&id, true).await.unwrap_err().kind, Kind::Usage);
        engine.untag(&lab.image("v2"), true).await.unwrap();
        assert!(engine.image(&id).await.unwrap().is_none());
        assert_eq!(engine.tag(&id, &lab.name, "v3").await.unwrap_err().kind, Kind::NotFound);
    }

    #[tokio::test]
    async fn files_are_found_through_links_and_nothing_is_left_behind() {
        let Some(lab) = Lab::open().await else { return };
        let asked = [
            ("/app/tool", true, true),
            ("/app/link", true, true),
            ("/current/link", true, true),
            ("/app/plain", true, false),
            ("/app", true, false),
            ("/app/nope", false, false),
            ("/app/broken", false, false),
            ("/app/loop", false, false),
            ("/app/plain/x", false, false),
        ];
        let paths = asked.map(|(path, ..)| path.to_owned());
        let found = lab.engine.has_files(&lab.image("v1"), &paths).await.unwrap();
        for ((path, present, executable), found) in asked.into_iter().zip(&found) {
            assert_eq!((path, present, executable), (found.path.as_str(), found.present, found.executable));
        }
        let error = lab.engine.has_files("opsh-none:v1", &paths).await.unwrap_err();
        assert_eq!(error.kind, Kind::NotFound);
        let mine = [format!("opsh.test={}", lab.name)];
        assert!(lab.engine.containers_labelled(&[&mine[0], PREFLIGHT]).await.unwrap().is_empty());
    }

    #[tokio::test]
    async fn a_look_that_is_given_up_is_over_once_its_container_is_gone() {
        let Some(lab) = Lab::open().await else { return };
        let (image, mine) = (lab.image("v1"), format!("opsh.test={}", lab.name));
        let paths = vec!["/app/tool".to_owned(); 500];
        for wait_ms in [1, 5, 10, 40] {
            let pass = Pass::for_tests();
            let engine = lab.engine.on_behalf(&pass, &Reach::Local);
            let cut = tokio::time::timeout(Duration::from_millis(wait_ms), engine.has_files(&image, &paths)).await;
            assert!(cut.is_err());
            assert_eq!(pass.remains_for_tests().await, []);
            assert!(lab.engine.containers_labelled(&[&mine, PREFLIGHT]).await.unwrap().is_empty(), "{wait_ms} ms");
        }
    }

    /// An archive of one file and `links` further names of it.
    fn linked(bytes: usize, links: usize) -> Vec<u8> {
        let mut archive = tar::Builder::new(Vec::new());
        let mut header = tar::Header::new_gnu();
        header.set_size(bytes as u64);
        archive.append_data(&mut header, "d/one", &vec![b'x'; bytes][..]).unwrap();
        for n in 0..links {
            let mut header = tar::Header::new_gnu();
            header.set_entry_type(tar::EntryType::Link);
            header.set_size(0);
            archive.append_link(&mut header, format!("d/link{n}"), "d/one").unwrap();
        }
        archive.into_inner().unwrap()
    }

    #[test]
    fn a_hard_link_counts_before_it_is_copied() {
        let limits = |files, bytes| Limits { files, bytes };
        let count = |tar: &[u8], limits| files_in(tar, limits).unwrap().map(|files| files.len());
        assert_eq!(count(&linked(100, 3), limits(4, 400)), Some(4));
        assert_eq!(count(&linked(100, 3), limits(4, 399)), None);
        assert_eq!(count(&linked(100, 3), limits(3, 400)), None);
        // 6 GB, if each were copied first.
        assert_eq!(count(&linked(15 << 20, 400), limits(10_000, 16 << 20)), None);
        assert_eq!(count(&linked(0, 100_000), limits(100_001, 0)), Some(100_001));
    }

    #[tokio::test]
    async fn a_directory_is_read_with_its_hard_links_and_within_limits() {
        let Some(lab) = Lab::open().await else { return };
        let image = lab.image("v1");
        let read = async |path: &str, limits| lab.engine.read_dir(&image, path, limits).await;
        let files = read("/to_migrations", LIMITS).await.unwrap().unwrap();
        let names: Vec<&str> = files.iter().map(|(name, _)| name.as_str()).collect();
        assert_eq!(names, ["000001_a.down.sql", "000001_a.up.sql", "000002_b.up.sql", "old/x.sql"]);
        assert_eq!((&files[1].1[..], &files[2].1[..]), (&b"CREATE TABLE a();\n"[..], &b"CREATE TABLE a();\n"[..]));
        assert!(read("/app/nope", LIMITS).await.unwrap().is_none());
        assert_eq!(read("/app/plain", LIMITS).await.unwrap_err().kind, Kind::Failed);
        assert_eq!(read("/app/migrations", Limits { files: 3, ..LIMITS }).await.unwrap_err().kind, Kind::Failed);
        assert_eq!(read("/bin", LIMITS).await.unwrap_err().kind, Kind::Failed);
        let mine = format!("opsh.test={}", lab.name);
        assert!(lab.engine.containers_labelled(&[&mine, PREFLIGHT]).await.unwrap().is_empty());
    }
}
