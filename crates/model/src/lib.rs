// SPDX-License-Identifier: Apache-2.0
//! The words of the network: node, endpoint, address, identity.
//!
//! Values of these types are valid by construction: what comes from Kubernetes, the kernel or a container runtime is
//! parsed where it enters, and the rest of the program never checks it again.
//!
//! There is no Kubernetes type here and no knowledge of how anything is stored or sent. Start from [`Node`] and
//! [`Endpoint`].

mod endpoint;
mod family;
mod ippool;
mod mac;
mod node;
mod service;

pub use endpoint::{Endpoint, EndpointId, ParseEndpointIdError, Pod, PodRef, RateLimits};
pub use family::Family;
pub use ippool::{
    Block, BlockReport, DEFAULT_POOL, Grant, Holder, IpPool, Namespace, NodePools, NodeReport, PoolCondition,
    PoolRange, PoolReport, PoolState, PoolUse, overlap, usable_addresses,
};
pub use mac::{Mac, ParseMacError};
pub use node::{Machine, Node};
pub use service::{
    Algorithm, Distribution, EndpointSlice, EndpointState, Exposure, Hints, HostPort, MAGLEV_SIZES,
    ObjectName, Service, ServicePort, SliceEndpoint, SlicePort, Transport,
};

/// An address of either family.
pub type Addr = std::net::IpAddr;
