//! Who is linked to whom: made by admins, read at every call.

use credbroker::domain::role::{Extent, Role};
use credbroker::service::{Accepts, KeyAccess, Presented};
use tokio::time::timeout;

use super::*;

const OTHER: &str = "globex";

// req: D2
#[tokio::test(flavor = "multi_thread")]
async fn a_person_nobody_linked_is_told_what_to_ask_for() {
    let scene = Scene::new().await;
    let refused = scene.who(&scene.token("alice")).await.unwrap_err();
    assert_eq!(reason(&refused), "IDENTITY_NOT_LINKED");
    let identity = metadata(&refused, "identity");
    assert_eq!(identity, scene.identity("alice"));
    // What is told is what an admin enters.
    set_identities(&scene.operator, ORG, &scene.member, &[&identity])
        .await
        .unwrap();
    scene.who(&scene.token("alice")).await.unwrap();
    // Nobody is known by an address, and no other subject by this link.
    for subject in ["bob", "Alice", "alice2"] {
        let mut claims = scene.claims(subject);
        claims["email"] = "alice@acme.example".into();
        claims["email_verified"] = true.into();
        let refused = scene.who(&scene.key.sign(&claims)).await.unwrap_err();
        assert_eq!(reason(&refused), "IDENTITY_NOT_LINKED", "{subject}");
    }
}

// req: D2 D8
#[tokio::test(flavor = "multi_thread")]
async fn a_link_that_is_taken_away_ends_at_once() {
    let scene = Scene::new().await;
    scene.link("alice").await;
    let caller = scene.caller(&scene.token("alice")).await;
    caller.access().who_am_i(proto::WhoAmIRequest {}).await.unwrap();
    set_identities(&scene.operator, ORG, &scene.member, &[])
        .await
        .unwrap();
    let refused = caller
        .access()
        .who_am_i(proto::WhoAmIRequest {})
        .await
        .unwrap_err();
    assert_eq!(reason(&refused), "IDENTITY_NOT_LINKED");
}

// req: D2 D8
#[tokio::test(flavor = "multi_thread")]
async fn what_is_open_by_a_link_ends_with_it() {
    let scene = Scene::of(&[ORG, OTHER], Options::default()).await;
    let theirs = id_of(&scene.operator, OTHER, MEMBER).await;
    scene.link("alice").await;
    let identity = scene.identity("alice");
    set_identities(&scene.operator, OTHER, &theirs, &[&identity])
        .await
        .unwrap();
    let token = scene.token("alice");
    let stream_in = async |org: &str| {
        let accepts = Accepts {
            humans: Some(&[(Role::Member, Extent::Own)]),
            api_key: KeyAccess::No,
            agent: false,
        };
        let presented = Presented {
            bearer: Some(&token),
            certificate: None,
            org: Some(org),
        };
        let caller = scene
            .broker
            .broker
            .authenticate(presented, accepts)
            .await
            .unwrap();
        let left = caller.expires().unwrap().since(SystemClock::new().wall());
        assert!(left <= HOUR + Duration::from_secs(60) && left > HOUR, "{left:?}");
        (scene.broker.broker.open_stream(&caller).await, caller)
    };
    let (here, caller) = stream_in(ORG).await;
    let (there, _) = stream_in(OTHER).await;
    let (mut here, mut there) = (here.unwrap(), there.unwrap());
    set_identities(&scene.operator, ORG, &scene.member, &["github:alice"])
        .await
        .unwrap();
    let ended = timeout(Duration::from_secs(10), here.ended()).await.unwrap();
    assert_eq!(ended.reason.code(), "IDENTITY_NOT_LINKED");
    // Whoever was let in just before finds out at the second look.
    assert!(scene.broker.broker.open_stream(&caller).await.is_err());
    let open = timeout(Duration::from_millis(50), there.ended()).await;
    assert!(open.is_err(), "the other org's link stands");
}

// req: D2
#[tokio::test(flavor = "multi_thread")]
async fn an_issuer_vouches_for_its_own_orgs_only() {
    let scene = Scene::new().await;
    scene.operator.make_org(OTHER).await;
    let theirs = id_of(&scene.operator, OTHER, MEMBER).await;
    let identity = scene.identity("alice");
    let refused = set_identities(&scene.operator, OTHER, &theirs, &[&identity])
        .await
        .unwrap_err();
    assert_eq!(reason(&refused), "ISSUER_UNKNOWN");
    // One that was linked while the issuer was theirs as well: the restart takes the org from it.
    let both = format!("{:?}", [ORG, OTHER]);
    let one = format!("{:?}", [ORG]);
    let Scene {
        broker, issuer, key, ..
    } = scene;
    let broker = broker
        .restart_with(|options| options.config = options.config.replace(&one, &both))
        .await;
    let operator = broker.operator().await;
    set_identities(&operator, OTHER, &theirs, &[&identity])
        .await
        .unwrap();
    let token = key.sign(&issuer.claims("alice", SystemClock::new().wall().seconds(), HOUR));
    let who = async |broker: &TestBroker| {
        let caller = broker.caller(Some(&token)).await;
        caller.access().who_am_i(proto::WhoAmIRequest {}).await
    };
    assert_eq!(who(&broker).await.unwrap().into_inner().actor, theirs);
    let broker = broker
        .restart_with(|options| options.config = options.config.replace(&both, &one))
        .await;
    assert_eq!(reason(&who(&broker).await.unwrap_err()), "IDENTITY_NOT_LINKED");
    // The link itself does not stand in the way of other changes.
    let operator = broker.operator().await;
    set_identities(&operator, OTHER, &theirs, &[&identity, "github:alice"])
        .await
        .unwrap();
}

// req: D2
#[tokio::test(flavor = "multi_thread")]
async fn a_person_of_several_orgs_says_which_is_meant() {
    let scene = Scene::of(&[ORG, OTHER], Options::default()).await;
    let theirs = id_of(&scene.operator, OTHER, MEMBER).await;
    scene.link("alice").await;
    let token = scene.token("alice");
    // As long as there is one, it is meant; but not in place of another that is named.
    assert_eq!(scene.who(&token).await.unwrap().actor, scene.member);
    for named in [OTHER, "elsewhere"] {
        let refused = scene.who_in(&token, named).await.unwrap_err();
        assert_eq!(reason(&refused), "IDENTITY_NOT_LINKED");
    }

    let identity = scene.identity("alice");
    set_identities(&scene.operator, OTHER, &theirs, &[&identity])
        .await
        .unwrap();
    let refused = scene.who(&token).await.unwrap_err();
    assert_eq!(reason(&refused), "ORG_REQUIRED");
    assert_eq!(metadata(&refused, "orgs"), format!("{ORG}, {OTHER}"));
    let there = scene.who_in(&token, OTHER).await.unwrap();
    assert_eq!(there.actor, theirs);
    assert_eq!(
        scene.who_in(&token, &there.org).await.unwrap().actor,
        theirs,
        "by id"
    );
    assert_eq!(scene.who_in(&token, ORG).await.unwrap().actor, scene.member);
    for elsewhere in ["elsewhere", "Not A Name", &"x".repeat(4000)] {
        let refused = scene.who_in(&token, elsewhere).await.unwrap_err();
        assert_eq!(reason(&refused), "IDENTITY_NOT_LINKED");
    }
}

/// Nothing that is no issuer's can look like one's, now or after another is configured.
// req: D2
#[tokio::test(flavor = "multi_thread")]
async fn an_issuers_identity_is_not_to_be_imitated() {
    let scene = Scene::new().await;
    for (identity, expected) in [
        ("oidc:https://not.configured.example#alice", "ISSUER_UNKNOWN"),
        (&format!("oidc:{}/#alice", scene.issuer.url), "ISSUER_UNKNOWN"),
        ("oidc:alice", "INVALID_ARGUMENT"),
        (&format!("OIDC:{}#alice", scene.issuer.url), "INVALID_ARGUMENT"),
        (&format!("oidc:{}#", scene.issuer.url), "INVALID_ARGUMENT"),
        (
            &format!("oidc:{}#{}", scene.issuer.url, "x".repeat(256)),
            "INVALID_ARGUMENT",
        ),
        (&format!("github:{}", "x".repeat(256)), "INVALID_ARGUMENT"),
    ] {
        let refused = set_identities(&scene.operator, ORG, &scene.member, &[identity]).await;
        assert_eq!(reason(&refused.unwrap_err()), expected, "{identity}");
    }
    // The longest subject there can be.
    let longest = "x".repeat(255);
    scene.link(&longest).await;
    scene.who(&scene.token(&longest)).await.unwrap();
    // One subject is one member of an org.
    let second = scene.operator.make_member(ORG, "second").await.id;
    let identity = scene.identity(&longest);
    let taken = set_identities(&scene.operator, ORG, &second, &[&identity])
        .await
        .unwrap_err();
    assert_eq!(reason(&taken), "CONFLICT");
}
