// SPDX-License-Identifier: Apache-2.0
//! Which pods run on a node: one file per pod, written by the node's kubelet, read by `lab exec` and `lab status`. It is
//! there although the daemon or the API server is gone.

use std::fs;
use std::io;
use std::net::IpAddr;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::Process;
use crate::error::{Doing as _, Error};

/// A running pod.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PodRecord {
    /// Its Kubernetes namespace.
    pub namespace: String,
    /// Its name.
    pub name: String,
    /// Its UID.
    pub uid: String,
    /// The node it runs on.
    pub node: String,
    /// Its addresses, the primary family first.
    pub ips: Vec<IpAddr>,
    /// The process that holds its network and UTS namespaces; `None` for a pod in its node's network.
    pub sandbox: Option<Process>,
    /// Whether it is ready.
    pub ready: bool,
}

impl PodRecord {
    /// Its network namespace, unless it is its node's.
    #[must_use]
    pub fn netns(&self) -> Option<PathBuf> {
        self.sandbox
            .map(|process| PathBuf::from(format!("/proc/{}/ns/net", process.pid)))
    }

    /// Its UTS namespace, unless it is its node's.
    #[must_use]
    pub fn utsns(&self) -> Option<PathBuf> {
        self.sandbox
            .map(|process| PathBuf::from(format!("/proc/{}/ns/uts", process.pid)))
    }

    /// Its cgroup, below its node's.
    #[must_use]
    pub fn cgroup(&self) -> PathBuf {
        Path::new("pods").join(&self.uid)
    }

    /// Writes the record, replacing an older one.
    ///
    /// # Errors
    /// When the file cannot be written.
    pub fn save(&self, node_dir: &Path) -> Result<(), Error> {
        let path = file(node_dir, &self.namespace, &self.name);
        let json = serde_json::to_vec(self).map_err(io::Error::from);
        json.and_then(|json| write_atomically(&path, &json))
            .doing(|| format!("write {}", path.display()))
    }

    /// Removes a pod's record; the absent is success.
    ///
    /// # Errors
    /// When the file cannot be removed.
    pub fn remove(node_dir: &Path, namespace: &str, name: &str) -> Result<(), Error> {
        let path = file(node_dir, namespace, name);
        match fs::remove_file(&path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                Err(Error::system(format!("remove {}", path.display()), error))
            }
            _ => Ok(()),
        }
    }

    /// The pods of a node, by namespace and name.
    #[must_use]
    pub fn load_all(node_dir: &Path) -> Vec<Self> {
        let entries = fs::read_dir(node_dir.join("pods"))
            .into_iter()
            .flatten()
            .flatten();
        // A record that is being replaced or removed at this moment is no reason to fail.
        let mut pods: Vec<Self> = entries
            .filter(|entry| {
                entry
                    .path()
                    .extension()
                    .is_some_and(|extension| extension == "json")
            })
            .filter_map(|entry| serde_json::from_slice(&fs::read(entry.path()).ok()?).ok())
            .collect();
        pods.sort_by(|a, b| (&a.namespace, &a.name).cmp(&(&b.namespace, &b.name)));
        pods
    }
}

/// Namespace names hold no underscore, so the file name is unique.
fn file(node_dir: &Path, namespace: &str, name: &str) -> PathBuf {
    node_dir.join("pods").join(format!("{namespace}_{name}.json"))
}

/// Writes a file so that a reader sees the old content or the new one.
pub(crate) fn write_atomically(path: &Path, content: &[u8]) -> io::Result<()> {
    if let Some(parent) = path.parent() {
        fs::create_dir_all(parent)?;
    }
    let mut temporary = path.as_os_str().to_owned();
    temporary.push(".new");
    fs::write(&temporary, content)?;
    fs::rename(&temporary, path)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn records_are_saved_listed_and_removed() {
        let dir = std::env::temp_dir().join(format!("thalweg-pods-{}", std::process::id()));
        let record = |name: &str| PodRecord {
            namespace: "default".into(),
            name: name.into(),
            uid: "u".into(),
            node: "node-1".into(),
            ips: vec!["10.244.1.2".parse().unwrap()],
            sandbox: Some(Process::this()),
            ready: true,
        };
        record("b").save(&dir).unwrap();
        record("a").save(&dir).unwrap();
        record("a").save(&dir).unwrap();
        assert_eq!(PodRecord::load_all(&dir), [record("a"), record("b")]);
        PodRecord::remove(&dir, "default", "a").unwrap();
        PodRecord::remove(&dir, "default", "a").unwrap();
        assert_eq!(PodRecord::load_all(&dir), [record("b")]);
        fs::remove_dir_all(dir).unwrap();
    }
}
