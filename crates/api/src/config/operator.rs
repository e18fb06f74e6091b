// SPDX-License-Identifier: Apache-2.0
//! The operator's configuration: read, checked and shown as the agent's is.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use ipnet::IpNet;

use super::keys::key;
use super::layers::Layers;
use super::{ConfigError, Effective, Inputs, Key, LOG_FORMATS, LOG_LEVELS, LogFormat, LogLevel, Take, parse};

/// The file that is read when no other is named.
pub const OPERATOR_FILE: &str = "/etc/thalweg/operator.yaml";

/// All settings of the operator.
#[rustfmt::skip]
pub const OPERATOR_KEYS: &[Key] = &[
    key("lab", "", "NAME", "The lab that this operator belongs to; shown in logs"),
    key("kubeconfig", "", "FILE", "How to reach Kubernetes; by default the pod's service account"),
    key("identity", "", "NAME", "This replica's name in the lease; by default the machine's name"),
    key("lease.namespace", "kube-system", "NAME", "The namespace of the lease that replicas elect their leader by"),
    key("lease.name", "thalweg-operator", "NAME", "The lease's name"),
    key("lease.durationSeconds", "15", "SECONDS", "A leader that has not renewed its lease for this long is replaced"),
    key("installDefinitions", "true", "BOOL", "Whether to apply our CustomResourceDefinitions at the start"),
    key("ipam.serviceCIDRs", "", "LIST", "Networks of ClusterIPs, beside those of the ServiceCIDR objects; no pool may overlap them"),
    key("ipam.releaseAfterSeconds", "60", "SECONDS", "A block that a node has not needed for this long is asked back"),
    key("socket", "/run/thalweg/operator.sock", "FILE", "Where /healthz, /readyz and /metrics are served"),
    key("metricsAddress", "", "ADDR", "Where they are served over TCP, such as 127.0.0.1:9965; by default nowhere"),
    key("log.level", "info", "LEVEL", "What is logged: error, warn, info, debug or trace"),
    key("log.format", "text", "FORMAT", "How it is logged: text or json"),
];

/// The operator's configuration.
#[derive(Clone, Debug)]
pub struct OperatorConfig {
    /// The lab that the operator belongs to; empty in a real cluster.
    pub lab: String,
    /// How to reach Kubernetes; nothing for the pod's service account.
    pub kubeconfig: Option<PathBuf>,
    /// This replica's name.
    pub identity: String,
    /// The lease's namespace.
    pub lease_namespace: String,
    /// The lease's name.
    pub lease_name: String,
    /// After how long an unrenewed lease is taken over.
    pub lease_duration: Duration,
    /// Whether to apply our CustomResourceDefinitions.
    pub install_definitions: bool,
    /// Networks of ClusterIPs.
    pub service_cidrs: Vec<IpNet>,
    /// How long a node must not have needed a block before it is asked back.
    pub release_after: Duration,
    /// Where health and metrics are served.
    pub socket: PathBuf,
    /// Where they are served over TCP.
    pub metrics_address: Option<SocketAddr>,
    /// What is worth a log line.
    pub log_level: LogLevel,
    /// How log lines are written.
    pub log_format: LogFormat,
    /// Every setting as it is in force, in the order of [`OPERATOR_KEYS`].
    pub effective: Vec<Effective>,
    /// Things that are probably mistakes.
    pub warnings: Vec<String>,
}

impl OperatorConfig {
    /// Reads, checks and combines all settings. `hostname` is the default of `identity`.
    ///
    /// # Errors
    /// Everything that is wrong, as with the agent's configuration.
    pub fn load(inputs: Inputs<'_>) -> Result<Self, ConfigError> {
        let mut problems = Vec::new();
        let hostname = inputs.hostname.unwrap_or("operator").to_ascii_lowercase();
        let layers = Layers::collect(OPERATOR_KEYS, inputs, &mut problems);
        let mut take = Take {
            layers,
            effective: Vec::new(),
            problems,
        };
        let mut config = build(&mut take);
        if config.identity.is_empty() {
            config.identity = hostname;
        }
        if !take.problems.is_empty() {
            return Err(ConfigError {
                problems: take.problems,
            });
        }
        take.effective
            .sort_by_key(|effective| OPERATOR_KEYS.iter().position(|key| key.path == effective.key));
        config.effective = take.effective;
        config.warnings = take.layers.warnings;
        Ok(config)
    }

    /// The settings in force as a configuration file, each with where it came from.
    #[must_use]
    pub fn to_yaml(&self) -> String {
        super::yaml(&self.effective)
    }
}

fn build(take: &mut Take) -> OperatorConfig {
    OperatorConfig {
        lab: take.value("lab", parse::label),
        kubeconfig: take.value("kubeconfig", parse::optional_path),
        identity: take.value("identity", parse::label),
        lease_namespace: take.value("lease.namespace", parse::node_name),
        lease_name: take.value("lease.name", parse::node_name),
        lease_duration: take.value("lease.durationSeconds", |raw| parse::seconds(raw, 3..=3600)),
        install_definitions: take.value("installDefinitions", parse::boolean),
        service_cidrs: take.value("ipam.serviceCIDRs", parse::networks),
        release_after: take.value("ipam.releaseAfterSeconds", |raw| parse::seconds(raw, 1..=86_400)),
        socket: take.value("socket", parse::path),
        metrics_address: take.value("metricsAddress", parse::optional_socket_address),
        log_level: take.value("log.level", |raw| parse::one_of(raw, LOG_LEVELS)),
        log_format: take.value("log.format", |raw| parse::one_of(raw, LOG_FORMATS)),
        effective: Vec::new(),
        warnings: Vec::new(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn load(flags: &[(&'static str, &str)]) -> Result<OperatorConfig, String> {
        let flags = flags.iter().map(|(key, value)| (*key, (*value).to_owned()));
        OperatorConfig::load(Inputs {
            flags: flags.collect(),
            hostname: Some("Op-1"),
            ..Inputs::default()
        })
        .map_err(|error| error.to_string())
    }

    #[test]
    fn the_defaults_are_a_whole_configuration() {
        let config = load(&[]).unwrap();
        assert_eq!(
            (config.identity.as_str(), config.lease_duration),
            ("op-1", Duration::from_secs(15))
        );
        assert_eq!(config.effective.len(), OPERATOR_KEYS.len());
        assert!(
            config
                .to_yaml()
                .contains("lease.name: \"thalweg-operator\"  # default")
        );
    }

    #[test]
    fn all_that_is_wrong_is_said_at_once() {
        let error = load(&[
            ("ipam.serviceCIDRs", "10.96.0.0/12,x"),
            ("lease.durationSeconds", "1"),
        ])
        .unwrap_err();
        assert!(
            error.contains("--ipam-service-cidrs") && error.contains("--lease-duration-seconds"),
            "{error}"
        );
        let config = load(&[("ipam.serviceCIDRs", "10.96.0.0/12, fd00::/112")]).unwrap();
        assert_eq!(config.service_cidrs.len(), 2);
    }
}
