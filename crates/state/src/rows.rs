// SPDX-License-Identifier: Apache-2.0
//! What tells the model's things apart in tables.

use std::sync::Arc;

use model::{
    Endpoint, EndpointId, EndpointSlice, IpPool, Machine, Namespace, Node, NodePools, ObjectName, Pod,
    Service,
};

use crate::Row;

/// A pod by namespace and name.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct PodKey {
    /// The namespace.
    pub namespace: String,
    /// The name.
    pub name: String,
}

impl Row for Node {
    type Key = String;

    fn key(&self) -> String {
        self.name.clone()
    }
}

impl Row for Pod {
    type Key = PodKey;

    fn key(&self) -> PodKey {
        PodKey {
            namespace: self.pod.namespace.clone(),
            name: self.pod.name.clone(),
        }
    }
}

impl Row for Endpoint {
    type Key = EndpointId;

    fn key(&self) -> EndpointId {
        self.id.clone()
    }
}

impl Row for IpPool {
    type Key = String;

    fn key(&self) -> String {
        self.name.clone()
    }
}

impl Row for NodePools {
    type Key = String;

    fn key(&self) -> String {
        self.node.clone()
    }
}

impl Row for Namespace {
    type Key = String;

    fn key(&self) -> String {
        self.name.clone()
    }
}

impl Row for Machine {
    type Key = String;

    fn key(&self) -> String {
        self.name.clone()
    }
}

/// Shared: snapshots copy rows, and there are tens of thousands.
impl Row for Arc<Service> {
    type Key = ObjectName;

    fn key(&self) -> ObjectName {
        self.name.clone()
    }
}

/// Shared, as services are.
impl Row for Arc<EndpointSlice> {
    type Key = ObjectName;

    fn key(&self) -> ObjectName {
        self.name.clone()
    }
}
