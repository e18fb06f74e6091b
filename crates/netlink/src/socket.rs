// SPDX-License-Identifier: Apache-2.0
//! One `NETLINK_ROUTE` socket: requests out, acknowledgements, answers and dumps in.

use std::os::fd::BorrowedFd;

use netlink_packet_core::{NLM_F_ACK, NLM_F_DUMP, NLM_F_DUMP_INTR, NLM_F_REQUEST, NLMSG_DONE, NLMSG_ERROR};
use netlink_packet_core::{NetlinkHeader, NetlinkMessage, NetlinkPayload};
use netlink_sys::{Socket, SocketAddr, protocols::NETLINK_ROUTE};
use nix::errno::Errno;

use crate::attributes::{Attributes, string, u16_at, u32_at};
use crate::{Error, Request, netns};

/// The kernel fills dumps into buffers of at most this size, whatever the reader offers.
const RECEIVE_BUFFER: usize = 32 * 1024;
/// How often a dump that a concurrent change disturbed is taken again before it is reported.
const DUMP_ATTEMPTS: usize = 8;
/// Messages per system call of a batch: their errors fit the socket's receive queue.
const BATCH: usize = 64;
const MESSAGE_HEADER: usize = 16;
const NLM_F_MULTI: u16 = 2;
/// `NLMSGERR_ATTR_MSG`: the kernel's own words about a refusal.
const ERROR_TEXT: u16 = 1;

/// A blocking netlink socket, bound to the network namespace in which it was made.
pub struct Netlink {
    socket: Socket,
    sequence: u32,
    output: Vec<u8>,
    input: Vec<u8>,
}

impl std::fmt::Debug for Netlink {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Netlink")
            .field("sequence", &self.sequence)
            .finish_non_exhaustive()
    }
}

/// One received message.
struct Received<'a> {
    kind: u16,
    flags: u16,
    sequence: u32,
    payload: &'a [u8],
}

/// What a received message means for the exchange it belongs to.
enum Meaning<'a> {
    Foreign,
    Data(&'a [u8]),
    Refused(Error),
    Acknowledged,
}

impl Netlink {
    /// Opens a socket in the caller's network namespace.
    ///
    /// # Errors
    /// When the kernel gives no socket.
    pub fn open() -> Result<Self, Error> {
        let fail = |source| Error::system("open a netlink socket", source);
        let mut socket = Socket::new(NETLINK_ROUTE).map_err(fail)?;
        socket.bind_auto().map_err(fail)?;
        socket.connect(&SocketAddr::new(0, 0)).map_err(fail)?;
        socket.set_ext_ack(true).map_err(fail)?;
        socket.set_cap_ack(true).map_err(fail)?;
        socket.set_netlink_get_strict_chk(true).map_err(fail)?;
        Ok(Self {
            socket,
            sequence: 0,
            output: Vec::new(),
            input: Vec::with_capacity(RECEIVE_BUFFER),
        })
    }

    /// Opens a socket inside `netns`; it stays bound to that namespace wherever it is used.
    ///
    /// # Errors
    /// When the namespace cannot be entered or the kernel gives no socket.
    pub fn open_in(netns: BorrowedFd<'_>) -> Result<Self, Error> {
        netns::run_in(netns, Self::open)?
    }

    /// Runs `requests` in order with as few system calls as possible. All of them are tried; the first refusal is
    /// returned. Use it where later requests do no harm when an earlier one was refused.
    ///
    /// # Errors
    /// The first refusal.
    pub fn apply(&mut self, requests: &[Request]) -> Result<(), Error> {
        let mut first = Ok(());
        for batch in requests.chunks(BATCH) {
            let result = self.exchange(batch, NLM_F_ACK, |_| ());
            first = first.and(result);
        }
        first
    }

    /// Runs `changes`, then the query `get`, in one exchange, and returns the query's answer.
    pub(crate) fn apply_and_get<T>(
        &mut self,
        requests: &[Request],
        mut decode: impl FnMut(&[u8]) -> Option<T>,
    ) -> Result<Option<T>, Error> {
        let mut answer = None;
        self.exchange(requests, 0, |payload| answer = decode(payload))?;
        Ok(answer)
    }

    /// Runs a query that is answered with a list.
    pub(crate) fn dump<T>(
        &mut self,
        mut request: Request,
        mut decode: impl FnMut(&[u8]) -> Option<T>,
    ) -> Result<Vec<T>, Error> {
        request.flags |= NLM_F_DUMP;
        let request = [request];
        for _ in 0..DUMP_ATTEMPTS {
            let mut rows = Vec::new();
            match self.exchange(&request, 0, |payload| rows.extend(decode(payload))) {
                Ok(()) => return Ok(rows),
                Err(error) if error.errno() == Some(Errno::EINTR) => {}
                Err(error) => return Err(error),
            }
        }
        let [request] = request;
        Err(Error::Kernel {
            operation: request.operation,
            errno: Errno::EBUSY,
            message: Some(format!("it changed during each of {DUMP_ATTEMPTS} readings")),
        })
    }

    /// Sends all requests at once and reads until the last one is answered. `last_flags` are added to the last
    /// request: an acknowledgement of the last covers all, since the kernel works in order and always reports errors.
    fn exchange(
        &mut self,
        requests: &[Request],
        last_flags: u16,
        mut on_data: impl FnMut(&[u8]),
    ) -> Result<(), Error> {
        let (Some(last), first_sequence) = (requests.last(), self.sequence.wrapping_add(1)) else {
            return Ok(());
        };
        self.serialize(requests, last_flags);
        self.socket
            .send(&self.output, 0)
            .map_err(|error| Error::system(&*last.operation, error))?;
        let mut result = Ok(());
        loop {
            self.receive(&last.operation)?;
            for message in Messages(&self.input) {
                let is_last = message.sequence == self.sequence;
                let multi = message.flags & NLM_F_MULTI != 0 && message.kind != NLMSG_DONE;
                match meaning(&message, first_sequence, requests) {
                    Meaning::Foreign => continue,
                    Meaning::Data(payload) => on_data(payload),
                    Meaning::Refused(error) => result = result.and(Err(error)),
                    Meaning::Acknowledged => {}
                }
                if is_last && !multi {
                    return result;
                }
            }
        }
    }

    fn serialize(&mut self, requests: &[Request], last_flags: u16) {
        self.output.clear();
        for (position, request) in requests.iter().enumerate() {
            self.sequence = self.sequence.wrapping_add(1);
            let mut header = NetlinkHeader::default();
            header.sequence_number = self.sequence;
            header.flags = NLM_F_REQUEST | request.flags;
            if position + 1 == requests.len() {
                header.flags |= last_flags;
            }
            let mut message =
                NetlinkMessage::new(header, NetlinkPayload::InnerMessage(request.message.clone()));
            message.finalize();
            let start = self.output.len();
            self.output
                .resize(start + message.buffer_len().next_multiple_of(4), 0);
            message.serialize(&mut self.output[start..]);
        }
    }

    fn receive(&mut self, operation: &str) -> Result<(), Error> {
        loop {
            self.input.clear();
            match self.socket.recv(&mut self.input, libc::MSG_TRUNC) {
                Ok(length) if length > self.input.len() => {
                    return Err(Error::answer(
                        operation,
                        "it is longer than any netlink message may be",
                    ));
                }
                Ok(_) => return Ok(()),
                Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {}
                Err(error) => return Err(Error::system(operation, error)),
            }
        }
    }
}

fn meaning<'a>(message: &Received<'a>, first_sequence: u32, requests: &[Request]) -> Meaning<'a> {
    let position = message.sequence.wrapping_sub(first_sequence) as usize;
    let Some(request) = requests.get(position) else {
        return Meaning::Foreign;
    };
    if message.flags & NLM_F_DUMP_INTR != 0 {
        return Meaning::Refused(refusal(request, Errno::EINTR, &[]));
    }
    match message.kind {
        NLMSG_ERROR | NLMSG_DONE => {
            let code = u32_at(message.payload, 0).map_or(0, u32::cast_signed);
            // An error carries the request's header before its attributes, the end of a dump does not.
            let skipped = if message.kind == NLMSG_ERROR {
                4 + MESSAGE_HEADER
            } else {
                4
            };
            let attributes = message.payload.get(skipped..).unwrap_or_default();
            match code {
                code if code < 0 => Meaning::Refused(refusal(
                    request,
                    Errno::from_raw(code.saturating_neg()),
                    attributes,
                )),
                _ => Meaning::Acknowledged,
            }
        }
        _ => Meaning::Data(message.payload),
    }
}

fn refusal(request: &Request, errno: Errno, attributes: &[u8]) -> Error {
    let message = Attributes(attributes)
        .find(|(kind, _)| *kind == ERROR_TEXT)
        .map(|(_, text)| string(text));
    Error::Kernel {
        operation: request.operation.clone(),
        errno,
        message,
    }
}

/// Iterates over the messages of one datagram.
struct Messages<'a>(&'a [u8]);

impl<'a> Iterator for Messages<'a> {
    type Item = Received<'a>;

    fn next(&mut self) -> Option<Self::Item> {
        let length = usize::try_from(u32_at(self.0, 0)?).ok()?;
        let message = Received {
            kind: u16_at(self.0, 4)?,
            flags: u16_at(self.0, 6)?,
            sequence: u32_at(self.0, 8)?,
            payload: self.0.get(MESSAGE_HEADER..length)?,
        };
        self.0 = self.0.get(length.next_multiple_of(4)..).unwrap_or_default();
        Some(message)
    }
}
