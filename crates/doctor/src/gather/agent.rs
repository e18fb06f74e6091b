// SPDX-License-Identifier: Apache-2.0
//! What the agent of this node says, and whether the API can be reached from here.

use std::io::{Read as _, Write as _};
use std::net::{TcpStream, ToSocketAddrs as _};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::{Duration, Instant};

use api::agent::{EndpointView, RowState, Status};
use serde::de::DeserializeOwned;

use crate::facts::{AgentFacts, ApiReach, Condition, Drop, Gathered, Limit, Pool, Stuck};

/// An agent or an API that says nothing for this long is taken for dead.
const TIMEOUT: Duration = Duration::from_secs(3);
/// The longest answer that is read.
const ANSWER_MAX: u64 = 64 << 20;

/// The agent's state and its process, as far as it answers.
pub(super) fn ask(socket: &Path) -> (Gathered<AgentFacts>, Option<u32>) {
    let status: Status = match get(socket, "/v1/status") {
        Ok(status) => status,
        Err(reason) => return (Gathered::unknown(reason), None),
    };
    let endpoints: Vec<EndpointView> = match get(socket, "/v1/endpoints") {
        Ok(endpoints) => endpoints,
        Err(reason) => return (Gathered::unknown(reason), Some(status.pid)),
    };
    let pid = status.pid;
    (Gathered::Known(facts(status, endpoints)), Some(pid))
}

fn facts(status: Status, endpoints: Vec<EndpointView>) -> AgentFacts {
    let stuck = endpoints.iter().filter_map(|endpoint| {
        let reason = match &endpoint.state {
            RowState::Done => return None,
            RowState::Pending => "pending".to_owned(),
            RowState::Error(reason) => reason.clone(),
        };
        Some(Stuck {
            pod: endpoint.pod.to_string(),
            reason,
        })
    });
    AgentFacts {
        ready: status.ready,
        routing_mode: status.routing_mode,
        mtu: status.mtu,
        attach: status.datapath.attach,
        programs: status
            .datapath
            .programs
            .into_iter()
            .map(|program| program.name)
            .collect(),
        devices: status.datapath.devices,
        endpoints: endpoints.len(),
        stuck: stuck.collect(),
        conditions: status
            .conditions
            .into_iter()
            .map(|one| Condition {
                name: one.name,
                ok: one.ok,
                message: one.message,
            })
            .collect(),
        pools: status
            .ipam
            .iter()
            .map(|pool| Pool {
                cidr: pool.cidr,
                used: pool.used,
                total: pool.capacity,
            })
            .collect(),
        limits: status
            .limits
            .into_iter()
            .map(|one| Limit {
                name: one.name,
                used: one.used,
                max: one.max,
            })
            .collect(),
        drops: status
            .drops
            .into_iter()
            .map(|one| Drop {
                reason: one.reason,
                packets: one.packets,
            })
            .collect(),
        api_connected: status.kubernetes.connected,
        api_server: status.kubernetes.server,
        tables_in_error: status
            .tables
            .into_iter()
            .filter(|table| table.errors > 0)
            .map(|table| (table.name, table.errors))
            .collect(),
        version: status.version,
    }
}

/// One request. The agent answers HTTP/1.0 without chunks and closes the connection.
fn get<T: DeserializeOwned>(socket: &Path, path: &str) -> Result<T, String> {
    let exchange = || -> std::io::Result<String> {
        let mut stream = UnixStream::connect(socket)?;
        stream.set_read_timeout(Some(TIMEOUT))?;
        stream.set_write_timeout(Some(TIMEOUT))?;
        stream.write_all(format!("GET {path} HTTP/1.0\r\nHost: agent\r\n\r\n").as_bytes())?;
        let mut answer = String::new();
        stream.take(ANSWER_MAX).read_to_string(&mut answer)?;
        Ok(answer)
    };
    let answer = exchange().map_err(|error| silence(socket, &error))?;
    let (head, body) = answer.split_once("\r\n\r\n").unwrap_or_default();
    let status = head.lines().next().unwrap_or_default();
    if !status.contains(" 200 ") {
        return Err(format!(
            "the agent answered {path} with `{status}`: {}",
            body.trim()
        ));
    }
    serde_json::from_str(body).map_err(|error| {
        format!("the agent answered {path} in a form that this version does not understand ({error})")
    })
}

fn silence(socket: &Path, error: &std::io::Error) -> String {
    use std::io::ErrorKind::{ConnectionRefused, NotFound, TimedOut, WouldBlock};
    let socket = socket.display();
    if [NotFound, ConnectionRefused].contains(&error.kind()) {
        format!("no agent answers on {socket} ({error}); does it run?")
    } else if [WouldBlock, TimedOut].contains(&error.kind()) {
        format!(
            "the agent on {socket} has not answered in {} s",
            TIMEOUT.as_secs()
        )
    } else {
        format!("the agent on {socket} cannot be asked: {error}")
    }
}

/// Tries a TCP connection to where the agent finds the API.
pub(super) fn reach_api(agent: &Gathered<AgentFacts>) -> Gathered<ApiReach> {
    let agent = match agent.get() {
        Ok(agent) => agent,
        Err(reason) => return Gathered::unknown(format!("the agent knows where the API is, and {reason}")),
    };
    let server = agent.api_server.clone();
    let Some(place) = host_and_port(&server) else {
        return Gathered::unknown(format!("the agent names the API `{server}`, which is no address"));
    };
    let begin = Instant::now();
    let addresses = place.to_socket_addrs();
    let connected = addresses.and_then(|mut addresses| {
        let address = addresses
            .next()
            .ok_or_else(|| std::io::Error::other("the name has no address"))?;
        TcpStream::connect_timeout(&address, TIMEOUT)
    });
    Gathered::Known(match connected {
        Ok(_) => ApiReach {
            server,
            connect_ms: Some(u64::try_from(begin.elapsed().as_millis()).unwrap_or(u64::MAX)),
            error: None,
        },
        Err(error) => ApiReach {
            server,
            connect_ms: None,
            error: Some(error.to_string()),
        },
    })
}

/// `https://10.0.0.1:6443/` to `10.0.0.1:6443`; without a port it is the scheme's.
fn host_and_port(server: &str) -> Option<String> {
    let (scheme, rest) = server.split_once("://")?;
    let authority = rest.split('/').next().filter(|authority| !authority.is_empty())?;
    let has_port = authority.rsplit_once(':').is_some_and(|(host, port)| {
        port.parse::<u16>().is_ok() && (!host.contains(':') || host.ends_with(']'))
    });
    let port = if scheme == "http" { 80 } else { 443 };
    Some(if has_port {
        authority.to_owned()
    } else {
        format!("{authority}:{port}")
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::net::UnixListener;

    #[test]
    fn the_api_is_where_its_url_says() {
        for (url, place) in [
            ("https://10.0.0.1:6443/", Some("10.0.0.1:6443")),
            (
                "https://example.eks.amazonaws.com",
                Some("example.eks.amazonaws.com:443"),
            ),
            ("https://[fd00::1]:6443", Some("[fd00::1]:6443")),
            ("https://[fd00::1]/", Some("[fd00::1]:443")),
            ("nonsense", None),
            ("https://", None),
        ] {
            assert_eq!(host_and_port(url).as_deref(), place, "{url}");
        }
    }

    #[test]
    fn an_agent_that_answers_nonsense_or_not_at_all_is_unknown_with_the_reason() {
        let dir = tempfile::tempdir().unwrap();
        let socket = dir.path().join("agent.sock");
        let (facts, pid) = ask(&socket);
        assert!(facts.get().unwrap_err().contains("does it run?") && pid.is_none());
        let listener = UnixListener::bind(&socket).unwrap();
        let server = std::thread::spawn(move || {
            for answer in [
                "HTTP/1.0 200 OK\r\n\r\n{\"version\":1}",
                "HTTP/1.0 503 No\r\n\r\nbusy",
                "\u{0}",
            ] {
                let (mut stream, _) = listener.accept().unwrap();
                let _ = stream.read(&mut [0; 256]);
                stream.write_all(answer.as_bytes()).unwrap();
            }
        });
        for said in ["does not understand", "503", "with ``"] {
            let reason = ask(&socket).0.get().unwrap_err().to_owned();
            assert!(reason.contains(said), "{said}: {reason}");
        }
        server.join().unwrap();
    }
}
