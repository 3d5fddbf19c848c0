//! Types that cannot be wrong: pure, without input or output.

mod content;
mod delivery;
mod recipient;
mod recipient_limits;
mod recipient_queue;
mod reply;
mod request;
mod window;

pub use content::{MailContent, MailKind};
pub use delivery::{DeliveryChange, DeliveryState, MailClass, UnknownValue};
pub use recipient::{InvalidRecipient, Recipient};
pub use recipient_limits::{LimitName, RecipientKey, RecipientLimits};
pub use recipient_queue::{NOTICEABLE, RecipientQueue, Slot, SlotState, Turn};
pub use reply::{Reply, Stage, Verdict, classify};
pub use request::{MailRequest, Revocation};
pub use window::Window;
