//! The credential broker's daemon.

/// A request is suspended while its journal record is synced and often ends on another thread than it began
/// on. The system's allocator takes a lock for what is freed there, and under load the threads queue up for
/// it; `docs/performance.md` has figures.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> std::process::ExitCode {
    credbroker::daemon::commands::main()
}
