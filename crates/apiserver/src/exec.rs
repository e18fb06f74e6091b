// SPDX-License-Identifier: Apache-2.0
//! Commands in pods, over a WebSocket that carries several streams: `v4.channel.k8s.io` and `v5.channel.k8s.io`.
//!
//! Each binary message begins with the number of its stream. Version 5 adds a message that closes one, so that a command
//! that reads its input to the end comes to an end.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures::stream::{SplitSink, SplitStream};
use futures::{SinkExt as _, StreamExt as _};
use http::header::{CONNECTION, SEC_WEBSOCKET_ACCEPT, SEC_WEBSOCKET_KEY, SEC_WEBSOCKET_PROTOCOL, UPGRADE};
use http::{HeaderValue, Request, Response, StatusCode};
use hyper::body::Incoming;
use hyper::upgrade::Upgraded;
use hyper_util::rt::TokioIo;
use serde_json::{Value, json};
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::sync::mpsc;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::handshake::derive_accept_key;
use tokio_tungstenite::tungstenite::protocol::frame::coding::CloseCode;
use tokio_tungstenite::tungstenite::protocol::{CloseFrame, Role};
use tokio_util::sync::CancellationToken;

use crate::http::{Body, json_body};
use crate::runtime::{ExecRequest, ExecSession, PodRuntime, RuntimeError, TerminalSize};
use crate::status::{ApiError, Result};

const STDIN: u8 = 0;
const STDOUT: u8 = 1;
const STDERR: u8 = 2;
const ERROR: u8 = 3;
const RESIZE: u8 = 4;
const CLOSE: u8 = 255;

/// The protocols in the order in which they are preferred.
const PROTOCOLS: [&str; 2] = ["v5.channel.k8s.io", "v4.channel.k8s.io"];
/// How much of a command's output goes into one message.
const CHUNK: usize = 16 << 10;
/// How many messages may wait for a slow client; then the command's output waits.
const OUTPUT_QUEUE: usize = 16;
/// How long output may still come after the command has ended: a child that keeps the pipe open must not hold the client.
const DRAIN_TIMEOUT: Duration = Duration::from_secs(1);

type Socket = WebSocketStream<TokioIo<Upgraded>>;

/// Answers the request to upgrade, and runs the command on the upgraded connection.
pub(crate) fn upgrade(
    mut request: Request<Incoming>,
    runtime: Arc<dyn PodRuntime>,
    exec: ExecRequest,
    stopping: CancellationToken,
) -> Result<Response<Body>> {
    let header = |name| {
        request
            .headers()
            .get(name)
            .and_then(|v: &HeaderValue| v.to_str().ok())
            .unwrap_or_default()
    };
    if !header(UPGRADE).eq_ignore_ascii_case("websocket") {
        return Err(ApiError::bad_request(
            "unable to upgrade: exec needs a WebSocket; SPDY is not supported",
        ));
    }
    let offered: Vec<&str> = header(SEC_WEBSOCKET_PROTOCOL).split(',').map(str::trim).collect();
    let protocol = PROTOCOLS
        .into_iter()
        .find(|p| offered.contains(p))
        .ok_or_else(|| {
            ApiError::bad_request(format!(
                "unable to upgrade: none of the offered protocols {offered:?} is one of {PROTOCOLS:?}"
            ))
        })?;
    let accept = HeaderValue::from_str(&derive_accept_key(header(SEC_WEBSOCKET_KEY).as_bytes()));
    let accept = accept.map_err(|_| ApiError::bad_request("unable to upgrade: bad Sec-WebSocket-Key"))?;
    let upgraded = hyper::upgrade::on(&mut request);
    tokio::spawn(async move {
        let Ok(upgraded) = upgraded.await else { return };
        let socket = WebSocketStream::from_raw_socket(TokioIo::new(upgraded), Role::Server, None).await;
        tokio::select! {
            () = run(socket, runtime, exec) => {}
            () = stopping.cancelled() => {}
        }
    });
    let mut response = Response::new(json_body(Bytes::new()));
    *response.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
    let headers = response.headers_mut();
    headers.insert(CONNECTION, HeaderValue::from_static("Upgrade"));
    headers.insert(UPGRADE, HeaderValue::from_static("websocket"));
    headers.insert(SEC_WEBSOCKET_ACCEPT, accept);
    headers.insert(SEC_WEBSOCKET_PROTOCOL, HeaderValue::from_static(protocol));
    Ok(response)
}

async fn run(socket: Socket, runtime: Arc<dyn PodRuntime>, request: ExecRequest) {
    let (mut sink, stream) = socket.split();
    let status = match runtime.exec(request).await {
        Ok(session) => match drive(session, &mut sink, stream).await {
            Some(exit) => exit.map_or_else(|e| failure(&e), exit_status),
            // The client has gone, and the session with it.
            None => return,
        },
        Err(error) => failure(&error),
    };
    // A client that has gone needs no status.
    let _ = sink.send(message(ERROR, status.to_string().as_bytes())).await;
    // Clients take a close without a code for a broken connection.
    let frame = CloseFrame {
        code: CloseCode::Normal,
        reason: "".into(),
    };
    let _ = sink.send(Message::Close(Some(frame))).await;
}

/// Carries the streams until the command has ended; `None` when the client went first.
async fn drive(
    mut session: ExecSession,
    sink: &mut SplitSink<Socket, Message>,
    stream: SplitStream<Socket>,
) -> Option<Result<i32, RuntimeError>> {
    let (queue, mut output) = mpsc::channel::<Message>(OUTPUT_QUEUE);
    let pumps = [(STDOUT, session.stdout.take()), (STDERR, session.stderr.take())];
    for (channel, reader) in pumps.into_iter().filter_map(|(c, r)| Some((c, r?))) {
        tokio::spawn(pump(channel, reader, queue.clone()));
    }
    drop(queue);
    let input = input(stream, session.stdin.take(), session.resize.take());
    tokio::pin!(input);
    let mut exit = session.exit;
    let (mut ended, mut drained) = (None, false);
    let deadline = tokio::time::sleep(DRAIN_TIMEOUT);
    tokio::pin!(deadline);
    loop {
        tokio::select! {
            () = &mut input => return None,
            message = output.recv(), if !drained => match message {
                Some(message) => sink.send(message).await.ok()?,
                None => drained = true,
            },
            result = &mut exit, if ended.is_none() => {
                ended = Some(result);
                deadline.as_mut().reset(tokio::time::Instant::now() + DRAIN_TIMEOUT);
            }
            () = &mut deadline, if ended.is_some() => return ended,
        }
        if drained && ended.is_some() {
            return ended;
        }
    }
}

async fn pump(channel: u8, mut reader: Box<dyn AsyncRead + Send + Unpin>, queue: mpsc::Sender<Message>) {
    let mut buffer = vec![0; CHUNK];
    loop {
        let read = tokio::select! {
            read = reader.read(&mut buffer) => read,
            () = queue.closed() => return,
        };
        match read {
            Ok(read) if read > 0 => {
                if queue.send(message(channel, &buffer[..read])).await.is_err() {
                    return;
                }
            }
            // A terminal whose other end is closed gives an error for its end.
            Ok(_) | Err(_) => return,
        }
    }
}

/// Takes what the client sends, until it goes.
async fn input(
    mut stream: SplitStream<Socket>,
    mut stdin: Option<Box<dyn AsyncWrite + Send + Unpin>>,
    resize: Option<mpsc::Sender<TerminalSize>>,
) {
    while let Some(Ok(message)) = stream.next().await {
        if message.is_close() {
            return;
        }
        let data = message.into_data();
        match data.split_first() {
            Some((&STDIN, bytes)) => {
                let refused = match &mut stdin {
                    Some(stdin) => stdin.write_all(bytes).await.is_err() || stdin.flush().await.is_err(),
                    None => false,
                };
                if refused {
                    // The command reads no more; it may still run.
                    stdin = None;
                }
            }
            Some((&CLOSE, [STDIN])) => {
                if let Some(mut stdin) = stdin.take() {
                    let _ = stdin.shutdown().await;
                }
            }
            Some((&RESIZE, bytes)) => {
                if let (Some(resize), Ok(size)) = (&resize, serde_json::from_slice(bytes)) {
                    // A size that is not taken is followed by another one.
                    let _ = resize.try_send(size);
                }
            }
            _ => {}
        }
    }
}

fn message(channel: u8, data: &[u8]) -> Message {
    let mut bytes = Vec::with_capacity(data.len() + 1);
    bytes.push(channel);
    bytes.extend_from_slice(data);
    Message::Binary(bytes.into())
}

fn exit_status(code: i32) -> Value {
    if code == 0 {
        return json!({ "metadata": {}, "status": "Success" });
    }
    json!({
        "metadata": {}, "status": "Failure", "reason": "NonZeroExitCode",
        "message": format!("command terminated with non-zero exit code: exit status {code}"),
        "details": { "causes": [{ "reason": "ExitCode", "message": code.to_string() }] },
    })
}

fn failure(error: &RuntimeError) -> Value {
    json!({ "metadata": {}, "status": "Failure", "reason": "InternalError", "code": 500, "message": error.to_string() })
}
