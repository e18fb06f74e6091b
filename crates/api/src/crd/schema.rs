// SPDX-License-Identifier: Apache-2.0
//! The CustomResourceDefinitions.

use serde_json::{Value, json};

use super::{GROUP, NODE_KIND, NODE_PLURAL, POOL_KIND, POOL_PLURAL, VERSION};

/// Networks per family of a pool.
const POOL_CIDRS_MAX: u32 = 64;
/// Digits, dots, hexadecimal digits and colons, a slash, digits; what exactly is a network is said in the pool's status.
const CIDR_PATTERN: &str = "^[0-9a-fA-F:.]+/[0-9]{1,3}$";

/// Both definitions, ready to be applied.
#[must_use]
pub fn definitions() -> [Value; 2] {
    [
        definition(
            POOL_KIND,
            POOL_PLURAL,
            "twpool",
            json!({ "spec": pool_spec(), "status": pool_status() }),
            pool_columns(),
        ),
        definition(
            NODE_KIND,
            NODE_PLURAL,
            "twnode",
            json!({ "spec": node_spec(), "status": node_status() }),
            node_columns(),
        ),
    ]
}

fn definition(kind: &str, plural: &str, short: &str, properties: Value, columns: Value) -> Value {
    json!({
        "apiVersion": "apiextensions.k8s.io/v1",
        "kind": "CustomResourceDefinition",
        "metadata": {
            "name": format!("{plural}.{GROUP}"),
            "labels": { "app.kubernetes.io/name": "thalweg" },
        },
        "spec": {
            "group": GROUP,
            "scope": "Cluster",
            "names": {
                "kind": kind,
                "listKind": format!("{kind}List"),
                "plural": plural,
                "singular": kind.to_lowercase(),
                "shortNames": [short],
            },
            "versions": [{
                "name": VERSION,
                "served": true,
                "storage": true,
                "subresources": { "status": {} },
                "additionalPrinterColumns": columns,
                "schema": { "openAPIV3Schema": { "type": "object", "properties": properties } },
            }],
        },
    })
}

fn pool_columns() -> Value {
    let accepted = ".status.conditions[?(@.type==\"Accepted\")].status";
    json!([
        column("IPv4", "string", ".spec.ipv4.cidrs", 0),
        column("IPv6", "string", ".spec.ipv6.cidrs", 0),
        column("Accepted", "string", accepted, 0),
        column("Used", "integer", ".status.families[0].used", 0),
        column("Capacity", "integer", ".status.families[0].capacity", 0),
        column("Age", "date", ".metadata.creationTimestamp", 0),
        column(
            "Reason",
            "string",
            ".status.conditions[?(@.type==\"Accepted\")].message",
            1
        ),
    ])
}

fn node_columns() -> Value {
    json!([
        column("CIDR", "string", ".spec.pools[0].cidrs[0].cidr", 0),
        column("Used", "integer", ".status.used", 0),
        column("Capacity", "integer", ".status.capacity", 0),
        column("Age", "date", ".metadata.creationTimestamp", 0),
        column("Shortage", "string", ".spec.pools[0].shortage", 1),
    ])
}

fn column(name: &str, kind: &str, path: &str, priority: u8) -> Value {
    json!({ "name": name, "type": kind, "jsonPath": path, "priority": priority })
}

fn object(description: &str, properties: Value) -> Value {
    json!({ "type": "object", "description": description, "properties": properties })
}

fn list(description: &str, items: Value) -> Value {
    json!({ "type": "array", "description": description, "items": items })
}

fn text(description: &str) -> Value {
    json!({ "type": "string", "description": description })
}

fn truth(description: &str) -> Value {
    json!({ "type": "boolean", "description": description })
}

fn number(description: &str) -> Value {
    json!({ "type": "integer", "format": "int64", "minimum": 0, "description": description })
}

fn cidr(description: &str) -> Value {
    json!({ "type": "string", "pattern": CIDR_PATTERN, "description": description })
}

fn families() -> Value {
    list(
        "The families that a pod of this pool gets an address of.",
        json!({ "type": "string", "enum": ["ipv4", "ipv6"] }),
    )
}

fn pool_spec() -> Value {
    let range = |family: &str, bits: u8| {
        json!({
            "type": "object",
            "description": format!("The pool's {family} addresses. Left out: its pods have none."),
            "required": ["cidrs", "nodeMaskSize"],
            "properties": {
                "cidrs": {
                    "type": "array",
                    "description": "Networks. More can be added at any time; of one that is taken out nothing more is handed out.",
                    "minItems": 1,
                    "maxItems": POOL_CIDRS_MAX,
                    "items": cidr("A network without host bits."),
                },
                "nodeMaskSize": {
                    "type": "integer",
                    "description": "The prefix length of the blocks that nodes get.",
                    "minimum": 1,
                    "maximum": bits,
                },
            },
        })
    };
    object(
        "Where addresses of pods come from.",
        json!({ "ipv4": range("IPv4", 32), "ipv6": range("IPv6", 128) }),
    )
}

fn pool_status() -> Value {
    let holder = object(
        "Who holds the block.",
        json!({ "node": text("The node."), "uid": text("The UID of its ThalwegNode.") }),
    );
    let family = object(
        "How full one family's part is.",
        json!({
            "family": { "type": "string", "enum": ["ipv4", "ipv6"] },
            "blocks": number("Blocks there are."),
            "blocksHeld": number("Blocks that nodes hold."),
            "capacity": number("Addresses that pods can have."),
            "used": number("Addresses that pods have, as the nodes last said."),
            "free": number("Addresses that are left."),
            "exhaustedInSeconds": number("When none is left if use goes on growing as lately; absent while that is not known."),
        }),
    );
    object(
        "How the pool is. The operator writes it; nobody else may.",
        json!({
            "observedGeneration": number("The generation that this describes."),
            "term": number("The term of the operator that wrote last."),
            "sequence": number("How often operators have written."),
            "blocks": {
                "type": "object",
                "description": "The ledger: which node holds which block.",
                "additionalProperties": holder,
            },
            "families": list("How full it is.", family),
            "conditions": conditions(),
        }),
    )
}

fn conditions() -> Value {
    json!({
        "type": "array",
        "description": "What is the case.",
        "x-kubernetes-list-type": "map",
        "x-kubernetes-list-map-keys": ["type"],
        "items": {
            "type": "object",
            "required": ["type", "status"],
            "properties": {
                "type": text("What it is about."),
                "status": { "type": "string", "enum": ["True", "False", "Unknown"] },
                "lastTransitionTime": { "type": "string", "format": "date-time" },
                "reason": text("Why, in one word."),
                "message": text("Why, for people."),
            },
        },
    })
}

fn node_spec() -> Value {
    let block = object(
        "A block of addresses.",
        json!({
            "cidr": cidr("The addresses."),
            "releasing": truth("Whether the operator wants it back: the node gives no new addresses from it."),
        }),
    );
    let pool = object(
        "What the node has of one pool.",
        json!({
            "name": text("The pool."),
            "families": families(),
            "cidrs": list("The blocks.", block),
            "shortage": text("Why the node does not get what it asks for."),
        }),
    );
    object(
        "What the node has been handed. The operator writes it; nobody else may.",
        json!({
            "term": number("The term of the operator that wrote last."),
            "pools": list("Per pool.", pool),
        }),
    )
}

fn node_status() -> Value {
    let block = object(
        "How full a block is.",
        json!({
            "cidr": cidr("The addresses."),
            "used": number("Addresses that pods have."),
            "resting": number("Addresses that rest until their connections are forgotten."),
            "released": truth("Whether the node has done with it."),
        }),
    );
    let pool = object(
        "How the node's part of one pool is.",
        json!({
            "name": text("The pool."),
            "wanted": number("How many addresses the node wants to have per family, those in use included."),
            "cidrs": list("The blocks.", block),
        }),
    );
    object(
        "What the node says. Its agent writes it.",
        json!({
            "observedGeneration": number("The generation of the specification that the agent acts on."),
            "capacity": number("Addresses that pods can have, of the first family."),
            "used": number("Addresses that pods have, of the first family."),
            "pools": list("Per pool.", pool),
        }),
    )
}
