// SPDX-License-Identifier: Apache-2.0
//! Links: reading them, making veth pairs and bridges.

use std::os::fd::{AsRawFd, BorrowedFd};

use model::Mac;
use netlink_packet_core::{NLM_F_ACK, NLM_F_CREATE, NLM_F_EXCL};
use netlink_packet_route::RouteNetlinkMessage;
use netlink_packet_route::link::{
    InfoData, InfoKind, InfoVeth, LinkAttribute, LinkExtentMask, LinkInfo, LinkMessage,
};

use crate::attributes::{Attributes, string, u32_at};
use crate::error::absent_is_false;
use crate::{Error, Netlink, Request};

const HEADER: usize = 16;
const IFF_UP: u32 = 1;
const IFF_NOARP: u32 = 1 << 7;
const IFF_LOWER_UP: u32 = 1 << 16;
/// `enum` of `linux/if_link.h`.
mod ifla {
    pub(super) const ADDRESS: u16 = 1;
    pub(super) const IFNAME: u16 = 3;
    pub(super) const MTU: u16 = 4;
    pub(super) const LINK: u16 = 5;
    pub(super) const MASTER: u16 = 10;
    pub(super) const LINKINFO: u16 = 18;
    pub(super) const IFALIAS: u16 = 20;
    pub(super) const INFO_KIND: u16 = 1;
}

/// A network device.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Link {
    /// Index in its namespace.
    pub index: u32,
    /// Name in its namespace.
    pub name: String,
    /// Free text that the kernel keeps with the device.
    pub alias: Option<String>,
    /// Hardware address, where it is an Ethernet one.
    pub mac: Option<Mac>,
    /// Largest packet.
    pub mtu: u32,
    /// Whether it was set up (its carrier may still be missing).
    pub up: bool,
    /// Whether its lower layer is there: for a veth, that the peer is up.
    pub carrier: bool,
    /// Whether it resolves no addresses.
    pub noarp: bool,
    /// Kind of virtual device ("veth", "bridge"), none for hardware.
    pub kind: Option<String>,
    /// For a veth: the peer's index in the peer's namespace.
    pub peer_index: Option<u32>,
    /// The bridge (or bond) it is a port of.
    pub master: Option<u32>,
}

/// A veth pair to make.
#[derive(Debug, Clone)]
pub struct Veth<'a> {
    /// Name of the end in the socket's namespace.
    pub name: &'a str,
    /// Its hardware address; random when not given.
    pub mac: Option<Mac>,
    /// Its MTU; the kernel's default when not given.
    pub mtu: Option<u32>,
    /// Its alias.
    pub alias: Option<&'a str>,
    /// Whether to set it up.
    pub up: bool,
    /// Whether the kernel may give it an IPv6 link-local address.
    pub link_local: bool,
    /// The other end.
    pub peer: Peer<'a>,
}

/// The other end of a veth pair. It is down at first: the kernel opens no veth that has no peer yet.
#[derive(Debug, Clone)]
pub struct Peer<'a> {
    /// Its name.
    pub name: &'a str,
    /// Its hardware address; random when not given.
    pub mac: Option<Mac>,
    /// Its MTU; the kernel's default when not given.
    pub mtu: Option<u32>,
    /// The namespace it is made in; the socket's own when not given.
    pub netns: Option<BorrowedFd<'a>>,
}

/// Indexes of a new veth pair, each in its own namespace.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct VethPair {
    /// The end in the socket's namespace.
    pub index: u32,
    /// The other end.
    pub peer_index: u32,
}

impl Netlink {
    /// All links of the namespace.
    ///
    /// # Errors
    /// When the kernel refuses.
    pub fn links(&mut self) -> Result<Vec<Link>, Error> {
        self.dump(get_link("list links".to_owned(), None, 0), decode)
    }

    /// The link with this name.
    ///
    /// # Errors
    /// When the kernel refuses.
    pub fn link(&mut self, name: &str) -> Result<Option<Link>, Error> {
        absent_is_none(self.apply_and_get(&[get_link(format!("get link {name}"), Some(name), 0)], decode))
    }

    /// The link with this index.
    ///
    /// # Errors
    /// When the kernel refuses.
    pub fn link_by_index(&mut self, index: u32) -> Result<Option<Link>, Error> {
        absent_is_none(self.apply_and_get(&[get_link(format!("get link {index}"), None, index)], decode))
    }

    /// Makes a veth pair; nothing is left behind when it fails.
    ///
    /// One request creates both ends in their namespaces. The kernel ignores alias and IPv6 address mode at creation,
    /// so a second exchange sets these and reads the indexes.
    ///
    /// # Errors
    /// When the kernel refuses, for example because a name is taken ([`Error::is_exists`]).
    pub fn create_veth(&mut self, spec: &Veth<'_>) -> Result<VethPair, Error> {
        let operation = format!("create veth {}", spec.name);
        self.apply(&[create_veth_request(operation.clone(), spec)])?;
        self.finish_veth(&operation, spec).inspect_err(|_| {
            // The first error is the one to report; a pair that cannot be removed would be reported by the next attempt.
            let _ = self.delete_link(spec.name);
        })
    }

    fn finish_veth(&mut self, operation: &str, spec: &Veth<'_>) -> Result<VethPair, Error> {
        let mut requests = Vec::with_capacity(4);
        if !spec.link_local {
            requests.push(named(Request::no_link_local(0), spec.name));
        }
        if let Some(alias) = spec.alias {
            requests.push(named(Request::set_alias(0, alias), spec.name));
        }
        if spec.up {
            requests.push(named(Request::set_up(0), spec.name));
        }
        requests.push(get_link(operation.to_owned(), Some(spec.name), 0));
        let link = self
            .apply_and_get(&requests, decode)?
            .ok_or_else(|| Error::answer(operation, "the new link is not in it"))?;
        let peer_index = link
            .peer_index
            .ok_or_else(|| Error::answer(operation, "the new link has no peer"))?;
        Ok(VethPair {
            index: link.index,
            peer_index,
        })
    }

    /// Makes a bridge and returns its index.
    ///
    /// # Errors
    /// When the kernel refuses, for example because the name is taken.
    pub fn create_bridge(&mut self, name: &str) -> Result<u32, Error> {
        let mut message = LinkMessage::default();
        message.attributes = vec![
            LinkAttribute::IfName(name.to_owned()),
            LinkAttribute::LinkInfo(vec![LinkInfo::Kind(InfoKind::Bridge)]),
        ];
        let operation = format!("create bridge {name}");
        let create = RouteNetlinkMessage::NewLink(message);
        self.apply(&[Request::new(operation.clone(), NLM_F_CREATE | NLM_F_EXCL, create)])?;
        let link = self
            .link(name)?
            .ok_or_else(|| Error::answer(&operation, "the new link is not in it"))?;
        Ok(link.index)
    }

    /// Deletes a link, for a veth with its peer; `false` when there was none.
    ///
    /// # Errors
    /// When the kernel refuses.
    pub fn delete_link(&mut self, name: &str) -> Result<bool, Error> {
        let mut message = LinkMessage::default();
        message.attributes = vec![LinkAttribute::IfName(name.to_owned())];
        let request = Request::new(
            format!("delete link {name}"),
            0,
            RouteNetlinkMessage::DelLink(message),
        );
        absent_is_false(self.apply(&[request]))
    }

    /// Moves a link into another namespace, under a new name there.
    ///
    /// # Errors
    /// When the kernel refuses.
    pub fn move_to_netns(&mut self, index: u32, netns: BorrowedFd<'_>, name: &str) -> Result<(), Error> {
        let attributes = vec![
            LinkAttribute::NetNsFd(netns.as_raw_fd()),
            LinkAttribute::IfName(name.to_owned()),
        ];
        let operation = format!("move link {index} to another namespace as {name}");
        self.apply(&[Request::set_link(operation, index, attributes)])
    }

    /// Sets a link up.
    ///
    /// # Errors
    /// When the kernel refuses.
    pub fn set_up(&mut self, index: u32) -> Result<(), Error> {
        self.apply(&[Request::set_up(index)])
    }

    /// Sets a link down.
    ///
    /// # Errors
    /// When the kernel refuses.
    pub fn set_down(&mut self, index: u32) -> Result<(), Error> {
        self.apply(&[Request::set_down(index)])
    }

    /// Sets a link's alias (at most 255 bytes).
    ///
    /// # Errors
    /// When the kernel refuses.
    pub fn set_alias(&mut self, index: u32, alias: &str) -> Result<(), Error> {
        self.apply(&[Request::set_alias(index, alias)])
    }

    /// Sets a link's MTU.
    ///
    /// # Errors
    /// When the kernel refuses.
    pub fn set_mtu(&mut self, index: u32, mtu: u32) -> Result<(), Error> {
        self.apply(&[Request::set_mtu(index, mtu)])
    }

    /// Makes a link a port of a bridge, or with 0 of none.
    ///
    /// # Errors
    /// When the kernel refuses.
    pub fn set_master(&mut self, index: u32, master: u32) -> Result<(), Error> {
        self.apply(&[Request::set_master(index, master)])
    }

    /// Switches address resolution off on a link.
    ///
    /// # Errors
    /// When the kernel refuses.
    pub fn set_noarp(&mut self, index: u32) -> Result<(), Error> {
        self.apply(&[Request::set_noarp(index)])
    }

    /// Renames a link.
    ///
    /// # Errors
    /// When the kernel refuses.
    pub fn rename(&mut self, index: u32, name: &str) -> Result<(), Error> {
        self.apply(&[Request::rename(index, name)])
    }
}

fn get_link(operation: String, name: Option<&str>, index: u32) -> Request {
    let mut message = LinkMessage::default();
    message.header.index = index;
    message
        .attributes
        .extend(name.map(|name| LinkAttribute::IfName(name.to_owned())));
    message
        .attributes
        .push(LinkAttribute::ExtMask(vec![LinkExtentMask::SkipStats]));
    Request::new(operation, 0, RouteNetlinkMessage::GetLink(message))
}

/// Lets a request that was built for an index name its link instead.
fn named(mut request: Request, name: &str) -> Request {
    if let RouteNetlinkMessage::SetLink(message) = &mut request.message {
        message.attributes.push(LinkAttribute::IfName(name.to_owned()));
    }
    request.operation = request.operation.replace("link 0", &format!("link {name}"));
    request
}

fn create_veth_request(operation: String, spec: &Veth<'_>) -> Request {
    let mut peer = LinkMessage::default();
    peer.attributes
        .push(LinkAttribute::IfName(spec.peer.name.to_owned()));
    peer.attributes
        .extend(spec.peer.mac.map(|mac| LinkAttribute::Address(mac.0.to_vec())));
    peer.attributes.extend(spec.peer.mtu.map(LinkAttribute::Mtu));
    peer.attributes.extend(
        spec.peer
            .netns
            .map(|netns| LinkAttribute::NetNsFd(netns.as_raw_fd())),
    );

    let mut message = LinkMessage::default();
    message
        .attributes
        .push(LinkAttribute::IfName(spec.name.to_owned()));
    message
        .attributes
        .extend(spec.mac.map(|mac| LinkAttribute::Address(mac.0.to_vec())));
    message.attributes.extend(spec.mtu.map(LinkAttribute::Mtu));
    message.attributes.push(LinkAttribute::LinkInfo(vec![
        LinkInfo::Kind(InfoKind::Veth),
        LinkInfo::Data(InfoData::Veth(InfoVeth::Peer(peer))),
    ]));
    let flags = NLM_F_CREATE | NLM_F_EXCL | NLM_F_ACK;
    Request::new(operation, flags, RouteNetlinkMessage::NewLink(message))
}

fn absent_is_none<T>(result: Result<Option<T>, Error>) -> Result<Option<T>, Error> {
    match result {
        Err(error) if error.is_absent() => Ok(None),
        other => other,
    }
}

fn decode(payload: &[u8]) -> Option<Link> {
    let flags = u32_at(payload, 8)?;
    let mut link = Link {
        index: u32_at(payload, 4)?,
        name: String::new(),
        alias: None,
        mac: None,
        mtu: 0,
        up: flags & IFF_UP != 0,
        carrier: flags & IFF_LOWER_UP != 0,
        noarp: flags & IFF_NOARP != 0,
        kind: None,
        peer_index: None,
        master: None,
    };
    for (kind, value) in Attributes(payload.get(HEADER..)?) {
        match kind {
            ifla::IFNAME => link.name = string(value),
            ifla::IFALIAS => link.alias = Some(string(value)),
            ifla::ADDRESS => link.mac = <[u8; 6]>::try_from(value).ok().map(Mac),
            ifla::MTU => link.mtu = u32_at(value, 0)?,
            ifla::LINK => link.peer_index = u32_at(value, 0),
            ifla::MASTER => link.master = u32_at(value, 0),
            ifla::LINKINFO => {
                let kind = Attributes(value).find(|(kind, _)| *kind == ifla::INFO_KIND);
                link.kind = kind.map(|(_, value)| string(value));
            }
            _ => {}
        }
    }
    Some(link)
}
