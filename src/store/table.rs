//! How a plain struct or enum becomes CBOR (RFC 8949): one table each, numbers for names.
//!
//! A struct is a map from field number to value. A number is never reused; a field added later decodes from
//! older bytes as its type's nil (an `Option`'s `None`), and an unknown number is passed over. An enum is an
//! array of its variant's number and fields.

/// The table of a struct: `table!(Type { 0 => field, 1 => other });`
macro_rules! table {
    ($type:ty { $($number:literal => $field:ident),* $(,)? }) => {
        impl<C> minicbor::Encode<C> for $type {
            fn encode<W: minicbor::encode::Write>(
                &self,
                e: &mut minicbor::Encoder<W>,
                ctx: &mut C,
            ) -> Result<(), minicbor::encode::Error<W::Error>> {
                e.map([$($number),*].len() as u64)?;
                $(
                    e.u32($number)?;
                    minicbor::Encode::encode(&self.$field, e, ctx)?;
                )*
                Ok(())
            }
        }

        impl<'b, C> minicbor::Decode<'b, C> for $type {
            fn decode(
                d: &mut minicbor::Decoder<'b>,
                ctx: &mut C,
            ) -> Result<Self, minicbor::decode::Error> {
                $(let mut $field = None;)*
                let fields = d.map()?.ok_or_else(|| minicbor::decode::Error::message("map of unknown length"))?;
                for _ in 0..fields {
                    match d.u32()? {
                        $($number => $field = Some(minicbor::Decode::decode(d, ctx)?),)*
                        _ => d.skip()?,
                    }
                }
                Ok(Self {
                    $($field: match $field.or_else(|| minicbor::Decode::<'b, C>::nil()) {
                        Some(value) => value,
                        None => return Err(minicbor::decode::Error::missing_value($number)),
                    },)*
                })
            }
        }
    };
}

/// The table of an enum: `choice!(Type { 0 => Unit {}, 1 => Fields { a, b }, 2 => Tuple(a, b) });`
macro_rules! choice {
    ($type:ident {
        $($number:literal => $variant:ident $({ $($field:ident),* })? $(($($inner:ident),+))?),* $(,)?
    }) => {
        impl<C> minicbor::Encode<C> for $type {
            fn encode<W: minicbor::encode::Write>(
                &self,
                e: &mut minicbor::Encoder<W>,
                ctx: &mut C,
            ) -> Result<(), minicbor::encode::Error<W::Error>> {
                match self {
                    $($type::$variant $({ $($field),* })? $(($($inner),+))? => {
                        let fields: &[&str] = &[$($(stringify!($field)),*)? $($(stringify!($inner)),+)?];
                        e.array(1 + fields.len() as u64)?.u32($number)?;
                        $($(minicbor::Encode::encode($field, e, ctx)?;)*)?
                        $($(minicbor::Encode::encode($inner, e, ctx)?;)+)?
                    })*
                }
                let _ = ctx;
                Ok(())
            }
        }

        impl<'b, C> minicbor::Decode<'b, C> for $type {
            fn decode(
                d: &mut minicbor::Decoder<'b>,
                ctx: &mut C,
            ) -> Result<Self, minicbor::decode::Error> {
                let items = d.array()?.ok_or_else(|| minicbor::decode::Error::message("array of unknown length"))?;
                let (value, known) = match d.u32()? {
                    $($number => {
                        let fields: &[&str] = &[$($(stringify!($field)),*)? $($(stringify!($inner)),+)?];
                        $($(let $field = minicbor::Decode::decode(d, ctx)?;)*)?
                        $($(let $inner = minicbor::Decode::decode(d, ctx)?;)+)?
                        ($type::$variant $({ $($field),* })? $(($($inner),+))?, 1 + fields.len() as u64)
                    })*
                    other => return Err(minicbor::decode::Error::unknown_variant(i64::from(other))),
                };
                let _ = ctx;
                for _ in known..items {
                    d.skip()?;
                }
                Ok(value)
            }
        }
    };
}

pub(super) use {choice, table};
