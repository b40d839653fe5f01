//! What the daemon has to do with its process: signals, standard output, and keeping its memory to itself.

use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio_util::sync::CancellationToken;

use super::error::DaemonError;

/// No core dump and no debugger shall see the keys in memory.
pub(super) fn harden() -> std::io::Result<()> {
    use rustix::process::{DumpableBehavior, Resource, Rlimit, set_dumpable_behavior, setrlimit};
    setrlimit(
        Resource::Core,
        Rlimit {
            current: Some(0),
            maximum: Some(0),
        },
    )?;
    Ok(set_dumpable_behavior(DumpableBehavior::NotDumpable)?)
}

#[expect(clippy::print_stdout, reason = "what a person asked to see")]
pub(crate) fn say(text: &str) {
    println!("{text}");
}

pub(super) fn on(kind: SignalKind) -> Result<Signal, DaemonError> {
    signal(kind).map_err(|source| DaemonError::System {
        what: "signals cannot be listened to",
        source,
    })
}

/// Cancelled by SIGTERM or SIGINT. A second one ends the process at once.
pub(crate) fn stop_signal() -> Result<CancellationToken, DaemonError> {
    let stopping = CancellationToken::new();
    let (mut terminate, mut interrupt) = (on(SignalKind::terminate())?, on(SignalKind::interrupt())?);
    let token = stopping.clone();
    tokio::spawn(async move {
        tokio::select! { _ = terminate.recv() => {} _ = interrupt.recv() => {} }
        tracing::info!("stopping: requests and exchanges under way are finished first");
        token.cancel();
        tokio::select! { _ = terminate.recv() => {} _ = interrupt.recv() => {} }
        tracing::warn!("stopped the hard way");
        std::process::exit(1);
    });
    Ok(stopping)
}
