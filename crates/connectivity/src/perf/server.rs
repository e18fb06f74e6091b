// SPDX-License-Identifier: Apache-2.0
//! The answering end.

use std::io::{self, Read, Write};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::thread;

use super::sockets::{listen, listen_udp};
use super::{PerfError, Ports};

/// What one read takes at most.
const BUFFER: usize = 256 * 1024;
/// The largest UDP payload.
const DATAGRAM: usize = 65_535;

/// Bound sockets, not serving yet.
#[derive(Debug)]
pub struct Server {
    listeners: Vec<Listeners>,
}

#[derive(Debug)]
struct Listeners {
    echo: TcpListener,
    crr: TcpListener,
    sink: TcpListener,
    whoami: TcpListener,
    udp: UdpSocket,
}

impl Server {
    /// Binds the ports from `base` on, on each of the addresses; on every address of both families when there are
    /// none. A machine without IPv6 then serves IPv4 alone.
    pub fn bind(addresses: &[IpAddr], base: u16) -> Result<Self, PerfError> {
        let ports = Ports::new(base);
        if !addresses.is_empty() {
            let listeners = addresses
                .iter()
                .map(|ip| Listeners::bind(*ip, ports))
                .collect::<Result<_, _>>()?;
            return Ok(Self { listeners });
        }
        let mut listeners = vec![Listeners::bind(Ipv4Addr::UNSPECIFIED.into(), ports)?];
        listeners.extend(Listeners::bind(Ipv6Addr::UNSPECIFIED.into(), ports).ok());
        Ok(Self { listeners })
    }

    /// Serves on threads of its own until the process ends.
    pub fn start(self) -> Result<(), PerfError> {
        for set in self.listeners {
            let Listeners {
                echo,
                crr,
                sink,
                whoami,
                udp,
            } = set;
            spawn("echo", move || each_connection(&echo, echo_back))?;
            spawn("crr", move || one_at_a_time(&crr, answer_bytes))?;
            spawn("sink", move || each_connection(&sink, discard))?;
            spawn("whoami", move || one_at_a_time(&whoami, say_who))?;
            spawn("udp", move || echo_datagrams(&udp))?;
        }
        Ok(())
    }
}

impl Listeners {
    fn bind(ip: IpAddr, ports: Ports) -> Result<Self, PerfError> {
        Ok(Self {
            echo: listen(SocketAddr::new(ip, ports.echo()))?,
            crr: listen(SocketAddr::new(ip, ports.crr()))?,
            sink: listen(SocketAddr::new(ip, ports.sink()))?,
            whoami: listen(SocketAddr::new(ip, ports.whoami()))?,
            udp: listen_udp(SocketAddr::new(ip, ports.echo()))?,
        })
    }
}

fn spawn(name: &str, work: impl FnOnce() + Send + 'static) -> Result<(), PerfError> {
    thread::Builder::new()
        .name(name.into())
        .spawn(work)
        .map_err(PerfError::Thread)?;
    Ok(())
}

type Handler = fn(TcpStream) -> io::Result<()>;

fn each_connection(listener: &TcpListener, handler: Handler) {
    for stream in listener.incoming().flatten() {
        // A peer that goes away in the middle is the peer's business, and a connection refused for want of threads
        // shows there too.
        let _ = thread::Builder::new().spawn(move || handler(stream));
    }
}

/// Without a thread per connection, which would cost more than the connection itself.
fn one_at_a_time(listener: &TcpListener, handler: Handler) {
    for stream in listener.incoming().flatten() {
        let _ = handler(stream);
    }
}

fn echo_back(mut stream: TcpStream) -> io::Result<()> {
    stream.set_nodelay(true)?;
    let mut buffer = vec![0; BUFFER];
    loop {
        match stream.read(&mut buffer)? {
            0 => return Ok(()),
            length => stream.write_all(buffer.get(..length).unwrap_or_default())?,
        }
    }
}

/// The client closes first, so that no connection lingers on this side.
fn answer_bytes(mut stream: TcpStream) -> io::Result<()> {
    stream.set_nodelay(true)?;
    stream.set_read_timeout(Some(super::sockets::ANSWER_TIMEOUT))?;
    let mut byte = [0];
    while stream.read(&mut byte)? > 0 {
        stream.write_all(&byte)?;
    }
    Ok(())
}

fn discard(mut stream: TcpStream) -> io::Result<()> {
    let mut buffer = vec![0; BUFFER];
    while stream.read(&mut buffer)? > 0 {}
    Ok(())
}

fn say_who(mut stream: TcpStream) -> io::Result<()> {
    let peer = stream.peer_addr()?;
    stream.write_all(peer.to_string().as_bytes())
}

fn echo_datagrams(socket: &UdpSocket) {
    let mut buffer = vec![0; DATAGRAM];
    loop {
        // An ICMP error about an earlier answer shows up here; the next datagram is unaffected.
        if let Ok((length, peer)) = socket.recv_from(&mut buffer) {
            let _ = socket.send_to(buffer.get(..length).unwrap_or_default(), peer);
        }
    }
}
