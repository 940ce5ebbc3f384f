//! Being asked to wait: a provider that has too many requests is asked once more when it says so, and otherwise left alone.
//! It knows neither what is asked nor whom a call asks next.

use crate::{Cause, ProviderError};
use std::future::Future;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;
use tokio::time::{Instant, sleep};

/// How long a provider is left alone that has too many requests and does not say for how long: the official clients' first pause.
const USUAL_PAUSE: Duration = Duration::from_millis(500);

/// A request that came to nothing.
#[derive(Debug)]
pub(crate) struct Refused {
    pub(crate) error: ProviderError,
    /// After which time the provider wants to be asked again.
    pub(crate) retry_after: Option<Duration>,
}

impl From<ProviderError> for Refused {
    fn from(error: ProviderError) -> Self {
        Refused { error, retry_after: None }
    }
}

/// Until when a provider does not want to be asked. Shared by all that is asked with the same settings.
#[derive(Debug, Default)]
pub(crate) struct Throttle {
    until: Mutex<Option<Instant>>,
}

impl Throttle {
    /// Asks, and once more where the provider wants that and the answer can still come within `patience`. Whoever asks again
    /// earlier than it wants, is refused at once.
    pub(crate) async fn ask<T, F>(
        &self,
        provider: &'static str,
        patience: Duration,
        attempt: impl Fn() -> F,
    ) -> Result<T, ProviderError>
    where
        F: Future<Output = Result<T, Refused>>,
    {
        if self.until().is_some_and(|until| Instant::now() < until) {
            return Err(ProviderError::new(provider, Cause::RateLimited, "it asked for a pause"));
        }
        let mut refused = match attempt().await {
            Ok(answer) => return Ok(answer),
            Err(refused) => refused,
        };
        let pause = refused.retry_after.unwrap_or(USUAL_PAUSE);
        // Half of the patience is for the answer.
        if refused.error.cause == Cause::RateLimited && pause <= patience / 2 {
            sleep(pause).await;
            refused = match attempt().await {
                Ok(answer) => return Ok(answer),
                Err(refused) => refused,
            };
        }
        if refused.error.cause == Cause::RateLimited {
            let until = refused.retry_after.and_then(|pause| Instant::now().checked_add(pause));
            *self.until.lock().unwrap_or_else(PoisonError::into_inner) = until;
        }
        Err(refused.error)
    }

    fn until(&self) -> Option<Instant> {
        *self.until.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::cell::Cell;

    const PATIENCE: Duration = Duration::from_secs(4);

    #[tokio::test]
    async fn pause_that_is_short_is_waited_for_once() {
        for (refusals, asked, answer) in [(1, 2, Ok(())), (2, 2, Err(Cause::RateLimited))] {
            let (throttle, provider) = (Throttle::default(), Provider::new(refusals, Cause::RateLimited, 1));
            assert_eq!(provider.ask(&throttle).await, answer);
            assert_eq!(provider.asked.get(), asked, "{refusals}");
        }
    }

    #[tokio::test]
    async fn pause_that_is_too_long_is_kept_but_not_waited_for() {
        let (throttle, provider) = (Throttle::default(), Provider::new(1, Cause::RateLimited, 60_000));
        assert_eq!(provider.ask(&throttle).await, Err(Cause::RateLimited));
        assert_eq!(provider.ask(&throttle).await, Err(Cause::RateLimited));
        assert_eq!(provider.asked.get(), 1, "nobody asks a provider that wants a minute's rest");
    }

    #[tokio::test]
    async fn other_refusals_are_not_waited_for() {
        let (throttle, provider) = (Throttle::default(), Provider::new(1, Cause::Unreachable, 1));
        assert_eq!(provider.ask(&throttle).await, Err(Cause::Unreachable));
        assert_eq!(provider.ask(&throttle).await, Ok(()), "and bar nobody's way");
    }

    /// A provider that refuses some requests first.
    struct Provider {
        asked: Cell<u32>,
        refusals: u32,
        cause: Cause,
        retry_after: Duration,
    }

    impl Provider {
        fn new(refusals: u32, cause: Cause, retry_after_ms: u64) -> Self {
            let retry_after = Duration::from_millis(retry_after_ms);
            Provider { asked: Cell::new(0), refusals, cause, retry_after }
        }

        async fn ask(&self, throttle: &Throttle) -> Result<(), Cause> {
            let attempt = || async {
                self.asked.set(self.asked.get() + 1);
                let error = ProviderError::new("test", self.cause, "");
                let refused = Refused { error, retry_after: Some(self.retry_after) };
                if self.asked.get() > self.refusals { Ok(()) } else { Err(refused) }
            };
            throttle.ask("test", PATIENCE, attempt).await.map_err(|error| error.cause)
        }
    }
}
