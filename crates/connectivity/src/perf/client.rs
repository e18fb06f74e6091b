// SPDX-License-Identifier: Apache-2.0
//! The measuring end.

use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream, UdpSocket};
use std::ops::RangeInclusive;
use std::sync::Barrier;
use std::thread;
use std::time::{Duration, Instant};

use super::sockets::{connect, connect_from, connect_udp};
use super::{Histogram, Kind, PerfError, Ports, Report, Workload, affinity};

/// What one write of bulk data takes; the same as iperf3's.
const BLOCK: usize = 128 * 1024;
/// A datagram that is not answered within this time is counted as lost.
const DATAGRAM_TIMEOUT: Duration = Duration::from_millis(200);
/// Lost datagrams in a row after which the peer is taken for unreachable.
const DATAGRAM_TRIES: u32 = 25;
/// Source ports of TCP_CRR, taken in turn: with ports chosen by the kernel, those in TIME_WAIT run out after 28,000.
/// The kernel keeps some of its own (`ip_local_port_range` ends at 60,999) for the other kinds.
const SOURCE_PORTS: RangeInclusive<u16> = 10_000..=49_999;

/// What one flow counted.
#[derive(Default)]
struct Tally {
    transactions: u64,
    bytes: u64,
    retries: u64,
    seconds: f64,
    latency: Histogram,
}

/// A connection that is ready to be measured.
enum Flow {
    Exchange(TcpStream),
    Datagrams(UdpSocket),
    Connections(SourcePorts),
    Bulk(TcpStream),
}

/// Measures; blocks for warm-up plus duration.
pub fn run(workload: &Workload) -> Result<Report, PerfError> {
    if let Some(cpu) = workload.cpu {
        affinity::pin(cpu)?;
    }
    let address = address_of(workload);
    let flows = (0..workload.flows)
        .map(|index| Flow::open(workload.kind, address, index))
        .collect::<Result<Vec<_>, _>>()?;
    let barrier = Barrier::new(flows.len());
    let tallies = thread::scope(|scope| {
        let barrier = &barrier;
        let threads: Vec<_> = flows
            .into_iter()
            .map(|flow| {
                scope.spawn(move || {
                    barrier.wait();
                    flow.measure(address, workload)
                })
            })
            .collect();
        threads
            .into_iter()
            .map(|thread| {
                thread
                    .join()
                    .unwrap_or_else(|panic| std::panic::resume_unwind(panic))
            })
            .collect::<io::Result<Vec<_>>>()
    });
    let tallies = tallies.map_err(PerfError::socket("exchange data with", address))?;
    Ok(report(workload, &tallies))
}

fn address_of(workload: &Workload) -> SocketAddr {
    let ports = Ports::new(workload.port);
    let port = match workload.kind {
        Kind::TcpRr | Kind::UdpRr => ports.echo(),
        Kind::TcpCrr => ports.crr(),
        Kind::TcpStream => ports.sink(),
    };
    SocketAddr::new(workload.target, port)
}

fn report(workload: &Workload, tallies: &[Tally]) -> Report {
    let mut latency = Histogram::default();
    tallies.iter().for_each(|tally| latency.merge(&tally.latency));
    let sum_of_rates = |count: fn(&Tally) -> u64| {
        tallies
            .iter()
            .map(|tally| count(tally) as f64 / tally.seconds.max(f64::MIN_POSITIVE))
            .sum::<f64>()
    };
    let bulk = workload.kind == Kind::TcpStream;
    Report {
        kind: workload.kind,
        target: workload.target,
        flows: workload.flows,
        seconds: tallies.iter().map(|tally| tally.seconds).fold(0.0, f64::max),
        transactions: tallies.iter().map(|tally| tally.transactions).sum(),
        per_second: (!bulk).then(|| sum_of_rates(|tally| tally.transactions)),
        gbit_per_second: bulk.then(|| sum_of_rates(|tally| tally.bytes) * 8.0 / 1e9),
        latency: latency.latency(),
        retries: tallies.iter().map(|tally| tally.retries).sum(),
    }
}

impl Flow {
    fn open(kind: Kind, address: SocketAddr, index: usize) -> Result<Self, PerfError> {
        Ok(match kind {
            Kind::TcpRr => Self::Exchange(connect(address)?),
            Kind::TcpStream => Self::Bulk(connect(address)?),
            Kind::UdpRr => {
                let socket = connect_udp(address)?;
                socket
                    .set_read_timeout(Some(DATAGRAM_TIMEOUT))
                    .map_err(PerfError::socket("set up a UDP socket to", address))?;
                Self::Datagrams(socket)
            }
            Kind::TcpCrr => {
                drop(connect(address)?);
                Self::Connections(SourcePorts::new(index))
            }
        })
    }

    fn measure(self, address: SocketAddr, workload: &Workload) -> io::Result<Tally> {
        let window = Window::open(workload);
        match self {
            Self::Exchange(mut stream) => repeat(&window, |_| exchange(&mut stream)),
            Self::Connections(mut ports) => {
                repeat(&window, |tally| connect_and_exchange(address, &mut ports, tally))
            }
            Self::Datagrams(socket) => {
                let mut sequence = 0;
                repeat(&window, |tally| exchange_datagram(&socket, &mut sequence, tally))
            }
            Self::Bulk(stream) => send_bulk(stream, &window),
        }
    }
}

/// When counting begins and ends.
struct Window {
    begin: Instant,
    end: Instant,
}

impl Window {
    fn open(workload: &Workload) -> Self {
        let begin = Instant::now() + workload.warmup;
        Self {
            begin,
            end: begin + workload.duration,
        }
    }
}

/// Runs `transact` over and over; counts from the window's begin to its end. One clock reading per round serves as
/// the end of one exchange and the begin of the next.
fn repeat(window: &Window, mut transact: impl FnMut(&mut Tally) -> io::Result<()>) -> io::Result<Tally> {
    let mut tally = Tally::default();
    let mut before = Instant::now();
    while before < window.begin {
        transact(&mut tally)?;
        before = Instant::now();
    }
    tally = Tally::default();
    let begin = before;
    while before < window.end {
        transact(&mut tally)?;
        let now = Instant::now();
        tally.transactions += 1;
        tally.latency.record(now - before);
        before = now;
    }
    tally.seconds = (before - begin).as_secs_f64();
    Ok(tally)
}

fn exchange(stream: &mut TcpStream) -> io::Result<()> {
    let mut byte = [0];
    stream.write_all(&byte)?;
    stream.read_exact(&mut byte)
}

fn exchange_datagram(socket: &UdpSocket, sequence: &mut u8, tally: &mut Tally) -> io::Result<()> {
    for _ in 0..DATAGRAM_TRIES {
        *sequence = sequence.wrapping_add(1);
        // While the server starts there is an ICMP error to read, and it appears here or at the reception.
        let answer = socket.send(&[*sequence]).and_then(|_| receive(socket, *sequence));
        match answer {
            Ok(()) => return Ok(()),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => tally.retries += 1,
            Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => {
                tally.retries += 1;
                thread::sleep(DATAGRAM_TIMEOUT);
            }
            Err(error) => return Err(error),
        }
    }
    Err(io::ErrorKind::TimedOut.into())
}

/// Waits for the answer with this number; late answers to earlier datagrams are passed over.
fn receive(socket: &UdpSocket, sequence: u8) -> io::Result<()> {
    let mut byte = [0];
    loop {
        if socket.recv(&mut byte)? == 1 && byte == [sequence] {
            return Ok(());
        }
    }
}

/// The client reads all there is and closes first: no reset, and the `TIME_WAIT` is here.
fn connect_and_exchange(address: SocketAddr, ports: &mut SourcePorts, tally: &mut Tally) -> io::Result<()> {
    for _ in SOURCE_PORTS {
        match connect_from(ports.next(), address) {
            Ok(mut stream) => return exchange(&mut stream),
            Err(error) if is_busy(&error) => tally.retries += 1,
            Err(error) => return Err(error),
        }
    }
    Err(io::ErrorKind::AddrInUse.into())
}

fn is_busy(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::AddrInUse | io::ErrorKind::AddrNotAvailable
    )
}

fn send_bulk(mut stream: TcpStream, window: &Window) -> io::Result<Tally> {
    let block = vec![0x55; BLOCK];
    while Instant::now() < window.begin {
        stream.write_all(&block)?;
    }
    let begin = Instant::now();
    let mut tally = Tally::default();
    let mut now = begin;
    while now < window.end {
        stream.write_all(&block)?;
        tally.bytes += BLOCK as u64;
        now = Instant::now();
    }
    tally.seconds = (now - begin).as_secs_f64();
    Ok(tally)
}

/// Source ports in turn.
struct SourcePorts {
    next: u16,
}

impl SourcePorts {
    /// Starts somewhere else in each process and flow, so that runs one after the other share few ports.
    fn new(flow: usize) -> Self {
        let span = usize::from(SOURCE_PORTS.end() - SOURCE_PORTS.start());
        let offset = (std::process::id() as usize)
            .wrapping_mul(7919)
            .wrapping_add(flow * 997)
            % span;
        Self {
            next: SOURCE_PORTS.start() + u16::try_from(offset).unwrap_or(0),
        }
    }

    fn next(&mut self) -> u16 {
        let port = self.next;
        self.next = if port >= *SOURCE_PORTS.end() {
            *SOURCE_PORTS.start()
        } else {
            port + 1
        };
        port
    }
}
