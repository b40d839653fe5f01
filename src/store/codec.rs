//! How domain types are written in records: CBOR (RFC 8949) by minicbor. Enums are stable small integers,
//! listed here and never reused.

use minicbor::decode::{Decode, Decoder, Error as DecodeError};
use minicbor::encode::{Encode, Encoder, Error as EncodeError, Write};
use zeroize::Zeroizing;

use crate::domain::agent::{KeyFingerprint, RenewalNonce, SerialNumber};
use crate::domain::approval::Listed;
use crate::domain::billing::Micros;
use crate::domain::id::{Id, Kind, Member};
use crate::domain::lineage::Fingerprint;
use crate::domain::matrix::{Pattern, Verdict};
use crate::domain::mode::{AuthMode, CredentialKind, ModeSet};
use crate::domain::name::Name;
use crate::domain::network::Network;
use crate::domain::owner::Owner;
use crate::domain::profile::OnRejection;
use crate::domain::rotation::{Fence, Incarnation};
use crate::domain::secret::{Exposure, Secret};
use crate::domain::time::Time;
use crate::domain::token::TokenHash;

type Encoded<W> = Result<(), EncodeError<<W as Write>::Error>>;

impl<C, K: Kind> Encode<C> for Id<K> {
    fn encode<W: Write>(&self, e: &mut Encoder<W>, _: &mut C) -> Encoded<W> {
        e.bytes(self.as_bytes())?.ok()
    }
}

impl<'b, C, K: Kind> Decode<'b, C> for Id<K> {
    fn decode(d: &mut Decoder<'b>, _: &mut C) -> Result<Self, DecodeError> {
        let bytes = d.bytes()?;
        let bytes = bytes
            .try_into()
            .map_err(|_| DecodeError::message("an id has 16 bytes"))?;
        Ok(Id::from_bytes(bytes))
    }
}

impl<C> Encode<C> for Time {
    fn encode<W: Write>(&self, e: &mut Encoder<W>, _: &mut C) -> Encoded<W> {
        e.i64(self.millis())?.ok()
    }
}

impl<'b, C> Decode<'b, C> for Time {
    fn decode(d: &mut Decoder<'b>, _: &mut C) -> Result<Self, DecodeError> {
        d.i64().map(Time::from_millis)
    }
}

impl<C> Encode<C> for Micros {
    fn encode<W: Write>(&self, e: &mut Encoder<W>, _: &mut C) -> Encoded<W> {
        e.i64(self.0)?.ok()
    }
}

impl<'b, C> Decode<'b, C> for Micros {
    fn decode(d: &mut Decoder<'b>, _: &mut C) -> Result<Self, DecodeError> {
        d.i64().map(Micros)
    }
}

/// A member's id, or null for the org.
impl<C> Encode<C> for Owner {
    fn encode<W: Write>(&self, e: &mut Encoder<W>, ctx: &mut C) -> Encoded<W> {
        match self {
            Owner::Member(member) => member.encode(e, ctx),
            Owner::Org => e.null()?.ok(),
        }
    }
}

impl<'b, C> Decode<'b, C> for Owner {
    fn decode(d: &mut Decoder<'b>, ctx: &mut C) -> Result<Self, DecodeError> {
        let member = Option::<Id<Member>>::decode(d, ctx)?;
        Ok(member.map_or(Owner::Org, Owner::Member))
    }
}

/// Null for all, otherwise the array.
impl<C, T: Encode<C>> Encode<C> for Listed<T> {
    fn encode<W: Write>(&self, e: &mut Encoder<W>, ctx: &mut C) -> Encoded<W> {
        match self {
            Listed::Any => e.null()?.ok(),
            Listed::Only(listed) => listed.encode(e, ctx),
        }
    }
}

impl<'b, C, T: Decode<'b, C>> Decode<'b, C> for Listed<T> {
    fn decode(d: &mut Decoder<'b>, ctx: &mut C) -> Result<Self, DecodeError> {
        let listed = Option::<Vec<T>>::decode(d, ctx)?;
        Ok(listed.map_or(Listed::Any, Listed::Only))
    }
}

impl<C, K> Encode<C> for Secret<K> {
    fn encode<W: Write>(&self, e: &mut Encoder<W>, _: &mut C) -> Encoded<W> {
        e.bytes(self.expose(Exposure::Seal))?.ok()
    }
}

impl<'b, C, K> Decode<'b, C> for Secret<K> {
    fn decode(d: &mut Decoder<'b>, _: &mut C) -> Result<Self, DecodeError> {
        d.bytes().map(|bytes| Secret::new(bytes.to_vec()))
    }
}

/// Types that are their bytes.
macro_rules! bytes {
    ($($type:ty, $bytes:literal, $of:expr, $value:ident => $as:expr;)*) => {$(
        impl<C> Encode<C> for $type {
            fn encode<W: Write>(&self, e: &mut Encoder<W>, _: &mut C) -> Encoded<W> {
                let $value = self;
                let bytes: &[u8; $bytes] = $as;
                e.bytes(bytes)?.ok()
            }
        }

        impl<'b, C> Decode<'b, C> for $type {
            fn decode(d: &mut Decoder<'b>, _: &mut C) -> Result<Self, DecodeError> {
                let bytes: [u8; $bytes] = d
                    .bytes()?
                    .try_into()
                    .map_err(|_| DecodeError::message(concat!(stringify!($type), ": a wrong length")))?;
                Ok($of(bytes))
            }
        }
    )*};
}

bytes! {
    TokenHash, 32, TokenHash::from_bytes, hash => hash.as_bytes();
    KeyFingerprint, 32, KeyFingerprint, key => &key.0;
    Incarnation, 16, Incarnation, run => &run.0;
    SerialNumber, 16, SerialNumber, serial => &serial.0;
    RenewalNonce, 16, RenewalNonce, nonce => &nonce.0;
    Fingerprint, 16, Fingerprint, token => &token.0;
}

impl<C> Encode<C> for Network {
    fn encode<W: Write>(&self, e: &mut Encoder<W>, _: &mut C) -> Encoded<W> {
        e.bytes(&self.to_bytes())?.ok()
    }
}

impl<'b, C> Decode<'b, C> for Network {
    fn decode(d: &mut Decoder<'b>, _: &mut C) -> Result<Self, DecodeError> {
        let network = Network::from_bytes(d.bytes()?);
        network.ok_or_else(|| DecodeError::message("not a network"))
    }
}

impl<C> Encode<C> for Fence {
    fn encode<W: Write>(&self, e: &mut Encoder<W>, _: &mut C) -> Encoded<W> {
        e.u64(self.0)?.ok()
    }
}

impl<'b, C> Decode<'b, C> for Fence {
    fn decode(d: &mut Decoder<'b>, _: &mut C) -> Result<Self, DecodeError> {
        d.u64().map(Fence)
    }
}

macro_rules! stable {
    ($type:ident { $($variant:ident = $number:literal,)* }) => {
        impl<C> Encode<C> for $type {
            fn encode<W: Write>(&self, e: &mut Encoder<W>, _: &mut C) -> Encoded<W> {
                e.u8(match self { $($type::$variant => $number,)* })?.ok()
            }
        }

        impl<'b, C> Decode<'b, C> for $type {
            fn decode(d: &mut Decoder<'b>, _: &mut C) -> Result<Self, DecodeError> {
                match d.u8()? {
                    $($number => Ok($type::$variant),)*
                    _ => Err(DecodeError::message(concat!("an unknown ", stringify!($type)))),
                }
            }
        }
    };
}

stable!(AuthMode {
    OAuth = 1,
    Byok = 2,
    Metered = 3,
    Shared = 4,
    HostSession = 5,
    Local = 6,
});

stable!(CredentialKind {
    OAuthGrant = 1,
    ApiKey = 2,
    Aws = 3,
    BedrockBearer = 4,
});

stable!(Verdict {
    Inherit = 1,
    Allow = 2,
    Deny = 3,
});

stable!(OnRejection {
    Fail = 1,
    Next = 2,
});

/// The modes, in the fixed order.
impl<C> Encode<C> for ModeSet {
    fn encode<W: Write>(&self, e: &mut Encoder<W>, ctx: &mut C) -> Encoded<W> {
        self.iter().collect::<Vec<_>>().encode(e, ctx)
    }
}

impl<'b, C> Decode<'b, C> for ModeSet {
    fn decode(d: &mut Decoder<'b>, ctx: &mut C) -> Result<Self, DecodeError> {
        Ok(Vec::<AuthMode>::decode(d, ctx)?.into_iter().collect())
    }
}

/// Types that are a text with a form.
macro_rules! texts {
    ($($type:ty, $fault:literal;)*) => {$(
        impl<C> Encode<C> for $type {
            fn encode<W: Write>(&self, e: &mut Encoder<W>, _: &mut C) -> Encoded<W> {
                e.str(self.as_str())?.ok()
            }
        }

        impl<'b, C> Decode<'b, C> for $type {
            fn decode(d: &mut Decoder<'b>, _: &mut C) -> Result<Self, DecodeError> {
                d.str()?.parse().map_err(|_| DecodeError::message($fault))
            }
        }
    )*};
}

texts! {
    Name, "not a name";
    Pattern, "not a pattern of models";
}

/// A growing buffer that leaves no copy of its bytes behind, as a reallocating `Vec` would.
pub(super) struct Buffer(Zeroizing<Vec<u8>>);

impl Buffer {
    pub(super) fn new() -> Self {
        Self(Zeroizing::new(Vec::with_capacity(512)))
    }

    pub(super) fn into_inner(self) -> Zeroizing<Vec<u8>> {
        self.0
    }
}

impl Write for Buffer {
    type Error = std::convert::Infallible;

    fn write_all(&mut self, bytes: &[u8]) -> Result<(), Self::Error> {
        let needed = self.0.len() + bytes.len();
        if needed > self.0.capacity() {
            let mut larger = Zeroizing::new(Vec::with_capacity(needed.max(self.0.capacity() * 2)));
            larger.extend_from_slice(&self.0);
            self.0 = larger;
        }
        self.0.extend_from_slice(bytes);
        Ok(())
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::domain::id::MemberId;
    use crate::domain::secret::ApiKey;

    fn round<T: Encode<()> + for<'b> Decode<'b, ()>>(value: &T) -> (Vec<u8>, T) {
        let mut buffer = Buffer::new();
        minicbor::encode(value, &mut buffer).unwrap();
        let bytes = buffer.into_inner().to_vec();
        let back = minicbor::decode(&bytes).unwrap();
        (bytes, back)
    }

    #[test]
    fn the_bytes_of_stored_types_never_change() {
        assert_eq!(round(&AuthMode::OAuth), (vec![1], AuthMode::OAuth));
        assert_eq!(round(&AuthMode::Local), (vec![6], AuthMode::Local));
        assert_eq!(
            round(&CredentialKind::BedrockBearer),
            (vec![4], CredentialKind::BedrockBearer)
        );
        assert_eq!(round(&Owner::Org), (vec![0xf6], Owner::Org));
        let owner = Owner::Member(MemberId::from_bytes([7; 16]));
        let (bytes, back) = round(&owner);
        assert_eq!(bytes, [&[0x50][..], &[7; 16]].concat());
        assert_eq!(back, owner);
        assert_eq!(round(&Time::from_millis(-1)), (vec![0x20], Time::from_millis(-1)));
    }

    #[test]
    fn a_secret_longer_than_the_first_buffer_survives() {
        let secret = Secret::<ApiKey>::new((0..5000).map(|i| (i % 251) as u8).collect());
        let (_, back) = round(&secret);
        assert_eq!(back.expose(Exposure::Inspect), secret.expose(Exposure::Inspect));
    }
}
