//! A certificate that ended while the agent slept: renewed by the runtime key and the enrolled key, and by nothing
//! less.

use credbroker::domain::agent::renewal_proof;
use rcgen::SigningKey as _;
use ring::digest::{SHA256, digest};
use x509_parser::certificate::X509Certificate;
use x509_parser::prelude::FromDer;

use super::*;

/// The serial number of an agent's certificate.
fn serial(chain: &[Vec<u8>]) -> Vec<u8> {
    let (_, leaf) = X509Certificate::from_der(&chain[0]).unwrap();
    leaf.raw_serial().to_vec()
}

async fn nonce(caller: &Caller) -> Vec<u8> {
    let answer = caller
        .enrollment()
        .get_renewal_nonce(proto::GetRenewalNonceRequest {})
        .await;
    answer.unwrap().into_inner().nonce
}

/// A good request of this agent's, with this nonce.
fn request(
    org: &str,
    enrolled: &Enrolled,
    key: &NewKey,
    nonce: Vec<u8>,
) -> proto::RenewExpiredCertificateRequest {
    let (csr_der, certificate_serial) = (key.csr(), serial(&enrolled.chain_der));
    let hash = digest(&SHA256, &csr_der);
    let proof = renewal_proof(&nonce, hash.as_ref(), &certificate_serial);
    proto::RenewExpiredCertificateRequest {
        org: org.to_owned(),
        agent: enrolled.agent.clone(),
        runtime_key: Some(proto::Secret {
            value: enrolled.runtime_key.clone(),
        }),
        signature: key.0.sign(&proof).unwrap(),
        csr_der,
        certificate_serial,
        nonce,
    }
}

async fn send(
    caller: &Caller,
    request: proto::RenewExpiredCertificateRequest,
) -> Result<Vec<Vec<u8>>, String> {
    let answer = caller.enrollment().renew_expired_certificate(request).await;
    match answer {
        Ok(answer) => Ok(answer.into_inner().certificate_chain_der),
        Err(status) => Err(reason(&status)),
    }
}

// req: D5
#[tokio::test]
async fn an_agent_wakes_after_its_certificate_has_ended_and_goes_on() {
    for algorithm in [&rcgen::PKCS_ED25519, &rcgen::PKCS_ECDSA_P256_SHA256] {
        let site = Site::start("").await;
        let key = NewKey(rcgen::KeyPair::generate_for(algorithm).unwrap());
        let token = site.operator.enrollment_token(ORG, "").await;
        let mut enrolled = site.broker.enroll_with(&token, &key).await.unwrap();
        let agent = site.broker.agent(&enrolled).await;
        who(&agent).await.unwrap();
        let org = site.shown(&enrolled.agent).await.org;
        site.clock.advance(3 * DAY);
        assert_eq!(who(&agent).await, Err("CLIENT_CERTIFICATE_REQUIRED".to_owned()));

        let stranger = site.broker.caller(None).await;
        let nonce = nonce(&stranger).await;
        let sent = request(&org, &enrolled, &key, nonce);
        let chain = send(&stranger, sent.clone()).await.unwrap();
        // The same message again, by a thief or the network, renews nothing and stops nobody.
        assert_eq!(
            send(&stranger, sent.clone()).await,
            Err("RENEWAL_NONCE_STALE".to_owned())
        );
        assert_ne!(serial(&chain), serial(&enrolled.chain_der));
        let records = site.journaled("agent.renew_certificate").await;
        let done = records.iter().find(|record| record.phase == "finish").unwrap();
        assert_eq!(done.subject["over_mtls"], "false");
        assert_eq!(done.subject["agent"], enrolled.agent);
        enrolled.chain_der = chain;
        assert_eq!(
            site.shown(&enrolled.agent).await.state,
            proto::AgentState::Active as i32
        );
        assert_eq!(send(&stranger, sent).await, Err("RENEWAL_NONCE_STALE".to_owned()));
    }
}

// req: D5
#[tokio::test]
async fn renewal_after_the_end_takes_everything_that_it_asks_for() {
    let site = Site::start("").await;
    let (enrolled, key) = site.agent("").await;
    let (other, other_key) = site.agent("").await;
    for agent in [&enrolled, &other] {
        who(&site.broker.agent(agent).await).await.unwrap();
    }
    let org = site.shown(&enrolled.agent).await.org;
    site.clock.advance(2 * DAY);
    let caller = site.broker.caller(None).await;
    let good = request(&org, &enrolled, &key, nonce(&caller).await);
    type Change = fn(&mut proto::RenewExpiredCertificateRequest);
    let changes: [(&str, Change, &str); 8] = [
        ("no key", |r| r.runtime_key = None, "INVALID_ARGUMENT"),
        ("a byte of the nonce", |r| r.nonce[0] ^= 1, "RENEWAL_NONCE_STALE"),
        ("no nonce", |r| r.nonce.clear(), "RENEWAL_NONCE_STALE"),
        ("no signature", |r| r.signature.clear(), "RENEWAL_PROOF_INVALID"),
        (
            "a byte of it",
            |r| *r.signature.last_mut().unwrap() ^= 1,
            "RENEWAL_PROOF_INVALID",
        ),
        (
            "another serial",
            |r| r.certificate_serial[15] ^= 1,
            "RENEWAL_PROOF_INVALID",
        ),
        (
            "half a serial",
            |r| r.certificate_serial.truncate(8),
            "INVALID_ARGUMENT",
        ),
        (
            "another org",
            |r| r.org = "org_01890000000070008000000000000000".to_owned(),
            "",
        ),
    ];
    for (what, change, expected) in changes {
        let mut changed = good.clone();
        change(&mut changed);
        let refused = send(&caller, changed).await.unwrap_err();
        if !expected.is_empty() {
            assert_eq!(refused, expected, "{what}");
        }
    }
    // Another agent's runtime key, name or enrolled key, each with the rest in order.
    let theirs = request(&org, &other, &other_key, nonce(&caller).await);
    let mixed = proto::RenewExpiredCertificateRequest {
        runtime_key: theirs.runtime_key.clone(),
        ..good.clone()
    };
    assert_eq!(send(&caller, mixed).await, Err("CREDENTIAL_UNKNOWN".to_owned()));
    let mixed = proto::RenewExpiredCertificateRequest {
        agent: other.agent.clone(),
        ..good.clone()
    };
    assert_eq!(send(&caller, mixed).await, Err("CREDENTIAL_UNKNOWN".to_owned()));
    let by_another_key = request(&org, &enrolled, &other_key, nonce(&caller).await);
    assert_eq!(
        send(&caller, by_another_key).await,
        Err("CSR_KEY_NOT_ENROLLED".to_owned())
    );

    // Nonces end, and the good request is good until then.
    site.clock.advance(5 * MINUTE);
    assert_eq!(send(&caller, good).await, Err("RENEWAL_NONCE_STALE".to_owned()));
    let good = request(&org, &enrolled, &key, nonce(&caller).await);
    send(&caller, good).await.unwrap();
}

// req: D5 D6
#[tokio::test]
async fn only_the_living_are_renewed_and_only_for_a_while() {
    let site = Site::start("[enrollment]\nrenewal_grace = \"2d\"").await;
    let (enrolled, key) = site.agent("").await;
    let (revoked, revoked_key) = site.agent("").await;
    for agent in [&enrolled, &revoked] {
        who(&site.broker.agent(agent).await).await.unwrap();
    }
    let org = site.shown(&enrolled.agent).await.org;
    let revoke = proto::RevokeAgentRequest {
        org: ORG.to_owned(),
        agent: revoked.agent.clone(),
        ..Default::default()
    };
    site.operator.agents().revoke_agent(revoke).await.unwrap();
    let caller = site.broker.caller(None).await;
    site.clock.advance(2 * DAY);
    let refused = send(
        &caller,
        request(&org, &revoked, &revoked_key, nonce(&caller).await),
    )
    .await;
    assert_eq!(refused, Err("CREDENTIAL_UNKNOWN".to_owned()));
    // A day's certificate, and two days of grace.
    site.clock.advance(DAY);
    let late = send(&caller, request(&org, &enrolled, &key, nonce(&caller).await)).await;
    assert_eq!(late, Err("RENEWAL_TOO_LATE".to_owned()));
}

// req: D5
#[tokio::test]
async fn a_nonce_of_another_run_is_not_taken() {
    let site = Site::start("").await;
    let (enrolled, key) = site.agent("").await;
    who(&site.broker.agent(&enrolled).await).await.unwrap();
    let org = site.shown(&enrolled.agent).await.org;
    let old = nonce(&site.broker.caller(None).await).await;
    let broker = site.broker.restart().await;
    let caller = broker.caller(None).await;
    let stale = send(&caller, request(&org, &enrolled, &key, old)).await;
    assert_eq!(stale, Err("RENEWAL_NONCE_STALE".to_owned()));
    send(&caller, request(&org, &enrolled, &key, nonce(&caller).await))
        .await
        .unwrap();
}

// req: D5
#[tokio::test]
async fn a_copy_that_wakes_after_the_true_one_is_found() {
    let site = Site::start("").await;
    let (enrolled, key) = site.agent("").await;
    who(&site.broker.agent(&enrolled).await).await.unwrap();
    let org = site.shown(&enrolled.agent).await.org;
    let caller = site.broker.caller(None).await;
    // The answer is lost, and asked for once more: nobody is stopped.
    send(&caller, request(&org, &enrolled, &key, nonce(&caller).await))
        .await
        .unwrap();
    let chain = send(&caller, request(&org, &enrolled, &key, nonce(&caller).await))
        .await
        .unwrap();
    let renewed = enrolled.with_chain(chain);
    who(&site.broker.agent(&renewed).await).await.unwrap();
    let copy = send(&caller, request(&org, &enrolled, &key, nonce(&caller).await)).await;
    assert_eq!(copy, Err("AGENT_CLONED".to_owned()));
    assert_eq!(
        who(&site.broker.agent(&renewed).await).await,
        Err("LOCKED".to_owned())
    );
}
