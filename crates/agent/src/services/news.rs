// SPDX-License-Identifier: Apache-2.0
//! Events about services. All nodes may have the same to say: an event is one object for all of them, and each node says little.

use std::time::Duration;

use k8s::{Reporter, Severity};
use loadbalancer::Owner;
use tokio::sync::mpsc::Receiver;

use crate::apply::News;

/// Between two events: a map that is full is news about thousands of services.
const PAUSE: Duration = Duration::from_secs(1);

/// Writes events until nobody has news any more.
pub(super) async fn report(reporter: Reporter, mut inbox: Receiver<News>) {
    while let Some(news) = inbox.recv().await {
        let kind = match &news.owner {
            Owner::Service(_) => "Service",
            Owner::Pod(_) => "Pod",
        };
        let name = news.owner.name();
        let object = (kind, name.namespace(), name.name(), news.uid.as_str());
        reporter
            .report_about(object, Severity::Warning, news.reason, &news.message)
            .await;
        tokio::time::sleep(PAUSE).await;
    }
}
