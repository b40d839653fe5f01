//! The `credbroker` command.

fn main() -> std::process::ExitCode {
    credbroker::cli::main()
}
