// SPDX-License-Identifier: Apache-2.0
//! Network configuration lists, and which of a directory's counts.

use std::path::{Path, PathBuf};

use serde_json::{Map, Value};

use super::Error;

/// Extensions of configuration files; `.conf` and `.json` may hold a single plugin.
const EXTENSIONS: [&str; 3] = ["conflist", "conf", "json"];
const DEFAULT_VERSION: &str = "0.2.0";
/// Major and minor number of the newest specification that we speak.
const NEWEST_VERSION: (u64, u64) = (1, 1);

/// One network: a name and a chain of plugins.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Conflist {
    /// Where it was read from.
    pub path: PathBuf,
    /// The network's name.
    pub name: String,
    /// `cniVersion`
    pub version: String,
    /// Whether CHECK is not to be called.
    pub disable_check: bool,
    /// Whether GC is not to be called.
    pub disable_gc: bool,
    /// The sections of the plugins, in order; each has a `type`.
    pub plugins: Vec<Map<String, Value>>,
}

impl Conflist {
    /// The network of a directory: the first valid file by name, as container runtimes do it. The names of invalid files before it
    /// come back as warnings.
    ///
    /// # Errors
    /// When the directory cannot be read; that it does not exist is no error.
    pub fn first_in(directory: &Path) -> Result<(Option<Self>, Vec<Error>), Error> {
        let mut invalid = Vec::new();
        for path in files(directory)? {
            match Self::load(&path) {
                Ok(conflist) => return Ok((Some(conflist), invalid)),
                Err(error) => invalid.push(error),
            }
        }
        Ok((None, invalid))
    }

    /// Reads one file.
    ///
    /// # Errors
    /// When it cannot be read or is no network configuration.
    pub fn load(path: &Path) -> Result<Self, Error> {
        let bytes = std::fs::read(path).map_err(|source| Error::file("read", path, source))?;
        Self::parse(path, &bytes).map_err(|reason| Error::Config {
            path: path.to_owned(),
            reason,
        })
    }

    fn parse(path: &Path, bytes: &[u8]) -> Result<Self, String> {
        let document: Map<String, Value> =
            serde_json::from_slice(bytes).map_err(|error| error.to_string())?;
        let plugins = match document.get("plugins") {
            Some(Value::Array(plugins)) => plugins.iter().map(section).collect::<Result<Vec<_>, _>>()?,
            Some(_) => return Err("\"plugins\" is no list".into()),
            None => vec![section(&Value::Object(document.clone()))?],
        };
        if plugins.is_empty() {
            return Err("\"plugins\" is empty".into());
        }
        let text = |key: &str| {
            document
                .get(key)
                .and_then(Value::as_str)
                .filter(|text| !text.is_empty())
        };
        Ok(Self {
            path: path.to_owned(),
            name: text("name").ok_or("\"name\" is missing")?.to_owned(),
            version: newest(text("cniVersion"), document.get("cniVersions")).to_owned(),
            disable_check: is_true(document.get("disableCheck")),
            disable_gc: is_true(document.get("disableGC")),
            plugins,
        })
    }

    /// Whether the network speaks at least that version; a version that does not parse is taken as the newest.
    pub(super) fn speaks(&self, major: u64, minor: u64) -> bool {
        numbers(&self.version) >= (major, minor)
    }
}

/// The newest version that a list states and that we speak: `cniVersion` is for libcni before 1.2, `cniVersions` for later ones.
fn newest<'a>(single: Option<&'a str>, several: Option<&'a Value>) -> &'a str {
    let several = several
        .and_then(Value::as_array)
        .into_iter()
        .flatten()
        .filter_map(Value::as_str);
    let spoken = several.filter(|version| numbers(version) <= NEWEST_VERSION);
    spoken
        .chain(single)
        .max_by_key(|version| numbers(version))
        .unwrap_or(DEFAULT_VERSION)
}

fn numbers(version: &str) -> (u64, u64) {
    let mut numbers = version
        .split('.')
        .map(|part| part.parse::<u64>().unwrap_or(u64::MAX));
    (numbers.next().unwrap_or(0), numbers.next().unwrap_or(0))
}

fn section(value: &Value) -> Result<Map<String, Value>, String> {
    let section = value.as_object().ok_or("a plugin's section is no object")?;
    let name = section.get("type").and_then(Value::as_str).unwrap_or_default();
    // The type becomes a file name.
    if name.is_empty() || name.contains('/') || name == ".." {
        return Err(format!(
            "a plugin's \"type\" is missing or no file name: {name:?}"
        ));
    }
    Ok(section.clone())
}

/// libcni takes the word for the value, too.
fn is_true(value: Option<&Value>) -> bool {
    match value {
        Some(Value::Bool(value)) => *value,
        Some(Value::String(text)) => text.eq_ignore_ascii_case("true"),
        _ => false,
    }
}

/// Configuration files by name.
fn files(directory: &Path) -> Result<Vec<PathBuf>, Error> {
    let entries = match std::fs::read_dir(directory) {
        Ok(entries) => entries,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(Error::file("read", directory, error)),
    };
    let is_configuration = |path: &PathBuf| {
        let extension = path
            .extension()
            .and_then(|extension| extension.to_str())
            .unwrap_or_default();
        EXTENSIONS.contains(&extension) && !path.is_dir()
    };
    let mut files: Vec<PathBuf> = entries
        .flatten()
        .map(|entry| entry.path())
        .filter(is_configuration)
        .collect();
    files.sort();
    Ok(files)
}
