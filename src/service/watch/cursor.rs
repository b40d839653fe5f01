//! Cursors: the number of an event, sealed for one actor.
//!
//! Sealed, because the number counts the events of all orgs, and nobody is to learn how much happens elsewhere.
//! The seal is a synthetic one: a tag over actor and number, and the number hidden under a pad made from the tag.
//! Equal positions give equal cursors, and there is no nonce to run out of.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use ring::hmac::{self, HMAC_SHA256};

use super::hub::{From, Sequence};
use crate::domain::refusal::Refusal;

const RUN: usize = 8;
const TAG: usize = 16;
const NUMBER: usize = 8;

/// Makes and opens the cursors of one run of the broker.
pub(in crate::service) struct Cursors {
    run: [u8; RUN],
    key: hmac::Key,
}

impl Cursors {
    /// With randomness of its own for each run.
    pub(in crate::service) fn new(run: [u8; RUN], key: [u8; 32]) -> Self {
        let key = hmac::Key::new(HMAC_SHA256, &key);
        Self { run, key }
    }

    fn tag(&self, actor: &[u8; 16], number: [u8; NUMBER]) -> [u8; TAG] {
        self.first(b'T', &[actor, &number])
    }

    fn pad(&self, tag: &[u8; TAG], number: [u8; NUMBER]) -> [u8; NUMBER] {
        let pad: [u8; NUMBER] = self.first(b'P', &[tag]);
        std::array::from_fn(|at| pad[at] ^ number[at])
    }

    /// The first bytes of a hash under the key. All that is hashed for one use has one length.
    fn first<const N: usize>(&self, usage: u8, parts: &[&[u8]]) -> [u8; N] {
        let mut context = hmac::Context::with_key(&self.key);
        context.update(&[usage]);
        parts.iter().for_each(|part| context.update(part));
        let hash = context.sign();
        std::array::from_fn(|at| hash.as_ref()[at])
    }

    /// The cursor that goes on with `sequence`.
    pub(super) fn seal(&self, actor: &[u8; 16], sequence: Sequence) -> String {
        let number = sequence.to_be_bytes();
        let tag = self.tag(actor, number);
        let mut bytes = [0; RUN + TAG + NUMBER];
        bytes[..RUN].copy_from_slice(&self.run);
        bytes[RUN..RUN + TAG].copy_from_slice(&tag);
        bytes[RUN + TAG..].copy_from_slice(&self.pad(&tag, number));
        URL_SAFE_NO_PAD.encode(bytes)
    }

    /// Where a cursor goes on. Refuses what is none, or is somebody else's.
    pub(super) fn open(&self, actor: &[u8; 16], text: &str) -> Result<From, Refusal> {
        if text.is_empty() {
            return Ok(From::Now);
        }
        let malformed = || Refusal::invalid("cursor", "cursor is not one that this caller was given");
        let mut bytes = [0; RUN + TAG + NUMBER];
        let length = URL_SAFE_NO_PAD.decode_slice(text, &mut bytes);
        if length != Ok(bytes.len()) {
            return Err(malformed());
        }
        let (run, sealed) = bytes.split_at(RUN);
        let (tag, hidden) = sealed.split_at(TAG);
        if run != self.run {
            return Ok(From::Unknown);
        }
        let (tag, hidden): ([u8; TAG], [u8; NUMBER]) = (
            tag.try_into().map_err(|_| malformed())?,
            hidden.try_into().map_err(|_| malformed())?,
        );
        let number = self.pad(&tag, hidden);
        // Nothing is gained by guessing one: a caller hears what it may hear from any number on.
        if self.tag(actor, number) != tag {
            return Err(malformed());
        }
        Ok(From::Event(Sequence::from_be_bytes(number)))
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    const ME: [u8; 16] = [1; 16];

    fn cursors(run: u8) -> Cursors {
        Cursors::new([run; 8], [run; 32])
    }

    #[test]
    fn a_cursor_opens_for_its_actor_in_its_run() {
        let cursors = cursors(1);
        for sequence in [0, 1, 4095, u64::MAX] {
            let text = cursors.seal(&ME, sequence);
            assert_eq!(cursors.open(&ME, &text).unwrap(), From::Event(sequence));
            assert!(cursors.open(&[2; 16], &text).is_err());
        }
        assert_eq!(cursors.open(&ME, "").unwrap(), From::Now);
        let earlier = self::cursors(2).seal(&ME, 7);
        assert_eq!(cursors.open(&ME, &earlier).unwrap(), From::Unknown);
    }

    #[test]
    fn what_was_not_given_out_is_refused() {
        let cursors = cursors(1);
        let good = cursors.seal(&ME, 7);
        for text in ["x", &good[1..], &format!("{good}A"), "!", &"A".repeat(10_000)] {
            assert!(cursors.open(&ME, text).is_err(), "{text}");
        }
        // Any changed byte past the run's.
        for at in RUN..RUN + TAG + NUMBER {
            let mut bytes = URL_SAFE_NO_PAD.decode(&good).unwrap();
            bytes[at] ^= 1;
            assert!(
                cursors.open(&ME, &URL_SAFE_NO_PAD.encode(bytes)).is_err(),
                "byte {at}"
            );
        }
    }

    #[test]
    fn a_cursor_does_not_tell_how_much_happened() {
        let (one, next) = (cursors(1).seal(&ME, 1), cursors(1).seal(&ME, 2));
        let hidden = |text: &str| URL_SAFE_NO_PAD.decode(text).unwrap()[RUN + TAG..].to_vec();
        let difference = hidden(&one)
            .iter()
            .zip(hidden(&next))
            .filter(|(a, b)| **a != *b)
            .count();
        assert!(difference > 4, "neighbours look alike");
    }
}
