//! `credbroker profile`: ways to pay for model calls, by name.

use clap::{Args, Subcommand, ValueEnum};
use serde_json::Value;

use super::policy::{ChangeOutput, shown};
use super::{pages, print_list, print_one, request_id};
use crate::cli::client::Session;
use crate::cli::error::Failure;
use crate::cli::render::{self, Field, ListArgs, Resource, ShowArgs, enum_name};
use crate::cli::{input, key_value};
use crate::proto;

/// A mode.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Mode {
    /// A member's own account.
    #[value(name = "oauth")]
    OAuth,
    /// A key the member or the org brought.
    Byok,
    /// The platform's key, paid from the org's credit.
    Metered,
    /// The platform's key, free up to a quota.
    Shared,
    /// The session the program has on the machine.
    HostSession,
    /// A model served on the machine.
    Local,
}

impl Mode {
    pub(super) fn message(self) -> i32 {
        (match self {
            Mode::OAuth => proto::AuthMode::Oauth,
            Mode::Byok => proto::AuthMode::Byok,
            Mode::Metered => proto::AuthMode::Metered,
            Mode::Shared => proto::AuthMode::Shared,
            Mode::HostSession => proto::AuthMode::HostSession,
            Mode::Local => proto::AuthMode::Local,
        }) as i32
    }
}

/// What happens when a provider has rejected a credential for good.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum OnRejection {
    /// Stop, and ask for a new sign-in.
    Fail,
    /// Go on with what the profile permits next.
    Next,
}

/// What a profile says.
#[derive(Args, Debug)]
pub struct ProfileArgs {
    /// A mode it takes; may be repeated.
    #[arg(long = "mode", value_enum)]
    modes: Vec<Mode>,
    /// What happens when a provider has rejected a credential for good.
    #[arg(long, value_enum)]
    on_rejection: Option<OnRejection>,
    /// The key of the org that byok uses, `crd_…`; `none`: none in particular.
    #[arg(long)]
    credential: Option<String>,
    /// The model it means at a provider; may be repeated, and replaces all of them.
    #[arg(long = "model", value_name = "PROVIDER=MODEL", value_parser = key_value)]
    models: Vec<(String, String)>,
}

/// What is done with profiles.
#[derive(Subcommand, Debug)]
pub enum Action {
    /// Make a profile.
    Create {
        /// Its name.
        name: String,
        #[command(flatten)]
        profile: ProfileArgs,
        #[command(flatten)]
        show: ShowArgs,
    },
    /// List the org's profiles.
    List(#[command(flatten)] ListArgs),
    /// Show a profile.
    Show {
        /// Its name.
        name: String,
        #[command(flatten)]
        show: ShowArgs,
    },
    /// Change what is given of a profile; the rest stays.
    Update {
        /// Its name.
        name: String,
        #[command(flatten)]
        profile: ProfileArgs,
        #[command(flatten)]
        show: ShowArgs,
    },
    /// Remove a profile, after showing who uses it. Tasks that name it get nothing new any more.
    Remove {
        /// Its name.
        name: String,
        /// Do not ask.
        #[arg(long)]
        yes: bool,
        /// How the change is shown.
        #[arg(short, long, value_enum, default_value_t)]
        output: ChangeOutput,
    },
}

impl ProfileArgs {
    /// Puts what was given into a profile.
    fn into(self, profile: &mut proto::Profile) {
        if !self.modes.is_empty() {
            profile.modes = self.modes.into_iter().map(Mode::message).collect();
        }
        if let Some(on_rejection) = self.on_rejection {
            profile.on_rejection = (match on_rejection {
                OnRejection::Fail => proto::OnRejection::Fail,
                OnRejection::Next => proto::OnRejection::Next,
            }) as i32;
        }
        if let Some(credential) = self.credential {
            profile.credential = credential;
            if profile.credential == "none" {
                profile.credential.clear();
            }
        }
        if !self.models.is_empty() {
            profile.models = self.models.into_iter().collect();
        }
    }
}

/// Runs the command.
pub async fn run(session: &Session, action: Action) -> Result<(), Failure> {
    let mut policies = session.policies();
    let failed = |status| session.failure(status);
    let org = session.org()?;
    match action {
        Action::Create { name, profile, show } => {
            let mut new = proto::Profile {
                name,
                ..Default::default()
            };
            profile.into(&mut new);
            let request = proto::CreateProfileRequest {
                org,
                profile: Some(new),
                request_id: request_id()?,
            };
            let answer = policies.create_profile(request).await.map_err(failed)?;
            print_one(answer.into_inner().profile, show)
        }
        Action::List(list) => {
            let items = pages(list.limit, |page_size, page_token| {
                let (mut policies, org) = (session.policies(), org.clone());
                async move {
                    let request = proto::ListProfilesRequest {
                        org,
                        page_size,
                        page_token,
                    };
                    let page = policies.list_profiles(request).await?.into_inner();
                    Ok((page.profiles, page.next_page_token))
                }
            });
            print_list(&items.await.map_err(failed)?, list)
        }
        Action::Show { name, show } => {
            let answer = policies.get_profile(proto::GetProfileRequest { org, name }).await;
            print_one(answer.map_err(failed)?.into_inner().profile, show)
        }
        Action::Update { name, profile, show } => {
            let request = proto::GetProfileRequest {
                org: org.clone(),
                name,
            };
            let read = policies.get_profile(request).await.map_err(failed)?.into_inner();
            let mut changed = read.profile.unwrap_or_default();
            profile.into(&mut changed);
            let request = proto::UpdateProfileRequest {
                org,
                profile: Some(changed),
                expected_version: Some(read.version),
                validate_only: false,
            };
            let answer = policies.update_profile(request).await.map_err(failed)?;
            print_one(answer.into_inner().profile, show)
        }
        Action::Remove { name, yes, output } => {
            let mut request = proto::RemoveProfileRequest {
                org,
                name,
                expected_version: None,
                validate_only: true,
            };
            let preview = policies.remove_profile(request.clone()).await.map_err(failed)?;
            let preview = preview.into_inner().change.unwrap_or_default();
            for line in shown(&preview, ChangeOutput::Table).lines() {
                render::remark(line);
            }
            input::confirm("This removes the profile, with the effects shown.", yes)?;
            request.validate_only = false;
            request.expected_version = Some(preview.version);
            let removed = policies.remove_profile(request).await.map_err(failed)?;
            let removed = removed.into_inner().change.unwrap_or_default();
            render::print(&match output {
                ChangeOutput::Table => format!("removed, as version {}\n", removed.version),
                ChangeOutput::Json => shown(&removed, output),
            })
        }
    }
}

impl Resource for proto::Profile {
    const COLUMNS: &'static [&'static str] = &["name", "modes", "on_rejection", "credential", "models"];

    fn fields(&self) -> Vec<(&'static str, Field)> {
        let modes = self
            .modes()
            .map(|mode| enum_name(mode.as_str_name(), "AUTH_MODE_"));
        let on_rejection = enum_name(self.on_rejection().as_str_name(), "ON_REJECTION_");
        let credential = match self.credential.as_str() {
            "" => Value::Null,
            id => id.into(),
        };
        vec![
            ("name", Field::Text(self.name.clone())),
            ("modes", Field::List(modes.collect())),
            ("on_rejection", Field::Text(on_rejection)),
            ("credential", Field::Both(self.credential.clone(), credential)),
            ("models", Field::Pairs(self.models.clone())),
        ]
    }

    fn handle(&self) -> String {
        self.name.clone()
    }
}
