//! The policy as a TOML file: what is read from one, and how the broker's is written as one.
//!
//! A rule of the file stands for a cell for each of its modes and models. What is written reads back as the same
//! cells, with as few rules as that takes.

use std::collections::{BTreeMap, HashMap};

use serde::de::{Deserializer, Error as _};
use serde::ser::Serializer;
use serde::{Deserialize, Serialize};

use crate::cli::error::Failure;
use crate::domain::matrix::Verdict;
use crate::domain::mode::AuthMode;
use crate::domain::profile::OnRejection;
use crate::proto;

/// A whole file.
#[derive(Debug, Default, PartialEq, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Document {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) system: Option<System>,
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub(super) orgs: BTreeMap<String, Org>,
}

/// The system's part.
#[derive(Debug, Default, PartialEq, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub(super) struct System {
    #[serde(default)]
    matrix: Vec<Rule>,
}

/// An org's part. What an org itself says is named as soon as any of it is; an org of which there are only
/// projects is left as it is.
#[derive(Debug, Default, PartialEq, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Org {
    #[serde(skip_serializing_if = "Option::is_none")]
    pins: Option<BTreeMap<String, Mode>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    matrix: Option<Vec<Rule>>,
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    projects: BTreeMap<String, Project>,
    #[serde(skip_serializing_if = "Option::is_none")]
    profiles: Option<BTreeMap<String, Profile>>,
}

/// A project's part.
#[derive(Debug, Default, PartialEq, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
struct Project {
    #[serde(default)]
    matrix: Vec<Rule>,
}

/// Cells: one for each mode and model.
#[derive(Debug, PartialEq, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
struct Rule {
    #[serde(
        default = "all_modes",
        deserialize_with = "some",
        skip_serializing_if = "are_all_modes"
    )]
    modes: Vec<Mode>,
    #[serde(skip_serializing_if = "Option::is_none")]
    provider: Option<String>,
    #[serde(
        default = "all_models",
        deserialize_with = "some",
        skip_serializing_if = "are_all_models"
    )]
    models: Vec<String>,
    verdict: Says,
}

/// A profile.
#[derive(Debug, PartialEq, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
struct Profile {
    #[serde(deserialize_with = "some")]
    modes: Vec<Mode>,
    #[serde(default)]
    on_rejection: Rejected,
    #[serde(skip_serializing_if = "Option::is_none")]
    credential: Option<String>,
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    models: BTreeMap<String, String>,
}

/// Types of the rules that a file has by their names.
macro_rules! named {
    ($($(#[$doc:meta])* $type:ident($of:ty, $all:expr, $what:literal);)*) => {$(
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, PartialEq)]
        struct $type($of);

        impl<'de> Deserialize<'de> for $type {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                let name = String::deserialize(deserializer)?;
                <$of>::from_name(&name).map(Self).ok_or_else(|| {
                    let all: Vec<_> = $all.into_iter().map(<$of>::name).collect();
                    D::Error::custom(format!(concat!("{:?} is no ", $what, "; one is: {}"), name, all.join(", ")))
                })
            }
        }

        impl Serialize for $type {
            fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.serialize_str(self.0.name())
            }
        }
    )*};
}

named! {
    /// A mode.
    Mode(AuthMode, AuthMode::ORDER, "mode");
    /// A verdict.
    Says(Verdict, Verdict::ALL, "verdict");
    /// What happens after a rejection.
    #[derive(Default)]
    Rejected(OnRejection, OnRejection::ALL, "on_rejection");
}

fn all_modes() -> Vec<Mode> {
    AuthMode::ORDER.map(Mode).to_vec()
}

fn are_all_modes(modes: &[Mode]) -> bool {
    *modes == all_modes()
}

fn all_models() -> Vec<String> {
    vec!["*".to_owned()]
}

fn are_all_models(models: &[String]) -> bool {
    *models == all_models()
}

/// A list with something in it.
fn some<'de, D: Deserializer<'de>, T: Deserialize<'de>>(deserializer: D) -> Result<Vec<T>, D::Error> {
    let list = Vec::deserialize(deserializer)?;
    if list.is_empty() {
        return Err(D::Error::custom(
            "an empty list means nothing here; leave it out, or name one",
        ));
    }
    Ok(list)
}

/// The document in a file's text. `file` is its name, for messages.
pub(super) fn parse(file: &str, text: &str) -> Result<Document, Failure> {
    toml::from_str(text).map_err(|error| {
        let mut failure = Failure::usage(format!("{file} is no policy"));
        for line in error.to_string().lines() {
            failure = failure.because(line);
        }
        failure.remedy("Mend the line; docs/policy.md describes the file.")
    })
}

fn wire_mode(mode: AuthMode) -> i32 {
    (match mode {
        AuthMode::OAuth => proto::AuthMode::Oauth,
        AuthMode::Byok => proto::AuthMode::Byok,
        AuthMode::Metered => proto::AuthMode::Metered,
        AuthMode::Shared => proto::AuthMode::Shared,
        AuthMode::HostSession => proto::AuthMode::HostSession,
        AuthMode::Local => proto::AuthMode::Local,
    }) as i32
}

/// The mode of an answer; one that this program does not know is none of its own.
fn mode_of(value: i32) -> Result<Mode, Failure> {
    let found = AuthMode::ORDER.into_iter().find(|mode| wire_mode(*mode) == value);
    found.map(Mode).ok_or_else(newer)
}

fn newer() -> Failure {
    Failure::new(
        crate::cli::error::Kind::Internal,
        "the broker's policy has something in it that this program does not know",
    )
    .remedy("Use a credbroker of the broker's version.")
}

fn cells(rules: &[Rule]) -> Vec<proto::PolicyCell> {
    let cells = rules.iter().flat_map(|rule| {
        let verdict = match rule.verdict.0 {
            Verdict::Inherit => proto::Verdict::Inherit,
            Verdict::Allow => proto::Verdict::Allow,
            Verdict::Deny => proto::Verdict::Deny,
        };
        let cell = move |mode: &Mode, model: &String| proto::PolicyCell {
            mode: wire_mode(mode.0),
            provider: rule.provider.clone().unwrap_or_default(),
            model: model.clone(),
            verdict: verdict as i32,
        };
        let modes = rule.modes.iter();
        modes.flat_map(move |mode| rule.models.iter().map(move |model| cell(mode, model)))
    });
    cells.collect()
}

impl Profile {
    fn message(&self, name: &str) -> proto::Profile {
        let on_rejection = match self.on_rejection.0 {
            OnRejection::Fail => proto::OnRejection::Fail,
            OnRejection::Next => proto::OnRejection::Next,
        };
        proto::Profile {
            name: name.to_owned(),
            modes: self.modes.iter().map(|mode| wire_mode(mode.0)).collect(),
            on_rejection: on_rejection as i32,
            credential: self.credential.clone().unwrap_or_default(),
            models: self.models.clone().into_iter().collect(),
        }
    }

    fn of(profile: &proto::Profile) -> Result<Self, Failure> {
        let on_rejection = match profile.on_rejection() {
            proto::OnRejection::Next => OnRejection::Next,
            _ => OnRejection::Fail,
        };
        Ok(Self {
            modes: profile
                .modes
                .iter()
                .map(|mode| mode_of(*mode))
                .collect::<Result<_, _>>()?,
            on_rejection: Rejected(on_rejection),
            credential: Some(profile.credential.clone()).filter(|id| !id.is_empty()),
            models: profile.models.clone().into_iter().collect(),
        })
    }
}

impl Org {
    fn message(&self, org: &str) -> proto::OrgPolicy {
        let says = self.matrix.is_some() || self.pins.is_some() || self.profiles.is_some();
        let pins = self
            .pins
            .iter()
            .flatten()
            .map(|(executor, mode)| proto::ExecutorPin {
                executor: executor.clone(),
                mode: wire_mode(mode.0),
            });
        let profiles = self.profiles.iter().flatten();
        let rules = proto::OrgRules {
            matrix: cells(self.matrix.as_deref().unwrap_or_default()),
            pins: pins.collect(),
            profiles: profiles.map(|(name, profile)| profile.message(name)).collect(),
        };
        let project = |(project, part): (&String, &Project)| proto::ProjectPolicy {
            project: project.clone(),
            matrix: cells(&part.matrix),
            ..Default::default()
        };
        proto::OrgPolicy {
            org: org.to_owned(),
            rules: Some(rules).filter(|_| says || self.projects.is_empty()),
            projects: self.projects.iter().map(project).collect(),
            ..Default::default()
        }
    }
}

impl Document {
    /// As the API takes it.
    pub(super) fn message(&self) -> proto::PolicyDocument {
        let system = self.system.as_ref().map(|system| proto::SystemPolicy {
            matrix: cells(&system.matrix),
        });
        proto::PolicyDocument {
            system,
            orgs: self.orgs.iter().map(|(name, org)| org.message(name)).collect(),
        }
    }

    /// The document that says what the system's answer says.
    pub(super) fn of_system(system: &proto::SystemPolicy) -> Result<Self, Failure> {
        Ok(Self {
            system: Some(System {
                matrix: rules(&system.matrix)?,
            }),
            ..Self::default()
        })
    }

    /// The document that says what an org's answers say.
    pub(super) fn of_org(org: &proto::OrgPolicy, profiles: &[proto::Profile]) -> Result<Self, Failure> {
        let own = org.rules.clone().unwrap_or_default();
        let pins = own
            .pins
            .iter()
            .map(|pin| Ok((pin.executor.clone(), mode_of(pin.mode)?)));
        let projects = org.projects.iter().map(|project| {
            let matrix = rules(&project.matrix)?;
            Ok((either(&project.name, &project.project), Project { matrix }))
        });
        let profiles = profiles
            .iter()
            .map(|profile| Ok((profile.name.clone(), Profile::of(profile)?)));
        let part = Org {
            pins: Some(pins.collect::<Result<_, Failure>>()?),
            matrix: Some(rules(&own.matrix)?),
            projects: projects.collect::<Result<_, Failure>>()?,
            profiles: Some(profiles.collect::<Result<_, Failure>>()?),
        };
        Ok(Self {
            orgs: [(either(&org.name, &org.org), part)].into(),
            ..Self::default()
        })
    }

    /// As a file.
    pub(super) fn text(&self) -> Result<String, Failure> {
        toml::to_string(self).map_err(|error| {
            Failure::new(
                crate::cli::error::Kind::Internal,
                format!("cannot be written as TOML: {error}"),
            )
        })
    }
}

fn either(name: &str, id: &str) -> String {
    if name.is_empty() { id } else { name }.to_owned()
}

/// Rules that stand for these cells: cells that differ in the mode only become one, and of those the ones that
/// differ in the model only.
fn rules(cells: &[proto::PolicyCell]) -> Result<Vec<Rule>, Failure> {
    let mut by_model: Vec<(&proto::PolicyCell, Vec<Mode>)> = Vec::new();
    let mut places = HashMap::new();
    for cell in cells {
        let place = (&cell.provider, &cell.model, cell.verdict);
        let at = *places.entry(place).or_insert_with(|| {
            by_model.push((cell, Vec::new()));
            by_model.len() - 1
        });
        by_model[at].1.push(mode_of(cell.mode)?);
    }
    let mut rules: Vec<Rule> = Vec::new();
    let mut places = HashMap::new();
    for (cell, modes) in by_model {
        let verdict = match cell.verdict() {
            proto::Verdict::Inherit => Verdict::Inherit,
            proto::Verdict::Allow => Verdict::Allow,
            proto::Verdict::Deny => Verdict::Deny,
            proto::Verdict::Unspecified => return Err(newer()),
        };
        let names: Vec<_> = modes.iter().map(|mode| mode.0.name()).collect();
        let at = *places
            .entry((&cell.provider, cell.verdict, names))
            .or_insert_with(|| {
                rules.push(Rule {
                    modes,
                    provider: Some(cell.provider.clone()).filter(|provider| !provider.is_empty()),
                    models: Vec::new(),
                    verdict: Says(verdict),
                });
                rules.len() - 1
            });
        rules[at].models.push(cell.model.clone());
    }
    Ok(rules)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn fails(text: &str) -> String {
        parse("policy.toml", text).unwrap_err().account()
    }

    #[test]
    fn what_is_wrong_is_told_with_its_line() {
        for (text, told) in [
            ("[system]\nmatrx = []", "line 2"),
            (
                "[[system.matrix]]\nverdict = \"deny\"\nmode = [\"byok\"]",
                "line 3",
            ),
            (
                "[[system.matrix]]\nmodes = [\"cash\"]\nverdict = \"deny\"",
                "no mode",
            ),
            ("[[system.matrix]]\nmodes = []\nverdict = \"deny\"", "empty list"),
            ("[[system.matrix]]\nverdict = \"perhaps\"", "line 2"),
            ("[[system.matrix]]\nprovider = \"x\"", "verdict"),
            ("[orgs.a.profiles.p]\non_rejection = \"next\"", "modes"),
            ("[orgs.a]\nteams = {}", "line 2"),
        ] {
            let said = fails(text);
            assert!(said.contains(told) && said.contains("policy.toml"), "{said}");
        }
    }

    #[test]
    fn a_rule_stands_for_each_of_its_modes_and_models() {
        let text = "[[system.matrix]]\nmodes = [\"byok\", \"shared\"]\nmodels = [\"a\", \"b-*\"]\nverdict = \"deny\"\n\
                    [[system.matrix]]\nprovider = \"p\"\nverdict = \"inherit\"\n";
        let message = parse("f", text).unwrap().message();
        let cells = message.system.unwrap().matrix;
        assert_eq!(cells.len(), 4 + AuthMode::ORDER.len());
        assert!(
            cells[4..]
                .iter()
                .all(|cell| cell.model == "*" && cell.provider == "p")
        );
        assert!(message.orgs.is_empty());
    }

    #[test]
    fn an_org_of_which_only_projects_are_named_says_nothing_itself() {
        let rules = |text: &str| parse("f", text).unwrap().message().orgs[0].rules.clone();
        assert_eq!(rules("[orgs.a.projects.web]"), None);
        assert_eq!(rules("[orgs.a]"), Some(proto::OrgRules::default()));
        assert!(rules("[orgs.a]\nmatrix = []\n[orgs.a.projects.web]").is_some());
        assert_eq!(parse("f", "").unwrap().message().system, None);
        let system = parse("f", "[system]").unwrap().message().system;
        assert_eq!(system, Some(proto::SystemPolicy::default()));
    }

    #[test]
    fn what_is_written_reads_back_as_the_same() {
        let text = r#"
            [[system.matrix]]
            verdict = "deny"
            modes = ["shared", "host-session"]
            models = ["b", "a-*"]
            [[system.matrix]]
            verdict = "deny"
            modes = ["shared"]
            models = ["c"]
            [[system.matrix]]
            verdict = "allow"
            provider = "p"
            [orgs.acme]
            pins = { codex = "oauth" }
            [[orgs.acme.projects.web.matrix]]
            verdict = "deny"
            modes = ["byok"]
            [orgs.acme.profiles.default]
            modes = ["oauth", "byok"]
            on_rejection = "next"
            credential = "crd_x"
            models = { bedrock = "m.x" }
        "#;
        let read = parse("f", text).unwrap();
        let message = read.message();
        let sorted = |mut cells: Vec<proto::PolicyCell>| {
            cells.sort_by_key(|cell| (cell.mode, cell.provider.clone(), cell.model.clone()));
            cells
        };
        let system = message.system.unwrap();
        let written = Document::of_system(&system).unwrap().text().unwrap();
        let again = parse("f", &written).unwrap().message();
        assert_eq!(
            sorted(again.system.unwrap().matrix),
            sorted(system.matrix),
            "{written}"
        );
        assert_eq!(written.matches("[[system.matrix]]").count(), 3, "{written}");

        let mut org = message.orgs.into_iter().next().unwrap();
        let profiles = std::mem::take(&mut org.rules.as_mut().unwrap().profiles);
        let written = Document::of_org(&org, &profiles).unwrap().text().unwrap();
        let again = parse("f", &written).unwrap();
        assert_eq!(Document::of_org(&org, &profiles).unwrap(), again, "{written}");
        let rules = again.message().orgs[0].rules.clone().unwrap();
        assert_eq!((rules.profiles, rules.pins.len()), (profiles, 1));
    }
}
