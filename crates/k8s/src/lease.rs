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

#[cfg(test)]
mod tests {
    use super::*;

    const TIMES: LeaseTimes = LeaseTimes {
        duration: Duration::from_secs(15),
        deadline: Duration::from_secs(10),
    };

    #[test]
    fn a_lease_that_is_renewed_is_never_taken_and_one_that_is_not_after_its_whole_duration() {
        candidate(|election| {
            let begin = Instant::now();
            let at = |seconds| begin + Duration::from_secs(seconds);
            assert_eq!(
                election.claim(lease("other", 3, "1", 15), 0, at(0)),
                Err("other".to_owned())
            );
            assert!(election.claim(lease("other", 3, "1", 15), 0, at(14)).is_err());
            // Renewed in the last moment: all of its duration begins again, by our own clock.
            assert!(election.claim(lease("other", 3, "2", 15), 0, at(15)).is_err());
            assert!(election.claim(lease("other", 3, "2", 15), 0, at(29)).is_err());
            let taken = election.claim(lease("other", 3, "2", 15), 0, at(30)).unwrap();
            assert_eq!((holder(&taken), term(&taken)), ("we", 4));
            assert_eq!(
                taken.metadata.resource_version.as_deref(),
                Some("2"),
                "only if nobody else did"
            );
        });
    }

    #[test]
    fn the_duration_that_the_holder_wrote_counts_and_not_ours() {
        candidate(|election| {
            let begin = Instant::now();
            assert!(election.claim(lease("other", 1, "1", 40), 0, begin).is_err());
            assert!(
                election
                    .claim(lease("other", 1, "1", 40), 0, begin + TIMES.duration * 2)
                    .is_err()
            );
            assert!(
                election
                    .claim(lease("other", 1, "1", 40), 0, begin + Duration::from_secs(40))
                    .is_ok()
            );
            // Nonsense is as if it had written none.
            assert!(election.claim(lease("other", 1, "7", -1), 0, begin).is_err());
            assert!(
                election
                    .claim(lease("other", 1, "7", -1), 0, begin + TIMES.duration)
                    .is_ok()
            );
        });
    }

    #[test]
    fn a_lease_that_was_given_up_is_taken_at_once_with_a_term_that_never_was() {
        candidate(|election| {
            let free = || lease("", 7, "1", 15);
            let now = Instant::now();
            assert_eq!(term(&election.claim(free(), 0, now).unwrap()), 8);
            assert_eq!(term(&election.claim(free(), 20, now).unwrap()), 20);
        });
    }

    #[test]
    fn our_own_lease_keeps_its_term_and_the_time_of_its_beginning() {
        candidate(|election| {
            let now = Instant::now();
            let first = election.claim(lease("", 7, "1", 15), 0, now).unwrap();
            let acquired = first.spec.as_ref().unwrap().acquire_time.clone();
            let second = election.claim(first, 99, now).unwrap();
            assert_eq!(term(&second), 8);
            assert_eq!(second.spec.unwrap().acquire_time, acquired);
        });
    }

    fn candidate(test: impl FnOnce(&mut Election)) {
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        runtime.block_on(async {
            let nobody = kube::Config::new("http://127.0.0.1:1".parse().unwrap());
            let client = Client::try_from(nobody).unwrap();
            test(&mut Election::new(
                client,
                ("kube-system", "thalweg"),
                "we".to_owned(),
                TIMES,
            ));
        });
    }

    fn lease(holder: &str, transitions: i32, version: &str, seconds: i32) -> Lease {
        Lease {
            metadata: ObjectMeta {
                resource_version: Some(version.to_owned()),
                ..ObjectMeta::default()
            },
            spec: Some(LeaseSpec {
                holder_identity: Some(holder.to_owned()),
                lease_duration_seconds: Some(seconds),
                lease_transitions: Some(transitions),
                ..LeaseSpec::default()
            }),
        }
    }
}
