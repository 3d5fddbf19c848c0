//! A mail transport that keeps the emails in memory, for `cargo run` and tests: nothing leaves the process.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use uuid::Uuid;

use crate::{
    domain::Reply,
    mail::{MailConnection, MailTransport, OutgoingMail, SendError},
};

/// Emails that are kept; the oldest goes first.
const CAPACITY: usize = 1_000;

/// An email that was "sent".
#[derive(Clone)]
pub struct StoredMail {
    /// The delivery.
    pub id: Uuid,
    /// Envelope recipient.
    pub recipient: String,
    /// Headers and body, as SMTP would have carried them.
    pub raw: Vec<u8>,
}

/// Keeps emails instead of sending them. Clones share them.
#[derive(Clone, Default)]
pub struct LocalInbox(Arc<Mutex<Vec<StoredMail>>>);

impl LocalInbox {
    /// An empty inbox.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// All emails, oldest first.
    #[must_use]
    pub fn messages(&self) -> Vec<StoredMail> {
        self.lock().clone()
    }

    /// The email of a delivery.
    #[must_use]
    pub fn get(&self, id: Uuid) -> Option<StoredMail> {
        self.lock().iter().find(|mail| mail.id == id).cloned()
    }

    fn lock(&self) -> MutexGuard<'_, Vec<StoredMail>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl MailTransport for LocalInbox {
    type Connection = Self;

    fn name(&self) -> String {
        "the local inbox".to_owned()
    }

    async fn connect(&self) -> Result<Self, SendError> {
        Ok(self.clone())
    }
}

impl MailConnection for LocalInbox {
    async fn send(self, mail: &OutgoingMail) -> Result<Reply, SendError> {
        let mut stored = self.lock();
        if stored.len() >= CAPACITY {
            stored.remove(0);
        }
        stored.push(StoredMail {
            id: mail.delivery_id,
            recipient: mail.recipient.to_string(),
            raw: mail.raw.clone(),
        });
        Ok(Reply::new(250, "2.0.0 kept in the local inbox"))
    }
}
