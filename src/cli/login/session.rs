//! The tokens of a context that was signed in to: on disk, private, and refreshed in time.
//!
//! ID token and refresh token are written in one step. A refresh is one process's at a time: where the provider
//! rotates refresh tokens, two that use the same one end the session.

use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::{Deserialize, Serialize};
use zeroize::Zeroizing;

use super::issuer::Provider;
use crate::cli::context::{self, Login};
use crate::cli::error::{Failure, Kind};
use crate::cli::{files, render};
use crate::domain::secret::{ActorToken, Exposure, RefreshToken, Secret};
use crate::domain::time::Time;

/// An ID token that lasts less is refreshed before it is used.
const MARGIN: Duration = Duration::from_secs(30);
/// How long another process's refresh is waited for, and how often it is looked at.
const PATIENCE: Duration = Duration::from_secs(40);
const LOOK: Duration = Duration::from_millis(50);

/// What a sign-in brought.
pub(super) struct Tokens {
    pub(super) id_token: Secret<ActorToken>,
    pub(super) refresh_token: Option<Secret<RefreshToken>>,
    /// When the ID token ends.
    pub(super) expires: Time,
}

/// The file's content.
#[derive(Serialize, Deserialize)]
struct Stored<'a> {
    id_token: std::borrow::Cow<'a, str>,
    refresh_token: Option<std::borrow::Cow<'a, str>>,
    /// Seconds since the Unix epoch.
    expires: i64,
}

/// Where a context's tokens are.
pub(super) struct Store {
    context: String,
    path: PathBuf,
    lock: PathBuf,
}

impl Store {
    /// Of the context `name`, in the configuration folder.
    pub(super) fn of(folder: &Path, name: &str) -> Self {
        let path = context::session_file(folder, name);
        Self {
            context: name.to_owned(),
            lock: path.with_extension("lock"),
            path,
        }
    }

    /// The tokens; `None`: nobody is signed in.
    pub(super) fn read(&self) -> Result<Option<Tokens>, Failure> {
        let bytes = match files::read_private(&self.path) {
            Err(error) if error.is_missing() => return Ok(None),
            other => other?,
        };
        let stored: Stored<'_> = serde_json::from_slice(&bytes).map_err(|_| {
            Failure::config(format!("{} is not valid", self.path.display())).remedy(self.sign_in())
        })?;
        Ok(Some(Tokens {
            id_token: stored.id_token.into_owned().into(),
            refresh_token: stored.refresh_token.map(|token| token.into_owned().into()),
            expires: Time::from_seconds(stored.expires),
        }))
    }

    /// Replaces the tokens.
    pub(super) fn write(&self, tokens: &Tokens) -> Result<(), Failure> {
        if let Some(folder) = self.path.parent() {
            files::exclusive_folder(folder)?;
        }
        let refresh_token = tokens.refresh_token.as_ref();
        let stored = Stored {
            id_token: tokens
                .id_token
                .expose_str(Exposure::Present)
                .unwrap_or_default()
                .into(),
            refresh_token: refresh_token
                .and_then(|token| token.expose_str(Exposure::Upstream))
                .map(Into::into),
            expires: tokens.expires.seconds(),
        };
        let json = serde_json::to_vec(&stored)
            .map(Zeroizing::new)
            .map_err(|error| Failure::new(Kind::Internal, error.to_string()))?;
        Ok(files::write_private(&self.path, &json)?)
    }

    /// Forgets the tokens.
    pub(super) fn remove(&self) -> Result<(), Failure> {
        Ok(files::remove(&self.path)?)
    }

    /// Waits until no other process of this user changes the tokens, and keeps others from it.
    pub(super) async fn lock(&self) -> Result<std::fs::File, Failure> {
        if let Some(folder) = self.lock.parent() {
            files::exclusive_folder(folder)?;
        }
        let locking = async {
            loop {
                match files::try_lock(&self.lock) {
                    Ok(Some(lock)) => return Ok(lock),
                    Ok(None) => tokio::time::sleep(LOOK).await,
                    Err(error) => return Err(error.into()),
                }
            }
        };
        tokio::time::timeout(PATIENCE, locking).await.unwrap_or_else(|_| {
            Err(Failure::new(
                Kind::Unavailable,
                format!(
                    "another credbroker is busy with the session of context {}",
                    self.context
                ),
            )
            .remedy("Wait for it, or end it; then try again."))
        })
    }

    fn sign_in(&self) -> String {
        format!("Run 'credbroker login --context {}'.", self.context)
    }

    fn over(&self, why: &str) -> Failure {
        Failure::new(Kind::Denied, format!("context {}: {why}", self.context)).remedy(self.sign_in())
    }
}

/// The ID token of a context, refreshed where it is about to end.
pub async fn id_token(folder: &Path, name: &str, login: &Login) -> Result<Secret<ActorToken>, Failure> {
    let store = Store::of(folder, name);
    let signed_out = || store.over("nobody is signed in");
    let tokens = store.read()?.ok_or_else(signed_out)?;
    if lasts(&tokens) {
        return Ok(tokens.id_token);
    }
    let _lock = store.lock().await?;
    // Another process may just have done it.
    let tokens = store.read()?.ok_or_else(signed_out)?;
    if lasts(&tokens) {
        return Ok(tokens.id_token);
    }
    let left = tokens.expires > render::now();
    let Some(refresh_token) = &tokens.refresh_token else {
        return if left {
            Ok(tokens.id_token)
        } else {
            Err(store.over("the sign-in has expired"))
        };
    };
    let refreshed = async {
        let provider = Provider::discover(login).await?;
        provider.refresh(refresh_token, render::now()).await
    };
    match refreshed.await {
        Ok(Some(mut new)) => {
            // One that is not replaced stays good (RFC 6749 section 6).
            new.refresh_token = new.refresh_token.or(tokens.refresh_token);
            store.write(&new)?;
            Ok(new.id_token)
        }
        Ok(None) => Err(store.over("the identity provider has ended the sign-in")),
        Err(_) if left => Ok(tokens.id_token),
        Err(failure) => Err(failure),
    }
}

fn lasts(tokens: &Tokens) -> bool {
    tokens.expires > render::now() + MARGIN
}
