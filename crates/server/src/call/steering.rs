//! What a call's carrier is told about it, each thing in a task of its own: no driver waits for a carrier. It does not know why.

use super::registry::{Handle, Letter, Onward, Registry};
use super::welcome::Welcome;
use crate::carrier::CarrierControl;
use crate::problem::chain;
use offhook_carriers::CarrierError;
use offhook_core::call::Input;
use std::sync::Arc;
use std::time::Duration;

/// When the carrier has not ended the call by itself, it is told by another way after this.
const HANG_UP_PATIENCE: Duration = Duration::from_secs(2);

/// The hand that a driver has on its call at the carrier.
#[derive(Clone)]
pub(super) struct Steering {
    pub(super) handle: Arc<Handle>,
    pub(super) carrier: CarrierControl,
    pub(super) registry: Arc<Registry>,
}

impl Steering {
    /// Ends our part of the call. A carrier that asks by itself what comes after the media is told only if it has not, unless the call
    /// is `given_up` and has no media whose end it would notice.
    pub(super) fn end(&self, onward: Onward, given_up: bool) {
        let Steering { handle, carrier, registry } = self.clone();
        tokio::spawn(async move {
            if carrier.asks() && !given_up {
                tokio::time::sleep(HANG_UP_PATIENCE).await;
                if registry.by_id(&handle.id).is_none() {
                    return;
                }
            }
            match carrier.end(&handle.carrier_call, &onward).await {
                Ok(()) if carrier.asks() => {}
                Ok(()) | Err(CarrierError::NotFound | CarrierError::CallOver) => has_ended(&handle),
                Err(error) => {
                    let error = chain(&error);
                    tracing::warn!(call.id = %handle.id, error, "The carrier was told to end a call and did not");
                }
            }
        });
    }

    /// Has a media socket opened again.
    pub(super) fn media_again(&self) {
        let Steering { handle, carrier, .. } = self.clone();
        tokio::spawn(async move {
            match carrier.media_again(&handle).await {
                Ok(()) => {}
                Err(CarrierError::NotFound | CarrierError::CallOver) => {
                    handle.tell(Letter::Fact(Input::HungUp { by_caller: true }));
                }
                Err(error) => {
                    let error = chain(&error);
                    tracing::warn!(call.id = %handle.id, error, "The carrier could not be told to open another media socket");
                }
            }
        });
    }

    /// Presses keys where only the carrier can.
    pub(super) fn press(&self, digits: String) {
        let Steering { handle, carrier, .. } = self.clone();
        tokio::spawn(async move {
            if let Err(error) = carrier.press(&handle.carrier_call, &digits).await {
                let error = chain(&error);
                tracing::warn!(call.id = %handle.id, error, "Keys were not sent");
            }
        });
    }

    /// There is no way to talk to a caller who is on the line.
    pub(super) fn give_up(&self) {
        let Steering { handle, carrier, .. } = self.clone();
        tokio::spawn(async move {
            let welcome = Welcome::sorry(&handle.forward_to);
            if let Err(error) = carrier.lead(&handle.carrier_call, &welcome).await {
                let error = chain(&error);
                tracing::warn!(call.id = %handle.id, error, "A caller is left without an apology");
            }
        });
    }
}

/// Our part of the call is over at the carrier.
fn has_ended(handle: &Handle) {
    handle.tell(Letter::Fact(Input::HungUp { by_caller: false }));
}
