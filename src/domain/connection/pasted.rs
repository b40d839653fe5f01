//! What a person pastes: a code, a code with its state, or the whole address that the browser was sent to.

use crate::domain::secret::{AuthorizationCode, AuthorizationState, Exposure, Secret};

/// The longest that is read, in bytes.
pub(super) const MAX_PASTED: usize = 8 * 1024;

/// What was pasted.
pub struct Pasted {
    /// The code.
    pub code: Secret<AuthorizationCode>,
    /// The state that came with it.
    pub state: Option<Secret<AuthorizationState>>,
    /// Which issuer says that it is its answer (RFC 9207 section 2); `None`: it does not say.
    pub issuer: Option<String>,
}

/// Why nothing can be made of it.
pub enum Unreadable {
    /// There is no code in it.
    Empty,
    /// It is longer than any code.
    TooLong,
    /// It has characters that no code has (RFC 6749 appendix A.11).
    Characters,
    /// It is the address of a refusal: the error code, and what was said.
    Refused {
        /// `error` (RFC 6749 section 4.1.2.1).
        error: String,
        /// `error_description`.
        description: String,
        /// The state that came with it.
        state: Option<Secret<AuthorizationState>>,
    },
}

/// Reads what was pasted: `CODE`, `CODE#STATE`, or an address with `code` and `state` in its query (RFC 6749 section
/// 4.1.2). White space around it and within it, as terminals and chats break long lines, does not count.
pub fn pasted(text: &Secret<AuthorizationCode>) -> Result<Pasted, Unreadable> {
    if text.expose(Exposure::Inspect).len() > MAX_PASTED {
        return Err(Unreadable::TooLong);
    }
    let text = text.expose_str(Exposure::Inspect).ok_or(Unreadable::Characters)?;
    let text: zeroize::Zeroizing<String> = text
        .chars()
        .filter(|c| !c.is_whitespace())
        .collect::<String>()
        .into();
    if !text.chars().all(|c| c.is_ascii_graphic()) {
        return Err(Unreadable::Characters);
    }
    let is_address = ["http://", "https://"].iter().any(|scheme| {
        text.get(..scheme.len())
            .is_some_and(|start| start.eq_ignore_ascii_case(scheme))
    });
    let (code, state, issuer) = if is_address { address(&text)? } else { bare(&text) };
    if code.is_empty() {
        return Err(Unreadable::Empty);
    }
    Ok(Pasted {
        code,
        state: state.filter(|state| !state.is_empty()),
        issuer,
    })
}

type Parts = (
    Secret<AuthorizationCode>,
    Option<Secret<AuthorizationState>>,
    Option<String>,
);

fn bare(text: &str) -> Parts {
    match text.split_once('#') {
        Some((code, state)) => (code.to_owned().into(), Some(state.to_owned().into()), None),
        None => (text.to_owned().into(), None, None),
    }
}

fn address(text: &str) -> Result<Parts, Unreadable> {
    let query = text.split_once('?').map_or("", |(_, query)| query);
    let query = query.split('#').next().unwrap_or_default();
    let field = |wanted: &str| {
        let mut pairs = form_urlencoded::parse(query.as_bytes());
        pairs
            .find(|(name, _)| name == wanted)
            .map(|(_, value)| value.into_owned())
    };
    let code = field("code").unwrap_or_default();
    if code.is_empty()
        && let Some(error) = field("error")
    {
        return Err(Unreadable::Refused {
            error,
            description: field("error_description").unwrap_or_default(),
            state: field("state").map(Secret::from),
        });
    }
    if !code.chars().all(|c| c.is_ascii_graphic()) {
        return Err(Unreadable::Characters);
    }
    Ok((code.into(), field("state").map(Secret::from), field("iss")))
}
