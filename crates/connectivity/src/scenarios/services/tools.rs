// SPDX-License-Identifier: Apache-2.0
//! Services of a scenario's own, and questions to them.

use std::net::{IpAddr, SocketAddr};

use k8s_openapi::api::core::v1::Service;
use kube::api::PostParams;
use model::Family;
use serde_json::{Value, json};

use super::super::tools::{ensure, perf};
use super::super::{Case, Problem, Reach};
use crate::bed::{Bed, TestNode, TestPod};
use crate::objects::{NAMED_PORT, NAMED_PORT_UDP, label};
use crate::perf::ask::Answers;
use crate::perf::{DEFAULT_PORT, Ports};

/// The port of services that says who answers; it is not that of the pods.
pub(super) const PORT: u16 = 80;
/// The same, and leads to the pods' port by its name.
pub(super) const BY_NAME: u16 = 81;
/// The port that sends back what it gets.
pub(super) const ECHO: u16 = 7;
/// A port that no service here has.
pub(super) const NO_PORT: u16 = 9;
/// The service that tells whether any are served.
const PROBE: &str = "service-probe";
/// How many seconds that may take where Thalweg does not say that it serves them.
const PROBE_TIMEOUT: &str = "5";

/// A service.
#[derive(Clone, Debug)]
pub(super) struct Made {
    /// Its name.
    pub(super) name: String,
    /// Its ClusterIP.
    pub(super) ip: IpAddr,
    /// The node port that leads to [`PORT`], of TCP; that of UDP has the same number or another one.
    pub(super) node_ports: [Option<u16>; 2],
}

impl Made {
    /// Its ClusterIP at [`PORT`].
    pub(super) fn address(&self) -> SocketAddr {
        SocketAddr::new(self.ip, PORT)
    }
}

/// Which pods a service chooses: by a label of theirs.
pub(super) fn selector(key: &str, value: &str) -> Value {
    json!({ label(key): value })
}

/// The two protocols, as arguments of `perf ask`.
pub(super) const PROTOCOLS: [&[&str]; 2] = [&[], &["--udp"]];

/// Creates a service that chooses pods by `selector` and is otherwise as `more` says.
pub(super) async fn make(
    bed: &Bed,
    case: Case,
    name: &str,
    selector: Value,
    more: Value,
) -> Result<Made, Problem> {
    if !is_served(bed).await? {
        return Err(Problem::Skipped(
            "no ClusterIP is answered here: nobody serves services; Thalweg does with kubeProxyReplacement: true".into(),
        ));
    }
    create(bed, case, name, selector, more).await
}

/// Whether services are served at all. Where Thalweg says that it does, what follows shows it.
async fn is_served(bed: &Bed) -> Result<bool, Problem> {
    if bed.serves {
        return Ok(true);
    }
    let served = bed.served.get_or_try_init(|| async {
        let (Some(first), Some(last)) = (bed.nodes.first(), bed.nodes.last()) else {
            return Ok(false);
        };
        let family = first.first.ips.first().map_or(Family::Ipv4, Family::of);
        let case = Case {
            reach: Reach::PodToService,
            family,
        };
        let made = create(bed, case, PROBE, selector("pod", &last.first.name), json!({})).await?;
        let address = made.address().to_string();
        let wait = ["ask", &address, "--until", "answered", "--timeout", PROBE_TIMEOUT];
        let answers: Answers = perf(bed, &first.second, &wait).await?;
        Ok::<_, Problem>(answers.answered() > 0)
    });
    served.await.copied()
}

async fn create(bed: &Bed, case: Case, name: &str, selector: Value, more: Value) -> Result<Made, Problem> {
    let (short, who) = match case.family {
        Family::Ipv4 => ("ipv4", case.reach.name()),
        Family::Ipv6 => ("ipv6", case.reach.name()),
    };
    let name = format!("{name}-{who}-{short}");
    let failed = |reason: String| Problem::Failed(format!("cannot create service {name}: {reason}"));
    let object = object(&name, case.family, selector, more).map_err(|error| failed(error.to_string()))?;
    let made = bed.api::<Service>().create(&PostParams::default(), &object).await;
    let made = match made {
        // The cluster has no range of this family for services.
        Err(kube::Error::Api(status)) if status.code == 422 && status.message.contains("ipFamil") => {
            return Err(Problem::Skipped(format!(
                "services have no {} address here",
                case.family
            )));
        }
        other => other.map_err(|error| failed(error.to_string()))?,
    };
    let spec = made.spec.unwrap_or_default();
    let ip = spec.cluster_ip.as_deref().and_then(|ip| ip.parse().ok());
    let ports = spec.ports.unwrap_or_default();
    let node_port = |protocol: &str| {
        let is_it = |port: &&_| is_port(port, protocol);
        let found = ports.iter().find(is_it)?.node_port?;
        u16::try_from(found).ok()
    };
    Ok(Made {
        ip: ip.ok_or_else(|| failed(format!("its ClusterIP is {:?}", spec.cluster_ip)))?,
        node_ports: ["TCP", "UDP"].map(node_port),
        name,
    })
}

fn is_port(port: &k8s_openapi::api::core::v1::ServicePort, protocol: &str) -> bool {
    port.port == i32::from(PORT) && port.protocol.as_deref() == Some(protocol)
}

fn object(name: &str, family: Family, selector: Value, more: Value) -> Result<Service, serde_json::Error> {
    let ports = Ports::new(DEFAULT_PORT);
    let port = |name: &str, protocol: &str, port: u16, target: Value| json!({ "name": name, "protocol": protocol, "port": port, "targetPort": target });
    let family = match family {
        Family::Ipv4 => "IPv4",
        Family::Ipv6 => "IPv6",
    };
    let mut spec = json!({
        "selector": selector,
        "ipFamilyPolicy": "SingleStack",
        "ipFamilies": [family],
        "ports": [
            port("who", "TCP", PORT, ports.whoami().into()),
            port("who-udp", "UDP", PORT, ports.whoami().into()),
            port("named", "TCP", BY_NAME, NAMED_PORT.into()),
            port("named-udp", "UDP", BY_NAME, NAMED_PORT_UDP.into()),
            port("echo", "TCP", ECHO, ports.echo().into()),
        ],
    });
    if let (Value::Object(spec), Value::Object(more)) = (&mut spec, more) {
        spec.extend(more);
    }
    serde_json::from_value(json!({ "metadata": { "name": name }, "spec": spec }))
}

impl Case {
    /// Who calls a service on a node.
    pub(super) fn client(self, node: &TestNode) -> &TestPod {
        if self.reach == Reach::NodeToService {
            &node.host
        } else {
            &node.first
        }
    }
}

/// Asks as soon as anybody answers; everything must then be answered.
pub(super) async fn answers(
    bed: &Bed,
    from: &TestPod,
    to: SocketAddr,
    count: u32,
    protocol: &[&str],
) -> Result<Answers, Problem> {
    let (address, count) = (to.to_string(), count.to_string());
    let mut arguments = vec!["ask", &address, "--until", "answered", "--count", &count];
    arguments.extend(protocol);
    let found: Answers = perf(bed, from, &arguments).await?;
    ensure(found.unanswered() == 0, || {
        format!("{} to {to} {}: {found:?}", from.name, protocol.concat())
    })?;
    Ok(found)
}

/// The same over both protocols; nobody may answer but the `expected`.
pub(super) async fn answered_by(
    bed: &Bed,
    from: &TestPod,
    to: SocketAddr,
    expected: &[&str],
) -> Result<(), Problem> {
    for protocol in PROTOCOLS {
        let found = answers(bed, from, to, 5, protocol).await?;
        only(from, to, &found, expected)?;
    }
    Ok(())
}

/// Nobody may have answered but the `expected`.
pub(super) fn only(
    from: &TestPod,
    to: SocketAddr,
    found: &Answers,
    expected: &[&str],
) -> Result<(), Problem> {
    let wrong = found
        .servers
        .keys()
        .find(|name| !expected.contains(&name.as_str()));
    ensure(wrong.is_none(), || {
        format!(
            "{} to {to}: answered by {:?}, who is not behind it",
            from.name,
            wrong.cloned().unwrap_or_default()
        )
    })
}

/// Asks once a refusal was seen, over both protocols: all must be refused, and soon. What is not Thalweg may be silent.
pub(super) async fn refused(bed: &Bed, from: &TestPod, to: SocketAddr) -> Result<(), Problem> {
    let address = to.to_string();
    for protocol in PROTOCOLS {
        let mut arguments = vec!["ask", &address, "--until", "refused", "--count", "3"];
        if !bed.serves {
            arguments.extend(["--timeout", PROBE_TIMEOUT]);
        }
        arguments.extend(protocol);
        let found: Answers = perf(bed, from, &arguments).await?;
        ensure(found.answered() == 0, || {
            format!("{} to {to} was answered: {found:?}", from.name)
        })?;
        ensure(!bed.serves || found.refused == 3, || {
            format!(
                "{} to {to} {} was not refused: {found:?}",
                from.name,
                protocol.concat()
            )
        })?;
        let soon = found.refused < 3 || found.slowest_ms < 1000.0;
        ensure(soon, || {
            format!("{} to {to} was refused late: {found:?}", from.name)
        })?;
    }
    Ok(())
}

/// The names of pods of all nodes.
pub(super) fn names<'bed>(bed: &'bed Bed, of: impl Fn(&'bed TestNode) -> &'bed TestPod) -> Vec<&'bed str> {
    bed.nodes.iter().map(|node| of(node).name.as_str()).collect()
}
