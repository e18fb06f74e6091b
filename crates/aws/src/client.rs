// SPDX-License-Identifier: Apache-2.0
//! Asks: over HTTPS, with a limit of time and of size for each answer.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::header::HeaderValue;
use http::uri::{Authority, Scheme};
use http::{Method, Uri};
use http_body_util::{BodyExt as _, Full, Limited};
use hyper_rustls::HttpsConnector;
use hyper_util::client::legacy::Client as HttpClient;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use jiff::Timestamp;
use serde_json::Value;
use tokio_rustls::rustls::crypto::ring;
use tokio_rustls::rustls::{ClientConfig, RootCertStore};

use crate::answer::{self, Page, Raw};
use crate::call::{Call, Form, Service};
use crate::credentials::Credentials;
use crate::error::{AskError, ClientError};
use crate::sign;

/// How often a question is put before it counts as throttled.
const ATTEMPTS: u32 = 4;
/// The first pause between two attempts; each further one is twice as long, and up to half of it is drawn by lot.
const PAUSE: Duration = Duration::from_millis(300);
/// How long one attempt may take.
const TIMEOUT: Duration = Duration::from_secs(15);
/// The largest page that is read. All of a region's instance types take about 5 MiB.
const PAGE_BYTES_MAX: usize = 32 << 20;
/// The most pages of an answer.
const PAGES_MAX: usize = 1000;

const FORM: &str = "application/x-www-form-urlencoded; charset=utf-8";

/// Whom to ask, and as whom.
#[derive(Clone, Debug)]
pub struct Settings {
    /// The region, such as `eu-central-1`.
    pub region: String,
    /// Where all services are, instead of AWS: an emulator, or an endpoint of one's own network.
    pub endpoint: Option<String>,
    /// As whom.
    pub credentials: Credentials,
    /// How long one attempt may take.
    pub timeout: Duration,
    /// How long to wait before the second attempt.
    pub pause: Duration,
}

impl Settings {
    /// Of AWS itself, in a region.
    #[must_use]
    pub fn new(region: impl Into<String>, credentials: Credentials) -> Self {
        Self {
            region: region.into(),
            endpoint: None,
            credentials,
            timeout: TIMEOUT,
            pause: PAUSE,
        }
    }
}

/// A client of one region.
#[derive(Clone, Debug)]
pub struct Client {
    settings: Settings,
    endpoint: Option<(Scheme, Authority)>,
    http: HttpClient<HttpsConnector<HttpConnector>, Full<Bytes>>,
}

impl Client {
    /// A client. Nothing is sent yet.
    ///
    /// # Errors
    /// The region or the endpoint is none, or there are no certificates to trust.
    pub fn new(settings: Settings) -> Result<Self, ClientError> {
        let region = &settings.region;
        let letters = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-';
        if region.is_empty() || region.len() > 32 || !region.bytes().all(letters) {
            return Err(ClientError::Region(region.clone()));
        }
        let endpoint = settings.endpoint.as_deref().map(parse_endpoint).transpose()?;
        let plain = endpoint
            .as_ref()
            .is_some_and(|(scheme, _)| *scheme == Scheme::HTTP);
        let roots = if plain { RootCertStore::empty() } else { roots()? };
        let tls = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
            .with_safe_default_protocol_versions()?
            .with_root_certificates(roots)
            .with_no_client_auth();
        let mut connector = HttpConnector::new();
        connector.enforce_http(false);
        connector.set_connect_timeout(Some(settings.timeout));
        let connector = hyper_rustls::HttpsConnectorBuilder::new()
            .with_tls_config(tls)
            .https_or_http()
            .enable_http1()
            .wrap_connector(connector);
        Ok(Self {
            http: HttpClient::builder(TokioExecutor::new()).build(connector),
            endpoint,
            settings,
        })
    }

    /// Puts a question and returns the whole answer, as the command line of AWS prints it.
    ///
    /// # Errors
    /// There is no answer, or only a part of one.
    pub async fn ask(&self, call: &Call) -> Result<Value, AskError> {
        let form = call.form();
        let partial = |pages, reason: String| AskError::Partial {
            action: form.action(),
            pages,
            reason,
        };
        let mut whole: Option<Value> = None;
        let mut token: Option<String> = None;
        for pages in 0..PAGES_MAX {
            let page = self.page(&form, token.as_deref()).await;
            let (value, next) = match page {
                Err(error) if pages > 0 => return Err(partial(pages, error.to_string())),
                page => page?,
            };
            let sum = match whole.take() {
                None => value,
                Some(before) => joined(before, value, form.list),
            };
            match next {
                None => return Ok(sum),
                Some(next) if token.as_ref() == Some(&next) => {
                    return Err(partial(pages + 1, "the same page is named again".to_owned()));
                }
                Some(next) => token = Some(next),
            }
            whole = Some(sum);
        }
        Err(partial(PAGES_MAX, "there are more than are read".to_owned()))
    }

    /// One page, tried again where that helps.
    async fn page(&self, form: &Form, token: Option<&str>) -> Result<(Value, Option<String>), AskError> {
        let mut pause = self.settings.pause;
        let mut attempt = 1;
        loop {
            let last = attempt == ATTEMPTS;
            match self.send(form, token).await {
                Ok(raw) => match answer::page(form, &raw)? {
                    Page::Good(value, next) => return Ok((value, next)),
                    Page::Again {
                        code,
                        message,
                        throttled,
                    } if last => {
                        let action = form.action();
                        return Err(if throttled {
                            AskError::Throttled {
                                action,
                                attempts: attempt,
                                code,
                            }
                        } else {
                            AskError::Refused {
                                action,
                                code,
                                message,
                            }
                        });
                    }
                    Page::Again { .. } => {}
                },
                Err(error) if last => return Err(error),
                Err(_) => {}
            }
            attempt += 1;
            tokio::time::sleep(jittered(pause)).await;
            pause *= 2;
        }
    }

    async fn send(&self, form: &Form, token: Option<&str>) -> Result<Raw, AskError> {
        let (scheme, authority) = self.address(form.service);
        let endpoint = format!("{scheme}://{authority}");
        let silent = |_| AskError::Silent {
            action: form.action(),
            endpoint: endpoint.clone(),
            after: self.settings.timeout,
        };
        let exchange = self.exchange(form, token, (&scheme, &authority));
        let answered = tokio::time::timeout(self.settings.timeout, exchange).await;
        answered.map_err(silent)?.map_err(|reason| AskError::Unreachable {
            action: form.action(),
            endpoint: endpoint.clone(),
            reason,
        })
    }

    async fn exchange(
        &self,
        form: &Form,
        token: Option<&str>,
        (scheme, authority): (&Scheme, &Authority),
    ) -> Result<Raw, String> {
        let wire = Wire::new(form, token);
        let scope = sign::Scope {
            region: self.signed_region(form.service),
            service: form.service.name(),
            now: Timestamp::now(),
        };
        let signed = sign::headers(
            &sign::Request {
                method: wire.method.as_str(),
                host: authority.as_str(),
                path: &form.path,
                query: &wire.query,
                content_type: wire.content_type,
                body: &wire.body,
            },
            &scope,
            &self.settings.credentials,
        );
        let query: Vec<String> = wire
            .query
            .iter()
            .map(|(name, value)| format!("{}={}", sign::encode(name), sign::encode(value)))
            .collect();
        let separator = if query.is_empty() { "" } else { "?" };
        let path = format!("{}{separator}{}", form.path, query.join("&"));
        let uri = Uri::builder()
            .scheme(scheme.clone())
            .authority(authority.clone())
            .path_and_query(path);
        let uri = uri.build().map_err(|error| error.to_string())?;
        let mut request = http::Request::builder().method(wire.method).uri(uri);
        for (name, value) in signed {
            let mut value = HeaderValue::from_str(&value).map_err(|error| format!("{name}: {error}"))?;
            value.set_sensitive(true);
            request = request.header(name, value);
        }
        let request = request
            .header("accept", "application/json, text/xml")
            .body(Full::from(wire.body))
            .map_err(|error| error.to_string())?;
        let response = self
            .http
            .request(request)
            .await
            .map_err(|error| with_causes(&error))?;
        let error_type = response
            .headers()
            .get("x-amzn-errortype")
            .and_then(|value| value.to_str().ok())
            .map(str::to_owned);
        let status = response.status();
        let body = Limited::new(response.into_body(), PAGE_BYTES_MAX);
        let body = body.collect().await.map_err(|error| error.to_string())?;
        Ok(Raw {
            status,
            error_type,
            text: String::from_utf8_lossy(&body.to_bytes()).into_owned(),
        })
    }

    /// Where a service is.
    fn address(&self, service: Service) -> (Scheme, Authority) {
        if let Some((scheme, authority)) = &self.endpoint {
            return (scheme.clone(), authority.clone());
        }
        let host = host(service, &self.settings.region);
        // A region's letters are those of a host name.
        let authority = host.parse().unwrap_or_else(|_| Authority::from_static("invalid"));
        (Scheme::HTTPS, authority)
    }

    /// IAM's requests are signed for the region in which it is at home.
    fn signed_region(&self, service: Service) -> &str {
        let region = &self.settings.region;
        match service {
            Service::Ec2 | Service::Eks => region,
            Service::Iam if region.starts_with("cn-") => "cn-north-1",
            Service::Iam if region.starts_with("us-gov-") => "us-gov-west-1",
            Service::Iam => "us-east-1",
        }
    }
}

/// A service's host name in a region.
fn host(service: Service, region: &str) -> String {
    let name = service.name();
    match (service, region) {
        (Service::Iam, region) if region.starts_with("cn-") => "iam.cn-north-1.amazonaws.com.cn".to_owned(),
        (Service::Iam, region) if region.starts_with("us-gov-") => "iam.us-gov.amazonaws.com".to_owned(),
        (Service::Iam, _) => "iam.amazonaws.com".to_owned(),
        (Service::Ec2 | Service::Eks, region) if region.starts_with("cn-") => {
            format!("{name}.{region}.amazonaws.com.cn")
        }
        (Service::Ec2 | Service::Eks, region) => format!("{name}.{region}.amazonaws.com"),
    }
}

/// A request but for its signature.
struct Wire {
    method: Method,
    query: Vec<(String, String)>,
    content_type: Option<&'static str>,
    body: Vec<u8>,
}

impl Wire {
    fn new(form: &Form, token: Option<&str>) -> Self {
        let Some(version) = form.service.version() else {
            let query = token.map(|token| ("nextToken".to_owned(), token.to_owned()));
            return Self {
                method: Method::GET,
                query: query.into_iter().collect(),
                content_type: None,
                body: Vec::new(),
            };
        };
        let mut body = form_urlencoded::Serializer::new(String::new());
        body.append_pair("Action", form.operation);
        body.append_pair("Version", version);
        for (name, value) in &form.parameters {
            body.append_pair(name, value);
        }
        let next = match form.service {
            Service::Iam => "Marker",
            Service::Ec2 | Service::Eks => "NextToken",
        };
        if let Some(token) = token {
            body.append_pair(next, token);
        }
        Self {
            method: Method::POST,
            query: Vec::new(),
            content_type: Some(FORM),
            body: body.finish().into_bytes(),
        }
    }
}

fn parse_endpoint(text: &str) -> Result<(Scheme, Authority), ClientError> {
    let none = || ClientError::Endpoint(text.to_owned());
    let parts = text.parse::<Uri>().map_err(|_| none())?.into_parts();
    let (Some(scheme), Some(authority)) = (parts.scheme, parts.authority) else {
        return Err(none());
    };
    let bare = parts.path_and_query.is_none_or(|path| path.as_str() == "/");
    let known = scheme == Scheme::HTTP || scheme == Scheme::HTTPS;
    if !bare || !known || authority.as_str().contains('@') {
        return Err(none());
    }
    Ok((scheme, authority))
}

fn roots() -> Result<RootCertStore, ClientError> {
    let found = rustls_native_certs::load_native_certs();
    let mut roots = RootCertStore::empty();
    let (good, _) = roots.add_parsable_certificates(found.certs);
    if good > 0 {
        return Ok(roots);
    }
    let errors: Vec<String> = found.errors.iter().map(ToString::to_string).collect();
    Err(ClientError::NoRoots(if errors.is_empty() {
        "none was found".to_owned()
    } else {
        errors.join("; ")
    }))
}

/// A page after another: their lists, one after the other.
fn joined(mut before: Value, mut after: Value, list: Option<&str>) -> Value {
    let list = list.unwrap_or_default();
    let more = after
        .get_mut(list)
        .and_then(Value::as_array_mut)
        .map(std::mem::take);
    if let (Some(items), Some(more)) = (before.get_mut(list).and_then(Value::as_array_mut), more) {
        items.extend(more);
    }
    before
}

/// Half of a pause, and up to as much again: those who were throttled together do not come back together.
fn jittered(pause: Duration) -> Duration {
    let mut byte = [0];
    let drawn = getrandom::fill(&mut byte).map_or(u8::MAX, |()| byte[0]);
    pause / 2 + pause.mul_f32(f32::from(drawn) / 512.0)
}

fn with_causes(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(next) = cause {
        text.push_str(&format!(": {next}"));
        cause = next.source();
    }
    text
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn each_service_is_where_aws_has_it() {
        for (service, region, wanted) in [
            (Service::Ec2, "eu-central-1", "ec2.eu-central-1.amazonaws.com"),
            (Service::Eks, "cn-north-1", "eks.cn-north-1.amazonaws.com.cn"),
            (Service::Eks, "us-gov-west-1", "eks.us-gov-west-1.amazonaws.com"),
            (Service::Iam, "eu-central-1", "iam.amazonaws.com"),
            (Service::Iam, "us-gov-east-1", "iam.us-gov.amazonaws.com"),
        ] {
            assert_eq!(host(service, region), wanted);
        }
    }

    #[test]
    fn what_is_no_endpoint_or_region_is_refused() {
        let made = |region: &str, endpoint: Option<&str>| {
            let settings = Settings {
                endpoint: Some(endpoint.unwrap_or("http://127.0.0.1:1").to_owned()),
                ..Settings::new(region, Credentials::new("a", "b", None))
            };
            Client::new(settings)
        };
        for endpoint in [
            "127.0.0.1",
            "ftp://a",
            "http://a/path",
            "http://user@a",
            "",
            "http://",
        ] {
            let error = made("eu-west-1", Some(endpoint)).unwrap_err();
            assert!(matches!(error, ClientError::Endpoint(_)), "{endpoint}: {error}");
        }
        for region in ["", "Frankfurt", "a.b", "eu-central-1/x"] {
            assert!(matches!(made(region, None).unwrap_err(), ClientError::Region(_)));
        }
        assert!(made("eu-west-1", Some("http://127.0.0.1:5000/")).is_ok());
    }

    #[test]
    fn pages_are_joined_in_their_order() {
        let page = |items: &[&str]| json!({"addons": items, "other": 1});
        assert_eq!(
            joined(page(&["a"]), page(&["b", "c"]), Some("addons")),
            page(&["a", "b", "c"])
        );
    }

    #[test]
    fn a_pause_is_never_longer_than_said() {
        let pause = Duration::from_millis(400);
        for _ in 0..100 {
            let drawn = jittered(pause);
            assert!(drawn >= pause / 2 && drawn <= pause, "{drawn:?}");
        }
    }
}
