// SPDX-License-Identifier: Apache-2.0
//! Routing rules that lead to a table.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnet::IpNet;
use netlink_packet_core::{NLM_F_CREATE, NLM_F_EXCL};
use netlink_packet_route::rule::{RuleAction, RuleAttribute, RuleMessage};
use netlink_packet_route::{AddressFamily, RouteNetlinkMessage};

use crate::attributes::{Attributes, ip, string, u32_at};
use crate::error::absent_is_false;
use crate::{Error, Netlink, Request, TABLE_MAIN};

const HEADER: usize = 12;
const AF_INET6: u8 = 10;
/// `FR_ACT_TO_TBL`.
const TO_TABLE: u8 = 1;
/// `FIB_RULE_INVERT`.
const INVERT: u32 = 2;
const TABLE_DEFAULT: u32 = 253;
const TABLE_LOCAL: u32 = 255;
/// `enum` of `linux/fib_rules.h`.
mod fra {
    pub(super) const DST: u16 = 1;
    pub(super) const SRC: u16 = 2;
    pub(super) const IIFNAME: u16 = 3;
    pub(super) const PRIORITY: u16 = 6;
    pub(super) const FWMARK: u16 = 10;
    pub(super) const TABLE: u16 = 15;
    pub(super) const FWMASK: u16 = 16;
    pub(super) const OIFNAME: u16 = 17;
}

/// A rule that leads to a table.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rule {
    /// Whether it is about IPv6.
    pub ipv6: bool,
    /// The lower, the earlier.
    pub priority: u32,
    /// Packets from here; nothing for all.
    pub src: Option<IpNet>,
    /// Packets to here; nothing for all.
    pub dst: Option<IpNet>,
    /// Packets with this mark under this mask.
    pub mark: Option<(u32, u32)>,
    /// Packets that came in through this link.
    pub iif: Option<String>,
    /// Packets of sockets bound to this link.
    pub oif: Option<String>,
    /// The table it leads to.
    pub table: u32,
}

impl Rule {
    /// Whether it is one of those that every namespace has.
    #[must_use]
    pub fn is_default(&self) -> bool {
        let plain = self.src.is_none() && self.dst.is_none() && self.mark.is_none() && self.iif.is_none();
        let usual = matches!(
            (self.priority, self.table),
            (0, TABLE_LOCAL) | (32_766, TABLE_MAIN) | (32_767, TABLE_DEFAULT)
        );
        plain && usual
    }
}

/// As `ip rule` writes it.
impl std::fmt::Display for Rule {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self.src {
            Some(src) => write!(f, "from {src}")?,
            None => f.write_str("from all")?,
        }
        if let Some(dst) = self.dst {
            write!(f, " to {dst}")?;
        }
        if let Some((mark, mask)) = self.mark {
            write!(f, " fwmark {mark:#x}")?;
            if mask != u32::MAX {
                write!(f, "/{mask:#x}")?;
            }
        }
        if let Some(iif) = &self.iif {
            write!(f, " iif {iif}")?;
        }
        if let Some(oif) = &self.oif {
            write!(f, " oif {oif}")?;
        }
        match self.table {
            TABLE_MAIN => f.write_str(" lookup main"),
            TABLE_LOCAL => f.write_str(" lookup local"),
            TABLE_DEFAULT => f.write_str(" lookup default"),
            table => write!(f, " lookup {table}"),
        }
    }
}

impl Netlink {
    /// The rules of both families that lead to a table, in the kernel's order.
    ///
    /// # Errors
    /// When the kernel refuses.
    pub fn rules(&mut self) -> Result<Vec<Rule>, Error> {
        let mut rules = Vec::new();
        for family in [AddressFamily::Inet, AddressFamily::Inet6] {
            let mut message = RuleMessage::default();
            message.header.family = family;
            let message = RouteNetlinkMessage::GetRule(message);
            match self.dump(Request::new("list rules".to_owned(), 0, message), decode) {
                Ok(found) => rules.extend(found),
                // The kernel has no rules for this family.
                Err(error) if error.errno() == Some(nix::errno::Errno::EOPNOTSUPP) => {}
                Err(error) => return Err(error),
            }
        }
        Ok(rules)
    }

    /// Adds a rule.
    ///
    /// # Errors
    /// When the kernel refuses, for example because there is one like it.
    pub fn add_rule(&mut self, rule: &Rule) -> Result<(), Error> {
        let message = RouteNetlinkMessage::NewRule(message(rule));
        let operation = format!("add rule {}: {rule}", rule.priority);
        self.apply(&[Request::new(operation, NLM_F_CREATE | NLM_F_EXCL, message)])
    }

    /// Deletes a rule; `false` when there was none such.
    ///
    /// # Errors
    /// When the kernel refuses.
    pub fn delete_rule(&mut self, rule: &Rule) -> Result<bool, Error> {
        let message = RouteNetlinkMessage::DelRule(message(rule));
        let operation = format!("delete rule {}: {rule}", rule.priority);
        absent_is_false(self.apply(&[Request::new(operation, 0, message)]))
    }
}

fn message(rule: &Rule) -> RuleMessage {
    let mut message = RuleMessage::default();
    message.header.family = if rule.ipv6 {
        AddressFamily::Inet6
    } else {
        AddressFamily::Inet
    };
    message.header.action = RuleAction::ToTable;
    message.header.table = u8::try_from(rule.table).unwrap_or(0);
    let mut attributes = vec![
        RuleAttribute::Priority(rule.priority),
        RuleAttribute::Table(rule.table),
    ];
    if let Some(src) = rule.src {
        message.header.src_len = src.prefix_len();
        attributes.push(RuleAttribute::Source(src.addr()));
    }
    if let Some(dst) = rule.dst {
        message.header.dst_len = dst.prefix_len();
        attributes.push(RuleAttribute::Destination(dst.addr()));
    }
    if let Some((mark, mask)) = rule.mark {
        attributes.extend([RuleAttribute::FwMark(mark), RuleAttribute::FwMask(mask)]);
    }
    attributes.extend(rule.iif.clone().map(RuleAttribute::Iifname));
    attributes.extend(rule.oif.clone().map(RuleAttribute::Oifname));
    message.attributes = attributes;
    message
}

fn decode(payload: &[u8]) -> Option<Rule> {
    let [family, dst_len, src_len, _tos, table, _, _, action] = *payload.first_chunk::<8>()?;
    let flags = u32_at(payload, 8)?;
    if action != TO_TABLE || flags & INVERT != 0 {
        return None;
    }
    let ipv6 = family == AF_INET6;
    let any = if ipv6 {
        IpAddr::V6(Ipv6Addr::UNSPECIFIED)
    } else {
        IpAddr::V4(Ipv4Addr::UNSPECIFIED)
    };
    let (mut src, mut dst, mut mark, mut mask) = (any, any, None, u32::MAX);
    let mut rule = Rule {
        ipv6,
        priority: 0,
        src: None,
        dst: None,
        mark: None,
        iif: None,
        oif: None,
        table: u32::from(table),
    };
    for (kind, value) in Attributes(payload.get(HEADER..)?) {
        match kind {
            fra::DST => dst = ip(value)?,
            fra::SRC => src = ip(value)?,
            fra::IIFNAME => rule.iif = Some(string(value)),
            fra::OIFNAME => rule.oif = Some(string(value)),
            fra::PRIORITY => rule.priority = u32_at(value, 0)?,
            fra::FWMARK => mark = u32_at(value, 0),
            fra::FWMASK => mask = u32_at(value, 0)?,
            fra::TABLE => rule.table = u32_at(value, 0)?,
            _ => {}
        }
    }
    rule.mark = mark.map(|mark| (mark, mask));
    rule.src = (src_len > 0).then(|| IpNet::new(src, src_len).ok()).flatten();
    rule.dst = (dst_len > 0).then(|| IpNet::new(dst, dst_len).ok()).flatten();
    Some(rule)
}
