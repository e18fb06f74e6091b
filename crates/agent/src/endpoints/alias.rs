// SPDX-License-Identifier: Apache-2.0
//! What an endpoint is, as text in its veth's alias: the only place where it is kept over a restart (decision 0002).
//!
//! `tw1 <container ID> <interface> <address>[,<address>] <pod UID> <namespace>/<name>`, with `-` for what is not known; and of a pod
//! whose devices another network made, or that has a hardware address of its own:
//! `tw2 <container ID> <interface> <address>[,<address>] <MAC> made|adopted <pod UID> <namespace>/<name>`.

use std::net::IpAddr;

use model::{Endpoint, EndpointId, Mac, PodRef};

use super::pod_mac;

/// What the kernel keeps of an alias.
pub const MAX_ALIAS: usize = 255;
/// Names the format; another one means another release.
const TAG: &str = "tw1";
/// That of the longer form.
const TAG_LONG: &str = "tw2";
const MADE: &str = "made";
const ADOPTED: &str = "adopted";
const UNKNOWN: &str = "-";

/// What an alias says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Alias {
    /// The attachment.
    pub id: EndpointId,
    /// The pod; its name and UID may be missing.
    pub pod: PodRef,
    /// Its addresses.
    pub ips: Vec<IpAddr>,
    /// Its hardware address.
    pub mac: Mac,
    /// Whether another network made its devices.
    pub adopted: bool,
}

/// An alias that is not one of ours.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("alias {alias:?} is not of this release: {reason}")]
pub struct AliasError {
    alias: String,
    reason: &'static str,
}

impl Alias {
    /// Of an endpoint.
    #[must_use]
    pub fn of(endpoint: &Endpoint) -> Self {
        Self {
            id: endpoint.id.clone(),
            pod: endpoint.pod.clone(),
            ips: endpoint.ips.clone(),
            mac: endpoint.mac,
            adopted: endpoint.adopted,
        }
    }

    /// The text. Container ID, interface and addresses always fit; the UID and the pod's name are left out if they do not.
    #[must_use]
    pub fn encode(&self) -> String {
        let Self {
            id,
            pod,
            ips,
            mac,
            adopted,
        } = self;
        let is_usual = !adopted && *mac == pod_mac(ips);
        let ips: Vec<String> = ips.iter().map(IpAddr::to_string).collect();
        let attachment = format!("{} {} {}", id.container_id, id.ifname, ips.join(","));
        let needed = if is_usual {
            format!("{TAG} {attachment}")
        } else {
            format!(
                "{TAG_LONG} {attachment} {mac} {}",
                if *adopted { ADOPTED } else { MADE }
            )
        };
        let uid = if pod.uid.is_empty() { UNKNOWN } else { &pod.uid };
        let name = if pod.name.is_empty() {
            UNKNOWN.into()
        } else {
            pod.to_string()
        };
        let forms = [
            format!("{needed} {uid} {name}"),
            format!("{needed} {uid} {UNKNOWN}"),
            format!("{needed} {UNKNOWN} {UNKNOWN}"),
        ];
        forms
            .into_iter()
            .find(|form| form.len() <= MAX_ALIAS)
            .unwrap_or(needed)
    }

    /// Reads the text.
    ///
    /// # Errors
    /// When somebody else wrote it.
    pub fn decode(text: &str) -> Result<Self, AliasError> {
        let error = |reason| AliasError {
            alias: text.to_owned(),
            reason,
        };
        let parts: Vec<&str> = text.split(' ').collect();
        let (container_id, ifname, ips, own, rest) = match parts.as_slice() {
            [TAG, container_id, ifname, ips, rest @ ..] => (container_id, ifname, ips, None, rest),
            [
                TAG_LONG,
                container_id,
                ifname,
                ips,
                mac,
                how @ (MADE | ADOPTED),
                rest @ ..,
            ] => {
                let mac: Result<Mac, _> = mac.parse();
                let mac = mac.map_err(|_| error("the hardware address cannot be read"))?;
                (container_id, ifname, ips, Some((mac, *how == ADOPTED)), rest)
            }
            _ => {
                return Err(error(
                    "it does not begin with \"tw1\" or \"tw2\" and an attachment",
                ));
            }
        };
        let attachment = cni::Attachment {
            container_id: (*container_id).into(),
            ifname: (*ifname).into(),
        };
        attachment
            .check()
            .map_err(|_| error("the attachment is not a valid one"))?;
        let ips: Result<Vec<IpAddr>, _> = ips.split(',').map(str::parse).collect();
        let ips = ips.map_err(|_| error("an address cannot be read"))?;
        let known = |text: Option<&&str>| {
            text.filter(|text| **text != UNKNOWN)
                .map(|text| (*text).to_owned())
        };
        let mut pod = PodRef {
            uid: known(rest.first()).unwrap_or_default(),
            ..PodRef::default()
        };
        if let Some((namespace, name)) = rest.get(1).and_then(|text| text.split_once('/')) {
            (pod.namespace, pod.name) = (namespace.to_owned(), name.to_owned());
        }
        let id = EndpointId {
            container_id: attachment.container_id,
            ifname: attachment.ifname,
        };
        let (mac, adopted) = own.unwrap_or_else(|| (pod_mac(&ips), false));
        Ok(Self {
            id,
            pod,
            ips,
            mac,
            adopted,
        })
    }
}

#[cfg(test)]
mod tests {
    use cni::{MAX_CONTAINER_ID, MAX_IFNAME};
    use proptest::prelude::*;

    use super::*;

    fn alias(container: &str, ifname: &str, pod: [&str; 3]) -> Alias {
        let [namespace, name, uid] = pod.map(str::to_owned);
        let id = EndpointId {
            container_id: container.into(),
            ifname: ifname.into(),
        };
        let ips: Vec<IpAddr> = ["255.255.255.255", "fd74:7710:ffff:ffff:ffff:ffff:ffff:ffff"]
            .map(|ip| ip.parse().unwrap())
            .into();
        Alias {
            id,
            pod: PodRef { namespace, name, uid },
            mac: pod_mac(&ips),
            ips,
            adopted: false,
        }
    }

    #[test]
    fn a_usual_alias_keeps_all() {
        let usual = alias("4f1c8d", "eth0", ["default", "web-1", "0c8a"]);
        let text =
            "tw1 4f1c8d eth0 255.255.255.255,fd74:7710:ffff:ffff:ffff:ffff:ffff:ffff 0c8a default/web-1";
        assert_eq!(usual.encode(), text);
        assert_eq!(Alias::decode(text), Ok(usual));
    }

    #[test]
    fn what_is_not_usual_is_kept_too() {
        let mut unusual = alias("4f1c8d", "eth0", ["default", "web-1", "0c8a"]);
        unusual.mac = Mac([2, 0, 0, 0, 0, 9]);
        let text = "tw2 4f1c8d eth0 255.255.255.255,fd74:7710:ffff:ffff:ffff:ffff:ffff:ffff 02:00:00:00:00:09 made 0c8a default/web-1";
        assert_eq!(unusual.encode(), text);
        assert_eq!(Alias::decode(text), Ok(unusual.clone()));
        unusual.adopted = true;
        assert_eq!(Alias::decode(&unusual.encode()), Ok(unusual));

        let mut longest = alias(
            &"a".repeat(MAX_CONTAINER_ID),
            &"e".repeat(MAX_IFNAME),
            ["n", "p", &"u".repeat(36)],
        );
        longest.adopted = true;
        let text = longest.encode();
        assert!(text.len() <= MAX_ALIAS, "{}", text.len());
        let decoded = Alias::decode(&text).unwrap();
        assert_eq!(
            (decoded.id, decoded.mac, decoded.adopted),
            (longest.id, longest.mac, true)
        );
    }

    #[test]
    fn the_needed_always_fits_with_the_uid() {
        let (id, ifname, uid) = (
            "a".repeat(MAX_CONTAINER_ID),
            "e".repeat(MAX_IFNAME),
            "u".repeat(36),
        );
        let text = alias(&id, &ifname, [&"n".repeat(63), &"p".repeat(253), &uid]).encode();
        assert!(text.len() <= MAX_ALIAS, "{}", text.len());
        let decoded = Alias::decode(&text).unwrap();
        assert_eq!(
            (decoded.id.container_id, decoded.pod.uid, decoded.pod.name),
            (id, uid, String::new())
        );
    }

    #[test]
    fn texts_of_others_are_refused() {
        for text in [
            "",
            "tw2 a eth0 10.0.0.1 - -",
            "tw2 a eth0 10.0.0.1 02:00:00:00:00:09 stolen - -",
            "tw3 a eth0 10.0.0.1 - -",
            "tw1 a eth0",
            "tw1 a eth0 nine - -",
            "tw1 ../a eth0 10.0.0.1 - -",
        ] {
            assert!(Alias::decode(text).is_err(), "{text}");
        }
    }

    proptest! {
        #[test]
        fn attachment_and_addresses_survive(id in "[a-zA-Z0-9][a-zA-Z0-9_.-]{0,127}", ifname in "[a-z0-9.-]{3,15}",
                                            uid in "[a-z0-9-]{0,253}", name in "[a-z0-9.-]{0,253}") {
            let given = alias(&id, &ifname, ["default", &name, &uid]);
            let text = given.encode();
            prop_assert!(text.len() <= MAX_ALIAS);
            let decoded = Alias::decode(&text).unwrap();
            prop_assert_eq!((decoded.id, decoded.ips), (given.id, given.ips));
        }

        #[test]
        fn no_text_panics(text in ".*") {
            let _ = Alias::decode(&text);
        }
    }
}
