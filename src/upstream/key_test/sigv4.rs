//! AWS Signature Version 4 of one request without a body (AWS documentation, "Create a signed AWS API request").
//!
//! The secret access key makes the signature and is never sent.

use std::fmt::Write as _;

use form_urlencoded::parse;
use reqwest::Url;
use ring::{digest, hmac};

use crate::domain::secret::{AwsSecretKey, Exposure, Secret};
use crate::domain::time::Time;

const ALGORITHM: &str = "AWS4-HMAC-SHA256";

/// What a request is signed with, and for.
pub(super) struct Signer<'a> {
    pub(super) access_key_id: &'a str,
    pub(super) secret_access_key: &'a Secret<AwsSecretKey>,
    /// Sent and signed along where the keys are temporary.
    pub(super) session_token: Option<&'a str>,
    pub(super) region: &'a str,
    pub(super) service: &'a str,
}

/// The headers that a signed request has; `Host` is the transport's to send.
pub(super) struct Signed {
    /// `X-Amz-Date`.
    pub(super) date: String,
    /// `Authorization`.
    pub(super) authorization: String,
}

impl Signer<'_> {
    /// Signs `GET url` at `now`.
    pub(super) fn get(&self, url: &Url, now: Time) -> Signed {
        let date = basic_time(now);
        let day = &date[..8];
        let host = match (url.host_str().unwrap_or_default(), url.port()) {
            (host, Some(port)) => format!("{host}:{port}"),
            (host, None) => host.to_owned(),
        };
        let mut headers = format!("host:{host}\nx-amz-date:{date}\n");
        let mut names = "host;x-amz-date".to_owned();
        if let Some(token) = self.session_token {
            let _ = writeln!(headers, "x-amz-security-token:{token}");
            names.push_str(";x-amz-security-token");
        }
        let query = canonical_query(url);
        // Encoded once more than it is sent, as all services but S3 want it.
        let path: Vec<_> = url.path().split('/').map(encoded).collect();
        let path = path.join("/");
        let request = format!("GET\n{path}\n{query}\n{headers}\n{names}\n{}", sha256(b""));
        let scope = format!("{day}/{}/{}/aws4_request", self.region, self.service);
        let text = format!("{ALGORITHM}\n{date}\n{scope}\n{}", sha256(request.as_bytes()));
        let signature = hex(hmac::sign(&self.key(day), text.as_bytes()).as_ref());
        let id = self.access_key_id;
        Signed {
            authorization: format!(
                "{ALGORITHM} Credential={id}/{scope}, SignedHeaders={names}, Signature={signature}"
            ),
            date,
        }
    }

    /// The key of a day, region and service, derived step by step.
    fn key(&self, day: &str) -> hmac::Key {
        let secret = self.secret_access_key.expose(Exposure::Use);
        let first = zeroize::Zeroizing::new([b"AWS4".as_slice(), secret].concat());
        let steps = [day, self.region, self.service, "aws4_request"];
        steps
            .iter()
            .fold(hmac::Key::new(hmac::HMAC_SHA256, &first), |key, step| {
                let next = hmac::sign(&key, step.as_bytes());
                hmac::Key::new(hmac::HMAC_SHA256, next.as_ref())
            })
    }
}

/// The parameters in order, encoded as RFC 3986 section 2.3 leaves no choice.
fn canonical_query(url: &Url) -> String {
    let mut pairs: Vec<_> = parse(url.query().unwrap_or_default().as_bytes())
        .map(|(name, value)| format!("{}={}", encoded(&name), encoded(&value)))
        .collect();
    pairs.sort();
    pairs.join("&")
}

fn encoded(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) {
            out.push(char::from(byte));
        } else {
            let _ = write!(out, "%{byte:02X}");
        }
    }
    out
}

/// A time as ISO 8601 has it in its basic form: `20150830T123600Z`.
fn basic_time(at: Time) -> String {
    let at = jiff::Timestamp::from_second(at.seconds()).unwrap_or(jiff::Timestamp::UNIX_EPOCH);
    at.strftime("%Y%m%dT%H%M%SZ").to_string()
}

fn sha256(bytes: &[u8]) -> String {
    hex(digest::digest(&digest::SHA256, bytes).as_ref())
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |mut out, byte| {
        let _ = write!(out, "{byte:02x}");
        out
    })
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn signed(url: &str, service: &str, session_token: Option<&str>) -> String {
        let secret = Secret::from("wJalrXUtnFEMI/K7MDENG+bPxRfiCYEXAMPLEKEY".to_owned());
        let signer = Signer {
            access_key_id: "AKIDEXAMPLE",
            secret_access_key: &secret,
            session_token,
            region: "us-east-1",
            service,
        };
        // 2015-08-30T12:36:00Z, as in all of AWS's examples.
        let signed = signer.get(&url.parse().unwrap(), Time::from_seconds(1_440_938_160));
        assert_eq!(signed.date, "20150830T123600Z");
        signed.authorization
    }

    // AWS's Signature Version 4 test suite: get-vanilla, get-vanilla-query-order-key-case,
    // get-vanilla-query-unreserved.
    // req: C4
    #[test]
    fn the_published_examples_are_signed_as_published() {
        const UNRESERVED: &str = "-._~0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz";
        for (path, signature) in [
            (
                "/".to_owned(),
                "5fa00fa31553b73ebf1942676e86291e8372ff2a2260956d9b8aae1d763fbf31",
            ),
            (
                "/?Param2=value2&Param1=value1".to_owned(),
                "b97d918cfa904a5beff61c982a1b6f458b799221646efd99d3219ec94cdf2500",
            ),
            (
                format!("/?{UNRESERVED}={UNRESERVED}"),
                "9c3e54bfcdf0b19771a7f523ee5669cdf59bc7cc0884027167c21bb143a40197",
            ),
        ] {
            let url = format!("https://example.amazonaws.com{path}");
            let expected = "AWS4-HMAC-SHA256 Credential=AKIDEXAMPLE/20150830/us-east-1/service/aws4_request, \
                            SignedHeaders=host;x-amz-date, Signature=";
            assert_eq!(
                signed(&url, "service", None),
                format!("{expected}{signature}"),
                "{path}"
            );
        }
    }

    // req: C4
    #[test]
    fn a_session_token_is_signed_along_and_a_port_belongs_to_the_host() {
        let plain = signed("http://127.0.0.1:1234/?A=b", "sts", None);
        let session = signed("http://127.0.0.1:1234/?A=b", "sts", Some("token"));
        let elsewhere = signed("http://127.0.0.1:1235/?A=b", "sts", None);
        assert!(session.contains("SignedHeaders=host;x-amz-date;x-amz-security-token,"));
        let signature = |text: &str| text.split("Signature=").nth(1).unwrap().to_owned();
        assert_ne!(signature(&plain), signature(&session));
        assert_ne!(signature(&plain), signature(&elsewhere));
    }
}
