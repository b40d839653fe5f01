//! The rules of the matrix a second time, as they are told, for reading and not for speed. Shares nothing with the
//! engine but the types of its input.

use credbroker::domain::matrix::{Cell, Pattern, Verdict};
use credbroker::domain::mode::AuthMode;

/// Whether the name matches, by the definition: a star stands for nothing, or for one character and then what
/// the star still stands for.
pub(crate) fn matches(pattern: &str, name: &str) -> bool {
    let mut rest = pattern.chars();
    let mut left = name.chars();
    match (rest.next(), left.next()) {
        (None, None) => true,
        (Some('*'), next) => {
            matches(rest.as_str(), name) || (next.is_some() && matches(pattern, left.as_str()))
        }
        (Some(one), Some(other)) => one == other && matches(rest.as_str(), left.as_str()),
        (None, Some(_)) | (Some(_), None) => false,
    }
}

fn literals(pattern: &Pattern) -> usize {
    pattern.as_str().replace('*', "").len()
}

fn is_exact(pattern: &Pattern) -> bool {
    !pattern.as_str().contains('*')
}

/// The cells that are left for a verdict once every rule of precedence but the last has had its say. For the
/// empty model: all relevant cells.
pub(crate) fn leading<'a>(cells: &'a [Cell], mode: AuthMode, provider: &str, model: &str) -> Vec<&'a Cell> {
    let of_mode = cells.iter().filter(|cell| cell.mode == mode);
    let (mut own, mut any) = (Vec::new(), Vec::new());
    for cell in of_mode {
        match &cell.provider {
            Some(named) if named == provider => own.push(cell),
            Some(_) => {}
            None => any.push(cell),
        }
    }
    if model.is_empty() {
        if !own.iter().any(|cell| cell.model.as_str() == "*") {
            own.extend(any);
        }
        return own;
    }
    own.retain(|cell| matches(cell.model.as_str(), model));
    any.retain(|cell| matches(cell.model.as_str(), model));
    let mut leading = if own.is_empty() { any } else { own };
    if leading.iter().any(|cell| is_exact(&cell.model)) {
        leading.retain(|cell| is_exact(&cell.model));
    }
    let most = leading.iter().map(|cell| literals(&cell.model)).max();
    leading.retain(|cell| Some(literals(&cell.model)) == most);
    leading
}

/// What one scope says.
pub(crate) fn verdict(cells: &[Cell], mode: AuthMode, provider: &str, model: &str) -> Verdict {
    let mut leading = leading(cells, mode, provider, model);
    let says = |leading: &[&Cell], verdict| leading.iter().any(|cell| cell.verdict == verdict);
    if says(&leading, Verdict::Deny) {
        return Verdict::Deny;
    }
    if model.is_empty() {
        // Nothing denies, so whatever speaks for every model speaks: this provider's `*`, else that of any.
        leading.retain(|cell| cell.model.as_str() == "*");
        let own = leading.iter().find(|cell| cell.provider.is_some());
        let any = leading.iter().find(|cell| cell.provider.is_none());
        return own.or(any).map_or(Verdict::Inherit, |cell| cell.verdict);
    }
    if says(&leading, Verdict::Allow) {
        return Verdict::Allow;
    }
    Verdict::Inherit
}
