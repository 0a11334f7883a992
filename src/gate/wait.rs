//! The one place where opsh waits: an I/O thread with the one runtime, Ctrl-C, deadlines.

use super::bounds::Late;
use super::pass::Marks;
use crate::{interrupt, screen};
use std::future::Future;
use std::sync::{Arc, mpsc};
use std::time::Duration;
use tokio::runtime::{Builder, Handle};
use tokio::sync::Semaphore;

/// How a future ended.
#[derive(Debug)]
pub enum Ended<T> {
    /// By itself.
    Done(T),
    /// Its deadline passed; it was dropped.
    Timeout(Late),
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
    pub fn start_thread() -> std::io::Result<Io> {
        let (sender, ready) = mpsc::channel();
        std::thread::Builder::new().name("opsh-io".into()).spawn(move || {
            screen::leave_stopping_to_others();
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

    /// Starts `work` on the I/O thread as soon as it is its turn. `tell` gets its end, exactly once; its deadline counts
    /// from its beginning.
    pub fn start<T: Send + 'static>(
        &self,
        work: impl Future<Output = T> + Send + 'static,
        limit: Limit,
        tell: impl FnOnce(Ended<T>) + Send + 'static,
    ) {
        self.handle.spawn(async move {
            let mut told = Told(Some(tell), std::marker::PhantomData);
            let turn = tokio::select! {
                biased;
                () = interrupt::raised() => return told.tell(Ended::Interrupted),
                turn = limit.turns.acquire_owned() => turn,
            };
            let ended = tokio::select! {
                biased;
                () = interrupt::raised() => Ended::Interrupted,
                value = work => Ended::Done(value),
                late = expire(limit.deadline, &limit.marks) => Ended::Timeout(late),
            };
            // The work was dropped. What it left behind is cleared, whatever was pressed meanwhile.
            limit.marks.cleared().await;
            drop(turn);
            told.tell(ended);
        });
    }

    /// Waits for the next message of what was started, at most a tenth of a second.
    pub fn hear<M>(inbox: &mpsc::Receiver<M>) -> Option<M> {
        inbox.recv_timeout(Duration::from_millis(100)).ok()
    }
}

/// What bounds a piece of work.
pub struct Limit {
    /// How long it may take.
    pub deadline: Duration,
    /// How many may go on at once.
    pub turns: Arc<Semaphore>,
    /// Where the work says what it waits for, and what of its time does not count.
    pub marks: Arc<Marks>,
}

impl Limit {
    /// Of work that has its turn at once, and this long, whatever it says.
    pub fn alone(deadline: Duration) -> Limit {
        Limit { deadline, turns: Arc::new(Semaphore::new(1)), marks: Arc::default() }
    }
}

/// Tells the end; work that panics is dropped, and its end told by that.
struct Told<T, F: FnOnce(Ended<T>)>(Option<F>, std::marker::PhantomData<T>);

impl<T, F: FnOnce(Ended<T>)> Told<T, F> {
    fn tell(&mut self, ended: Ended<T>) {
        if let Some(tell) = self.0.take() {
            tell(ended);
        }
    }
}

impl<T, F: FnOnce(Ended<T>)> Drop for Told<T, F> {
    fn drop(&mut self) {
        self.tell(Ended::Panicked);
    }
}

async fn expire(deadline: Duration, marks: &Marks) -> Late {
    let clock = marks.clock();
    // The deadline may have moved while we slept.
    loop {
        let left = clock.left(deadline);
        if left.is_zero() {
            // Told before the work is dropped, and with it what it waits for.
            return Late { within: deadline, stuck: clock.stuck() };
        }
        tokio::time::sleep(left.min(Duration::from_secs(1))).await;
    }
}

fn listen_for_interrupts() -> std::io::Result<()> {
    use tokio::signal::unix::{SignalKind, signal};
    let (mut int, mut term) = (signal(SignalKind::interrupt())?, signal(SignalKind::terminate())?);
    let mut quit = signal(SignalKind::quit())?;
    tokio::spawn(async move {
        loop {
            tokio::select! {
                _ = int.recv() => if interrupt::is_held() { continue },
                _ = term.recv() => {}
                // Ctrl-\ ends opsh at once, as it does any program; while another one has the terminal it is for that one.
                _ = quit.recv() => if interrupt::is_held() { continue } else { std::process::exit(131) },
            }
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

    fn wait<T: Send + 'static>(io: &Io, work: impl Future<Output = T> + Send + 'static, within_ms: u64) -> Ended<T> {
        let (sender, inbox) = mpsc::channel();
        io.start(work, Limit::alone(Duration::from_millis(within_ms)), move |ended| drop(sender.send(ended)));
        loop {
            if let Some(ended) = Io::hear(&inbox) {
                return ended;
            }
        }
    }

    #[test]
    fn work_ends_by_itself_by_its_deadline_or_by_its_panic() {
        let io = Io::start_thread().expect("a thread");
        assert!(matches!(wait(&io, async { 7 }, 60_000), Ended::Done(7)));
        assert!(matches!(wait(&io, std::future::pending::<()>(), 10), Ended::Timeout(_)));
        let bug = async { panic!("a bug that a test planted") };
        assert!(matches!(wait::<()>(&io, bug, 60_000), Ended::Panicked));
        assert!(matches!(wait(&io, async { 8 }, 60_000), Ended::Done(8)), "the thread lives on");
    }
}
