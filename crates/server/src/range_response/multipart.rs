//! Several parts of a content as one body: `multipart/byteranges` (RFC 9110, section 14.6).
//! Invariant: the length is known before the first byte, and no content can hold the boundary but by guessing it.

use std::ops::Range;

use bytes::Bytes;
use futures_util::stream::{self, Stream, StreamExt};
use http::HeaderValue;
use uuid::Uuid;

use crate::answer::visible;

/// The parts and what stands between them.
pub(crate) struct Multipart {
    boundary: String,
    /// Each part with the lines before it.
    parts: Vec<(Bytes, Range<u64>)>,
    end: Bytes,
}

impl Multipart {
    /// `parts` of a content of `size` bytes and this media type.
    pub(crate) fn new(parts: Vec<Range<u64>>, size: u64, media_type: &str) -> Self {
        let boundary = Uuid::new_v4().simple().to_string();
        let head = |part: &Range<u64>| {
            let (first, last) = (part.start, part.end.saturating_sub(1));
            Bytes::from(format!(
                "\r\n--{boundary}\r\nContent-Type: {media_type}\r\nContent-Range: bytes {first}-{last}/{size}\r\n\r\n"
            ))
        };
        let parts = parts.into_iter().map(|part| (head(&part), part)).collect();
        let end = Bytes::from(format!("\r\n--{boundary}--\r\n"));
        Self { boundary, parts, end }
    }

    pub(crate) fn content_type(&self) -> HeaderValue {
        visible(Bytes::from(format!("multipart/byteranges; boundary={}", self.boundary)))
    }

    /// Of the whole body, in bytes.
    pub(crate) fn len(&self) -> u64 {
        let parts: u64 =
            self.parts.iter().map(|(head, part)| head.len() as u64 + part.end - part.start).sum();
        parts + self.end.len() as u64
    }

    /// The body; `read` gives the bytes of a part.
    pub(crate) fn stream<S, E>(
        self,
        mut read: impl FnMut(Range<u64>) -> S + Send + 'static,
    ) -> impl Stream<Item = Result<Bytes, E>> + Send + 'static
    where
        S: Stream<Item = Result<Bytes, E>> + Send + 'static,
        E: Send + 'static,
    {
        stream::iter(self.parts)
            .flat_map(move |(head, part)| stream::iter([Ok(head)]).chain(read(part)))
            .chain(stream::iter([Ok(self.end)]))
    }
}
