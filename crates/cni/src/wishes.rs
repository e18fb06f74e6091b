// SPDX-License-Identifier: Apache-2.0
//! What the runtime tells of a pod that a plugin after ours will act upon.

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::{Error, codes};

/// What will be done to a pod's interface after ADD, as far as it matters for ADD.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Wishes {
    /// The rate of what the pod receives is limited (`bandwidth`).
    #[serde(default)]
    pub ingress_limited: bool,
    /// The rate of what the pod sends is limited.
    #[serde(default)]
    pub egress_limited: bool,
    /// The pod has ports of the node (`portmap`).
    #[serde(default)]
    pub host_ports: bool,
    /// The hardware address of the pod's interface (`tuning`).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mac: Option<String>,
}

/// `runtimeConfig`, as far as it is ours. Everything else in it is for other plugins. An empty list in Go is `null` in JSON.
#[derive(Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct Runtime {
    port_mappings: Option<Vec<Value>>,
    bandwidth: Option<Bandwidth>,
    mac: Option<String>,
}

#[derive(Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct Bandwidth {
    ingress_rate: Option<u64>,
    egress_rate: Option<u64>,
}

impl Wishes {
    /// Out of `runtimeConfig` and `args` of a configuration.
    pub(crate) fn of(conf: &Map<String, Value>) -> Result<Self, Error> {
        let runtime: Runtime = match conf.get("runtimeConfig") {
            None | Some(Value::Null) => Runtime::default(),
            Some(value) => Runtime::deserialize(value).map_err(|error| {
                Error::new(
                    codes::DECODING_FAILURE,
                    format!("key \"runtimeConfig\" of the network configuration: {error}"),
                    "the container runtime makes it from the pod; see its version",
                )
            })?,
        };
        let bandwidth = runtime.bandwidth.unwrap_or_default();
        let argument = || {
            let mac = conf.get("args")?.get("cni")?.get("mac")?.as_str()?;
            Some(mac.to_owned())
        };
        Ok(Self {
            ingress_limited: bandwidth.ingress_rate > Some(0),
            egress_limited: bandwidth.egress_rate > Some(0),
            host_ports: runtime.port_mappings.is_some_and(|ports| !ports.is_empty()),
            mac: runtime.mac.filter(|mac| !mac.is_empty()).or_else(argument),
        })
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn of(conf: Value) -> Result<Wishes, Error> {
        Wishes::of(conf.as_object().unwrap())
    }

    #[test]
    fn rates_and_addresses_are_read_and_the_rest_is_left_alone() {
        assert_eq!(of(json!({})).unwrap(), Wishes::default());
        let nothing =
            json!({"runtimeConfig": {"portMappings": null, "bandwidth": {"ingressRate": null}, "mac": null}});
        assert_eq!(of(nothing).unwrap(), Wishes::default());
        let all = json!({"runtimeConfig": {
            "bandwidth": {"ingressRate": 1000, "ingressBurst": 1, "egressRate": 0},
            "mac": "0a:00:00:00:00:01", "portMappings": [{"hostPort": 1}],
        }});
        let wishes = of(all).unwrap();
        assert_eq!(
            (wishes.ingress_limited, wishes.egress_limited, wishes.host_ports),
            (true, false, true)
        );
        assert_eq!(wishes.mac.as_deref(), Some("0a:00:00:00:00:01"));
        let argument = json!({"args": {"cni": {"mac": "0a:00:00:00:00:02"}}, "runtimeConfig": {"mac": ""}});
        assert_eq!(of(argument).unwrap().mac.as_deref(), Some("0a:00:00:00:00:02"));
    }

    #[test]
    fn what_is_no_rate_is_refused() {
        let error = of(json!({"runtimeConfig": {"bandwidth": {"egressRate": "fast"}}})).unwrap_err();
        assert_eq!(error.code, codes::DECODING_FAILURE);
    }
}
