// SPDX-License-Identifier: Apache-2.0
//! Load balancers ask nodes whether they have a backend of a service (`healthCheckNodePort`). The answer is kube-proxy's
//! (`pkg/proxy/healthcheck/service_health.go`).

use std::collections::BTreeMap;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::Duration;

use axum::http::{HeaderName, StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::{Json, Router};
use model::ObjectName;
use serde_json::json;
use telemetry::bounded;
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tracing::warn;

use crate::apply::HealthChecks;

/// What one port lets in: a balancer asks every few seconds.
const BOUNDS: bounded::Bounds = bounded::Bounds {
    connections: 64,
    time: Duration::from_secs(10),
};
/// Until a port that is another program's is tried again.
const RETRY: Duration = Duration::from_secs(10);
const WEIGHT: HeaderName = HeaderName::from_static("x-load-balancing-endpoint-weight");

/// What is answered at a port.
type Answer = (ObjectName, usize);

/// A port that is answered at.
struct Port {
    answer: watch::Sender<Answer>,
    server: JoinHandle<()>,
}

impl Drop for Port {
    fn drop(&mut self) {
        self.server.abort();
    }
}

/// Answers at the ports that services want, until the apply thread is gone.
pub(super) async fn keep(mut wanted: watch::Receiver<HealthChecks>) {
    let mut ports: BTreeMap<u16, Port> = BTreeMap::new();
    loop {
        let now = wanted.borrow_and_update().clone();
        ports.retain(|port, _| now.contains_key(port));
        for (port, answer) in now {
            match ports.get(&port) {
                Some(open) => drop(open.answer.send_replace(answer)),
                None => drop(ports.insert(port, open(port, answer))),
            }
        }
        if wanted.changed().await.is_err() {
            return;
        }
    }
}

fn open(port: u16, answer: Answer) -> Port {
    let (sender, answers) = watch::channel(answer);
    let server = tokio::task::spawn(async move {
        let listener = listen(port, &answers).await;
        let answer = move || {
            let answer = respond(&answers.borrow());
            async move { answer }
        };
        bounded::serve(listener, Router::new().fallback(answer), BOUNDS).await;
    });
    Port {
        answer: sender,
        server,
    }
}

/// On all addresses of both families; where the kernel has no IPv6, of IPv4.
async fn listen(port: u16, answers: &watch::Receiver<Answer>) -> TcpListener {
    loop {
        let both = TcpListener::bind(SocketAddr::from((Ipv6Addr::UNSPECIFIED, port))).await;
        let listener = match both {
            Err(error) if error.raw_os_error() == Some(libc::EAFNOSUPPORT) => {
                TcpListener::bind(SocketAddr::from((Ipv4Addr::UNSPECIFIED, port))).await
            }
            both => both,
        };
        match listener {
            Ok(listener) => return listener,
            Err(error) => {
                let service = answers.borrow().0.clone();
                warn!(%service, port, %error, "its load balancer gets no answer at the health check's port: see who listens there");
                tokio::time::sleep(RETRY).await;
            }
        }
    }
}

fn respond((service, backends): &Answer) -> Response {
    let status = if *backends > 0 {
        StatusCode::OK
    } else {
        StatusCode::SERVICE_UNAVAILABLE
    };
    let body = json!({
        "service": {"namespace": service.namespace(), "name": service.name()},
        "localEndpoints": backends,
        "serviceProxyHealthy": true,
    });
    let headers = [
        (header::X_CONTENT_TYPE_OPTIONS, "nosniff".to_owned()),
        (WEIGHT, backends.to_string()),
    ];
    (status, headers, Json(body)).into_response()
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    use tokio::net::TcpStream;

    use super::*;

    #[tokio::test]
    async fn a_port_answers_for_its_service_as_long_as_it_is_wanted() {
        let port = std::net::TcpListener::bind("127.0.0.1:0")
            .unwrap()
            .local_addr()
            .unwrap()
            .port();
        let (wanted, watched) = watch::channel(HealthChecks::new());
        let keeper = tokio::spawn(keep(watched));
        let name = ObjectName::new("shop", "web");
        wanted.send_replace([(port, (name.clone(), 2))].into());
        let answer = ask(port).await;
        assert!(answer.starts_with("HTTP/1.1 200 OK"), "{answer}");
        assert!(answer.contains("x-load-balancing-endpoint-weight: 2"), "{answer}");
        let body =
            r#"{"localEndpoints":2,"service":{"name":"web","namespace":"shop"},"serviceProxyHealthy":true}"#;
        assert!(answer.ends_with(body), "{answer}");
        wanted.send_replace([(port, (name, 0))].into());
        loop {
            if ask(port).await.starts_with("HTTP/1.1 503") {
                break;
            }
        }
        wanted.send_replace(HealthChecks::new());
        while TcpStream::connect(("127.0.0.1", port)).await.is_ok() {
            tokio::task::yield_now().await;
        }
        drop(wanted);
        keeper.await.unwrap();
    }

    /// Asks until somebody listens.
    async fn ask(port: u16) -> String {
        loop {
            let Ok(mut stream) = TcpStream::connect(("127.0.0.1", port)).await else {
                tokio::task::yield_now().await;
                continue;
            };
            stream
                .write_all(b"GET / HTTP/1.1\r\nhost: x\r\n\r\n")
                .await
                .unwrap();
            let mut answer = String::new();
            stream.read_to_string(&mut answer).await.unwrap();
            return answer;
        }
    }
}
