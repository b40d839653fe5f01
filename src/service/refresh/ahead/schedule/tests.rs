//! The schedule on a clock set by hand: what begins when, what falls out, and the herd.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::sync::Arc;

use super::*;
use crate::clock::{Clock, ManualClock};
use crate::domain::id::Id;
use crate::domain::mode::CredentialKind;
use crate::domain::owner::Owner;
use crate::domain::pace::ahead::{due, spread};
use crate::domain::pace::breaker::{Heard, TRIP};
use crate::domain::rotation::Rotation;
use crate::service::refresh::breaker::{Said, Whose};

const fn seconds(count: u64) -> Duration {
    Duration::from_secs(count)
}

const fn minutes(count: u64) -> Duration {
    seconds(count * 60)
}

const START: Time = Time::from_seconds(1_800_000_000);

fn id(number: u64) -> CredentialId {
    let mut bytes = [0; 16];
    bytes[8..].copy_from_slice(&number.to_be_bytes());
    Id::from_bytes(bytes)
}

/// A grant of `connector`, in its first generation.
fn credential(number: u64, connector: &str) -> Credential {
    Credential {
        id: id(number),
        org: Id::from_bytes([1; 16]),
        owner: Owner::Org,
        provider: "demo".to_owned(),
        kind: CredentialKind::OAuthGrant,
        connector: connector.to_owned(),
        rotation: Rotation::new(),
        expires: None,
        created: START,
        refreshed: START,
        hint: String::new(),
        scopes: Vec::new(),
        token_type: "Bearer".to_owned(),
        account: Vec::new(),
        executor: None,
        region: None,
    }
}

fn generation(credential: &Credential, generation: u64) -> Credential {
    let mut newer = credential.clone();
    newer.rotation.generation = generation;
    newer
}

struct Scene {
    schedule: Schedule,
    places: Places,
    breakers: Arc<Breakers>,
    clock: Arc<ManualClock>,
    in_use: Duration,
}

impl Scene {
    fn new(all: usize, each: usize) -> Self {
        let clock = Arc::new(ManualClock::at(START));
        let jitter: crate::service::Jitter = Arc::new(|| 0.5);
        Self {
            schedule: Schedule::new(),
            places: Places::new(all, each, Arc::default()),
            breakers: Breakers::new(Arc::clone(&clock) as _, jitter, Arc::default()),
            clock,
            in_use: minutes(60),
        }
    }

    fn used(&self, credential: &Credential, due: Time) {
        self.schedule
            .used(credential, self.clock.monotonic(), || Some(due));
    }

    /// What begins now.
    fn turn(&self) -> Vec<(Item, Place)> {
        let moment = Moment {
            now: self.clock.wall(),
            monotonic: self.clock.monotonic(),
            in_use: self.in_use,
        };
        let mut begun = Vec::new();
        self.schedule
            .turn(&self.places, &self.breakers, moment, |item, place| {
                begun.push((item, place));
            });
        begun
    }

    /// As [`Scene::turn`], where all end at once.
    fn ids(&self) -> Vec<CredentialId> {
        self.turn().into_iter().map(|(item, _)| item.id).collect()
    }
}

#[test]
fn what_is_due_and_in_use_begins_and_nothing_else() {
    let scene = Scene::new(64, 64);
    let (early, late, idle) = (
        credential(1, "demo"),
        credential(2, "demo"),
        credential(3, "demo"),
    );
    scene.used(&early, START + minutes(30));
    scene.used(&late, START + minutes(90));
    scene.used(&idle, START + minutes(80));
    assert!(scene.ids().is_empty());
    scene.clock.advance(minutes(30));
    assert_eq!(scene.ids(), [early.id]);
    assert!(scene.ids().is_empty(), "once");
    scene.clock.advance(minutes(40));
    // The same generation once more: it is used, and due when it was.
    scene.used(&late, START + minutes(10_000));
    scene.clock.advance(minutes(20));
    assert_eq!(scene.ids(), [late.id], "not the one that nobody used for an hour");
    assert_eq!(scene.schedule.len(), 0);
}

#[test]
fn a_newer_generation_is_due_at_its_own_time() {
    let scene = Scene::new(64, 64);
    let first = credential(1, "demo");
    scene.used(&first, START + minutes(10));
    scene.used(&generation(&first, 2), START + minutes(30));
    // An answer that was slow on its way.
    scene.used(&first, START + minutes(5));
    scene.clock.advance(minutes(20));
    assert!(scene.ids().is_empty());
    scene.clock.advance(minutes(10));
    let (item, _place) = scene.turn().pop().unwrap();
    // While it was under way a caller got the third, and then it is told that the second could not be renewed.
    scene.used(&generation(&first, 3), START + minutes(90));
    scene.schedule.later(&item, START + minutes(31));
    scene.clock.advance(minutes(30));
    assert!(scene.ids().is_empty());
}

#[test]
fn what_could_not_be_renewed_is_tried_later_as_long_as_it_is_in_use() {
    let scene = Scene::new(64, 64);
    let only = credential(1, "demo");
    scene.used(&only, START + minutes(30));
    scene.clock.advance(minutes(30));
    for _ in 0..3 {
        let (item, _place) = scene.turn().pop().unwrap();
        scene.schedule.later(&item, scene.clock.wall() + minutes(10));
        assert!(scene.ids().is_empty());
        scene.clock.advance(minutes(10));
    }
    let (item, _place) = scene.turn().pop().unwrap();
    scene.schedule.later(&item, scene.clock.wall() + minutes(10));
    scene.clock.advance(minutes(10));
    assert!(scene.ids().is_empty(), "it was handed out more than an hour ago");
}

#[test]
fn no_connector_holds_up_another_nor_takes_what_callers_may_need() {
    let scene = Scene::new(16, 8);
    for number in 0..100 {
        scene.used(&credential(number, "slow"), START + seconds(1));
    }
    scene.used(&credential(200, "quick"), START + seconds(2));
    scene.clock.advance(seconds(2));
    let begun = scene.turn();
    assert_eq!(begun.len(), 4 + 1, "half of the places of one, and the other's");
    assert!(scene.turn().is_empty());
    drop(begun);
    assert_eq!(scene.turn().len(), 4);
}

#[test]
fn a_provider_that_is_left_alone_is_left_alone_and_tried_by_one() {
    let scene = Scene::new(64, 64);
    let connector: Name = "demo".parse().unwrap();
    for number in 0..100 {
        scene.used(&credential(number, "demo"), START + seconds(1));
    }
    for number in 0..TRIP as u64 {
        let whose = Whose {
            org: Id::from_bytes([1; 16]),
            credential: id(number),
        };
        let pass = scene.breakers.admit(&connector, whose).ok().unwrap();
        pass.tell(Heard::Failed { retry_after: None }, "down", Said::Broker);
    }
    scene.clock.advance(seconds(1));
    assert!(scene.turn().is_empty());
    scene.clock.advance(minutes(5));
    assert_eq!(scene.turn().len(), 1);
}

#[test]
fn the_schedule_is_bounded() {
    let scene = Scene::new(64, 64);
    for number in 0..MOST as u64 + 1_000 {
        scene.used(&credential(number, "demo"), START + seconds(1));
    }
    assert_eq!(scene.schedule.len(), MOST);
    scene.schedule.clear();
    scene.clock.advance(seconds(1));
    assert!(scene.turn().is_empty());
}

#[test]
fn what_nobody_uses_any_more_keeps_nothing_out() {
    let scene = Scene::new(64, 64);
    // None of them is due for a long time yet.
    for number in 0..MOST as u64 {
        scene.used(&credential(number, "demo"), START + minutes(10_000));
    }
    scene.clock.advance(minutes(30));
    scene.used(&credential(7, "demo"), START + minutes(10_000));
    assert!(scene.ids().is_empty());
    assert_eq!(scene.schedule.len(), MOST, "all are in use");
    scene.clock.advance(minutes(31));
    assert!(scene.ids().is_empty());
    assert_eq!(scene.schedule.len(), 1, "the one that was used since");
    let late = credential(MOST as u64, "demo");
    scene.used(&late, START + minutes(62));
    scene.clock.advance(minutes(1));
    assert_eq!(scene.ids(), [late.id]);
}

/// The herd: so many tokens of one provider, issued together, and all in use.
struct Herd {
    size: u64,
    life: Duration,
    lead: Duration,
    window: Duration,
    /// How long one exchange takes.
    exchange: Duration,
}

#[derive(Debug)]
struct Seen {
    most_due_in_a_second: u64,
    most_begun_in_a_second: u64,
    most_under_way: usize,
    /// From the first to the last exchange.
    spread_over: Duration,
    renewed: u64,
    after_callers_noticed: u64,
    after_expiry: u64,
}

/// How finely time is simulated.
const STEP: Duration = Duration::from_millis(100);

impl Herd {
    /// Runs the schedule in simulated time, each with the due time that `due` says, until all are renewed.
    fn run(&self, due: impl Fn(&Credential) -> Time) -> Seen {
        let scene = Scene {
            in_use: self.life * 2,
            ..Scene::new(256, 64)
        };
        let expires = START + self.life;
        let mut per_second = std::collections::HashMap::new();
        let (mut first, mut last) = (expires + self.life, START);
        for number in 0..self.size {
            let credential = credential(number, "demo");
            let due = due(&credential);
            *per_second.entry(due.seconds()).or_insert(0_u64) += 1;
            scene.used(&credential, due);
            first = first.min(due);
        }
        let mut seen = Seen {
            most_due_in_a_second: per_second.values().copied().max().unwrap(),
            most_begun_in_a_second: 0,
            most_under_way: 0,
            spread_over: Duration::ZERO,
            renewed: 0,
            after_callers_noticed: 0,
            after_expiry: 0,
        };
        scene.clock.advance(first.since(START));
        let (mut under_way, mut begun) = (Vec::new(), std::collections::HashMap::new());
        let mut ends = BinaryHeap::new();
        while seen.renewed < self.size {
            let now = scene.clock.wall();
            while ends.peek().is_some_and(|Reverse(end)| *end <= now) {
                ends.pop();
                // All take the same time: the first to begin is the first to end.
                let (_, place): (Item, Place) = under_way.remove(0);
                drop(place);
                seen.renewed += 1;
                seen.after_callers_noticed += u64::from(now > START + (self.life - self.lead));
                seen.after_expiry += u64::from(now >= expires);
                last = now;
            }
            for (item, place) in scene.turn() {
                *begun.entry(now.seconds()).or_insert(0_u64) += 1;
                ends.push(Reverse(now + self.exchange));
                under_way.push((item, place));
            }
            seen.most_under_way = seen.most_under_way.max(under_way.len());
            scene.clock.advance(STEP);
        }
        seen.most_begun_in_a_second = begun.values().copied().max().unwrap();
        seen.spread_over = last.since(first);
        seen
    }

    fn spread_out(&self) -> Seen {
        let expires = START + self.life;
        self.run(|credential| {
            let spread = spread(credential.id, credential.rotation.generation);
            due(START, expires, self.lead, self.window, spread).unwrap()
        })
    }

    /// All when callers would notice.
    fn naive(&self) -> Seen {
        self.run(|_| START + (self.life - self.lead))
    }
}

/// 100 000 tokens with one expiry, in simulated time, through the real schedule and the real places: no burst, never
/// more under way than half of a connector's places, each renewed before anybody would have to wait. All at the
/// lead, the same places do not suffice: most tokens expire first.
// req: B5 N1
#[test]
fn a_herd_of_one_expiry_is_spread_out() {
    let herd = Herd {
        size: 100_000,
        life: minutes(8 * 60),
        lead: minutes(5),
        window: minutes(30),
        exchange: Duration::from_millis(300),
    };
    let spread_out = herd.spread_out();
    println!("{} tokens of 8 h, spread out: {spread_out:?}", herd.size);
    assert_eq!(spread_out.renewed, herd.size);
    assert_eq!(
        (spread_out.after_expiry, spread_out.after_callers_noticed),
        (0, 0)
    );
    assert!(
        spread_out.most_begun_in_a_second <= 120,
        "twice what an even rate would be"
    );
    assert!(spread_out.most_under_way <= 32);
    assert!(spread_out.spread_over >= minutes(26));

    let naive = herd.naive();
    println!("{} tokens of 8 h, all at the lead: {naive:?}", herd.size);
    assert_eq!(naive.most_due_in_a_second, herd.size);
    assert!(naive.after_expiry > herd.size / 2);

    // Tokens of an hour leave less room: here the places set the pace, and the lead is what absorbs it.
    let short = Herd {
        life: minutes(60),
        ..herd
    };
    let spread_out = short.spread_out();
    println!("{} tokens of 1 h, spread out: {spread_out:?}", short.size);
    assert_eq!((spread_out.renewed, spread_out.after_expiry), (short.size, 0));
    assert!(spread_out.most_under_way <= 32);
}
