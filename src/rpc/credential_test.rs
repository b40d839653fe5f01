//! What came of testing a credential, as a message.

use super::convert::{proto_duration, timestamp};
use crate::domain::key_test::Verdict;
use crate::proto;
use crate::service::{RejectedToken, Tested};

fn outcome(verdict: Verdict) -> proto::CredentialTestOutcome {
    use proto::CredentialTestOutcome as Wire;
    match verdict {
        Verdict::Works => Wire::Works,
        Verdict::Rejected => Wire::Rejected,
        Verdict::NotPermitted => Wire::NotPermitted,
        Verdict::Limited => Wire::Limited,
        Verdict::Billing => Wire::Billing,
        Verdict::Unreachable => Wire::Unreachable,
        Verdict::Unclear => Wire::Unclear,
        Verdict::Untestable => Wire::Untestable,
    }
}

fn rejected(token: RejectedToken) -> proto::RejectedToken {
    let refused = token.refused.as_ref();
    proto::RejectedToken {
        generation: token.generation,
        http_status: i32::from(token.status),
        message: token.message,
        refresh_reason: refused.map_or(String::new(), |refusal| refusal.reason.code().to_owned()),
        refresh_message: refused.map_or(String::new(), |refusal| refusal.message.clone()),
    }
}

pub(super) fn answer(tested: Tested) -> proto::TestCredentialResponse {
    let checked = tested.checked;
    let facts = checked.facts.into_iter();
    proto::TestCredentialResponse {
        outcome: outcome(checked.outcome).into(),
        http_status: i32::from(checked.status),
        message: checked.message,
        retry_after: tested.retry_after.map(proto_duration),
        host: tested.host,
        latency: Some(proto_duration(tested.took)),
        generation: checked.generation,
        refreshed: tested.refreshed,
        facts: facts
            .map(|(label, value)| proto::CredentialFact { label, value })
            .collect(),
        check_time: Some(timestamp(checked.at)),
        remembered: tested.remembered,
        rejected: tested.rejected.map(rejected),
    }
}
