//! One cell of a matrix, and the order of cells.

use std::cmp::Reverse;

use super::pattern::Pattern;
use crate::domain::mode::AuthMode;

/// What a cell says.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Verdict {
    /// What the parent scope allows, and nothing is said about it.
    Inherit,
    /// What the parent scope allows, said outright.
    Allow,
    /// Not in this scope, nor in any under it.
    Deny,
}

impl Verdict {
    /// All of them.
    pub const ALL: [Verdict; 3] = [Verdict::Inherit, Verdict::Allow, Verdict::Deny];

    /// The name in policy files and tables.
    pub const fn name(self) -> &'static str {
        match self {
            Verdict::Inherit => "inherit",
            Verdict::Allow => "allow",
            Verdict::Deny => "deny",
        }
    }

    /// The verdict of this name.
    pub fn from_name(name: &str) -> Option<Verdict> {
        Self::ALL.into_iter().find(|verdict| verdict.name() == name)
    }

    /// Its place among the verdicts of equally specific cells: the first counts.
    const fn rank(self) -> u8 {
        match self {
            Verdict::Deny => 0,
            Verdict::Allow => 1,
            Verdict::Inherit => 2,
        }
    }
}

/// What one scope says of a mode, for a provider or any, and for the models that match.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Cell {
    /// The mode.
    pub mode: AuthMode,
    /// The provider's name; none for any provider.
    pub provider: Option<String>,
    /// The models.
    pub model: Pattern,
    /// What is said of them.
    pub verdict: Verdict,
}

impl Cell {
    /// Whether it speaks of this provider.
    pub(super) fn is_for(&self, provider: &str) -> bool {
        self.provider.as_deref().is_none_or(|named| named == provider)
    }

    /// What no two cells of a scope may share.
    pub(super) fn place(&self) -> (AuthMode, Option<&str>, &Pattern) {
        (self.mode, self.provider.as_deref(), &self.model)
    }
}

/// The canonical order of cells. Within a mode, and among the cells that speak of one provider, it is the order
/// of precedence.
#[derive(PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Key<'a> {
    mode: AuthMode,
    any_provider: bool,
    provider: Option<&'a str>,
    glob: bool,
    literals: Reverse<usize>,
    verdict: u8,
    pattern: &'a Pattern,
}

impl<'a> Key<'a> {
    pub(super) fn of(cell: &'a Cell) -> Self {
        Self {
            mode: cell.mode,
            any_provider: cell.provider.is_none(),
            provider: cell.provider.as_deref(),
            glob: !cell.model.is_exact(),
            literals: Reverse(cell.model.literals()),
            verdict: cell.verdict.rank(),
            pattern: &cell.model,
        }
    }
}
