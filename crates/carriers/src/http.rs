//! What every carrier's REST client does alike: how long it waits, how much it reads, and what a broken request may have done.
//! It knows no carrier, and makes no second attempt.

use crate::CarrierError;
use reqwest::Response;
use std::borrow::Cow;
use std::time::Duration;

/// How long one request may take in all.
pub(crate) const REQUEST_TIMEOUT: Duration = Duration::from_secs(10);
/// The pause before a request is made once more that may be.
pub(crate) const RETRY_PAUSE: Duration = Duration::from_millis(200);
/// The largest answer that is read; a page of 250 numbers is about 400 KiB.
pub(crate) const MAX_ANSWER_BYTES: usize = 1024 * 1024;

/// Whether a request that got no answer may have changed something.
#[derive(Clone, Copy)]
pub(crate) enum Harm {
    None,
    Possible,
}

impl Harm {
    pub(crate) fn error(self, cause: impl Into<Cow<'static, str>>) -> CarrierError {
        let cause = cause.into();
        match self {
            Harm::None => CarrierError::Unreachable { cause },
            Harm::Possible => CarrierError::OutcomeUnknown { cause },
        }
    }

    /// The answer came and means nothing.
    pub(crate) fn unreadable(self) -> CarrierError {
        self.error("its answer cannot be read")
    }
}

pub(crate) fn broken(error: &reqwest::Error, harm: Harm) -> CarrierError {
    if error.is_connect() {
        Harm::None.error("no connection")
    } else if error.is_builder() {
        Harm::None.error("the request could not be built")
    } else if error.is_timeout() {
        harm.error("no answer in time")
    } else {
        harm.error("the connection broke")
    }
}

pub(crate) async fn body_of(mut response: Response, harm: Harm) -> Result<Vec<u8>, CarrierError> {
    let mut body = Vec::new();
    while let Some(chunk) = response.chunk().await.map_err(|e| broken(&e, harm))? {
        if body.len() + chunk.len() > MAX_ANSWER_BYTES {
            return Err(harm.error("its answer is too large"));
        }
        body.extend_from_slice(&chunk);
    }
    Ok(body)
}
