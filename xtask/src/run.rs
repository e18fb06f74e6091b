// SPDX-License-Identifier: Apache-2.0
//! Running other programs: quietly with a log and the elapsed time, loudly, or for their output.

use std::fs::{self, File};
use std::io::{IsTerminal, Write};
use std::path::PathBuf;
use std::process::{Command, ExitStatus, Stdio};
use std::sync::mpsc::{self, RecvTimeoutError};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

/// How many lines of a failed step's log are shown.
const TAIL_LINES: usize = 40;
/// Between two updates of the elapsed time at a terminal.
const TICK: Duration = Duration::from_millis(250);
/// Between two such lines elsewhere.
const SLOW_TICK: Duration = Duration::from_secs(30);

/// Runs `command` with its output in `target/log/NAME.log` and one line of progress on stderr.
pub(crate) fn step(name: &str, command: &mut Command) -> Result<()> {
    let log = crate::root()
        .join("target/log")
        .join(format!("{}.log", name.replace([' ', '/'], "-")));
    if let Some(dir) = log.parent() {
        fs::create_dir_all(dir).with_context(|| format!("cannot make {}", dir.display()))?;
    }
    let file = File::create(&log).with_context(|| format!("cannot write {}", log.display()))?;
    command
        .stdin(Stdio::null())
        .stderr(file.try_clone()?)
        .stdout(file);
    let start = Instant::now();
    let status = wait_showing(name, command, start)?;
    let seconds = start.elapsed().as_secs_f64();
    if status.success() {
        eprintln!("  {name}: done in {seconds:.1} s");
        return Ok(());
    }
    eprintln!(
        "  {name}: FAILED after {seconds:.1} s; the end of {}:",
        log.display()
    );
    eprintln!(
        "{}",
        tail(&fs::read_to_string(&log).unwrap_or_default(), TAIL_LINES)
    );
    bail!("{name} failed ({status})")
}

fn wait_showing(name: &str, command: &mut Command, start: Instant) -> Result<ExitStatus> {
    let mut child = command
        .spawn()
        .with_context(|| format!("cannot run {}", show(command)))?;
    let (done, finished) = mpsc::channel();
    thread::spawn(move || done.send(child.wait()));
    let terminal = std::io::stderr().is_terminal();
    let tick = if terminal { TICK } else { SLOW_TICK };
    if !terminal {
        eprintln!("  {name} ...");
    }
    loop {
        match finished.recv_timeout(tick) {
            Ok(status) => {
                clear_line(terminal);
                return status.context("cannot wait for a child process");
            }
            Err(RecvTimeoutError::Timeout) if terminal => {
                eprint!("\r  {name} ... {} s ", start.elapsed().as_secs());
                std::io::stderr().flush()?;
            }
            Err(RecvTimeoutError::Timeout) => eprintln!("  {name} ... {} s", start.elapsed().as_secs()),
            Err(RecvTimeoutError::Disconnected) => bail!("the thread that waits for {name} is gone"),
        }
    }
}

fn clear_line(terminal: bool) {
    if terminal {
        eprint!("\r\x1b[K");
    }
}

/// Runs `command` with this terminal; an error if it fails.
pub(crate) fn loud(command: &mut Command) -> Result<()> {
    let status = status(command)?;
    if !status.success() {
        bail!("{} failed ({status})", show(command));
    }
    Ok(())
}

/// Runs `command` with this terminal and gives its status.
pub(crate) fn status(command: &mut Command) -> Result<ExitStatus> {
    command
        .status()
        .with_context(|| format!("cannot run {}", show(command)))
}

/// What `command` prints; an error with its stderr if it fails.
pub(crate) fn output(command: &mut Command) -> Result<String> {
    let output = command
        .output()
        .with_context(|| format!("cannot run {}", show(command)))?;
    if !output.status.success() {
        let reason = String::from_utf8_lossy(&output.stderr);
        bail!(
            "{} failed ({}): {}",
            show(command),
            output.status,
            tail(&reason, TAIL_LINES)
        );
    }
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

/// The cargo that runs this, in the root of the checkout.
pub(crate) fn cargo() -> Command {
    let mut command = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    command.current_dir(crate::root());
    command
}

/// A program in the root of the checkout.
pub(crate) fn in_root(program: &str) -> Command {
    let mut command = Command::new(program);
    command.current_dir(crate::root());
    command
}

/// `program`, through sudo unless this is root.
pub(crate) fn as_root(program: impl AsRef<std::ffi::OsStr>) -> Command {
    if is_root() {
        return Command::new(program);
    }
    let mut command = Command::new("sudo");
    command
        .arg("--preserve-env=CI,REQUIRE_PRIVILEGED,THALWEG_BIN,THALWEG_CNI_BIN,DEBIAN_FRONTEND")
        .arg(program);
    command
}

/// Whether this process may do all.
pub(crate) fn is_root() -> bool {
    use std::os::unix::fs::MetadataExt;
    fs::metadata("/proc/self").is_ok_and(|metadata| metadata.uid() == 0)
}

/// Where a program is, on the path or in the directories that only root has there.
pub(crate) fn which(program: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let system = ["/usr/local/sbin", "/usr/sbin", "/sbin"].map(PathBuf::from);
    std::env::split_paths(&path)
        .chain(system)
        .map(|dir| dir.join(program))
        .find(|file| file.is_file())
}

/// The last lines of a text.
pub(crate) fn tail(text: &str, lines: usize) -> String {
    let all: Vec<&str> = text.lines().collect();
    all[all.len().saturating_sub(lines)..].join("\n")
}

fn show(command: &Command) -> String {
    let words = std::iter::once(command.get_program()).chain(command.get_args());
    words
        .map(|word| word.to_string_lossy().into_owned())
        .collect::<Vec<_>>()
        .join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tail_keeps_the_last_lines() {
        assert_eq!(tail("a\nb\nc", 2), "b\nc");
        assert_eq!(tail("a", 2), "a");
    }

    #[test]
    fn a_failing_command_shows_its_words() {
        let error = output(&mut Command::new("false")).unwrap_err().to_string();
        assert!(error.starts_with("false failed"), "{error}");
    }
}
