//! What the gate lets pass, refuses, and falls back to.

use super::super::matrix::{Cascade, Cell, Matrix, Pattern, Verdict};
use super::*;

fn denies(modes: &[AuthMode]) -> Matrix {
    let cell = |mode: &AuthMode| Cell {
        mode: *mode,
        provider: None,
        model: Pattern::any(),
        verdict: Verdict::Deny,
    };
    Matrix::new(modes.iter().map(cell).collect()).unwrap()
}

fn offer(supported: &[AuthMode], system: &[AuthMode], org: &[AuthMode]) -> Offer<'static> {
    let none = Matrix::default();
    Offer {
        provider: "p",
        model: String::new(),
        kinds: &[CredentialKind::OAuthGrant, CredentialKind::ApiKey],
        supported: supported.iter().copied().collect(),
        judged: Cascade::new(&denies(system), &denies(org), &none).judge("p", ""),
    }
}

fn input<'a>(main: &'a Offer<'a>, selection: Selection<'a>) -> GateInput<'a> {
    GateInput {
        executor: "e",
        main,
        stand_ins: &[],
        selection,
        on_rejection: OnRejection::Fail,
        system_scope: false,
        policy_version: 1,
    }
}

fn modes(gated: &Gated) -> Vec<AuthMode> {
    let permit = gated.permit.as_ref().unwrap();
    permit.entries()[..permit.ordinary()]
        .iter()
        .map(|entry| entry.mode)
        .collect()
}

use AuthMode::{Byok, Metered, OAuth, Shared};

#[test]
fn the_permit_keeps_the_fixed_order_whatever_the_set_was_built_from() {
    let all = offer(&[Byok, OAuth, Metered], &[], &[]);
    let gated = gate(&input(
        &all,
        Selection::Set([Metered, Byok, OAuth].into_iter().collect()),
    ));
    assert_eq!(modes(&gated), [OAuth, Byok, Metered]);
}

#[test]
fn the_gate_fails_closed() {
    let main = offer(&[OAuth, Byok], &[OAuth], &[Byok]);
    let refused = gate(&input(&main, Selection::Set(ModeSet::ALL)))
        .permit
        .unwrap_err();
    assert_eq!(refused.reason, Reason::AuthmodesUnsatisfiable);
    assert!(
        refused
            .metadata
            .contains(&("denied_by_system", "oauth".to_owned()))
    );
    assert!(refused.metadata.contains(&("denied_by_org", "byok".to_owned())));
    let nothing = offer(&[], &[], &[]);
    let refused = gate(&input(&nothing, Selection::Set(ModeSet::ALL)))
        .permit
        .unwrap_err();
    assert_eq!(refused.reason, Reason::ProviderUnsupported);
}

#[test]
fn a_settled_mode_that_is_denied_is_refused_and_nothing_takes_its_place() {
    let main = offer(&[OAuth, Byok], &[], &[OAuth]);
    let pinned = Selection::Pinned {
        mode: OAuth,
        native: "p",
        native_model: true,
    };
    let running = Selection::Running {
        mode: OAuth,
        provider: "p",
        kind: None,
        modes: ModeSet::ALL,
    };
    for selection in [pinned, running] {
        let refused = gate(&input(&main, selection)).permit.unwrap_err();
        assert_eq!(refused.reason, Reason::AccessDenied);
        assert!(refused.metadata.contains(&("scope", "org".to_owned())));
    }
    let mut system = input(&main, pinned);
    system.system_scope = true;
    assert_eq!(modes(&gate(&system)), [OAuth]);
}

#[test]
fn a_pinned_executor_is_held_to_its_native_models_and_to_what_it_has() {
    let main = offer(&[OAuth, Byok], &[], &[]);
    let reason = |selection| gate(&input(&main, selection)).permit.unwrap_err().reason;
    let elsewhere = Selection::Pinned {
        mode: OAuth,
        native: "q",
        native_model: true,
    };
    let foreign = Selection::Pinned {
        mode: OAuth,
        native: "p",
        native_model: false,
    };
    let lacking = Selection::Pinned {
        mode: Metered,
        native: "p",
        native_model: true,
    };
    assert_eq!(reason(elsewhere), Reason::ModelNotAvailable);
    assert_eq!(reason(foreign), Reason::ModelNotAvailable);
    assert_eq!(reason(lacking), Reason::ModeUnsupported);
}

#[test]
fn a_lapsed_subscription_gives_way_to_metered_only_where_the_matrix_has_it() {
    let lapse = |mode, system: &[AuthMode]| {
        let main = offer(&[OAuth, Byok, Metered, Shared], system, &[]);
        let pinned = Selection::Pinned {
            mode,
            native: "p",
            native_model: true,
        };
        let permit = gate(&input(&main, pinned)).permit.unwrap();
        permit.lapse().map(|at| permit.entries()[at].mode)
    };
    assert_eq!(lapse(Byok, &[]), Some(Metered));
    assert_eq!(lapse(Byok, &[Metered]), None);
    assert_eq!(lapse(OAuth, &[]), None);
}

#[test]
fn only_own_keys_stand_in_and_only_where_a_rejection_goes_on() {
    let main = offer(&[OAuth, Byok, Metered], &[], &[]);
    let aws = Offer {
        provider: "b",
        kinds: &[CredentialKind::Aws, CredentialKind::BedrockBearer],
        ..offer(&[Byok, Metered], &[], &[])
    };
    let stand_ins = [aws];
    let mut input = input(&main, Selection::Set(ModeSet::ALL));
    input.stand_ins = &stand_ins;
    assert_eq!(modes(&gate(&input)), [OAuth, Byok, Metered]);
    input.on_rejection = OnRejection::Next;
    let gated = gate(&input);
    assert_eq!(modes(&gated), [OAuth, Byok, Byok, Byok, Metered]);
    let permit = gated.permit.unwrap();
    let providers: Vec<_> = permit
        .entries()
        .iter()
        .map(|entry| entry.provider.as_str())
        .collect();
    assert_eq!(providers, ["p", "p", "b", "b", "p"]);
}

#[test]
fn a_running_task_whose_way_is_gone_is_refused_and_not_put_on_another() {
    let main = offer(&[OAuth, Byok], &[], &[]);
    let elsewhere = Selection::Running {
        mode: Byok,
        provider: "gone",
        kind: None,
        modes: ModeSet::ALL,
    };
    let refused = gate(&input(&main, elsewhere)).permit.unwrap_err();
    assert_eq!(refused.reason, Reason::ModeUnsupported);
}
