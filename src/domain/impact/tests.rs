//! Tests of the preview: which picks it compares, and what it says of tasks under way.

#![allow(clippy::unwrap_used)]

use std::collections::BTreeMap;

use super::*;
use crate::domain::amendment::{Amendment, OrgAmendment};
use crate::domain::executor::{Executor, Expectation, Provider};
use crate::domain::id::Id;
use crate::domain::key_shape::KeyShapes;
use crate::domain::matrix::{Cell, Matrix, Verdict};
use crate::domain::mode::{CredentialKind, ModeSet};
use crate::domain::pool::Pools;
use crate::domain::profile::{OnRejection, Profile};
use crate::domain::task::Capacity;
use crate::domain::time::Time;

const ALL: Bounds = Bounds {
    picks: 10_000,
    rows: 100,
};

fn registry() -> Registry {
    let modes = [AuthMode::OAuth, AuthMode::Byok, AuthMode::Metered];
    let executor = Executor {
        name: "coder".parse().unwrap(),
        native_provider: "a".to_owned(),
        providers: BTreeMap::from([
            ("a".to_owned(), modes.into_iter().collect()),
            ("b".to_owned(), ModeSet::EMPTY.with(AuthMode::Byok)),
        ]),
    };
    let providers = ["a", "b"].map(|name| Provider {
        name: name.parse().unwrap(),
        title: String::new(),
        kinds: vec![CredentialKind::ApiKey, CredentialKind::OAuthGrant],
        credential: Expectation::Required,
        base_url: None,
        models: Vec::new(),
        model_ids: BTreeMap::new(),
        tests: Vec::new(),
    });
    Registry::new([executor], providers, KeyShapes::default(), Pools::sample())
}

fn org() -> OrgId {
    Id::from_bytes([1; 16])
}

fn project() -> ProjectId {
    Id::from_bytes([2; 16])
}

fn deny(mode: AuthMode, model: &str) -> Matrix {
    let cell = Cell {
        mode,
        provider: Some("a".to_owned()),
        model: model.parse().unwrap(),
        verdict: Verdict::Deny,
    };
    Matrix::new(vec![cell]).unwrap()
}

fn profile(name: &str, modes: &[AuthMode], model: &str) -> (String, Option<Arc<Profile>>) {
    let profile = Profile {
        name: name.parse().unwrap(),
        modes: modes.iter().copied().collect(),
        on_rejection: OnRejection::Fail,
        credential: None,
        models: BTreeMap::from([("a".to_owned(), model.to_owned())]),
    };
    (name.to_owned(), Some(Arc::new(profile)))
}

fn of_org(amendment: OrgAmendment) -> Amendment {
    Amendment {
        orgs: BTreeMap::from([(org(), amendment)]),
        ..Amendment::default()
    }
}

/// With the profiles `own` (oauth, byok), which means the model m-1 at a, and `paid` (metered).
fn base() -> Policy {
    let profiles = [
        profile("own", &[AuthMode::OAuth, AuthMode::Byok], "m-1"),
        profile("paid", &[AuthMode::Metered], "m-2"),
    ];
    let amendment = of_org(OrgAmendment {
        profiles: profiles.into(),
        ..OrgAmendment::default()
    });
    Policy::default().amended(&amendment).0
}

fn rows(before: &Policy, to: Amendment) -> Vec<String> {
    let (after, _) = before.amended(&to);
    let found = mode_changes(before, &after, &registry(), ALL);
    assert_eq!((found.rows.len(), found.at_least), (found.total, false));
    let name = |mode: Option<AuthMode>| mode.map_or("none", AuthMode::name);
    let row = |row: &ModeChange| {
        let place = match (row.org, row.project) {
            (None, _) => "others",
            (_, None) => "org",
            _ => "project",
        };
        let (before, after) = (name(row.before), name(row.after));
        format!("{place} {:?} {} {before}>{after}", row.profile, row.provider)
    };
    found.rows.iter().map(row).collect()
}

#[test]
fn a_denial_moves_exactly_the_picks_that_it_touches() {
    let system = |mode, model| Amendment {
        system: Some(deny(mode, model)),
        ..Amendment::default()
    };
    // Without a profile no model is named, which stands for all of them.
    let touched = rows(&base(), system(AuthMode::OAuth, "m-1"));
    assert_eq!(
        touched,
        [
            "others \"\" a oauth>byok",
            "org \"\" a oauth>byok",
            "org \"own\" a oauth>byok"
        ]
    );
    let other = rows(&base(), system(AuthMode::Metered, "m-2"));
    assert_eq!(other, ["org \"paid\" a metered>none"]);
}

#[test]
fn a_project_counts_by_itself_and_pins_and_profiles_too() {
    let in_project = of_org(OrgAmendment {
        projects: BTreeMap::from([(project(), deny(AuthMode::OAuth, "*"))]),
        ..OrgAmendment::default()
    });
    let told = rows(&base(), in_project);
    assert_eq!(
        told,
        ["project \"\" a oauth>byok", "project \"own\" a oauth>byok"]
    );

    let pinned = of_org(OrgAmendment {
        pins: Some(BTreeMap::from([("coder".to_owned(), AuthMode::OAuth)])),
        ..OrgAmendment::default()
    });
    let told = rows(&base(), pinned);
    assert_eq!(
        told,
        [
            "org \"\" b byok>none",
            "org \"own\" b byok>none",
            "org \"paid\" a metered>oauth"
        ]
    );

    let profiles = of_org(OrgAmendment {
        profiles: BTreeMap::from([
            profile("new", &[AuthMode::Metered], ""),
            profile("own", &[AuthMode::Byok], "m-1"),
            ("paid".to_owned(), None),
        ]),
        ..OrgAmendment::default()
    });
    let told = rows(&base(), profiles);
    assert_eq!(told, ["org \"own\" a oauth>byok", "org \"paid\" a metered>none"]);
}

#[test]
fn what_is_not_looked_at_is_said() {
    let before = base();
    let (after, _) = before.amended(&Amendment {
        system: Some(deny(AuthMode::OAuth, "*")),
        ..Amendment::default()
    });
    let few = Bounds { picks: 2, rows: 100 };
    let found = mode_changes(&before, &after, &registry(), few);
    assert_eq!((found.total, found.at_least), (1, true));
    let short = Bounds { rows: 1, ..ALL };
    let found = mode_changes(&before, &after, &registry(), short);
    assert_eq!((found.rows.len(), found.total, found.at_least), (1, 3, false));
}

/// What policy leaves, said once more without the gate: the first mode of the order that is left.
fn expected(policy: &Policy, profile: &Profile, provider: &str) -> Option<AuthMode> {
    let registry = registry();
    let left = |provider: &str| {
        let judged = policy
            .cascade(org(), project())
            .judge(provider, profile.model(provider));
        registry.modes("coder", provider).intersection(judged.permits())
    };
    if let Some(pinned) = policy.pin(org(), "coder") {
        return (provider == "a" && left("a").contains(pinned)).then_some(pinned);
    }
    let other = if provider == "a" { "b" } else { "a" };
    AuthMode::ORDER.into_iter().find(|mode| {
        let elsewhere = *mode == AuthMode::Byok && profile.on_rejection == OnRejection::Next;
        profile.modes.contains(*mode)
            && (left(provider).contains(*mode) || elsewhere && left(other).contains(*mode))
    })
}

/// Every set of three modes, pinned or not, with every set of denials, at two providers.
// req: A3 E14
#[test]
fn a_pick_is_what_a_resolution_tries_first() {
    let three = [AuthMode::OAuth, AuthMode::Byok, AuthMode::Metered];
    let subset = |bits: usize| {
        (0..3)
            .filter(move |bit| bits & (1 << bit) != 0)
            .map(|bit| three[bit])
    };
    let pins = std::iter::once(None).chain(three.map(Some));
    let place = Place {
        org: org(),
        project: Some(project()),
    };
    let mut outcomes = BTreeSet::new();
    for pin in pins {
        for (denied, wanted) in (0..8).flat_map(|denied| (1..8).map(move |wanted| (denied, wanted))) {
            for (model, on_rejection) in [("", OnRejection::Fail), ("m-1", OnRejection::Next)] {
                let cells = subset(denied).map(|mode| Cell {
                    mode,
                    provider: Some("a".to_owned()),
                    model: "m-*".parse().unwrap(),
                    verdict: Verdict::Deny,
                });
                let profile = Arc::new(Profile {
                    on_rejection,
                    ..Profile::clone(
                        &profile("p", &subset(wanted).collect::<Vec<_>>(), model)
                            .1
                            .unwrap(),
                    )
                });
                let (policy, _) = Policy::default().amended(&of_org(OrgAmendment {
                    projects: BTreeMap::from([(project(), Matrix::new(cells.collect()).unwrap())]),
                    pins: Some(pin.map(|pin| ("coder".to_owned(), pin)).into_iter().collect()),
                    profiles: BTreeMap::from([("p".to_owned(), Some(Arc::clone(&profile)))]),
                    ..OrgAmendment::default()
                }));
                for provider in ["a", "b"] {
                    let picked = pick(&policy, &registry(), place, "p", "coder", provider);
                    let case = format!("{pin:?} {profile:?} at {provider} without {denied:b}");
                    assert_eq!(picked, expected(&policy, &profile, provider), "{case}");
                    outcomes.insert(picked);
                }
            }
        }
    }
    assert_eq!(outcomes.len(), 4, "each of the modes, and none");
}

#[test]
fn one_profile_that_changes_is_compared_and_no_other() {
    let many = (0..50).map(|number| profile(&format!("p-{number}"), &[AuthMode::Byok], "m-1"));
    let projects = (0..100u8).map(|number| (Id::from_bytes([number; 16]), deny(AuthMode::Metered, "m-9")));
    let (before, _) = base().amended(&of_org(OrgAmendment {
        profiles: many.collect(),
        projects: projects.collect(),
        ..OrgAmendment::default()
    }));
    let (after, _) = before.amended(&of_org(OrgAmendment {
        profiles: BTreeMap::from([profile("own", &[AuthMode::Byok], "m-1")]),
        ..OrgAmendment::default()
    }));
    // One profile at 100 projects and where there is none, with two providers.
    let exactly = Bounds { picks: 203, rows: 1 };
    let found = mode_changes(&before, &after, &registry(), exactly);
    assert_eq!((found.total, found.at_least), (101, false));
    let short = Bounds { picks: 201, rows: 1 };
    assert!(mode_changes(&before, &after, &registry(), short).at_least);
}

fn task(profile: &str) -> Task {
    Task {
        id: Id::from_bytes([3; 16]),
        org: org(),
        member: Id::from_bytes([4; 16]),
        project: project(),
        executor: "coder".to_owned(),
        provider: None,
        profile: profile.to_owned(),
        capacity: Capacity::Cloud,
        spec_hash: String::new(),
        pool: None,
        created: Time::from_millis(0),
        expires: Time::from_millis(1_000),
        ended: None,
    }
}

fn on(mode: AuthMode) -> Vec<Running> {
    vec![Running {
        mode,
        provider: "a".to_owned(),
        model: "m-1".to_owned(),
    }]
}

// req: A10 E14
#[test]
fn a_running_task_keeps_its_mode_unless_that_very_mode_is_denied() {
    let before = base();
    let (denied, _) = before.amended(&Amendment {
        system: Some(deny(AuthMode::OAuth, "m-1")),
        ..Amendment::default()
    });
    let told = |after: &Policy, task: &Task, running: &[Running]| {
        on_task(&before, after, &registry(), task, running).map(|told| (told.before, told.after, told.effect))
    };
    let (oauth, byok) = (Some(AuthMode::OAuth), Some(AuthMode::Byok));
    let own = task("own");
    assert_eq!(
        told(&denied, &own, &[]),
        Some((oauth, byok, Effect::FirstResolution))
    );
    assert_eq!(
        told(&denied, &own, &on(AuthMode::OAuth)),
        Some((oauth, byok, Effect::AtOnce))
    );
    // It went on to byok before, which nobody denies.
    assert_eq!(
        told(&denied, &own, &on(AuthMode::Byok)),
        Some((oauth, byok, Effect::NextTask))
    );
    assert_eq!(told(&denied, &task("paid"), &[]), None);
    // Another set of modes is no denial.
    let (moved, _) = before.amended(&of_org(OrgAmendment {
        profiles: BTreeMap::from([profile("own", &[AuthMode::Byok], "m-1")]),
        ..OrgAmendment::default()
    }));
    assert_eq!(
        told(&moved, &own, &on(AuthMode::OAuth)),
        Some((oauth, byok, Effect::NextTask))
    );
    let (removed, _) = before.amended(&of_org(OrgAmendment {
        profiles: BTreeMap::from([("own".to_owned(), None)]),
        ..OrgAmendment::default()
    }));
    assert_eq!(
        told(&removed, &own, &[]),
        Some((oauth, None, Effect::FirstResolution))
    );
}

// req: A10 E14
#[test]
fn a_denial_that_was_there_before_ends_nothing_again() {
    let (before, _) = base().amended(&Amendment {
        system: Some(deny(AuthMode::OAuth, "*")),
        ..Amendment::default()
    });
    let (after, _) = before.amended(&of_org(OrgAmendment {
        matrix: Some(deny(AuthMode::OAuth, "m-*")),
        ..OrgAmendment::default()
    }));
    let told = on_task(&before, &after, &registry(), &task("own"), &on(AuthMode::OAuth));
    assert_eq!(told, None);
}
