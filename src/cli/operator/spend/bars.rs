//! Bars of block characters, as wide as the terminal has room for.

use std::io::IsTerminal;

use crate::cli::render;

/// One bar.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Bar {
    /// What it is for.
    pub(super) label: String,
    /// How much, as people read it.
    pub(super) amount: String,
    /// The same, for its length.
    pub(super) length: u64,
}

/// What the terminal can do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Style {
    /// Columns.
    pub(super) width: usize,
    /// Whether it shows colours.
    pub(super) colour: bool,
    /// Whether it shows more than ASCII.
    pub(super) unicode: bool,
}

impl Style {
    /// That of standard output: colour on a terminal only and not against `NO_COLOR`, block characters where the
    /// locale has them.
    pub(super) fn of_stdout() -> Self {
        let no_colour = std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty());
        Self {
            width: render::width(),
            colour: std::io::stdout().is_terminal() && !no_colour,
            unicode: render::is_unicode(),
        }
    }
}

const CYAN: &str = "\x1b[36m";
const PLAIN: &str = "\x1b[0m";
/// Parts of a column, in eighths.
const EIGHTHS: [&str; 8] = ["", "▏", "▎", "▍", "▌", "▋", "▊", "▉"];
/// The shortest and the longest that the longest bar is, in columns.
const LENGTHS: std::ops::RangeInclusive<usize> = 8..=100;

/// The bars, a line each. On a terminal too narrow for labels, amounts and a short bar the lines are longer than
/// it is wide.
pub(super) fn draw(bars: &[Bar], style: Style) -> String {
    let longest = |text: fn(&Bar) -> &str| bars.iter().map(|bar| text(bar).chars().count()).max();
    let labels = longest(|bar| &bar.label).unwrap_or(0);
    let amounts = longest(|bar| &bar.amount).unwrap_or(0);
    let room = style.width.saturating_sub(labels + amounts + 4);
    let room = room.clamp(*LENGTHS.start(), *LENGTHS.end());
    let most = bars.iter().map(|bar| bar.length).max().unwrap_or(0);
    let mut text = String::new();
    for bar in bars {
        let drawn = block(bar.length, most, room, style);
        let (on, off) = if style.colour && !drawn.is_empty() {
            (CYAN, PLAIN)
        } else {
            ("", "")
        };
        let line = format!(
            "{:<labels$}  {:>amounts$}  {on}{drawn}{off}",
            bar.label, bar.amount
        );
        text += line.trim_end();
        text.push('\n');
    }
    text
}

/// A bar for `length`, where one for `most` takes all the room. What is not nothing is seen.
fn block(length: u64, most: u64, room: usize, style: Style) -> String {
    if length == 0 {
        return String::new();
    }
    let parts: u128 = if style.unicode { 8 } else { 1 };
    let eighths = u128::from(length) * room as u128 * parts / u128::from(most.max(1));
    // At most as many as there is room for.
    let eighths = usize::try_from(eighths.max(1)).unwrap_or(0);
    if style.unicode {
        "█".repeat(eighths / 8) + EIGHTHS[eighths % 8]
    } else {
        "#".repeat(eighths)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bar(label: &str, length: u64) -> Bar {
        Bar {
            label: label.to_owned(),
            amount: length.to_string(),
            length,
        }
    }

    const STYLE: Style = Style {
        width: 40,
        colour: false,
        unicode: true,
    };

    #[test]
    fn bars_are_in_proportion_and_fit() {
        let bars = [
            bar("metered", 1000),
            bar("shared", 500),
            bar("byok", 1),
            bar("local", 0),
        ];
        let text = draw(&bars, STYLE);
        let lines: Vec<_> = text.lines().collect();
        assert_eq!(lines[0], format!("metered  1000  {}", "█".repeat(25)));
        assert_eq!(lines[0].chars().count(), 40);
        assert_eq!(lines[1], format!("shared    500  {}▌", "█".repeat(12)));
        assert_eq!(lines[2], "byok        1  ▏", "a little is seen");
        assert_eq!(lines[3], "local       0");
        let ascii = Style {
            unicode: false,
            ..STYLE
        };
        assert!(draw(&bars, ascii).is_ascii());
        assert_eq!(draw(&[], STYLE), "");
    }

    #[test]
    fn amounts_past_counting_and_narrow_terminals_are_drawn() {
        let narrow = Style { width: 3, ..STYLE };
        let text = draw(&[bar("a", u64::MAX), bar("b", u64::MAX / 2)], narrow);
        assert!(text.lines().all(|line| line.contains('█')), "{text}");
    }

    #[test]
    fn colour_only_where_it_is_wanted() {
        assert!(!draw(&[bar("a", 1)], STYLE).contains('\x1b'));
        let colour = Style {
            colour: true,
            ..STYLE
        };
        assert!(draw(&[bar("a", 1)], colour).contains(CYAN));
    }
}
