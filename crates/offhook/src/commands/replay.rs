//! `offhook replay`: runs a stored call again from its log, and says where it goes another way.

use super::{Start, Where, first_workspace, open_store};
use anyhow::{Context as _, Result, bail};
use offhook_core::ConversationId;
use offhook_core::call::log::{LOG_REVISION, replay};
use offhook_core::call::{CallPlan, Speaker};
use offhook_store::LogFrom;

#[derive(clap::Args)]
pub struct Args {
    /// The call: cnv_…
    call: ConversationId,
    #[command(flatten)]
    at: Where,
}

pub async fn run(args: Args) -> Result<()> {
    let store = open_store(&args.at.config()?, Start::Existing).await?;
    let scope = first_workspace(&store, "replay").await?.context("there is no workspace here")?;
    let log =
        store.load_log(&scope, &args.call, LogFrom::Start).await.with_context(|| args.call.to_string())?;
    let plan: CallPlan = serde_json::from_str(&log.plan).context("the call's plan cannot be read")?;
    let lines = offhook_server::call::resume::lines(&log).context("the call's log cannot be read")?;
    if log.log_revision != LOG_REVISION {
        println!(
            "The call was logged by revision {}, this is {LOG_REVISION}: it may go another way.",
            log.log_revision
        );
    }
    let (call, divergence) = replay(plan, &lines);
    for line in call.transcript() {
        let who = match line.speaker {
            Speaker::Caller => "caller",
            Speaker::Agent => "agent",
            Speaker::Staff => "staff",
        };
        println!(
            "{:>8.2} s  {who:<6}  {}{}",
            line.at.as_us() as f64 / 1e6,
            line.text,
            if line.cut { " …" } else { "" }
        );
    }
    store.close().await?;
    match divergence {
        None => {
            println!("identical: {} lines", lines.len());
            Ok(())
        }
        Some(d) => bail!(
            "line {} at {:.3} s goes another way\n  logged:   {}\n  replayed: {}",
            d.line,
            d.at.as_us() as f64 / 1e6,
            d.logged,
            d.replayed
        ),
    }
}
