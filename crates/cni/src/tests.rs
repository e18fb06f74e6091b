// SPDX-License-Identifier: Apache-2.0
use std::io::Cursor;

use proptest::prelude::*;
use serde_json::{Value, json};

use super::*;

const ID: &str = "4f1c8d";

fn vars(command: &'static str) -> impl Fn(&str) -> Option<String> {
    move |key| {
        Some(match key {
            "CNI_COMMAND" => command.into(),
            "CNI_CONTAINERID" => ID.into(),
            "CNI_NETNS" => "/run/netns/a".into(),
            "CNI_IFNAME" => "eth0".into(),
            "CNI_ARGS" => "IgnoreUnknown=1;K8S_POD_NAMESPACE=default;K8S_POD_NAME=a;K8S_POD_UID=u-1".into(),
            _ => return None,
        })
    }
}

fn parse(command: &'static str, conf: &Value) -> Result<Invocation, Error> {
    Invocation::parse(vars(command), conf.to_string().as_bytes())
}

fn code(command: &'static str, conf: &Value) -> u32 {
    parse(command, conf).unwrap_err().code
}

fn conf_with(key: &str, value: Value) -> Value {
    let mut conf = json!({"cniVersion": "1.1.0", "name": "thalweg", "type": "thalweg-cni"});
    conf[key] = value;
    conf
}

#[test]
fn an_add_is_read_whole() {
    let Invocation::Call(env, conf) = parse("ADD", &conf_with("socket", json!("/run/x/cni.sock"))).unwrap()
    else {
        panic!("ADD is a call");
    };
    assert_eq!(
        env.attachment,
        Attachment {
            container_id: ID.into(),
            ifname: "eth0".into()
        }
    );
    assert_eq!(
        env.pod,
        Pod {
            namespace: "default".into(),
            name: "a".into(),
            uid: "u-1".into()
        }
    );
    assert_eq!(env.netns.as_deref(), Some("/run/netns/a"));
    assert_eq!(
        (conf.socket.as_str(), conf.version),
        ("/run/x/cni.sock", Version::V1_1_0)
    );
}

#[test]
fn version_answers_whatever_was_asked() {
    let asked = Invocation::parse(vars("VERSION"), br#"{"cniVersion":"0.4.0"}"#).unwrap();
    assert_eq!(asked, Invocation::Version(Some("0.4.0".into())));
    assert_eq!(
        Invocation::parse(vars("VERSION"), b"").unwrap(),
        Invocation::Version(None)
    );
    let reply = Version::reply(None);
    assert_eq!(
        reply["supportedVersions"],
        json!(["0.3.0", "0.3.1", "0.4.0", "1.0.0", "1.1.0"])
    );
}

#[test]
fn versions_gate_verbs() {
    assert_eq!(
        code("ADD", &conf_with("cniVersion", json!("0.2.0"))),
        codes::INCOMPATIBLE_VERSION
    );
    assert_eq!(
        code("ADD", &conf_with("cniVersion", json!(null))),
        codes::INCOMPATIBLE_VERSION
    );
    assert_eq!(
        code("CHECK", &conf_with("cniVersion", json!("0.3.1"))),
        codes::INCOMPATIBLE_VERSION
    );
    assert_eq!(
        code("GC", &conf_with("cniVersion", json!("1.0.0"))),
        codes::INCOMPATIBLE_VERSION
    );
    assert!(parse("STATUS", &conf_with("type", json!("thalweg-cni"))).is_ok());
}

#[test]
fn wrong_configurations_name_key_and_value() {
    let error = parse("ADD", &conf_with("sokcet", json!("/x"))).unwrap_err();
    assert_eq!(error.code, codes::UNSUPPORTED_FIELD);
    assert!(
        error.msg.contains("sokcet") && error.msg.contains("/x"),
        "{error}"
    );
    assert_eq!(
        code("ADD", &conf_with("ipam", json!({"type": "host-local"}))),
        codes::UNSUPPORTED_FIELD
    );
    assert_eq!(
        code("ADD", &conf_with("ipMasq", json!(true))),
        codes::UNSUPPORTED_FIELD
    );
    assert_eq!(
        code("ADD", &conf_with("name", json!("../x"))),
        codes::INVALID_NETWORK_CONFIG
    );
    assert_eq!(
        code("ADD", &conf_with("socket", json!("x"))),
        codes::INVALID_NETWORK_CONFIG
    );
    assert_eq!(
        code("ADD", &conf_with("socket", json!(1))),
        codes::INVALID_NETWORK_CONFIG
    );
    assert_eq!(
        code("ADD", &conf_with("prevResult", json!({"ips": 3}))),
        codes::DECODING_FAILURE
    );
    assert_eq!(
        code("CHECK", &conf_with("dns", json!({}))),
        codes::INVALID_NETWORK_CONFIG
    );
}

#[test]
fn what_is_spoiled_since_the_add_does_not_keep_a_pod() {
    for (key, value) in [
        ("sokcet", json!("/x")),
        ("ipam", json!({"type": "host-local"})),
        ("prevResult", json!({"ips": 3})),
        ("dns", json!("10.0.0.1")),
        ("log-level", json!("loud")),
    ] {
        let conf = conf_with(key, value);
        assert!(parse("DEL", &conf).is_ok(), "{conf}");
        assert!(parse("ADD", &conf).is_err(), "{conf}");
    }
    let spoiled = |key: &str| {
        if key == "CNI_ARGS" {
            Some("K8S_POD_NAME=a b".into())
        } else {
            vars("DEL")(key)
        }
    };
    assert!(Env::parse(Command::Del, spoiled).is_ok());
    assert!(Env::parse(Command::Add, spoiled).is_err());
    // Whom to ask is needed all the same.
    assert!(parse("DEL", &conf_with("socket", json!(1))).is_err());
}

#[test]
fn keys_of_others_are_left_alone() {
    for key in ["runtimeConfig", "args", "example.com/annotation", "disableCheck"] {
        assert!(parse("ADD", &conf_with(key, json!({"a": [1]}))).is_ok(), "{key}");
    }
}

#[test]
fn gc_without_the_list_is_refused_and_both_spellings_are_read() {
    assert_eq!(
        code("GC", &conf_with("dns", json!({}))),
        codes::INVALID_NETWORK_CONFIG
    );
    for key in ["cni.dev/valid-attachments", "cni.dev/attachments"] {
        let list = json!([{"containerID": ID, "ifname": "eth0"}]);
        let Invocation::Call(_, conf) = parse("GC", &conf_with(key, list)).unwrap() else {
            panic!("{key}")
        };
        assert_eq!(conf.valid_attachments.unwrap()[0].container_id, ID);
    }
}

#[test]
fn identifiers_follow_the_specification() {
    let check = |id: &str, ifname: &str| {
        Attachment {
            container_id: id.into(),
            ifname: ifname.into(),
        }
        .check()
    };
    assert!(check("a_B.c-1", "eth0").is_ok());
    for id in ["", "-a", "a/b", "a b", "ä", &"a".repeat(MAX_CONTAINER_ID + 1)] {
        assert_eq!(
            check(id, "eth0").unwrap_err().code,
            codes::INVALID_ENVIRONMENT,
            "{id}"
        );
    }
    for ifname in ["", ".", "..", "a/b", "a:b", "a b", "0123456789abcdef"] {
        assert_eq!(
            check("a", ifname).unwrap_err().code,
            codes::INVALID_ENVIRONMENT,
            "{ifname}"
        );
    }
}

#[test]
fn missing_variables_are_named_together() {
    let only = |key: &str| (key == "CNI_COMMAND").then(|| "ADD".to_string());
    let error = Env::parse(Command::Add, only).unwrap_err();
    assert!(
        error.msg.contains("CNI_CONTAINERID, CNI_NETNS, CNI_IFNAME"),
        "{error}"
    );
    let no_netns = |key: &str| (key != "CNI_NETNS").then(|| "a=b;c=d".replace(['=', ';'], "").to_string());
    assert!(
        Env::parse(Command::Del, |key| if key == "CNI_ARGS" {
            None
        } else {
            no_netns(key)
        })
        .is_ok()
    );
}

#[test]
fn args_of_a_wrong_form_are_refused() {
    assert!(parse_args("K8S_POD_NAME").is_err());
    assert!(parse_args("K8S_POD_NAME=a b").is_err());
    assert!(parse_args("FOO=a b;;BAR=").is_ok());
}

#[test]
fn a_result_takes_the_form_of_its_version() {
    let result = sample();
    let old = result.to_json(Version::V0_3_1, &Dns::default());
    assert_eq!(
        old["ips"][0],
        json!({"version": "4", "address": "10.244.1.2/32", "gateway": "169.254.1.1", "interface": 1})
    );
    assert_eq!(old["interfaces"][1].get("mtu"), None);
    let middle = result.to_json(Version::V1_0_0, &Dns::default());
    assert_eq!(
        (
            middle["ips"][1].get("version"),
            middle["interfaces"][0].get("mtu")
        ),
        (None, None)
    );
    let new = result.to_json(Version::V1_1_0, &Dns::default());
    assert_eq!(new["interfaces"][1]["mtu"], json!(1500));
    for version in Version::ALL {
        let prev: PrevResult = serde_json::from_value(result.to_json(version, &Dns::default())).unwrap();
        assert_eq!(prev.addresses_of("eth0").len(), 2, "{version:?}");
    }
}

#[test]
fn host_names_are_stable_short_and_differ_by_interface() {
    let name = |id: &str, ifname: &str| {
        host_ifname(&Attachment {
            container_id: id.into(),
            ifname: ifname.into(),
        })
    };
    // Names are on disk in running kernels: the digest must never change.
    assert_eq!(name("abc", "eth0"), "tw540c4ae81be8");
    assert_ne!(name("abc", "eth0"), name("abc", "eth1"));
    assert_ne!(name("ab", "ceth0"), name("abc", "eth0"));
    assert!(name("abc", "eth0").len() <= MAX_IFNAME);
}

#[test]
fn messages_survive_the_wire() {
    let request = protocol::Request {
        version: protocol::VERSION,
        call: protocol::Call::Add {
            attachment: Attachment {
                container_id: ID.into(),
                ifname: "eth0".into(),
            },
            pod: Pod::default(),
            netns: "/run/netns/a".into(),
            wishes: Wishes::default(),
            previous: None,
        },
    };
    let frame = protocol::encode(&request).unwrap();
    assert!(String::from_utf8_lossy(&frame[4..]).contains(r#""verb":"add""#));
    assert_eq!(
        protocol::read::<protocol::Request>(&mut Cursor::new(frame)).unwrap(),
        request
    );
    for reply in [
        protocol::Reply::Added(sample()),
        protocol::Reply::Done,
        protocol::Reply::Failed(Error::new(3, "a", "b")),
    ] {
        let frame = protocol::encode(&reply).unwrap();
        assert_eq!(
            protocol::read::<protocol::Reply>(&mut Cursor::new(frame)).unwrap(),
            reply
        );
    }
}

#[test]
fn a_frame_that_lies_about_its_length_is_refused() {
    let long = [0xff, 0xff, 0xff, 0xff, b'{'];
    assert_eq!(
        protocol::read::<protocol::Request>(&mut Cursor::new(long))
            .unwrap_err()
            .code,
        codes::PROTOCOL
    );
    let short = [9, 0, 0, 0, b'{', b'}'];
    assert_eq!(
        protocol::read::<protocol::Request>(&mut Cursor::new(short))
            .unwrap_err()
            .code,
        codes::PROTOCOL
    );
}

proptest! {
    #[test]
    fn no_input_panics(stdin in proptest::collection::vec(any::<u8>(), 0..200), value in ".*") {
        for command in ["ADD", "DEL", "CHECK", "GC", "STATUS", "VERSION"] {
            let _ = Invocation::parse(vars(command), &stdin);
            let _ = Invocation::parse(|key| Some(if key == "CNI_COMMAND" { command.into() } else { value.clone() }), b"{}");
        }
        let _ = protocol::read::<protocol::Request>(&mut Cursor::new(&stdin));
    }
}

fn sample() -> AddResult {
    let interface = |name: &str, sandbox: Option<&str>| Interface {
        name: name.into(),
        mac: Some("02:74:77:00:00:01".into()),
        mtu: Some(1500),
        sandbox: sandbox.map(Into::into),
    };
    let ip = |address: &str, gateway: &str| Ip {
        address: address.parse().unwrap(),
        gateway: Some(gateway.parse().unwrap()),
        interface: Some(1),
    };
    AddResult {
        interfaces: vec![interface("tw0", None), interface("eth0", Some("/run/netns/a"))],
        ips: vec![ip("10.244.1.2/32", "169.254.1.1"), ip("fd74::2/128", "fe80::1")],
        routes: vec![Route {
            dst: "0.0.0.0/0".parse().unwrap(),
            gw: "169.254.1.1".parse().ok(),
            mtu: None,
        }],
    }
}
