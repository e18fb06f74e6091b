// SPDX-License-Identifier: Apache-2.0
//! Short grace periods of the kernel's RCU while a program is attached or a link goes.
//!
//! Attaching to tcx waits for a grace period with the lock of all network settings held (`tcx_entry_sync` in
//! `include/net/tcx.h`): 4 to 12 ms, five sixths of an ADD. An expedited one takes some 100 µs, at the price of an interrupt
//! to each busy CPU; the kernel itself uses expedited ones whenever a network device goes (`synchronize_net`).
//!
//! The switch is the whole machine's and outlives the process, so a mark in the run directory says while it is ours: an agent
//! that was killed just then has it put back by the next one, and what an administrator has set is left alone.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use tracing::{info, warn};

/// The kernel's switch; documented in `Documentation/admin-guide/kernel-parameters.txt` as `rcupdate.rcu_expedited`.
const SWITCH: &str = "/sys/kernel/rcu_expedited";
/// The mark's name inside the run directory; it holds `1` while the switch is on because of us.
const MARK: &str = "rcu-expedited";

/// The switch and its mark, both open: ADD and DEL go through here, and opening a file of sysfs costs more than writing it.
#[derive(Debug)]
pub struct Expedite {
    files: Option<Files>,
}

#[derive(Debug)]
struct Files {
    path: PathBuf,
    switch: File,
    mark: File,
}

impl Expedite {
    /// Puts the switch back that an agent left on when it was killed. Without a mark the switch is never touched.
    #[must_use]
    pub fn open(run_dir: &Path) -> Self {
        Self::with(SWITCH.into(), run_dir)
    }

    fn with(switch: PathBuf, run_dir: &Path) -> Self {
        let path = run_dir.join(MARK);
        let files = Files::open(switch, &path).map_err(|error| {
            warn!(mark = %path.display(), %error, "grace periods cannot be expedited; ADD and DEL take some ms longer; see the setting runDir");
        });
        Self { files: files.ok() }
    }

    /// Runs `work` with expedited grace periods, where the switch is there, off and can be written.
    pub(super) fn run<T>(&self, work: impl FnOnce() -> T) -> T {
        let files = self.files.as_ref().filter(|files| is(&files.switch, b'0'));
        let files = files.filter(|files| set(&files.mark, b"1").is_ok());
        let switched = files.is_some_and(|files| set(&files.switch, b"1").is_ok());
        let result = work();
        if let Some(files) = files {
            files.put_back(switched);
        }
        result
    }
}

impl Files {
    fn open(path: PathBuf, mark: &Path) -> io::Result<Self> {
        let mut options = File::options();
        options.read(true).write(true);
        let files = Self {
            switch: named(&path, options.open(&path))?,
            mark: named(mark, options.create(true).truncate(false).open(mark))?,
            path,
        };
        if is(&files.mark, b'1') && is(&files.switch, b'1') {
            set(&files.switch, b"0")?;
            info!(
                "switched {} off, which a killed agent had left on",
                files.path.display()
            );
        }
        set(&files.mark, b"0")?;
        Ok(files)
    }

    /// Two agents (of a lab) may cross here: at worst one of them waits once.
    fn put_back(&self, switched: bool) {
        let off = if switched { set(&self.switch, b"0") } else { Ok(()) };
        if let Err(error) = off.and_then(|()| set(&self.mark, b"0")) {
            warn!(%error, "{} could not be switched back; write 0 to it", self.path.display());
        }
    }
}

fn named<T>(path: &Path, opened: io::Result<T>) -> io::Result<T> {
    opened.map_err(|error| io::Error::new(error.kind(), format!("{}: {error}", path.display())))
}

fn is(file: &File, wanted: u8) -> bool {
    let mut value = [0];
    file.read_at(&mut value, 0).is_ok_and(|read| read == 1) && value == [wanted]
}

fn set(file: &File, value: &[u8; 1]) -> io::Result<()> {
    file.write_all_at(value, 0)
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    fn switch(dir: &Path, value: &str) -> PathBuf {
        let switch = dir.join("switch");
        fs::write(&switch, value).unwrap();
        switch
    }

    fn holds(path: &Path, value: &str) -> bool {
        fs::read_to_string(path).is_ok_and(|found| found.trim() == value)
    }

    #[test]
    fn the_switch_is_on_during_the_work_only() {
        let dir = tempfile::tempdir().unwrap();
        let switch = switch(dir.path(), "0\n");
        let expedite = Expedite::with(switch.clone(), dir.path());
        assert!(expedite.run(|| holds(&switch, "1")));
        assert!(holds(&switch, "0"));
        assert!(holds(&dir.path().join(MARK), "0"));
    }

    #[test]
    fn what_a_killed_agent_left_on_is_put_back() {
        let dir = tempfile::tempdir().unwrap();
        let switch = switch(dir.path(), "1\n");
        fs::write(dir.path().join(MARK), "1").unwrap();
        drop(Expedite::with(switch.clone(), dir.path()));
        assert!(holds(&switch, "0"));
    }

    #[test]
    fn what_an_administrator_has_set_stays() {
        let dir = tempfile::tempdir().unwrap();
        let switch = switch(dir.path(), "1\n");
        for _ in 0..2 {
            Expedite::with(switch.clone(), dir.path()).run(|| ());
        }
        assert!(holds(&switch, "1"));
    }

    #[test]
    fn without_a_mark_the_switch_is_not_touched() {
        let dir = tempfile::tempdir().unwrap();
        let switch = switch(dir.path(), "0\n");
        let expedite = Expedite::with(switch.clone(), &dir.path().join("missing"));
        assert!(expedite.run(|| holds(&switch, "0")));
    }
}
