//! Numbers are bought, imported, given back, and agents started and stopped, and the process is killed at each request to the carrier:
//! before it is carried out, and after. Then another process goes on, and carrier and API must agree.

use crate::house::{ACCOUNT, House, LIMIT, Place, TOKEN};
use offhook_core::Secret;
use offhook_sim::carrier::telnyx::{self, OwnedApplication, TelnyxSettings, TelnyxSim};
use offhook_sim::carrier::twilio::{ForSale, RestTrouble, Which};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::time::Duration;
use tokio::time::Instant;

/// More requests than one operation makes.
const REQUESTS_MAX: usize = 30;
/// Numbers that the account at Telnyx has before anything is done.
const OWNED: usize = 60;
const OLD_APPLICATION: &str = "1293384261075730001";
const OLD_PAGE: &str = "https://old.example/voice";
const KEY: &str = "KEY0123456789ABCDEF0123456789ABCDEF_simulated";
/// How often it is looked whether something has come true.
const LOOK_EVERY: Duration = Duration::from_millis(10);

/// What is done when the process is killed.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Deed {
    Buy,
    Import,
    Remove,
    Start,
    Stop,
}

const DEEDS: [Deed; 5] = [Deed::Buy, Deed::Import, Deed::Remove, Deed::Start, Deed::Stop];

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_number_of_twilio_is_ours_or_as_it_was_wherever_the_process_is_killed() {
    for sweep in DEEDS.map(|deed| tokio::spawn(sweep(deed, Kind::Twilio))) {
        sweep.await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_number_of_telnyx_is_ours_or_as_it_was_wherever_the_process_is_killed() {
    for sweep in DEEDS.map(|deed| tokio::spawn(sweep(deed, Kind::Telnyx))) {
        sweep.await.unwrap();
    }
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum Kind {
    Twilio,
    Telnyx,
}

/// Does a deed again and again, and kills the process at its first request, then at its second, until there is none to be killed at.
async fn sweep(deed: Deed, kind: Kind) {
    let mut shop = Shop::open(kind).await;
    for nth in 0..REQUESTS_MAX {
        let mut killed = false;
        for done in [false, true] {
            let line = shop.prepare(deed).await;
            let before = shop.leads_to(&line.e164);
            let context = format!("{kind:?} {deed:?}, killed at request {nth}, carried out: {done}");
            shop.make_trouble(nth, done);
            let now = shop.killed_at_trouble(deed, &line).await;
            killed |= now;
            shop.judge(deed, &line, before, &context).await;
            shop.calm().await;
        }
        if !killed {
            assert!(nth >= 2, "{kind:?} {deed:?} makes more than {nth} requests");
            shop.house.close().await;
            return;
        }
    }
    panic!("{kind:?} {deed:?} does not end");
}

/// A number on its way, and the agent that answers it.
struct Line {
    e164: String,
    /// `num_…`, if it is here.
    number: Option<String>,
    agent: String,
    /// The newest operation before the deed.
    last: Option<String>,
}

/// Where a number's calls go, by setting; `None` if it is not the account's.
type LeadsTo = Option<BTreeMap<String, String>>;

struct Shop {
    house: House,
    telnyx: Option<TelnyxSim>,
    /// The request of Telnyx that is to meet trouble, counted from 1.
    trouble: usize,
    connection: String,
    made: usize,
    http: reqwest::Client,
}

impl Shop {
    async fn open(kind: Kind) -> Shop {
        let house = House::open(Place::sqlite(), json!({})).await;
        let http = reqwest::Client::new();
        if kind == Kind::Twilio {
            let connection = house.item("/api/connections", |connection| connection["name"] == "phone").await;
            let connection = connection["id"].as_str().unwrap().to_owned();
            return Shop { house, telnyx: None, trouble: 0, connection, made: 0, http };
        }
        let settings = TelnyxSettings {
            api_key: Secret::new(KEY.into()),
            numbers: (0..OWNED).map(|n| telnyx::OwnedNumber::new(e164(n), OLD_APPLICATION)).collect(),
            applications: vec![OwnedApplication::new(OLD_APPLICATION, "old shop", OLD_PAGE)],
            ..TelnyxSettings::default()
        };
        let sim = TelnyxSim::start(([127, 0, 0, 1], 0).into(), settings).await.unwrap();
        let config = json!({ "public_key": sim.public_key(), "api_base": sim.base_url() });
        let new = json!({ "kind": "telnyx", "name": "telnyx", "secret": KEY, "config": config });
        let connection = house.create("/api/connections", new).await["id"].as_str().unwrap().to_owned();
        Shop { house, telnyx: Some(sim), trouble: 0, connection, made: 0, http }
    }

    /// A number of its own, brought to where the deed begins.
    async fn prepare(&mut self, deed: Deed) -> Line {
        let n = self.made;
        self.made += 1;
        let new = json!({ "name": format!("Clerk {n}"), "config": { "instructions": "Be kind." } });
        let agent = self.house.create("/api/agents", new).await["id"].as_str().unwrap().to_owned();
        let e164 = match (&self.telnyx, deed) {
            (None, Deed::Buy) => {
                self.house.carrier.offer(ForSale::local(e164(n)));
                e164(n)
            }
            (None, _) => self.bought_by_hand(&e164(n)).await,
            (Some(sim), Deed::Buy) => {
                let e164 = e164(OWNED + n);
                sim.sell(telnyx::ForSale::local(e164.as_str(), "Chicago", "IL"));
                e164
            }
            (Some(_), _) => e164(n),
        };
        let mut line = Line { e164, number: None, agent, last: None };
        if !matches!(deed, Deed::Buy | Deed::Import) {
            self.cleanly(Deed::Import, &mut line).await;
        }
        if deed == Deed::Start {
            self.cleanly(Deed::Stop, &mut line).await;
        }
        line.last = self.newest().await.map(|operation| text(&operation["id"]));
        line
    }

    /// What the account's owner has done at the carrier: a number that leads to somebody else.
    async fn bought_by_hand(&self, e164: &str) -> String {
        self.house.carrier.offer(ForSale::local(e164));
        let base = self.house.carrier.base_url();
        let url = format!("{base}/2010-04-01/Accounts/{ACCOUNT}/IncomingPhoneNumbers.json");
        let form = [("PhoneNumber", e164), ("VoiceUrl", OLD_PAGE), ("VoiceMethod", "GET")];
        let bought = self.http.post(url).basic_auth(ACCOUNT, Some(TOKEN)).form(&form).send().await.unwrap();
        bought.error_for_status().unwrap();
        e164.to_owned()
    }

    async fn cleanly(&self, deed: Deed, line: &mut Line) {
        line.last = self.newest().await.map(|operation| text(&operation["id"]));
        assert!(self.ask_for(deed, line).await, "{deed:?} begins");
        let operation = self.until_over(line).await.expect("it has begun");
        assert_eq!(operation["status"], "done", "{operation:#}");
        line.number = Some(text(&operation["numbers"][0]["id"]));
    }

    /// Asks the API to begin; whether it did.
    async fn ask_for(&self, deed: Deed, line: &Line) -> bool {
        let wanted = json!({ "connection": self.connection, "e164": line.e164, "inbound_agent": line.agent });
        let post = |path: String, body: Value| self.house.try_post(path, body);
        match deed {
            Deed::Buy => post("/api/telephony/managed/purchase-number".into(), wanted).await,
            Deed::Import => post("/api/telephony/byop/import-number".into(), wanted).await,
            Deed::Start => post(format!("/api/agents/{}/start", line.agent), json!({})).await,
            Deed::Stop => post(format!("/api/agents/{}/stop", line.agent), json!({})).await,
            Deed::Remove => {
                let number = line.number.as_ref().expect("it was imported");
                self.house.try_delete(format!("/api/phone-numbers/{number}")).await
            }
        }
    }

    /// The request after so many others gets no answer.
    fn make_trouble(&mut self, nth: usize, done: bool) {
        match &self.telnyx {
            None => {
                let trouble = if done { RestTrouble::DoneThenNoAnswer } else { RestTrouble::NoAnswer };
                self.house.carrier.no_more_trouble();
                self.house.carrier.trouble(Which::nth(nth), trouble);
            }
            Some(sim) => {
                let trouble = match done {
                    true => telnyx::Trouble::DoneThenSilent,
                    false => telnyx::Trouble::NeverAnswers,
                };
                self.trouble = sim.requests().len() + 1 + nth;
                sim.trouble_at(self.trouble, trouble);
            }
        }
    }

    /// Nothing that was planned is left for the next: at Telnyx other requests take it.
    async fn calm(&self) {
        self.house.carrier.no_more_trouble();
        let Some(sim) = &self.telnyx else { return };
        while sim.requests().len() < self.trouble {
            let asked = self.http.get(sim.base_url()).timeout(LOOK_EVERY * 10).send().await;
            drop(asked);
        }
    }

    /// How many requests have met trouble.
    fn troubles(&self) -> usize {
        match &self.telnyx {
            None => {
                let met = |trouble: RestTrouble, status: Option<u16>| {
                    trouble == RestTrouble::NoAnswer || status.is_some()
                };
                let requests = self.house.carrier.requests();
                requests
                    .iter()
                    .filter(|request| request.trouble.is_some_and(|t| met(t, request.status)))
                    .count()
            }
            Some(sim) => sim.requests().iter().filter(|request| request.trouble.is_some()).count(),
        }
    }

    /// Begins a deed and kills the process when its request has met trouble; false if it came to its end without.
    async fn killed_at_trouble(&mut self, deed: Deed, line: &Line) -> bool {
        let before = self.troubles();
        let deadline = Instant::now() + LIMIT;
        let met = {
            let asking = self.ask_for(deed, line);
            tokio::pin!(asking);
            let mut asked = false;
            loop {
                tokio::select! {
                    begun = &mut asking, if !asked => {
                        assert!(begun, "{deed:?} begins");
                        asked = true;
                    }
                    () = tokio::time::sleep(LOOK_EVERY) => {}
                }
                if self.troubles() > before {
                    break true;
                }
                if asked
                    && self.newest_after(line).await.is_some_and(|operation| operation["status"] != "running")
                {
                    break false;
                }
                assert!(Instant::now() < deadline, "{deed:?} neither ends nor is in trouble");
            }
        };
        if met {
            self.house.kill().await;
            self.house.carrier.no_more_trouble();
            self.house.start("one").await;
        }
        met
    }

    async fn newest(&self) -> Option<Value> {
        self.house.get("/api/telephony/operations?limit=1").await["items"].get(0).cloned()
    }

    /// The operation that the deed has begun.
    async fn newest_after(&self, line: &Line) -> Option<Value> {
        self.newest().await.filter(|operation| Some(text(&operation["id"])) != line.last)
    }

    async fn until_over(&self, line: &Line) -> Option<Value> {
        let deadline = Instant::now() + LIMIT;
        loop {
            let operation = self.newest_after(line).await?;
            if operation["status"] != "running" {
                let id = text(&operation["id"]);
                return Some(self.house.get(&format!("/api/telephony/operations/{id}")).await);
            }
            assert!(Instant::now() < deadline, "it does not end: {operation:#}");
            tokio::time::sleep(LOOK_EVERY).await;
        }
    }

    /// Where a number's calls go, as the carrier has it.
    fn leads_to(&self, e164: &str) -> LeadsTo {
        match &self.telnyx {
            None => self.house.carrier.number(e164).map(|number| {
                number.settings.into_iter().map(|(name, value)| (name.to_owned(), value)).collect()
            }),
            Some(sim) => sim
                .leads_to(e164)
                .map(|connection| [("connection".to_owned(), connection.unwrap_or_default())].into()),
        }
    }

    fn is_ours(&self, leads_to: &LeadsTo) -> bool {
        let Some(settings) = leads_to else { return false };
        match &self.telnyx {
            None => {
                let page = format!("http://{}/hooks/twilio/voice", self.house.door.address);
                settings["voice_url"] == page && settings["voice_method"] == "POST"
            }
            Some(_) => !["", OLD_APPLICATION].contains(&settings["connection"].as_str()),
        }
    }

    /// How often the number was bought.
    fn purchases(&self, e164: &str) -> usize {
        match &self.telnyx {
            None => {
                let requests = self.house.carrier.requests();
                let bought = requests.iter().filter(|request| {
                    request.method == "POST"
                        && request.param("PhoneNumber") == Some(e164)
                        && request.status.is_some_and(|status| status < 300)
                });
                bought.count()
            }
            Some(sim) => {
                let done = |request: &telnyx::RequestRecord| {
                    request.status.is_some_and(|status| status < 300)
                        || request.trouble == Some(telnyx::Trouble::DoneThenSilent)
                };
                let requests = sim.requests();
                let bought = requests.iter().filter(|request| {
                    request.method == "POST"
                        && request.path.ends_with("/number_orders")
                        && request.body.to_string().contains(e164)
                        && done(request)
                });
                bought.count()
            }
        }
    }

    /// What must hold when it is over, wherever the process was killed.
    async fn judge(&self, deed: Deed, line: &Line, before: LeadsTo, context: &str) {
        let operation = self.until_over(line).await;
        let after = self.leads_to(&line.e164);
        let rows = self.house.get("/api/phone-numbers?limit=200").await;
        let rows = rows["items"].as_array().unwrap();
        let row = rows.iter().find(|row| row["e164"] == line.e164.as_str());
        let Some(operation) = operation else {
            // It was killed before it was written that it begins.
            assert_eq!((after, row.is_some()), (before, line.number.is_some()), "{context}");
            return;
        };
        let context = format!("{context}\n{operation:#}\n{row:?}\n{after:?}");
        assert_eq!(operation["status"], "done", "{context}");
        match deed {
            Deed::Buy | Deed::Import | Deed::Start => {
                assert!(self.is_ours(&after), "{context}");
                let row = row.unwrap_or_else(|| panic!("{context}"));
                assert_eq!(
                    (&row["status"], &row["operation"]),
                    (&json!("active"), &Value::Null),
                    "{context}"
                );
            }
            Deed::Remove => assert!(row.is_none(), "{context}"),
            Deed::Stop => {
                let row = row.unwrap_or_else(|| panic!("{context}"));
                assert_eq!(
                    (&row["status"], &row["operation"]),
                    (&json!("inactive"), &Value::Null),
                    "{context}"
                );
            }
        }
        match deed {
            Deed::Buy => assert_eq!(self.purchases(&line.e164), 1, "{context}"),
            Deed::Import | Deed::Start => {
                let previous = &row.expect("it is there")["previous"];
                let kept = match &self.telnyx {
                    None => {
                        json!([previous["voice_url"], previous["voice_method"]]) == json!([OLD_PAGE, "GET"])
                    }
                    Some(_) => previous.to_string().contains(OLD_APPLICATION),
                };
                assert!(kept, "what led there before is kept: {context}");
            }
            Deed::Remove | Deed::Stop => {
                let as_before = match &self.telnyx {
                    None => after.as_ref().is_some_and(|settings| {
                        settings["voice_url"] == OLD_PAGE
                            && settings["voice_method"] == "GET"
                            && settings["voice_fallback_url"].is_empty()
                            && settings["status_callback"].is_empty()
                    }),
                    Some(_) => {
                        after.as_ref().is_some_and(|settings| settings["connection"] == OLD_APPLICATION)
                    }
                };
                assert!(as_before, "it leads where it led: {context}");
            }
        }
        let agent = self.house.get(&format!("/api/agents/{}", line.agent)).await;
        assert_eq!(agent["running"], json!(deed != Deed::Stop), "{context}");
    }
}

fn e164(n: usize) -> String {
    format!("+1312555{:04}", 1_000 + n)
}

fn text(value: &Value) -> String {
    value.as_str().unwrap_or_else(|| panic!("{value} is no text")).to_owned()
}
