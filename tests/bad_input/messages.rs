//! Messages that are too large or do not decode, and calls that do not exist.

use credbroker::proto;
use prost::Message as _;

use crate::support::broker::ORG;
use crate::support::state::State;
use crate::support::{TestBroker, details, reason};

const ENROLL: &str = "/credbroker.v1.EnrollmentService/Enroll";
const CREATE_PROJECT: &str = "/credbroker.v1.DirectoryService/CreateProject";

// req: K1
#[tokio::test]
async fn a_message_past_the_limit_is_refused_and_the_connection_lives_on() {
    let broker = TestBroker::start().await;
    let operator = broker.prepare().await;
    let before = State::of(&operator, ORG).await;
    let large = proto::CreateProjectRequest {
        org: ORG.to_owned(),
        name: "large".to_owned(),
        display_name: "x".repeat(256 * 1024),
        ..Default::default()
    };
    let status = operator
        .raw(CREATE_PROJECT, large.encode_to_vec())
        .await
        .unwrap_err();
    assert_eq!(reason(&status), "MESSAGE_TOO_LARGE");
    assert!(details(&status).retry_info().is_some());
    // Anybody may send one to a public call.
    let anybody = broker.caller(None).await;
    let status = anybody.raw(ENROLL, vec![0; 4 << 20]).await.unwrap_err();
    assert_eq!(reason(&status), "MESSAGE_TOO_LARGE");
    assert_eq!(State::of(&operator, ORG).await, before);
    anybody
        .enrollment()
        .get_trust_bundle(proto::GetTrustBundleRequest {})
        .await
        .unwrap();
}

// req: K1
#[tokio::test]
async fn a_message_that_does_not_decode_is_refused() {
    let broker = TestBroker::start().await;
    let operator = broker.prepare().await;
    let before = State::of(&operator, ORG).await;
    for bytes in [
        &[0x0a, 0xff][..],
        // A field cut short, one of another type, text that is no UTF-8, a varint without end.
        &[0x0a, 0x05, b'a'],
        &[0x08, 0x01],
        &[0x0a, 0x02, 0xff, 0xfe],
        &[0xff; 32],
    ] {
        let status = operator.raw(CREATE_PROJECT, bytes.to_vec()).await.unwrap_err();
        assert_eq!(reason(&status), "MESSAGE_MALFORMED", "{bytes:?}");
        assert_eq!(status.code(), tonic::Code::InvalidArgument);
    }
    assert_eq!(State::of(&operator, ORG).await, before);
}

// req: K1
#[tokio::test]
async fn an_unknown_call_is_told_as_that() {
    let broker = TestBroker::start().await;
    let operator = broker.prepare().await;
    for path in [
        "/credbroker.v1.DirectoryService/DropOrg",
        "/credbroker.v1.DirectoryService/createproject",
        "/credbroker.v1.DirectoryService/CreateProject/",
        "/credbroker.v2.DirectoryService/CreateProject",
        "/nowhere",
    ] {
        let status = operator.raw(path, vec![]).await.unwrap_err();
        assert_eq!(reason(&status), "UNKNOWN_METHOD", "{path}");
        assert_eq!(status.code(), tonic::Code::Unimplemented);
        let nobody = broker.caller(None).await.raw(path, vec![]).await.unwrap_err();
        assert_eq!(reason(&nobody), "UNKNOWN_METHOD", "{path}");
    }
}
