// SPDX-License-Identifier: Apache-2.0
//! What a node takes of a subnet.

use serde::Serialize;

use crate::capacity::{AKS_MOST, Mode, Network, PREFIX_SIZE, Request};
use crate::instance::Instance;

/// Addresses that are kept ready before a pod asks for them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Warm {
    /// Single addresses (in prefix mode: as many prefixes as hold them).
    Addresses(u32),
    /// Whole interfaces, full of addresses; in prefix mode, prefixes.
    Units(u32),
}

impl Warm {
    /// What each network does unless told otherwise: the VPC CNI `WARM_ENI_TARGET=1` (`WARM_PREFIX_TARGET=1`), Cilium
    /// `pre-allocate` 8; of Thalweg the same 8 is assumed.
    #[must_use]
    pub const fn default_of(network: Network) -> Self {
        match network {
            Network::VpcCni => Self::Units(1),
            Network::Thalweg | Network::Cilium => Self::Addresses(8),
            Network::Azure | Network::Gke => Self::Addresses(0),
        }
    }
}

/// What one node takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct NodeDemand {
    /// Single addresses, the interfaces' own included.
    pub addresses: u32,
    /// /28 prefixes.
    pub prefixes: u32,
}

/// A node that cannot be.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DemandError {
    /// More pods than addresses.
    #[error(
        "{instance} has {slots} addresses for pods in mode {mode}, not {pods}; ask for fewer pods on a node"
    )]
    TooMany {
        /// The type.
        instance: String,
        /// The mode.
        mode: Mode,
        /// What it has.
        slots: u32,
        /// What was asked for.
        pods: u32,
    },
    /// The mode's numbers are the type's.
    #[error("what a node takes in mode {0} depends on its instance type; give one")]
    NeedsInstance(Mode),
    /// Pods have addresses of another range.
    #[error("in mode {0} pods take nothing of a subnet but of a pod CIDR; give that")]
    NoSubnet(Mode),
}

impl NodeDemand {
    /// What a node with this many pods takes.
    ///
    /// # Errors
    /// The pods do not fit, or the mode needs an instance type, or it takes no subnet.
    pub fn of(
        instance: Option<&Instance>,
        request: &Request,
        pods: u32,
        warm: Warm,
    ) -> Result<Self, DemandError> {
        let mode = request.mode;
        match mode {
            Mode::Eni | Mode::EniPrefix | Mode::EniOverflow => eni(
                instance.ok_or(DemandError::NeedsInstance(mode))?,
                request,
                pods,
                warm,
            ),
            Mode::AzureNodeSubnet | Mode::AzurePodSubnet if pods > AKS_MOST => Err(DemandError::TooMany {
                instance: "a node of AKS".to_owned(),
                mode,
                slots: AKS_MOST,
                pods,
            }),
            Mode::AzureNodeSubnet => Ok(Self::single(1 + pods)),
            // CNS asks for addresses in batches of 16 (acn.azure.com NodeNetworkConfig, scaler batchSize).
            Mode::AzurePodSubnet => Ok(Self::single(pods.next_multiple_of(PREFIX_SIZE))),
            Mode::AzureOverlay | Mode::Overlay | Mode::PodCidr | Mode::Gke => {
                Err(DemandError::NoSubnet(mode))
            }
        }
    }

    const fn single(addresses: u32) -> Self {
        Self {
            addresses,
            prefixes: 0,
        }
    }
}

fn eni(instance: &Instance, request: &Request, pods: u32, warm: Warm) -> Result<NodeDemand, DemandError> {
    let mode = request.mode;
    let each = u32::from(instance.ipv4_per_interface) - 1;
    let most = u32::from(instance.interfaces.saturating_sub(request.reserved_interfaces));
    let per_slot = if mode == Mode::EniPrefix { PREFIX_SIZE } else { 1 };
    let slots = each * most * per_slot;
    if pods > slots {
        return Err(DemandError::TooMany {
            instance: instance.name.clone(),
            mode,
            slots,
            pods,
        });
    }
    let in_use = pods.div_ceil(per_slot);
    let units = match (warm, mode) {
        (Warm::Addresses(more), _) => pods.saturating_add(more).div_ceil(per_slot),
        (Warm::Units(more), Mode::EniPrefix) => in_use.saturating_add(more),
        // Whole interfaces are filled.
        (Warm::Units(more), _) => in_use
            .div_ceil(each.max(1))
            .max(1)
            .saturating_add(more)
            .saturating_mul(each),
    };
    let units = units.min(each * most);
    let interfaces = units.div_ceil(each.max(1)).max(1);
    Ok(if mode == Mode::EniPrefix {
        NodeDemand {
            addresses: interfaces,
            prefixes: units,
        }
    } else {
        NodeDemand::single(interfaces + units)
    })
}
