//! Golden files: read, written where they are missing, and held against records.

use std::fmt::Write as _;
use std::path::PathBuf;

use credbroker::store::StoreError;
use credbroker::store::keys::Key;
use credbroker::store::record::{Record, decode, encode};
use minicbor::Decoder;

/// CBOR's null (RFC 8949 section 3.3).
const NULL: u8 = 0xf6;

pub(crate) fn key() -> Key {
    Key::from(b"golden".to_vec())
}

pub(crate) fn bytes_of<T: Record>(record: &T) -> Vec<u8> {
    encode(&key(), record).unwrap().to_vec()
}

pub(crate) fn path(name: &str) -> PathBuf {
    let folder = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/golden/records");
    folder.join(format!("{name}.hex"))
}

pub(crate) fn to_hex(bytes: &[u8]) -> String {
    let mut text = String::new();
    for line in bytes.chunks(32) {
        line.iter().for_each(|byte| write!(text, "{byte:02x}").unwrap());
        text.push('\n');
    }
    text
}

pub(crate) fn golden(name: &str, today: &[u8]) -> Vec<u8> {
    let path = path(name);
    let bless = std::env::var("CREDBROKER_BLESS").is_ok_and(|value| value == "1");
    if bless && !path.exists() {
        std::fs::write(&path, to_hex(today)).unwrap();
    }
    let text = std::fs::read_to_string(&path).unwrap_or_else(|error| {
        panic!("{name}: {error}; for a new record run CREDBROKER_BLESS=1 cargo test --test records_golden")
    });
    let digits: Vec<u8> = text.bytes().filter(|byte| !byte.is_ascii_whitespace()).collect();
    digits
        .chunks(2)
        .map(|pair| u8::from_str_radix(std::str::from_utf8(pair).unwrap(), 16).unwrap())
        .collect()
}

/// A record's fields: their numbers and the CBOR of their values.
pub(crate) fn fields(bytes: &[u8]) -> Vec<(u32, Vec<u8>)> {
    let mut decoder = Decoder::new(&bytes[1..]);
    let count = decoder.map().unwrap().unwrap();
    let mut fields = Vec::new();
    for _ in 0..count {
        let number = decoder.u32().unwrap();
        let start = decoder.position();
        decoder.skip().unwrap();
        fields.push((number, bytes[1..][start..decoder.position()].to_vec()));
    }
    assert_eq!(decoder.position(), bytes.len() - 1, "nothing after the map");
    fields
}

/// The record of this version with these fields.
pub(crate) fn assemble(version: u8, fields: &[(u32, Vec<u8>)]) -> Vec<u8> {
    let mut encoder = minicbor::Encoder::new(vec![version]);
    encoder.map(fields.len() as u64).unwrap();
    for (number, value) in fields {
        encoder.u32(*number).unwrap();
        encoder.writer_mut().extend_from_slice(value);
    }
    encoder.into_writer()
}

/// Holds `value` against the golden file `name`. `optional` are the numbers of the fields that older bytes may
/// lack; without any other the record does not read.
pub(crate) fn check<T: Record>(name: &str, value: &T, optional: &[u32]) {
    let today = bytes_of(value);
    let golden = golden(name, &today);
    assert_eq!(
        to_hex(&golden),
        to_hex(&today),
        "{name}: encoded otherwise than it was released"
    );
    let reads_as = |bytes: &[u8], expected: &[u8]| {
        let decoded: T = decode(&key(), bytes).unwrap_or_else(|error| panic!("{name}: {error}"));
        assert_eq!(to_hex(&bytes_of(&decoded)), to_hex(expected), "{name}");
    };
    reads_as(&golden, &golden);

    // A later version's additional field, of a shape unknown today.
    let fields = fields(&golden);
    let mut more = fields.clone();
    more.push((200, vec![0x82, 0x01, 0xa1, 0x61, b'x', NULL]));
    reads_as(&assemble(golden[0], &more), &golden);
    more.rotate_right(1);
    reads_as(&assemble(golden[0], &more), &golden);

    for (at, (number, _)) in fields.iter().enumerate() {
        let (mut without, mut none) = (fields.clone(), fields.clone());
        without.remove(at);
        none[at].1 = vec![NULL];
        let without = assemble(golden[0], &without);
        if optional.contains(number) {
            reads_as(&without, &assemble(golden[0], &none));
        } else {
            let read = decode::<T>(&key(), &without).err();
            assert!(
                matches!(read, Some(StoreError::Malformed { .. })),
                "{name} without field {number}"
            );
        }
    }

    let newer = [&[golden[0] + 1], &golden[1..]].concat();
    let read = decode::<T>(&key(), &newer).err();
    assert!(
        matches!(read, Some(StoreError::RecordTooNew { .. })),
        "{name} of a newer version"
    );
}

/// Holds the bytes of an earlier form of the record against `value`, which is what they read as today.
pub(crate) fn older<T: Record>(name: &str, value: &T) {
    let bytes = std::fs::read_to_string(path(name)).unwrap();
    assert!(!bytes.is_empty(), "{name}");
    let decoded: T = decode(&key(), &golden(name, &[])).unwrap_or_else(|error| panic!("{name}: {error}"));
    assert_eq!(to_hex(&bytes_of(&decoded)), to_hex(&bytes_of(value)), "{name}");
}
