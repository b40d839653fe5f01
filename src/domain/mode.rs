//! Auth modes, and the permit: the ordered list of ways a task may be served, which only the gate makes.

use super::reason::{Reason, Refusal};

/// How a task pays for and authenticates its model calls. The declaration order is the fixed order of
/// preference; it is append-only.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum AuthMode {
    /// A member's own account, by an OAuth grant.
    OAuth,
    /// A key the member or the org brought.
    Byok,
    /// The platform's key, paid from the org's credit.
    Metered,
    /// The platform's key, free up to a quota.
    Shared,
    /// The session the official program has on the machine.
    HostSession,
    /// A model served on the machine.
    Local,
}

impl AuthMode {
    /// All modes, in the fixed order.
    pub const ORDER: [AuthMode; 6] = [
        AuthMode::OAuth,
        AuthMode::Byok,
        AuthMode::Metered,
        AuthMode::Shared,
        AuthMode::HostSession,
        AuthMode::Local,
    ];

    /// The name in configuration, tables and the journal.
    pub const fn name(self) -> &'static str {
        match self {
            AuthMode::OAuth => "oauth",
            AuthMode::Byok => "byok",
            AuthMode::Metered => "metered",
            AuthMode::Shared => "shared",
            AuthMode::HostSession => "host-session",
            AuthMode::Local => "local",
        }
    }

    /// The mode of this name.
    pub fn from_name(name: &str) -> Option<AuthMode> {
        Self::ORDER.into_iter().find(|mode| mode.name() == name)
    }
}

/// A set of modes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ModeSet(u8);

impl ModeSet {
    /// No mode.
    pub const EMPTY: ModeSet = ModeSet(0);

    /// The set with `mode` added.
    #[must_use]
    pub const fn with(self, mode: AuthMode) -> ModeSet {
        ModeSet(self.0 | 1 << mode as u8)
    }

    /// Whether `mode` is in it.
    pub const fn contains(self, mode: AuthMode) -> bool {
        self.0 & (1 << mode as u8) != 0
    }

    /// What is in both.
    #[must_use]
    pub const fn intersection(self, other: ModeSet) -> ModeSet {
        ModeSet(self.0 & other.0)
    }

    /// Whether it has no mode.
    pub const fn is_empty(self) -> bool {
        self.0 == 0
    }

    /// The modes in the fixed order.
    pub fn iter(self) -> impl Iterator<Item = AuthMode> {
        AuthMode::ORDER
            .into_iter()
            .filter(move |mode| self.contains(*mode))
    }
}

impl FromIterator<AuthMode> for ModeSet {
    fn from_iter<I: IntoIterator<Item = AuthMode>>(modes: I) -> Self {
        modes.into_iter().fold(Self::EMPTY, Self::with)
    }
}

/// What kind of credential an entry of a permit hands out.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum CredentialKind {
    /// An OAuth grant.
    OAuthGrant,
    /// A provider's API key.
    ApiKey,
    /// AWS keys.
    Aws,
    /// A bearer key for Bedrock.
    BedrockBearer,
}

impl CredentialKind {
    /// The name in tables, keys and the journal.
    pub const fn name(self) -> &'static str {
        match self {
            CredentialKind::OAuthGrant => "oauth-grant",
            CredentialKind::ApiKey => "api-key",
            CredentialKind::Aws => "aws",
            CredentialKind::BedrockBearer => "bedrock-bearer",
        }
    }
}

/// One way in which the task may be served.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PermitEntry {
    /// The mode.
    pub mode: AuthMode,
    /// The provider.
    pub provider: String,
    /// The kind of credential.
    pub kind: CredentialKind,
    /// The model as this provider names it; empty where none was asked for.
    pub model: String,
}

/// Proof that the gate was passed: an ordered, non-empty list of ways to serve the task. Vending takes one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Permit {
    entries: Vec<PermitEntry>,
    policy_version: u64,
}

impl Permit {
    /// The entries, in order; never empty.
    pub fn entries(&self) -> &[PermitEntry] {
        &self.entries
    }

    /// The version of the policy it was made under.
    pub fn policy_version(&self) -> u64 {
        self.policy_version
    }
}

/// What the gate judges.
#[derive(Clone, Copy, Debug)]
pub struct GateInput<'a> {
    /// The executor's name.
    pub executor: &'a str,
    /// The provider that will answer.
    pub provider: &'a str,
    /// The model asked for; empty for none.
    pub model: &'a str,
    /// What the registry says the executor can do with the provider.
    pub supported: ModeSet,
    /// What the policy in force allows.
    pub allowed: ModeSet,
    /// The version of that policy.
    pub policy_version: u64,
}

/// The gate: the only maker of a [`Permit`]. Fails closed: a mode that either side does not name is not in
/// the permit, and no mode at all is a refusal.
pub fn gate(input: GateInput<'_>) -> Result<Permit, Refusal> {
    let entries: Vec<_> = input
        .supported
        .intersection(input.allowed)
        .iter()
        .filter_map(|mode| {
            let kind = match mode {
                AuthMode::OAuth => CredentialKind::OAuthGrant,
                AuthMode::Byok => CredentialKind::ApiKey,
                // Vending for these modes is not built; the gate keeps them out rather than promise it.
                AuthMode::Metered | AuthMode::Shared | AuthMode::HostSession | AuthMode::Local => {
                    return None;
                }
            };
            Some(PermitEntry {
                mode,
                provider: input.provider.to_owned(),
                kind,
                model: input.model.to_owned(),
            })
        })
        .collect();
    if entries.is_empty() {
        return Err(Refusal::new(
            Reason::ProviderUnsupported,
            format!(
                "{} has no auth mode for provider {}",
                input.executor, input.provider
            ),
        )
        .with("executor", input.executor)
        .with("provider", input.provider));
    }
    Ok(Permit {
        entries,
        policy_version: input.policy_version,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn input(supported: ModeSet, allowed: ModeSet) -> GateInput<'static> {
        GateInput {
            executor: "e",
            provider: "p",
            model: "",
            supported,
            allowed,
            policy_version: 1,
        }
    }

    #[test]
    fn the_permit_keeps_the_fixed_order_whatever_the_set_was_built_from() {
        let modes: ModeSet = [AuthMode::Byok, AuthMode::OAuth].into_iter().collect();
        let permit = gate(input(modes, modes)).unwrap();
        let order: Vec<_> = permit.entries().iter().map(|entry| entry.mode).collect();
        assert_eq!(order, [AuthMode::OAuth, AuthMode::Byok]);
    }

    #[test]
    fn the_gate_fails_closed() {
        let oauth = ModeSet::EMPTY.with(AuthMode::OAuth);
        let byok = ModeSet::EMPTY.with(AuthMode::Byok);
        assert_eq!(
            gate(input(oauth, byok)).unwrap_err().reason,
            Reason::ProviderUnsupported
        );
        assert!(gate(input(ModeSet::EMPTY, oauth)).is_err());
    }
}
