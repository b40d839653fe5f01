//! A lapsed subscription: keys of one's own give way to metered use, said aloud; accounts of one's own to nothing.

use credbroker::domain::mode::AuthMode as Mode;
use credbroker::proto::{self, AuthMode, Subscription};

use crate::scene::{World, denying, pinned, with_profile};
use crate::support::reason;

const INACTIVE: &str = "SUBSCRIPTION_INACTIVE";

// req: A5 A1
#[tokio::test]
async fn byok_gives_way_to_metered_and_says_so_also_where_it_is_pinned() {
    let world = World::start().await;
    let mut scene = world.org().await;
    scene.enable(Mode::Byok).await;
    scene.enable(Mode::Metered).await;
    let only_byok = with_profile(&[AuthMode::Byok]);
    for rules in [only_byok.clone(), pinned(AuthMode::Byok, only_byok.clone())] {
        scene.rules(rules).await;
        scene.subscribe(Subscription::Active).await;
        assert_eq!(scene.picks().await, (AuthMode::Byok, String::new()));
        scene.subscribe(Subscription::Inactive).await;
        assert_eq!(scene.picks().await, (AuthMode::Metered, INACTIVE.to_owned()));
    }
    let events = scene.cost_events().await;
    let pools: Vec<_> = events.iter().map(|event| event.pool.as_str()).collect();
    assert_eq!(
        pools,
        ["local", "metered_pool_demo", "local", "metered_pool_demo"]
    );

    // The last resort is metered or nothing: no other mode of the profile's.
    scene.add_credit(-1_000_000).await;
    scene
        .rules(with_profile(&[AuthMode::Byok, AuthMode::Shared]))
        .await;
    assert_eq!(reason(&scene.refuses().await), "CREDITS_EXHAUSTED");
}

// req: A5
#[tokio::test]
async fn without_leave_for_metered_a_lapse_ends_it() {
    let world = World::start().await;
    let mut scene = world.org().await;
    scene.enable(Mode::Byok).await;
    scene.enable(Mode::Metered).await;
    scene.subscribe(Subscription::Inactive).await;
    let rules = proto::OrgRules {
        matrix: denying(&[AuthMode::Metered]),
        ..with_profile(&[AuthMode::Byok, AuthMode::Shared])
    };
    for rules in [rules.clone(), pinned(AuthMode::Byok, rules)] {
        scene.rules(rules).await;
        assert_eq!(reason(&scene.refuses().await), INACTIVE);
    }
}

// req: A5 A6
#[tokio::test]
async fn oauth_gives_way_to_nothing() {
    let world = World::start().await;
    let mut scene = world.org().await;
    scene.enable(Mode::Byok).await;
    scene.enable(Mode::Metered).await;
    scene.subscribe(Subscription::Inactive).await;
    let all = with_profile(&[AuthMode::Oauth, AuthMode::Byok, AuthMode::Metered]);

    // Of a set, what is not there is passed over before its lapse matters; what is pinned is refused for the lapse,
    // so that nobody is asked to connect an account that would then be refused.
    scene.rules(all.clone()).await;
    assert_eq!(scene.picks().await, (AuthMode::Metered, INACTIVE.to_owned()));
    scene.rules(pinned(AuthMode::Oauth, all.clone())).await;
    assert_eq!(reason(&scene.refuses().await), INACTIVE);

    scene.connect().await;
    for rules in [all.clone(), pinned(AuthMode::Oauth, all)] {
        scene.rules(rules).await;
        assert_eq!(reason(&scene.refuses().await), INACTIVE);
    }
    assert_eq!(world.provider.calls(), 0, "no provider was asked");
}

// req: A5
#[tokio::test]
async fn what_the_org_does_not_bring_itself_does_not_lapse() {
    let world = World::start().await;
    for mode in [Mode::Metered, Mode::Shared, Mode::HostSession, Mode::Local] {
        let mut scene = world.org().await;
        scene.enable(mode).await;
        scene.subscribe(Subscription::Inactive).await;
        let mode = crate::scene::wire(mode);
        scene.rules(with_profile(&[mode])).await;
        assert_eq!(scene.picks().await, (mode, String::new()));
    }
}
