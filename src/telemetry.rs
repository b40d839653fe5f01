//! The log: JSON or pretty lines on standard error, with a filter that a running daemon can change.
//!
//! No secret gets into a line: `Secret` has neither `Debug` nor `Display` nor `tracing::Value`, so it cannot
//! be recorded, and the libraries beneath, whose finest levels show headers and bytes they carry, are held to
//! `INFO` and above whatever the filter says.

use std::io::IsTerminal;

use tracing::{Level, Subscriber};
use tracing_subscriber::filter::{EnvFilter, FilterExt, filter_fn};
use tracing_subscriber::fmt::MakeWriter;
use tracing_subscriber::layer::{Layer, SubscriberExt};
use tracing_subscriber::registry::Registry;
use tracing_subscriber::reload;
use tracing_subscriber::util::SubscriberInitExt;

use crate::config::{Log, LogFormat};

/// What went wrong with the log. The operator's to mend.
#[derive(Debug, thiserror::Error)]
pub enum TelemetryError {
    /// The text is no filter.
    #[error(
        "log.filter: {0}. Write a level (\"info\"), or levels by module (\"info,credbroker::rpc=debug\")."
    )]
    Filter(#[from] tracing_subscriber::filter::ParseError),
    /// The process has a log already.
    #[error("the log was set up before; a process has one")]
    Installed,
    /// The log is gone: the process is ending.
    #[error("the log has ended")]
    Ended,
}

/// Changes the filter of the log while it runs.
#[derive(Clone)]
pub struct TelemetryHandle {
    filter: reload::Handle<EnvFilter, Registry>,
}

impl TelemetryHandle {
    /// Takes another filter from the next line on. On an error the earlier one stays.
    ///
    /// # Errors
    /// [`TelemetryError::Filter`] where the text is none.
    pub fn set_filter(&self, filter: &str) -> Result<(), TelemetryError> {
        let filter = EnvFilter::try_new(filter)?;
        self.filter.reload(filter).map_err(|_| TelemetryError::Ended)
    }
}

/// Sets up the log of this process, on standard error.
///
/// # Errors
/// Where the filter is none, or the process has a log already.
pub fn init(config: &Log) -> Result<TelemetryHandle, TelemetryError> {
    let colours = std::io::stderr().is_terminal();
    let (subscriber, handle) = subscriber(config, std::io::stderr, colours)?;
    subscriber.try_init().map_err(|_| TelemetryError::Installed)?;
    Ok(handle)
}

/// Whether a line may exist at all: ours at any level, those of other libraries at `INFO` and above.
fn may_be_logged(metadata: &tracing::Metadata<'_>) -> bool {
    let module = metadata.target().split("::").next().unwrap_or_default();
    matches!(module, "credbroker" | "credbrokerd") || *metadata.level() <= Level::INFO
}

fn subscriber<W>(
    config: &Log,
    writer: W,
    colours: bool,
) -> Result<(impl Subscriber + Send + Sync, TelemetryHandle), TelemetryError>
where
    W: for<'a> MakeWriter<'a> + Send + Sync + 'static,
{
    let (filter, handle) = reload::Layer::new(EnvFilter::try_new(&config.filter)?);
    let lines = tracing_subscriber::fmt::layer().with_writer(writer);
    let lines: Box<dyn Layer<Registry> + Send + Sync> = match config.format {
        LogFormat::Json => Box::new(lines.json().with_ansi(false).flatten_event(true)),
        LogFormat::Pretty => Box::new(lines.with_ansi(colours)),
    };
    let lines = lines.with_filter(filter.and(filter_fn(may_be_logged)));
    Ok((
        tracing_subscriber::registry().with(lines),
        TelemetryHandle { filter: handle },
    ))
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use std::io::Write;
    use std::sync::{Arc, Mutex};

    use super::*;

    /// Collects what is written.
    #[derive(Clone, Default)]
    struct Lines(Arc<Mutex<Vec<u8>>>);

    impl Write for Lines {
        fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
            self.0.lock().unwrap().write(bytes)
        }

        fn flush(&mut self) -> std::io::Result<()> {
            Ok(())
        }
    }

    impl<'a> MakeWriter<'a> for Lines {
        type Writer = Lines;

        fn make_writer(&'a self) -> Lines {
            self.clone()
        }
    }

    impl Lines {
        fn take(&self) -> String {
            String::from_utf8(std::mem::take(&mut *self.0.lock().unwrap())).unwrap()
        }
    }

    fn log(format: LogFormat, filter: &str) -> Log {
        Log {
            format,
            filter: filter.to_owned(),
        }
    }

    #[test]
    fn the_filter_changes_while_the_log_runs() {
        let lines = Lines::default();
        let (subscriber, handle) = subscriber(&log(LogFormat::Json, "info"), lines.clone(), false).unwrap();
        tracing::subscriber::with_default(subscriber, || {
            let speak = || tracing::debug!(target: "credbroker::rpc", answer = 42, "said");
            speak();
            assert_eq!(lines.take(), "");
            handle.set_filter("info,credbroker::rpc=debug").unwrap();
            speak();
            let line: serde_json::Value = serde_json::from_str(&lines.take()).unwrap();
            assert_eq!(line["level"], "DEBUG");
            assert_eq!(line["message"], "said");
            assert_eq!(line["answer"], 42);
            assert!(matches!(
                handle.set_filter("credbroker=loud"),
                Err(TelemetryError::Filter(_))
            ));
            speak();
            assert_ne!(lines.take(), "", "a refused filter leaves the earlier one");
        });
    }

    #[test]
    fn libraries_never_log_what_they_carry() {
        let lines = Lines::default();
        let (subscriber, _handle) =
            subscriber(&log(LogFormat::Pretty, "trace"), lines.clone(), false).unwrap();
        tracing::subscriber::with_default(subscriber, || {
            tracing::trace!(target: "h2::hpack", "authorization: Bearer s3cret");
            tracing::debug!(target: "credbrokering", "s3cret");
            assert_eq!(lines.take(), "");
            tracing::info!(target: "h2::server", "closed");
            tracing::trace!(target: "credbroker::store", "ours");
            let text = lines.take();
            assert!(text.contains("closed") && text.contains("ours"), "{text}");
        });
    }

    #[test]
    fn a_text_that_is_no_filter_is_refused() {
        let refused = subscriber(
            &log(LogFormat::Json, "info,credbroker=loud"),
            Lines::default(),
            false,
        );
        assert!(matches!(refused.err(), Some(TelemetryError::Filter(_))));
    }
}
