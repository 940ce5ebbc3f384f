//! Everything the server is made of, built once. It does not know routes.

use crate::call::driver::Surroundings;
use crate::carrier::telnyx::TelnyxLines;
use crate::speech::{Phrasebook, Recording};
use crate::trunks::Trunks;
use offhook_carriers::PublicUrl;
use offhook_core::Secret;
use offhook_store::{Environment, Node, Store};
use std::fmt;
use std::sync::Arc;

/// The server's parts.
pub struct App {
    /// The database.
    pub store: Store,
    /// Calls, recorder, live events.
    pub around: Surroundings,
    /// For carriers' REST interfaces.
    pub http: reqwest::Client,
    /// How the world reaches us.
    pub public_url: PublicUrl,
    /// Who we are among nodes.
    pub node: Node,
    /// Fixed sentences as audio.
    pub phrases: Arc<Phrasebook>,
    /// Whether agents' fixed sentences are spoken before anybody rings.
    pub rehearses: bool,
    /// What is known of Telnyx's lines.
    pub telnyx: Arc<TelnyxLines>,
    /// What is known of SIP trunks, and the user agent where one listens.
    pub trunks: Trunks,
    /// The apology that needs no provider.
    pub canned_apology: Arc<Recording>,
    /// The clock and chance.
    pub environment: Arc<dyn Environment>,
}

impl fmt::Debug for App {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("App")
            .field("node", &self.node)
            .field("public_url", &self.public_url)
            .finish_non_exhaustive()
    }
}

impl App {
    /// A random text that nobody can guess: 256 bits in hexadecimal.
    pub fn ticket(&self) -> Secret<String> {
        ticket(&*self.environment)
    }
}

/// As [`App::ticket`], where there is only chance.
pub(crate) fn ticket(environment: &dyn Environment) -> Secret<String> {
    let mut bytes = [0; 32];
    environment.fill(&mut bytes);
    Secret::new(bytes.iter().map(|b| format!("{b:02x}")).collect())
}
