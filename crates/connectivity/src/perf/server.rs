// SPDX-License-Identifier: Apache-2.0
//! The answering end.

use std::io::{self, Read, Write};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;

use super::ask::Who;
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
    whoami_udp: UdpSocket,
}

/// What the server says of itself.
#[derive(Debug)]
struct Identity {
    name: String,
    /// Connections to the echo port.
    held: AtomicUsize,
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

    /// Serves on threads of its own until the process ends, under a name that it tells who asks.
    pub fn start(self, name: &str) -> Result<(), PerfError> {
        let identity = Arc::new(Identity {
            name: name.into(),
            held: AtomicUsize::new(0),
        });
        for set in self.listeners {
            let Listeners {
                echo,
                crr,
                sink,
                whoami,
                udp,
                whoami_udp,
            } = set;
            let [holds, tells, says] = std::array::from_fn(|_| Arc::clone(&identity));
            spawn("echo", move || {
                each_connection(&echo, move |stream| holds.while_held(|| echo_back(stream)))
            })?;
            spawn("crr", move || one_at_a_time(&crr, answer_bytes))?;
            spawn("sink", move || each_connection(&sink, discard))?;
            spawn("whoami", move || {
                one_at_a_time(&whoami, |stream| tells.tell(stream))
            })?;
            spawn("udp", move || echo_datagrams(&udp))?;
            spawn("whoami-udp", move || says.answer(&whoami_udp))?;
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
            whoami_udp: listen_udp(SocketAddr::new(ip, ports.whoami()))?,
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

fn each_connection(
    listener: &TcpListener,
    handler: impl Fn(TcpStream) -> io::Result<()> + Clone + Send + 'static,
) {
    for stream in listener.incoming().flatten() {
        // A peer that goes away in the middle is the peer's business, and a connection refused for want of threads
        // shows there too.
        let handler = handler.clone();
        let _ = thread::Builder::new().spawn(move || handler(stream));
    }
}

/// Without a thread per connection, which would cost more than the connection itself.
fn one_at_a_time(listener: &TcpListener, handler: impl Fn(TcpStream) -> io::Result<()>) {
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

impl Identity {
    fn while_held<T>(&self, work: impl FnOnce() -> T) -> T {
        self.held.fetch_add(1, Ordering::Relaxed);
        let done = work();
        self.held.fetch_sub(1, Ordering::Relaxed);
        done
    }

    fn who(&self, peer: SocketAddr) -> io::Result<Vec<u8>> {
        let who = Who {
            peer,
            server: self.name.clone(),
            held: self.held.load(Ordering::Relaxed),
        };
        Ok(serde_json::to_vec(&who)?)
    }

    fn tell(&self, mut stream: TcpStream) -> io::Result<()> {
        let who = self.who(stream.peer_addr()?)?;
        stream.write_all(&who)
    }

    fn answer(&self, socket: &UdpSocket) {
        let mut buffer = [0; 64];
        loop {
            // As in `echo_datagrams`.
            if let Ok((_, peer)) = socket.recv_from(&mut buffer)
                && let Ok(who) = self.who(peer)
            {
                let _ = socket.send_to(&who, peer);
            }
        }
    }
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
