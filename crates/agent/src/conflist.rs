// SPDX-License-Identifier: Apache-2.0
//! The network configuration that tells the container runtime to run our plugin.

mod others;

use std::fs::{self, File};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use api::config::PluginSection;
use serde_json::{Map, Value, json};

pub use others::{ASIDE_SUFFIX, Others};

/// The file's name: container runtimes take the first in the order of names.
pub const FILE: &str = "05-thalweg.conflist";

/// Our file in the container runtime's directory, and what becomes of [`Others`]' files there.
#[derive(Debug, Clone)]
pub struct Conflist {
    dir: PathBuf,
    own: Value,
    chained: Vec<Value>,
    behind: Option<String>,
}

/// A configuration file that could not be written, removed or looked for.
#[derive(Debug, thiserror::Error)]
#[error("cannot {operation} {}: {source}; see cni.confDir and whether the directory is writable", path.display())]
pub struct ConflistError {
    operation: &'static str,
    path: PathBuf,
    source: io::Error,
}

impl ConflistError {
    fn new(operation: &'static str, path: &Path) -> impl Fn(io::Error) -> Self + use<> {
        let path = path.to_owned();
        move |source| Self {
            operation,
            path: path.clone(),
            source,
        }
    }
}

impl Conflist {
    /// The file in `dir`, for an agent that listens on `socket`; `chained` plugins run after ours, those of the network `behind`
    /// before.
    #[must_use]
    pub fn new(dir: &Path, socket: &Path, chained: &[PluginSection], behind: Option<&str>) -> Self {
        Self {
            dir: dir.to_owned(),
            own: own(socket, chained),
            chained: chained
                .iter()
                .map(|one| Value::Object(one.value().clone()))
                .collect(),
            behind: behind.map(str::to_owned),
        }
    }

    /// Writes the file, whole or not at all; `false` when it was there already as it should be.
    ///
    /// # Errors
    /// When the directory cannot be written.
    pub fn write(&self) -> Result<bool, ConflistError> {
        let (path, content) = (self.path(), self.content()?);
        if fs::read(&path).is_ok_and(|found| found == content.as_bytes()) {
            return Ok(false);
        }
        let written = self.replace(&path, &content);
        written.map(|()| true).map_err(ConflistError::new("write", &path))
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
            Err(error) => Err(ConflistError::new("remove", &path)(error)),
        }
    }

    /// Whether the file is there as it should be.
    #[must_use]
    pub fn is_current(&self) -> bool {
        let content = self.content();
        content.is_ok_and(|content| fs::read(self.path()).is_ok_and(|found| found == content.as_bytes()))
    }

    /// Whether the runtime runs a plugin of this kind too, before us or after.
    #[must_use]
    pub fn runs(&self, kind: &str) -> bool {
        let list = self.whole().unwrap_or_default();
        let mut plugins = list["plugins"].as_array().into_iter().flatten();
        plugins.any(|plugin| plugin["type"] == kind)
    }

    fn content(&self) -> Result<String, ConflistError> {
        self.whole().map(|list| format!("{list:#}\n"))
    }

    fn whole(&self) -> Result<Value, ConflistError> {
        match &self.behind {
            None => Ok(self.list()),
            Some(name) => self.list_behind(name),
        }
    }

    /// `cniVersion` is what runtimes with libcni before 1.2 (containerd 1.7, CRI-O 1.28) understand; newer ones take the best of
    /// `cniVersions` and so get GC and STATUS. Every plugin of a list must understand the version that is taken: Debian's know none
    /// after 1.0.0.
    fn list(&self) -> Value {
        let newest = if self.chained.is_empty() {
            cni::Version::NEWEST
        } else {
            cni::Version::V1_0_0
        };
        let offered = cni::Version::ALL.into_iter().filter(|version| *version <= newest);
        let versions: Vec<&str> = offered.map(cni::Version::as_str).collect();
        json!({
            "cniVersion": cni::Version::V1_0_0.as_str(),
            "cniVersions": versions,
            "name": cni::NETWORK_NAME,
            "plugins": self.after([]),
        })
    }

    /// The list of the network before us, with us behind its plugins. It keeps its name, its versions and all else.
    fn list_behind(&self, name: &str) -> Result<Value, ConflistError> {
        for file in Others::find(&self.dir)?.present {
            if let Some((mut list, before)) = list_of(&self.dir.join(&file), name) {
                list.insert("plugins".to_owned(), self.after(before).into());
                return Ok(Value::Object(list));
            }
        }
        let reason = format!("there is none of the name {name} yet (cni.chainingMode, cni.chainingTarget)");
        Err(ConflistError::new("find the network before us in", &self.dir)(
            io::Error::other(reason),
        ))
    }

    fn after(&self, before: impl IntoIterator<Item = Value>) -> Vec<Value> {
        let before = before.into_iter();
        let own = std::iter::once(self.own.clone());
        before.chain(own).chain(self.chained.iter().cloned()).collect()
    }

    /// Whether the list is that of another network, with us behind it.
    #[must_use]
    pub const fn is_behind(&self) -> bool {
        self.behind.is_some()
    }

    /// The directory.
    #[must_use]
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    fn path(&self) -> PathBuf {
        self.dir.join(FILE)
    }

    /// Written beside and renamed: the runtime watches the directory and must never see half a file. The name has no extension
    /// that it would read. Another network's list may hold secrets: it is root's alone to read.
    fn replace(&self, path: &Path, content: &str) -> io::Result<()> {
        fs::create_dir_all(&self.dir)?;
        let temporary = self.dir.join(format!(".{FILE}.tmp"));
        // One that was left there has another mode, perhaps.
        let _ = fs::remove_file(&temporary);
        let mut options = File::options();
        let mut file = options
            .write(true)
            .create_new(true)
            .mode(0o600)
            .open(&temporary)?;
        file.write_all(content.as_bytes())?;
        file.sync_all()?;
        fs::rename(&temporary, path)?;
        File::open(&self.dir)?.sync_all()
    }
}

/// The list of the network `name` without its plugins, and these, if that is what the file holds: others' files may hold anything.
/// Ours, which somebody may have put there by hand, comes after them anyway.
fn list_of(file: &Path, name: &str) -> Option<(Map<String, Value>, Vec<Value>)> {
    let Ok(Value::Object(mut list)) = serde_json::from_slice(&others::read(file).ok()?) else {
        return None;
    };
    if list.get("name")?.as_str()? != name {
        return None;
    }
    let mut plugins = match list.remove("plugins") {
        Some(Value::Array(plugins)) => plugins,
        Some(_) => return None,
        None => {
            let single = list.clone();
            list.retain(|key, _| ["name", "cniVersion", "cniVersions"].contains(&key.as_str()));
            vec![Value::Object(single)]
        }
    };
    let kind = |plugin: &Value| plugin.get("type")?.as_str().map(str::to_owned);
    plugins.retain(|plugin| kind(plugin).as_deref() != Some(cni::PLUGIN_TYPE));
    let is_usable = !plugins.is_empty() && plugins.iter().all(|plugin| kind(plugin).is_some());
    is_usable.then_some((list, plugins))
}

/// What we must know of a pod before a plugin after ours is told: which of its queues are to be passed, which MAC it will have, and
/// whether it is reached by the node's loopback address.
const WISHES: [(&str, &str); 3] = [
    ("portmap", "portMappings"),
    ("bandwidth", "bandwidth"),
    ("tuning", "mac"),
];

/// Our section.
fn own(socket: &Path, chained: &[PluginSection]) -> Value {
    let mut own = json!({"type": cni::PLUGIN_TYPE, "socket": socket});
    let wishes: Map<String, Value> = WISHES
        .iter()
        .filter(|(plugin, _)| chained.iter().any(|one| one.kind() == *plugin))
        .map(|(_, capability)| ((*capability).to_owned(), true.into()))
        .collect();
    if !wishes.is_empty() {
        own["capabilities"] = Value::Object(wishes);
    }
    own
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_written_once_and_taken_away_once() {
        let dir = tempfile::tempdir().unwrap();
        let conflist = Conflist::new(
            &dir.path().join("net.d"),
            Path::new("/run/thalweg/cni.sock"),
            &[],
            None,
        );
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
    fn old_and_new_runtimes_find_their_version() {
        let conflist = written(&[], None);
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

    #[test]
    fn plugins_after_ours_follow_in_their_order_and_we_are_told_what_they_are() {
        let yaml =
            "cni.chainedPlugins: [portmap, bandwidth, {type: tuning, sysctl: {net.core.somaxconn: '500'}}]";
        let config = api::config::Config::from_yaml(yaml.as_bytes()).unwrap();
        let conflist = written(&config.cni.chained, None);
        let plugins = conflist["plugins"].as_array().unwrap();
        let kinds: Vec<_> = plugins.iter().map(|one| one["type"].as_str().unwrap()).collect();
        assert_eq!(kinds, ["thalweg-cni", "portmap", "bandwidth", "tuning"]);
        assert_eq!(
            conflist["cniVersions"].as_array().unwrap().last().unwrap(),
            "1.0.0"
        );
        assert_eq!(
            plugins[0]["capabilities"],
            json!({"bandwidth": true, "mac": true, "portMappings": true})
        );
        assert_eq!(plugins[1]["capabilities"], json!({"portMappings": true}));
        assert_eq!(plugins[3]["sysctl"], json!({"net.core.somaxconn": "500"}));
    }

    #[test]
    fn behind_another_network_its_list_is_kept_and_ours_comes_last() {
        let dir = tempfile::tempdir().unwrap();
        let conflist = Conflist::new(dir.path(), Path::new("/s"), &[], Some("aws-cni"));
        let error = conflist.write().unwrap_err().to_string();
        assert!(error.contains("there is none of the name aws-cni yet"), "{error}");
        assert!(!conflist.is_current());

        let aws = json!({"cniVersion": "0.4.0", "name": "aws-cni", "disableCheck": true,
            "plugins": [{"name": "aws-cni", "type": "aws-cni"}, {"type": "portmap"}]});
        fs::write(dir.path().join("10-aws.conflist"), aws.to_string()).unwrap();
        fs::write(dir.path().join("09-broken.conf"), "{").unwrap();
        assert!(conflist.write().unwrap() && conflist.is_current());
        let mode =
            std::os::unix::fs::PermissionsExt::mode(&fs::metadata(conflist.path()).unwrap().permissions());
        assert_eq!(mode & 0o777, 0o600, "what that list keeps secret stays so");
        let written: Value = serde_json::from_slice(&fs::read(conflist.path()).unwrap()).unwrap();
        let mut expected = aws.clone();
        let ours = json!({"type": "thalweg-cni", "socket": "/s"});
        expected["plugins"].as_array_mut().unwrap().push(ours.clone());
        assert_eq!(written, expected);

        // A single plugin's configuration, and one that changes.
        let single = json!({"cniVersion": "1.0.0", "name": "aws-cni", "type": "other", "mtu": 9001});
        fs::write(dir.path().join("10-aws.conflist"), single.to_string()).unwrap();
        assert!(!conflist.is_current());
        conflist.write().unwrap();
        let written: Value = serde_json::from_slice(&fs::read(conflist.path()).unwrap()).unwrap();
        let expected = json!({"cniVersion": "1.0.0", "name": "aws-cni", "plugins": [single, ours]});
        assert_eq!(written, expected);
    }

    #[test]
    fn what_no_runtime_could_use_is_no_network_before_us() {
        let dir = tempfile::tempdir().unwrap();
        let conflist = Conflist::new(dir.path(), Path::new("/s"), &[], Some("other"));
        nix::unistd::mkfifo(&dir.path().join("01-pipe.conf"), nix::sys::stat::Mode::S_IRWXU).unwrap();
        let huge = File::create(dir.path().join("02-huge.conf")).unwrap();
        huge.set_len(1 << 40).unwrap();
        let file = dir.path().join("10-other.conflist");
        for unusable in [
            json!({"name": "other"}),
            json!({"name": "other", "plugins": []}),
            json!({"name": "other", "plugins": null}),
            json!({"name": "other", "plugins": [{"type": "ptp"}, {}]}),
            json!({"name": "other", "plugins": ["ptp"]}),
            json!({"name": "other", "plugins": [{"type": "thalweg-cni"}]}),
            json!(["other"]),
        ] {
            fs::write(&file, unusable.to_string()).unwrap();
            let error = conflist.write().unwrap_err().to_string();
            assert!(
                error.contains("there is none of the name other"),
                "{unusable}: {error}"
            );
        }
        // Of two of one name, the first by file name is the one that the runtime would have taken.
        let list = |kind: &str| {
            json!({"name": "other", "plugins": [{"type": kind}, {"type": "thalweg-cni"}]}).to_string()
        };
        fs::write(&file, list("second")).unwrap();
        fs::write(dir.path().join("09-other.conflist"), list("first")).unwrap();
        conflist.write().unwrap();
        let written: Value = serde_json::from_slice(&fs::read(conflist.path()).unwrap()).unwrap();
        let ours = json!({"type": "thalweg-cni", "socket": "/s"});
        assert_eq!(written["plugins"], json!([{"type": "first"}, ours]));
    }

    fn written(chained: &[PluginSection], behind: Option<&str>) -> Value {
        let conflist = Conflist::new(Path::new("/d"), Path::new("/s"), chained, behind);
        serde_json::from_str(&conflist.content().unwrap()).unwrap()
    }
}
