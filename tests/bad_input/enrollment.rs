//! Enrollment tokens that are not good, and signing requests that ask for too much.

use std::sync::Arc;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use credbroker::clock::ManualClock;
use credbroker::domain::id::EnrollmentTokenId;
use credbroker::domain::secret::Exposure;
use credbroker::domain::token::{EnrollmentFamily, Token};
use credbroker::proto;
use rcgen::{BasicConstraints, CertificateParams, DistinguishedName, IsCa, KeyPair, SanType};
use tonic::Status;

use crate::support::broker::{ENVIRONMENT, ORG, PROJECT, now};
use crate::support::raw::told;
use crate::support::state::State;
use crate::support::{Caller, NewKey, Options, TestBroker, reason};

/// `openssl req -new -newkey rsa:1024 -nodes -subj / -outform DER`.
const RSA_1024: &str = concat!(
    "MIIBPzCBqQIBADAAMIGfMA0GCSqGSIb3DQEBAQUAA4GNADCBiQKBgQC8hrVoWMHKR6xBRRB6/kjqV7IfpI5gkJV2hQo7crAzHDPw",
    "NmOxcQXAzxbt1JrOO9v9D6Nl+rrRZ4hl7KI39zFKYGm9B8B/ShdiS1iYZXBCG9YeEwr4ozZEc92DTCwkmJw07z6NLOIXj4EdAWQ9",
    "AU/jqgfsJxpT6UgrJVwJ64X1uQIDAQABoAAwDQYJKoZIhvcNAQELBQADgYEASDuK2gI/75UyQI45nve7FlXA7IT8KECWur0r3x26",
    "CwQjFhCNb+1XC3+rONzPblRXBiJVbyMwly/57q83xaKbG13mWwE5JHHBvY5XwT7ScvfIqmpIHFvsR/hUSrUKCzVDwTg2ghbu2/pf",
    "fB1VTjfi2aJhFm5pZNi2/+R4TWe3TLc=",
);

async fn present(
    broker: &TestBroker,
    token: &str,
    csr_der: Vec<u8>,
) -> Result<proto::EnrollResponse, Status> {
    let request = proto::EnrollRequest {
        token: Some(proto::Secret {
            value: token.to_owned(),
        }),
        csr_der,
        ..Default::default()
    };
    let caller = broker.caller(None).await;
    Ok(caller.enrollment().enroll(request).await?.into_inner())
}

/// A token and its id.
async fn mint(operator: &Caller, ttl: Duration) -> (String, String) {
    let request = proto::CreateEnrollmentTokensRequest {
        org: ORG.to_owned(),
        project: PROJECT.to_owned(),
        environment: ENVIRONMENT.to_owned(),
        ttl: Some(ttl.try_into().unwrap()),
        ..Default::default()
    };
    let made = operator.agents().create_enrollment_tokens(request).await.unwrap();
    let made = made.into_inner().tokens.remove(0);
    (
        made.enrollment_token.unwrap().id,
        made.token.unwrap().value.clone(),
    )
}

fn token_of(id: EnrollmentTokenId) -> String {
    let token = Token::<EnrollmentFamily>::new(id, [9; 32]).reveal();
    token.expose_str(Exposure::Inspect).unwrap().to_owned()
}

// req: D1 D4 N3
#[tokio::test]
async fn a_bad_enrollment_token_enrolls_nobody() {
    let clock = Arc::new(ManualClock::at(now()));
    let options = Options {
        clock: Some(clock.clone()),
        ..Default::default()
    };
    let broker = TestBroker::start_with(options).await;
    let operator = broker.prepare().await;
    let hour = Duration::from_secs(3600);
    let (_, expired) = mint(&operator, Duration::from_secs(60)).await;
    let (revoked_id, revoked) = mint(&operator, hour).await;
    let (spent_id, spent) = mint(&operator, hour).await;
    let (good_id, good) = mint(&operator, hour).await;
    let request = proto::RevokeEnrollmentTokenRequest {
        org: ORG.to_owned(),
        enrollment_token: revoked_id,
        ..Default::default()
    };
    operator.agents().revoke_enrollment_token(request).await.unwrap();
    let first = NewKey::generate();
    let enrolled = broker.enroll_with(&spent, &first).await.unwrap();
    let agent = broker.agent(&enrolled).await;
    agent.access().who_am_i(proto::WhoAmIRequest {}).await.unwrap();
    clock.advance(Duration::from_secs(60));
    let (_, api_key) = operator.make_api_key(ORG).await;

    let before = State::of(&operator, ORG).await;
    let stranger = token_of(EnrollmentTokenId::from_bytes([7; 16]));
    let guessed = token_of(good_id.parse().unwrap());
    for (what, token, key, expected) in [
        ("none", "", None, "INVALID_ARGUMENT"),
        ("no token", "hello", None, "WRONG_CREDENTIAL_FAMILY"),
        (
            "an operator's",
            broker.operator_token(),
            None,
            "WRONG_CREDENTIAL_FAMILY",
        ),
        ("an API key", &api_key, None, "WRONG_CREDENTIAL_FAMILY"),
        (
            "a runtime key",
            &enrolled.runtime_key,
            None,
            "WRONG_CREDENTIAL_FAMILY",
        ),
        ("cut short", &good[..good.len() - 1], None, "CREDENTIAL_MALFORMED"),
        ("of another broker", &stranger, None, "ENROLLMENT_TOKEN_UNKNOWN"),
        ("guessed", &guessed, None, "ENROLLMENT_TOKEN_UNKNOWN"),
        ("expired", &expired, None, "ENROLLMENT_TOKEN_EXPIRED"),
        ("revoked", &revoked, None, "ENROLLMENT_TOKEN_REVOKED"),
        ("spent", &spent, Some(&first), "ENROLLMENT_TOKEN_SPENT"),
        ("another's", &spent, None, "ENROLLMENT_TOKEN_BOUND"),
    ] {
        let csr = key.map_or_else(|| NewKey::generate().csr(), NewKey::csr);
        let status = present(&broker, token, csr).await.unwrap_err();
        assert_eq!(reason(&status), expected, "{what}");
    }
    let unknown = present(&broker, &stranger, first.csr()).await.unwrap_err();
    let wrong = present(&broker, &guessed, first.csr()).await.unwrap_err();
    assert_eq!(
        told(&unknown),
        told(&wrong),
        "a guess learns that the token exists"
    );
    assert_eq!(State::of(&operator, ORG).await, before);

    let records = operator.records().await;
    let alarms: Vec<_> = records
        .iter()
        .filter(|record| record.action == "enrollment_token.alarm")
        .collect();
    assert_eq!(alarms.len(), 1);
    assert_eq!(
        (&*alarms[0].outcome, &*alarms[0].reason),
        ("denied", "ENROLLMENT_TOKEN_BOUND")
    );
    assert_eq!(alarms[0].subject["enrollment_token"], spent_id);
    assert!(alarms[0].subject["key"].starts_with("sha256:"));
    // Refusals of tokens that were once good are kept too; guesses are not.
    let denied = |reason: &str| records.iter().filter(|record| record.reason == reason).count();
    assert_eq!(denied("ENROLLMENT_TOKEN_EXPIRED"), 1);
    assert_eq!(denied("ENROLLMENT_TOKEN_REVOKED"), 1);
    assert_eq!(denied("ENROLLMENT_TOKEN_UNKNOWN"), 0);

    present(&broker, &good, NewKey::generate().csr()).await.unwrap();
}

fn nameless() -> CertificateParams {
    let mut params = CertificateParams::default();
    params.distinguished_name = DistinguishedName::new();
    params
}

fn request(params: &CertificateParams, key: &KeyPair) -> Vec<u8> {
    params.serialize_request(key).unwrap().der().to_vec()
}

// req: D4 K3
#[tokio::test]
async fn a_bad_signing_request_is_refused_and_costs_no_slot() {
    let broker = TestBroker::start().await;
    let operator = broker.prepare().await;
    let token = operator.enrollment_token(ORG, "").await;
    let key = KeyPair::generate().unwrap();
    let honest = request(&nameless(), &key);

    let mut forged = honest.clone();
    *forged.last_mut().unwrap() ^= 1;
    let another_key = {
        // The signature of one request under the key of another.
        let other = request(&nameless(), &KeyPair::generate().unwrap());
        let spki = 0x22..0x22 + 65;
        let mut mixed = honest.clone();
        mixed[spki.clone()].copy_from_slice(&other[spki]);
        mixed
    };
    let p384 = KeyPair::generate_for(&rcgen::PKCS_ECDSA_P384_SHA384).unwrap();
    let mut authority = nameless();
    authority.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let mut names = nameless();
    let uri = "spiffe://credbroker.local/org/x".try_into().unwrap();
    names.subject_alt_names = vec![SanType::URI(uri)];
    let mut dns = nameless();
    dns.subject_alt_names = vec![SanType::DnsName("localhost".try_into().unwrap())];
    let mut subject = nameless();
    subject
        .distinguished_name
        .push(rcgen::DnType::CommonName, "operator");

    let before = State::of(&operator, ORG).await;
    for (what, csr, expected) in [
        ("none", vec![], "CSR_INVALID"),
        ("no request", b"hello".to_vec(), "CSR_INVALID"),
        ("forged", forged, "CSR_INVALID"),
        ("by another key", another_key, "CSR_INVALID"),
        ("followed by more", [&honest[..], b"\0"].concat(), "CSR_INVALID"),
        ("larger than any", vec![0x30; 9_000], "CSR_INVALID"),
        ("P-384", request(&nameless(), &p384), "CSR_KEY_UNSUPPORTED"),
        (
            "RSA 1024",
            STANDARD.decode(RSA_1024).unwrap(),
            "CSR_KEY_UNSUPPORTED",
        ),
        ("asks to be a CA", request(&authority, &key), "CSR_ASKS_TOO_MUCH"),
        ("asks for a SPIFFE id", request(&names, &key), "CSR_ASKS_TOO_MUCH"),
        ("asks for a host name", request(&dns, &key), "CSR_ASKS_TOO_MUCH"),
        ("asks for a subject", request(&subject, &key), "CSR_ASKS_TOO_MUCH"),
    ] {
        let status = present(&broker, &token, csr).await.unwrap_err();
        assert_eq!(reason(&status), expected, "{what}");
    }
    let attributes = (0..17).map(|n| (n.to_string(), String::new())).collect();
    let crowded = proto::EnrollRequest {
        token: Some(proto::Secret { value: token.clone() }),
        csr_der: honest.clone(),
        attributes,
    };
    let status = broker.caller(None).await.enrollment().enroll(crowded).await;
    assert_eq!(reason(&status.unwrap_err()), "INVALID_ARGUMENT");
    assert_eq!(State::of(&operator, ORG).await, before);
    present(&broker, &token, honest).await.unwrap();
}
