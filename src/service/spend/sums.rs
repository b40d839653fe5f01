//! Sums of spend, by what the caller asks for.

use std::collections::BTreeMap;

use super::events::CostFilterInput;
use crate::domain::actor::Caller;
use crate::domain::cost::{Spend, Spender};
use crate::domain::day::Day;
use crate::domain::id::OrgId;
use crate::domain::refusal::Refusal;
use crate::service::Broker;
use crate::store::MAX_SCAN;
use crate::store::keys::{self, SpendOf};
use crate::store::record::Changes;

/// What sums are by.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Dimension {
    /// The mode.
    Mode,
    /// The provider.
    Provider,
    /// The project.
    Project,
    /// The member.
    Member,
    /// The UTC day.
    Day,
}

impl Dimension {
    fn key(self, of_what: &SpendOf) -> String {
        match self {
            Dimension::Mode => of_what.mode.name().to_owned(),
            Dimension::Provider => of_what.provider.clone(),
            Dimension::Project => of_what.project.map(|id| id.to_string()).unwrap_or_default(),
            Dimension::Member => of_what.member.to_string(),
            Dimension::Day => of_what.day.to_string(),
        }
    }
}

/// What is to be summed up.
#[derive(Clone, Copy, Debug, Default)]
pub struct SpendInput<'a> {
    /// Of what.
    pub filter: CostFilterInput<'a>,
    /// What the sums are by.
    pub by: &'a [Dimension],
    /// The first day; empty for the default.
    pub from: &'a str,
    /// The last day; empty for today.
    pub to: &'a str,
}

/// A sum.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SpendRow {
    /// What it is for.
    pub keys: Vec<String>,
    /// The sum.
    pub spend: Spend,
}

/// The sums.
#[derive(Clone, Debug)]
pub struct SpendSums {
    /// In the order of their keys.
    pub rows: Vec<SpendRow>,
    /// Of all that was looked at.
    pub total: Spend,
    /// Something is missing.
    pub truncated: bool,
    /// The first day.
    pub from: Day,
    /// The last day that was looked at.
    pub to: Day,
}

const DAYS: u32 = 366;
const DEFAULT_DAYS: u32 = 30;
/// How many rows are answered.
const ROWS: usize = 1_000;
/// How many stored sums one call looks at.
const LOOKED_AT: usize = 100_000;
/// For how many days sums are kept: for any year, and a month to look at it.
const KEPT_DAYS: u32 = 400;
/// How many old sums one commit removes, and in how many commits of a run: what is left is for the next run.
const AT_ONCE: usize = 100;
const COMMITS: usize = 100;

impl Broker {
    /// Removes sums that are older than any that is asked for.
    pub(in crate::service) async fn collect_spend(&self, org: OrgId) -> Result<(), Refusal> {
        let kept = keys::spends_of_day(org, Day::of(self.now()).before(KEPT_DAYS));
        for _ in 0..COMMITS {
            let rows = self
                .records
                .scan::<Spend>(keys::spends(org).as_bytes(), None, AT_ONCE)
                .await?;
            let old: Vec<_> = rows.iter().filter(|(key, _)| *key < kept).collect();
            if old.is_empty() {
                break;
            }
            // A sum that grows meanwhile is of a day that is not looked at any more.
            let changes = old.iter().fold(Changes::default(), |changes, (key, _)| {
                changes.delete::<Spend>(key)
            });
            let _applied = self.records.commit(changes).await?;
        }
        Ok(())
    }

    /// Sums up what was spent.
    pub async fn summarize_spend(
        &self,
        caller: &Caller,
        input: SpendInput<'_>,
    ) -> Result<SpendSums, Refusal> {
        let filter = self.cost_filter(caller, input.filter).await?;
        let (from, to) = self.days(input.from, input.to)?;
        if input
            .by
            .iter()
            .enumerate()
            .any(|(at, dimension)| input.by[..at].contains(dimension))
        {
            return Err(Refusal::invalid(
                "group_by",
                "group_by has each dimension at most once",
            ));
        }
        self.catch_up_spend().await?;

        let list = keys::spends(filter.org);
        // Shorter than any key of that day, so before all of them.
        let mut after = keys::spends_of_day(filter.org, from);
        let mut sums = SpendSums {
            rows: Vec::new(),
            total: Spend::default(),
            truncated: false,
            from,
            to,
        };
        let mut groups: BTreeMap<Vec<String>, Spend> = BTreeMap::new();
        let mut left = LOOKED_AT;
        'looking: loop {
            let rows = self
                .records
                .scan::<Spend>(list.as_bytes(), Some(&after), MAX_SCAN.min(left))
                .await?;
            left -= rows.len();
            for (key, row) in &rows {
                let Some(of_what) = keys::spend_of(filter.org, key) else {
                    continue;
                };
                if of_what.day > to {
                    break 'looking;
                }
                if left == 0 {
                    sums.to = of_what.day;
                }
                let keys = input.by.iter().map(|dimension| dimension.key(&of_what)).collect();
                let spender = Spender {
                    org: filter.org,
                    project: of_what.project,
                    member: of_what.member,
                    mode: of_what.mode,
                    provider: of_what.provider,
                };
                if filter.takes(&spender) {
                    sums.total = sums.total.plus(*row.value);
                    let sum = groups.entry(keys).or_default();
                    *sum = sum.plus(*row.value);
                }
            }
            match rows.into_iter().last() {
                Some((key, _)) if left > 0 => after = key,
                Some(_) => {
                    sums.truncated = true;
                    break;
                }
                None => break,
            }
        }
        sums.truncated |= groups.len() > ROWS;
        let rows = groups.into_iter().take(ROWS);
        sums.rows = rows.map(|(keys, spend)| SpendRow { keys, spend }).collect();
        Ok(sums)
    }

    fn days(&self, from: &str, to: &str) -> Result<(Day, Day), Refusal> {
        let day = |field, text: &str| {
            text.parse::<Day>()
                .map_err(|no| Refusal::invalid(field, no.to_string()))
        };
        let to = match to {
            "" => Day::of(self.now()),
            to => day("to_day", to)?,
        };
        let from = match from {
            "" => to.before(DEFAULT_DAYS - 1),
            from => day("from_day", from)?,
        };
        if from > to {
            return Err(Refusal::invalid("from_day", "from_day is not after to_day"));
        }
        if to.0 - from.0 >= DAYS {
            return Err(Refusal::invalid("from_day", "at most 366 days are summed up"));
        }
        Ok((from, to))
    }
}
