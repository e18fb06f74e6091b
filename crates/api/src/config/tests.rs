// SPDX-License-Identifier: Apache-2.0

use std::path::Path;

use super::*;

#[test]
fn defaults_are_valid_and_come_from_nowhere() {
    let config = Config::load(Inputs {
        hostname: Some("Node-1"),
        ..Inputs::default()
    })
    .unwrap();
    assert_eq!(config.node_name, "node-1");
    assert_eq!(config.cni.socket, Path::new("/run/thalweg/cni.sock"));
    assert_eq!((config.mtu, config.kubeconfig), (None, None));
    assert!(
        config
            .effective
            .iter()
            .all(|effective| effective.source == Source::Default)
    );
}

#[test]
fn every_key_is_taken_once_and_shown_in_the_order_of_the_list() {
    let config = Config::from_yaml(b"").unwrap();
    let taken: Vec<_> = config.effective.iter().map(|effective| effective.key).collect();
    let listed: Vec<_> = KEYS.iter().map(|key| key.path).collect();
    assert_eq!(taken, listed);
}

#[test]
fn a_flag_wins_over_the_environment_over_the_file_over_the_default() {
    let file = b"mtu: 1400\nlog: {level: debug}\nrunDir: /run/file\n";
    let inputs = |environment: &[(&str, &str)], flags: &[(&'static str, &str)]| Inputs {
        file: Some(File {
            path: Path::new("/c.yaml"),
            content: file,
        }),
        environment: environment
            .iter()
            .map(|(name, value)| (name.into(), value.into()))
            .collect(),
        flags: flags
            .iter()
            .map(|(key, value)| (*key, (*value).to_owned()))
            .collect(),
        hostname: Some("n"),
    };
    let config = Config::load(inputs(&[("THALWEG_MTU", "1450")], &[("mtu", "1500")])).unwrap();
    assert_eq!(
        (config.mtu, config.source("mtu")),
        (Some(1500), &Source::Flag("mtu".to_owned()))
    );
    let config = Config::load(inputs(&[("THALWEG_MTU", "1450")], &[])).unwrap();
    assert_eq!(
        (config.mtu, config.source("mtu")),
        (Some(1450), &Source::Environment("THALWEG_MTU".to_owned()))
    );
    let config = Config::load(inputs(&[], &[])).unwrap();
    assert_eq!(
        (config.mtu, config.source("mtu")),
        (Some(1400), &Source::File("/c.yaml".into()))
    );
    assert_eq!(config.log_level, LogLevel::Debug);
    assert_eq!(config.cni.socket, Path::new("/run/file/cni.sock"));
}

#[test]
fn a_key_has_a_flag_and_a_variable() {
    let key = Key::find("conntrack.gcIntervalSeconds").unwrap();
    assert_eq!(key.flag(), "conntrack-gc-interval-seconds");
    assert_eq!(key.variable(), "THALWEG_CONNTRACK_GC_INTERVAL_SECONDS");
}

#[test]
fn everything_that_is_wrong_is_said_at_once() {
    let inputs = Inputs {
        file: Some(File {
            path: Path::new("/c.yaml"),
            content: b"routingMod: native\nbpffs: sys/fs/bpf\n",
        }),
        environment: vec![("THALWEG_MTU".into(), "90000".into())],
        flags: vec![("log.level", "loud".to_owned())],
        hostname: None,
    };
    let error = Config::load(inputs).unwrap_err().to_string();
    assert_eq!(
        error.lines().collect::<Vec<_>>(),
        [
            "the configuration is wrong in 5 places:",
            "  routingMod (from file /c.yaml): there is no such setting; did you mean routingMode?",
            "  nodeName: \"\" (from default) is not a node's name: small letters, digits, '-' and '.', beginning and \
             ending with a letter or digit; set it with --node-name or in the configuration file",
            "  mtu: \"90000\" (from environment variable THALWEG_MTU) is not 0 (automatic) or a number from 1280 to \
             65535; change or unset THALWEG_MTU",
            "  bpffs: \"sys/fs/bpf\" (from file /c.yaml) is not an absolute path without '..'; change it in /c.yaml",
            "  log.level: \"loud\" (from flag --log-level) is not one of error, warn, info, debug, trace; change \
             --log-level",
        ]
    );
}

#[test]
fn wrong_values_are_refused() {
    for yaml in [
        "mtu: 1000",
        "mtu: -1",
        "mtu: 65536",
        "mtu: [1500]",
        "mtu: {a: 1}",
        "routingMode: vxlan",
        "ipam: {mode: eni}",
        "autoDirectNodeRoutes: true",
        "devices: [eth0, this-name-is-too-long]",
        "devices: 'eth0,,eth1'",
        "devices: [a/b]",
        "cni: {confDir: ../x}",
        "cni: {confDir: ''}",
        "cni.removeConfOnExit: maybe",
        "kubeconfig: admin.conf",
        "runDir: /run/../etc",
        "conntrack: {maxEntries: 3}",
        "conntrack: {gcIntervalSeconds: 0}",
        "conntrack: {timeouts: {synSeconds: 1.5}}",
        "conntrack: {timeouts: {establishedSeconds: 2592000}}",
        "events: {ringBytes: 5000}",
        "metricsAddress: '9964'",
        "health: {enabled: sometimes}",
        "health: {intervalSeconds: 1}",
        "health: {port: 0}",
        "log: {format: xml}",
        "nodeName: Node_1",
        "mtu: !bytes 1500",
    ] {
        let error = Config::from_yaml(yaml.as_bytes()).expect_err(yaml);
        assert!(
            matches!(error.problems[..], [Problem::Value { .. }]),
            "{yaml}: {error}"
        );
    }
}

#[test]
fn unknown_keys_are_refused_with_the_nearest_known_one() {
    for (yaml, expected) in [
        ("mut: 1500", Some("mtu")),
        ("cni: {confdir: /x}", Some("cni.confDir")),
        ("confDir: /x", Some("cni.confDir")),
        (
            "conntrack: {timeouts: {synSecond: 3}}",
            Some("conntrack.timeouts.synSeconds"),
        ),
        ("bananas: 3", None),
        ("42: x", None),
    ] {
        let error = Config::from_yaml(yaml.as_bytes()).expect_err(yaml);
        match &error.problems[..] {
            [Problem::UnknownKey { nearest, .. }] => {
                assert_eq!(*nearest, expected, "{error}")
            }
            _ => panic!("{yaml}: {error}"),
        }
    }
}

#[test]
fn files_that_are_no_settings_are_refused() {
    for content in [
        &b"- a\n- b\n"[..],
        b"\xff\xfe",
        b"a: [",
        b"just text",
        b"mtu: 1\nmtu: 2",
        b"\0",
    ] {
        let error = Config::from_yaml(content).expect_err("not a configuration");
        assert!(matches!(error.problems[..], [Problem::File { .. }]), "{error}");
    }
    let error = Config::from_yaml(b"cni.confDir: /a\ncni: {confDir: /b}\n").unwrap_err();
    assert!(
        matches!(
            error.problems[..],
            [Problem::Twice {
                key: "cni.confDir",
                ..
            }]
        ),
        "{error}"
    );
    assert!(Config::from_yaml(&vec![b' '; FILE_BYTES_MAX + 1]).is_err());
}

#[test]
fn a_path_that_makes_too_long_a_socket_name_is_refused() {
    let yaml = format!("runDir: /{}\n", "x".repeat(105));
    let error = Config::from_yaml(yaml.as_bytes()).unwrap_err().to_string();
    assert!(error.contains("runDir") && error.contains("107 bytes"), "{error}");
}

#[test]
fn an_unknown_variable_is_a_warning_unless_kubernetes_made_it_for_a_service() {
    let environment = [
        ("THALWEG_MUT", "1"),
        ("THALWEG_SERVICE_HOST", "1"),
        ("THALWEG_PORT_80_TCP_ADDR", "1"),
        ("X", ""),
    ];
    let inputs = Inputs {
        environment: environment
            .iter()
            .map(|(name, value)| (name.into(), value.into()))
            .collect(),
        hostname: Some("n"),
        ..Inputs::default()
    };
    let config = Config::load(inputs).unwrap();
    assert_eq!(
        config.warnings,
        ["the environment variable THALWEG_MUT names no setting and is ignored; did you mean THALWEG_MTU?"]
    );
}

#[test]
fn what_is_printed_can_be_read_again() {
    let config = Config::from_yaml(b"devices: [eth0, eth1]\nlog: {level: debug}\ncni:\n").unwrap();
    let printed = config.to_yaml();
    assert!(
        printed.contains("devices: \"eth0,eth1\"  # file /etc/thalweg/config.yaml\n"),
        "{printed}"
    );
    let again = Config::from_yaml(printed.as_bytes()).unwrap();
    assert_eq!(again.devices, ["eth0", "eth1"]);
    assert_eq!(again.log_level, LogLevel::Debug);
}

#[test]
fn services_have_settings_that_fit_together() {
    let config = Config::from_yaml(b"").unwrap();
    assert_eq!(config.services, None, "kube-proxy serves them unless it is said");
    let services = |text: &str| Config::from_yaml(text.as_bytes()).map(|config| config.services.unwrap());
    let all = services(
        "kubeProxyReplacement: true\nloadBalancer: {algorithm: maglev, maglevTableSize: 1021, noBackend: drop, servicesMax: 1000}\n\
         nodePort: {range: 20000-22767, addresses: [10.0.0.1/8]}\n",
    )
    .unwrap();
    assert_eq!(
        (all.algorithm, all.maglev_table_size, all.silent),
        (model::Algorithm::Maglev, 1021, true)
    );
    assert_eq!((all.services_max, all.node_ports), (Some(1000), (20_000, 22_767)));
    assert_eq!(all.node_port_networks, ["10.0.0.0/8".parse().unwrap()]);
    let refused = |text: &str| {
        services(&format!("kubeProxyReplacement: true\n{text}"))
            .unwrap_err()
            .to_string()
    };
    assert!(refused("hostRouting: true").contains("false while hostRouting is true"));
    assert!(refused("cni: {chainingMode: aws-cni}").contains("false while cni.chainingMode is set"));
    assert!(refused("loadBalancer: {maglevTableSize: 250}").contains("one of 251, 509"));
    let overlap = refused("nodePort: {range: 30000-50000}");
    assert!(
        overlap.contains("apart from masquerade.portRange (49152-65535)"),
        "{overlap}"
    );
}
