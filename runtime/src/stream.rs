//! Responses that are streams.
//!
//! A caller can drop the body of a response at any moment. What produces it therefore runs in a task of its
//! own, which nobody drops between two statements, and hands each message over through a short queue.

use std::{panic::AssertUnwindSafe, sync::Arc, time::Duration};

use futures::FutureExt as _;
use tokio::{
    sync::{OwnedSemaphorePermit, mpsc},
    time::sleep,
};
use tokio_stream::wrappers::ReceiverStream;
use tokio_util::task::TaskTracker;
use tonic::{Code, Status, codegen::BoxStream};
use tracing::Instrument as _;
use usher_proto::account::v1::ErrorReason;

use crate::error::RichError;

/// Messages that are ready and that the caller has not taken yet.
const QUEUE: usize = 16;

/// Where a producer puts its responses.
#[derive(Debug)]
pub struct Sender<T>(mpsc::Sender<Result<T, Status>>);

/// The caller has gone, or the call was ended: nobody takes further responses.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("nobody takes further responses")]
pub struct Gone;

impl From<Gone> for Status {
    fn from(_: Gone) -> Self {
        RichError::new(
            Code::DeadlineExceeded,
            ErrorReason::DeadlineExceeded,
            "the call was ended before its end; repeat it for the rest",
        )
        .into()
    }
}

impl<T> Sender<T> {
    /// Sends a response, once the caller has taken those before it but a few.
    ///
    /// # Errors
    /// [`Gone`]. A producer passes it on with `?`; nobody sees it.
    pub async fn send(&self, response: T) -> Result<(), Gone> {
        self.0.send(Ok(response)).await.map_err(|_| Gone)
    }

    /// Waits until nobody takes further responses: for producers that wait for something else.
    pub async fn gone(&self) {
        self.0.closed().await;
    }
}

/// What [`Call::produce`](crate::call::Call::produce) needs; in the extensions of each streaming request.
#[derive(Debug, Clone)]
pub(crate) struct Producers {
    tracker: TaskTracker,
    /// Of the call: it lasts until producer and response have ended.
    permit: Arc<OwnedSemaphorePermit>,
    /// How long a producer may go on when nobody takes its responses.
    grace: Duration,
}

impl Producers {
    pub(crate) fn new(
        tracker: TaskTracker,
        permit: Arc<OwnedSemaphorePermit>,
        grace: Duration,
    ) -> Self {
        Self {
            tracker,
            permit,
            grace,
        }
    }

    pub(crate) fn produce<T, F>(&self, producer: impl FnOnce(Sender<T>) -> F) -> BoxStream<T>
    where
        T: Send + 'static,
        F: Future<Output = Result<(), Status>> + Send + 'static,
    {
        let (permit, grace) = (Arc::clone(&self.permit), self.grace);
        let (queue, responses) = mpsc::channel(QUEUE);
        let producer = producer(Sender(queue.clone()));
        self.tracker.spawn(
            async move {
                let end = tokio::select! {
                    end = AssertUnwindSafe(producer).catch_unwind() => end,
                    () = async { queue.closed().await; sleep(grace).await } => {
                        tracing::warn!("a stream went on for too long after its caller had gone");
                        return;
                    }
                };
                let error = match end {
                    Ok(Ok(())) => None,
                    Ok(Err(status)) => Some(status),
                    Err(_) => {
                        tracing::error!("a stream panicked");
                        Some(RichError::fault().into())
                    }
                };
                if let Some(error) = error {
                    // Fails if nobody takes it.
                    let _ = queue.send(Err(error)).await;
                }
                drop(permit);
            }
            .in_current_span(),
        );
        Box::pin(ReceiverStream::new(responses))
    }
}
