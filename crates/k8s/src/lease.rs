// SPDX-License-Identifier: Apache-2.0
//! Leadership by a Lease of coordination.k8s.io, as Kubernetes' own controllers do it.
//!
//! A holder renews its lease; who finds it unchanged for its whole duration, by its own clock, takes it over. Clocks of
//! different machines are never compared. A term is the lease's `leaseTransitions`: every change of the holder makes it larger.

use std::time::{Duration, Instant};

use k8s_openapi::api::coordination::v1::{Lease, LeaseSpec};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{MicroTime, ObjectMeta};
use k8s_openapi::jiff::Timestamp;
use kube::Client;
use kube::api::{Api, PostParams};

/// The times of an election.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LeaseTimes {
    /// A lease that was not renewed for this long may be taken over.
    pub duration: Duration,
    /// A holder that could not renew for this long no longer leads. Shorter than `duration`.
    pub deadline: Duration,
}

/// Who leads.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Standing {
    /// We do, in this term, until then unless we renew.
    Leader {
        /// The term.
        term: u64,
        /// When it is over.
        until: Instant,
    },
    /// Somebody else does.
    Follower {
        /// Who; empty for nobody in the moment.
        holder: String,
    },
}

/// A candidate.
#[derive(Clone)]
pub struct Election {
    api: Api<Lease>,
    name: String,
    identity: String,
    times: LeaseTimes,
    /// The lease's version and since when we have seen it unchanged.
    unchanged: Option<(String, Instant)>,
}

impl std::fmt::Debug for Election {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Election")
            .field("name", &self.name)
            .field("identity", &self.identity)
            .finish_non_exhaustive()
    }
}

impl Election {
    /// A candidate under an identity that no other process has, not even the same one started again.
    #[must_use]
    pub fn new(client: Client, (namespace, name): (&str, &str), identity: String, times: LeaseTimes) -> Self {
        Self {
            api: Api::namespaced(client, namespace),
            name: name.to_owned(),
            identity,
            times,
            unchanged: None,
        }
    }

    /// Renews the lease, or takes it if it is free. A new term is larger than the last one and at least `least`.
    ///
    /// # Errors
    /// When the API does not answer or refuses. Whether the lease was written is then not known; the next call finds out.
    pub async fn attempt(&mut self, least: u64) -> Result<Standing, kube::Error> {
        // From before the request: the lease may count from any moment after it.
        let begin = Instant::now();
        let written = match self.api.get_opt(&self.name).await? {
            None => {
                let lease = self.taken(Lease::default(), least.max(1));
                self.api.create(&PostParams::default(), &lease).await
            }
            Some(lease) => match self.claim(lease, least, begin) {
                Ok(lease) => self.api.replace(&self.name, &PostParams::default(), &lease).await,
                Err(holder) => return Ok(Standing::Follower { holder }),
            },
        };
        match written {
            Ok(lease) => Ok(Standing::Leader {
                term: term(&lease),
                until: begin + self.times.deadline,
            }),
            Err(kube::Error::Api(status)) if status.code == 409 => Ok(Standing::Follower {
                holder: String::new(),
            }),
            Err(error) => Err(error),
        }
    }

    /// Gives the lease up, so that another candidate need not wait.
    ///
    /// # Errors
    /// When the API does not answer; the others wait then.
    pub async fn resign(&self) -> Result<(), kube::Error> {
        let Some(mut lease) = self.api.get_opt(&self.name).await? else {
            return Ok(());
        };
        if holder(&lease) != self.identity {
            return Ok(());
        }
        if let Some(spec) = &mut lease.spec {
            spec.holder_identity = Some(String::new());
        }
        let params = PostParams::default();
        self.api.replace(&self.name, &params, &lease).await.map(drop)
    }

    /// The lease as it is to be written, or who holds it.
    fn claim(&mut self, lease: Lease, least: u64, now: Instant) -> Result<Lease, String> {
        let holder = holder(&lease).to_owned();
        if holder == self.identity {
            let term = term(&lease);
            return Ok(self.taken(lease, term));
        }
        let version = lease.metadata.resource_version.clone().unwrap_or_default();
        let since = match &self.unchanged {
            Some((known, since)) if *known == version => *since,
            _ => {
                self.unchanged = Some((version, now));
                now
            }
        };
        let seconds = lease.spec.as_ref().and_then(|spec| spec.lease_duration_seconds);
        let duration = seconds.and_then(|seconds| u64::try_from(seconds).ok());
        let duration = duration.map_or(self.times.duration, Duration::from_secs);
        if !holder.is_empty() && now < since + duration {
            return Err(holder);
        }
        let term = term(&lease).saturating_add(1).max(least);
        Ok(self.taken(lease, term))
    }

    fn taken(&self, lease: Lease, term: u64) -> Lease {
        let now = MicroTime(Timestamp::now());
        let before = lease.spec.unwrap_or_default();
        let renewed = before.holder_identity.as_deref() == Some(&*self.identity);
        let acquired = before.acquire_time.filter(|_| renewed);
        Lease {
            metadata: ObjectMeta {
                name: Some(self.name.clone()),
                ..lease.metadata
            },
            spec: Some(LeaseSpec {
                holder_identity: Some(self.identity.clone()),
                lease_duration_seconds: i32::try_from(self.times.duration.as_secs()).ok(),
                acquire_time: Some(acquired.unwrap_or_else(|| now.clone())),
                renew_time: Some(now),
                lease_transitions: i32::try_from(term).ok(),
                ..before
            }),
        }
    }
}

fn holder(lease: &Lease) -> &str {
    let spec = lease.spec.as_ref();
    spec.and_then(|spec| spec.holder_identity.as_deref())
        .unwrap_or_default()
}

fn term(lease: &Lease) -> u64 {
    let transitions = lease.spec.as_ref().and_then(|spec| spec.lease_transitions);
    transitions
        .and_then(|number| u64::try_from(number).ok())
        .unwrap_or_default()
}
