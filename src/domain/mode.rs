//! Auth modes, sets of them, and the kinds of credential.

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

    /// Whether it is use of one of the platform's own keys, whose model calls are reported as usage.
    pub const fn has_reported_usage(self) -> bool {
        matches!(self, AuthMode::Metered | AuthMode::Shared)
    }
}

/// A set of modes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ModeSet(u8);

impl ModeSet {
    /// No mode.
    pub const EMPTY: ModeSet = ModeSet(0);

    /// Every mode.
    pub const ALL: ModeSet = ModeSet((1 << AuthMode::ORDER.len()) - 1);

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

    /// What is in either.
    #[must_use]
    pub const fn union(self, other: ModeSet) -> ModeSet {
        ModeSet(self.0 | other.0)
    }

    /// What is in this one and not in `other`.
    #[must_use]
    pub const fn difference(self, other: ModeSet) -> ModeSet {
        ModeSet(self.0 & !other.0)
    }

    /// Whether all of it is in `other`.
    pub const fn is_subset(self, other: ModeSet) -> bool {
        self.difference(other).is_empty()
    }

    /// How many modes it has.
    pub const fn len(self) -> usize {
        self.0.count_ones() as usize
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

/// The names in the fixed order, or `nothing`.
impl std::fmt::Display for ModeSet {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        if self.is_empty() {
            return f.write_str("nothing");
        }
        for (index, mode) in self.iter().enumerate() {
            write!(f, "{}{}", if index == 0 { "" } else { ", " }, mode.name())?;
        }
        Ok(())
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
    /// All of them.
    pub const ALL: [CredentialKind; 4] = [
        CredentialKind::OAuthGrant,
        CredentialKind::ApiKey,
        CredentialKind::Aws,
        CredentialKind::BedrockBearer,
    ];

    /// The name in tables, keys and the journal.
    pub const fn name(self) -> &'static str {
        match self {
            CredentialKind::OAuthGrant => "oauth-grant",
            CredentialKind::ApiKey => "api-key",
            CredentialKind::Aws => "aws",
            CredentialKind::BedrockBearer => "bedrock-bearer",
        }
    }

    /// Whether it is a key that somebody brought, and not a grant that the broker keeps alive.
    pub const fn is_key(self) -> bool {
        !matches!(self, CredentialKind::OAuthGrant)
    }
}

/// One way in which the task may be served.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PermitEntry {
    /// The mode.
    pub mode: AuthMode,
    /// The provider.
    pub provider: String,
    /// The kind of credential; `None` in the modes that use none of the org's or a member's.
    pub kind: Option<CredentialKind>,
    /// The model as this provider names it; empty where none was asked for.
    pub model: String,
}
