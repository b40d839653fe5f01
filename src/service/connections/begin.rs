//! Beginning to connect: where the member has to sign in, bound to this connection by state and challenge.

use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use ring::digest::{SHA256, digest};

use super::{ATTEMPTS, ConnectionStanding, about, busy, ended, put, unfit};
use crate::domain::actor::Caller;
use crate::domain::connection::{
    Beginner, Begun, Connection, Flow, LIFETIME, MAX_URL, MOST_KEPT, MOST_WAITING, Phase,
};
use crate::domain::id::{ConnectionId, MemberId, OrgId};
use crate::domain::journal::{Action, Record};
use crate::domain::reason::Reason;
use crate::domain::refusal::Refusal;
use crate::domain::secret::{Exposure, Secret};
use crate::service::Broker;
use crate::service::effect::Undone;
use crate::store::keys;
use crate::store::model::{ConnectionSecret, Mark};
use crate::store::record::Changes;
use crate::upstream::connector::{Connector, PasteCode, Redirect, RedirectKind};
use crate::upstream::oauth::authorization_request;

/// How a member wants to sign in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FlowKind {
    /// By a code that a page shows.
    Paste,
    /// By a port of the member's machine.
    Loopback {
        /// The port; 0: none was said.
        port: u16,
    },
    /// By a code that is entered on the provider's page.
    Device,
}

impl FlowKind {
    fn name(self) -> &'static str {
        match self {
            FlowKind::Paste => "paste",
            FlowKind::Loopback { .. } => "loopback",
            FlowKind::Device => "device",
        }
    }
}

/// What is to be connected.
#[derive(Clone, Copy, Debug)]
pub struct BeginConnection<'a> {
    /// The org.
    pub org: &'a str,
    /// The member; empty: the caller.
    pub member: &'a str,
    /// The connector.
    pub connector: &'a str,
    /// How; `None`: the first way that needs nothing of the caller.
    pub flow: Option<FlowKind>,
}

/// A way to sign in that was prepared, with what binds it.
struct Prepared {
    flow: Flow,
    url: String,
    secret: ConnectionSecret,
}

impl Broker {
    /// Begins to connect an account.
    pub async fn begin_connection(
        self: &Arc<Self>,
        caller: &Caller,
        begin: BeginConnection<'_>,
    ) -> Result<Arc<Connection>, Refusal> {
        let place = self.place(caller, begin.org).await?;
        let org = place.id();
        let member = match (begin.member, caller.member_of(org)) {
            ("", Some(me)) => me,
            (named, _) => self.member(org, named).await?.value.id,
        };
        place.admit("member", None, Some(member))?;
        let connector = self.connector(begin.connector)?;
        let flow = match begin.flow {
            Some(flow) => flow,
            None if self.has_device_flow(connector).await? => FlowKind::Device,
            None => FlowKind::Paste,
        };
        let by = beginner(caller, org)?;
        let id = self.new_id()?;
        let prepared = self.prepared(connector, flow, 1).await?;
        let now = self.now();
        let connection = Connection {
            id,
            org,
            member,
            connector: connector.name.to_string(),
            provider: connector.provider.clone(),
            phase: first_phase(&prepared.flow),
            flow: prepared.flow,
            url: prepared.url,
            by: by.0,
            actor: by.1,
            attempt: 1,
            codes: 0,
            created: now,
            expires: now + LIFETIME,
            ended: None,
        };
        for _ in 0..ATTEMPTS {
            let changes = self.making_room(org, member, id).await?;
            let key = keys::connection(org, id);
            let changes = changes.absent(&key).put(&key, &connection);
            let changes = self
                .beginning(changes, caller, &connection, &prepared.secret)
                .await?;
            let record = about(caller.record(Action::ConnectionBegin, Some(org)), &connection);
            match self.start(record, changes, connection.clone()).await {
                Err(Undone::Conflict) => {}
                Err(Undone::Refused(refusal)) => return Err(refusal),
                Ok(begun) => return begun,
            }
        }
        Err(busy())
    }

    /// Begins a connection anew that has ended without success.
    pub async fn retry_connection(
        self: &Arc<Self>,
        caller: &Caller,
        org: &str,
        id: &str,
        port: u16,
    ) -> Result<Arc<Connection>, Refusal> {
        for _ in 0..ATTEMPTS {
            let (_, stored) = self.seen_connection(caller, org, id).await?;
            let before = &stored.value;
            let connector = self.connector(&before.connector)?;
            let kind = match before.flow {
                Flow::Paste { .. } => FlowKind::Paste,
                Flow::Loopback { .. } => FlowKind::Loopback { port },
                Flow::Device { .. } => FlowKind::Device,
            };
            let now = self.now();
            let over = |why| unfit(before, why, now);
            // Before anything is prepared for one that goes on.
            let by = beginner(caller, before.org)?;
            before
                .again(before.flow.clone(), String::new(), by.clone(), now)
                .map_err(over)?;
            let prepared = self
                .prepared(connector, kind, before.attempt.saturating_add(1))
                .await?;
            let again = before.again(prepared.flow, prepared.url, by, now).map_err(over)?;
            let changes = self.making_room(again.org, again.member, again.id).await?;
            let changes = put(changes, &stored, &again, now);
            let changes = self.beginning(changes, caller, &again, &prepared.secret).await?;
            let record = about(caller.record(Action::ConnectionBegin, Some(again.org)), &again);
            match self.start(record, changes, again).await {
                Err(Undone::Conflict) => {}
                Err(Undone::Refused(refusal)) => return Err(refusal),
                Ok(begun) => return begun,
            }
        }
        Err(busy())
    }

    /// What every attempt begins with: its secrets, tied to whoever begins it and to the member.
    async fn beginning(
        &self,
        changes: Changes,
        caller: &Caller,
        connection: &Connection,
        secret: &ConnectionSecret,
    ) -> Result<Changes, Refusal> {
        let Connection { org, id, member, .. } = *connection;
        let (live, revision) = self.still_live(caller).await?;
        let mut changes = changes.at(&live, revision);
        let (present, revision) = self.standing_member(org, member).await?;
        if present != live {
            changes = changes.at(&present, revision);
        }
        changes = changes.put(&keys::connection_secret(org, id), secret);
        if connection.is_device() {
            changes = changes.put(&keys::connecting(org, id), &Mark { since: self.now() });
        }
        Ok(changes)
    }

    /// Makes the beginning happen, and asks the server to begin where it is a device flow: to the end, though the caller
    /// may go away in between. The outer result is that of the first part.
    async fn start(
        self: &Arc<Self>,
        record: Record,
        changes: Changes,
        connection: Connection,
    ) -> Result<Result<Arc<Connection>, Refusal>, Undone> {
        let broker = Arc::clone(self);
        let work = async move {
            let begun = broker.connection_effect(record, changes, connection).await?;
            Ok(match begun.phase {
                Phase::Preparing => broker.begin_device(begun).await,
                _ => Ok(begun),
            })
        };
        self.tracked(work).await
    }

    async fn has_device_flow(&self, connector: &Connector) -> Result<bool, Refusal> {
        let endpoint = self.oauth.device_endpoint(connector).await;
        let endpoint = endpoint.map_err(|message| Refusal::new(Reason::ConnectionUnavailable, message))?;
        Ok(endpoint.is_some())
    }

    /// Prepares a way to sign in.
    async fn prepared(
        &self,
        connector: &Connector,
        kind: FlowKind,
        attempt: u32,
    ) -> Result<Prepared, Refusal> {
        let device = match kind {
            FlowKind::Device => self.has_device_flow(connector).await?,
            // Told only among the ways there are, should this one be none.
            FlowKind::Paste | FlowKind::Loopback { .. } => {
                self.has_device_flow(connector).await.unwrap_or_default()
            }
        };
        let Some((redirect, redirect_uri)) = redirect(connector, kind, device)? else {
            return Ok(Prepared {
                flow: Flow::Device {
                    user_code: String::new(),
                    complete_uri: None,
                    interval: std::time::Duration::ZERO,
                },
                url: String::new(),
                secret: ConnectionSecret {
                    attempt,
                    state: Secret::new(Vec::new()),
                    verifier: None,
                    device_code: None,
                },
            });
        };
        let state: String = self.random_text()?;
        let verifier = match connector.challenges(redirect) {
            true => Some(self.random_text()?),
            false => None,
        };
        // RFC 7636 section 4.2.
        let challenge = verifier
            .as_ref()
            .map(|verifier| URL_SAFE_NO_PAD.encode(digest(&SHA256, verifier.as_bytes())));
        let endpoint = self.oauth.authorize_url(connector).await.map_err(|message| {
            Refusal::new(Reason::ConnectionUnavailable, message).with("connector", connector.name.to_string())
        })?;
        let url = authorization_request(
            &endpoint,
            connector,
            redirect,
            &redirect_uri,
            &state,
            challenge.as_deref(),
        );
        if url.as_str().len() > MAX_URL {
            let name = &connector.name;
            let message =
                format!("connector {name}: its authorization request is longer than {MAX_URL} bytes");
            return Err(Refusal::new(Reason::ConnectionUnavailable, message));
        }
        let flow = match &redirect.kind {
            RedirectKind::Loopback { .. } => Flow::Loopback { redirect_uri },
            RedirectKind::Paste { code, .. } => Flow::Paste {
                redirect_uri,
                with_state: *code == PasteCode::CodeAndState,
            },
        };
        Ok(Prepared {
            flow,
            url: url.into(),
            secret: ConnectionSecret {
                attempt,
                state: state.into(),
                verifier: verifier.map(Secret::from),
                device_code: None,
            },
        })
    }

    /// 256 random bits as text (RFC 7636 section 4.1 asks for as many).
    fn random_text(&self) -> Result<String, Refusal> {
        Ok(URL_SAFE_NO_PAD.encode(self.random::<32>()?))
    }

    /// Enters a connection among its member's, unless as many wait as may. The oldest of those that have ended goes
    /// where there are too many.
    async fn making_room(&self, org: OrgId, member: MemberId, id: ConnectionId) -> Result<Changes, Refusal> {
        let key = keys::connections_of(org, member);
        let stored = self.records.get::<Begun>(&key).await?;
        let mut begun = stored
            .as_ref()
            .map(|stored| Begun::clone(&stored.value))
            .unwrap_or_default();
        let (mut changes, now) = (Changes::default(), self.now());
        let (mut waiting, mut over) = (0, Vec::new());
        begun.ids.retain(|other| *other != id);
        for other in &begun.ids {
            let found = self
                .records
                .get::<Connection>(&keys::connection(org, *other))
                .await?;
            match found.map(|found| found.value.standing(now)) {
                Some(ConnectionStanding::Waiting | ConnectionStanding::Exchanging) => waiting += 1,
                Some(_) | None => over.push(*other),
            }
        }
        if waiting >= MOST_WAITING {
            let message = format!("{waiting} accounts are being connected for this member");
            return Err(Refusal::new(Reason::ConnectionLimit, message));
        }
        let excess = (begun.ids.len() + 1).saturating_sub(MOST_KEPT);
        for old in over.into_iter().take(excess) {
            begun.ids.retain(|other| *other != old);
            changes = ended(changes, org, old).delete::<Connection>(&keys::connection(org, old));
        }
        begun.ids.push(id);
        changes = match stored {
            Some(stored) => changes.at(&key, stored.revision),
            None => changes.absent(&key),
        };
        Ok(changes.put(&key, &begun))
    }
}

/// The connector's redirect for a way to sign in, and its address; `None`: a device flow needs none.
fn redirect<'a>(
    connector: &'a Connector,
    kind: FlowKind,
    device: bool,
) -> Result<Option<(&'a Redirect, String)>, Refusal> {
    let paste = |redirect: &'a Redirect| match &redirect.kind {
        RedirectKind::Paste { url, .. } => Some((redirect, url.to_string())),
        RedirectKind::Loopback { .. } => None,
    };
    let loopback = |redirect: &'a Redirect| match &redirect.kind {
        RedirectKind::Loopback { host, ports, path } => Some((redirect, host, ports, path)),
        RedirectKind::Paste { .. } => None,
    };
    let unsupported = || {
        let mut ways = Vec::new();
        if device {
            ways.push("device");
        }
        if connector
            .redirects
            .iter()
            .any(|redirect| paste(redirect).is_some())
        {
            ways.push("paste");
        }
        if connector
            .redirects
            .iter()
            .any(|redirect| loopback(redirect).is_some())
        {
            ways.push("loopback");
        }
        let (name, ways) = (&connector.name, ways.join(", "));
        let message = format!("connector {name} has no {} flow; it has: {ways}", kind.name());
        Refusal {
            field: Some("flow"),
            ..Refusal::new(Reason::FlowUnsupported, message).with("flows", ways)
        }
    };
    match kind {
        FlowKind::Device if device => Ok(None),
        FlowKind::Device => Err(unsupported()),
        FlowKind::Paste => {
            let found = connector.redirects.iter().find_map(paste);
            found.map(Some).ok_or_else(unsupported)
        }
        FlowKind::Loopback { port } => {
            let mut all = connector.redirects.iter().filter_map(loopback);
            let (redirect, host, ports, path) = all.next().ok_or_else(unsupported)?;
            if port == 0 || !(ports.is_empty() || ports.contains(&port)) {
                let known: Vec<_> = ports.iter().map(u16::to_string).collect();
                let message = match known.is_empty() {
                    true => "loopback_port is required: the port that the caller listens on".to_owned(),
                    false => format!("loopback_port is one of {}", known.join(", ")),
                };
                return Err(Refusal::invalid("loopback_port", message));
            }
            // An IPv6 address stands in brackets (RFC 3986 section 3.2.2).
            let host = match host.contains(':') && !host.starts_with('[') {
                true => format!("[{host}]"),
                false => host.clone(),
            };
            Ok(Some((redirect, format!("http://{host}:{port}{path}"))))
        }
    }
}

fn first_phase(flow: &Flow) -> Phase {
    match flow {
        Flow::Device { .. } => Phase::Preparing,
        Flow::Paste { .. } | Flow::Loopback { .. } => Phase::Waiting,
    }
}

/// Who begins a connection, and how the journal names them.
fn beginner(caller: &Caller, org: OrgId) -> Result<(Beginner, String), Refusal> {
    let by = Beginner::of(caller.shown(), caller.member_of(org));
    let by = by.ok_or_else(|| Refusal::new(Reason::PermissionDenied, "agents connect no accounts"))?;
    Ok((by, caller.to_string()))
}

/// Whether what was handed over is of this sign-in: in time that does not depend on where they differ.
pub(super) fn is_state(secret: &ConnectionSecret, given: &[u8]) -> bool {
    use subtle::ConstantTimeEq as _;
    let state = secret.state.expose(Exposure::Inspect);
    !state.is_empty() && bool::from(state.ct_eq(given))
}
