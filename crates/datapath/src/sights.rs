// SPDX-License-Identifier: Apache-2.0
//! The rows of `nat` of connections to services: two for each, which go with its row of `conntrack`.

use datapath_common::NatEntry;
use datapath_common::ct::{CtEntry, CtKey, Tuple};
use datapath_common::service::{Sight, before, behind};

use crate::{HashMap, MapError};

/// The rows of a connection, which the caller has deleted: those that are no other connection's by now.
pub(crate) fn of(
    rows: &HashMap<CtKey, NatEntry>,
    key: &CtKey,
    entry: &CtEntry,
) -> Result<Vec<CtKey>, MapError> {
    if entry.flags & CtEntry::SERVICE == 0 {
        return Ok(Vec::new());
    }
    let sent = key.tuple(entry.opener);
    let backend_sees = sent.sight(Sight::Backend);
    let Some(frontend) = rows.get(&backend_sees)? else {
        return Ok(Vec::new());
    };
    // A client that has used its port again meanwhile, for the same backend, has made the row its new connection's.
    if frontend.created.wrapping_sub(entry.last_seen).cast_signed() > 0 {
        return Ok(Vec::new());
    }
    let client_sees = before(&sent, &frontend.pod, frontend.port).sight(Sight::Client);
    let mut keys = vec![backend_sees];
    let same = |row: NatEntry| (row.pod, row.port) == (sent.destination, sent.destination_port);
    if rows.get(&client_sees)?.is_some_and(same) {
        keys.push(client_sees);
    }
    Ok(keys)
}

/// Whether a row still has its connection; `sent` is a packet of the client as the row's key has it.
pub(crate) fn is_of_a_connection(
    rows: &HashMap<CtKey, NatEntry>,
    conntrack: &HashMap<CtKey, CtEntry>,
    (sight, sent): (Sight, &Tuple),
    row: &NatEntry,
) -> Result<bool, MapError> {
    let connection = match sight {
        Sight::Backend => *sent,
        Sight::Client => {
            let behind = behind(sent, &row.pod, row.port);
            let frontend = rows.get(&behind.sight(Sight::Backend))?;
            let same = |row: NatEntry| (row.pod, row.port) == (sent.destination, sent.destination_port);
            if !frontend.is_some_and(same) {
                return Ok(false);
            }
            behind
        }
    };
    let entry = conntrack.get(&connection.key().0)?;
    Ok(entry.is_some_and(|entry| entry.flags & CtEntry::SERVICE != 0))
}
