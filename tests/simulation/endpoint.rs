//! The way to the provider and back: what gets lost, late, doubled, refused on it; and what the broker may send.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use credbroker::domain::credential::Credential;
use credbroker::domain::rotation::Phase;
use credbroker::domain::secret::{Exposure, Secret};
use credbroker::store::keys;
use credbroker::store::model::CredentialSecret;
use credbroker::upstream::{Delivery, RefreshRequest, TokenEndpoint};
use futures_util::FutureExt as _;

use crate::provider::{By, End, Tokens, access_text, number, refresh_text};
use crate::report::{Violation, broken};
use crate::schedule::{EXCHANGE_TIMEOUT, LEAD};
use crate::truth::{Account, Known, Sending};
use crate::world::{Point, State, World};

/// What happens to a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fate {
    /// It arrives, and so does its answer.
    Passes,
    /// No connection.
    NotSent,
    /// It never arrives.
    LostOnTheWay,
    /// It arrives, and its answer does not.
    AnswerLost,
    /// It is held back, and arrives when nobody waits for it any more.
    HeldBack,
    /// It arrives twice, and the second arrival's answer comes back, or the first's.
    Doubled { second: bool },
    /// It arrives once more, later.
    DoubledLate,
    /// The answer takes longer than anybody waits.
    Silent,
    /// Refused with this status, unprocessed.
    Unprocessed(u16, Option<u64>),
    /// Processed, and then something between answers with this status.
    Failed(u16),
}

pub struct SimEndpoint(pub Arc<World>);

#[async_trait]
impl TokenEndpoint for SimEndpoint {
    async fn refresh(&self, request: RefreshRequest<'_>) -> Delivery {
        let world = &self.0;
        world.alive().await;
        let refresh = number(request.refresh_token.expose(Exposure::Upstream));
        let number = match world.sending(refresh) {
            Ok(number) => number,
            Err(violation) => {
                world.check(Err(violation));
                std::future::pending().await
            }
        };
        let mut guard = Guard {
            world,
            number,
            back: false,
        };
        world.point(Point::BeforeSending).await;
        let fate = world.with(|state| state.fate(number));
        let (known, delivery) = self.run(fate, refresh, number).await;
        world.point(Point::AfterAnswer).await;
        let asked = match &delivery {
            Delivery::Answered { retry_after, .. } => retry_after.map_or(0, |after| after.as_millis() as u64),
            _ => 0,
        };
        world.with(|state| state.come_back(number, known, asked));
        guard.back = true;
        delivery
    }
}

impl SimEndpoint {
    async fn run(&self, fate: Fate, refresh: usize, number: usize) -> (Known, Delivery) {
        let world = &self.0;
        if fate == Fate::NotSent {
            let message = "connection refused".to_owned();
            return (Known::NotProcessed(0), Delivery::NotSent(message));
        }
        world.lag(200).await;
        let present = |by| world.with(|state| state.present(refresh, by));
        let answered = match fate {
            Fate::LostOnTheWay | Fate::HeldBack => {
                world.with(|state| {
                    if fate == Fate::HeldBack {
                        let until = state.now() + state.dice.between(1, 60_000);
                        state.provider.hold_back(until, refresh, number);
                    }
                });
                None
            }
            Fate::Unprocessed(status, retry_after) => {
                let body = r#"{"error":"temporarily_unavailable"}"#;
                return unprocessed(status, retry_after, body);
            }
            Fate::DoubledLate => {
                world.with(|state| {
                    let until = state.now() + state.dice.between(1, 30_000);
                    state.provider.hold_back(until, refresh, number);
                });
                Some(present(By::Sending(number)))
            }
            Fate::Doubled { second } => {
                let first = present(By::Sending(number));
                let again = present(By::Echo(number));
                Some(if second { again } else { first })
            }
            _ => Some(present(By::Sending(number))),
        };
        world.point(Point::AfterProvider).await;
        match (fate, answered) {
            (Fate::Failed(status), _) => {
                world.lag(100).await;
                let body = "<html>the gateway is sorry</html>".to_owned();
                return (Known::Nothing, answer(status, None, body));
            }
            (Fate::LostOnTheWay | Fate::AnswerLost | Fate::HeldBack, _) | (_, None) => {
                let (told, millis) = world.with(|state| {
                    (
                        state.dice.percent(70),
                        state.dice.below(EXCHANGE_TIMEOUT.as_millis() as u64),
                    )
                });
                if told {
                    tokio::time::sleep(Duration::from_millis(millis)).await;
                } else {
                    tokio::time::sleep(EXCHANGE_TIMEOUT).await;
                }
                world.alive().await;
                return (Known::Nothing, Delivery::Lost("the connection broke".to_owned()));
            }
            (Fate::Silent, _) => {
                // Even the client's own time-out fails: the engine has to give up by itself.
                return std::future::pending().await;
            }
            _ => {}
        }
        world.lag(500).await;
        match answered.flatten() {
            Some(tokens) => {
                let body = world.with(|state| state.body(tokens));
                world.with(|state| state.sendings[number].tokens = Some(tokens));
                (Known::Granted, answer(200, None, body))
            }
            None => {
                let body = r#"{"error":"invalid_grant"}"#.to_owned();
                (Known::Refused, answer(400, None, body))
            }
        }
    }
}

fn answer(status: u16, retry_after: Option<u64>, body: String) -> Delivery {
    Delivery::Answered {
        status,
        retry_after: retry_after.map(Duration::from_millis),
        body: Secret::from(body),
    }
}

fn unprocessed(status: u16, retry_after: Option<u64>, body: &str) -> (Known, Delivery) {
    let known = match status {
        429 => Known::NotProcessed(retry_after.unwrap_or(0)),
        // The broker cannot know that nothing happened.
        _ => Known::Nothing,
    };
    (known, answer(status, retry_after, body.to_owned()))
}

/// Notices a sending that is given up.
struct Guard<'a> {
    world: &'a World,
    number: usize,
    back: bool,
}

impl Drop for Guard<'_> {
    fn drop(&mut self) {
        if self.back {
            return;
        }
        self.world.with(|state| {
            state.end(self.number, Known::Nothing);
            if state.down {
                return;
            }
            state.tally.lost += 1;
            let since = state.now() - state.sendings[self.number].at;
            state.note(|| format!("sending {} is given up", self.number));
            // The engine waits shorter where it can still ask again within a grace window.
            let grace = state.provider.rules.grace.unwrap_or(u64::MAX);
            let patience = (EXCHANGE_TIMEOUT.as_millis() as u64).min(grace / 2);
            if since < patience {
                let message = format!("sending {} was given up after {since} ms", self.number);
                state.violate("never-cancelled", message);
            }
        });
    }
}

impl World {
    /// The broker sends a refresh token: whether it may.
    fn sending(&self, refresh: usize) -> Result<usize, Violation> {
        let (account, org, id) = self.with(|state| {
            let grant = state.provider.refresh[refresh].grant;
            let account = state
                .accounts
                .iter()
                .position(|account| account.grants.contains(&grant));
            let account = account.unwrap_or_default();
            (account, state.accounts[account].org, state.accounts[account].id)
        });
        let stored = self
            .glance
            .get::<Credential>(&keys::credential(org, id))
            .now_or_never();
        let credential = stored.unwrap().unwrap().unwrap().value;
        let stored = self
            .glance
            .get::<CredentialSecret>(&keys::credential_secret(org, id))
            .now_or_never();
        let secret = stored.unwrap().unwrap().unwrap().value;
        self.with(|state| {
            let now = state.now();
            let fence = credential.rotation.fence.0;
            let wall = state.clocks.wall();
            let sent = state.sendings.len();
            state.note(|| format!("sending {sent} of rt-{refresh}, fence {fence}"));
            // A person may have signed in again between the claim and now: then the old grant is nobody's.
            let kept = secret
                .refresh
                .as_ref()
                .map(|token| number(token.expose(Exposure::Inspect)));
            if kept == Some(refresh) {
                let begun = state.pages.open_effects().iter().any(|open| {
                    open.entry.about("fence") == Some(&fence.to_string())
                        && open.entry.about("credential") == Some(&id.to_string())
                });
                if !matches!(credential.rotation.phase, Phase::Claimed { .. }) || !begun {
                    return broken(
                        "claimed-first",
                        format!("rt-{refresh} is sent without a durable claim"),
                    );
                }
            }
            let under_way = |sent: &Sending| sent.account == account && sent.known == Known::UnderWay;
            if let Some(other) = state.sendings.iter().position(under_way) {
                return broken(
                    "one-exchange",
                    format!("rt-{refresh} is sent while sending {other} is under way"),
                );
            }
            let first = match &credential.rotation.phase {
                Phase::Claimed { sent, .. } if kept == Some(refresh) => Some(sent.first),
                _ => None,
            };
            if let Some(last) = state.sendings.iter().rposition(|sent| sent.refresh == refresh) {
                state.tally.resent += 1;
                state.may_resend(last, first)?;
            } else {
                let even = state.clocks.even_since(0);
                let lead = LEAD.as_millis() as u64;
                let account = &state.accounts[account];
                let wanted = Duration::from_millis(account.asked.max(lead));
                let reported = account.reported >= account.generation;
                let due = credential.expires.is_some_and(|expires| expires <= wall + wanted);
                let none = secret.access.is_none();
                if even && kept == Some(refresh) && !(reported || due || none) {
                    return broken(
                        "needed",
                        format!(
                            "generation {} is replaced, and nobody needs that",
                            account.generation
                        ),
                    );
                }
            }
            state.tally.sendings += 1;
            state.sendings.push(Sending {
                account,
                refresh,
                fence,
                at: now,
                first: first.unwrap_or(wall),
                known: Known::UnderWay,
                ended_at: now,
                ended: wall,
                asked: 0,
                tokens: None,
                staged: false,
            });
            Ok(state.sendings.len() - 1)
        })
    }
}

impl State {
    fn fate(&mut self, number: usize) -> Fate {
        let weather = self.weather;
        let fate = if self.calm || !self.dice.percent(weather.trouble) {
            Fate::Passes
        } else {
            let after = self.dice.percent(60).then(|| self.dice.between(1, 40) * 1000);
            match self.dice.below(16) {
                0 | 1 => Fate::NotSent,
                2 => Fate::LostOnTheWay,
                3..6 => Fate::AnswerLost,
                6 => Fate::HeldBack,
                7 => Fate::Doubled { second: false },
                8 => Fate::Doubled { second: true },
                9 => Fate::DoubledLate,
                10 => Fate::Silent,
                11 | 12 => Fate::Unprocessed(429, after),
                13 => {
                    let status = self.dice.pick(&[500, 502, 503]);
                    Fate::Unprocessed(status, after.filter(|_| status == 503))
                }
                _ => Fate::Failed(self.dice.pick(&[500, 502, 503, 504])),
            }
        };
        let fate = self
            .weather
            .first_fate
            .take()
            .map_or(fate, |lost| if lost { Fate::AnswerLost } else { Fate::Passes });
        self.note(|| format!("sending {number}: {fate:?}"));
        fate
    }

    /// A refresh token arrives at the provider.
    fn present(&mut self, refresh: usize, by: By) -> Option<Tokens> {
        let now = self.now();
        self.deliver_held_back(now);
        self.arrive(refresh, by, now)
    }

    /// What was held back on the way and is due arrives.
    pub fn deliver_held_back(&mut self, until: u64) {
        for (at, refresh, sending) in self.provider.arrived(until) {
            self.arrive(refresh, By::Echo(sending), at);
        }
    }

    fn arrive(&mut self, refresh: usize, by: By, at: u64) -> Option<Tokens> {
        let keeps = self.dice.percent(self.weather.keeps);
        let grant = self.provider.refresh[refresh].grant;
        let before = self.provider.grants[grant].ended;
        let answer = self.provider.present(refresh, by, at, keeps);
        self.note(|| format!("the provider is shown rt-{refresh} by {by:?}: {answer:?}"));
        self.tally.echoes += u64::from(matches!(by, By::Echo(_)));
        let ended = self.provider.grants[grant].ended;
        if let (
            None,
            Some(End::Replay {
                rotated,
                tokens,
                replayed,
            }),
        ) = (before, ended)
        {
            self.tally.grants_ended += 1;
            let (By::Sending(first) | By::Echo(first)) = rotated;
            // What something between did the broker cannot help. What it did itself it may only have done
            // where the tokens of the first use never became its own.
            let first = &self.sendings[first];
            if matches!(replayed, By::Sending(_)) && first.staged && first.tokens == Some(tokens) {
                let message = format!("rt-{refresh} was replayed after its answer was stored");
                self.violate("no-grant-lost-by-us", message);
            }
        }
        answer
    }

    fn come_back(&mut self, number: usize, known: Known, asked: u64) {
        self.note(|| format!("sending {number} comes back: {known:?}"));
        self.tally.lost += u64::from(known == Known::Nothing);
        self.end(number, known);
        self.sendings[number].asked = asked;
    }

    /// What the broker can know of a sending, from now on.
    fn end(&mut self, number: usize, known: Known) {
        let (ended_at, ended) = (self.now(), self.clocks.wall());
        let sending = &mut self.sendings[number];
        (sending.known, sending.ended_at, sending.ended) = (known, ended_at, ended);
    }

    /// The process ended: what came of a sending and was not stored is not known.
    pub fn forget_unstaged(&mut self) {
        for number in 0..self.sendings.len() {
            let sending = &self.sendings[number];
            let account = &self.accounts[sending.account];
            let stored = account.fence > sending.fence || !matches!(account.phase, Phase::Claimed { .. });
            match sending.known {
                _ if sending.staged => {}
                // No connection: nothing is staged, and the state tells it.
                Known::NotProcessed(_) if stored => {}
                Known::Nothing => self.sendings[number].asked = 0,
                _ => {
                    self.end(number, Known::Nothing);
                    self.sendings[number].asked = 0;
                }
            }
        }
    }

    fn body(&mut self, tokens: Tokens) -> String {
        let Tokens { access, refresh } = tokens;
        let mut body = format!(
            r#"{{"access_token":"{}","token_type":"Bearer""#,
            access_text(access)
        );
        if let Some(refresh) = refresh {
            body += &format!(r#","refresh_token":"{}""#, refresh_text(refresh));
        }
        if self.provider.rules.tells_life {
            let left = self.provider.access[access].expires.saturating_sub(self.now());
            body += &format!(r#","expires_in":{}"#, left / 1000);
        }
        body + "}"
    }
}

impl Account {
    /// The grant behind what is stored.
    pub fn grant(&self) -> usize {
        self.grants[self.grants.len() - 1]
    }
}
