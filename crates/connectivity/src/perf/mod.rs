// SPDX-License-Identifier: Apache-2.0
//! Load generation in the manner of netperf: blocking sockets, one byte there and one byte back, both ends pinned to
//! a CPU when asked.
//!
//! [`server::Server`] answers on one port per kind of work (see [`Ports`]); [`client::run`] measures;
//! [`soak::run`] keeps connections busy and reports what was lost; [`probe`] answers single questions, [`ask`] says
//! which server answers.

pub mod affinity;
pub mod args;
pub mod ask;
pub mod client;
mod histogram;
pub mod probe;
pub mod server;
pub mod soak;
mod sockets;

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use serde::{Deserialize, Serialize};

pub use histogram::{Histogram, Latency};

/// Where the server listens unless told otherwise.
pub const DEFAULT_PORT: u16 = 4780;

/// Why load could not be made.
#[derive(Debug, thiserror::Error)]
pub enum PerfError {
    /// A socket operation failed.
    #[error("{action} {address}: {source}")]
    Socket {
        /// What was attempted.
        action: &'static str,
        /// With whom.
        address: SocketAddr,
        /// What the kernel said.
        source: std::io::Error,
    },
    /// The process could not be bound to the CPU.
    #[error("cannot run on CPU {cpu} only: {source}; choose one of the CPUs that this process may use")]
    Affinity {
        /// The CPU.
        cpu: usize,
        /// What the kernel said.
        source: std::io::Error,
    },
    /// The other end answered something else than it was sent.
    #[error("{address} answered with other bytes than it was sent ({detail})")]
    Corrupt {
        /// The other end.
        address: SocketAddr,
        /// Where it differed.
        detail: String,
    },
    /// A thread could not be started.
    #[error("cannot start a thread: {0}")]
    Thread(std::io::Error),
}

impl PerfError {
    /// Adds to an I/O error what was attempted with whom.
    pub(crate) fn socket(action: &'static str, address: SocketAddr) -> impl FnOnce(std::io::Error) -> Self {
        move |source| Self::Socket {
            action,
            address,
            source,
        }
    }
}

/// What is measured.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "snake_case")]
pub enum Kind {
    /// One byte there, one byte back, over one TCP connection
    TcpRr,
    /// The same over UDP
    UdpRr,
    /// A new TCP connection for each exchange
    TcpCrr,
    /// Bulk data over TCP
    TcpStream,
}

impl Kind {
    /// The name on the command line.
    pub fn argument(self) -> &'static str {
        match self {
            Self::TcpRr => "tcp-rr",
            Self::UdpRr => "udp-rr",
            Self::TcpCrr => "tcp-crr",
            Self::TcpStream => "tcp-stream",
        }
    }

    /// The name that netperf made common.
    pub fn label(self) -> &'static str {
        match self {
            Self::TcpRr => "TCP_RR",
            Self::UdpRr => "UDP_RR",
            Self::TcpCrr => "TCP_CRR",
            Self::TcpStream => "TCP_STREAM",
        }
    }
}

/// The server's ports.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ports {
    base: u16,
}

impl Ports {
    /// How many neighbouring ports a server takes.
    pub const COUNT: u16 = 4;

    /// The ports from `base` on.
    pub fn new(base: u16) -> Self {
        Self { base }
    }

    /// TCP and UDP: sends back what it gets.
    pub fn echo(self) -> u16 {
        self.base
    }

    /// TCP: one byte back per byte, one connection at a time.
    pub fn crr(self) -> u16 {
        self.base.saturating_add(1)
    }

    /// TCP: throws away what it gets.
    pub fn sink(self) -> u16 {
        self.base.saturating_add(2)
    }

    /// TCP and UDP: says who is calling, and who answers.
    pub fn whoami(self) -> u16 {
        self.base.saturating_add(3)
    }
}

/// One measurement.
#[derive(Clone, Debug)]
pub struct Workload {
    /// What is measured.
    pub kind: Kind,
    /// The server.
    pub target: IpAddr,
    /// The server's first port.
    pub port: u16,
    /// How many connections at once.
    pub flows: usize,
    /// How long to run before counting.
    pub warmup: Duration,
    /// How long to count.
    pub duration: Duration,
    /// The CPU to stay on.
    pub cpu: Option<usize>,
}

/// What was measured.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Report {
    /// What was measured.
    pub kind: Kind,
    /// The server.
    pub target: IpAddr,
    /// How many connections at once.
    pub flows: usize,
    /// How long was counted.
    pub seconds: f64,
    /// Exchanges counted; none for bulk data.
    pub transactions: u64,
    /// Exchanges per second; none for bulk data.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub per_second: Option<f64>,
    /// Throughput; bulk data only.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub gbit_per_second: Option<f64>,
    /// How long an exchange took.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub latency: Option<Latency>,
    /// Exchanges without an answer (UDP) and source ports that were not free (TCP_CRR).
    pub retries: u64,
}

impl Report {
    /// The figure of merit: exchanges per second or Gbit/s.
    pub fn rate(&self) -> f64 {
        self.per_second.or(self.gbit_per_second).unwrap_or(0.0)
    }
}

#[cfg(test)]
mod tests;
