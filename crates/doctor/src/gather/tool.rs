// SPDX-License-Identifier: Apache-2.0
//! The node's own programs: `iptables-save`, `nft`. In a container they are the node's, run within its root directory.

use std::io::Write as _;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// Directories in which programs are looked for.
const PATH: [&str; 6] = [
    "/usr/local/sbin",
    "/usr/local/bin",
    "/usr/sbin",
    "/usr/bin",
    "/sbin",
    "/bin",
];

/// Runs programs of a node.
#[derive(Clone, Debug)]
pub(crate) struct Tool {
    root: PathBuf,
}

/// A program that could not be run, or failed.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ToolError {
    /// It is not there.
    #[error("{0} is not installed on this node")]
    Absent(String),
    /// It could not be started.
    #[error("{program} cannot be run: {source}")]
    Run {
        /// The program.
        program: String,
        /// Why.
        source: std::io::Error,
    },
    /// It failed.
    #[error("{program} failed: {said}")]
    Failed {
        /// The program with its arguments.
        program: String,
        /// What it said.
        said: String,
    },
}

impl Tool {
    pub(crate) fn of(root: &Path) -> Self {
        Self {
            root: root.to_owned(),
        }
    }

    /// Where the node has a program, as the node sees it.
    pub(crate) fn find(&self, program: &str) -> Option<PathBuf> {
        let inside = |dir: &str| self.root.join(dir.trim_start_matches('/')).join(program);
        // The link may be absolute, and so lead elsewhere outside the node's root: that it exists is enough.
        let found = PATH.iter().find(|dir| inside(dir).symlink_metadata().is_ok());
        found.map(|dir| Path::new(dir).join(program))
    }

    /// Runs a program and returns its standard output.
    pub(crate) fn run(
        &self,
        program: &str,
        arguments: &[&str],
        input: Option<&str>,
    ) -> Result<String, ToolError> {
        let path = self
            .find(program)
            .ok_or_else(|| ToolError::Absent(program.to_owned()))?;
        let fail = |source| ToolError::Run {
            program: program.to_owned(),
            source,
        };
        let mut command = Command::new(path);
        command
            .args(arguments)
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        command.stdin(if input.is_some() {
            Stdio::piped()
        } else {
            Stdio::null()
        });
        if self.root != Path::new("/") {
            let root = self.root.clone();
            // SAFETY: between fork and exec only system calls are made; the path was allocated before.
            unsafe {
                command.pre_exec(move || {
                    nix::unistd::chroot(&root)?;
                    nix::unistd::chdir("/").map_err(Into::into)
                });
            }
        }
        let mut child = command.spawn().map_err(fail)?;
        if let (Some(input), Some(mut stdin)) = (input, child.stdin.take()) {
            // A program that ends early says why on its standard error.
            let _ = stdin.write_all(input.as_bytes());
        }
        let output = child.wait_with_output().map_err(fail)?;
        if output.status.success() {
            return Ok(String::from_utf8_lossy(&output.stdout).into_owned());
        }
        Err(ToolError::Failed {
            program: format!("{program} {}", arguments.join(" ")).trim_end().to_owned(),
            said: String::from_utf8_lossy(&output.stderr)
                .lines()
                .map(str::trim)
                .collect::<Vec<_>>()
                .join("; "),
        })
    }
}
