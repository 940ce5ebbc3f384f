//! `offhook dial`: a simulated phone call into the running server, in real time, over the same sockets as a carrier's.

use super::{Start, Where, first_workspace, open_store};
use crate::demo;
use anyhow::{Context as _, Result, bail, ensure};
use offhook_core::entity::MessageRole;
use offhook_core::{E164, Secret};
use offhook_media::LINE_RATE_HZ;
use offhook_media::resample::Resampler;
use offhook_media::wav::Wav;
use offhook_providers::offline;
use offhook_sim::carrier::twilio::{AfterLoss, CallOrder, OwnedNumber, TwilioSettings, TwilioSim};
use offhook_sim::carrier::{CallerStep, Phone, RobotReport, follow};
use offhook_store::{CallFilter, Page};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

#[derive(clap::Args)]
pub struct Args {
    /// What the caller says, turn by turn: a text, spoken by the offline voice, or a WAV file
    #[arg(value_name = "TEXT|FILE.wav")]
    says: Vec<String>,
    /// The number to ring: the demo agent's if none is given
    #[arg(long, value_name = "NUMBER")]
    to: Option<E164>,
    /// Who rings
    #[arg(long, default_value = "+15550100001", value_name = "NUMBER")]
    from: String,
    /// The server's address, if it is not `server.listen`
    #[arg(long, value_name = "URL")]
    server: Option<String>,
    /// Talk over the agent after so many ms of each of its replies but the greeting
    #[arg(long, value_name = "MS")]
    barge_in: Option<u64>,
    /// Silence that tells the caller that the agent is done, ms
    #[arg(long, default_value_t = 900, value_name = "MS")]
    quiet: u64,
    /// Lose the media socket so many ms into the call, as a broken network does
    #[arg(long, value_name = "MS")]
    lose_socket: Option<u64>,
    /// Keep what both sides heard: left the caller, right the agent
    #[arg(long, default_value = "call.wav", value_name = "FILE")]
    wav: PathBuf,
    #[command(flatten)]
    at: Where,
}

/// What the caller says when nothing else is given.
const DEMO_TURNS: [&str; 3] =
    ["What time do you open on Saturday?", "Do you have parking?", "Thank you, goodbye."];
/// Silence after the agent's last word until the caller hangs up.
const LAST_WORD_MS: u64 = 3_000;
/// How long one step of the script may wait for the agent.
const PATIENCE: Duration = Duration::from_secs(20);
/// How long the record of a call may take to be written.
const RECORDED_WITHIN: Duration = Duration::from_secs(10);

pub async fn run(args: Args) -> Result<()> {
    let config = args.at.config()?;
    let server = args.server.clone().unwrap_or_else(|| format!("http://{}", config.server.listen));
    let to = args.to.clone().unwrap_or_else(|| config.demo.number.clone());
    let token = config.server.data.join("simulator.token");
    let token = std::fs::read_to_string(&token).with_context(|| {
        format!("{} is missing: run `offhook serve` first, with the same data folder", token.display())
    })?;

    let settings = TwilioSettings {
        account_sid: demo::ACCOUNT.into(),
        auth_token: Secret::new(token.trim().into()),
        numbers: vec![OwnedNumber {
            voice_fallback_url: format!("{server}/hooks/twilio/voice-fallback"),
            status_callback: format!("{server}/hooks/twilio/status"),
            ..OwnedNumber::new(to.as_str(), format!("{server}/hooks/twilio/voice"))
        }],
        ..TwilioSettings::default()
    };
    let carrier = TwilioSim::start(([127, 0, 0, 1], 0).into(), settings).await?;
    let script = script(&args)?;
    let call = carrier.call(CallOrder::new(to.as_str(), &args.from))?;
    let phone = call.phone();
    println!("ringing {to} at {server}");
    let telling = tokio::spawn(tell(phone.clone()));
    if let Some(ms) = args.lose_socket {
        let call = call.clone();
        let phone = phone.clone();
        tokio::spawn(async move {
            if phone.until(PATIENCE * 10, |p| p.now_ms() >= ms).await.is_ok() {
                println!("{:>8.2} s  the media socket is lost", ms as f64 / 1e3);
                let _ = call.lose_socket(AfterLoss::Action);
            }
        });
    }
    let report = follow(&phone, &script, PATIENCE).await;
    // The agent may be saying goodbye: the last word is its own.
    let done = |p: &Phone| p.agent_quiet_ms().is_some_and(|quiet| quiet > LAST_WORD_MS);
    let last_said_ms = phone.caller_last_sound_ms().unwrap_or(0);
    let _ = phone.until(PATIENCE, |p| done(p) && p.agent_last_sound_ms() > Some(last_said_ms)).await;
    phone.hang_up();
    let status = call.until_over(PATIENCE).await?;
    telling.abort();

    std::fs::write(&args.wav, phone.recording().wav().to_bytes())
        .with_context(|| args.wav.display().to_string())?;
    println!("\ncall {} ({}); what was said and heard: {}", call.sid(), status.as_str(), args.wav.display());
    turns(&report);
    transcript(&args, call.sid()).await?;
    for alert in carrier.alerts() {
        println!("the carrier complains: {alert:?}");
    }
    match report.stopped {
        Some(why) => bail!("the call did not go as planned: {why}"),
        None => Ok(()),
    }
}

fn script(args: &Args) -> Result<Vec<CallerStep>> {
    let says: Vec<String> = match args.says.is_empty() {
        true => DEMO_TURNS.iter().map(|t| (*t).to_owned()).collect(),
        false => args.says.clone(),
    };
    let mut script = vec![CallerStep::WaitForAgentQuiet { ms: args.quiet }];
    for (turn, text) in says.iter().enumerate() {
        let pcm: Arc<[i16]> = speech(text)?.into();
        script.push(match args.barge_in {
            Some(after_ms_of_agent) if turn > 0 => CallerStep::BargeIn { after_ms_of_agent, say: pcm },
            _ => CallerStep::Say(pcm),
        });
        // After the last turn the agent may hang up: that is waited for elsewhere.
        if args.barge_in.is_none() && turn + 1 < says.len() {
            script.push(CallerStep::WaitForAgentQuiet { ms: args.quiet });
        }
    }
    Ok(script)
}

/// A caller's turn as 8 kHz audio.
fn speech(text: &str) -> Result<Vec<i16>> {
    let (pcm, rate_hz) = if text.ends_with(".wav") {
        let bytes = std::fs::read(text).with_context(|| text.to_owned())?;
        let wav = Wav::parse(&bytes).with_context(|| text.to_owned())?;
        let rate_hz = wav.rate_hz;
        (wav.into_mono(), rate_hz)
    } else {
        ensure!(!text.trim().is_empty(), "a caller's turn is a text or a WAV file");
        let spoken = offline::say(text);
        (spoken.pcm, spoken.rate_hz)
    };
    if rate_hz == LINE_RATE_HZ {
        return Ok(pcm);
    }
    let mut resampler =
        Resampler::new(rate_hz, LINE_RATE_HZ).with_context(|| format!("{text}: {rate_hz} Hz"))?;
    let mut narrow = Vec::new();
    resampler.push(&pcm, &mut narrow);
    resampler.flush(&mut narrow);
    Ok(narrow)
}

/// Says what happens on the line while it happens.
async fn tell(phone: Phone) {
    use offhook_sim::carrier::What;
    let mut events = phone.events();
    while let Some(event) = events.next().await {
        let what = match event.what {
            What::Answered => "answered".to_owned(),
            What::AgentStarted => "agent speaks".to_owned(),
            What::AgentStopped => "agent is silent".to_owned(),
            What::CallerStarted => "caller speaks".to_owned(),
            What::CallerStopped => "caller is silent".to_owned(),
            What::Cleared { dropped_ms } => format!("agent is interrupted, {dropped_ms} ms unheard"),
            What::CarrierSaid { text } => format!("carrier says: {text}"),
            What::DigitHeard { digit } => format!("key {digit} heard"),
            What::HungUp { by } => format!("hung up by {by:?}"),
            _ => continue,
        };
        println!("{:>8.2} s  {what}", event.at_ms as f64 / 1e3);
    }
}

fn turns(report: &RobotReport) {
    for (number, turn) in report.turns.iter().enumerate() {
        match turn.latency_ms() {
            Some(ms) => println!("turn {}: answered after {ms} ms", number + 1),
            None => println!("turn {}: no answer", number + 1),
        }
    }
}

/// Shows the stored transcript, as soon as it is written.
async fn transcript(args: &Args, carrier_call: &str) -> Result<()> {
    let store = open_store(&args.at.config()?, Start::Existing).await?;
    let Some(scope) = first_workspace(&store, "dial").await? else {
        bail!("the server's database is another one")
    };
    let deadline = tokio::time::Instant::now() + RECORDED_WITHIN;
    let call = loop {
        let calls = store.calls(&scope, CallFilter::All, &Page::first(20)).await?;
        match calls.rows.into_iter().find(|c| c.carrier_call == carrier_call) {
            Some(call) if call.ended_reason.is_some() => break call,
            _ if tokio::time::Instant::now() < deadline => {
                tokio::time::sleep(Duration::from_millis(100)).await
            }
            _ => bail!("the call's record was not written within {} s", RECORDED_WITHIN.as_secs()),
        }
    };
    println!("{} ended: {}", call.id, call.ended_reason.as_deref().unwrap_or_default());
    for message in store.messages(&scope, &call.id).await? {
        let cut = if message.heard.is_some() { " …" } else { "" };
        let gap = message.timing["playout_ms"].as_u64().map_or(String::new(), |ms| format!("  ({ms} ms)"));
        let who = if message.role == MessageRole::Member { "caller" } else { message.role.as_str() };
        println!("  {who:<6}  {}{cut}{gap}", message.text.expose());
    }
    for tool in store.tool_calls(&scope, &call.id).await? {
        println!("  tool    {} {}", tool.name, tool.arguments.expose());
    }
    println!("run it again: offhook replay {}", call.id);
    Ok(store.close().await?)
}
