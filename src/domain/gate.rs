//! The gate, and the permit that only it makes: the ordered list of ways a task may be served.

use super::mode::{AuthMode, CredentialKind, ModeSet, PermitEntry};
use super::reason::Reason;
use super::refusal::Refusal;

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
    /// The kinds of credential that the provider takes, the preferred one first.
    pub kinds: &'a [CredentialKind],
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
        .flat_map(|mode| {
            let kinds = input.kinds.iter().copied().filter(move |kind| match mode {
                AuthMode::OAuth => !kind.is_key(),
                AuthMode::Byok => kind.is_key(),
                // Vending for these modes is not built; the gate keeps them out rather than promise it.
                AuthMode::Metered | AuthMode::Shared | AuthMode::HostSession | AuthMode::Local => false,
            });
            kinds.map(move |kind| PermitEntry {
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
            kinds: &[CredentialKind::OAuthGrant, CredentialKind::ApiKey],
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
