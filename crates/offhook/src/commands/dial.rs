//! `offhook dial`: a simulated phone call into the running server, in real time, over the same sockets as a carrier's.

use super::watch::{self, Screen};
use super::{Start, Where, first_workspace, open_store_without_secrets};
use crate::config::Config;
use crate::{demo, private_file};
use anyhow::{Context as _, Result, bail, ensure};
use offhook_core::entity::{Call, MessageRole, Role};
use offhook_core::{ConnectionId, ConversationId, E164, Secret};
use offhook_media::LINE_RATE_HZ;
use offhook_media::resample::Resampler;
use offhook_media::wav::Wav;
use offhook_providers::offline;
use offhook_sim::carrier::twilio::{AfterLoss, CallOrder, OwnedNumber, Proxy, TwilioSettings, TwilioSim};
use offhook_sim::carrier::{CallerStep, Phone, RobotReport, follow};
use offhook_store::{PAGE_ROWS_MAX, Page, Scope, Store, StoreError};
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
    /// The server's address, if it is not the one that was last served from the data folder
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
/// How long the server may take to say that it is there.
const ANSWERS_WITHIN: Duration = Duration::from_secs(5);
/// How long the record of a call may take to be written.
const RECORDED_WITHIN: Duration = Duration::from_secs(10);
/// How often the store is asked for a call that is awaited.
const LOOK_EVERY: Duration = Duration::from_millis(100);

pub async fn run(args: Args) -> Result<()> {
    let config = args.at.config()?;
    let server = match &args.server {
        Some(server) => server.trim_end_matches('/').to_owned(),
        None => served_at(&config)?,
    };
    // The server believes what is signed for its public URL only; a proxy in between is not needed for that.
    let public = match config.server.public_url.trim_end_matches('/') {
        "" => server.clone(),
        public => public.to_owned(),
    };
    let to = args.to.clone().unwrap_or_else(|| config.demo.number.clone());
    let token = config.server.data.join("simulator.token");
    let token = private_file::read(&token)?.with_context(|| {
        format!("{} is missing: run `offhook serve` first, with the same data folder", token.display())
    })?;

    let store = open_store_without_secrets(&config, Start::Existing).await?;
    let scope = first_workspace(&store, "dial")
        .await?
        .context("there is no workspace yet: run `offhook serve` once")?;
    let line = simulated_line(&store, &scope).await?;
    let key = reading_key(&config, &store, &scope).await?;

    let http = reqwest::Client::new();
    ensure!(
        http.get(format!("{server}/healthz")).timeout(ANSWERS_WITHIN).send().await.is_ok(),
        "no server answers at {server}: start `offhook serve`, or give the address of one with --server"
    );
    let settings = TwilioSettings {
        account_sid: demo::ACCOUNT.into(),
        auth_token: token,
        numbers: vec![OwnedNumber {
            voice_fallback_url: format!("{public}/hooks/twilio/voice-fallback"),
            status_callback: format!("{public}/hooks/twilio/status"),
            ..OwnedNumber::new(to.as_str(), format!("{public}/hooks/twilio/voice"))
        }],
        proxy: Some(Proxy { public: public.clone(), behind: server.clone() }),
        ..TwilioSettings::default()
    };
    let carrier = TwilioSim::start(([127, 0, 0, 1], 0).into(), settings).await?;
    let script = script(&args)?;
    let call = carrier.call(CallOrder::new(to.as_str(), &args.from))?;
    let phone = call.phone();
    println!("ringing {to} at {server}\n");
    let screen = Arc::new(Screen::stdout());
    let telling = tokio::spawn(tell(phone.clone(), screen.clone()));
    let watching = tokio::spawn({
        let (store, scope, line) = (store.clone(), scope.clone(), line.clone());
        let (screen, sid) = (screen.clone(), call.sid().to_owned());
        async move {
            let id = begun(&store, &scope, &line, &sid).await?;
            watch::show(&http, &server, &key, &id, &screen).await
        }
    });
    if let Some(ms) = args.lose_socket {
        let call = call.clone();
        let phone = phone.clone();
        let screen = screen.clone();
        tokio::spawn(async move {
            if phone.until(PATIENCE * 10, |p| p.now_ms() >= ms).await.is_ok() {
                screen.happened(ms, "the media socket is lost");
                let _ = call.lose_socket(AfterLoss::Action);
            }
        });
    }
    let mut report = follow(&phone, &script, PATIENCE).await;
    // The agent may be saying goodbye: the last word is its own.
    let done = |p: &Phone| p.agent_quiet_ms().is_some_and(|quiet| quiet > LAST_WORD_MS);
    let last_said_ms = phone.caller_last_sound_ms().unwrap_or(0);
    let _ = phone.until(PATIENCE, |p| done(p) && p.agent_last_sound_ms() > Some(last_said_ms)).await;
    phone.hang_up();
    let status = call.until_over(PATIENCE).await?;
    let watched = tokio::time::timeout(RECORDED_WITHIN, watching).await;
    // It ends by itself when everything that happened was told: who hung up comes last.
    let _ = tokio::time::timeout(RECORDED_WITHIN, telling).await;

    std::fs::write(&args.wav, phone.recording().wav().to_bytes())
        .with_context(|| args.wav.display().to_string())?;
    println!("\nwhat both heard: {} ({})", args.wav.display(), status.as_str());
    report.look_for_answers(&phone);
    turns(&report);
    let record = recorded(&store, &scope, &line, call.sid()).await?;
    if !matches!(watched, Ok(Ok(Ok(())))) {
        println!("the call could not be watched to its end; what is stored of it:");
        transcript(&store, &scope, &record).await?;
    }
    for tool in store.tool_calls(&scope, &record.id).await? {
        println!("{} was used with {}", tool.name, tool.arguments.expose());
    }
    println!("ended: {}", record.ended_reason.as_deref().unwrap_or_default());
    println!("run it again: offhook replay {}", record.id);
    store.close().await?;
    for alert in carrier.alerts() {
        println!("the carrier complains: {} {}", alert.code, alert.message);
    }
    match report.stopped {
        Some(why) => bail!("the call did not go as planned: {why}"),
        None => Ok(()),
    }
}

/// Where a server of this installation serves, or did last: it may listen elsewhere than the settings say here.
fn served_at(config: &Config) -> Result<String> {
    let file = config.served_at();
    match std::fs::read_to_string(&file) {
        Ok(server) => Ok(server.trim().to_owned()),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
            Ok(format!("http://{}", config.server.listen))
        }
        Err(error) => Err(error).with_context(|| file.display().to_string()),
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

/// Says what happens on the line beside what is said.
async fn tell(phone: Phone, screen: Arc<Screen>) {
    use offhook_sim::carrier::What;
    let mut events = phone.events();
    while let Some(event) = events.next().await {
        let what = match event.what {
            What::Answered => "answered".to_owned(),
            What::Cleared { dropped_ms } => format!("interrupted: {dropped_ms} ms of the agent unheard"),
            What::CarrierSaid { text } => format!("the carrier says: {text}"),
            What::DigitHeard { digit } => format!("key {digit} heard"),
            What::HungUp { by } => format!("hung up by {by:?}").to_lowercase(),
            _ => continue,
        };
        screen.happened(event.at_ms, &what);
    }
}

/// The connection through which the simulated carrier rings.
async fn simulated_line(store: &Store, scope: &Scope) -> Result<ConnectionId> {
    let mut page = Page::first(PAGE_ROWS_MAX);
    loop {
        let listed = store.connections(scope, &page).await?;
        if let Some(line) = listed.rows.into_iter().find(|connection| connection.name == demo::LINE) {
            return Ok(line.id);
        }
        let next = listed.next.with_context(|| {
            format!("there is no connection `{}`: run `offhook serve` with `demo.enabled`", demo::LINE)
        })?;
        page = Page::after(next, PAGE_ROWS_MAX);
    }
}

/// The key that this command reads the server's live events with: made once, good for reading only.
async fn reading_key(config: &Config, store: &Store, scope: &Scope) -> Result<Secret<String>> {
    let path = config.server.data.join("dial.key");
    if let Some(key) = private_file::read(&path)? {
        match store.scope_for_api_key(&key).await {
            Ok(_) => return Ok(key),
            Err(StoreError::NotFound { .. }) => std::fs::remove_file(&path)?,
            Err(error) => return Err(error.into()),
        }
    }
    let (_, key) = store.create_api_key(scope, "offhook dial", Role::Viewer).await?;
    private_file::read_or_create(&path, key)
}

/// The id of a call as soon as the server has begun it.
async fn begun(store: &Store, scope: &Scope, line: &ConnectionId, sid: &str) -> Result<ConversationId> {
    let looking = async {
        loop {
            match store.call_of_carrier(scope, line, sid).await {
                Err(StoreError::NotFound { .. }) => tokio::time::sleep(LOOK_EVERY).await,
                found => break Ok(found?.id),
            }
        }
    };
    tokio::time::timeout(PATIENCE, looking).await.context("the server has begun no call")?
}

/// The call's row once it is over.
async fn recorded(store: &Store, scope: &Scope, line: &ConnectionId, sid: &str) -> Result<Call> {
    let looking = async {
        loop {
            match store.call_of_carrier(scope, line, sid).await {
                Ok(call) if call.ended_reason.is_some() => break Ok(call),
                Ok(_) | Err(StoreError::NotFound { .. }) => tokio::time::sleep(LOOK_EVERY).await,
                Err(error) => break Err(error.into()),
            }
        }
    };
    let late = || format!("the call's record was not written within {} s", RECORDED_WITHIN.as_secs());
    tokio::time::timeout(RECORDED_WITHIN, looking).await.with_context(late)?
}

/// What is stored of what was said.
async fn transcript(store: &Store, scope: &Scope, call: &Call) -> Result<()> {
    for message in store.messages(scope, &call.id).await? {
        let cut = if message.heard.is_some() { " …" } else { "" };
        let gap = message.timing["playout_ms"].as_u64().map_or(String::new(), |ms| format!("  ({ms} ms)"));
        let who = if message.role == MessageRole::Member { "caller" } else { message.role.as_str() };
        println!("  {who:<6}  {}{cut}{gap}", message.text.expose());
    }
    Ok(())
}

fn turns(report: &RobotReport) {
    for (number, turn) in report.turns.iter().enumerate() {
        match turn.latency_ms() {
            Some(ms) => println!("turn {}: heard an answer after {ms} ms", number + 1),
            None => println!("turn {}: no answer", number + 1),
        }
    }
}
