//! Resource names: what people type instead of an id.

/// A name: 1 to 63 of `a-z`, `0-9` and `-`, beginning with a letter and not ending with `-`. A name never
/// looks like an id, which contains `_`.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Name(String);

/// A text that is no name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a name is 1 to 63 of a-z, 0-9 and '-', beginning with a letter and not ending with '-'")]
pub struct MalformedName;

impl Name {
    /// The text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl std::str::FromStr for Name {
    type Err = MalformedName;

    fn from_str(text: &str) -> Result<Self, MalformedName> {
        let bytes = text.as_bytes();
        let fits = matches!(bytes.first(), Some(b'a'..=b'z'))
            && bytes.len() <= 63
            && bytes.last() != Some(&b'-')
            && bytes
                .iter()
                .all(|b| matches!(b, b'a'..=b'z' | b'0'..=b'9' | b'-'));
        if fits {
            Ok(Self(text.to_owned()))
        } else {
            Err(MalformedName)
        }
    }
}

impl std::fmt::Display for Name {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.0)
    }
}
