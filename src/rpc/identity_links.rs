//! Links of outside identities, between message and use case.

use crate::proto;
use crate::service::{IdentityLink, LinkOutcome};

/// The links of a request.
pub(super) fn links(links: &[proto::IdentityLink]) -> Vec<IdentityLink<'_>> {
    links
        .iter()
        .map(|link| IdentityLink {
            member: &link.member,
            identity: &link.identity,
        })
        .collect()
}

/// What became of each, and how many of each sort.
pub(super) fn response(
    links: Vec<proto::IdentityLink>,
    outcomes: &[LinkOutcome],
) -> proto::LinkIdentitiesResponse {
    use proto::IdentityLinkOutcome as Outcome;
    let mut response = proto::LinkIdentitiesResponse::default();
    for (link, outcome) in links.into_iter().zip(outcomes) {
        let mut result = proto::IdentityLinkResult {
            member: link.member,
            identity: link.identity,
            ..Default::default()
        };
        match outcome {
            LinkOutcome::Linked(member) => {
                response.linked += 1;
                result.set_outcome(Outcome::Linked);
                result.holder = member.to_string();
            }
            LinkOutcome::Already(member) => {
                response.already_linked += 1;
                result.set_outcome(Outcome::AlreadyLinked);
                result.holder = member.to_string();
            }
            LinkOutcome::Refused { refusal, holder } => {
                response.refused += 1;
                result.set_outcome(Outcome::Refused);
                result.holder = holder.map(|holder| holder.to_string()).unwrap_or_default();
                result.reason = refusal.reason.code().to_owned();
                result.message = refusal.message.clone();
            }
        }
        response.results.push(result);
    }
    response
}
