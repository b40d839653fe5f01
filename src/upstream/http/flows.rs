//! What is asked of an authorization server beside a refresh.
//!
//! Each request is sent once, as a refresh is, and says how far it got. What may be sent again is the caller's to know: a
//! revocation always, a poll later, a code only where nothing of it was sent or processed.

use reqwest::Url;

use super::{HttpTokenEndpoint, message};
use crate::upstream::Delivery;
use crate::upstream::answer;
use crate::upstream::connector::Connector;
use crate::upstream::discovery::Need;
use crate::upstream::oauth::{CodeRequest, DeviceFault, DeviceGrant, DevicePoll, RevocationRequest};

impl HttpTokenEndpoint {
    /// Where members are sent to sign in (RFC 6749 section 3.1): what is configured, else what was discovered, which is
    /// found out first where it is not known.
    ///
    /// # Errors
    /// There is none, or it cannot be found out now; in words.
    pub async fn authorize_url(&self, connector: &Connector) -> Result<Url, String> {
        self.known(connector, Need::Authorize).await?.ok_or_else(|| {
            let name = &connector.name;
            format!("connector {name}: its server has no authorization endpoint; set authorize_url")
        })
    }

    /// Exchanges an authorization code for tokens (RFC 6749 section 4.1.3). Once: a code may not be used twice.
    pub async fn exchange_code(&self, request: CodeRequest<'_>) -> Delivery {
        self.send(request.connector, message::code(&request), None).await
    }

    /// Begins a device flow (RFC 8628 section 3.1, or the server's own).
    ///
    /// # Errors
    /// See [`DeviceFault`]. What is not known to have arrived can be begun anew: a flow that nobody was told of ends by
    /// itself.
    pub async fn begin_device(&self, connector: &Connector) -> Result<DeviceGrant, DeviceFault> {
        let unavailable = |message| DeviceFault::Unavailable {
            message,
            retry_after: None,
        };
        let endpoint = self.device_endpoint(connector).await;
        if endpoint.map_err(unavailable)?.is_none() {
            return Err(DeviceFault::Unsupported);
        }
        let begin = message::device_begin(connector);
        match self.send(connector, Ok(begin), None).await {
            Delivery::Answered {
                status,
                retry_after,
                body,
            } => answer::begun(connector, status, retry_after, &body),
            Delivery::NotSent(why) | Delivery::Lost(why) => Err(unavailable(why)),
        }
    }

    /// Asks once whether the member has signed in (RFC 8628 section 3.4, or the server's own way).
    pub async fn poll_device(&self, request: DevicePoll<'_>) -> Delivery {
        self.send(request.connector, message::device_poll(&request), None)
            .await
    }

    /// Revokes a token (RFC 7009 section 2.1). What is lost may be sent again.
    pub async fn revoke(&self, request: RevocationRequest<'_>) -> Delivery {
        self.send(request.connector, message::revocation(&request), None)
            .await
    }

    /// Where tokens are revoked (RFC 7009 section 2): what is configured, else what was discovered, which is found out
    /// first where it is not known. `None`: the server has no such endpoint, and its tokens work until they expire.
    ///
    /// # Errors
    /// It cannot be found out now; in words.
    pub async fn revocation_endpoint(&self, connector: &Connector) -> Result<Option<Url>, String> {
        self.known(connector, Need::Revoke).await
    }

    /// Where device flows begin: what is configured, else what was discovered, which is found out first where it is not
    /// known. `None`: the server has none.
    ///
    /// # Errors
    /// It cannot be found out now; in words.
    pub async fn device_endpoint(&self, connector: &Connector) -> Result<Option<Url>, String> {
        self.known(connector, Need::Device).await
    }

    async fn known(&self, connector: &Connector, need: Need) -> Result<Option<Url>, String> {
        let endpoints = self.endpoints(connector, need).await;
        let endpoints = endpoints.map_err(|error| format!("connector {}: {error}", connector.name))?;
        Ok(endpoints.get(need).cloned())
    }
}
