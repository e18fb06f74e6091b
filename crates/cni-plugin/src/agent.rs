// SPDX-License-Identifier: Apache-2.0
//! One request to the agent.

use std::fs::File;
use std::io::{ErrorKind, IoSlice, Write};
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::fs::OpenOptionsExt;
use std::os::unix::net::UnixStream;

use cni::protocol::{self, Call, Reply, Request};
use cni::{Env, Error, codes};
use nix::errno::Errno;
use nix::sys::socket::{
    self, AddressFamily, ControlMessage, MsgFlags, SockFlag, SockType, UnixAddr, sockopt,
};
use nix::sys::time::{TimeVal, TimeValLike};

/// How long connecting and each write may take: the agent answers in milliseconds or is stuck.
const SEND_TIMEOUT_SECONDS: i64 = 2;
/// How long the answer may take; above the agent's own limit for a call, so that its error is the one that is seen.
const REPLY_TIMEOUT_SECONDS: i64 = 40;

/// A call that got no answer.
#[derive(Debug)]
pub(crate) struct Failure {
    /// Why not.
    pub(crate) cause: Cause,
    error: Error,
}

/// Why a call got no answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Cause {
    /// The agent did not take it.
    Away,
    /// The agent took it and died, or is too slow.
    Silent,
    /// Agent and plugin do not understand one another.
    Unintelligible,
}

impl From<Failure> for Error {
    fn from(failure: Failure) -> Self {
        failure.error
    }
}

/// Sends `call`, with the descriptor of a namespace, and waits for the answer.
pub(crate) fn call(path: &str, call: &Call, netns: Option<&File>) -> Result<Reply, Failure> {
    let request = Request {
        version: protocol::VERSION,
        call: call.clone(),
    };
    let frame = protocol::encode(&request).map_err(|error| Failure {
        cause: Cause::Unintelligible,
        error,
    })?;
    let stream = connect(path).map_err(|errno| down(Cause::Away, path, "connect", errno.desc()))?;
    ask(&mut UnixStream::from(stream), path, &frame, netns)
}

fn ask(stream: &mut UnixStream, path: &str, frame: &[u8], netns: Option<&File>) -> Result<Reply, Failure> {
    match send(stream, frame, netns) {
        Ok(()) => protocol::read(stream).map_err(|error| {
            if error.code == codes::IO_FAILURE {
                down(Cause::Silent, path, "no answer", &error.msg)
            } else {
                Failure {
                    cause: Cause::Unintelligible,
                    error,
                }
            }
        }),
        // An agent with too much to do answers and closes without reading: its answer waits in the socket.
        Err(error) if matches!(error.kind(), ErrorKind::BrokenPipe | ErrorKind::ConnectionReset) => {
            protocol::read(stream).map_err(|_| down(Cause::Away, path, "send", &error.to_string()))
        }
        Err(error) => Err(down(Cause::Away, path, "send", &error.to_string())),
    }
}

/// Opens the container's namespace. `O_NONBLOCK`: a path to a FIFO must not hang the runtime.
pub(crate) fn open_netns(env: &Env) -> Result<(String, File), Error> {
    let path = env.netns.clone().unwrap_or_default();
    let flags = nix::libc::O_NONBLOCK;
    let opened = File::options().read(true).custom_flags(flags).open(&path);
    opened.map(|file| (path.clone(), file)).map_err(|error| {
        Error::new(
            codes::UNKNOWN_CONTAINER,
            format!("cannot open the network namespace CNI_NETNS={path:?}: {error}"),
            "the container runtime makes it before it calls ADD; see its log",
        )
    })
}

/// `UnixStream::connect` waits without limit while the agent's backlog is full: the timeout has to be set before.
fn connect(path: &str) -> Result<OwnedFd, Errno> {
    let fd = socket::socket(
        AddressFamily::Unix,
        SockType::Stream,
        SockFlag::SOCK_CLOEXEC,
        None,
    )?;
    socket::setsockopt(&fd, sockopt::SendTimeout, &TimeVal::seconds(SEND_TIMEOUT_SECONDS))?;
    socket::setsockopt(
        &fd,
        sockopt::ReceiveTimeout,
        &TimeVal::seconds(REPLY_TIMEOUT_SECONDS),
    )?;
    socket::connect(fd.as_raw_fd(), &UnixAddr::new(path)?)?;
    Ok(fd)
}

fn send(stream: &mut UnixStream, frame: &[u8], netns: Option<&File>) -> std::io::Result<()> {
    let fds: Vec<_> = netns.iter().map(|file| file.as_raw_fd()).collect();
    let rights = [ControlMessage::ScmRights(&fds)];
    let control: &[ControlMessage<'_>] = if fds.is_empty() { &[] } else { &rights };
    let fd = stream.as_fd().as_raw_fd();
    let sent =
        socket::sendmsg::<UnixAddr>(fd, &[IoSlice::new(frame)], control, MsgFlags::MSG_NOSIGNAL, None)?;
    stream.write_all(&frame[sent..])
}

fn down(cause: Cause, path: &str, what: &str, reason: &str) -> Failure {
    let error = Error::new(
        codes::TRY_AGAIN_LATER,
        format!("the Thalweg agent does not answer on {path}: {what}: {reason}"),
        "see whether `thalweg agent` runs on this node and what it logs; the runtime tries again by itself",
    );
    Failure { cause, error }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_that_came_before_the_call_was_sent_is_read() {
        let (mut plugin, mut agent) = UnixStream::pair().unwrap();
        let busy = Error::new(codes::TRY_AGAIN_LATER, "many calls are under way", "try again");
        protocol::write(&mut agent, &Reply::Failed(busy)).unwrap();
        drop(agent);
        let reply = ask(&mut plugin, "/run/test.sock", b"a frame", None).unwrap();
        assert!(matches!(reply, Reply::Failed(error) if error.code == codes::TRY_AGAIN_LATER));
    }

    #[test]
    fn an_agent_that_goes_without_an_answer_is_away() {
        let (mut plugin, agent) = UnixStream::pair().unwrap();
        drop(agent);
        let failure = ask(&mut plugin, "/run/test.sock", b"a frame", None).unwrap_err();
        assert_eq!(failure.cause, Cause::Away);
    }
}
