// SPDX-License-Identifier: Apache-2.0
//! `./dev gen provider-names`: which settings and results the resource types have that rendered files use, from the
//! type packages that the providers publish: CDKTF's declarations on npm, Pulumi's Python packages on PyPI.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};

use super::providers_python as python;
use crate::run;

/// Types to look up, a line each.
const TYPES: &str = "crates/platform/data/provider-types.txt";
/// What is written.
const NAMES: &str = "crates/platform/data/provider-names.txt";

/// Terraform's prefix of a type, and the package with its declarations.
const NPM: [(&str, &str); 3] = [
    ("aws", "@cdktf/provider-aws"),
    ("azurerm", "@cdktf/provider-azurerm"),
    ("google", "@cdktf/provider-google"),
];
/// Pulumi's package of a token, and the Python package.
const PYPI: [(&str, &str); 3] = [
    ("aws", "pulumi-aws"),
    ("azure-native", "pulumi-azure-native"),
    ("gcp", "pulumi-gcp"),
];

/// Blocks in blocks are followed so far.
const DEPTH_MAX: usize = 3;

/// Name of a setting, and of the block types that may be below it.
pub(super) type Fields = BTreeMap<String, Vec<String>>;

/// What a package says about one type.
pub(super) struct Found {
    /// The settings of the type itself.
    pub(super) settings: Fields,
    /// The settings of each block type.
    pub(super) blocks: BTreeMap<String, Fields>,
    /// What can be referred to.
    pub(super) results: BTreeSet<String>,
}

/// The verb. `date` is the day of the newest package.
pub(super) fn run(date: &str) -> Result<()> {
    let root = crate::root();
    let directory = root.join("target/providers");
    fs::create_dir_all(&directory)?;
    let types = fs::read_to_string(root.join(TYPES)).with_context(|| format!("cannot read {TYPES}"))?;
    let types: Vec<&str> = types
        .lines()
        .filter(|line| !line.starts_with('#') && !line.is_empty())
        .collect();
    let mut sources = Vec::new();
    let mut lines = Vec::new();
    for (prefix, package) in NPM {
        let (version, unpacked) = npm(&directory, prefix, package)?;
        sources.push(format!("npm {package} {version}"));
        for name in types.iter().filter(|name| {
            name.trim_start_matches("data.")
                .starts_with(&format!("{prefix}_"))
        }) {
            lines.extend(printed(name, &terraform(&unpacked, prefix, name)?));
        }
    }
    for (prefix, package) in PYPI {
        let (version, unpacked) = pypi(&directory, package)?;
        sources.push(format!("PyPI {package} {version}"));
        for name in types
            .iter()
            .filter(|name| name.starts_with(&format!("{prefix}:")))
        {
            lines.extend(printed(name, &python::find(&unpacked, prefix, name)?));
        }
    }
    let mut text = String::from(
        "# SPDX-License-Identifier: Apache-2.0\n# Names that the providers know, written by `./dev gen provider-names`.\n",
    );
    for source in sources {
        text += &format!("# source: {source}\n");
    }
    text += &format!(
        "# date: {date}\n# form: type, `<` and its settings with those of blocks in braces, or `>` and its results\n"
    );
    lines.sort();
    for line in lines {
        text += &line;
        text.push('\n');
    }
    fs::write(root.join(NAMES), &text)?;
    println!("{NAMES}: {} types, {} bytes", types.len(), text.len());
    Ok(())
}

fn printed(name: &str, found: &Found) -> [String; 2] {
    let results = found
        .results
        .iter()
        .map(String::as_str)
        .collect::<Vec<_>>()
        .join(" ");
    [
        format!("{name} < {}", tree(&found.settings, &found.blocks, DEPTH_MAX)),
        format!("{name} > {results}"),
    ]
}

/// `name name{name name}`.
fn tree(fields: &Fields, blocks: &BTreeMap<String, Fields>, depth: usize) -> String {
    let one = |(name, kinds): (&String, &Vec<String>)| {
        let mut inner = Fields::new();
        for kind in kinds.iter().filter(|_| depth > 0) {
            inner.extend(
                blocks
                    .get(kind)
                    .into_iter()
                    .flatten()
                    .map(|(name, kinds)| (name.clone(), kinds.clone())),
            );
        }
        if inner.is_empty() {
            name.clone()
        } else {
            format!("{name}{{{}}}", tree(&inner, blocks, depth - 1))
        }
    };
    fields.iter().map(one).collect::<Vec<_>>().join(" ")
}

/// Fetches and unpacks the declarations of an npm package; the provider's version is in the links of its comments.
fn npm(directory: &Path, prefix: &str, package: &str) -> Result<(String, PathBuf)> {
    let unpacked = directory.join(format!("npm-{prefix}"));
    if !unpacked.exists() {
        let packed = run::output(
            Command::new("npm")
                .args(["pack", "--silent", package])
                .current_dir(directory),
        )?;
        fs::create_dir_all(&unpacked)?;
        let archive = directory.join(packed.trim().lines().last().unwrap_or_default());
        let mut tar = Command::new("tar");
        tar.arg("xzf").arg(&archive).arg("-C").arg(&unpacked).args([
            "--wildcards",
            "*.d.ts",
            "*/package.json",
        ]);
        run::output(&mut tar)?;
    }
    let manifest = fs::read_to_string(unpacked.join("package/package.json"))?;
    let manifest: serde_json::Value = serde_json::from_str(&manifest)?;
    let version = manifest["version"]
        .as_str()
        .context("the package has no version")?
        .to_owned();
    Ok((version, unpacked.join("package/lib")))
}

fn pypi(directory: &Path, package: &str) -> Result<(String, PathBuf)> {
    let module = package.replace('-', "_");
    let unpacked = directory.join(&module);
    if !unpacked.exists() {
        let mut pip = Command::new("python3");
        pip.args(["-m", "pip", "download", "--quiet", "--no-deps", "--dest"])
            .arg(directory)
            .arg(package);
        run::output(&mut pip)?;
        let wheel = fs::read_dir(directory)?
            .filter_map(Result::ok)
            .map(|entry| entry.path())
            .find(|path| {
                path.file_name()
                    .is_some_and(|name| name.to_string_lossy().starts_with(&format!("{module}-")))
            })
            .with_context(|| format!("no wheel of {package}"))?;
        run::output(
            Command::new("python3")
                .args(["-m", "zipfile", "-e"])
                .arg(&wheel)
                .arg(&unpacked),
        )?;
    }
    let info = fs::read_dir(&unpacked)?
        .filter_map(Result::ok)
        .map(|entry| entry.file_name().to_string_lossy().into_owned())
        .find_map(|name| Some(name.strip_suffix(".dist-info")?.rsplit_once('-')?.1.to_owned()));
    Ok((
        info.with_context(|| format!("{package} has no version"))?,
        unpacked.join(module),
    ))
}

/// A Terraform type, from CDKTF's declarations. The names of settings are in the links of the comments.
fn terraform(library: &Path, prefix: &str, name: &str) -> Result<Found> {
    let folder = match name.strip_prefix("data.") {
        Some(query) => format!("data-{}", query.replace('_', "-")),
        None => name[prefix.len() + 1..].replace('_', "-"),
    };
    let mut text = String::new();
    declarations(&library.join(&folder), &mut text)
        .with_context(|| format!("{name}: there is no such type"))?;
    let mut found = Found {
        settings: Fields::new(),
        blocks: BTreeMap::new(),
        results: BTreeSet::new(),
    };
    let (mut block, mut is_root, mut in_class) = (String::new(), false, false);
    let mut pending = None;
    for line in text.lines() {
        if let Some(rest) = line.strip_prefix("export interface ") {
            block = rest.split([' ', '{']).next().unwrap_or_default().to_owned();
            is_root = rest.contains("TerraformMetaArguments");
            in_class = false;
        } else if line.starts_with("export declare class ") {
            in_class = line.contains("cdktf.TerraformResource") || line.contains("cdktf.TerraformDataSource");
            block.clear();
        } else if let Some((_, link)) = line.split_once("{@link ") {
            let target = link.split(' ').next().unwrap_or_default();
            pending = target.rsplit_once('#').map(|(_, name)| name.to_owned());
        } else if let Some(rest) = line.trim().strip_prefix("readonly ") {
            let (Some(name), false) = (pending.take(), block.is_empty()) else {
                continue;
            };
            let kind = rest.split_once(": ").map_or("", |(_, kind)| kind);
            let fields = if is_root {
                &mut found.settings
            } else {
                found.blocks.entry(block.clone()).or_default()
            };
            fields.insert(name, block_types(kind));
        } else if let (true, Some(rest)) = (in_class, line.trim().strip_prefix("get ")) {
            found
                .results
                .insert(snake(rest.split('(').next().unwrap_or_default()));
        }
    }
    if found.settings.is_empty() {
        bail!("{name}: the declarations have no settings");
    }
    Ok(found)
}

/// Names of types in `Name[] | cdktf.IResolvable;`.
fn block_types(kind: &str) -> Vec<String> {
    let words = kind.split(|letter: char| !(letter.is_alphanumeric() || letter == '.'));
    words
        .filter(|word| word.starts_with(|letter: char| letter.is_ascii_uppercase()))
        .map(str::to_owned)
        .collect()
}

fn declarations(folder: &Path, text: &mut String) -> Result<()> {
    let mut paths: Vec<PathBuf> = fs::read_dir(folder)?
        .filter_map(Result::ok)
        .map(|entry| entry.path())
        .collect();
    paths.sort();
    for path in paths {
        if path.is_dir() {
            declarations(&path, text)?;
        } else {
            text.push_str(&fs::read_to_string(&path)?);
        }
    }
    Ok(())
}

/// `camelCase` as `snake_case`.
fn snake(camel: &str) -> String {
    let mut name = String::new();
    for letter in camel.chars() {
        if letter.is_ascii_uppercase() {
            name.push('_');
        }
        name.push(letter.to_ascii_lowercase());
    }
    name
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_block_types_are_those_that_begin_with_a_capital() {
        assert_eq!(
            block_types("EksClusterVpcConfig[] | cdktf.IResolvable;"),
            ["EksClusterVpcConfig"]
        );
        assert_eq!(block_types("string[];"), Vec::<String>::new());
    }

    #[test]
    fn getters_become_attributes() {
        assert_eq!(
            snake("associationDefaultRouteTableId"),
            "association_default_route_table_id"
        );
    }

    #[test]
    fn blocks_are_in_braces_down_to_the_limit() {
        let fields = |names: &[(&str, &str)]| -> Fields {
            let one = |(name, block): &(&str, &str)| ((*name).to_owned(), vec![(*block).to_owned()]);
            names.iter().map(one).collect()
        };
        let blocks = BTreeMap::from([("A".to_owned(), fields(&[("x", ""), ("again", "A")]))]);
        assert_eq!(
            tree(&fields(&[("a", "A"), ("b", "")]), &blocks, 2),
            "a{again{again x} x} b"
        );
    }
}
