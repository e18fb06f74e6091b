// SPDX-License-Identifier: Apache-2.0
//! GKE and its subnetwork, from answers of gcloud.

use serde_json::{Value, json};

use super::look::{Answer, Look, critical, items, node_pool, note, place, private_api, text, warning};
use crate::address::Role;
use crate::file::NodeGroup;

pub(super) fn verify(look: &mut Look<'_>) {
    if let Some(cluster) = look.answer("gcp/cluster.json", "") {
        control_plane(look, &cluster);
    }
    if let Some(subnet) = look.answer("gcp/subnet.json", "") {
        ranges(look, &subnet);
    }
}

fn control_plane(look: &mut Look<'_>, cluster: &Answer<'_>) {
    let (planned, addresses) = (look.context.cluster, look.context.addresses);
    let version = text(cluster.value, "/currentMasterVersion").to_owned();
    let same = version.starts_with(&format!("{}.", planned.kubernetes));
    let otherwise = warning("upgrade the cluster after `thalweg upgrade check`, or correct the plan").trap(6);
    look.that(
        same,
        "Kubernetes version",
        planned.kubernetes.to_string(),
        version,
        place(cluster, "/currentMasterVersion"),
        otherwise,
    );
    let advanced = text(cluster.value, "/networkConfig/datapathProvider").to_owned();
    let otherwise =
        critical("Dataplane V2 is a second dataplane and cannot be switched off: make the cluster anew")
            .trap(3);
    look.that(
        advanced != "ADVANCED_DATAPATH",
        "dataplane",
        "not Dataplane V2",
        advanced,
        place(cluster, "/networkConfig/datapathProvider"),
        otherwise,
    );
    let fixed = || {
        critical(
            "it cannot be changed in place: make the cluster anew, or correct the plan and see what overlaps",
        )
    };
    look.expect(
        cluster,
        "/clusterIpv4Cidr",
        "pods' network",
        json!(addresses.pods.map(|net| net.to_string())),
        fixed(),
    );
    look.expect(
        cluster,
        "/servicesIpv4Cidr",
        "services' network",
        addresses.services.to_string(),
        fixed(),
    );
    private_api(
        look,
        cluster,
        "/privateClusterConfig/enablePrivateEndpoint",
        "`gcloud container clusters update --enable-private-endpoint`, or correct the plan",
    );
    for group in &planned.node_groups {
        pool(look, cluster, group);
    }
}

fn pool(look: &mut Look<'_>, cluster: &Answer<'_>, group: &NodeGroup) {
    let Some((pool, pointer, subject)) = node_pool(look, cluster, "/nodePools", group) else {
        return;
    };
    let otherwise = note("correct the pool or the plan");
    look.expect(
        cluster,
        &format!("{pointer}/config/machineType"),
        &subject,
        json!(group.instance_types.first()),
        otherwise,
    );
    let upgrades = pool
        .pointer("/management/autoUpgrade")
        .and_then(Value::as_bool)
        .unwrap_or(false);
    let otherwise = warning(
        "a new kernel comes without a check before: switch it off, and upgrade after `thalweg upgrade check`",
    )
    .trap(2);
    look.that(
        !upgrades,
        &subject,
        "no upgrades by itself",
        "auto-upgrade is on",
        place(cluster, &format!("{pointer}/management/autoUpgrade")),
        otherwise,
    );
}

fn ranges(look: &mut Look<'_>, subnet: &Answer<'_>) {
    let addresses = look.context.addresses;
    let fixed = || critical("`terraform apply` makes it; a range that has nodes cannot be changed");
    if let Some(nodes) = addresses.of_role(Role::Nodes).next() {
        look.expect(
            subnet,
            "/ipCidrRange",
            "subnet of the nodes",
            nodes.cidr.to_string(),
            fixed(),
        );
    }
    let wanted = [("pods", addresses.pods), ("services", Some(addresses.services))];
    for (name, net) in wanted {
        let found = items(subnet, "/secondaryIpRanges")
            .into_iter()
            .find(|(range, _)| range["rangeName"] == name);
        let cidr = found.map_or(String::new(), |(range, _)| text(range, "/ipCidrRange").to_owned());
        let planned = net.map_or_else(String::new, |net| net.to_string());
        look.that(
            cidr == planned,
            &format!("range {name}"),
            planned,
            cidr,
            place(subnet, "/secondaryIpRanges"),
            fixed(),
        );
    }
}
