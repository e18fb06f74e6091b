// SPDX-License-Identifier: Apache-2.0
//! The library against a fake plugin: a shell script that notes what it was called with.

use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;

use serde_json::{Value, json};
use tokio::process::{Child, Command};

use super::*;

struct Here;

impl Launch for Here {
    fn launch(&self, mut command: Command) -> std::io::Result<Child> {
        command.spawn()
    }
}

struct Fixture {
    dir: tempfile::TempDir,
    bin_dirs: Vec<PathBuf>,
    cache: PathBuf,
    conflist: Conflist,
}

/// `first` and `second` answer with their name in the result; the fake's verdict per verb is a file `fail-VERB`.
const PLUGIN: &str = r#"#!/bin/sh
name=$(basename "$0"); here=$(dirname "$0")
input=$(cat)
echo "$CNI_COMMAND $name $CNI_CONTAINERID $CNI_IFNAME $CNI_NETNS $CNI_ARGS" >> "$here/calls"
echo "$input" > "$here/$name-$CNI_COMMAND"
if [ -e "$here/fail-$CNI_COMMAND" ]; then cat "$here/fail-$CNI_COMMAND"; exit 1; fi
[ "$CNI_COMMAND" = ADD ] && echo "{\"cniVersion\":\"1.1.0\",\"by\":\"$name\",\"ips\":[{\"address\":\"10.0.0.2/32\"}]}"
exit 0
"#;

fn fixture() -> Fixture {
    let dir = tempfile::tempdir().unwrap();
    for name in ["first", "second"] {
        let path = dir.path().join(name);
        std::fs::write(&path, PLUGIN).unwrap();
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o755)).unwrap();
    }
    let conflist = json!({ "cniVersion": "1.1.0", "name": "net", "plugins": [
        { "type": "first", "own": 1 }, { "type": "second", "capabilities": { "portMappings": true, "bandwidth": false } },
    ] });
    let file = dir.path().join("10-net.conflist");
    std::fs::write(&file, conflist.to_string()).unwrap();
    let conflist = Conflist::load(&file).unwrap();
    Fixture {
        bin_dirs: vec![dir.path().to_owned()],
        cache: dir.path().join("cache"),
        dir,
        conflist,
    }
}

impl Fixture {
    fn network(&self) -> Network<'_, Here> {
        Network {
            conflist: &self.conflist,
            launcher: &Here,
            bin_dirs: &self.bin_dirs,
            cache_dir: self.cache(),
        }
    }

    fn cache(&self) -> &Path {
        &self.cache
    }

    fn fail(&self, verb: &str, output: &str) {
        std::fs::write(self.dir.path().join(format!("fail-{verb}")), output).unwrap();
    }

    fn calls(&self) -> Vec<String> {
        let text = std::fs::read_to_string(self.dir.path().join("calls")).unwrap_or_default();
        text.lines()
            .map(|line| line.split_whitespace().take(2).collect::<Vec<_>>().join(" "))
            .collect()
    }

    fn stdin(&self, plugin: &str, verb: &str) -> Value {
        serde_json::from_slice(&std::fs::read(self.dir.path().join(format!("{plugin}-{verb}"))).unwrap())
            .unwrap()
    }
}

fn attachment() -> Attachment {
    let capabilities = json!({ "portMappings": [{ "hostPort": 80 }], "bandwidth": { "ingressRate": 1 } });
    Attachment {
        container_id: "c1".into(),
        netns: "/run/netns/cni-1".into(),
        ifname: "eth0".into(),
        args: vec![
            ("IgnoreUnknown".into(), "1".into()),
            ("K8S_POD_NAME".into(), "a".into()),
        ],
        capabilities: capabilities.as_object().unwrap().clone(),
    }
}

#[tokio::test]
async fn add_runs_the_chain_hands_results_on_and_caches_the_last() {
    let f = fixture();
    let result = f.network().add(&attachment()).await.unwrap();
    assert_eq!(result["by"], "second");
    assert_eq!(f.calls(), ["ADD first", "ADD second"]);
    let (first, second) = (f.stdin("first", "ADD"), f.stdin("second", "ADD"));
    assert_eq!(
        (&first["name"], &first["cniVersion"], &first["own"]),
        (&json!("net"), &json!("1.1.0"), &json!(1))
    );
    assert!(first.get("prevResult").is_none() && first.get("runtimeConfig").is_none());
    assert_eq!(second["prevResult"]["by"], "first");
    assert_eq!(
        second["runtimeConfig"],
        json!({ "portMappings": [{ "hostPort": 80 }] })
    );
    assert!(second.get("capabilities").is_none());
    let cached = Network::<Here>::cached(f.cache());
    assert_eq!(cached.len(), 1);
    assert_eq!(cached[0].result.as_ref().unwrap()["by"], "second");
    let call = std::fs::read_to_string(f.dir.path().join("calls")).unwrap();
    assert!(
        call.starts_with("ADD first c1 eth0 /run/netns/cni-1 IgnoreUnknown=1;K8S_POD_NAME=a\n"),
        "{call}"
    );
}

#[tokio::test]
async fn del_runs_in_reverse_with_the_cached_result_and_forgets_it() {
    let f = fixture();
    f.network().add(&attachment()).await.unwrap();
    f.network().del(&attachment()).await.unwrap();
    assert_eq!(f.calls()[2..], ["DEL second", "DEL first"]);
    assert_eq!(f.stdin("first", "DEL")["prevResult"]["by"], "second");
    assert!(Network::<Here>::cached(f.cache()).is_empty());
    f.network().del(&attachment()).await.unwrap();
}

#[tokio::test]
async fn a_failed_del_calls_all_plugins_and_keeps_the_attachment_on_record() {
    let f = fixture();
    f.network().add(&attachment()).await.unwrap();
    f.fail("DEL", r#"{"code":11,"msg":"busy"}"#);
    f.network().del(&attachment()).await.unwrap_err();
    assert_eq!(f.calls()[2..], ["DEL second", "DEL first"]);
    assert_eq!(Network::<Here>::cached(f.cache()).len(), 1);
}

#[tokio::test]
async fn a_failed_add_names_plugin_message_and_details_and_stays_on_record() {
    let f = fixture();
    f.fail(
        "ADD",
        r#"{"cniVersion":"1.1.0","code":101,"msg":"pool is full","details":"add a CIDR"}"#,
    );
    let error = f.network().add(&attachment()).await.unwrap_err();
    assert_eq!(
        error.to_string(),
        r#"plugin type="first" failed (add): pool is full; add a CIDR"#
    );
    assert!(matches!(error, Error::Plugin { code: Some(101), .. }));
    assert_eq!(f.calls(), ["ADD first"]);
    assert_eq!(Network::<Here>::cached(f.cache())[0].result, None);
}

#[tokio::test]
async fn a_plugin_that_fails_without_json_is_quoted() {
    let f = fixture();
    f.fail("STATUS", "segmentation fault");
    let error = f.network().status().await.unwrap_err();
    assert_eq!(
        error.to_string(),
        r#"plugin type="first" failed (status): segmentation fault"#
    );
}

#[tokio::test]
async fn gc_lists_the_valid_attachments_and_check_passes_the_result() {
    let f = fixture();
    f.network().add(&attachment()).await.unwrap();
    f.network().gc(&[attachment()]).await.unwrap();
    let valid = json!([{ "containerID": "c1", "ifname": "eth0" }]);
    assert_eq!(f.stdin("second", "GC")["cni.dev/valid-attachments"], valid);
    f.network().check(&attachment()).await.unwrap();
    assert_eq!(f.stdin("second", "CHECK")["prevResult"]["by"], "second");
}

#[tokio::test]
async fn verbs_that_the_version_does_not_know_are_not_called() {
    let mut f = fixture();
    f.conflist.version = "1.0.0".into();
    f.network().status().await.unwrap();
    f.network().gc(&[]).await.unwrap();
    assert!(f.calls().is_empty());
}

#[tokio::test]
async fn a_missing_plugin_is_named_with_the_places_searched() {
    let mut f = fixture();
    f.bin_dirs = vec!["/nowhere".into()];
    let error = f.network().status().await.unwrap_err();
    assert!(
        error
            .to_string()
            .contains(r#"failed to find plugin "first" in path ["/nowhere"]"#),
        "{error}"
    );
}

#[test]
fn the_first_valid_file_by_name_is_the_network() {
    let dir = tempfile::tempdir().unwrap();
    let write = |name: &str, text: &str| std::fs::write(dir.path().join(name), text).unwrap();
    write("00-broken.conflist", "{");
    write(
        "20-later.conflist",
        r#"{"name":"later","plugins":[{"type":"x"}]}"#,
    );
    write(
        "10-single.conf",
        r#"{"name":"single","cniVersion":"0.4.0","type":"y"}"#,
    );
    write("05-other.txt", r#"{"name":"other","plugins":[{"type":"x"}]}"#);
    let (first, invalid) = Conflist::first_in(dir.path()).unwrap();
    let first = first.unwrap();
    assert_eq!(
        (first.name.as_str(), first.plugins[0]["type"].as_str()),
        ("single", Some("y"))
    );
    assert_eq!(invalid.len(), 1);
    assert!(invalid[0].to_string().contains("00-broken.conflist"));
}

#[test]
fn a_type_that_is_a_path_and_a_directory_that_is_absent_are_seen() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("a.conflist");
    std::fs::write(&path, r#"{"name":"n","plugins":[{"type":"../../bin/sh"}]}"#).unwrap();
    assert!(
        Conflist::load(&path)
            .unwrap_err()
            .to_string()
            .contains("no file name")
    );
    assert!(
        Conflist::first_in(&dir.path().join("absent"))
            .unwrap()
            .0
            .is_none()
    );
}

#[test]
fn the_newest_stated_version_that_we_speak_is_used() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("a.conflist");
    let text = r#"{"name":"n","cniVersion":"1.0.0","cniVersions":["0.4.0","1.1.0","2.0.0"],"plugins":[{"type":"x"}]}"#;
    std::fs::write(&path, text).unwrap();
    assert_eq!(Conflist::load(&path).unwrap().version, "1.1.0");
}
