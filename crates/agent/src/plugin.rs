// SPDX-License-Identifier: Apache-2.0
//! The plugin's file where the container runtime looks for it: whether it is there, whether it is ours and of this release; and,
//! where it is told so, putting it there.

use std::fs::{self, File, Metadata};
use std::io;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};

use tracing::{info, warn};

/// The plugin has less than a MiB; what is far beyond is something else and not read.
const MAX_BYTES: u64 = 64 << 20;
const MODE: u32 = 0o755;
const ANY_EXECUTE: u32 = 0o111;
const OWN_RELEASE: &str = env!("CARGO_PKG_VERSION");

/// The plugin's file, looked at again only when it has changed.
#[derive(Debug)]
pub struct Plugin {
    file: PathBuf,
    /// What to install from; nothing where others install the plugin.
    source: Option<PathBuf>,
    seen: Option<(Stamps, Result<String, String>)>,
}

/// The plugin is not there as it should be.
#[derive(Debug, thiserror::Error)]
pub enum PluginError {
    /// No file.
    #[error(
        "there is no {}: pods cannot be started; install thalweg-cni there, set cni.installPlugin=true to have the agent do it, \
         or correct cni.binDir (for an agent in a container: is the node's directory mounted?)", .0.display()
    )]
    Missing(PathBuf),
    /// Something else than the plugin.
    #[error("{} {what}: pods cannot be started; install thalweg-cni {OWN_RELEASE} there", path.display())]
    Unusable {
        /// Its path.
        path: PathBuf,
        /// What it is instead.
        what: &'static str,
    },
    /// Nothing to install.
    #[error(
        "cni.installPlugin is set, but {} cannot be read: {source}; put thalweg-cni beside thalweg, or install it in cni.binDir \
         otherwise and set cni.installPlugin=false", path.display()
    )]
    NoSource {
        /// Where it should be.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
    /// It could not be read or written.
    #[error("cannot {operation} {}: {source}; see cni.binDir and whether the directory is writable", path.display())]
    Io {
        /// What was tried.
        operation: &'static str,
        /// With which file.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
}

/// Tells one content of a file from the next without reading it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Stamp {
    device: u64,
    inode: u64,
    bytes: u64,
    modified: (i64, i64),
    changed: (i64, i64),
}

type Stamps = (Option<Stamp>, Option<Stamp>);

impl Plugin {
    /// The plugin in `bin_dir`. With `install` it is put there, from beside this very program.
    #[must_use]
    pub fn new(bin_dir: &Path, install: bool) -> Self {
        let own = std::env::current_exe().unwrap_or_default();
        Self::with(bin_dir, install.then(|| own.with_file_name(cni::PLUGIN_TYPE)))
    }

    fn with(bin_dir: &Path, source: Option<PathBuf>) -> Self {
        Self {
            file: bin_dir.join(cni::PLUGIN_TYPE),
            source,
            seen: None,
        }
    }

    /// Installs the plugin if it is to be, and says which one is there.
    ///
    /// # Errors
    /// In words for people: pods cannot be started.
    pub fn check(&mut self) -> Result<String, String> {
        if let Some((stamps, result)) = &self.seen
            && *stamps == self.stamps()
        {
            return result.clone();
        }
        let result = self.install().and_then(|()| self.inspect());
        let result = result.map_err(|error| error.to_string());
        self.seen = Some((self.stamps(), result.clone()));
        result
    }

    fn stamps(&self) -> Stamps {
        let source = self.source.as_deref().and_then(stamp);
        (stamp(&self.file), source)
    }

    fn inspect(&self) -> Result<String, PluginError> {
        let path = || self.file.clone();
        let unusable = |what| PluginError::Unusable { path: path(), what };
        let metadata = match fs::metadata(&self.file) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                return Err(PluginError::Missing(path()));
            }
            other => other.map_err(self.io("read"))?,
        };
        if !metadata.is_file() || metadata.len() > MAX_BYTES {
            return Err(unusable("is not a program"));
        }
        if metadata.permissions().mode() & ANY_EXECUTE == 0 {
            return Err(unusable("may not be executed"));
        }
        let content = fs::read(&self.file).map_err(self.io("read"))?;
        match cni::release_of(&content) {
            None => Err(unusable("is another program than thalweg-cni")),
            Some(OWN_RELEASE) => Ok(format!(
                "thalweg-cni {OWN_RELEASE} is in {}",
                self.dir().display()
            )),
            Some(other) => {
                warn!(plugin = other, agent = OWN_RELEASE, path = %self.file.display(), "plugin and agent are of different releases");
                Ok(format!(
                    "{} is of release {other}, this agent of {OWN_RELEASE}; install both of one release",
                    self.file.display()
                ))
            }
        }
    }

    /// Beside and renamed: the runtime must never run half a file, and one that runs now is not disturbed.
    fn install(&self) -> Result<(), PluginError> {
        let Some(source) = &self.source else { return Ok(()) };
        let no_source = |error| PluginError::NoSource {
            path: source.clone(),
            source: error,
        };
        let content = fs::read(source).map_err(no_source)?;
        let same =
            |metadata: &Metadata| metadata.is_file() && metadata.permissions().mode() & ANY_EXECUTE != 0;
        if fs::metadata(&self.file).is_ok_and(|metadata| same(&metadata))
            && fs::read(&self.file).is_ok_and(|found| found == content)
        {
            return Ok(());
        }
        let temporary = self.dir().join(format!(".{}.tmp", cni::PLUGIN_TYPE));
        let installed = write(&temporary, &content).and_then(|()| fs::rename(&temporary, &self.file));
        if installed.is_err() {
            let _ = fs::remove_file(&temporary);
        }
        installed.map_err(self.io("install"))?;
        info!(path = %self.file.display(), "installed the plugin");
        Ok(())
    }

    fn dir(&self) -> &Path {
        self.file.parent().unwrap_or(&self.file)
    }

    fn io(&self, operation: &'static str) -> impl FnOnce(io::Error) -> PluginError {
        let path = self.file.clone();
        move |source| PluginError::Io {
            operation,
            path,
            source,
        }
    }
}

fn write(path: &Path, content: &[u8]) -> io::Result<()> {
    use std::io::Write as _;
    if let Some(dir) = path.parent() {
        fs::create_dir_all(dir)?;
    }
    let mut file = File::create(path)?;
    file.write_all(content)?;
    file.set_permissions(fs::Permissions::from_mode(MODE))?;
    file.sync_all()
}

fn stamp(path: &Path) -> Option<Stamp> {
    let metadata = fs::metadata(path).ok()?;
    Some(Stamp {
        device: metadata.dev(),
        inode: metadata.ino(),
        bytes: metadata.len(),
        modified: (metadata.mtime(), metadata.mtime_nsec()),
        changed: (metadata.ctime(), metadata.ctime_nsec()),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_missing_plugin_is_named_and_one_that_comes_is_found() {
        let dir = tempfile::tempdir().unwrap();
        let mut plugin = Plugin::with(dir.path(), None);
        assert!(plugin.check().unwrap_err().contains("cni.installPlugin=true"));
        put(&plugin.file, cni::ABOUT, MODE);
        assert!(plugin.check().unwrap().contains(OWN_RELEASE));
        fs::remove_file(&plugin.file).unwrap();
        plugin.check().unwrap_err();
    }

    #[test]
    fn what_cannot_be_run_or_is_another_program_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let mut plugin = Plugin::with(dir.path(), None);
        put(&plugin.file, cni::ABOUT, 0o644);
        assert!(plugin.check().unwrap_err().contains("may not be executed"));
        put(&plugin.file, "#!/bin/sh\n", MODE);
        assert!(plugin.check().unwrap_err().contains("another program"));
        fs::remove_file(&plugin.file).unwrap();
        fs::create_dir(&plugin.file).unwrap();
        assert!(plugin.check().unwrap_err().contains("is not a program"));
    }

    #[test]
    fn another_release_is_told_and_is_no_reason_to_take_no_pods() {
        let dir = tempfile::tempdir().unwrap();
        let mut plugin = Plugin::with(dir.path(), None);
        put(&plugin.file, "thalweg-cni 0.0.1: a CNI plugin", MODE);
        let said = plugin.check().unwrap();
        assert!(
            said.contains("0.0.1") && said.contains("of one release"),
            "{said}"
        );
    }

    #[test]
    fn it_is_installed_whole_and_put_right_when_somebody_changes_it() {
        let dir = tempfile::tempdir().unwrap();
        let source = dir.path().join("source");
        put(&source, cni::ABOUT, 0o600);
        let bin = dir.path().join("opt/cni/bin");
        let mut plugin = Plugin::with(&bin, Some(source.clone()));
        plugin.check().unwrap();
        assert_eq!(
            fs::metadata(&plugin.file).unwrap().permissions().mode() & 0o777,
            MODE
        );
        put(&plugin.file, "other", MODE);
        plugin.check().unwrap();
        assert_eq!(fs::read_to_string(&plugin.file).unwrap(), cni::ABOUT);
        assert_eq!(fs::read_dir(&bin).unwrap().count(), 1, "no temporary file stays");
        let before = stamp(&plugin.file);
        Plugin::with(&bin, Some(source)).check().unwrap();
        assert_eq!(stamp(&plugin.file), before, "what is right is not written again");
    }

    #[test]
    fn without_a_source_there_is_nothing_to_install() {
        let dir = tempfile::tempdir().unwrap();
        let mut plugin = Plugin::with(dir.path(), Some(dir.path().join("absent")));
        assert!(plugin.check().unwrap_err().contains("beside thalweg"));
    }

    fn put(path: &Path, content: &str, mode: u32) {
        fs::write(path, content).unwrap();
        fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
    }
}
