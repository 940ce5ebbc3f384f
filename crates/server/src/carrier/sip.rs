//! SIP's side of live calls: one leg, which is commanded inside its own dialog. It lives and dies with this process.

use crate::call::registry::Onward;
use offhook_carriers::CarrierError;
use offhook_carriers::sip::{SipCall, SipError};
use offhook_core::Pii;
use offhook_media::coding::Coding;
use std::sync::OnceLock;

/// A caller's leg, before and after it is answered.
#[derive(Debug)]
pub struct SipLeg {
    coding: Coding,
    answered: OnceLock<SipCall>,
}

impl SipLeg {
    /// A leg that rings, and will be coded so.
    pub fn ringing(coding: Coding) -> Self {
        SipLeg { coding, answered: OnceLock::new() }
    }

    /// It was answered.
    pub fn answered(&self, call: SipCall) {
        // A leg is answered once.
        let _ = self.answered.set(call);
    }

    /// How its audio is coded.
    pub fn coding(&self) -> Coding {
        self.coding
    }

    pub(super) fn leave(&self) {
        if let Some(call) = self.answered.get().cloned() {
            tokio::spawn(async move { call.hang_up().await });
        }
    }

    /// Ends our part of the call: a far end that cannot be asked to call elsewhere, or does not get there, is not left on the line.
    pub(super) async fn end(&self, onward: &Onward) -> Result<(), CarrierError> {
        let call = self.answered.get().ok_or(CarrierError::NotFound)?;
        let referred = match onward {
            Onward::Forward(to) => call.refer(to).await,
            Onward::HangUp | Onward::MediaAgain => Ok(()),
        };
        call.hang_up().await;
        match referred {
            Ok(()) | Err(SipError::CallOver) => Ok(()),
            Err(error) => Err(CarrierError::Refused {
                code: match error {
                    SipError::Refused { status } => status.into(),
                    _ => 0,
                },
                sentence:
                    "the far end could not call the other phone: forwarding needs a trunk that takes REFER"
                        .into(),
                detail: Pii::new(error.to_string()),
            }),
        }
    }
}
