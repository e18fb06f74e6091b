// SPDX-License-Identifier: Apache-2.0
//! Brings our CustomResourceDefinitions into the cluster.

use std::time::Duration;

use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use kube::Client;
use kube::api::{Api, Patch, PatchParams};
use tracing::{info, warn};

const FIELD_MANAGER: &str = "thalweg-operator";
/// How long a new definition may take to be served.
const SERVED_LIMIT: Duration = Duration::from_secs(30);
const POLL: Duration = Duration::from_millis(100);

/// Why a definition is not in the cluster.
#[derive(Debug, thiserror::Error)]
pub enum DefinitionError {
    /// The API refused or did not answer.
    #[error(
        "the definition {name} cannot be applied: {source}; give the operator the right to, or apply what `thalweg operator \
         --print-crds` prints"
    )]
    Api {
        /// The definition.
        name: String,
        /// Why.
        source: Box<kube::Error>,
    },
    /// It is there but not served.
    #[error("the definition {0} is not served after 30 s; see its conditions: kubectl describe crd {0}")]
    NotServed(String),
}

/// Applies our definitions and waits until they are served. Those that are there already suffice where we have no right to
/// apply them.
///
/// # Errors
/// When one is not there in the end.
pub async fn ensure_definitions(client: &Client) -> Result<(), DefinitionError> {
    let api: Api<CustomResourceDefinition> = Api::all(client.clone());
    for definition in api::crd::definitions() {
        let name = definition["metadata"]["name"]
            .as_str()
            .unwrap_or_default()
            .to_owned();
        let params = PatchParams::apply(FIELD_MANAGER).force();
        match api.patch(&name, &params, &Patch::Apply(&definition)).await {
            Ok(_) => info!(definition = name, "applied"),
            Err(kube::Error::Api(status)) if status.code == 403 => {
                warn!(
                    definition = name,
                    "no right to apply the definition; the one that is there is taken"
                );
            }
            Err(source) => {
                let source = Box::new(source);
                return Err(DefinitionError::Api { name, source });
            }
        }
        served(&api, name).await?;
    }
    Ok(())
}

async fn served(api: &Api<CustomResourceDefinition>, name: String) -> Result<(), DefinitionError> {
    let begin = tokio::time::Instant::now();
    loop {
        let found = api.get_opt(&name).await;
        let found = found.map_err(|source| DefinitionError::Api {
            name: name.clone(),
            source: Box::new(source),
        })?;
        let conditions = found
            .and_then(|found| found.status?.conditions)
            .unwrap_or_default();
        if conditions
            .iter()
            .any(|one| one.type_ == "Established" && one.status == "True")
        {
            return Ok(());
        }
        if begin.elapsed() > SERVED_LIMIT {
            return Err(DefinitionError::NotServed(name));
        }
        tokio::time::sleep(POLL).await;
    }
}
