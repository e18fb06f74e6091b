// SPDX-License-Identifier: Apache-2.0
//! `thalweg upgrade`

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use comfy_table::Cell;
use connectivity::kube as cluster;
use doctor::facts::Facts;
use doctor::record;
use doctor::upgrade::canary::{self, Canary};
use doctor::upgrade::{self, Assessment, Canaries, Request, Verdict};
use doctor::version::Version;
use futures::future::join_all;
use lab::Lab;

use super::agents::{AgentArgs, Scope};
use super::doctor::{EXIT_ERRORS, EXIT_UNKNOWN, EXIT_WARNINGS, run_in_lab, scope_facts};
use super::output::{self, Text, bad, good};

const VERSION: &str = env!("CARGO_PKG_VERSION");
/// A canary has this long: a slow verifier takes seconds.
const TIMEOUT: Duration = Duration::from_secs(60);

/// `thalweg upgrade`
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Debug, clap::Subcommand)]
enum Verb {
    /// Say whether an upgrade will survive, and how to do it
    Check(Box<CheckArgs>),
    /// Load the programs on this kernel, in namespaces of their own, and leave nothing behind
    Canary {
        /// How to print
        #[arg(short, long, value_enum, default_value_t)]
        output: output::Format,
    },
}

#[derive(Debug, clap::Args)]
#[command(
    after_help = "Exit code: 0 pass, 3 warnings, 4 blocked, 5 something could not be found out (0 or 3 with \
                        --accept-unknown), 1 the check could not run."
)]
struct CheckArgs {
    /// The version of Kubernetes to go to, as 1.34
    #[arg(long, value_name = "VERSION")]
    to_kubernetes: String,
    /// The version of Thalweg to go to
    #[arg(long, value_name = "VERSION")]
    to_version: Option<String>,
    /// The operating system of the new nodes' image, as in os-release's ID [default: the present nodes']
    #[arg(long, value_name = "ID")]
    to_os: Option<String>,
    #[command(flatten)]
    agents: AgentArgs,
    /// How to print
    #[arg(short, long, value_enum, default_value_t)]
    output: Format,
    /// Examine what was recorded in this file; no canary is run then
    #[arg(long, value_name = "FILE", conflicts_with_all = ["lab", "kubeconfig", "socket", "node"])]
    from: Option<PathBuf>,
    /// What the cloud says, where that is not gathered: the part `cloud` of a record
    #[arg(long, value_name = "FILE")]
    cloud: Option<PathBuf>,
    /// Run no canaries
    #[arg(long)]
    no_canary: bool,
    /// Do not fail for what could not be found out
    #[arg(long)]
    accept_unknown: bool,
}

/// How an assessment is printed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
enum Format {
    /// For people
    #[default]
    Text,
    /// For programs
    Json,
    /// For a ticket
    Markdown,
}

impl Args {
    /// Runs the verb. The canary must not have threads, so it runs outside of any runtime.
    pub(crate) fn run(self) -> anyhow::Result<ExitCode> {
        match self.verb {
            Verb::Check(args) => super::block_on(args.run()),
            Verb::Canary { output } => load(output),
        }
    }
}

fn load(output: output::Format) -> anyhow::Result<ExitCode> {
    let canary = canary::run(VERSION)?;
    match (output, &canary.error) {
        (output::Format::Json, _) => output::json(&canary)?,
        (output::Format::Text, None) => output::print(&format!(
            "Kernel {} takes all {} programs of {VERSION}, to be attached by {} ({} ms): {}\n",
            canary.kernel,
            canary.programs.len(),
            canary.attach,
            canary.milliseconds,
            canary.programs.join(", ")
        ))?,
        (output::Format::Text, Some(error)) => {
            output::print(&format!(
                "Kernel {} refuses the programs of {VERSION}:\n{error}\n",
                canary.kernel
            ))?;
        }
    }
    // In JSON the refusal is in the answer.
    let refused = canary.error.is_some() && output == output::Format::Text;
    Ok(ExitCode::from(if refused { EXIT_ERRORS } else { 0 }))
}

impl CheckArgs {
    async fn run(self) -> anyhow::Result<ExitCode> {
        let request = Request {
            to_kubernetes: Version::parse(&self.to_kubernetes)?,
            to_version: self.to_version.clone(),
            program_version: VERSION.to_owned(),
            os: self.to_os.clone(),
        };
        let (mut facts, canaries) = self.facts().await?;
        if let Some(file) = &self.cloud {
            facts.cloud = record::load_cloud(file)?;
        }
        let assessment = upgrade::assess(&facts, &request, &canaries);
        match self.output {
            Format::Json => output::json(&assessment)?,
            Format::Markdown => output::print(&upgrade::markdown(&assessment))?,
            Format::Text => output::print(&screen(&assessment).0)?,
        }
        Ok(ExitCode::from(exit_code(&assessment, self.accept_unknown)))
    }

    async fn facts(&self) -> anyhow::Result<(Facts, Canaries)> {
        if let Some(file) = &self.from {
            return Ok((record::load(file)?, Canaries::new()));
        }
        let facts = scope_facts(&self.agents).await?;
        let canaries = if self.no_canary {
            Canaries::new()
        } else {
            self.canaries().await?
        };
        Ok((facts, canaries))
    }

    async fn canaries(&self) -> anyhow::Result<Canaries> {
        const ARGUMENTS: [&str; 4] = ["upgrade", "canary", "-o", "json"];
        match self.agents.scope()? {
            Scope::Lab(name) => {
                let lab = Lab::open(&name)?;
                let arguments = ARGUMENTS.map(str::to_owned);
                let nodes = lab.nodes();
                let wanted = nodes.iter().filter(|node| self.agents.takes(&node.name));
                let tried = wanted.map(|node| async {
                    let canary = run_in_lab::<Canary>(&lab, node, &arguments).await;
                    (node.name.clone(), canary.map_err(|error| format!("{error:#}")))
                });
                Ok(join_all(tried).await.into_iter().collect())
            }
            Scope::Cluster {
                kubeconfig,
                context,
                namespace,
            } => {
                let client = cluster::client(&kubeconfig, context.as_deref()).await?;
                let pods = cluster::agent_pods(&client, &namespace).await?;
                let wanted = pods.iter().filter(|pod| self.agents.takes(&pod.node));
                let command = [&["thalweg"], &ARGUMENTS[..]].concat();
                let tried = wanted.map(|pod| async {
                    let answer = tokio::time::timeout(TIMEOUT, pod.run(&command)).await;
                    let canary = match answer {
                        Ok(Ok(json)) => serde_json::from_slice(&json).map_err(|error| error.to_string()),
                        Ok(Err(error)) => Err(error.to_string()),
                        Err(_) => Err(format!("no answer in {} s", TIMEOUT.as_secs())),
                    };
                    (pod.node.clone(), canary)
                });
                Ok(join_all(tried).await.into_iter().collect())
            }
            Scope::Socket(_) => {
                let program = std::env::current_exe()?;
                let output = tokio::process::Command::new(program)
                    .args(ARGUMENTS)
                    .output()
                    .await?;
                let canary = if output.status.success() {
                    serde_json::from_slice(&output.stdout).map_err(|error| error.to_string())
                } else {
                    Err(String::from_utf8_lossy(&output.stderr).trim().to_owned())
                };
                let node = nix::unistd::gethostname()?.to_string_lossy().into_owned();
                Ok(Canaries::from([(node, canary)]))
            }
        }
    }
}

fn exit_code(assessment: &Assessment, accept_unknown: bool) -> u8 {
    let counted = assessment.gates.iter().map(|gate| gate.verdict);
    let counted = counted.filter(|verdict| !(accept_unknown && *verdict == Verdict::Unknown));
    match counted.max() {
        Some(Verdict::Block) => EXIT_ERRORS,
        Some(Verdict::Unknown) => EXIT_UNKNOWN,
        Some(Verdict::Warn) => EXIT_WARNINGS,
        Some(Verdict::Pass) | None => 0,
    }
}

fn screen(assessment: &Assessment) -> Text {
    let from = if assessment.from_kubernetes.is_empty() {
        "unknown"
    } else {
        &assessment.from_kubernetes
    };
    let mut text = Text::default();
    let (title, to) = (&assessment.title, &assessment.to_kubernetes);
    text.line(format!(
        "{title}: Kubernetes {from} to {to}: {}",
        assessment.verdict.as_str()
    ));
    let mut table = output::table(&["VERDICT", "GATE", "EVIDENCE"]);
    for gate in &assessment.gates {
        let verdict = gate.verdict.as_str();
        let verdict = match gate.verdict {
            Verdict::Pass => good(verdict),
            Verdict::Block => bad(verdict),
            Verdict::Warn | Verdict::Unknown => Cell::new(verdict),
        };
        table.add_row(vec![verdict, Cell::new(gate.id), Cell::new(&gate.evidence)]);
    }
    text.section("Gates", &table);
    text.line("\nRunbook (stop at the first gate that does not hold, and undo that step)");
    for (number, step) in assessment.runbook.iter().enumerate() {
        text.line(format!("\n{}. {}", number + 1, step.title));
        text.line(format!("   run   {}", step.command));
        text.line(format!("   gate  {}", step.gate));
        text.line(format!("   undo  {}", step.undo));
    }
    text
}
