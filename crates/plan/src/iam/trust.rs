// SPDX-License-Identifier: Apache-2.0
//! Who may take on the role: trust policies for EKS Pod Identity and for IAM roles for service accounts (IRSA).

use serde_json::{Value, json};

/// A role for a service account, by EKS Pod Identity. The agent of EKS adds these session tags itself
/// (docs.aws.amazon.com/eks, pod-id-abac).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PodIdentity {
    /// The service account's namespace.
    pub namespace: String,
    /// The service account.
    pub service_account: String,
    /// The cluster's name.
    pub cluster: String,
    /// The account that the cluster is in; without it, any.
    pub account: Option<String>,
}

/// A role for a service account, by the cluster's OpenID Connect issuer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Irsa {
    /// The service account's namespace.
    pub namespace: String,
    /// The service account.
    pub service_account: String,
    /// `aws`, `aws-cn` or `aws-us-gov`.
    pub partition: String,
    /// The account that the provider is registered in: twelve digits.
    pub account: String,
    /// The issuer, as `aws eks describe-cluster` gives it: `https://oidc.eks.REGION.amazonaws.com/id/…`.
    pub issuer: String,
}

/// A trust policy that could not work.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TrustError {
    /// No account.
    #[error("`{0}` is no AWS account; those have twelve digits")]
    Account(String),
    /// No issuer.
    #[error(
        "`{0}` is no issuer; take identity.oidc.issuer of `aws eks describe-cluster`, as in https://oidc.eks.eu-central-1.amazonaws.com/id/…"
    )]
    Issuer(String),
}

/// The trust policy for EKS Pod Identity.
///
/// # Errors
/// The account is none.
pub fn pod_identity(role: &PodIdentity) -> Result<Value, TrustError> {
    let mut equals = json!({
        "aws:RequestTag/eks-cluster-name": role.cluster,
        "aws:RequestTag/kubernetes-namespace": role.namespace,
        "aws:RequestTag/kubernetes-service-account": role.service_account,
    });
    if let Some(account) = &role.account
        && let Some(object) = equals.as_object_mut()
    {
        object.insert("aws:SourceAccount".to_owned(), json!(checked(account)?));
    }
    Ok(json!({
        "Version": "2012-10-17",
        "Statement": [{
            "Sid": "EksPodIdentity",
            "Effect": "Allow",
            "Principal": { "Service": "pods.eks.amazonaws.com" },
            "Action": ["sts:AssumeRole", "sts:TagSession"],
            "Condition": { "StringEquals": equals },
        }],
    }))
}

/// The trust policy for IRSA.
///
/// # Errors
/// Account or issuer are none.
pub fn irsa(role: &Irsa) -> Result<Value, TrustError> {
    let provider = role
        .issuer
        .strip_prefix("https://")
        .filter(|rest| rest.contains('/') && !rest.ends_with('/') && !rest.contains([' ', '"', '*']))
        .ok_or_else(|| TrustError::Issuer(role.issuer.clone()))?;
    let account = checked(&role.account)?;
    Ok(json!({
        "Version": "2012-10-17",
        "Statement": [{
            "Sid": "ServiceAccount",
            "Effect": "Allow",
            "Principal": { "Federated": format!("arn:{}:iam::{account}:oidc-provider/{provider}", role.partition) },
            "Action": "sts:AssumeRoleWithWebIdentity",
            "Condition": { "StringEquals": {
                format!("{provider}:aud"): "sts.amazonaws.com",
                format!("{provider}:sub"): format!("system:serviceaccount:{}:{}", role.namespace, role.service_account),
            }},
        }],
    }))
}

fn checked(account: &str) -> Result<&str, TrustError> {
    if account.len() == 12 && account.bytes().all(|byte| byte.is_ascii_digit()) {
        Ok(account)
    } else {
        Err(TrustError::Account(account.to_owned()))
    }
}
