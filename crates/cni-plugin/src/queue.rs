// SPDX-License-Identifier: Apache-2.0
//! DELs that wait for the agent: one file each, beside its socket.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use cni::protocol::{DELETE_QUEUE_DIR, MAX_QUEUED_DELETES};
use cni::{Attachment, Error, codes, host_ifname};

/// Writes a DEL into the queue, whole or not at all. Queueing it twice leaves one file.
pub(crate) fn add(socket: &str, attachment: &Attachment) -> Result<PathBuf, Error> {
    let dir = Path::new(socket).with_file_name(DELETE_QUEUE_DIR);
    write(&dir, attachment).map_err(|error| {
        Error::new(
            codes::TRY_AGAIN_LATER,
            format!(
                "the Thalweg agent is down and the DEL cannot be queued in {}: {error}",
                dir.display()
            ),
            "start `thalweg agent` on this node; it works the queue off",
        )
    })
}

/// Takes a DEL back that the agent has done after all.
pub(crate) fn forget(file: &Path) {
    // A file that stays is done once more, and DEL of the absent is success.
    let _ = fs::remove_file(file);
}

fn write(dir: &Path, attachment: &Attachment) -> io::Result<PathBuf> {
    fs::create_dir_all(dir)?;
    let name = host_ifname(attachment);
    let file = dir.join(format!("{name}.json"));
    if !file.exists() && fs::read_dir(dir)?.count() >= MAX_QUEUED_DELETES {
        return Err(io::Error::other(format!(
            "it holds {MAX_QUEUED_DELETES} DELs, which is the limit"
        )));
    }
    let temporary = dir.join(format!(".{name}.{}", std::process::id()));
    let written =
        fs::write(&temporary, serde_json::to_vec(attachment)?).and_then(|()| fs::rename(&temporary, &file));
    if written.is_err() {
        let _ = fs::remove_file(&temporary);
    }
    written.map(|()| file)
}
