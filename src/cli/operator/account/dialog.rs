//! The conversation on standard error and standard input: what is told, what is asked for, and what is typed or
//! piped while something else may happen at any moment.

use std::fs::File;
use std::io::{self, IsTerminal as _, Read as _, Write as _, stderr, stdin};
use std::os::fd::AsFd as _;

use rustix::termios::{LocalModes, OptionalActions, Termios, tcgetattr, tcsetattr};
use tokio::sync::mpsc;
use zeroize::Zeroizing;

use crate::cli::render;

/// The longest line taken, in bytes: the address of a redirect with all that providers put into it.
const MAX_LINE: usize = 8 * 1024;

/// Where answers come from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Answers {
    /// From a person.
    Terminal,
    /// From another program, a line each.
    Pipe,
    /// There are none.
    Nowhere,
}

/// A line without white space around it.
pub(super) type Line = Result<Zeroizing<String>, BadLine>;

/// Why a line is not taken.
#[derive(Clone, Debug, thiserror::Error)]
pub(super) enum BadLine {
    /// Nothing that is asked for is so long.
    #[error("that is longer than {MAX_LINE} bytes")]
    TooLong,
    /// It is binary.
    #[error("that is not UTF-8 text")]
    NotText,
    /// The system's word.
    #[error("cannot read standard input: {0}")]
    Unreadable(String),
}

/// The conversation.
pub(super) struct Dialog {
    answers: Answers,
    lines: Option<mpsc::Receiver<Line>>,
    /// A question stands at the start of the terminal's line.
    asked: bool,
    /// Keeps what is typed from being shown.
    hidden: Option<Hidden>,
}

impl Dialog {
    /// With codes from standard input where that is asked for, and otherwise from who sits at the terminal.
    pub(super) fn new(code_stdin: bool) -> Self {
        let answers = match (code_stdin, stdin().is_terminal()) {
            (_, true) => Answers::Terminal,
            (true, false) => Answers::Pipe,
            (false, false) => Answers::Nowhere,
        };
        Self {
            answers,
            lines: None,
            asked: false,
            hidden: None,
        }
    }

    /// Where answers come from.
    pub(super) fn answers(&self) -> Answers {
        self.answers
    }

    /// Tells something, on lines of its own.
    pub(super) fn tell(&mut self, text: &str) {
        self.on_new_line();
        render::remark(text);
    }

    /// Shows something as it is, escape sequences and all.
    pub(super) fn show(&mut self, drawing: &str) {
        self.on_new_line();
        // Where standard error is gone there is nobody to show it to.
        let _ = stderr().write_all(drawing.as_bytes());
    }

    fn on_new_line(&mut self) {
        if std::mem::take(&mut self.asked) {
            let _ = stderr().write_all(b"\n");
        }
    }

    /// Asks for a line; `hidden`: it is not shown as it is typed. A pipe is not asked.
    pub(super) fn ask(&mut self, question: &str, hidden: bool) {
        self.hidden = None;
        if self.answers == Answers::Terminal {
            self.on_new_line();
            if hidden {
                self.hidden = Hidden::begin();
            }
            let _ = write!(stderr(), "{question}").and_then(|()| stderr().flush());
            self.asked = true;
        }
        if self.lines.is_none() && self.answers != Answers::Nowhere {
            let (sender, receiver) = mpsc::channel(1);
            // A thread of its own, and none of the runtime's: nothing ends a read of a terminal, and the process
            // does not wait for this one.
            std::thread::spawn(move || read_lines(&sender));
            self.lines = Some(receiver);
        }
    }

    /// What is typed is shown again, and no answer is awaited.
    pub(super) fn quiet(&mut self) {
        self.on_new_line();
        self.hidden = None;
    }

    /// The next line, which may be empty; `None`: no more come. Safe to give up waiting for.
    pub(super) async fn line(&mut self) -> Option<Line> {
        let Some(lines) = &mut self.lines else {
            return std::future::pending().await;
        };
        let line = lines.recv().await;
        if self.answers == Answers::Terminal {
            // Who ended the line has ended the question's as well; at its end nobody did.
            self.asked = line.is_none();
        }
        line
    }
}

/// Reads lines from standard input until it ends or nobody wants them. Without the library's buffer, which would keep
/// a copy of what was typed.
fn read_lines(sender: &mpsc::Sender<Line>) {
    let unreadable = |error: io::Error| Err(BadLine::Unreadable(error.to_string()));
    let mut input = match stdin().as_fd().try_clone_to_owned() {
        Ok(input) => File::from(input),
        Err(error) => return drop(sender.blocking_send(unreadable(error))),
    };
    let mut chunk = Zeroizing::new([0; 1024]);
    let mut gathered = Gathered::default();
    loop {
        let length = match input.read(&mut chunk[..]) {
            Ok(length) => length,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            Err(error) => return drop(sender.blocking_send(unreadable(error))),
        };
        if length == 0 {
            if !gathered.bytes.is_empty() {
                drop(sender.blocking_send(gathered.end()));
            }
            return;
        }
        for byte in &chunk[..length] {
            if *byte != b'\n' {
                gathered.push(*byte);
            } else if sender.blocking_send(gathered.end()).is_err() {
                return;
            }
        }
    }
}

/// The line that is being read.
#[derive(Default)]
struct Gathered {
    bytes: Zeroizing<Vec<u8>>,
    too_long: bool,
}

impl Gathered {
    fn push(&mut self, byte: u8) {
        if self.bytes.capacity() == 0 {
            // Once and whole, so that growing leaves no copies behind.
            self.bytes.reserve_exact(MAX_LINE);
        }
        match self.bytes.len() < MAX_LINE {
            true => self.bytes.push(byte),
            false => self.too_long = true,
        }
    }

    /// What has been gathered.
    fn end(&mut self) -> Line {
        let bytes = std::mem::take(&mut self.bytes);
        if std::mem::take(&mut self.too_long) {
            return Err(BadLine::TooLong);
        }
        let text = std::str::from_utf8(&bytes).map_err(|_| BadLine::NotText)?;
        Ok(Zeroizing::new(text.trim().to_owned()))
    }
}

/// While it lives, the terminal does not show what is typed, except the end of the line.
struct Hidden {
    before: Termios,
}

impl Hidden {
    /// `None`: the terminal does not let itself be changed.
    fn begin() -> Option<Self> {
        let before = tcgetattr(stdin()).ok()?;
        let mut modes = before.clone();
        modes.local_modes.remove(LocalModes::ECHO);
        modes.local_modes.insert(LocalModes::ECHONL);
        tcsetattr(stdin(), OptionalActions::Now, &modes).ok()?;
        Some(Self { before })
    }
}

impl Drop for Hidden {
    fn drop(&mut self) {
        // A terminal that is gone needs nothing put back.
        let _ = tcsetattr(stdin(), OptionalActions::Now, &self.before);
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn gathered(bytes: &[u8]) -> Line {
        let mut line = Gathered::default();
        bytes.iter().for_each(|byte| line.push(*byte));
        line.end()
    }

    #[test]
    fn white_space_around_a_line_is_dropped() {
        assert_eq!(*gathered(b" code#state \r").unwrap(), "code#state");
        assert_eq!(*gathered(b" \t").unwrap(), "");
    }

    #[test]
    fn a_line_that_is_no_code_is_told_apart_and_the_next_is_read() {
        assert!(matches!(gathered(b"\xff"), Err(BadLine::NotText)));
        let mut line = Gathered::default();
        (0..=MAX_LINE).for_each(|_| line.push(b'a'));
        assert!(matches!(line.end(), Err(BadLine::TooLong)));
        line.push(b'b');
        assert_eq!(*line.end().unwrap(), "b");
    }
}
