// SPDX-License-Identifier: Apache-2.0
//! How long a subnet or a pod CIDR lasts.

use std::net::Ipv4Addr;
use std::path::PathBuf;

use anyhow::{Context as _, bail};
use ipnet::Ipv4Net;
use plan::capacity::gke_mask;
use plan::subnet::{
    Forecast, Fragmentation, Growth, NodeDemand, NodeRanges, Subnet, Warm, forecast, node_ranges,
};
use plan::{InstanceTable, Request};
use serde::Serialize;

use super::Row;

/// What is asked of a subnet.
#[derive(Debug, clap::Args)]
#[command(group(clap::ArgGroup::new("space").args(["subnet", "pod_cidr"])))]
pub(super) struct SpaceArgs {
    /// The subnet that nodes and pods take addresses from
    #[arg(
        help_heading = "How long addresses last",
        long,
        value_name = "CIDR",
        conflicts_with = "pod_cidr"
    )]
    subnet: Option<Ipv4Net>,
    /// The pod CIDR that each node gets a range of
    #[arg(help_heading = "How long addresses last", long, value_name = "CIDR")]
    pod_cidr: Option<Ipv4Net>,
    /// Used addresses of the subnet [default: what the nodes of now take]
    #[arg(
        help_heading = "How long addresses last",
        long,
        value_name = "NUMBER",
        requires = "subnet"
    )]
    used: Option<u32>,
    /// A file with the used addresses, one a line; - reads standard input
    #[arg(
        help_heading = "How long addresses last",
        long,
        value_name = "FILE",
        requires = "subnet",
        conflicts_with = "used"
    )]
    used_addresses: Option<PathBuf>,
    /// How used addresses lie, and new ones will: packed is the best that can be, spread the worst [default: all three]
    #[arg(
        help_heading = "How long addresses last",
        long,
        value_enum,
        requires = "subnet"
    )]
    fragmentation: Option<Lie>,
    /// The seed of --fragmentation random
    #[arg(
        help_heading = "How long addresses last",
        long,
        value_name = "NUMBER",
        requires = "subnet",
        default_value_t = 1
    )]
    seed: u64,
    /// Nodes that run now
    #[arg(
        help_heading = "How long addresses last",
        long,
        value_name = "NUMBER",
        requires = "space",
        default_value_t = 0
    )]
    nodes: u32,
    /// New nodes each month, as in 5, or in percent, as in 10%
    #[arg(
        help_heading = "How long addresses last",
        long,
        value_name = "GROWTH",
        requires = "space",
        default_value = "0"
    )]
    growth: Growth,
    /// Pods on a node [default: as many as it can run]
    #[arg(
        help_heading = "How long addresses last",
        long,
        value_name = "NUMBER",
        requires = "subnet"
    )]
    pods_per_node: Option<u32>,
    /// Addresses kept ready on each node [default: the network's own habit]
    #[arg(
        help_heading = "How long addresses last",
        long,
        value_name = "NUMBER",
        requires = "subnet"
    )]
    warm: Option<u32>,
    /// How far to look
    #[arg(
        help_heading = "How long addresses last",
        long,
        value_name = "MONTHS",
        requires = "space",
        default_value_t = 60
    )]
    horizon: u32,
}

/// How addresses lie.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
enum Lie {
    Packed,
    Random,
    Spread,
}

/// What becomes of the addresses with one kind of node.
#[derive(Debug, Serialize)]
pub(super) struct Outlook {
    pub(super) machine: Option<String>,
    pub(super) mode: plan::Mode,
    pub(super) network: plan::Network,
    #[serde(flatten)]
    pub(super) of: Of,
}

/// A subnet's outlook for each way in which addresses may lie, or a pod CIDR's.
#[derive(Debug, Serialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Of {
    Subnet {
        pods_per_node: u32,
        warm: Warm,
        used: u32,
        free: u32,
        cases: Vec<Case>,
    },
    PodCidr(NodeRanges),
}

#[derive(Debug, Serialize)]
pub(super) struct Case {
    pub(super) fragmentation: Fragmentation,
    /// Whether the addresses in use were given one by one.
    pub(super) exact: bool,
    /// /28 prefixes that can be had now.
    pub(super) prefixes_now: u32,
    /// Free addresses that no prefix can be made of.
    pub(super) stranded_now: u32,
    #[serde(flatten)]
    pub(super) forecast: Forecast,
}

impl SpaceArgs {
    /// An outlook for each row that takes addresses of what is asked about.
    pub(super) fn outlooks(
        &self,
        rows: &[Row],
        table: &InstanceTable,
        reserved_interfaces: u16,
    ) -> anyhow::Result<Vec<Outlook>> {
        if self.subnet.is_none() && self.pod_cidr.is_none() {
            return Ok(Vec::new());
        }
        let mut outlooks = Vec::new();
        for row in rows {
            let capacity = &row.capacity;
            let of = match (self.subnet, self.pod_cidr) {
                (Some(cidr), _) if capacity.subnet_slots > 0 => {
                    self.subnet_of(cidr, row, table, reserved_interfaces)?
                }
                (_, Some(cidr)) if capacity.subnet_slots == 0 => self.ranges_of(cidr, row)?,
                _ => continue,
            };
            outlooks.push(Outlook {
                machine: row.machine.clone(),
                mode: capacity.mode,
                network: capacity.network,
                of,
            });
        }
        if outlooks.is_empty() {
            bail!(
                "none of these modes takes addresses of it: --subnet is for eni, eni-prefix, eni-overflow, azure-pod-subnet and azure-node-subnet, --pod-cidr for the others"
            );
        }
        Ok(outlooks)
    }

    fn subnet_of(
        &self,
        cidr: Ipv4Net,
        row: &Row,
        table: &InstanceTable,
        reserved_interfaces: u16,
    ) -> anyhow::Result<Of> {
        let capacity = &row.capacity;
        let pods = match (self.pods_per_node, capacity.pods) {
            (Some(pods), _) => pods,
            (None, Some(pods)) => pods.min(capacity.subnet_slots),
            (None, None) => bail!("how many pods run on a node is unknown; say it with --pods-per-node"),
        };
        let warm = self
            .warm
            .map_or_else(|| Warm::default_of(capacity.network), Warm::Addresses);
        let instance = capacity
            .instance
            .as_deref()
            .map(|name| table.get(name))
            .transpose()?;
        let request = Request {
            reserved_interfaces,
            ..Request::new(capacity.mode, capacity.network)
        };
        let node = NodeDemand::of(instance, &request, pods, warm)?;
        let mut cases = Vec::new();
        let mut counts = (0, 0);
        for fragmentation in self.fragmentations() {
            let subnet = self.filled(cidr, fragmentation, node)?;
            counts = (subnet.used(), subnet.free());
            cases.push(Case {
                fragmentation,
                exact: self.used_addresses.is_some(),
                prefixes_now: subnet.prefixes(),
                stranded_now: subnet.stranded(),
                forecast: forecast(&subnet, node, u64::from(self.nodes), self.growth, self.horizon),
            });
        }
        Ok(Of::Subnet {
            pods_per_node: pods,
            warm,
            used: counts.0,
            free: counts.1,
            cases,
        })
    }

    fn fragmentations(&self) -> Vec<Fragmentation> {
        let random = Fragmentation::Random { seed: self.seed };
        match self.fragmentation {
            Some(Lie::Packed) => vec![Fragmentation::Packed],
            Some(Lie::Random) => vec![random],
            Some(Lie::Spread) => vec![Fragmentation::Spread],
            None => vec![Fragmentation::Packed, random, Fragmentation::Spread],
        }
    }

    /// The subnet as it is now.
    fn filled(
        &self,
        cidr: Ipv4Net,
        fragmentation: Fragmentation,
        node: NodeDemand,
    ) -> anyhow::Result<Subnet> {
        let mut subnet = Subnet::new(cidr, fragmentation)?;
        if let Some(path) = &self.used_addresses {
            let text = super::read(path)?;
            let lines = text
                .lines()
                .map(str::trim)
                .filter(|line| !line.is_empty() && !line.starts_with('#'));
            let parse = |line: &str| {
                line.parse()
                    .with_context(|| format!("`{line}` is no IPv4 address"))
            };
            let addresses: Vec<Ipv4Addr> = lines.map(parse).collect::<anyhow::Result<_>>()?;
            subnet.take_these(&addresses)?;
        } else if let Some(used) = self.used {
            subnet.take(used)?;
        } else {
            for number in 1..=self.nodes {
                if subnet.place(node).is_err() {
                    bail!(
                        "{} nodes do not fit into {cidr}: node {number} finds no room; correct --nodes, or say what is used with --used",
                        self.nodes
                    );
                }
            }
        }
        Ok(subnet)
    }

    fn ranges_of(&self, cidr: Ipv4Net, row: &Row) -> anyhow::Result<Of> {
        let mask = match row.capacity.mode {
            plan::Mode::Gke => gke_mask(row.capacity.max_pods.unwrap_or(1)),
            plan::Mode::AzureOverlay => 24,
            plan::Mode::Eni
            | plan::Mode::EniPrefix
            | plan::Mode::EniOverflow
            | plan::Mode::Overlay
            | plan::Mode::AzurePodSubnet
            | plan::Mode::AzureNodeSubnet
            | plan::Mode::PodCidr => self.mask_of(row),
        };
        let nodes = u64::from(self.nodes);
        let ranges = node_ranges(cidr, mask, nodes, self.growth, self.horizon)?;
        Ok(Of::PodCidr(ranges))
    }

    /// The mask whose addresses, but for the first and the last, are the row's slots.
    fn mask_of(&self, row: &Row) -> u8 {
        let bits = (row.capacity.slots + 2).next_power_of_two().trailing_zeros();
        u8::try_from(32 - bits.min(32)).unwrap_or(32)
    }
}
