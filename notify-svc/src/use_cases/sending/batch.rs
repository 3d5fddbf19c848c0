//! Gathers what single tasks want from the database into few statements: while one batch is under way,
//! the next one fills.

use std::{future::Future, panic::AssertUnwindSafe};

use futures::FutureExt as _;
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

impl<T: Clone + Send + 'static, R: Send + 'static> Batcher<T, R> {
    /// Handles batches with `handle`, one at a time, which answers each item in order; no answers at all mean
    /// that the batch failed. If it panics, the items are handled again, one by one, so that only the item at
    /// fault fails. Ends when the last clone is dropped.
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
                if let Some(answers) = unless_it_panics(&mut handle, items.clone()).await {
                    answer(callers, answers);
                    continue;
                }
                for (item, caller) in items.into_iter().zip(callers) {
                    if let Some(answers) = unless_it_panics(&mut handle, vec![item]).await {
                        answer([caller], answers);
                    }
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

/// The answers of `handle`; `None` if it panics. The task must outlive that: it is the only one that records.
async fn unless_it_panics<T, R, A>(
    handle: &mut impl FnMut(Vec<T>) -> A,
    items: Vec<T>,
) -> Option<Vec<R>>
where
    A: Future<Output = Vec<R>>,
{
    let count = items.len();
    let answers = AssertUnwindSafe(async { handle(items).await })
        .catch_unwind()
        .await;
    if answers.is_err() {
        // The payload of a panic may hold anything; the panic hook has told where it was.
        tracing::error!(count, "writing a batch to the database panicked");
    }
    answers.ok()
}

fn answer<R>(callers: impl IntoIterator<Item = oneshot::Sender<R>>, answers: Vec<R>) {
    for (caller, answer) in callers.into_iter().zip(answers) {
        // A caller that has gone needs no answer.
        let _ = caller.send(answer);
    }
}

#[cfg(test)]
mod tests {
    use futures::future::join_all;

    use super::*;

    const FAULTY: u32 = 7;

    #[tokio::test]
    async fn a_panic_fails_the_item_at_fault_alone() {
        let batcher = Batcher::spawn(|items: Vec<u32>| async {
            assert!(!items.contains(&FAULTY), "on purpose");
            items.into_iter().map(|item| item * 2).collect::<Vec<_>>()
        });
        for _ in 0..3 {
            let answers = join_all((0..20).map(|item| batcher.submit(item))).await;
            for (item, answer) in (0..20).zip(answers) {
                assert_eq!(answer, (item != FAULTY).then_some(item * 2), "{item}");
            }
        }
    }
}
