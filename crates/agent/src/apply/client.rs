// SPDX-License-Identifier: Apache-2.0
//! Commands to the apply thread.

use std::net::IpAddr;
use std::os::fd::OwnedFd;
use std::sync::mpsc::{self, SyncSender, TrySendError};
use std::time::{Duration, Instant};

use cni::protocol::{Call, Reply};
use cni::{Error, codes};
use datapath::Datapath;
use loadbalancer::Balancer;
use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::registry::Registry;
use tokio::sync::oneshot;

use super::COMMANDS_MAX;

/// How long a call may take, waiting included; the plugin waits a little longer.
const CALL_TIMEOUT: Duration = Duration::from_secs(30);

/// A question about services; there are none where they are another's to serve.
pub type LookAtServices = Box<dyn FnOnce(Option<&Balancer>) + Send>;

/// What the apply thread can be asked for.
pub enum Command {
    /// A call of the CNI plugin.
    Cni {
        /// The call.
        call: Box<Call>,
        /// The namespace that came with it.
        netns: Option<OwnedFd>,
        /// For ADD: the pool that addresses come from, where there are pools.
        pool: Option<String>,
        /// Where the answer goes.
        reply: SyncSender<Reply>,
        /// After this nobody waits for it any more.
        deadline: Instant,
    },
    /// A look at the datapath; short, for everything waits meanwhile.
    Inspect(Box<dyn FnOnce(&Datapath) + Send>),
    /// A look at services, if they are ours to serve; as short.
    Services(LookAtServices),
    /// The connections of these addresses are forgotten: they may be given again.
    Rested(Vec<IpAddr>),
    /// A router on the way to a node of this underlay address takes packets of so many bytes at most.
    PathMtu(IpAddr, u16),
    /// Compare the kernel with what is wanted, now.
    Refresh,
    /// A table has changed.
    Wake,
    /// End.
    Stop,
}

impl std::fmt::Debug for Command {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Cni { .. } => "Cni",
            Self::Inspect(_) => "Inspect",
            Self::Services(_) => "Services",
            Self::Rested(_) => "Rested",
            Self::PathMtu(..) => "PathMtu",
            Self::Refresh => "Refresh",
            Self::Wake => "Wake",
            Self::Stop => "Stop",
        })
    }
}

/// A handle for commands; any thread may have one.
#[derive(Clone, Debug)]
pub struct Client {
    commands: SyncSender<Command>,
    calls: Calls,
}

impl Client {
    pub(super) fn new(commands: SyncSender<Command>) -> Self {
        Self {
            commands,
            calls: Calls::default(),
        }
    }

    /// How many calls of the plugin ended how.
    #[must_use]
    pub fn calls(&self) -> &Calls {
        &self.calls
    }

    /// Runs a call of the plugin and waits for its end; for threads that may block.
    #[must_use]
    pub fn call(&self, call: Call, netns: Option<OwnedFd>) -> Reply {
        self.counted(&call.clone(), || self.attempt(call, netns, None))
    }

    /// Counts a call with its result, however many attempts it takes.
    pub(crate) fn counted(&self, call: &Call, work: impl FnOnce() -> Reply) -> Reply {
        let reply = work();
        self.calls.count(verb(call), &reply);
        reply
    }

    /// One attempt of a call; an ADD's addresses come from this pool.
    pub(crate) fn attempt(&self, call: Call, netns: Option<OwnedFd>, pool: Option<String>) -> Reply {
        let (reply, answer) = mpsc::sync_channel(1);
        let deadline = Instant::now() + CALL_TIMEOUT;
        if let Err(error) = self.commands.try_send(Command::Cni {
            call: Box::new(call),
            netns,
            pool,
            reply,
            deadline,
        }) {
            return Reply::Failed(later(match error {
                TrySendError::Full(_) => {
                    format!("{COMMANDS_MAX} commands wait for the apply thread, which is the limit")
                }
                TrySendError::Disconnected(_) => "the agent is stopping".to_owned(),
            }));
        }
        answer.recv_timeout(CALL_TIMEOUT).unwrap_or_else(|error| {
            Reply::Failed(later(match error {
                mpsc::RecvTimeoutError::Timeout => {
                    format!("the call took longer than {} s", CALL_TIMEOUT.as_secs())
                }
                mpsc::RecvTimeoutError::Disconnected => "the agent is stopping".to_owned(),
            }))
        })
    }

    /// Looks at the datapath; nothing when the apply thread is busy or gone.
    pub async fn inspect<T: Send + 'static>(
        &self,
        look: impl FnOnce(&Datapath) -> T + Send + 'static,
    ) -> Option<T> {
        let (reply, answer) = oneshot::channel();
        let command = Command::Inspect(Box::new(move |datapath| {
            let _ = reply.send(look(datapath));
        }));
        self.commands.try_send(command).ok()?;
        answer.await.ok()
    }

    /// Looks at services; nothing when the apply thread is busy or gone.
    pub async fn services<T: Send + 'static>(
        &self,
        look: impl FnOnce(Option<&Balancer>) -> T + Send + 'static,
    ) -> Option<T> {
        let (reply, answer) = oneshot::channel();
        let command = Command::Services(Box::new(move |balancer| {
            let _ = reply.send(look(balancer));
        }));
        self.commands.try_send(command).ok()?;
        answer.await.ok()
    }

    /// A table has changed. When the channel is full the thread is awake anyway.
    pub fn wake(&self) {
        let _ = self.commands.try_send(Command::Wake);
    }

    /// Compare the kernel with what is wanted, now.
    pub fn refresh(&self) {
        let _ = self.commands.try_send(Command::Refresh);
    }

    /// Waits for room: an address that is not given back would be lost until the next start.
    pub(super) fn rested(&self, ips: Vec<IpAddr>) {
        let _ = self.commands.send(Command::Rested(ips));
    }

    /// Where there is no room for it, the next packet that is too large brings it again.
    pub(crate) fn path_mtu(&self, node: IpAddr, mtu: u16) {
        let _ = self.commands.try_send(Command::PathMtu(node, mtu));
    }

    pub(super) fn stop(&self) {
        let _ = self.commands.send(Command::Stop);
    }
}

/// Calls of the plugin, by verb and result.
#[derive(Clone, Debug, Default)]
pub struct Calls(Family<CallLabel, Counter>);

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct CallLabel {
    verb: &'static str,
    result: &'static str,
}

impl Calls {
    /// Adds the counters to a registry.
    pub fn register(&self, registry: &mut Registry) {
        registry.register("thalweg_cni_requests", "Calls of the CNI plugin", self.0.clone());
    }

    fn count(&self, verb: &'static str, reply: &Reply) {
        let result = match reply {
            Reply::Added(_) | Reply::Done => "ok",
            Reply::Failed(_) => "error",
        };
        self.0.get_or_create(&CallLabel { verb, result }).inc();
    }
}

fn verb(call: &Call) -> &'static str {
    match call {
        Call::Add { .. } => "add",
        Call::Del { .. } => "del",
        Call::Check { .. } => "check",
        Call::Gc { .. } => "gc",
        Call::Status => "status",
    }
}

fn later(msg: String) -> Error {
    Error::new(
        codes::TRY_AGAIN_LATER,
        msg,
        "the runtime tries again by itself; if it goes on, see the agent's log",
    )
}
