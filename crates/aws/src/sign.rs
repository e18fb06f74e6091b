// SPDX-License-Identifier: Apache-2.0
//! Signature Version 4, by headers.
//!
//! <https://docs.aws.amazon.com/IAM/latest/UserGuide/create-signed-request.html>

use jiff::Timestamp;
use jiff::tz::TimeZone;
use ring::{digest, hmac};

use crate::credentials::Credentials;

const ALGORITHM: &str = "AWS4-HMAC-SHA256";

/// What is signed.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Request<'a> {
    pub(crate) method: &'a str,
    /// As in the `Host` header.
    pub(crate) host: &'a str,
    /// As it is sent, that is, encoded once.
    pub(crate) path: &'a str,
    pub(crate) query: &'a [(String, String)],
    /// The media type of the body, if there is one.
    pub(crate) content_type: Option<&'a str>,
    pub(crate) body: &'a [u8],
}

/// For whom and when.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Scope<'a> {
    pub(crate) region: &'a str,
    pub(crate) service: &'a str,
    pub(crate) now: Timestamp,
}

/// The headers that a signed request has beside its own.
pub(crate) fn headers(
    request: &Request<'_>,
    scope: &Scope<'_>,
    credentials: &Credentials,
) -> Vec<(&'static str, String)> {
    let now = scope.now.to_zoned(TimeZone::UTC);
    let (date, time) = (
        now.strftime("%Y%m%d").to_string(),
        now.strftime("%Y%m%dT%H%M%SZ").to_string(),
    );
    let mut signed: Vec<(&'static str, String)> = Vec::new();
    signed.extend(request.content_type.map(|kind| ("content-type", kind.to_owned())));
    signed.push(("host", request.host.to_owned()));
    signed.push(("x-amz-date", time.clone()));
    signed.extend(
        credentials
            .session_token()
            .map(|token| ("x-amz-security-token", token.to_owned())),
    );
    let names: Vec<&str> = signed.iter().map(|(name, _)| *name).collect();
    let names = names.join(";");
    let place = format!("{date}/{}/{}/aws4_request", scope.region, scope.service);
    let text = format!(
        "{ALGORITHM}\n{time}\n{place}\n{}",
        hash(canonical(request, &signed, &names).as_bytes())
    );
    let mut key = format!("AWS4{}", credentials.secret()).into_bytes();
    for part in [&date, scope.region, scope.service, "aws4_request"] {
        key = mac(&key, part.as_bytes());
    }
    let signature = hex(&mac(&key, text.as_bytes()));
    let authorization = format!(
        "{ALGORITHM} Credential={}/{place}, SignedHeaders={names}, Signature={signature}",
        credentials.id()
    );
    signed.retain(|(name, _)| *name != "host");
    signed.push(("authorization", authorization));
    signed
}

/// The request in the one form that both sides hash.
fn canonical(request: &Request<'_>, signed: &[(&'static str, String)], names: &str) -> String {
    let mut query: Vec<(String, String)> = request
        .query
        .iter()
        .map(|(name, value)| (encode(name), encode(value)))
        .collect();
    query.sort();
    let query: Vec<String> = query
        .iter()
        .map(|(name, value)| format!("{name}={value}"))
        .collect();
    let mut headers = String::new();
    for (name, value) in signed {
        headers.push_str(&format!("{name}:{}\n", value.trim()));
    }
    // All services but S3 want the path encoded once more than it is sent.
    let path: Vec<String> = request.path.split('/').map(encode).collect();
    format!(
        "{}\n{}\n{}\n{headers}\n{names}\n{}",
        request.method,
        path.join("/"),
        query.join("&"),
        hash(request.body)
    )
}

/// Percent-encoding as the signature wants it: all but letters, digits and `-._~`.
pub(crate) fn encode(text: &str) -> String {
    let mut encoded = String::with_capacity(text.len());
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) {
            encoded.push(char::from(byte));
        } else {
            encoded.push_str(&format!("%{byte:02X}"));
        }
    }
    encoded
}

fn hash(bytes: &[u8]) -> String {
    hex(digest::digest(&digest::SHA256, bytes).as_ref())
}

fn mac(key: &[u8], text: &[u8]) -> Vec<u8> {
    hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, key), text)
        .as_ref()
        .to_vec()
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const KEY: (&str, &str) = ("AKIDEXAMPLE", "wJalrXUtnFEMI/K7MDENG+bPxRfiCYEXAMPLEKEY");

    fn signature(request: &Request<'_>, service: &str) -> String {
        let scope = Scope {
            region: "us-east-1",
            service,
            now: "2015-08-30T12:36:00Z".parse().unwrap(),
        };
        let headers = headers(request, &scope, &Credentials::new(KEY.0, KEY.1, None));
        let (_, authorization) = headers.iter().find(|(name, _)| *name == "authorization").unwrap();
        authorization.rsplit('=').next().unwrap().to_owned()
    }

    fn get<'a>(query: &'a [(String, String)], path: &'a str) -> Request<'a> {
        Request {
            method: "GET",
            host: "example.amazonaws.com",
            path,
            query,
            content_type: None,
            body: b"",
        }
    }

    /// The example of the documentation of Signature Version 4.
    #[test]
    fn the_documents_example_is_signed_as_there() {
        let query = [("Action", "ListUsers"), ("Version", "2010-05-08")];
        let query = query.map(|(name, value)| (name.to_owned(), value.to_owned()));
        let request = Request {
            host: "iam.amazonaws.com",
            content_type: Some("application/x-www-form-urlencoded; charset=utf-8"),
            ..get(&query, "/")
        };
        assert_eq!(
            signature(&request, "iam"),
            "5d672d79c15b13162d9279b0855cfba6789a8edb4c82c400e06b5924a6f2b5d7"
        );
    }

    /// `get-vanilla` of AWS's test suite for Signature Version 4.
    #[test]
    fn a_request_of_the_test_suite_is_signed_as_there() {
        assert_eq!(
            signature(&get(&[], "/"), "service"),
            "5fa00fa31553b73ebf1942676e86291e8372ff2a2260956d9b8aae1d763fbf31"
        );
    }

    #[test]
    fn a_token_is_signed_too_and_the_order_of_the_query_does_not_matter() {
        let pair = |name: &str| (name.to_owned(), "v".to_owned());
        let (forth, back) = ([pair("a"), pair("b")], [pair("b"), pair("a")]);
        assert_eq!(
            signature(&get(&forth, "/"), "s"),
            signature(&get(&back, "/"), "s")
        );
        let scope = Scope {
            region: "r",
            service: "s",
            now: Timestamp::UNIX_EPOCH,
        };
        let token = Credentials::new("id", "secret", Some("token".into()));
        let headers = headers(&get(&[], "/"), &scope, &token);
        assert!(
            headers
                .iter()
                .any(|(name, value)| *name == "x-amz-security-token" && value == "token")
        );
        assert!(
            headers
                .iter()
                .any(|(_, value)| value.contains("SignedHeaders=host;x-amz-date;x-amz-security-token"))
        );
    }
}
