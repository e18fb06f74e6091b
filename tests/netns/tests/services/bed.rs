// SPDX-License-Identifier: Apache-2.0
//! Servers in pods that say who they are, services whose backends the test writes itself, and clients that come to them by
//! both ways: as sockets of the node's cgroup, or as packets.

use std::net::{IpAddr, SocketAddr};
use std::process::{Child, ChildStdin, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{Scope, ScopedJoinHandle};

use connectivity::perf::ask::{self, Answers, Protocol};
use connectivity::perf::{DEFAULT_PORT, Ports};
use k8s_openapi::api::core::v1::Service;
use k8s_openapi::api::discovery::v1::EndpointSlice;
use kube::api::{Api, Patch, PatchParams, PostParams};
use lab::Lab;
use serde_json::{Value, json};
use tests_netns::{LIMIT, eventually, program, run, said, within};
use thalweg_tests_netns as tests_netns;

/// The services' port that says who answers.
pub(crate) const WHO: u16 = 80;
/// The services' port that sends back what it gets.
pub(crate) const ECHO: u16 = 7;
/// How often one process asks.
const AT_A_TIME: &str = "300";

/// A server in a pod; it ends with this.
pub(crate) struct Server {
    child: Child,
    _until: ChildStdin,
}

impl Server {
    pub(crate) fn start(lab: &Lab, pod: &str) -> Self {
        let arguments = ["perf", "server", "--until-eof", "--name", pod].map(str::to_owned);
        let mut command = lab
            .command(&lab.target(None, pod), program().to_str().unwrap(), &arguments)
            .unwrap();
        let mut child = command
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .spawn()
            .unwrap();
        let until = child.stdin.take().unwrap();
        let who = Ports::new(DEFAULT_PORT).whoami();
        eventually(&format!("{pod} answers"), || {
            lab.pod_ips(pod).unwrap().into_iter().all(|ip| {
                let ask = || ask::once(SocketAddr::new(ip, who), Protocol::Tcp, LIMIT);
                within(lab, pod, ask).is_ok()
            })
        });
        Self { child, _until: until }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A service of one family without a selector.
pub(crate) struct Served {
    name: String,
    /// What it is reached at.
    pub(crate) ip: IpAddr,
    /// The node port that leads to [`WHO`].
    pub(crate) node_port: u16,
    slices: Api<EndpointSlice>,
    runtime: tokio::runtime::Runtime,
}

impl Served {
    pub(crate) fn create(lab: &Lab, name: &str, family: &str, backends: &[IpAddr]) -> Self {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .unwrap();
        let client = runtime.block_on(lab.client()).unwrap();
        let services: Api<Service> = Api::namespaced(client.clone(), "default");
        let slices: Api<EndpointSlice> = Api::namespaced(client, "default");
        let parameters = PostParams::default();
        let service = serde_json::from_value(service(name, family)).unwrap();
        let made = runtime.block_on(services.create(&parameters, &service)).unwrap();
        let spec = made.spec.unwrap();
        let served = Self {
            name: name.into(),
            ip: spec.cluster_ip.unwrap().parse().unwrap(),
            node_port: spec.ports.unwrap()[0].node_port.unwrap().try_into().unwrap(),
            slices,
            runtime,
        };
        let slice = serde_json::from_value(slice(name, family, backends)).unwrap();
        let created = served.slices.create(&parameters, &slice);
        served.runtime.block_on(created).unwrap();
        served
    }

    pub(crate) fn who(&self) -> SocketAddr {
        SocketAddr::new(self.ip, WHO)
    }

    pub(crate) fn echo(&self) -> SocketAddr {
        SocketAddr::new(self.ip, ECHO)
    }

    /// Other backends from now on.
    pub(crate) fn change(&self, backends: &[IpAddr]) {
        let patch = Patch::Merge(json!({ "endpoints": endpoints(backends) }));
        let parameters = PatchParams::default();
        let patched = self.slices.patch(&self.name, &parameters, &patch);
        self.runtime.block_on(patched).unwrap();
    }
}

fn service(name: &str, family: &str) -> Value {
    json!({
        "metadata": { "name": name },
        "spec": {
            "type": "NodePort", "ipFamilyPolicy": "SingleStack", "ipFamilies": [family],
            "ports": [
                { "name": "who", "port": WHO },
                { "name": "who-udp", "port": WHO, "protocol": "UDP" },
                { "name": "echo", "port": ECHO },
            ],
        },
    })
}

fn slice(name: &str, family: &str, backends: &[IpAddr]) -> Value {
    let ports = Ports::new(DEFAULT_PORT);
    json!({
        "metadata": { "name": name, "labels": { "kubernetes.io/service-name": name } },
        "addressType": family,
        "endpoints": endpoints(backends),
        "ports": [
            { "name": "who", "port": ports.whoami(), "protocol": "TCP" },
            { "name": "who-udp", "port": ports.whoami(), "protocol": "UDP" },
            { "name": "echo", "port": ports.echo(), "protocol": "TCP" },
        ],
    })
}

fn endpoints(backends: &[IpAddr]) -> Value {
    let endpoint = |ip: &IpAddr| json!({ "addresses": [ip], "conditions": { "ready": true } });
    backends.iter().map(endpoint).collect()
}

/// Someone who asks again and again.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Client<'a> {
    /// The pod or node.
    pub(crate) at: &'a str,
    pub(crate) to: SocketAddr,
    pub(crate) protocol: Protocol,
    /// As sockets of the node's cgroup, which need no translation; else as packets.
    pub(crate) by_sockets: bool,
}

impl<'a> Client<'a> {
    pub(crate) fn sockets(at: &'a str, to: SocketAddr) -> Self {
        Self {
            at,
            to,
            protocol: Protocol::Tcp,
            by_sockets: true,
        }
    }

    pub(crate) fn packets(at: &'a str, to: SocketAddr) -> Self {
        Self {
            by_sockets: false,
            ..Self::sockets(at, to)
        }
    }

    pub(crate) fn udp(self) -> Self {
        Self {
            protocol: Protocol::Udp,
            ..self
        }
    }

    /// Asks some hundred times.
    pub(crate) fn ask(self, lab: &Lab) -> Answers {
        if self.by_sockets {
            return self.ask_by_process(lab);
        }
        let count = AT_A_TIME.parse().unwrap();
        within(lab, self.at, || ask::many(self.to, self.protocol, count))
    }

    fn ask_by_process(self, lab: &Lab) -> Answers {
        let (program, to) = (program(), self.to.to_string());
        let mut argv = vec![
            program.to_str().unwrap(),
            "perf",
            "ask",
            &to,
            "--count",
            AT_A_TIME,
        ];
        if self.protocol == Protocol::Udp {
            argv.push("--udp");
        }
        let output = run(lab, self.at, &argv);
        serde_json::from_slice(&output.stdout).unwrap_or_else(|error| panic!("{error}: {}", said(&output)))
    }

    /// Asks until told to stop.
    pub(crate) fn ask_on<'scope>(
        self,
        lab: &'scope Lab,
        scope: &'scope Scope<'scope, '_>,
        stop: &'scope AtomicBool,
    ) -> ScopedJoinHandle<'scope, (Self, Vec<Answers>)>
    where
        'a: 'scope,
    {
        scope.spawn(move || {
            let mut all = Vec::new();
            while !stop.load(Ordering::Relaxed) {
                all.push(self.ask(lab));
            }
            (self, all)
        })
    }
}

/// Until the agents have the service, both ways.
pub(crate) fn wait_for(lab: &Lab, clients: &[Client<'_>]) {
    for client in clients {
        eventually(&format!("{client:?} is answered"), || {
            let once = || ask::once(client.to, client.protocol, LIMIT / 20);
            within(lab, client.at, once).is_ok()
        });
    }
}
