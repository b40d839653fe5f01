//! What a resolution is asked for: the flags that `resolve` and `explain` share.

use std::path::PathBuf;

use clap::{ArgGroup, Args};

use crate::cli::client::Session;
use crate::cli::error::Failure;
use crate::cli::input;
use crate::cli::operator::task::Capacity;
use crate::domain::secret::{ActorToken, Exposure, Secret};
use crate::proto;

/// What is asked for. An agent names its task where it has several; all others name a task, or a member and a
/// project.
#[derive(Args, Debug)]
#[command(group = ArgGroup::new("whom").requires("project"))]
pub struct SoughtArgs {
    /// The task.
    #[arg(long)]
    task: Option<String>,
    /// Without a task: the member, by id or name.
    #[arg(long, group = "whom", conflicts_with = "task")]
    member: Option<String>,
    /// Without a task: the member by an outside identity, such as `github:octocat`.
    #[arg(long, value_name = "SYSTEM:SUBJECT", group = "whom", conflicts_with = "task")]
    member_identity: Option<String>,
    /// Without a task: the project, by id or name.
    #[arg(long, conflicts_with = "task", requires = "whom")]
    project: Option<String>,
    /// The agent program, such as `claude-code`; otherwise the task's.
    #[arg(long)]
    executor: Option<String>,
    /// The provider, where the executor can use several.
    #[arg(long)]
    provider: Option<String>,
    /// The model that will be called. Without it, every model is meant, and what is denied for one is denied.
    #[arg(long)]
    model: Option<String>,
    /// The model profile; otherwise the task's.
    #[arg(long)]
    profile: Option<String>,
    /// Where the program runs; otherwise the task's, and without a task the cloud.
    #[arg(long, value_enum)]
    capacity: Option<Capacity>,
    /// The hash of the task specification, to be compared with the task's.
    #[arg(long, value_name = "HASH")]
    spec_hash: Option<String>,
    /// The official program is signed in on this machine.
    #[arg(long)]
    host_session: bool,
    /// The address of a model server on this machine. It is taken to answer.
    #[arg(long, value_name = "URL")]
    local_endpoint: Option<String>,
    /// The model server does not answer.
    #[arg(long, requires = "local_endpoint")]
    local_endpoint_down: bool,
    /// System admins: at the scope of the system, which the access matrix does not bind. Nobody's personal account
    /// is used.
    #[arg(long)]
    system_scope: bool,
    /// The file with the token of an approval, `-` for standard input, where the environment demands one.
    #[arg(long, value_name = "FILE")]
    approval_file: Option<PathBuf>,
    /// Read the token of an approval from standard input.
    #[arg(long, conflicts_with = "approval_file")]
    approval_stdin: bool,
}

impl SoughtArgs {
    /// The token of an approval, from where it is said to be. To be read before anything is sent.
    pub(super) fn approval(&self) -> Result<Option<Secret<ActorToken>>, Failure> {
        let standard_input = self.approval_stdin.then(|| PathBuf::from("-"));
        let file = self.approval_file.clone().or(standard_input);
        file.map(|file| input::secret(Some(&file), "approval"))
            .transpose()
    }

    /// The message.
    pub(super) fn request(
        self,
        session: &Session,
        approval: Option<&Secret<ActorToken>>,
    ) -> proto::ResolveCredentialRequest {
        let reachable = !self.local_endpoint_down;
        let local_endpoint = self
            .local_endpoint
            .map(|base_url| proto::LocalEndpointFact { base_url, reachable });
        proto::ResolveCredentialRequest {
            org: session.org_or_own(),
            task: self.task.unwrap_or_default(),
            member: self.member.unwrap_or_default(),
            member_identity: self.member_identity.unwrap_or_default(),
            project: self.project.unwrap_or_default(),
            executor: self.executor.unwrap_or_default(),
            provider: self.provider.unwrap_or_default(),
            model: self.model.unwrap_or_default(),
            profile: self.profile.unwrap_or_default(),
            capacity: self.capacity.map(Capacity::message).unwrap_or_default(),
            spec_hash: self.spec_hash.unwrap_or_default(),
            local_facts: Some(proto::LocalFacts {
                host_session_present: self.host_session,
                local_endpoint,
            }),
            approval: approval.map(|token| proto::Secret {
                value: token.expose_str(Exposure::Present).unwrap_or_default().to_owned(),
            }),
            system_scope: self.system_scope,
            ..Default::default()
        }
    }
}
