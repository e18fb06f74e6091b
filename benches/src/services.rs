// SPDX-License-Identifier: Apache-2.0
//! Services of a lab: made in its API, so many as are asked for, and waited for until they are in force.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use futures::stream::{self, StreamExt as _, TryStreamExt as _};
use k8s_openapi::api::core::v1::Service;
use k8s_openapi::api::discovery::v1::EndpointSlice;
use kube::api::{Api, PostParams};
use serde_json::json;

use crate::kube_proxy::{MEASURED, other};
use crate::load::{BACKENDS, PORT, PORT_STEP};
use crate::reference::{Frontend, Path};
use crate::subject::{Programs, Subject};

/// Requests to the API at once.
const AT_ONCE: usize = 64;
/// How long all may take until it is in force.
const PATIENCE: Duration = Duration::from_secs(180);

/// A lab whose only node has two pods, and so many services, one of which leads to the second pod.
pub(crate) struct Served {
    /// The lab.
    pub(crate) subject: Subject,
    /// How long it took from the last object made until all was in force.
    pub(crate) in_force: Duration,
}

impl Served {
    pub(crate) fn start(programs: &Programs, count: u32) -> Result<Self> {
        // As many connections as a machine of this size has by itself; labs have fewer.
        let arguments = [
            "--set",
            "kubeProxyReplacement=true",
            "--set",
            "conntrack.maxEntries=262144",
        ];
        let subject = Subject::start_as("bench-services", programs, 1, 2, &arguments)?;
        let server = subject.path("pod-1-1", "pod-1-2")?.target;
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()?;
        let client = || async { subject.lab.client().await.context("reach the lab's API") };
        runtime.block_on(async {
            let client = client().await?;
            let (services, slices) = (
                Api::<Service>::namespaced(client.clone(), "default"),
                Api::<EndpointSlice>::namespaced(client, "default"),
            );
            let make = |(service, slice_list): (Service, Vec<EndpointSlice>)| {
                let (services, slices) = (services.clone(), slices.clone());
                async move {
                    services.create(&PostParams::default(), &service).await?;
                    for slice in slice_list {
                        slices.create(&PostParams::default(), &slice).await?;
                    }
                    anyhow::Ok(())
                }
            };
            let others = (0..count.saturating_sub(1)).map(filler);
            let all = std::iter::once(measured(&server.to_string())).chain(others);
            let made = stream::iter(all).map(|one| one.map(make));
            made.try_buffer_unordered(AT_ONCE).try_collect::<()>().await
        })?;
        let begin = Instant::now();
        let mut served = Self {
            subject,
            in_force: Duration::ZERO,
        };
        served.wait(count)?;
        served.in_force = begin.elapsed();
        Ok(served)
    }

    /// Waits until the agent has all.
    pub(crate) fn wait(&self, count: u32) -> Result<()> {
        let node = self.subject.node()?;
        let begin = Instant::now();
        loop {
            let services = self
                .subject
                .status(&node.name)
                .ok()
                .and_then(|status| status.services);
            if services.is_some_and(|services| services.in_sync && services.services >= u64::from(count)) {
                return Ok(());
            }
            if begin.elapsed() > PATIENCE {
                bail!("{count} services are not in force after {PATIENCE:?}");
            }
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    /// Through the service, by the client's socket or by its packets.
    pub(crate) fn path(&self, by_socket: bool) -> Result<Path> {
        let mut path = self.subject.path("pod-1-1", "pod-1-2")?;
        let cgroup = self.subject.node()?.cgroup;
        path.service = Some(Frontend {
            address: MEASURED.into(),
            cgroup: cgroup.filter(|_| by_socket),
        });
        Ok(path)
    }
}

/// The service that is measured: its backends are servers of one pod at different ports, which a slice each has.
fn measured(server: &str) -> Result<(Service, Vec<EndpointSlice>)> {
    let ports = |base: u16| {
        json!([
            { "name": "echo", "port": base, "protocol": "TCP" },
            { "name": "crr", "port": base + 1, "protocol": "TCP" },
        ])
    };
    let service = json!({
        "metadata": { "name": "measured" },
        "spec": { "clusterIP": MEASURED, "ports": ports(PORT) },
    });
    let slice = |index: u16| {
        serde_json::from_value(json!({
            "metadata": { "name": format!("measured-{index}"), "labels": { "kubernetes.io/service-name": "measured" } },
            "addressType": "IPv4",
            "ports": ports(PORT + index * PORT_STEP),
            "endpoints": [{ "addresses": [server], "conditions": { "ready": true } }],
        }))
    };
    let slices = (0..BACKENDS).map(slice).collect::<Result<_, _>>()?;
    Ok((serde_json::from_value(service)?, slices))
}

fn filler(number: u32) -> Result<(Service, Vec<EndpointSlice>)> {
    let (address, backends) = other(number);
    let name = format!("other-{number}");
    let service = json!({
        "metadata": { "name": name },
        "spec": { "clusterIP": address, "ports": [{ "port": 80, "targetPort": 8080, "protocol": "TCP" }] },
    });
    let endpoints =
        backends.map(|backend| json!({ "addresses": [backend], "conditions": { "ready": true } }));
    let slice = json!({
        "metadata": { "name": name, "labels": { "kubernetes.io/service-name": name } },
        "addressType": "IPv4",
        "ports": [{ "port": 8080, "protocol": "TCP" }],
        "endpoints": endpoints,
    });
    Ok((
        serde_json::from_value(service)?,
        vec![serde_json::from_value(slice)?],
    ))
}
