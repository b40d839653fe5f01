//! Accounts on their way to being connected.

use std::time::Duration;

use credbroker::domain::connection::{Beginner, Begun, Connection, Flow, Phase};
use credbroker::domain::secret::Secret;
use credbroker::store::model::ConnectionSecret;

use super::bytes::check;
use super::{at, id};

fn connection(flow: Flow, by: Beginner, phase: Phase) -> Connection {
    Connection {
        id: id(1),
        org: id(2),
        member: id(3),
        connector: "demo".into(),
        provider: "anthropic".into(),
        flow,
        url: "https://id.example/authorize?state=s".into(),
        by,
        actor: "opr_1".into(),
        attempt: 2,
        codes: 1,
        created: at(4),
        expires: at(5),
        ended: Some(at(6)),
        phase,
    }
}

#[test]
fn every_flow_beginner_and_phase() {
    let paste = || Flow::Paste {
        redirect_uri: "https://id.example/code".into(),
        with_state: true,
    };
    let loopback = Flow::Loopback {
        redirect_uri: "http://127.0.0.1:1455/callback".into(),
    };
    let device = Flow::Device {
        user_code: "ABCD-EFGH".into(),
        complete_uri: Some("https://id.example/device?user_code=ABCD-EFGH".into()),
        interval: Duration::from_secs(5),
    };
    let failed = Phase::Failed {
        reason: "CONNECTION_REFUSED".into(),
        message: "access_denied".into(),
    };
    let cases = [
        ("preparing", device, Beginner::Token(id(7)), Phase::Preparing),
        ("waiting", loopback, Beginner::Member(id(7)), Phase::Waiting),
        ("exchanging", paste(), Beginner::ApiKey(id(7)), Phase::Exchanging),
        ("staged", paste(), Beginner::ApiKey(id(7)), Phase::Staged),
        (
            "connected",
            paste(),
            Beginner::ApiKey(id(7)),
            Phase::Connected { credential: id(8) },
        ),
        ("failed", paste(), Beginner::ApiKey(id(7)), failed),
        ("cancelled", paste(), Beginner::ApiKey(id(7)), Phase::Cancelled),
        ("expired", paste(), Beginner::ApiKey(id(7)), Phase::Expired),
    ];
    for (name, flow, by, phase) in cases {
        check(&format!("connection-{name}"), &connection(flow, by, phase), &[13]);
    }
}

#[test]
fn what_binds_a_connection() {
    let secret = ConnectionSecret {
        attempt: 2,
        state: Secret::from("state".to_owned()),
        verifier: Some(Secret::from("verifier".to_owned())),
        device_code: Some(Secret::from("device".to_owned())),
    };
    check("connection-secret", &secret, &[2, 3]);
    let begun = Begun {
        ids: vec![id(1), id(2)],
    };
    check("connections-of", &begun, &[]);
}
