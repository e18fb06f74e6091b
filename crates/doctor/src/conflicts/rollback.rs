// SPDX-License-Identifier: Apache-2.0
//! The way back to another network, from a copy of its parts: a plan for the cluster, and the steps on one node.
//!
//! On a node, its configuration is put before ours under a name of its own, so that at no moment the runtime finds none: new pods get
//! the other network, running ones keep ours until they are started anew.

use std::fs;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::restore::write;
use super::{Backup, ConflictError, REHEARSAL, Saved, copies};
use crate::gather::{Places, node};
use crate::owner::Owner;

/// A note that the way back was tried.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Rehearsal {
    /// Where to.
    pub owner: Owner,
    /// Seconds since 1970.
    pub unix: u64,
    /// What was looked at.
    pub proofs: Vec<String>,
}

/// A step of the plan.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Step {
    /// What it does.
    pub title: String,
    /// What to run.
    pub command: String,
    /// How to see that it worked.
    pub gate: String,
    /// How to undo it.
    pub undo: String,
}

/// The DaemonSet of a network, by its usual name.
const fn daemon_set(of: Owner) -> &'static str {
    match of {
        Owner::VpcCni => "aws-node",
        Owner::AzureCni => "azure-cns",
        Owner::Calico => "calico-node",
        Owner::Cilium => "cilium",
        Owner::Flannel => "kube-flannel-ds",
        Owner::KubeProxy => "kube-proxy",
        Owner::Weave => "weave-net",
        Owner::KubeRouter => "kube-router",
        Owner::Other => "THE-DAEMONSET",
    }
}

/// The steps for a whole cluster.
#[must_use]
pub fn plan(to: Owner) -> Vec<Step> {
    let set = daemon_set(to);
    let name = to.as_str();
    let step = |title: &str, command: String, gate: &str, undo: String| Step {
        title: title.to_owned(),
        command,
        gate: gate.to_owned(),
        undo,
    };
    vec![
        step(
            "Take no chances: nothing else may be wrong",
            "thalweg doctor --kubeconfig FILE --skip support".into(),
            "its exit code is 0",
            "nothing was changed".into(),
        ),
        step(
            "One node first: no new pods there",
            "kubectl cordon NODE".into(),
            "kubectl get node NODE shows SchedulingDisabled",
            "kubectl uncordon NODE".into(),
        ),
        step(
            &format!("Let {to} onto this node"),
            format!(
                "kubectl label node NODE thalweg.io/never=true   # the selector that took {set} off the nodes\n\
                 kubectl -n kube-system rollout status daemonset/{set}"
            ),
            &format!("a pod of {set} is ready on NODE"),
            "kubectl label node NODE thalweg.io/never-".into(),
        ),
        step(
            "Put its configuration before ours",
            format!("thalweg conflicts rollback --to {name} --execute   # on NODE"),
            "thalweg conflicts list on NODE shows it first; the agent reports the rival in `thalweg status`",
            format!("thalweg conflicts rollback --to {name} --undo   # on NODE"),
        ),
        step(
            "Move the node's pods",
            "kubectl drain NODE --ignore-daemonsets --delete-emptydir-data && kubectl uncordon NODE".into(),
            "new pods on NODE are Running, with addresses of the other network, and reach a pod on another node",
            "the undo of the step before, then drain once more".into(),
        ),
        step(
            "Take our agent off the node",
            "kubectl label node NODE thalweg.io/agent=off   # the DaemonSet thalweg needs the node affinity thalweg.io/agent NotIn [off]\n\
             thalweg cleanup --yes   # on NODE"
                .into(),
            "thalweg cleanup --dry-run on NODE finds nothing",
            "kubectl label node NODE thalweg.io/agent-; wait for `thalweg status --node NODE`".into(),
        ),
        step(
            "The other nodes, one after the other; stop at the first gate that fails",
            "repeat steps 2 to 6".into(),
            "kubectl get nodes shows all Ready; thalweg connectivity test from the last nodes of ours to the moved ones",
            "each node by the undo of its steps, the last one first".into(),
        ),
        step(
            "When no node is left: remove the DaemonSet, and give the configuration its own name",
            format!("kubectl -n kube-system delete daemonset thalweg; kubectl -n kube-system patch daemonset {set} --type json -p '[{{\"op\":\"remove\",\"path\":\"/spec/template/spec/nodeSelector/thalweg.io~1never\"}}]'"),
            &format!("{set} runs on all nodes"),
            "install Thalweg again".into(),
        ),
    ]
}

/// The newest copy of a network's configuration on this node.
///
/// # Errors
/// When there is none.
pub fn configuration(kept: &Path, to: Owner) -> Result<(PathBuf, String, u32, String), ConflictError> {
    for path in copies(kept)?.into_iter().rev() {
        // A copy that cannot be read is no reason to give up on an older one.
        let Ok(backup) = Backup::read(&path) else { continue };
        if backup.owner != to {
            continue;
        }
        for part in backup.parts {
            if let Saved::Conflist { file, mode, content } = part {
                return Ok((path, file, mode, content));
            }
        }
    }
    Err(ConflictError::Refused(format!(
        "no copy below {} holds a configuration of {to}; `thalweg conflicts remove --owner {} --execute` makes one, or put \
         its file into the CNI directory by hand",
        kept.display(),
        to.as_str()
    )))
}

/// Puts the other network's configuration first on this node. Returns its file.
///
/// # Errors
/// When there is no copy, its plugin is not installed, or the file cannot be written.
pub fn execute(
    places: &Places,
    to: Owner,
    bin_dirs: &[PathBuf],
) -> Result<(PathBuf, Vec<String>), ConflictError> {
    let (copy, file, mode, content) = configuration(&places.on_node(&places.kept), to)?;
    let mut proofs = vec![format!("{} holds {file} of {to}", copy.display())];
    proofs.extend(plugins_are_there(places, &content, bin_dirs)?);
    let dir = places.on_node(&places.cni_conf_dir);
    let name = format!("{}{file}", cni::ROLLBACK_PREFIX);
    write(&dir, &name, mode, &content).map_err(ConflictError::Refused)?;
    proofs.push(first_is(places, &name)?);
    Ok((dir.join(name), proofs))
}

/// Takes the other network's configuration away again; `false` when it was not there.
///
/// # Errors
/// When it cannot be removed, or ours is not first afterwards.
pub fn undo(places: &Places) -> Result<bool, ConflictError> {
    let dir = places.on_node(&places.cni_conf_dir);
    let entries = fs::read_dir(&dir).map_err(ConflictError::file("read", &dir))?;
    let mut found = false;
    for entry in entries.flatten() {
        if entry
            .file_name()
            .to_string_lossy()
            .starts_with(cni::ROLLBACK_PREFIX)
        {
            let path = entry.path();
            fs::remove_file(&path).map_err(ConflictError::file("remove", &path))?;
            found = true;
        }
    }
    let first = node_first(places)?;
    if first.1 {
        Ok(found)
    } else {
        Err(ConflictError::Refused(format!(
            "{} is first in {} and not ours: is the agent running? It writes its file again within ten seconds",
            first.0,
            dir.display()
        )))
    }
}

/// Tries the way back on this node and undoes it, and notes that it went well.
///
/// # Errors
/// When a step fails; what was done is undone.
pub fn rehearse(
    places: &Places,
    to: Owner,
    bin_dirs: &[PathBuf],
    unix: u64,
) -> Result<Rehearsal, ConflictError> {
    let done = execute(places, to, bin_dirs);
    let undone = undo(places);
    let (_, mut proofs) = done?;
    undone?;
    proofs.push("undone: our configuration is first again".to_owned());
    let rehearsal = Rehearsal {
        owner: to,
        unix,
        proofs,
    };
    let kept = places.on_node(&places.kept);
    let path = kept.join(REHEARSAL);
    let json = serde_json::to_vec_pretty(&rehearsal)
        .map_err(|error| ConflictError::file("write", &path)(error.into()))?;
    fs::create_dir_all(&kept).map_err(ConflictError::file("create", &kept))?;
    fs::write(&path, json).map_err(ConflictError::file("write", &path))?;
    Ok(rehearsal)
}

/// The name of the first configuration that a runtime would take, and whether it is ours.
fn node_first(places: &Places) -> Result<(String, bool), ConflictError> {
    let facts = node(places);
    let dir = facts
        .conflists
        .get()
        .map_err(|reason| ConflictError::Refused(reason.to_owned()))?;
    let first = dir.files.iter().find(|file| file.error.is_none());
    first.map_or_else(
        || Ok(("nothing".to_owned(), false)),
        |file| Ok((file.file.clone(), Owner::of_plugins(&file.plugins).is_none())),
    )
}

fn first_is(places: &Places, name: &str) -> Result<String, ConflictError> {
    let (first, _) = node_first(places)?;
    if first == name {
        return Ok(format!("{name} is the first configuration of the runtime"));
    }
    Err(ConflictError::Refused(format!(
        "{first} sorts before {name}: the runtime would take that one"
    )))
}

fn plugins_are_there(
    places: &Places,
    content: &str,
    bin_dirs: &[PathBuf],
) -> Result<Vec<String>, ConflictError> {
    let value: serde_json::Value = serde_json::from_str(content)
        .map_err(|error| ConflictError::Refused(format!("the copied configuration is no JSON: {error}")))?;
    let plugins = value["plugins"]
        .as_array()
        .cloned()
        .unwrap_or_else(|| vec![value.clone()]);
    let mut proofs = Vec::new();
    for plugin in plugins.iter().filter_map(|plugin| plugin["type"].as_str()) {
        let found = bin_dirs
            .iter()
            .map(|dir| places.on_node(dir).join(plugin))
            .find(|path| path.exists());
        match found {
            Some(path) => proofs.push(format!("plugin {} is installed", path.display())),
            None => {
                return Err(ConflictError::Refused(format!(
                    "the plugin {plugin} is in none of {}; install the network's plugins first (its DaemonSet does)",
                    bin_dirs
                        .iter()
                        .map(|dir| dir.display().to_string())
                        .collect::<Vec<_>>()
                        .join(", ")
                )));
            }
        }
    }
    Ok(proofs)
}
