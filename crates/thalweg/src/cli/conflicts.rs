// SPDX-License-Identifier: Apache-2.0
//! `thalweg conflicts`: other networks' parts on this node.

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::{Context as _, bail};
use comfy_table::Cell;
use doctor::conflicts::remove::{self, Removal};
use doctor::conflicts::{Backup, Item, Trouble, copies, list, restore, rollback};
use doctor::gather::{self, Places};
use doctor::owner::Owner;
use serde_json::json;

use super::doctor::{EXIT_UNKNOWN, NodeArgs};
use super::output::{self, Format, Text, bad, good};

/// `thalweg conflicts`
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Exit code: 0 done, or nothing to do; 1 something could not be done; 3 there are parts (list), or some are \
                        in use and stay (remove); 5 nothing was found, but not everything could be looked at (list)."
)]
pub(crate) struct Args {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Debug, clap::Subcommand)]
enum Verb {
    /// List the parts of other networks on this node, and what uses them
    List {
        #[command(flatten)]
        node: NodeArgs,
        /// How to print
        #[arg(short, long, value_enum, default_value_t)]
        output: Format,
    },
    /// Show what would be removed; with --execute copy it and remove it
    Remove(RemoveArgs),
    /// Show which copies there are, or put one back
    Restore(RestoreArgs),
    /// Go back to another network: print the plan, try it on this node, or do this node's part of it
    Rollback(RollbackArgs),
}

#[derive(Debug, clap::Args)]
struct RemoveArgs {
    /// Only this network's parts (repeatable) [default: all but kube-proxy's]
    #[arg(long, value_name = "NAME", value_parser = owner)]
    owner: Vec<Owner>,
    /// Do it; without this nothing is touched
    #[arg(long)]
    execute: bool,
    /// Remove parts that are in use too
    #[arg(long, requires = "execute")]
    force: bool,
    #[command(flatten)]
    node: NodeArgs,
    /// How to print
    #[arg(short, long, value_enum, default_value_t)]
    output: Format,
}

#[derive(Debug, clap::Args)]
struct RestoreArgs {
    /// The copy; without it they are listed
    #[arg(value_name = "FILE")]
    copy: Option<PathBuf>,
    /// Put back a network configuration even before ours
    #[arg(long, requires = "copy")]
    force: bool,
    #[command(flatten)]
    node: NodeArgs,
    /// How to print
    #[arg(short, long, value_enum, default_value_t)]
    output: Format,
}

#[derive(Debug, clap::Args)]
struct RollbackArgs {
    /// The network to go back to
    #[arg(long, value_name = "NAME", value_parser = owner)]
    to: Owner,
    /// Do this node's part: put the other network's configuration before ours
    #[arg(long, conflicts_with_all = ["undo", "rehearse"])]
    execute: bool,
    /// Undo this node's part
    #[arg(long, conflicts_with = "rehearse")]
    undo: bool,
    /// Do and undo this node's part, and note that it went well; cordon the node first
    #[arg(long)]
    rehearse: bool,
    /// Where plugins are looked for (repeatable)
    #[arg(long, value_name = "DIR", default_values = ["/opt/cni/bin", "/usr/lib/cni"])]
    cni_bin_dir: Vec<PathBuf>,
    #[command(flatten)]
    node: NodeArgs,
    /// How to print
    #[arg(short, long, value_enum, default_value_t)]
    output: Format,
}

fn owner(name: &str) -> Result<Owner, String> {
    Owner::named(name).ok_or_else(|| {
        let names: Vec<&str> = Owner::ALL.iter().map(|owner| owner.as_str()).collect();
        format!("known are {}", names.join(", "))
    })
}

impl Args {
    /// Runs the verb.
    pub(crate) fn run(self) -> anyhow::Result<ExitCode> {
        match self.verb {
            Verb::List { node, output } => show(&node.places(), output),
            Verb::Remove(args) => args.run(),
            Verb::Restore(args) => args.run(),
            Verb::Rollback(args) => args.run(),
        }
    }
}

/// Parts are there, or some had to stay.
const EXIT_PARTS: u8 = 3;

fn show(places: &Places, output: Format) -> anyhow::Result<ExitCode> {
    let (items, unseen) = list(&gather::node(places));
    match output {
        Format::Json => output::json(&json!({ "items": items, "unseen": unseen }))?,
        Format::Text if items.is_empty() => {
            output::print("Nothing of other networks was found on this node.\n")?
        }
        Format::Text => output::print(&Text::from(&table(&items)).0)?,
    }
    if output == Format::Text {
        print_unseen(&unseen)?;
    }
    Ok(ExitCode::from(match (items.is_empty(), unseen.is_empty()) {
        (false, _) => EXIT_PARTS,
        (true, false) => EXIT_UNKNOWN,
        (true, true) => 0,
    }))
}

fn print_unseen(unseen: &[String]) -> anyhow::Result<()> {
    for reason in unseen {
        output::print(&format!("not looked at: {reason}\n"))?;
    }
    Ok(())
}

fn table(items: &[Item]) -> comfy_table::Table {
    let mut table = output::table(&["OF", "PART", "IN USE"]);
    for item in items {
        table.add_row(vec![
            Cell::new(item.owner.as_str()),
            Cell::new(&item.part),
            item.in_use.as_ref().map_or_else(|| good("no"), bad),
        ]);
    }
    table
}

impl RemoveArgs {
    fn run(self) -> anyhow::Result<ExitCode> {
        let places = self.node.places();
        let (items, unseen) = list(&gather::node(&places));
        let owners = if self.owner.is_empty() {
            Owner::ALL
                .into_iter()
                .filter(|owner| *owner != Owner::KubeProxy)
                .collect()
        } else {
            self.owner
        };
        let (going, staying) = remove::plan(items, &owners, self.force);
        if !self.execute {
            return dry_run(&going, &staying, &unseen, self.output);
        }
        let mut removal = remove::remove(&places, going, staying, now())?;
        removal.unseen = unseen;
        match self.output {
            Format::Json => output::json(&removal)?,
            Format::Text => {
                output::print(&removed(&removal).0)?;
                print_unseen(&removal.unseen)?;
            }
        }
        Ok(ExitCode::from(
            match (removal.failed.is_empty(), removal.refused.is_empty()) {
                (false, _) => 1,
                (true, false) => EXIT_PARTS,
                (true, true) => 0,
            },
        ))
    }
}

fn now() -> u64 {
    gather::now_ms() / 1000
}

fn dry_run(
    going: &[Item],
    staying: &[Trouble],
    unseen: &[String],
    output: Format,
) -> anyhow::Result<ExitCode> {
    match output {
        Format::Json => {
            output::json(&json!({ "would_remove": going, "refused": staying, "unseen": unseen }))?
        }
        Format::Text => {
            let mut text = Text::default();
            for item in going {
                text.line(format!("would remove {} ({})", item.part, item.owner.as_str()));
            }
            refusals(&mut text, staying);
            match (going.len(), staying.len()) {
                (0, 0) => text.line("Nothing to remove."),
                (count, _) => text.line(format!(
                    "Nothing was touched; --execute copies and removes these {count}."
                )),
            }
            output::print(&text.0)?;
            print_unseen(unseen)?;
        }
    }
    Ok(ExitCode::from(if staying.is_empty() { 0 } else { EXIT_PARTS }))
}

fn refusals(text: &mut Text, refused: &[Trouble]) {
    for Trouble { part, reason } in refused {
        text.line(format!("stays: {part}: {reason}"));
    }
}

fn removed(removal: &Removal) -> Text {
    let mut text = Text::default();
    for path in &removal.copies {
        text.line(format!("copied to {}", path.display()));
    }
    for part in &removal.removed {
        text.line(format!("removed {part}"));
    }
    refusals(&mut text, &removal.refused);
    for Trouble { part, reason } in &removal.failed {
        text.line(format!("failed: {part}: {reason}"));
    }
    if removal.removed.is_empty() && removal.failed.is_empty() {
        text.line("Nothing was removed.");
    }
    text
}

impl RestoreArgs {
    fn run(self) -> anyhow::Result<ExitCode> {
        let places = self.node.places();
        let Some(path) = self.copy else {
            return show_copies(&places, self.output);
        };
        let backup = Backup::read(&path)?;
        if backup.node != places.node {
            bail!(
                "{} is of node {}, this is {}; say --node-name {} if it was renamed",
                path.display(),
                backup.node,
                places.node,
                backup.node
            );
        }
        let done = restore::restore(&places, &backup, self.force);
        match self.output {
            Format::Json => output::json(&done)?,
            Format::Text => {
                let mut text = Text::default();
                for part in &done.restored {
                    text.line(format!("restored {part}"));
                }
                for Trouble { part, reason } in &done.failed {
                    text.line(format!("not restored: {part}: {reason}"));
                }
                output::print(&text.0)?;
            }
        }
        Ok(if done.failed.is_empty() {
            ExitCode::SUCCESS
        } else {
            ExitCode::FAILURE
        })
    }
}

fn show_copies(places: &Places, output: Format) -> anyhow::Result<ExitCode> {
    let paths = copies(&places.on_node(&places.kept))?;
    let read: Vec<_> = paths.iter().map(|path| (path, Backup::read(path))).collect();
    match output {
        Format::Json => {
            let items: Vec<_> = read
                .iter()
                .map(|(path, backup)| match backup {
                    Ok(backup) => json!({"file": path, "owner": backup.owner, "unix": backup.unix, "parts": backup.parts.len()}),
                    Err(error) => json!({"file": path, "error": error.to_string()}),
                })
                .collect();
            output::json(&json!({ "items": items }))?;
        }
        Format::Text if read.is_empty() => output::print("There are no copies.\n")?,
        Format::Text => {
            let mut table = output::table(&["FILE", "OF", ">AGE", ">PARTS"]);
            for (path, backup) in &read {
                let file = Cell::new(path.display());
                match backup {
                    Ok(backup) => table.add_row(vec![
                        file,
                        Cell::new(backup.owner.as_str()),
                        Cell::new(output::duration(now().saturating_sub(backup.unix))),
                        Cell::new(backup.parts.len()),
                    ]),
                    Err(error) => table.add_row(vec![file, bad(error)]),
                };
            }
            output::print(&Text::from(&table).0)?;
        }
    }
    Ok(ExitCode::SUCCESS)
}

impl RollbackArgs {
    fn run(self) -> anyhow::Result<ExitCode> {
        let places = self.node.places();
        if self.undo {
            let found = rollback::undo(&places)?;
            let said = if found {
                "Undone: our configuration is first again."
            } else {
                "There was nothing to undo."
            };
            return say(self.output, &json!({ "undone": found }), said);
        }
        if self.rehearse {
            let rehearsal = rollback::rehearse(&places, self.to, &self.cni_bin_dir, now())?;
            let said = format!("{}\nRehearsed.", rehearsal.proofs.join("\n"));
            return say(self.output, &serde_json::to_value(&rehearsal)?, &said);
        }
        if self.execute {
            let (path, proofs) = rollback::execute(&places, self.to, &self.cni_bin_dir)?;
            let said = format!(
                "{}\nNew pods of this node get {}; --undo takes it back.",
                proofs.join("\n"),
                self.to
            );
            return say(self.output, &json!({ "file": path, "proofs": proofs }), &said);
        }
        let steps = rollback::plan(self.to);
        if self.output == Format::Json {
            output::json(&json!({ "to": self.to, "steps": steps }))?;
        } else {
            let mut text = Text::default();
            for (number, step) in steps.iter().enumerate() {
                text.line(format!("{}. {}", number + 1, step.title));
                for line in step.command.lines() {
                    text.line(format!("     {line}"));
                }
                text.line(format!("   gate  {}\n   undo  {}\n", step.gate, step.undo));
            }
            output::print(&text.0).context("the plan cannot be printed")?;
        }
        Ok(ExitCode::SUCCESS)
    }
}

fn say(output: Format, value: &serde_json::Value, text: &str) -> anyhow::Result<ExitCode> {
    match output {
        Format::Json => output::json(value)?,
        Format::Text => output::print(&format!("{text}\n"))?,
    }
    Ok(ExitCode::SUCCESS)
}
