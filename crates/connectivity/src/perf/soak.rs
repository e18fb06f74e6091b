// SPDX-License-Identifier: Apache-2.0
//! Connections that are kept busy while something else is going on, such as an agent that restarts; afterwards it is
//! known what they suffered. The other end is an ordinary [`super::server::Server`].

use std::io::{self, Read, Write};
use std::net::{IpAddr, SocketAddr, TcpStream, UdpSocket};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};

use super::sockets::{connect, connect_udp, prepare};
use super::{PerfError, Ports};

/// The size of each message.
const MESSAGE: usize = 64;
/// How long to wait for the last datagrams once nothing more is sent.
const GRACE: Duration = Duration::from_secs(1);
/// How long one wait for a datagram lasts before looking whether it is time to stop.
const POLL: Duration = Duration::from_millis(50);
/// Between attempts to connect again.
const RECONNECT_PAUSE: Duration = Duration::from_millis(20);
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);

/// What to keep busy.
#[derive(Clone, Debug)]
pub struct Soak {
    /// The server.
    pub target: IpAddr,
    /// The server's first port.
    pub port: u16,
    /// How many TCP connections.
    pub connections: usize,
    /// The pause between exchanges on one connection.
    pub interval: Duration,
    /// The pause between datagrams; no datagrams if zero.
    pub udp_interval: Duration,
}

/// What was suffered.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct SoakReport {
    /// How long it went on.
    pub seconds: f64,
    /// The TCP connections.
    pub tcp: TcpReport,
    /// The UDP stream.
    pub udp: UdpReport,
}

impl SoakReport {
    /// Whether nothing was reset, lost, doubled, reordered or corrupted.
    pub fn is_clean(&self) -> bool {
        let TcpReport {
            resets,
            timeouts,
            errors,
            corrupt,
            reconnects,
            ..
        } = self.tcp;
        let UdpReport {
            lost,
            duplicated,
            reordered,
            errors: udp_errors,
            ..
        } = self.udp;
        [
            resets, timeouts, errors, corrupt, reconnects, lost, duplicated, reordered, udp_errors,
        ]
        .iter()
        .all(|count| *count == 0)
    }
}

/// All TCP connections together.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct TcpReport {
    /// How many connections.
    pub connections: u64,
    /// Messages that came back.
    pub exchanges: u64,
    /// Connections that the other end, or something between, reset.
    pub resets: u64,
    /// Messages that did not come back in time.
    pub timeouts: u64,
    /// Other failures.
    pub errors: u64,
    /// Messages that came back changed.
    pub corrupt: u64,
    /// Connections opened anew after a failure.
    pub reconnects: u64,
    /// The longest that a message took.
    pub longest_gap_ms: f64,
}

/// The UDP stream.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct UdpReport {
    /// Datagrams sent.
    pub sent: u64,
    /// Datagrams that came back, each counted once.
    pub received: u64,
    /// Datagrams that did not.
    pub lost: u64,
    /// Datagrams that came back again.
    pub duplicated: u64,
    /// Datagrams that came back after a later one.
    pub reordered: u64,
    /// Failures to send, or ICMP errors.
    pub errors: u64,
}

/// Connections that are open, and not busy yet.
#[derive(Debug)]
pub struct Ready {
    soak: Soak,
    streams: Vec<TcpStream>,
    udp: UdpSocket,
}

/// Opens all connections.
pub fn open(soak: Soak) -> Result<Ready, PerfError> {
    let address = soak.address();
    let streams = (0..soak.connections)
        .map(|_| connect(address))
        .collect::<Result<_, _>>()?;
    let udp = connect_udp(address)?;
    udp.set_read_timeout(Some(POLL))
        .map_err(PerfError::socket("set up a UDP socket to", address))?;
    Ok(Ready { soak, streams, udp })
}

impl Soak {
    fn address(&self) -> SocketAddr {
        SocketAddr::new(self.target, Ports::new(self.port).echo())
    }
}

impl Ready {
    /// Keeps them busy until `stop`.
    pub fn run(self, stop: &AtomicBool) -> SoakReport {
        let Self { soak, streams, udp } = self;
        let begin = Instant::now();
        let (soak, udp) = (&soak, &udp);
        let sent = &AtomicU64::new(0);
        let (tcp, udp) = thread::scope(|scope| {
            let tcp: Vec<_> = streams
                .into_iter()
                .map(|stream| scope.spawn(move || exchange(soak, stream, stop)))
                .collect();
            let sender = scope.spawn(move || send(soak, udp, sent, stop));
            let receiver = scope.spawn(move || receive(udp, sent, stop));
            let tcp = tcp
                .into_iter()
                .map(join)
                .fold(TcpReport::default(), TcpReport::plus);
            let send_errors = join(sender);
            let mut udp = join(receiver);
            udp.errors += send_errors;
            (tcp, udp)
        });
        SoakReport {
            seconds: begin.elapsed().as_secs_f64(),
            tcp,
            udp,
        }
    }
}

fn join<T>(thread: thread::ScopedJoinHandle<'_, T>) -> T {
    thread
        .join()
        .unwrap_or_else(|panic| std::panic::resume_unwind(panic))
}

impl TcpReport {
    fn plus(self, other: Self) -> Self {
        Self {
            connections: self.connections + other.connections,
            exchanges: self.exchanges + other.exchanges,
            resets: self.resets + other.resets,
            timeouts: self.timeouts + other.timeouts,
            errors: self.errors + other.errors,
            corrupt: self.corrupt + other.corrupt,
            reconnects: self.reconnects + other.reconnects,
            longest_gap_ms: self.longest_gap_ms.max(other.longest_gap_ms),
        }
    }

    fn count(&mut self, error: &io::Error) {
        use io::ErrorKind::{BrokenPipe, ConnectionReset, TimedOut, UnexpectedEof, WouldBlock};
        let kind = error.kind();
        if matches!(kind, ConnectionReset | BrokenPipe | UnexpectedEof) {
            self.resets += 1;
        } else if matches!(kind, WouldBlock | TimedOut) {
            self.timeouts += 1;
        } else {
            self.errors += 1;
        }
    }
}

fn exchange(soak: &Soak, first: TcpStream, stop: &AtomicBool) -> TcpReport {
    let mut report = TcpReport {
        connections: 1,
        ..TcpReport::default()
    };
    let mut stream = Some(first);
    let mut sequence = 0_u64;
    while !stop.load(Ordering::Relaxed) {
        let Some(open) = &mut stream else {
            stream = reconnect(soak, &mut report);
            continue;
        };
        let begin = Instant::now();
        sequence += 1;
        match message(open, sequence) {
            Ok(intact) => {
                report.exchanges += 1;
                report.corrupt += u64::from(!intact);
            }
            Err(error) => {
                report.count(&error);
                stream = None;
            }
        }
        report.longest_gap_ms = report.longest_gap_ms.max(begin.elapsed().as_secs_f64() * 1e3);
        thread::sleep(soak.interval);
    }
    report
}

fn message(stream: &mut TcpStream, sequence: u64) -> io::Result<bool> {
    let mut message = [0; MESSAGE];
    for chunk in message.chunks_exact_mut(size_of::<u64>()) {
        chunk.copy_from_slice(&sequence.to_be_bytes());
    }
    stream.write_all(&message)?;
    let mut answer = [0; MESSAGE];
    stream.read_exact(&mut answer)?;
    Ok(answer == message)
}

fn reconnect(soak: &Soak, report: &mut TcpReport) -> Option<TcpStream> {
    let opened = TcpStream::connect_timeout(&soak.address(), CONNECT_TIMEOUT)
        .and_then(|stream| prepare(&stream).map(|()| stream));
    if opened.is_ok() {
        report.reconnects += 1;
    } else {
        thread::sleep(RECONNECT_PAUSE);
    }
    opened.ok()
}

/// Sends numbered datagrams; returns how many could not be sent.
fn send(soak: &Soak, socket: &UdpSocket, sent: &AtomicU64, stop: &AtomicBool) -> u64 {
    let mut errors = 0;
    while !stop.load(Ordering::Relaxed) && !soak.udp_interval.is_zero() {
        // Counted first: the receiver must never see a number that has not been given out.
        let sequence = sent.fetch_add(1, Ordering::SeqCst);
        let mut message = [0; MESSAGE];
        if let Some(head) = message.first_chunk_mut() {
            *head = sequence.to_be_bytes();
        }
        errors += u64::from(socket.send(&message).is_err());
        thread::sleep(soak.udp_interval);
    }
    errors
}

/// Counts what comes back until all of it has or [`GRACE`] after the end is over.
fn receive(socket: &UdpSocket, sent: &AtomicU64, stop: &AtomicBool) -> UdpReport {
    let mut tracker = Tracker::default();
    let mut errors = 0;
    let mut stopped: Option<Instant> = None;
    let mut message = [0; MESSAGE];
    loop {
        match socket.recv(&mut message) {
            Ok(_) => tracker.see(message.first_chunk().map_or(0, |head| u64::from_be_bytes(*head))),
            Err(error) if matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut) => {}
            Err(_) => errors += 1,
        }
        if stop.load(Ordering::Relaxed) {
            let since = *stopped.get_or_insert_with(Instant::now);
            let all = tracker.received == sent.load(Ordering::SeqCst) && since.elapsed() > 2 * POLL;
            if all || since.elapsed() > GRACE {
                break;
            }
        }
    }
    tracker.report(sent.load(Ordering::SeqCst), errors)
}

/// Which numbers have come.
#[derive(Debug, Default)]
struct Tracker {
    seen: Vec<bool>,
    received: u64,
    duplicated: u64,
    reordered: u64,
}

impl Tracker {
    fn see(&mut self, sequence: u64) {
        let index = usize::try_from(sequence).unwrap_or(usize::MAX);
        let late = index < self.seen.len();
        if !late {
            self.seen.resize(index.saturating_add(1), false);
        }
        let Some(seen) = self.seen.get_mut(index) else {
            return;
        };
        if std::mem::replace(seen, true) {
            self.duplicated += 1;
        } else {
            self.received += 1;
            self.reordered += u64::from(late);
        }
    }

    fn report(&self, sent: u64, errors: u64) -> UdpReport {
        UdpReport {
            sent,
            received: self.received,
            lost: sent.saturating_sub(self.received),
            duplicated: self.duplicated,
            reordered: self.reordered,
            errors,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lost_doubled_and_late_datagrams_are_told_apart() {
        let mut tracker = Tracker::default();
        for sequence in [0, 1, 1, 4, 3, 3] {
            tracker.see(sequence);
        }
        let report = tracker.report(6, 0);
        assert_eq!((report.received, report.lost), (4, 2));
        assert_eq!((report.duplicated, report.reordered), (2, 1));
    }
}
