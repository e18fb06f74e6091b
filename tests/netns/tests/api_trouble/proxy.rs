// SPDX-License-Identifier: Apache-2.0
//! Stands between agents and the lab's API server, and spoils what it is told to.

use std::convert::Infallible;
use std::net::{SocketAddr, TcpListener};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use http_body_util::{BodyExt as _, Either, Full};
use hyper::body::{Bytes, Incoming};
use hyper::service::service_fn;
use hyper::{Request, Response};
use hyper_util::rt::TokioIo;
use kube::client::Body;
use tokio::sync::watch;

/// What every request meets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fault {
    /// Nothing: it goes through.
    None,
    /// Connections are closed without an answer.
    Away,
    /// There is never an answer.
    Hang,
    /// 429 and a time to wait.
    Busy,
    /// 500.
    Broken,
    /// 200 and no JSON.
    Garbage,
    /// Watches are gone (410), the rest goes through.
    Gone,
}

/// A running proxy.
pub(crate) struct Proxy {
    /// Where it listens.
    pub(crate) address: SocketAddr,
    fault: watch::Sender<Fault>,
    spoiled: Arc<AtomicUsize>,
}

impl Proxy {
    /// Serves on a listener, on a thread of its own, for the API server of this kubeconfig.
    pub(crate) fn start(listener: TcpListener, kubeconfig: &Path) -> Self {
        let address = listener.local_addr().unwrap();
        let (fault, faults) = watch::channel(Fault::None);
        let spoiled = Arc::new(AtomicUsize::new(0));
        let (kubeconfig, counter) = (kubeconfig.to_owned(), spoiled.clone());
        std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread()
                .enable_all()
                .build()
                .unwrap();
            runtime.block_on(serve(listener, &kubeconfig, faults, counter));
        });
        Self {
            address,
            fault,
            spoiled,
        }
    }

    /// From now on; connections that there are end.
    pub(crate) fn set(&self, fault: Fault) {
        self.spoiled.store(0, Ordering::Relaxed);
        self.fault.send_replace(fault);
    }

    /// How many requests have met the present fault.
    pub(crate) fn spoiled(&self) -> usize {
        self.spoiled.load(Ordering::Relaxed)
    }
}

async fn serve(
    listener: TcpListener,
    kubeconfig: &Path,
    faults: watch::Receiver<Fault>,
    spoiled: Arc<AtomicUsize>,
) {
    let kubeconfig = kube::config::Kubeconfig::read_from(kubeconfig).unwrap();
    let options = kube::config::KubeConfigOptions::default();
    let config = kube::Config::from_custom_kubeconfig(kubeconfig, &options).await;
    let client = kube::Client::try_from(config.unwrap()).unwrap();
    listener.set_nonblocking(true).unwrap();
    let listener = tokio::net::TcpListener::from_std(listener).unwrap();
    loop {
        let (stream, _) = listener.accept().await.unwrap();
        let (client, mut faults, spoiled) = (client.clone(), faults.clone(), spoiled.clone());
        let fault = *faults.borrow_and_update();
        tokio::spawn(async move {
            if fault == Fault::Away {
                spoiled.fetch_add(1, Ordering::Relaxed);
                return;
            }
            let service = service_fn(move |request| answer(client.clone(), request, fault, spoiled.clone()));
            let connection = hyper::server::conn::http1::Builder::new()
                .keep_alive(false)
                .serve_connection(TokioIo::new(stream), service);
            tokio::select! {
                _ = connection => {}
                // What is under way, watches above all, is reset.
                _ = faults.changed() => {}
            }
        });
    }
}

type Answer = Response<Either<Body, Full<Bytes>>>;

async fn answer(
    client: kube::Client,
    request: Request<Incoming>,
    fault: Fault,
    spoiled: Arc<AtomicUsize>,
) -> Result<Answer, Infallible> {
    let watch = request
        .uri()
        .query()
        .is_some_and(|query| query.contains("watch=true"));
    if fault != Fault::None && (fault != Fault::Gone || watch) {
        spoiled.fetch_add(1, Ordering::Relaxed);
    }
    let spoilt = |code: u16, body: &'static str| {
        let body = Either::Right(Full::new(Bytes::from_static(body.as_bytes())));
        Response::builder()
            .status(code)
            .header("content-type", "application/json")
            .header("retry-after", "1")
            .body(body)
            .unwrap()
    };
    Ok(match fault {
        Fault::Hang => std::future::pending().await,
        Fault::Busy => spoilt(429, "Too many requests, please try again later.\n"),
        Fault::Broken => spoilt(500, "etcdserver: no leader"),
        Fault::Garbage => spoilt(200, "<html>a captive portal</html>"),
        Fault::Gone if watch => spoilt(410, "too old resource version"),
        Fault::None | Fault::Away | Fault::Gone => match through(client, request).await {
            Ok(response) => response.map(Either::Left),
            Err(_) => spoilt(502, "the API server did not answer the proxy"),
        },
    })
}

async fn through(client: kube::Client, request: Request<Incoming>) -> kube::Result<Response<Body>> {
    let (head, body) = request.into_parts();
    let body = body
        .collect()
        .await
        .map(|all| all.to_bytes().to_vec())
        .unwrap_or_default();
    let uri = head
        .uri
        .path_and_query()
        .map_or("/", |path| path.as_str())
        .to_owned();
    let mut forwarded = Request::builder().method(head.method).uri(uri);
    for name in ["content-type", "accept"] {
        if let Some(value) = head.headers.get(name) {
            forwarded = forwarded.header(name, value);
        }
    }
    client.send(forwarded.body(Body::from(body)).unwrap()).await
}
