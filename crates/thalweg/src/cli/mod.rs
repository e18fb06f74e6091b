// SPDX-License-Identifier: Apache-2.0
//! The verbs that ask running agents, and those that try the network out.

mod advise;
mod agents;
mod capacity;
mod cleanup;
mod cloud;
mod conflicts;
mod connectivity;
mod conntrack;
mod doctor;
mod drops;
mod endpoint;
mod health;
mod http;
mod iam;
mod ipam;
mod ipam_cluster;
mod map;
mod node;
pub(crate) mod output;
mod platform;
mod service;
mod status;
mod upgrade;
mod version;

use std::io;
use std::process::ExitCode;

/// The verbs.
#[derive(Debug, clap::Subcommand)]
pub(crate) enum Verb {
    /// Show the state of all nodes on one screen
    Status(status::Args),
    /// Show which node reaches which, and a pod of it
    Health(health::Args),
    /// Show the pods that are attached
    #[command(visible_alias = "endpoints")]
    Endpoint(endpoint::Args),
    /// Show the nodes and the routes between them
    #[command(visible_alias = "nodes")]
    Node(node::Args),
    /// Show the services, who answers for them, and why
    #[command(visible_aliases = ["services", "svc"])]
    Service(service::Args),
    /// Show the address pools and who has which address
    Ipam(ipam::Args),
    /// Show the BPF maps and what is in them
    #[command(visible_alias = "maps")]
    Map(map::Args),
    /// Show the tracked connections
    #[command(visible_alias = "ct")]
    Conntrack(conntrack::Args),
    /// Show which packets were dropped, and why
    Drops(drops::Args),
    /// Try the network out: who reaches whom, and how fast
    Connectivity(connectivity::Args),
    /// Find what is wrong, say why it matters and what mends it
    Doctor(Box<doctor::Args>),
    /// Show and remove what other networks left on this node, and go back to one
    Conflicts(conflicts::Args),
    /// Say whether an upgrade will survive, and how to do it
    Upgrade(upgrade::Args),
    /// Plan, render and verify clusters from one file
    Platform(platform::Args),
    /// Compute how many pods fit on a node, and how long a subnet lasts
    Capacity(Box<capacity::Args>),
    /// Say which mode fits a cluster, why, and what is given up
    Advise(advise::Args),
    /// Print and check the AWS permissions that a mode needs
    Iam(iam::Args),
    /// Remove everything of Thalweg from this node
    Cleanup(cleanup::Args),
    /// Show the version, and the agents' when it is said which
    Version(version::Args),
    /// Make load and ask questions from inside a pod
    #[command(hide = true)]
    Perf(::connectivity::perf::args::Args),
    /// Print what this node's agent answers to a request, such as /v1/status
    #[command(hide = true)]
    GetRaw(agents::RawArgs),
}

impl Verb {
    /// Runs the verb; the error, if any, says what to do.
    pub(crate) fn run(self) -> anyhow::Result<ExitCode> {
        match self {
            Self::Status(args) => block_on(args.run()),
            Self::Health(args) => block_on(args.run()),
            Self::Endpoint(args) => block_on(args.run()),
            Self::Node(args) => block_on(args.run()),
            Self::Service(args) => block_on(args.run()),
            Self::Ipam(args) => block_on(args.run()),
            Self::Map(args) => block_on(args.run()),
            Self::Conntrack(args) => block_on(args.run()),
            Self::Doctor(args) => block_on(args.run()),
            Self::Conflicts(args) => args.run(),
            Self::Upgrade(args) => args.run(),
            Self::Platform(args) => block_on(args.run()),
            Self::Capacity(args) => block_on(args.run()),
            Self::Advise(args) => block_on(args.run()),
            Self::Iam(args) => args.run(),
            Self::Drops(args) => block_on(args.run()),
            Self::Cleanup(args) => args.run(),
            Self::Version(args) => block_on(args.run()),
            Self::Connectivity(args) => block_on(args.run()),
            Self::Perf(args) => {
                args.run(&mut io::stdout().lock())?;
                Ok(ExitCode::SUCCESS)
            }
            Self::GetRaw(args) => block_on(args.run()),
        }
    }
}

fn block_on(work: impl Future<Output = anyhow::Result<ExitCode>>) -> anyhow::Result<ExitCode> {
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?
        .block_on(work)
}
