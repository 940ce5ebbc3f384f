//! What becomes of a caller, whichever carrier brought them. It does not know how it is decided, nor how any carrier is told.

use super::registry::Handle;
use offhook_core::E164;
use std::sync::Arc;

/// What becomes of a caller.
#[derive(Debug)]
pub enum Welcome {
    /// Their call is driven here: open its media.
    Talk(Arc<Handle>),
    /// Their call can go on in a moment: hold them, then ask again.
    Hold,
    /// Another phone rings.
    Forward(E164),
    /// As many talk to the agent as it may take.
    Busy,
    /// Nobody answers this number.
    Declined,
    /// Somebody should answer and cannot: an apology, in the carrier's voice.
    Sorry,
    /// The agent is on as many calls as it may take: they are told this, in the carrier's voice.
    Message(String),
    /// The call is over.
    Over,
}

/// What a caller is told when nobody can answer them, by a voice of their carrier's.
pub const SORRY: &str = "We are sorry, we cannot take your call right now. Please try again later.";

impl Welcome {
    /// What a caller gets when nobody can answer them: somebody else's phone, or an apology.
    pub fn sorry(forward_to: &Option<E164>) -> Welcome {
        forward_to.clone().map_or(Welcome::Sorry, Welcome::Forward)
    }
}
