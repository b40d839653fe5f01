//! What is in a dev broker: an operator, a demo org with a member, a task, and an enrollment token for it.

use std::fs;
use std::io::Write as _;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use crate::daemon::{App, DaemonError};
use crate::domain::actor::Caller;
use crate::domain::approval::Posture;
use crate::domain::id::OperatorId;
use crate::domain::reason::Reason;
use crate::domain::refusal::Refusal;
use crate::domain::secret::Exposure;
use crate::domain::task::Capacity;
use crate::domain::token::{OperatorFamily, Token};
use crate::service::{Broker, NewEnrollmentTokens, NewNamed, NewTask};

pub(super) const ORG: &str = "demo";
const PROJECT: &str = "demo";
const ENVIRONMENT: &str = "sandbox";
pub(super) const MEMBER: &str = "alex";
const EXECUTOR: &str = "demo-agent";
const DAY: Duration = Duration::from_secs(86_400);

/// What was made.
pub(super) struct Seeded {
    pub(super) operator_token: zeroize::Zeroizing<String>,
    /// A file with a fresh enrollment token.
    pub(super) enrollment_token: PathBuf,
}

pub(super) async fn seed(app: &App) -> Result<Seeded, DaemonError> {
    let folder = &app.config().data_dir;
    let (operator, operator_token) = operator(app.broker(), folder).await?;
    let caller = Caller::local_operator(operator);
    let broker = app.broker();

    let named = |name| NewNamed {
        name,
        display_name: "",
        request_id: "",
    };
    existing(broker.create_org(&caller, named(ORG)).await)?;
    existing(broker.create_project(&caller, ORG, named(PROJECT)).await)?;
    existing(
        broker
            .create_environment(&caller, ORG, PROJECT, named(ENVIRONMENT), Posture::None)
            .await,
    )?;
    existing(broker.create_member(&caller, ORG, named(MEMBER), &[]).await)?;

    let task = NewTask {
        org: ORG,
        member: MEMBER,
        member_identity: "",
        project: PROJECT,
        executor: EXECUTOR,
        provider: "",
        profile: "",
        capacity: Capacity::Cloud,
        pool: "",
        spec_hash: "",
        ttl: Some(DAY),
        agents: &[],
        request_id: "",
    };
    let task = broker.create_task(&caller, task).await?.task.id.to_string();
    let tokens = NewEnrollmentTokens {
        org: ORG,
        project: PROJECT,
        environment: ENVIRONMENT,
        count: 1,
        max_agents: 1,
        ttl: Some(DAY),
        task: &task,
        labels: &[],
        allowed_networks: &[],
    };
    let minted = broker.create_enrollment_tokens(&caller, tokens).await?;
    let enrollment_token = folder.join("enrollment-token");
    for minted in &minted {
        write_private(&enrollment_token, minted.token.expose(Exposure::ShowOnce))?;
    }
    Ok(Seeded {
        operator_token,
        enrollment_token,
    })
}

/// What exists already is as good as made.
fn existing<T>(made: Result<T, Refusal>) -> Result<(), Refusal> {
    match made {
        Err(refusal) if refusal.reason != Reason::AlreadyExists => Err(refusal),
        _ => Ok(()),
    }
}

/// The operator of this data folder. Its token is kept beside the data, so that the next start has it.
async fn operator(
    broker: &Arc<Broker>,
    folder: &Path,
) -> Result<(OperatorId, zeroize::Zeroizing<String>), DaemonError> {
    let path = folder.join("operator-token");
    let kept = match fs::read_to_string(&path) {
        Ok(text) => Some(zeroize::Zeroizing::new(text)),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => None,
        Err(source) => return Err(DaemonError::File { path, source }),
    };
    if let Some(text) = kept
        && let Ok(token) = Token::<OperatorFamily>::parse(&text)
        && broker.is_system_admin(token.id()).await?
    {
        return Ok((token.id(), text));
    }
    let made = broker.create_operator("dev").await?;
    write_private(&path, made.expose(Exposure::ShowOnce))?;
    let text = zeroize::Zeroizing::new(made.expose_str(Exposure::ShowOnce).unwrap_or_default().to_owned());
    let token = Token::<OperatorFamily>::parse(&text)
        .map_err(|error| Refusal::new(Reason::Internal, error.to_string()))?;
    Ok((token.id(), text))
}

fn write_private(path: &Path, bytes: &[u8]) -> Result<(), DaemonError> {
    let write = || {
        let unfinished = path.with_extension("unfinished");
        let _absent = fs::remove_file(&unfinished);
        let mut file = fs::OpenOptions::new()
            .write(true)
            .create_new(true)
            .mode(0o600)
            .open(&unfinished)?;
        file.write_all(bytes)?;
        file.sync_all()?;
        fs::rename(&unfinished, path)
    };
    write().map_err(|source| DaemonError::File {
        path: path.to_owned(),
        source,
    })
}
