// SPDX-License-Identifier: Apache-2.0
//! What ADD returned, kept for CHECK, DEL and GC: one file per attachment, in libcni's format.

use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use super::network::Attachment;
use super::{Conflist, Error};

const KIND: &str = "cniCacheV1";

/// An attachment that was begun; without a result when ADD did not come to its end.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct CachedAttachment {
    kind: String,
    /// The network's name.
    #[serde(rename = "networkName")]
    pub network: String,
    /// The attachment, as it was given to ADD.
    #[serde(flatten)]
    pub attachment: Attachment,
    /// The configuration that ADD ran with: DEL uses it, whatever has become of the file.
    config: Config,
    /// What the last plugin returned.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub result: Option<Value>,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
struct Config {
    name: String,
    #[serde(rename = "cniVersion")]
    version: String,
    plugins: Vec<Map<String, Value>>,
}

impl CachedAttachment {
    pub(super) fn new(conflist: &Conflist, attachment: &Attachment, result: Option<Value>) -> Self {
        let config = Config {
            name: conflist.name.clone(),
            version: conflist.version.clone(),
            plugins: conflist.plugins.clone(),
        };
        Self {
            kind: KIND.into(),
            network: conflist.name.clone(),
            attachment: attachment.clone(),
            config,
            result,
        }
    }

    /// The network as ADD found it.
    #[must_use]
    pub fn conflist(&self) -> Conflist {
        Conflist {
            path: PathBuf::new(),
            name: self.config.name.clone(),
            version: self.config.version.clone(),
            disable_check: false,
            disable_gc: false,
            plugins: self.config.plugins.clone(),
        }
    }
}

fn path(directory: &Path, network: &str, attachment: &Attachment) -> PathBuf {
    directory.join(format!(
        "{network}-{}-{}",
        attachment.container_id, attachment.ifname
    ))
}

/// Written under another name first: a reader sees all or nothing.
pub(super) fn store(directory: &Path, cached: &CachedAttachment) -> Result<(), Error> {
    let path = path(directory, &cached.network, &cached.attachment);
    let write = || {
        std::fs::create_dir_all(directory)?;
        let temporary = directory.join(format!(".{}.new", cached.attachment.container_id));
        std::fs::write(&temporary, serde_json::to_vec(cached)?)?;
        std::fs::rename(&temporary, &path)
    };
    write().map_err(|source| Error::file("write", &path, source))
}

pub(super) fn load(directory: &Path, network: &str, attachment: &Attachment) -> Option<CachedAttachment> {
    read(&path(directory, network, attachment))
}

pub(super) fn remove(directory: &Path, network: &str, attachment: &Attachment) -> Result<(), Error> {
    let path = path(directory, network, attachment);
    match std::fs::remove_file(&path) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err(Error::file("remove", path, error)),
        _ => Ok(()),
    }
}

/// Every attachment in the cache; files that do not parse are not ours.
pub(super) fn all(directory: &Path) -> Vec<CachedAttachment> {
    let entries = std::fs::read_dir(directory).into_iter().flatten().flatten();
    entries.filter_map(|entry| read(&entry.path())).collect()
}

fn read(path: &Path) -> Option<CachedAttachment> {
    let cached: CachedAttachment = serde_json::from_slice(&std::fs::read(path).ok()?).ok()?;
    (cached.kind == KIND).then_some(cached)
}
