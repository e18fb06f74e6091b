// SPDX-License-Identifier: Apache-2.0
//! Runs CNI plugins as a container runtime does, and takes the time.

use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Child, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

use crate::namespace::Namespace;

/// A plugin with its configuration.
#[derive(Debug)]
pub(crate) struct Plugin<'a> {
    program: PathBuf,
    config: Vec<u8>,
    /// The network namespace of the node.
    node: &'a Namespace,
}

/// A plugin that is running.
#[derive(Debug)]
pub(crate) struct Call {
    child: Child,
    begin: Instant,
}

/// How a call ended.
#[derive(Debug)]
pub(crate) struct Done {
    /// How long it took, the process included.
    pub(crate) took: Duration,
    /// What the plugin printed.
    pub(crate) result: serde_json::Value,
}

impl<'a> Plugin<'a> {
    /// Where Debian has its plugins.
    pub(crate) fn debian() -> &'static Path {
        Path::new("/usr/lib/cni")
    }

    /// A plugin on a node.
    pub(crate) fn new(program: PathBuf, config: &serde_json::Value, node: &'a Namespace) -> Self {
        Self {
            program,
            config: config.to_string().into_bytes(),
            node,
        }
    }

    /// ADD, from start to end.
    pub(crate) fn add(&self, container: &str, pod: &Namespace) -> Result<Done> {
        self.start("ADD", container, pod)?.finish()
    }

    /// Starts a call.
    pub(crate) fn start(&self, verb: &str, container: &str, pod: &Namespace) -> Result<Call> {
        let begin = Instant::now();
        let mut command = self.node.command(&self.program);
        command
            .env_clear()
            .env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin")
            .env("CNI_COMMAND", verb)
            .env("CNI_CONTAINERID", container)
            .env("CNI_NETNS", pod.path())
            .env("CNI_IFNAME", "eth0")
            .env("CNI_PATH", Self::debian())
            .env(
                "CNI_ARGS",
                format!(
                    "IgnoreUnknown=1;K8S_POD_NAMESPACE=bench;K8S_POD_NAME={container};K8S_POD_UID={container}"
                ),
            )
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        let mut child = command
            .spawn()
            .with_context(|| format!("run {}", self.program.display()))?;
        child
            .stdin
            .take()
            .context("a plugin has a standard input")?
            .write_all(&self.config)?;
        Ok(Call { child, begin })
    }
}

impl Call {
    /// Waits for its end.
    pub(crate) fn finish(self) -> Result<Done> {
        let output = self.child.wait_with_output()?;
        let took = self.begin.elapsed();
        if !output.status.success() {
            let said = String::from_utf8_lossy(&output.stdout);
            let complaint = String::from_utf8_lossy(&output.stderr);
            bail!("a CNI plugin failed: {} {}", said.trim(), complaint.trim());
        }
        let result = if output.stdout.is_empty() {
            serde_json::Value::Null
        } else {
            serde_json::from_slice(&output.stdout)?
        };
        Ok(Done { took, result })
    }
}
