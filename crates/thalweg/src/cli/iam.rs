// SPDX-License-Identifier: Apache-2.0
//! `thalweg iam`

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::bail;
use comfy_table::Cell;
use plan::Mode;
use plan::cloud::{self, Cloud};
use plan::iam::{self, Irsa, PodIdentity, Policy, Problem, Report, Scope};
use serde::Serialize;
use serde_json::Value;

use super::capacity;
use super::output::{self, Format, Text};

/// Nothing is missing, but something is too much.
const SUPERFLUOUS: u8 = 3;

/// `thalweg iam`
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Debug, clap::Subcommand)]
enum Verb {
    /// Print the least policy of a mode, ready for `aws iam put-role-policy`
    Policy {
        #[command(flatten)]
        scope: ScopeArgs,
        /// text is the bare document, with what else has to be known on standard error
        #[arg(short, long, value_enum, default_value_t)]
        output: Format,
    },
    /// Print the trust policy of the operator's role
    Trust(TrustArgs),
    /// Say what policies lack and what is too much
    #[command(
        after_help = "Exit codes: 0, as it should be; 1, something is missing, denied or cannot be decided; 2, the \
                            command line makes no sense; 3, nothing is missing but something is too much."
    )]
    Check {
        /// A policy of the role, bare or as `aws iam get-policy-version` prints it; - reads standard input
        #[arg(long = "policy", value_name = "FILE", required = true)]
        policies: Vec<PathBuf>,
        #[command(flatten)]
        scope: ScopeArgs,
        /// How to print
        #[arg(short, long, value_enum, default_value_t)]
        output: Format,
    },
}

/// Whose permissions.
#[derive(Debug, clap::Args)]
struct ScopeArgs {
    /// The mode, as in `thalweg capacity`
    #[arg(short, long, value_name = "MODE")]
    mode: Mode,
    /// The cluster's name
    #[arg(long, value_name = "NAME")]
    cluster: String,
    /// Only in this VPC
    #[arg(long, value_name = "ID")]
    vpc: Option<String>,
    /// Only in this region
    #[arg(long, value_name = "NAME")]
    region: Option<String>,
    /// Only in this account
    #[arg(long, value_name = "DIGITS")]
    account: Option<String>,
    /// Keep addresses and interfaces for good
    #[arg(long)]
    no_release: bool,
    /// Pods have IPv6 addresses
    #[arg(long)]
    ipv6: bool,
    /// Security groups of new interfaces are found by their tags
    #[arg(long)]
    select_groups: bool,
    /// Pods use the first interface, too
    #[arg(long)]
    first_interface: bool,
    /// Name actions only, without resources and conditions
    #[arg(long)]
    unscoped: bool,
}

/// `thalweg iam trust`
#[derive(Debug, clap::Args)]
struct TrustArgs {
    /// How the operator's pod gets the role
    #[arg(long, value_enum)]
    by: Way,
    /// The cluster's name (Pod Identity)
    #[arg(long, value_name = "NAME", required_if_eq("by", "pod-identity"))]
    cluster: Option<String>,
    /// The cluster's issuer: identity.oidc.issuer of `aws eks describe-cluster` (IRSA)
    #[arg(long, value_name = "URL", required_if_eq("by", "irsa"))]
    issuer: Option<String>,
    /// The account
    #[arg(long, value_name = "DIGITS", required_if_eq("by", "irsa"))]
    account: Option<String>,
    /// The region, for partitions other than aws
    #[arg(long, value_name = "NAME")]
    region: Option<String>,
    /// The operator's namespace
    #[arg(long, value_name = "NAME", default_value = "kube-system")]
    namespace: String,
    /// The operator's service account
    #[arg(long, value_name = "NAME", default_value = "thalweg-operator")]
    service_account: String,
}

/// How a pod gets a role.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
enum Way {
    /// EKS Pod Identity
    PodIdentity,
    /// IAM roles for service accounts
    Irsa,
}

#[derive(Serialize)]
struct PolicyView<'a> {
    policy: Option<&'a Value>,
    needs: Vec<iam::Need>,
    notes: &'a [String],
}

impl Args {
    /// Runs the verb.
    pub(crate) fn run(self) -> anyhow::Result<ExitCode> {
        match self.verb {
            Verb::Policy { scope, output } => policy(&scope.scope()?, output),
            Verb::Trust(args) => args.run(),
            Verb::Check {
                policies,
                scope,
                output,
            } => check(&scope.scope()?, &policies, output),
        }
    }
}

impl ScopeArgs {
    fn scope(&self) -> anyhow::Result<Scope> {
        if let Some(account) = &self.account
            && !(account.len() == 12 && account.bytes().all(|byte| byte.is_ascii_digit()))
        {
            bail!("`{account}` is no AWS account; those have twelve digits");
        }
        if let Some(vpc) = &self.vpc
            && !vpc.starts_with("vpc-")
        {
            bail!("`{vpc}` is no VPC; those are called vpc-…");
        }
        let wrong = |character: char| !character.is_ascii_alphanumeric() && !['-', '_'].contains(&character);
        if self.cluster.is_empty() || self.cluster.contains(wrong) {
            bail!(
                "`{}` is no name of an EKS cluster: letters, digits, - and _",
                self.cluster
            );
        }
        Ok(Scope {
            partition: partition(self.region.as_deref())?.to_owned(),
            vpc: self.vpc.clone(),
            region: self.region.clone().unwrap_or_else(|| "*".to_owned()),
            account: self.account.clone().unwrap_or_else(|| "*".to_owned()),
            release: !self.no_release,
            ipv6: self.ipv6,
            select_groups: self.select_groups,
            first_interface: self.first_interface,
            scoped: !self.unscoped,
            ..Scope::new(self.mode, &self.cluster)
        })
    }
}

/// The partition of a region; `aws` without one.
fn partition(region: Option<&str>) -> anyhow::Result<&'static str> {
    let Some(region) = region else { return Ok("aws") };
    cloud::check_region(Cloud::Aws, region)?;
    Ok(cloud::partition(region))
}

fn policy(scope: &Scope, format: Format) -> anyhow::Result<ExitCode> {
    let generated = iam::policy(scope);
    match format {
        Format::Json => output::json(&PolicyView {
            policy: generated.document.as_ref(),
            needs: iam::needs(scope),
            notes: &generated.notes,
        })?,
        Format::Text => {
            if let Some(document) = &generated.document {
                output::json(document)?;
            }
            beside(&generated.notes);
        }
    }
    Ok(ExitCode::SUCCESS)
}

#[expect(
    clippy::print_stderr,
    reason = "standard output is a document that is piped elsewhere"
)]
fn beside(notes: &[String]) {
    for note in notes {
        eprintln!("note: {note}");
    }
}

impl TrustArgs {
    fn run(self) -> anyhow::Result<ExitCode> {
        let document = match self.by {
            Way::PodIdentity => iam::pod_identity(&PodIdentity {
                namespace: self.namespace,
                service_account: self.service_account,
                cluster: self.cluster.unwrap_or_default(),
                account: self.account,
            })?,
            Way::Irsa => iam::irsa(&Irsa {
                namespace: self.namespace,
                service_account: self.service_account,
                partition: partition(self.region.as_deref())?.to_owned(),
                account: self.account.unwrap_or_default(),
                issuer: self.issuer.unwrap_or_default(),
            })?,
        };
        output::json(&document)?;
        Ok(ExitCode::SUCCESS)
    }
}

fn check(scope: &Scope, files: &[PathBuf], format: Format) -> anyhow::Result<ExitCode> {
    let mut policies = Vec::new();
    for file in files {
        policies.push(Policy::parse(
            &file.display().to_string(),
            &capacity::read(file)?,
        )?);
    }
    let report = iam::check(scope, &policies);
    match format {
        Format::Json => output::json(&report)?,
        Format::Text => output::print(&text(scope, &report).0)?,
    }
    Ok(if !report.findings.is_empty() {
        ExitCode::FAILURE
    } else if !report.superfluous.is_empty() {
        ExitCode::from(SUPERFLUOUS)
    } else {
        ExitCode::SUCCESS
    })
}

fn text(scope: &Scope, report: &Report) -> Text {
    let mut text = Text::default();
    text.line(format!(
        "mode {} of cluster {}: {} of {} needed permissions are there, {} too many",
        scope.mode,
        scope.cluster,
        report.allowed,
        report.needed,
        report.superfluous.len()
    ));
    let mut lacking = output::table(&["ACTION", "ON", "PROBLEM", "NEEDED FOR"]);
    for finding in &report.findings {
        let problem = match &finding.problem {
            Problem::Missing => "missing".to_owned(),
            Problem::Denied { by } => format!("denied by {by}"),
            Problem::Unknown { because } => format!("unknown: {because}"),
        };
        let target = serde_json::to_value(finding.target).ok();
        let target = target
            .as_ref()
            .and_then(Value::as_str)
            .unwrap_or_default()
            .to_owned();
        lacking.add_row([
            Cell::new(finding.action),
            Cell::new(target),
            output::bad(problem),
            Cell::new(finding.why),
        ]);
    }
    text.section("Lacking", &lacking);
    let mut extra = output::table(&["ACTION", "ALLOWED BY", "WHY IT IS TOO MUCH"]);
    for superfluous in &report.superfluous {
        extra.add_row([&superfluous.action, &superfluous.by, &superfluous.reason]);
    }
    text.section("Too much", &extra);
    if !report.findings.is_empty() || !report.superfluous.is_empty() {
        text.line(format!(
            "\nthalweg iam policy --mode {} --cluster {} prints what is enough",
            scope.mode, scope.cluster
        ));
    }
    text
}
