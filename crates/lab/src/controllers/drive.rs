// SPDX-License-Identifier: Apache-2.0
//! The loop that every controller has: wait for a change, plan, write, and after a failure try again later.

use std::time::Duration;

use tokio_util::sync::CancellationToken;
use tracing::{debug, warn};

/// The first pause after a failed round; it doubles up to [`RETRY_MAX`].
const RETRY_MIN: Duration = Duration::from_millis(50);
/// The longest pause between two attempts.
const RETRY_MAX: Duration = Duration::from_secs(10);
/// Failures in a row after which a controller says so as a warning: conflicts and races heal by themselves before.
const WARN_AFTER: u32 = 4;

/// What a controller does; see [`drive`].
pub(crate) trait Controller {
    /// The name in log lines.
    const NAME: &'static str;

    /// Waits until one of the watches changed. Dropped unfinished when something else comes first.
    fn changed(&mut self) -> impl Future<Output = ()> + Send;

    /// Whether all watches have their first list.
    fn synced(&self) -> bool;

    /// Brings the cluster closer to what it should be. Idempotent. Returns when to look again without a change, if so.
    fn reconcile(&mut self) -> impl Future<Output = Result<Option<Duration>, kube::Error>> + Send;
}

/// Runs a controller until the shutdown.
pub(crate) async fn drive<C: Controller>(mut controller: C, shutdown: CancellationToken) {
    let mut failures = 0u32;
    let mut again: Option<Duration> = None;
    loop {
        let timer = async {
            match again {
                Some(pause) => tokio::time::sleep(pause).await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            biased;
            () = shutdown.cancelled() => return,
            () = controller.changed() => {}
            () = timer => {}
        }
        if !controller.synced() {
            continue;
        }
        let round = tokio::select! {
            biased;
            () = shutdown.cancelled() => return,
            round = controller.reconcile() => round,
        };
        again = match round {
            Ok(next) => {
                failures = 0;
                next
            }
            Err(error) => {
                failures = failures.saturating_add(1);
                report(C::NAME, failures, &error);
                Some(pause_after(failures))
            }
        };
    }
}

fn report(controller: &str, failures: u32, error: &kube::Error) {
    if failures == WARN_AFTER {
        warn!(controller, %error, "cannot bring the cluster to its desired state; trying on");
    } else {
        debug!(controller, failures, %error, "round failed; trying again");
    }
}

/// The pause after so many failures in a row.
pub(crate) fn pause_after(failures: u32) -> Duration {
    let doubled = RETRY_MIN.saturating_mul(1 << failures.saturating_sub(1).min(16));
    doubled.min(RETRY_MAX)
}

/// The answer to a write whose object may have gone or changed meanwhile: then the watch brings the news and `None` is fine.
pub(crate) fn unless_gone<T>(answer: Result<T, kube::Error>) -> Result<Option<T>, kube::Error> {
    match answer {
        Ok(value) => Ok(Some(value)),
        Err(error) if has_code(&error, 404) => Ok(None),
        Err(error) => Err(error),
    }
}

/// The answer to a creation: the namespace may be gone, or refuse what is new because it is going.
pub(crate) fn unless_going<T>(answer: Result<T, kube::Error>) -> Result<Option<T>, kube::Error> {
    match answer {
        Err(kube::Error::Api(status)) if is_terminating(&status) => Ok(None),
        other => unless_gone(other),
    }
}

fn is_terminating(status: &kube::core::Status) -> bool {
    let causes = status.details.iter().flat_map(|details| &details.causes);
    causes
        .into_iter()
        .any(|cause| cause.reason == "NamespaceTerminating")
}

/// Keeps the first of several failures, so that one of them does not keep the others from being tried.
#[derive(Debug, Default)]
pub(crate) struct FirstFailure(Option<kube::Error>);

impl FirstFailure {
    /// Takes in an outcome.
    pub(crate) fn note(&mut self, outcome: Result<(), kube::Error>) {
        if let Err(error) = outcome {
            self.0.get_or_insert(error);
        }
    }

    /// The first failure, if there was one.
    pub(crate) fn outcome(self) -> Result<(), kube::Error> {
        self.0.map_or(Ok(()), Err)
    }
}

/// Whether the server answered with that HTTP status.
pub(crate) fn has_code(error: &kube::Error, code: u16) -> bool {
    matches!(error, kube::Error::Api(status) if status.code == code)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_double_up_to_the_limit() {
        assert_eq!(pause_after(1), RETRY_MIN);
        assert_eq!(pause_after(2), RETRY_MIN * 2);
        assert_eq!(pause_after(40), RETRY_MAX);
    }
}
