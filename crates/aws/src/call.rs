// SPDX-License-Identifier: Apache-2.0
//! What can be asked. There is no way to say anything that changes something.

/// One of AWS's services.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Service {
    /// Machines and networks; answers in XML.
    Ec2,
    /// Clusters; answers in JSON.
    Eks,
    /// Roles and policies, the same in all regions; answers in XML.
    Iam,
}

impl Service {
    /// Its name in host names, signatures and actions.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Ec2 => "ec2",
            Self::Eks => "eks",
            Self::Iam => "iam",
        }
    }

    /// The version of its API, for those that have it in each request.
    pub(crate) fn version(self) -> Option<&'static str> {
        match self {
            Self::Ec2 => Some("2016-11-15"),
            Self::Iam => Some("2010-05-08"),
            Self::Eks => None,
        }
    }
}

/// Which of many: those where this attribute has this value.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Filter {
    /// Such as `vpc-id` or `tag:thalweg.io/cluster`.
    pub name: String,
    /// The value.
    pub value: String,
}

impl Filter {
    /// A filter.
    #[must_use]
    pub fn new(name: impl Into<String>, value: impl Into<String>) -> Self {
        Self {
            name: name.into(),
            value: value.into(),
        }
    }
}

/// A question.
#[derive(Clone, Debug, PartialEq, Eq)]
#[expect(missing_docs, reason = "the names are those of AWS's API reference")]
pub enum Call {
    DescribeCluster { cluster: String },
    ListAddons { cluster: String },
    DescribeAddon { cluster: String, addon: String },
    DescribeNodegroup { cluster: String, group: String },
    ListPodIdentityAssociations { cluster: String },
    DescribePodIdentityAssociation { cluster: String, association: String },
    DescribeVpcs(Filter),
    DescribeSubnets(Filter),
    DescribeNatGateways(Filter),
    DescribeRouteTables(Filter),
    DescribeVpcPeeringConnections(Filter),
    DescribeInstanceTypes,
    ListAttachedRolePolicies { role: String },
    ListRolePolicies { role: String },
    GetRolePolicy { role: String, policy: String },
    GetPolicy { arn: String },
    GetPolicyVersion { arn: String, version: String },
}

/// How a question is put.
#[derive(Clone, Debug)]
pub(crate) struct Form {
    pub(crate) service: Service,
    pub(crate) operation: &'static str,
    /// The list that goes on from page to page.
    pub(crate) list: Option<&'static str>,
    /// Names as in EC2's and IAM's requests, values.
    pub(crate) parameters: Vec<(&'static str, String)>,
    /// The path of a request to EKS.
    pub(crate) path: String,
}

impl Form {
    fn new(service: Service, operation: &'static str) -> Self {
        Self {
            service,
            operation,
            list: None,
            parameters: Vec::new(),
            path: "/".to_owned(),
        }
    }

    fn lists(mut self, list: &'static str) -> Self {
        self.list = Some(list);
        self
    }

    fn with(mut self, name: &'static str, value: &str) -> Self {
        self.parameters.push((name, value.to_owned()));
        self
    }

    fn at(mut self, parts: &[&str]) -> Self {
        let parts: Vec<String> = parts.iter().map(|part| crate::sign::encode(part)).collect();
        self.path = format!("/{}", parts.join("/"));
        self
    }

    /// Which permission it takes.
    pub(crate) fn action(&self) -> String {
        format!("{}:{}", self.service.name(), self.operation)
    }
}

impl Call {
    pub(crate) fn form(&self) -> Form {
        let eks = |operation, path: &[&str]| Form::new(Service::Eks, operation).at(path);
        let ec2 = |operation, list, filter: &Filter| {
            Form::new(Service::Ec2, operation)
                .lists(list)
                .with("Filter.1.Name", &filter.name)
                .with("Filter.1.Value.1", &filter.value)
        };
        let iam = |operation| Form::new(Service::Iam, operation);
        match self {
            Self::DescribeCluster { cluster } => eks("DescribeCluster", &["clusters", cluster]),
            Self::ListAddons { cluster } => {
                eks("ListAddons", &["clusters", cluster, "addons"]).lists("addons")
            }
            Self::DescribeAddon { cluster, addon } => {
                eks("DescribeAddon", &["clusters", cluster, "addons", addon])
            }
            Self::DescribeNodegroup { cluster, group } => {
                eks("DescribeNodegroup", &["clusters", cluster, "node-groups", group])
            }
            Self::ListPodIdentityAssociations { cluster } => {
                let path = ["clusters", cluster, "pod-identity-associations"];
                eks("ListPodIdentityAssociations", &path).lists("associations")
            }
            Self::DescribePodIdentityAssociation { cluster, association } => {
                let path = ["clusters", cluster, "pod-identity-associations", association];
                eks("DescribePodIdentityAssociation", &path)
            }
            Self::DescribeVpcs(filter) => ec2("DescribeVpcs", "Vpcs", filter),
            Self::DescribeSubnets(filter) => ec2("DescribeSubnets", "Subnets", filter),
            Self::DescribeNatGateways(filter) => ec2("DescribeNatGateways", "NatGateways", filter),
            Self::DescribeRouteTables(filter) => ec2("DescribeRouteTables", "RouteTables", filter),
            Self::DescribeVpcPeeringConnections(filter) => {
                ec2("DescribeVpcPeeringConnections", "VpcPeeringConnections", filter)
            }
            Self::DescribeInstanceTypes => {
                Form::new(Service::Ec2, "DescribeInstanceTypes").lists("InstanceTypes")
            }
            Self::ListAttachedRolePolicies { role } => iam("ListAttachedRolePolicies")
                .lists("AttachedPolicies")
                .with("RoleName", role),
            Self::ListRolePolicies { role } => iam("ListRolePolicies")
                .lists("PolicyNames")
                .with("RoleName", role),
            Self::GetRolePolicy { role, policy } => iam("GetRolePolicy")
                .with("RoleName", role)
                .with("PolicyName", policy),
            Self::GetPolicy { arn } => iam("GetPolicy").with("PolicyArn", arn),
            Self::GetPolicyVersion { arn, version } => iam("GetPolicyVersion")
                .with("PolicyArn", arn)
                .with("VersionId", version),
        }
    }

    /// The command of AWS's command line that asks the same.
    #[must_use]
    pub fn command(&self, region: &str) -> String {
        let form = self.form();
        let region = match form.service {
            Service::Iam => String::new(),
            Service::Ec2 | Service::Eks => format!(" --region {region}"),
        };
        let service = form.service.name();
        let operation = kebab(form.operation);
        format!(
            "aws {service} {operation}{region}{} --output json",
            self.options()
        )
    }

    fn options(&self) -> String {
        match self {
            Self::DescribeCluster { cluster } => format!(" --name {cluster}"),
            Self::ListAddons { cluster } | Self::ListPodIdentityAssociations { cluster } => {
                format!(" --cluster-name {cluster}")
            }
            Self::DescribeAddon { cluster, addon } => {
                format!(" --cluster-name {cluster} --addon-name {addon}")
            }
            Self::DescribeNodegroup { cluster, group } => {
                format!(" --cluster-name {cluster} --nodegroup-name {group}")
            }
            Self::DescribePodIdentityAssociation { cluster, association } => {
                format!(" --cluster-name {cluster} --association-id {association}")
            }
            // The command line names this one's option otherwise.
            Self::DescribeNatGateways(Filter { name, value }) => {
                format!(" --filter Name={name},Values={value}")
            }
            Self::DescribeVpcs(Filter { name, value })
            | Self::DescribeSubnets(Filter { name, value })
            | Self::DescribeRouteTables(Filter { name, value })
            | Self::DescribeVpcPeeringConnections(Filter { name, value }) => {
                format!(" --filters Name={name},Values={value}")
            }
            Self::DescribeInstanceTypes => String::new(),
            Self::ListAttachedRolePolicies { role } | Self::ListRolePolicies { role } => {
                format!(" --role-name {role}")
            }
            Self::GetRolePolicy { role, policy } => format!(" --role-name {role} --policy-name {policy}"),
            Self::GetPolicy { arn } => format!(" --policy-arn {arn}"),
            Self::GetPolicyVersion { arn, version } => format!(" --policy-arn {arn} --version-id {version}"),
        }
    }
}

/// `DescribeVpcs` as `describe-vpcs`.
fn kebab(operation: &str) -> String {
    let mut text = String::new();
    for (place, letter) in operation.chars().enumerate() {
        if letter.is_ascii_uppercase() && place > 0 {
            text.push('-');
        }
        text.push(letter.to_ascii_lowercase());
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_call_and_its_command_ask_the_same() {
        let filter = || Filter::new("tag:thalweg.io/cluster", "blue");
        for (call, command, action) in [
            (
                Call::DescribeCluster {
                    cluster: "p-blue".into(),
                },
                "aws eks describe-cluster --region eu-west-1 --name p-blue --output json",
                "eks:DescribeCluster",
            ),
            (
                Call::DescribeNodegroup {
                    cluster: "c".into(),
                    group: "g".into(),
                },
                "aws eks describe-nodegroup --region eu-west-1 --cluster-name c --nodegroup-name g --output json",
                "eks:DescribeNodegroup",
            ),
            (
                Call::DescribeNatGateways(filter()),
                "aws ec2 describe-nat-gateways --region eu-west-1 --filter Name=tag:thalweg.io/cluster,Values=blue --output json",
                "ec2:DescribeNatGateways",
            ),
            (
                Call::DescribeVpcPeeringConnections(filter()),
                "aws ec2 describe-vpc-peering-connections --region eu-west-1 --filters Name=tag:thalweg.io/cluster,Values=blue --output json",
                "ec2:DescribeVpcPeeringConnections",
            ),
            (
                Call::ListAttachedRolePolicies { role: "r".into() },
                "aws iam list-attached-role-policies --role-name r --output json",
                "iam:ListAttachedRolePolicies",
            ),
        ] {
            assert_eq!(call.command("eu-west-1"), command);
            assert_eq!(call.form().action(), action);
        }
    }

    #[test]
    fn names_cannot_leave_their_place_in_a_path() {
        let call = Call::DescribeAddon {
            cluster: "../x".into(),
            addon: "a?b=c".into(),
        };
        assert_eq!(call.form().path, "/clusters/..%2Fx/addons/a%3Fb%3Dc");
    }
}
