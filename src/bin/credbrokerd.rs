//! The credential broker's daemon.

fn main() -> std::process::ExitCode {
    credbroker::daemon::commands::main()
}
