//! `credbroker explain`: how a resolution would be decided now, and why, without one.

mod report;

use clap::{Args, ValueEnum};
use serde_json::{Value, json};

use super::IdentityArgs;
use super::sought::SoughtArgs;
use crate::cli::context::ConnectionArgs;
use crate::cli::error::{Failure, Kind};
use crate::cli::operator::names::Names;
use crate::cli::render::{self, enum_name};
use crate::cli::{owner_field, owner_reference, yaml};
use crate::proto;

/// How an explanation is shown.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum ExplainOutput {
    /// For people.
    #[default]
    Table,
    /// For programs: the API's message.
    Json,
    /// The same as YAML.
    Yaml,
}

/// Explain how a resolution would be decided now: what each scope says of each mode, and whose credential wins.
///
/// Takes what `credbroker resolve` takes and hands nothing out: no lease, no exchange with the provider, no cost.
/// Exits with 1 where the resolution would be refused, and tells who has to do what about it.
#[derive(Args, Debug)]
pub struct ExplainArgs {
    #[command(flatten)]
    sought: SoughtArgs,
    /// How it is shown.
    #[arg(short, long, value_enum, default_value_t)]
    output: ExplainOutput,
    #[command(flatten)]
    identity: IdentityArgs,
    #[command(flatten)]
    connection: ConnectionArgs,
}

/// Runs the command.
pub async fn run(args: ExplainArgs) -> Result<(), Failure> {
    let approval = args.sought.approval()?;
    let session = super::open(&args.connection, &args.identity).await?;
    let resolution = args.sought.request(&session, approval.as_ref());
    let request = proto::ExplainResolutionRequest {
        resolution: Some(resolution),
    };
    let answer = session.broker().explain_resolution(request).await;
    let mut answer = answer.map_err(|status| session.failure(status))?.into_inner();
    let refused = !answer.decision.as_ref().is_some_and(|decision| decision.allowed);
    // An agent may not ask for names.
    if args.output == ExplainOutput::Table && !session.is_agent() {
        name_owners(&mut answer, &Names::read(&session).await);
    }
    render::print(&match args.output {
        ExplainOutput::Table => report::text(&answer, render::is_unicode()),
        ExplainOutput::Json => render::json(&object(&answer)),
        ExplainOutput::Yaml => yaml::text(&object(&answer)),
    })?;
    if refused {
        return Err(Failure::new(Kind::Refused, "it would be refused"));
    }
    Ok(())
}

fn name_owners(answer: &mut proto::ExplainResolutionResponse, names: &Names) {
    let Some(decision) = &mut answer.decision else {
        return;
    };
    let of_candidates = decision.candidates.iter_mut().map(|one| &mut one.owner);
    let owners = std::iter::once(&mut decision.owner).chain(of_candidates);
    owners.flat_map(owner_reference).for_each(|id| names.add(id));
}

fn mode(mode: proto::AuthMode) -> String {
    enum_name(mode.as_str_name(), "AUTH_MODE_")
}

/// For programs, under the API's names.
fn object(answer: &proto::ExplainResolutionResponse) -> Value {
    json!({
        "decision": answer.decision.as_ref().map(decision),
        "message": answer.message,
        "remedy": answer.remedy,
        "fault": answer.fault,
    })
}

fn decision(decision: &proto::Decision) -> Value {
    let permit = decision.permit.iter().map(|entry| {
        json!({
            "mode": mode(entry.mode()),
            "provider": entry.provider,
            "kind": enum_name(entry.kind().as_str_name(), "CREDENTIAL_KIND_"),
            "model": entry.model,
        })
    });
    let scopes = decision.scopes.iter().map(|verdict| {
        json!({
            "scope": verdict.scope,
            "mode": mode(verdict.mode()),
            "allowed": verdict.allowed,
            "note": verdict.note,
        })
    });
    let candidates = decision.candidates.iter().map(|candidate| {
        json!({
            "credential": candidate.credential,
            "mode": mode(candidate.mode()),
            "owner": owner_field(candidate.owner.as_ref()).json(),
            "chosen": candidate.chosen,
            "reason": candidate.reason,
            "permit_position": candidate.permit_position,
        })
    });
    json!({
        "allowed": decision.allowed,
        "reason": decision.reason,
        "mode": mode(decision.mode()),
        "provider": decision.provider,
        "model": decision.model,
        "credential": decision.credential,
        "owner": owner_field(decision.owner.as_ref()).json(),
        "permit": permit.collect::<Vec<_>>(),
        "permit_position": decision.permit_position,
        "fallback_reason": decision.fallback_reason,
        "policy_version": decision.policy_version,
        "scopes": scopes.collect::<Vec<_>>(),
        "candidates": candidates.collect::<Vec<_>>(),
        "system_scope": decision.system_scope,
    })
}
