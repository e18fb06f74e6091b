// SPDX-License-Identifier: Apache-2.0
//! Questions to whoever answers at an address: which server it is, each time anew.

use std::collections::{BTreeMap, BTreeSet};
use std::io::{self, ErrorKind, Read, Write};
use std::net::{IpAddr, SocketAddr, TcpStream, UdpSocket};
use std::thread;
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};

use super::PerfError;
use super::sockets::{connect, unspecified};

/// How long an answer may take that takes a millisecond when all is well.
const ANSWER_LIMIT: Duration = Duration::from_secs(2);
/// The same while it is waited for that somebody answers at all.
const TRY_LIMIT: Duration = Duration::from_millis(300);
/// The pause between two tries, and between two exchanges of a connection that is held.
const PAUSE: Duration = Duration::from_millis(20);
/// The longest answer.
const ANSWER: usize = 512;
/// How many new connections in a row must go to the new server before [`linger`] believes it.
const IN_A_ROW: u32 = 20;

/// What a server says of a question.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Who {
    /// From where it came.
    pub peer: SocketAddr,
    /// The server's name.
    pub server: String,
    /// How many connections the server has to its echo port.
    pub held: usize,
}

/// How a question is asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Protocol {
    /// By a new connection.
    Tcp,
    /// By a datagram of a new socket.
    Udp,
}

/// What is waited for before the questions that count.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Until {
    /// An answer
    Answered,
    /// A refusal
    Refused,
}

/// Who answered, and what came instead of an answer.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Answers {
    /// Servers, and how often each answered.
    pub servers: BTreeMap<String, u64>,
    /// As whom they saw the questions.
    pub peers: BTreeSet<IpAddr>,
    /// How often there was nobody, and that was said.
    pub refused: u64,
    /// How often nothing came.
    pub silent: u64,
    /// How often something else went wrong.
    pub broken: u64,
    /// What, the last time.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub complaint: Option<String>,
    /// The longest that an answer or a refusal took.
    pub slowest_ms: f64,
}

impl Answers {
    /// How many questions were answered.
    pub fn answered(&self) -> u64 {
        self.servers.values().sum()
    }

    /// How many were not, for whatever reason.
    pub fn unanswered(&self) -> u64 {
        self.refused + self.silent + self.broken
    }

    fn count(&mut self, answer: io::Result<Who>) {
        match answer {
            Ok(who) => {
                *self.servers.entry(who.server).or_default() += 1;
                self.peers.insert(who.peer.ip());
            }
            Err(error) if is_refusal(&error) => self.refused += 1,
            Err(error) if is_silence(&error) => self.silent += 1,
            Err(error) => {
                self.broken += 1;
                self.complaint = Some(error.to_string());
            }
        }
    }
}

/// Kernels that cannot say that a socket's call was refused call it forbidden.
fn is_refusal(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        ErrorKind::ConnectionRefused | ErrorKind::PermissionDenied
    )
}

fn is_silence(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        ErrorKind::TimedOut
            | ErrorKind::WouldBlock
            | ErrorKind::HostUnreachable
            | ErrorKind::NetworkUnreachable
    )
}

/// Asks once.
pub fn once(address: SocketAddr, protocol: Protocol, limit: Duration) -> io::Result<Who> {
    let answer = match protocol {
        Protocol::Tcp => by_connection(address, limit)?,
        Protocol::Udp => by_datagram(address, limit)?,
    };
    serde_json::from_slice(&answer).map_err(|_| {
        io::Error::other(format!(
            "it answered {:?}, which is not what the server of `perf` says",
            String::from_utf8_lossy(&answer)
        ))
    })
}

fn by_connection(address: SocketAddr, limit: Duration) -> io::Result<Vec<u8>> {
    let mut stream = TcpStream::connect_timeout(&address, limit)?;
    stream.set_read_timeout(Some(limit))?;
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer)?;
    Ok(answer)
}

fn by_datagram(address: SocketAddr, limit: Duration) -> io::Result<Vec<u8>> {
    let socket = UdpSocket::bind(SocketAddr::new(unspecified(address.ip()), 0))?;
    socket.connect(address)?;
    socket.set_read_timeout(Some(limit))?;
    socket.send(b"who")?;
    let mut answer = vec![0; ANSWER];
    let length = socket.recv(&mut answer)?;
    answer.truncate(length);
    Ok(answer)
}

/// Asks until what is waited for has come, or the time is over.
pub fn wait(address: SocketAddr, protocol: Protocol, until: Until, limit: Duration) {
    let begin = Instant::now();
    while begin.elapsed() < limit {
        let answer = once(address, protocol, TRY_LIMIT);
        let come = match until {
            Until::Answered => answer.is_ok(),
            Until::Refused => answer.is_err_and(|error| is_refusal(&error)),
        };
        if come {
            return;
        }
        thread::sleep(PAUSE);
    }
}

/// Asks so many times.
pub fn many(address: SocketAddr, protocol: Protocol, count: u64) -> Answers {
    let mut answers = Answers::default();
    for _ in 0..count {
        let begin = Instant::now();
        answers.count(once(address, protocol, ANSWER_LIMIT));
        answers.slowest_ms = answers.slowest_ms.max(begin.elapsed().as_secs_f64() * 1e3);
    }
    answers
}

/// What [`linger`] found.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Lingered {
    /// Exchanges on the connection that was held.
    pub exchanges: u64,
    /// What broke it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub broken: Option<String>,
    /// Whether new connections went to the server that was waited for, in the end.
    pub moved: bool,
    /// Who answered new connections.
    pub answers: Answers,
}

/// Holds a connection to an echo port, and asks by new ones until they go to the named server, or the time is over.
pub fn linger(
    hold: SocketAddr,
    ask: SocketAddr,
    server: &str,
    limit: Duration,
) -> Result<Lingered, PerfError> {
    let mut held = connect(hold)?;
    let mut found = Lingered::default();
    let (begin, mut in_a_row) = (Instant::now(), 0);
    while begin.elapsed() < limit && found.broken.is_none() && in_a_row < IN_A_ROW {
        match exchange(&mut held, found.exchanges) {
            Ok(()) => found.exchanges += 1,
            Err(error) => found.broken = Some(error.to_string()),
        }
        let answer = once(ask, Protocol::Tcp, ANSWER_LIMIT);
        let is_it = answer.as_ref().is_ok_and(|who| who.server == server);
        in_a_row = if is_it { in_a_row + 1 } else { 0 };
        found.answers.count(answer);
        thread::sleep(PAUSE);
    }
    found.moved = in_a_row == IN_A_ROW;
    Ok(found)
}

fn exchange(stream: &mut TcpStream, number: u64) -> io::Result<()> {
    let sent = number.to_be_bytes();
    stream.write_all(&sent)?;
    let mut back = [0; size_of::<u64>()];
    stream.read_exact(&mut back)?;
    if back == sent {
        Ok(())
    } else {
        Err(io::Error::other("other bytes came back"))
    }
}
