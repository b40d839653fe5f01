//! The rules of policy, on generated hierarchies: what the engine says is what the definition says, and no scope
//! gives what a wider one took. The gate and the walk along its permit keep to it.
//!
//! The main properties are tried on 100 000 hierarchies each, the others on fewer, and on the same ones in every
//! run; `CREDBROKER_SEED` sets others. A failure prints the seed and the smallest hierarchy it was found on.

#![allow(clippy::unwrap_used, clippy::expect_used, missing_docs)]

#[path = "policy_rules/gate.rs"]
mod gate;
#[path = "policy_rules/hierarchy.rs"]
mod hierarchy;
#[path = "policy_rules/naive.rs"]
mod naive;
#[path = "policy_rules/random.rs"]
mod random;

use std::hint::black_box;

use credbroker::clock::{Clock, SystemClock};
use credbroker::domain::matrix::{Cascade, Cell, Column, Level, Matrix, MatrixError, Pattern, Verdict};
use credbroker::domain::mode::AuthMode;
use hierarchy::{CASES, Hierarchy, cell, holds, permits, same_place};
use random::Random;

fn check(holds: bool, fault: impl FnOnce() -> String) -> Result<(), String> {
    if holds { Ok(()) } else { Err(fault()) }
}

// req: E2 E3
#[test]
fn scopes_and_cascades_say_what_the_definition_says() {
    holds(CASES, |hierarchy| {
        let matrices = hierarchy.matrices();
        let [system, org, project] = &matrices;
        let cascade = Cascade::new(system, org, project);
        for (provider, model) in hierarchy.asked() {
            let judged = cascade.judge(provider, model);
            for mode in AuthMode::ORDER {
                let what = || format!("{} {provider} {model:?}: {judged:?}", mode.name());
                let mut removed_by = None;
                for (cells, (level, column)) in hierarchy.scopes.iter().zip(judged.columns) {
                    let expected = naive::verdict(cells, mode, provider, model);
                    check(says(column, mode, expected), || {
                        format!("{expected:?} {}", what())
                    })?;
                    if expected == Verdict::Deny {
                        removed_by = removed_by.or(Some(level));
                    }
                }
                check(judged.removed_by(mode) == removed_by, what)?;
                check(judged.permits().contains(mode) == removed_by.is_none(), what)?;
                check(judged.denied().contains(mode) == removed_by.is_some(), what)?;
            }
            let levels = judged.columns.map(|(level, _)| level);
            check(levels == [Level::System, Level::Org, Level::Project], || {
                format!("{levels:?}")
            })?;
        }
        Ok(())
    });
}

/// Whether the column says so, and not two things at once.
fn says(column: Column, mode: AuthMode, verdict: Verdict) -> bool {
    column.denied.contains(mode) == (verdict == Verdict::Deny)
        && column.allowed.contains(mode) == (verdict == Verdict::Allow)
        && column.verdict(mode) == verdict
}

// req: E2
#[test]
fn a_child_scope_never_widens_its_parent() {
    let nothing = Matrix::default();
    holds(CASES, |hierarchy| {
        let [system, org, project] = &hierarchy.matrices();
        for (provider, model) in hierarchy.asked() {
            let under = |org, project| {
                Cascade::new(system, org, project)
                    .judge(provider, model)
                    .permits()
            };
            let widest = under(&nothing, &nothing);
            let middle = under(org, &nothing);
            let narrowest = under(org, project);
            let narrows = narrowest.is_subset(middle) && middle.is_subset(widest);
            check(narrows, || {
                format!("{provider} {model:?}: {widest:?} {middle:?} {narrowest:?}")
            })?;
        }
        Ok(())
    });
}

// req: E2
#[test]
fn taking_out_a_cell_that_does_not_deny_never_adds_a_mode() {
    holds(CASES / 2, |hierarchy| {
        let before = hierarchy.matrices();
        let mut random = Random::new(hierarchy.seed);
        let mut fewer = hierarchy.clone();
        let cells = &mut fewer.scopes[random.below(3)];
        let Some(at) = cells.iter().position(|cell| cell.verdict != Verdict::Deny) else {
            return Ok(());
        };
        cells.remove(at);
        never_adds(hierarchy, &before, &fewer.matrices())
    });
}

// req: E2
#[test]
fn putting_in_a_deny_never_adds_a_mode() {
    holds(CASES / 2, |hierarchy| {
        let before = hierarchy.matrices();
        let mut random = Random::new(hierarchy.seed);
        let mut deny = cell(&mut random);
        deny.verdict = Verdict::Deny;
        let mut more = hierarchy.clone();
        let cells = &mut more.scopes[random.below(3)];
        cells.retain(|cell| !same_place(cell, &deny));
        cells.push(deny);
        never_adds(hierarchy, &before, &more.matrices())
    });
}

fn never_adds(hierarchy: &Hierarchy, before: &[Matrix; 3], after: &[Matrix; 3]) -> Result<(), String> {
    for (provider, model) in hierarchy.asked() {
        let before = permits(before, provider, model);
        let after = permits(after, provider, model);
        check(after.is_subset(before), || {
            format!("{provider} {model:?}: from {before:?} to {after:?}")
        })?;
    }
    Ok(())
}

// req: E2 E6
#[test]
fn what_is_permitted_without_a_model_is_permitted_with_every_model() {
    holds(CASES / 2, |hierarchy| {
        let matrices = hierarchy.matrices();
        for (provider, model) in hierarchy.asked() {
            let none = permits(&matrices, provider, "");
            let some = permits(&matrices, provider, model);
            check(none.is_subset(some), || {
                format!("{provider} {model:?}: {none:?} {some:?}")
            })?;
        }
        Ok(())
    });
}

// req: E3
#[test]
fn the_cell_that_is_named_as_the_decider_is_one_that_decides() {
    holds(CASES / 5, |hierarchy| {
        for (cells, matrix) in hierarchy.scopes.iter().zip(hierarchy.matrices()) {
            for (provider, model) in hierarchy.asked() {
                let column = matrix.column(provider, model);
                for mode in AuthMode::ORDER {
                    let leading = naive::leading(cells, mode, provider, model);
                    let decider = matrix.decider(mode, provider, model);
                    let what = || {
                        let mode = mode.name();
                        format!("{mode} {provider} {model:?}: {decider:?} of {leading:?}, {column:?}")
                    };
                    let said = decider.map_or(Verdict::Inherit, |cell| cell.verdict);
                    check(said == column.verdict(mode), what)?;
                    // Without a model, cells of narrower patterns that do not deny decide nothing.
                    check(decider.is_some() || model.is_empty() || leading.is_empty(), what)?;
                    check(decider.is_none_or(|cell| leading.contains(&cell)), what)?;
                }
            }
        }
        Ok(())
    });
}

// req: E2
#[test]
fn the_order_in_which_cells_are_given_changes_nothing() {
    holds(CASES / 5, |hierarchy| {
        let mut shuffled = hierarchy.clone();
        let mut random = Random::new(hierarchy.seed);
        for cells in &mut shuffled.scopes {
            random.shuffle(cells);
        }
        for (matrix, other) in hierarchy.matrices().iter().zip(shuffled.matrices()) {
            check(*matrix == other && matrix.cells() == other.cells(), || {
                format!("{:?} and {:?}", matrix.cells(), other.cells())
            })?;
            for (provider, model) in hierarchy.asked() {
                let columns = (matrix.column(provider, model), other.column(provider, model));
                check(columns.0 == columns.1, || {
                    format!("{provider} {model:?}: {columns:?}")
                })?;
            }
        }
        for (cells, matrix) in hierarchy.scopes.iter().zip(hierarchy.matrices()) {
            check(cells.len() == matrix.cells().len(), || {
                "a cell is lost".to_owned()
            })?;
            check(cells.iter().all(|cell| matrix.cells().contains(cell)), || {
                "a cell is changed".to_owned()
            })?;
        }
        Ok(())
    });
}

#[test]
fn no_scope_takes_two_cells_for_one_place() {
    holds(CASES / 5, |hierarchy| {
        let mut random = Random::new(hierarchy.seed);
        let cells = &hierarchy.scopes[random.below(3)];
        if cells.is_empty() {
            return Ok(());
        }
        let mut twin = random.pick(cells).clone();
        twin.verdict = cell(&mut random).verdict;
        let mut cells = cells.clone();
        cells.insert(random.below(cells.len() + 1), twin.clone());
        let refused = Matrix::new(cells);
        let place = (twin.mode, &twin.provider, &twin.model);
        let told = matches!(
            &refused,
            Err(MatrixError::Twice { mode, provider, pattern }) if (*mode, provider, pattern) == place
        );
        check(told, || format!("{place:?}: {refused:?}"))
    });
}

#[test]
fn patterns_match_what_the_definition_matches() {
    let mut random = Random::new(hierarchy::seed());
    let mut matched = 0;
    for case in 0..CASES {
        let mut text = |letters: &[&str], most| -> String {
            let length = random.below(most);
            (0..length).map(|_| *random.pick(letters)).collect()
        };
        let name = text(&["a", "b", "ö", "*"], 9);
        let Ok(pattern) = text(&["a", "b", "*"], 7).parse::<Pattern>() else {
            continue;
        };
        let expected = naive::matches(pattern.as_str(), &name);
        assert_eq!(pattern.matches(&name), expected, "case {case}: {pattern} {name}");
        matched += u32::from(expected);
    }
    assert!(matched > 5_000, "{matched}: too few matches to mean anything");
}

/// The properties above are worth what the hierarchies are worth: the hard cases must be common among them.
#[test]
fn the_hard_cases_are_common() {
    let (mut ties, mut split_ties, mut lifted, mut shadowed, mut covered, mut deciding) = (0, 0, 0, 0, 0, 0);
    let mut seeds = Random::new(hierarchy::seed());
    for _ in 0..2_000 {
        let hierarchy = Hierarchy::generate(seeds.next());
        for cells in &hierarchy.scopes {
            for (provider, model) in hierarchy.asked() {
                for mode in AuthMode::ORDER {
                    let leading = naive::leading(cells, mode, provider, model);
                    let Some(first) = leading.first() else {
                        continue;
                    };
                    let denies = |cell: &Cell| cell.verdict == Verdict::Deny;
                    if model.is_empty() {
                        let own = leading.iter().all(|cell| cell.provider.is_some());
                        let hidden = cells
                            .iter()
                            .any(|cell| cell.mode == mode && cell.provider.is_none());
                        covered += u32::from(own && hidden);
                        continue;
                    }
                    deciding += 1;
                    ties += u32::from(leading.len() > 1);
                    split_ties += u32::from(leading.iter().any(|cell| cell.verdict != first.verdict));
                    let wider = cells.iter().filter(|cell| {
                        let near = cell.provider.as_deref().is_none_or(|named| named == provider);
                        let matched = naive::matches(cell.model.as_str(), model);
                        cell.mode == mode && near && matched && !leading.contains(cell)
                    });
                    let wider_deny = wider.clone().any(denies);
                    lifted += u32::from(wider_deny && !leading.iter().any(|cell| denies(cell)));
                    shadowed += u32::from(wider.count() > 0);
                }
            }
        }
    }
    let counts = [ties, split_ties, lifted, shadowed, covered];
    assert!(deciding > 10_000, "{deciding}");
    assert!(
        counts.iter().all(|count| *count > 100),
        "{counts:?} of {deciding}"
    );
}

/// A look-up among two thousand cells is no walk over them. The bound is far above what it is (about 2) and far below
/// that of a walk (about 50), and the quickest of many rounds counts, so a busy machine does not matter.
#[test]
fn two_thousand_cells_are_not_walked() {
    let quickest = |cells: usize| {
        let cells = (0..cells).map(|at| Cell {
            mode: AuthMode::ORDER[at % 6],
            provider: [None, Some("anthropic".to_owned())][at % 2].clone(),
            model: [
                format!("claude-{}-{}*", at % 5, at / 2),
                format!("gpt-{}-{at}", at % 7),
            ][at % 3 % 2]
                .parse()
                .unwrap(),
            verdict: Verdict::Deny,
        });
        let matrix = Matrix::new(cells.collect()).unwrap();
        let clock = SystemClock::new();
        let round = |_| {
            let started = clock.monotonic();
            for model in ["claude-3-4-preview", "gpt-1-1", "claude-4", "gemini-pro"].repeat(50) {
                black_box(matrix.column("anthropic", black_box(model)));
            }
            clock.monotonic().saturating_sub(started)
        };
        (0..200).map(round).min().unwrap()
    };
    let (few, many) = (quickest(10), quickest(2_000));
    assert!(many < few * 6, "{few:?} for 10 cells, {many:?} for 2 000");
}
