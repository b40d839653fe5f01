//! What a person is told to do: the address to open, as text and where it helps as a QR code, and what to enter there.

use std::io::{IsTerminal as _, stderr};

use super::dialog::Answers;
use super::walk::Walk;
use crate::cli::error::plain;
use crate::cli::{loopback, qr, render};
use crate::proto;
use crate::proto::ConnectionFlow;
use crate::proto::ConnectionState::Waiting;

impl Walk<'_> {
    /// Tells what to do. Says whether a browser was started here.
    pub(super) fn present(&mut self, connection: &proto::Connection) -> bool {
        let left = connection.expire_time.as_ref();
        let left = left
            .map(|at| render::relative(at, render::now()))
            .unwrap_or_default();
        let (id, connector) = (&connection.id, &connection.connector);
        self.dialog.tell(&format!(
            "Connecting an account of {connector}: {id}, given up {left}."
        ));
        if connection.state() != Waiting {
            return false;
        }
        let complete = Some(connection.url_complete.as_str()).filter(|url| !url.is_empty());
        let opened = self.browser && start(complete.unwrap_or(&connection.url));
        match connection.flow() {
            ConnectionFlow::Device => self.device(connection, complete, opened),
            ConnectionFlow::Loopback => self.loopback(connection, opened),
            _ => self.paste(connection, opened),
        }
        opened
    }

    fn device(&mut self, connection: &proto::Connection, complete: Option<&str>, opened: bool) {
        let (url, code) = (plain(&connection.url), plain(&connection.user_code));
        if stderr().is_terminal() {
            let told = match opened {
                true => "Sign in with the browser. If none opens, open this on any machine:",
                false => "On any machine, open:",
            };
            self.dialog.tell(&format!("{told} {url}"));
            self.dialog
                .tell("and enter the code, or check that it is this one:");
            self.dialog.show(&framed(&code));
        } else {
            self.dialog
                .tell(&format!("On any machine, open {url} and enter the code {code}"));
        }
        if let Some(complete) = complete {
            self.dialog.tell(&format!("or open {complete}"));
        }
        self.draw(complete.unwrap_or(&connection.url), opened);
        self.dialog.tell("Waiting for the sign-in; Ctrl-C cancels it.");
    }

    fn loopback(&mut self, connection: &proto::Connection, opened: bool) {
        self.dialog.tell(match opened {
            true => "Sign in with the browser. If none opens, open this address on this machine:",
            false => "Open this address with a browser on this machine:",
        });
        self.dialog.tell(&connection.url);
        // A phone would come back to itself.
        if self.qr == qr::When::Always {
            self.draw(&connection.url, opened);
        }
        if opened || self.dialog.answers() == Answers::Nowhere {
            self.dialog.tell("Waiting for the browser; Ctrl-C cancels it.");
        } else {
            self.dialog.tell(
                "A browser on another machine ends at a page that it cannot load: copy that page's address and paste \
                 it here.",
            );
        }
    }

    fn paste(&mut self, connection: &proto::Connection, opened: bool) {
        self.dialog.tell(match opened {
            true => "Sign in with the browser. If none opens, open this address with any:",
            false => "Open this address with any browser:",
        });
        self.dialog.tell(&connection.url);
        self.draw(&connection.url, opened);
        self.dialog.tell(match connection.code_and_state {
            true => {
                "When you have signed in, the page shows a code with a # in it: paste the whole of it here."
            }
            false => "When you have signed in, the page shows a code: paste it here.",
        });
    }

    fn draw(&mut self, url: &str, opened: bool) {
        if opened && self.qr == qr::When::Auto {
            return;
        }
        if let Some(code) = qr::drawn(url, self.qr) {
            self.dialog.show(&code);
        }
    }
}

/// Starts the browser, for addresses of the web and nothing else that a system may open.
fn start(url: &str) -> bool {
    let of_the_web = url.starts_with("https://") || url.starts_with("http://");
    of_the_web && loopback::start_browser(url)
}

/// A short text that is read and typed elsewhere.
fn framed(text: &str) -> String {
    let line = "─".repeat(text.chars().count() + 4);
    if render::is_unicode() {
        format!("\n    ┌{line}┐\n    │  {text}  │\n    └{line}┘\n\n")
    } else {
        format!("\n      {text}\n\n")
    }
}
