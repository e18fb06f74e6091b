// SPDX-License-Identifier: Apache-2.0

use serde_json::json;
use state::{Table, table};

use super::*;

#[test]
fn a_list_becomes_the_table_in_one_step_and_only_then_is_it_in_sync() {
    let mut watch = Watch::new();
    watch.sink.take(Event::Init);
    watch.sink.take(Event::InitApply(node("a", "10.244.0.0/24")));
    watch.sink.take(Event::InitApply(node("b", "10.244.1.0/24")));
    assert!(watch.nodes.snapshot().is_empty() && !watch.nodes.snapshot().in_sync());
    watch.sink.take(Event::InitDone);
    assert_eq!(watch.names(), ["a", "b"]);
    assert!(watch.nodes.snapshot().in_sync() && watch.status.borrow().in_sync);
}

#[test]
fn changes_and_deletions_follow() {
    let mut watch = Watch::new();
    watch.sink.take(Event::Apply(node("a", "10.244.0.0/24")));
    watch.sink.take(Event::Apply(node("b", "10.244.1.0/24")));
    watch.sink.take(Event::Delete(node("a", "10.244.0.0/24")));
    assert_eq!(watch.names(), ["b"]);
    assert_eq!(watch.status.borrow().events, 3);
}

#[test]
fn an_object_that_broke_is_reported_and_its_last_good_state_stays_through_a_new_list() {
    let mut watch = Watch::new();
    watch.sink.take(Event::Apply(node("a", "10.244.0.0/24")));
    watch.sink.take(Event::Apply(node("a", "nonsense")));
    assert_eq!(watch.names(), ["a"]);
    assert!(watch.status.borrow().skipped["a"].contains("nonsense"));

    watch.sink.take(Event::Init);
    watch.sink.take(Event::InitApply(node("a", "nonsense")));
    watch.sink.take(Event::InitApply(node("b", "10.244.1.0/24")));
    watch.sink.take(Event::InitDone);
    assert_eq!(watch.names(), ["a", "b"]);

    watch.sink.take(Event::Apply(node("a", "10.244.7.0/24")));
    assert!(watch.status.borrow().skipped.is_empty());
    assert_eq!(
        watch.nodes.snapshot().get(&"a".to_owned()).unwrap().pod_cidrs[0].to_string(),
        "10.244.7.0/24"
    );
}

#[test]
fn what_a_new_list_does_not_have_is_gone() {
    let mut watch = Watch::new();
    watch.sink.take(Event::Apply(node("a", "10.244.0.0/24")));
    watch.sink.take(Event::Init);
    watch.sink.take(Event::InitDone);
    assert!(watch.names().is_empty());
}

#[test]
fn an_error_shows_in_the_status_and_what_is_known_stays() {
    let mut watch = Watch::new();
    watch.sink.take(Event::Apply(node("a", "10.244.0.0/24")));
    assert!(watch.status.borrow().connected);
    watch.sink.failed("no resourceVersion".to_owned());
    assert!(!watch.status.borrow().connected);
    assert!(
        watch
            .status
            .borrow()
            .last_error
            .as_ref()
            .unwrap()
            .1
            .contains("resourceVersion")
    );
    assert_eq!(watch.names(), ["a"]);
    watch.sink.connected();
    assert!(watch.status.borrow().connected);
}

#[test]
fn pauses_double_up_to_a_limit_and_begin_again_after_a_success() {
    let mut pauses = Doubling::default();
    let first = pauses.next().unwrap();
    assert!(first >= BACKOFF_FIRST.mul_f64(0.75) && first <= BACKOFF_FIRST.mul_f64(1.25));
    let late = pauses.nth(20).unwrap();
    assert!(late >= BACKOFF_MOST.mul_f64(0.75) && late <= BACKOFF_MOST.mul_f64(1.25));
    pauses.reset();
    assert!(pauses.next().unwrap() <= BACKOFF_FIRST.mul_f64(1.25));
}

struct Watch {
    sink: Sink<Node>,
    nodes: Table<Node>,
    status: watch::Receiver<WatchStatus>,
}

impl Watch {
    fn new() -> Self {
        let (writer, nodes) = table("nodes");
        let (sender, status) = watch::channel(WatchStatus::new("nodes"));
        Self {
            sink: Sink::new(writer, sender),
            nodes,
            status,
        }
    }

    fn names(&self) -> Vec<String> {
        self.nodes
            .snapshot()
            .iter()
            .map(|node| node.name.clone())
            .collect()
    }
}

fn node(name: &str, pod_cidr: &str) -> NodeObject {
    serde_json::from_value(json!({"metadata": {"name": name}, "spec": {"podCIDRs": [pod_cidr]}})).unwrap()
}
