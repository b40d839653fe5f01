//! Patterns over model names.

use std::fmt;
use std::str::FromStr;

/// A pattern over model names: `*` stands for any run of characters, the empty one too, and may stand anywhere;
/// every other character stands for itself. It speaks of the whole name.
///
/// Neighbouring stars mean one and are kept as one, so that two patterns that match the same names are equal.
/// The order of patterns is that of their bytes.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Pattern(String);

/// A text that is no pattern.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum MalformedPattern {
    /// There is nothing in it.
    #[error("a pattern of models cannot be empty; `*` matches every model")]
    Empty,
    /// It is longer than [`Pattern::MAX_LEN`].
    #[error("a pattern of models has at most {} characters", Pattern::MAX_LEN)]
    TooLong,
    /// It has more than [`Pattern::MAX_STARS`] stars.
    #[error("a pattern of models has at most {} stars", Pattern::MAX_STARS)]
    TooManyStars,
    /// It has a character that is not printable ASCII.
    #[error("a pattern of models is made of printable ASCII characters, without blanks at its ends")]
    Unprintable,
}

impl Pattern {
    /// The longest pattern, in characters.
    pub const MAX_LEN: usize = 128;

    /// The most stars in one.
    pub const MAX_STARS: usize = 4;

    /// `*`, which matches every name.
    pub fn any() -> Pattern {
        Pattern("*".to_owned())
    }

    /// The text.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Whether the name matches. Takes time in proportion to the name's length.
    pub fn matches(&self, name: &str) -> bool {
        let Some((head, rest)) = self.0.split_once('*') else {
            return self.0 == name;
        };
        let (middle, tail) = rest.rsplit_once('*').unwrap_or(("", rest));
        let Some(mut left) = name.strip_prefix(head).and_then(|name| name.strip_suffix(tail)) else {
            return false;
        };
        // The leftmost place of each part leaves the most room for those after it.
        for part in middle.split('*') {
            match left.find(part) {
                Some(at) => left = &left[at + part.len()..],
                None => return false,
            }
        }
        true
    }

    /// How many of its characters stand for themselves.
    pub fn literals(&self) -> usize {
        self.0.bytes().filter(|byte| *byte != b'*').count()
    }

    /// Whether it has no star, and so matches one name.
    pub fn is_exact(&self) -> bool {
        !self.0.contains('*')
    }

    /// Whether it is `*`, which matches every name.
    pub fn is_any(&self) -> bool {
        self.0 == "*"
    }

    /// What stands before the star of a pattern whose only star is its last character.
    pub(super) fn prefix(&self) -> Option<&str> {
        self.0.strip_suffix('*').filter(|prefix| !prefix.contains('*'))
    }
}

impl FromStr for Pattern {
    type Err = MalformedPattern;

    fn from_str(text: &str) -> Result<Self, MalformedPattern> {
        let printable = |byte: u8| byte == b' ' || byte.is_ascii_graphic();
        if text.is_empty() {
            return Err(MalformedPattern::Empty);
        }
        if !text.bytes().all(printable) || text.trim_matches(' ') != text {
            return Err(MalformedPattern::Unprintable);
        }
        if text.len() > Self::MAX_LEN {
            return Err(MalformedPattern::TooLong);
        }
        if text.bytes().filter(|byte| *byte == b'*').count() > Self::MAX_STARS {
            return Err(MalformedPattern::TooManyStars);
        }
        let mut kept = String::with_capacity(text.len());
        for character in text.chars() {
            if !(character == '*' && kept.ends_with('*')) {
                kept.push(character);
            }
        }
        Ok(Pattern(kept))
    }
}

impl fmt::Display for Pattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}
