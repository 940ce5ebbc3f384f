//! What the outside may see of a running server: its log, its metrics, whether it is ready. Personal data and secrets are in none of
//! them: `Pii` and `Secret` redact themselves, and a log field named `pii.…` is redacted here, whatever it holds.

use crate::app::App;
use crate::problem::{Kind, Problem};
use axum::extract::State;
use axum::response::IntoResponse;
use metrics_exporter_prometheus::{BuildError, Matcher, PrometheusBuilder, PrometheusHandle};
use serde::Deserialize;
use serde_json::{Map, Value};
use std::fmt::{self, Debug};
use std::io;
use std::sync::{Arc, OnceLock};
use std::time::Duration;
use tracing::field::{Field, Visit};
use tracing::{Event, Subscriber};
use tracing_subscriber::EnvFilter;
use tracing_subscriber::field::RecordFields;
use tracing_subscriber::fmt::format::{FormatEvent, FormatFields, Writer};
use tracing_subscriber::fmt::time::{FormatTime, SystemTime};
use tracing_subscriber::fmt::{FmtContext, FormattedFields, MakeWriter};
use tracing_subscriber::registry::LookupSpan;
use tracing_subscriber::util::{SubscriberInitExt, TryInitError};

/// How long the store may take to answer before the server is not ready.
const STORE_PATIENCE: Duration = Duration::from_secs(2);
/// Fields with this prefix are not shown.
const PERSONAL: &str = "pii.";
const REDACTED: &str = "[pii]";
const MESSAGE: &str = "message";

/// How a line of the log is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum LogFormat {
    /// For people: time, level, what, and its fields.
    Pretty,
    /// For programs: one JSON object a line.
    Json,
}

/// The library that SIP is spoken with logs whole messages, with the numbers of those who call. What of it matters is told by those
/// who use it.
const UNHEARD: &str = "rsipstack=off";

/// The log as a subscriber of `tracing`: lines of this format, of what the filter lets through (`info,offhook_server=debug`), to this writer.
pub fn log<W>(format: LogFormat, filter: EnvFilter, writer: W) -> impl Subscriber + Send + Sync
where
    W: for<'a> MakeWriter<'a> + Send + Sync + 'static,
{
    tracing_subscriber::fmt()
        .with_env_filter(filter.add_directive(UNHEARD.parse().expect("it is a directive")))
        .with_writer(writer)
        .fmt_fields(Fields)
        .event_format(format)
        .finish()
}

/// Writes the process's log to standard error from now on. `Err`: it has a log already.
pub fn log_to_stderr(format: LogFormat, filter: EnvFilter) -> Result<(), TryInitError> {
    log(format, filter, io::stderr).try_init()
}

/// Fields of a span, kept as a JSON object.
struct Fields;

/// Collects fields; those that may hold personal data without their values.
#[derive(Default)]
struct Collected(Map<String, Value>);

impl Collected {
    fn put(&mut self, field: &Field, value: impl Into<Value>) {
        let value = if field.name().starts_with(PERSONAL) { REDACTED.into() } else { value.into() };
        self.0.insert(field.name().to_owned(), value);
    }
}

impl Visit for Collected {
    fn record_f64(&mut self, field: &Field, value: f64) {
        self.put(field, value);
    }

    fn record_i64(&mut self, field: &Field, value: i64) {
        self.put(field, value);
    }

    fn record_u64(&mut self, field: &Field, value: u64) {
        self.put(field, value);
    }

    fn record_bool(&mut self, field: &Field, value: bool) {
        self.put(field, value);
    }

    fn record_str(&mut self, field: &Field, value: &str) {
        self.put(field, value);
    }

    fn record_debug(&mut self, field: &Field, value: &dyn Debug) {
        self.put(field, format!("{value:?}"));
    }
}

impl<'w> FormatFields<'w> for Fields {
    fn format_fields<R: RecordFields>(&self, mut writer: Writer<'w>, fields: R) -> fmt::Result {
        let mut collected = Collected::default();
        fields.record(&mut collected);
        write!(writer, "{}", Value::Object(collected.0))
    }

    fn add_fields(
        &self,
        current: &'w mut FormattedFields<Self>,
        fields: &tracing::span::Record<'_>,
    ) -> fmt::Result {
        let mut collected = Collected(serde_json::from_str(&current.fields).unwrap_or_default());
        fields.record(&mut collected);
        current.fields = Value::Object(collected.0).to_string();
        Ok(())
    }
}

impl<S> FormatEvent<S, Fields> for LogFormat
where
    S: Subscriber + for<'a> LookupSpan<'a>,
{
    fn format_event(
        &self,
        context: &FmtContext<'_, S, Fields>,
        mut writer: Writer<'_>,
        event: &Event<'_>,
    ) -> fmt::Result {
        let mut time = String::new();
        SystemTime.format_time(&mut Writer::new(&mut time))?;
        let mut fields = Collected::default();
        event.record(&mut fields);
        let spans = context.event_scope().into_iter().flat_map(|scope| scope.from_root()).map(|span| {
            let extensions = span.extensions();
            let kept = extensions.get::<FormattedFields<Fields>>().map_or("", |f| f.fields.as_str());
            (span.name(), serde_json::from_str(kept).unwrap_or_default())
        });
        let (level, target) = (event.metadata().level(), event.metadata().target());
        match self {
            LogFormat::Json => {
                let spans = spans.map(|(name, mut fields): (_, Map<String, Value>)| {
                    fields.insert("span".into(), name.into());
                    Value::Object(fields)
                });
                let mut line = fields.0;
                line.insert("time".into(), time.into());
                line.insert("level".into(), level.as_str().into());
                line.insert("target".into(), target.into());
                line.insert("spans".into(), spans.collect());
                writeln!(writer, "{}", Value::Object(line))
            }
            LogFormat::Pretty => {
                let message = fields.0.remove(MESSAGE);
                write!(
                    writer,
                    "{time} {level:>5} {}",
                    message.as_ref().and_then(Value::as_str).unwrap_or(target)
                )?;
                write_fields(&mut writer, &fields.0)?;
                for (name, fields) in spans {
                    write!(writer, " [{name}")?;
                    write_fields(&mut writer, &fields)?;
                    writer.write_char(']')?;
                }
                writer.write_char('\n')
            }
        }
    }
}

fn write_fields(writer: &mut Writer<'_>, fields: &Map<String, Value>) -> fmt::Result {
    fields.iter().try_for_each(|(name, value)| match value {
        Value::String(text) if !text.contains([' ', '"', '\n']) => write!(writer, " {name}={text}"),
        value => write!(writer, " {name}={value}"),
    })
}

static COUNTED: OnceLock<Option<PrometheusHandle>> = OnceLock::new();

/// Begins to count, once for the process. Where something else counts already, that goes on.
pub fn count() {
    COUNTED.get_or_init(|| {
        let counting = recorder().map_err(|error| error.to_string()).and_then(|recorder| {
            let handle = recorder.handle();
            metrics::set_global_recorder(recorder).map_err(|error| error.to_string())?;
            Ok(handle)
        });
        counting.inspect_err(|error| tracing::warn!(error, "Metrics are not counted")).ok()
    });
    describe();
}

fn recorder() -> Result<metrics_exporter_prometheus::PrometheusRecorder, BuildError> {
    const SECONDS: &[f64] = &[0.001, 0.005, 0.025, 0.1, 0.5, 2.5, 10.0];
    const GAP_SECONDS: &[f64] = &[0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.8, 1.0, 1.5, 2.0, 4.0];
    let builder = PrometheusBuilder::new()
        .set_buckets(SECONDS)?
        .set_buckets_for_metric(Matcher::Full("offhook_response_gap_seconds".into()), GAP_SECONDS)?;
    Ok(builder.build_recorder())
}

fn describe() {
    metrics::describe_gauge!("offhook_calls_open", "Calls that this node drives");
    metrics::describe_gauge!("offhook_store_up", "1 if the database answers, else 0");
    metrics::describe_histogram!(
        "offhook_response_gap_seconds",
        "From the caller's last word to the agent's first"
    );
    metrics::describe_histogram!("offhook_http_request_seconds", "From a request to the head of its answer");
    metrics::describe_counter!("offhook_calls_started_total", "Calls that rang");
    metrics::describe_counter!("offhook_calls_ended_total", "Calls that ended, by reason");
    metrics::describe_counter!("offhook_calls_resumed_total", "Calls taken up from a node that died");
    metrics::describe_counter!("offhook_model_requests_total", "Requests to language models");
    metrics::describe_counter!(
        "offhook_model_requests_thrown_away_total",
        "Of those, given up before they were answered"
    );
}

/// Folds what was measured since the last time, so that it does not pile up while nobody reads it.
pub fn fold() {
    if let Some(Some(handle)) = COUNTED.get() {
        handle.run_upkeep();
    }
}

/// `GET /metrics`: everything that is counted, in the text format of Prometheus.
pub async fn metrics(State(app): State<Arc<App>>) -> Result<impl IntoResponse, Problem> {
    let Some(Some(handle)) = COUNTED.get() else {
        return Err(Problem::new(
            Kind::NotFound,
            "this process counts nothing",
            "ask the server that takes calls",
        ));
    };
    metrics::gauge!("offhook_calls_open").set(app.around.registry.count() as f64);
    metrics::gauge!("offhook_store_up").set(if store_answers(&app).await { 1.0 } else { 0.0 });
    Ok(([("content-type", "text/plain; version=0.0.4")], handle.render()))
}

/// `GET /readyz`: whether calls can be taken.
pub async fn ready(
    State(app): State<Arc<App>>,
    axum::Extension(stopping): axum::Extension<crate::router::Stopping>,
) -> Result<&'static str, Problem> {
    if stopping.draining.is_cancelled() {
        return Err(Problem::passing("this node is stopping and takes no new calls", "ask another node"));
    }
    match store_answers(&app).await {
        true => Ok("ready"),
        false => Err(Problem::passing(
            "the database does not answer",
            "look at the database; its address is in the settings",
        )),
    }
}

async fn store_answers(app: &App) -> bool {
    matches!(tokio::time::timeout(STORE_PATIENCE, app.store.ping()).await, Ok(Ok(())))
}

#[cfg(test)]
mod tests {
    use super::*;
    use offhook_core::{Pii, Secret};
    use std::sync::Mutex;

    #[derive(Clone, Default)]
    struct Paper(Arc<Mutex<Vec<u8>>>);

    impl io::Write for Paper {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().unwrap().write(bytes)
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    fn written(format: LogFormat, what: impl FnOnce()) -> String {
        let paper = Paper::default();
        let pen = paper.clone();
        tracing::subscriber::with_default(log(format, EnvFilter::new("trace"), move || pen.clone()), what);
        String::from_utf8(std::mem::take(&mut *paper.0.lock().unwrap())).unwrap()
    }

    #[test]
    fn whole_messages_of_sip_are_not_logged() {
        let text = written(LogFormat::Json, || {
            tracing::info!(target: "rsipstack::transport::udp", raw = "INVITE sip:+14155550100@host", "udp received");
            tracing::info!("our own");
        });
        assert!(text.contains("our own") && !text.contains("INVITE"), "{text}");
    }

    fn an_event() {
        let span = tracing::info_span!(
            "call",
            id = "cnv_1",
            pii.caller = "+14155550123",
            late = tracing::field::Empty
        );
        span.record("late", 7);
        span.in_scope(|| {
            let (words, token) = (Pii::new("my words"), Secret::new("token"));
            tracing::warn!(pii.digits = 4111, words = ?words, %token, lasted_ms = 42, "Call ended: caller hung up");
        });
    }

    #[test]
    fn a_line_for_programs_is_json_without_anybodys_data() {
        let line = written(LogFormat::Json, an_event);
        let mut line: Value = serde_json::from_str(&line).unwrap();
        assert!(line["time"].take().as_str().unwrap().ends_with('Z'));
        let expected = serde_json::json!({
            "time": null, "level": "WARN", "target": "offhook_server::telemetry::tests",
            "message": "Call ended: caller hung up",
            "pii.digits": "[pii]", "words": "[pii]", "token": "[secret]", "lasted_ms": 42,
            "spans": [{ "span": "call", "id": "cnv_1", "pii.caller": "[pii]", "late": 7 }],
        });
        assert_eq!(line, expected);
    }

    #[test]
    fn a_line_for_people_reads_alone() {
        let line = written(LogFormat::Pretty, an_event);
        let (_, line) = line.split_once(' ').unwrap();
        assert_eq!(
            line,
            " WARN Call ended: caller hung up lasted_ms=42 pii.digits=[pii] token=[secret] words=[pii] [call id=cnv_1 late=7 pii.caller=[pii]]\n"
        );
    }
}
