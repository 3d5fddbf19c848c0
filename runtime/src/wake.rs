//! Waking workers.

use std::sync::Arc;

use tokio::sync::Notify;

/// Wakes a worker of this process: there is something to do, a transaction with it has committed.
#[derive(Debug, Clone, Default)]
pub struct Wake(Arc<Notify>);

impl Wake {
    /// Call after the commit. Cheap; many calls are as good as one.
    pub fn notify(&self) {
        self.0.notify_one();
    }

    /// Waits for the next call of [`Self::notify`]; returns at once if there was one since the last wait.
    pub async fn notified(&self) {
        self.0.notified().await;
    }
}
