//! Every reason the broker gives, in one append-only list: its code, who is at fault, and the remedy.
//!
//! `docs/errors.md` is made from this list, and a test keeps it so. A code is never renamed or reused.

/// Who has to do something about it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// The program that called.
    Caller,
    /// The member whose account or task it is.
    Member,
    /// An admin of the org, or the broker's operator.
    Admin,
    /// The provider; it may pass.
    Provider,
    /// The broker itself; it may pass.
    Broker,
}

impl Fault {
    /// The name in answers.
    pub const fn name(self) -> &'static str {
        match self {
            Fault::Caller => "caller",
            Fault::Member => "member",
            Fault::Admin => "admin",
            Fault::Provider => "provider",
            Fault::Broker => "broker",
        }
    }
}

/// What sort of failure it is. The transport's own codes are chosen from this, in `rpc::status` only.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Class {
    /// The caller did not show who it is.
    Unauthenticated,
    /// The caller is known and may not.
    Denied,
    /// There is no such thing, as far as this caller may know.
    NotFound,
    /// The request is not well formed.
    Invalid,
    /// The state of things does not allow it now.
    Precondition,
    /// There is one already.
    Exists,
    /// Somebody else changed it first.
    Aborted,
    /// A limit was reached.
    Exhausted,
    /// Not now; trying again later may help.
    Unavailable,
    /// It took longer than it may.
    TimedOut,
    /// There is no such call.
    Unimplemented,
    /// A fault of the broker.
    Internal,
}

macro_rules! reasons {
    ($($variant:ident, $code:literal, $class:ident, $fault:ident, $remedy:literal;)*) => {
        /// Why something was refused or failed.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        pub enum Reason {
            $(
                #[doc = concat!("`", $code, "`. ", $remedy)]
                $variant,
            )*
        }

        impl Reason {
            /// All of them, in the order they were added.
            pub const ALL: &'static [Reason] = &[$(Reason::$variant,)*];

            /// The code, as machines compare it.
            pub const fn code(self) -> &'static str {
                match self { $(Reason::$variant => $code,)* }
            }

            /// What sort of failure it is.
            pub const fn class(self) -> Class {
                match self { $(Reason::$variant => Class::$class,)* }
            }

            /// Who has to do something about it.
            pub const fn fault(self) -> Fault {
                match self { $(Reason::$variant => Fault::$fault,)* }
            }

            /// What to do.
            pub const fn remedy(self) -> &'static str {
                match self { $(Reason::$variant => $remedy,)* }
            }

            /// The reason of this code.
            pub fn from_code(code: &str) -> Option<Reason> {
                match code { $($code => Some(Reason::$variant),)* _ => None }
            }
        }
    };
}

reasons! {
    CredentialMissing, "CREDENTIAL_MISSING", Unauthenticated, Caller,
        "Send the broker credential as metadata 'authorization: Bearer TOKEN'.";
    CredentialMalformed, "CREDENTIAL_MALFORMED", Unauthenticated, Caller,
        "The token is cut short or mistyped: its checksum does not fit. Copy it whole.";
    CredentialUnknown, "CREDENTIAL_UNKNOWN", Unauthenticated, Caller,
        "The token is not known, has expired or was revoked. Ask for a new one.";
    WrongCredentialFamily, "WRONG_CREDENTIAL_FAMILY", Unauthenticated, Caller,
        "This call takes another kind of token; the metadata names the kinds it takes.";
    ClientCertificateRequired, "CLIENT_CERTIFICATE_REQUIRED", Unauthenticated, Caller,
        "This caller calls over mTLS: present the client certificate from enrollment, or the one issued with the API key.";
    CertificateMismatch, "CERTIFICATE_MISMATCH", Unauthenticated, Caller,
        "The token and the client certificate were not issued together. Use the pair from one enrollment, or that of one API key.";
    PermissionDenied, "PERMISSION_DENIED", Denied, Caller,
        "This actor may not make this call. Use a credential that may, or ask an admin.";
    NotFound, "NOT_FOUND", NotFound, Caller,
        "Check the id or name, and that you may see it.";
    InvalidArgument, "INVALID_ARGUMENT", Invalid, Caller,
        "Mend the field named in the details.";
    AlreadyExists, "ALREADY_EXISTS", Exists, Caller,
        "Choose another name, or use the one that exists.";
    Conflict, "CONFLICT", Aborted, Caller,
        "It changed in the meantime. Read it again and repeat the change.";
    RequestIdReused, "REQUEST_ID_REUSED", Invalid, Caller,
        "This request_id was used with other content. Use a new UUID for a new request.";
    EnrollmentTokenUnknown, "ENROLLMENT_TOKEN_UNKNOWN", Unauthenticated, Caller,
        "The enrollment token is not known here. Check that it was copied whole and is for this broker.";
    EnrollmentTokenExpired, "ENROLLMENT_TOKEN_EXPIRED", Unauthenticated, Caller,
        "The enrollment token has expired. Ask for a new one.";
    EnrollmentTokenRevoked, "ENROLLMENT_TOKEN_REVOKED", Unauthenticated, Caller,
        "The enrollment token was revoked. Ask for a new one.";
    EnrollmentTokenSpent, "ENROLLMENT_TOKEN_SPENT", Unauthenticated, Caller,
        "The enrollment token has enrolled all the agents it may. Ask for a new one.";
    EnrollmentTokenBound, "ENROLLMENT_TOKEN_BOUND", Denied, Admin,
        "The enrollment token is bound to another key: somebody else has used it. Revoke that agent and mint a new token.";
    CsrInvalid, "CSR_INVALID", Invalid, Caller,
        "Send a PKCS#10 request in DER, signed by its own key.";
    CsrKeyUnsupported, "CSR_KEY_UNSUPPORTED", Invalid, Caller,
        "Use an ECDSA P-256 or Ed25519 key.";
    CsrAsksTooMuch, "CSR_ASKS_TOO_MUCH", Invalid, Caller,
        "The request asks for names or extensions. The broker decides those: send an empty subject and no extensions.";
    CsrKeyNotEnrolled, "CSR_KEY_NOT_ENROLLED", Invalid, Caller,
        "A renewal is signed by the enrolled key. To change the key, enroll again.";
    TaskRequired, "TASK_REQUIRED", Invalid, Caller,
        "Name the task: this agent is assigned to none, or to several.";
    TaskEnded, "TASK_ENDED", Precondition, Caller,
        "The task was ended. Ask the control plane for a new one.";
    TaskExpired, "TASK_EXPIRED", Precondition, Caller,
        "The task's time is over. Ask the control plane for a new one.";
    TaskMismatch, "TASK_MISMATCH", Denied, Caller,
        "The request differs from what the task fixes; the metadata names the field. Leave it empty to take the task's.";
    ExecutorUnknown, "EXECUTOR_UNKNOWN", Invalid, Admin,
        "The executor is not in the registry. Check its name, or add it in the configuration.";
    ProviderUnknown, "PROVIDER_UNKNOWN", Invalid, Admin,
        "The provider is not in the registry. Check its name, or add it in the configuration.";
    ProviderUnsupported, "PROVIDER_UNSUPPORTED", Precondition, Caller,
        "This executor cannot use that provider. The metadata names those it can.";
    NoCredentialConfigured, "NO_CREDENTIAL_CONFIGURED", Precondition, Admin,
        "Nothing is configured for this executor and provider: store a key with 'credbroker credential set', or connect an account.";
    ConnectAccount, "CONNECT_ACCOUNT", Precondition, Member,
        "The member has no account connected for this provider. Connect one, then ask again.";
    ReauthRequired, "REAUTH_REQUIRED", Precondition, Member,
        "The provider no longer accepts the grant: sign in again. The provider's message is in the metadata.";
    CredentialUnusable, "CREDENTIAL_UNUSABLE", Precondition, Admin,
        "The credential cannot be read or used. See its status, and store it again.";
    RefreshUnavailable, "REFRESH_UNAVAILABLE", Unavailable, Provider,
        "The provider's token endpoint could not be reached or did not process the request. The grant is intact; try again after the time given.";
    RefreshAmbiguous, "REFRESH_AMBIGUOUS", Unavailable, Provider,
        "A refresh was sent and its answer was lost. The broker will settle it; try again after the time given.";
    RotationLimited, "ROTATION_LIMITED", Exhausted, Caller,
        "Too many forced rotations. A new token that is rejected at once has another cause: look at the provider's message.";
    KeyShapeMismatch, "KEY_SHAPE_MISMATCH", Invalid, Caller,
        "This does not look like a key of that provider. Check which key it is; --force stores it all the same.";
    ConnectorUnknown, "CONNECTOR_UNKNOWN", Invalid, Admin,
        "The connector is not configured. Check its name, or add it in the configuration.";
    ConnectorDisabled, "CONNECTOR_DISABLED", Precondition, Admin,
        "The connector is off, or its terms are not accepted: list it under connectors.accept_terms in the configuration.";
    GrantNotShareable, "GRANT_NOT_SHAREABLE", Precondition, Caller,
        "This provider's grants are personal: set a member as the owner.";
    LeaseEnded, "LEASE_ENDED", Precondition, Caller,
        "The lease was released, revoked or has expired. Resolve again.";
    JournalUnavailable, "JOURNAL_UNAVAILABLE", Unavailable, Broker,
        "The broker cannot write its journal and hands nothing out until it can. Operators: see the log and the disk.";
    StoreUnavailable, "STORE_UNAVAILABLE", Unavailable, Broker,
        "The broker cannot use its store. Operators: see the log and the disk.";
    Overloaded, "OVERLOADED", Exhausted, Broker,
        "The broker has as much to do as it may take on. Try again after the time given.";
    ShuttingDown, "SHUTTING_DOWN", Unavailable, Broker,
        "The broker is stopping. Try again; another or a restarted one will answer.";
    MessageTooLarge, "MESSAGE_TOO_LARGE", Exhausted, Caller,
        "Send less in one message; no call needs as much as the limit.";
    MessageMalformed, "MESSAGE_MALFORMED", Invalid, Caller,
        "The message does not decode. Use the API's own definitions, by reflection or from proto/.";
    UnknownMethod, "UNKNOWN_METHOD", Unimplemented, Caller,
        "This broker does not have that call. Check the name, and the broker's version.";
    DeadlineExceeded, "DEADLINE_EXCEEDED", TimedOut, Broker,
        "The call took longer than it may. What it began goes on; try again.";
    Internal, "INTERNAL", Internal, Broker,
        "A fault of the broker. Its log has the cause under the request id.";
    IdTokenInvalid, "ID_TOKEN_INVALID", Unauthenticated, Caller,
        "Sign in again with 'credbroker login'. If it stays so, compare the issuer's settings with oidc.issuers.";
    IdTokenExpired, "ID_TOKEN_EXPIRED", Unauthenticated, Caller,
        "The ID token has expired. Refresh it at its issuer, or sign in again with 'credbroker login'.";
    IssuerUnknown, "ISSUER_UNKNOWN", Invalid, Admin,
        "The issuer is not configured, or not for this org. The broker's operator adds it under oidc.issuers, written as its discovery document does.";
    IssuerUnavailable, "ISSUER_UNAVAILABLE", Unavailable, Provider,
        "The issuer's keys could not be fetched, so its token can be neither taken nor refused. Try again after the time given; the broker's log has the cause.";
    IdentityNotLinked, "IDENTITY_NOT_LINKED", Unauthenticated, Admin,
        "An admin of your org links you to a member: 'credbroker member update MEMBER --identity IDENTITY', with the identity in the metadata.";
    OrgRequired, "ORG_REQUIRED", Unauthenticated, Caller,
        "Name one of your orgs in the request's metadata 'credbroker-org': --org, or the org of the context.";
    EnrollmentNetwork, "ENROLLMENT_NETWORK", Denied, Admin,
        "The enrollment token may not be presented from this address. Enroll from an allowed network, or mint a token that allows this one.";
    AgentExpired, "AGENT_EXPIRED", Unauthenticated, Caller,
        "The agent was not seen for too long and has ended. Enroll again with a new enrollment token.";
    AgentCloned, "AGENT_CLONED", Denied, Admin,
        "Two copies of this agent were at work, so it was locked. Find out which is the true one, then remove the lock or revoke the agent.";
    RenewalNonceStale, "RENEWAL_NONCE_STALE", Precondition, Caller,
        "The nonce is not good any more. Ask for a new one, sign that, and try again.";
    RenewalProofInvalid, "RENEWAL_PROOF_INVALID", Unauthenticated, Caller,
        "The signature does not fit. It is made by the enrolled key over the label, the nonce, the hash of the request and the serial number.";
    RenewalTooLate, "RENEWAL_TOO_LATE", Unauthenticated, Caller,
        "The certificate ended too long ago to be renewed. Enroll again with a new enrollment token.";
    LastSystemAdmin, "LAST_SYSTEM_ADMIN", Precondition, Admin,
        "This is the last system admin whose token works. Make another one first: 'credbroker operator-token create --role system-admin'.";
    TokenRevoked, "TOKEN_REVOKED", Precondition, Caller,
        "A revoked token or key is not rotated. Make a new one.";
    TokenReplaced, "TOKEN_REPLACED", Denied, Caller,
        "The token shown was rotated away and makes no other. Use the one that replaced it.";
    TooManyRoles, "TOO_MANY_ROLES", Precondition, Admin,
        "The holder has as many roles as fit. Revoke one first, or give one that covers more.";
    TooManyTokens, "TOO_MANY_TOKENS", Precondition, Caller,
        "The member has as many operator tokens as one may. Revoke one first.";
    ApprovalRequired, "APPROVAL_REQUIRED", Precondition, Caller,
        "The environment demands an approval. Ask for one with 'credbroker approval request' for what the metadata names, and send its token with the resolution once it is granted.";
    ApprovalUnknown, "APPROVAL_UNKNOWN", Denied, Caller,
        "The approval is not known here. Check that its token was copied whole and is of this org.";
    ApprovalMismatch, "APPROVAL_MISMATCH", Denied, Caller,
        "The approval is for something else; the metadata names the field. Ask for one that covers it.";
    ApprovalPending, "APPROVAL_PENDING", Precondition, Caller,
        "Nobody has decided about the approval yet. Wait for an approver, then ask again.";
    ApprovalDenied, "APPROVAL_DENIED", Precondition, Caller,
        "The approval was denied; it says by whom and why. Ask for another only if something has changed.";
    ApprovalExpired, "APPROVAL_EXPIRED", Precondition, Caller,
        "The approval's time is over, or nobody decided in time. Ask for a new one.";
    ApprovalSpent, "APPROVAL_SPENT", Precondition, Caller,
        "The approval was used as often as it may be. Ask for a new one.";
    ApprovalRevoked, "APPROVAL_REVOKED", Precondition, Caller,
        "The approval was taken back. Ask for a new one.";
    ApprovalOwn, "APPROVAL_OWN", Denied, Caller,
        "Nobody decides about what they asked for, or about a task that runs for them. Ask another approver.";
    ApprovalDecided, "APPROVAL_DECIDED", Precondition, Caller,
        "The approval was decided already, or taken back. See how it stands.";
    ApprovalsPending, "APPROVALS_PENDING", Exhausted, Caller,
        "As many approvals as may be are waiting to be decided. Wait for those, or have them decided.";
    SecretLimit, "SECRET_LIMIT", Exhausted, Admin,
        "The org has as many namespaces, or the namespace as many secrets or grants, as it may. Remove some.";
    Locked, "LOCKED", Denied, Admin,
        "An admin has stopped it for now; the metadata names what is locked and the lock. Ask an admin to remove the lock.";
    KindUnsupported, "CREDENTIAL_KIND_UNSUPPORTED", Invalid, Caller,
        "The provider takes other kinds of credential; the metadata names them. Check the provider, and which key it is.";
    KeyExpired, "KEY_EXPIRED", Precondition, Admin,
        "The stored key has expired, or does not last as long as was asked for. Store a new one with 'credbroker credential set'.";
    MeteredNotEntitled, "METERED_NOT_ENTITLED", Precondition, Admin,
        "The org may not use metered keys. The broker's operator grants it with 'credbroker org update ORG --metered granted'; or use another mode.";
    CreditsExhausted, "CREDITS_EXHAUSTED", Precondition, Admin,
        "The org's credit is used up. Its tasks wait until the broker's operator adds some: 'credbroker credit add ORG AMOUNT'.";
    SharedQuotaExceeded, "SHARED_QUOTA_EXCEEDED", Exhausted, Admin,
        "The org has had as many shared dispatches as it may have a day. Wait until the time given, use another mode, or ask the broker's operator for more.";
    SubscriptionInactive, "SUBSCRIPTION_INACTIVE", Precondition, Admin,
        "The org's subscription is not active. Renew it, or use a mode that takes none; the broker's operator sets it with 'credbroker org update ORG --subscription active'.";
    MeteredKeyUnavailable, "METERED_KEY_UNAVAILABLE", Precondition, Admin,
        "The platform has no key for metered use of this provider. Its operator sets one: 'credbroker managed-key set metered PROVIDER'.";
    SharedKeyUnavailable, "SHARED_KEY_UNAVAILABLE", Precondition, Admin,
        "The platform has no key for shared use of this provider. Its operator sets one: 'credbroker managed-key set shared PROVIDER'.";
    ProxyNotConfigured, "PROXY_NOT_CONFIGURED", Precondition, Admin,
        "There is no model proxy for this provider, and the caller does not get the key itself. The broker's operator sets proxy.base_url or proxy.base_urls, or proxy.raw_keys_to.";
    GrantInvalid, "GRANT_INVALID", Unauthenticated, Caller,
        "This is no proxy grant of this broker: it is cut short, mistyped or forged. Use the one from the last resolution.";
    GrantExpired, "GRANT_EXPIRED", Unauthenticated, Caller,
        "The proxy grant has expired. Resolve again for a new one.";
    AuthmodesUnsatisfiable, "AUTHMODES_UNSATISFIABLE", Precondition, Admin,
        "No auth mode is left once system, org, project and profile have had their say; the decision tells what each of them removed. Widen one of them, or use another profile.";
    AccessDenied, "ACCESS_DENIED", Denied, Admin,
        "The access matrix denies the mode that this task uses or that its executor is pinned to; the metadata names the scope. Change the matrix or the pin, or start another task.";
    ModeUnsupported, "MODE_UNSUPPORTED", Precondition, Admin,
        "The executor does not have that mode with that provider. The metadata names those it has.";
    ModelNotAvailable, "MODEL_NOT_AVAILABLE", Precondition, Caller,
        "The executor is pinned to one mode, which holds it to its native provider's models. Ask for one of those.";
    NamedCredentialMissing, "NAMED_CREDENTIAL_MISSING", Precondition, Admin,
        "The profile names a credential that is not there, or that is none of this provider. Store it, or change the profile.";
    AuthModeRequiresLocalCapacity, "AUTH_MODE_REQUIRES_LOCAL_CAPACITY", Precondition, Caller,
        "This mode works on the member's own machine only, and the task runs in a cloud sandbox. Start it with local capacity, or use another mode.";
    HostSessionMissing, "HOST_SESSION_MISSING", Precondition, Member,
        "The official program is not signed in on this machine. Sign in with it, then ask again.";
    LocalEndpointUnreachable, "LOCAL_ENDPOINT_UNREACHABLE", Precondition, Member,
        "The local model endpoint does not answer; the metadata has its address. Start it, or correct the address.";
    PolicyLimit, "POLICY_LIMIT", Exhausted, Admin,
        "The policy, or one change of it, has more cells, pins or profiles than it may. Use patterns in place of lists, or apply in smaller parts.";
    GrantOutdated, "GRANT_OUTDATED", Precondition, Caller,
        "The refresh token is an old copy of a grant that the broker keeps and has refreshed since. Nothing needs to be stored; or sign in anew and bring that grant.";
    GrantKeptAlready, "GRANT_KEPT_ALREADY", Precondition, Caller,
        "One grant cannot be kept twice: whoever refreshes it first logs the other out. Sign in once more for this owner, or store it for one of them only.";
    ReauthFailed, "REAUTH_FAILED", Precondition, Member,
        "The provider rejects each new token that it issues: look at what it said, in the metadata. If the account is in order, sign in again.";
    FlowUnsupported, "FLOW_UNSUPPORTED", Precondition, Caller,
        "The connector has no such way to sign in: choose one of those in the metadata. 'credbroker connector show' lists what each needs.";
    ConnectionLimit, "CONNECTION_LIMIT", Exhausted, Caller,
        "As many accounts are being connected as may be at once: finish one, or cancel one with 'credbroker account cancel'.";
    ConnectionState, "CONNECTION_STATE", Precondition, Caller,
        "The connection does not wait for this: see how it stands, and begin it anew with 'credbroker account connect' where it has ended.";
    ConnectionMismatch, "CONNECTION_MISMATCH", Precondition, Member,
        "The code belongs to another sign-in: paste the whole of what the page of this one shows, or begin anew.";
    ConnectionExpired, "CONNECTION_EXPIRED", Precondition, Member,
        "Nobody signed in in time. Begin anew.";
    ConnectionRefused, "CONNECTION_REFUSED", Precondition, Member,
        "The provider refused the sign-in; what it said is in the metadata. Begin anew, and allow what is asked for.";
    ConnectionLost, "CONNECTION_LOST", Unavailable, Provider,
        "The provider's answer was lost, and a code works once: begin anew. What it may have granted meanwhile ends by itself or can be withdrawn in the account's settings there.";
    ConnectionUnavailable, "CONNECTION_UNAVAILABLE", Unavailable, Provider,
        "The provider could not be reached or did not process the sign-in. Hand the same over again after the time given.";
    ParallelismLimit, "PARALLELISM_LIMIT", Exhausted, Member,
        "As many leases stand on this personal subscription as may at once. Release one, wait for one to end, or have an admin raise the cap.";
    RevocationUnavailable, "REVOCATION_UNAVAILABLE", Unavailable, Provider,
        "The provider has not confirmed that the tokens are revoked. It is asked again by itself: see 'credbroker account revocations'.";
    RevocationRefused, "REVOCATION_REFUSED", Precondition, Provider,
        "The provider did not revoke a token: its account page lists the sessions that can be ended there.";
}

impl std::fmt::Display for Reason {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.code())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_are_unique_and_parse_back() {
        for (i, reason) in Reason::ALL.iter().enumerate() {
            assert_eq!(Reason::from_code(reason.code()), Some(*reason));
            assert!(
                Reason::ALL[..i]
                    .iter()
                    .all(|earlier| earlier.code() != reason.code())
            );
            assert!(reason.remedy().ends_with('.'), "{reason}: a remedy is a sentence");
        }
    }
}
