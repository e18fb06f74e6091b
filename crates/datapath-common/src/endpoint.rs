// SPDX-License-Identifier: GPL-2.0-only OR Apache-2.0
//! What the datapath knows of an address of this node.

use crate::Mac;

row! {
    /// A row of `endpoints`, found by address: a local pod, one of the node's own addresses
    /// ([`HOST`](Endpoint::HOST)), or one of services ([`SERVICE`](Endpoint::SERVICE)).
    ///
    /// One row serves both ends: as a destination it says where to deliver, as a source it says who may send.
    pub struct Endpoint: 32 {
        /// The host end of the pod's veth; 0 for the node itself.
        pub ifindex: u32,
        /// Numbers the endpoint on this node, for events.
        pub id: u32,
        /// The pod's own Ethernet address.
        pub mac: Mac,
        /// Of [`HOST`](Endpoint::HOST) and the constants below it.
        pub flags: u16,
        /// Of the pod's labels; 0 while there is no policy.
        pub identity: u64,
        /// The policy set shared by endpoints with equal policy; 0 is none.
        pub policy: u32,
        /// Zero.
        pub _reserved: u32,
    }
}

impl Endpoint {
    /// The address is the node's own: packets to it belong to the host's stack.
    pub const HOST: u16 = 1;
    /// What the pod receives waits in the queue of its host end, where somebody limits its rate.
    pub const QUEUED: u16 = 2;
    /// What the pod sends and receives takes the host's stack: what it sends is redirected on the ingress of its host end, where
    /// somebody limits its rate, and comes back into the stack and not to our program.
    pub const STACK: u16 = 4;
    /// Clients reach services at the address: one of the node itself as well, or one that nobody has.
    pub const SERVICE: u16 = 8;
    /// It is a service's own address in the cluster: what is sent to a port that the service does not have is for nobody.
    pub const CLUSTER_IP: u16 = 16;

    /// A local pod behind the host end `ifindex`.
    #[must_use]
    pub const fn pod(ifindex: u32, mac: Mac) -> Self {
        Self {
            ifindex,
            id: 0,
            mac,
            flags: 0,
            identity: 0,
            policy: 0,
            _reserved: 0,
        }
    }

    /// An address of the node itself.
    #[must_use]
    pub const fn host() -> Self {
        Self {
            flags: Self::HOST,
            ..Self::pod(0, Mac([0; 6]))
        }
    }

    /// An address that only services have.
    #[must_use]
    pub const fn service() -> Self {
        Self {
            flags: Self::SERVICE,
            ..Self::pod(0, Mac([0; 6]))
        }
    }

    /// Whether one of `flags` is set.
    #[inline(always)]
    #[must_use]
    pub const fn has(&self, flags: u16) -> bool {
        self.flags & flags != 0
    }

    /// Whether the address is the node's own.
    #[inline(always)]
    #[must_use]
    pub const fn is_host(&self) -> bool {
        self.has(Self::HOST)
    }

    /// Whether the address is a local pod's.
    #[inline(always)]
    #[must_use]
    pub const fn is_pod(&self) -> bool {
        self.ifindex != 0
    }

    /// Whether somebody has the address, and not only services.
    #[inline(always)]
    #[must_use]
    pub const fn is_somebody(&self) -> bool {
        self.is_pod() || self.is_host()
    }
}
