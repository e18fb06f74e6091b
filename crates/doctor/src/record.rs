// SPDX-License-Identifier: Apache-2.0
//! Facts in files: recorded here, examined elsewhere or later.

use std::io;
use std::path::{Path, PathBuf};

use crate::facts::{CloudFacts, Facts, SCHEMA};

/// The largest record that is read: 1,000 nodes take about 60 MB.
const BYTES_MAX: u64 = 256 << 20;

/// A record that cannot be read or written.
#[derive(Debug, thiserror::Error)]
pub enum RecordError {
    /// The file.
    #[error("cannot {operation} {}: {source}", path.display())]
    File {
        /// What was tried.
        operation: &'static str,
        /// On which file.
        path: PathBuf,
        /// Why it failed.
        source: io::Error,
    },
    /// It is too large to be one.
    #[error("{} has {bytes} bytes, a record has at most {BYTES_MAX}; is it the right file?", path.display())]
    TooLarge {
        /// The file.
        path: PathBuf,
        /// Its size.
        bytes: u64,
    },
    /// It is not JSON, or not of this form.
    #[error("{} is no record: {reason}; `thalweg doctor --record FILE` makes one", path.display())]
    Corrupt {
        /// The file.
        path: PathBuf,
        /// Why.
        reason: serde_json::Error,
    },
    /// It is of another version's form.
    #[error(
        "{} is a record of form {found}, this version reads {SCHEMA}; examine it with the version that made it",
        path.display()
    )]
    Schema {
        /// The file.
        path: PathBuf,
        /// The form's number in it.
        found: u32,
    },
}

/// Reads a record.
///
/// # Errors
/// When there is none, or none that this version understands.
pub fn load(path: &Path) -> Result<Facts, RecordError> {
    let facts: Facts = parse(path)?;
    if facts.schema != SCHEMA {
        return Err(RecordError::Schema {
            path: path.to_owned(),
            found: facts.schema,
        });
    }
    Ok(facts)
}

/// Reads what somebody found out about the cloud: the part `cloud` of a record, alone in a file.
///
/// # Errors
/// As [`load`].
pub fn load_cloud(path: &Path) -> Result<CloudFacts, RecordError> {
    parse(path)
}

/// Writes a record.
///
/// # Errors
/// When the file cannot be written.
pub fn save(path: &Path, facts: &Facts) -> Result<(), RecordError> {
    let fail = |source| RecordError::File {
        operation: "write",
        path: path.to_owned(),
        source,
    };
    let json = serde_json::to_vec_pretty(facts).map_err(|error| fail(error.into()))?;
    std::fs::write(path, json).map_err(fail)
}

fn parse<T: serde::de::DeserializeOwned>(path: &Path) -> Result<T, RecordError> {
    let fail = |source| RecordError::File {
        operation: "read",
        path: path.to_owned(),
        source,
    };
    let bytes = std::fs::metadata(path).map_err(fail)?.len();
    if bytes > BYTES_MAX {
        return Err(RecordError::TooLarge {
            path: path.to_owned(),
            bytes,
        });
    }
    let text = std::fs::read(path).map_err(fail)?;
    serde_json::from_slice(&text).map_err(|reason| RecordError::Corrupt {
        path: path.to_owned(),
        reason,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn written(text: &str) -> tempfile::NamedTempFile {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), text).unwrap();
        file
    }

    #[test]
    fn what_is_written_is_read() {
        let file = written("");
        let facts = Facts {
            schema: SCHEMA,
            title: "here".into(),
            ..Facts::default()
        };
        save(file.path(), &facts).unwrap();
        assert_eq!(load(file.path()).unwrap(), facts);
    }

    #[test]
    fn what_is_no_record_is_refused_with_a_reason() {
        for (text, said) in [
            ("", "no record"),
            ("{", "no record"),
            ("[]", "no record"),
            ("{\"schema\":\"x\"}", "no record"),
            (
                "{\"schema\":1,\"nodes\":[{\"kernel\":{\"release\":7}}]}",
                "no record",
            ),
            ("{\"schema\":99}", "form 99"),
            ("\u{0}\u{1}", "no record"),
        ] {
            let error = load(written(text).path()).unwrap_err().to_string();
            assert!(error.contains(said), "{text:?}: {error}");
        }
        let error = load(Path::new("/nonexistent/record.json")).unwrap_err();
        assert!(matches!(error, RecordError::File { .. }));
    }

    /// What somebody wrote about the cloud counts before what the cluster betrays of it, and leaves the rest as it is.
    #[test]
    fn a_file_about_the_cloud_takes_nothing_away() {
        let file = written("{\"provider\": \"aws\", \"addons\": []}");
        let betrayed = CloudFacts {
            provider: crate::facts::Gathered::Known(crate::facts::Provider::Own),
            pod_slots: crate::facts::Gathered::Known(std::collections::BTreeMap::new()),
            ..CloudFacts::default()
        };
        let cloud = load_cloud(file.path()).unwrap().or(betrayed);
        assert_eq!(cloud.provider.known(), Some(&crate::facts::Provider::Aws));
        assert!(cloud.addons.known().is_some() && cloud.pod_slots.known().is_some());
        assert!(cloud.iam.known().is_none());
    }

    #[test]
    fn a_record_without_facts_is_a_record_of_unknowns() {
        let facts = load(written("{\"schema\":1,\"nodes\":[{\"name\":\"a\"}]}").path()).unwrap();
        assert!(facts.nodes[0].kernel.get().is_err());
    }
}
