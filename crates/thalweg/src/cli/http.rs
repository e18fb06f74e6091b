// SPDX-License-Identifier: Apache-2.0
//! One HTTP request to an agent's Unix socket.

use std::path::Path;
use std::time::Duration;

use anyhow::{Context, bail};
use api::agent::ErrorView;
use futures::{Stream, TryStreamExt as _};
use http_body_util::{BodyExt, Empty};
use hyper::body::{Bytes, Incoming};
use hyper_util::rt::TokioIo;
use tokio::net::UnixStream;

/// An agent that says nothing for this long is taken for dead.
const TIMEOUT: Duration = Duration::from_secs(10);

/// `GET path` on the agent whose socket this is; the body, or what the agent says about why not.
pub(crate) async fn get(socket: &Path, path: &str) -> anyhow::Result<Bytes> {
    let answer = tokio::time::timeout(TIMEOUT, request(socket, path)).await;
    answer.with_context(|| format!("{} has not answered in {TIMEOUT:?}", socket.display()))?
}

/// `GET path`, piece by piece: for answers without an end.
pub(crate) async fn follow(
    socket: &Path,
    path: &str,
) -> anyhow::Result<impl Stream<Item = anyhow::Result<Bytes>> + use<>> {
    let answer = tokio::time::timeout(TIMEOUT, begin(socket, path)).await;
    let body = answer.with_context(|| format!("{} has not answered in {TIMEOUT:?}", socket.display()))??;
    Ok(body.into_data_stream().map_err(Into::into))
}

async fn request(socket: &Path, path: &str) -> anyhow::Result<Bytes> {
    Ok(begin(socket, path).await?.collect().await?.to_bytes())
}

/// The body of an answer that is none of a failure.
async fn begin(socket: &Path, path: &str) -> anyhow::Result<Incoming> {
    let stream = UnixStream::connect(socket).await.with_context(|| {
        format!(
            "cannot connect to {}; does the agent run, and are you root?",
            socket.display()
        )
    })?;
    let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await?;
    tokio::spawn(connection);
    let request = hyper::Request::get(path)
        .header("host", "agent")
        .body(Empty::<Bytes>::new())?;
    let response = sender.send_request(request).await?;
    let status = response.status();
    if status.is_success() {
        return Ok(response.into_body());
    }
    let body = response.into_body().collect().await?.to_bytes();
    match serde_json::from_slice::<ErrorView>(&body) {
        Ok(view) => bail!("{}", view.error),
        Err(_) => bail!("{status}: {}", String::from_utf8_lossy(&body).trim()),
    }
}
