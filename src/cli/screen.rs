//! The terminal: what it can show, and the whole of it while something is followed live.

use std::io::{IsTerminal, Write};

use super::error::Failure;
use super::render;

/// What the terminal can do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Style {
    /// Columns; `None`: as many as there are.
    pub width: Option<usize>,
    /// Whether it shows colours.
    pub colour: bool,
    /// Whether it shows more than ASCII.
    pub unicode: bool,
}

/// The colours in use.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Colour {
    /// All is well.
    Green,
    /// It goes on by itself.
    Cyan,
    /// Somebody should look at it.
    Yellow,
    /// Somebody has to do something.
    Red,
    /// Of less weight than what it belongs to.
    Dim,
}

impl Colour {
    const fn code(self) -> &'static str {
        match self {
            Colour::Green => "\x1b[32m",
            Colour::Cyan => "\x1b[36m",
            Colour::Yellow => "\x1b[33m",
            Colour::Red => "\x1b[31m",
            Colour::Dim => "\x1b[2m",
        }
    }
}

impl Style {
    /// That of standard output: colours on a terminal only, not against `NO_COLOR` (<https://no-color.org>) and not
    /// where they are not wanted.
    pub fn of_stdout(colours_wanted: bool) -> Self {
        let terminal = std::io::stdout().is_terminal();
        let no_colour = std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty());
        Self {
            width: terminal.then(render::width),
            colour: terminal && colours_wanted && !no_colour,
            unicode: render::is_unicode(),
        }
    }

    /// The text in a colour, where there are colours.
    pub fn paint(self, colour: Colour, text: &str) -> String {
        if self.colour && !text.is_empty() {
            format!("{}{text}\x1b[0m", colour.code())
        } else {
            text.to_owned()
        }
    }

    /// At most as much of a text as there are columns left after `indent`.
    pub fn clip(self, text: &str, indent: usize) -> String {
        let room = self
            .width
            .map_or(usize::MAX, |width| width.saturating_sub(indent));
        if text.chars().count() <= room {
            return text.to_owned();
        }
        let more = if self.unicode { "…" } else { "~" };
        let kept: String = text.chars().take(room.saturating_sub(1)).collect();
        kept + more
    }
}

/// Another screen with no cursor and no wrapping, so that what was on the terminal is there again afterwards.
const ENTER: &str = "\x1b[?1049h\x1b[?25l\x1b[?7l\x1b[2J";
const LEAVE: &str = "\x1b[?7h\x1b[?25h\x1b[?1049l";
/// Where a terminal can, all of a frame is shown at once.
const BEGIN: &str = "\x1b[?2026h\x1b[H";
const END: &str = "\x1b[J\x1b[?2026l";
/// Rows where the terminal does not tell.
const ROWS: usize = 24;

/// The whole terminal, for as long as it lives. However it ends, the terminal is as before.
#[derive(Debug)]
pub struct Screen(());

impl Screen {
    /// Takes the terminal; `None` where standard output is none.
    pub fn take() -> Result<Option<Screen>, Failure> {
        if !std::io::stdout().is_terminal() {
            return Ok(None);
        }
        // Made first, so that a terminal that takes half of it is given back too.
        let screen = Screen(());
        render::print(ENTER)?;
        Ok(Some(screen))
    }

    /// Shows these lines in place of those before, without a moment in between: what is there is written over, and only
    /// what is left of it erased.
    pub fn show(&self, lines: &[String]) -> Result<(), Failure> {
        render::print(&frame(lines, rows()))
    }
}

impl Drop for Screen {
    fn drop(&mut self) {
        let mut out = std::io::stdout().lock();
        // Where the terminal is gone there is nothing to give back.
        let _ = out.write_all(LEAVE.as_bytes()).and_then(|()| out.flush());
    }
}

fn frame(lines: &[String], rows: usize) -> String {
    let room = rows.saturating_sub(1).max(1);
    let mut text = BEGIN.to_owned();
    let shown = if lines.len() > room { room - 1 } else { lines.len() };
    for line in &lines[..shown] {
        text += line;
        text += "\x1b[K\r\n";
    }
    if lines.len() > shown {
        text += &format!("({} more lines)\x1b[K\r\n", lines.len() - shown);
    }
    text + END
}

fn rows() -> usize {
    rustix::termios::tcgetwinsize(std::io::stdout())
        .map(|size| usize::from(size.ws_row))
        .ok()
        .filter(|rows| *rows > 0)
        .unwrap_or(ROWS)
}

#[cfg(test)]
mod tests {
    use super::*;

    const PLAIN: Style = Style {
        width: Some(10),
        colour: false,
        unicode: false,
    };

    #[test]
    fn colours_only_where_they_are_wanted() {
        assert_eq!(PLAIN.paint(Colour::Red, "lost"), "lost");
        let colour = Style {
            colour: true,
            ..PLAIN
        };
        assert_eq!(colour.paint(Colour::Red, "lost"), "\x1b[31mlost\x1b[0m");
        assert_eq!(colour.paint(Colour::Red, ""), "");
    }

    #[test]
    fn what_is_too_long_is_cut_and_says_so() {
        assert_eq!(PLAIN.clip("0123456789", 0), "0123456789");
        assert_eq!(PLAIN.clip("0123456789", 2), "0123456~");
        assert_eq!(PLAIN.clip("é123456789é", 0), "é12345678~");
        let wide = Style { width: None, ..PLAIN };
        assert_eq!(wide.clip("0123456789 and more", 2), "0123456789 and more");
    }

    #[test]
    fn a_frame_writes_over_the_one_before_and_stays_on_the_screen() {
        let lines: Vec<_> = (1..=9).map(|n| format!("line {n}")).collect();
        let whole = frame(&lines, 24);
        assert!(!whole.contains("\x1b[2J"), "what is there is not blanked first");
        assert_eq!(whole.matches("\x1b[K\r\n").count(), 9);
        let small = frame(&lines, 5);
        assert_eq!(small.matches("\x1b[K\r\n").count(), 4);
        assert!(small.contains("line 3") && !small.contains("line 4") && small.contains("(6 more lines)"));
        assert!(frame(&lines, 0).contains("(9 more lines)"));
    }
}
