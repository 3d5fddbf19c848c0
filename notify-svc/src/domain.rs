//! Types that cannot be wrong: pure, without input or output.

mod content;
mod delivery;
mod recipient;
mod reply;
mod request;

pub use content::{MailContent, MailKind};
pub use delivery::{DeliveryChange, DeliveryState, MailClass, UnknownValue};
pub use recipient::{InvalidRecipient, Recipient};
pub use reply::{Reply, Stage, Verdict, classify};
pub use request::{MailRequest, Revocation};
