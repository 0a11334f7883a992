//! Ctrl-C as one flag: raised by the signal handler, seen by waits, loops and questions.

use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{LazyLock, Mutex, PoisonError};
use std::time::{Duration, Instant};
use tokio::sync::watch;

struct Interrupt {
    count: AtomicU32,
    raised: watch::Sender<bool>,
}

static INTERRUPT: LazyLock<Interrupt> =
    LazyLock::new(|| Interrupt { count: AtomicU32::new(0), raised: watch::channel(false).0 });

/// When keys are opsh's again; `None` while a program has the terminal.
static BACK: LazyLock<Mutex<Option<Instant>>> = LazyLock::new(|| Mutex::new(Some(Instant::now())));

/// The key that ended the program is a signal here, too, and may be heard of after the program's end.
const HEARD_WITHIN: Duration = Duration::from_millis(200);

/// For as long as this lives Ctrl-C is for a program that has the terminal, and not for opsh.
pub struct Held(());

/// Keeps Ctrl-C away from opsh.
pub fn hold() -> Held {
    set(None);
    Held(())
}

impl Drop for Held {
    fn drop(&mut self) {
        set(Some(Instant::now() + HEARD_WITHIN));
    }
}

fn set(back: Option<Instant>) {
    *BACK.lock().unwrap_or_else(PoisonError::into_inner) = back;
}

/// True while Ctrl-C is not for opsh.
pub fn is_held() -> bool {
    BACK.lock().unwrap_or_else(PoisonError::into_inner).is_none_or(|back| Instant::now() < back)
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
