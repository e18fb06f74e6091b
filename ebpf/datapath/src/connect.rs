// SPDX-License-Identifier: GPL-2.0-only OR Apache-2.0
//! Who connects or sends to a service talks to a backend from the first packet on: no packet of the connection is translated, and the
//! socket does not notice.
//!
//! What sockets do not see, because no system call of a socket on this node is behind it, is translated by [`service`](crate::service).

use datapath_common::packet::proto;
use datapath_common::service::{
    Affinity, AffinityKey, Backend, BackendKey, INSIDE, Service, ServiceKey, SocketKey, SocketPeer,
};
use datapath_common::{Addr, Be16, NodeConfig};

use crate::maps;
use crate::socket::Socket;

/// The call goes on.
pub const GO_ON: i32 = 1;
/// The call fails.
const FAIL: i32 = 0;

/// `connect`, and `sendto` of a socket that is not connected: to a backend if it is to a service.
#[inline(always)]
pub fn open(socket: &Socket) -> i32 {
    let frontend = ServiceKey {
        addr: socket.peer(),
        port: socket.port(),
        proto: socket.protocol(),
        _pad: [0; 5],
    };
    let Some(service) = maps::service(&frontend) else {
        return GO_ON;
    };
    // Who may use it is decided by the address that packets have.
    if service.has(Service::RANGES) {
        return GO_ON;
    }
    if service.counts[INSIDE] == 0 {
        return refuse(socket, service);
    }
    let mut backend = Backend {
        addr: frontend.addr,
        port: frontend.port,
        _pad: [0; 6],
    };
    let kept = frontend.proto != proto::TCP && keeps(socket, service, &mut backend);
    if !kept {
        if !choose(socket, service, &mut backend) {
            return refuse(socket, service);
        }
        remember(socket, service, &frontend, &backend);
    }
    socket.set_peer(&backend.addr, backend.port);
    GO_ON
}

/// There is nobody to talk to. A service that is to be silent is left to the datapath, which drops what is sent to it.
#[inline(always)]
fn refuse(socket: &Socket, service: &Service) -> i32 {
    if service.has(Service::SILENT) {
        return GO_ON;
    }
    if maps::configured(NodeConfig::SET_RETVAL) {
        socket.refuse();
    }
    FAIL
}

/// Finds the backend that a socket has sent to before, if it still serves: a flow of datagrams stays together. The frontend is in
/// `backend`.
#[inline(never)]
fn keeps(socket: &Socket, service: &Service, backend: &mut Backend) -> bool {
    let key = key(socket, backend.addr, backend.port, SocketKey::TO_FRONTEND);
    let Some(row) = maps::socket(&key) else {
        return false;
    };
    if !serves(service, &row.addr, row.port) {
        return false;
    }
    (backend.addr, backend.port) = (row.addr, row.port);
    true
}

#[inline(always)]
fn key(socket: &Socket, addr: Addr, port: Be16, kind: u8) -> SocketKey {
    SocketKey {
        cookie: socket.cookie(),
        addr,
        port,
        kind,
        _pad: [0; 5],
    }
}

/// Whether a backend is one of the service's. Where nobody keeps one, nobody has written that down.
#[inline(never)]
fn serves(service: &Service, addr: &Addr, port: Be16) -> bool {
    !service.has(Service::MEMBERS) || maps::is_member(&service.member(INSIDE, addr, port))
}

/// Chooses a backend; `false`: there is none.
#[inline(never)]
fn choose(socket: &Socket, service: &Service, backend: &mut Backend) -> bool {
    // What is no address of anybody, and no client's of the datapath.
    let client = AffinityKey {
        client: Addr::of_namespace(socket.netns()),
        service: service.id,
        _pad: 0,
    };
    let now = socket.jiffies();
    if service.affinity != 0
        && let Some(last) = maps::affinity(&client)
        && service.remembers(last, now)
        && serves(service, &last.addr, last.port)
    {
        last.last_used = now;
        (backend.addr, backend.port) = (last.addr, last.port);
        return true;
    }
    let mut slot = BackendKey {
        set: service.sets[INSIDE],
        slot: Service::slot(socket.random(), service.counts[INSIDE]),
    };
    let Some(found) = maps::backend_or_first(&mut slot) else {
        return false;
    };
    *backend = *found;
    if service.affinity != 0 {
        let last = Affinity {
            addr: backend.addr,
            port: backend.port,
            _pad: 0,
            last_used: now,
        };
        maps::set_affinity(&client, &last);
    }
    true
}

/// Notes whom the socket believes to talk to, and if it may send to several ends, to whom it really does.
#[inline(never)]
fn remember(socket: &Socket, service: &Service, frontend: &ServiceKey, backend: &Backend) {
    let peer = |addr, port| SocketPeer {
        addr,
        port,
        proto: frontend.proto,
        _pad: 0,
        set: service.sets[INSIDE],
        _reserved: 0,
    };
    let seen = key(socket, backend.addr, backend.port, SocketKey::TO_BACKEND);
    maps::set_socket(&seen, &peer(frontend.addr, frontend.port));
    if frontend.proto != proto::TCP {
        let sent = key(socket, frontend.addr, frontend.port, SocketKey::TO_FRONTEND);
        maps::set_socket(&sent, &peer(backend.addr, backend.port));
    }
}

/// `recvfrom` and `getpeername`: who really sent is shown as whom the socket believes to talk to.
#[inline(always)]
pub fn disguise(socket: &Socket) -> i32 {
    let key = key(socket, socket.peer(), socket.port(), SocketKey::TO_BACKEND);
    if let Some(row) = maps::socket(&key) {
        socket.set_peer(&row.addr, row.port);
    }
    GO_ON
}
