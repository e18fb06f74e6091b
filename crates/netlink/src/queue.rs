// SPDX-License-Identifier: Apache-2.0
//! Queueing disciplines: where packets of a link wait.

use netlink_packet_route::RouteNetlinkMessage;
use netlink_packet_route::tc::TcMessage;

use crate::attributes::{Attributes, string, u32_at};
use crate::{Error, Netlink, Request};

/// `struct tcmsg`.
const HEADER: usize = 20;
/// `TCA_KIND`.
const KIND: u16 = 1;
/// `TC_H_ROOT` and `TC_H_INGRESS`.
const ROOT: u32 = u32::MAX;
const INGRESS: u32 = 0xffff_fff1;

/// What a link's packets pass, on the way out or in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Queue {
    /// The link.
    pub ifindex: u32,
    /// What it is, such as `tbf`, `noqueue` or `ingress`.
    pub kind: String,
    /// Whether it is passed on the way in; else on the way out.
    pub ingress: bool,
}

impl Netlink {
    /// The outermost queueing disciplines of all links.
    ///
    /// # Errors
    /// When the kernel refuses.
    pub fn queues(&mut self) -> Result<Vec<Queue>, Error> {
        let message = RouteNetlinkMessage::GetQueueDiscipline(TcMessage::default());
        self.dump(Request::new("list queues".to_owned(), 0, message), decode)
    }
}

fn decode(payload: &[u8]) -> Option<Queue> {
    let (ifindex, parent) = (u32_at(payload, 4)?, u32_at(payload, 12)?);
    let ingress = match parent {
        ROOT => false,
        INGRESS => true,
        _ => return None,
    };
    let (_, kind) = Attributes(payload.get(HEADER..)?).find(|(kind, _)| *kind == KIND)?;
    Some(Queue {
        ifindex,
        kind: string(kind),
        ingress,
    })
}
