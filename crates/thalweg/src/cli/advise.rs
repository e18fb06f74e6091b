// SPDX-License-Identifier: Apache-2.0
//! `thalweg advise`

use std::collections::BTreeMap;
use std::io::{self, BufRead, IsTerminal as _, Write};
use std::path::PathBuf;
use std::process::ExitCode;

use ::connectivity::kube;
use anyhow::{Context as _, bail};
use plan::InstanceTable;
use plan::advise::{Advice, Answers, Evidence, Question, advise, detect};
use plan::cloud::Cloud;
use serde::Serialize;
use serde_yaml_ng::{Mapping, Value};

use super::capacity;
use super::output::{self, Format, Text};

mod cluster;

/// `thalweg advise`
#[derive(Debug, clap::Args)]
#[command(
    after_help = "On a terminal, what no flag, file or cluster answers is asked. --list shows all questions."
)]
pub(crate) struct Args {
    /// Whose machines
    #[arg(long, value_enum)]
    cloud: Option<CloudName>,
    /// Answers, such as --answer routable-pods=yes
    #[arg(long = "answer", value_name = "QUESTION=yes|no", value_delimiter = ',')]
    answers: Vec<String>,
    /// A YAML file with answers: cloud, pods-per-node, instance-types, and questions by name
    #[arg(long = "answers", value_name = "FILE")]
    file: Option<PathBuf>,
    /// Pods that are to run on a node
    #[arg(long, value_name = "NUMBER")]
    pods_per_node: Option<u32>,
    /// EC2 instance types of the nodes
    #[arg(
        short = 't',
        long = "instance-type",
        value_name = "TYPES",
        value_delimiter = ','
    )]
    types: Vec<String>,
    /// Look at the cluster of this kubeconfig; nothing is changed there
    #[arg(long, value_name = "FILE")]
    kubeconfig: Option<PathBuf>,
    /// The context of the kubeconfig, if not its current one
    #[arg(long, value_name = "NAME", requires = "kubeconfig")]
    context: Option<String>,
    /// Ask nothing; what is not answered is assumed and listed
    #[arg(long)]
    no_questions: bool,
    /// Show all questions
    #[arg(long)]
    list: bool,
    /// How to print
    #[arg(short, long, value_enum, default_value_t)]
    output: Format,
}

/// A cloud, by its short name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
enum CloudName {
    Aws,
    Azure,
    Gcp,
    Other,
}

impl From<CloudName> for Cloud {
    fn from(name: CloudName) -> Self {
        match name {
            CloudName::Aws => Self::Aws,
            CloudName::Azure => Self::Azure,
            CloudName::Gcp => Self::Gcp,
            CloudName::Other => Self::Other,
        }
    }
}

/// What is printed as JSON.
#[derive(Debug, Serialize)]
struct Report {
    cloud: Cloud,
    answers: BTreeMap<Question, bool>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    evidence: Vec<Evidence>,
    advice: Advice,
}

impl Args {
    /// Runs the verb.
    pub(crate) async fn run(self) -> anyhow::Result<ExitCode> {
        if self.list {
            return list(self.output);
        }
        let mut given = Given::default();
        if let Some(path) = &self.file {
            given
                .read(&capacity::read(path)?)
                .with_context(|| path.display().to_string())?;
        }
        for answer in &self.answers {
            given.flag(answer)?;
        }
        given.cloud = self.cloud.map(Cloud::from).or(given.cloud);
        given.pods_per_node = self.pods_per_node.or(given.pods_per_node);
        if !self.types.is_empty() {
            given.types.clone_from(&self.types);
        }
        let (mut answers, evidence) = self.begin(&given).await?;
        given.over(&mut answers)?;
        if self.asks() {
            questions(&mut answers, &mut io::stdin().lock(), &mut io::stderr())?;
        }
        let report = Report {
            advice: advise(&answers, &InstanceTable::shipped()?)?,
            cloud: answers.cloud,
            answers: answers.yes_no,
            evidence,
        };
        match self.output {
            Format::Json => output::json(&report)?,
            Format::Text => output::print(&text(&report).0)?,
        }
        Ok(ExitCode::SUCCESS)
    }

    fn asks(&self) -> bool {
        !self.no_questions && io::stdin().is_terminal() && io::stderr().is_terminal()
    }

    /// What the cluster answers, or nothing but the cloud.
    async fn begin(&self, given: &Given) -> anyhow::Result<(Answers, Vec<Evidence>)> {
        if let Some(path) = &self.kubeconfig {
            let client = kube::client(path, self.context.as_deref()).await?;
            let found = detect(&cluster::observe(client).await?);
            return Ok((found.answers, found.evidence));
        }
        let cloud = match given.cloud {
            Some(cloud) => cloud,
            None if self.asks() => ask_cloud(&mut io::stdin().lock(), &mut io::stderr())?,
            None => {
                bail!("whose machines are they? Say --cloud aws, azure, gcp or other, or --kubeconfig FILE")
            }
        };
        Ok((Answers::new(cloud), Vec::new()))
    }
}

/// What flags and file say.
#[derive(Debug, Default)]
struct Given {
    cloud: Option<Cloud>,
    answers: Vec<(Question, bool)>,
    /// By flags, which count before those of the file.
    said: BTreeMap<Question, bool>,
    pods_per_node: Option<u32>,
    types: Vec<String>,
}

impl Given {
    fn flag(&mut self, answer: &str) -> anyhow::Result<()> {
        let (name, answer) = answer
            .split_once('=')
            .with_context(|| format!("`{answer}` is no answer; write QUESTION=yes or =no"))?;
        let yes = yes_no(answer).with_context(|| format!("{name}: `{answer}` is neither yes nor no"))?;
        let question: Question = name.parse()?;
        if self.said.insert(question, yes) == Some(!yes) {
            bail!("{name} is answered with yes and with no; say one");
        }
        self.answers.push((question, yes));
        Ok(())
    }

    fn read(&mut self, text: &str) -> anyhow::Result<()> {
        let mapping: Mapping = serde_yaml_ng::from_str(text).context("not a list of `question: answer`")?;
        for (key, value) in mapping {
            let Value::String(key) = key else {
                bail!("{key:?} is no question")
            };
            match key.as_str() {
                "cloud" => {
                    self.cloud =
                        Some(serde_yaml_ng::from_value(value).context("cloud is aws, azure, gcp or other")?)
                }
                "pods-per-node" => {
                    self.pods_per_node =
                        Some(serde_yaml_ng::from_value(value).context("pods-per-node is a number")?);
                }
                "instance-types" => {
                    self.types =
                        serde_yaml_ng::from_value(value).context("instance-types is a list of names")?
                }
                name => {
                    let yes = value.as_bool().or_else(|| yes_no(value.as_str()?));
                    let yes = yes.with_context(|| format!("{name} is answered with neither yes nor no"))?;
                    self.answers.push((name.parse()?, yes));
                }
            }
        }
        Ok(())
    }

    /// Lays what was said over what was seen.
    fn over(self, answers: &mut Answers) -> anyhow::Result<()> {
        if let Some(cloud) = self.cloud.filter(|cloud| *cloud != answers.cloud) {
            bail!(
                "the cluster's nodes are of {}, not of {cloud}; leave --cloud out",
                answers.cloud
            );
        }
        answers.yes_no.extend(self.answers);
        answers.pods_per_node = self.pods_per_node.or(answers.pods_per_node);
        if !self.types.is_empty() {
            answers.instance_types = self.types;
        }
        Ok(())
    }
}

fn yes_no(text: &str) -> Option<bool> {
    match text.trim().to_ascii_lowercase().as_str() {
        "y" | "yes" | "true" => Some(true),
        "n" | "no" | "false" => Some(false),
        _ => None,
    }
}

fn ask_cloud(input: &mut impl BufRead, output: &mut impl Write) -> anyhow::Result<Cloud> {
    loop {
        match line("Whose machines are they? aws, azure, gcp, other: ", input, output)?.as_str() {
            "aws" => return Ok(Cloud::Aws),
            "azure" => return Ok(Cloud::Azure),
            "gcp" => return Ok(Cloud::Gcp),
            "other" => return Ok(Cloud::Other),
            _ => {}
        }
    }
}

/// Asks what is open, until nothing that is left could change the advice.
fn questions(answers: &mut Answers, input: &mut impl BufRead, output: &mut impl Write) -> anyhow::Result<()> {
    for question in Question::ALL {
        let settled = !question.is_about(answers.cloud) || answers.yes_no.contains_key(&question);
        if settled || (question == Question::ManyPodsPerNode && answers.pods_per_node.is_some()) {
            continue;
        }
        loop {
            let prompt = format!("{} yes, no, or nothing if you do not know: ", question.text());
            let answer = line(&prompt, input, output)?;
            if answer.is_empty() {
                break;
            }
            if let Some(yes) = yes_no(&answer) {
                answers.yes_no.insert(question, yes);
                break;
            }
        }
    }
    Ok(())
}

fn line(prompt: &str, input: &mut impl BufRead, output: &mut impl Write) -> anyhow::Result<String> {
    write!(output, "{prompt}")?;
    output.flush()?;
    let mut text = String::new();
    if input.read_line(&mut text).context("cannot read the answer")? == 0 {
        bail!("no more answers; use --answer or --answers instead of the terminal");
    }
    Ok(text.trim().to_ascii_lowercase())
}

#[derive(Serialize)]
struct QuestionView {
    name: &'static str,
    text: &'static str,
    clouds: Vec<Cloud>,
}

fn list(format: Format) -> anyhow::Result<ExitCode> {
    let views: Vec<QuestionView> = Question::ALL
        .into_iter()
        .map(|question| QuestionView {
            name: question.name(),
            text: question.text(),
            clouds: [Cloud::Aws, Cloud::Azure, Cloud::Gcp, Cloud::Other]
                .into_iter()
                .filter(|cloud| question.is_about(*cloud))
                .collect(),
        })
        .collect();
    match format {
        Format::Json => output::json(&views)?,
        Format::Text => {
            let mut table = output::table(&["NAME", "ABOUT", "QUESTION"]);
            for view in views {
                table.add_row([
                    view.name.to_owned(),
                    output::join(view.clouds),
                    view.text.to_owned(),
                ]);
            }
            output::print(&Text::from(&table).0)?;
        }
    }
    Ok(ExitCode::SUCCESS)
}

fn text(report: &Report) -> Text {
    let advice = &report.advice;
    let mut text = Text::default();
    text.line(format!("Take {}.", advice.title));
    let mut part = |heading: &str, lines: Vec<String>| {
        if !lines.is_empty() {
            text.line(format!("\n{heading}"));
            for line in lines {
                text.line(format!("- {line}"));
            }
        }
    };
    let owned = |lines: &[&str]| lines.iter().map(|line| (*line).to_owned()).collect();
    part("Why", advice.reasons.clone());
    part("Limits", owned(&advice.limits));
    part("What is given up", owned(&advice.gives_up));
    part(
        "In this version of Thalweg",
        vec![advice.in_this_version.to_owned()],
    );
    let seen = report
        .evidence
        .iter()
        .map(|evidence| format!("{}: {}", evidence.about, evidence.seen));
    part("Seen in the cluster", seen.collect());
    part("Not answered, assumed", advice.assumptions.clone());
    let others = advice
        .alternatives
        .iter()
        .map(|other| format!("{}: {}", other.choice.facts().title, other.when));
    part("What else there is, and when to take it", others.collect());
    part("Next", owned(&advice.next));
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn given(text: &str) -> anyhow::Result<Given> {
        let mut given = Given::default();
        given.read(text).map(|()| given)
    }

    #[test]
    fn an_answers_file_is_read() {
        let read = given(
            "cloud: aws\npods-per-node: 40\ninstance-types: [m5.large]\nroutable-pods: yes\nfargate: false\n",
        )
        .unwrap();
        assert_eq!(read.cloud, Some(Cloud::Aws));
        assert_eq!(
            read.answers,
            [(Question::RoutablePods, true), (Question::Fargate, false)]
        );
        assert_eq!(
            (read.pods_per_node, read.types),
            (Some(40), vec!["m5.large".to_owned()])
        );
    }

    #[test]
    fn what_is_no_answer_is_refused() {
        for (bad, why) in [
            ("routable-pods: maybe", "neither yes nor no"),
            ("routable: yes", "no question"),
            ("cloud: ibm", "cloud is"),
            ("pods-per-node: many", "number"),
            ("- yes", "not a list"),
        ] {
            let error = format!("{:#}", given(bad).unwrap_err());
            assert!(error.contains(why), "{bad}: {error}");
        }
        assert!(Given::default().flag("fargate").is_err());
        assert!(Given::default().flag("fargate=perhaps").is_err());
        let mut twice = Given::default();
        assert!(twice.flag("fargate=yes").is_ok() && twice.flag("fargate=yes").is_ok());
        assert!(twice.flag("fargate=no").is_err());
    }

    #[test]
    fn only_what_is_open_is_asked_and_nonsense_is_asked_again() {
        let mut answers = Answers::new(Cloud::Other).with(Question::WindowsNodes, false);
        let mut shown = Vec::new();
        questions(&mut answers, &mut "perhaps\nyes\n".as_bytes(), &mut shown).unwrap();
        assert_eq!(answers.yes_no.get(&Question::FabricRoutes), Some(&true));
        let shown = String::from_utf8(shown).unwrap();
        assert_eq!(shown.matches(Question::FabricRoutes.text()).count(), 2);
        assert!(!shown.contains("Windows"));
        let ended = questions(
            &mut Answers::new(Cloud::Other),
            &mut "".as_bytes(),
            &mut Vec::new(),
        );
        assert!(ended.is_err());
    }
}
