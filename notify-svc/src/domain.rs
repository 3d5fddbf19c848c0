//! Types that cannot be wrong: pure, without input or output.

mod content;
mod delivery;
mod recipient;
mod reply;

pub use content::{MailContent, MailKind};
pub use delivery::{DeliveryState, MailClass, UnknownValue};
pub use recipient::{InvalidRecipient, Recipient};
pub use reply::{Reply, Stage, Verdict, classify};
