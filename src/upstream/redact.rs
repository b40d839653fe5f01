//! What providers write, made fit for logs, errors and terminals.

use std::collections::HashSet;

/// What stands where a secret may have stood.
const MARK: &str = "[redacted]";

/// Beginnings of well-known secrets; what follows is hidden however short it is.
const PREFIXES: [&str; 12] = [
    "sk-", "sk_", "eyJ", "ya29.", "1//", "AIza", "AKIA", "ASIA", "ABSK", "ghp_", "gho_", "xox",
];

/// `text` in one line of at most `max` characters, with everything that looks like a token hidden: known
/// prefixes, and long runs that look random. Hides too much rather than too little: request ids and long
/// URLs go too.
pub fn redact(text: &str, max: usize) -> String {
    let mut out = String::new();
    let mut run = String::new();
    // No text is read without end; a run cut off there could not be judged, so it is left out.
    let mut chars = text.chars();
    for c in chars.by_ref().take(max.saturating_mul(8)) {
        if is_token_char(c) {
            run.push(c);
        } else {
            flush(&mut out, &mut run);
            out.push(c);
        }
    }
    if chars.next().is_none() {
        flush(&mut out, &mut run);
    }
    clip(&out, max)
}

/// How long a part of a known secret is hidden.
const PART: usize = 8;

/// As [`redact`], of a text that may quote these secrets: they and all parts of them of at least eight bytes are
/// hidden first, whatever they look like.
pub fn redact_known(text: &str, secrets: &[&[u8]], max: usize) -> String {
    let bytes = text.as_bytes();
    let mut covered = vec![false; bytes.len()];
    for secret in secrets {
        let part = PART.min(secret.len()).max(1);
        let parts: HashSet<&[u8]> = secret.windows(part).collect();
        for (at, window) in bytes.windows(part).enumerate() {
            if parts.contains(window) {
                covered[at..at + part].fill(true);
            }
        }
    }
    let (mut shown, mut hiding) = (String::with_capacity(text.len()), false);
    for (at, c) in text.char_indices() {
        let hidden = covered[at..at + c.len_utf8()].contains(&true);
        if !hidden {
            shown.push(c);
        } else if !hiding {
            shown.push_str(MARK);
        }
        hiding = hidden;
    }
    redact(&shown, max)
}

/// `text` in one line of at most `max` characters: no control or direction-changing characters, which
/// could forge log lines or terminal output.
pub(super) fn clip(text: &str, max: usize) -> String {
    let harmless = |c: char| match c {
        '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{206f}' | '\u{feff}' => ' ',
        c if c.is_control() => ' ',
        c => c,
    };
    let mut chars = text.chars().map(harmless);
    let mut out: String = chars.by_ref().take(max).collect();
    if chars.next().is_some() {
        out.pop();
        out.push('…');
    }
    out
}

fn is_token_char(c: char) -> bool {
    c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.' | '~' | '+' | '/')
}

fn flush(out: &mut String, run: &mut String) {
    out.push_str(if looks_secret(run) { MARK } else { run });
    run.clear();
}

fn looks_secret(run: &str) -> bool {
    if PREFIXES
        .iter()
        .any(|prefix| run.len() > prefix.len() + 4 && run.starts_with(prefix))
    {
        return true;
    }
    let digit = run.bytes().any(|b| b.is_ascii_digit());
    if run.len() >= 20 && digit {
        return true;
    }
    // Without a digit, words joined by separators are what error codes look like; random text has long
    // pieces, or changes case within them.
    run.split(['-', '_', '.', '/']).any(|piece| {
        let upper_inside = piece.bytes().skip(1).any(|b| b.is_ascii_uppercase());
        let lower = piece.bytes().any(|b| b.is_ascii_lowercase());
        piece.len() >= 32 || (piece.len() >= 20 && upper_inside && lower)
    })
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn what_looks_like_a_token_is_hidden() {
        for secret in [
            "sk-ant-ort01-abc",
            "eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxIn0.c2ln",
            "1//0gAbCdEfGh",
            "dGhpcyBpcyBhIHNlY3JldA9",
            "0123456789abcdef0123456789abcdef",
            "kXqTzWvBnMlKjHgFdSaPoIuYtReWq",
            "abcdefghijklmnopqrstuvwxyzabcdefgh",
        ] {
            let text = format!("token={secret}; try again");
            assert_eq!(redact(&text, 512), "token=[redacted]; try again");
        }
    }

    #[test]
    fn words_and_error_codes_stay() {
        for text in [
            "refresh_token_invalidated_by_another_login",
            "Your refresh token has already been used. Please sign in again.",
            "urn:ietf:params:oauth:grant-type:refresh_token is unsupported",
            "limit 100 per 60 seconds",
        ] {
            assert_eq!(redact(text, 512), text);
        }
    }

    #[test]
    fn a_token_cut_by_the_limit_does_not_show_its_beginning() {
        let text = format!("{} 0123456789abcdefghijABCDEFGHIJ", "word ".repeat(3));
        let short = redact(&text, 22);
        assert!(!short.contains("0123"), "{short}");
        assert_eq!(short.chars().count(), 22);
    }

    #[test]
    fn a_known_secret_is_hidden_whatever_it_looks_like() {
        let secret: &[u8] = b"correct-horse-battery";
        let hidden = |text: &str| redact_known(text, &[secret, b"", b"pin"], 512);
        assert_eq!(
            hidden("bad token correct-horse-battery!"),
            "bad token [redacted]!"
        );
        assert_eq!(hidden("…it ends in se-battery, é"), "…it ends in [redacted], é");
        assert_eq!(hidden("a horse and a battery"), "a horse and a battery");
        assert_eq!(hidden("the pin is wrong"), "the [redacted] is wrong");
        assert_eq!(hidden("also 0123456789abcdef0123456789abcdef"), "also [redacted]");
        assert_eq!(hidden(""), "");
    }

    #[test]
    fn one_line_and_no_terminal_tricks() {
        assert_eq!(redact("a\r\nb\u{1b}[31m\u{202e}c", 512), "a  b [31m c");
    }
}
