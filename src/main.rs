//! The program: an askpass helper when ssh runs it as one, else the command line.

use std::process::ExitCode;

fn main() -> ExitCode {
    ExitCode::from(opsh::bind::ssh::askpass().unwrap_or_else(opsh::cli::main))
}
