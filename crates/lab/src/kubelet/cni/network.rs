// SPDX-License-Identifier: Apache-2.0
//! A network's plugins, called in order.

use std::io;
use std::path::{Path, PathBuf};
use std::process::Stdio;

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWriteExt as _};
use tokio::process::{Child, Command};

pub use super::cache::CachedAttachment;
use super::{Conflist, Error, OUTPUT_MAX, PLUGIN_LIMIT, cache};

/// Starts plugin processes where they belong.
pub trait Launch: Send + Sync {
    /// Starts the command; its environment and pipes are set.
    ///
    /// # Errors
    /// When it cannot be started.
    fn launch(&self, command: Command) -> io::Result<Child>;

    /// Whether there is a file at this path, as commands that are started see it.
    fn has_file(&self, path: &Path) -> bool {
        path.is_file()
    }
}

/// One interface of one sandbox.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Attachment {
    /// `CNI_CONTAINERID`
    #[serde(rename = "containerId")]
    pub container_id: String,
    /// `CNI_NETNS`, as the plugin sees it.
    pub netns: String,
    /// `CNI_IFNAME`
    #[serde(rename = "ifName")]
    pub ifname: String,
    /// `CNI_ARGS`
    #[serde(rename = "cniArgs", default)]
    pub args: Vec<(String, String)>,
    /// What plugins get as `runtimeConfig` when they declare the capability.
    #[serde(rename = "capabilityArgs", default)]
    pub capabilities: Map<String, Value>,
}

/// A network, and all that is needed to call its plugins.
#[derive(Debug)]
pub struct Network<'a, L> {
    /// The configuration.
    pub conflist: &'a Conflist,
    /// Who starts plugins.
    pub launcher: &'a L,
    /// Where plugins are (`CNI_PATH`).
    pub bin_dirs: &'a [PathBuf],
    /// Where results are kept.
    pub cache_dir: &'a Path,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Verb {
    Add,
    Del,
    Check,
    Gc,
    Status,
}

impl Verb {
    fn command(self) -> &'static str {
        match self {
            Self::Add => "ADD",
            Self::Del => "DEL",
            Self::Check => "CHECK",
            Self::Gc => "GC",
            Self::Status => "STATUS",
        }
    }

    /// The verb in error messages, as libcni prints it.
    fn word(self) -> &'static str {
        match self {
            Self::Add => "add",
            Self::Del => "delete",
            Self::Check => "check",
            Self::Gc => "gc",
            Self::Status => "status",
        }
    }
}

impl<L: Launch> Network<'_, L> {
    /// ADD: each plugin gets the result of the one before; the last result is cached and returned.
    ///
    /// # Errors
    /// Of the first plugin that fails. The attachment then stays in the cache without a result until [`Network::del`].
    pub async fn add(&self, attachment: &Attachment) -> Result<Value, Error> {
        cache::store(
            self.cache_dir,
            &CachedAttachment::new(self.conflist, attachment, None),
        )?;
        let mut result: Option<Value> = None;
        for plugin in &self.conflist.plugins {
            let config = self.config(plugin, Some(attachment), result.as_ref());
            let output = self.call(plugin, Verb::Add, Some(attachment), &config).await?;
            result = Some(parse_result(plugin, &output)?);
        }
        let result = result.unwrap_or_default();
        cache::store(
            self.cache_dir,
            &CachedAttachment::new(self.conflist, attachment, Some(result.clone())),
        )?;
        Ok(result)
    }

    /// DEL: every plugin in reverse order, also after one that failed. The cached result goes when all succeeded.
    ///
    /// # Errors
    /// The first one.
    pub async fn del(&self, attachment: &Attachment) -> Result<(), Error> {
        let cached =
            cache::load(self.cache_dir, &self.conflist.name, attachment).and_then(|cached| cached.result);
        let previous = cached.filter(|_| self.conflist.speaks(0, 4));
        let mut failed = None;
        for plugin in self.conflist.plugins.iter().rev() {
            let config = self.config(plugin, Some(attachment), previous.as_ref());
            if let Err(error) = self.call(plugin, Verb::Del, Some(attachment), &config).await {
                failed.get_or_insert(error);
            }
        }
        match failed {
            Some(error) => Err(error),
            None => cache::remove(self.cache_dir, &self.conflist.name, attachment),
        }
    }

    /// CHECK: is the attachment as ADD left it?
    ///
    /// # Errors
    /// Of the first plugin that says no, or that ADD has no result on record.
    pub async fn check(&self, attachment: &Attachment) -> Result<(), Error> {
        if self.conflist.disable_check || !self.conflist.speaks(0, 4) {
            return Ok(());
        }
        let cached =
            cache::load(self.cache_dir, &self.conflist.name, attachment).and_then(|cached| cached.result);
        let Some(previous) = cached else {
            let plugin = self.conflist.name.clone();
            let reason = "there is no cached result of ADD to compare with".into();
            return Err(Error::Output {
                plugin,
                verb: Verb::Check.word(),
                reason,
            });
        };
        for plugin in &self.conflist.plugins {
            let config = self.config(plugin, Some(attachment), Some(&previous));
            self.call(plugin, Verb::Check, Some(attachment), &config).await?;
        }
        Ok(())
    }

    /// GC: tells every plugin which attachments still exist.
    ///
    /// # Errors
    /// The first one; all plugins are called.
    pub async fn gc(&self, valid: &[Attachment]) -> Result<(), Error> {
        if self.conflist.disable_gc || !self.conflist.speaks(1, 1) {
            return Ok(());
        }
        let valid: Vec<Value> = valid
            .iter()
            .map(|a| json!({ "containerID": a.container_id, "ifname": a.ifname }))
            .collect();
        let mut failed = None;
        for plugin in &self.conflist.plugins {
            let mut config = self.config(plugin, None, None);
            config.insert("cni.dev/valid-attachments".into(), Value::Array(valid.clone()));
            if let Err(error) = self.call(plugin, Verb::Gc, None, &config).await {
                failed.get_or_insert(error);
            }
        }
        failed.map_or(Ok(()), Err)
    }

    /// STATUS: would ADD work now?
    ///
    /// # Errors
    /// Of the first plugin that says no.
    pub async fn status(&self) -> Result<(), Error> {
        if !self.conflist.speaks(1, 1) {
            return Ok(());
        }
        for plugin in &self.conflist.plugins {
            let config = self.config(plugin, None, None);
            self.call(plugin, Verb::Status, None, &config).await?;
        }
        Ok(())
    }

    /// Every attachment in the cache, of any network.
    #[must_use]
    pub fn cached(cache_dir: &std::path::Path) -> Vec<CachedAttachment> {
        cache::all(cache_dir)
    }

    /// The plugin's section as it reads it: name and version of the list, the previous result, what it can do with
    /// the runtime's wishes.
    fn config(
        &self,
        plugin: &Map<String, Value>,
        attachment: Option<&Attachment>,
        previous: Option<&Value>,
    ) -> Map<String, Value> {
        let mut config = plugin.clone();
        config.insert("name".into(), json!(self.conflist.name));
        config.insert("cniVersion".into(), json!(self.conflist.version));
        if let Some(previous) = previous {
            config.insert("prevResult".into(), previous.clone());
        }
        let declared = config.remove("capabilities");
        let declares =
            |name: &String| declared.as_ref().and_then(|all| all.get(name)) == Some(&Value::Bool(true));
        let wishes = attachment
            .into_iter()
            .flat_map(|attachment| &attachment.capabilities);
        let runtime: Map<String, Value> = wishes
            .filter(|(name, _)| declares(name))
            .map(|(name, value)| (name.clone(), value.clone()))
            .collect();
        if !runtime.is_empty() {
            config.insert("runtimeConfig".into(), Value::Object(runtime));
        }
        config
    }

    async fn call(
        &self,
        plugin: &Map<String, Value>,
        verb: Verb,
        attachment: Option<&Attachment>,
        config: &Map<String, Value>,
    ) -> Result<Vec<u8>, Error> {
        let name = type_of(plugin);
        let run = |source| Error::Run {
            plugin: name.clone(),
            verb: verb.word(),
            source,
        };
        let mut command = Command::new(self.find(&name)?);
        command
            .env_clear()
            .env("CNI_COMMAND", verb.command())
            .env("CNI_PATH", path_variable(self.bin_dirs));
        command.env("PATH", std::env::var_os("PATH").unwrap_or_default());
        if let Some(attachment) = attachment {
            let args: Vec<String> = attachment
                .args
                .iter()
                .map(|(key, value)| format!("{key}={value}"))
                .collect();
            command
                .env("CNI_CONTAINERID", &attachment.container_id)
                .env("CNI_NETNS", &attachment.netns);
            command
                .env("CNI_IFNAME", &attachment.ifname)
                .env("CNI_ARGS", args.join(";"));
        }
        command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .kill_on_drop(true);
        let child = self.launcher.launch(command).map_err(run)?;
        let input = serde_json::to_vec(config).map_err(|error| run(error.into()))?;
        let talk = tokio::time::timeout(PLUGIN_LIMIT, talk(child, &input)).await;
        let timeout = |_| Error::Timeout {
            plugin: name.clone(),
            verb: verb.word(),
        };
        let Output {
            success,
            stdout,
            stderr,
        } = talk.map_err(timeout)?.map_err(run)?;
        if success {
            Ok(stdout)
        } else {
            Err(refusal(name, verb, &stdout, &stderr))
        }
    }

    fn find(&self, plugin: &str) -> Result<PathBuf, Error> {
        let mut candidates = self.bin_dirs.iter().map(|directory| directory.join(plugin));
        candidates
            .find(|path| self.launcher.has_file(path))
            .ok_or_else(|| Error::Missing {
                plugin: plugin.to_owned(),
                directories: self.bin_dirs.to_vec(),
            })
    }
}

struct Output {
    success: bool,
    stdout: Vec<u8>,
    stderr: Vec<u8>,
}

/// Writes and reads at once: a plugin may print before it has read everything.
async fn talk(mut child: Child, input: &[u8]) -> io::Result<Output> {
    let (stdin, stdout, stderr) = (child.stdin.take(), child.stdout.take(), child.stderr.take());
    let write = async {
        let Some(mut stdin) = stdin else { return Ok(()) };
        match stdin.write_all(input).await {
            // A plugin that answers without reading is within its rights.
            Err(error) if error.kind() != io::ErrorKind::BrokenPipe => Err(error),
            _ => Ok(()),
        }
    };
    let (wrote, stdout, stderr) = tokio::join!(write, read(stdout), read(stderr));
    wrote?;
    let success = child.wait().await?.success();
    Ok(Output {
        success,
        stdout: stdout?,
        stderr: stderr?,
    })
}

async fn read(pipe: Option<impl AsyncRead + Unpin>) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    if let Some(pipe) = pipe {
        pipe.take(OUTPUT_MAX).read_to_end(&mut bytes).await?;
    }
    Ok(bytes)
}

fn type_of(plugin: &Map<String, Value>) -> String {
    plugin
        .get("type")
        .and_then(Value::as_str)
        .unwrap_or_default()
        .to_owned()
}

fn path_variable(directories: &[PathBuf]) -> std::ffi::OsString {
    std::env::join_paths(directories).unwrap_or_default()
}

fn parse_result(plugin: &Map<String, Value>, output: &[u8]) -> Result<Value, Error> {
    let fail = |reason: String| Error::Output {
        plugin: type_of(plugin),
        verb: Verb::Add.word(),
        reason,
    };
    let result: Value = serde_json::from_slice(output).map_err(|error| fail(error.to_string()))?;
    if result.is_object() {
        Ok(result)
    } else {
        Err(fail("it is no object".into()))
    }
}

/// What a plugin that failed has to say: the specification's error on standard output, else whatever it printed.
fn refusal(plugin: String, verb: Verb, stdout: &[u8], stderr: &[u8]) -> Error {
    let printed = serde_json::from_slice::<Value>(stdout).ok();
    let field = |name: &str| printed.as_ref().and_then(|error| error.get(name));
    let text = |name: &str| {
        field(name)
            .and_then(Value::as_str)
            .filter(|text| !text.is_empty())
            .map(str::to_owned)
    };
    let raw =
        |bytes: &[u8]| Some(String::from_utf8_lossy(bytes).trim().to_owned()).filter(|text| !text.is_empty());
    let message = match (text("msg"), text("details")) {
        (Some(message), Some(details)) => format!("{message}; {details}"),
        (Some(message), None) => message,
        (None, _) => raw(stderr)
            .or_else(|| raw(stdout))
            .unwrap_or_else(|| "it exited with an error and printed nothing".into()),
    };
    let code = field("code")
        .and_then(Value::as_u64)
        .and_then(|code| u32::try_from(code).ok());
    Error::Plugin {
        plugin,
        verb: verb.word(),
        code,
        message,
    }
}
