//! What is refused when it is written, and that one bad row changes nothing.

use credbroker::proto::{AuthMode, Verdict};

use crate::support::broker::{MEMBER, ORG, PROJECT, connector};
use crate::support::client::{details, metadata};
use crate::support::provider::Provider;
use crate::support::{Options, TestBroker, reason};
use crate::*;

/// A good document about everything, to put one bad row into.
fn good() -> PolicyDocument {
    let own = proto::OrgRules {
        matrix: vec![deny(AuthMode::Shared)],
        pins: vec![pin("demo-agent", AuthMode::Byok)],
        profiles: vec![profile("fine", &[AuthMode::Byok])],
    };
    PolicyDocument {
        system: of_system(&[deny(AuthMode::Local)]).system,
        ..of_org(ORG, Some(own), &[(PROJECT, &[deny(AuthMode::Metered)])])
    }
}

type Spoil = Box<dyn Fn(&mut PolicyDocument)>;

fn own(change: impl Fn(&mut proto::OrgRules) + 'static) -> Spoil {
    Box::new(move |document| change(document.orgs[0].rules.as_mut().unwrap()))
}

fn own_cell(bad: PolicyCell) -> Spoil {
    own(move |rules| rules.matrix.push(bad.clone()))
}

fn own_profile(change: impl Fn(&mut proto::Profile) + 'static) -> Spoil {
    own(move |rules| {
        let mut bad = profile("bad", &[AuthMode::Byok]);
        change(&mut bad);
        rules.profiles.push(bad);
    })
}

fn named(credential: &str) -> Spoil {
    let credential = credential.to_owned();
    own_profile(move |bad| bad.credential.clone_from(&credential))
}

// req: A3 E1 E2 E5
#[tokio::test]
async fn one_bad_row_changes_nothing_and_is_named() {
    let provider = Provider::start(std::time::Duration::from_secs(600)).await;
    let broker = TestBroker::start_with(Options {
        connectors: connector(&provider.token_url(), "tests", ""),
        ..Options::default()
    })
    .await;
    let operator = broker.prepare().await;
    operator.make_org("other").await;
    let of_member = operator.set_key(ORG, MEMBER, "a-members-own-key-0").await.id;
    let of_other = operator.set_key("other", "", "a-key-of-the-other-0").await.id;
    let grant = operator.import_grant(ORG, MEMBER, &provider.mint()).await.id;
    let nowhere = format!("crd_0198f000{}", "a".repeat(24));
    let verdict = Verdict::Deny;
    let long = "m".repeat(129);
    let cases: Vec<(&str, &str, Spoil)> = vec![
        (
            "PROVIDER_UNKNOWN",
            "provider",
            own_cell(cell(AuthMode::Byok, "nosuch", "*", verdict)),
        ),
        (
            "INVALID_ARGUMENT",
            "model",
            own_cell(cell(AuthMode::Byok, "", &long, verdict)),
        ),
        (
            "INVALID_ARGUMENT",
            "model",
            own_cell(cell(AuthMode::Byok, "", "ü", verdict)),
        ),
        (
            "INVALID_ARGUMENT",
            "matrix",
            own_cell(cell(AuthMode::Shared, "", "*", Verdict::Allow)),
        ),
        (
            "INVALID_ARGUMENT",
            "mode",
            own_cell(PolicyCell {
                mode: 0,
                ..deny(AuthMode::Byok)
            }),
        ),
        (
            "INVALID_ARGUMENT",
            "mode",
            own_cell(PolicyCell {
                mode: 99,
                ..deny(AuthMode::Byok)
            }),
        ),
        (
            "INVALID_ARGUMENT",
            "verdict",
            own_cell(PolicyCell {
                verdict: 0,
                ..deny(AuthMode::Byok)
            }),
        ),
        (
            "EXECUTOR_UNKNOWN",
            "executor",
            own(|rules| rules.pins.push(pin("nosuch", AuthMode::Byok))),
        ),
        (
            "MODE_UNSUPPORTED",
            "mode",
            own(|rules| rules.pins.push(pin("duo-agent", AuthMode::Oauth))),
        ),
        (
            "INVALID_ARGUMENT",
            "pins",
            own(|rules| rules.pins.push(pin("demo-agent", AuthMode::Oauth))),
        ),
        // What is told of it is short.
        (
            "PROVIDER_UNKNOWN",
            "provider",
            own_cell(cell(AuthMode::Byok, &"p\n".repeat(50_000), "*", verdict)),
        ),
        (
            "INVALID_ARGUMENT",
            "profile.modes",
            own_profile(|bad| bad.modes.clear()),
        ),
        (
            "INVALID_ARGUMENT",
            "profile.modes",
            own_profile(|bad| bad.modes.push(77)),
        ),
        (
            "INVALID_ARGUMENT",
            "profile.name",
            own_profile(|bad| bad.name = "Not A Name".to_owned()),
        ),
        (
            "INVALID_ARGUMENT",
            "profiles",
            own_profile(|bad| bad.name = "fine".to_owned()),
        ),
        (
            "PROVIDER_UNKNOWN",
            "profile.models",
            own_profile(|bad| drop(bad.models.insert("nosuch".to_owned(), "m".to_owned()))),
        ),
        (
            "INVALID_ARGUMENT",
            "profile.models",
            own_profile(|bad| drop(bad.models.insert("demo".to_owned(), "m-*".to_owned()))),
        ),
        (
            "INVALID_ARGUMENT",
            "profile.on_rejection",
            own_profile(|bad| bad.on_rejection = 9),
        ),
        ("INVALID_ARGUMENT", "profile.credential", named("crd_1")),
        ("NOT_FOUND", "profile.credential", named(&nowhere)),
        ("NOT_FOUND", "profile.credential", named(&of_member)),
        ("NOT_FOUND", "profile.credential", named(&of_other)),
        ("NOT_FOUND", "profile.credential", named(&grant)),
        (
            "NOT_FOUND",
            "",
            Box::new(|document| document.orgs[0].projects[0].project = "nosuch".to_owned()),
        ),
        (
            "NOT_FOUND",
            "",
            Box::new(|document| document.orgs[0].org = "nosuch".to_owned()),
        ),
        (
            "INVALID_ARGUMENT",
            "document.orgs",
            Box::new(|document| document.orgs.push(document.orgs[0].clone())),
        ),
    ];
    let before = (version(&operator).await, done(&operator).await);
    for (number, (expected, field, spoil)) in cases.into_iter().enumerate() {
        let mut document = good();
        spoil(&mut document);
        for validate_only in [true, false] {
            let refused = applied(&operator, document.clone(), None, validate_only).await;
            let status = refused.expect_err(&format!("case {number}"));
            assert_eq!(reason(&status), expected, "case {number}: {status:?}");
            let violations = details(&status);
            let violations = violations.bad_request().map(|bad| &bad.field_violations);
            let at = violations
                .and_then(|all| all.first())
                .map(|one| one.field.as_str());
            assert_eq!(at.unwrap_or_default(), field, "case {number}: {status:?}");
        }
    }
    assert_eq!((version(&operator).await, done(&operator).await), before);
    assert!(
        get(&operator, ORG)
            .await
            .unwrap()
            .org
            .unwrap()
            .projects
            .is_empty()
    );
    assert_eq!(apply(&operator, good()).await.unwrap().version, 1);
}

// req: A3
#[tokio::test]
async fn a_pin_takes_a_mode_that_the_executor_has() {
    let broker = TestBroker::start().await;
    let operator = broker.prepare().await;
    let request = |executor: &str, mode: AuthMode| proto::PinExecutorRequest {
        org: ORG.to_owned(),
        executor: executor.to_owned(),
        mode: mode as i32,
        ..Default::default()
    };
    let refused = operator
        .policies()
        .pin_executor(request("demo-agent", AuthMode::Metered))
        .await;
    let refused = refused.unwrap_err();
    assert_eq!(reason(&refused), "MODE_UNSUPPORTED");
    assert_eq!(metadata(&refused, "supported"), "oauth, byok");
    let unknown = operator
        .policies()
        .pin_executor(request("nosuch", AuthMode::Byok))
        .await
        .unwrap_err();
    assert_eq!(reason(&unknown), "EXECUTOR_UNKNOWN");
    assert!(metadata(&unknown, "known").contains("demo-agent"));

    for (mode, version) in [(AuthMode::Oauth, 1), (AuthMode::Byok, 2), (AuthMode::Byok, 2)] {
        let pinned = operator
            .policies()
            .pin_executor(request("demo-agent", mode))
            .await;
        assert_eq!(pinned.unwrap().into_inner().change.unwrap().version, version);
    }
    let pins = get(&operator, ORG)
        .await
        .unwrap()
        .org
        .unwrap()
        .rules
        .unwrap()
        .pins;
    assert_eq!(pins, [pin("demo-agent", AuthMode::Byok)]);
    let unpin = proto::UnpinExecutorRequest {
        org: ORG.to_owned(),
        executor: "demo-agent".to_owned(),
        ..Default::default()
    };
    for _ in 0..2 {
        let unpinned = operator.policies().unpin_executor(unpin.clone()).await.unwrap();
        assert_eq!(unpinned.into_inner().change.unwrap().version, 3);
    }
    let broker = broker.restart().await;
    let org = get(&broker.operator().await, ORG).await.unwrap().org.unwrap();
    assert!(org.rules.unwrap().pins.is_empty());
}

// req: E2
#[tokio::test]
async fn cells_are_set_removed_and_replaced_one_by_one() {
    let broker = TestBroker::start().await;
    let operator = broker.prepare().await;
    let matrix = |policy: proto::GetPolicyResponse| policy.system.unwrap().matrix;
    let m = |model: &str, verdict| cell(AuthMode::Byok, "demo", model, verdict);
    set(
        &operator,
        ("", ""),
        &[m("a", Verdict::Deny), m("b", Verdict::Deny)],
    )
    .await
    .unwrap();
    set(
        &operator,
        ("", ""),
        &[m("b", Verdict::Allow), m("c", Verdict::Inherit)],
    )
    .await
    .unwrap();
    let expected = [
        m("b", Verdict::Allow),
        m("a", Verdict::Deny),
        m("c", Verdict::Inherit),
    ];
    let mut there = matrix(get(&operator, "").await.unwrap());
    there.sort_by_key(|cell| expected.iter().position(|other| other == cell));
    assert_eq!(there, expected);
    let request = proto::SetCellsRequest {
        scope: Some(proto::PolicyScope::default()),
        // What a cell says does not matter for removing it, and what is not there is gone already.
        remove: vec![m("a", Verdict::Unspecified), m("nothing", Verdict::Deny)],
        ..Default::default()
    };
    let removed = operator.policies().set_cells(request).await.unwrap().into_inner();
    assert_eq!(removed.change.unwrap().scopes[0].cells.len(), 1);
    let request = proto::SetCellsRequest {
        scope: Some(proto::PolicyScope::default()),
        set: vec![m("z", Verdict::Deny)],
        replace: true,
        ..Default::default()
    };
    operator.policies().set_cells(request).await.unwrap();
    assert_eq!(matrix(get(&operator, "").await.unwrap()), [m("z", Verdict::Deny)]);
    let twice = [m("q", Verdict::Deny), m("q", Verdict::Allow)];
    let refused = set(&operator, ("", ""), &twice).await.unwrap_err();
    assert_eq!(reason(&refused), "INVALID_ARGUMENT");
}

// req: E2
#[tokio::test]
async fn what_is_too_much_is_refused_whole() {
    let broker = TestBroker::start().await;
    let operator = broker.prepare().await;
    let cells = |count: usize| -> Vec<_> {
        (0..count)
            .map(|number| {
                cell(
                    AuthMode::Byok,
                    "second",
                    &format!("model-number-{number:04}"),
                    Verdict::Deny,
                )
            })
            .collect()
    };
    let full = apply(&operator, of_system(&cells(2_000))).await.unwrap();
    assert_eq!(full.scopes[0].cells.len(), 2_000);
    let profiles = |count: usize| {
        let profiles = (0..count).map(|number| profile(&format!("p-{number}"), &[AuthMode::Byok]));
        proto::OrgRules {
            profiles: profiles.collect(),
            ..Default::default()
        }
    };
    for (document, what) in [
        (of_system(&cells(2_001)), "a scope"),
        (of_org(ORG, Some(profiles(101)), &[]), "a change"),
    ] {
        let refused = apply(&operator, document).await.unwrap_err();
        assert_eq!(reason(&refused), "POLICY_LIMIT", "{what}");
    }
    assert_eq!(version(&operator).await, 1);
    let change = apply(&operator, of_org(ORG, Some(profiles(99)), &[]))
        .await
        .unwrap();
    assert_eq!(change.profiles.len(), 99);
    // One cell of two thousand costs one commit, and is found again after a restart.
    let broker = broker.restart().await;
    let operator = broker.operator().await;
    let turned = [cell(
        AuthMode::Byok,
        "second",
        "model-number-1000",
        Verdict::Allow,
    )];
    set(&operator, ("", ""), &turned).await.unwrap();
    let broker = broker.restart().await;
    let system = get(&broker.operator().await, "")
        .await
        .unwrap()
        .system
        .unwrap()
        .matrix;
    assert_eq!((system.len(), system.contains(&turned[0])), (2_000, true));
}

// req: E2
#[tokio::test]
async fn an_allow_that_a_wider_scope_overrules_is_taken_with_a_warning() {
    let broker = TestBroker::start().await;
    let operator = broker.prepare().await;
    let allow = |model| cell(AuthMode::Byok, "demo", model, Verdict::Allow);
    apply(
        &operator,
        of_system(&[cell(AuthMode::Byok, "", "m-*", Verdict::Deny)]),
    )
    .await
    .unwrap();
    let document = of_org(ORG, Some(rules(&[allow("m-1"), allow("n-*")])), &[]);
    let told = apply(&operator, document).await.unwrap();
    let warnings: Vec<_> = told
        .warnings
        .iter()
        .map(|told| (told.cell.clone().unwrap().model, told.denied_by.as_str()))
        .collect();
    assert_eq!(warnings, [("m-1".to_owned(), "system")]);
}
