// SPDX-License-Identifier: Apache-2.0
//! `thalweg lab`: cluster networks on this machine.

use std::io::{self, BufRead as _, Write as _};
use std::os::unix::process::CommandExt as _;
use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Context as _;
use clap::{Args as ClapArgs, Subcommand, ValueEnum};
use lab::hold::Hold;
use lab::spec::{ApiKind, Families, Ipam, Nodes, Routing, Topology};
use lab::{Lab, Options, Report, Spec};

use crate::cli::output::Format;

mod report;

/// `thalweg lab`
#[derive(Debug, ClapArgs)]
pub(crate) struct Args {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Debug, Subcommand)]
enum Verb {
    /// Start a lab and return when its pods are ready
    Up(UpArgs),
    /// Start a lab, stay with it, and remove it at Ctrl-C
    Run(UpArgs),
    /// Remove a lab, whatever state it is in
    Down {
        /// The lab; by default the only one
        #[arg(value_name = "NAME")]
        lab: Option<String>,
        /// The same as NAME
        #[arg(long, value_name = "NAME", conflicts_with = "lab")]
        name: Option<String>,
        /// Remove every lab
        #[arg(long, conflicts_with_all = ["lab", "name"])]
        all: bool,
    },
    /// List the labs
    List {
        /// How to print it
        #[arg(short, long, value_enum, default_value_t)]
        output: Format,
    },
    /// Show a lab's nodes and pods
    Status {
        /// The lab; by default the only one
        #[arg(value_name = "NAME")]
        lab: Option<String>,
        /// How to print it
        #[arg(short, long, value_enum, default_value_t)]
        output: Format,
    },
    /// Run a command in a pod or on a node
    Exec {
        /// The pod's Kubernetes namespace
        #[arg(short, long, value_name = "NAMESPACE")]
        namespace: Option<String>,
        /// LAB/POD or LAB/NODE; with one lab running, POD or NODE is enough
        #[arg(value_name = "TARGET")]
        target: String,
        /// The command and its arguments
        #[arg(last = true, required = true, value_name = "CMD")]
        command: Vec<String>,
    },
    /// Print the path of a lab's kubeconfig
    Kubeconfig {
        /// The lab; by default the only one
        #[arg(value_name = "NAME")]
        lab: Option<String>,
    },
    /// Apply Kubernetes objects to a lab, server-side
    Apply {
        /// A YAML or JSON file; - is standard input
        #[arg(short, value_name = "FILE", required = true)]
        filename: Vec<PathBuf>,
        /// The lab; by default the only one
        #[arg(long, value_name = "NAME")]
        name: Option<String>,
    },
    /// End a node's agent and wait for the next one to be ready
    RestartAgent {
        /// LAB/NODE; with one lab running, NODE is enough
        #[arg(value_name = "NODE")]
        node: String,
        /// How to end it
        #[arg(long, value_enum, default_value_t)]
        signal: Signal,
    },
    /// The process behind a lab (started by `up`)
    #[command(hide = true)]
    Daemon,
    /// Remove a lab when the process that started it is gone (started by `run`, and by tests)
    #[command(hide = true)]
    Inherit {
        #[arg(long, value_name = "PID")]
        owner: i32,
        #[arg(value_name = "LAB")]
        name: String,
    },
    /// Keep namespaces alive (started by the daemon)
    #[command(hide = true, subcommand)]
    Hold(HoldVerb),
}

#[derive(Debug, Clone, Copy, Default, ValueEnum)]
#[value(rename_all = "UPPER")]
enum Signal {
    #[default]
    Term,
    Kill,
}

/// What `up` and `run` start. What is given here wins over the file.
#[derive(Debug, ClapArgs)]
struct UpArgs {
    /// The lab's name [default: lab]
    #[arg(long, value_name = "NAME")]
    name: Option<String>,
    /// How many nodes [default: 3]
    #[arg(long, value_name = "COUNT")]
    nodes: Option<usize>,
    /// How pods' packets get to other nodes [default: native]
    #[arg(long, value_parser = named::<Routing>, value_name = "native|vxlan|geneve")]
    routing: Option<Routing>,
    /// A setting of the agents, such as tunnelEncapsulation=ebpf; may be given several times
    #[arg(long = "set", value_name = "KEY=VALUE", value_parser = setting)]
    settings: Vec<(String, String)>,
    /// Where pods' addresses come from: their Node, or pools that two operators hand out [default: kubernetes]
    #[arg(long, value_parser = named::<Ipam>, value_name = "kubernetes|cluster-pool")]
    ipam: Option<Ipam>,
    /// Address families [default: dual]
    #[arg(long, value_parser = named::<Families>, value_name = "ipv4|ipv6|dual")]
    family: Option<Families>,
    /// What connects the nodes: one segment, or a router with a segment per node [default: flat]
    #[arg(long, value_parser = named::<Topology>, value_name = "flat|routed")]
    topology: Option<Topology>,
    /// How many test pods per node [default: 2]
    #[arg(long, value_name = "COUNT")]
    pods: Option<u32>,
    /// Which API server: the one built in, or a real kube-apiserver [default: embedded]
    #[arg(long, value_parser = named::<ApiKind>, value_name = "embedded|external")]
    api: Option<ApiKind>,
    /// With --api external: the kubeconfig of a kube-apiserver that runs already
    #[arg(long, value_name = "FILE")]
    kubeconfig: Option<PathBuf>,
    /// A description of the lab
    #[arg(long, value_name = "LAB.YAML")]
    file: Option<PathBuf>,
    /// Leave a lab that fails to start as it is, to be looked at
    #[arg(long)]
    keep_failed: bool,
}

#[derive(Debug, Subcommand)]
enum HoldVerb {
    /// A network namespace
    Network,
    /// A node's namespaces
    Node {
        #[arg(long)]
        hostname: String,
        #[arg(long)]
        run_dir: PathBuf,
    },
    /// The namespaces that this process was started in
    Pod {
        #[arg(long)]
        hostname: String,
    },
}

/// Reads a value by the name that it has in `lab.yaml`.
fn named<T: serde::de::DeserializeOwned>(text: &str) -> Result<T, String> {
    let unquoted = |error: serde_json::Error| error.to_string();
    serde_json::from_value(serde_json::Value::String(text.to_owned())).map_err(unquoted)
}

/// A setting of the agents, in the form that their configuration takes.
fn setting(text: &str) -> Result<(String, String), String> {
    let (key, value) = text.split_once('=').ok_or("expected KEY=VALUE")?;
    match api::config::Key::find(key) {
        Some(_) => Ok((key.to_owned(), value.to_owned())),
        None => Err(format!(
            "the agent has no setting {key:?}; see `thalweg agent --help`"
        )),
    }
}

impl Args {
    /// Runs the verb; the error, if any, says what to do.
    pub(crate) fn run(self) -> anyhow::Result<ExitCode> {
        match self.verb {
            Verb::Up(args) => up(args, false).map(|_| ExitCode::SUCCESS),
            Verb::Run(args) => run(args),
            Verb::Down { all: true, .. } => down(Lab::list().into_iter().map(|lab| lab.name).collect()),
            Verb::Down { lab, name, .. } => down(vec![lab_name(lab.or(name))?]),
            Verb::List { output } => report::list(output),
            Verb::Status { lab, output } => report::status(&open(lab)?, output),
            Verb::Exec {
                namespace,
                target,
                command,
            } => exec(namespace.as_deref(), &target, &command),
            Verb::Kubeconfig { lab } => crate::print(&format!("{}\n", open(lab)?.kubeconfig().display())),
            Verb::Apply { filename, name } => apply(&open(name)?, &filename),
            Verb::RestartAgent { node, signal } => restart_agent(&node, signal),
            Verb::Daemon => daemon(),
            Verb::Inherit { owner, name } => {
                lab::inherit(owner, &name)?;
                Ok(ExitCode::SUCCESS)
            }
            Verb::Hold(verb) => hold(verb),
        }
    }
}

fn up(args: UpArgs, owned: bool) -> anyhow::Result<Lab> {
    let options = Options {
        owned,
        keep_failed: args.keep_failed,
        spec: spec(args)?,
        program: std::env::current_exe().context("cannot find this program's file")?,
    };
    let lab = Lab::up(&options, progress)?;
    crate::print(&report::welcome(&lab))?;
    Ok(lab)
}

fn spec(args: UpArgs) -> anyhow::Result<Spec> {
    let mut spec = match &args.file {
        Some(path) => Spec::load(path)?,
        None => Spec::default(),
    };
    set(&mut spec.name, args.name);
    set(&mut spec.nodes, args.nodes.map(Nodes::Count));
    set(&mut spec.routing, args.routing);
    set(&mut spec.ipam, args.ipam);
    spec.agent
        .extend(args.settings.into_iter().map(|(key, value)| (key, value.into())));
    set(&mut spec.family, args.family);
    set(&mut spec.topology, args.topology);
    set(&mut spec.pods_per_node, args.pods);
    set(&mut spec.api, args.api);
    if let Some(path) = args.kubeconfig {
        spec.kubeconfig = Some(std::path::absolute(&path).context("the current directory is gone")?);
    }
    Ok(spec)
}

fn set<T>(place: &mut T, given: Option<T>) {
    if let Some(value) = given {
        *place = value;
    }
}

/// One line per step, on standard error: standard output is for what one asked for.
fn progress(report: &Report) {
    let mut out = io::stderr().lock();
    // Progress that cannot be shown does not stop the work.
    let _ = match report {
        Report::Step { text, milliseconds } => writeln!(out, "{milliseconds:>6} ms  {text}"),
        Report::Ready { milliseconds } => writeln!(out, "{milliseconds:>6} ms  ready"),
        Report::Failed { .. } => Ok(()),
    };
}

/// In the foreground: until a signal, or until the daemon is gone.
fn run(args: UpArgs) -> anyhow::Result<ExitCode> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    // Before `up`, so that an early Ctrl-C is not lost.
    let signals = {
        let _context = runtime.enter();
        use tokio::signal::unix::{SignalKind, signal};
        (signal(SignalKind::interrupt())?, signal(SignalKind::terminate())?)
    };
    let lab = up(args, true)?;
    let daemon = lab.state().daemon;
    runtime.block_on(async move {
        let (mut interrupt, mut terminate) = signals;
        let gone = tokio::task::spawn_blocking(move || daemon.wait_gone(std::time::Duration::MAX));
        tokio::select! {
            _ = interrupt.recv() => {}
            _ = terminate.recv() => {}
            _ = gone => {}
        }
    });
    runtime.shutdown_background();
    lab.down()?;
    Ok(ExitCode::SUCCESS)
}

fn open(name: Option<String>) -> anyhow::Result<Lab> {
    Ok(match name {
        Some(name) => Lab::open(&name)?,
        None => Lab::only()?,
    })
}

/// Unlike [`open`] it finds labs of which nothing can be read any more.
fn lab_name(given: Option<String>) -> anyhow::Result<String> {
    if let Some(name) = given {
        return Ok(name);
    }
    match lab::state::Paths::names().as_slice() {
        [name] => Ok(name.clone()),
        [] => anyhow::bail!("there is no lab to remove"),
        names => anyhow::bail!("these are running: {}; name one of them", names.join(", ")),
    }
}

fn down(names: Vec<String>) -> anyhow::Result<ExitCode> {
    let mut failures = Vec::new();
    for name in names {
        // One that cannot be removed does not keep the others.
        match lab::remove(&name) {
            Ok(true) => drop(crate::print(&format!("lab {name} is gone\n"))?),
            Ok(false) => failures.push(format!("there is no lab {name}")),
            Err(error) => failures.push(format!("lab {name}: {error}")),
        }
    }
    anyhow::ensure!(failures.is_empty(), "{}", failures.join("; "));
    Ok(ExitCode::SUCCESS)
}

/// Splits `LAB/TARGET`; without a lab it is the only one.
fn lab_and_target(target: &str) -> anyhow::Result<(Lab, &str)> {
    Ok(match target.split_once('/') {
        Some((name, target)) => (Lab::open(name)?, target),
        None => (Lab::only()?, target),
    })
}

fn exec(namespace: Option<&str>, target: &str, command: &[String]) -> anyhow::Result<ExitCode> {
    let (lab, target) = lab_and_target(target)?;
    let (program, arguments) = command.split_first().context("a command is needed")?;
    // The command takes this process's place: terminal, signals and exit code are its own.
    let error = lab
        .command(&lab.target(namespace, target), program, arguments)?
        .exec();
    Err(error).with_context(|| format!("cannot run {program}"))
}

fn apply(lab: &Lab, files: &[PathBuf]) -> anyhow::Result<ExitCode> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    runtime.block_on(async {
        let client = lab.client().await?;
        for file in files {
            for object in lab::apply::file(&client, file).await? {
                crate::print(&format!("{object} applied\n"))?;
            }
        }
        Ok(ExitCode::SUCCESS)
    })
}

fn restart_agent(target: &str, signal: Signal) -> anyhow::Result<ExitCode> {
    let (lab, node) = lab_and_target(target)?;
    let signal = match signal {
        Signal::Term => nix::sys::signal::Signal::SIGTERM,
        Signal::Kill => nix::sys::signal::Signal::SIGKILL,
    };
    let took = lab.restart_agent(node, signal)?;
    crate::print(&format!(
        "agent of {node} is ready again after {} ms\n",
        took.as_millis()
    ))
}

fn daemon() -> anyhow::Result<ExitCode> {
    let mut line = String::new();
    io::stdin()
        .lock()
        .read_line(&mut line)
        .context("cannot read the lab's description")?;
    let spec = serde_json::from_str(&line).context("the lab's description on standard input is not whole")?;
    telemetry::log::init(tracing::Level::INFO, telemetry::log::Format::Text)?;
    lab::daemon::run(spec)?;
    Ok(ExitCode::SUCCESS)
}

fn hold(verb: HoldVerb) -> anyhow::Result<ExitCode> {
    let hold = match verb {
        HoldVerb::Network => Hold::Network,
        HoldVerb::Node { hostname, run_dir } => Hold::Node { hostname, run_dir },
        HoldVerb::Pod { hostname } => Hold::Pod { hostname },
    };
    match hold.run()? {}
}
