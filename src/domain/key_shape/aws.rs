//! AWS keys: an access key id, its secret, for temporary keys a session token, and the region they are meant for.
//!
//! The id tells long-term from temporary keys (AWS IAM user guide, "unique identifiers"); which prefix means which
//! is data, as all shapes are.

use super::{KeyShapes, KeyUse, MAX_KEY, ShapeMismatch, sendable};

/// AWS keys, as they are to be stored.
#[derive(Clone, Copy)]
pub struct AwsKeyText<'a> {
    /// The access key id.
    pub access_key_id: &'a str,
    /// The secret access key.
    pub secret_access_key: &'a str,
    /// The session token of temporary keys.
    pub session_token: Option<&'a str>,
}

/// Which part of AWS keys is at fault.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AwsPart {
    /// The access key id.
    AccessKeyId,
    /// The secret access key.
    SecretAccessKey,
    /// The session token.
    SessionToken,
}

/// The longest access key id, in characters (AWS IAM API reference, `AccessKey`).
const MAX_ID: usize = 128;

impl KeyShapes {
    /// Whether `keys` may be stored for `provider`. What cannot be forced is told before what can.
    pub fn check_aws(&self, provider: &str, keys: AwsKeyText<'_>) -> Result<(), (AwsPart, ShapeMismatch)> {
        let AwsKeyText {
            access_key_id: id,
            secret_access_key: secret,
            session_token: session,
        } = keys;
        let at = |part| move |mismatch| (part, mismatch);
        sendable(id, MAX_ID).map_err(at(AwsPart::AccessKeyId))?;
        sendable(secret, MAX_KEY).map_err(at(AwsPart::SecretAccessKey))?;
        if let Some(session) = session {
            sendable(session, MAX_KEY).map_err(at(AwsPart::SessionToken))?;
        }
        let shape = self.recognize(id);
        let usage = shape.map(|shape| shape.usage);
        if usage == Some(KeyUse::AwsTemporaryKeyId) && session.is_none() {
            return Err((AwsPart::SessionToken, ShapeMismatch::SessionTokenMissing));
        }
        let tells_ids = |usage| matches!(usage, KeyUse::AwsKeyId | KeyUse::AwsTemporaryKeyId);
        match shape {
            Some(shape) if tells_ids(shape.usage) => {}
            None if !self
                .0
                .iter()
                .any(|shape| shape.provider == provider && tells_ids(shape.usage)) => {}
            _ => return Err((AwsPart::AccessKeyId, ShapeMismatch::NoAwsKeyId)),
        }
        if let Some(shape) = self.recognize(secret) {
            let looks_like = shape.provider.clone();
            let mismatch = if tells_ids(shape.usage) {
                ShapeMismatch::AwsKeyId { looks_like }
            } else {
                ShapeMismatch::OtherProvider {
                    looks_like,
                    provider: provider.to_owned(),
                }
            };
            return Err((AwsPart::SecretAccessKey, mismatch));
        }
        if usage == Some(KeyUse::AwsKeyId) && session.is_some() {
            return Err((AwsPart::SessionToken, ShapeMismatch::SessionTokenUnexpected));
        }
        Ok(())
    }
}

/// Whether `text` has the form of an AWS region, such as `us-east-1` or `us-gov-west-1`. Whether there is such a
/// region is not known here: new ones come.
pub fn is_region(text: &str) -> bool {
    let mut parts: Vec<&str> = text.split('-').collect();
    let letters = |part: &str| !part.is_empty() && part.bytes().all(|byte| byte.is_ascii_lowercase());
    let Some(number) = parts.pop() else { return false };
    text.len() <= 32
        && parts.len() >= 2
        && parts[0].len() == 2
        && parts.iter().all(|part| letters(part))
        && number.len() == 1
        && number.bytes().all(|byte| byte.is_ascii_digit())
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::super::{Alphabet, KeyShape};
    use super::*;

    const LONG_TERM: &str = "AKIAABCDEFGHIJKLMNOP";
    const TEMPORARY: &str = "ASIAABCDEFGHIJKLMNOP";
    const SECRET: &str = "wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY";

    fn shape(provider: &str, prefix: &str, following: Option<usize>, usage: KeyUse) -> KeyShape {
        KeyShape {
            provider: provider.to_owned(),
            prefix: prefix.to_owned(),
            following,
            alphabet: Alphabet::Base32,
            usage,
        }
    }

    fn check(
        provider: &str,
        access_key_id: &str,
        secret_access_key: &str,
        session_token: Option<&str>,
    ) -> Result<(), (AwsPart, ShapeMismatch)> {
        let shapes = KeyShapes::new(vec![
            shape("cloud", "AKIA", Some(16), KeyUse::AwsKeyId),
            shape("cloud", "ASIA", Some(16), KeyUse::AwsTemporaryKeyId),
            shape("cloud", "ABIA", Some(16), KeyUse::Call),
            shape("other", "XX", None, KeyUse::Call),
        ]);
        let keys = AwsKeyText {
            access_key_id,
            secret_access_key,
            session_token,
        };
        shapes.check_aws(provider, keys)
    }

    #[test]
    fn the_id_says_whether_a_session_token_belongs_to_it() {
        assert_eq!(check("cloud", LONG_TERM, SECRET, None), Ok(()));
        assert_eq!(check("cloud", TEMPORARY, SECRET, Some("t")), Ok(()));
        let (part, missing) = check("cloud", TEMPORARY, SECRET, None).unwrap_err();
        assert_eq!(
            (part, missing.forceable()),
            (AwsPart::SessionToken, false),
            "no use"
        );
        let (part, more) = check("cloud", LONG_TERM, SECRET, Some("t")).unwrap_err();
        assert_eq!((part, more.forceable()), (AwsPart::SessionToken, true));
    }

    #[test]
    fn what_is_no_access_key_id_is_noticed_where_ids_are_known() {
        for id in ["ABIAABCDEFGHIJKLMNOP", "AKIATOOSHORT", "alex", SECRET] {
            let (part, mismatch) = check("cloud", id, SECRET, None).unwrap_err();
            assert_eq!((part, mismatch.forceable()), (AwsPart::AccessKeyId, true), "{id}");
            assert!(!mismatch.to_string().contains(id));
        }
        assert_eq!(check("gateway", "alex", SECRET, None), Ok(()));
        let (part, _) = check("gateway", "XXABC", SECRET, None).unwrap_err();
        assert_eq!(part, AwsPart::AccessKeyId);
    }

    #[test]
    fn a_pair_that_was_mixed_up_is_noticed() {
        let (part, mismatch) = check("cloud", LONG_TERM, LONG_TERM, None).unwrap_err();
        assert_eq!((part, mismatch.forceable()), (AwsPart::SecretAccessKey, true));
        let (part, mismatch) = check("cloud", LONG_TERM, "XXABC", None).unwrap_err();
        assert_eq!(
            (part, mismatch.looks_like()),
            (AwsPart::SecretAccessKey, Some("other"))
        );
    }

    #[test]
    fn what_cannot_be_forced_is_told_first() {
        // Forced, the odd id would pass; the rest of it must not pass with it.
        for (id, secret, session, part) in [
            ("alex", "", None, AwsPart::SecretAccessKey),
            ("alex", "a b", None, AwsPart::SecretAccessKey),
            (LONG_TERM, LONG_TERM, Some(""), AwsPart::SessionToken),
            ("", "", None, AwsPart::AccessKeyId),
        ] {
            let (at, mismatch) = check("cloud", id, secret, session).unwrap_err();
            assert_eq!((at, mismatch.forceable()), (part, false));
        }
        let long = "A".repeat(MAX_ID + 1);
        assert_eq!(
            check("gateway", &long, SECRET, None).unwrap_err().0,
            AwsPart::AccessKeyId
        );
    }

    #[test]
    fn a_region_has_its_form() {
        for region in ["us-east-1", "us-gov-west-1", "ap-southeast-2", "us-isob-east-1"] {
            assert!(is_region(region), "{region}");
        }
        for none in [
            "",
            "us",
            "us-1",
            "us-east",
            "us-east-",
            "us-east-12",
            "us-east-x",
            "usa-east-1",
            "US-east-1",
            "us--1",
            "us-east-1\n",
            "us-east-1a",
            "us-east1-1",
        ] {
            assert!(!is_region(none), "{none:?}");
        }
    }
}
