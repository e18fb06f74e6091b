// SPDX-License-Identifier: Apache-2.0
//! Carries a try of a node out.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::atomic::{AtomicU16, Ordering};
use std::time::{Duration, Instant};

use datapath::common::checksum;
use datapath::common::packet::{ICMP_LEN, IPV4_LEN, icmp, icmpv6};
use futures::future::{join, join_all};
use ipnet::IpNet;
use nix::sys::socket::{AddressFamily, SockFlag, SockProtocol, SockType, socket};
use tokio::io::AsyncReadExt as _;
use tokio::net::{TcpStream, UdpSocket};

use super::listen::{HELLO_BYTES_MAX, Hello};
use super::schedule::{Found, Job};
use super::{Kind, Outcome};

/// How long an answer may take.
const PATIENCE: Duration = Duration::from_secs(2);

/// A second echo request follows after this time: one lost packet is no trouble. TCP's own second SYN comes as late.
const ECHO_AGAIN: Duration = Duration::from_secs(1);

/// What our echo requests carry, beside what says which.
const ECHO_DATA: &[u8; 16] = b"thalweg health..";

/// Tries the node by all its addresses, then a pod of it.
pub(super) async fn all(job: Job, port: u16) -> Found {
    let node = job
        .addresses
        .iter()
        .map(|address| node(&job.node, *address, port));
    let mut outcomes = Vec::new();
    let mut named: Option<Vec<IpAddr>> = None;
    for (address, icmp, tcp) in join_all(node).await {
        outcomes.push((Kind::NodeIcmp, address, icmp));
        let (outcome, pods) = match tcp {
            Ok((time, pods)) => (Ok(time), Some(pods)),
            Err(error) => (Err(error), None),
        };
        outcomes.push((Kind::NodeTcp, address, outcome));
        named = named.or(pods);
    }
    let named = named.map(|pods| one_of_each_family(pods, &job.pod_cidrs));
    let pods = named.clone().unwrap_or(job.pods);
    let tries = pods.into_iter().map(|address| async move {
        let (icmp, tcp) = join(echo(address), syn(SocketAddr::new(address, port))).await;
        [(Kind::PodIcmp, address, icmp), (Kind::PodTcp, address, tcp)]
    });
    outcomes.extend(join_all(tries).await.into_iter().flatten());
    Found {
        node: job.node,
        began: job.began,
        outcomes,
        pods: named,
    }
}

/// Whoever answers for a node does not make us try anything but its pods.
fn one_of_each_family(pods: Vec<IpAddr>, pod_cidrs: &[IpNet]) -> Vec<IpAddr> {
    let mut pods = pods;
    pods.retain(|pod| pod_cidrs.iter().any(|cidr| cidr.contains(pod)));
    pods.sort();
    pods.dedup_by_key(|pod| pod.is_ipv4());
    pods
}

type Answer = Result<(Duration, Vec<IpAddr>), String>;

async fn node(name: &str, address: IpAddr, port: u16) -> (IpAddr, Outcome, Answer) {
    let hello = patient(hello(SocketAddr::new(address, port)));
    let (icmp, tcp) = join(echo(address), hello).await;
    let tcp = tcp.and_then(|(time, hello)| match hello.node == name {
        true => Ok((time, hello.pods)),
        false => Err(format!("node {} answers at this address", hello.node)),
    });
    (address, icmp, tcp)
}

/// What the agent at this address says of itself.
async fn hello(to: SocketAddr) -> io::Result<(Duration, Hello)> {
    let began = Instant::now();
    let stream = TcpStream::connect(to).await.map_err(|error| {
        if error.kind() == io::ErrorKind::ConnectionRefused {
            io::Error::other(format!(
                "connection refused: no agent answers on port {}",
                to.port()
            ))
        } else {
            error
        }
    })?;
    let mut line = Vec::new();
    stream.take(HELLO_BYTES_MAX).read_to_end(&mut line).await?;
    let hello = serde_json::from_slice(&line)
        .map_err(|_| io::Error::other(format!("port {} is not an agent's", to.port())))?;
    Ok((began.elapsed(), hello))
}

/// A refusal is an answer of the pod too: no pod has to listen.
async fn syn(to: SocketAddr) -> Outcome {
    let began = Instant::now();
    let answered = async {
        match TcpStream::connect(to).await {
            Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => Ok(()),
            other => other.map(drop),
        }
    };
    patient(answered).await.map(|()| began.elapsed())
}

/// Asks for an echo, a second time if need be.
async fn echo(address: IpAddr) -> Outcome {
    patient(ping(address)).await
}

async fn ping(address: IpAddr) -> io::Result<Duration> {
    let socket = icmp_socket(address)?;
    // The port is of no meaning; connected, the socket gets packets from this address only.
    socket.connect(SocketAddr::new(address, 0)).await?;
    let first = number();
    let began = Instant::now();
    socket.send(&request(address, first)).await?;
    if let Ok(answer) = tokio::time::timeout(ECHO_AGAIN, reply(&socket, address, first)).await {
        return answer.map(|()| began.elapsed());
    }
    let second = number();
    let began = Instant::now();
    socket.send(&request(address, second)).await?;
    reply(&socket, address, second).await?;
    Ok(began.elapsed())
}

fn icmp_socket(address: IpAddr) -> io::Result<UdpSocket> {
    let (family, protocol) = match address {
        IpAddr::V4(_) => (AddressFamily::Inet, SockProtocol::Icmp),
        IpAddr::V6(_) => (AddressFamily::Inet6, SockProtocol::IcmpV6),
    };
    let flags = SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK;
    let socket = socket(family, SockType::Raw, flags, protocol)?;
    // Of a UDP socket the type has but its calls: connect, send, recv.
    UdpSocket::from_std(std::net::UdpSocket::from(socket))
}

/// Tells our requests apart: identifier and sequence number, both from one counter.
fn number() -> (u16, u16) {
    static SENT: AtomicU16 = AtomicU16::new(0);
    let sequence = SENT.fetch_add(1, Ordering::Relaxed);
    let process = u16::try_from(std::process::id() & 0xffff).unwrap_or_default();
    (process, sequence)
}

fn echo_types(address: IpAddr) -> (u8, u8) {
    match address {
        IpAddr::V4(_) => (icmp::ECHO, icmp::ECHO_REPLY),
        IpAddr::V6(_) => (icmpv6::ECHO, icmpv6::ECHO_REPLY),
    }
}

fn request(address: IpAddr, (identifier, sequence): (u16, u16)) -> Vec<u8> {
    let mut packet = vec![echo_types(address).0, 0, 0, 0];
    packet.extend(identifier.to_be_bytes());
    packet.extend(sequence.to_be_bytes());
    packet.extend(ECHO_DATA);
    // The kernel computes that of ICMPv6, which covers addresses.
    if address.is_ipv4() {
        let check = checksum::finish(checksum::sum(&packet));
        packet.splice(2..4, check.get().to_be_bytes());
    }
    packet
}

async fn reply(socket: &UdpSocket, address: IpAddr, number: (u16, u16)) -> io::Result<()> {
    let mut packet = [0; 256];
    loop {
        let length = socket.recv(&mut packet).await?;
        if answers(packet.get(..length).unwrap_or_default(), address, number) {
            return Ok(());
        }
    }
}

/// A raw socket of IPv4 gives the IP header too.
fn answers(packet: &[u8], address: IpAddr, (identifier, sequence): (u16, u16)) -> bool {
    let start = match address {
        IpAddr::V4(_) => packet
            .first()
            .map_or(IPV4_LEN, |first| usize::from(first & 0xf) * 4),
        IpAddr::V6(_) => 0,
    };
    let Some(header) = packet.get(start..start + ICMP_LEN) else {
        return false;
    };
    let numbers = [identifier.to_be_bytes(), sequence.to_be_bytes()].concat();
    header[0] == echo_types(address).1 && header[4..8] == numbers[..]
}

async fn patient<T>(work: impl Future<Output = io::Result<T>>) -> Result<T, String> {
    match tokio::time::timeout(PATIENCE, work).await {
        Ok(result) => result.map_err(|error| said(&error)),
        Err(_) => Err(format!("no answer within {} s", PATIENCE.as_secs())),
    }
}

/// The error, with the remedy where we know one.
fn said(error: &io::Error) -> String {
    if error.kind() == io::ErrorKind::PermissionDenied {
        format!("{error}; the agent needs CAP_NET_RAW for echoes")
    } else {
        error.to_string()
    }
}

#[cfg(test)]
mod tests {
    use std::net::{Ipv4Addr, Ipv6Addr};

    use super::*;

    #[test]
    fn only_pods_of_the_nodes_networks_are_tried_and_one_of_each_family() {
        let parse = |text: &str| text.parse::<IpAddr>().unwrap();
        let pods = ["10.0.2.9", "127.0.0.1", "fd00:2::7", "10.0.2.4", "fd00:9::1"].map(parse);
        let cidrs = ["10.0.2.0/24", "fd00:2::/64"].map(|text| text.parse().unwrap());
        assert_eq!(
            one_of_each_family(pods.to_vec(), &cidrs),
            ["10.0.2.4", "fd00:2::7"].map(parse)
        );
        assert_eq!(one_of_each_family(pods.to_vec(), &[]), [] as [IpAddr; 0]);
    }

    #[test]
    fn an_echo_is_known_by_its_numbers_whatever_came_before() {
        for address in [IpAddr::V4(Ipv4Addr::LOCALHOST), IpAddr::V6(Ipv6Addr::LOCALHOST)] {
            let mut packet = request(address, (7, 9));
            packet[0] = echo_types(address).1;
            if address.is_ipv4() {
                packet.splice(0..0, [0x46].into_iter().chain([0; 23]));
            }
            assert!(answers(&packet, address, (7, 9)));
            assert!(!answers(&packet, address, (7, 8)));
            assert!(!answers(&packet, address, (8, 9)));
            for length in 0..packet.len() - ECHO_DATA.len() {
                assert!(!answers(&packet[..length], address, (7, 9)), "{length}");
            }
        }
        assert!(!answers(
            &request(IpAddr::V6(Ipv6Addr::LOCALHOST), (7, 9)),
            IpAddr::V6(Ipv6Addr::LOCALHOST),
            (7, 9)
        ));
    }

    #[test]
    fn the_checksum_of_a_request_is_right() {
        let packet = request(IpAddr::V4(Ipv4Addr::LOCALHOST), (0x1234, 1));
        assert_eq!(checksum::finish(checksum::sum(&packet)).get(), 0);
    }
}
