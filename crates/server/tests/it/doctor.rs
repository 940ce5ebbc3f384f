//! The doctor: each thing that keeps a caller from an agent is found, and told in one line with what to do.

use crate::house::House;
use offhook_server::doctor::{self, Finding, State};
use offhook_sim::carrier::twilio::{AccountStatus, OwnedNumber, TwilioSettings, TwilioSim};
use serde_json::{Value, json};
use std::net::Ipv4Addr;

const NUMBER: &str = "+15550100002";

struct Line {
    house: House,
    carrier: TwilioSim,
    connection: String,
    number: String,
    agent: String,
}

impl Line {
    async fn open() -> Line {
        let house = House::sqlite().await;
        let numbers = vec![OwnedNumber::new(NUMBER, "https://phone.example.com/hooks/twilio/voice")];
        let settings = TwilioSettings { numbers, ..TwilioSettings::default() };
        let (account, token) = (settings.account_sid.clone(), settings.auth_token.expose().clone());
        let carrier = TwilioSim::start((Ipv4Addr::LOCALHOST, 0).into(), settings).await.unwrap();
        let new = json!({
            "kind": "twilio", "name": "line", "account": account, "secret": token,
            "config": { "api_base": carrier.base_url() },
        });
        let connection = house.post("/api/connections", new).await.id();
        let agent = house.post("/api/agents", json!({ "name": "Shop", "config": {} })).await.id();
        let new = json!({ "connection": connection, "e164": NUMBER, "inbound_agent": agent });
        let number = house.post("/api/phone-numbers", new).await.id();
        Line { house, carrier, connection, number, agent }
    }

    async fn examine(&self) -> Vec<Finding> {
        let mut findings = Vec::new();
        doctor::examine(&self.house.app, &[], &mut |finding| findings.push(finding)).await.unwrap();
        findings
    }

    /// What is found of a thing, and what to do.
    async fn of(&self, about: &str) -> (State, String) {
        let findings = self.examine().await;
        let of = findings.iter().find(|finding| finding.about == about);
        let of = of.unwrap_or_else(|| panic!("nothing was said of {about}: {findings:#?}"));
        let fix = of.fix.as_deref().unwrap_or_default();
        assert!(of.state == State::Well || !fix.is_empty(), "no fix: {of:?}");
        (of.state, format!("{}; {fix}", of.found))
    }

    async fn change(&self, path: &str, change: Value) {
        let answer = self.house.patch(path, change).await;
        assert!(answer.status.is_success(), "{answer:?}");
    }

    async fn is(&self, about: &str, state: State, words: &str) {
        let (found_state, found) = self.of(about).await;
        assert_eq!(found_state, state, "{about}: {found}");
        assert!(found.contains(words), "{about}: `{words}` is not in `{found}`");
    }
}

#[tokio::test]
async fn what_is_well_is_said_to_be() {
    let line = Line::open().await;
    line.is("connection line", State::Well, "").await;
    line.is(&format!("number {NUMBER}"), State::Well, "").await;
    line.is("agent Shop", State::Well, "").await;
}

#[tokio::test]
async fn each_trouble_with_an_account_is_told_apart() {
    let line = Line::open().await;
    line.carrier.account_status(AccountStatus::Suspended);
    line.is("connection line", State::Wrong, "suspended").await;
    line.carrier.account_status(AccountStatus::Closed);
    line.is("connection line", State::Wrong, "closed").await;
    line.carrier.account_status(AccountStatus::Active);
    let path = format!("/api/connections/{}", line.connection);
    line.change(&path, json!({ "secret": "feedfacefeedfacefeedfacefeedface" })).await;
    line.is("connection line", State::Wrong, "does not accept these credentials").await;
    let nowhere = json!({ "config": { "api_base": "http://127.0.0.1:9" }, "secret": "feedfacefeedfacefeedfacefeedface" });
    line.change(&path, nowhere).await;
    line.is("connection line", State::Wrong, "cannot be reached").await;
}

#[tokio::test]
async fn each_trouble_with_a_number_and_its_agent_is_told_apart() {
    let line = Line::open().await;
    let foreign =
        json!({ "connection": line.connection, "e164": "+15550100003", "inbound_agent": line.agent });
    line.house.post("/api/phone-numbers", foreign).await.id();
    line.is("number +15550100003", State::Wrong, "has no such number").await;

    let path = format!("/api/phone-numbers/{}", line.number);
    line.change(&path, json!({ "inbound_agent": null })).await;
    line.is(&format!("number {NUMBER}"), State::Doubtful, "no agent answers it").await;
    line.change(&path, json!({ "inbound_agent": line.agent })).await;

    let path = format!("/api/agents/{}", line.agent);
    line.change(&path, json!({ "running": false })).await;
    line.is("agent Shop", State::Wrong, "stopped").await;
    let missing = json!({ "running": true, "config": { "tts": [{ "connection": "nowhere" }] } });
    line.change(&path, missing).await;
    line.is("agent Shop", State::Wrong, "`nowhere`").await;
}

#[tokio::test]
async fn an_address_that_does_not_answer_is_wrong() {
    let line = Line::open().await;
    line.is("public address https://offhook.example/", State::Wrong, "does not answer from here").await;
}
