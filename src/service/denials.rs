//! Refusals in the journal, so that a flood of them cannot fill the disk.
//!
//! The first few of a kind (who, which action, which reason) in a window are recorded one by one, durable
//! before the answer. Later ones are counted, and when the window closes one record says how many there were
//! and when. Nothing is dropped: recorded and counted add up, but for a crash, which loses the counts of its
//! window. Who is the authenticated actor, the enrollment token whose secret was shown, the agent of the
//! connection's certificate, or for a stranger the network it calls from. Strangers have a table of their own,
//! so that they cannot crowd out the others, and a limit over all of them, since networks are cheap to change.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::{Mutex, PoisonError};

use super::Broker;
use super::effect::append_finish;
use crate::domain::actor::Caller;
use crate::domain::id::OrgId;
use crate::domain::journal::{Action, Outcome, Record};
use crate::domain::reason::{Class, Reason};
use crate::domain::refusal::Refusal;
use crate::domain::time::Time;
use crate::pki::identity::PeerIdentity;
use crate::pki::spiffe::Subject;

/// How many of a kind are recorded one by one in a window.
const EACH: u32 = 10;
/// How many kinds are told apart in a window, those of strangers and the others. Past that, who it was is no
/// longer told.
const STRANGERS: usize = 1_024;
const KNOWN: usize = 8_192;
/// How many refusals of strangers are recorded one by one in a window, over all of them.
const STRANGERS_RECORDED: u32 = 2_048;
/// Who it was where there were too many to tell apart.
const OTHERS: &str = "others";

/// Who was refused: what sort of name it is, as a record's subject has it, and the name.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Who {
    kind: &'static str,
    name: String,
}

const ACTOR: &str = "actor";
const NETWORK: &str = "network";

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Key {
    who: Who,
    action: Action,
    reason: Reason,
}

#[derive(Clone, Debug)]
struct Tally {
    recorded: u32,
    counted: u64,
    /// Of those counted.
    first: Time,
    last: Time,
    /// The org of all of them; `None` once they differ.
    org: Option<OrgId>,
}

struct Table {
    keys: usize,
    /// How many more may be recorded one by one.
    left: u32,
    tallies: HashMap<Key, Tally>,
}

impl Table {
    const fn limits(strangers: bool) -> (usize, u32) {
        if strangers {
            (STRANGERS, STRANGERS_RECORDED)
        } else {
            (KNOWN, u32::MAX)
        }
    }

    fn new(strangers: bool) -> Self {
        let (keys, left) = Self::limits(strangers);
        Self {
            keys,
            left,
            tallies: HashMap::new(),
        }
    }

    /// Whether this one is recorded by itself; otherwise it has been counted. Nothing may be recorded by itself
    /// where there is no `room`.
    fn admit(&mut self, mut key: Key, org: Option<OrgId>, now: Time, room: bool) -> bool {
        let mut each = EACH;
        if self.tallies.len() >= self.keys && !self.tallies.contains_key(&key) {
            key.who.name = OTHERS.to_owned();
            each = 0;
        }
        let tally = self.tallies.entry(key).or_insert(Tally {
            recorded: 0,
            counted: 0,
            first: now,
            last: now,
            org,
        });
        if tally.org != org {
            tally.org = None;
        }
        if room && tally.recorded < each && self.left > 0 {
            tally.recorded += 1;
            self.left -= 1;
            return true;
        }
        if tally.counted == 0 {
            tally.first = now;
        }
        tally.counted += 1;
        tally.last = now;
        false
    }
}

/// The refusals of the window.
pub(super) struct Denials {
    known: Mutex<Table>,
    strangers: Mutex<Table>,
}

impl Default for Denials {
    fn default() -> Self {
        Self {
            known: Mutex::new(Table::new(false)),
            strangers: Mutex::new(Table::new(true)),
        }
    }
}

impl Denials {
    fn admit(&self, key: Key, org: Option<OrgId>, now: Time, room: bool) -> bool {
        let table = match key.who.kind {
            NETWORK => &self.strangers,
            _ => &self.known,
        };
        let mut table = table.lock().unwrap_or_else(PoisonError::into_inner);
        table.admit(key, org, now, room)
    }

    /// Closes the window: a record for each kind of which some were counted.
    fn take(&self) -> Vec<Record> {
        let mut records = Vec::new();
        for (table, strangers) in [(&self.known, false), (&self.strangers, true)] {
            let mut table = table.lock().unwrap_or_else(PoisonError::into_inner);
            let over = std::mem::replace(&mut *table, Table::new(strangers));
            drop(table);
            let counted = over.tallies.into_iter().filter(|(_, tally)| tally.counted > 0);
            records.extend(counted.map(|(key, tally)| summary(key, &tally)));
        }
        records
    }
}

fn summary(key: Key, tally: &Tally) -> Record {
    let Key { who, action, reason } = key;
    let record = match who.kind {
        ACTOR => Record::new(action, who.name, tally.org),
        kind => Record::new(action, ANONYMOUS, tally.org).about(kind, who.name),
    };
    record
        .about("count", tally.counted)
        .about("first", tally.first.millis())
        .about("last", tally.last.millis())
        .outcome(Outcome::Denied(reason))
}

const ANONYMOUS: &str = "anonymous";

/// Who a refusal's record is about.
fn who(record: &Record) -> Who {
    let token = record
        .subject
        .iter()
        .find(|(kind, _)| *kind == "enrollment_token");
    match token {
        Some((kind, name)) if record.actor == ANONYMOUS => Who {
            kind,
            name: name.clone(),
        },
        _ => Who {
            kind: ACTOR,
            name: record.actor.clone(),
        },
    }
}

/// The network of an address: what one caller most often has to itself.
fn network(address: IpAddr) -> String {
    match address.to_canonical() {
        IpAddr::V4(address) => {
            let [a, b, c, _] = address.octets();
            format!("{a}.{b}.{c}.0/24")
        }
        IpAddr::V6(address) => {
            let prefix = address.to_bits() & !u128::from(u64::MAX);
            format!("{}/64", std::net::Ipv6Addr::from_bits(prefix))
        }
    }
}

/// A request that was refused before its caller was let in.
#[derive(Clone, Copy, Debug)]
pub struct RefusedRequest<'a> {
    /// The call's path, as the access table has it.
    pub call: &'static str,
    /// Where it came from.
    pub peer: Option<IpAddr>,
    /// The identity in the connection's certificate.
    pub certificate: Option<&'a PeerIdentity>,
}

impl Broker {
    /// Records a refusal, or counts it, and then returns it. Where it cannot be recorded, says that instead.
    pub(super) async fn denied(&self, record: Record, refusal: Refusal) -> Refusal {
        self.metrics.denial(refusal.reason);
        if let Err(no_room) = self.room_for(record.action) {
            return no_room;
        }
        let who = who(&record);
        self.deny(who, record, refusal, true).await
    }

    /// As for any other refusal, of a request that was not let in. What the broker could not find out is no
    /// refusal.
    pub async fn refuse_request(&self, request: RefusedRequest<'_>, refusal: Refusal) -> Refusal {
        self.metrics.denial(refusal.reason);
        if !matches!(refusal.reason.class(), Class::Unauthenticated | Class::Denied) {
            return refusal;
        }
        let mut record = match &refusal.actor {
            Some(actor) => Record::new(Action::RequestRefuse, actor.to_string(), actor.org()),
            None => {
                let org = request.certificate.map(|certificate| certificate.subject.org());
                Record::new(Action::RequestRefuse, ANONYMOUS, org)
            }
        };
        record = record.about("call", request.call);
        if let Some(peer) = request.peer {
            record = record.about("peer", peer.to_canonical());
        }
        let who = match request.certificate {
            _ if refusal.actor.is_some() => who(&record),
            Some(certificate) => {
                let (kind, name) = match certificate.subject {
                    Subject::Agent(agent) => ("agent", agent.agent.to_string()),
                    Subject::ApiKey(key) => ("api_key", key.api_key.to_string()),
                };
                record = record.about(kind, &name);
                Who { kind, name }
            }
            None => Who {
                kind: NETWORK,
                name: request.peer.map_or_else(|| OTHERS.to_owned(), network),
            },
        };
        // Those who are not let in are told so also where there is no room to write it down.
        let room = self.room_for(Action::RequestRefuse).is_ok();
        self.deny(who, record, refusal, room).await
    }

    /// Records that an authenticated caller was refused what it has no right to, before it is told.
    pub async fn refuse_call(&self, caller: &Caller, call: &'static str, refusal: Refusal) -> Refusal {
        let record = caller
            .record(Action::RequestRefuse, caller.org())
            .about("call", call);
        self.denied(record, refusal).await
    }

    async fn deny(&self, who: Who, record: Record, refusal: Refusal, room: bool) -> Refusal {
        let key = Key {
            who,
            action: record.action,
            reason: refusal.reason,
        };
        if !self.denials.admit(key, record.org, self.now(), room) {
            return refusal;
        }
        let record = record.outcome(Outcome::Denied(refusal.reason));
        match self.journal.append(&record).await {
            Ok(_) => refusal,
            Err(error) => error.into(),
        }
    }

    /// Closes the window: writes down how many refusals there were that were not recorded one by one. Waits
    /// while there is no room on the disk, unless it is the `last` time.
    pub async fn summarize_denials(&self, last: bool) -> Result<(), Refusal> {
        if !last {
            self.room_for(Action::RequestRefuse)?;
        }
        let records = self.denials.take();
        for (written, record) in records.iter().enumerate() {
            if let Err(error) = append_finish(&self.journal, record).await {
                tracing::error!(kinds = records.len() - written, "counts of refusals were lost");
                return Err(error.into());
            }
        }
        Ok(())
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    const NOW: Time = Time::from_millis(1_000);

    fn refused(denials: &Denials, kind: &'static str, name: String, at: Time) -> bool {
        let key = Key {
            who: Who { kind, name },
            action: Action::RequestRefuse,
            reason: Reason::CredentialUnknown,
        };
        denials.admit(key, None, at, true)
    }

    fn count(record: &Record) -> u64 {
        let count = record.subject.iter().find(|(kind, _)| *kind == "count");
        count.unwrap().1.parse().unwrap()
    }

    // req: N6
    #[test]
    fn strangers_from_everywhere_leave_a_bounded_number_of_records() {
        let denials = Denials::default();
        let calls = 50_000_u64;
        let mut recorded = 0;
        for number in 0..calls {
            let from = IpAddr::from((u128::from(number % 5_000) << 64).to_be_bytes());
            recorded += u64::from(refused(&denials, NETWORK, network(from), NOW));
        }
        assert_eq!(recorded, u64::from(STRANGERS_RECORDED));
        // They crowd out nobody who is known.
        assert!(refused(&denials, ACTOR, "agt_1".to_owned(), NOW));
        let summaries = denials.take();
        assert!(summaries.len() <= STRANGERS + 1, "{}", summaries.len());
        assert_eq!(summaries.iter().map(count).sum::<u64>() + recorded, calls);
        let others = summaries.iter().filter(|record| record.subject[0].1 == OTHERS);
        assert_eq!(others.map(count).collect::<Vec<_>>().len(), 1);
        assert!(denials.take().is_empty(), "a new window");
        assert!(refused(&denials, NETWORK, "192.0.2.0/24".to_owned(), NOW));
    }

    #[test]
    fn a_summary_says_when_and_for_whom() {
        let denials = Denials::default();
        for number in 0..13 {
            let at = Time::from_millis(1_000 + number);
            assert_eq!(refused(&denials, ACTOR, "agt_1".to_owned(), at), number < 10);
        }
        let [summary] = &denials.take()[..] else {
            panic!("one kind, one record");
        };
        assert_eq!((summary.actor.as_str(), count(summary)), ("agt_1", 3));
        let subject = |kind| summary.subject.iter().find(|(name, _)| *name == kind).unwrap();
        assert_eq!(
            (subject("first").1.as_str(), subject("last").1.as_str()),
            ("1010", "1012")
        );
    }

    #[test]
    fn a_network_is_what_one_caller_has() {
        for (address, expected) in [
            ("192.0.2.77", "192.0.2.0/24"),
            ("::ffff:192.0.2.77", "192.0.2.0/24"),
            ("2001:db8:1:2:3:4:5:6", "2001:db8:1:2::/64"),
        ] {
            assert_eq!(network(address.parse().unwrap()), expected);
        }
    }
}
