//! The frames of a log stream: u8 kind, u32 big-endian payload length, payload.
//!
//! **Architecture invariant:** an event's body travels as the bytes its origin wrote.

use bytes::{Buf as _, BufMut as _, Bytes, BytesMut};
use twinport_metadata::{Epoch, Incarnation, LogPosition, LoggedEvent};
use uuid::Uuid;

use super::Heartbeat;
use crate::{Error, Result};

/// The largest payload a reader takes, in bytes; an event is a few hundred.
pub const MAX_FRAME_BYTES: usize = 1 << 20;

const KIND_EVENT: u8 = 1;
const KIND_HEARTBEAT: u8 = 2;
const HEADER_BYTES: usize = 5;
/// Epoch number, owner, seq, hash: what stands before an event's body.
const EVENT_PREFIX_BYTES: usize = 8 + 16 + 8 + 32;

/// One message of a log stream.
#[derive(Clone, Debug, PartialEq)]
pub enum Frame {
    Event(LoggedEvent),
    Heartbeat(Heartbeat),
}

impl Frame {
    /// Appends the frame to `out`.
    ///
    /// # Errors
    /// [`Error::Protocol`] when the payload is larger than [`MAX_FRAME_BYTES`].
    pub fn encode(&self, out: &mut BytesMut) -> Result<()> {
        match self {
            Self::Event(event) => {
                header(KIND_EVENT, EVENT_PREFIX_BYTES + event.body.len(), out)?;
                out.put_i64(event.position.epoch.number);
                out.put_slice(event.position.epoch.owner.0.as_bytes());
                out.put_i64(event.position.seq);
                out.put_slice(&event.hash);
                out.put_slice(&event.body);
            }
            Self::Heartbeat(heartbeat) => {
                let json = serde_json::to_vec(heartbeat)
                    .map_err(|error| Error::Protocol(format!("a heartbeat cannot be written: {error}")))?;
                header(KIND_HEARTBEAT, json.len(), out)?;
                out.put_slice(&json);
            }
        }
        Ok(())
    }
}

fn header(kind: u8, payload: usize, out: &mut BytesMut) -> Result<()> {
    if payload > MAX_FRAME_BYTES {
        return Err(Error::Protocol(format!(
            "a frame of {payload} bytes is over the limit of {MAX_FRAME_BYTES}"
        )));
    }
    out.reserve(HEADER_BYTES + payload);
    out.put_u8(kind);
    // The limit above is far below u32::MAX.
    out.put_u32(u32::try_from(payload).unwrap_or(u32::MAX));
    Ok(())
}

/// Cuts a byte stream into frames, however the transport cut it into chunks.
#[derive(Debug, Default)]
pub struct FrameDecoder {
    buffer: BytesMut,
}

impl FrameDecoder {
    /// A decoder at the start of a stream.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds what the transport delivered.
    pub fn push(&mut self, chunk: &[u8]) {
        self.buffer.extend_from_slice(chunk);
    }

    /// The next whole frame, or `None` until more bytes are pushed.
    ///
    /// # Errors
    /// [`Error::Protocol`] for a frame that is too long, cut short or of an unknown kind; the stream is of no
    /// further use then.
    pub fn next_frame(&mut self) -> Result<Option<Frame>> {
        if self.buffer.len() < HEADER_BYTES {
            return Ok(None);
        }
        let kind = self.buffer[0];
        let length = (&self.buffer[1..HEADER_BYTES]).get_u32() as usize;
        if length > MAX_FRAME_BYTES {
            return Err(Error::Protocol(format!(
                "the peer announced a frame of {length} bytes, over {MAX_FRAME_BYTES}"
            )));
        }
        if self.buffer.len() < HEADER_BYTES + length {
            return Ok(None);
        }
        self.buffer.advance(HEADER_BYTES);
        let payload = self.buffer.split_to(length).freeze();
        match kind {
            KIND_EVENT => event(payload).map(Some),
            KIND_HEARTBEAT => serde_json::from_slice(&payload)
                .map(|heartbeat| Some(Frame::Heartbeat(heartbeat)))
                .map_err(|error| {
                    Error::Protocol(format!("the peer sent a heartbeat that cannot be read: {error}"))
                }),
            kind => Err(Error::Protocol(format!(
                "the peer sent a frame of unknown kind {kind}: upgrade this site"
            ))),
        }
    }
}

fn event(mut payload: Bytes) -> Result<Frame> {
    if payload.len() < EVENT_PREFIX_BYTES {
        return Err(Error::Protocol(format!(
            "the peer sent an event frame of {} bytes, too short",
            payload.len()
        )));
    }
    let number = payload.get_i64();
    let mut owner = [0; 16];
    payload.copy_to_slice(&mut owner);
    let seq = payload.get_i64();
    let mut hash = [0; 32];
    payload.copy_to_slice(&mut hash);
    let epoch = Epoch { number, owner: Incarnation(Uuid::from_bytes(owner)) };
    Ok(Frame::Event(LoggedEvent { position: LogPosition { epoch, seq }, hash, body: payload }))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::protocol::{Head, Nonce};

    fn frames() -> Vec<Frame> {
        let epoch = Epoch { number: 1, owner: Incarnation::random() };
        let event = LoggedEvent {
            position: LogPosition { epoch, seq: 7 },
            hash: [9; 32],
            body: Bytes::from_static(br#"{"v":1}"#),
        };
        let head = Head { number: 1, owner: epoch.owner, seq: 7, hash: [9; 32] };
        let heartbeat = Heartbeat { nonce: Some(Nonce([3; 16])), head, clock_us: 5, busy: true };
        vec![
            Frame::Event(event),
            Frame::Heartbeat(heartbeat.clone()),
            Frame::Heartbeat(Heartbeat { nonce: None, ..heartbeat }),
        ]
    }

    #[test]
    fn frames_survive_a_transport_that_cuts_anywhere() {
        let frames = frames();
        let mut wire = BytesMut::new();
        for frame in &frames {
            frame.encode(&mut wire).unwrap();
        }
        for cut in 1..wire.len() {
            let mut decoder = FrameDecoder::new();
            let mut seen = Vec::new();
            for chunk in wire.chunks(cut) {
                decoder.push(chunk);
                while let Some(frame) = decoder.next_frame().unwrap() {
                    seen.push(frame);
                }
            }
            assert_eq!(seen, frames);
        }
    }

    #[test]
    fn a_frame_that_announces_too_much_is_refused_before_it_is_buffered() {
        let mut decoder = FrameDecoder::new();
        decoder.push(&[1, 0xff, 0xff, 0xff, 0xff]);
        assert!(matches!(decoder.next_frame(), Err(Error::Protocol(_))));
    }

    #[test]
    fn a_frame_of_unknown_kind_says_upgrade() {
        let mut decoder = FrameDecoder::new();
        decoder.push(&[9, 0, 0, 0, 0]);
        let error = decoder.next_frame().unwrap_err().to_string();
        assert!(error.contains("upgrade this site"), "{error}");
    }
}
