//! Certificates end. An agent that is at work renews its own once two thirds of its life are over. One whose
//! certificate ended while it slept renews it by its runtime key and its enrolled key, for as long as the broker
//! allows that; after that it has to enroll again.

use std::time::Duration;

use ring::digest::{SHA256, digest};
use rustls::pki_types::CertificateDer;
use x509_parser::prelude::{FromDer, X509Certificate};

use crate::cli::client::{self, Bearer, DEFAULT_TIMEOUT, Session, Trust};
use crate::cli::context::{ConnectionArgs, Target};
use crate::cli::error::Failure;
use crate::cli::files;
use crate::cli::identity::{Folder, Identity, IdentityError};
use crate::cli::render;
use crate::domain::agent::renewal_proof;
use crate::domain::secret::Exposure;
use crate::domain::time::Time;
use crate::proto;

/// One process at a time renews, so that two of them do not look like two copies of the agent.
const LOCK: &str = "renewal.lock";
/// How often, and after which pause each time, another process's renewal is waited for where there is no
/// certificate to go on with.
const LOCK_ATTEMPTS: usize = 100;
const LOCK_PAUSE: Duration = Duration::from_millis(100);

/// How far a certificate's life is over.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Life {
    /// It is in its first two thirds.
    Fresh,
    /// It is in its last third: time for another.
    Due,
    /// It ended then.
    Ended(Time),
}

/// How far the life of the identity's certificate is over.
pub(super) fn life(folder: &Folder, identity: &Identity, now: Time) -> Result<Life, IdentityError> {
    let validity = identity.client.chain_der.first().and_then(validity);
    let (begin, end) = validity.ok_or_else(|| IdentityError::Malformed {
        path: folder.path().to_owned(),
        message: "its certificate cannot be read".to_owned(),
    })?;
    Ok(if now >= end {
        Life::Ended(end)
    } else if end.since(now) < end.since(begin) / 3 {
        Life::Due
    } else {
        Life::Fresh
    })
}

/// The failure to act with a certificate that has ended.
pub(super) fn ended(folder: &Folder, agent: &str, end: Time, now: Time) -> Failure {
    let end = prost_types::Timestamp {
        seconds: end.seconds(),
        nanos: 0,
    };
    let ago = render::relative(&end, now);
    Failure::config(format!("the certificate of {agent} has ended ({ago}, on {end})"))
        .because(format!("its identity is in {}", folder.path().display()))
        .remedy(
            "Enroll again: get a new enrollment token and run 'credbroker enroll'. If the certificate should \
             still be good, set this machine's clock.",
        )
}

/// From when until when a certificate is valid.
fn validity(certificate: &CertificateDer<'static>) -> Option<(Time, Time)> {
    let (_, parsed) = X509Certificate::from_der(certificate).ok()?;
    let validity = parsed.validity();
    let time = |time: x509_parser::time::ASN1Time| Time::from_seconds(time.timestamp());
    Some((time(validity.not_before), time(validity.not_after)))
}

/// Renews. What goes wrong is remarked only: the certificate there is still serves, and the next use tries again.
/// `presented` is the certificate that the session's connection was made with.
pub(super) async fn renew(session: &Session, folder: &Folder, presented: &CertificateDer<'static>) {
    if let Err(failure) = try_renew(session, folder, presented).await {
        render::remark(&format!("the certificate was not renewed: {}", failure.what));
    }
}

async fn try_renew(
    session: &Session,
    folder: &Folder,
    presented: &CertificateDer<'static>,
) -> Result<(), Failure> {
    let Some(_lock) = files::try_lock(&folder.path().join(LOCK))? else {
        return Ok(());
    };
    // Another process may have renewed since this one read the identity. Then this connection is with an earlier
    // certificate than the newest, and a renewal over it would look like a copy of the agent's.
    let identity = folder.load()?;
    if identity.client.chain_der.first() != Some(presented)
        || life(folder, &identity, render::now())? != Life::Due
    {
        return Ok(());
    }
    let request = proto::RenewCertificateRequest {
        csr_der: folder.renewal_request()?,
    };
    let answer = session.enrollment().renew_certificate(request).await;
    let answer = answer.map_err(|status| session.failure(status))?.into_inner();
    let mut about = identity.about;
    about.certificate_expire_time = answer.certificate_expire_time.map(|time| time.to_string());
    folder.replace_certificate(&answer.certificate_chain_der, &answer.trust_bundle_der, &about)?;
    Ok(())
}

/// Renews a certificate that ended at `end`, over a connection without one. The identity as it is then.
pub(super) async fn renew_ended(
    connection: &ConnectionArgs,
    folder: &Folder,
    end: Time,
) -> Result<Identity, Failure> {
    let mut attempts = 0;
    let _lock = loop {
        if let Some(lock) = files::try_lock(&folder.path().join(LOCK))? {
            break lock;
        }
        attempts += 1;
        if attempts == LOCK_ATTEMPTS {
            return Err(
                Failure::config("another process has been renewing the certificate for too long")
                    .remedy("Try again. If it stays so, see which process holds the identity's folder."),
            );
        }
        tokio::time::sleep(LOCK_PAUSE).await;
    };
    let identity = folder.load()?;
    if !matches!(life(folder, &identity, render::now())?, Life::Ended(_)) {
        return Ok(identity);
    }
    if let Err(failure) = try_renew_ended(connection, folder, &identity).await {
        let ended = ended(folder, &identity.about.agent, end, render::now());
        return Err(ended.because(format!("it could not be renewed: {}", failure.what)));
    }
    Ok(folder.load()?)
}

async fn try_renew_ended(
    connection: &ConnectionArgs,
    folder: &Folder,
    identity: &Identity,
) -> Result<(), Failure> {
    let target = Target {
        context: None,
        address: connection
            .address
            .clone()
            .unwrap_or_else(|| identity.about.address.clone()),
    };
    let bearer = Bearer::new(None, connection.timeout.unwrap_or(DEFAULT_TIMEOUT))?;
    let trust = Trust::Roots(identity.roots.clone());
    let channel = client::connect(&target.address, trust, None).await;
    let channel = channel.map_err(|error| error.into_failure(&target))?;
    let session = Session::new(channel, bearer, target, None);
    let mut enrollment = session.enrollment();
    let failed = |status| session.failure(status);
    let nonce = enrollment
        .get_renewal_nonce(proto::GetRenewalNonceRequest {})
        .await;
    let nonce = nonce.map_err(failed)?.into_inner().nonce;
    let csr_der = folder.renewal_request()?;
    let certificate_serial = identity
        .client
        .chain_der
        .first()
        .and_then(serial)
        .unwrap_or_default();
    let request_hash = digest(&SHA256, &csr_der);
    let proof = renewal_proof(&nonce, request_hash.as_ref(), &certificate_serial);
    let runtime_key = identity.runtime_key.expose_str(Exposure::Present);
    let request = proto::RenewExpiredCertificateRequest {
        org: identity.about.org.clone(),
        agent: identity.about.agent.clone(),
        runtime_key: Some(proto::Secret {
            value: runtime_key.unwrap_or_default().to_owned(),
        }),
        signature: folder.sign(&proof)?,
        csr_der,
        certificate_serial,
        nonce,
    };
    let answer = enrollment.renew_expired_certificate(request).await;
    let answer = answer.map_err(failed)?.into_inner();
    let mut about = identity.about.clone();
    about.certificate_expire_time = answer.certificate_expire_time.map(|time| time.to_string());
    folder.replace_certificate(&answer.certificate_chain_der, &answer.trust_bundle_der, &about)?;
    Ok(())
}

/// The serial number of a certificate, as it is encoded.
fn serial(certificate: &CertificateDer<'static>) -> Option<Vec<u8>> {
    let (_, parsed) = X509Certificate::from_der(certificate).ok()?;
    Some(parsed.raw_serial().to_vec())
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use rcgen::{CertificateParams, KeyPair};
    use time::OffsetDateTime;

    use super::*;
    use crate::cli::client::ClientIdentity;
    use crate::cli::identity::About;
    use crate::domain::secret::Secret;

    fn identity(begin: i64, end: i64) -> Identity {
        let mut params = CertificateParams::default();
        params.not_before = OffsetDateTime::from_unix_timestamp(begin).unwrap();
        params.not_after = OffsetDateTime::from_unix_timestamp(end).unwrap();
        let certificate = params.self_signed(&KeyPair::generate().unwrap()).unwrap();
        Identity {
            about: About {
                agent: "agt_1".into(),
                org: "org_1".into(),
                environment: "env_1".into(),
                address: "broker:7420".into(),
                certificate_expire_time: None,
            },
            runtime_key: Secret::from("cbr_1".to_owned()),
            client: ClientIdentity {
                chain_der: vec![certificate.der().clone()],
                key_pkcs8: Vec::new().into(),
            },
            roots: Vec::new(),
        }
    }

    #[test]
    fn the_last_third_is_for_renewal() {
        let folder = Folder::at("/identity");
        let at = |now| life(&folder, &identity(1_000, 1_900), Time::from_seconds(now)).unwrap();
        assert_eq!(at(1_000), Life::Fresh);
        assert_eq!(at(1_600), Life::Fresh);
        assert_eq!(at(1_601), Life::Due);
        assert_eq!(at(1_899), Life::Due);
        assert_eq!(at(1_900), Life::Ended(Time::from_seconds(1_900)));
    }

    #[test]
    fn an_ended_certificate_says_when_and_what_to_do() {
        let folder = Folder::at("/identity");
        let failure = ended(&folder, "agt_1", Time::from_seconds(0), Time::from_seconds(7_200));
        let account = failure.account();
        for told in [
            "agt_1",
            "2h ago",
            "1970-01-01T00:00:00Z",
            "/identity",
            "credbroker enroll",
        ] {
            assert!(account.contains(told), "{told}: {account}");
        }
    }
}
