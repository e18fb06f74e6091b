// SPDX-License-Identifier: Apache-2.0
//! DELs that the plugin left because no agent answered: one file each, named after the host end of the veth pair.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use cni::Attachment;
use cni::protocol::DELETE_QUEUE_DIR;
use tracing::warn;

/// A plugin takes milliseconds to write a file: what has no whole name after this long belongs to one that was killed.
const TORN_AFTER: Duration = Duration::from_secs(60);
/// A DEL has some hundred bytes.
const MAX_FILE_BYTES: u64 = 64 << 10;

/// The queue beside the plugin's socket.
#[derive(Debug, Clone)]
pub struct DeleteQueue {
    dir: PathBuf,
}

/// A DEL that waits.
#[derive(Debug, PartialEq, Eq)]
pub struct Queued {
    /// Its file, removed when the DEL is done.
    pub file: PathBuf,
    /// The name of the host end: the file's name.
    pub host_ifname: String,
    /// What the file says; nothing when it cannot be read. The name says enough then.
    pub attachment: Option<Attachment>,
}

impl DeleteQueue {
    /// The queue that belongs to a socket.
    #[must_use]
    pub fn beside(socket: &Path) -> Self {
        Self {
            dir: socket.with_file_name(DELETE_QUEUE_DIR),
        }
    }

    /// What waits, in the order of file names. Half-written files of plugins that were killed are removed; what else does not
    /// belong there is passed over.
    ///
    /// # Errors
    /// When the directory is there but cannot be read.
    pub fn list(&self, now: SystemTime) -> io::Result<Vec<Queued>> {
        let entries = match fs::read_dir(&self.dir) {
            Ok(entries) => entries,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            Err(error) => return Err(error),
        };
        let mut queued = Vec::new();
        for entry in entries {
            let entry = entry?;
            let metadata = match entry.metadata() {
                Ok(metadata) if metadata.is_file() => metadata,
                // A plugin has renamed it or taken it back.
                Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
                Ok(_) | Err(_) => {
                    warn!(path = %entry.path().display(), "this is no queued DEL; remove it");
                    continue;
                }
            };
            match host_ifname(&entry) {
                Some(host_ifname) => queued.push(Queued::read(entry.path(), host_ifname, &metadata)),
                None => remove_torn(&entry.path(), &metadata, now),
            }
        }
        queued.sort_by(|a, b| a.file.cmp(&b.file));
        Ok(queued)
    }

    /// Takes a DEL out of the queue without doing it; there need be none.
    ///
    /// # Errors
    /// When its file cannot be removed.
    pub fn forget(&self, host_ifname: &str) -> io::Result<()> {
        remove(&self.dir.join(format!("{host_ifname}.json")))
    }
}

impl Queued {
    fn read(file: PathBuf, host_ifname: String, metadata: &fs::Metadata) -> Self {
        let bytes = (metadata.len() <= MAX_FILE_BYTES)
            .then(|| fs::read(&file).ok())
            .flatten();
        Self {
            host_ifname,
            attachment: bytes.and_then(|bytes| serde_json::from_slice(&bytes).ok()),
            file,
        }
    }

    /// The DEL is done. The plugin may have taken it back meanwhile, since the agent answered it after all.
    ///
    /// # Errors
    /// When the file cannot be removed.
    pub fn done(self) -> io::Result<()> {
        remove(&self.file)
    }
}

/// The plugin renames a file when it is whole.
fn host_ifname(entry: &fs::DirEntry) -> Option<String> {
    let name = entry.file_name().into_string().ok()?;
    let host_ifname = name.strip_suffix(".json")?;
    (!host_ifname.starts_with('.')).then(|| host_ifname.to_owned())
}

/// A young one may be under a plugin's pen this very moment.
fn remove_torn(file: &Path, metadata: &fs::Metadata, now: SystemTime) {
    let age = metadata
        .modified()
        .ok()
        .and_then(|time| now.duration_since(time).ok());
    if age.is_some_and(|age| age >= TORN_AFTER)
        && let Err(error) = remove(file)
    {
        warn!(path = %file.display(), %error, "a half-written DEL stays in the queue's directory");
    }
}

fn remove(file: &Path) -> io::Result<()> {
    match fs::remove_file(file) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_missing_directory_is_an_empty_queue() {
        let dir = tempfile::tempdir().unwrap();
        let queue = DeleteQueue::beside(&dir.path().join("cni.sock"));
        assert_eq!(queue.list(SystemTime::now()).unwrap(), []);
    }

    #[test]
    fn old_torn_files_go_and_unreadable_ones_keep_their_name() {
        let (_dir, queue) = queue();
        fs::write(
            queue.dir.join("tw1.json"),
            br#"{"containerID":"a","ifname":"eth0"}"#,
        )
        .unwrap();
        fs::write(queue.dir.join("tw2.json"), b"\0garbage").unwrap();
        let torn = queue.dir.join(".tw3.77");
        fs::write(&torn, b"{").unwrap();
        let list = queue.list(SystemTime::now()).unwrap();
        assert!(torn.exists(), "its plugin may be about to rename it");
        assert_eq!(names(&list), ["tw1", "tw2"]);
        let expected = Attachment {
            container_id: "a".into(),
            ifname: "eth0".into(),
        };
        assert_eq!(list[0].attachment, Some(expected));
        assert_eq!(list[1].attachment, None);
        for one in list {
            one.done().unwrap();
        }
        assert_eq!(queue.list(SystemTime::now() + TORN_AFTER).unwrap(), []);
        assert!(!torn.exists());
    }

    #[test]
    fn what_does_not_belong_there_holds_nothing_up() {
        let (_dir, queue) = queue();
        fs::create_dir(queue.dir.join("directory.json")).unwrap();
        nix::unistd::mkfifo(&queue.dir.join("fifo.json"), nix::sys::stat::Mode::S_IRWXU).unwrap();
        let large = fs::File::create(queue.dir.join("tw1.json")).unwrap();
        large.set_len(1 << 40).unwrap();
        let list = queue.list(SystemTime::now()).unwrap();
        assert_eq!((names(&list), &list[0].attachment), (vec!["tw1"], &None));
    }

    #[test]
    fn a_del_that_the_plugin_took_back_is_done() {
        let (_dir, queue) = queue();
        fs::write(queue.dir.join("tw1.json"), b"").unwrap();
        let list = queue.list(SystemTime::now()).unwrap();
        queue.forget("tw1").unwrap();
        queue.forget("tw1").unwrap();
        for one in list {
            one.done().unwrap();
        }
    }

    fn queue() -> (tempfile::TempDir, DeleteQueue) {
        let dir = tempfile::tempdir().unwrap();
        let queue = DeleteQueue::beside(&dir.path().join("cni.sock"));
        fs::create_dir(&queue.dir).unwrap();
        (dir, queue)
    }

    fn names(list: &[Queued]) -> Vec<&str> {
        list.iter().map(|one| &*one.host_ifname).collect()
    }
}
