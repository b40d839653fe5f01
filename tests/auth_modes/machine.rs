//! The modes that need the member's own machine: a session of the program, and a model server.

use credbroker::domain::mode::AuthMode as Mode;
use credbroker::proto::{self, AuthMode, Capacity, material::Material};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpListener;

use crate::scene::{ENDPOINT, EXECUTOR, Scene, World, denying, pinned, with_profile};
use crate::support::client::metadata;
use crate::support::reason;

fn endpoint(base_url: &str, reachable: bool) -> Option<proto::LocalEndpointFact> {
    Some(proto::LocalEndpointFact {
        base_url: base_url.to_owned(),
        reachable,
    })
}

async fn handed(scene: &Scene<'_>) -> Material {
    let resolved = scene.resolve(&scene.task("").await).await.unwrap();
    resolved.lease.unwrap().material.unwrap().material.unwrap()
}

// req: E10 E13
#[tokio::test]
async fn a_host_session_needs_the_members_own_machine_and_a_session_on_it() {
    let world = World::start().await;
    let mut scene = world.org().await;
    scene
        .rules(pinned(AuthMode::HostSession, proto::OrgRules::default()))
        .await;
    scene.enable(Mode::HostSession).await;
    scene.capacity = Capacity::Cloud;
    let refused = scene.resolve(&scene.task("").await).await.unwrap_err();
    assert_eq!(reason(&refused), "AUTH_MODE_REQUIRES_LOCAL_CAPACITY");
    assert_eq!(metadata(&refused, "mode"), "host-session");
    assert!(scene.cost_events().await.is_empty(), "nothing was handed out");

    scene.capacity = Capacity::Local;
    let Material::HostSession(directive) = handed(&scene).await else {
        panic!("no host session");
    };
    assert_eq!(directive.executor, EXECUTOR);
    scene.facts.host_session_present = false;
    let refused = scene.resolve(&scene.task("").await).await.unwrap_err();
    assert_eq!(reason(&refused), "HOST_SESSION_MISSING");
}

// req: E10
#[tokio::test]
async fn a_mode_that_the_matrix_excludes_is_passed_over() {
    let world = World::start().await;
    let mut scene = world.org().await;
    scene.enable(Mode::HostSession).await;
    scene.enable(Mode::Local).await;
    let rules = proto::OrgRules {
        matrix: denying(&[AuthMode::HostSession]),
        ..with_profile(&[AuthMode::HostSession, AuthMode::Local])
    };
    scene.rules(rules).await;
    assert_eq!(scene.picks().await, (AuthMode::Local, String::new()));
}

// req: E11
#[tokio::test]
async fn a_dead_endpoint_is_named_and_a_live_one_handed_out() {
    let world = World::start().await;
    let mut scene = world.org().await;
    scene
        .rules(pinned(AuthMode::Local, proto::OrgRules::default()))
        .await;
    for (facts, named) in [(None, ""), (endpoint(ENDPOINT, false), ENDPOINT)] {
        scene.facts.local_endpoint = facts;
        let refused = scene.resolve(&scene.task("").await).await.unwrap_err();
        assert_eq!(reason(&refused), "LOCAL_ENDPOINT_UNREACHABLE");
        assert_eq!(metadata(&refused, "base_url"), named);
        assert!(refused.message().contains(named));
    }
    scene.facts.local_endpoint = endpoint(ENDPOINT, true);
    let Material::LocalEndpoint(found) = handed(&scene).await else {
        panic!("no endpoint");
    };
    assert_eq!(found.base_url, ENDPOINT);
    // An address is taken for one before anything else is made of it.
    scene.facts.local_endpoint = endpoint("http://user:pass@localhost:11434", true);
    let refused = scene
        .resolve_unexplained(&scene.task("").await)
        .await
        .unwrap_err();
    assert_eq!(reason(&refused), "INVALID_ARGUMENT");
}

// req: E11
#[tokio::test]
async fn what_the_broker_looks_at_itself_it_takes_nobodys_word_for() {
    let live = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let dead = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let [live_url, dead_url] =
        [&live, &dead].map(|at| format!("http://127.0.0.1:{}", at.local_addr().unwrap().port()));
    drop(dead);
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = live.accept().await {
            let mut request = [0; 1024];
            let _ = stream.read(&mut request).await;
            let _ = stream
                .write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n")
                .await;
        }
    });
    let world = World::with(&format!(
        "[local]\nprobe_endpoints = [{live_url:?}, {dead_url:?}]\n"
    ))
    .await;
    let mut scene = world.org().await;
    scene
        .rules(pinned(AuthMode::Local, proto::OrgRules::default()))
        .await;

    scene.facts.local_endpoint = endpoint(&dead_url, true);
    let refused = scene.resolve(&scene.task("").await).await.unwrap_err();
    assert_eq!(reason(&refused), "LOCAL_ENDPOINT_UNREACHABLE");
    assert_eq!(metadata(&refused, "base_url"), dead_url);
    scene.facts.local_endpoint = endpoint(&live_url, false);
    let Material::LocalEndpoint(found) = handed(&scene).await else {
        panic!("no endpoint");
    };
    assert_eq!(found.base_url, live_url);
}
