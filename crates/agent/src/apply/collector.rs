// SPDX-License-Identifier: Apache-2.0
//! Collects expired connections, and forgets those of released addresses, on a thread of its own: ADD never waits for it.

use std::collections::BTreeSet;
use std::io;
use std::net::IpAddr;
use std::sync::mpsc::{self, Receiver, RecvTimeoutError, Sender};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use datapath::{Conntrack, GcReport, Timeouts};
use tokio::sync::watch;
use tracing::{debug, warn};

use super::{Client, View};

/// When and what to collect.
#[derive(Debug, Clone, Copy)]
pub(super) struct Schedule {
    pub(super) interval: Duration,
    pub(super) timeouts: Timeouts,
}

/// Starts the thread; released addresses go into the channel, and it ends when the channel does.
pub(super) fn start(
    conntrack: Conntrack,
    schedule: Schedule,
    client: Client,
    view: watch::Sender<View>,
) -> io::Result<(Sender<Vec<IpAddr>>, JoinHandle<()>)> {
    let (sender, released) = mpsc::channel();
    let mut collector = Collector {
        conntrack,
        client,
        view,
        pending: BTreeSet::new(),
        last: GcReport::default(),
    };
    let run = move || collector.run(schedule, &released);
    let thread = std::thread::Builder::new().name("conntrack".into()).spawn(run)?;
    Ok((sender, thread))
}

struct Collector {
    conntrack: Conntrack,
    client: Client,
    view: watch::Sender<View>,
    pending: BTreeSet<IpAddr>,
    last: GcReport,
}

impl Collector {
    fn run(&mut self, schedule: Schedule, released: &Receiver<Vec<IpAddr>>) {
        let mut next = Instant::now() + schedule.interval;
        loop {
            match released.recv_timeout(next.saturating_duration_since(Instant::now())) {
                Ok(ips) => {
                    // One walk for all that were released meanwhile.
                    self.pending
                        .extend(ips.into_iter().chain(released.try_iter().flatten()));
                    self.forget();
                }
                Err(RecvTimeoutError::Timeout) => {
                    next = Instant::now() + schedule.interval;
                    self.collect(&schedule.timeouts);
                    self.forget();
                }
                Err(RecvTimeoutError::Disconnected) => return,
            }
        }
    }

    fn collect(&mut self, timeouts: &Timeouts) {
        match self.conntrack.collect_garbage(timeouts, &self.last) {
            Ok(report) => {
                debug!(
                    removed = report.removed,
                    entries = report.entries,
                    "connections collected"
                );
                self.last = report;
                self.view.send_modify(|view| view.conntrack = report);
            }
            Err(error) => warn!(%error, "expired connections could not be collected"),
        }
    }

    /// Addresses whose connections cannot be removed go on resting, and are tried again with the next collection.
    fn forget(&mut self) {
        if self.pending.is_empty() {
            return;
        }
        match self.conntrack.remove_addresses(&self.pending) {
            Ok(removed) => {
                debug!(
                    removed,
                    addresses = self.pending.len(),
                    "connections of released addresses forgotten"
                );
                self.client
                    .rested(std::mem::take(&mut self.pending).into_iter().collect());
            }
            Err(error) => warn!(%error, "connections of released addresses could not be removed"),
        }
    }
}
