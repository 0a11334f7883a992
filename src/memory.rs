//! Memory that the program has, counted where it is taken: a script that takes too much ends with an error, before the
//! machine swaps.

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;
use std::sync::atomic::{AtomicUsize, Ordering};

/// Bytes in use.
static LIVE: AtomicUsize = AtomicUsize::new(0);
/// Bytes that a script may bring the program to.
static MOST: AtomicUsize = AtomicUsize::new(usize::MAX);
/// Bytes beyond that while a script that was stopped goes back.
static ROOM: AtomicUsize = AtomicUsize::new(0);

/// Reserve for going back: it needs little, and none of it is there when a script has taken all.
const ROOM_TO_GO_BACK: usize = 256 << 20;

thread_local! {
    /// How often this thread took memory. It has no destructor, so the allocator may use it at any time.
    static TAKEN: Cell<u64> = const { Cell::new(0) };
}

/// The system's allocator, which counts.
struct Counting;

#[global_allocator]
static ALLOCATOR: Counting = Counting;

fn took(bytes: usize) {
    LIVE.fetch_add(bytes, Ordering::Relaxed);
    // After the end of the thread's own values nothing needs the count.
    let _ = TAKEN.try_with(|taken| taken.set(taken.get() + 1));
}

// SAFETY: every call goes to the system's allocator with the same arguments; counting neither takes memory nor panics.
unsafe impl GlobalAlloc for Counting {
    // SAFETY: the caller keeps the promises of `GlobalAlloc::alloc`, which are those of the system's.
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        // SAFETY: as above.
        let place = unsafe { System.alloc(layout) };
        if !place.is_null() {
            took(layout.size());
        }
        place
    }

    // SAFETY: as for `alloc`.
    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        // SAFETY: as above.
        let place = unsafe { System.alloc_zeroed(layout) };
        if !place.is_null() {
            took(layout.size());
        }
        place
    }

    // SAFETY: as for `alloc`; `place` is from the system's allocator, since all of these are.
    unsafe fn dealloc(&self, place: *mut u8, layout: Layout) {
        // SAFETY: as above.
        unsafe { System.dealloc(place, layout) };
        LIVE.fetch_sub(layout.size(), Ordering::Relaxed);
    }

    // SAFETY: as for `dealloc`.
    unsafe fn realloc(&self, place: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        // SAFETY: as above.
        let moved = unsafe { System.realloc(place, layout, size) };
        if !moved.is_null() {
            took(size);
            LIVE.fetch_sub(layout.size(), Ordering::Relaxed);
        }
        moved
    }
}

/// Bytes in use.
pub fn live() -> usize {
    LIVE.load(Ordering::Relaxed)
}

/// How often this thread took memory.
pub fn taken() -> u64 {
    TAKEN.try_with(Cell::get).unwrap_or(0)
}

/// Scripts may bring the program to so many bytes.
pub fn set_most(bytes: usize) {
    MOST.store(bytes, Ordering::Relaxed);
}

/// The bytes that scripts may bring the program to.
pub fn most() -> usize {
    MOST.load(Ordering::Relaxed)
}

/// True when the program has more than scripts may bring it to.
pub fn is_over() -> bool {
    live() > most().saturating_add(ROOM.load(Ordering::Relaxed))
}

/// A script was stopped for its memory: what goes back now may take a little more, once.
pub fn give_room() {
    ROOM.store(ROOM_TO_GO_BACK, Ordering::Relaxed);
}

/// The next script begins without the room of the last one.
pub fn take_room() {
    ROOM.store(0, Ordering::Relaxed);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memory_is_counted_when_taken_and_given_back() {
        // Other tests take and give at the same time: what is looked for is larger than all of theirs.
        const LARGE: usize = 1 << 30;
        let (before, taken_before) = (live(), taken());
        let large = vec![0u8; LARGE];
        assert!(live() >= before.saturating_sub(LARGE / 2) + LARGE, "{} {before}", live());
        assert!(taken() > taken_before);
        drop(large);
        assert!(live() < before + LARGE / 2, "{} {before}", live());
    }
}
