//! Profiles: what an org calls a way to pay for model calls, by name.

use std::collections::BTreeMap;

use super::id::CredentialId;
use super::mode::ModeSet;
use super::name::Name;

/// What happens when a provider has rejected a credential for good.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum OnRejection {
    /// Stop, and ask for a new sign-in.
    #[default]
    Fail,
    /// Go on along the permit.
    Next,
}

impl OnRejection {
    /// Both of them.
    pub const ALL: [OnRejection; 2] = [OnRejection::Fail, OnRejection::Next];

    /// The name in policy files and tables.
    pub const fn name(self) -> &'static str {
        match self {
            OnRejection::Fail => "fail",
            OnRejection::Next => "next",
        }
    }

    /// The one of this name.
    pub fn from_name(name: &str) -> Option<OnRejection> {
        Self::ALL.into_iter().find(|each| each.name() == name)
    }
}

/// A profile of an org.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Profile {
    /// Its name, unique in the org.
    pub name: Name,
    /// The modes it takes; never empty.
    pub modes: ModeSet,
    /// What happens when a provider has rejected a credential for good.
    pub on_rejection: OnRejection,
    /// The key of the org that byok uses in place of whatever the member or the org has.
    pub credential: Option<CredentialId>,
    /// The model that this profile means at each provider, by the provider's name.
    pub models: BTreeMap<String, String>,
}

impl Profile {
    /// The most providers that one profile names models for. With the longest names and models they fit one
    /// value of the store.
    pub const MAX_MODELS: usize = 16;
    /// The longest name of a model, in bytes.
    pub const MAX_MODEL: usize = 128;

    /// The model that it means at this provider; empty where it names none, which stands for every model.
    pub fn model(&self, provider: &str) -> &str {
        self.models.get(provider).map_or("", String::as_str)
    }
}
