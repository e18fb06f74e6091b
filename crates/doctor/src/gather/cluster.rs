// SPDX-License-Identifier: Apache-2.0
//! The cluster through its API. Objects are read as plain JSON: a field that a version adds or leaves out makes no list fail.

use std::collections::BTreeMap;
use std::time::Duration;

use http::Request;
use kube::Client;
use kube::client::Body;
use serde_json::Value;

use super::now_ms;
use crate::facts::{
    Budget, ClusterFacts, DaemonSetFacts, DeprecatedUse, Gathered, NodeObject, PodFacts, ServiceFacts, Skew,
    WebhookFacts,
};

/// The API has this long for one answer.
const TIMEOUT: Duration = Duration::from_secs(5);
/// Objects per answer.
const PAGE: u32 = 500;
/// A list of more pages than this does not end.
const PAGES_MAX: usize = 1000;
/// What the VPC CNI writes on pods with an interface of their own.
const BRANCH: &str = "vpc.amazonaws.com/pod-eni";

/// Why there is no answer.
enum Refused {
    /// There are no such objects in this cluster.
    NoSuchKind,
    /// Anything else, in words.
    Because(String),
}

/// All that the checks want to know of a cluster.
pub async fn cluster(client: &Client) -> ClusterFacts {
    let list = |path| list(client, path);
    let (version, nodes, daemon_sets, pods, services, cidrs) = tokio::join!(
        version(client),
        list("/api/v1/nodes"),
        list("/apis/apps/v1/daemonsets"),
        list("/api/v1/pods"),
        list("/api/v1/services"),
        list("/apis/networking.k8s.io/v1/servicecidrs"),
    );
    let (budgets, validating, mutating, crds, policies, deprecated) = tokio::join!(
        list("/apis/policy/v1/poddisruptionbudgets"),
        list("/apis/admissionregistration.k8s.io/v1/validatingwebhookconfigurations"),
        list("/apis/admissionregistration.k8s.io/v1/mutatingwebhookconfigurations"),
        list("/apis/apiextensions.k8s.io/v1/customresourcedefinitions"),
        list("/apis/vpcresources.k8s.aws/v1beta1/securitygrouppolicies"),
        deprecated(client),
    );
    let now = now_ms();
    let (version, skew) = version;
    ClusterFacts {
        version,
        skew,
        nodes: each(nodes, node),
        daemon_sets: each(daemon_sets, daemon_set),
        pods_per_node: counted(&pods),
        pods: interesting(pods, now),
        services: each(services, service),
        service_cidrs: match cidrs {
            Ok(items) => Gathered::Known(
                items
                    .iter()
                    .flat_map(|item| parsed(&item["spec"]["cidrs"]))
                    .collect(),
            ),
            Err(Refused::NoSuchKind) => {
                Gathered::unknown("this API has no ServiceCIDR objects (they came with Kubernetes 1.33)")
            }
            Err(Refused::Because(reason)) => Gathered::unknown(reason),
        },
        budgets: each(budgets, budget),
        webhooks: webhooks(validating, mutating),
        crd_groups: each(crds, |crd| text(&crd["spec"]["group"])),
        deprecated,
        security_group_policies: each(policies, full_name),
    }
}

/// A list without objects of that kind is an empty list.
fn each<T>(items: Result<Vec<Value>, Refused>, read: impl Fn(&Value) -> T) -> Gathered<Vec<T>> {
    match items {
        Ok(items) => Gathered::Known(items.iter().map(read).collect()),
        Err(Refused::NoSuchKind) => Gathered::Known(Vec::new()),
        Err(Refused::Because(reason)) => Gathered::unknown(reason),
    }
}

async fn list(client: &Client, path: &str) -> Result<Vec<Value>, Refused> {
    let mut items = Vec::new();
    let mut more = String::new();
    for _ in 0..PAGES_MAX {
        let text = get(client, &format!("{path}?limit={PAGE}{more}")).await?.1;
        let page: Value = serde_json::from_str(&text).map_err(|error| {
            Refused::Because(format!(
                "{path} was answered in a form that is not understood: {error}"
            ))
        })?;
        items.extend(items_of(&page, path)?);
        match page["metadata"]["continue"].as_str() {
            Some(token) if !token.is_empty() => more = format!("&continue={}", escaped(token)),
            _ => return Ok(items),
        }
    }
    Err(Refused::Because(format!(
        "{path} has more than {PAGES_MAX} pages"
    )))
}

fn items_of(page: &Value, path: &str) -> Result<Vec<Value>, Refused> {
    match page.get("items") {
        Some(Value::Array(found)) => Ok(found.clone()),
        // As some servers write an empty list.
        Some(Value::Null) => Ok(Vec::new()),
        _ => Err(Refused::Because(format!(
            "{path} was answered without a list of items"
        ))),
    }
}

/// What may not stand in a query as it is.
fn escaped(text: &str) -> String {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.~".contains(&byte);
    text.bytes()
        .map(|byte| {
            if plain(byte) {
                char::from(byte).to_string()
            } else {
                format!("%{byte:02X}")
            }
        })
        .collect()
}

/// The `Date` header and the body.
async fn get(client: &Client, path: &str) -> Result<(Option<String>, String), Refused> {
    let request = Request::get(path)
        .body(Body::empty())
        .map_err(|error| Refused::Because(error.to_string()))?;
    let exchange = async {
        let response = client.send(request).await?;
        let status = response.status();
        let date = response
            .headers()
            .get("date")
            .and_then(|date| date.to_str().ok())
            .map(str::to_owned);
        let body = response.into_body().collect_bytes().await?;
        Ok::<_, kube::Error>((status, date, body))
    };
    let plain = path.split('?').next().unwrap_or(path);
    let (status, date, body) = match tokio::time::timeout(TIMEOUT, exchange).await {
        Ok(Ok(answer)) => answer,
        Ok(Err(error)) => {
            return Err(Refused::Because(format!(
                "the API cannot be asked for {plain}: {error}"
            )));
        }
        Err(_) => {
            return Err(Refused::Because(format!(
                "the API has not answered {plain} in {} s",
                TIMEOUT.as_secs()
            )));
        }
    };
    match status.as_u16() {
        200 => Ok((date, String::from_utf8_lossy(&body).into_owned())),
        404 => Err(Refused::NoSuchKind),
        401 | 403 => Err(Refused::Because(format!(
            "not allowed to read {plain} ({status}); use credentials that may, or grant get and list on it"
        ))),
        _ => Err(Refused::Because(format!(
            "the API answered {plain} with {status}"
        ))),
    }
}

async fn version(client: &Client) -> (Gathered<String>, Gathered<Skew>) {
    let sent_ms = now_ms();
    let answer = get(client, "/version").await;
    let received_ms = now_ms();
    match answer {
        Ok((date, body)) => {
            let version = serde_json::from_str::<Value>(&body).ok();
            let version = version.and_then(|version| version["gitVersion"].as_str().map(str::to_owned));
            let version = version.ok_or("the API's answer to /version holds no gitVersion");
            (version.into(), skew(date, sent_ms, received_ms))
        }
        Err(Refused::NoSuchKind) => {
            let reason = "the API does not know /version";
            (Gathered::unknown(reason), Gathered::unknown(reason))
        }
        Err(Refused::Because(reason)) => (Gathered::unknown(reason.clone()), Gathered::unknown(reason)),
    }
}

fn skew(date: Option<String>, sent_ms: u64, received_ms: u64) -> Gathered<Skew> {
    let Some(date) = date else {
        return Gathered::unknown("the API's answer has no Date header");
    };
    let parsed = httpdate::parse_http_date(&date).ok();
    let since = parsed.and_then(|time| time.duration_since(std::time::UNIX_EPOCH).ok());
    match since.and_then(|since| u64::try_from(since.as_millis()).ok()) {
        Some(server_ms) => Gathered::Known(Skew {
            server_ms,
            sent_ms,
            received_ms,
        }),
        None => Gathered::unknown(format!("the API's Date header `{date}` is no date")),
    }
}

/// The API server counts requests for what is going away (`apiserver_requested_deprecated_apis`).
async fn deprecated(client: &Client) -> Gathered<Vec<DeprecatedUse>> {
    match get(client, "/metrics").await {
        Ok((_, text)) if text.contains("# TYPE apiserver_") => Gathered::Known(parse_deprecated(&text)),
        Ok(_) | Err(Refused::NoSuchKind) => Gathered::unknown(
            "this API server has no metrics of its own, so uses of deprecated versions are not counted",
        ),
        Err(Refused::Because(reason)) => Gathered::unknown(reason),
    }
}

fn parse_deprecated(text: &str) -> Vec<DeprecatedUse> {
    let lines = text
        .lines()
        .filter_map(|line| line.strip_prefix("apiserver_requested_deprecated_apis{"));
    let uses = lines.filter_map(|line| {
        let (labels, value) = line.split_once('}')?;
        let label = |name: &str| {
            let (_, rest) = labels.split_once(&format!("{name}=\""))?;
            Some(rest.split_once('"')?.0.to_owned())
        };
        let (group, version) = (label("group")?, label("version")?);
        (value.trim() != "0").then(|| DeprecatedUse {
            group_version: if group.is_empty() {
                version
            } else {
                format!("{group}/{version}")
            },
            resource: label("resource").unwrap_or_default(),
            removed_in: label("removed_release").unwrap_or_default(),
        })
    });
    uses.collect()
}

fn text(value: &Value) -> String {
    value.as_str().unwrap_or_default().to_owned()
}

fn texts(value: &Value) -> Vec<String> {
    value.as_array().into_iter().flatten().map(text).collect()
}

fn parsed<T: std::str::FromStr>(value: &Value) -> Vec<T> {
    let values = value.as_array().into_iter().flatten();
    values.filter_map(|value| value.as_str()?.parse().ok()).collect()
}

fn number(value: &Value) -> u32 {
    value
        .as_u64()
        .and_then(|number| u32::try_from(number).ok())
        .unwrap_or_default()
}

fn full_name(object: &Value) -> String {
    let metadata = &object["metadata"];
    format!("{}/{}", text(&metadata["namespace"]), text(&metadata["name"]))
}

fn node(object: &Value) -> NodeObject {
    let (metadata, spec, status) = (&object["metadata"], &object["spec"], &object["status"]);
    let info = &status["nodeInfo"];
    let conditions = status["conditions"].as_array();
    let ready = conditions
        .into_iter()
        .flatten()
        .find(|condition| condition["type"] == "Ready");
    let addresses = status["addresses"].as_array().into_iter().flatten();
    let addresses = addresses.filter(|address| address["type"] == "InternalIP");
    NodeObject {
        name: text(&metadata["name"]),
        provider_id: text(&spec["providerID"]),
        labels: serde_json::from_value(metadata["labels"].clone()).unwrap_or_default(),
        taints: spec["taints"]
            .as_array()
            .into_iter()
            .flatten()
            .map(|taint| text(&taint["key"]))
            .collect(),
        kubelet: text(&info["kubeletVersion"]),
        kernel: text(&info["kernelVersion"]),
        os_image: text(&info["osImage"]),
        runtime: text(&info["containerRuntimeVersion"]),
        addresses: addresses
            .filter_map(|address| address["address"].as_str()?.parse().ok())
            .collect(),
        pod_cidrs: parsed(&spec["podCIDRs"]),
        max_pods: status["allocatable"]["pods"]
            .as_str()
            .and_then(|pods| pods.parse().ok()),
        ready: ready.is_some_and(|condition| condition["status"] == "True"),
        reason: ready
            .map(|condition| text(&condition["message"]))
            .unwrap_or_default(),
    }
}

fn daemon_set(object: &Value) -> DaemonSetFacts {
    let (metadata, spec, status) = (&object["metadata"], &object["spec"], &object["status"]);
    let pod = &spec["template"]["spec"];
    let strategy = &spec["updateStrategy"];
    let unavailable = &strategy["rollingUpdate"]["maxUnavailable"];
    DaemonSetFacts {
        namespace: text(&metadata["namespace"]),
        name: text(&metadata["name"]),
        images: pod["containers"]
            .as_array()
            .into_iter()
            .flatten()
            .map(|one| text(&one["image"]))
            .collect(),
        desired: number(&status["desiredNumberScheduled"]),
        ready: number(&status["numberReady"]),
        strategy: strategy["type"].as_str().unwrap_or("RollingUpdate").to_owned(),
        max_unavailable: unavailable.as_str().map_or_else(
            || {
                unavailable
                    .as_u64()
                    .map(|count| count.to_string())
                    .unwrap_or_default()
            },
            str::to_owned,
        ),
        priority_class: text(&pod["priorityClassName"]),
    }
}

/// Pods that have or will have an address of their own.
fn counted(pods: &Result<Vec<Value>, Refused>) -> Gathered<BTreeMap<String, u32>> {
    let pods = match pods {
        Ok(pods) => pods,
        Err(Refused::NoSuchKind) => return Gathered::unknown("this API has no pods"),
        Err(Refused::Because(reason)) => return Gathered::unknown(reason.clone()),
    };
    let mut counts = BTreeMap::new();
    for pod in pods {
        let over = ["Succeeded", "Failed"]
            .iter()
            .any(|phase| pod["status"]["phase"] == **phase);
        let Some(node) = pod["spec"]["nodeName"].as_str() else {
            continue;
        };
        if !over && pod["spec"]["hostNetwork"] != true {
            *counts.entry(node.to_owned()).or_default() += 1;
        }
    }
    Gathered::Known(counts)
}

/// Of the cluster's many pods those that some check looks at.
fn interesting(pods: Result<Vec<Value>, Refused>, now_ms: u64) -> Gathered<Vec<PodFacts>> {
    let all = each(pods, |object| pod(object, now_ms));
    match all {
        Gathered::Known(mut pods) => {
            pods.retain(|pod| pod.phase == "Pending" || !pod.waiting.is_empty() || pod.branch_interface);
            Gathered::Known(pods)
        }
        unknown @ Gathered::Unknown { .. } => unknown,
    }
}

fn pod(object: &Value, now_ms: u64) -> PodFacts {
    let (metadata, status) = (&object["metadata"], &object["status"]);
    let containers = ["initContainerStatuses", "containerStatuses"];
    let states = containers
        .iter()
        .flat_map(|kind| status[*kind].as_array().into_iter().flatten());
    let waiting = states
        .filter_map(|container| container["state"]["waiting"]["reason"].as_str())
        .next();
    let conditions = status["conditions"].as_array().into_iter().flatten();
    let message = conditions
        .filter(|one| one["status"] == "False")
        .filter_map(|one| one["message"].as_str())
        .next();
    PodFacts {
        namespace: text(&metadata["namespace"]),
        name: text(&metadata["name"]),
        node: text(&object["spec"]["nodeName"]),
        phase: text(&status["phase"]),
        age_seconds: metadata["creationTimestamp"]
            .as_str()
            .and_then(|time| age(time, now_ms))
            .unwrap_or_default(),
        waiting: waiting.unwrap_or_default().to_owned(),
        message: message.unwrap_or_default().to_owned(),
        branch_interface: metadata["annotations"].get(BRANCH).is_some(),
    }
}

/// Seconds since a time like `2026-11-26T16:00:00Z`.
fn age(time: &str, now_ms: u64) -> Option<u64> {
    let digits = |range: std::ops::Range<usize>| time.get(range)?.parse::<i64>().ok();
    let (year, month, day) = (digits(0..4)?, digits(5..7)?, digits(8..10)?);
    let (hour, minute, second) = (digits(11..13)?, digits(14..16)?, digits(17..19)?);
    // Days since 1970 by counting years from March, so that the leap day is the last.
    let (year, month) = if month > 2 {
        (year, month - 3)
    } else {
        (year - 1, month + 9)
    };
    let days = year * 365 + year.div_euclid(4) - year.div_euclid(100)
        + year.div_euclid(400)
        + (month * 153 + 2) / 5
        + day
        - 719_469;
    let seconds = ((days * 24 + hour) * 60 + minute) * 60 + second;
    (now_ms / 1000).checked_sub(u64::try_from(seconds).ok()?)
}

fn service(object: &Value) -> ServiceFacts {
    ServiceFacts {
        name: full_name(object),
        cluster_ips: parsed(&object["spec"]["clusterIPs"]),
    }
}

fn budget(object: &Value) -> Budget {
    let count = |name: &str| {
        let number = object["status"][name]
            .as_i64()
            .and_then(|number| i32::try_from(number).ok());
        number.unwrap_or_default()
    };
    Budget {
        name: full_name(object),
        allowed: count("disruptionsAllowed"),
        pods: count("expectedPods"),
    }
}

fn webhooks(
    validating: Result<Vec<Value>, Refused>,
    mutating: Result<Vec<Value>, Refused>,
) -> Gathered<Vec<WebhookFacts>> {
    let mut found = Vec::new();
    for configurations in [each(validating, Value::clone), each(mutating, Value::clone)] {
        match configurations {
            Gathered::Known(configurations) => found.extend(configurations.iter().flat_map(webhooks_of)),
            Gathered::Unknown { unknown } => return Gathered::Unknown { unknown },
        }
    }
    Gathered::Known(found)
}

fn webhooks_of(configuration: &Value) -> Vec<WebhookFacts> {
    let name = text(&configuration["metadata"]["name"]);
    let webhooks = configuration["webhooks"].as_array().into_iter().flatten();
    webhooks
        .map(|webhook| {
            let rules = webhook["rules"].as_array().into_iter().flatten();
            let resources = rules.flat_map(|rule| texts(&rule["resources"]));
            let service = &webhook["clientConfig"]["service"];
            WebhookFacts {
                name: format!("{name}/{}", text(&webhook["name"])),
                fails_closed: webhook["failurePolicy"].as_str().unwrap_or("Fail") == "Fail",
                covers_kube_system: covers(&webhook["namespaceSelector"], "kube-system"),
                covers_pods: resources
                    .into_iter()
                    .any(|one| ["pods", "*", "*/*"].contains(&one.as_str())),
                service: service
                    .is_object()
                    .then(|| format!("{}/{}", text(&service["namespace"]), text(&service["name"]))),
            }
        })
        .collect()
}

/// Whether a selector takes a namespace in, by the label `kubernetes.io/metadata.name` that every namespace has. A selector
/// by other labels is taken to leave it out.
fn covers(selector: &Value, namespace: &str) -> bool {
    const NAME: &str = "kubernetes.io/metadata.name";
    let labels = selector["matchLabels"].as_object();
    let labels_fit = labels
        .into_iter()
        .flatten()
        .all(|(key, value)| key == NAME && value == namespace);
    let expressions = selector["matchExpressions"].as_array().into_iter().flatten();
    let expressions_fit = expressions.into_iter().all(|expression| {
        let named = texts(&expression["values"])
            .iter()
            .any(|value| value == namespace);
        match (expression["key"].as_str(), expression["operator"].as_str()) {
            (Some(NAME), Some("NotIn")) => !named,
            (Some(NAME), Some("In")) => named,
            (Some(_), Some("NotIn" | "DoesNotExist")) => true,
            _ => false,
        }
    });
    labels_fit && expressions_fit
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn ages_are_counted_from_the_api_s_times() {
        assert_eq!(age("1970-01-02T00:00:01Z", 100_000_000), Some(100_000 - 86_401));
        assert_eq!(age("2026-11-26T16:00:00Z", 1_795_708_860_000), Some(60));
        assert_eq!(age("2024-02-29T00:00:00Z", 1_709_164_800_000), Some(0));
        for nonsense in ["", "yesterday", "2026-11", "9999-99-99T99:99:99Z"] {
            assert_eq!(age(nonsense, 1_000), None, "{nonsense}");
        }
    }

    #[test]
    fn uses_of_deprecated_versions_are_read_from_metrics() {
        let text = "apiserver_requested_deprecated_apis{group=\"policy\",removed_release=\"1.25\",resource=\"podsecuritypolicies\",\
                    subresource=\"\",version=\"v1beta1\"} 1\napiserver_requested_deprecated_apis{broken\nother 1\n";
        let uses = parse_deprecated(text);
        assert_eq!(uses.len(), 1);
        assert_eq!(
            (uses[0].group_version.as_str(), uses[0].removed_in.as_str()),
            ("policy/v1beta1", "1.25")
        );
    }

    #[test]
    fn an_answer_without_a_list_is_none_and_not_an_empty_one() {
        let count = |page: Value| items_of(&page, "/api/v1/pods").map(|items| items.len());
        assert!(matches!(count(json!({"items": [{}]})), Ok(1)));
        assert!(matches!(count(json!({"items": null})), Ok(0)));
        for page in [
            json!({}),
            json!([]),
            json!({"items": "none"}),
            json!({"kind": "Status"}),
        ] {
            assert!(matches!(count(page), Err(Refused::Because(reason)) if reason.contains("/api/v1/pods")));
        }
    }

    #[test]
    fn objects_without_their_fields_are_read_as_far_as_they_go() {
        for object in [
            json!({}),
            json!({"metadata": 7, "spec": [], "status": null}),
            json!("x"),
        ] {
            let _ = (
                node(&object),
                daemon_set(&object),
                pod(&object, 0),
                service(&object),
                budget(&object),
            );
            assert!(webhooks_of(&object).is_empty());
        }
    }

    #[test]
    fn selectors_say_whether_kube_system_is_asked_about() {
        let exempt = json!({"matchExpressions": [
            {"key": "kubernetes.io/metadata.name", "operator": "NotIn", "values": ["kube-system"]}
        ]});
        assert!(covers(&json!({}), "kube-system") && covers(&json!(null), "kube-system"));
        assert!(!covers(&exempt, "kube-system"));
        assert!(!covers(&json!({"matchLabels": {"team": "a"}}), "kube-system"));
    }

    #[test]
    fn a_date_is_read_or_said_to_be_none() {
        let skew = |date: &str| super::skew(Some(date.to_owned()), 1, 2);
        assert_eq!(
            skew("Thu, 01 Jan 1970 00:00:05 GMT").known().unwrap().server_ms,
            5000
        );
        assert!(skew("soon").get().is_err() && super::skew(None, 1, 2).get().is_err());
    }
}
