//! `credbroker account disconnect` and `revocations`: an account goes, and what became of its tokens at the provider is
//! told as the provider confirmed it, no better.

use std::time::Duration;

use clap::Args;
use serde_json::{Value, json};

use crate::cli::client::Session;
use crate::cli::error::{Failure, plain};
use crate::cli::input;
use crate::cli::operator::{pages, print_named_list};
use crate::cli::render::{self, Field, ListArgs, Output, Resource, ShowArgs, enum_name};
use crate::domain::time::Time;
use crate::proto;
use crate::proto::TokenFate;

/// The account that goes.
#[derive(Args, Debug)]
pub struct DisconnectArgs {
    /// The credential, `crd_…`, or the connector that the account is connected by.
    #[arg(value_name = "CREDENTIAL|CONNECTOR")]
    account: String,
    /// Of a connector: the member whose account it is, id or name. Without it the caller's own.
    #[arg(long)]
    member: Option<String>,
    /// Remove it from the broker only, and leave the provider alone.
    #[arg(long)]
    keep_upstream: bool,
    /// How long to wait for the provider to confirm: at most 30s.
    #[arg(long, value_name = "TIME", value_parser = humantime::parse_duration, default_value = "5s")]
    wait: Duration,
    /// Do not ask.
    #[arg(long)]
    yes: bool,
    #[command(flatten)]
    show: ShowArgs,
}

/// Disconnects an account.
pub(super) async fn run(session: &Session, args: DisconnectArgs) -> Result<(), Failure> {
    let org = session.org_or_own();
    let credential = credential(session, &org, &args).await?;
    let upstream = if args.keep_upstream {
        "its tokens go on working at the provider until they expire"
    } else {
        "its tokens are revoked at the provider"
    };
    let consequence = format!(
        "This disconnects {credential}: it is gone from the broker at once, tasks that use it stop working, and {upstream}."
    );
    input::confirm(&consequence, args.yes)?;
    let wait = args
        .wait
        .try_into()
        .map_err(|_| Failure::usage("--wait is too long"))?;
    let request = proto::DisconnectAccountRequest {
        org,
        credential: credential.clone(),
        keep_upstream: args.keep_upstream,
        wait: Some(wait),
    };
    let answer = session.accounts().disconnect_account(request).await;
    let answer = answer.map_err(|status| session.failure(status))?.into_inner();
    render::print(&match args.show.output {
        Output::Name => format!("{credential}\n"),
        Output::Json => render::json(&json!({
            "credential": credential,
            "tokens": answer.tokens.iter().map(token).collect::<Vec<_>>(),
            "revocation": answer.revocation,
            "leases_ended": answer.leases_ended,
        })),
        Output::Table => told(&credential, &answer, render::now()),
    })
}

/// The credential that is meant.
async fn credential(session: &Session, org: &str, args: &DisconnectArgs) -> Result<String, Failure> {
    if args.account.starts_with("crd_") {
        return Ok(args.account.clone());
    }
    let failed = |status| session.failure(status);
    let member = match &args.member {
        Some(member) => {
            let request = proto::GetMemberRequest {
                org: org.to_owned(),
                member: member.clone(),
            };
            let answer = session.directory().get_member(request).await.map_err(failed)?;
            answer.into_inner().member.unwrap_or_default().id
        }
        None => {
            let request = proto::WhoAmIRequest {};
            let answer = session.access().who_am_i(request).await.map_err(failed)?;
            answer.into_inner().member
        }
    };
    if member.is_empty() {
        return Err(Failure::usage("whose account it is was not said")
            .because("whoever is signed in is no member and has no account of their own")
            .remedy("Name the credential, or add --member."));
    }
    let all = pages(u32::MAX, |page_size, page_token| {
        let (mut credentials, org) = (session.credentials(), org.to_owned());
        async move {
            let request = proto::ListCredentialsRequest {
                org,
                page_size,
                page_token,
            };
            let page = credentials.list_credentials(request).await?.into_inner();
            Ok((page.credentials, page.next_page_token))
        }
    });
    let all = all.await.map_err(failed)?;
    // A member has one account at most with each provider, and a connector is for one.
    let found = all
        .into_iter()
        .find(|one| is_account(one, &args.account, &member));
    found.map(|one| one.id).ok_or_else(|| {
        Failure::of_reason(
            "NOT_FOUND",
            format!("no account is connected by {:?}", args.account),
        )
        .remedy("'credbroker account list' has the accounts, 'credbroker credential list' their credentials.")
    })
}

fn is_account(credential: &proto::Credential, connector: &str, of: &str) -> bool {
    let owner = credential.owner.as_ref().and_then(|owner| owner.owner.as_ref());
    credential.connector == connector
        && credential.kind() == proto::CredentialKind::OauthGrant
        && matches!(owner, Some(proto::owner::Owner::Member(member)) if member == of)
}

fn token(token: &proto::RevokedToken) -> Value {
    json!({
        "token": token.token,
        "fate": fate(token.fate()),
        "expire_time": token.expire_time.map(|time| time.to_string()),
        "message": token.message,
    })
}

fn fate(fate: TokenFate) -> String {
    enum_name(fate.as_str_name(), "TOKEN_FATE_")
}

/// What became of a token, in a line.
fn line(token: &proto::RevokedToken, now: Time) -> String {
    let until = token.expire_time.as_ref().map(|time| render::relative(time, now));
    let works = match &until {
        Some(until) => format!("it stops working by itself {until}"),
        None => "when it stops working by itself is not known".to_owned(),
    };
    let said = match token.message.as_str() {
        "" => String::new(),
        message => format!("; {}", plain(message)),
    };
    let name = token.token.replace('_', " ");
    match token.fate() {
        TokenFate::Revoked => format!("{name}: revoked, as the provider confirmed{said}"),
        TokenFate::RevokedWithGrant => {
            format!("{name}: revoked with the refresh token, as the provider has it{said}")
        }
        TokenFate::Pending => {
            format!(
                "{name}: not confirmed by the provider yet, which is asked again; until then {works}{said}"
            )
        }
        TokenFate::Expires => format!("{name}: not revoked; {works}{said}"),
        TokenFate::GivenUp | TokenFate::Unspecified => {
            format!("{name}: the provider did not revoke it, and is not asked again; {works}{said}")
        }
    }
}

fn told(credential: &str, answer: &proto::DisconnectAccountResponse, now: Time) -> String {
    let mut text = format!("disconnected {credential}\n");
    for token in &answer.tokens {
        text += &format!("  {}\n", line(token, now));
    }
    if answer.leases_ended > 0 {
        text += &format!("leases ended: {}\n", answer.leases_ended);
    }
    if !answer.revocation.is_empty() {
        text += &format!(
            "{} goes on by itself; 'credbroker account revocations' tells how it ends\n",
            answer.revocation
        );
    }
    text
}

/// Lists revocations.
pub(super) async fn revocations(session: &Session, list: ListArgs) -> Result<(), Failure> {
    let org = session.org_or_own();
    let items = pages(list.limit, |page_size, page_token| {
        let (mut accounts, org) = (session.accounts(), org.clone());
        async move {
            let request = proto::ListRevocationsRequest {
                org,
                page_size,
                page_token,
            };
            let page = accounts.list_revocations(request).await?.into_inner();
            Ok((page.revocations, page.next_page_token))
        }
    });
    let items = items.await.map_err(|status| session.failure(status))?;
    print_named_list(session, items, list).await
}

impl Resource for proto::Revocation {
    const COLUMNS: &'static [&'static str] = &[
        "id",
        "connector",
        "member",
        "tokens",
        "attempts",
        "next_time",
        "create_time",
        "end_time",
    ];

    fn fields(&self) -> Vec<(&'static str, Field)> {
        let fates: Vec<_> = self
            .tokens
            .iter()
            .map(|token| format!("{} {}", token.token, fate(token.fate())))
            .collect();
        let tokens = Field::Both(fates.join(", "), self.tokens.iter().map(token).collect());
        vec![
            ("id", Field::Text(self.id.clone())),
            ("org", Field::Text(self.org.clone())),
            ("member", Field::Text(self.member.clone())),
            ("connector", Field::Text(self.connector.clone())),
            ("credential", Field::Text(self.credential.clone())),
            ("tokens", tokens),
            ("attempts", Field::Number(self.attempts.into())),
            ("next_time", Field::Time(self.next_time)),
            ("create_time", Field::Time(self.create_time)),
            ("end_time", Field::Time(self.end_time)),
        ]
    }

    fn handle(&self) -> String {
        self.id.clone()
    }

    fn references(&mut self) -> Vec<&mut String> {
        vec![&mut self.member]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: Time = Time::from_seconds(1_700_000_000);

    fn revoked(token: &str, fate: TokenFate, message: &str) -> proto::RevokedToken {
        proto::RevokedToken {
            token: token.to_owned(),
            fate: fate as i32,
            expire_time: Some(prost_types::Timestamp {
                seconds: NOW.seconds() + 3_600,
                nanos: 0,
            }),
            message: message.to_owned(),
        }
    }

    /// Nobody who reads it takes what merely expires, or what is pending, for revoked.
    #[test]
    fn what_the_provider_did_not_confirm_is_not_told_as_revoked() {
        for fate in [
            TokenFate::Pending,
            TokenFate::Expires,
            TokenFate::GivenUp,
            TokenFate::Unspecified,
        ] {
            let line = line(&revoked("access_token", fate, "status 503"), NOW);
            assert!(
                !line.contains("revoked,") && !line.contains("revoked with"),
                "{line}"
            );
            assert!(line.contains("by itself in "), "{line}");
            assert!(
                line.contains("status 503") && !line.contains("the provider:"),
                "{line}"
            );
        }
        let answer = proto::DisconnectAccountResponse {
            tokens: vec![
                revoked("refresh_token", TokenFate::Revoked, ""),
                revoked("access_token", TokenFate::Expires, ""),
            ],
            revocation: String::new(),
            leases_ended: 2,
        };
        let text = told("crd_1", &answer, NOW);
        assert!(
            text.contains("refresh token: revoked, as the provider confirmed\n"),
            "{text}"
        );
        assert!(
            text.contains("access token: not revoked; it stops working"),
            "{text}"
        );
        assert!(
            text.contains("leases ended: 2\n") && !text.contains("goes on"),
            "{text}"
        );
    }

    /// A provider's words are no place to draw on somebody's terminal from.
    #[test]
    fn what_a_provider_says_is_shown_as_plain_text() {
        let line = line(
            &revoked("access_token", TokenFate::GivenUp, "no\u{1b}[2J\nway"),
            NOW,
        );
        assert!(!line.contains('\u{1b}') && !line.contains('\n'), "{line:?}");
    }
}
