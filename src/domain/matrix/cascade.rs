//! The three scopes of a resolution together.

use super::{Column, Matrix};
use crate::domain::mode::{AuthMode, ModeSet};

/// A scope of the matrix, widest first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Level {
    /// The whole platform.
    System,
    /// One org.
    Org,
    /// One project.
    Project,
}

impl Level {
    /// All of them, widest first.
    pub const ALL: [Level; 3] = [Level::System, Level::Org, Level::Project];

    /// The name in explanations, errors and the journal.
    pub const fn name(self) -> &'static str {
        match self {
            Level::System => "system",
            Level::Org => "org",
            Level::Project => "project",
        }
    }
}

/// The matrices that a resolution passes through. A scope without cells is `Matrix::default()`.
#[derive(Clone, Copy, Debug)]
pub struct Cascade<'a> {
    scopes: [&'a Matrix; 3],
}

impl<'a> Cascade<'a> {
    /// The cascade of these scopes.
    pub fn new(system: &'a Matrix, org: &'a Matrix, project: &'a Matrix) -> Self {
        Self {
            scopes: [system, org, project],
        }
    }

    /// What the scopes say for this provider and model; the empty model stands for every model.
    pub fn judge(&self, provider: &str, model: &str) -> Judged {
        let [system, org, project] = self.scopes.map(|scope| scope.column(provider, model));
        Judged {
            columns: [
                (Level::System, system),
                (Level::Org, org),
                (Level::Project, project),
            ],
        }
    }
}

/// What the scopes of a cascade say for one provider and model. A mode is permitted unless some scope denies it;
/// no scope gives back what another took.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Judged {
    /// What each scope says, widest first.
    pub columns: [(Level, Column); 3],
}

impl Judged {
    /// The modes that no scope denies. What the executor can do, and what the profile wants, is not in it.
    pub fn permits(&self) -> ModeSet {
        ModeSet::ALL.difference(self.denied())
    }

    /// What both allow: what either denies is denied.
    #[must_use]
    pub fn and(mut self, other: Judged) -> Judged {
        for ((_, column), (_, also)) in self.columns.iter_mut().zip(other.columns) {
            let denied = column.denied.union(also.denied);
            *column = Column {
                denied,
                allowed: column.allowed.union(also.allowed).difference(denied),
            };
        }
        self
    }

    /// The modes that some scope denies.
    pub fn denied(&self) -> ModeSet {
        self.columns
            .iter()
            .fold(ModeSet::EMPTY, |denied, (_, column)| denied.union(column.denied))
    }

    /// The widest scope that denies the mode; none where it is permitted.
    pub fn removed_by(&self, mode: AuthMode) -> Option<Level> {
        let (level, _) = self
            .columns
            .iter()
            .find(|(_, column)| column.denied.contains(mode))?;
        Some(*level)
    }
}
