// SPDX-License-Identifier: Apache-2.0
//! Answers other nodes' agents: one line that says which node this is and by which pod it can be tried, then the end. Nothing is read.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use model::{Endpoint, Family, Node};
use nix::sys::socket::{setsockopt, sockopt};
use serde::{Deserialize, Serialize};
use state::{Snapshot, Table};
use tokio::io::AsyncWriteExt as _;
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::sync::Semaphore;
use tracing::{debug, info, warn};

/// Connections at a time; further ones wait in the kernel.
const CONNECTIONS_MAX: usize = 64;

/// How long a connection may last.
const TIME_MAX: Duration = Duration::from_secs(2);

/// How long after a failure to listen, and after one to accept, it is tried again.
const LISTEN_AGAIN: Duration = Duration::from_secs(30);
const ACCEPT_AGAIN: Duration = Duration::from_millis(100);

const BACKLOG: u32 = 128;

/// The longest answer that is read: a node's name has 253 characters, addresses less.
pub(super) const HELLO_BYTES_MAX: u64 = 1024;

/// The answer.
#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Hello {
    pub(super) node: String,
    /// A pod of each family, for other nodes only.
    pub(super) pods: Vec<IpAddr>,
}

pub(super) struct Listener {
    pub(super) port: u16,
    pub(super) node: String,
    pub(super) nodes: Table<Node>,
    pub(super) endpoints: Table<Endpoint>,
}

impl Listener {
    /// Answers for as long as the agent runs.
    pub(super) async fn run(self) {
        let room = Arc::new(Semaphore::new(CONNECTIONS_MAX));
        let listener = self.listen().await;
        // The semaphore is never closed.
        while let Ok(permit) = room.clone().acquire_owned().await {
            match listener.accept().await {
                Ok((stream, from)) => {
                    let hello = self.hello(from.ip().to_canonical());
                    tokio::task::spawn(async move {
                        let _ = tokio::time::timeout(TIME_MAX, answer(stream, &hello)).await;
                        drop(permit);
                    });
                }
                Err(error) => {
                    debug!(%error, "a connection could not be accepted");
                    tokio::time::sleep(ACCEPT_AGAIN).await;
                }
            }
        }
    }

    async fn listen(&self) -> TcpListener {
        let mut failed = false;
        loop {
            match bind(self.port) {
                Ok(listener) => {
                    if failed {
                        info!(port = self.port, "other nodes are answered now");
                    }
                    return listener;
                }
                Err(error) if !failed => {
                    failed = true;
                    let port = self.port;
                    warn!(port, %error, "other nodes cannot be answered and will call this one unhealthy; see the setting health.port");
                }
                Err(_) => {}
            }
            tokio::time::sleep(LISTEN_AGAIN).await;
        }
    }

    fn hello(&self, from: IpAddr) -> Hello {
        let nodes = self.nodes.snapshot();
        let known = nodes.iter().any(|node| node.addresses.contains(&from));
        let pods = if known {
            oldest(&self.endpoints.snapshot())
        } else {
            Vec::new()
        };
        Hello {
            node: self.node.clone(),
            pods,
        }
    }
}

/// The address of each family of the pod that has been here longest, which will probably stay.
fn oldest(endpoints: &Snapshot<Endpoint>) -> Vec<IpAddr> {
    let of = |family: Family| {
        let addresses = endpoints.iter().flat_map(|endpoint| {
            let ips = endpoint.ips.iter().filter(move |ip| Family::of(ip) == family);
            ips.map(move |ip| (endpoint.ifindex, *ip))
        });
        addresses.min().map(|(_, ip)| ip)
    };
    [Family::Ipv4, Family::Ipv6].into_iter().filter_map(of).collect()
}

async fn answer(mut stream: TcpStream, hello: &Hello) -> io::Result<()> {
    stream.write_all(&serde_json::to_vec(hello)?).await?;
    stream.shutdown().await
}

/// One socket for both families; where there is no IPv6, one for IPv4.
fn bind(port: u16) -> io::Result<TcpListener> {
    let both = || {
        let socket = TcpSocket::new_v6()?;
        setsockopt(&socket, sockopt::Ipv6V6Only, &false)?;
        socket.set_reuseaddr(true)?;
        socket.bind(SocketAddr::from((Ipv6Addr::UNSPECIFIED, port)))?;
        socket.listen(BACKLOG)
    };
    let ipv4 = || {
        let socket = TcpSocket::new_v4()?;
        socket.set_reuseaddr(true)?;
        socket.bind(SocketAddr::from((Ipv4Addr::UNSPECIFIED, port)))?;
        socket.listen(BACKLOG)
    };
    both().or_else(|error: io::Error| {
        if error.kind() == io::ErrorKind::AddrInUse {
            Err(error)
        } else {
            ipv4()
        }
    })
}
