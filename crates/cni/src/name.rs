// SPDX-License-Identifier: Apache-2.0
//! The name of the host end of an attachment's veth pair.

use crate::Attachment;

/// Every host end's name begins so.
pub const HOST_IFNAME_PREFIX: &str = "tw";
const FNV_OFFSET: u64 = 0xcbf2_9ce4_8422_2325;
const FNV_PRIME: u64 = 0x0000_0100_0000_01b3;

/// The host end's name: a digest of container ID and interface name, so that DEL needs no state to find it.
///
/// FNV-1a over 64 bits, the first 48 of them: with 16,384 attachments on a node two of them meet with a probability of one in two
/// million, and ADD then says so.
#[must_use]
pub fn host_ifname(attachment: &Attachment) -> String {
    let bytes = attachment
        .container_id
        .bytes()
        .chain([0])
        .chain(attachment.ifname.bytes());
    let digest = bytes.fold(FNV_OFFSET, |hash, byte| {
        (hash ^ u64::from(byte)).wrapping_mul(FNV_PRIME)
    });
    format!("{HOST_IFNAME_PREFIX}{:012x}", digest >> 16)
}
