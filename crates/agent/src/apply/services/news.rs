// SPDX-License-Identifier: Apache-2.0
//! What there is to say about services: a line in the log, and an event for who looks at the service in Kubernetes.

use loadbalancer::{Balancer, Owner, Weight};
use tokio::sync::mpsc::Sender;
use tracing::warn;

/// News about a service or a pod.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct News {
    /// Whose.
    pub owner: Owner,
    /// Its UID; empty where it is not known.
    pub uid: String,
    /// In one word.
    pub reason: &'static str,
    /// In a sentence.
    pub message: String,
}

/// The reason of events about rows that could not be written.
const NOT_WRITTEN: &str = "ServiceNotInForce";
/// News in one look: a map that is full would fill the log too.
const NEWS_MAX: usize = 16;

/// Hands on what is new.
#[derive(Debug)]
pub(super) struct Newsroom {
    out: Sender<News>,
    lost: u64,
}

impl Newsroom {
    pub(super) const fn new(out: Sender<News>) -> Self {
        Self { out, lost: 0 }
    }

    /// News that nobody had time for.
    pub(super) const fn lost(&self) -> u64 {
        self.lost
    }

    /// Says what is new about each service since the last time.
    pub(super) fn tell(&mut self, balancer: &mut Balancer) {
        let owners = balancer.take_news();
        let news = owners.iter().flat_map(|owner| of(owner, balancer));
        for (count, news) in news.enumerate() {
            if count < NEWS_MAX {
                warn!(owner = %news.owner, reason = news.reason, "{}", news.message);
            }
            if self.out.try_send(news).is_err() {
                self.lost += 1;
            }
        }
    }
}

fn of(owner: &Owner, balancer: &Balancer) -> Vec<News> {
    let (remarks, failed) = balancer.remarks(owner);
    let service = balancer
        .service(owner.name())
        .filter(|_| matches!(owner, Owner::Service(_)));
    let news = |reason, message: &str| News {
        owner: owner.clone(),
        uid: service.map(|service| service.uid.to_string()).unwrap_or_default(),
        reason,
        message: message.to_owned(),
    };
    let refused = remarks.iter().filter(|remark| remark.weight == Weight::Refused);
    let refused = refused.map(|remark| news(remark.reason, &remark.text));
    refused.chain(failed.map(|why| news(NOT_WRITTEN, why))).collect()
}
