//! The shape of a sealed record in the store: in one value, or as a head and chunks.
//!
//! A large record owns [`CHUNKS`] keys besides its own. Every change of it writes or removes all of them in
//! the batch that changes the head, so whatever was there before is gone, and nothing has to be read first.
//! Head and chunks carry a random number drawn for that write; a reader that finds two of them knows that the
//! record was replaced amid its read, and starts over.
//!
//! Chunks are kept in a region of their own ([`CHUNK_REGION`] before the record's key), so that a scan of
//! records does not meet them.

use std::borrow::Cow;

use ring::rand::{SecureRandom, SystemRandom};

use super::super::seal::OVERHEAD;
use super::super::{Kv, MAX_VALUE, StoreError, Write};

/// The longest record, in bytes, its version included. Its batch stays within
/// [`MAX_BATCH`](super::super::MAX_BATCH) and leaves room for others.
pub const MAX_RECORD: usize = 96 * 1024;
/// The first byte of the keys of chunks. Keys of records begin with a letter.
pub(super) const CHUNK_REGION: u8 = 0xff;

/// First byte of a record in one value; the sealed bytes follow.
const WHOLE: u8 = 1;
/// First byte of a head; the write's number and the count of chunks follow.
const HEAD: u8 = 2;
const NUMBER: usize = 8;
/// Sealed bytes in a chunk.
const PART: usize = MAX_VALUE - NUMBER;
/// The most chunks a record has.
const CHUNKS: usize = (MAX_RECORD + OVERHEAD).div_ceil(PART);

/// What was found of a record.
pub(super) enum Assembled<'a> {
    /// Its sealed bytes.
    Whole(Cow<'a, [u8]>),
    /// Chunks that do not belong to the head.
    Torn,
    /// No shape of ours.
    Damaged,
}

/// Adds the writes that store `sealed` at `key`.
pub(super) fn put(
    key: Vec<u8>,
    sealed: &[u8],
    large: bool,
    writes: &mut Vec<Write>,
) -> Result<(), StoreError> {
    if sealed.len() < MAX_VALUE {
        if large {
            remove_chunks(&key, 0, writes);
        }
        writes.push(Write::Put(key, [&[WHOLE], sealed].concat()));
        return Ok(());
    }
    if !large {
        return Err(StoreError::Limit("the length of a record that is not large"));
    }
    let mut number = [0; NUMBER];
    SystemRandom::new()
        .fill(&mut number)
        .map_err(|_| StoreError::Failed("the system gives no random numbers".to_owned()))?;
    let mut count = 0;
    for part in sealed.chunks(PART) {
        writes.push(Write::Put(chunk_key(&key, count), [&number, part].concat()));
        count += 1;
    }
    remove_chunks(&key, count, writes);
    writes.push(Write::Put(key, [&[HEAD], &number[..], &[count]].concat()));
    Ok(())
}

/// Adds the writes that remove the record at `key`.
pub(super) fn delete(key: Vec<u8>, large: bool, writes: &mut Vec<Write>) {
    if large {
        remove_chunks(&key, 0, writes);
    }
    writes.push(Write::Delete(key));
}

/// The sealed bytes of the record at `key`, whose value is `value`.
pub(super) async fn assemble<'a>(
    kv: &dyn Kv,
    key: &[u8],
    value: &'a [u8],
) -> Result<Assembled<'a>, StoreError> {
    let (number, count) = match value {
        [WHOLE, sealed @ ..] => return Ok(Assembled::Whole(Cow::Borrowed(sealed))),
        [HEAD, number @ .., count] if number.len() == NUMBER => (number, *count),
        _ => return Ok(Assembled::Damaged),
    };
    let mut sealed = Vec::with_capacity(usize::from(count) * PART);
    for index in 0..count {
        let Some(chunk) = kv.get(&chunk_key(key, index)).await? else {
            return Ok(Assembled::Torn);
        };
        match chunk.value.strip_prefix(number) {
            Some(part) => sealed.extend_from_slice(part),
            None => return Ok(Assembled::Torn),
        }
    }
    Ok(Assembled::Whole(Cow::Owned(sealed)))
}

fn remove_chunks(key: &[u8], from: u8, writes: &mut Vec<Write>) {
    writes.extend(
        (from..)
            .take_while(|index| usize::from(*index) < CHUNKS)
            .map(|index| Write::Delete(chunk_key(key, index))),
    );
}

fn chunk_key(key: &[u8], index: u8) -> Vec<u8> {
    [&[CHUNK_REGION], key, &[index]].concat()
}
