//! Many calls on loopback for a while: how late their packets are sent, and what a call costs. Nothing is asserted.
//!
//!     taskset -c 0 cargo bench -p offhook-carriers --bench rtp -- CALLS SECONDS WORK_US
//!
//! Both ends are ours, so that each call costs twice. WORK_US is what each end computes for every frame, as listening does.

use offhook_carriers::sip::rtp::{Media, RtpControl, RtpEvent, RtpLine, SourceFilter};
use offhook_carriers::sip::sdp::{MediaWishes, Offer, SrtpPolicy, offer};
use std::error::Error;
use std::net::{IpAddr, Ipv4Addr};
use std::time::Duration;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep};

const LOOPBACK: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let numbers: Vec<u64> = std::env::args().filter_map(|argument| argument.parse().ok()).collect();
    let number = |place: usize, usual: u64| numbers.get(place).copied().unwrap_or(usual);
    let (calls, seconds, work_us) = (number(0, 200), number(1, 10), number(2, 0));
    for srtp in [SrtpPolicy::Off, SrtpPolicy::Required] {
        soak(calls, seconds, work_us, srtp).await?;
    }
    Ok(())
}

async fn soak(calls: u64, seconds: u64, work_us: u64, srtp: SrtpPolicy) -> Result<(), Box<dyn Error>> {
    let media = Media::start(LOOPBACK, 20_000..=29_999)?;
    let wishes = MediaWishes { srtp, ..MediaWishes::default() };
    let mut ends = JoinSet::new();
    let mut controls = Vec::new();
    for _ in 0..calls {
        for (line, control) in call(&media, &wishes)? {
            ends.spawn(talk(line, work_us));
            controls.push(control);
        }
    }
    sleep(Duration::from_secs(1)).await;
    let (cpu, begun) = (cpu_ms()?, Instant::now());
    sleep(Duration::from_secs(seconds)).await;
    let (cpu, passed) = (cpu_ms()? - cpu, begun.elapsed());
    let statistics: Vec<_> = controls.iter().map(RtpControl::statistics).collect();
    let sum = |figure: fn(&offhook_carriers::sip::rtp::Statistics) -> u64| -> u64 {
        statistics.iter().map(figure).sum()
    };
    let late = media.lateness().percentiles();
    let worst = statistics.iter().map(|s| s.lateness.p99_us).max().unwrap_or(0);
    println!("{calls} calls, {seconds} s, {work_us} µs of work a frame, srtp {srtp:?}:");
    println!(
        "  sent late, µs: half {}, p99 {}, most {}; the worst line's p99 {worst}",
        late.p50_us, late.p99_us, late.most_us
    );
    println!(
        "  packets: {} sent, {} not taken, {} received, {} lost, {} late, {} ms filled in",
        sum(|s| s.sent),
        sum(|s| s.failed_sends),
        sum(|s| s.received.received),
        sum(|s| s.received.lost),
        sum(|s| s.received.late),
        sum(|s| s.received.concealed_ms),
    );
    let share = cpu as f64 / passed.as_millis() as f64;
    println!("  cpu: {:.1} % of one core, {:.2} % an end", 100.0 * share, 50.0 * share / calls as f64);
    controls.iter().for_each(RtpControl::stop);
    let mut frames = Vec::new();
    while let Some(end) = ends.join_next().await {
        frames.push(end?);
    }
    println!("  frames heard by a line: {:?} to {:?}", frames.iter().min(), frames.iter().max());
    Ok(())
}

fn call(media: &Media, wishes: &MediaWishes) -> Result<[(RtpLine, RtpControl); 2], Box<dyn Error>> {
    let (a, b) = (media.open()?, media.open()?);
    let (text, offered) = offer(&mut a.local(LOOPBACK), wishes);
    let allowed = MediaWishes { srtp: SrtpPolicy::Optional, ..wishes.clone() };
    let (answer, theirs) = Offer::parse(text.as_bytes())?.answer(&mut b.local(LOOPBACK), &allowed)?;
    let ours = offered.accept(answer.as_bytes())?;
    Ok([a.begin(ours, SourceFilter::only([])), b.begin(theirs, SourceFilter::only([]))])
}

/// Talks and listens until it is stopped; returns how many frames came.
async fn talk(mut line: RtpLine, work_us: u64) -> u64 {
    let second: Vec<u8> = (0..8_000).map(|n| (n % 251) as u8).collect();
    let mut frames = 0;
    line.play(&second);
    line.mark("second");
    loop {
        match line.next().await {
            RtpEvent::Audio => {
                frames += 1;
                let end = Instant::now() + Duration::from_micros(work_us);
                while Instant::now() < end {}
            }
            RtpEvent::Mark(_) => {
                line.play(&second);
                line.mark("second");
            }
            RtpEvent::Key(_) => {}
            RtpEvent::Stopped => return frames,
        }
    }
}

/// What this process has used, ms, in ticks of 10 ms (proc(5)).
fn cpu_ms() -> Result<u64, Box<dyn Error>> {
    let stat = std::fs::read_to_string("/proc/self/stat")?;
    let fields = stat.rsplit(')').next().unwrap_or_default().split_ascii_whitespace();
    let used: u64 = fields.skip(11).take(2).filter_map(|field| field.parse::<u64>().ok()).sum();
    Ok(used * 10)
}
