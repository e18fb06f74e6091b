// SPDX-License-Identifier: Apache-2.0
//! One page of an answer: read, refused, or said to go on.

use http::StatusCode;
use serde_json::Value;

use crate::call::{Form, Service};
use crate::error::AskError;
use crate::xml;

/// Codes by which AWS says that it is asked too often, in its services' different words.
const THROTTLED: [&str; 9] = [
    "EC2ThrottledException",
    "RequestLimitExceeded",
    "RequestThrottled",
    "RequestThrottledException",
    "SlowDown",
    "Throttling",
    "ThrottlingException",
    "TooManyRequests",
    "TooManyRequestsException",
];

/// Codes of what is not allowed, or of nobody who is known.
const DENIED: [&str; 13] = [
    "AccessDenied",
    "AccessDeniedException",
    "AuthFailure",
    "ExpiredToken",
    "ExpiredTokenException",
    "IncompleteSignature",
    "InvalidClientTokenId",
    "MissingAuthenticationToken",
    "OptInRequired",
    "RequestExpired",
    "SignatureDoesNotMatch",
    "UnauthorizedOperation",
    "UnrecognizedClientException",
];

/// What came over the wire.
#[derive(Debug)]
pub(crate) struct Raw {
    pub(crate) status: StatusCode,
    /// EKS's header with the kind of error.
    pub(crate) error_type: Option<String>,
    pub(crate) text: String,
}

/// What one attempt came to.
#[derive(Debug)]
pub(crate) enum Page {
    /// A page, and by what name the next one is asked for.
    Good(Value, Option<String>),
    /// It may go well the next time.
    Again {
        /// AWS's code.
        code: String,
        /// AWS's words.
        message: String,
        /// Whether because of too many requests.
        throttled: bool,
    },
}

pub(crate) fn page(form: &Form, raw: &Raw) -> Result<Page, AskError> {
    if !raw.status.is_success() {
        return refusal(form, raw);
    }
    let read = match form.service {
        Service::Ec2 => xml::ec2(&raw.text),
        Service::Iam => xml::iam(&raw.text),
        Service::Eks => serde_json::from_str(&raw.text).map_err(|error| format!("it is no JSON: {error}")),
    };
    let unreadable = |reason| AskError::Unreadable {
        action: form.action(),
        reason,
    };
    let mut value: Value = read.map_err(unreadable)?;
    let Some(answer) = value.as_object_mut() else {
        return Err(unreadable("it is no object".to_owned()));
    };
    let more = match form.service {
        Service::Ec2 => answer.remove("NextToken"),
        Service::Eks => answer.remove("nextToken"),
        Service::Iam => {
            let goes_on = answer.remove("IsTruncated") == Some(Value::Bool(true));
            answer.remove("Marker").filter(|_| goes_on)
        }
    };
    let more = more.and_then(|token| token.as_str().map(str::to_owned));
    if let Some(list) = form.list
        && !answer.get(list).is_some_and(Value::is_array)
    {
        return Err(unreadable(format!("it has no list `{list}`")));
    }
    Ok(Page::Good(value, more.filter(|token| !token.is_empty())))
}

fn refusal(form: &Form, raw: &Raw) -> Result<Page, AskError> {
    let said = in_json(raw).or_else(|| xml::refusal(&raw.text));
    let (code, message) = said.unwrap_or_else(|| (raw.status.as_u16().to_string(), beginning(&raw.text)));
    let throttled = THROTTLED.contains(&&*code) || raw.status == StatusCode::TOO_MANY_REQUESTS;
    if throttled || raw.status.is_server_error() {
        return Ok(Page::Again {
            code,
            message,
            throttled,
        });
    }
    let action = form.action();
    let denied =
        DENIED.contains(&&*code) || [StatusCode::UNAUTHORIZED, StatusCode::FORBIDDEN].contains(&raw.status);
    Err(if denied {
        AskError::Denied {
            action,
            code,
            message,
        }
    } else {
        AskError::Refused {
            action,
            code,
            message,
        }
    })
}

/// EKS's form. The kind of an error may have a name space before, or a link after it.
fn in_json(raw: &Raw) -> Option<(String, String)> {
    let body: Option<Value> = serde_json::from_str(&raw.text).ok();
    let field = |names: [&str; 2]| {
        let body = body.as_ref()?;
        names.iter().find_map(|name| body.get(name)?.as_str())
    };
    let kind = raw.error_type.as_deref().or_else(|| field(["__type", "code"]))?;
    let kind = kind.split(':').next().unwrap_or(kind);
    let kind = kind.rsplit('#').next().unwrap_or(kind);
    Some((
        kind.to_owned(),
        field(["message", "Message"]).unwrap_or_default().to_owned(),
    ))
}

fn beginning(text: &str) -> String {
    const MOST: usize = 200;
    let line = text.trim().lines().next().unwrap_or_default();
    line.chars().take(MOST).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::call::{Call, Filter};

    fn raw(status: u16, error_type: Option<&str>, text: &str) -> Raw {
        Raw {
            status: StatusCode::from_u16(status).unwrap(),
            error_type: error_type.map(str::to_owned),
            text: text.to_owned(),
        }
    }

    fn addons() -> Form {
        Call::ListAddons { cluster: "c".into() }.form()
    }

    fn vpcs() -> Form {
        Call::DescribeVpcs(Filter::new("vpc-id", "v")).form()
    }

    #[test]
    fn throttling_is_told_from_denial_and_from_other_refusals_in_each_services_words() {
        let ec2 =
            |code: &str| format!("<Response><Errors><Error><Code>{code}</Code></Error></Errors></Response>");
        let again =
            |form: &Form, raw: &Raw| matches!(page(form, raw), Ok(Page::Again { throttled: true, .. }));
        assert!(again(&vpcs(), &raw(503, None, &ec2("RequestLimitExceeded"))));
        assert!(again(
            &addons(),
            &raw(
                400,
                Some("ThrottlingException:http://internal/"),
                "{\"message\":\"slow\"}"
            )
        ));
        assert!(again(&addons(), &raw(429, None, "")));
        let error = |form: &Form, raw: &Raw| page(form, raw).unwrap_err();
        for code in ["UnauthorizedOperation", "AuthFailure", "RequestExpired"] {
            assert!(matches!(
                error(&vpcs(), &raw(403, None, &ec2(code))),
                AskError::Denied { .. }
            ));
        }
        let denied = error(
            &addons(),
            &raw(
                403,
                None,
                "{\"__type\": \"x#AccessDeniedException\", \"Message\": \"not you\"}",
            ),
        );
        assert_eq!(
            denied.to_string(),
            "eks:ListAddons was denied (AccessDeniedException: not you); allow eks:ListAddons, which only reads, or take other credentials"
        );
        let absent = error(
            &addons(),
            &raw(
                404,
                Some("ResourceNotFoundException"),
                "{\"message\":\"No cluster found for name: c.\"}",
            ),
        );
        assert!(matches!(&absent, AskError::Refused { code, .. } if code == "ResourceNotFoundException"));
        assert!(matches!(
            page(&addons(), &raw(502, None, "<html>bad gateway</html>")),
            Ok(Page::Again { throttled: false, .. })
        ));
    }

    #[test]
    fn an_answer_without_its_list_is_none() {
        for (form, text) in [
            (addons(), "{}"),
            (addons(), "[]"),
            (addons(), "{\"addons\": \"none\"}"),
            (vpcs(), "<a/>"),
            (addons(), "{\"addons\": [\"vpc-cni\""),
        ] {
            let error = page(&form, &raw(200, None, text)).unwrap_err();
            assert!(matches!(error, AskError::Unreadable { .. }), "{text}: {error}");
        }
    }

    #[test]
    fn the_next_page_is_known_by_its_token() {
        let token = |form: &Form, text: &str| match page(form, &raw(200, None, text)) {
            Ok(Page::Good(_, token)) => token,
            other => panic!("{other:?}"),
        };
        assert_eq!(
            token(&addons(), "{\"addons\": [], \"nextToken\": \"t\"}"),
            Some("t".into())
        );
        assert_eq!(token(&addons(), "{\"addons\": [], \"nextToken\": null}"), None);
        assert_eq!(
            token(&vpcs(), "<a><vpcSet/><nextToken>t</nextToken></a>"),
            Some("t".into())
        );
        let policies = Call::ListRolePolicies { role: "r".into() }.form();
        let truncated = |flag: &str| {
            format!(
                "<a><bResult><PolicyNames/><IsTruncated>{flag}</IsTruncated><Marker>m</Marker></bResult></a>"
            )
        };
        assert_eq!(token(&policies, &truncated("true")), Some("m".into()));
        assert_eq!(token(&policies, &truncated("false")), None);
    }
}
