//! Frames: how bytes are kept apart in a segment, and told from what a crash left half written.
//!
//! A frame is a CRC-32 (of all that follows), a length and a `back` (each `u32`, little endian), and the
//! payload. `back` counts the bytes from the first frame of the same write. A write is durable only as a
//! whole, and a power cut may keep its later pages and lose earlier ones; `back` tells such a torn last
//! write, which nobody was answered for, from damage to one that was followed by others.

use std::io::{self, ErrorKind, Read};

/// The length of what precedes a payload.
pub(super) const PREFIX: usize = 12;

/// A frame that passed its checksum.
#[derive(Clone, Copy, Debug)]
pub(super) struct Frame<'a> {
    pub(super) payload: &'a [u8],
    pub(super) back: u32,
}

impl Frame<'_> {
    /// Its length in the file.
    pub(super) fn len(&self) -> usize {
        PREFIX + self.payload.len()
    }
}

/// Starts a frame at the end of `buffer`; the payload is then appended, and [`finish`] called with what this
/// returned.
pub(super) fn start(buffer: &mut Vec<u8>) -> usize {
    let start = buffer.len();
    buffer.extend_from_slice(&[0; PREFIX]);
    start
}

/// Fills in the prefix of the frame that [`start`] began. Payloads are bounded far below 4 GiB.
pub(super) fn finish(buffer: &mut [u8], start: usize, back: usize) {
    let frame = &mut buffer[start..];
    let length = u32::try_from(frame.len() - PREFIX).unwrap_or(u32::MAX);
    frame[4..8].copy_from_slice(&length.to_le_bytes());
    frame[8..12].copy_from_slice(&u32::try_from(back).unwrap_or(u32::MAX).to_le_bytes());
    let crc = crc32fast::hash(&frame[4..]);
    frame[..4].copy_from_slice(&crc.to_le_bytes());
}

fn word(bytes: &[u8], at: usize) -> Option<u32> {
    let word = bytes.get(at..at + 4)?;
    word.try_into().map(u32::from_le_bytes).ok()
}

/// The whole and sound frame at `offset`, whose payload is at most `limit` bytes long.
pub(super) fn at(bytes: &[u8], offset: usize, limit: usize) -> Option<Frame<'_>> {
    let bytes = bytes.get(offset..)?;
    let crc = word(bytes, 0)?;
    let length = usize::try_from(word(bytes, 4)?).ok()?;
    if length == 0 || length > limit {
        return None;
    }
    let covered = bytes.get(4..PREFIX + length)?;
    (crc32fast::hash(covered) == crc).then_some(Frame {
        payload: &covered[PREFIX - 4..],
        back: word(bytes, 8)?,
    })
}

/// Reads the next frame, whole, into `buffer`. `false` where there is none that is whole and sound.
pub(super) fn read(input: &mut impl Read, buffer: &mut Vec<u8>, limit: usize) -> io::Result<bool> {
    let whole = |result: io::Result<()>| match result {
        Err(error) if error.kind() == ErrorKind::UnexpectedEof => Ok(false),
        Err(error) => Err(error),
        Ok(()) => Ok(true),
    };
    buffer.clear();
    buffer.resize(PREFIX, 0);
    if !whole(input.read_exact(buffer))? {
        return Ok(false);
    }
    let length = word(buffer, 4).and_then(|length| usize::try_from(length).ok());
    let Some(length) = length.filter(|length| *length <= limit) else {
        return Ok(false);
    };
    buffer.resize(PREFIX + length, 0);
    Ok(whole(input.read_exact(&mut buffer[PREFIX..]))? && at(buffer, 0, limit).is_some())
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn every_flipped_bit_and_every_cut_of_a_frame_shows() {
        let mut buffer = b"before".to_vec();
        let start = start(&mut buffer);
        buffer.extend_from_slice(b"payload");
        finish(&mut buffer, start, 5);
        let frame = at(&buffer, start, 100).unwrap();
        assert_eq!((frame.payload, frame.back), (b"payload".as_slice(), 5));
        assert!(at(&buffer, start, 6).is_none(), "past the limit");
        for cut in start..buffer.len() {
            assert!(at(&buffer[..cut], start, 100).is_none());
            assert!(!read(&mut &buffer[start..cut], &mut Vec::new(), 100).unwrap());
        }
        for bit in 0..(buffer.len() - start) * 8 {
            let mut bad = buffer.clone();
            bad[start + bit / 8] ^= 1 << (bit % 8);
            assert!(at(&bad, start, 100).is_none(), "bit {bit}");
        }
    }
}
