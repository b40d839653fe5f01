//! Which way a member signs in: what the connector has, and what this machine is good for.

use clap::ValueEnum;

use crate::cli::error::Failure;
use crate::cli::loopback::{self, Host, Listener};
use crate::proto;
use crate::proto::ConnectionFlow;

/// The ways to sign in.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Flow {
    /// A browser on this machine, which comes back to this program.
    Loopback,
    /// A page that shows a code, which is pasted here.
    Paste,
    /// A short code that is entered at a page, on any machine.
    Device,
}

impl From<Flow> for ConnectionFlow {
    fn from(flow: Flow) -> Self {
        match flow {
            Flow::Loopback => ConnectionFlow::Loopback,
            Flow::Paste => ConnectionFlow::Paste,
            Flow::Device => ConnectionFlow::Device,
        }
    }
}

/// The ways that fit, the best first. A way that was asked for is the only one, and whether the connector has it the
/// broker says. None: the broker chooses.
pub(super) fn ways(
    connector: Option<&proto::Connector>,
    asked: Option<Flow>,
    browser: bool,
) -> Vec<ConnectionFlow> {
    if let Some(flow) = asked {
        return vec![flow.into()];
    }
    let Some(connector) = connector else {
        return Vec::new();
    };
    let returns = |kind| connector.redirects.iter().any(|redirect| redirect.kind() == kind);
    let has_loopback = returns(proto::RedirectKind::Loopback);
    let has_device = connector
        .endpoints
        .iter()
        .any(|endpoint| endpoint.kind() == proto::EndpointKind::DeviceAuthorization);
    [
        (browser && has_loopback, ConnectionFlow::Loopback),
        (has_device, ConnectionFlow::Device),
        (returns(proto::RedirectKind::Paste), ConnectionFlow::Paste),
        // Without a browser here, the address that one elsewhere ends at can be pasted.
        (!browser && has_loopback, ConnectionFlow::Loopback),
    ]
    .into_iter()
    .filter_map(|(fits, flow)| fits.then_some(flow))
    .collect()
}

/// Listens where the connector's redirect says.
pub(super) async fn listen(redirect: &proto::ConnectorRedirect) -> Result<Listener, Failure> {
    let (host, _, path) = parts(&redirect.uri).ok_or_else(|| {
        Failure::config(format!("the redirect {} is not to this machine", redirect.uri))
            .remedy("Tell the broker's operator: the connector's redirect has to be to loopback.")
    })?;
    let ports: Vec<u16> = redirect
        .ports
        .iter()
        .filter_map(|port| u16::try_from(*port).ok())
        .collect();
    let listening = Listener::bind(host, &ports, path).await;
    listening.map_err(|error| {
        let failure = loopback::no_port(error);
        let failure = match ports.as_slice() {
            [] => failure,
            ports => failure.because(format!("the provider comes back to port {}", or(ports))),
        };
        failure
            .remedy("End the program that has the port, or sign in another way: --flow device, --flow paste.")
    })
}

/// Listens where a connection that waits comes back to.
pub(super) async fn listen_again(redirect_uri: &str) -> Result<Listener, Failure> {
    let redirect = match parts(redirect_uri) {
        Some((host, Some(port), path)) => Listener::bind(host, &[port], path).await,
        _ => Err(std::io::ErrorKind::AddrNotAvailable.into()),
    };
    redirect.map_err(loopback::no_port)
}

/// Host, port and path of a redirect to this machine.
fn parts(uri: &str) -> Option<(Host, Option<u16>, &str)> {
    let rest = uri.strip_prefix("http://")?;
    let (authority, path) = match rest.find('/') {
        Some(at) => rest.split_at(at),
        None => (rest, "/"),
    };
    if let Some(host) = Host::parse(authority) {
        return Some((host, None, path));
    }
    let (host, port) = authority.rsplit_once(':')?;
    Some((Host::parse(host)?, Some(port.parse().ok()?), path))
}

fn or(ports: &[u16]) -> String {
    let ports: Vec<_> = ports.iter().map(ToString::to_string).collect();
    ports.join(" or ")
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use ConnectionFlow::{Device, Loopback, Paste};

    fn connector(kinds: &[proto::RedirectKind], device: bool) -> proto::Connector {
        let redirect = |kind: &proto::RedirectKind| proto::ConnectorRedirect {
            kind: *kind as i32,
            ..Default::default()
        };
        let endpoint = proto::ConnectorEndpoint {
            kind: proto::EndpointKind::DeviceAuthorization as i32,
            ..Default::default()
        };
        proto::Connector {
            redirects: kinds.iter().map(redirect).collect(),
            endpoints: if device { vec![endpoint] } else { Vec::new() },
            ..Default::default()
        }
    }

    #[test]
    fn a_browser_here_is_best_then_a_device_then_pasting() {
        use proto::RedirectKind::{Loopback as ToHere, Paste as ToPage};
        for (kinds, device, browser, wanted) in [
            (&[ToPage, ToHere][..], true, true, &[Loopback, Device, Paste][..]),
            (&[ToPage, ToHere], true, false, &[Device, Paste, Loopback]),
            (&[ToPage, ToHere], false, false, &[Paste, Loopback]),
            (&[ToHere], false, false, &[Loopback]),
            (&[], false, true, &[]),
        ] {
            let connector = connector(kinds, device);
            assert_eq!(ways(Some(&connector), None, browser), wanted);
        }
        let connector = connector(&[ToHere], false);
        assert_eq!(ways(Some(&connector), Some(Flow::Device), true), [Device]);
        assert!(ways(None, None, true).is_empty(), "the broker chooses");
    }

    #[test]
    fn a_redirect_is_taken_apart() {
        assert_eq!(
            parts("http://localhost/auth/callback"),
            Some((Host::Name, None, "/auth/callback"))
        );
        assert_eq!(
            parts("http://[::1]:1455/"),
            Host::parse("[::1]").map(|host| (host, Some(1455), "/"))
        );
        assert_eq!(parts("http://127.0.0.1:8/cb"), Some((Host::V4, Some(8), "/cb")));
        for other in [
            "https://localhost/",
            "http://page.example/code",
            "http://localhost:x/",
            "",
        ] {
            assert_eq!(parts(other), None, "{other}");
        }
    }
}
