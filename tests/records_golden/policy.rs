//! The policy.

use credbroker::domain::matrix::{Cell, Verdict};
use credbroker::domain::mode::{AuthMode, ModeSet};
use credbroker::domain::profile::{OnRejection, Profile};
use credbroker::store::model::{PolicyHead, PolicyPage, PolicyPins};

use super::bytes::check;
use super::id;

#[test]
fn the_policy() {
    check("policy-head", &PolicyHead { version: 300 }, &[]);
    let cell = |mode, provider: Option<&str>, model: &str, verdict| Cell {
        mode,
        provider: provider.map(str::to_owned),
        model: model.parse().unwrap(),
        verdict,
    };
    let cells = vec![
        cell(AuthMode::OAuth, Some("anthropic"), "claude-*", Verdict::Deny),
        cell(AuthMode::Local, None, "*", Verdict::Allow),
        cell(AuthMode::Byok, None, "m", Verdict::Inherit),
    ];
    check("policy-page", &PolicyPage { cells }, &[]);
    let pins = vec![("codex".to_owned(), AuthMode::Metered)];
    check("policy-pins", &PolicyPins { pins }, &[]);
    let mut profile = Profile {
        name: "default".parse().unwrap(),
        modes: ModeSet::EMPTY.with(AuthMode::Shared).with(AuthMode::OAuth),
        on_rejection: OnRejection::Next,
        credential: Some(id(4)),
        models: [("bedrock".to_owned(), "m.1".to_owned())].into(),
    };
    check("profile", &profile, &[3]);
    profile.on_rejection = OnRejection::Fail;
    profile.credential = None;
    check("profile-plain", &profile, &[3]);
}
