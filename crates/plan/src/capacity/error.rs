// SPDX-License-Identifier: Apache-2.0
//! Questions that have no answer.

use super::{Mode, Network};
use crate::cloud::Cloud;

/// Why there is no answer, and what to ask instead.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CapacityError {
    /// The network does not have the mode.
    #[error("{network} has no mode {mode}; it has {}", list(.possible))]
    Impossible {
        /// The network.
        network: Network,
        /// The mode asked for.
        mode: Mode,
        /// Its modes.
        possible: Vec<Mode>,
    },
    /// The mode's numbers are the instance type's.
    #[error("mode {0} depends on the instance type; give one, such as m5.large")]
    NeedsInstance(Mode),
    /// An instance type of another cloud.
    #[error(
        "{instance} is a type of {cloud}, mode {mode} is not there; leave the type out or choose another mode"
    )]
    WrongCloud {
        /// The type.
        instance: String,
        /// Its cloud.
        cloud: Cloud,
        /// The mode.
        mode: Mode,
    },
    /// All interfaces are kept from pods.
    #[error(
        "{instance} has {interfaces} interface(s) and {reserved} are kept from pods: none is left; take a larger type"
    )]
    NoInterface {
        /// The type.
        instance: String,
        /// Its interfaces.
        interfaces: u16,
        /// Those that pods may not use.
        reserved: u16,
    },
    /// Prefixes need Nitro.
    #[error("{0} runs on Xen, which has no prefix delegation; use mode eni or overlay, or a Nitro type")]
    NoPrefixes(String),
    /// Nothing is known.
    #[error(
        "whether {0} has prefix delegation is unknown: no source names its hypervisor; `thalweg capacity --refresh` with its own description settles it"
    )]
    PrefixesUnknown(String),
    /// A share of a node that makes no sense.
    #[error("a node's share of the pod CIDR is /16 to /30, not /{0}")]
    NodeMask(u8),
    /// Outside of what the cloud allows.
    #[error("mode {mode} allows {least} to {most} pods on a node, not {wanted}")]
    MaxPods {
        /// What was asked for.
        wanted: u32,
        /// The mode.
        mode: Mode,
        /// The least.
        least: u32,
        /// The most.
        most: u32,
    },
}

fn list(modes: &[Mode]) -> String {
    let names: Vec<&str> = modes.iter().map(|mode| mode.name()).collect();
    names.join(", ")
}
