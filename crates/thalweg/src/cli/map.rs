// SPDX-License-Identifier: Apache-2.0
//! `thalweg map`

use std::process::ExitCode;

use anyhow::bail;
use api::agent::{MapRowView, MapView};
use comfy_table::Cell;

use super::agents;
use super::output::{self, Format, Row, Text, plain_or_bad};

/// A map with more of its rows in use than this is shown in red, in percent.
const FULL: u64 = 80;

/// `thalweg map`
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Debug, clap::Subcommand)]
enum Verb {
    /// List the maps
    List {
        #[command(flatten)]
        agents: agents::AgentArgs,
        /// How to print
        #[arg(short, long, value_enum, default_value_t)]
        output: Format,
    },
    /// Show what is in a map, decoded
    Dump {
        /// The map's name
        name: String,
        #[command(flatten)]
        agents: agents::AgentArgs,
        /// How to print
        #[arg(short, long, value_enum, default_value_t)]
        output: Format,
    },
}

impl Args {
    /// Runs the verb.
    pub(crate) async fn run(self) -> anyhow::Result<ExitCode> {
        match self.verb {
            Verb::List { agents, output } => {
                let answers = agents.agents().await?.get::<Vec<MapView>>("/v1/maps").await;
                let (rows, unreachable) = output::merge(answers);
                output::list(output, &rows, &unreachable, || list(&rows))
            }
            Verb::Dump { name, agents, output } => {
                if !is_name(&name) {
                    bail!("{name:?} cannot be a map's name; `thalweg map list` shows which there are");
                }
                let answers = agents
                    .agents()
                    .await?
                    .get::<Vec<MapRowView>>(&format!("/v1/maps/{name}"))
                    .await;
                let (rows, unreachable) = output::merge(answers);
                output::list(output, &rows, &unreachable, || dump(&rows))
            }
        }
    }
}

/// Agents may be of another version: only they know which maps there are.
fn is_name(text: &str) -> bool {
    let may_be = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'_';
    !text.is_empty() && text.bytes().all(may_be)
}

fn list(rows: &[Row<MapView>]) -> Text {
    let mut table = output::table(&["NODE", "MAP", "TYPE", ">KEY", ">ROW", ">ROWS", ">MAXIMUM"]);
    for Row { node, view } in rows {
        let full = view
            .entries
            .is_some_and(|entries| entries * 100 > u64::from(view.max_entries) * FULL);
        table.add_row(vec![
            Cell::new(node),
            Cell::new(&view.name),
            Cell::new(&view.kind),
            Cell::new(view.key_size),
            Cell::new(view.value_size),
            plain_or_bad(
                view.entries
                    .map_or_else(|| "-".into(), |entries| entries.to_string()),
                full,
            ),
            Cell::new(view.max_entries),
        ]);
    }
    Text::from(&table)
}

fn dump(rows: &[Row<MapRowView>]) -> Text {
    let mut table = output::table(&["NODE", "KEY", "ROW"]);
    for Row { node, view } in rows {
        table.add_row(vec![
            Cell::new(node),
            Cell::new(compact(&view.key)),
            Cell::new(compact(&view.value)),
        ]);
    }
    Text::from(&table)
}

/// `name=value` pairs; whatever has no names as it is.
fn compact(value: &serde_json::Value) -> String {
    use serde_json::Value;
    match value {
        Value::String(text) => text.clone(),
        Value::Object(fields) => {
            let pairs: Vec<_> = fields
                .iter()
                .map(|(name, value)| format!("{name}={}", nested(value)))
                .collect();
            pairs.join(" ")
        }
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::Array(_) => value.to_string(),
    }
}

fn nested(value: &serde_json::Value) -> String {
    if value.is_object() {
        format!("({})", compact(value))
    } else {
        compact(value)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_no_word_is_not_asked_for() {
        assert!(is_name("nat_addresses") && is_name("ct4_v2"));
        for text in ["", "a b", "../status", "nat?x=y"] {
            assert!(!is_name(text), "{text}");
        }
    }

    #[test]
    fn a_row_reads_as_pairs() {
        let row = serde_json::json!({"ifindex": 7, "mac": "0a:58:00:00:00:01", "tx": {"packets": 3}});
        assert_eq!(compact(&row), "ifindex=7 mac=0a:58:00:00:00:01 tx=(packets=3)");
    }
}
