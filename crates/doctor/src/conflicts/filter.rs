// SPDX-License-Identifier: Apache-2.0
//! Chains of iptables as text: what belongs to a network, how to take it out, how to put it back.

use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};

/// Chains and rules of one table that belong together.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct SavedTable {
    /// The program that shows them: `iptables-nft-save`.
    pub saver: String,
    /// The table.
    pub table: String,
    /// The chains.
    pub chains: Vec<String>,
    /// Rules within these chains, as `-A CHAIN …`.
    pub rules: Vec<String>,
    /// Rules of other chains that lead there, with their place in their chain, counted from 1.
    pub jumps: Vec<(usize, String)>,
}

impl SavedTable {
    /// Takes from the output of `-save` what belongs to some chains of a table: the chains, their rules, the rules that lead
    /// there, and stray rules with one of the network's comments.
    pub(super) fn extract(
        saver: &str,
        text: &str,
        table: &str,
        chains: &[String],
        comments: &[&str],
    ) -> Self {
        let own: BTreeSet<&str> = chains.iter().map(String::as_str).collect();
        let mut saved = Self {
            saver: saver.to_owned(),
            table: table.to_owned(),
            ..Self::default()
        };
        let mut counts: std::collections::BTreeMap<&str, usize> = std::collections::BTreeMap::new();
        let mut inside = false;
        for line in text.lines() {
            if let Some(name) = line.strip_prefix('*') {
                inside = name == table;
            } else if !inside {
                continue;
            } else if let Some(chain) = line.strip_prefix(':').and_then(|rest| rest.split(' ').next()) {
                if own.contains(chain) {
                    saved.chains.push(chain.to_owned());
                }
            } else if let Some(chain) = line.strip_prefix("-A ").and_then(|rest| rest.split(' ').next()) {
                let place = counts.entry(chain).or_default();
                *place += 1;
                let leads_there = target(line).is_some_and(|target| own.contains(target));
                if own.contains(chain) {
                    saved.rules.push(line.to_owned());
                } else if leads_there || comments.iter().any(|comment| line.contains(comment)) {
                    saved.jumps.push((*place, line.to_owned()));
                }
            }
        }
        saved
    }

    /// What `-restore --noflush` takes to remove all this, in one step.
    pub(super) fn removal(&self) -> String {
        let mut script = format!("*{}\n", self.table);
        for (_, jump) in &self.jumps {
            script.push_str(&jump.replacen("-A ", "-D ", 1));
            script.push('\n');
        }
        for verb in ["-F", "-X"] {
            for chain in &self.chains {
                script.push_str(&format!("{verb} {chain}\n"));
            }
        }
        script.push_str("COMMIT\n");
        script
    }

    /// What `-restore --noflush` takes to put all this back. Jumps that are there already, by the present output of `-save`, are not
    /// made twice.
    pub(super) fn restoration(&self, present: &str) -> String {
        let mut script = format!("*{}\n", self.table);
        for chain in &self.chains {
            script.push_str(&format!(":{chain} - [0:0]\n"));
        }
        for rule in &self.rules {
            script.push_str(rule);
            script.push('\n');
        }
        let counts = |chain: &str| {
            let prefix = format!("-A {chain} ");
            let mut inside = false;
            let lines = present.lines().filter(|line| {
                if let Some(name) = line.strip_prefix('*') {
                    inside = name == self.table;
                }
                inside && line.starts_with(&prefix)
            });
            lines.map(str::to_owned).collect::<Vec<_>>()
        };
        let mut added: std::collections::BTreeMap<String, usize> = std::collections::BTreeMap::new();
        for (place, jump) in &self.jumps {
            let Some((chain, rest)) = jump.strip_prefix("-A ").and_then(|rule| rule.split_once(' ')) else {
                continue;
            };
            let there = counts(chain);
            if there.contains(jump) {
                continue;
            }
            // Where other rules went meanwhile, the place may be beyond the end.
            let added = added.entry(chain.to_owned()).or_default();
            let place = (*place).min(there.len() + *added + 1);
            *added += 1;
            script.push_str(&format!("-I {chain} {place} {rest}\n"));
        }
        script.push_str("COMMIT\n");
        script
    }
}

/// Where a rule leads.
fn target(rule: &str) -> Option<&str> {
    let mut words = rule.split(' ');
    words.find(|word| ["-j", "-g", "--jump", "--goto"].contains(word))?;
    words.next()
}

#[cfg(test)]
mod tests {
    use super::*;

    const SAVE: &str = "*filter\n:INPUT ACCEPT [0:0]\n-A INPUT -j AWS-SNAT-CHAIN-0\nCOMMIT\n*nat\n:POSTROUTING ACCEPT [0:0]\n\
        :AWS-SNAT-CHAIN-0 - [0:0]\n-A POSTROUTING -j OTHER\n-A POSTROUTING -m comment --comment \"AWS SNAT CHAIN\" -j AWS-SNAT-CHAIN-0\n\
        -A AWS-SNAT-CHAIN-0 -d 10.0.0.0/16 -j RETURN\nCOMMIT\n";

    #[test]
    fn chains_go_with_the_rules_that_lead_there_and_come_back_where_they_were() {
        let chains = ["AWS-SNAT-CHAIN-0".to_owned()];
        let saved = SavedTable::extract("iptables-nft-save", SAVE, "nat", &chains, &[]);
        assert_eq!(saved.rules.len(), 1);
        assert_eq!(saved.jumps[0].0, 2);
        let removal = saved.removal();
        assert!(
            removal.starts_with("*nat\n-D POSTROUTING -m comment"),
            "{removal}"
        );
        assert!(
            removal.ends_with("-F AWS-SNAT-CHAIN-0\n-X AWS-SNAT-CHAIN-0\nCOMMIT\n"),
            "{removal}"
        );
        let empty = saved.restoration("*nat\n-A POSTROUTING -j OTHER\nCOMMIT\n");
        assert!(empty.contains("-I POSTROUTING 2 -m comment"), "{empty}");
        assert!(!saved.restoration(SAVE).contains("-I "), "no second jump");
        assert!(
            saved.restoration("").contains("-I POSTROUTING 1 "),
            "the place is within the chain"
        );
    }

    #[test]
    fn stray_rules_are_known_by_their_comment() {
        let text = "*mangle\n-A PREROUTING -i eth0 -m comment --comment \"AWS, primary ENI\" -j CONNMARK --set-xmark 0x80/0x80\nCOMMIT\n";
        let saved = SavedTable::extract("s", text, "mangle", &[], &["\"AWS, "]);
        assert_eq!(saved.jumps.len(), 1);
    }
}
