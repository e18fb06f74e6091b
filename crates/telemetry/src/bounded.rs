// SPDX-License-Identifier: Apache-2.0
//! Serving people on the network: a bounded number of connections, each for one request and a bounded time, so that
//! nobody can use up the program's descriptors.

use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use hyper::server::conn::http1;
use hyper_util::rt::TokioIo;
use hyper_util::service::TowerToHyperService;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tracing::debug;

/// What one listener lets in.
#[derive(Clone, Copy, Debug)]
pub struct Bounds {
    /// Connections at a time; further ones wait in the kernel.
    pub connections: usize,
    /// How long a connection may last.
    pub time: Duration,
}

/// After a failure to accept, mostly for want of descriptors.
const PAUSE: Duration = Duration::from_millis(100);

/// Answers requests until it is dropped.
pub async fn serve(listener: TcpListener, router: Router, bounds: Bounds) {
    let room = Arc::new(Semaphore::new(bounds.connections));
    loop {
        // The semaphore is never closed.
        let Ok(permit) = room.clone().acquire_owned().await else {
            return;
        };
        match listener.accept().await {
            Ok((stream, _)) => {
                let router = router.clone();
                tokio::spawn(async move {
                    let _ = tokio::time::timeout(bounds.time, answer(stream, router)).await;
                    drop(permit);
                });
            }
            Err(error) => {
                debug!(%error, "a connection could not be accepted");
                tokio::time::sleep(PAUSE).await;
            }
        }
    }
}

async fn answer(stream: TcpStream, router: Router) {
    let service = TowerToHyperService::new(router);
    let connection = http1::Builder::new()
        .keep_alive(false)
        .serve_connection(TokioIo::new(stream), service);
    if let Err(error) = connection.await {
        debug!(%error, "a connection ended early");
    }
}

#[cfg(test)]
mod tests {
    use axum::routing::get;
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

    use super::*;

    #[test]
    fn silent_clients_do_not_keep_others_out() {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .unwrap();
        runtime.block_on(async {
            let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
            let address = listener.local_addr().unwrap();
            let router = Router::new().route("/", get(|| async { "hello" }));
            let bounds = Bounds {
                connections: 1,
                time: Duration::from_millis(50),
            };
            tokio::spawn(serve(listener, router, bounds));
            let _silent = TcpStream::connect(address).await.unwrap();
            let mut client = TcpStream::connect(address).await.unwrap();
            client
                .write_all(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
                .await
                .unwrap();
            let mut answer = String::new();
            client.read_to_string(&mut answer).await.unwrap();
            assert!(answer.ends_with("hello"), "{answer}");
        });
    }
}
