// SPDX-License-Identifier: Apache-2.0
//! Short grace periods of the kernel's RCU while a program is attached or a link goes.
//!
//! Attaching to tcx waits for a grace period with the lock of all network settings held (`tcx_entry_sync` in
//! `include/net/tcx.h`): 4 to 12 ms, five sixths of an ADD. An expedited one takes some 100 µs, at the price of an interrupt
//! to each busy CPU; the kernel itself uses expedited ones whenever a network device goes (`synchronize_net`).
//!
//! The switch is the whole machine's and outlives the process, so a mark in the run directory says while it is ours: an agent
//! that was killed just then has it put back by the next one, and what an administrator has set is left alone.

use std::fs::{self, File};
use std::io;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use tracing::{info, warn};

/// The kernel's switch; documented in `Documentation/admin-guide/kernel-parameters.txt` as `rcupdate.rcu_expedited`.
const SWITCH: &str = "/sys/kernel/rcu_expedited";
/// The mark's name inside the run directory; it holds `1` while the switch is on because of us.
const MARK: &str = "rcu-expedited";

/// The switch and its mark.
#[derive(Debug)]
pub struct Expedite {
    switch: PathBuf,
    mark: Option<File>,
}

impl Expedite {
    /// Puts the switch back that an agent left on when it was killed. Without a mark the switch is never touched.
    #[must_use]
    pub fn open(run_dir: &Path) -> Self {
        Self::with(SWITCH.into(), run_dir)
    }

    fn with(switch: PathBuf, run_dir: &Path) -> Self {
        let path = run_dir.join(MARK);
        let mark = open(&path).and_then(|mark| put_back(&mark, &switch).map(|()| mark));
        let mark = mark.map_err(|error| {
            warn!(path = %path.display(), %error, "the mark of {} cannot be used; ADD and DEL take some ms longer; see the setting runDir", switch.display());
        });
        Self {
            switch,
            mark: mark.ok(),
        }
    }

    /// Runs `work` with expedited grace periods, where the switch is there, off and can be written.
    pub(super) fn run<T>(&self, work: impl FnOnce() -> T) -> T {
        let mark = self.mark.as_ref().filter(|_| is(&self.switch, b"0"));
        let mark = mark.filter(|mark| mark.write_all_at(b"1", 0).is_ok());
        let switched = mark.is_some() && fs::write(&self.switch, "1").is_ok();
        let result = work();
        // Two agents (of a lab) may cross here: at worst one of them waits once.
        let off = if switched {
            fs::write(&self.switch, "0")
        } else {
            Ok(())
        };
        if let Err(error) = off.and_then(|()| mark.map_or(Ok(()), |mark| mark.write_all_at(b"0", 0))) {
            let switch = self.switch.display();
            warn!(%error, "{switch} could not be switched back; write 0 to it");
        }
        result
    }
}

fn open(path: &Path) -> io::Result<File> {
    let mut options = File::options();
    options
        .read(true)
        .write(true)
        .create(true)
        .truncate(false)
        .open(path)
}

fn put_back(mark: &File, switch: &Path) -> io::Result<()> {
    let mut ours = [0];
    if mark.read_at(&mut ours, 0)? == 1 && ours == *b"1" && is(switch, b"1") {
        fs::write(switch, "0")?;
        info!(
            "switched {} off, which a killed agent had left on",
            switch.display()
        );
    }
    mark.write_all_at(b"0", 0)
}

fn is(switch: &Path, wanted: &[u8]) -> bool {
    fs::read(switch).is_ok_and(|value| value.trim_ascii() == wanted)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn switch(dir: &Path, value: &str) -> PathBuf {
        let switch = dir.join("switch");
        fs::write(&switch, value).unwrap();
        switch
    }

    #[test]
    fn the_switch_is_on_during_the_work_only() {
        let dir = tempfile::tempdir().unwrap();
        let switch = switch(dir.path(), "0\n");
        let expedite = Expedite::with(switch.clone(), dir.path());
        assert!(expedite.run(|| is(&switch, b"1")));
        assert!(is(&switch, b"0"));
        assert!(is(&dir.path().join(MARK), b"0"));
    }

    #[test]
    fn what_a_killed_agent_left_on_is_put_back() {
        let dir = tempfile::tempdir().unwrap();
        let switch = switch(dir.path(), "1\n");
        fs::write(dir.path().join(MARK), "1").unwrap();
        drop(Expedite::with(switch.clone(), dir.path()));
        assert!(is(&switch, b"0"));
    }

    #[test]
    fn what_an_administrator_has_set_stays() {
        let dir = tempfile::tempdir().unwrap();
        let switch = switch(dir.path(), "1\n");
        for _ in 0..2 {
            Expedite::with(switch.clone(), dir.path()).run(|| ());
        }
        assert!(is(&switch, b"1"));
    }

    #[test]
    fn without_a_mark_the_switch_is_not_touched() {
        let dir = tempfile::tempdir().unwrap();
        let switch = switch(dir.path(), "0\n");
        let expedite = Expedite::with(switch.clone(), &dir.path().join("missing"));
        assert!(expedite.run(|| is(&switch, b"0")));
    }
}
