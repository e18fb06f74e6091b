// SPDX-License-Identifier: Apache-2.0
//! Connections and drops.

use std::net::{IpAddr, SocketAddr};

use serde::{Deserialize, Serialize};

/// Connections, and whether these are all.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ConntrackList {
    /// The connections.
    pub entries: Vec<ConntrackView>,
    /// Whether there are more than the request's limit let through.
    pub truncated: bool,
}

/// A tracked connection.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ConntrackView {
    /// `tcp`, `udp`, `icmp`, `icmpv6` or the protocol's number.
    pub protocol: String,
    /// Who opened it.
    pub source: IpAddr,
    /// The opener's port, or the identifier of an echo.
    pub source_port: u16,
    /// Who was called.
    pub destination: IpAddr,
    /// The called port, or the identifier of an echo.
    pub destination_port: u16,
    /// The node's address and port that the opener has outside, if it is masqueraded.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub masqueraded: Option<SocketAddr>,
    /// The state's name, such as `established`.
    pub state: String,
    /// How long ago the last packet went by.
    pub idle_seconds: u64,
    /// When it will be forgotten if nothing more comes.
    pub expires_in_seconds: u64,
    /// From opener to called.
    pub forward: ConntrackSide,
    /// From called to opener.
    pub reply: ConntrackSide,
}

/// One direction of a connection.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ConntrackSide {
    /// Packets seen.
    pub packets: u64,
    /// Bytes seen.
    pub bytes: u64,
}

/// A line of `/v1/events`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "lowercase")]
pub enum EventLine {
    /// A packet was dropped.
    Drop(EventView),
    /// Events are missing here.
    Lost(LostView),
}

/// Events that nobody will see; the counters have counted their packets all the same.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LostView {
    /// When that was noticed, in milliseconds since 1970.
    pub unix_milliseconds: u64,
    /// How many.
    pub events: u64,
    /// Where they were lost.
    pub place: LostPlace,
}

/// Where events are lost.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum LostPlace {
    /// The kernel's ring was full: there were more drops than the agent takes.
    Ring,
    /// Whoever follows reads too slowly.
    Reader,
}

/// A packet that was dropped.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct EventView {
    /// Counts all events since the agent started.
    pub sequence: u64,
    /// When, in milliseconds since 1970.
    pub unix_milliseconds: u64,
    /// The drop reason's name.
    pub reason: String,
    /// `ingress` or `egress`, as seen from the pod or the device.
    pub direction: String,
    /// The device that the packet was on.
    pub interface: String,
    /// The sender, when the packet was understood that far.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub source: Option<IpAddr>,
    /// The receiver.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub destination: Option<IpAddr>,
    /// `tcp`, `udp`, …
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub protocol: String,
    /// The sender's port.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub source_port: Option<u16>,
    /// The receiver's port.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub destination_port: Option<u16>,
    /// The length of the packet.
    pub length: u32,
    /// The pod that it came from or was for, as `namespace/name`, when known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pod: Option<String>,
}
