// SPDX-License-Identifier: Apache-2.0
//! Tunnel devices in collect-metadata mode: where a packet goes, and where it came from, is said per packet.

use model::Mac;
use netlink_packet_core::{NLM_F_CREATE, NLM_F_EXCL};
use netlink_packet_route::RouteNetlinkMessage;
use netlink_packet_route::link::{
    InfoData, InfoGeneve, InfoKind, InfoVxlan, LinkAttribute, LinkInfo, LinkMessage,
};

use crate::{Error, Link, Netlink, Request};

/// The protocol of a tunnel device.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TunnelKind {
    /// RFC 7348.
    Vxlan,
    /// RFC 8926.
    Geneve,
}

/// A tunnel device to make.
#[derive(Clone, Debug)]
pub struct Tunnel<'a> {
    /// Its name.
    pub name: &'a str,
    /// Its protocol.
    pub kind: TunnelKind,
    /// The UDP port that it listens at and sends to.
    pub port: u16,
    /// Its hardware address.
    pub mac: Mac,
    /// Its MTU.
    pub mtu: u32,
    /// Its alias.
    pub alias: &'a str,
}

impl TunnelKind {
    /// The kernel's name for it, also of its module.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Vxlan => "vxlan",
            Self::Geneve => "geneve",
        }
    }
}

impl Netlink {
    /// Makes a tunnel device and sets it up, which is when the kernel takes the port. Nothing is left behind when it fails.
    ///
    /// # Errors
    /// When the kernel refuses: it does not know the kind (`EOPNOTSUPP`), or the port is taken (`EADDRINUSE`).
    pub fn create_tunnel(&mut self, spec: &Tunnel<'_>) -> Result<Link, Error> {
        let operation = format!(
            "create {} device {} at port {}",
            spec.kind.name(),
            spec.name,
            spec.port
        );
        self.apply(&[Request::new(
            operation.clone(),
            NLM_F_CREATE | NLM_F_EXCL,
            RouteNetlinkMessage::NewLink(message(spec)),
        )])?;
        self.finish(&operation, spec).inspect_err(|_| {
            // The first error is the one to report; what stays is met by the next attempt.
            let _ = self.delete_link(spec.name);
        })
    }

    fn finish(&mut self, operation: &str, spec: &Tunnel<'_>) -> Result<Link, Error> {
        let created =
            |link: Option<Link>| link.ok_or_else(|| Error::answer(operation, "the new link is not in it"));
        let index = created(self.link(spec.name)?)?.index;
        self.apply(&[
            Request::no_link_local(index),
            Request::set_alias(index, spec.alias),
            Request::set_up(index),
        ])?;
        created(self.link(spec.name)?)
    }
}

fn message(spec: &Tunnel<'_>) -> LinkMessage {
    let (kind, data) = match spec.kind {
        TunnelKind::Vxlan => (
            InfoKind::Vxlan,
            InfoData::Vxlan(vec![
                InfoVxlan::CollectMetadata(true),
                InfoVxlan::Learning(false),
                InfoVxlan::Port(spec.port),
                // Senders that leave the checksum out over IPv6 are heard too (RFC 6935).
                InfoVxlan::UDPZeroCsumRX(true),
            ]),
        ),
        TunnelKind::Geneve => (
            InfoKind::Geneve,
            InfoData::Geneve(vec![
                InfoGeneve::CollectMetadata,
                InfoGeneve::Port(spec.port),
                InfoGeneve::UdpZeroCsum6Rx(true),
            ]),
        ),
    };
    let mut message = LinkMessage::default();
    message.attributes = vec![
        LinkAttribute::IfName(spec.name.to_owned()),
        LinkAttribute::Address(spec.mac.0.to_vec()),
        LinkAttribute::Mtu(spec.mtu),
        LinkAttribute::LinkInfo(vec![LinkInfo::Kind(kind), LinkInfo::Data(data)]),
    ];
    message
}
