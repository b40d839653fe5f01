//! Every word that a connector may choose from, in one list: what the code knows to do, and no more.
//!
//! What is not standard is a quirk: known to be done by some server, named by its connector, tested alone. A test
//! holds this list against what the keys take; `docs/connectors.md` is made from it.

/// A word that a key takes.
pub struct Choice {
    /// The key; after a point the key within its table.
    pub key: &'static str,
    /// The word.
    pub value: &'static str,
    /// Whether a standard says so; all else is a quirk.
    pub standard: bool,
    /// What it means.
    pub what: &'static str,
    /// Where that is from.
    pub source: &'static str,
}

const fn standard(
    key: &'static str,
    value: &'static str,
    what: &'static str,
    source: &'static str,
) -> Choice {
    Choice {
        key,
        value,
        standard: true,
        what,
        source,
    }
}

const fn quirk(key: &'static str, value: &'static str, what: &'static str, source: &'static str) -> Choice {
    Choice {
        key,
        value,
        standard: false,
        what,
        source,
    }
}

/// All of them, by key.
pub const CHOICES: &[Choice] = &[
    standard(
        "client_auth",
        "none",
        "a public client: `client_id` in the body",
        "RFC 6749 section 3.2.1",
    ),
    standard(
        "client_auth",
        "basic",
        "HTTP Basic, both parts form-encoded first",
        "RFC 6749 section 2.3.1",
    ),
    standard(
        "client_auth",
        "post",
        "`client_id` and `client_secret` in the body",
        "RFC 6749 section 2.3.1",
    ),
    standard(
        "client_secret",
        "env",
        "in an environment variable of the daemon",
        "ours",
    ),
    standard(
        "client_secret",
        "file",
        "in a file; one newline at its end is not part of it",
        "ours",
    ),
    standard(
        "exchange_encoding",
        "form",
        "a code exchange is a form",
        "RFC 6749 section 4.1.3",
    ),
    quirk(
        "exchange_encoding",
        "json",
        "a code exchange is a JSON object",
        "public client code (Claude)",
    ),
    standard(
        "refresh_encoding",
        "form",
        "a refresh is a form",
        "RFC 6749 section 6",
    ),
    quirk(
        "refresh_encoding",
        "json",
        "a refresh is a JSON object",
        "public client code (Claude, Codex)",
    ),
    standard(
        "revoke_encoding",
        "form",
        "a revocation is a form",
        "RFC 7009 section 2.1",
    ),
    quirk(
        "revoke_encoding",
        "json",
        "a revocation is a JSON object; `client_id` goes with a refresh token only",
        "public client code (Codex)",
    ),
    quirk(
        "revoke_encoding",
        "query",
        "a revocation is a POST with the token alone in the URL's query",
        "OAuth documentation (Google)",
    ),
    standard(
        "revoke_scope",
        "account",
        "a revocation may end other sign-ins of the account with it",
        "RFC 7009 section 2.1",
    ),
    standard(
        "revoke_scope",
        "token",
        "a revocation ends the grant of its token and no other",
        "RFC 7009 section 2.1",
    ),
    standard(
        "device_flow",
        "rfc8628",
        "the token endpoint is polled, and answers with the tokens",
        "RFC 8628 section 3",
    ),
    quirk(
        "device_flow",
        "code",
        "a flow of the server's own, in JSON: a poll brings a code and its verifier, which are exchanged",
        "public client code (Codex)",
    ),
    standard(
        "expiry",
        "expires-in",
        "`expires_in` of the answer, in seconds",
        "RFC 6749 section 5.1",
    ),
    quirk(
        "expiry",
        "jwt-exp",
        "`exp` of an access token that is a JWT; `expires_in` where it is none",
        "public client code (Codex)",
    ),
    standard("error_at", "error", "the code at `error`", "RFC 6749 section 5.2"),
    quirk(
        "error_at",
        "error.code",
        "the code at `code` in the object `error`",
        "public client code (Codex)",
    ),
    quirk(
        "error_at",
        "error.type",
        "the code at `type` in the object `error`",
        "API documentation (Claude)",
    ),
    quirk(
        "error_at",
        "code",
        "the code at `code`",
        "public client code (Codex)",
    ),
    quirk(
        "error_causes",
        "expired",
        "a permanent error code says that the refresh token is too old",
        "public client code (Codex)",
    ),
    quirk(
        "error_causes",
        "reused",
        "a permanent error code says that the refresh token was used before",
        "public client code (Codex)",
    ),
    quirk(
        "error_causes",
        "withdrawn",
        "a permanent error code says that the grant was taken back",
        "public client code (Codex)",
    ),
    standard(
        "redirects.kind",
        "loopback",
        "to a listener on the member's machine",
        "RFC 8252 section 7.3",
    ),
    quirk(
        "redirects.kind",
        "paste",
        "to a page that shows a code to be pasted",
        "public client code (Claude, Gemini CLI)",
    ),
    quirk(
        "redirects.code",
        "code",
        "the page shows the code alone",
        "public client code (Gemini CLI)",
    ),
    quirk(
        "redirects.code",
        "code-and-state",
        "the page shows `CODE#STATE`",
        "public client code (Claude)",
    ),
    quirk(
        "account.from",
        "answer",
        "the account is told in the answer itself",
        "public client code (Claude)",
    ),
    standard(
        "account.from",
        "id-token",
        "the account is told in the answer's ID token",
        "OpenID Connect Core 1.0 section 2",
    ),
    quirk(
        "quirks",
        "scope-list",
        "`scope` of an answer may be a JSON array",
        "Twitch developer documentation (memory)",
    ),
    quirk(
        "quirks",
        "text-seconds",
        "numbers of seconds in an answer may be written as texts",
        "Microsoft Entra ID v1.0 documentation (memory)",
    ),
    quirk(
        "quirks",
        "error-in-success",
        "an error code in an answer of status 2xx counts as one of status 400",
        "GitHub documentation (memory); issue reports (Claude)",
    ),
    standard("sharing", "any", "grants may be an org's or a member's", "ours"),
    standard(
        "sharing",
        "personal",
        "grants are a member's only",
        "ours; always so under terms",
    ),
];
