// SPDX-License-Identifier: Apache-2.0
//! Rows of services in the kernel: all of them read, some of them written.

use std::collections::BTreeSet;
use std::net::IpAddr;

use datapath::common::{Endpoint, Service};
use datapath::{Datapath, MapError};
use loadbalancer::{Batch, Former};

/// All rows that are there.
pub(super) fn read(datapath: &mut Datapath) -> Result<Former, MapError> {
    let mut former = Former::default();
    let maps = datapath.services();
    maps.frontends().for_each(|key, row| former.frontend(key, row))?;
    maps.backends().for_each(|key, row| former.backend(key, row))?;
    maps.members().for_each(|key, slot| former.member(key, *slot))?;
    maps.source_keys()?.iter().for_each(|key| former.source(key));
    let endpoints = datapath.endpoints().rows()?;
    let ours = endpoints.into_iter().filter(|(_, row)| is_ours(row));
    ours.for_each(|(addr, _)| former.address(addr));
    Ok(former)
}

/// Writes what is to be written, in the order in which rows need each other.
pub(super) fn write(datapath: &mut Datapath, batch: &Batch) -> Result<(), MapError> {
    let maps = datapath.services();
    maps.backends().insert_all(&batch.backends)?;
    maps.members().insert_all(&batch.members)?;
    for key in &batch.sources {
        maps.sources().insert(key, &0)?;
    }
    maps.frontends().insert_all(&batch.frontends)?;
    let own = batch
        .frontends
        .iter()
        .filter(|(_, row)| !row.has(Service::EXTERNAL));
    let cluster_ips: BTreeSet<IpAddr> = own.map(|(key, _)| key.addr.to_ip()).collect();
    for addr in &batch.addresses {
        let flag = if cluster_ips.contains(addr) {
            Endpoint::CLUSTER_IP
        } else {
            0
        };
        add_address(datapath, *addr, flag)?;
    }
    Ok(())
}

/// Deletes what is to be deleted, in the other order.
pub(super) fn delete(datapath: &mut Datapath, batch: &Batch) -> Result<(), MapError> {
    delete_frontends(datapath, batch)?;
    let maps = datapath.services();
    maps.members().remove_all(&batch.gone_members)?;
    maps.backends().remove_all(&batch.gone_backends)?;
    Ok(())
}

/// What clients find first. The rest of a batch that was not written must stay: frontends may still count it.
pub(super) fn delete_frontends(datapath: &mut Datapath, batch: &Batch) -> Result<(), MapError> {
    for addr in &batch.gone_addresses {
        let endpoints = datapath.endpoints();
        // Another's row at the address is none of ours: a node's own, or a pod's that has it now.
        if endpoints.get(*addr)?.is_some_and(|row| is_ours(&row)) {
            endpoints.remove(*addr)?;
        }
    }
    let maps = datapath.services();
    maps.frontends().remove_all(&batch.gone_frontends)?;
    for key in &batch.gone_sources {
        maps.sources().remove(key)?;
    }
    Ok(())
}

fn add_address(datapath: &mut Datapath, addr: IpAddr, flag: u16) -> Result<(), MapError> {
    let endpoints = datapath.endpoints();
    // Who has the address keeps it: what comes there goes to the pod, or to the node, which serves services too.
    match endpoints.get(addr)? {
        Some(_) => Ok(()),
        None => {
            let mut row = Endpoint::service();
            row.flags |= flag;
            endpoints.upsert(addr, &row)
        }
    }
}

/// Whether a row says of an address that services have it and nobody else.
pub(crate) fn is_ours(row: &Endpoint) -> bool {
    row.has(Endpoint::SERVICE) && !row.is_host() && row.ifindex == 0
}
