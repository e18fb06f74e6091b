// SPDX-License-Identifier: Apache-2.0
//! The network configuration that tells the container runtime to run our plugin.

use std::fs::{self, File};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use serde_json::json;

/// The file's name: container runtimes take the first in the order of names.
pub const FILE: &str = "05-thalweg.conflist";
/// What `libcni` takes for a network configuration.
const EXTENSIONS: [&str; 3] = ["conf", "conflist", "json"];

/// Our file in the container runtime's directory. Nobody else's file is ever touched.
#[derive(Debug, Clone)]
pub struct Conflist {
    dir: PathBuf,
    content: String,
}

/// A configuration file that could not be written, removed or looked for.
#[derive(Debug, thiserror::Error)]
#[error("cannot {operation} {}: {source}; see cni.confDir and whether the directory is writable", path.display())]
pub struct ConflistError {
    operation: &'static str,
    path: PathBuf,
    source: io::Error,
}

impl Conflist {
    /// The file in `dir`, for an agent that listens on `socket`.
    #[must_use]
    pub fn new(dir: &Path, socket: &Path) -> Self {
        Self {
            dir: dir.to_owned(),
            content: content(socket),
        }
    }

    /// Writes the file, whole or not at all; `false` when it was there already as it should be.
    ///
    /// # Errors
    /// When the directory cannot be written.
    pub fn write(&self) -> Result<bool, ConflistError> {
        let path = self.path();
        if fs::read(&path).is_ok_and(|found| found == self.content.as_bytes()) {
            return Ok(false);
        }
        self.replace(&path)
            .map(|()| true)
            .map_err(|source| ConflistError {
                operation: "write",
                path,
                source,
            })
    }

    /// Removes the file; `false` when there was none.
    ///
    /// # Errors
    /// When the directory cannot be written.
    pub fn remove(&self) -> Result<bool, ConflistError> {
        let path = self.path();
        match fs::remove_file(&path) {
            Ok(()) => Ok(true),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
            Err(source) => Err(ConflistError {
                operation: "remove",
                path,
                source,
            }),
        }
    }

    /// Whether the file is there as it should be.
    #[must_use]
    pub fn is_current(&self) -> bool {
        fs::read(self.path()).is_ok_and(|found| found == self.content.as_bytes())
    }

    /// Other configurations that sort before ours: the runtime takes the first one, so pods would get another network.
    ///
    /// # Errors
    /// When the directory is there but cannot be read.
    pub fn rivals(&self) -> Result<Vec<String>, ConflistError> {
        let fail = |source| ConflistError {
            operation: "read",
            path: self.dir.clone(),
            source,
        };
        let entries = match fs::read_dir(&self.dir) {
            Ok(entries) => entries,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            Err(error) => return Err(fail(error)),
        };
        let mut rivals = Vec::new();
        for entry in entries {
            let name = entry.map_err(fail)?.file_name().to_string_lossy().into_owned();
            let extension = Path::new(&name)
                .extension()
                .and_then(|extension| extension.to_str());
            if extension.is_some_and(|one| EXTENSIONS.contains(&one)) && name.as_str() < FILE {
                rivals.push(name);
            }
        }
        rivals.sort();
        Ok(rivals)
    }

    fn path(&self) -> PathBuf {
        self.dir.join(FILE)
    }

    /// Written beside and renamed: the runtime watches the directory and must never see half a file. The name has no extension
    /// that it would read.
    fn replace(&self, path: &Path) -> io::Result<()> {
        fs::create_dir_all(&self.dir)?;
        let temporary = self.dir.join(format!(".{FILE}.tmp"));
        let mut file = File::create(&temporary)?;
        file.write_all(self.content.as_bytes())?;
        file.sync_all()?;
        fs::rename(&temporary, path)?;
        File::open(&self.dir)?.sync_all()
    }
}

/// `cniVersion` is what runtimes with libcni before 1.2 (containerd 1.7, CRI-O 1.28) understand; newer ones take the best of
/// `cniVersions` and so get GC and STATUS.
fn content(socket: &Path) -> String {
    let versions: Vec<&str> = cni::Version::ALL.into_iter().map(cni::Version::as_str).collect();
    let conflist = json!({
        "cniVersion": cni::Version::V1_0_0.as_str(),
        "cniVersions": versions,
        "name": cni::NETWORK_NAME,
        "plugins": [{"type": cni::PLUGIN_TYPE, "socket": socket}],
    });
    format!("{conflist:#}\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_written_once_and_taken_away_once() {
        let dir = tempfile::tempdir().unwrap();
        let conflist = Conflist::new(&dir.path().join("net.d"), Path::new("/run/thalweg/cni.sock"));
        assert!(!conflist.is_current());
        assert!(conflist.write().unwrap());
        assert!(!conflist.write().unwrap() && conflist.is_current());
        fs::write(conflist.path(), b"{}").unwrap();
        assert!(conflist.write().unwrap(), "a changed file is put right");
        assert_eq!(
            fs::read_dir(&conflist.dir).unwrap().count(),
            1,
            "no temporary file stays"
        );
        assert!(conflist.remove().unwrap() && !conflist.remove().unwrap());
    }

    #[test]
    fn what_sorts_first_is_named_and_left_alone() {
        let dir = tempfile::tempdir().unwrap();
        let conflist = Conflist::new(dir.path(), Path::new("/run/thalweg/cni.sock"));
        for name in [
            "00-other.conflist",
            "10-aws.conflist",
            "04-x.conf",
            "01-note.txt",
            "03-old.conflist.bak",
        ] {
            fs::write(dir.path().join(name), b"{}").unwrap();
        }
        conflist.write().unwrap();
        assert_eq!(conflist.rivals().unwrap(), ["00-other.conflist", "04-x.conf"]);
        assert!(dir.path().join("00-other.conflist").exists());
    }

    #[test]
    fn old_and_new_runtimes_find_their_version() {
        let conflist: serde_json::Value = serde_json::from_str(&content(Path::new("/s"))).unwrap();
        assert_eq!(conflist["cniVersion"], "1.0.0");
        assert!(
            conflist["cniVersions"]
                .as_array()
                .unwrap()
                .contains(&"1.1.0".into())
        );
        assert_eq!(
            conflist["plugins"][0],
            json!({"type": "thalweg-cni", "socket": "/s"})
        );
    }
}
