//! The rules of precedence one by one, and the worked examples of a cascade.
#![allow(clippy::unwrap_used)]

use super::*;
use crate::domain::mode::ModeSet;

const ANY: Option<&str> = None;
const OWN: Option<&str> = Some("anthropic");

use AuthMode::{Byok, HostSession, Metered, OAuth, Shared};
use Verdict::{Allow, Deny, Inherit};

fn cell(mode: AuthMode, provider: Option<&str>, model: &str, verdict: Verdict) -> Cell {
    Cell {
        mode,
        provider: provider.map(str::to_owned),
        model: model.parse().unwrap(),
        verdict,
    }
}

/// A scope whose cells are all of one mode.
fn byok(cells: &[(Option<&str>, &str, Verdict)]) -> Matrix {
    let cells = cells
        .iter()
        .map(|(provider, model, verdict)| cell(Byok, *provider, model, *verdict));
    Matrix::new(cells.collect()).unwrap()
}

/// What the scope says of that mode, by the column and by the decider.
#[track_caller]
fn says(matrix: &Matrix, model: &str) -> Verdict {
    let verdict = matrix.column("anthropic", model).verdict(Byok);
    let decider = matrix.decider(Byok, "anthropic", model);
    assert_eq!(decider.map_or(Inherit, |cell| cell.verdict), verdict);
    verdict
}

fn set(modes: &[AuthMode]) -> ModeSet {
    modes.iter().copied().collect()
}

fn denies(modes: &[AuthMode]) -> Matrix {
    let cells = modes.iter().map(|mode| cell(*mode, ANY, "*", Deny));
    Matrix::new(cells.collect()).unwrap()
}

#[test]
fn a_cell_that_names_the_provider_comes_before_any_other() {
    let matrix = byok(&[(OWN, "*", Allow), (ANY, "claude-opus-4", Deny)]);
    assert_eq!(says(&matrix, "claude-opus-4"), Allow);
    assert_eq!(matrix.column("bedrock", "claude-opus-4").verdict(Byok), Deny);
    // One that does not match the model takes no part.
    let matrix = byok(&[(OWN, "gpt-*", Allow), (ANY, "claude-*", Deny)]);
    assert_eq!(says(&matrix, "claude-opus-4"), Deny);
}

#[test]
fn an_exact_name_comes_before_a_glob_with_as_many_literals() {
    let matrix = byok(&[
        (ANY, "gpt-5", Allow),
        (ANY, "gpt-5*", Deny),
        (ANY, "*gpt-5", Deny),
    ]);
    assert_eq!(says(&matrix, "gpt-5"), Allow);
    assert_eq!(says(&matrix, "gpt-5-mini"), Deny);
    assert_eq!(says(&matrix, "gpt-"), Inherit);
}

#[test]
fn more_literals_come_first_whatever_the_form_of_the_glob() {
    let matrix = byok(&[
        (ANY, "*", Deny),
        (ANY, "claude-*", Allow),
        (ANY, "*opus-4*", Deny),
        (ANY, "claude-opus-*", Inherit),
        (ANY, "*-mini", Deny),
    ]);
    assert_eq!(says(&matrix, "claude-opus-4"), Inherit);
    assert_eq!(says(&matrix, "claude-xopus-4"), Allow);
    assert_eq!(says(&matrix, "claude-mini"), Allow);
    assert_eq!(says(&matrix, "x-opus-4"), Deny);
    assert_eq!(says(&matrix, "gpt-5-mini"), Deny);
    let matrix = byok(&[(ANY, "claude-*", Deny), (ANY, "*opus-4-1", Allow)]);
    assert_eq!(says(&matrix, "claude-opus-4-1"), Allow);
}

#[test]
fn among_equals_deny_comes_before_allow_and_allow_before_inherit() {
    // Six literals each, and "claude-mini" matches all.
    let equals = ["claude*", "*e-mini", "cl*mini"];
    for rotation in 0..3 {
        let at = |place: usize| equals[(place + rotation) % 3];
        let all = byok(&[(ANY, at(0), Inherit), (ANY, at(1), Allow), (ANY, at(2), Deny)]);
        assert_eq!(says(&all, "claude-mini"), Deny);
        let two = byok(&[(ANY, at(0), Inherit), (ANY, at(1), Allow), (ANY, at(2), Inherit)]);
        assert_eq!(says(&two, "claude-mini"), Allow);
        // An inherit that leads settles the matter as well: the wider deny is lifted.
        let one = byok(&[(ANY, at(0), Inherit), (ANY, "*", Deny)]);
        assert_eq!(says(&one, "claude-mini"), Inherit);
    }
}

#[test]
fn each_mode_is_decided_by_its_own_cells() {
    let cells = vec![
        cell(Byok, ANY, "gpt-5", Deny),
        cell(Metered, ANY, "gpt-*", Deny),
        cell(Metered, ANY, "gpt-5", Allow),
        cell(OAuth, ANY, "*", Deny),
    ];
    let column = Matrix::new(cells).unwrap().column("openai", "gpt-5");
    assert_eq!(column.denied, set(&[Byok, OAuth]));
    assert_eq!(column.allowed, set(&[Metered]));
}

#[test]
fn no_model_is_denied_what_any_model_might_be_denied() {
    assert_eq!(says(&byok(&[(ANY, "gpt-5", Deny)]), ""), Deny);
    assert_eq!(says(&byok(&[(OWN, "gpt-5", Deny), (OWN, "*", Allow)]), ""), Deny);
    // Only a `*` that names the provider stands before all cells for any provider.
    assert_eq!(says(&byok(&[(OWN, "*", Allow), (ANY, "gpt-*", Deny)]), ""), Allow);
    assert_eq!(says(&byok(&[(OWN, "*", Inherit), (ANY, "*", Deny)]), ""), Inherit);
    assert_eq!(
        says(&byok(&[(OWN, "gpt-*", Allow), (ANY, "gpt-*", Deny)]), ""),
        Deny
    );
    assert_eq!(
        says(&byok(&[(Some("bedrock"), "*", Allow), (ANY, "gpt-*", Deny)]), ""),
        Deny
    );
    assert_eq!(says(&byok(&[(Some("bedrock"), "*", Deny)]), ""), Inherit);
    // An allow of some models says nothing of every model.
    assert_eq!(says(&byok(&[(ANY, "gpt-*", Allow)]), ""), Inherit);
    assert_eq!(
        says(&byok(&[(ANY, "*", Allow), (ANY, "gpt-5", Inherit)]), ""),
        Allow
    );
}

#[test]
fn no_model_names_the_first_relevant_deny_as_the_decider() {
    let matrix = byok(&[(ANY, "*", Deny), (ANY, "gpt-5", Deny), (OWN, "claude-*", Allow)]);
    let decider = matrix.decider(Byok, "anthropic", "").unwrap();
    assert_eq!(decider.model.as_str(), "gpt-5");
    assert_eq!(matrix.decider(Metered, "anthropic", ""), None);
}

#[test]
fn a_matrix_refuses_twins_and_too_many_cells() {
    let twins = vec![
        cell(Byok, OWN, "claude-*", Allow),
        // Between the two in the order of precedence.
        cell(Byok, OWN, "*-claude", Allow),
        cell(Byok, OWN, "claude-**", Deny),
    ];
    let refused = Matrix::new(twins).unwrap_err();
    assert_eq!(
        refused.to_string(),
        "there are two cells for byok, anthropic, claude-*; keep one"
    );
    let distinct = |count: usize| {
        (0..count)
            .map(|at| cell(Byok, ANY, &format!("m-{at}"), Deny))
            .collect()
    };
    assert!(Matrix::new(distinct(Matrix::MAX_CELLS)).is_ok());
    assert_eq!(
        Matrix::new(distinct(Matrix::MAX_CELLS + 1)),
        Err(MatrixError::TooMany { given: 2_001 })
    );
    // The same pattern for another mode or provider is no twin.
    let near = vec![
        cell(Byok, OWN, "*", Allow),
        cell(Byok, ANY, "*", Deny),
        cell(Metered, ANY, "*", Deny),
    ];
    assert!(Matrix::new(near).is_ok());
}

#[test]
fn a_project_cannot_give_back_what_its_org_took() {
    let (system, project) = (Matrix::default(), byok(&[(OWN, "claude-opus-4", Allow)]));
    let org = byok(&[(ANY, "*", Deny)]);
    let judged = Cascade::new(&system, &org, &project).judge("anthropic", "claude-opus-4");
    assert!(!judged.permits().contains(Byok));
    assert_eq!(judged.removed_by(Byok), Some(Level::Org));
    assert_eq!(judged.removed_by(Metered), None);
    assert_eq!(judged.columns[2].1.allowed, set(&[Byok]));
}

#[test]
fn an_org_without_shared_and_host_session_and_a_project_without_metered() {
    let (system, org) = (Matrix::default(), denies(&[Shared, HostSession]));
    let project = denies(&[Metered, Shared]);
    let judged = Cascade::new(&system, &org, &project).judge("anthropic", "claude-opus-4");
    assert_eq!(judged.denied(), set(&[Shared, HostSession, Metered]));
    assert_eq!(judged.removed_by(Shared), Some(Level::Org));
    assert_eq!(judged.removed_by(Metered), Some(Level::Project));
    let profile = set(&[Byok, Metered]);
    let left: Vec<_> = profile.intersection(judged.permits()).iter().collect();
    assert_eq!(left, [Byok]);
}
