//! The program: an askpass helper when ssh runs it as one, else the command line.

use std::process::ExitCode;

fn main() -> ExitCode {
    opsh::redact::seal_process();
    ExitCode::from(opsh::bind::ssh::askpass().unwrap_or_else(opsh::cli::main))
}
