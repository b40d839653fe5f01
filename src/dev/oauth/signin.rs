//! The demo server's sign-ins, without I/O: authorization codes with PKCE (RFC 6749 section 4.1, RFC 7636) and device
//! codes (RFC 8628). All of them are for the one account that the demo has.

use std::collections::VecDeque;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use ring::digest;

use crate::domain::time::Time;

/// How long a code is good for.
const CODE_LIFE: Duration = Duration::from_secs(60);
/// How long a device code is.
pub(super) const DEVICE_LIFE: Duration = Duration::from_secs(600);
/// How long a device waits between two polls.
pub(super) const INTERVAL: Duration = Duration::from_secs(1);
/// The most of each kind that are kept; the oldest is dropped for a new one.
const MOST: usize = 256;
/// The letters of user codes: without vowels, and without those that are taken for one another (section 6.1).
const LETTERS: &[u8] = b"BCDFGHJKLMNPQRSTVWXZ";

/// What is asked for at the authorization endpoint.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Asked {
    pub(super) client_id: String,
    pub(super) redirect_uri: String,
    pub(super) state: String,
    pub(super) code_challenge: String,
}

struct Code {
    code: String,
    asked: Asked,
    ends: Time,
    /// The grant that was made for it: a second use ends that (RFC 6749 section 4.1.2).
    used_for: Option<String>,
}

/// What came of presenting a code.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Presented {
    /// It is good: a grant of this id may be made.
    Good,
    /// It was used before, for this grant.
    Used(String),
    /// It is not.
    Refused(&'static str),
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Answer {
    Pending,
    Allowed,
    Denied,
}

struct Device {
    device_code: String,
    user_code: String,
    client_id: String,
    ends: Time,
    polled: Option<Time>,
    answer: Answer,
}

/// All sign-ins under way.
#[derive(Default)]
pub(super) struct SignIns {
    codes: VecDeque<Code>,
    devices: VecDeque<Device>,
}

impl SignIns {
    /// The person has allowed what was asked for.
    pub(super) fn allow(&mut self, asked: Asked, code: String, now: Time) {
        if self.codes.len() == MOST {
            self.codes.pop_front();
        }
        self.codes.push_back(Code {
            code,
            asked,
            ends: now + CODE_LIFE,
            used_for: None,
        });
    }

    /// A client presents a code, for a grant of the id `grant`.
    pub(super) fn present(
        &mut self,
        code: &str,
        [client_id, redirect_uri, verifier]: [&str; 3],
        grant: &str,
        now: Time,
    ) -> Presented {
        let Some(known) = self.codes.iter_mut().find(|known| known.code == code) else {
            return Presented::Refused("unknown code");
        };
        if let Some(grant) = &known.used_for {
            return Presented::Used(grant.clone());
        }
        let challenge = digest::digest(&digest::SHA256, verifier.as_bytes());
        if known.asked.client_id != client_id || known.asked.redirect_uri != redirect_uri {
            return Presented::Refused("the code is another client's, or for another redirect_uri");
        }
        if known.asked.code_challenge != URL_SAFE_NO_PAD.encode(challenge) {
            return Presented::Refused("the code_verifier does not fit");
        }
        if now >= known.ends {
            return Presented::Refused("the code has expired");
        }
        known.used_for = Some(grant.to_owned());
        Presented::Good
    }

    /// Begins a device sign-in; gives the code that the person enters.
    pub(super) fn begin(
        &mut self,
        client_id: &str,
        device_code: String,
        random: [u8; 8],
        now: Time,
    ) -> String {
        if self.devices.len() == MOST {
            self.devices.pop_front();
        }
        let mut user_code: String = random
            .iter()
            .map(|byte| char::from(LETTERS[usize::from(*byte) % LETTERS.len()]))
            .collect();
        user_code.insert(4, '-');
        self.devices.push_back(Device {
            device_code,
            user_code: user_code.clone(),
            client_id: client_id.to_owned(),
            ends: now + DEVICE_LIFE,
            polled: None,
            answer: Answer::Pending,
        });
        user_code
    }

    /// The person has entered a code, in any case and with or without the hyphen, and allowed it or not; `false`:
    /// there is no such code, or it has been answered.
    pub(super) fn enter(&mut self, user_code: &str, allowed: bool, now: Time) -> bool {
        let letters = |text: &str| -> String {
            let letters = text.chars().filter(char::is_ascii_alphabetic);
            letters.map(|letter| letter.to_ascii_uppercase()).collect()
        };
        let wanted = letters(user_code);
        let waits = |device: &&mut Device| {
            letters(&device.user_code) == wanted && device.answer == Answer::Pending && now < device.ends
        };
        let Some(device) = self.devices.iter_mut().find(waits) else {
            return false;
        };
        device.answer = if allowed { Answer::Allowed } else { Answer::Denied };
        true
    }

    /// A device asks whether it is allowed. The errors are those of section 3.5.
    pub(super) fn poll(&mut self, device_code: &str, client_id: &str, now: Time) -> Result<(), &'static str> {
        let found = self
            .devices
            .iter()
            .position(|device| device.device_code == device_code);
        let Some(at) = found else {
            return Err("invalid_grant");
        };
        let device = &mut self.devices[at];
        if device.client_id != client_id {
            return Err("invalid_grant");
        }
        let too_soon = device.polled.is_some_and(|last| now.since(last) < INTERVAL / 2);
        device.polled = Some(now);
        match device.answer {
            _ if now >= device.ends => Err("expired_token"),
            Answer::Denied => Err("access_denied"),
            Answer::Pending if too_soon => Err("slow_down"),
            Answer::Pending => Err("authorization_pending"),
            Answer::Allowed => {
                // It works once.
                self.devices.remove(at);
                Ok(())
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const REDIRECT: &str = "http://127.0.0.1:1/callback";

    fn at(seconds: i64) -> Time {
        Time::from_seconds(seconds)
    }

    fn allowed() -> SignIns {
        let challenge = digest::digest(&digest::SHA256, b"verifier");
        let mut sign_ins = SignIns::default();
        let asked = Asked {
            client_id: "client".to_owned(),
            redirect_uri: REDIRECT.to_owned(),
            state: "state".to_owned(),
            code_challenge: URL_SAFE_NO_PAD.encode(challenge),
        };
        sign_ins.allow(asked, "code".to_owned(), at(0));
        sign_ins
    }

    #[test]
    fn a_code_works_once_for_who_asked_for_it() {
        let mut sign_ins = allowed();
        for (code, bound) in [
            ("other", ["client", REDIRECT, "verifier"]),
            ("code", ["another", REDIRECT, "verifier"]),
            ("code", ["client", "http://127.0.0.1:2/", "verifier"]),
            ("code", ["client", REDIRECT, "guess"]),
        ] {
            let refused = sign_ins.present(code, bound, "g", at(1));
            assert!(matches!(refused, Presented::Refused(_)), "{code} {bound:?}");
        }
        let bound = ["client", REDIRECT, "verifier"];
        assert_eq!(sign_ins.present("code", bound, "g", at(1)), Presented::Good);
        let again = sign_ins.present("code", bound, "h", at(1));
        assert_eq!(again, Presented::Used("g".to_owned()));
        let late = allowed().present("code", bound, "g", at(60));
        assert!(matches!(late, Presented::Refused(_)));
    }

    #[test]
    fn a_device_waits_until_its_code_is_entered_and_is_let_in_once() {
        let mut sign_ins = SignIns::default();
        let user_code = sign_ins.begin("client", "device".to_owned(), [0, 1, 2, 3, 4, 5, 6, 255], at(0));
        assert_eq!(user_code, "BCDF-GHJT");
        assert_eq!(
            sign_ins.poll("device", "client", at(1)),
            Err("authorization_pending")
        );
        assert_eq!(sign_ins.poll("device", "client", at(1)), Err("slow_down"));
        assert_eq!(sign_ins.poll("device", "another", at(2)), Err("invalid_grant"));
        assert!(!sign_ins.enter("BCDF-GHJK", true, at(2)));
        assert!(sign_ins.enter("bcdfghjt ", true, at(2)));
        assert!(!sign_ins.enter("BCDF-GHJT", false, at(2)), "answered already");
        assert_eq!(sign_ins.poll("device", "client", at(3)), Ok(()));
        assert_eq!(sign_ins.poll("device", "client", at(4)), Err("invalid_grant"));
    }

    #[test]
    fn a_device_that_is_denied_or_late_is_told_so() {
        let mut sign_ins = SignIns::default();
        let user_code = sign_ins.begin("client", "device".to_owned(), [0; 8], at(0));
        assert!(!sign_ins.enter(&user_code, true, at(600)));
        assert_eq!(sign_ins.poll("device", "client", at(600)), Err("expired_token"));
        let user_code = sign_ins.begin("client", "other".to_owned(), [1; 8], at(0));
        assert!(sign_ins.enter(&user_code, false, at(1)));
        assert_eq!(sign_ins.poll("other", "client", at(2)), Err("access_denied"));
    }
}
