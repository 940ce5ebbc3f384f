//! `offhook carrier`: the simulated carrier as a server, for development without an account.

use crate::demo;
use anyhow::{Context as _, Result};
use offhook_core::Secret;
use offhook_sim::carrier::twilio::{OwnedNumber, TwilioSettings, TwilioSim};
use std::net::SocketAddr;

#[derive(clap::Args)]
pub struct Args {
    /// Where the carrier listens: its REST interface, and its controls under /_sim/
    #[arg(long, default_value = "127.0.0.1:9200", value_name = "ADDRESS")]
    listen: SocketAddr,
    /// The account's auth token, which signs webhooks
    #[arg(long, default_value = "0123456789abcdef0123456789abcdef", value_name = "TOKEN")]
    auth_token: String,
    /// The account
    #[arg(long, default_value = demo::ACCOUNT, value_name = "SID")]
    account: String,
    /// A number of the account and the voice webhook it points at: +15550100100=http://127.0.0.1:8080/hooks/twilio/voice; may repeat
    #[arg(long = "number", value_name = "NUMBER=URL")]
    numbers: Vec<String>,
}

pub async fn run(args: Args) -> Result<()> {
    let numbers = args.numbers.iter().map(|text| {
        let (number, url) =
            text.split_once('=').with_context(|| format!("--number {text}: NUMBER=URL is wanted"))?;
        Ok(OwnedNumber::new(number, url))
    });
    let numbers = numbers.collect::<Result<Vec<_>>>()?;
    let to = numbers.first().map_or("+15550100100".to_owned(), |number| number.e164.clone());
    let settings = TwilioSettings {
        account_sid: args.account,
        auth_token: Secret::new(args.auth_token),
        numbers,
        ..TwilioSettings::default()
    };
    let sim = TwilioSim::start(args.listen, settings).await.with_context(|| args.listen.to_string())?;
    println!("ready {}", sim.base_url());
    println!(
        "place a call: curl -d '{{\"to\":\"{to}\",\"from\":\"+15550100001\"}}' -H 'content-type: application/json' {}/_sim/calls",
        sim.base_url()
    );
    tokio::signal::ctrl_c().await?;
    Ok(())
}
