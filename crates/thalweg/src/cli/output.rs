// SPDX-License-Identifier: Apache-2.0
//! Tables, colours and JSON on standard output.

use std::fmt::Display;
use std::io::{self, IsTerminal, Write};
use std::process::ExitCode;

use comfy_table::{Cell, CellAlignment, Color, Table, presets};
use serde::Serialize;

use super::agents::{Answer, Unreachable};

/// How results are printed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Format {
    /// For people
    #[default]
    Text,
    /// For programs
    Json,
}

/// What `-o json` prints: `{"items": […], "unreachable": [{"node", "error"}]}`.
#[derive(Debug, Serialize)]
struct Listing<'a, T> {
    items: &'a [T],
    unreachable: &'a [Unreachable],
}

/// An item of one node's answer, with the node.
#[derive(Debug, Serialize)]
pub(crate) struct Row<T> {
    /// The node that answered.
    pub(crate) node: String,
    /// What it said.
    #[serde(flatten)]
    pub(crate) view: T,
}

/// The lists of all nodes in one, and the nodes that did not answer.
pub(crate) fn merge<T>(answers: Vec<Answer<Vec<T>>>) -> (Vec<Row<T>>, Vec<Unreachable>) {
    let mut rows = Vec::new();
    let mut unreachable = Vec::new();
    for Answer { node, result } in answers {
        match result {
            Ok(views) => rows.extend(views.into_iter().map(|view| Row {
                node: node.clone(),
                view,
            })),
            Err(error) => unreachable.push(Unreachable { node, error }),
        }
    }
    (rows, unreachable)
}

/// Prints items as a table, or as JSON; then the nodes that did not answer. The exit code is 1 when there are some.
pub(crate) fn list<T: Serialize>(
    format: Format,
    items: &[T],
    unreachable: &[Unreachable],
    table: impl FnOnce() -> Text,
) -> anyhow::Result<ExitCode> {
    match format {
        Format::Json => json(&Listing { items, unreachable })?,
        Format::Text => {
            let text = table().0;
            if text.is_empty() && unreachable.is_empty() {
                print("Nothing to show.\n")?;
            }
            print(&text)?;
            print_unreachable(unreachable)?;
        }
    }
    Ok(if unreachable.is_empty() {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    })
}

/// Like [`list`] with further members in the JSON, beside the items.
pub(crate) fn list_with<T: Serialize, M: Serialize>(
    format: Format,
    (items, more): (&[T], &M),
    unreachable: &[Unreachable],
    table: impl FnOnce() -> Text,
) -> anyhow::Result<ExitCode> {
    #[derive(Serialize)]
    struct Both<'a, T, M> {
        #[serde(flatten)]
        more: &'a M,
        #[serde(flatten)]
        listing: Listing<'a, T>,
    }
    if format == Format::Json {
        let listing = Listing { items, unreachable };
        json(&Both { more, listing })?;
        return Ok(if unreachable.is_empty() {
            ExitCode::SUCCESS
        } else {
            ExitCode::FAILURE
        });
    }
    list(format, items, unreachable, table)
}

/// Text ready to be printed, ending in a line break unless empty.
#[derive(Debug, Default)]
pub(crate) struct Text(pub(crate) String);

impl Text {
    /// Adds a line.
    pub(crate) fn line(&mut self, line: impl Display) {
        self.0.push_str(&format!("{line}\n"));
    }

    /// Adds a table below a heading, after an empty line; nothing when the table is empty.
    pub(crate) fn section(&mut self, heading: &str, table: &Table) {
        if !table.is_empty() {
            if !self.0.is_empty() {
                self.0.push('\n');
            }
            self.line(heading);
            self.0.push_str(&lines(table));
        }
    }
}

impl From<&Table> for Text {
    fn from(table: &Table) -> Self {
        Self(lines(table))
    }
}

/// Without rows, no header either.
fn lines(table: &Table) -> String {
    if table.is_empty() {
        return String::new();
    }
    table
        .lines()
        .map(|line| format!("{}\n", line.trim_end()))
        .collect()
}

/// A table with these columns; those whose name begins with `>` are aligned to the right.
pub(crate) fn table(columns: &[&str]) -> Table {
    let mut table = Table::new();
    table.load_style(presets::NOTHING);
    table.set_header(columns.iter().map(|name| name.trim_start_matches('>')));
    for (index, name) in columns.iter().enumerate() {
        if let Some(column) = table.column_mut(index) {
            column.set_padding((0, 2));
            if name.starts_with('>') {
                column.set_cell_alignment(CellAlignment::Right);
            }
        }
    }
    if !colour() {
        table.force_no_tty();
    }
    table
}

/// A cell for something that is well.
pub(crate) fn good(text: impl Display) -> Cell {
    Cell::new(text).fg(Color::Green)
}

/// A cell for something that somebody should look at.
pub(crate) fn bad(text: impl Display) -> Cell {
    Cell::new(text).fg(Color::Red)
}

/// Colours of words outside of tables.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Paint {
    /// For errors.
    Red,
    /// For warnings.
    Yellow,
}

/// Text in a colour, where colours are wanted.
pub(crate) fn paint(text: &str, paint: Paint) -> String {
    let code = match paint {
        Paint::Red => 31,
        Paint::Yellow => 33,
    };
    if colour() {
        format!("\x1b[{code}m{text}\x1b[0m")
    } else {
        text.to_owned()
    }
}

/// A cell that is red when `wrong`.
pub(crate) fn plain_or_bad(text: impl Display, wrong: bool) -> Cell {
    if wrong { bad(text) } else { Cell::new(text) }
}

/// Values with commas between them; `-` for none.
pub(crate) fn join<T: Display>(values: impl IntoIterator<Item = T>) -> String {
    let joined = values
        .into_iter()
        .map(|value| value.to_string())
        .collect::<Vec<_>>()
        .join(",");
    if joined.is_empty() { "-".into() } else { joined }
}

/// A number of bytes for people.
pub(crate) fn bytes(number: u64) -> String {
    const UNITS: [&str; 4] = ["B", "KiB", "MiB", "GiB"];
    let mut value = number as f64;
    let mut unit = 0;
    while value >= 1024.0 && unit + 1 < UNITS.len() {
        value /= 1024.0;
        unit += 1;
    }
    let unit_name = UNITS.get(unit).copied().unwrap_or("B");
    if unit == 0 || value >= 100.0 {
        format!("{value:.0} {unit_name}")
    } else {
        format!("{value:.1} {unit_name}")
    }
}

/// A duration in its largest two units.
pub(crate) fn duration(seconds: u64) -> String {
    let (minutes, hours, days) = (seconds / 60, seconds / 3600, seconds / 86_400);
    match (days, hours, minutes) {
        (0, 0, 0) => format!("{seconds}s"),
        (0, 0, _) => format!("{minutes}m{:02}s", seconds % 60),
        (0, ..) => format!("{hours}h{:02}m", minutes % 60),
        _ => format!("{days}d{:02}h", hours % 24),
    }
}

/// Whether standard output may be coloured: a terminal, and nobody objects (<https://no-color.org>).
pub(crate) fn colour() -> bool {
    io::stdout().is_terminal() && std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty())
}

/// Prints a value as JSON.
pub(crate) fn json<T: Serialize>(value: &T) -> anyhow::Result<()> {
    print(&format!("{}\n", serde_json::to_string_pretty(value)?))
}

/// Prints to standard output. A reader that has gone away (`thalweg … | head`) is no failure.
pub(crate) fn print(text: &str) -> anyhow::Result<()> {
    print_on(text).map(drop)
}

/// Prints a part of what has no end; whether somebody reads on.
pub(crate) fn print_on(text: &str) -> anyhow::Result<bool> {
    let mut out = io::stdout();
    match out.write_all(text.as_bytes()).and_then(|()| out.flush()) {
        Ok(()) => Ok(true),
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(false),
        Err(error) => Err(error.into()),
    }
}

fn print_unreachable(unreachable: &[Unreachable]) -> anyhow::Result<()> {
    unreachable
        .iter()
        .try_for_each(|Unreachable { node, error }| complain(node, error))
}

/// Tells of a node that does not answer.
#[expect(
    clippy::print_stderr,
    reason = "nodes that do not answer are an error beside the result"
)]
pub(crate) fn complain(node: &str, error: &str) -> anyhow::Result<()> {
    io::stdout().flush()?;
    eprintln!("error: node {node}: {error}");
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tables_have_no_borders_and_no_trailing_blanks() {
        let mut table = table(&["NODE", ">COUNT"]);
        table.add_row(["n1", "7"]);
        assert_eq!(Text::from(&table).0, "NODE  COUNT\nn1        7\n");
    }

    #[test]
    fn sizes_and_durations_are_for_people() {
        assert_eq!(
            [bytes(12), bytes(2048), bytes(150 << 20)],
            ["12 B", "2.0 KiB", "150 MiB"]
        );
        assert_eq!(
            [duration(5), duration(65), duration(7300), duration(90_000)],
            ["5s", "1m05s", "2h01m", "1d01h"]
        );
    }
}
