//! What happens around the calls: people sign in again, clocks jump, the machine sleeps, the process is killed or
//! restarted; and in the end, when nothing fails any more, how everybody comes to a token that works.

use std::sync::Arc;
use std::time::Duration;

use credbroker::domain::reason::Reason;
use credbroker::service::Broker;
use tokio::task::JoinSet;

use crate::agents::{CALL_LIMIT, Call, Ended, make};
use crate::provider::{End, refresh_text};
use crate::template::{MEMBERS, Template, import};
use crate::world::{Point, State, World};

/// How long it takes at most until everybody has a token that works, in virtual time: the longest pauses of the
/// refresh, the hour for which forced rotations are counted, and as long again as the wall clock was put back, by
/// which that hour is counted.
const SETTLING_LIMIT: u64 = 8 * 3_600_000;

/// What happens at some moment while the agents work.
#[derive(Clone, Copy, Debug)]
enum Upheaval {
    Reconnect,
    ClockMove,
    Kill,
    Restart,
    TakeBack,
}

impl State {
    fn upheavals(&mut self) -> Vec<(Duration, Upheaval)> {
        let weather = self.weather;
        let lasts = (weather.pause * weather.calls).max(200) * 2;
        let mut all = Vec::new();
        for (count, what) in [
            (weather.reconnects, Upheaval::Reconnect),
            (weather.clock_moves, Upheaval::ClockMove),
            (weather.sudden, Upheaval::Kill),
            (weather.restarts, Upheaval::Restart),
        ] {
            for _ in 0..count {
                all.push((Duration::from_millis(self.dice.below(lasts)), what));
            }
        }
        if self.dice.percent(weather.taken_back) {
            all.push((Duration::from_millis(self.dice.below(lasts)), Upheaval::TakeBack));
        }
        all
    }

    fn move_clocks(&mut self) {
        self.tally.clock_moves += 1;
        let by = self.dice.pick(&[1_000, 30_000, 600_000, 7_200_000]);
        match self.dice.below(3) {
            0 => self.clocks.jump(by as i64),
            1 => self.clocks.jump(-(by as i64)),
            _ => self.clocks.suspend(by),
        }
        self.note(|| format!("clocks move, or sleep, by {by} ms"));
    }

    fn happened(&mut self, what: Upheaval) {
        self.note(|| format!("{what:?}"));
        let weather = &mut self.weather;
        let left = match what {
            Upheaval::Reconnect => &mut weather.reconnects,
            Upheaval::ClockMove => &mut weather.clock_moves,
            Upheaval::Kill => &mut weather.sudden,
            Upheaval::Restart => &mut weather.restarts,
            Upheaval::TakeBack => &mut weather.taken_back,
        };
        *left = left.saturating_sub(if matches!(what, Upheaval::TakeBack) {
            100
        } else {
            1
        });
    }
}

/// Lets everything that is to happen in this life of the process happen. Ends when it is dropped.
pub fn begin(template: &'static Template, world: &Arc<World>, broker: &Arc<Broker>) -> JoinSet<()> {
    let mut storms = JoinSet::new();
    for (after, what) in world.with(State::upheavals) {
        let (world, broker) = (Arc::clone(world), Arc::clone(broker));
        storms.spawn(async move {
            tokio::time::sleep(after).await;
            world.alive().await;
            world.with(|state| state.happened(what));
            match what {
                Upheaval::Reconnect => {
                    let account = world.with(|state| state.dice.below(2) as usize);
                    let _whether = reconnect(template, &world, &broker, account).await;
                }
                Upheaval::ClockMove => world.with(State::move_clocks),
                Upheaval::Kill => world.end(|state| state.tally.crash(Point::AnyTime)),
                Upheaval::Restart => {
                    world.with(|state| state.draining = true);
                    drain(&world, &broker).await;
                    world.end(|state| state.tally.restarts += 1);
                }
                Upheaval::TakeBack => world.with(|state| {
                    let grant = state.accounts[0].grant();
                    state.provider.end(grant, End::Owner);
                }),
            }
        });
    }
    storms
}

/// The broker is told to stop, and what it has under way ends.
pub async fn drain(world: &World, broker: &Broker) {
    let drained = tokio::time::timeout(CALL_LIMIT, broker.refresher().drain()).await;
    if drained.is_err() {
        let message = "a stop does not come to its end".to_owned();
        world.violate("nothing-waits-for-ever", message);
    }
    world.alive().await;
}

/// A member signs in again, and the operator takes the new grant over.
async fn reconnect(template: &Template, world: &Arc<World>, broker: &Arc<Broker>, account: usize) -> bool {
    let refresh = world.with(|state| state.provider.sign_in());
    let grant = import(MEMBERS[account], &refresh_text(refresh));
    let imported = broker.import_grant(&template.operator, grant).await;
    world.alive().await;
    world.with(|state| state.note(|| format!("the import ends: {}", imported.is_ok())));
    imported.is_ok()
}

/// Nothing fails any more: every agent comes to a token that works, or to the answer that somebody has to sign in
/// again; and when somebody does, to a token.
pub async fn settle(template: &'static Template, world: &Arc<World>, broker: &Arc<Broker>) {
    all_settle(world, broker).await;
    let dead: Vec<usize> = world.with(|state| {
        let refused = state.agents.iter().filter(|agent| agent.refused);
        let mut dead: Vec<usize> = refused.map(|agent| agent.account).collect();
        dead.dedup();
        if state.weather.heals { dead } else { Vec::new() }
    });
    for account in dead {
        // Somebody else's import may end between: then it is done once more.
        let mut taken_over = false;
        for _ in 0..5 {
            taken_over = taken_over || reconnect(template, world, broker, account).await;
        }
        if !taken_over {
            world.violate("settles", "a new grant is not taken over".to_owned());
        }
        all_settle(world, broker).await;
        let still = world.with(|state| {
            let mut agents = state.agents.iter();
            agents.any(|agent| agent.account == account && agent.refused)
        });
        if still {
            world.violate(
                "settles",
                format!("account {account} was connected anew and is refused"),
            );
        }
    }
}

async fn all_settle(world: &Arc<World>, broker: &Arc<Broker>) {
    let agents = world.with(|state| state.agents.len());
    let settling: Vec<_> = (0..agents)
        .map(|index| {
            let (world, broker) = (Arc::clone(world), Arc::clone(broker));
            tokio::spawn(async move { come_to_rest(&world, &broker, index).await })
        })
        .collect();
    for agent in settling {
        agent.await.unwrap();
    }
}

async fn come_to_rest(world: &Arc<World>, broker: &Arc<Broker>, index: usize) {
    let began = world.with(|state| {
        state.agents[index].refused = false;
        state.now()
    });
    let mut call = Call::Resolve(Duration::ZERO);
    loop {
        let took = world.with(|state| state.now()) - began;
        world.with(|state| state.tally.longest_settling_ms = state.tally.longest_settling_ms.max(took));
        if took > SETTLING_LIMIT {
            world.violate(
                "settles",
                format!("agent {index} has no token that works after {took} ms"),
            );
            world.alive().await;
        }
        call = match make(world, broker, index, call, None).await {
            Ended::Vended => {
                let works = world.with(|state| {
                    let held = state.agents[index].held.clone();
                    let (_, generation, token) = held.unwrap();
                    let now = state.now();
                    if state.provider.accepts(token, now) {
                        Ok(())
                    } else {
                        Err(generation)
                    }
                });
                match works {
                    Ok(()) => return,
                    Err(generation) => Call::Report(generation),
                }
            }
            Ended::Refused(refusal) if refusal.reason == Reason::ReauthRequired => {
                world.with(|state| state.agents[index].refused = true);
                return;
            }
            Ended::Refused(refusal) => {
                let pause = refusal.retry_after.unwrap_or(Duration::from_secs(1));
                tokio::time::sleep(pause).await;
                // A report that was refused is made again: resolving anew would give what is rejected.
                call
            }
            Ended::HungUp => return,
        };
    }
}
