// SPDX-License-Identifier: Apache-2.0
//! Where a node keeps the logs of its pods: `logs/NAMESPACE_NAME_UID/CONTAINER/RUN.log` in its directory, and beside them the
//! environment of each container.

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};

/// All logs of a node.
pub(super) fn all(node_dir: &Path) -> PathBuf {
    node_dir.join("logs")
}

/// The logs of one pod.
pub(super) fn of(node_dir: &Path, namespace: &str, name: &str, uid: &str) -> PathBuf {
    // Neither names nor namespaces hold an underscore.
    all(node_dir).join(format!("{namespace}_{name}_{uid}"))
}

/// The logs of the youngest pod of that name.
pub(super) fn latest(node_dir: &Path, namespace: &str, name: &str) -> Option<PathBuf> {
    let prefix = format!("{namespace}_{name}_");
    let entries = std::fs::read_dir(all(node_dir)).ok()?.flatten();
    let ours = entries.filter(|entry| entry.file_name().to_string_lossy().starts_with(&prefix));
    let dated = ours.filter_map(|entry| Some((entry.metadata().ok()?.created().ok()?, entry.path())));
    dated.max().map(|(_, path)| path)
}

/// Notes a container's environment for those who run commands in it.
pub(super) fn save_environment(
    pod_logs: &Path,
    container: &str,
    variables: &BTreeMap<String, String>,
) -> io::Result<()> {
    let path = environment_file(pod_logs, container);
    if let Some(directory) = path.parent() {
        std::fs::create_dir_all(directory)?;
    }
    std::fs::write(path, serde_json::to_vec(variables)?)
}

/// The environment of a container, as JSON.
pub(super) fn environment_file(pod_logs: &Path, container: &str) -> PathBuf {
    pod_logs.join(container).join("environment.json")
}
