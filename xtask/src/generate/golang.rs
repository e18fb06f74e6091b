// SPDX-License-Identifier: Apache-2.0
//! Tables that Go programs hold as maps, read line by line as `gofmt` lays them out.

use std::collections::BTreeMap;

use plan::instance::{Hypervisor, Instance};
use plan::price::Micros;

/// The fields of each entry of a map of structures, by the entry's name; a field that occurs twice keeps all values.
fn entries(text: &str) -> Vec<(String, Vec<(String, String)>)> {
    let mut found: Vec<(String, Vec<(String, String)>)> = Vec::new();
    for line in text.lines() {
        if let Some(name) = line
            .strip_prefix("\t\"")
            .and_then(|rest| rest.strip_suffix("\": {"))
        {
            found.push((name.to_owned(), Vec::new()));
        } else if let Some((key, value)) = line.trim().split_once(':')
            && let Some((_, fields)) = found.last_mut()
            && line.starts_with("\t\t")
        {
            let value = value.trim().trim_end_matches(',').trim_matches('"');
            fields.push((key.to_owned(), value.to_owned()));
        }
    }
    found
}

fn field<T: std::str::FromStr>(fields: &[(String, String)], key: &str) -> Option<T> {
    fields.iter().find(|(name, _)| name == key)?.1.parse().ok()
}

/// `vpc_ip_resource_limit.go` of the VPC CNI; what lacks a limit is left out, as the VPC CNI does.
pub(super) fn limits(text: &str) -> Vec<Instance> {
    let row = |(name, fields): (String, Vec<(String, String)>)| {
        let cards = fields.iter().filter(|(key, _)| key == "MaximumNetworkInterfaces");
        let cards: Vec<u16> = cards.filter_map(|(_, value)| value.parse().ok()).collect();
        Some(Instance {
            interfaces: field(&fields, "ENILimit")?,
            ipv4_per_interface: field(&fields, "IPv4Limit")?,
            vcpus: None,
            hypervisor: match field::<String>(&fields, "HypervisorType")?.as_str() {
                "nitro" => Hypervisor::Nitro,
                "xen" => Hypervisor::Xen,
                _ => Hypervisor::Unknown,
            },
            bare_metal: field(&fields, "IsBareMetal")?,
            cards,
            branch_interfaces: None,
            name,
        })
    };
    entries(text).into_iter().filter_map(row).collect()
}

/// `limits.go` of the VPC resource controller: branch interfaces, 0 where there is no trunk.
pub(super) fn branches(text: &str) -> BTreeMap<String, u16> {
    let row = |(name, fields): (String, Vec<(String, String)>)| {
        let number = match field(&fields, "IsTrunkingCompatible")? {
            true => field(&fields, "BranchInterface")?,
            false => 0,
        };
        Some((name, number))
    };
    entries(text).into_iter().filter_map(row).collect()
}

/// Karpenter's price lists: machine type to price, by region.
pub(super) fn prices(text: &str) -> BTreeMap<String, BTreeMap<String, Micros>> {
    let mut found: BTreeMap<String, BTreeMap<String, Micros>> = BTreeMap::new();
    let mut region = None;
    for line in text.lines().map(str::trim) {
        let opened = line
            .strip_suffix("\": {")
            .and_then(|rest| rest.strip_prefix('"'))
            .or_else(|| {
                line.strip_prefix("initialOnDemandPrices[\"")?
                    .split_once('"')
                    .map(|(name, _)| name)
            });
        if let Some(name) = opened {
            region = Some(name.to_owned());
            continue;
        }
        let Some(prices) = region.as_ref().map(|name| found.entry(name.clone()).or_default()) else {
            continue;
        };
        for pair in line.split(", ") {
            if let Some((name, price)) = pair.split_once(':')
                && let Some(price) = Micros::parse(price.trim().trim_end_matches(','))
            {
                prices.insert(name.trim_matches('"').to_owned(), price);
            }
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn limits_are_read_with_their_cards() {
        let text = "\t\"p9.large\": {\n\t\tENILimit:                2,\n\t\tIPv4Limit: 50,\n\t\tNetworkCards: []NetworkCard{\n\t\t\t{\n\t\t\t\tMaximumNetworkInterfaces: 2,\n\t\t\t},\n\t\t\t{\n\t\t\t\tMaximumNetworkInterfaces: 1,\n\t\t\t},\n\t\t},\n\t\tHypervisorType: \"nitro\",\n\t\tIsBareMetal:    false,\n\t},\n";
        let rows = limits(text);
        assert_eq!(rows.len(), 1);
        assert_eq!((rows[0].interfaces, rows[0].ipv4_per_interface), (2, 50));
        assert_eq!(rows[0].cards, [2, 1]);
        assert_eq!(rows[0].hypervisor, Hypervisor::Nitro);
    }

    #[test]
    fn both_ways_to_write_prices_are_read() {
        let aws =
            "\t\"us-east-1\": {\n\t\t// a1 family\n\t\t\"a1.large\": 0.051000, \"a1.medium\": 0.025500,\n";
        assert_eq!(prices(aws)["us-east-1"]["a1.medium"], Micros(25_500));
        let azure =
            "\tinitialOnDemandPrices[\"eastus\"] = map[string]float64{\n\t\t\"Standard_D2\":   0.154000,\n";
        assert_eq!(prices(azure)["eastus"]["Standard_D2"], Micros(154_000));
    }
}
