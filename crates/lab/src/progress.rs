// SPDX-License-Identifier: Apache-2.0
//! What the daemon tells `up` while it starts: JSON lines on its standard output.

use std::io::Write as _;
use std::time::Instant;

use serde::{Deserialize, Serialize};
use tracing::info;

/// One line.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Report {
    /// A step is done.
    Step {
        /// What was done.
        text: String,
        /// Milliseconds since the daemon's start.
        milliseconds: u64,
    },
    /// Everything runs.
    Ready {
        /// Milliseconds since the daemon's start.
        milliseconds: u64,
    },
    /// The start has failed.
    Failed {
        /// Why, and where to look.
        text: String,
    },
}

/// The daemon's end.
#[derive(Debug)]
pub(crate) struct Progress {
    started: Instant,
}

impl Progress {
    pub(crate) fn start() -> Self {
        Self {
            started: Instant::now(),
        }
    }

    pub(crate) fn milliseconds(&self) -> u64 {
        u64::try_from(self.started.elapsed().as_millis()).unwrap_or(u64::MAX)
    }

    pub(crate) fn step(&self, text: impl Into<String>) {
        let (text, milliseconds) = (text.into(), self.milliseconds());
        info!(milliseconds, "{text}");
        send(&Report::Step { text, milliseconds });
    }
}

/// Nobody may be listening any more (`up` was interrupted): that does not stop the lab.
pub(crate) fn send(report: &Report) {
    if let Ok(mut line) = serde_json::to_vec(report) {
        line.push(b'\n');
        let mut out = std::io::stdout().lock();
        let _ = out.write_all(&line).and_then(|()| out.flush());
    }
}
