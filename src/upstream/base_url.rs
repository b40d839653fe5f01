//! Base URLs: the root of an API, to which paths are appended.
//!
//! One form for those of the registry, those of the configuration and those that callers report, so that two that
//! mean the same are equal as text.

use reqwest::Url;

use super::connector::is_loopback;

/// The longest base URL, in bytes.
pub const MAX_BASE_URL: usize = 256;

/// Why a text is no base URL, or not one that may be used here.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BadBaseUrl {
    /// Not a URL of HTTP.
    #[error("is no http or https URL; write it as https://host or http://host:port")]
    NotAUrl,
    /// Too long.
    #[error("is longer than {MAX_BASE_URL} bytes; shorten it")]
    TooLong,
    /// Blanks, control characters or letters beyond ASCII.
    #[error("has characters that are not printable ASCII; encode or remove them")]
    Unprintable,
    /// User information: a credential in the wrong place.
    #[error("carries a user or password; remove it")]
    UserInfo,
    /// A path cannot be appended to it.
    #[error("has a query or a fragment; remove it")]
    Parts,
    /// What would not be sent.
    #[error("has a fragment; remove it")]
    Fragment,
    /// What is sent would travel in clear.
    #[error("is plain http to another machine; use https")]
    PlainHttp,
}

/// The base URL that `text` means, in the one form that all of them have: lower-case scheme and host, no default
/// port, no `/` at its end.
pub fn checked_base_url(text: &str) -> Result<String, BadBaseUrl> {
    let url = parse(text)?;
    let written = url.as_str().trim_end_matches('/');
    // Parsing may have made it longer: it encodes some characters.
    if written.len() > MAX_BASE_URL {
        return Err(BadBaseUrl::TooLong);
    }
    Ok(written.to_owned())
}

/// As [`checked_base_url`]; plain http is for this machine only.
pub fn checked_provider_url(text: &str) -> Result<String, BadBaseUrl> {
    let url = parse(text)?;
    if url.scheme() == "http" && !url.host_str().is_some_and(is_loopback) {
        return Err(BadBaseUrl::PlainHttp);
    }
    checked_base_url(text)
}

/// Whether a request may be sent to `text`, which may have a query; plain http is for this machine only.
pub fn check_request_url(text: &str) -> Result<(), BadBaseUrl> {
    let url = parsed(text)?;
    if url.fragment().is_some() {
        return Err(BadBaseUrl::Fragment);
    }
    if url.scheme() == "http" && !url.host_str().is_some_and(is_loopback) {
        return Err(BadBaseUrl::PlainHttp);
    }
    Ok(())
}

pub(super) fn parse(text: &str) -> Result<Url, BadBaseUrl> {
    let url = parsed(text)?;
    if url.query().is_some() || url.fragment().is_some() {
        return Err(BadBaseUrl::Parts);
    }
    Ok(url)
}

fn parsed(text: &str) -> Result<Url, BadBaseUrl> {
    if text.len() > MAX_BASE_URL {
        return Err(BadBaseUrl::TooLong);
    }
    // The parser drops tabs and newlines and trims blanks: what it was given would not be what it was taken for.
    if !text.bytes().all(|byte| byte.is_ascii_graphic()) {
        return Err(BadBaseUrl::Unprintable);
    }
    let url = Url::parse(text).map_err(|_| BadBaseUrl::NotAUrl)?;
    // The parser takes them in a host, which has none (RFC 3986 section 3.2.2): somebody forgot to fill in a part.
    let host = url.host_str().filter(|host| !host.contains(['{', '}']));
    if !matches!(url.scheme(), "http" | "https") || host.is_none() {
        return Err(BadBaseUrl::NotAUrl);
    }
    if !url.username().is_empty() || url.password().is_some() {
        return Err(BadBaseUrl::UserInfo);
    }
    Ok(url)
}

#[cfg(test)]
mod tests {
    use super::*;

    // req: E11
    #[test]
    fn one_form_for_all_that_mean_the_same() {
        for (text, form) in [
            ("http://localhost:11434", "http://localhost:11434"),
            ("HTTP://LocalHost:11434/", "http://localhost:11434"),
            ("http://10.0.0.5:80//", "http://10.0.0.5"),
            ("http://0x7f.1:1", "http://127.0.0.1:1"),
            ("https://h.example:443/a/../v1/", "https://h.example/v1"),
            ("http://[::1]:1", "http://[::1]:1"),
        ] {
            assert_eq!(checked_base_url(text).as_deref(), Ok(form), "{text}");
        }
    }

    // req: E11
    #[test]
    fn what_is_no_base_url_is_told_with_what_to_do() {
        let long = format!("http://h.example/{}", "a".repeat(MAX_BASE_URL));
        let grows = format!("http://h.example/{}", "\"".repeat(100));
        for (text, fault) in [
            ("", BadBaseUrl::NotAUrl),
            ("localhost:11434", BadBaseUrl::NotAUrl),
            ("file:///etc/passwd", BadBaseUrl::NotAUrl),
            ("ftp://h.example", BadBaseUrl::NotAUrl),
            ("http://", BadBaseUrl::NotAUrl),
            ("http://u@h.example", BadBaseUrl::UserInfo),
            ("http://:p@h.example", BadBaseUrl::UserInfo),
            ("http://h.example#x", BadBaseUrl::Parts),
            ("http://h.example?x", BadBaseUrl::Parts),
            (" http://h.example", BadBaseUrl::Unprintable),
            ("http://h.\nexample", BadBaseUrl::Unprintable),
            ("http://h\u{e9}.example", BadBaseUrl::Unprintable),
            (&long, BadBaseUrl::TooLong),
            (&grows, BadBaseUrl::TooLong),
        ] {
            assert_eq!(checked_base_url(text), Err(fault), "{text}");
        }
    }

    // req: C4 C8
    #[test]
    fn a_request_may_have_a_query_and_goes_in_clear_to_this_machine_only() {
        for (text, told) in [
            ("https://h.example/v1?limit=1", Ok(())),
            ("http://127.0.0.1:1/?A=b", Ok(())),
            ("https://h.example/#x", Err(BadBaseUrl::Fragment)),
            ("http://h.example/", Err(BadBaseUrl::PlainHttp)),
            ("https://u:p@h.example/", Err(BadBaseUrl::UserInfo)),
            ("https://{region}.h.example/", Err(BadBaseUrl::NotAUrl)),
            ("/v1/models", Err(BadBaseUrl::NotAUrl)),
        ] {
            assert_eq!(check_request_url(text), told, "{text}");
        }
    }

    // req: C8
    #[test]
    fn a_providers_plain_http_stays_on_the_machine() {
        for text in [
            "http://localhost:1",
            "http://127.9.9.9",
            "http://[::1]:1",
            "https://h.example",
        ] {
            assert!(checked_provider_url(text).is_ok(), "{text}");
        }
        for text in [
            "http://10.0.0.5:11434",
            "http://localhost.example",
            "http://127.0.0.1.example",
        ] {
            assert_eq!(checked_provider_url(text), Err(BadBaseUrl::PlainHttp), "{text}");
        }
    }
}
