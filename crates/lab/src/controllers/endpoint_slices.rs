// SPDX-License-Identifier: Apache-2.0
//! Keeps the EndpointSlices and the Endpoints object of every service with a selector; the content is computed in
//! [`super::slices`] and [`super::endpoints`].

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::api::core::v1::{Endpoints, Node, Pod, Service};
use k8s_openapi::api::discovery::v1::EndpointSlice;
use kube::api::{Api, DeleteParams, PostParams};
use kube::runtime::watcher;
use kube::{Client, ResourceExt as _};
use tokio_util::sync::CancellationToken;

use super::drive::{Controller, FirstFailure, drive, has_code, unless_going, unless_gone};
use super::watched::{Key, Watched};
use super::{endpoints, slices};

const ZONE_LABEL: &str = "topology.kubernetes.io/zone";

/// Runs the controller until the shutdown.
pub async fn run(client: Client, shutdown: CancellationToken) {
    let ours = format!("{}={}", slices::MANAGED_BY_LABEL, slices::MANAGED_BY);
    let controller = EndpointSlices {
        services: Watched::new(Api::all(client.clone()), watcher::Config::default()),
        pods: Watched::new(Api::all(client.clone()), watcher::Config::default()),
        nodes: Watched::new(Api::all(client.clone()), watcher::Config::default()),
        slices: Watched::new(Api::all(client.clone()), watcher::Config::default().labels(&ours)),
        endpoints: Watched::new(Api::all(client.clone()), watcher::Config::default()),
        client,
    };
    drive(controller, shutdown).await;
}

struct EndpointSlices {
    client: Client,
    services: Watched<Service>,
    pods: Watched<Pod>,
    nodes: Watched<Node>,
    slices: Watched<EndpointSlice>,
    endpoints: Watched<Endpoints>,
}

impl Controller for EndpointSlices {
    const NAME: &'static str = "endpoint-slices";

    async fn changed(&mut self) {
        tokio::select! {
            () = self.services.changed() => {}
            () = self.pods.changed() => {}
            () = self.nodes.changed() => {}
            () = self.slices.changed() => {}
            () = self.endpoints.changed() => {}
        }
    }

    fn synced(&self) -> bool {
        let backends = self.pods.synced() && self.nodes.synced();
        backends && self.services.synced() && self.slices.synced() && self.endpoints.synced()
    }

    async fn reconcile(&mut self) -> Result<Option<Duration>, kube::Error> {
        let plan = self.plan();
        let mut failure = FirstFailure::default();
        for slice in plan.write {
            failure.note(self.write(slice).await);
        }
        for key in plan.delete {
            failure.note(self.delete(&key).await);
        }
        for endpoints in plan.endpoints {
            failure.note(self.write_endpoints(endpoints).await);
        }
        failure.outcome()?;
        Ok(None)
    }
}

#[derive(Debug, Default)]
struct Plan {
    write: Vec<EndpointSlice>,
    delete: Vec<Key>,
    endpoints: Vec<Endpoints>,
}

impl EndpointSlices {
    fn plan(&self) -> Plan {
        let zones = self.zones();
        let pods = by_namespace(self.pods.values());
        let mut existing: BTreeMap<Key, Vec<Arc<EndpointSlice>>> = BTreeMap::new();
        for slice in self.slices.values() {
            let service = slice
                .labels()
                .get(slices::SERVICE_NAME_LABEL)
                .cloned()
                .unwrap_or_default();
            let owner = Key::new(slice.namespace().unwrap_or_default(), service);
            existing.entry(owner).or_default().push(Arc::clone(slice));
        }
        let mut plan = Plan::default();
        let alive = |s: &&Arc<Service>| s.metadata.deletion_timestamp.is_none();
        for service in self
            .services
            .values()
            .filter(|s| slices::is_selecting(s))
            .filter(alive)
        {
            let key = Key::of(service.as_ref());
            let selected: Vec<Arc<Pod>> = pods
                .get(&key.namespace)
                .into_iter()
                .flatten()
                .filter(|pod| slices::selects(service, pod))
                .map(|pod| Arc::clone(pod))
                .collect();
            let has = existing.remove(&key).unwrap_or_default();
            plan.slices(&has, slices::desired(service, &selected, &zones, &has));
            let should = endpoints::desired(service, &selected);
            if self
                .endpoints
                .get(&key)
                .is_none_or(|is| !endpoints::is_current(is, &should))
            {
                plan.endpoints.push(should);
            }
        }
        // What is left belongs to services that are gone or choose no pods any more.
        plan.delete.extend(
            existing
                .into_values()
                .flatten()
                .map(|slice| Key::of(slice.as_ref())),
        );
        plan
    }

    fn zones(&self) -> slices::Zones {
        let zone = |node: &Arc<Node>| Some((node.name_any(), node.labels().get(ZONE_LABEL)?.clone()));
        self.nodes.values().filter_map(zone).collect()
    }

    async fn write(&mut self, slice: EndpointSlice) -> Result<(), kube::Error> {
        let key = Key::of(&slice);
        let api: Api<EndpointSlice> = Api::namespaced(self.client.clone(), &key.namespace);
        let answer = match self.slices.get(&key) {
            Some(known) => {
                let mut next = known.as_ref().clone();
                next.metadata.labels = slice.metadata.labels;
                next.endpoints = slice.endpoints;
                next.ports = slice.ports;
                api.replace(&key.name, &PostParams::default(), &next).await
            }
            None => api.create(&PostParams::default(), &slice).await,
        };
        if let Some(written) = unless_outdated(answer)? {
            self.slices.written(written);
        }
        Ok(())
    }

    async fn delete(&mut self, key: &Key) -> Result<(), kube::Error> {
        let api: Api<EndpointSlice> = Api::namespaced(self.client.clone(), &key.namespace);
        unless_gone(api.delete(&key.name, &DeleteParams::default()).await)?;
        self.slices.removed(key);
        Ok(())
    }

    async fn write_endpoints(&mut self, endpoints: Endpoints) -> Result<(), kube::Error> {
        let key = Key::of(&endpoints);
        let api: Api<Endpoints> = Api::namespaced(self.client.clone(), &key.namespace);
        let answer = match self.endpoints.get(&key) {
            Some(known) => {
                let next = Endpoints {
                    metadata: known.metadata.clone(),
                    ..endpoints
                };
                api.replace(&key.name, &PostParams::default(), &next).await
            }
            None => api.create(&PostParams::default(), &endpoints).await,
        };
        if let Some(written) = unless_outdated(answer)? {
            self.endpoints.written(written);
        }
        Ok(())
    }
}

impl Plan {
    fn slices(&mut self, has: &[Arc<EndpointSlice>], should: Vec<EndpointSlice>) {
        let kept: BTreeSet<String> = should.iter().map(|slice| slice.name_any()).collect();
        let dropped = has.iter().filter(|slice| !kept.contains(&slice.name_any()));
        self.delete.extend(dropped.map(|slice| Key::of(slice.as_ref())));
        for slice in should {
            let is = has.iter().find(|is| is.name_any() == slice.name_any());
            if is.is_none_or(|is| !slices::is_current(is, &slice)) {
                self.write.push(slice);
            }
        }
    }
}

fn by_namespace<'a>(pods: impl Iterator<Item = &'a Arc<Pod>>) -> BTreeMap<String, Vec<&'a Arc<Pod>>> {
    let mut map: BTreeMap<String, Vec<&Arc<Pod>>> = BTreeMap::new();
    for pod in pods {
        map.entry(pod.namespace().unwrap_or_default())
            .or_default()
            .push(pod);
    }
    map
}

/// An object that changed or appeared meanwhile comes back by its watch; so does a namespace that is going.
fn unless_outdated<T>(answer: Result<T, kube::Error>) -> Result<Option<T>, kube::Error> {
    match answer {
        Err(error) if has_code(&error, 409) => Ok(None),
        other => unless_going(other),
    }
}
