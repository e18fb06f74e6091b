// SPDX-License-Identifier: Apache-2.0
//! `GET /v1/services`: what clients connect to, and who answers.

use api::agent::{BackendView, FrontendView, RemarkView, ServiceSummary, ServiceView};
use axum::Json;
use axum::extract::{Path, State};
use loadbalancer::{Balancer, Owner, Weight};
use model::ObjectName;

use super::{APPLY_TIMEOUT, Answer, Failure, Site};
use crate::apply::ServicesView;
use crate::observe::Observed;

pub(super) async fn list(State(site): State<Site>) -> Answer<Vec<ServiceView>> {
    let all = look(&site.observed, Balancer::list).await?;
    Ok(Json(all.into_iter().map(view).collect()))
}

pub(super) async fn get(
    State(site): State<Site>,
    Path((namespace, name)): Path<(String, String)>,
) -> Answer<Vec<ServiceView>> {
    let name = ObjectName::new(&namespace, &name);
    let wanted = name.clone();
    let found = look(&site.observed, move |balancer| balancer.get(&wanted)).await?;
    if found.is_empty() {
        return Err(Failure::not_found(format!(
            "this node serves no service {name}: there is none, or it has no address (headless, ExternalName), or \
             another proxy's name (service.kubernetes.io/service-proxy-name); see `thalweg service list`"
        )));
    }
    Ok(Json(found.into_iter().map(view).collect()))
}

/// Asks the apply thread.
async fn look<T: Send + 'static>(
    observed: &Observed,
    question: impl FnOnce(&Balancer) -> T + Send + 'static,
) -> Result<T, Failure> {
    let answer = observed.apply.services(|balancer| balancer.map(question));
    let answer = tokio::time::timeout(APPLY_TIMEOUT, answer).await;
    let answer = answer.ok().flatten().ok_or_else(Failure::busy)?;
    answer.ok_or_else(|| {
        Failure::not_found(
            "services are not this agent's to serve: kubeProxyReplacement is false, and kube-proxy serves them"
                .to_owned(),
        )
    })
}

fn view(service: loadbalancer::ServiceView) -> ServiceView {
    let name = service.owner.name();
    ServiceView {
        namespace: name.namespace().to_owned(),
        name: name.name().to_owned(),
        kind: match &service.owner {
            Owner::Service(_) => "Service",
            Owner::Pod(_) => "Pod",
        }
        .to_owned(),
        frontends: service.frontends.into_iter().map(frontend).collect(),
        backends: service.backends.into_iter().map(backend).collect(),
        remarks: service.remarks.iter().map(remark).collect(),
        error: service.failed,
    }
}

fn frontend(one: loadbalancer::FrontendView) -> FrontendView {
    let (backends, backends_outside) = one.backends;
    FrontendView {
        address: one.frontend.addr,
        port: one.frontend.port,
        protocol: one.frontend.transport.name().to_owned(),
        kind: one.kind.name().to_owned(),
        port_name: one.port,
        backends,
        backends_outside,
    }
}

fn backend(one: loadbalancer::BackendView) -> BackendView {
    let ((node, zone), [chosen, chosen_local]) = (one.place, one.chosen);
    BackendView {
        address: one.target.addr,
        port: one.target.port,
        port_name: one.port,
        state: one.state.name().to_owned(),
        node,
        zone,
        chosen,
        chosen_local,
        foreign: one.is_foreign,
    }
}

fn remark(remark: &loadbalancer::Remark) -> RemarkView {
    RemarkView {
        refused: remark.weight == Weight::Refused,
        reason: remark.reason.to_owned(),
        message: remark.text.to_string(),
    }
}

pub(super) fn summary(view: &ServicesView) -> ServiceSummary {
    let count = |number: usize| u64::try_from(number).unwrap_or(u64::MAX);
    let [frontends_max, backends_max] = view.limits;
    ServiceSummary {
        in_sync: view.in_sync,
        sockets: view.sockets,
        services: count(view.totals.owners),
        frontends: count(view.totals.frontends),
        frontends_max: frontends_max.into(),
        backends: count(view.totals.backends),
        backends_max: backends_max.into(),
        refused: count(view.totals.refused),
        failed: count(view.totals.failed),
        full: view.full,
        problems: view.problems.clone(),
    }
}
