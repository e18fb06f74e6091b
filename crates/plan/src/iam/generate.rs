// SPDX-License-Identifier: Apache-2.0
//! The least policy of a mode.

use serde_json::{Map, Value, json};

use super::{CLUSTER_TAG, MANAGED_TAG, Need, Scope, Target, needs};

/// A policy, and what has to be so for it to work.
#[derive(Clone, Debug, PartialEq)]
pub struct Generated {
    /// The document; `None` where nothing is needed.
    pub document: Option<Value>,
    /// What else has to be done or known.
    pub notes: Vec<String>,
}

/// Makes the policy that allows what a scope needs, and nothing else.
#[must_use]
pub fn policy(scope: &Scope) -> Generated {
    let needs = needs(scope);
    if needs.is_empty() {
        return Generated {
            document: None,
            notes: vec![format!(
                "mode {} asks nothing of AWS: addresses come from elsewhere; give the operator no role",
                scope.mode
            )],
        };
    }
    let statements = if scope.scoped {
        scoped(scope, &needs)
    } else {
        let actions: Vec<&str> = needs.iter().map(|need| need.action).collect();
        vec![statement("Thalweg", &actions, json!("*"), Value::Null)]
    };
    Generated {
        document: Some(json!({ "Version": "2012-10-17", "Statement": statements })),
        notes: notes(scope),
    }
}

fn notes(scope: &Scope) -> Vec<String> {
    if !scope.scoped {
        return vec!["not scoped: the role may change every network interface of the account".to_owned()];
    }
    let mut notes = vec![
        "the Describe actions know no resources: AWS allows them on * only".to_owned(),
        format!(
            "interfaces are recognised by the tag {CLUSTER_TAG}={}, which the operator gives them when it makes them",
            scope.cluster
        ),
        format!(
            "machines are recognised by the tag kubernetes.io/cluster/{}=owned, which EKS gives those of its node groups; others need it from their launch template",
            scope.cluster
        ),
    ];
    if scope.first_interface {
        notes.push(format!(
            "pods use the first interface: the launch template has to tag network interfaces, too, with kubernetes.io/cluster/{}=owned",
            scope.cluster
        ));
    }
    if scope.vpc.is_none() {
        notes.push("no VPC is named: interfaces may be made in every subnet of the account; narrow it down with --vpc".to_owned());
    }
    if scope.account == "*" || scope.region == "*" {
        notes.push("account or region are not named; narrow it down with --account and --region".to_owned());
    }
    notes
}

/// The actions that are decided on a target, but for those that are treated apart.
fn on(needs: &[Need], target: Target) -> Vec<&'static str> {
    let found = needs.iter().filter(|need| need.targets.contains(&target));
    found.map(|need| need.action).collect()
}

fn scoped(scope: &Scope, needs: &[Need]) -> Vec<Value> {
    let interfaces = json!(scope.arn("network-interface", "*"));
    let owned = format!("kubernetes.io/cluster/{}", scope.cluster);
    let resource_tag =
        |key: &str, value: &str| json!({ "StringEquals": { format!("aws:ResourceTag/{key}"): value } });
    let ours = json!({ "StringEquals": {
        format!("aws:ResourceTag/{CLUSTER_TAG}"): scope.cluster,
        format!("aws:ResourceTag/{MANAGED_TAG}"): "true",
    }});
    let made = json!({ "StringEquals": {
        format!("aws:RequestTag/{CLUSTER_TAG}"): scope.cluster,
        format!("aws:RequestTag/{MANAGED_TAG}"): "true",
    }});
    let tagging = json!({ "StringEquals": {
        "ec2:CreateAction": "CreateNetworkInterface",
        format!("aws:RequestTag/{CLUSTER_TAG}"): scope.cluster,
    }});
    let places = json!([scope.arn("subnet", "*"), scope.arn("security-group", "*")]);
    let vpc = scope.vpc.as_ref().map_or(
        Value::Null,
        |vpc| json!({ "ArnLike": { "ec2:Vpc": scope.arn("vpc", vpc) } }),
    );
    let mut statements = vec![
        statement("Read", &on(needs, Target::Any), json!("*"), Value::Null),
        statement(
            "MakeInterfaces",
            &["ec2:CreateNetworkInterface"],
            interfaces.clone(),
            made,
        ),
        statement("MakeInterfacesHere", &["ec2:CreateNetworkInterface"], places, vpc),
        statement("TagWhatIsMade", &["ec2:CreateTags"], interfaces.clone(), tagging),
        statement(
            "OwnInterfaces",
            &on(needs, Target::Interface),
            interfaces.clone(),
            ours,
        ),
        statement(
            "OwnMachines",
            &on(needs, Target::Instance),
            json!(scope.arn("instance", "*")),
            resource_tag(&owned, "owned"),
        ),
    ];
    if scope.first_interface {
        statements.push(statement(
            "FirstInterfaces",
            &on(needs, Target::FirstInterface),
            interfaces,
            resource_tag(&owned, "owned"),
        ));
    }
    statements
}

fn statement(name: &str, actions: &[&str], resource: Value, condition: Value) -> Value {
    let mut object = Map::new();
    object.insert("Sid".to_owned(), json!(name));
    object.insert("Effect".to_owned(), json!("Allow"));
    object.insert("Action".to_owned(), json!(actions));
    object.insert("Resource".to_owned(), resource);
    if !condition.is_null() {
        object.insert("Condition".to_owned(), condition);
    }
    Value::Object(object)
}
