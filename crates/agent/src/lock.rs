// SPDX-License-Identifier: Apache-2.0
//! One agent per node.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read as _, Seek as _, Write as _};
use std::path::{Path, PathBuf};

use nix::errno::Errno;
use nix::fcntl::{Flock, FlockArg};

/// The lock's name inside the run directory.
const NAME: &str = "agent.lock";

/// The right to be this node's agent, held until it is dropped or the process ends in whatever way.
#[derive(Debug)]
pub struct Lock {
    _file: Flock<File>,
}

/// Why this process is not the node's agent.
#[derive(Debug, thiserror::Error)]
pub enum LockError {
    /// There is one already.
    #[error(
        "another agent{} runs on this node: it holds {}; stop it first, or give this one another runDir, bpffs and \
         network namespace", pid.map(|pid| format!(" (process {pid})")).unwrap_or_default(), path.display()
    )]
    Held {
        /// The lock's file.
        path: PathBuf,
        /// The other agent's process ID, if it has written it.
        pid: Option<u32>,
    },
    /// The file cannot be used.
    #[error("cannot {operation} {}: {source}; see the setting runDir", path.display())]
    Io {
        /// What was tried.
        operation: &'static str,
        /// The file or directory.
        path: PathBuf,
        /// Why it failed.
        source: io::Error,
    },
}

impl Lock {
    /// Takes the lock; makes the run directory if it is not there.
    ///
    /// # Errors
    /// When another agent has the lock, or the directory cannot be used.
    pub fn take(run_dir: &Path) -> Result<Self, LockError> {
        let path = run_dir.join(NAME);
        let failed = |operation, path: &Path| {
            let path = path.to_owned();
            move |source| LockError::Io {
                operation,
                path,
                source,
            }
        };
        fs::create_dir_all(run_dir).map_err(failed("create", run_dir))?;
        // The content stays until the lock is ours: it is the other agent's process ID.
        let mut options = OpenOptions::new();
        let file = options
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .open(&path);
        let file = file.map_err(failed("open", &path))?;
        let mut file = match Flock::lock(file, FlockArg::LockExclusiveNonblock) {
            Ok(locked) => locked,
            Err((mut file, Errno::EWOULDBLOCK)) => {
                return Err(LockError::Held {
                    pid: read_pid(&mut file),
                    path,
                });
            }
            Err((_, errno)) => return Err(failed("lock", &path)(errno.into())),
        };
        write_pid(&mut file).map_err(failed("write", &path))?;
        Ok(Self { _file: file })
    }
}

fn write_pid(file: &mut File) -> io::Result<()> {
    file.set_len(0)?;
    file.rewind()?;
    writeln!(file, "{}", std::process::id())
}

fn read_pid(file: &mut File) -> Option<u32> {
    let mut text = String::new();
    file.take(32).read_to_string(&mut text).ok()?;
    text.trim().parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_second_agent_is_refused_and_told_who_the_first_is() {
        let dir = tempfile::tempdir().unwrap();
        let run_dir = dir.path().join("run");
        let first = Lock::take(&run_dir).unwrap();
        let error = Lock::take(&run_dir).unwrap_err();
        let expected = format!("(process {}) runs on this node", std::process::id());
        assert!(error.to_string().contains(&expected), "{error}");
        drop(first);
        Lock::take(&run_dir).unwrap();
    }

    #[test]
    fn a_lock_that_a_dead_agent_left_is_free() {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join(NAME), "4711\n and more that is no number").unwrap();
        Lock::take(dir.path()).unwrap();
        let written = fs::read_to_string(dir.path().join(NAME)).unwrap();
        assert_eq!(written, format!("{}\n", std::process::id()));
    }

    #[test]
    fn a_run_directory_that_cannot_be_made_is_named() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("file");
        fs::write(&file, "").unwrap();
        let error = Lock::take(&file.join("run")).unwrap_err().to_string();
        assert!(error.contains("runDir") && error.contains("file/run"), "{error}");
    }
}
