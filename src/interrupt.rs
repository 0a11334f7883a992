//! Ctrl-C as one flag: raised by the signal handler, seen by waits, loops and questions.

use std::sync::LazyLock;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use tokio::sync::watch;

struct Interrupt {
    count: AtomicU32,
    raised: watch::Sender<bool>,
}

static INTERRUPT: LazyLock<Interrupt> =
    LazyLock::new(|| Interrupt { count: AtomicU32::new(0), raised: watch::channel(false).0 });

/// A program has the terminal: keys are its own.
static HELD: AtomicBool = AtomicBool::new(false);

/// For as long as this lives Ctrl-C is for a program that has the terminal, and not for opsh.
pub struct Held(());

/// Keeps Ctrl-C away from opsh.
pub fn hold() -> Held {
    HELD.store(true, Ordering::Release);
    Held(())
}

impl Drop for Held {
    fn drop(&mut self) {
        HELD.store(false, Ordering::Release);
    }
}

/// True while Ctrl-C is not for opsh.
pub fn is_held() -> bool {
    HELD.load(Ordering::Acquire)
}

/// True between Ctrl-C and [`clear`].
pub fn is_interrupted() -> bool {
    INTERRUPT.count.load(Ordering::Acquire) > 0
}

/// Ctrl-C was pressed; returns how many times since [`clear`].
pub fn raise() -> u32 {
    let count = INTERRUPT.count.fetch_add(1, Ordering::AcqRel) + 1;
    INTERRUPT.raised.send_replace(true);
    count
}

/// Forgets a Ctrl-C: called before each line and each run.
pub fn clear() {
    INTERRUPT.count.store(0, Ordering::Release);
    INTERRUPT.raised.send_replace(false);
}

/// Ends when Ctrl-C is pressed.
pub async fn raised() {
    let mut receiver = INTERRUPT.raised.subscribe();
    // The sender is static: waiting on it cannot fail.
    let _ = receiver.wait_for(|raised| *raised).await;
}
