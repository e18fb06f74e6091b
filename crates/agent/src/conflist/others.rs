// SPDX-License-Identifier: Apache-2.0
//! Other networks' configurations in the container runtime's directory: which there are, and setting them aside.
//!
//! A file is set aside by renaming it, so that the runtime no longer takes it for a configuration and nothing of it is lost;
//! putting it back is the reverse. What the way back to another network put there on purpose is never touched.

use std::fs::{self, File};
use std::io::{self, Read};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use super::{ConflistError, FILE};

/// What `libcni` takes for a network configuration.
const EXTENSIONS: [&str; 3] = ["conf", "conflist", "json"];
/// More is in no configuration.
const SIZE_MAX: u64 = 1 << 20;
/// What the name of a file ends with that was set aside.
pub const ASIDE_SUFFIX: &str = ".thalweg_bak";

/// Other networks' configurations.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Others {
    /// Those that are in force beside ours, in the order in which the runtime looks at them.
    pub present: Vec<String>,
    /// Those that were set aside, by the names that they had.
    pub aside: Vec<String>,
}

impl Others {
    /// Looks at a directory; one that does not exist holds nothing.
    ///
    /// # Errors
    /// When it is there but cannot be read.
    pub fn find(dir: &Path) -> Result<Self, ConflistError> {
        let fail = ConflistError::new("read", dir);
        let entries = match fs::read_dir(dir) {
            Ok(entries) => entries,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Self::default()),
            Err(error) => return Err(fail(error)),
        };
        let mut others = Self::default();
        for entry in entries {
            let entry = match entry {
                Ok(entry) => entry,
                Err(error) => return Err(fail(error)),
            };
            // A name that is no text is not touched either: it could not be shown.
            let Ok(name) = entry.file_name().into_string() else {
                continue;
            };
            let (was, list) = match name.strip_suffix(ASIDE_SUFFIX) {
                Some(was) => (was, &mut others.aside),
                None => (&*name, &mut others.present),
            };
            if is_configuration(was) && was != FILE && !entry.path().is_dir() {
                list.push(was.to_owned());
            }
        }
        others.present.sort();
        others.aside.sort();
        Ok(others)
    }

    /// Those that sort before ours: the runtime takes the first one, so pods would get another network.
    #[must_use]
    pub fn rivals(&self) -> Vec<&str> {
        let before = self.present.iter().map(String::as_str);
        before.filter(|name| *name < FILE).collect()
    }

    /// Renames all that are in force, and says which. An older file that was set aside under the same name makes way.
    ///
    /// # Errors
    /// When one cannot be renamed; the others are.
    pub fn set_aside(&mut self, dir: &Path) -> Result<Vec<String>, ConflistError> {
        let (mut done, mut failed) = (Vec::new(), None);
        let on_purpose = |name: &String| name.starts_with(cni::ROLLBACK_PREFIX);
        for name in std::mem::take(&mut self.present) {
            if on_purpose(&name) {
                self.present.push(name);
                continue;
            }
            let path = dir.join(&name);
            match fs::rename(&path, aside(dir, &name)) {
                Ok(()) => done.push(name),
                // Its owner was faster.
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                Err(error) => {
                    failed.get_or_insert_with(|| ConflistError::new("set aside", &path)(error));
                    self.present.push(name);
                }
            }
        }
        self.aside.extend(done.iter().cloned());
        self.aside.sort();
        self.aside.dedup();
        sync(dir, !done.is_empty());
        failed.map_or(Ok(done), Err)
    }

    /// Gives all that were set aside their names back, and says which. Where there is a file of that name again, its owner
    /// has written it anew: an equal copy is removed, one that differs stays aside.
    ///
    /// # Errors
    /// When one cannot be renamed; the others are.
    pub fn put_back(&mut self, dir: &Path) -> Result<Vec<String>, ConflistError> {
        let (mut done, mut failed) = (Vec::new(), None);
        for name in std::mem::take(&mut self.aside) {
            let (from, to) = (aside(dir, &name), dir.join(&name));
            let outcome = if fs::symlink_metadata(&to).is_err() {
                fs::rename(&from, &to).map(|()| true)
            } else if read(&to).is_ok_and(|content| read(&from).is_ok_and(|copy| copy == content)) {
                fs::remove_file(&from).map(|()| true)
            } else {
                Ok(false)
            };
            match outcome {
                Ok(true) => done.push(name),
                Ok(false) => self.aside.push(name),
                Err(error) => {
                    failed.get_or_insert_with(|| ConflistError::new("put back", &from)(error));
                    self.aside.push(name);
                }
            }
        }
        self.present.extend(done.iter().cloned());
        self.present.sort();
        self.present.dedup();
        sync(dir, !done.is_empty());
        failed.map_or(Ok(done), Err)
    }
}

/// What a file holds; nothing that could be waited for, or that could fill the memory, such as a pipe or a disk's image.
pub(super) fn read(path: &Path) -> io::Result<Vec<u8>> {
    let file = File::options()
        .read(true)
        .custom_flags(libc::O_NONBLOCK)
        .open(path)?;
    let found = file.metadata()?;
    if !found.is_file() || found.len() > SIZE_MAX {
        return Err(io::ErrorKind::InvalidData.into());
    }
    let mut content = Vec::new();
    file.take(SIZE_MAX).read_to_end(&mut content)?;
    Ok(content)
}

/// As libcni has it, for which `.conf` is a name with an extension.
fn is_configuration(name: &str) -> bool {
    let extension = name.rsplit_once('.').map(|(_, extension)| extension);
    extension.is_some_and(|one| EXTENSIONS.contains(&one))
}

fn aside(dir: &Path, name: &str) -> PathBuf {
    dir.join(format!("{name}{ASIDE_SUFFIX}"))
}

/// A rename is in force at once; that it also survives a power failure is a courtesy.
fn sync(dir: &Path, changed: bool) {
    if changed && let Ok(dir) = File::open(dir) {
        let _ = dir.sync_all();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const AWS: &str = "10-aws.conflist";

    fn directory(files: &[&str]) -> tempfile::TempDir {
        let dir = tempfile::tempdir().unwrap();
        for name in files {
            fs::write(dir.path().join(name), name).unwrap();
        }
        dir
    }

    fn names(dir: &tempfile::TempDir) -> Vec<String> {
        let entries = fs::read_dir(dir.path()).unwrap();
        let mut names: Vec<String> = entries
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect();
        names.sort();
        names
    }

    #[test]
    fn what_the_runtime_would_take_is_found_in_its_order() {
        let dir = directory(&[
            "00-other.conflist",
            AWS,
            "04-x.conf",
            "01-note.txt",
            FILE,
            "03-old.conflist.bak",
            ".conf",
            ".thalweg_bak",
            "note.thalweg_bak",
            "05-thalweg.conflist.thalweg_bak",
        ]);
        fs::create_dir(dir.path().join("06-directory.conf")).unwrap();
        fs::create_dir(dir.path().join("07-directory.conf.thalweg_bak")).unwrap();
        let others = Others::find(dir.path()).unwrap();
        assert_eq!(others.present, [".conf", "00-other.conflist", "04-x.conf", AWS]);
        assert_eq!(others.rivals(), [".conf", "00-other.conflist", "04-x.conf"]);
        assert_eq!(
            others.aside, [""; 0],
            "what is none of ours is not to be put back"
        );
        assert_eq!(
            Others::find(&dir.path().join("absent")).unwrap(),
            Others::default()
        );
    }

    #[test]
    fn all_are_set_aside_and_come_back_as_they_were() {
        let dir = directory(&["00-other.conflist", AWS, FILE, "01-note.txt"]);
        let before = names(&dir);
        let mut others = Others::find(dir.path()).unwrap();
        assert_eq!(others.set_aside(dir.path()).unwrap(), ["00-other.conflist", AWS]);
        let found = Others::find(dir.path()).unwrap();
        assert_eq!(found, others);
        assert_eq!((found.present.len(), found.aside.len()), (0, 2));
        assert_eq!(others.put_back(dir.path()).unwrap(), ["00-other.conflist", AWS]);
        assert_eq!(names(&dir), before);
        assert_eq!(fs::read_to_string(dir.path().join(AWS)).unwrap(), AWS);
    }

    #[test]
    fn the_way_back_to_another_network_is_left_alone() {
        let dir = directory(&["00-rollback-10-aws.conflist", AWS]);
        let mut others = Others::find(dir.path()).unwrap();
        assert_eq!(others.set_aside(dir.path()).unwrap(), [AWS]);
        assert_eq!(others.rivals(), ["00-rollback-10-aws.conflist"]);
    }

    #[test]
    fn what_its_owner_wrote_anew_is_neither_lost_nor_overwritten() {
        let dir = directory(&[AWS]);
        let path = dir.path().join(AWS);
        let mut others = Others::find(dir.path()).unwrap();
        others.set_aside(dir.path()).unwrap();

        // Anew while we look: the newer one is the one to keep.
        fs::write(&path, "newer").unwrap();
        let mut others = Others::find(dir.path()).unwrap();
        assert_eq!(others.set_aside(dir.path()).unwrap(), [AWS]);
        assert_eq!(others.aside, [AWS]);

        // Anew, and we are to put ours back: an equal one makes the copy superfluous, another one is its owner's last word.
        fs::write(&path, "newest").unwrap();
        assert_eq!(others.put_back(dir.path()).unwrap(), [""; 0]);
        assert_eq!(fs::read_to_string(&path).unwrap(), "newest");
        assert_eq!(others.aside, [AWS]);
        // A link to where its owner will write is a file of that name too.
        fs::remove_file(&path).unwrap();
        std::os::unix::fs::symlink("/nowhere/aws", &path).unwrap();
        assert_eq!(others.put_back(dir.path()).unwrap(), [""; 0]);
        assert!(path.is_symlink());
        fs::remove_file(&path).unwrap();
        fs::write(&path, "newer").unwrap();
        assert_eq!(others.put_back(dir.path()).unwrap(), [AWS]);
        assert_eq!(names(&dir), [AWS]);
    }
}
