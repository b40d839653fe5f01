//! The demo's first act: agents with identities and connections of their own, one member, one task, one grant.

use std::time::Duration;

use futures_util::future::{join_all, try_join_all};
use prost_types::Timestamp;
use rcgen::{KeyPair, PKCS_ECDSA_P256_SHA256};
use ring::rand::{SecureRandom, SystemRandom};
use rustls::pki_types::CertificateDer;
use tonic::Status;
use zeroize::Zeroizing;

use super::provider::{Grant, Provider, Record};
use super::timeline::Timeline;
use super::{DELAY, TOKEN_LIFE, Wait, at_once, counted, rows};
use crate::cli::agent::enroll::enroll;
use crate::cli::client::{self, Bearer, ClientIdentity, DEFAULT_TIMEOUT, Session, Trust};
use crate::cli::error::{Failure, Kind};
use crate::cli::identity::{IdentityError, certificate_request};
use crate::cli::operator::request_id;
use crate::cli::pin::Pin;
use crate::cli::render;
use crate::domain::secret::{ActorToken, Exposure, Secret};
use crate::domain::time::Time;
use crate::proto;

/// What `credbrokerd dev` prepares.
const ORG: &str = "demo";
const PROJECT: &str = "demo";
const ENVIRONMENT: &str = "sandbox";
const CONNECTOR: &str = "demo";
const EXECUTOR: &str = "demo-agent";

/// What callers ask the token to be good for: as good as nothing, so that the grant is refreshed when it has to
/// be and not before.
const MINIMUM: prost_types::Duration = prost_types::Duration { seconds: 1, nanos: 0 };

/// A member, its grant and a task, made for this run.
struct Stage {
    org: String,
    grant: Grant,
    credential: String,
    task: String,
    tokens: Vec<Secret<ActorToken>>,
    pin: Pin,
}

/// Plays it and tells how it came out.
pub(super) async fn run(session: &Session, provider: &Provider, count: usize) -> Result<Timeline, Failure> {
    let stage = Stage::set(session, provider, count).await?;
    let outcome = play(session, provider, &stage).await;
    // So that the broker does not keep a grant alive that nobody uses. Each run has a member of its own, so
    // that what is left behind where this fails disturbs no other.
    stage.clear(session).await;
    outcome
}

async fn play(session: &Session, provider: &Provider, stage: &Stage) -> Result<Timeline, Failure> {
    let enrolling = stage
        .tokens
        .iter()
        .map(|token| new_agent(session, stage.pin, token));
    let agents = try_join_all(enrolling).await?;
    let first = join_all(agents.iter().map(resolve)).await;
    let mut expire = render::now();
    for (agent, answer) in agents.iter().zip(first) {
        let lease = answer.map_err(|status| agent.failure(status))?;
        let fallback = render::now() + stage.grant.expires_in;
        expire = expire.max(lease.material_expire_time.map_or(fallback, from_wire));
    }
    let before = provider.record(&stage.grant).await?;

    let past_expiry = expire.since(render::now()) + Duration::from_millis(100);
    tokio::time::sleep(past_expiry.min(TOKEN_LIFE * 2)).await;
    let outcomes = at_once(agents.iter().map(resolve).collect()).await;
    let after = provider.record(&stage.grant).await?;

    let mut generations = Vec::new();
    let mut waits = Vec::new();
    for (i, (outcome, start, end)) in outcomes.into_iter().enumerate() {
        let note = match &outcome {
            Ok(lease) => format!("generation {}", lease.generation),
            Err(status) => Failure::from(status.clone())
                .reason
                .unwrap_or_else(|| "failed".to_owned()),
        };
        waits.push(Wait {
            label: format!("agent {}", i + 1),
            start,
            end,
            good: outcome.is_ok(),
            note,
        });
        generations.extend(outcome.ok().map(|lease| lease.generation));
    }
    let (summary, good) = verdict(agents.len(), &generations, &before, &after);
    Ok(Timeline {
        title: "With the broker: all ask at once, past expiry".to_owned(),
        rows: rows(waits, &after),
        summary,
        good,
    })
}

/// How it came out, and whether it is as promised.
fn verdict(count: usize, generations: &[u64], before: &Record, after: &Record) -> (String, bool) {
    let refreshes = after.refreshes.saturating_sub(before.refreshes);
    let replays = after.replays;
    let state = if after.alive { "alive" } else { "dead" };
    let mut summary = format!(
        "{count} callers, {}, the grant is {state}",
        counted(refreshes, "refresh")
    );
    if replays > 0 {
        summary += &format!(" ({})", counted(replays, "replay"));
    }
    if generations.len() < count {
        summary += &format!(" ({} of {count} got no token)", count - generations.len());
    }
    let same = generations.windows(2).all(|pair| pair[0] == pair[1]);
    if !same {
        summary += " (not all got the same token)";
    }
    let good = refreshes == 1 && replays == 0 && after.alive && generations.len() == count && same;
    (summary, good)
}

async fn resolve(agent: &Session) -> Result<proto::Lease, Status> {
    let request = proto::ResolveCredentialRequest {
        minimum_remaining: Some(MINIMUM),
        ..Default::default()
    };
    let answer = agent.broker().resolve_credential(request).await?.into_inner();
    answer
        .lease
        .ok_or_else(|| Status::internal("the answer has no lease"))
}

/// Enrolls with a key of its own and connects with the identity it gets.
async fn new_agent(session: &Session, pin: Pin, token: &Secret<ActorToken>) -> Result<Session, Failure> {
    let key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256).map_err(IdentityError::Key)?;
    let csr_der = certificate_request(&key)?;
    let target = session.target.clone();
    let enrolled = enroll(&target, pin, token, csr_der, None, DEFAULT_TIMEOUT).await?;
    let certificates = |ders: Vec<Vec<u8>>| ders.into_iter().map(CertificateDer::from).collect();
    let identity = ClientIdentity {
        chain_der: certificates(enrolled.chain_der),
        key_pkcs8: Zeroizing::new(key.serialize_der()),
    };
    let trust = Trust::Roots(certificates(enrolled.roots_der));
    let channel = client::connect(&target.address, trust, Some(identity))
        .await
        .map_err(|error| error.into_failure(&target))?;
    let bearer = Bearer::new(Some(&enrolled.runtime_key), DEFAULT_TIMEOUT)?;
    Ok(Session::new(channel, bearer, target, None))
}

impl Stage {
    async fn set(session: &Session, provider: &Provider, count: usize) -> Result<Stage, Failure> {
        let failed = |status| session.failure(status);
        let org = session.org().unwrap_or_else(|_| ORG.to_owned());
        let member = fresh_member(session, &org).await?;
        let grant = provider.mint(TOKEN_LIFE, DELAY).await?;
        let credential = import(session, &org, &member, &grant).await?;
        let request = proto::CreateTaskRequest {
            org: org.clone(),
            member,
            project: PROJECT.to_owned(),
            executor: EXECUTOR.to_owned(),
            request_id: request_id()?,
            ..Default::default()
        };
        let answer = session.tasks().create_task(request).await.map_err(failed)?;
        let task = answer.into_inner().task.unwrap_or_default().id;
        let request = proto::CreateEnrollmentTokensRequest {
            org: org.clone(),
            project: PROJECT.to_owned(),
            environment: ENVIRONMENT.to_owned(),
            count: u32::try_from(count).unwrap_or(u32::MAX),
            task: task.clone(),
            ..Default::default()
        };
        let answer = session.agents().create_enrollment_tokens(request).await;
        let answer = answer.map_err(failed)?.into_inner();
        let pin = answer.ca_pin.parse().map_err(|error| {
            Failure::new(Kind::Internal, format!("the broker's pin is none: {error}")).at(&session.target)
        })?;
        let tokens = answer.tokens.into_iter().filter_map(|minted| minted.token);
        Ok(Stage {
            org,
            grant,
            credential,
            task,
            tokens: tokens
                .map(|mut token| std::mem::take(&mut token.value).into())
                .collect(),
            pin,
        })
    }

    async fn clear(&self, session: &Session) {
        let end = proto::EndTaskRequest {
            org: self.org.clone(),
            task: self.task.clone(),
        };
        let remove = proto::RemoveCredentialRequest {
            org: self.org.clone(),
            credential: self.credential.clone(),
        };
        let ended = session.tasks().end_task(end).await.err();
        let removed = session.credentials().remove_credential(remove).await.err();
        for status in [ended, removed].into_iter().flatten() {
            render::remark(&format!("could not tidy up: {}", session.failure(status)));
        }
    }
}

async fn fresh_member(session: &Session, org: &str) -> Result<String, Failure> {
    let mut random = [0; 6];
    SystemRandom::new()
        .fill(&mut random)
        .map_err(|_| Failure::new(Kind::Internal, "the system gives no random bytes"))?;
    let request = proto::CreateMemberRequest {
        org: org.to_owned(),
        name: format!("demo-{}", render::hex(&random)),
        request_id: request_id()?,
        ..Default::default()
    };
    let answer = session.directory().create_member(request).await;
    let answer = answer.map_err(|status| session.failure(status))?;
    Ok(answer.into_inner().member.unwrap_or_default().id)
}

async fn import(session: &Session, org: &str, member: &str, grant: &Grant) -> Result<String, Failure> {
    let to_wire = |text: Option<&str>| {
        Some(proto::Secret {
            value: text.unwrap_or_default().to_owned(),
        })
    };
    let request = proto::ImportGrantRequest {
        org: org.to_owned(),
        owner: Some(proto::Owner {
            owner: Some(proto::owner::Owner::Member(member.to_owned())),
        }),
        connector: CONNECTOR.to_owned(),
        refresh_token: to_wire(grant.refresh_token.expose_str(Exposure::Seal)),
        access_token: to_wire(grant.access_token.expose_str(Exposure::Seal)),
        access_token_expire_time: Some(into_wire(render::now() + grant.expires_in)),
        ..Default::default()
    };
    let answer = session.credentials().import_grant(request).await;
    let answer = answer.map_err(|status| session.failure(status))?;
    Ok(answer.into_inner().credential.unwrap_or_default().id)
}

fn into_wire(time: Time) -> Timestamp {
    Timestamp {
        seconds: time.seconds(),
        nanos: i32::try_from(time.millis().rem_euclid(1000) * 1_000_000).unwrap_or(0),
    }
}

fn from_wire(time: Timestamp) -> Time {
    let millis = time.seconds.saturating_mul(1000);
    Time::from_millis(millis.saturating_add(i64::from(time.nanos) / 1_000_000))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record(alive: bool, refreshes: u32, replays: u32) -> Record {
        Record {
            alive,
            refreshes,
            replays,
            events: Vec::new(),
        }
    }

    #[test]
    fn one_refresh_and_the_same_token_for_all_is_as_promised() {
        let before = record(true, 0, 0);
        let (summary, good) = verdict(3, &[2, 2, 2], &before, &record(true, 1, 0));
        assert!(good);
        assert_eq!(summary, "3 callers, 1 refresh, the grant is alive");
    }

    #[test]
    fn anything_else_is_not() {
        let before = record(true, 0, 0);
        let broken: [(&[u64], Record); 6] = [
            (&[2, 2, 2], record(true, 3, 0)),
            (&[2, 2, 2], record(true, 0, 0)),
            (&[2, 2, 2], record(true, 1, 1)),
            (&[2, 2, 2], record(false, 1, 0)),
            (&[2, 2], record(true, 1, 0)),
            (&[2, 3, 2], record(true, 1, 0)),
        ];
        for (generations, after) in broken {
            let (summary, good) = verdict(3, generations, &before, &after);
            assert!(!good, "{summary}");
        }
    }

    #[test]
    fn times_survive_the_wire() {
        for millis in [0, 1, 1_999, 1_700_000_000_123] {
            let time = Time::from_millis(millis);
            assert_eq!(from_wire(into_wire(time)), time);
        }
    }
}
