// SPDX-License-Identifier: Apache-2.0
//! What tells the model's things apart in tables.

use model::{Endpoint, EndpointId, IpPool, Machine, Namespace, Node, NodePools, Pod};

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
