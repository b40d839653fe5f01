//! The access matrix: which auth modes may be used with which provider and model, scope by scope.
//!
//! A [`Cell`] says of one mode, of one provider or any, and of the models that match a [`Pattern`], whether the
//! mode is allowed, denied or left to the parent. A [`Matrix`] is the cells of one scope. A [`Cascade`] is the
//! three scopes of a resolution, widest first: system, org, project.
//!
//! # Which cell decides
//!
//! In one scope, for one mode, one provider and one model, the cell that decides is found among the cells of
//! that mode that name the provider or name none, and whose pattern matches the model. It is the first of them
//! by these rules, each counting only where those before it leave a tie:
//!
//! 1. A cell that names the provider comes before one for any provider, whatever their patterns.
//! 2. An exact pattern (without `*`) comes before a glob.
//! 3. Of two globs, the one with more literal characters (characters other than `*`) comes first.
//! 4. Deny comes before allow, and allow before inherit.
//!
//! No rule is needed past these for the verdict. Where the cell itself is named ([`Matrix::decider`]), the
//! pattern that sorts first by its bytes stands for its equals. [`Matrix::cells`] are in this very order, so
//! that of the cells of a mode the first that matches decides. Names are compared byte for byte: case counts.
//!
//! # What a verdict means
//!
//! *Deny* takes the mode away. *Allow* and *inherit* both leave what the parent scope allows, and so does the
//! absence of a cell: a scope can only narrow. They differ in what is told ([`Column::allowed`]), and both are
//! useful as the narrower exception to a wider deny of their own scope. What no scope denies is permitted, as
//! far as the matrix is concerned.
//!
//! # No model
//!
//! A request that names no model (the empty string) stands for every model, so it fails closed: it is denied a
//! mode where *any* relevant deny cell of a scope exists, whatever narrower or wider cells say beside it.
//! Relevant are the cells of that mode that name the provider, and those for any provider, unless a cell that
//! names the provider has the pattern `*`: such a cell comes before all of those, for every model. Where nothing
//! relevant denies, the cell with the pattern `*` decides, the one that names the provider first.
//!
//! It follows that a mode that the empty model is permitted is permitted for every model.

mod cascade;
mod cell;
mod compiled;
mod pattern;
#[cfg(test)]
mod tests;

pub use cascade::{Cascade, Judged, Level};
pub use cell::{Cell, Verdict};
pub use compiled::Column;
pub use pattern::{MalformedPattern, Pattern};

use super::mode::AuthMode;
use cell::Key;
use compiled::Index;

/// The cells of one scope, compiled for look-ups. The default has none, and leaves everything to the parent.
///
/// Two are equal if they have the same cells, in whatever order those were given.
#[derive(Clone, Debug, Default)]
pub struct Matrix {
    /// In the order of [`Key`].
    cells: Vec<Cell>,
    /// Made from the cells, and from nothing else.
    index: Index,
}

/// Why cells make no matrix. Whoever wrote the policy is at fault.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum MatrixError {
    /// More than [`Matrix::MAX_CELLS`].
    #[error(
        "{given} cells are too many for one scope, which takes {}; use patterns instead of lists",
        Matrix::MAX_CELLS
    )]
    TooMany {
        /// How many there were.
        given: usize,
    },
    /// Two cells for the same mode, provider and pattern.
    #[error("there are two cells for {}, {}, {pattern}; keep one", mode.name(), provider.as_deref().unwrap_or("any provider"))]
    Twice {
        /// Their mode.
        mode: AuthMode,
        /// Their provider; none for any.
        provider: Option<String>,
        /// Their pattern.
        pattern: Pattern,
    },
}

impl Matrix {
    /// The most cells one scope takes.
    pub const MAX_CELLS: usize = 2_000;

    /// The matrix of these cells, in any order.
    pub fn new(mut cells: Vec<Cell>) -> Result<Matrix, MatrixError> {
        if cells.len() > Self::MAX_CELLS {
            return Err(MatrixError::TooMany { given: cells.len() });
        }
        // By place first: twins may differ in their verdict, which the order of precedence looks at before the
        // text of the pattern, so they need not be neighbours there.
        cells.sort_unstable_by(|a, b| a.place().cmp(&b.place()));
        let twins = cells.windows(2).find(|pair| pair[0].place() == pair[1].place());
        if let Some([twin, _]) = twins {
            return Err(MatrixError::Twice {
                mode: twin.mode,
                provider: twin.provider.clone(),
                pattern: twin.model.clone(),
            });
        }
        cells.sort_unstable_by(|a, b| Key::of(a).cmp(&Key::of(b)));
        let index = Index::new(&cells);
        Ok(Matrix { cells, index })
    }

    /// The cells in their canonical order: by mode, then in the order of precedence that the module describes.
    pub fn cells(&self) -> &[Cell] {
        &self.cells
    }

    /// What this scope says of every mode for this provider and model; the empty model stands for every model.
    ///
    /// Takes time in proportion to the length of the model name and of the list of those globs that are not of
    /// the form `prefix*`, and allocates nothing.
    pub fn column(&self, provider: &str, model: &str) -> Column {
        self.index.column(provider, model)
    }

    /// The cell that decides in [`Matrix::column`], for explanations: `None` where none matches. Where the empty
    /// model is denied, the first of the relevant deny cells stands for all of them.
    ///
    /// Walks the cells: not for the path of a request.
    pub fn decider(&self, mode: AuthMode, provider: &str, model: &str) -> Option<&Cell> {
        let mut near = self
            .cells
            .iter()
            .filter(|cell| cell.mode == mode && cell.is_for(provider));
        if !model.is_empty() {
            return near.find(|cell| cell.model.matches(model));
        }
        // Of the cells that name the provider a `*` is the last, and after it those for any do not count.
        near.find(|cell| cell.verdict == Verdict::Deny || cell.model.is_any())
    }
}

impl PartialEq for Matrix {
    fn eq(&self, other: &Self) -> bool {
        self.cells == other.cells
    }
}

impl Eq for Matrix {}
