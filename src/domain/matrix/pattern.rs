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

    /// Whether the name matches. Takes time in proportion to the name's length, times the pattern's at worst.
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
            match find(left, part) {
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

/// The first place of a part in a name. Both are short: what `str::find` prepares beforehand takes several times as
/// long as looking at each place.
fn find(name: &str, part: &str) -> Option<usize> {
    if part.is_empty() {
        return Some(0);
    }
    let mut places = name.as_bytes().windows(part.len());
    places.position(|place| place == part.as_bytes())
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

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[track_caller]
    fn pattern(text: &str) -> Pattern {
        let pattern: Pattern = text.parse().unwrap();
        assert_eq!(pattern.to_string().parse(), Ok(pattern.clone()));
        pattern
    }

    #[test]
    fn a_star_stands_for_anything_and_the_rest_for_itself() {
        for (text, name) in [
            ("*", ""),
            ("*", "gpt-5"),
            ("gpt-5", "gpt-5"),
            ("claude-*", "claude-"),
            ("claude-*", "claude-opus-4"),
            ("*-mini", "gpt-5-mini"),
            ("*-mini", "gpt-mini-mini"),
            ("c*e*", "ce"),
            ("c*e*", "claude-opus"),
            ("a*b*c", "abbc"),
            ("*a*b*", "xaxxb"),
            ("a*", "aö"),
            ("a.b[c]?", "a.b[c]?"),
        ] {
            assert!(pattern(text).matches(name), "{text} {name}");
        }
    }

    #[test]
    fn the_whole_name_has_to_match_and_no_character_counts_twice() {
        for (text, name) in [
            ("gpt-5", "gpt-5-mini"),
            ("gpt-5", "gpt-"),
            ("gpt-5", "GPT-5"),
            ("gpt-5", ""),
            ("claude-*", "claude"),
            ("claude-*", "x-claude-opus"),
            ("*-mini", "mini"),
            ("*-mini", "gpt-mini-5"),
            ("ab*ba", "aba"),
            ("a*b*b", "ab"),
            ("*ab*ab*", "aab"),
            ("a*b*c", "acb"),
            ("a.b", "axb"),
            ("a?", "ab"),
        ] {
            assert!(!pattern(text).matches(name), "{text} {name}");
        }
    }

    #[test]
    fn a_pattern_knows_its_shape() {
        let shape = |text| {
            let pattern = pattern(text);
            (pattern.literals(), pattern.is_exact(), pattern.is_any())
        };
        assert_eq!(shape("gpt-5"), (5, true, false));
        assert_eq!(shape("g*5*"), (2, false, false));
        assert_eq!(shape("*"), (0, false, true));
        assert_eq!(pattern("*"), Pattern::any());
        assert_eq!(pattern("gpt*").prefix(), Some("gpt"));
        assert_eq!(pattern("*").prefix(), Some(""));
        for text in ["gpt", "g*t*", "*gpt", "g*t"] {
            assert_eq!(pattern(text).prefix(), None, "{text}");
        }
    }

    #[test]
    fn neighbouring_stars_are_one() {
        assert_eq!(pattern("a**b**"), pattern("a*b*"));
        assert_eq!(pattern("****"), Pattern::any());
    }

    #[test]
    fn what_is_no_pattern_is_told_why() {
        let longest = "x".repeat(Pattern::MAX_LEN);
        assert_eq!(pattern(&longest).literals(), Pattern::MAX_LEN);
        assert_eq!(pattern("*a*b*c*").literals(), 3);
        for (text, why) in [
            ("", MalformedPattern::Empty),
            (&format!("{longest}x"), MalformedPattern::TooLong),
            ("*a*b*c*d*", MalformedPattern::TooManyStars),
            ("*****", MalformedPattern::TooManyStars),
            ("claude-* ", MalformedPattern::Unprintable),
            (" ", MalformedPattern::Unprintable),
            ("gpt\n", MalformedPattern::Unprintable),
            ("gpt-\u{7f}", MalformedPattern::Unprintable),
            ("clé", MalformedPattern::Unprintable),
        ] {
            assert_eq!(text.parse::<Pattern>(), Err(why), "{text:?}");
        }
    }
}
