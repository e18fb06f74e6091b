// SPDX-License-Identifier: Apache-2.0
//! DELs that the plugin left while no agent ran: one file each, named after the host end of the veth pair.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use cni::Attachment;
use cni::protocol::DELETE_QUEUE_DIR;

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

    /// What waits, in the order of file names. Half-written files (of a plugin that was killed) are removed.
    ///
    /// # Errors
    /// When the directory is there but cannot be read.
    pub fn list(&self) -> io::Result<Vec<Queued>> {
        let entries = match fs::read_dir(&self.dir) {
            Ok(entries) => entries,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            Err(error) => return Err(error),
        };
        let mut queued = Vec::new();
        for entry in entries {
            let file = entry?.path();
            match file
                .file_name()
                .and_then(|name| name.to_str())
                .and_then(|name| name.strip_suffix(".json"))
            {
                Some(host_ifname) if !host_ifname.starts_with('.') => {
                    let attachment = fs::read(&file)
                        .ok()
                        .and_then(|bytes| serde_json::from_slice(&bytes).ok());
                    queued.push(Queued {
                        host_ifname: host_ifname.to_owned(),
                        attachment,
                        file,
                    });
                }
                // The plugin renames a file when it is whole.
                _ => fs::remove_file(&file)?,
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
        match fs::remove_file(self.dir.join(format!("{host_ifname}.json"))) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
            _ => Ok(()),
        }
    }
}

impl Queued {
    /// The DEL is done.
    ///
    /// # Errors
    /// When the file cannot be removed.
    pub fn done(self) -> io::Result<()> {
        fs::remove_file(&self.file)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_missing_directory_is_an_empty_queue() {
        let dir = tempfile::tempdir().unwrap();
        assert_eq!(
            DeleteQueue::beside(&dir.path().join("cni.sock")).list().unwrap(),
            []
        );
    }

    #[test]
    fn torn_files_go_and_unreadable_ones_keep_their_name() {
        let dir = tempfile::tempdir().unwrap();
        let queue = DeleteQueue::beside(&dir.path().join("cni.sock"));
        fs::create_dir(&queue.dir).unwrap();
        fs::write(
            queue.dir.join("tw1.json"),
            br#"{"containerID":"a","ifname":"eth0"}"#,
        )
        .unwrap();
        fs::write(queue.dir.join("tw2.json"), b"\0garbage").unwrap();
        fs::write(queue.dir.join(".tw3.77"), b"{").unwrap();
        let list = queue.list().unwrap();
        assert_eq!(
            list.iter().map(|one| &*one.host_ifname).collect::<Vec<_>>(),
            ["tw1", "tw2"]
        );
        assert_eq!(
            list[0].attachment,
            Some(Attachment {
                container_id: "a".into(),
                ifname: "eth0".into()
            })
        );
        assert_eq!(list[1].attachment, None);
        assert!(!queue.dir.join(".tw3.77").exists());
        for one in list {
            one.done().unwrap();
        }
        assert_eq!(queue.list().unwrap(), []);
    }
}
