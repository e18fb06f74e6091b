// SPDX-License-Identifier: Apache-2.0
//! A migration as a runbook for people.

use std::fmt::Write as _;

use super::{Duration, Runbook};

/// The runbook in Markdown.
#[must_use]
pub fn markdown(migration: &Runbook) -> String {
    let mut out = format!("# {}\n\n", migration.title);
    out.push_str(
        "Stop at the first check that fails, and take back the steps that were done, the last one first.\n\n",
    );
    list(&mut out, "Before", &migration.before);
    list(&mut out, "What does not come along", &migration.lost);
    for step in &migration.steps {
        let _ = write!(
            out,
            "## {}. {}\n\n- **Takes**: {}\n- **Users notice**: {}\n",
            step.number,
            step.title,
            duration(&step.duration),
            step.impact
        );
        if step.point_of_no_return {
            out.push_str("- **Rollback point**: until here everything can be taken back without loss; from here on not all of it\n");
        }
        for (name, text) in [
            ("Do", &step.command),
            ("Check", &step.check),
            ("Undo", &step.undo),
        ] {
            let _ = write!(out, "\n{name}:\n\n```sh\n{text}\n```\n");
        }
        out.push('\n');
    }
    out
}

fn list(out: &mut String, heading: &str, items: &[String]) {
    let _ = write!(out, "## {heading}\n\n");
    for item in items {
        let _ = writeln!(out, "- {item}");
    }
    out.push('\n');
}

/// For people.
#[must_use]
pub(crate) fn duration(duration: &Duration) -> String {
    match duration {
        Duration::Known { seconds, because } => format!("{seconds} s: {because}"),
        Duration::Unknown { depends } => format!("unknown; it depends on {depends}"),
    }
}
