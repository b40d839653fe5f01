//! How long a refresh token rests before it is sent again: reckoned here once more, from what the documents say, to
//! check what the broker does.

use credbroker::domain::time::Time;

use crate::report::{Violation, broken};
use crate::truth::Known;
use crate::world::State;

/// The shortest pause after a request that was not processed, and the longest of any kind, in milliseconds.
const LEAST: u64 = 100;
const MOST: u64 = 300_000;
/// The first rest after a lost answer, in milliseconds: where sending again does no harm, and where it may.
const HARMLESS: i64 = 250;
const CAREFUL: i64 = 2_000;

impl State {
    /// Whether a refresh token may be sent that was sent before; `first` is when it was sent first, as the claim says.
    pub fn may_resend(&self, last: usize, first: Option<Time>) -> Result<(), Violation> {
        let sent = &self.sendings[last];
        let refresh = sent.refresh;
        let refuse = |what: &str| broken("never-resent", format!("rt-{refresh} is sent again, {what}"));
        let wall = self.clocks.wall().millis();
        let least = match sent.known {
            Known::UnderWay => return refuse("and is under way"),
            Known::Granted if !sent.staged => return refuse("though its answer had come"),
            Known::Granted if sent.tokens.is_some_and(|tokens| tokens.refresh.is_some()) => {
                return refuse("though a newer one is stored");
            }
            Known::Refused => return refuse("though it was refused"),
            Known::Granted => wall,
            Known::NotProcessed(after) => sent.ended.millis() + after.clamp(LEAST, MOST) as i64,
            Known::Nothing => self.rested(last),
        };
        let mut lost = self.lost(sent.account, refresh);
        if let Some(first) = first
            && lost.any(|earlier| self.sendings[earlier].first != first)
        {
            let message = format!("rt-{refresh} is sent again as if it had been sent first at {first:?}");
            return broken("rested", message);
        }
        // What the broker's clock says of a rest is nothing once it was moved.
        if self.clocks.even_since(sent.ended_at) && wall < least {
            let message = format!(
                "rt-{refresh} is sent again {} ms too early: {:?} is known since {} ms",
                least - wall,
                sent.known,
                wall - sent.ended.millis()
            );
            return broken("rested", message);
        }
        Ok(())
    }

    /// Until when a refresh token rests whose answer was lost. The broker reckons from when it noticed, which may be
    /// any time since the loss: this is the earliest that any such time gives.
    fn rested(&self, last: usize) -> i64 {
        let sent = &self.sendings[last];
        let earlier = self.lost(sent.account, sent.refresh).count().saturating_sub(1);
        let doubled = |rest: i64| rest << earlier.min(16);
        let (asked, most) = (sent.asked as i64, MOST as i64);
        let short = doubled(HARMLESS);
        let patient = short.max(asked).min(most);
        let careful = doubled(CAREFUL).max(asked).min(most);
        let rules = &self.provider.rules;
        let (first, ended) = (sent.first.millis(), sent.ended.millis());
        let over = first + rules.grace.unwrap_or(0) as i64;
        let harmless = |at: i64| !rules.rotates || first <= at && at < over;
        let until = |noticed: i64| {
            let mut rests = [patient, short].into_iter();
            let rest = rests.find(|rest| harmless(noticed + rest));
            noticed + rest.unwrap_or(careful)
        };
        // Between these, it only grows.
        let turns = [
            ended,
            first - patient,
            first - short,
            over - patient,
            over - short,
        ];
        let until = turns.map(|noticed| until(noticed.max(ended)));
        until.into_iter().min().unwrap_or(ended)
    }
}
