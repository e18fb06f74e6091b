// SPDX-License-Identifier: Apache-2.0
//! How many pods fit on a node: by mode, by network, by instance type.
//!
//! Two limits meet: addresses (what the mode can give a node) and the kubelet's `--max-pods`. Both are said, with what
//! binds. Start with [`capacity`].

use serde::Serialize;

use crate::cloud::Cloud;
use crate::instance::{Instance, PrefixSupport};

mod error;
mod modes;
mod networks;

pub use error::CapacityError;
pub use modes::Mode;
pub use networks::{Network, Taken};

/// Addresses in a /28 prefix.
pub const PREFIX_SIZE: u32 = 16;
/// Pods that use the host's network in AWS's own formula: aws-node and kube-proxy.
const HOST_NETWORK_PODS: u32 = 2;
/// `--max-pods` that EKS recommends at most, up to [`FEW_VCPUS`] and above
/// (`max-pods-calculator.sh` of awslabs/amazon-eks-ami).
const CAP_FEW_VCPUS: u32 = 110;
const CAP_MANY_VCPUS: u32 = 250;
const FEW_VCPUS: u32 = 30;
/// The kubelet's own default.
const KUBELET_DEFAULT: u32 = 110;
/// AKS allows this many pods on a node, in every mode (learn.microsoft.com, AKS IP address planning).
pub(crate) const AKS_MOST: u32 = 250;
const AKS_LEAST: u32 = 10;
/// The /24 of a node in overlay mode.
const AKS_NODE_RANGE: u32 = 256;
const AZURE_OVERLAY_NOTE: &str = "each node has a /24 of the pod CIDR, which cannot be changed; nothing is encapsulated: Azure's fabric routes it";
/// GKE Standard (cloud.google.com, flexible pod CIDR).
const GKE_DEFAULT: u32 = 110;
const GKE_LEAST: u32 = 8;
const GKE_MOST: u32 = 256;
/// A node's share of the pod CIDR where nobody says otherwise: kube-controller-manager's and cluster-pool's default.
const DEFAULT_NODE_MASK: u8 = 24;

/// A question.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Request {
    /// How pods get addresses.
    pub mode: Mode,
    /// Who gives them.
    pub network: Network,
    /// The kubelet's `--max-pods`, where it is set; else what the mode's owner recommends.
    pub max_pods: Option<u32>,
    /// Size of a node's share of the pod CIDR, for modes that have one to choose; default 24.
    pub node_mask: Option<u8>,
    /// Interfaces that pods may not use: 1 with the VPC CNI's custom networking, or with Cilium's
    /// `first-interface-index: 1`.
    pub reserved_interfaces: u16,
}

impl Request {
    /// A question with the defaults of everything else.
    #[must_use]
    pub fn new(mode: Mode, network: Network) -> Self {
        Self {
            mode,
            network,
            max_pods: None,
            node_mask: None,
            reserved_interfaces: 0,
        }
    }
}

/// Which limit binds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Limit {
    /// The addresses that the node can have.
    Addresses,
    /// `--max-pods`.
    MaxPods,
}

/// An answer. Every number is of one node.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Capacity {
    /// The instance type, where the mode depends on it or one was given.
    pub instance: Option<String>,
    /// How pods get addresses.
    pub mode: Mode,
    /// Who gives them.
    pub network: Network,
    /// Addresses for pods that the node can have at most.
    pub slots: u32,
    /// Of these in the subnet, for modes where both are mixed (`eni-overflow`); else the same or 0.
    pub subnet_slots: u32,
    /// What the network takes for itself out of the slots.
    pub taken: Vec<Taken>,
    /// Slots that are left for pods.
    pub usable: u32,
    /// AWS's published `eni-max-pods` number, `ENIs x (IPs - 1) + 2`, or the same with prefixes x16; without cap.
    pub official_max_pods: Option<u32>,
    /// What `--max-pods` should be; `None` when the cap depends on a number of vCPUs that no source knows.
    pub max_pods: Option<u32>,
    /// Pods with an address of their own that can run at most; pods of the host's network count against `max_pods` too.
    /// `None` as above.
    pub pods: Option<u32>,
    /// Which limit binds; `None` as above.
    pub limit: Option<Limit>,
    /// What else has to be known to read the numbers rightly.
    pub notes: Vec<String>,
}

/// How many pods fit on a node of a type. The instance may be `None` in modes that do not depend on it.
///
/// # Errors
/// The network does not have the mode, the type cannot do it, or a number is out of what the mode's owner allows.
pub fn capacity(instance: Option<&Instance>, request: &Request) -> Result<Capacity, CapacityError> {
    let Request { mode, network, .. } = *request;
    if !network.has(mode) {
        return Err(CapacityError::Impossible {
            network,
            mode,
            possible: network.modes(),
        });
    }
    match mode {
        Mode::Eni | Mode::EniPrefix | Mode::EniOverflow => eni(instance, request),
        Mode::Overlay | Mode::PodCidr => node_cidr(instance, request),
        Mode::AzureOverlay | Mode::AzurePodSubnet | Mode::AzureNodeSubnet => azure(instance, request),
        Mode::Gke => gke(instance, request),
    }
}

/// The addresses of all usable interfaces, less the first of each, which is the interface's own.
fn eni_addresses(instance: &Instance, reserved: u16) -> Result<u32, CapacityError> {
    let interfaces = u32::from(instance.interfaces.saturating_sub(reserved));
    if interfaces == 0 {
        return Err(CapacityError::NoInterface {
            instance: instance.name.clone(),
            interfaces: instance.interfaces,
            reserved,
        });
    }
    Ok(interfaces * u32::from(instance.ipv4_per_interface.saturating_sub(1)))
}

/// What differs between the two kinds of address of one node.
const OVERFLOW_NOTE: &str = "pods after the subnet's slots get overlay addresses: no security groups of the VPC, not reachable by address from outside the cluster";

fn eni(instance: Option<&Instance>, request: &Request) -> Result<Capacity, CapacityError> {
    let instance = instance.ok_or(CapacityError::NeedsInstance(request.mode))?;
    let addresses = eni_addresses(instance, request.reserved_interfaces)?;
    let mut notes = Vec::new();
    let mut subnet_slots = addresses;
    let mut overlay_slots = 0;
    if request.mode == Mode::EniPrefix {
        prefixes_possible(instance)?;
        subnet_slots = addresses * PREFIX_SIZE;
    } else if request.mode == Mode::EniOverflow {
        overlay_slots = addresses_of_mask(request.node_mask.unwrap_or(DEFAULT_NODE_MASK))?;
        notes.push(OVERFLOW_NOTE.to_owned());
    }
    if instance.cards.len() > 1 {
        notes.push(format!(
            "{} network cards; addresses of pods are counted on the default card only, as AWS does",
            instance.cards.len()
        ));
    }
    let official = Some(subnet_slots + HOST_NETWORK_PODS);
    let parts = Parts {
        slots: subnet_slots + overlay_slots,
        subnet_slots,
        official,
        notes,
    };
    Ok(answer(Some(instance), request, parts, cap_of(instance)))
}

fn prefixes_possible(instance: &Instance) -> Result<(), CapacityError> {
    let instance_name = instance.name.clone();
    match instance.prefix_support() {
        PrefixSupport::Yes => Ok(()),
        PrefixSupport::No => Err(CapacityError::NoPrefixes(instance_name)),
        PrefixSupport::Unknown => Err(CapacityError::PrefixesUnknown(instance_name)),
    }
}

/// The recommended `--max-pods` at most; an error value when it depends on what is not known.
fn cap_of(instance: &Instance) -> Cap {
    match instance.vcpus {
        Some(vcpus) if vcpus > FEW_VCPUS => Cap::At(CAP_MANY_VCPUS),
        Some(_) => Cap::At(CAP_FEW_VCPUS),
        None => Cap::OneOf(CAP_FEW_VCPUS, CAP_MANY_VCPUS),
    }
}

#[derive(Clone, Copy)]
enum Cap {
    At(u32),
    /// Lower and higher: which of them is not known.
    OneOf(u32, u32),
}

/// Addresses that pods can have in a node's share of the pod CIDR: without the first and the last.
fn addresses_of_mask(mask: u8) -> Result<u32, CapacityError> {
    if !(16..=30).contains(&mask) {
        return Err(CapacityError::NodeMask(mask));
    }
    Ok((1 << (32 - u32::from(mask))) - 2)
}

fn node_cidr(instance: Option<&Instance>, request: &Request) -> Result<Capacity, CapacityError> {
    let mask = request.node_mask.unwrap_or(DEFAULT_NODE_MASK);
    let slots = addresses_of_mask(mask)?;
    let parts = Parts {
        slots,
        subnet_slots: 0,
        official: None,
        notes: vec![format!("each node has a /{mask} of the pod CIDR")],
    };
    Ok(answer(
        instance,
        request,
        parts,
        instance.map_or(Cap::At(KUBELET_DEFAULT), cap_of),
    ))
}

fn azure(instance: Option<&Instance>, request: &Request) -> Result<Capacity, CapacityError> {
    no_ec2_type(instance, request.mode)?;
    let overlay = request.mode == Mode::AzureOverlay;
    let (default, note) = if overlay {
        (250, AZURE_OVERLAY_NOTE)
    } else if request.mode == Mode::AzurePodSubnet {
        (110, "pods have addresses of a subnet of their own")
    } else {
        (
            30,
            "every node takes 1 + max-pods addresses of its subnet when it is made",
        )
    };
    let wanted = within(request, default, AKS_LEAST..=AKS_MOST)?;
    let slots = if overlay { AKS_NODE_RANGE } else { wanted };
    let parts = Parts {
        slots,
        subnet_slots: if overlay { 0 } else { slots },
        official: Some(AKS_MOST),
        notes: vec![note.to_owned()],
    };
    Ok(answer(None, request, parts, Cap::At(wanted)))
}

fn gke(instance: Option<&Instance>, request: &Request) -> Result<Capacity, CapacityError> {
    no_ec2_type(instance, request.mode)?;
    let wanted = within(request, GKE_DEFAULT, GKE_LEAST..=GKE_MOST)?;
    let mask = gke_mask(wanted);
    let parts = Parts {
        slots: 1 << (32 - u32::from(mask)),
        subnet_slots: 0,
        official: Some(GKE_MOST),
        notes: vec![format!(
            "a node that may run {wanted} pods gets a /{mask}: GKE gives at least twice as many addresses as pods"
        )],
    };
    Ok(answer(None, request, parts, Cap::At(wanted)))
}

/// The mask of the node's range for a number of pods: the smallest that has twice as many addresses.
#[must_use]
pub fn gke_mask(max_pods: u32) -> u8 {
    let bits = (2 * max_pods.max(1)).next_power_of_two().trailing_zeros();
    u8::try_from(32 - bits.min(32)).unwrap_or(0)
}

fn no_ec2_type(instance: Option<&Instance>, mode: Mode) -> Result<(), CapacityError> {
    match instance {
        Some(instance) => Err(CapacityError::WrongCloud {
            instance: instance.name.clone(),
            cloud: Cloud::Aws,
            mode,
        }),
        None => Ok(()),
    }
}

fn within(
    request: &Request,
    default: u32,
    allowed: std::ops::RangeInclusive<u32>,
) -> Result<u32, CapacityError> {
    let wanted = request.max_pods.unwrap_or(default);
    if allowed.contains(&wanted) {
        return Ok(wanted);
    }
    Err(CapacityError::MaxPods {
        wanted,
        mode: request.mode,
        least: *allowed.start(),
        most: *allowed.end(),
    })
}

struct Parts {
    slots: u32,
    subnet_slots: u32,
    official: Option<u32>,
    notes: Vec<String>,
}

fn answer(instance: Option<&Instance>, request: &Request, parts: Parts, cap: Cap) -> Capacity {
    let taken = request.network.takes(request.mode);
    let usable = parts
        .slots
        .saturating_sub(taken.iter().map(|taken| taken.addresses).sum());
    let mut notes = parts.notes;
    let managed = matches!(request.mode.cloud(), Some(Cloud::Azure | Cloud::Gcp));
    // The clouds count every pod of a node; AWS adds its two pods of the host's network to the addresses.
    let wish = if managed {
        usable
    } else {
        usable + HOST_NETWORK_PODS
    };
    let (max_pods, bound) = match (request.max_pods, cap) {
        (Some(set), _) => (Some(set), set),
        (None, Cap::At(cap)) => (Some(wish.min(cap)), cap),
        (None, Cap::OneOf(low, _)) if wish <= low => (Some(wish), low),
        (None, Cap::OneOf(low, high)) => {
            notes.push(format!(
                "max-pods is {} or {}: no source knows this type's number of vCPUs",
                wish.min(low),
                wish.min(high)
            ));
            (None, high)
        }
    };
    let pods = max_pods.map(|_| usable.min(bound));
    Capacity {
        instance: instance.map(|instance| instance.name.clone()),
        mode: request.mode,
        network: request.network,
        slots: parts.slots,
        subnet_slots: parts.subnet_slots,
        taken,
        usable,
        official_max_pods: parts.official,
        max_pods,
        pods,
        limit: pods.map(|_| {
            if bound < usable {
                Limit::MaxPods
            } else {
                Limit::Addresses
            }
        }),
        notes,
    }
}

#[cfg(test)]
mod tests;
