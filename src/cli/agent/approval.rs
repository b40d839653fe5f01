//! `credbroker approval`: asks for approvals, decides about them, takes them back.

use std::time::Duration;

use clap::{Args, Subcommand, ValueEnum};
use serde_json::json;

use super::IdentityArgs;
use crate::cli::client::Session;
use crate::cli::context::ConnectionArgs;
use crate::cli::error::Failure;
use crate::cli::operator::{MintOutput, pages, print_list, print_one};
use crate::cli::render::{self, Field, ListArgs, Resource, ShowArgs, enum_name};
use crate::cli::{input, wire_duration};
use crate::proto;

/// What is done with approvals.
#[derive(Args, Debug)]
pub struct ApprovalArgs {
    #[command(flatten)]
    identity: IdentityArgs,
    #[command(flatten)]
    connection: ConnectionArgs,
    #[command(subcommand)]
    action: Action,
}

/// What an approval allows; `*` alone is any.
#[derive(Args, Debug)]
struct Terms {
    /// An agent program, such as `claude-code`, or `*`; may be repeated.
    #[arg(long, required = true)]
    executor: Vec<String>,
    /// A provider, such as `anthropic`, or `*`; may be repeated.
    #[arg(long, required = true)]
    provider: Vec<String>,
    /// An auth mode, such as `oauth`, or `*`; may be repeated.
    #[arg(long, required = true)]
    mode: Vec<String>,
    /// How long it is good for, 1m to 7d; otherwise an hour.
    #[arg(long, value_name = "TIME", value_parser = humantime::parse_duration)]
    ttl: Option<Duration>,
    /// How many leases it is good for.
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=1_000))]
    uses: u32,
}

/// How an approval stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum State {
    Pending,
    Granted,
    Denied,
    Expired,
    Spent,
    Revoked,
}

impl State {
    fn into_wire(self) -> proto::ApprovalState {
        match self {
            State::Pending => proto::ApprovalState::Pending,
            State::Granted => proto::ApprovalState::Granted,
            State::Denied => proto::ApprovalState::Denied,
            State::Expired => proto::ApprovalState::Expired,
            State::Spent => proto::ApprovalState::Spent,
            State::Revoked => proto::ApprovalState::Revoked,
        }
    }
}

#[derive(Subcommand, Debug)]
enum Action {
    /// Ask for an approval of a task. Its token is shown this once, and good for nothing until it is granted.
    Request {
        /// The task; an agent with one only may leave it out.
        #[arg(long, default_value = "")]
        task: String,
        /// The project, where the environment is given by name.
        #[arg(long, default_value = "")]
        project: String,
        /// The environment that the agent will be in; agents leave it out.
        #[arg(long, default_value = "")]
        environment: String,
        #[command(flatten)]
        terms: Terms,
        /// Why; approvers see it.
        #[arg(long, default_value = "")]
        reason: String,
        /// How it is shown.
        #[arg(short, long, value_enum, default_value_t)]
        output: MintOutput,
    },
    /// Approve what nobody has asked for yet. Its token is shown this once.
    #[command(group = clap::ArgGroup::new("what").required(true))]
    Create {
        /// The project, where the environment is given by name.
        #[arg(long, default_value = "")]
        project: String,
        /// The environment whose agents may use it.
        #[arg(long)]
        environment: String,
        /// The task whose spec hash is approved.
        #[arg(long, group = "what")]
        task: Option<String>,
        /// The spec hash that is approved.
        #[arg(long, group = "what")]
        spec_hash: Option<String>,
        #[command(flatten)]
        terms: Terms,
        /// A word to go with it.
        #[arg(long, default_value = "")]
        message: String,
        /// How it is shown.
        #[arg(short, long, value_enum, default_value_t)]
        output: MintOutput,
    },
    /// List approvals.
    List {
        /// Only those in this state.
        #[arg(long, value_enum)]
        state: Option<State>,
        #[command(flatten)]
        list: ListArgs,
    },
    /// Show an approval.
    Show {
        /// The approval, `apr_…`.
        approval: String,
        #[command(flatten)]
        show: ShowArgs,
    },
    /// Grant what somebody else asked for, or less of it.
    Grant {
        /// The approval, `apr_…`.
        approval: String,
        /// How long it is good for; otherwise as long as was asked for.
        #[arg(long, value_name = "TIME", value_parser = humantime::parse_duration)]
        ttl: Option<Duration>,
        /// How many leases it is good for; otherwise as many as were asked for.
        #[arg(long, default_value_t = 0)]
        uses: u32,
        /// A word to go with it.
        #[arg(long, default_value = "")]
        message: String,
        #[command(flatten)]
        show: ShowArgs,
    },
    /// Deny what somebody else asked for.
    Deny {
        /// The approval, `apr_…`.
        approval: String,
        /// A word to go with it.
        #[arg(long, default_value = "")]
        message: String,
        #[command(flatten)]
        show: ShowArgs,
    },
    /// Take an approval back, and end the leases it was used for.
    Revoke {
        /// The approval, `apr_…`.
        approval: String,
        /// Do not ask.
        #[arg(long)]
        yes: bool,
        #[command(flatten)]
        show: ShowArgs,
    },
}

/// Runs the command.
pub async fn run(args: ApprovalArgs) -> Result<(), Failure> {
    let session = super::open(&args.connection, &args.identity).await?;
    let org = session.org_or_own();
    let mut approvals = session.approvals();
    let failed = |status| session.failure(status);
    match args.action {
        Action::Request {
            task,
            project,
            environment,
            terms,
            reason,
            output,
        } => {
            let (capability, ttl, use_limit) = terms.into_wire()?;
            let request = proto::RequestApprovalRequest {
                org,
                task,
                project,
                environment,
                capability,
                ttl,
                use_limit,
                reason,
            };
            let answer = approvals.request_approval(request).await.map_err(failed)?;
            let answer = answer.into_inner();
            print_minted(answer.approval, answer.token, output)
        }
        Action::Create {
            project,
            environment,
            task,
            spec_hash,
            terms,
            message,
            output,
        } => {
            let (capability, ttl, use_limit) = terms.into_wire()?;
            let request = proto::CreateApprovalRequest {
                org,
                project,
                environment,
                task: task.unwrap_or_default(),
                spec_hash: spec_hash.unwrap_or_default(),
                capability,
                ttl,
                use_limit,
                message,
            };
            let answer = approvals.create_approval(request).await.map_err(failed)?;
            let answer = answer.into_inner();
            print_minted(answer.approval, answer.token, output)
        }
        Action::List { state, list: args } => list(&session, org, state, args).await,
        Action::Show { approval, show } => {
            let request = proto::GetApprovalRequest { org, approval };
            let answer = approvals.get_approval(request).await.map_err(failed)?;
            print_one(answer.into_inner().approval, show)
        }
        Action::Grant {
            approval,
            ttl,
            uses,
            message,
            show,
        } => {
            let request = proto::GrantApprovalRequest {
                org,
                approval,
                use_limit: uses,
                ttl: ttl.map(wire_duration).transpose()?,
                message,
            };
            let answer = approvals.grant_approval(request).await.map_err(failed)?;
            print_one(answer.into_inner().approval, show)
        }
        Action::Deny {
            approval,
            message,
            show,
        } => {
            let request = proto::DenyApprovalRequest {
                org,
                approval,
                message,
            };
            let answer = approvals.deny_approval(request).await.map_err(failed)?;
            print_one(answer.into_inner().approval, show)
        }
        Action::Revoke { approval, yes, show } => {
            let consequence = format!("This takes {approval} back and ends the leases it was used for.");
            input::confirm(&consequence, yes)?;
            let request = proto::RevokeApprovalRequest { org, approval };
            let answer = approvals.revoke_approval(request).await.map_err(failed)?;
            let answer = answer.into_inner();
            print_one(answer.approval, show)?;
            for lease in &answer.ended_leases {
                render::remark(&format!(
                    "ended {lease}; what it handed out may still be valid at the provider"
                ));
            }
            Ok(())
        }
    }
}

async fn list(session: &Session, org: String, state: Option<State>, args: ListArgs) -> Result<(), Failure> {
    let state = state.map_or(0, |state| state.into_wire().into());
    let items = pages(args.limit, |page_size, page_token| {
        let (mut approvals, org) = (session.approvals(), org.clone());
        async move {
            let request = proto::ListApprovalsRequest {
                org,
                state,
                page_size,
                page_token,
            };
            let page = approvals.list_approvals(request).await?.into_inner();
            Ok((page.approvals, page.next_page_token))
        }
    });
    print_list(&items.await.map_err(|status| session.failure(status))?, args)
}

type WireTerms = (Option<proto::CapabilityScope>, Option<prost_types::Duration>, u32);

impl Terms {
    fn into_wire(self) -> Result<WireTerms, Failure> {
        let capability = proto::CapabilityScope {
            executors: self.executor,
            providers: self.provider,
            modes: self.mode,
        };
        Ok((
            Some(capability),
            self.ttl.map(wire_duration).transpose()?,
            self.uses,
        ))
    }
}

fn print_minted(
    approval: Option<proto::Approval>,
    token: Option<proto::Secret>,
    output: MintOutput,
) -> Result<(), Failure> {
    let approval = approval.unwrap_or_default();
    let token = token.as_ref().map_or("", |token| token.value.as_str());
    render::print(&match output {
        MintOutput::Value => format!("{token}\n"),
        MintOutput::Json => render::json(&json!({ "approval": render::object(&approval), "token": token })),
        MintOutput::Table => render::pairs([
            ("id".to_owned(), approval.id.clone()),
            ("token".to_owned(), token.to_owned()),
            ("state".to_owned(), state_name(&approval)),
            (
                "expires".to_owned(),
                Field::Time(approval.expire_time).cell(render::now()),
            ),
        ]),
    })?;
    if output == MintOutput::Table {
        render::remark("Shown this once. Send it with 'credbroker resolve --approval-file FILE'.");
    }
    Ok(())
}

fn state_name(approval: &proto::Approval) -> String {
    enum_name(approval.state().as_str_name(), "APPROVAL_STATE_")
}

impl Resource for proto::Approval {
    const COLUMNS: &'static [&'static str] = &[
        "id",
        "state",
        "requester",
        "environment",
        "spec_hash",
        "executors",
        "providers",
        "modes",
        "uses",
        "expire_time",
        "reason",
    ];

    fn fields(&self) -> Vec<(&'static str, Field)> {
        let lists = self.capability.clone().unwrap_or_default();
        let ttl = self.ttl.and_then(|ttl| u64::try_from(ttl.seconds).ok());
        vec![
            ("id", Field::Text(self.id.clone())),
            ("org", Field::Text(self.org.clone())),
            ("project", Field::Text(self.project.clone())),
            ("environment", Field::Text(self.environment.clone())),
            ("task", Field::Text(self.task.clone())),
            ("member", Field::Text(self.member.clone())),
            ("spec_hash", Field::Text(self.spec_hash.clone())),
            ("executors", Field::List(lists.executors)),
            ("providers", Field::List(lists.providers)),
            ("modes", Field::List(lists.modes)),
            ("state", Field::Text(state_name(self))),
            ("uses", Field::Number(self.uses.into())),
            ("use_limit", Field::Number(self.use_limit.into())),
            ("ttl_seconds", Field::Number(ttl.unwrap_or_default())),
            ("expire_time", Field::Time(self.expire_time)),
            ("requester", Field::Text(self.requester.clone())),
            ("reason", Field::Text(self.reason.clone())),
            ("decider", Field::Text(self.decider.clone())),
            ("message", Field::Text(self.message.clone())),
            ("decide_time", Field::Time(self.decide_time)),
            ("create_time", Field::Time(self.create_time)),
            ("revoke_time", Field::Time(self.revoke_time)),
        ]
    }

    fn handle(&self) -> String {
        self.id.clone()
    }
}
