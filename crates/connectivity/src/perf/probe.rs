// SPDX-License-Identifier: Apache-2.0
//! Single questions asked from inside a pod. Each prints one JSON object; what cannot be asked is an error.

use std::io::{self, Read, Write};
use std::net::{IpAddr, SocketAddr, TcpStream, UdpSocket};
use std::thread;
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};
use socket2::{Domain, Protocol, Socket, Type};

use super::ask::Who;
use super::sockets::{connect, connect_udp, listen_udp};
use super::{PerfError, Ports};

/// How long one datagram is waited for.
const DATAGRAM_TIMEOUT: Duration = Duration::from_millis(200);
/// How often a datagram is sent before the peer is taken for unreachable.
const DATAGRAM_TRIES: usize = 25;
/// How often a forged datagram is sent.
const FORGERIES: usize = 5;
/// The last message of [`forge`]: the listener stops.
const END: &[u8] = b"end";
const HONEST: &[u8] = b"honest";
const FORGED: &[u8] = b"forged";
/// The largest UDP payload.
const DATAGRAM: usize = 65_535;

/// How an attempt to connect ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Connect {
    /// Somebody listens there.
    Connected,
    /// The machine is there, and nobody listens: packets went both ways all the same.
    Refused,
    /// No answer.
    TimedOut,
}

/// Tries to open a TCP connection.
pub fn connect_once(address: SocketAddr, timeout: Duration) -> Result<Connect, PerfError> {
    match TcpStream::connect_timeout(&address, timeout) {
        Ok(_) => Ok(Connect::Connected),
        Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => Ok(Connect::Refused),
        Err(error) if error.kind() == io::ErrorKind::TimedOut => Ok(Connect::TimedOut),
        Err(error) => Err(PerfError::socket("connect to", address)(error)),
    }
}

/// As whom the server sees a connection from here.
pub fn whoami(target: IpAddr, port: u16) -> Result<Who, PerfError> {
    let address = SocketAddr::new(target, Ports::new(port).whoami());
    let mut text = Vec::new();
    connect(address)?
        .read_to_end(&mut text)
        .map_err(PerfError::socket("read from", address))?;
    serde_json::from_slice(&text).map_err(|_| PerfError::Corrupt {
        address,
        detail: format!(
            "it says of nobody who calls: {:?}",
            String::from_utf8_lossy(&text)
        ),
    })
}

/// What [`bulk`] did.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Bulk {
    /// Bytes sent, and received unchanged.
    pub bytes: u64,
    /// The digest of both.
    pub digest: String,
}

/// Sends pseudo-random data and reads its echo at the same time; compares digests.
pub fn bulk(target: IpAddr, port: u16, bytes: u64) -> Result<Bulk, PerfError> {
    let address = SocketAddr::new(target, Ports::new(port).echo());
    let stream = connect(address)?;
    let writer = stream
        .try_clone()
        .map_err(PerfError::socket("duplicate the connection to", address))?;
    let (sent, received) = thread::scope(|scope| {
        let sent = scope.spawn(move || send_noise(writer, bytes));
        let received = digest_of(stream, bytes);
        (
            sent.join()
                .unwrap_or_else(|panic| std::panic::resume_unwind(panic)),
            received,
        )
    });
    let sent = sent.map_err(PerfError::socket("write to", address))?;
    let received = received.map_err(PerfError::socket("read from", address))?;
    if sent != received {
        let detail = format!("digest {received:016x} of {bytes} bytes instead of {sent:016x}");
        return Err(PerfError::Corrupt { address, detail });
    }
    Ok(Bulk {
        bytes,
        digest: format!("{sent:016x}"),
    })
}

fn send_noise(mut stream: TcpStream, bytes: u64) -> io::Result<u64> {
    let mut noise = Noise(0x9e37_79b9_7f4a_7c15);
    let mut digest = Digest::default();
    let mut left = bytes;
    let mut block = vec![0; 64 * 1024];
    while left > 0 {
        let length = usize::try_from(left).unwrap_or(usize::MAX).min(block.len());
        let block = block.get_mut(..length).unwrap_or_default();
        noise.fill(block);
        digest.add(block);
        stream.write_all(block)?;
        left -= length as u64;
    }
    stream.shutdown(std::net::Shutdown::Write)?;
    Ok(digest.0)
}

fn digest_of(stream: TcpStream, bytes: u64) -> io::Result<u64> {
    let mut digest = Digest::default();
    let mut stream = stream.take(bytes);
    let mut block = vec![0; 64 * 1024];
    loop {
        match stream.read(&mut block)? {
            0 => return Ok(digest.0),
            length => digest.add(block.get(..length).unwrap_or_default()),
        }
    }
}

/// xorshift64: any data that no middle box could guess or compress.
struct Noise(u64);

impl Noise {
    fn fill(&mut self, block: &mut [u8]) {
        for chunk in block.chunks_mut(size_of::<u64>()) {
            self.0 ^= self.0 << 13;
            self.0 ^= self.0 >> 7;
            self.0 ^= self.0 << 17;
            let bytes = self.0.to_le_bytes();
            chunk.iter_mut().zip(bytes).for_each(|(to, from)| *to = from);
        }
    }
}

/// FNV-1a, 64 bit: catches every changed, lost, doubled or moved byte that is not there on purpose.
struct Digest(u64);

impl Default for Digest {
    fn default() -> Self {
        Self(0xcbf2_9ce4_8422_2325)
    }
}

impl Digest {
    fn add(&mut self, bytes: &[u8]) {
        for byte in bytes {
            self.0 = (self.0 ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3);
        }
    }
}

/// What [`many`] did.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Many {
    /// Connections that were open at once, each of which carried data.
    pub connections: usize,
}

/// Holds many connections open at once, and uses each.
pub fn many(target: IpAddr, port: u16, connections: usize) -> Result<Many, PerfError> {
    let address = SocketAddr::new(target, Ports::new(port).echo());
    let mut streams = (0..connections)
        .map(|_| connect(address))
        .collect::<Result<Vec<_>, _>>()?;
    for (stream, number) in streams.iter_mut().zip(0_u32..) {
        let sent = number.to_be_bytes();
        let mut answer = [0; size_of::<u32>()];
        stream
            .write_all(&sent)
            .and_then(|()| stream.read_exact(&mut answer))
            .map_err(PerfError::socket("exchange data with", address))?;
        if answer != sent {
            return Err(PerfError::Corrupt {
                address,
                detail: format!("on connection {number}"),
            });
        }
    }
    Ok(Many { connections })
}

/// What [`datagrams`] did.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Datagrams {
    /// Datagrams sent.
    pub sent: usize,
    /// Datagrams that came back unchanged.
    pub received: usize,
}

/// Sends datagrams of a size one after the other, each when the one before has come back or is overdue.
pub fn datagrams(target: IpAddr, port: u16, size: usize, count: usize) -> Result<Datagrams, PerfError> {
    let address = SocketAddr::new(target, Ports::new(port).echo());
    let socket = connect_udp(address)?;
    socket
        .set_read_timeout(Some(DATAGRAM_TIMEOUT))
        .map_err(PerfError::socket("set up a UDP socket to", address))?;
    let mut data = vec![0; size];
    let mut received = 0;
    for number in 1..=count as u64 {
        Noise(number).fill(&mut data);
        socket
            .send(&data)
            .map_err(PerfError::socket("send to", address))?;
        received += usize::from(comes_back(&socket, &data));
    }
    Ok(Datagrams {
        sent: count,
        received,
    })
}

fn comes_back(socket: &UdpSocket, data: &[u8]) -> bool {
    let mut answer = vec![0; DATAGRAM];
    socket
        .recv(&mut answer)
        .is_ok_and(|length| answer.get(..length) == Some(data))
}

/// What a [`listen`]er heard.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Heard {
    /// Honest datagrams.
    pub honest: usize,
    /// Forged datagrams: none, where sources are checked.
    pub forged: usize,
}

/// Answers [`forge`] and counts what it hears from it.
pub fn listen(address: SocketAddr, timeout: Duration) -> Result<Heard, PerfError> {
    let socket = listen_udp(address)?;
    socket
        .set_read_timeout(Some(timeout))
        .map_err(PerfError::socket("set up a UDP socket on", address))?;
    let mut heard = Heard::default();
    let mut message = [0; 64];
    loop {
        let (length, peer) = socket
            .recv_from(&mut message)
            .map_err(PerfError::socket("receive on", address))?;
        let message = message.get(..length).unwrap_or_default();
        heard.forged += usize::from(message == FORGED);
        if message != FORGED {
            heard.honest += usize::from(message == HONEST);
            socket
                .send_to(message, peer)
                .map_err(PerfError::socket("answer", peer))?;
        }
        if message == END {
            return Ok(heard);
        }
    }
}

/// Sends datagrams that claim to come from `source`, between honest ones that show that the way is open. Returns how
/// many were sent.
pub fn forge(source: IpAddr, to: SocketAddr) -> Result<usize, PerfError> {
    let honest = connect_udp(to)?;
    honest
        .set_read_timeout(Some(DATAGRAM_TIMEOUT))
        .map_err(PerfError::socket("set up a UDP socket to", to))?;
    until_answered(&honest, HONEST, to)?;
    let forger = forger(source, to).map_err(PerfError::socket("forge the source of datagrams to", to))?;
    for _ in 0..FORGERIES {
        forger
            .send(FORGED)
            .map_err(PerfError::socket("send forged datagrams to", to))?;
    }
    until_answered(&honest, END, to)?;
    Ok(FORGERIES)
}

fn until_answered(socket: &UdpSocket, message: &[u8], to: SocketAddr) -> Result<(), PerfError> {
    let deadline = Instant::now() + DATAGRAM_TIMEOUT * u32::try_from(DATAGRAM_TRIES).unwrap_or(u32::MAX);
    while Instant::now() < deadline {
        // Before the listener is there, an ICMP error says so: on either call.
        if socket.send(message).is_ok() && comes_back(socket, message) {
            return Ok(());
        }
        thread::sleep(Duration::from_millis(10));
    }
    Err(PerfError::socket("get an answer from", to)(
        io::ErrorKind::TimedOut.into(),
    ))
}

/// A socket with a source address that this network namespace does not have.
fn forger(source: IpAddr, to: SocketAddr) -> io::Result<UdpSocket> {
    let socket = Socket::new(Domain::for_address(to), Type::DGRAM, Some(Protocol::UDP))?;
    match source {
        IpAddr::V4(_) => socket.set_ip_transparent_v4(true)?,
        IpAddr::V6(_) => socket.set_freebind_v6(true)?,
    }
    socket.bind(&SocketAddr::new(source, 0).into())?;
    socket.connect(&to.into())?;
    Ok(socket.into())
}
