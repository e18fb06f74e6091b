// SPDX-License-Identifier: Apache-2.0
//! `thalweg connectivity`: tries a network out.

mod cluster;
mod perf;
mod test;

use std::process::ExitCode;
use std::sync::Arc;

use ::connectivity::bed::{self, Bed, Options};

/// `thalweg connectivity`
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Debug, clap::Subcommand)]
enum Verb {
    /// Try who reaches whom, with what, and what must not get through
    #[command(after_help = NEEDS)]
    Test(test::Args),
    /// Measure request rates and throughput between pods
    #[command(after_help = NEEDS)]
    Perf(perf::Args),
}

const NEEDS: &str = "\
Test pods are made in a namespace of their own and deleted afterwards, also after an interruption. In a lab they use \
this machine's programs. In a cluster their image (--image) must have `thalweg`, `ping` of iputils and `ip` of iproute2 \
on its path; the pods have the capabilities NET_ADMIN and NET_RAW, and one per node is in the node's network.";

impl Args {
    /// Runs the verb.
    pub(crate) async fn run(self) -> anyhow::Result<ExitCode> {
        match self.verb {
            Verb::Test(args) => args.run().await,
            Verb::Perf(args) => args.run().await,
        }
    }
}

/// The test bed's options.
#[derive(Clone, Debug, clap::Args)]
struct BedArgs {
    #[command(flatten)]
    cluster: cluster::ClusterArgs,
    /// The namespace of test pods; deleted before and after
    #[arg(long, value_name = "NAME", default_value = bed::NAMESPACE)]
    test_namespace: String,
    /// Try at most so many nodes
    #[arg(long, value_name = "NUMBER", default_value_t = bed::NODES)]
    nodes: usize,
    /// Leave the test pods there
    #[arg(long)]
    keep: bool,
}

impl BedArgs {
    /// Makes the test bed, does the work on it, and removes it however the work ends, also when the user interrupts.
    async fn with_bed<T>(&self, work: impl AsyncFnOnce(&Bed) -> anyhow::Result<T>) -> anyhow::Result<T> {
        let options = Options {
            namespace: self.test_namespace.clone(),
            keep: self.keep,
            nodes: self.nodes,
        };
        let cluster = self.cluster.cluster().await?;
        let bed = tokio::select! {
            bed = Bed::prepare(Arc::clone(&cluster), &options) => bed?,
            () = interrupted() => {
                bed::remove(&cluster.client(), &options.namespace).await?;
                anyhow::bail!("interrupted; the test pods are gone")
            }
        };
        let result = tokio::select! {
            result = work(&bed) => result,
            () = interrupted() => Err(anyhow::anyhow!("interrupted")),
        };
        if !self.keep {
            bed.clean().await?;
        }
        result
    }
}

async fn interrupted() {
    // Without a handler the default action ends the program, which is as good.
    let _ = tokio::signal::ctrl_c().await;
}
