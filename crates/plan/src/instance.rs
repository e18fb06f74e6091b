// SPDX-License-Identifier: Apache-2.0
//! What EC2 instance types can carry: network interfaces, addresses on each, processors.

use std::collections::BTreeMap;

use serde::Serialize;

use crate::data::{self, DataError, Provenance};

/// The first line of the format's head.
const FORMAT: &str = "thalweg instance types 1";
const COLUMNS: [&str; 8] = [
    "type",
    "interfaces",
    "ipv4",
    "vcpus",
    "hypervisor",
    "metal",
    "cards",
    "branch",
];
/// The table that this version ships.
const SHIPPED: &str = include_str!("../data/aws-instance-types.csv");

/// What runs below the guest.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Hypervisor {
    /// Nitro: prefixes can be delegated.
    Nitro,
    /// Xen: single addresses only.
    Xen,
    /// The sources do not say, as for many bare-metal types.
    Unknown,
}

/// An instance type of EC2.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Instance {
    /// Its name, such as `m5.large`.
    pub name: String,
    /// Network interfaces that fit on the default network card, the one that pods' addresses can be on.
    pub interfaces: u16,
    /// IPv4 addresses (or prefixes, after the first) on each interface.
    pub ipv4_per_interface: u16,
    /// Default number of virtual processors; `None` where no source knows.
    pub vcpus: Option<u32>,
    /// What runs below the guest.
    pub hypervisor: Hypervisor,
    /// Whether the guest has the machine to itself.
    pub bare_metal: bool,
    /// Interfaces on each network card, the default card first.
    pub cards: Vec<u16>,
    /// Branch interfaces for security groups per pod; 0 where it has no trunk, `None` where no source knows.
    pub branch_interfaces: Option<u16>,
}

/// Whether /28 prefixes can be assigned to a type's interfaces.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum PrefixSupport {
    /// Nitro or bare metal.
    Yes,
    /// Xen.
    No,
    /// Nothing is known of the hypervisor.
    Unknown,
}

impl Instance {
    /// Prefixes need Nitro or bare metal, as the VPC CNI decides it (`pkg/awsutils/awsutils.go`).
    #[must_use]
    pub fn prefix_support(&self) -> PrefixSupport {
        match self.hypervisor {
            Hypervisor::Nitro => PrefixSupport::Yes,
            _ if self.bare_metal => PrefixSupport::Yes,
            Hypervisor::Xen => PrefixSupport::No,
            Hypervisor::Unknown => PrefixSupport::Unknown,
        }
    }

    fn row(&self) -> String {
        let hypervisor = match self.hypervisor {
            Hypervisor::Nitro => "nitro",
            Hypervisor::Xen => "xen",
            Hypervisor::Unknown => "",
        };
        let number = |value: Option<u32>| value.map(|number| number.to_string()).unwrap_or_default();
        format!(
            "{},{},{},{},{},{},{},{}",
            self.name,
            self.interfaces,
            self.ipv4_per_interface,
            number(self.vcpus),
            hypervisor,
            u8::from(self.bare_metal),
            write_cards(&self.cards),
            number(self.branch_interfaces.map(u32::from)),
        )
    }

    fn parse(cells: &[&str]) -> Result<Self, String> {
        let [name, interfaces, ipv4, vcpus, hypervisor, metal, cards, branch] = cells else {
            return Err(format!("{} values instead of {}", cells.len(), COLUMNS.len()));
        };
        if name.is_empty() {
            return Err("no name".to_owned());
        }
        let (interfaces, ipv4_per_interface) = (positive("interfaces", interfaces)?, positive("ipv4", ipv4)?);
        plausible(interfaces, ipv4_per_interface)?;
        Ok(Self {
            name: (*name).to_owned(),
            interfaces,
            ipv4_per_interface,
            vcpus: optional("vcpus", vcpus)?,
            hypervisor: match *hypervisor {
                "nitro" => Hypervisor::Nitro,
                "xen" => Hypervisor::Xen,
                "" => Hypervisor::Unknown,
                other => return Err(format!("hypervisor `{other}`")),
            },
            bare_metal: match *metal {
                "0" => false,
                "1" => true,
                other => return Err(format!("metal `{other}`")),
            },
            cards: read_cards(cards)?,
            branch_interfaces: optional("branch", branch)?,
        })
    }
}

/// The most addresses of a machine that anybody could mean; the largest has 750.
const ADDRESSES_MAX: u32 = 1 << 16;

/// Refuses limits that no machine has.
pub(crate) fn plausible(interfaces: u16, ipv4: u16) -> Result<(), String> {
    if u32::from(interfaces) * u32::from(ipv4) > ADDRESSES_MAX {
        return Err(format!(
            "{interfaces} interfaces with {ipv4} addresses each are more than any machine has"
        ));
    }
    Ok(())
}

fn positive(what: &str, text: &str) -> Result<u16, String> {
    match text.parse() {
        Ok(0) | Err(_) => Err(format!("{what} `{text}` is no number above 0")),
        Ok(number) => Ok(number),
    }
}

fn optional<T: std::str::FromStr>(what: &str, text: &str) -> Result<Option<T>, String> {
    if text.is_empty() {
        return Ok(None);
    }
    let number = text.parse();
    number
        .map(Some)
        .map_err(|_| format!("{what} `{text}` is no number"))
}

/// `15x4`: four cards of 15 interfaces; unequal ones joined by `+`.
fn write_cards(cards: &[u16]) -> String {
    let runs = cards.chunk_by(PartialEq::eq).filter_map(|run| match run {
        [] => None,
        [one] => Some(one.to_string()),
        [first, ..] => Some(format!("{first}x{}", run.len())),
    });
    runs.collect::<Vec<_>>().join("+")
}

fn read_cards(text: &str) -> Result<Vec<u16>, String> {
    const MOST_CARDS: usize = 256;
    let mut cards = Vec::new();
    for run in text.split('+') {
        let (size, times) = run.split_once('x').unwrap_or((run, "1"));
        let size = positive("cards", size)?;
        let times = usize::from(positive("cards", times)?);
        if cards.len() + times > MOST_CARDS {
            return Err(format!("cards `{text}` are more than {MOST_CARDS}"));
        }
        cards.extend(std::iter::repeat_n(size, times));
    }
    Ok(cards)
}

/// A name that is in no table.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "instance type `{name}` is not in the data of {date}{}; if it is newer, add it: `aws ec2 describe-instance-types --instance-types {name} | thalweg capacity --refresh - …`",
    data::suggestion(.nearest)
)]
pub struct UnknownType {
    /// What was asked for.
    pub name: String,
    /// The data's date.
    pub date: crate::date::Date,
    /// Known names like it.
    pub nearest: Vec<String>,
}

/// Instance types by name, with where they come from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct InstanceTable {
    provenance: Provenance,
    rows: BTreeMap<String, Instance>,
}

impl InstanceTable {
    /// The table that this version ships.
    ///
    /// # Errors
    /// Only if the program itself is damaged: a test reads the same text.
    pub fn shipped() -> Result<Self, DataError> {
        Self::parse(SHIPPED)
    }

    /// A table of these types; of two with one name the later counts.
    #[must_use]
    pub fn new(provenance: Provenance, types: impl IntoIterator<Item = Instance>) -> Self {
        let rows = types.into_iter().map(|row| (row.name.clone(), row)).collect();
        Self { provenance, rows }
    }

    /// Reads what [`Self::to_text`] writes.
    ///
    /// # Errors
    /// The text is of another format, cut short, altered, or has a row that cannot be.
    pub fn parse(text: &str) -> Result<Self, DataError> {
        let file = data::parse(text, FORMAT)?;
        let mut rows = BTreeMap::new();
        for (line, cells) in file.rows {
            let row = Instance::parse(&cells).map_err(|reason| DataError::Row { line, reason })?;
            rows.insert(row.name.clone(), row);
        }
        Ok(Self {
            provenance: file.provenance,
            rows,
        })
    }

    /// The table as text: a head with sources, date, count and digest, then a line per type.
    #[must_use]
    pub fn to_text(&self) -> String {
        let rows = self.rows.values().map(Instance::row).collect();
        data::write(FORMAT, &self.provenance, &COLUMNS, rows)
    }

    /// Where the numbers come from.
    #[must_use]
    pub fn provenance(&self) -> &Provenance {
        &self.provenance
    }

    /// A type by name.
    ///
    /// # Errors
    /// It is not in the table; the error names those like it.
    pub fn get(&self, name: &str) -> Result<&Instance, UnknownType> {
        self.rows.get(name).ok_or_else(|| UnknownType {
            name: name.to_owned(),
            date: self.provenance.date,
            nearest: data::nearest(name, self.rows.keys().map(String::as_str)),
        })
    }

    /// All types, by name.
    pub fn iter(&self) -> impl Iterator<Item = &Instance> {
        self.rows.values()
    }

    /// How many types there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.rows.len()
    }

    /// Whether there is none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.rows.is_empty()
    }
}
