// SPDX-License-Identifier: Apache-2.0
//! Settings and results of Pulumi's types, from its Python packages.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;

use anyhow::{Context, Result};

use super::providers::{Fields, Found};

/// A type or function by its token, such as `aws:ec2:Vpc` or `aws:ec2/vpc:Vpc`.
pub(super) fn find(package: &Path, prefix: &str, token: &str) -> Result<Found> {
    let module = token[prefix.len() + 1..]
        .split([':', '/'])
        .next()
        .unwrap_or_default();
    let folder = if module == "index" {
        package.to_owned()
    } else {
        package.join(module)
    };
    let wanted = short(token);
    let entries = fs::read_dir(&folder).with_context(|| format!("{token}: there is no module {module}"))?;
    let mut paths: Vec<_> = entries.filter_map(Result::ok).map(|entry| entry.path()).collect();
    paths.sort();
    for path in paths
        .iter()
        .filter(|path| path.extension().is_some_and(|extension| extension == "py"))
    {
        let text = fs::read_to_string(path)?;
        if !tokens(&text).any(|found| short(found) == wanted) {
            continue;
        }
        let inputs = fs::read_to_string(folder.join("_inputs.py")).unwrap_or_default();
        let name = token.rsplit(':').next().unwrap_or_default();
        return Ok(if name.starts_with(|letter: char| letter.is_ascii_lowercase()) {
            function(&text, &inputs)
        } else {
            resource(&text, &inputs, name)
        });
    }
    anyhow::bail!("{token}: there is no such type in {}", folder.display())
}

/// Tokens that a file is about: of a resource class, or of the function that it calls.
fn tokens(text: &str) -> impl Iterator<Item = &str> {
    text.lines().filter_map(|line| {
        let after = line
            .split_once("@pulumi.type_token(\"")
            .map(|(_, rest)| (rest, '"'));
        let (rest, quote) =
            after.or_else(|| line.split_once("runtime.invoke('").map(|(_, rest)| (rest, '\'')))?;
        rest.split(quote).next()
    })
}

/// `aws:ec2/vpc:Vpc` and `aws:ec2:Vpc` are the same.
fn short(token: &str) -> String {
    let mut parts = token.split(':');
    let (package, module, name) = (parts.next(), parts.next(), parts.next());
    let module = module.unwrap_or_default().split('/').next().unwrap_or_default();
    format!(
        "{}:{module}:{}",
        package.unwrap_or_default(),
        name.unwrap_or_default()
    )
}

fn resource(text: &str, inputs: &str, name: &str) -> Found {
    let classes = classes(text);
    let settings = classes
        .iter()
        .find(|(class, _)| class.ends_with("Args"))
        .map(|(_, fields)| fields.clone());
    let of_class = |wanted: &str| {
        classes
            .iter()
            .find(|(class, _)| class == wanted)
            .map(|(_, fields)| fields)
    };
    let mut results: BTreeSet<String> = of_class(name)
        .into_iter()
        .flat_map(BTreeMap::keys)
        .cloned()
        .collect();
    results.insert("id".to_owned());
    Found {
        settings: settings.unwrap_or_default(),
        blocks: by_name(inputs),
        results,
    }
}

fn function(text: &str, inputs: &str) -> Found {
    let mut settings = Fields::new();
    for line in text.lines() {
        if let Some((_, rest)) = line.split_once("__args__['")
            && let Some((name, variable)) = rest.split_once("'] = ")
        {
            let parameter = format!("{}: ", variable.trim());
            let signature = text
                .lines()
                .find(|line| line.contains(&parameter) && line.contains("Args'"));
            settings.insert(name.to_owned(), signature.map(block_types).unwrap_or_default());
        }
    }
    let results = classes(text)
        .into_iter()
        .filter(|(class, _)| class.ends_with("Result"));
    let results = results.flat_map(|(_, fields)| fields.into_keys()).collect();
    Found {
        settings,
        blocks: by_name(inputs),
        results,
    }
}

fn by_name(inputs: &str) -> BTreeMap<String, Fields> {
    classes(inputs)
        .into_iter()
        .filter(|(class, _)| class.ends_with("Args"))
        .collect()
}

/// Each class with its properties: `@pulumi.getter(name="camelCase")`, then `def snake_case(self) -> type:`.
fn classes(text: &str) -> Vec<(String, Fields)> {
    let mut found: Vec<(String, Fields)> = Vec::new();
    let mut getter: Option<Option<String>> = None;
    for line in text.lines() {
        if let Some(rest) = line.strip_prefix("class ") {
            let name = rest.split(['(', ':']).next().unwrap_or_default();
            found.push((name.to_owned(), Fields::new()));
        } else if let Some(rest) = line.trim().strip_prefix("@pulumi.getter") {
            let name = rest
                .strip_prefix("(name=\"")
                .and_then(|rest| rest.split('"').next());
            getter = Some(name.map(str::to_owned));
        } else if let (Some(name), Some(rest)) = (getter.clone(), line.trim().strip_prefix("def ")) {
            getter = None;
            let own = rest.split('(').next().unwrap_or_default();
            if let Some((_, fields)) = found.last_mut() {
                fields.insert(name.unwrap_or_else(|| own.to_owned()), block_types(line));
            }
        }
    }
    found
}

/// Every `'SomethingArgs'` of a line.
fn block_types(line: &str) -> Vec<String> {
    let quoted = line
        .split('\'')
        .skip(1)
        .step_by(2)
        .filter(|word| word.ends_with("Args"));
    quoted
        .map(|word| word.rsplit('.').next().unwrap_or(word).to_owned())
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const MODULE: &str = r#"
class VpcArgs:
    @pulumi.getter(name="cidrBlock")
    def cidr_block(self) -> pulumi.Input[Optional[_builtins.str]]:
    @pulumi.getter
    def rules(self) -> pulumi.Input[Sequence[pulumi.Input[Union['RuleArgs', 'OtherArgs']]]]:

@pulumi.type_token("aws:ec2/vpc:Vpc")
class Vpc(pulumi.CustomResource):
    @pulumi.getter
    def arn(self) -> pulumi.Output[_builtins.str]:
"#;

    #[test]
    fn settings_are_those_of_the_arguments_and_results_those_of_the_class() {
        let inputs = "class RuleArgs:\n    @pulumi.getter\n    def port(self) -> int:\n";
        let found = resource(MODULE, inputs, "Vpc");
        assert_eq!(found.settings.keys().collect::<Vec<_>>(), ["cidrBlock", "rules"]);
        assert_eq!(found.settings["rules"], ["RuleArgs", "OtherArgs"]);
        assert_eq!(found.results.into_iter().collect::<Vec<_>>(), ["arn", "id"]);
        assert!(found.blocks["RuleArgs"].contains_key("port"));
    }

    #[test]
    fn long_and_short_tokens_are_the_same() {
        assert!(tokens(MODULE).any(|token| short(token) == short("aws:ec2:Vpc")));
    }
}
