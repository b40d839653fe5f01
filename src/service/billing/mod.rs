//! Accounts of orgs: read, changed, credited. Reported usage is beside.
//!
//! Every change of an account is one guarded commit with what makes it safe to repeat, so that an amount counts
//! once whatever crashes.

mod usage;

use std::sync::Arc;

use super::Broker;
use super::effect::Undone;
use super::request::digest;
use crate::domain::actor::Caller;
use crate::domain::billing::{Account, Entitlement, Micros, Subscription};
use crate::domain::day::Day;
use crate::domain::id::OrgId;
use crate::domain::journal::{Action, Record};
use crate::domain::reason::Reason;
use crate::domain::refusal::Refusal;
use crate::store::Revision;
use crate::store::keys::{self, Key};
use crate::store::model::Taken;
use crate::store::record::{Changes, Stored};

pub(super) use usage::USAGE_TAKEN_FOR;
pub use usage::{ReportedUsage, UsageEvent, UsageResult};

/// An account as it stands: stored, or of an org of which nothing was said yet.
#[derive(Clone, Debug)]
pub struct Standing {
    /// The account.
    pub account: Arc<Account>,
    /// What it was read at; `None`: it is not stored.
    pub revision: Option<Revision>,
}

/// What an account is changed to.
#[derive(Clone, Copy, Debug, Default)]
pub struct AccountChange {
    /// The revision the caller read, where it gave one; 0: the account was not stored.
    pub revision: Option<u64>,
    /// The new subscription.
    pub subscription: Option<Subscription>,
    /// The new entitlement.
    pub metered: Option<Entitlement>,
    /// The new quota; `None` within: as for all.
    pub shared_per_day: Option<Option<u32>>,
}

/// Credit to be added.
#[derive(Clone, Copy, Debug)]
pub struct NewCredit<'a> {
    /// How much; below zero: taken away.
    pub amount: Micros,
    /// A UUID that makes it safe to repeat.
    pub request_id: &'a str,
    /// Why.
    pub note: &'a str,
}

/// An account after credit was added.
#[derive(Clone, Debug)]
pub struct Credited {
    /// The account.
    pub standing: Standing,
    /// It had been added before.
    pub duplicate: bool,
}

/// The most credit that one call adds or takes: a billion units.
const MAX_CREDIT: i64 = 1_000_000_000_000_000;
const MAX_NOTE: usize = 256;
/// For how many days it is known what was taken.
const KNOWN_DAYS: u32 = 35;
/// How often a change starts over because somebody else changed the account: who went away amid theirs.
const ATTEMPTS: usize = 8;
/// How many events that were taken long ago one commit forgets: two records each.
const FORGOTTEN: usize = 50;

/// Whose ids they are where no API key gave them: the operators' and the platform's proxies'. An API key's are
/// told apart by its own id, which is never empty.
const PLATFORM: &[u8] = &[];

/// An event that is taken once.
#[derive(Clone, Copy, Debug)]
struct Event {
    hash: [u8; 32],
    content: [u8; 32],
}

impl Event {
    /// `kind` keeps the ids of one sort apart from those of another, and `whose` those of one source from
    /// another's: an id that one reporter took must not keep another's event out.
    fn new(kind: &'static str, whose: &[u8], id: &str, content: &[&[u8]]) -> Self {
        Self {
            hash: digest(&[kind.as_bytes(), whose, id.as_bytes()]),
            content: digest(content),
        }
    }
}

impl Standing {
    /// Only if the account is still the one that was read.
    fn guard(&self, changes: Changes) -> Changes {
        let key = keys::account(self.account.org);
        match self.revision {
            Some(revision) => changes.at(&key, revision),
            None => changes.absent(&key),
        }
    }
}

fn reused(field: &'static str, message: &'static str) -> Refusal {
    Refusal {
        field: Some(field),
        ..Refusal::new(Reason::RequestIdReused, message)
    }
}

impl Broker {
    /// The org's account. Cheap where it is stored: it is read from memory.
    pub(super) async fn account(&self, org: OrgId) -> Result<Standing, Refusal> {
        let stored: Option<Stored<Account>> = self.records.get(&keys::account(org)).await?;
        Ok(match stored {
            Some(Stored { value, revision }) => Standing {
                account: value,
                revision: Some(revision),
            },
            None => Standing {
                account: Arc::new(Account::new(org)),
                revision: None,
            },
        })
    }

    /// The account of an org that the caller names.
    pub async fn get_account(&self, caller: &Caller, org: &str) -> Result<Standing, Refusal> {
        let org = self.org_id(caller, org).await?;
        self.account(org).await
    }

    /// Changes what an org is entitled to.
    pub async fn update_account(
        self: &Arc<Self>,
        caller: &Caller,
        org: &str,
        change: AccountChange,
    ) -> Result<Standing, Refusal> {
        let org = self.org_id(caller, org).await?;
        let _turn = self.turns.take(org).await;
        let standing = self.account(org).await?;
        let read = standing.revision.map_or(0, |revision| revision.0);
        if change.revision.is_some_and(|revision| revision != read) {
            let refusal = Refusal::new(Reason::Conflict, "it was changed since it was read");
            return Err(refusal.with("etag", read.to_string()));
        }
        let mut account = Account::clone(&standing.account);
        let mut record = caller.record(Action::AccountUpdate, Some(org)).about("org", org);
        if let Some(subscription) = change.subscription {
            account.subscription = subscription;
            record = record.about("subscription", subscription.name());
        }
        if let Some(metered) = change.metered {
            account.metered = metered;
            record = record.about("metered", metered.name());
        }
        if let Some(limit) = change.shared_per_day {
            account.shared_per_day = limit;
            record = match limit {
                Some(limit) => record.about("shared_per_day", limit),
                None => record.about("shared_per_day", "default"),
            };
        }
        Ok(self
            .change_account(&standing, account, record, Changes::default())
            .await?)
    }

    /// Adds to an org's credit, once for a request id.
    pub async fn add_credit(
        self: &Arc<Self>,
        caller: &Caller,
        org: &str,
        credit: NewCredit<'_>,
    ) -> Result<Credited, Refusal> {
        let NewCredit {
            amount,
            request_id,
            note,
        } = credit;
        let org = self.org_id(caller, org).await?;
        if !(-MAX_CREDIT..=MAX_CREDIT).contains(&amount.0) || amount == Micros::ZERO {
            return Err(Refusal::invalid(
                "micros",
                "micros is not 0, and at most 10^15 either way",
            ));
        }
        let Ok(id) = uuid::Uuid::try_parse(request_id) else {
            return Err(Refusal::invalid("request_id", "request_id is required: a UUID"));
        };
        if note.chars().count() > MAX_NOTE || note.chars().any(char::is_control) {
            let message = "note is at most 256 characters, none of them control characters";
            return Err(Refusal::invalid("note", message));
        }
        let event = Event::new(
            "credit",
            PLATFORM,
            &id.to_string(),
            &[&amount.0.to_be_bytes(), note.as_bytes()],
        );
        let _turn = self.turns.take(org).await;
        for _ in 0..ATTEMPTS {
            let standing = self.account(org).await?;
            match self.taken(org, event).await? {
                Some(true) => {
                    return Ok(Credited {
                        standing,
                        duplicate: true,
                    });
                }
                Some(false) => {
                    return Err(reused(
                        "request_id",
                        "other credit was added under this request_id",
                    ));
                }
                None => {}
            }
            let balance = standing.account.balance.plus(amount);
            let balance = balance.ok_or_else(|| {
                Refusal::invalid("micros", "the credit would be past what an account can hold")
            })?;
            let account = Account {
                balance,
                ..Account::clone(&standing.account)
            };
            let mut record = caller
                .record(Action::CreditAdd, Some(org))
                .request(request_id)
                .about("org", org)
                .about("micros", amount.0)
                .about("balance", balance.0);
            if !note.is_empty() {
                record = record.about("note", note);
            }
            let changes = self.mark_taken(Changes::default(), org, event);
            match self.change_account(&standing, account, record, changes).await {
                Ok(standing) => {
                    return Ok(Credited {
                        standing,
                        duplicate: false,
                    });
                }
                Err(Undone::Conflict) => {}
                Err(refused) => return Err(refused.into()),
            }
        }
        Err(Undone::Conflict.into())
    }

    /// Stores the account together with `changes`, where it is still the one that was read.
    async fn change_account(
        self: &Arc<Self>,
        standing: &Standing,
        account: Account,
        record: Record,
        changes: Changes,
    ) -> Result<Standing, Undone> {
        let account = Account {
            updated: Some(self.now()),
            ..account
        };
        let changes = standing.guard(changes).put(&keys::account(account.org), &account);
        let done = self.effect(record, changes).await?;
        Ok(Standing {
            account: Arc::new(account),
            revision: Some(done.revision),
        })
    }

    /// Whether the event was taken before; `false` within: another one of the same id was.
    async fn taken(&self, org: OrgId, event: Event) -> Result<Option<bool>, Refusal> {
        let taken = self.records.get::<Taken>(&keys::taken(org, &event.hash)).await?;
        Ok(taken.map(|taken| *taken.value.content == event.content))
    }

    /// Adds to `changes` that the event is taken, which no other commit does. Three operations.
    fn mark_taken(&self, changes: Changes, org: OrgId, event: Event) -> Changes {
        let now = self.now();
        let key = keys::taken(org, &event.hash);
        let taken = Taken {
            content: event.content.into(),
            at: now,
        };
        changes
            .absent(&key)
            .put(&key, &taken)
            .put(&keys::taken_day(org, Day::of(now), &event.hash), &taken)
    }

    /// Forgets what was taken long ago.
    pub(super) async fn collect_taken(&self, org: OrgId) -> Result<(), Refusal> {
        let kept = keys::taken_before(org, Day::of(self.now()).before(KNOWN_DAYS));
        loop {
            let rows = self
                .records
                .scan::<Taken>(keys::taken_days(org).as_bytes(), None, FORGOTTEN)
                .await?;
            let old: Vec<&Key> = rows
                .iter()
                .map(|(key, _)| key)
                .filter(|key| **key < kept)
                .collect();
            if old.is_empty() {
                return Ok(());
            }
            let mut changes = Changes::default();
            for key in old {
                changes = changes.delete::<Taken>(key);
                if let Some(hash) = keys::taken_hash(key) {
                    changes = changes.delete::<Taken>(&keys::taken(org, &hash));
                }
            }
            let _applied = self.records.commit(changes).await?;
        }
    }
}
