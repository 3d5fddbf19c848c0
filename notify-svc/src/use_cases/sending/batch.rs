//! Gathers what single tasks want from the database into few statements: while one batch is under way,
//! the next one fills.

use std::{future::Future, pin::pin};

use tokio::sync::{mpsc, oneshot};

/// Most items of a batch.
const MAX_BATCH: usize = 256;

/// Where tasks hand in their items. Clones share the batches.
pub struct Batcher<T, R> {
    sender: mpsc::Sender<(T, oneshot::Sender<R>)>,
}

impl<T, R> Clone for Batcher<T, R> {
    fn clone(&self) -> Self {
        Self {
            sender: self.sender.clone(),
        }
    }
}

impl<T: Send + 'static, R: Send + 'static> Batcher<T, R> {
    /// Handles batches with `handle`, one at a time, which answers each item in order; no answers at all mean
    /// that the batch failed. Ends when the last clone is dropped.
    pub fn spawn<F, A>(mut handle: F) -> Self
    where
        F: FnMut(Vec<T>) -> A + Send + 'static,
        A: Future<Output = Vec<R>> + Send,
    {
        let (sender, mut receiver) = mpsc::channel(MAX_BATCH);
        tokio::spawn(async move {
            let mut waiting: Vec<(T, oneshot::Sender<R>)> = Vec::new();
            while receiver.recv_many(&mut waiting, MAX_BATCH).await > 0 {
                let (items, callers): (Vec<_>, Vec<_>) = waiting.drain(..).unzip();
                let answers = pin!(handle(items)).await;
                for (caller, answer) in callers.into_iter().zip(answers) {
                    // A caller that has gone needs no answer.
                    let _ = caller.send(answer);
                }
            }
        });
        Self { sender }
    }

    /// Hands `item` in and waits for its answer; `None` if its batch failed.
    pub async fn submit(&self, item: T) -> Option<R> {
        let (caller, answer) = oneshot::channel();
        self.sender.send((item, caller)).await.ok()?;
        answer.await.ok()
    }
}
