//! What goes wrong in a journal, and whose fault it is.

use std::io;
use std::path::Path;

use crate::domain::journal::Position;

/// Why the journal did not do what was asked.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum JournalError {
    /// A write or its `fdatasync` failed. Nothing is known of the records that waited for it, and none is
    /// taken until the journal is opened again. The machine's fault: look at the disk.
    #[error("the journal failed and takes no more records: {0}")]
    Failed(String),
    /// The queue is full. It may pass; the record was not taken.
    #[error("the journal is overloaded")]
    Overloaded,
    /// The journal has been closed.
    #[error("the journal is closed")]
    Closed,
    /// A record past [`super::MAX_RECORD`]: a fault of the program, which bounds what it takes in.
    #[error("a journal record of {bytes} bytes is past the limit")]
    TooLarge {
        /// How long its stored form would be.
        bytes: usize,
    },
    /// A record that names one kind of subject twice: a fault of the program.
    #[error("a journal record names its {0} twice")]
    RepeatedSubject(&'static str),
    /// As many effects are begun and not finished as may be. A begin was not taken.
    #[error("too many effects are begun and not finished")]
    TooManyOpen,
    /// Another process has the journal open.
    #[error("another credbrokerd already uses this journal")]
    InUse,
    /// A segment was written by a newer version.
    #[error(
        "{file} has journal format {found}, newer than this program's {supported}: run the newer credbrokerd"
    )]
    TooNew {
        /// The segment's file name.
        file: String,
        /// The format found.
        found: u32,
        /// The newest format this program knows.
        supported: u32,
    },
    /// Stored bytes are not as they were written. Nothing was changed: restore the file from a copy, and find
    /// out who or what changed it.
    #[error("the journal is damaged: {file} at byte {offset}: {damage}")]
    Damaged {
        /// The file's name.
        file: String,
        /// Where in the file, in bytes from its start.
        offset: u64,
        /// What is wrong there.
        damage: Damage,
    },
    /// A signed head says that a record was durable, and it is gone. Nothing was changed: records were cut off,
    /// or the disk lost what it said it had kept.
    #[error("the journal is cut short: position {} was signed, and it ends at {}", signed.0, last.0)]
    Truncated {
        /// The position of the newest head.
        signed: Position,
        /// The last position found.
        last: Position,
    },
    /// The configured key did not sign the newest head: it is another key, or `heads.log` was changed.
    #[error(
        "the configured key did not sign the journal's newest head: it is another key, or heads.log was changed"
    )]
    WrongKey,
    /// A file could not be read or made while opening or reading. The machine's fault.
    #[error("{file}: {message}")]
    Io {
        /// The file's path.
        file: String,
        /// What the system said.
        message: String,
    },
}

/// What is wrong with a place in a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Damage {
    /// The file does not begin as a segment does.
    #[error("this is no journal segment")]
    NotASegment,
    /// The segment's header does not pass its checksum or does not fit the file's name.
    #[error("the segment's header is not as it was written")]
    Header,
    /// A frame does not pass its checksum, and was written before others that do.
    #[error("a record is not as it was written")]
    Frame,
    /// A whole frame holds what is no record, or one of another position.
    #[error("there is no record of the position expected here")]
    Record,
    /// The chain does not lead to the value that was signed, or that the next segment goes on from.
    #[error("the hash chain is broken")]
    Chain,
    /// A segment ends before the next one begins.
    #[error("records are missing up to the next segment")]
    Gap,
    /// A signed head is not as it was written.
    #[error("a signed head is not as it was written")]
    Head,
    /// There are segments and no signed heads; a journal has a head from its beginning.
    #[error("the signed heads are missing")]
    NoHeads,
    /// The first segments are not there, and no anchor says that they were pruned.
    #[error("the first records are missing, and no anchor says that they were pruned")]
    Beginning,
    /// The anchor is not as it was written, not signed by the configured key, or does not fit the segments.
    #[error("the anchor is not as it was signed, or does not fit the records kept")]
    Anchor,
    /// Segments or heads of another journal lie in the folder.
    #[error("this is of another journal")]
    OtherJournal,
}

/// Names the file in a system error.
pub(super) fn io_error(path: &Path) -> impl FnOnce(io::Error) -> JournalError {
    let file = path.display().to_string();
    move |error| JournalError::Io {
        file,
        message: error.to_string(),
    }
}
