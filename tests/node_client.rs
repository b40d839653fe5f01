//! A client that shares no code with the broker: Node's grpc-js, which reads the API from its `.proto` files.

#![allow(clippy::unwrap_used, clippy::expect_used, missing_docs)]

#[path = "support/node.rs"]
mod node;
mod support;

use std::path::Path;

use credbroker::proto;
use serde_json::json;
use support::broker::ORG;
use support::client::secret;
use support::scene::Scene;

// req: K1 D5 D6 B6 N4
#[tokio::test(flavor = "multi_thread")]
async fn a_node_agent_enrolls_resolves_hears_of_rotations_and_is_ended_by_a_revocation() {
    let (scene, lease) = Scene::leased("", "").await;
    let job = json!({
        "address": format!("localhost:{}", scene.broker.address.port()),
        "ca_file": scene.broker.data_dir().join("ca.pem"),
        "pin": scene.broker.pin,
        "proto_dir": Path::new(env!("CARGO_MANIFEST_DIR")).join("proto"),
        "enrollment_token": scene.operator.enrollment_token(ORG, &scene.task).await,
        "task": scene.task,
    });
    let mut node = node::Node::start(&job).await;
    let begun = node.line().await;
    assert_eq!(begun["first"], "heartbeat");
    assert_eq!(begun["resolved"]["credential"], json!(scene.credential));
    assert_eq!(begun["resolved"]["generation"], 2);
    assert_eq!(begun["resolved"]["token"], secret(&lease));

    // Another agent finds the token rejected; the engine exchanges the grant.
    let renewed = scene.agent.reject(&lease.id, 2).await.unwrap().lease.unwrap();
    let heard = node.line().await;
    assert_eq!(
        heard["rotated"],
        json!({ "credential": scene.credential, "generation": 3 })
    );
    assert_eq!(heard["resolved"]["generation"], 3);
    assert_eq!(heard["resolved"]["token"], secret(&renewed));
    assert_eq!(heard["resolved"]["lease"], begun["resolved"]["lease"]);
    assert_eq!(scene.provider.calls(), 2);

    let revoke = proto::RevokeAgentRequest {
        org: ORG.to_owned(),
        agent: begun["agent"].as_str().unwrap().to_owned(),
        ..Default::default()
    };
    scene.operator.agents().revoke_agent(revoke).await.unwrap();
    let ended = node.line().await;
    let gone = json!({ "code": "UNAUTHENTICATED", "domain": "credbroker", "reason": "CREDENTIAL_UNKNOWN" });
    assert_eq!(ended["end"], gone);
    // Soon after, its connection is closed, and it gets no other.
    let closed = json!({ "code": "UNAVAILABLE" });
    for call in ["call", "again"] {
        assert!(
            [&gone, &closed].contains(&&ended[call]),
            "{call}: {}",
            ended[call]
        );
    }
}
