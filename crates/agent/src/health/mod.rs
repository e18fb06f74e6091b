// SPDX-License-Identifier: Apache-2.0
//! Whether this node reaches the others: the nodes themselves and a pod on each, by ICMP and by TCP. It only tells; nothing in the
//! datapath depends on it.
//!
//! [`schedule`] decides, without a clock and without sockets, when which node is tried; [`probe`] does it; [`listen`] answers the
//! others. What came of it is the table of [`PeerHealth`].

mod counts;
mod listen;
mod probe;
mod schedule;

use std::collections::hash_map::RandomState;
use std::fmt;
use std::hash::{BuildHasher as _, Hasher as _};
use std::net::IpAddr;
use std::time::{Duration, Instant};

use api::config::Health as Settings;
use model::{Endpoint, Node};
use state::{Row, Table, Writer, table};
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tracing::debug;

pub use counts::Counts;
use schedule::{Found, Schedule};

/// Nodes that are tried at a time.
const PARALLEL: usize = 32;

/// Who waits for a round at most; further ones are part of the next.
const ASKERS_MAX: usize = 8;

/// What is tried.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Kind {
    /// The node answers an echo.
    NodeIcmp,
    /// The node's agent answers on its health port.
    NodeTcp,
    /// A pod of the node answers an echo.
    PodIcmp,
    /// A pod of the node answers a SYN, if only to refuse it.
    PodTcp,
}

impl Kind {
    /// All of them, in the order in which they are shown.
    pub const ALL: [Self; 4] = [Self::NodeIcmp, Self::NodeTcp, Self::PodIcmp, Self::PodTcp];

    /// Its name for people and metrics.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::NodeIcmp => "node-icmp",
            Self::NodeTcp => "node-tcp",
            Self::PodIcmp => "pod-icmp",
            Self::PodTcp => "pod-tcp",
        }
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// What came of one try: how long the answer took, or why there was none.
pub type Outcome = Result<Duration, String>;

/// The last try of one kind at one address.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Probe {
    /// What was tried.
    pub kind: Kind,
    /// The address.
    pub address: IpAddr,
    /// What came of it.
    pub outcome: Outcome,
    /// Since when it has been answered, or not answered.
    pub since: Instant,
}

/// What is known of another node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PeerHealth {
    /// The node's name.
    pub node: String,
    /// When the last try began; nothing before the first has ended.
    pub tried: Option<Instant>,
    /// What came of it, by kind and family. Of pods there is nothing while no pod of the node is known.
    pub probes: Vec<Probe>,
}

impl PeerHealth {
    /// What was not answered.
    pub fn failures(&self) -> impl Iterator<Item = &Probe> {
        self.probes.iter().filter(|probe| probe.outcome.is_err())
    }
}

impl Row for PeerHealth {
    type Key = String;

    fn key(&self) -> String {
        self.node.clone()
    }
}

/// The running prober.
#[derive(Clone, Debug)]
pub struct Health {
    /// What is known of the other nodes.
    pub peers: Table<PeerHealth>,
    /// Tries by kind and result.
    pub counts: Counts,
    asks: mpsc::Sender<()>,
}

impl Health {
    /// Tries all nodes now and waits until that is done, or for `limit`.
    pub async fn probe(&self, limit: Duration) {
        let asked = Instant::now();
        let mut reader = self.peers.reader();
        if self.asks.send(()).await.is_err() {
            return;
        }
        let all = async {
            while let Some(peers) = reader.changed().await {
                // The schedule knows the nodes, so rows of new ones are there.
                if peers.iter().all(|peer| peer.tried >= Some(asked)) {
                    return;
                }
            }
        };
        let _ = tokio::time::timeout(limit, all).await;
    }
}

/// Begins to answer other nodes and to try them.
#[must_use]
pub fn start(settings: &Settings, node_name: &str, nodes: Table<Node>, endpoints: Table<Endpoint>) -> Health {
    let (writer, peers) = table("peers");
    let (asks, asked) = mpsc::channel(ASKERS_MAX);
    let counts = Counts::default();
    let listener = listen::Listener {
        port: settings.port,
        node: node_name.to_owned(),
        nodes: nodes.clone(),
        endpoints,
    };
    tokio::task::spawn(listener.run());
    let prober = Prober {
        node: node_name.to_owned(),
        port: settings.port,
        schedule: Schedule::new(settings.interval, PARALLEL, seed()),
        writer,
        counts: counts.clone(),
    };
    tokio::task::spawn(prober.run(nodes, asked));
    Health { peers, counts, asks }
}

/// Differs between nodes and starts, so that they do not try in step.
fn seed() -> u64 {
    RandomState::new().build_hasher().finish()
}

struct Prober {
    node: String,
    port: u16,
    schedule: Schedule,
    writer: Writer<PeerHealth>,
    counts: Counts,
}

impl Prober {
    /// Runs until the table of nodes ends.
    async fn run(mut self, nodes: Table<Node>, mut asked: mpsc::Receiver<()>) {
        let mut nodes = nodes.reader();
        let mut running: JoinSet<Found> = JoinSet::new();
        loop {
            while let Some(job) = self.schedule.start(Instant::now()) {
                running.spawn(probe::all(job, self.port));
            }
            let due = self.schedule.due();
            tokio::select! {
                changed = nodes.changed() => {
                    let Some(snapshot) = changed else { return };
                    let others = snapshot.iter().filter(|node| node.name != self.node);
                    self.schedule.set_nodes(others, Instant::now());
                    self.writer.replace(self.schedule.rows());
                }
                Some(()) = asked.recv() => {
                    self.schedule.ask(Instant::now());
                    // Who asked waits for a change, and there may be no nodes.
                    self.writer.set_in_sync();
                }
                Some(found) = running.join_next() => match found {
                    Ok(found) => self.finish(found),
                    Err(error) => debug!(%error, "a try of a node ended early"),
                },
                () = sleep_until(due) => {}
            }
        }
    }

    fn finish(&mut self, found: Found) {
        for (kind, _, outcome) in &found.outcomes {
            self.counts.count(*kind, outcome);
        }
        if let Some(row) = self.schedule.finish(found, Instant::now()) {
            self.writer.upsert(row);
        }
    }
}

async fn sleep_until(due: Option<Instant>) {
    match due {
        Some(due) => tokio::time::sleep_until(due.into()).await,
        None => std::future::pending().await,
    }
}
