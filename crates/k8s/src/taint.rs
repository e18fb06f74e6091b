// SPDX-License-Identifier: Apache-2.0
//! A taint of a node, taken away.

use k8s_openapi::api::core::v1::{Node, Taint};
use kube::Client;
use kube::api::{Api, Patch, PatchParams};
use serde_json::json;

/// Takes the taints with this key away from a node and says whether there were any. Others stay as they are: when somebody
/// changed the node meanwhile, the API refuses with 409 and nothing happened.
///
/// # Errors
/// When the API does not answer or refuses.
pub async fn remove_taint(client: &Client, node: &str, key: &str) -> Result<bool, kube::Error> {
    let api = Api::<Node>::all(client.clone());
    let found = api.get(node).await?;
    let taints = found.spec.and_then(|spec| spec.taints).unwrap_or_default();
    let Some(rest) = without(taints, key) else {
        return Ok(false);
    };
    // A list is replaced as a whole, so only the list that was read may be.
    let patch = json!({
        "metadata": {"resourceVersion": found.metadata.resource_version},
        "spec": {"taints": rest},
    });
    api.patch(node, &PatchParams::default(), &Patch::Merge(patch))
        .await?;
    Ok(true)
}

/// The others, if there are any with this key.
fn without(mut taints: Vec<Taint>, key: &str) -> Option<Vec<Taint>> {
    let before = taints.len();
    taints.retain(|taint| taint.key != key);
    (taints.len() < before).then_some(taints)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn taint(key: &str, effect: &str) -> Taint {
        Taint {
            key: key.into(),
            effect: effect.into(),
            ..Taint::default()
        }
    }

    #[test]
    fn all_effects_of_the_key_go_and_other_keys_stay() {
        let other = taint("node.kubernetes.io/unreachable", "NoExecute");
        let taints = vec![
            taint("ours", "NoExecute"),
            other.clone(),
            taint("ours", "NoSchedule"),
        ];
        assert_eq!(without(taints, "ours"), Some(vec![other.clone()]));
        assert_eq!(without(vec![other], "ours"), None);
        assert_eq!(without(vec![taint("ours", "NoExecute")], "ours"), Some(vec![]));
    }
}
