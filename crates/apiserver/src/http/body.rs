// SPDX-License-Identifier: Apache-2.0
//! Bodies, theirs and ours.

use std::time::Duration;

use bytes::Bytes;
use futures::Stream;
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt, Full, Limited, StreamBody};
use hyper::body::{Frame, Incoming};

use crate::status::{ApiError, Result};

/// A response's body.
pub(crate) type Body = UnsyncBoxBody<Bytes, std::io::Error>;

/// How large a request may be, as Kubernetes has it.
const MAX_BODY: usize = 3 << 20;
/// How long a client may take to send it.
const BODY_TIMEOUT: Duration = Duration::from_secs(30);

/// A whole body.
pub(crate) fn json_body(bytes: Bytes) -> Body {
    Full::new(bytes).map_err(|never| match never {}).boxed_unsync()
}

/// A body that comes in pieces.
pub(crate) fn stream_body<S>(stream: S) -> Body
where
    S: Stream<Item = std::io::Result<Bytes>> + Send + 'static,
{
    use futures::StreamExt as _;
    StreamBody::new(stream.map(|piece| piece.map(Frame::data))).boxed_unsync()
}

/// Reads a request's body, bounded in size and time.
pub(crate) async fn read(body: Incoming) -> Result<Bytes> {
    let collected = tokio::time::timeout(BODY_TIMEOUT, Limited::new(body, MAX_BODY).collect()).await;
    match collected {
        Err(_) => Err(ApiError::timeout("the request's body did not arrive in time")),
        Ok(Err(error)) if error.is::<http_body_util::LengthLimitError>() => Err(ApiError::too_large()),
        Ok(Err(error)) => Err(ApiError::bad_request(format!(
            "cannot read the request's body: {error}"
        ))),
        Ok(Ok(body)) => Ok(body.to_bytes()),
    }
}
