// SPDX-License-Identifier: Apache-2.0
//! ThalwegPools and ThalwegNodes: read, and written only where they still are what the writer saw.

use std::borrow::Cow;
use std::time::Duration;

use api::crd::{self, Condition, FamilyStatus, NodePool, NodeStatus};
use ipam::cluster::{Outcome, PoolWrite, Write};
use ipnet::IpNet;
use k8s_openapi::api::networking::v1::ServiceCIDR;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use k8s_openapi::jiff::Timestamp;
use kube::api::{
    Api, DeleteParams, DynamicObject, ListParams, Patch, PatchParams, PostParams, Preconditions,
};
use kube::core::{ApiResource, GroupVersionKind};
use kube::{Client, Resource};
use model::{Grant, IpPool, NodePools, NodeReport};
use serde::Deserialize;
use serde_json::{Value, json};
use tracing::{debug, warn};

use crate::names::Names;
use crate::objects::{MachineObject, ObjectError, Parse};

/// An answer that takes longer than this is one that did not come.
const ANSWER_LIMIT: Duration = Duration::from_secs(10);

/// A ThalwegPool.
#[derive(Clone, Debug, Deserialize)]
pub(crate) struct PoolObject {
    metadata: ObjectMeta,
    #[serde(default)]
    spec: crd::PoolSpec,
    #[serde(default)]
    status: crd::PoolStatus,
}

/// A ThalwegNode.
#[derive(Clone, Debug, Deserialize)]
pub(crate) struct NodePoolsObject {
    metadata: ObjectMeta,
    #[serde(default)]
    spec: crd::NodeSpec,
    #[serde(default)]
    status: crd::NodeStatus,
}

macro_rules! ours {
    ($object:ty, $kind:expr, $plural:expr) => {
        impl Resource for $object {
            type DynamicType = ();
            type Scope = kube::core::ClusterResourceScope;

            fn kind(_: &()) -> Cow<'_, str> {
                $kind.into()
            }
            fn group(_: &()) -> Cow<'_, str> {
                crd::GROUP.into()
            }
            fn version(_: &()) -> Cow<'_, str> {
                crd::VERSION.into()
            }
            fn plural(_: &()) -> Cow<'_, str> {
                $plural.into()
            }
            fn meta(&self) -> &ObjectMeta {
                &self.metadata
            }
            fn meta_mut(&mut self) -> &mut ObjectMeta {
                &mut self.metadata
            }
        }
    };
}

ours!(PoolObject, crd::POOL_KIND, crd::POOL_PLURAL);
ours!(NodePoolsObject, crd::NODE_KIND, crd::NODE_PLURAL);

impl Parse for IpPool {
    type Object = PoolObject;

    fn key_of(meta: &ObjectMeta) -> String {
        meta.name.clone().unwrap_or_default()
    }

    fn parse(object: PoolObject, _names: &mut Names) -> Result<Self, ObjectError> {
        Ok(crd::pool(meta(object.metadata), &object.spec, object.status)?)
    }
}

impl Parse for NodePools {
    type Object = NodePoolsObject;

    fn key_of(meta: &ObjectMeta) -> String {
        meta.name.clone().unwrap_or_default()
    }

    fn parse(object: NodePoolsObject, _names: &mut Names) -> Result<Self, ObjectError> {
        Ok(crd::node_pools(
            meta(object.metadata),
            object.spec,
            object.status,
        )?)
    }
}

fn meta(meta: ObjectMeta) -> crd::Meta {
    let owners = meta.owner_references.unwrap_or_default();
    let owner = owners.into_iter().find(|owner| owner.kind == "Node");
    crd::Meta {
        name: meta.name.unwrap_or_default(),
        uid: meta.uid.unwrap_or_default(),
        version: meta.resource_version.unwrap_or_default(),
        generation: meta.generation.unwrap_or_default(),
        created: meta.creation_timestamp.map_or(0, |time| time.0.as_second()),
        deleting: meta.deletion_timestamp.is_some(),
        finalizers: meta.finalizers.unwrap_or_default(),
        owner: owner.map(|owner| owner.uid).unwrap_or_default(),
    }
}

/// Why a node's report was not written.
#[derive(Debug, thiserror::Error)]
pub enum ReportError {
    /// The object is gone, or it is another one of that name.
    #[error("ThalwegNode {0} is gone or another one by now")]
    Gone(String),
    /// The API refused, or did not answer.
    #[error("ThalwegNode {node}: {reason}")]
    Api {
        /// The node.
        node: String,
        /// Why.
        reason: String,
    },
}

/// Why pools cannot be listed.
#[derive(Debug, thiserror::Error)]
pub enum ListError {
    /// The API refused or did not answer.
    #[error("the pools cannot be listed: {0}; the right to list thalwegpools and thalwegnodes is needed")]
    Api(#[from] kube::Error),
    /// An object cannot be understood.
    #[error("a pool or node cannot be understood: {0}; use the release that wrote it")]
    Object(String),
}

impl From<ObjectError> for ListError {
    fn from(error: ObjectError) -> Self {
        Self::Object(error.to_string())
    }
}

/// Writes pools and what nodes have of them.
#[derive(Clone)]
pub struct IpPools {
    client: Client,
}

impl std::fmt::Debug for IpPools {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("IpPools").finish_non_exhaustive()
    }
}

impl IpPools {
    /// A writer to this API.
    #[must_use]
    pub fn new(client: Client) -> Self {
        Self { client }
    }

    /// Makes one write of the operator, and says what became of it.
    pub async fn write(&self, write: &Write) -> Outcome {
        let answer = tokio::time::timeout(ANSWER_LIMIT, self.attempt(write)).await;
        let outcome = answer.unwrap_or(Outcome::Unknown);
        debug!(?write, ?outcome, "written");
        outcome
    }

    async fn attempt(&self, write: &Write) -> Outcome {
        match write {
            Write::Create { node, owner } => self.create(node, owner).await,
            Write::Delete {
                node,
                uid,
                version,
                owner,
            } => self.delete(node, (uid, version), owner).await,
            Write::Ask { node, .. } => outcome(self.nodes().get(node).await, node_outcome),
            Write::Guard { pool, version, on } => self.guard(pool, version, *on).await,
            Write::Pool(write) => self.write_pool(write).await,
            Write::Grants {
                node,
                uid,
                version,
                term,
                grants,
            } => {
                let pools: Vec<NodePool> = grants.iter().cloned().map(Grant::into).collect();
                let patch = json!({
                    "metadata": { "uid": uid, "resourceVersion": version },
                    "spec": { "term": term, "pools": pools },
                });
                let (params, patch) = (PatchParams::default(), Patch::Merge(patch));
                outcome(self.nodes().patch(node, &params, &patch).await, node_outcome)
            }
        }
    }

    async fn create(&self, node: &str, owner: &str) -> Outcome {
        let kind = GroupVersionKind::gvk(crd::GROUP, crd::VERSION, crd::NODE_KIND);
        let resource = ApiResource::from_gvk_with_plural(&kind, crd::NODE_PLURAL);
        let api: Api<DynamicObject> = Api::all_with(self.client.clone(), &resource);
        let mut object = DynamicObject::new(node, &resource);
        object.metadata.owner_references = serde_json::from_value(json!([{
            "apiVersion": "v1", "kind": "Node", "name": node, "uid": owner,
        }]))
        .ok();
        object.data = json!({ "spec": { "term": 0, "pools": [] } });
        let answer = api.create(&PostParams::default(), &object).await;
        let typed = answer.and_then(|object| {
            serde_json::to_value(object)
                .and_then(serde_json::from_value::<NodePoolsObject>)
                .map_err(kube::Error::SerdeError)
        });
        outcome(typed, node_outcome)
    }

    /// Past every cache: an old watch must not cost a node its addresses.
    async fn delete(&self, node: &str, (uid, version): (&str, &str), owner: &str) -> Outcome {
        let machines: Api<MachineObject> = Api::all(self.client.clone());
        match machines.get_opt(node).await {
            Ok(Some(machine)) if machine.metadata.uid.as_deref() == Some(owner) => return Outcome::Conflict,
            Ok(_) => {}
            Err(error) => return failure(&error),
        }
        let preconditions = Preconditions {
            uid: Some(uid.to_owned()),
            resource_version: Some(version.to_owned()),
        };
        let params = DeleteParams::default().preconditions(preconditions);
        match self.nodes().delete(node, &params).await {
            Ok(_) => Outcome::Gone,
            Err(error) => failure(&error),
        }
    }

    async fn guard(&self, pool: &str, version: &str, on: bool) -> Outcome {
        let now = match self.pools().get(pool).await {
            Ok(now) => now,
            Err(error) => return failure(&error),
        };
        if now.metadata.resource_version.as_deref() != Some(version) {
            return Outcome::Conflict;
        }
        let mut finalizers = now.metadata.finalizers.unwrap_or_default();
        finalizers.retain(|one| one != crd::POOL_FINALIZER);
        if on {
            finalizers.push(crd::POOL_FINALIZER.to_owned());
        }
        let patch = json!({ "metadata": { "resourceVersion": version, "finalizers": finalizers } });
        let (params, patch) = (PatchParams::default(), Patch::Merge(patch));
        outcome(self.pools().patch(pool, &params, &patch).await, pool_outcome)
    }

    async fn write_pool(&self, write: &PoolWrite) -> Outcome {
        let (params, patch) = (PatchParams::default(), Patch::Merge(pool_patch(write)));
        let answer = self.pools().patch_status(&write.pool, &params, &patch).await;
        outcome(answer, pool_outcome)
    }

    /// Writes what a node's agent says, if its object is still the one of this UID.
    ///
    /// # Errors
    /// When it is not, or the API does not take it.
    pub async fn report(&self, node: &str, uid: &str, report: &NodeReport) -> Result<(), ReportError> {
        let patch = json!({ "metadata": { "uid": uid }, "status": NodeStatus::from(report) });
        let (nodes, params, patch) = (self.nodes(), PatchParams::default(), Patch::Merge(patch));
        let answer = tokio::time::timeout(ANSWER_LIMIT, nodes.patch_status(node, &params, &patch)).await;
        let failed = |reason: String| ReportError::Api {
            node: node.to_owned(),
            reason,
        };
        match answer {
            Ok(Ok(_)) => Ok(()),
            Ok(Err(kube::Error::Api(status))) if matches!(status.code, 404 | 409) => {
                Err(ReportError::Gone(node.to_owned()))
            }
            Ok(Err(error)) => Err(failed(telemetry::log::with_causes(&error))),
            Err(_) => Err(failed(format!("no answer within {} s", ANSWER_LIMIT.as_secs()))),
        }
    }

    /// All pools, and what nodes have of them; nothing where the cluster has no such objects.
    ///
    /// # Errors
    /// When the API does not answer or refuses, or an object cannot be understood.
    pub async fn list(&self) -> Result<Option<(Vec<IpPool>, Vec<NodePools>)>, ListError> {
        let params = ListParams::default();
        let pools = match self.pools().list(&params).await {
            Err(kube::Error::Api(status)) if status.code == 404 => return Ok(None),
            pools => pools?,
        };
        let nodes = self.nodes().list(&params).await?;
        let pools = pools
            .items
            .into_iter()
            .map(|object| IpPool::parse(object, &mut Names::default()));
        let nodes = nodes
            .items
            .into_iter()
            .map(|object| NodePools::parse(object, &mut Names::default()));
        Ok(Some((
            pools.collect::<Result<_, _>>()?,
            nodes.collect::<Result<_, _>>()?,
        )))
    }

    fn pools(&self) -> Api<PoolObject> {
        Api::all(self.client.clone())
    }

    fn nodes(&self) -> Api<NodePoolsObject> {
        Api::all(self.client.clone())
    }
}

fn pool_patch(write: &PoolWrite) -> Value {
    let mut blocks = json!(crd::entries(&write.add));
    if let Some(blocks) = blocks.as_object_mut() {
        // A merge patch takes a member away by null (RFC 7386).
        blocks.extend(write.remove.iter().map(|cidr| (cidr.to_string(), Value::Null)));
    }
    let families = write.state.families.iter().copied();
    let families: Vec<FamilyStatus> = families.map(Into::into).collect();
    let now = Timestamp::now().strftime("%Y-%m-%dT%H:%M:%SZ").to_string();
    let conditions = write.state.conditions.iter().cloned().map(|mut condition| {
        if condition.since.is_empty() {
            condition.since.clone_from(&now);
        }
        Condition::from(condition)
    });
    json!({
        "metadata": { "resourceVersion": write.version },
        "status": {
            "observedGeneration": write.state.generation,
            "term": write.term,
            "sequence": write.sequence,
            "blocks": blocks,
            "families": families,
            "conditions": conditions.collect::<Vec<_>>(),
        },
    })
}

fn outcome<T>(answer: Result<T, kube::Error>, done: impl Fn(T) -> Outcome) -> Outcome {
    match answer {
        Ok(object) => done(object),
        Err(error) => failure(&error),
    }
}

/// An object that was written and comes back as something that cannot be understood counts as unknown.
fn pool_outcome(object: PoolObject) -> Outcome {
    IpPool::parse(object, &mut Names::default())
        .map_or(Outcome::Unknown, |pool| Outcome::Pool(Box::new(pool)))
}

fn node_outcome(object: NodePoolsObject) -> Outcome {
    NodePools::parse(object, &mut Names::default())
        .map_or(Outcome::Unknown, |node| Outcome::Node(Box::new(node)))
}

/// Only an answer of the API itself says for certain that nothing was written.
fn failure(error: &kube::Error) -> Outcome {
    let kube::Error::Api(status) = error else {
        warn!(
            error = telemetry::log::with_causes(error),
            "no answer to a write; it is taken for neither done nor not done"
        );
        return Outcome::Unknown;
    };
    match status.code {
        404 => Outcome::Gone,
        409 => Outcome::Conflict,
        400 | 401 | 403 | 405 | 422 => {
            warn!(%error, "the API refuses a write");
            Outcome::Refused
        }
        _ => Outcome::Unknown,
    }
}

/// The networks of ClusterIPs, as far as the API knows them: clusters before 1.33 do not have such objects, and then there are none.
///
/// # Errors
/// When the API does not answer.
pub async fn service_cidrs(client: &Client) -> Result<Vec<IpNet>, kube::Error> {
    let api: Api<ServiceCIDR> = Api::all(client.clone());
    match api.list(&ListParams::default()).await {
        Ok(list) => {
            let specs = list.items.into_iter().filter_map(|item| item.spec?.cidrs);
            let cidrs = specs.flatten().filter_map(|cidr| cidr.parse().ok());
            Ok(cidrs.collect())
        }
        Err(kube::Error::Api(status)) if matches!(status.code, 403 | 404) => Ok(Vec::new()),
        Err(error) => Err(error),
    }
}
