//! The journal: every decision and every effect, in order, durable before it is acted on, tamper-evident.
//!
//! It is both audit log and cost ledger. Append-only segment files in a folder of their own, apart from the
//! store; `docs/journal.md` describes every byte. What it promises:
//!
//! - A position is handed out only after its record is durable; readers and heads see durable records only.
//! - After a write or a sync failed, nothing more is taken: the broker fails closed.
//! - A crash loses nothing acknowledged and leaves no half record. Anything else that differs from what was
//!   written is refused at opening, at reading or by [`verify`], never mended in silence.
//! - Only whole old segments go, by [`Journal::prune`], and a signed anchor stays in their place.
//! - No lock is held across an await, and every queue, page, index and file of heads is bounded.
//!
//! What verification needs is pure, and there without the feature `server`.

mod head;
mod record;
mod value;
pub mod verify;

#[cfg(feature = "server")]
mod anchor;
#[cfg(feature = "server")]
mod encode;
#[cfg(feature = "server")]
mod error;
#[cfg(feature = "testing")]
mod fault;
#[cfg(feature = "server")]
mod frame;
#[cfg(feature = "server")]
mod handle;
#[cfg(feature = "server")]
mod heads;
#[cfg(feature = "server")]
mod key;
#[cfg(feature = "server")]
mod open;
#[cfg(feature = "server")]
mod prune;
#[cfg(feature = "server")]
mod read;
#[cfg(feature = "server")]
mod segment;
#[cfg(feature = "testing")]
pub mod simulated;
#[cfg(feature = "server")]
mod writer;

#[cfg(feature = "server")]
pub use error::{Damage, JournalError};
#[cfg(feature = "testing")]
pub use fault::Faults;
#[cfg(feature = "server")]
pub use handle::{Journal, OpenEffect, Opened, Options};
pub use head::{Anchor, PublicKey, SignedHead};
#[cfg(feature = "server")]
pub use key::{KeyError, SigningKey};
#[cfg(feature = "server")]
pub use prune::{PrunePlan, PruneTo};
#[cfg(feature = "server")]
pub use read::MAX_PAGE;
pub use record::{Entry, MAX_RECORD, StoredRecord, Verdict};
pub use value::{Chain, JournalId, Signature};
