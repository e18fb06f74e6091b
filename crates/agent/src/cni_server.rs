// SPDX-License-Identifier: Apache-2.0
//! Serves the plugin: one request per connection, each on a short-lived thread of its own.
//!
//! Threads and not tasks: passing descriptors wants plain system calls, a call is mostly one wait for the apply thread, and the
//! latency of ADD must not depend on what the asynchronous thread is busy with.

use std::io::{self, IoSliceMut, Read};
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::mpsc::{self, Receiver, Sender};
use std::thread::JoinHandle;
use std::time::Duration;

use cni::protocol::{self, Call, Reply, Request};
use cni::{Error, codes};
use nix::sys::socket::{
    ControlMessageOwned, MsgFlags, Shutdown, UnixAddr, getsockopt, recvmsg, shutdown, sockopt,
};
use tracing::{debug, warn};

use crate::apply::Client;
use crate::cluster_pool::Chooser;

/// Calls that may be under way; more are asked to try again.
pub const MAX_CALLS: usize = 256;
/// How long a plugin may take to send its request or to take the answer.
const IO_TIMEOUT: Duration = Duration::from_secs(2);
/// How long a stopping agent waits for answers to be taken.
const DRAIN_TIMEOUT: Duration = Duration::from_millis(500);
/// A thread of a call needs little: the work is done by the apply thread.
const STACK_BYTES: usize = 128 << 10;
/// Descriptors taken from one message; the protocol sends at most one, the others are closed.
const MAX_FDS: usize = 4;

/// A bound socket. Plugins may connect, and wait, from now on.
#[derive(Debug)]
pub struct Listener {
    listener: UnixListener,
    file: SocketFile,
}

/// The file by which plugins find the socket.
#[derive(Debug, Clone)]
pub struct SocketFile {
    path: PathBuf,
    device: u64,
    inode: u64,
}

impl SocketFile {
    fn of(path: &Path) -> io::Result<Self> {
        let found = std::fs::symlink_metadata(path)?;
        Ok(Self {
            path: path.to_owned(),
            device: found.dev(),
            inode: found.ino(),
        })
    }

    /// Where it is.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Whether plugins still find the socket: anybody may remove a file from a directory for things that a boot clears away.
    #[must_use]
    pub fn is_there(&self) -> bool {
        Self::of(&self.path).is_ok_and(|found| (found.device, found.inode) == (self.device, self.inode))
    }
}

/// A running server.
#[derive(Debug)]
pub struct Server {
    listener: UnixListener,
    thread: JoinHandle<()>,
    calls: Receiver<()>,
}

/// Binds the socket, over one that a dead agent left; the caller holds the node's lock, so nobody else uses it.
///
/// # Errors
/// When the directory or the socket cannot be made.
pub fn bind(path: &Path) -> io::Result<Listener> {
    let context = |error: io::Error| {
        io::Error::new(
            error.kind(),
            format!("cannot listen on {} (cni.socket): {error}", path.display()),
        )
    };
    if let Some(dir) = path.parent() {
        std::fs::create_dir_all(dir).map_err(context)?;
    }
    match std::fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(context(error)),
        _ => {}
    }
    let listener = UnixListener::bind(path).map_err(context)?;
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o600)).map_err(context)?;
    let file = SocketFile::of(path).map_err(context)?;
    Ok(Listener { listener, file })
}

impl Listener {
    /// Where it listens.
    #[must_use]
    pub const fn file(&self) -> &SocketFile {
        &self.file
    }

    /// Begins to answer.
    ///
    /// # Errors
    /// When no thread can be started.
    pub fn serve(self, client: Client, chooser: Option<Arc<Chooser>>) -> io::Result<Server> {
        let listener = self.listener.try_clone()?;
        let (guard, calls) = mpsc::channel();
        let caller = Caller { client, chooser };
        let accept = move || accept_loop(&self.listener, &caller, &guard);
        let thread = std::thread::Builder::new().name("cni".into()).spawn(accept)?;
        Ok(Server {
            listener,
            thread,
            calls,
        })
    }
}

impl Server {
    /// Stops accepting and waits, for a bounded time, until every answer has been taken.
    pub fn stop(self) {
        // On a listening socket this wakes accept() with an error.
        if let Err(error) = shutdown(self.listener.as_raw_fd(), Shutdown::Both) {
            warn!(%error, "the CNI socket cannot be shut down");
            return;
        }
        let _ = self.thread.join();
        // Each call holds a sender: the channel closes when the last one ends.
        if self.calls.recv_timeout(DRAIN_TIMEOUT) == Err(mpsc::RecvTimeoutError::Timeout) {
            warn!("CNI calls were still under way at the stop");
        }
    }
}

/// What calls go to: the apply thread, and where there are pools first to who chooses one.
#[derive(Clone)]
struct Caller {
    client: Client,
    chooser: Option<Arc<Chooser>>,
}

impl Caller {
    fn call(&self, call: Call, netns: Option<OwnedFd>) -> Reply {
        match &self.chooser {
            Some(chooser) => chooser.call(&self.client, call, netns),
            None => self.client.call(call, netns),
        }
    }
}

fn accept_loop(listener: &UnixListener, caller: &Caller, guard: &Sender<()>) {
    let under_way = Arc::new(());
    loop {
        let stream = match listener.accept() {
            Ok((stream, _)) => stream,
            Err(error) if error.raw_os_error() == Some(libc::EINVAL) => return,
            Err(error) => {
                // Out of descriptors or memory: the connection waits in the backlog meanwhile.
                warn!(%error, "a CNI connection could not be accepted");
                std::thread::sleep(Duration::from_millis(10));
                continue;
            }
        };
        if Arc::strong_count(&under_way) > MAX_CALLS {
            refuse(stream, busy());
            continue;
        }
        let (caller, guard, under_way) = (caller.clone(), guard.clone(), under_way.clone());
        let call = move || {
            serve_one(stream, &caller);
            drop((guard, under_way));
        };
        let thread = std::thread::Builder::new()
            .name("cni-call".into())
            .stack_size(STACK_BYTES)
            .spawn(call);
        if let Err(error) = thread {
            warn!(%error, "no thread for a CNI call; the runtime will try again");
        }
    }
}

fn serve_one(mut stream: UnixStream, caller: &Caller) {
    let reply = match receive(&stream) {
        Ok((request, netns)) => caller.call(request.call, netns),
        Err(error) => {
            debug!(%error, "a request on the CNI socket was refused");
            Reply::Failed(error)
        }
    };
    // A plugin that has gone gets no answer; its runtime calls DEL.
    if let Err(error) = protocol::write(&mut stream, &reply) {
        debug!(%error, "an answer to the CNI plugin was not taken");
    }
}

fn refuse(mut stream: UnixStream, error: Error) {
    let _ = stream.set_write_timeout(Some(IO_TIMEOUT));
    let _ = protocol::write(&mut stream, &Reply::Failed(error));
}

fn receive(stream: &UnixStream) -> Result<(Request, Option<OwnedFd>), Error> {
    let io_error = |error: io::Error| {
        Error::new(
            codes::IO_FAILURE,
            format!("CNI socket: {error}"),
            "see the agent's log",
        )
    };
    stream.set_read_timeout(Some(IO_TIMEOUT)).map_err(io_error)?;
    stream.set_write_timeout(Some(IO_TIMEOUT)).map_err(io_error)?;
    let peer = getsockopt(stream, sockopt::PeerCredentials).map_err(|errno| io_error(errno.into()))?;
    if peer.uid() != 0 {
        let msg = format!("user {} may not use the CNI socket", peer.uid());
        return Err(Error::new(
            codes::IO_FAILURE,
            msg,
            "container runtimes run as root",
        ));
    }
    let mut prefix = [0; 4];
    let (read, netns) = receive_fd(stream, &mut prefix).map_err(io_error)?;
    let mut stream = stream;
    let request: Request = protocol::read(&mut prefix[..read].chain(&mut stream))?;
    protocol::check_version(&request)?;
    Ok((request, netns))
}

/// The first bytes and the descriptor that came with them.
fn receive_fd(stream: &UnixStream, prefix: &mut [u8; 4]) -> io::Result<(usize, Option<OwnedFd>)> {
    let mut space = nix::cmsg_space!([i32; MAX_FDS]);
    let mut parts = [IoSliceMut::new(prefix)];
    let flags = MsgFlags::MSG_CMSG_CLOEXEC;
    let message = recvmsg::<UnixAddr>(stream.as_raw_fd(), &mut parts, Some(&mut space), flags)?;
    let mut fds = Vec::new();
    for control in message.cmsgs()? {
        if let ControlMessageOwned::ScmRights(raw) = control {
            // SAFETY: the kernel has just made these descriptors for us and nothing else knows them.
            fds.extend(raw.into_iter().map(|fd| unsafe { OwnedFd::from_raw_fd(fd) }));
        }
    }
    Ok((message.bytes, fds.into_iter().next()))
}

fn busy() -> Error {
    Error::new(
        codes::TRY_AGAIN_LATER,
        format!("{MAX_CALLS} CNI calls are under way, which is the limit"),
        "the runtime tries again by itself",
    )
}
