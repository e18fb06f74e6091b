// SPDX-License-Identifier: Apache-2.0
//! Answers in XML as what the command line of AWS prints for them.
//!
//! EC2's names begin with a small letter and lists are called sets; the command line's begin with a capital, and most lists have
//! a plural. XML does not say which words are numbers or truth values, so the ones that are read have their kind here. A
//! test asks AWS's own library the same questions and compares.

use roxmltree::{Document, Node, ParsingOptions};
use serde_json::{Map, Value};

/// How deep elements may lie within each other.
const DEPTH_MAX: usize = 32;
/// The most elements of an answer.
const ELEMENTS_MAX: u32 = 4 << 20;

/// EC2's lists whose name on the command line is not that of the set.
const RENAMED: [(&str, &str); 13] = [
    ("associationSet", "Associations"),
    ("instanceTypeSet", "InstanceTypes"),
    ("natGatewayAddressSet", "NatGatewayAddresses"),
    ("natGatewaySet", "NatGateways"),
    ("propagatingVgwSet", "PropagatingVgws"),
    ("routeSet", "Routes"),
    ("routeTableSet", "RouteTables"),
    ("subnetSet", "Subnets"),
    ("tagSet", "Tags"),
    ("vpcPeeringConnectionSet", "VpcPeeringConnections"),
    ("vpcSet", "Vpcs"),
    ("gpuInfo", "GpuInfo"),
    ("vCpuInfo", "VCpuInfo"),
];

/// Numbers of EC2 that somebody reads.
const NUMBERS: [&str; 8] = [
    "availableIpAddressCount",
    "defaultNetworkCardIndex",
    "defaultVCpus",
    "ipv4AddressesPerInterface",
    "ipv6AddressesPerInterface",
    "maximumNetworkCards",
    "maximumNetworkInterfaces",
    "networkCardIndex",
];

/// Truth values of EC2 that somebody reads.
const TRUTHS: [&str; 5] = ["bareMetal", "defaultForAz", "ipv6Supported", "isDefault", "main"];

/// An answer of EC2.
pub(crate) fn ec2(text: &str) -> Result<Value, String> {
    let document = parse(text)?;
    let mut answer = object(document.root_element(), ec2_value, 0)?;
    answer.remove("RequestId");
    Ok(Value::Object(answer))
}

/// An answer of IAM.
pub(crate) fn iam(text: &str) -> Result<Value, String> {
    let document = parse(text)?;
    let result = document
        .root_element()
        .children()
        .find(|child| child.is_element() && child.tag_name().name().ends_with("Result"));
    let result = result.ok_or("there is no result in it")?;
    Ok(Value::Object(object(result, iam_value, 0)?))
}

/// Code and message of a refusal of either.
pub(crate) fn refusal(text: &str) -> Option<(String, String)> {
    let document = parse(text).ok()?;
    let error = document
        .descendants()
        .find(|node| node.tag_name().name() == "Error")?;
    let said = |name| {
        error
            .children()
            .find(|child| child.tag_name().name() == name)
            .map(said)
    };
    Some((said("Code")?, said("Message").unwrap_or_default()))
}

fn parse(text: &str) -> Result<Document<'_>, String> {
    let options = ParsingOptions {
        allow_dtd: false,
        nodes_limit: ELEMENTS_MAX,
        ..ParsingOptions::default()
    };
    Document::parse_with_options(text, options).map_err(|error| format!("it is no XML: {error}"))
}

fn elements<'a>(node: Node<'a, 'a>) -> impl Iterator<Item = Node<'a, 'a>> {
    node.children().filter(Node::is_element)
}

fn said(node: Node<'_, '_>) -> String {
    node.text().unwrap_or_default().trim().to_owned()
}

type Reader = fn(Node<'_, '_>, usize) -> Result<Value, String>;

fn object(node: Node<'_, '_>, read: Reader, depth: usize) -> Result<Map<String, Value>, String> {
    if depth > DEPTH_MAX {
        return Err(format!("elements lie more than {DEPTH_MAX} deep"));
    }
    elements(node)
        .map(|child| Ok((capital(child.tag_name().name()), read(child, depth + 1)?)))
        .collect()
}

fn list(node: Node<'_, '_>, read: Reader, depth: usize) -> Result<Value, String> {
    if depth > DEPTH_MAX {
        return Err(format!("elements lie more than {DEPTH_MAX} deep"));
    }
    let items: Result<Vec<Value>, String> = elements(node).map(|item| read(item, depth + 1)).collect();
    Ok(Value::Array(items?))
}

fn capital(name: &str) -> String {
    if let Some((_, renamed)) = RENAMED.iter().find(|(known, _)| *known == name) {
        return (*renamed).to_owned();
    }
    let mut letters = name.chars();
    let first = letters.next().map(|letter| letter.to_ascii_uppercase());
    first.into_iter().chain(letters).collect()
}

fn ec2_value(node: Node<'_, '_>, depth: usize) -> Result<Value, String> {
    let name = node.tag_name().name();
    let mut inside = elements(node).peekable();
    match inside.peek() {
        Some(first) if first.tag_name().name() == "item" => list(node, ec2_value, depth),
        Some(_) => Ok(Value::Object(object(node, ec2_value, depth)?)),
        None if name.ends_with("Set") => Ok(Value::Array(Vec::new())),
        None => scalar(name, &said(node)),
    }
}

fn scalar(name: &str, text: &str) -> Result<Value, String> {
    if NUMBERS.contains(&name) {
        let number: Result<u64, _> = text.parse();
        return number
            .map(Value::from)
            .map_err(|_| format!("{name} is `{text}`, which is no number"));
    }
    if TRUTHS.contains(&name) {
        return match text {
            "true" => Ok(Value::Bool(true)),
            "false" => Ok(Value::Bool(false)),
            _ => Err(format!("{name} is `{text}`, neither true nor false")),
        };
    }
    Ok(Value::from(text))
}

fn iam_value(node: Node<'_, '_>, depth: usize) -> Result<Value, String> {
    let name = node.tag_name().name();
    let mut inside = elements(node).peekable();
    match inside.peek() {
        Some(first) if first.tag_name().name() == "member" => list(node, iam_value, depth),
        Some(_) => Ok(Value::Object(object(node, iam_value, depth)?)),
        None => match (name, said(node)) {
            ("AttachedPolicies" | "PolicyNames", _) => Ok(Value::Array(Vec::new())),
            ("IsTruncated", text) => Ok(Value::Bool(text == "true")),
            // The document travels encoded as in an address.
            ("PolicyDocument" | "Document", text) => document(&text),
            (_, text) => Ok(Value::from(text)),
        },
    }
}

fn document(encoded: &str) -> Result<Value, String> {
    let text = percent_decoded(encoded);
    serde_json::from_str(&text).map_err(|error| format!("the policy's document is no JSON: {error}"))
}

/// Percent-decoding alone: unlike in a form, a plus sign is one.
fn percent_decoded(text: &str) -> String {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((first, after)) = rest.split_first() {
        let code = after
            .get(..2)
            .filter(|_| *first == b'%')
            .and_then(|digits| std::str::from_utf8(digits).ok())
            .and_then(|digits| u8::from_str_radix(digits, 16).ok());
        match code {
            Some(code) => {
                bytes.push(code);
                rest = &after[2..];
            }
            None => {
                bytes.push(*first);
                rest = after;
            }
        }
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn an_answer_of_ec2_is_as_the_command_line_prints_it() {
        let text = "<DescribeSubnetsResponse xmlns=\"http://ec2.amazonaws.com/doc/2016-11-15/\"><requestId>x</requestId><subnetSet><item>\
            <subnetId>subnet-1</subnetId><cidrBlock>10.0.0.0/24</cidrBlock><availableIpAddressCount>251</availableIpAddressCount>\
            <ownerId>123456789012</ownerId><defaultForAz>false</defaultForAz><ipv6CidrBlockAssociationSet/>\
            <tagSet><item><key>on</key><value>true</value></item></tagSet></item></subnetSet></DescribeSubnetsResponse>";
        let expected = json!({"Subnets": [{
            "SubnetId": "subnet-1", "CidrBlock": "10.0.0.0/24", "AvailableIpAddressCount": 251, "OwnerId": "123456789012",
            "DefaultForAz": false, "Ipv6CidrBlockAssociationSet": [], "Tags": [{"Key": "on", "Value": "true"}],
        }]});
        assert_eq!(ec2(text).unwrap(), expected);
        assert_eq!(
            ec2("<R><vpcSet/><requestId>x</requestId></R>").unwrap(),
            json!({"Vpcs": []})
        );
    }

    #[test]
    fn an_answer_of_iam_has_its_documents_decoded() {
        let text = "<GetRolePolicyResponse><GetRolePolicyResult><RoleName>r</RoleName><PolicyDocument>%7B%22Statement%22%3A%5B%22a+b%22%5D%7D\
            </PolicyDocument></GetRolePolicyResult><ResponseMetadata/></GetRolePolicyResponse>";
        assert_eq!(
            iam(text).unwrap(),
            json!({"RoleName": "r", "PolicyDocument": {"Statement": ["a+b"]}})
        );
        let text = "<A><ListRolePoliciesResult><PolicyNames><member>p</member></PolicyNames><IsTruncated>true</IsTruncated>\
            <Marker>m</Marker></ListRolePoliciesResult></A>";
        assert_eq!(
            iam(text).unwrap(),
            json!({"PolicyNames": ["p"], "IsTruncated": true, "Marker": "m"})
        );
    }

    #[test]
    fn refusals_of_both_are_read() {
        let ec2 = "<?xml version=\"1.0\"?><Response><Errors><Error><Code>UnauthorizedOperation</Code><Message>no</Message></Error></Errors></Response>";
        let iam = "<ErrorResponse xmlns=\"https://iam\"><Error><Type>Sender</Type><Code>Throttling</Code><Message>Rate exceeded</Message></Error></ErrorResponse>";
        assert_eq!(refusal(ec2), Some(("UnauthorizedOperation".into(), "no".into())));
        assert_eq!(refusal(iam), Some(("Throttling".into(), "Rate exceeded".into())));
        assert_eq!(refusal("<html/>"), None);
    }

    #[test]
    fn what_is_no_answer_is_refused_with_the_reason() {
        let deep = format!("{}{}", "<a>".repeat(100), "</a>".repeat(100));
        for (text, reason) in [
            ("", "no XML"),
            ("{}", "no XML"),
            ("<a><b></a>", "no XML"),
            ("<!DOCTYPE a [<!ENTITY b \"bb\">]><a>&b;</a>", "no XML"),
            (&*deep, "deep"),
            (
                "<a><availableIpAddressCount>many</availableIpAddressCount></a>",
                "no number",
            ),
            ("<a><isDefault>perhaps</isDefault></a>", "neither"),
        ] {
            let error = ec2(text).unwrap_err();
            assert!(error.contains(reason), "{text}: {error}");
        }
        assert!(iam("<a/>").unwrap_err().contains("no result"));
        assert!(
            iam("<a><xResult><Document>{</Document></xResult></a>")
                .unwrap_err()
                .contains("no JSON")
        );
    }
}
