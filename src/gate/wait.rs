//! The one place where opsh waits: an I/O thread with the one runtime, Ctrl-C, deadlines.

use crate::interrupt;
use std::future::Future;
use std::sync::mpsc;
use std::time::Duration;
use tokio::runtime::{Builder, Handle};

/// How a future ended.
#[derive(Debug)]
pub enum Ended<T> {
    /// By itself.
    Done(T),
    /// Its deadline passed; it was dropped.
    Timeout,
    /// Ctrl-C; it was dropped.
    Interrupted,
    /// It panicked: a bug in opsh, recorded like any other end.
    Panicked,
}

/// The I/O thread. Its runtime is current-thread: a multi-threaded one costs six times the CPU on log streams, and
/// masters die with the thread that started them, so that thread must be one that lives as long as opsh.
pub struct Io {
    handle: Handle,
}

impl Io {
    /// Starts the thread and the Ctrl-C handler. The handler is in place when this returns: one that is installed
    /// while a line is being edited is lost, and the next Ctrl-C ends opsh.
    pub fn start() -> std::io::Result<Io> {
        let (sender, ready) = mpsc::channel();
        std::thread::Builder::new().name("opsh-io".into()).spawn(move || {
            let runtime = match Builder::new_current_thread().enable_all().build() {
                Ok(runtime) => runtime,
                Err(error) => return drop(sender.send(Err(error))),
            };
            let handle = runtime.handle().clone();
            runtime.block_on(async move {
                let listening = listen_for_interrupts();
                let _ = sender.send(listening.map(|()| handle));
                std::future::pending::<()>().await
            });
        })?;
        let handle = ready.recv().map_err(|_| std::io::Error::other("the I/O thread ended at once"))??;
        Ok(Io { handle })
    }

    /// Runs `future` on the I/O thread and waits for it. `tick` is called about ten times a second meanwhile.
    pub fn wait<T: Send + 'static>(
        &self,
        future: impl Future<Output = T> + Send + 'static,
        deadline: Option<Duration>,
        mut tick: impl FnMut(Duration),
    ) -> Ended<T> {
        let (sender, receiver) = mpsc::channel();
        self.handle.spawn(async move {
            let ended = tokio::select! {
                biased;
                () = interrupt::raised() => Ended::Interrupted,
                value = future => Ended::Done(value),
                () = expire(deadline) => Ended::Timeout,
            };
            let _ = sender.send(ended);
        });
        let mut passed = Duration::ZERO;
        let step = Duration::from_millis(100);
        loop {
            match receiver.recv_timeout(step) {
                Ok(ended) => return ended,
                Err(mpsc::RecvTimeoutError::Disconnected) => return Ended::Panicked,
                Err(mpsc::RecvTimeoutError::Timeout) => {
                    passed += step;
                    tick(passed);
                }
            }
        }
    }
}

async fn expire(deadline: Option<Duration>) {
    match deadline {
        Some(deadline) => tokio::time::sleep(deadline).await,
        None => std::future::pending().await,
    }
}

fn listen_for_interrupts() -> std::io::Result<()> {
    use tokio::signal::unix::{SignalKind, signal};
    let (mut int, mut term) = (signal(SignalKind::interrupt())?, signal(SignalKind::terminate())?);
    tokio::spawn(async move {
        loop {
            tokio::select! { _ = int.recv() => {}, _ = term.recv() => {} }
            // Two were ignored by whatever runs: the third ends opsh. What was begun is in the journal as open.
            if interrupt::raise() > 2 {
                std::process::exit(130);
            }
        }
    });
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_future_ends_by_itself_by_its_deadline_or_by_its_panic() {
        let io = Io::start().expect("a thread");
        assert!(matches!(io.wait(async { 7 }, None, |_| {}), Ended::Done(7)));
        let never = std::future::pending::<()>();
        assert!(matches!(io.wait(never, Some(Duration::from_millis(10)), |_| {}), Ended::Timeout));
        let bug = async { panic!("a bug that a test planted") };
        assert!(matches!(io.wait::<()>(bug, None, |_| {}), Ended::Panicked));
        assert!(matches!(io.wait(async { 8 }, None, |_| {}), Ended::Done(8)), "the thread lives on");
    }
}
