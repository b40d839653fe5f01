//! A scope's cells as they are looked up.
//!
//! Cells of one provider (or of any) become a [`Table`]: one sorted list of names, which holds the exact patterns
//! and those of the form `prefix*`, and a list of the other globs. One binary search finds the exact name, and
//! next to it the longest prefix; each prefix knows the next shorter one. So a look-up touches the handful of
//! entries that match, in the order of precedence, however many there are. Each entry has sets of modes, and a
//! look-up ends as soon as no mode that has cells is left open.

use std::collections::{BTreeMap, HashMap};

use super::{Cell, Pattern, Verdict};
use crate::domain::mode::ModeSet;

/// What one scope says for one provider and model. The two sets are disjoint; a mode in neither is left to the
/// parent scope without a word.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Column {
    /// The modes that are left to the parent scope by an allow.
    pub allowed: ModeSet,
    /// The modes that are taken away.
    pub denied: ModeSet,
}

impl Column {
    /// What it says of one mode.
    pub fn verdict(&self, mode: crate::domain::mode::AuthMode) -> Verdict {
        if self.denied.contains(mode) {
            Verdict::Deny
        } else if self.allowed.contains(mode) {
            Verdict::Allow
        } else {
            Verdict::Inherit
        }
    }
}

/// All tables of a scope.
#[derive(Clone, Debug, Default)]
pub(super) struct Index {
    providers: HashMap<String, Table>,
    any: Table,
}

impl Index {
    pub(super) fn new(cells: &[Cell]) -> Self {
        let mut providers: HashMap<String, Vec<&Cell>> = HashMap::new();
        let mut any = Vec::new();
        for cell in cells {
            match &cell.provider {
                Some(provider) => providers.entry(provider.clone()).or_default().push(cell),
                None => any.push(cell),
            }
        }
        Self {
            providers: providers
                .into_iter()
                .map(|(provider, cells)| (provider, Table::new(&cells)))
                .collect(),
            any: Table::new(&any),
        }
    }

    pub(super) fn column(&self, provider: &str, model: &str) -> Column {
        let own = self.providers.get(provider);
        if model.is_empty() {
            return self.every_model(own);
        }
        let mut tally = Tally::default();
        if let Some(own) = own {
            own.count(model, &mut tally);
        }
        self.any.count(model, &mut tally);
        tally.column
    }

    /// The column of a request that names no model.
    fn every_model(&self, own: Option<&Table>) -> Column {
        let mut tally = Tally::default();
        let mut denied = ModeSet::EMPTY;
        for table in own.into_iter().chain([&self.any]) {
            // What a `*` of the table before has decided is settled for every model.
            denied = denied.union(table.all.deny.difference(tally.decided));
            tally.count(table.whole());
        }
        Column {
            allowed: tally.column.allowed.difference(denied),
            denied,
        }
    }
}

/// The verdicts of cells that are equally specific, by mode. A mode may be in several sets.
#[derive(Clone, Copy, Debug, Default)]
struct Verdicts {
    deny: ModeSet,
    allow: ModeSet,
    inherit: ModeSet,
}

impl Verdicts {
    fn add(&mut self, cell: &Cell) {
        let set = match cell.verdict {
            Verdict::Deny => &mut self.deny,
            Verdict::Allow => &mut self.allow,
            Verdict::Inherit => &mut self.inherit,
        };
        *set = set.with(cell.mode);
    }

    fn merge(&mut self, other: Verdicts) {
        self.deny = self.deny.union(other.deny);
        self.allow = self.allow.union(other.allow);
        self.inherit = self.inherit.union(other.inherit);
    }

    fn modes(self) -> ModeSet {
        self.deny.union(self.allow).union(self.inherit)
    }
}

/// A look-up under way.
#[derive(Default)]
struct Tally {
    column: Column,
    decided: ModeSet,
}

impl Tally {
    /// Counts cells that are less specific than all counted before, and equally specific among themselves.
    fn count(&mut self, verdicts: Verdicts) {
        let denied = verdicts.deny.difference(self.decided);
        let allowed = verdicts.allow.difference(self.decided).difference(denied);
        self.column.denied = self.column.denied.union(denied);
        self.column.allowed = self.column.allowed.union(allowed);
        self.decided = self.decided.union(verdicts.modes());
    }
}

/// The cells of one provider, or those for any.
#[derive(Clone, Debug, Default)]
struct Table {
    /// Sorted by name.
    names: Vec<Name>,
    /// The most literals first.
    globs: Vec<Glob>,
    /// All verdicts there are.
    all: Verdicts,
}

/// A name that is an exact pattern, or the prefix of a pattern `prefix*`, or both.
#[derive(Clone, Debug)]
struct Name {
    text: String,
    exact: Verdicts,
    /// What `text*` says, where there is such a pattern.
    prefix: Option<Verdicts>,
    /// The longest shorter name of the table that is a prefix of this one and has `prefix`.
    shorter: Option<usize>,
}

/// A pattern that is neither exact nor of the form `prefix*`.
#[derive(Clone, Debug)]
struct Glob {
    literals: usize,
    pattern: Pattern,
    verdicts: Verdicts,
}

impl Table {
    fn new(cells: &[&Cell]) -> Self {
        let mut names: BTreeMap<&str, (Verdicts, Option<Verdicts>)> = BTreeMap::new();
        let mut globs: BTreeMap<&Pattern, Verdicts> = BTreeMap::new();
        let mut all = Verdicts::default();
        for cell in cells {
            all.add(cell);
            if cell.model.is_exact() {
                names.entry(cell.model.as_str()).or_default().0.add(cell);
            } else if let Some(prefix) = cell.model.prefix() {
                let (_, verdicts) = names.entry(prefix).or_default();
                verdicts.get_or_insert_default().add(cell);
            } else {
                globs.entry(&cell.model).or_default().add(cell);
            }
        }
        let mut globs: Vec<Glob> = globs
            .into_iter()
            .map(|(pattern, verdicts)| Glob {
                literals: pattern.literals(),
                pattern: pattern.clone(),
                verdicts,
            })
            .collect();
        globs.sort_by_key(|glob| std::cmp::Reverse(glob.literals));
        Self {
            names: chained(names),
            globs,
            all,
        }
    }

    /// What `*` says.
    fn whole(&self) -> Verdicts {
        // The empty prefix sorts before every other name, and no exact pattern is empty.
        let first = self.names.first().filter(|name| name.text.is_empty());
        first.and_then(|name| name.prefix).unwrap_or_default()
    }

    /// Counts the cells that match, in the order of precedence.
    fn count(&self, model: &str, tally: &mut Tally) {
        let after = self.names.partition_point(|name| name.text.as_str() <= model);
        // Every name between the longest prefix and the model begins with that prefix, so it is on the way down
        // from the last of them.
        let mut at = after.checked_sub(1);
        if let Some(name) = self.name(at).filter(|name| name.text == model) {
            tally.count(name.exact);
        }
        let mut globs = self.globs.as_slice();
        while !self.all.modes().is_subset(tally.decided) {
            while let Some(name) = self.name(at)
                && (name.prefix.is_none() || !model.starts_with(&name.text))
            {
                at = name.shorter;
            }
            let prefix = self.name(at);
            let literals = match (prefix, globs.first()) {
                (Some(prefix), Some(glob)) => prefix.text.len().max(glob.literals),
                (Some(prefix), None) => prefix.text.len(),
                (None, Some(glob)) => glob.literals,
                (None, None) => break,
            };
            let mut equals = Verdicts::default();
            if let Some(prefix) = prefix.filter(|prefix| prefix.text.len() == literals) {
                equals.merge(prefix.prefix.unwrap_or_default());
                at = prefix.shorter;
            }
            while let Some((glob, rest)) = globs.split_first()
                && glob.literals == literals
            {
                if glob.pattern.matches(model) {
                    equals.merge(glob.verdicts);
                }
                globs = rest;
            }
            tally.count(equals);
        }
    }

    fn name(&self, at: Option<usize>) -> Option<&Name> {
        self.names.get(at?)
    }
}

/// The names in order, each with its next shorter prefix.
fn chained(names: BTreeMap<&str, (Verdicts, Option<Verdicts>)>) -> Vec<Name> {
    let mut chained: Vec<Name> = Vec::with_capacity(names.len());
    // The prefixes of the name at hand, shortest first.
    let mut open: Vec<usize> = Vec::new();
    for (text, (exact, prefix)) in names {
        while let Some(last) = open.last()
            && !text.starts_with(&chained[*last].text)
        {
            open.pop();
        }
        let shorter = open.last().copied();
        if prefix.is_some() {
            open.push(chained.len());
        }
        chained.push(Name {
            text: text.to_owned(),
            exact,
            prefix,
            shorter,
        });
    }
    chained
}
