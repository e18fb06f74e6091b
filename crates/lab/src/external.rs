// SPDX-License-Identifier: Apache-2.0
//! A real kube-apiserver instead of the embedded one: either one that runs already, by its kubeconfig, or one started from
//! the binaries in `KUBEBUILDER_ASSETS` (`etcd` and `kube-apiserver`, as `setup-envtest` downloads them). The nodes cannot
//! reach this machine's network: a proxy in the underlay forwards their connections, untouched.

use std::io::{self, Write as _};
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use base64::Engine as _;
use ipnet::IpNet;
use k8s_openapi::api::core::v1::Namespace;
use kube::Api;
use serde_json::{Value, json};
use tokio::net::TcpStream;
use tracing::debug;

use crate::error::{Doing as _, Error};
use crate::lab::client_from;
use crate::node::adopt;
use crate::plan::Plan;
use crate::preflight::is_program;
use crate::state::Paths;

/// The variable that says where the binaries are.
const ASSETS: &str = "KUBEBUILDER_ASSETS";
/// The programs that must be there.
pub(crate) const PROGRAMS: [&str; 2] = ["etcd", "kube-apiserver"];
/// Where they run, below the lab's cgroup.
pub(crate) const API_CGROUP: &str = "api";
/// How long a kube-apiserver may take to answer for the first time.
const START_LIMIT: Duration = Duration::from_secs(60);
/// The namespaces that the lab needs from the start.
const NAMESPACES: [&str; 2] = ["default", "kube-node-lease"];
const START_POLL: Duration = Duration::from_millis(100);
/// A name that a kube-apiserver's own certificate is valid for, whatever address it is reached by.
const SERVER_NAME: &str = "kubernetes.default.svc";

/// How to reach an API server.
#[derive(Debug)]
pub(crate) struct External {
    /// Its URL for this machine.
    pub(crate) url: String,
    /// The kubeconfig for this machine; files that it names are in it.
    pub(crate) kubeconfig: Value,
    /// Where its host and port are.
    upstream: (String, u16),
    server_name: String,
    /// Whether it is ours, and advertises the underlay's address.
    is_ours: bool,
}

impl External {
    /// Takes a kubeconfig's current context.
    pub(crate) fn from_kubeconfig(path: &Path) -> Result<Self, Error> {
        let refused =
            |what: &dyn std::fmt::Display| Error::Refused(format!("kubeconfig: {}: {what}", path.display()));
        let text = std::fs::read_to_string(path).map_err(|error| refused(&error))?;
        let kubeconfig: Value = serde_yaml_ng::from_str(&text).map_err(|error| refused(&error))?;
        let directory = path.parent().unwrap_or_else(|| Path::new("."));
        let kubeconfig = current_context(&kubeconfig, directory).map_err(|error| refused(&error))?;
        Self::new(kubeconfig).map_err(|reason| refused(&reason))
    }

    fn new(kubeconfig: Value) -> Result<Self, &'static str> {
        let cluster = &kubeconfig["clusters"][0]["cluster"];
        let url = cluster["server"]
            .as_str()
            .ok_or("the cluster has no server")?
            .to_owned();
        let upstream = host_and_port(&url).ok_or("the server is no https://host[:port]")?;
        let server_name = cluster["tls-server-name"]
            .as_str()
            .unwrap_or(&upstream.0)
            .to_owned();
        Ok(Self {
            url,
            kubeconfig,
            upstream,
            server_name,
            is_ours: false,
        })
    }

    /// Where its host and port are.
    pub(crate) fn upstream(&self) -> (&str, u16) {
        (&self.upstream.0, self.upstream.1)
    }

    /// The port that the endpoints of the service `kubernetes` name, where they are in the underlay.
    pub(crate) fn advertised_port(&self) -> Option<u16> {
        self.is_ours.then_some(self.upstream.1)
    }

    /// The kubeconfig for the nodes: the same server by another address.
    pub(crate) fn node_kubeconfig(&self, url: &str) -> Value {
        let mut kubeconfig = self.kubeconfig.clone();
        let cluster = &mut kubeconfig["clusters"][0]["cluster"];
        cluster["server"] = json!(url);
        cluster["tls-server-name"] = json!(self.server_name);
        kubeconfig
    }

    /// Forwards what arrives on these listeners to the API server, as long as the runtime lives.
    pub(crate) fn forward(&self, listeners: Vec<TcpListener>) -> io::Result<()> {
        for listener in listeners {
            listener.set_nonblocking(true)?;
            let listener = tokio::net::TcpListener::from_std(listener)?;
            let upstream = self.upstream.clone();
            tokio::spawn(async move {
                while let Ok((mut inside, _)) = listener.accept().await {
                    let upstream = upstream.clone();
                    tokio::spawn(async move {
                        let forwarded = async {
                            let mut outside = TcpStream::connect(upstream).await?;
                            tokio::io::copy_bidirectional(&mut inside, &mut outside).await
                        };
                        if let Err(error) = forwarded.await {
                            debug!(%error, "connection to the API server ended");
                        }
                    });
                }
            });
        }
        Ok(())
    }

    /// Starts etcd and a kube-apiserver, and waits until it answers.
    pub(crate) async fn start(paths: &Paths, plan: &Plan) -> Result<Self, Error> {
        let assets = assets()?;
        let dir = paths.dir.join("external");
        std::fs::create_dir_all(&dir).doing(|| format!("create {}", dir.display()))?;
        let token = crate::cluster::token()?;
        let launch = Launch {
            paths,
            assets,
            dir,
            etcd: free_port()?,
            peer: free_port()?,
            port: free_port()?,
        };
        let mut etcd = launch.etcd()?;
        let mut server = launch.kube_apiserver(plan, &token)?;
        let url = format!("https://127.0.0.1:{}", launch.port);
        // It makes its certificate itself when it starts.
        let certificate = launch.dir.join("apiserver.crt");
        let wait = async {
            loop {
                for (program, child) in [("etcd", &mut etcd), ("kube-apiserver", &mut server)] {
                    if let Ok(Some(how)) = child.try_wait() {
                        let tail = crate::up::tail(&paths.log(program));
                        return Err(Error::Failed(format!(
                            "{program} ended at its start ({how}):\n{tail}"
                        )));
                    }
                }
                if let Ok(ca) = std::fs::read(&certificate) {
                    let kubeconfig = kubeconfig(&url, &ca, &token);
                    if serves(&kubeconfig).await {
                        let external = Self::new(kubeconfig);
                        let external = external.map_err(|reason| Error::Failed(reason.to_owned()))?;
                        return Ok(Self {
                            is_ours: true,
                            ..external
                        });
                    }
                }
                tokio::time::sleep(START_POLL).await;
            }
        };
        tokio::time::timeout(START_LIMIT, wait).await.unwrap_or_else(|_| {
            let log = paths.log("kube-apiserver");
            Err(Error::Failed(format!(
                "the kube-apiserver does not answer:\n{}",
                crate::up::tail(&log)
            )))
        })
    }
}

/// The directory of the programs, which are there.
pub(crate) fn assets() -> Result<PathBuf, Error> {
    let assets = std::env::var_os(ASSETS).map(PathBuf::from).ok_or_else(|| {
        Error::Refused(format!(
            "--api external needs a kube-apiserver: give --kubeconfig, or set {ASSETS} to a directory with etcd and \
             kube-apiserver (`setup-envtest use -p path` prints one)"
        ))
    })?;
    // The daemon that runs them has another working directory.
    let assets = std::path::absolute(&assets).doing(|| format!("find {}", assets.display()))?;
    match PROGRAMS.iter().find(|name| !is_program(&assets.join(name))) {
        None => Ok(assets),
        Some(missing) => Err(Error::Refused(format!(
            "{ASSETS}: {} is no program; the directory must hold etcd and kube-apiserver \
             (`setup-envtest use -p path` prints such a one)",
            assets.join(missing).display()
        ))),
    }
}

/// Whether the server takes objects: it answers some moments before it has made its own namespaces.
async fn serves(kubeconfig: &Value) -> bool {
    // A certificate that is half written is no certificate yet.
    let Ok(client) = client_from(&kubeconfig.to_string()).await else {
        return false;
    };
    let namespaces: Api<Namespace> = Api::all(client);
    for name in NAMESPACES {
        if !namespaces.get_opt(name).await.is_ok_and(|found| found.is_some()) {
            return false;
        }
    }
    true
}

struct Launch<'a> {
    paths: &'a Paths,
    assets: PathBuf,
    dir: PathBuf,
    etcd: u16,
    peer: u16,
    port: u16,
}

impl Launch<'_> {
    fn etcd(&self) -> Result<Child, Error> {
        let (client, peer) = (
            format!("http://127.0.0.1:{}", self.etcd),
            format!("http://127.0.0.1:{}", self.peer),
        );
        let data = self.dir.join("etcd").display().to_string();
        self.spawn(
            "etcd",
            &[
                format!("--data-dir={data}"),
                format!("--listen-client-urls={client}"),
                format!("--advertise-client-urls={client}"),
                format!("--listen-peer-urls={peer}"),
                "--unsafe-no-fsync".to_owned(),
            ],
        )
    }

    fn kube_apiserver(&self, plan: &Plan, token: &str) -> Result<Child, Error> {
        let file = |name: &str| self.dir.join(name).display().to_string();
        self.write(
            "tokens.csv",
            &format!("{token},thalweg-lab,thalweg-lab,system:masters\n"),
        )?;
        let key = rcgen::KeyPair::generate()
            .map_err(|error| Error::Failed(format!("cannot make a key for service accounts: {error}")))?;
        self.write("service-accounts.key", &key.serialize_pem())?;
        self.write("service-accounts.pub", &key.public_key_pem())?;
        let services: Vec<String> = plan.service_cidrs.iter().map(IpNet::to_string).collect();
        self.spawn(
            "kube-apiserver",
            &[
                format!("--etcd-servers=http://127.0.0.1:{}", self.etcd),
                "--bind-address=127.0.0.1".to_owned(),
                // Of the primary family, and there also where this machine has no network.
                format!("--advertise-address={}", advertised(plan)?),
                format!("--secure-port={}", self.port),
                format!("--cert-dir={}", self.dir.display()),
                format!("--service-cluster-ip-range={}", services.join(",")),
                format!("--token-auth-file={}", file("tokens.csv")),
                "--authorization-mode=RBAC".to_owned(),
                "--allow-privileged=true".to_owned(),
                // Nobody makes the accounts that the one asks for, nor takes away the taints that the other sets.
                "--disable-admission-plugins=ServiceAccount,TaintNodesByCondition".to_owned(),
                "--service-account-issuer=https://kubernetes.default.svc".to_owned(),
                format!(
                    "--service-account-signing-key-file={}",
                    file("service-accounts.key")
                ),
                format!("--service-account-key-file={}", file("service-accounts.pub")),
            ],
        )
    }

    fn write(&self, name: &str, content: &str) -> Result<(), Error> {
        crate::cluster::write_private(&self.dir.join(name), content)
    }

    /// Both live until the lab goes: they are in its cgroup.
    fn spawn(&self, program: &str, arguments: &[String]) -> Result<Child, Error> {
        let path = self.assets.join(program);
        let operation = || format!("run {}", path.display());
        let log = std::fs::File::create(self.paths.log(program)).doing(operation)?;
        let mut again = log.try_clone().doing(operation)?;
        writeln!(again, "{} {}", path.display(), arguments.join(" ")).doing(operation)?;
        let mut command = Command::new(&path);
        command
            .args(arguments)
            .stdin(Stdio::null())
            .stdout(again)
            .stderr(log);
        let cgroup = self.paths.cgroup().map(|lab| lab.join(API_CGROUP));
        adopt(&mut command, &self.paths.dir, cgroup.as_deref())?;
        command.spawn().doing(operation)
    }
}

fn advertised(plan: &Plan) -> Result<IpAddr, Error> {
    let first = plan.api.first().map(IpNet::addr);
    first.ok_or_else(|| Error::Failed("the underlay has no address".to_owned()))
}

fn free_port() -> Result<u16, Error> {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).and_then(|listener| listener.local_addr());
    listener
        .as_ref()
        .map(SocketAddr::port)
        .map_err(|error| Error::Failed(format!("no free port: {error}")))
}

fn kubeconfig(url: &str, ca: &[u8], token: &str) -> Value {
    let ca = base64::engine::general_purpose::STANDARD.encode(ca);
    let name = "lab";
    json!({
        "apiVersion": "v1",
        "kind": "Config",
        "clusters": [{ "name": name, "cluster": {
            "server": url, "certificate-authority-data": ca, "tls-server-name": SERVER_NAME,
        }}],
        "users": [{ "name": name, "user": { "token": token } }],
        "contexts": [{ "name": name, "context": { "cluster": name, "user": name } }],
        "current-context": name,
    })
}

fn host_and_port(url: &str) -> Option<(String, u16)> {
    let authority = url.strip_prefix("https://")?.split('/').next()?;
    if let Ok(address) = authority.parse::<SocketAddr>() {
        return Some((address.ip().to_string(), address.port()));
    }
    match authority.rsplit_once(':') {
        Some((host, port)) if !host.contains(':') => Some((host.to_owned(), port.parse().ok()?)),
        _ => Some((authority.trim_matches(['[', ']']).to_owned(), 443)),
    }
}

/// A kubeconfig of nothing but the current context, without references to files.
fn current_context(kubeconfig: &Value, directory: &Path) -> Result<Value, String> {
    let find = |list: &str, name: &Value| {
        let mut entries = kubeconfig[list].as_array().into_iter().flatten();
        entries
            .find(|entry| entry["name"] == *name)
            .cloned()
            .ok_or_else(|| format!("{list} has no {name}"))
    };
    let context = find("contexts", &kubeconfig["current-context"])?;
    let mut cluster = find("clusters", &context["context"]["cluster"])?;
    let mut user = find("users", &context["context"]["user"])?;
    embed(&mut cluster["cluster"], "certificate-authority", directory)?;
    embed(&mut user["user"], "client-certificate", directory)?;
    embed(&mut user["user"], "client-key", directory)?;
    Ok(json!({
        "apiVersion": "v1",
        "kind": "Config",
        "clusters": [cluster],
        "users": [user],
        "contexts": [context],
        "current-context": kubeconfig["current-context"],
    }))
}

/// Replaces the reference to a file by the file's content.
fn embed(entry: &mut Value, key: &str, directory: &Path) -> Result<(), String> {
    let Some(path) = entry[key].as_str().map(|path| directory.join(path)) else {
        return Ok(());
    };
    let content = std::fs::read(&path).map_err(|error| format!("{key}: {}: {error}", path.display()))?;
    entry[format!("{key}-data")] = json!(base64::engine::general_purpose::STANDARD.encode(content));
    if let Some(entry) = entry.as_object_mut() {
        entry.remove(key);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn servers_are_taken_apart() {
        for (url, host, port) in [
            ("https://127.0.0.1:6443", "127.0.0.1", 6443),
            ("https://[::1]:6443/", "::1", 6443),
            ("https://[fd00::1]", "fd00::1", 443),
            ("https://cluster.example/path", "cluster.example", 443),
        ] {
            assert_eq!(host_and_port(url), Some((host.to_owned(), port)), "{url}");
        }
        assert_eq!(host_and_port("http://127.0.0.1"), None);
    }

    #[test]
    fn the_current_context_is_taken_with_its_files_embedded() {
        let directory = tempfile::tempdir().unwrap();
        std::fs::write(directory.path().join("ca.pem"), "CA").unwrap();
        let kubeconfig = json!({
            "current-context": "b",
            "contexts": [{"name": "a", "context": {}}, {"name": "b", "context": {"cluster": "c", "user": "u"}}],
            "clusters": [{"name": "c", "cluster": {"server": "https://h:1", "certificate-authority": "ca.pem"}}],
            "users": [{"name": "u", "user": {"token": "t"}}],
        });
        let taken = External::new(current_context(&kubeconfig, directory.path()).unwrap()).unwrap();
        let node = taken.node_kubeconfig("https://172.30.0.1:6443");
        assert_eq!(
            node["clusters"][0]["cluster"],
            json!({"server": "https://172.30.0.1:6443", "certificate-authority-data": "Q0E=", "tls-server-name": "h"})
        );
        assert!(
            current_context(&json!({"current-context": "x"}), directory.path())
                .unwrap_err()
                .contains("contexts")
        );
    }
}
