//! The `credbroker` command: what it takes, and which module does it.
//!
//! Resources are noun and verb; the verbs at the root are for the caller itself and its sandbox. Answers go to
//! standard output, everything else to standard error; the exit codes are told in [`error`].

use std::process::ExitCode;
use std::time::Duration;

use clap::error::ErrorKind;
use clap::{Parser, Subcommand};
use serde_json::json;

use error::{Failure, Kind};
use operator::Noun;
use render::Field;

pub mod agent;
pub mod client;
pub mod client_certificate;
pub mod context;
pub mod demo;
pub mod error;
pub mod files;
pub mod identity;
pub mod input;
pub mod login;
pub mod loopback;
pub mod operator;
pub mod pin;
pub mod qr;
pub mod render;
pub mod screen;
pub mod yaml;

#[cfg(test)]
mod grpc_tests;

const AFTER_HELP: &str = "\
Where a setting comes from: a flag wins over the environment, that over the context. The environment has \
CREDBROKER_CONTEXT, _ADDRESS, _CA_PIN, _CA_FILE, _TOKEN_FILE, _CLIENT_CERTIFICATE, _ORG, _TIMEOUT, _IDENTITY and _CONFIG_DIR. \
An address given together with a pin or CA file is another broker: the current context's token is not sent \
there. Tokens and keys are read from files, standard input or a prompt, never from arguments.

Exit codes: 0 done, 64 usage, 69 unavailable, 70 internal fault, 77 no permission, 78 configuration, 1 otherwise; \
2 where 'policy diff' finds a difference, 1 where 'explain' tells of a refusal, 130 after Ctrl-C in 'account connect'.";

/// A credential broker for sandboxed coding agents.
#[derive(Parser, Debug)]
#[command(name = "credbroker", version, after_help = AFTER_HELP, max_term_width = 100)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

// In the order of the help: what the caller does itself, who there is, what agents work on, which auth mode they
// get and what it costs, and the rest.
#[derive(Subcommand, Debug)]
enum Command {
    Demo(demo::DemoArgs),
    Enroll(agent::enroll::EnrollArgs),
    Resolve(agent::resolve::ResolveArgs),
    Explain(agent::explain::ExplainArgs),
    Watch(agent::watch::WatchArgs),
    Login(login::LoginArgs),
    Logout(login::LogoutArgs),
    Whoami(operator::whoami::WhoamiArgs),
    /// Show the version of this program.
    Version,
    /// The brokers this user knows.
    #[command(subcommand)]
    Context(operator::context::Action),
    /// The tenants of the broker.
    Org(Noun<operator::org::Action>),
    /// The projects of an org.
    Project(Noun<operator::project::Action>),
    /// The environments of a project, where agents are enrolled.
    Environment(Noun<operator::environment::Action>),
    /// The human users of an org.
    Member(Noun<operator::member::Action>),
    /// Who may do what, and where.
    Role(Noun<operator::role::Action>),
    /// The tokens people call with.
    OperatorToken(Noun<operator::operator_token::Action>),
    /// The org's keys for control-plane services.
    ApiKey(Noun<operator::api_key::Action>),
    /// What agents may resolve for.
    Task(Noun<operator::task::Action>),
    /// The enrolled sandboxes.
    Agent(Noun<operator::agent::Action>),
    /// The one-time tokens that agents enroll with.
    EnrollmentToken(Noun<operator::enrollment_token::Action>),
    /// What a resolution handed out.
    Lease(agent::lease::LeaseArgs),
    /// What environments demand of their agents: asked for, granted, denied, taken back.
    Approval(agent::approval::ApprovalArgs),
    /// Stops that can be lifted again.
    Lock(Noun<operator::lock::Action>),
    /// The agent programs, and what each can be used by now.
    Executor(Noun<operator::executor::Action>),
    /// Who answers model calls: with which credentials, for which models, by which programs.
    Provider(Noun<operator::provider::Action>),
    /// The connectors, by which accounts are connected and kept.
    Connector(Noun<operator::connector::Action>),
    /// The capacity pools that tasks are booked on.
    Pool(Noun<operator::pool::Action>),
    /// Sets of auth modes, by name: a task names one.
    Profile(Noun<operator::profile::Action>),
    /// Which modes may be used where: one file, shown, compared and applied.
    Policy(Noun<operator::policy::Action>),
    /// The accounts that members connect: which there are, which are missing, and connecting them.
    Account(Noun<operator::account::Action>),
    /// What the broker keeps for members and orgs.
    Credential(Noun<operator::credential::Action>),
    /// The platform's own keys, for metered and shared use.
    ManagedKey(Noun<operator::managed_key::Action>),
    /// An org's prepaid credit.
    Credit(Noun<operator::credit::Action>),
    Spend(operator::spend::SpendArgs),
    /// Secrets of extensions, in namespaces of their own.
    #[command(name = "secret")]
    ExtensionSecret(agent::secret::SecretArgs),
    /// What was decided and done, in order.
    Journal(Noun<operator::journal::Action>),
}

/// Runs the command that the process was started with, and tells how it should exit.
pub fn main() -> ExitCode {
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) => {
            // Where the terminal is gone there is nobody to tell.
            let _ = error.print();
            return match error.kind() {
                ErrorKind::DisplayHelp | ErrorKind::DisplayVersion => ExitCode::SUCCESS,
                _ => ExitCode::from(Kind::Usage.exit_code()),
            };
        }
    };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let outcome = match runtime {
        Ok(runtime) => runtime.block_on(run(cli.command)),
        Err(error) => Err(Failure::new(
            Kind::Internal,
            format!("cannot start the runtime: {error}"),
        )),
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            let _ = std::io::Write::write_all(&mut std::io::stderr(), failure.account().as_bytes());
            ExitCode::from(failure.kind.exit_code())
        }
    }
}

async fn run(command: Command) -> Result<(), Failure> {
    macro_rules! noun {
        ($module:ident, $noun:expr) => {{
            let (session, action) = $noun.open().await?;
            operator::$module::run(&session, action).await
        }};
    }
    match command {
        Command::Demo(args) => demo::run(args).await,
        Command::Enroll(args) => agent::enroll::run(args).await,
        Command::Resolve(args) => agent::resolve::run(args).await,
        Command::Explain(args) => agent::explain::run(args).await,
        Command::Watch(args) => agent::watch::run(args).await,
        Command::Login(args) => login::login(args).await,
        Command::Logout(args) => login::logout(args).await,
        Command::Whoami(args) => operator::whoami::run(args).await,
        Command::Version => render::print(concat!("credbroker ", env!("CARGO_PKG_VERSION"), "\n")),
        Command::Context(action) => operator::context::run(action),
        Command::Org(noun) => noun!(org, noun),
        Command::Project(noun) => noun!(project, noun),
        Command::Environment(noun) => noun!(environment, noun),
        Command::Member(noun) => noun!(member, noun),
        Command::Task(noun) => noun!(task, noun),
        Command::Lease(args) => agent::lease::run(args).await,
        Command::Agent(noun) => noun!(agent, noun),
        Command::EnrollmentToken(noun) => noun!(enrollment_token, noun),
        Command::ApiKey(noun) => noun!(api_key, noun),
        Command::Executor(noun) => noun!(executor, noun),
        Command::Provider(noun) => noun!(provider, noun),
        Command::Connector(noun) => noun!(connector, noun),
        Command::Pool(noun) => noun!(pool, noun),
        Command::OperatorToken(noun) => noun!(operator_token, noun),
        Command::Role(noun) => noun!(role, noun),
        Command::Credential(noun) => {
            let connection = noun.connection().clone();
            let (session, action) = noun.open().await?;
            operator::credential::run(&connection, &session, action).await
        }
        Command::Account(noun) => noun!(account, noun),
        Command::Approval(args) => agent::approval::run(args).await,
        Command::ExtensionSecret(args) => agent::secret::run(args).await,
        Command::Journal(noun) => operator::journal::run(noun).await,
        Command::Lock(noun) => noun!(lock, noun),
        Command::ManagedKey(noun) => noun!(managed_key, noun),
        Command::Credit(noun) => noun!(credit, noun),
        Command::Spend(args) => operator::spend::run(args).await,
        Command::Policy(noun) => noun!(policy, noun),
        Command::Profile(noun) => noun!(profile, noun),
    }
}

/// Parses `KEY=VALUE`.
fn key_value(text: &str) -> Result<(String, String), String> {
    match text.split_once('=') {
        Some((key, value)) if !key.is_empty() => Ok((key.to_owned(), value.to_owned())),
        _ => Err("expected KEY=VALUE".to_owned()),
    }
}

/// A span as the API has it.
fn wire_duration(span: Duration) -> Result<prost_types::Duration, Failure> {
    prost_types::Duration::try_from(span)
        .map_err(|_| Failure::usage(format!("{} is too long", humantime::format_duration(span))))
}

/// Whose a credential is.
fn owner_field(owner: Option<&crate::proto::Owner>) -> Field {
    use crate::proto::owner::Owner;
    match owner.and_then(|owner| owner.owner.as_ref()) {
        Some(Owner::Member(member)) => Field::Both(member.clone(), json!({ "member": member })),
        // In parentheses, as a member may be called `org`.
        Some(Owner::Org(_)) => Field::Both("(the org)".to_owned(), json!({ "org": true })),
        None => Field::Both(String::new(), serde_json::Value::Null),
    }
}

/// The member that an owner is, by id.
fn owner_reference(owner: &mut Option<crate::proto::Owner>) -> Vec<&mut String> {
    use crate::proto::owner::Owner;
    match owner.as_mut().and_then(|owner| owner.owner.as_mut()) {
        Some(Owner::Member(member)) => vec![member],
        _ => Vec::new(),
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn the_grammar_is_sound() {
        Cli::command().debug_assert();
    }

    #[test]
    fn connection_flags_may_stand_before_or_after_the_verb() {
        for line in [
            "credbroker org --context dev list -o json",
            "credbroker org list --context dev -o json",
            "credbroker resolve --context dev -o value",
            "credbroker explain --member-identity git:m --project p --executor e --capacity local -o yaml",
            "credbroker credential set --org a --provider p --org-owned",
            "credbroker credential set --provider p --org-owned --aws --region us-east-1 --access-key-id A",
            "credbroker credential set --provider p --org-owned --bearer --region us-east-1 --executor e",
            "credbroker credential status --member m --health grant-lost,ambiguous --watch",
            "credbroker credential status crd_1 --no-color -o json --context dev",
        ] {
            Cli::try_parse_from(line.split(' ')).unwrap();
        }
    }

    #[test]
    fn what_contradicts_itself_is_refused() {
        for line in [
            "credbroker credential set --provider p",
            "credbroker credential set --provider p --member m --org-owned",
            "credbroker credential set --provider p --org-owned --aws",
            "credbroker credential set --provider p --org-owned --aws --bearer --region us-east-1",
            "credbroker credential set --provider p --org-owned --region us-east-1",
            "credbroker credential set --provider p --org-owned --bearer --region r --access-key-id A",
            "credbroker member link-identities",
            "credbroker resolve --task t --member m --project p",
            "credbroker resolve --member m",
            "credbroker explain --project p",
            "credbroker explain --member m --member-identity git:m --project p",
            "credbroker explain --task t --member-identity git:m --project p",
            "credbroker explain --local-endpoint-down",
            "credbroker org list --ca-pin sha256:x --ca-file f",
            "credbroker member update m",
            "credbroker task create --project p --executor e",
            "credbroker org list --limit 0",
            "credbroker role grant auditor",
            "credbroker role grant auditor --member a --operator opr_1",
            "credbroker role grant king --member a",
            "credbroker operator-token create --member a --role auditor",
            "credbroker api-key create --group everything",
            "credbroker credential status crd_1 --member m",
            "credbroker credential status crd_1 --health ok",
            "credbroker credential status --health fine",
        ] {
            assert!(Cli::try_parse_from(line.split(' ')).is_err(), "{line}");
        }
    }

    #[test]
    fn a_commands_own_flags_are_not_under_the_heading_of_the_connection() {
        fn check(command: &clap::Command) {
            for argument in command.get_arguments() {
                let about_connection = argument.get_help_heading().is_some();
                assert!(
                    !about_connection || argument.is_global_set(),
                    "{} {}",
                    command.get_name(),
                    argument.get_id()
                );
            }
            command.get_subcommands().for_each(check);
        }
        check(&Cli::command());
    }

    /// Arguments are seen by every user of the machine.
    #[test]
    fn no_argument_takes_a_secret() {
        fn check(command: &clap::Command) {
            for argument in command.get_arguments() {
                let name = argument.get_long().unwrap_or_default();
                let names_a_secret = ["token", "key", "secret"].iter().any(|word| name.ends_with(word));
                let names_a_secret = names_a_secret && name != "public-key";
                assert!(
                    !names_a_secret || !argument.get_action().takes_values(),
                    "{} --{name}",
                    command.get_name()
                );
            }
            command.get_subcommands().for_each(check);
        }
        check(&Cli::command());
    }
}
