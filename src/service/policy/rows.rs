//! How the policy lies in the store, and the rows that a change writes.
//!
//! A scope's cells are put on pages in their canonical order, as many on each as fit. How they are put is for
//! good, like the numbers of fields: what changes is told from the cells before and after, without reading.
//! Of a scope that changes, only the pages that differ are written. The row with the version is in every commit,
//! guarded by what was read, so that no two changes are ever made from one version, and no page needs a guard
//! of its own.

use crate::domain::amendment::Diff;
use crate::domain::matrix::{Cell, Matrix};
use crate::domain::policy::Policy;
use crate::domain::reason::Reason;
use crate::domain::refusal::Refusal;
use crate::domain::role::Scope;
use crate::store::keys::{self, Key};
use crate::store::model::{PolicyPage, PolicyPins};
use crate::store::record::{Changes, Record, encode};

/// How many rows one change writes at most; what else is in its commit has room beside them.
const MAX_ROWS: usize = 100;
/// How many bytes they come to at most, before sealing.
const MAX_BYTES: usize = 100 * 1024;
/// How many bytes of cells are on one page at most. For good.
const PAGE: usize = 3_600;
/// What a cell takes beside its texts, rounded up. For good.
const CELL: usize = 16;
/// How many bytes of cells one scope has at most, so that one change can write it whole.
const MAX_SCOPE: usize = 92 * 1024;

/// What a cell counts for.
fn size(cell: &Cell) -> usize {
    CELL + cell.provider.as_ref().map_or(0, String::len) + cell.model.as_str().len()
}

/// The pages of a scope.
fn pages(matrix: &Matrix) -> Vec<PolicyPage> {
    let mut pages: Vec<PolicyPage> = Vec::new();
    let mut room = 0;
    for cell in matrix.cells() {
        let size = size(cell);
        if size > room || pages.is_empty() {
            pages.push(PolicyPage { cells: Vec::new() });
            room = PAGE;
        }
        room = room.saturating_sub(size);
        if let Some(page) = pages.last_mut() {
            page.cells.push(cell.clone());
        }
    }
    pages
}

/// More than one change may have, or the policy.
pub(super) fn too_much(message: impl Into<String>) -> Refusal {
    Refusal::new(Reason::PolicyLimit, message)
}

/// Rows on their way into a commit.
#[derive(Default)]
struct Rows {
    changes: Changes,
    count: usize,
    bytes: usize,
}

impl Rows {
    fn put<T: Record>(&mut self, key: &Key, row: &T) -> Result<(), Refusal> {
        self.bytes += encode(key, row)?.len();
        self.add(|changes| changes.put(key, row));
        Ok(())
    }

    fn delete<T: Record>(&mut self, key: &Key) {
        self.add(|changes| changes.delete::<T>(key));
    }

    fn add(&mut self, add: impl FnOnce(Changes) -> Changes) {
        self.count += 1;
        self.changes = add(std::mem::take(&mut self.changes));
    }

    fn scope(&mut self, scope: Scope, before: &Matrix, after: &Matrix) -> Result<(), Refusal> {
        let taken: usize = after.cells().iter().map(size).sum();
        if taken > MAX_SCOPE {
            return Err(too_much(format!(
                "the cells of one scope take {taken} bytes, and may take {MAX_SCOPE}"
            )));
        }
        let (org, project) = match scope {
            Scope::Broker => (None, None),
            Scope::Org(org) => (Some(org), None),
            Scope::Project(org, project) => (Some(org), Some(project)),
        };
        let (old, new) = (pages(before), pages(after));
        for number in 0..old.len().max(new.len()) {
            let at = u8::try_from(number).map_err(|_| too_much("a scope has too many pages"))?;
            let key = keys::policy_page(org, project, at);
            match (old.get(number), new.get(number)) {
                (old, Some(new)) if old != Some(new) => self.put(&key, new)?,
                (Some(_), None) => self.delete::<PolicyPage>(&key),
                _ => {}
            }
        }
        Ok(())
    }
}

/// The rows that lead from one policy to the other.
pub(super) fn changes(before: &Policy, after: &Policy, diff: &Diff) -> Result<Changes, Refusal> {
    let mut rows = Rows::default();
    for change in &diff.scopes {
        let of = |policy: &'_ Policy| match change.scope {
            Scope::Broker => policy.system.clone(),
            Scope::Org(org) => policy.org(org).matrix.clone(),
            Scope::Project(org, project) => policy.org(org).project(project).clone(),
        };
        rows.scope(change.scope, &of(before), &of(after))?;
    }
    let mut pinned: Vec<_> = diff.pins.iter().map(|change| change.org).collect();
    pinned.dedup();
    for org in pinned {
        let (key, pins) = (keys::policy_pins(org), &after.org(org).pins);
        if pins.is_empty() {
            rows.delete::<PolicyPins>(&key);
        } else {
            let pins = pins.iter().map(|(name, mode)| (name.clone(), *mode)).collect();
            rows.put(&key, &PolicyPins { pins })?;
        }
    }
    for change in &diff.profiles {
        match (&change.before, &change.after) {
            (_, Some(profile)) => rows.put(&keys::profile(change.org, &profile.name), &**profile)?,
            (Some(gone), None) => {
                let key = keys::profile(change.org, &gone.name);
                rows.delete::<crate::domain::profile::Profile>(&key);
            }
            (None, None) => {}
        }
    }
    if rows.count > MAX_ROWS || rows.bytes > MAX_BYTES {
        let Rows { count, bytes, .. } = rows;
        return Err(too_much(format!(
            "this changes {count} stored rows of {bytes} bytes together, and one change may have {MAX_ROWS} of \
             {MAX_BYTES}: nothing was changed; apply it in parts"
        )));
    }
    Ok(rows.changes)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::domain::matrix::Verdict;
    use crate::domain::mode::AuthMode;
    use crate::store::MAX_VALUE;

    fn matrix(count: usize, provider: usize, model: usize) -> Matrix {
        let cells = (0..count).map(|number| Cell {
            mode: AuthMode::HostSession,
            provider: Some("p".repeat(provider)),
            model: format!("{number:0>model$}").parse().unwrap(),
            verdict: Verdict::Deny,
        });
        Matrix::new(cells.collect()).unwrap()
    }

    #[test]
    fn a_page_fits_one_value_whatever_is_on_it() {
        // Sealing adds less than this.
        const SEAL: usize = 200;
        for (provider, model) in [(1, 4), (10, 24), (63, 128)] {
            let matrix = matrix(500, provider, model);
            let pages = pages(&matrix);
            let cells: Vec<Cell> = pages.iter().flat_map(|page| page.cells.clone()).collect();
            assert_eq!(cells, matrix.cells(), "nothing is lost, and the order kept");
            for page in &pages {
                let bytes = encode(&keys::policy_pages(), page).unwrap().len();
                assert!(bytes + SEAL < MAX_VALUE, "{bytes}");
            }
        }
    }

    #[test]
    fn two_thousand_cells_of_usual_length_fit_one_scope_and_one_change() {
        let scope = matrix(Matrix::MAX_CELLS, 9, 20);
        let mut rows = Rows::default();
        rows.scope(Scope::Broker, &Matrix::default(), &scope).unwrap();
        assert!(
            rows.count <= MAX_ROWS && rows.bytes <= MAX_BYTES,
            "{}",
            rows.bytes
        );
        let long = matrix(600, 63, 128);
        let refused = Rows::default().scope(Scope::Broker, &Matrix::default(), &long);
        assert_eq!(refused.unwrap_err().reason, Reason::PolicyLimit);
    }

    #[test]
    fn only_pages_that_differ_are_written_and_those_left_over_go() {
        let (long, short) = (matrix(400, 9, 20), matrix(40, 9, 20));
        let count = |before: &Matrix, after: &Matrix| {
            let mut rows = Rows::default();
            rows.scope(Scope::Broker, before, after).unwrap();
            rows.count
        };
        let all = pages(&long).len();
        assert!(all > 3 && count(&long, &long) == 0);
        assert_eq!(count(&long, &short), all, "one shorter, the rest gone");
        let mut cells = long.cells().to_vec();
        cells.last_mut().unwrap().verdict = Verdict::Allow;
        let turned = Matrix::new(cells).unwrap();
        assert!(count(&long, &turned) <= all);
    }
}
