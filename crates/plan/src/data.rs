// SPDX-License-Identifier: Apache-2.0
//! The form of the data files: a head of `# key: value` lines with source, date, number of rows and a digest, then rows
//! of comma-separated values sorted by their first. What is cut short or altered is refused.

use std::fmt::Write as _;

use serde::Serialize;

use crate::date::Date;

/// Where data come from.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Provenance {
    /// Each source: repository or package, file, version, and what was taken.
    pub sources: Vec<String>,
    /// The day as of which the first source lists the rows.
    pub date: Date,
}

/// A data file that cannot be used.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DataError {
    /// The head lacks a line.
    #[error(
        "the data have no `# {0}:` line; take a file that `thalweg capacity --save` or `./dev gen` wrote"
    )]
    Head(&'static str),
    /// Another kind or version of file.
    #[error(
        "the data say `{found}` where `{wanted}` is expected; write them again with this version's tools"
    )]
    Format {
        /// What the file says.
        found: String,
        /// What this version reads.
        wanted: &'static str,
    },
    /// A row that cannot be read.
    #[error("line {line} of the data: {reason}; restore the file or write it again")]
    Row {
        /// Line number, from 1.
        line: usize,
        /// What is wrong.
        reason: String,
    },
    /// Fewer or more rows than the head says, or other ones.
    #[error("the data are damaged: {0}; restore the file or write it again")]
    Damaged(String),
}

/// A file taken apart; the rows with their line numbers.
#[derive(Debug)]
pub(crate) struct File<'a> {
    pub(crate) provenance: Provenance,
    pub(crate) columns: Vec<&'a str>,
    pub(crate) rows: Vec<(usize, Vec<&'a str>)>,
}

/// FNV-1a, 64 bits: finds damage, not malice.
fn digest<'a>(rows: impl Iterator<Item = &'a str>) -> u64 {
    let mut hash = 0xcbf2_9ce4_8422_2325_u64;
    for row in rows {
        for byte in row.bytes().chain([b'\n']) {
            hash = (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3);
        }
    }
    hash
}

/// Takes a file apart and checks that it is whole.
pub(crate) fn parse<'a>(text: &'a str, format: &'static str) -> Result<File<'a>, DataError> {
    let head = |key: &str| {
        let prefix = format!("# {key}: ");
        text.lines()
            .take_while(|line| line.starts_with('#'))
            .filter_map(move |line| line.strip_prefix(prefix.as_str()))
            .collect::<Vec<_>>()
    };
    let one = |key: &'static str| head(key).first().copied().ok_or(DataError::Head(key));
    let found = one("format")?;
    if found != format {
        return Err(DataError::Format {
            found: found.to_owned(),
            wanted: format,
        });
    }
    let date = one("date")?
        .parse()
        .map_err(|error: crate::date::DateError| DataError::Damaged(error.to_string()))?;
    let lines: Vec<(usize, &str)> = (1..)
        .zip(text.lines())
        .filter(|(_, line)| !line.starts_with('#') && !line.is_empty())
        .collect();
    whole(&lines, one("rows")?, one("digest")?)?;
    Ok(File {
        provenance: Provenance {
            sources: head("source").into_iter().map(str::to_owned).collect(),
            date,
        },
        columns: one("columns")?.split(',').collect(),
        rows: lines
            .into_iter()
            .map(|(number, line)| (number, line.split(',').collect()))
            .collect(),
    })
}

fn whole(lines: &[(usize, &str)], rows: &str, wanted: &str) -> Result<(), DataError> {
    if rows != lines.len().to_string() {
        return Err(DataError::Damaged(format!(
            "the head says {rows} rows, there are {}",
            lines.len()
        )));
    }
    let found = format!("{:016x}", digest(lines.iter().map(|(_, line)| *line)));
    if found != wanted {
        return Err(DataError::Damaged(format!(
            "the rows' digest is {found}, the head says {wanted}"
        )));
    }
    let key = |line: &'_ str| line.split(',').next().unwrap_or_default().to_owned();
    for pair in lines.windows(2) {
        if let [(_, before), (number, after)] = pair
            && key(before) >= key(after)
        {
            return Err(DataError::Row {
                line: *number,
                reason: format!("`{}` is out of order or there twice", key(after)),
            });
        }
    }
    Ok(())
}

/// Writes a file; `rows` are sorted by their first value here.
pub(crate) fn write(
    format: &str,
    provenance: &Provenance,
    columns: &[&str],
    mut rows: Vec<String>,
) -> String {
    let key = |row: &String| row.split(',').next().unwrap_or_default().to_owned();
    rows.sort_by_key(key);
    let mut text = String::from("# SPDX-License-Identifier: Apache-2.0\n");
    let mut line = |key: &str, value: &str| {
        let _ = writeln!(text, "# {key}: {value}");
    };
    line("format", format);
    for source in &provenance.sources {
        line("source", source);
    }
    line("date", &provenance.date.to_string());
    line("rows", &rows.len().to_string());
    line(
        "digest",
        &format!("{:016x}", digest(rows.iter().map(String::as_str))),
    );
    line("columns", &columns.join(","));
    for row in rows {
        text.push_str(&row);
        text.push('\n');
    }
    text
}

/// How old data are.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct Age {
    /// Whole months.
    pub months: u32,
    /// Whether that is more than the limit.
    pub stale: bool,
}

/// Data older than this many months are called stale: a generation of instance types appears about twice a year.
pub const STALE_AFTER_MONTHS: u32 = 6;

impl Provenance {
    /// The age on a day, against a limit in months.
    #[must_use]
    pub fn age(&self, today: Date, limit: u32) -> Age {
        let months = self.date.months_until(today);
        Age {
            months,
            stale: months >= limit,
        }
    }
}

/// The known names nearest to a misspelt one, nearest first, at most three; by edit distance.
pub(crate) fn nearest<'a>(name: &str, known: impl Iterator<Item = &'a str>) -> Vec<String> {
    let wanted = name.to_ascii_lowercase();
    let mut found: Vec<(usize, &str)> = known
        .map(|candidate| (distance(&wanted, &candidate.to_ascii_lowercase()), candidate))
        .filter(|(steps, _)| *steps <= 3.max(wanted.len() / 3))
        .collect();
    found.sort_unstable();
    found
        .into_iter()
        .take(3)
        .map(|(_, candidate)| candidate.to_owned())
        .collect()
}

/// Levenshtein's distance, by bytes.
fn distance(left: &str, right: &str) -> usize {
    let right = right.as_bytes();
    let mut row: Vec<usize> = (0..=right.len()).collect();
    for (index, byte) in left.bytes().enumerate() {
        let mut diagonal = index;
        let mut last = index + 1;
        for (cell, other) in row.iter_mut().skip(1).zip(right) {
            let changed = diagonal + usize::from(byte != *other);
            diagonal = *cell;
            last = changed.min(diagonal + 1).min(last + 1);
            *cell = last;
        }
        if let Some(first) = row.first_mut() {
            *first = index + 1;
        }
    }
    row.last().copied().unwrap_or_default()
}

/// ` (did you mean a, b?)`, or nothing.
pub(crate) fn suggestion(names: &[String]) -> String {
    if names.is_empty() {
        String::new()
    } else {
        format!("; did you mean {}?", names.join(", "))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn edits_are_counted() {
        assert_eq!(distance("m5.large", "m5.large"), 0);
        assert_eq!(distance("m5.large", "m5.xlarge"), 1);
        assert_eq!(distance("kitten", "sitting"), 3);
        assert_eq!(distance("", "abc"), 3);
    }
}
