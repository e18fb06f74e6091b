// SPDX-License-Identifier: Apache-2.0
//! Traffic that notices every interruption: TCP connections that echo all the time, and a numbered UDP stream.

use std::io::{Read as _, Write as _};
use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::os::fd::AsFd as _;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use lab::Lab;
use nix::sys::socket::{setsockopt, sockopt};

use crate::{LIMIT, within};

/// The pause between two echoes of a connection.
const ECHO_PACE: Duration = Duration::from_millis(50);
/// The pause between two datagrams.
const DATAGRAM_PACE: Duration = Duration::from_millis(1);
/// Enough for a receiver that does not get the processor for some seconds.
const RECEIVE_BUFFER: usize = 8 << 20;
/// How long the receiver waits for a last datagram once the sender has stopped.
const DRAIN: Duration = Duration::from_millis(500);

/// Running traffic.
#[derive(Debug)]
pub struct Traffic {
    stop: Arc<AtomicBool>,
    echoes: Arc<AtomicU64>,
    connections: Vec<JoinHandle<Result<(), String>>>,
    datagrams: Vec<(JoinHandle<u64>, JoinHandle<u64>)>,
}

/// What the traffic met.
#[derive(Debug)]
pub struct Report {
    /// Echoes of all connections together.
    pub echoes: u64,
    /// Connections that broke or stalled, and how.
    pub broken: Vec<String>,
    /// Datagrams sent.
    pub sent: u64,
    /// Datagrams received.
    pub received: u64,
}

impl Traffic {
    /// Traffic that does nothing yet.
    #[must_use]
    pub fn new() -> Self {
        Self {
            stop: Arc::new(AtomicBool::new(false)),
            echoes: Arc::new(AtomicU64::new(0)),
            connections: Vec::new(),
            datagrams: Vec::new(),
        }
    }

    /// Opens connections from one pod to another, which echo until the end.
    ///
    /// # Panics
    /// When one cannot be opened.
    pub fn connect(&mut self, lab: &Lab, from: &str, to: &str, address: IpAddr, count: usize) {
        let listener = within(lab, to, || TcpListener::bind(SocketAddr::new(address, 0)))
            .expect("a listener in the pod");
        self.connect_to(lab, from, listener, count);
    }

    /// Opens connections from a pod to a listener, wherever it is, which echo until the end.
    ///
    /// # Panics
    /// When one cannot be opened.
    pub fn connect_to(&mut self, lab: &Lab, from: &str, listener: TcpListener, count: usize) {
        let address = listener.local_addr().expect("a bound socket has an address");
        std::thread::spawn(move || {
            for stream in listener.incoming().take(count).flatten() {
                std::thread::spawn(move || echo(stream));
            }
        });
        let streams: Vec<TcpStream> = within(lab, from, || {
            let connect = || TcpStream::connect_timeout(&address, LIMIT).expect("a connection");
            (0..count).map(|_| connect()).collect()
        });
        for (stream, number) in streams.into_iter().zip(0..) {
            let (stop, echoes) = (Arc::clone(&self.stop), Arc::clone(&self.echoes));
            let name = format!("connection {number} from {from} to {address}");
            self.connections.push(std::thread::spawn(move || {
                talk(stream, &stop, &echoes).map_err(|error| format!("{name}: {error}"))
            }));
        }
    }

    /// Sends numbered datagrams from one pod to another until the end.
    ///
    /// # Panics
    /// When a socket cannot be made.
    pub fn stream(&mut self, lab: &Lab, from: &str, to: &str, address: IpAddr) {
        let bind =
            |address: IpAddr| UdpSocket::bind(SocketAddr::new(address, 0)).expect("a socket in the pod");
        let receiver = within(lab, to, || bind(address));
        setsockopt(&receiver.as_fd(), sockopt::RcvBufForce, &RECEIVE_BUFFER).expect("a receive buffer");
        receiver.set_read_timeout(Some(DRAIN)).expect("a timeout");
        let target = receiver.local_addr().expect("a bound socket has an address");
        let unspecified: IpAddr = match address {
            IpAddr::V4(_) => std::net::Ipv4Addr::UNSPECIFIED.into(),
            IpAddr::V6(_) => std::net::Ipv6Addr::UNSPECIFIED.into(),
        };
        let sender = within(lab, from, || bind(unspecified));
        let (stop, stop_receiver) = (Arc::clone(&self.stop), Arc::clone(&self.stop));
        let sender = std::thread::spawn(move || send(&sender, target, &stop));
        let receiver = std::thread::spawn(move || receive(&receiver, &stop_receiver));
        self.datagrams.push((sender, receiver));
    }

    /// How many echoes there were so far.
    #[must_use]
    pub fn echoes(&self) -> u64 {
        self.echoes.load(Ordering::Relaxed)
    }

    /// Ends the traffic.
    ///
    /// # Panics
    /// When a thread has panicked.
    #[must_use]
    pub fn finish(self) -> Report {
        self.stop.store(true, Ordering::Relaxed);
        let ended = self
            .connections
            .into_iter()
            .map(|thread| thread.join().expect("no panic"));
        let broken = ended.filter_map(Result::err).collect();
        let (mut sent, mut received) = (0, 0);
        for (sender, receiver) in self.datagrams {
            sent += sender.join().expect("no panic");
            received += receiver.join().expect("no panic");
        }
        Report {
            echoes: self.echoes.load(Ordering::Relaxed),
            broken,
            sent,
            received,
        }
    }
}

impl Default for Traffic {
    fn default() -> Self {
        Self::new()
    }
}

fn echo(mut stream: TcpStream) {
    let mut buffer = [0; 64];
    // The other end reports what goes wrong.
    while let Ok(length @ 1..) = stream.read(&mut buffer) {
        if stream.write_all(&buffer[..length]).is_err() {
            return;
        }
    }
}

fn talk(mut stream: TcpStream, stop: &AtomicBool, echoes: &AtomicU64) -> std::io::Result<()> {
    stream.set_nodelay(true)?;
    stream.set_read_timeout(Some(LIMIT))?;
    let mut number = 0u64;
    while !stop.load(Ordering::Relaxed) {
        stream.write_all(&number.to_le_bytes())?;
        let mut back = [0; 8];
        stream.read_exact(&mut back)?;
        if back != number.to_le_bytes() {
            return Err(std::io::Error::other("other bytes came back"));
        }
        number += 1;
        echoes.fetch_add(1, Ordering::Relaxed);
        std::thread::sleep(ECHO_PACE);
    }
    Ok(())
}

fn send(socket: &UdpSocket, target: SocketAddr, stop: &AtomicBool) -> u64 {
    let mut number = 0u64;
    while !stop.load(Ordering::Relaxed) {
        // A refused datagram is a lost one: it is counted as sent.
        let _ = socket.send_to(&number.to_le_bytes(), target);
        number += 1;
        std::thread::sleep(DATAGRAM_PACE);
    }
    number
}

fn receive(socket: &UdpSocket, stop: &AtomicBool) -> u64 {
    let (mut received, mut buffer) = (0, [0; 8]);
    loop {
        match socket.recv(&mut buffer) {
            Ok(_) => received += 1,
            Err(_) if stop.load(Ordering::Relaxed) => return received,
            Err(_) => {}
        }
    }
}
