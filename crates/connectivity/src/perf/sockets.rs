// SPDX-License-Identifier: Apache-2.0
//! Sockets as the load generator wants them.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::time::{Duration, Instant};

use socket2::{Domain, Protocol, Socket, Type};

use super::PerfError;

/// A peer that says nothing for this long is taken for unreachable.
pub(crate) const ANSWER_TIMEOUT: Duration = Duration::from_secs(5);
/// How long a client keeps trying to reach a server that may be about to start.
const START_TIMEOUT: Duration = Duration::from_secs(5);
const RETRY_PAUSE: Duration = Duration::from_millis(10);
/// Pending connections that a listener holds; `net.core.somaxconn` may hold fewer.
const BACKLOG: i32 = 4096;

pub(crate) fn listen(address: SocketAddr) -> Result<TcpListener, PerfError> {
    let make = || {
        let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
        if address.is_ipv6() {
            socket.set_only_v6(true)?;
        }
        socket.set_reuse_address(true)?;
        socket.bind(&address.into())?;
        socket.listen(BACKLOG)?;
        Ok(socket.into())
    };
    make().map_err(PerfError::socket("listen on TCP", address))
}

pub(crate) fn listen_udp(address: SocketAddr) -> Result<UdpSocket, PerfError> {
    let make = || {
        let socket = Socket::new(Domain::for_address(address), Type::DGRAM, Some(Protocol::UDP))?;
        if address.is_ipv6() {
            socket.set_only_v6(true)?;
        }
        socket.bind(&address.into())?;
        Ok(socket.into())
    };
    make().map_err(PerfError::socket("listen on UDP", address))
}

/// Connects and sets what an exchange of small messages wants. Tries again for a while when the port is closed: the
/// server may be about to start.
pub(crate) fn connect(address: SocketAddr) -> Result<TcpStream, PerfError> {
    let deadline = Instant::now() + START_TIMEOUT;
    loop {
        match TcpStream::connect_timeout(&address, ANSWER_TIMEOUT) {
            Ok(stream) => {
                prepare(&stream).map_err(PerfError::socket("set up a connection to", address))?;
                return Ok(stream);
            }
            Err(error) if error.kind() == io::ErrorKind::ConnectionRefused && Instant::now() < deadline => {
                std::thread::sleep(RETRY_PAUSE);
            }
            Err(error) => return Err(PerfError::socket("connect to", address)(error)),
        }
    }
}

/// No delay, and no waiting for ever.
pub(crate) fn prepare(stream: &TcpStream) -> io::Result<()> {
    stream.set_nodelay(true)?;
    stream.set_read_timeout(Some(ANSWER_TIMEOUT))?;
    stream.set_write_timeout(Some(ANSWER_TIMEOUT))
}

/// Connects from a given source port, which may be in `TIME_WAIT` with another peer or, thanks to TCP timestamps,
/// with the same.
pub(crate) fn connect_from(source_port: u16, address: SocketAddr) -> io::Result<TcpStream> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
    socket.set_reuse_address(true)?;
    socket.set_tcp_nodelay(true)?;
    socket.set_read_timeout(Some(ANSWER_TIMEOUT))?;
    socket.set_write_timeout(Some(ANSWER_TIMEOUT))?;
    socket.bind(&SocketAddr::new(unspecified(address.ip()), source_port).into())?;
    socket.connect(&address.into())?;
    Ok(socket.into())
}

/// A UDP socket that talks to one peer only.
pub(crate) fn connect_udp(address: SocketAddr) -> Result<UdpSocket, PerfError> {
    let make = || {
        let socket = UdpSocket::bind(SocketAddr::new(unspecified(address.ip()), 0))?;
        socket.connect(address)?;
        Ok(socket)
    };
    make().map_err(PerfError::socket("open a UDP socket to", address))
}

/// The wildcard address of the same family.
pub(crate) fn unspecified(like: IpAddr) -> IpAddr {
    match like {
        IpAddr::V4(_) => Ipv4Addr::UNSPECIFIED.into(),
        IpAddr::V6(_) => Ipv6Addr::UNSPECIFIED.into(),
    }
}
