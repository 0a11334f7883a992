//! The program: an askpass helper when ssh runs it as one, else the command line.

use std::process::ExitCode;

fn main() -> ExitCode {
    if let Some(code) = opsh::bind::ssh::askpass() {
        return ExitCode::from(code);
    }
    // Scripts may nest calls 128 deep; the main thread's 8 MiB do not hold that.
    let engine = std::thread::Builder::new().name("opsh".into()).stack_size(64 << 20).spawn(opsh::cli::main);
    opsh::interrupt::leave_stopping_to_others();
    match engine.map(std::thread::JoinHandle::join) {
        Ok(Ok(code)) => ExitCode::from(code),
        _ => ExitCode::from(1),
    }
}
