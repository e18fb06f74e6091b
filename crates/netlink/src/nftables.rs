// SPDX-License-Identifier: Apache-2.0
//! Whose chains nftables has: only their names.

use netlink_packet_core::{NLM_F_DUMP, NLM_F_REQUEST, NLMSG_DONE, NLMSG_ERROR};
use netlink_sys::{Socket, SocketAddr, protocols::NETLINK_NETFILTER};

use crate::Error;
use crate::attributes::{Attributes, string, u16_at, u32_at};

/// `NFNL_SUBSYS_NFTABLES << 8 | NFT_MSG_GETCHAIN` (`linux/netfilter/nf_tables.h`).
const GET_CHAINS: u16 = 10 << 8 | 4;
const CHAIN_TABLE: u16 = 1;
const CHAIN_NAME: u16 = 3;
const MESSAGE_HEADER: usize = 16;
/// `struct nfgenmsg`.
const FAMILY_HEADER: usize = 4;
const RECEIVE_BUFFER: usize = 32 * 1024;

/// Table and name of every chain of nftables in the caller's network namespace, those of iptables-nft among them. None where the
/// kernel has no nftables.
///
/// # Errors
/// When the kernel gives no socket or breaks off.
pub fn nftables_chains() -> Result<Vec<(String, String)>, Error> {
    let fail = |source| Error::system("list chains of nftables", source);
    let mut socket = match Socket::new(NETLINK_NETFILTER) {
        Err(error) if error.raw_os_error() == Some(libc::EPROTONOSUPPORT) => return Ok(Vec::new()),
        socket => socket.map_err(fail)?,
    };
    socket.bind_auto().map_err(fail)?;
    socket.connect(&SocketAddr::new(0, 0)).map_err(fail)?;
    socket.send(&request(), 0).map_err(fail)?;
    let mut chains = Vec::new();
    loop {
        let mut input = Vec::with_capacity(RECEIVE_BUFFER);
        socket.recv(&mut input, 0).map_err(fail)?;
        if !read(&input, &mut chains) {
            return Ok(chains);
        }
    }
}

fn request() -> Vec<u8> {
    let mut bytes = Vec::new();
    let length = u32::try_from(MESSAGE_HEADER + FAMILY_HEADER).unwrap_or_default();
    bytes.extend(length.to_ne_bytes());
    bytes.extend(GET_CHAINS.to_ne_bytes());
    bytes.extend((NLM_F_REQUEST | NLM_F_DUMP).to_ne_bytes());
    bytes.extend([0; 8]);
    // All families.
    bytes.extend([0; FAMILY_HEADER]);
    bytes
}

/// Whether there is more to come. That nftables is not there is an error of the kernel's, which ends the list too.
fn read(mut input: &[u8], chains: &mut Vec<(String, String)>) -> bool {
    while let (Some(length), Some(kind)) = (u32_at(input, 0), u16_at(input, 4)) {
        if kind == NLMSG_DONE || kind == NLMSG_ERROR {
            return false;
        }
        let length = length as usize;
        let attributes = input
            .get(MESSAGE_HEADER + FAMILY_HEADER..length)
            .unwrap_or_default();
        let (mut table, mut name) = (String::new(), String::new());
        for (kind, value) in Attributes(attributes) {
            match kind {
                CHAIN_TABLE => table = string(value),
                CHAIN_NAME => name = string(value),
                _ => {}
            }
        }
        chains.push((table, name));
        input = input.get(length.next_multiple_of(4)..).unwrap_or_default();
    }
    true
}
