// SPDX-License-Identifier: Apache-2.0
//! `lab up`: claims the name, starts the daemon detached, relays its progress.

use std::fs;
use std::io::{BufRead as _, BufReader, ErrorKind, Write as _};
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use crate::error::{Doing as _, Error};
use crate::lab::Lab;
use crate::progress::Report;
use crate::spec::Spec;
use crate::state::{BASE, Paths, State};
use crate::{cgroup, down, owner, preflight};

/// How many last lines of a log an error shows.
const TAIL_LINES: usize = 15;
/// How many bytes of a log's end are read for these lines.
const TAIL_BYTES: usize = 8 * 1024;

/// What to start.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Options {
    /// The lab.
    pub spec: Spec,
    /// The `thalweg` program that it runs; `thalweg-cni` is expected beside it.
    pub program: PathBuf,
    /// Whether a lab that failed to start stays as it is, to be looked at.
    pub keep_failed: bool,
    /// Whether the lab goes when this process ends, in whatever way.
    pub owned: bool,
}

impl Lab {
    /// Starts a lab and waits until it is ready; `progress` hears of every step.
    ///
    /// # Errors
    /// When a lab of that name is there already, or this one does not come up; then nothing of it is left, unless
    /// [`Options::keep_failed`].
    pub fn up(options: &Options, mut progress: impl FnMut(&Report)) -> Result<Self, Error> {
        preflight::check(&options.spec)?;
        check_machine(&options.program)?;
        let paths = Paths::of(&options.spec.name);
        claim(&paths)?;
        let heir = if options.owned {
            owner::start_heir(&options.program, &paths.name)
        } else {
            Ok(())
        };
        let started = heir
            .and_then(|()| start_daemon(&paths, options))
            .and_then(|mut daemon| relay(&paths, &mut daemon, &mut progress))
            .and_then(|()| Self::open(&options.spec.name));
        started.map_err(|error| {
            if options.keep_failed {
                let name = &paths.name;
                return Error::Failed(format!(
                    "{error}\nit is kept; `thalweg lab down --name {name}` removes it"
                ));
            }
            // The reason of the failure is what matters.
            let _ = down::remove(&paths.name);
            error
        })
    }
}

fn check_machine(program: &Path) -> Result<(), Error> {
    if !nix::unistd::geteuid().is_root() {
        return Err(Error::Refused(
            "a lab needs root: network namespaces, mounts, eBPF; try with sudo".to_owned(),
        ));
    }
    let plugin = program.with_file_name("thalweg-cni");
    if !plugin.is_file() {
        return Err(Error::Refused(format!(
            "{} is missing; `thalweg` and `thalweg-cni` must be in one directory (`./dev build` makes both)",
            plugin.display()
        )));
    }
    Ok(())
}

/// Makes the lab's directory, which only one can.
fn claim(paths: &Paths) -> Result<(), Error> {
    fs::create_dir_all(BASE).doing(|| format!("create {BASE}"))?;
    match fs::create_dir(&paths.dir) {
        Ok(()) => {}
        Err(error) if error.kind() == ErrorKind::AlreadyExists => return Err(taken(paths)),
        Err(error) => return Err(Error::system(format!("create {}", paths.dir.display()), error)),
    }
    // Of a lab whose directory somebody removed by hand.
    paths.cgroup().map_or(Ok(()), |cgroup| cgroup::destroy(&cgroup))?;
    let log = paths.dir.join("log");
    fs::create_dir(&log).doing(|| format!("create {}", log.display()))
}

fn taken(paths: &Paths) -> Error {
    let name = &paths.name;
    let again = format!("to start over: thalweg lab down --name {name}");
    let defects = match State::load(paths) {
        Ok(Some(state)) => state.defects(paths),
        Ok(None) => vec!["it is just starting, or died at its start".to_owned()],
        Err(error) => vec![error.to_string()],
    };
    Error::Refused(if defects.is_empty() {
        format!("lab {name} is running already; see: thalweg lab status {name}; {again}")
    } else {
        format!(
            "there is a lab {name} already, not whole: {}; {again}",
            defects.join(", ")
        )
    })
}

fn start_daemon(paths: &Paths, options: &Options) -> Result<Child, Error> {
    let log = paths.log("daemon");
    let operation = || format!("start {}", options.program.display());
    let stderr = fs::File::create(&log).doing(|| format!("create {}", log.display()))?;
    let mut command = Command::new(&options.program);
    command
        .args(["lab", "daemon"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(stderr);
    command
        .current_dir("/")
        .env(crate::node::LAB_VARIABLE, &paths.dir);
    // SAFETY: setsid is a system call; nothing is allocated between fork and exec.
    unsafe {
        command.pre_exec(|| nix::unistd::setsid().map(drop).map_err(Into::into));
    }
    let mut child = command.spawn().doing(operation)?;
    let spec = serde_json::to_vec(&options.spec)
        .map_err(std::io::Error::from)
        .doing(operation)?;
    if let Some(mut stdin) = child.stdin.take() {
        match stdin.write_all(&spec) {
            // It has died already: its reason is in the log.
            Err(error) if error.kind() == ErrorKind::BrokenPipe => {}
            written => written.doing(operation)?,
        }
    }
    Ok(child)
}

/// Passes the daemon's reports on until it is ready.
fn relay(paths: &Paths, daemon: &mut Child, progress: &mut impl FnMut(&Report)) -> Result<(), Error> {
    let stdout = daemon.stdout.take().map(BufReader::new);
    for line in stdout
        .into_iter()
        .flat_map(BufReader::lines)
        .map_while(Result::ok)
    {
        let Ok(report) = serde_json::from_str::<Report>(&line) else {
            continue;
        };
        progress(&report);
        match report {
            Report::Step { .. } => {}
            Report::Ready { .. } => return Ok(()),
            Report::Failed { text } => {
                // It is about to end; whoever looks at the lab afterwards sees that it has.
                let _ = daemon.wait();
                return Err(Error::Failed(format!("lab {} did not start: {text}", paths.name)));
            }
        }
    }
    let how = daemon
        .wait()
        .map_or_else(|error| error.to_string(), |status| status.to_string());
    Err(Error::Failed(format!(
        "the daemon of lab {} died ({how}); the end of its log:\n{}",
        paths.name,
        tail(&paths.log("daemon"))
    )))
}

/// The last lines of a file.
pub(crate) fn tail(path: &Path) -> String {
    let content = fs::read(path).unwrap_or_default();
    let end = &content[content.len().saturating_sub(TAIL_BYTES)..];
    let text = String::from_utf8_lossy(end);
    let lines: Vec<&str> = text.lines().collect();
    let last = &lines[lines.len().saturating_sub(TAIL_LINES)..];
    last.iter()
        .map(|line| format!("  {line}"))
        .collect::<Vec<_>>()
        .join("\n")
}
