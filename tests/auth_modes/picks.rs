//! Which mode is picked: what registry, profile and every scope of the matrix leave, in the fixed order.

use credbroker::domain::conditions::Condition;
use credbroker::domain::mode::AuthMode as Mode;
use credbroker::proto::{self, AuthMode, Capacity, Verdict};

use crate::scene::{World, denying, profile, with_profile};
use crate::support::broker::MEMBER;
use crate::support::client::metadata;
use crate::support::reason;

/// In the fixed order.
const ALL: [AuthMode; 6] = [
    AuthMode::Oauth,
    AuthMode::Byok,
    AuthMode::Metered,
    AuthMode::Shared,
    AuthMode::HostSession,
    AuthMode::Local,
];

fn all_but(modes: &[AuthMode]) -> Vec<AuthMode> {
    ALL.into_iter().filter(|mode| !modes.contains(mode)).collect()
}

// req: E1 E2
#[tokio::test]
async fn byok_or_metered_in_an_org_of_metered_and_shared_is_metered() {
    let world = World::start().await;
    let mut scene = world.org().await;
    for mode in Mode::ORDER {
        scene.enable(mode).await;
    }
    let rules = proto::OrgRules {
        matrix: denying(&all_but(&[AuthMode::Metered, AuthMode::Shared])),
        ..with_profile(&[AuthMode::Byok, AuthMode::Metered])
    };
    scene.rules(rules).await;
    let task = scene.task("set").await;
    let resolved = scene.resolve(&task).await.unwrap();
    assert_eq!(resolved.lease.unwrap().mode(), AuthMode::Metered);
    assert_eq!(
        resolved.fallback_reason, "",
        "it is the first of what is permitted"
    );
    let permit = resolved.decision.unwrap().permit;
    assert_eq!(permit.len(), 1, "{permit:?}");
}

// req: E2 N5
#[tokio::test]
async fn each_scope_takes_something_and_none_gives_it_back() {
    let world = World::start().await;
    let mut scene = world.org().await;
    for mode in Mode::ORDER {
        scene.enable(mode).await;
    }
    let rules = proto::OrgRules {
        matrix: denying(&[AuthMode::Shared, AuthMode::HostSession]),
        ..with_profile(&[AuthMode::Byok, AuthMode::Metered])
    };
    scene.rules_and_project(rules.clone(), &[AuthMode::Metered]).await;
    let task = scene.task("set").await;
    let explained = scene.explain(&task).await.decision.unwrap();
    assert_eq!(explained.mode(), AuthMode::Byok);
    let denied: Vec<_> = explained
        .scopes
        .iter()
        .filter(|verdict| verdict.note == "denied")
        .map(|verdict| (verdict.scope.as_str(), verdict.mode(), verdict.allowed))
        .collect();
    assert_eq!(
        denied,
        [
            ("org", AuthMode::Shared, false),
            ("org", AuthMode::HostSession, false),
            ("project", AuthMode::Metered, false),
        ]
    );
    assert_eq!(scene.picks().await.0, AuthMode::Byok);
    // Whoever runs the broker is told the same.
    let asked = proto::ResolveCredentialRequest {
        org: scene.org.clone(),
        ..scene.asks(&task)
    };
    let request = proto::ExplainResolutionRequest {
        resolution: Some(asked),
    };
    let told = world.operator.broker().explain_resolution(request).await.unwrap();
    assert_eq!(told.into_inner().decision, Some(explained));

    // What the org allows and the system denies stays denied.
    world.system(&[AuthMode::Byok]).await;
    let mut allowing = denying(&[AuthMode::Byok]);
    allowing[0].verdict = Verdict::Allow as i32;
    let rules = proto::OrgRules {
        matrix: allowing,
        ..rules
    };
    scene.rules(rules).await;
    assert_eq!(scene.picks().await.0, AuthMode::Metered);
}

// req: E3 N5
#[tokio::test]
async fn nothing_left_tells_what_each_scope_has_in_it() {
    let world = World::start().await;
    world.system(&[AuthMode::Shared]).await;
    let mut scene = world.org().await;
    for mode in Mode::ORDER {
        scene.enable(mode).await;
    }
    let rules = proto::OrgRules {
        matrix: denying(&[AuthMode::Byok]),
        ..with_profile(&[AuthMode::Byok, AuthMode::Shared, AuthMode::Local])
    };
    scene.rules_and_project(rules, &[AuthMode::Local]).await;
    let refused = scene.refuses().await;
    assert_eq!(reason(&refused), "AUTHMODES_UNSATISFIABLE");
    for (key, value) in [
        ("denied_by_system", "shared"),
        ("denied_by_org", "byok"),
        ("denied_by_project", "local"),
        ("executor", "all-agent"),
        ("provider", "demo"),
    ] {
        assert_eq!(metadata(&refused, key), value, "{key}");
    }
    for mode in ["byok", "shared", "local"] {
        assert!(metadata(&refused, "profile").contains(mode), "{refused:?}");
        assert!(refused.message().contains(mode));
    }
    assert!(metadata(&refused, "registry").contains("host-session"));
    assert!(!metadata(&refused, "profile").contains("oauth"));
    assert!(scene.cost_events().await.is_empty());
}

// req: E4 E1
#[tokio::test]
async fn as_what_is_there_goes_the_pick_goes_down_the_order() {
    let world = World::start().await;
    let mut scene = world.org().await;
    let mut credentials = Vec::new();
    for mode in Mode::ORDER {
        credentials.push(scene.enable(mode).await);
    }
    scene.rules(with_profile(&ALL)).await;
    assert_eq!(scene.picks().await, (AuthMode::Oauth, String::new()));
    let goes = [
        (Mode::OAuth, Condition::Unconnected),
        (Mode::Byok, Condition::NoKey),
        (Mode::Metered, Condition::NotEntitled),
        (Mode::Shared, Condition::NoKey),
        (Mode::HostSession, Condition::Unconnected),
    ];
    for (at, (mode, condition)) in goes.into_iter().enumerate() {
        scene.befall(mode, condition, &credentials[at]).await;
        let expected = (ALL[at + 1], "CONNECT_ACCOUNT".to_owned());
        assert_eq!(scene.picks().await, expected, "without {mode:?}");
    }
    // Of what is gone, the one that is more than an absence is told.
    scene.capacity = Capacity::Cloud;
    assert_eq!(reason(&scene.refuses().await), "METERED_NOT_ENTITLED");
}

// req: E4 E2
#[tokio::test]
async fn as_modes_are_denied_the_pick_goes_down_the_order() {
    let world = World::start().await;
    let mut scene = world.org().await;
    for mode in Mode::ORDER {
        scene.enable(mode).await;
    }
    // The order that a profile is written in says nothing.
    let mut reversed = ALL;
    reversed.reverse();
    for (denied, mode) in ALL.into_iter().enumerate() {
        let rules = proto::OrgRules {
            matrix: denying(&ALL[..denied]),
            ..with_profile(&reversed)
        };
        scene.rules(rules).await;
        assert_eq!(scene.picks().await, (mode, String::new()));
    }
}

// req: E5 B2
#[tokio::test]
async fn byok_takes_the_named_key_else_the_members_else_the_orgs() {
    let world = World::start().await;
    let scene = world.org().await;
    let (orgs, members) = (scene.store_key("").await, scene.store_key(MEMBER).await);
    let naming = |credential: &str| proto::OrgRules {
        profiles: vec![proto::Profile {
            credential: credential.to_owned(),
            ..profile("set", &[AuthMode::Byok, AuthMode::Shared])
        }],
        ..Default::default()
    };
    let used = async || {
        let resolved = scene.resolve(&scene.task("set").await).await.unwrap();
        resolved.lease.unwrap().credential
    };
    scene.rules(naming("")).await;
    assert_eq!(used().await, members);
    scene.rules(naming(&orgs)).await;
    assert_eq!(used().await, orgs);

    // Neither the member's own nor the next mode stands in for what was named.
    scene.remove(&orgs).await;
    let refused = scene.refuses().await;
    assert_eq!(reason(&refused), "NAMED_CREDENTIAL_MISSING");
    assert_eq!(metadata(&refused, "mode"), "byok");
    scene.rules(naming("")).await;
    let other = scene.store_key("").await;
    assert_eq!(used().await, members);
    scene.remove(&members).await;
    assert_eq!(used().await, other);
}
