//! Frames of the log that have arrived: read on while a transaction is under way, so that the next one takes them all.
//! Guards: what waits is bounded by one batch, and comes out in the order in which it came in.

use std::{collections::VecDeque, future::Future};

use futures_util::{FutureExt as _, StreamExt as _};

use super::{BATCH_BYTES, BATCH_EVENTS};
use crate::{Result, protocol::Frame, upstream::LogStream};

/// A log stream with what was read ahead of it.
pub(super) struct Arrivals {
    stream: LogStream,
    waiting: VecDeque<Result<Frame>>,
    /// Event bodies in `waiting`, bytes.
    bytes: usize,
    ended: bool,
}

impl Arrivals {
    pub(super) fn of(stream: LogStream) -> Self {
        Self { stream, waiting: VecDeque::new(), bytes: 0, ended: false }
    }

    /// The next frame; none when the primary ended the stream.
    pub(super) async fn next(&mut self) -> Option<Result<Frame>> {
        match self.at_once() {
            Some(frame) => frame,
            None => self.read().await,
        }
    }

    /// [`Self::next`] where it is known without waiting.
    pub(super) fn at_once(&mut self) -> Option<Option<Result<Frame>>> {
        if let Some(frame) = self.waiting.pop_front() {
            self.bytes -= size(&frame);
            return Some(Some(frame));
        }
        if self.ended { Some(None) } else { self.read().now_or_never() }
    }

    /// Reads ahead until `work` is done. The stream gives its chunks one by one, each only after it was asked: what is
    /// not taken meanwhile could not be taken at once afterwards.
    pub(super) async fn meanwhile<T>(&mut self, work: impl Future<Output = T>) -> T {
        tokio::pin!(work);
        loop {
            let full = self.waiting.len() >= BATCH_EVENTS || self.bytes >= BATCH_BYTES;
            tokio::select! {
                biased;
                done = &mut work => return done,
                frame = self.read(), if !full && !self.ended => {
                    if let Some(frame) = frame {
                        self.bytes += size(&frame);
                        self.waiting.push_back(frame);
                    }
                }
            }
        }
    }

    async fn read(&mut self) -> Option<Result<Frame>> {
        let frame = self.stream.next().await;
        self.ended |= frame.is_none();
        frame
    }
}

fn size(frame: &Result<Frame>) -> usize {
    match frame {
        Ok(Frame::Event(logged)) => logged.body.len(),
        Ok(Frame::Heartbeat(_)) | Err(_) => 0,
    }
}

#[cfg(test)]
mod tests {
    use futures_util::stream;
    use twinport_metadata::{Epoch, Incarnation, LogPosition, LoggedEvent};

    use super::*;
    use crate::Error;

    fn event(seq: i64) -> Result<Frame> {
        let epoch = Epoch { number: 1, owner: Incarnation(uuid::Uuid::nil()) };
        Ok(Frame::Event(LoggedEvent {
            position: LogPosition { epoch, seq },
            hash: [0; 32],
            body: bytes::Bytes::from_static(b"{}"),
        }))
    }

    fn seq(frame: Option<Result<Frame>>) -> Option<i64> {
        match frame {
            Some(Ok(Frame::Event(logged))) => Some(logged.position.seq),
            _ => None,
        }
    }

    /// As a connection does it: each chunk only after somebody waited for it.
    fn slowly(frames: impl IntoIterator<Item = Result<Frame>, IntoIter: Send + 'static>) -> Arrivals {
        let frames = stream::iter(frames).then(async |frame| {
            tokio::task::yield_now().await;
            frame
        });
        Arrivals::of(frames.boxed())
    }

    #[tokio::test]
    async fn what_arrives_during_a_transaction_is_there_at_once_and_in_order() {
        let mut arrivals = slowly((1..=3).map(event));
        let mut turns = 0;
        let transaction = std::future::poll_fn(|context| {
            turns += 1;
            context.waker().wake_by_ref();
            if turns > 20 { std::task::Poll::Ready("done") } else { std::task::Poll::Pending }
        });
        assert_eq!(arrivals.meanwhile(transaction).await, "done");
        for expected in 1..=3 {
            assert_eq!(seq(arrivals.at_once().unwrap()), Some(expected));
        }
        assert!(arrivals.next().await.is_none() && arrivals.at_once().unwrap().is_none());
    }

    #[tokio::test]
    async fn one_batch_at_most_is_read_ahead() {
        let mut arrivals = Arrivals::of(stream::iter((1..).map(event)).boxed());
        let mut turns = 0;
        let transaction = std::future::poll_fn(|context| {
            turns += 1;
            context.waker().wake_by_ref();
            if turns > 3 * BATCH_EVENTS { std::task::Poll::Ready(()) } else { std::task::Poll::Pending }
        });
        arrivals.meanwhile(transaction).await;
        assert_eq!(arrivals.waiting.len(), BATCH_EVENTS);
        assert_eq!(arrivals.bytes, 2 * BATCH_EVENTS);
        assert_eq!(seq(arrivals.next().await), Some(1));
    }

    #[tokio::test]
    async fn an_error_keeps_its_place_behind_the_events_before_it() {
        let broken = Err(Error::Protocol("cut".to_owned()));
        let mut arrivals = slowly([event(1), broken]);
        assert_eq!(seq(arrivals.next().await), Some(1));
        assert!(matches!(arrivals.next().await, Some(Err(Error::Protocol(_)))));
    }
}
