//! One schedule: a seed, what it brings, and how it is run from one crash to the next until all is calm.

use std::sync::Arc;
use std::time::Duration;

use credbroker::service::Planted;
use tokio::runtime::{Builder, Runtime};

use crate::agents::{self, Agent};
use crate::clock::Clocks;
use crate::dice::Dice;
use crate::journal::{self, Pages};
use crate::provider::{Provider, Rules};
use crate::report::{Tally, Violation};
use crate::template::{AGENTS, Forced, MEMBERS, MINIMUM_REMAINING, Template};
use crate::truth::Account;
use crate::upheaval;
use crate::world::{Point, State, World};

/// How long an exchange may take.
pub const EXCHANGE_TIMEOUT: Duration = Duration::from_secs(10);
/// How long before its expiry a token is refreshed.
pub const LEAD: Duration = Duration::from_secs(5);
/// How long it takes at most until a start comes about, in virtual time, with all the queues it meets full.
const START_LIMIT: Duration = Duration::from_secs(120);
/// How often a schedule starts its broker at most.
const STARTS: usize = 40;

/// What a schedule brings.
#[derive(Clone, Copy, Debug)]
pub struct Weather {
    pub rules: Rules,
    pub forced: Forced,
    /// How many records the broker keeps decoded; 0 makes every look a read.
    pub cached: usize,
    /// How many agents of each member there are, how often each calls, and how many report every generation.
    pub agents: [usize; 2],
    pub calls: u64,
    pub hostile: usize,
    /// How long agents wait between calls at most, in milliseconds.
    pub pause: u64,
    /// Percent of calls whose caller hangs up.
    pub hang_up: u64,
    /// Percent of exchanges that something happens to.
    pub trouble: u64,
    /// Percent of the provider's answers that keep the refresh token.
    pub keeps: u64,
    /// How often, in a thousand, a queue fills up.
    pub full: u64,
    pub crashes: u32,
    /// How many crash points pass before a crash, at most.
    pub fuse: u32,
    /// How often an operator takes over a new grant, how often clocks move, how often the process ends at some
    /// moment or is restarted.
    pub reconnects: u64,
    pub clock_moves: u64,
    pub sudden: u64,
    pub restarts: u64,
    /// Percent of schedules in which the owner takes a grant back.
    pub taken_back: u64,
    /// How long the process stays away after it ended, at most, in milliseconds.
    pub downtime: u64,
    /// Whether members sign in again in the end where they have to.
    pub heals: bool,
    pub planted: Option<Planted>,
    /// What becomes of the first exchange, whatever the trouble: lost or not.
    pub first_fate: Option<bool>,
}

impl Weather {
    /// Nothing ever happens.
    pub fn calm() -> Self {
        Self {
            rules: Rules {
                rotates: true,
                survives: false,
                grace: None,
                life: 600_000,
                tells_life: true,
            },
            forced: Forced {
                per_credential: 1000,
                per_agent: 1000,
            },
            cached: 1000,
            agents: [1, 0],
            calls: 1,
            hostile: 0,
            pause: 1_000,
            hang_up: 0,
            trouble: 0,
            keeps: 0,
            full: 0,
            crashes: 0,
            fuse: 0,
            reconnects: 0,
            clock_moves: 0,
            sudden: 0,
            restarts: 0,
            taken_back: 0,
            downtime: 0,
            heals: false,
            planted: None,
            first_fate: None,
        }
    }

    /// Drawn for a schedule.
    pub fn drawn(dice: &mut Dice) -> Self {
        let rotates = dice.percent(85);
        let life = dice.pick(&[30_000, 60_000, 600_000, 3_600_000]);
        // An answer that is given again must not be of tokens that have expired since.
        let grace = dice.pick(&[20_000, 60_000]).min(life / 2);
        let rules = Rules {
            rotates,
            survives: dice.percent(30),
            grace: (rotates && dice.percent(35)).then_some(grace),
            life,
            tells_life: dice.percent(85),
        };
        let first = dice.between(2, 4) as usize;
        let limits = dice.pick(&[2, 6, 1000]);
        Self {
            rules,
            forced: Forced {
                per_credential: limits,
                per_agent: limits * 2,
            },
            cached: dice.pick(&[0, 1000, 1000]),
            agents: [first, dice.below(3) as usize],
            calls: dice.between(2, 4),
            hostile: dice.pick(&[0, 0, 1, 2]),
            pause: dice.pick(&[5, 500, 5_000, 40_000]),
            hang_up: dice.pick(&[0, 10, 30]),
            trouble: dice.pick(&[0, 20, 50, 90]),
            keeps: dice.pick(&[0, 0, 20]),
            full: dice.pick(&[0, 0, 0, 15]),
            crashes: dice.below(4) as u32,
            fuse: dice.pick(&[12, 40, 120]),
            reconnects: dice.pick(&[0, 0, 0, 1, 2]),
            clock_moves: dice.pick(&[0, 0, 0, 1, 3]),
            sudden: dice.pick(&[0, 0, 1]),
            restarts: dice.pick(&[0, 0, 0, 1]),
            taken_back: 5,
            downtime: dice.pick(&[0, 500, 5_000, 100_000]),
            heals: true,
            planted: None,
            first_fate: None,
        }
    }
}

pub fn runtime() -> Runtime {
    Builder::new_current_thread()
        .enable_time()
        .start_paused(true)
        .build()
        .unwrap()
}

/// A state in which nothing has happened yet.
pub fn state(
    seed: u64,
    weather: Weather,
    traced: bool,
    agents: Vec<Agent>,
    accounts: Vec<Account>,
    records: u64,
) -> State {
    let mut provider = Provider::new(weather.rules);
    for _ in MEMBERS {
        provider.sign_in();
    }
    State {
        dice: Dice::new(seed),
        clocks: Clocks::default(),
        pages: Pages {
            before: records,
            kept: Vec::new(),
        },
        provider,
        accounts,
        sendings: Vec::new(),
        agents,
        bell: Arc::default(),
        down: false,
        draining: false,
        calm: false,
        fuse: None,
        crashes_left: weather.crashes,
        store_full_until: 0,
        journal_full_until: 0,
        aim: None,
        trace: traced.then(Vec::new),
        violation: None,
        tally: Tally::default(),
        weather,
    }
}

/// How a schedule ended.
pub struct Ended {
    pub violation: Option<Violation>,
    pub tally: Tally,
    pub trace: Vec<String>,
    /// How many members had to sign in again.
    pub sign_ins: usize,
}

/// Runs the schedule of a seed as it is drawn.
pub fn run(seed: u64, planted: Option<Planted>, traced: bool) -> Ended {
    let mut dice = Dice::new(!seed);
    let weather = Weather {
        planted,
        ..Weather::drawn(&mut dice)
    };
    run_in(seed, weather, None, traced)
}

/// Runs a schedule in this weather, with a crash aimed at a point.
pub fn run_in(seed: u64, weather: Weather, aim: Option<Point>, traced: bool) -> Ended {
    let template = Template::get();
    let mut agents: Vec<Agent> = Vec::new();
    for (member, count) in weather.agents.into_iter().enumerate() {
        let first: usize = AGENTS[..member].iter().sum();
        agents.extend_from_slice(&template.agents[first..first + count.min(AGENTS[member])]);
    }
    for (index, agent) in agents.iter_mut().enumerate() {
        agent.calls_left = weather.calls;
        agent.hostile = index < weather.hostile;
    }
    let accounts = template.credentials.iter().enumerate();
    let accounts = accounts.map(|(index, (org, id))| {
        let mut account = Account::new(*org, *id, index, index);
        account.asked = MINIMUM_REMAINING.as_millis() as u64;
        account
    });
    let mut state = state(
        seed,
        weather,
        traced,
        agents,
        accounts.collect(),
        template.records,
    );
    state.aim = aim;
    state.tally.schedules = 1;
    state.note(|| format!("{weather:?}"));
    let world = World::new(template.disk.clone(), Arc::clone(&template.sealer), state);
    for start in 0..STARTS {
        if live(template, &world, start) {
            break;
        }
        if start + 1 == STARTS {
            world.violate("starts", format!("{STARTS} starts, and no end"));
        }
    }
    world.with(|state| Ended {
        violation: state.violation.take(),
        tally: std::mem::take(&mut state.tally),
        trace: state.trace.take().unwrap_or_default(),
        sign_ins: state.agents.iter().filter(|agent| agent.refused).count(),
    })
}

/// One life of the broker's process; whether it was the last.
fn live(template: &'static Template, world: &Arc<World>, start: usize) -> bool {
    let runtime = runtime();
    let done = runtime.block_on(async {
        world.with(|state| {
            state.clocks.run();
            state.down = false;
            state.draining = false;
            if state.crashes_left > 0 && state.fuse.is_none() {
                state.crashes_left -= 1;
                // After a crash, the next one may come while the broker recovers.
                let most = if start > 0 && state.dice.percent(50) {
                    6
                } else {
                    state.weather.fuse
                };
                state.fuse = Some(state.dice.below(u64::from(most)) as u32);
            }
            state.note(|| format!("START {start}"));
        });
        let life = lead_life(template, world, start);
        let done = tokio::select! {
            biased;
            () = world.bell.notified() => false,
            done = life => done,
        };
        world.with(|state| {
            state.down = true;
            let most = if done { 0 } else { state.weather.downtime };
            let down = state.dice.below(most + 1);
            state.clocks.stop(down);
            state.forget_unstaged();
        });
        done
    });
    drop(runtime);
    done || world.with(|state| state.violation.is_some())
}

/// From the start to the end of a process; `false` where it is to be started again.
async fn lead_life(template: &'static Template, world: &Arc<World>, start: usize) -> bool {
    if start + 8 > STARTS {
        world.with(|state| state.calm = true);
    }
    let (journal, open) = journal::open(world);
    let broker = template.broker(world, journal);
    match tokio::time::timeout(START_LIMIT, broker.recover(open)).await {
        Ok(Ok(())) => {}
        Ok(Err(refusal)) => {
            // As the daemon does: it ends, and is started again.
            world.with(|state| {
                state.note(|| format!("recovery is refused: {refusal}"));
                if state.calm {
                    state.violate("starts", format!("a start is refused: {refusal}"));
                }
            });
            return false;
        }
        Err(_) => {
            world.violate(
                "nothing-waits-for-ever",
                "a start does not come to its end".to_owned(),
            );
            return false;
        }
    }
    let storms = upheaval::begin(template, world, &broker);
    agents::work(world, &broker).await;
    drop(storms);
    if world.with(|state| state.draining) {
        // It was told to stop: the next process goes on.
        upheaval::drain(world, &broker).await;
        world.end(|state| state.tally.restarts += 1);
        return false;
    }
    world.with(|state| {
        state.calm = true;
        state.fuse = None;
        state.note(|| "CALM".to_owned());
        state.deliver_held_back(u64::MAX);
    });
    upheaval::settle(template, world, &broker).await;
    true
}
