//! What a socket will send and when. It knows nothing of what is sent.

use std::collections::BTreeMap;
use std::future;
use tokio::time::{Instant, sleep_until};

/// Things that are due at some time, in the order of time, those due at once in the order of entry.
pub(super) struct Agenda<T> {
    items: BTreeMap<(Instant, u64), T>,
    entered: u64,
}

impl<T> Agenda<T> {
    pub fn new() -> Self {
        Agenda { items: BTreeMap::new(), entered: 0 }
    }

    pub fn push(&mut self, at: Instant, item: T) {
        self.items.insert((at, self.entered), item);
        self.entered += 1;
    }

    /// Drops what `keep` does not want, looking at the earliest first.
    pub fn retain(&mut self, mut keep: impl FnMut(Instant, &T) -> bool) {
        self.items.retain(|(at, _), item| keep(*at, item));
    }

    /// Waits until something is due, for ever if nothing is; nothing is lost when the wait is given up.
    pub async fn due(&mut self) -> T {
        let Some((at, _)) = self.items.first_key_value().map(|(key, _)| *key) else {
            return future::pending().await;
        };
        sleep_until(at).await;
        self.items.pop_first().expect("it was there before the wait").1
    }
}
