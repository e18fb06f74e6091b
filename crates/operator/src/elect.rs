// SPDX-License-Identifier: Apache-2.0
//! Keeps trying to lead, and says until when we do.

use std::time::{Duration, Instant};

use k8s::{Election, LeaseTimes, Standing};
use model::{IpPool, NodePools};
use state::Table;
use tokio::sync::watch;
use tracing::{debug, info, warn};

/// How long the lease may take to be given up at the end.
const RESIGN_LIMIT: Duration = Duration::from_secs(1);

/// The times that follow from a lease's duration: a leader that could not renew for two thirds of it stops, so that it has
/// stopped before another begins.
#[must_use]
pub(crate) fn times(duration: Duration) -> LeaseTimes {
    LeaseTimes {
        duration,
        deadline: duration * 2 / 3,
    }
}

/// The standing before anything is known.
#[must_use]
pub(crate) fn nobody() -> Standing {
    Standing::Follower {
        holder: String::new(),
    }
}

/// Whether we lead now, and in which term. Asked before every write.
#[must_use]
pub(crate) fn leads(standing: &Standing) -> Option<u64> {
    match standing {
        Standing::Leader { term, until } if Instant::now() < *until => Some(*term),
        Standing::Leader { .. } | Standing::Follower { .. } => None,
    }
}

/// A candidate and what it goes by.
pub(crate) struct Candidate {
    pub(crate) election: Election,
    pub(crate) duration: Duration,
    pub(crate) pools: Table<IpPool>,
    pub(crate) nodes: Table<NodePools>,
    pub(crate) standing: watch::Sender<Standing>,
    /// Set by who finds that an operator of a later term is at work.
    pub(crate) deposed: watch::Receiver<u64>,
}

impl Candidate {
    /// Runs until `stop`, then gives the lease up.
    pub(crate) async fn run(mut self, mut stop: watch::Receiver<bool>) {
        let pause = self.duration / 6;
        loop {
            // A new term is later than all that was ever written, even where the lease itself was deleted.
            let least = self.latest_term() + 1;
            let deposed = *self.deposed.borrow_and_update();
            let own = match *self.standing.borrow() {
                Standing::Leader { term, .. } => Some(term),
                Standing::Follower { .. } => None,
            };
            if own.is_some_and(|term| term < deposed) {
                warn!(term = own, later = deposed, "stepping back");
                self.give_up().await;
            }
            let attempt = tokio::time::timeout(self.duration / 3, self.election.attempt(least));
            match attempt.await {
                Ok(Ok(standing)) => self.take(standing),
                Ok(Err(error)) => self.failed(&telemetry::log::with_causes(&error)),
                Err(_) => self.failed("no answer"),
            }
            tokio::select! {
                () = tokio::time::sleep(pause) => {}
                _ = self.deposed.changed() => {}
                _ = stop.changed() => break,
            }
        }
        self.give_up().await;
    }

    fn latest_term(&self) -> u64 {
        let (pools, nodes) = (self.pools.snapshot(), self.nodes.snapshot());
        let terms = pools.iter().map(|pool| pool.term);
        terms
            .chain(nodes.iter().map(|node| node.term))
            .max()
            .unwrap_or_default()
    }

    fn take(&self, standing: Standing) {
        let before = self.standing.send_replace(standing.clone());
        match (before, standing) {
            (Standing::Leader { term: old, .. }, Standing::Leader { term, .. }) if old == term => {}
            (_, Standing::Leader { term, .. }) => info!(term, "leading"),
            (Standing::Leader { term, .. }, Standing::Follower { holder }) => {
                warn!(term, holder, "no longer leading");
            }
            (Standing::Follower { holder: old }, Standing::Follower { holder }) if old != holder => {
                info!(holder, "following");
            }
            (Standing::Follower { .. }, Standing::Follower { .. }) => {}
        }
    }

    /// Until its time is over a leader goes on: another one cannot have begun.
    fn failed(&self, error: &str) {
        let expired =
            matches!(&*self.standing.borrow(), Standing::Leader { until, .. } if Instant::now() >= *until);
        if expired {
            warn!(error, "the lease cannot be renewed: no longer leading");
            self.standing.send_replace(nobody());
        } else {
            debug!(error, "the lease was not renewed; trying again");
        }
    }

    async fn give_up(&self) {
        let before = self.standing.send_replace(nobody());
        if matches!(before, Standing::Leader { .. }) {
            match tokio::time::timeout(RESIGN_LIMIT, self.election.resign()).await {
                Ok(Ok(())) => info!("the lease is given up"),
                Ok(Err(error)) => {
                    warn!(%error, "the lease could not be given up; others wait until it is over")
                }
                Err(_) => warn!("the lease could not be given up in time; others wait until it is over"),
            }
        }
    }
}
