//! Records of accounts on their way to being connected.

use crate::domain::connection::{Beginner, Begun, Connection, Flow, Phase};
use crate::domain::secret::{AuthorizationState, CodeVerifier, DeviceCode, Secret};
use crate::store::record::Record;
use crate::store::table::{choice, table};

/// What a connection is bound to its member and its sign-in by. Removed when the connection ends; where its time was
/// over before anybody signed in, with the connection itself.
pub struct ConnectionSecret {
    /// The attempt it is of.
    pub attempt: u32,
    /// The state of the authorization request; empty in a device flow.
    pub state: Secret<AuthorizationState>,
    /// The verifier of its challenge, where it has one.
    pub verifier: Option<Secret<CodeVerifier>>,
    /// The device code, once the server has given one.
    pub device_code: Option<Secret<DeviceCode>>,
}

records! {
    Connection, 1;
    ConnectionSecret, 1, cache: false;
    Begun, 1, cache: false;
}

table!(ConnectionSecret { 0 => attempt, 1 => state, 2 => verifier, 3 => device_code });
table!(Begun { 0 => ids });
table!(Connection {
    0 => id, 1 => org, 2 => member, 3 => connector, 4 => provider, 5 => flow, 6 => url, 7 => by, 8 => actor,
    9 => attempt, 10 => codes, 11 => created, 12 => expires, 13 => ended, 14 => phase,
});
choice!(Flow {
    0 => Paste { redirect_uri, with_state },
    1 => Loopback { redirect_uri },
    2 => Device { user_code, complete_uri, interval },
});
choice!(Beginner { 0 => Token(id), 1 => Member(id), 2 => ApiKey(id) });
choice!(Phase {
    0 => Preparing {},
    1 => Waiting {},
    2 => Exchanging {},
    3 => Staged {},
    4 => Connected { credential },
    5 => Failed { reason, message },
    6 => Cancelled {},
    7 => Expired {},
});
