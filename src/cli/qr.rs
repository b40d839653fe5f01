//! An address as a QR code (ISO/IEC 18004) in the terminal, for the camera of a phone.

use std::io::{IsTerminal as _, stderr};

use clap::ValueEnum;
use qrcodegen::{QrCode, QrCodeEcc};

use super::render;

/// When a QR code is shown.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum When {
    /// On a terminal that it fits into, where no browser was opened.
    #[default]
    Auto,
    /// Always, whatever standard error is.
    Always,
    /// Never.
    Never,
}

/// The light margin in modules: what the standard asks for, and what still works in practice.
const MARGINS: [i32; 2] = [4, 2];
/// Lines of the terminal that are left to what is told above and below.
const LINES_OF_TEXT: i32 = 8;

/// How large a terminal is and whether it has colours.
#[derive(Clone, Copy, Debug)]
struct Screen {
    columns: i32,
    lines: i32,
    colour: bool,
}

impl Screen {
    /// That of standard error; `None`: it is no terminal that shows block characters.
    fn of_stderr() -> Option<Self> {
        let dumb = std::env::var_os("TERM").is_none_or(|term| term == "dumb");
        if !stderr().is_terminal() || dumb || !render::is_unicode() {
            return None;
        }
        let size = rustix::termios::tcgetwinsize(stderr()).ok()?;
        let no_colour = std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty());
        Some(Self {
            columns: size.ws_col.into(),
            lines: size.ws_row.into(),
            colour: !no_colour,
        })
    }
}

/// The code of `text`, for standard error; `None`: it is not to be shown, or cannot be here.
pub fn drawn(text: &str, when: When) -> Option<String> {
    let screen = Screen::of_stderr();
    match when {
        When::Never => None,
        When::Auto => fitting(text, screen?),
        When::Always => {
            let code = encoded(text)?;
            Some(blocks(
                &code,
                MARGINS[0],
                screen.is_some_and(|screen| screen.colour),
            ))
        }
    }
}

/// The least correction, because that is the smallest code: a screen has no stains.
fn encoded(text: &str) -> Option<QrCode> {
    QrCode::encode_text(text, QrCodeEcc::Low).ok()
}

fn fitting(text: &str, screen: Screen) -> Option<String> {
    let code = encoded(text)?;
    let margin = MARGINS.into_iter().find(|margin| {
        let side = code.size() + 2 * margin;
        side <= screen.columns && (side + 1) / 2 + LINES_OF_TEXT <= screen.lines
    })?;
    Some(blocks(&code, margin, screen.colour))
}

/// Two rows of modules a line. With colours dark is black and light is white whatever the terminal's own are;
/// without, light is drawn, which is right on a dark terminal.
fn blocks(code: &QrCode, margin: i32, colour: bool) -> String {
    let range = -margin..code.size() + margin;
    let mut text = String::new();
    for row in range.clone().step_by(2) {
        if colour {
            text.push_str("\x1b[30;107m");
        }
        for column in range.clone() {
            // Outside of the code everything is light; below the last row nothing is drawn.
            let beyond = row + 1 >= range.end;
            let upper = code.get_module(column, row) == colour;
            let lower = if beyond {
                false
            } else {
                code.get_module(column, row + 1) == colour
            };
            text.push(match (upper, lower) {
                (true, true) => '█',
                (true, false) => '▀',
                (false, true) => '▄',
                (false, false) => ' ',
            });
        }
        if colour {
            text.push_str("\x1b[0m");
        }
        text.push('\n');
    }
    text
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    const URL: &str = "https://sign-in.example/device?user_code=WDJB-MJHT";

    /// The modules that the text shows: dark ones are `true`.
    fn read(text: &str, colour: bool) -> Vec<Vec<bool>> {
        let mut rows = Vec::new();
        for line in text.lines() {
            let line = line.replace("\x1b[30;107m", "").replace("\x1b[0m", "");
            for half in [['█', '▀'], ['█', '▄']] {
                rows.push(line.chars().map(|c| half.contains(&c) == colour).collect());
            }
        }
        rows
    }

    #[test]
    fn what_is_drawn_is_the_code_with_its_margin() {
        let code = encoded(URL).unwrap();
        for colour in [true, false] {
            let rows = read(&blocks(&code, 4, colour), colour);
            let side = code.size() + 8;
            assert_eq!(rows[0].len() as i32, side);
            for row in 0..side {
                for column in 0..side {
                    let drawn = rows[row as usize][column as usize];
                    assert_eq!(drawn, code.get_module(column - 4, row - 4), "{column}, {row}");
                }
            }
            // The finder pattern's corner: it is neither mirrored nor turned over.
            assert!(rows[4][4] && rows[4][10] && !rows[5][5] && rows[6][6] && rows[10][4]);
            assert!(!rows[4][11] && !rows[3][4]);
        }
    }

    #[test]
    fn it_is_drawn_only_where_it_fits() {
        let screen = |columns, lines| Screen {
            columns,
            lines,
            colour: true,
        };
        let code = encoded(URL).unwrap();
        let (side, small) = (code.size() + 8, code.size() + 4);
        let lines = (side + 1) / 2 + LINES_OF_TEXT;
        let columns = |text: String| {
            text.lines().next().unwrap().chars().count() as i32 - "\x1b[30;107m\x1b[0m".len() as i32
        };
        assert_eq!(columns(fitting(URL, screen(side, lines)).unwrap()), side);
        assert_eq!(columns(fitting(URL, screen(small, lines)).unwrap()), small);
        assert!(fitting(URL, screen(small - 1, lines)).is_none());
        assert!(fitting(URL, screen(200, lines - 3)).is_none());
        assert!(
            fitting(&"x".repeat(4000), screen(1000, 1000)).is_none(),
            "longer than any code"
        );
    }

    #[test]
    fn a_pipe_gets_none_unless_it_is_asked_for() {
        assert!(drawn(URL, When::Never).is_none());
        assert!(drawn(URL, When::Always).unwrap().contains('█'));
    }
}
