//! The demo server's grants: rotation, replay and the grace window, without I/O.

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use serde_json::{Value, json};

use crate::domain::time::Time;

/// How many used refresh tokens of a grant are remembered. Older ones are refused without killing it.
const MAX_USED: usize = 1024;
/// How many events of a grant are kept.
const MAX_EVENTS: usize = 256;

#[derive(Clone, Copy, Debug)]
pub(super) struct Limits {
    pub(super) grants: usize,
    pub(super) grace: Option<Duration>,
}

/// What a client is given.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Tokens {
    pub(super) access: String,
    pub(super) refresh: String,
    pub(super) expires_in: Duration,
}

/// What came of presenting a refresh token. The answer is held back for `delay`.
#[derive(Debug)]
pub(super) enum Redeemed {
    Granted { tokens: Tokens, delay: Duration },
    Refused { why: &'static str, delay: Duration },
}

struct Grant {
    alive: bool,
    life: Duration,
    delay: Duration,
    access: String,
    access_ends: Time,
    refresh: String,
    /// The newest last, with the time of its use.
    used: VecDeque<(String, Time)>,
    refreshes: u64,
    replays: u64,
    events: VecDeque<Value>,
}

impl Grant {
    fn log(&mut self, kind: &str, caller: Option<&str>, now: Time) {
        if self.events.len() == MAX_EVENTS {
            self.events.pop_front();
        }
        let mut event = json!({ "at_ms": now.millis(), "kind": kind });
        if let Some(caller) = caller {
            event["caller"] = caller.into();
        }
        self.events.push_back(event);
    }

    fn tokens(&self, now: Time) -> Tokens {
        Tokens {
            access: self.access.clone(),
            refresh: self.refresh.clone(),
            expires_in: self.access_ends.since(now),
        }
    }

    fn renew(&mut self, id: &str, [access, refresh]: [String; 2], now: Time) {
        self.access = format!("demo-at.{id}.{access}");
        self.access_ends = now + self.life;
        self.refresh = format!("demo-rt.{id}.{refresh}");
    }
}

/// All grants, bounded: the oldest is dropped for a new one.
pub(super) struct Grants {
    limits: Limits,
    by_id: BTreeMap<String, Grant>,
    order: VecDeque<String>,
}

impl Grants {
    pub(super) fn new(limits: Limits) -> Self {
        Self {
            limits,
            by_id: BTreeMap::new(),
            order: VecDeque::new(),
        }
    }

    pub(super) fn mint(
        &mut self,
        id: String,
        life: Duration,
        delay: Duration,
        fresh: [String; 2],
        now: Time,
    ) -> Tokens {
        while self.order.len() >= self.limits.grants {
            if let Some(oldest) = self.order.pop_front() {
                self.by_id.remove(&oldest);
            }
        }
        let mut grant = Grant {
            alive: true,
            life,
            delay,
            access: String::new(),
            access_ends: now,
            refresh: String::new(),
            used: VecDeque::new(),
            refreshes: 0,
            replays: 0,
            events: VecDeque::new(),
        };
        grant.renew(&id, fresh, now);
        let tokens = grant.tokens(now);
        self.order.push_back(id.clone());
        self.by_id.insert(id, grant);
        tokens
    }

    /// Rotates the grant that `presented` belongs to, or kills it where the token was used before.
    pub(super) fn redeem(
        &mut self,
        presented: &str,
        caller: Option<String>,
        fresh: [String; 2],
        now: Time,
    ) -> Redeemed {
        let refused = |why, delay| Redeemed::Refused { why, delay };
        let Some((id, grant)) = grant_of(&mut self.by_id, "demo-rt.", presented) else {
            return refused("unknown refresh token", Duration::ZERO);
        };
        let (caller, delay) = (caller.as_deref(), grant.delay);
        if grant.alive && presented == grant.refresh {
            if grant.used.len() == MAX_USED {
                grant.used.pop_front();
            }
            grant.used.push_back((presented.to_owned(), now));
            grant.renew(id, fresh, now);
            grant.refreshes += 1;
            grant.log("refreshed", caller, now);
            let tokens = grant.tokens(now);
            return Redeemed::Granted { tokens, delay };
        }
        let Some(&(_, used_at)) = grant.used.iter().find(|(used, _)| used == presented) else {
            return refused("unknown refresh token, or the grant is dead", delay);
        };
        let latest = grant.used.back().is_some_and(|(used, _)| used == presented);
        let in_grace = self.limits.grace.is_some_and(|grace| now.since(used_at) <= grace);
        if grant.alive && latest && in_grace {
            grant.log("repeated", caller, now);
            let tokens = grant.tokens(now);
            return Redeemed::Granted { tokens, delay };
        }
        grant.replays += 1;
        grant.log("replayed", caller, now);
        if grant.alive {
            grant.alive = false;
            grant.log("killed", caller, now);
        }
        refused(
            "this refresh token was used before; the whole grant is revoked",
            delay,
        )
    }

    /// The grant whose access token this is, while it is valid. A rotation ends the older one.
    pub(super) fn owner(&mut self, access: &str, now: Time) -> Option<String> {
        let (id, grant) = grant_of(&mut self.by_id, "demo-at.", access)?;
        (grant.alive && grant.access == access && now < grant.access_ends).then(|| id.to_owned())
    }

    /// Ends a grant, for the reason `kind`.
    pub(super) fn end(&mut self, id: &str, kind: &str, now: Time) {
        if let Some(grant) = self.by_id.get_mut(id).filter(|grant| grant.alive) {
            grant.alive = false;
            grant.log(kind, None, now);
        }
    }

    /// Ends the grant whose token of either kind this is; of access tokens and refresh tokens those that are good.
    pub(super) fn revoke(&mut self, token: &str, now: Time) {
        let found = ["demo-rt.", "demo-at."].into_iter().find_map(|prefix| {
            let (id, grant) = grant_of(&mut self.by_id, prefix, token)?;
            (grant.refresh == token || grant.access == token).then(|| id.to_owned())
        });
        if let Some(id) = found {
            self.end(&id, "revoked", now);
        }
    }

    pub(super) fn history(&self, id: &str) -> Option<Value> {
        let grant = self.by_id.get(id)?;
        Some(json!({
            "alive": grant.alive,
            "refreshes": grant.refreshes,
            "replays": grant.replays,
            "events": grant.events,
        }))
    }
}

/// The grant named in a token.
fn grant_of<'a>(
    grants: &'a mut BTreeMap<String, Grant>,
    prefix: &str,
    token: &'a str,
) -> Option<(&'a str, &'a mut Grant)> {
    let (id, _) = token.strip_prefix(prefix)?.split_once('.')?;
    Some((id, grants.get_mut(id)?))
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    const LIFE: Duration = Duration::from_secs(60);

    fn at(seconds: i64) -> Time {
        Time::from_seconds(seconds)
    }

    fn fresh(n: u32) -> [String; 2] {
        [format!("a{n}"), format!("r{n}")]
    }

    fn grants(grace: Option<Duration>) -> (Grants, Tokens) {
        let mut grants = Grants::new(Limits { grants: 2, grace });
        let tokens = grants.mint("g".to_owned(), LIFE, Duration::ZERO, fresh(0), at(0));
        (grants, tokens)
    }

    fn granted(redeemed: Redeemed) -> Tokens {
        match redeemed {
            Redeemed::Granted { tokens, .. } => tokens,
            Redeemed::Refused { why, .. } => panic!("refused: {why}"),
        }
    }

    #[test]
    fn a_replay_kills_the_grant_with_all_its_tokens() {
        let (mut grants, first) = grants(None);
        let second = granted(grants.redeem(&first.refresh, Some("one".to_owned()), fresh(1), at(1)));
        assert_eq!(
            grants.owner(&first.access, at(1)),
            None,
            "a rotation ends the older access token"
        );
        assert_eq!(grants.owner(&second.access, at(1)), Some("g".to_owned()));

        let replay = grants.redeem(&first.refresh, Some("two".to_owned()), fresh(2), at(2));
        assert!(matches!(replay, Redeemed::Refused { .. }));
        assert_eq!(grants.owner(&second.access, at(2)), None);
        let after = grants.redeem(&second.refresh, None, fresh(3), at(3));
        assert!(matches!(after, Redeemed::Refused { .. }));

        let history = grants.history("g").unwrap();
        assert_eq!(history["alive"], false);
        assert_eq!(
            (&history["refreshes"], &history["replays"]),
            (&json!(1), &json!(1))
        );
        let events: Vec<_> = history["events"]
            .as_array()
            .unwrap()
            .iter()
            .map(|e| (e["kind"].as_str().unwrap(), e["caller"].as_str().unwrap()))
            .collect();
        assert_eq!(
            events,
            [("refreshed", "one"), ("replayed", "two"), ("killed", "two")]
        );
    }

    #[test]
    fn the_grace_window_repeats_the_answer_once_used_last_only() {
        let (mut grants, first) = grants(Some(Duration::from_secs(10)));
        let second = granted(grants.redeem(&first.refresh, None, fresh(1), at(1)));
        let again = granted(grants.redeem(&first.refresh, None, fresh(2), at(1)));
        assert_eq!(again, second);
        granted(grants.redeem(&second.refresh, None, fresh(3), at(2)));
        let too_old = grants.redeem(&first.refresh, None, fresh(4), at(3));
        assert!(
            matches!(too_old, Redeemed::Refused { .. }),
            "only the token used last is forgiven"
        );
        assert_eq!(grants.history("g").unwrap()["alive"], false);
    }

    #[test]
    fn the_grace_window_ends() {
        let (mut grants, first) = grants(Some(Duration::from_secs(10)));
        granted(grants.redeem(&first.refresh, None, fresh(1), at(0)));
        let late = grants.redeem(&first.refresh, None, fresh(2), at(11));
        assert!(matches!(late, Redeemed::Refused { .. }));
    }

    #[test]
    fn a_guess_neither_works_nor_kills() {
        let (mut grants, first) = grants(None);
        for guess in ["", "demo-rt.g.guess", "demo-rt.other.r0", first.access.as_str()] {
            let redeemed = grants.redeem(guess, None, fresh(1), at(1));
            assert!(matches!(redeemed, Redeemed::Refused { .. }), "{guess}");
        }
        granted(grants.redeem(&first.refresh, None, fresh(2), at(1)));
    }

    #[test]
    fn a_revoked_token_takes_its_grant_with_it() {
        for of in [
            |tokens: &Tokens| tokens.access.clone(),
            |tokens: &Tokens| tokens.refresh.clone(),
        ] {
            let (mut grants, first) = grants(None);
            grants.revoke("demo-rt.g.guess", at(1));
            assert!(grants.owner(&first.access, at(1)).is_some());
            grants.revoke(&of(&first), at(1));
            assert_eq!(grants.owner(&first.access, at(1)), None);
            let after = grants.redeem(&first.refresh, None, fresh(1), at(1));
            assert!(matches!(after, Redeemed::Refused { .. }));
        }
    }

    #[test]
    fn access_tokens_end_and_the_oldest_grant_is_dropped() {
        let (mut grants, first) = grants(None);
        assert!(grants.owner(&first.access, at(59)).is_some());
        assert_eq!(grants.owner(&first.access, at(60)), None);
        for id in ["h", "i"] {
            grants.mint(id.to_owned(), LIFE, Duration::ZERO, fresh(1), at(1));
        }
        assert_eq!(grants.history("g"), None);
        assert!(grants.history("i").is_some());
    }

    #[test]
    fn history_and_memory_of_used_tokens_are_bounded() {
        let (mut grants, first) = grants(None);
        let mut tokens = first.clone();
        for n in 0..u32::try_from(MAX_USED).unwrap() + 1 {
            tokens = granted(grants.redeem(&tokens.refresh, None, fresh(n + 1), at(1)));
        }
        let forgotten = grants.redeem(&first.refresh, None, fresh(0), at(1));
        assert!(matches!(forgotten, Redeemed::Refused { .. }));
        let history = grants.history("g").unwrap();
        assert_eq!(history["alive"], true);
        assert_eq!(history["events"].as_array().unwrap().len(), MAX_EVENTS);
    }
}
