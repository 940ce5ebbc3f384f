//! The command that rings: what its user sees of a call.

use crate::house::{LIMIT, Place};
use std::process::Stdio;
use tokio::io::{AsyncBufReadExt, BufReader};

/// Carriers sign for this address, and nothing listens there.
const PUBLIC_URL: &str = "https://phone.example.com/tel";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn dial_shows_what_is_said_and_how_long_answers_took() {
    let place = Place::sqlite();
    let demo = [("OFFHOOK_DEMO_ENABLED", "true"), ("OFFHOOK_SERVER_PUBLIC_URL", PUBLIC_URL)];
    let mut serving = place
        .offhook(&["serve", "--listen", "127.0.0.1:0"])
        .envs(demo)
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut printed = BufReader::new(serving.stdout.take().unwrap()).lines();
    let ready = async {
        while let Some(line) = printed.next_line().await.unwrap() {
            if let Some(address) = line.strip_prefix("ready ") {
                return address.to_owned();
            }
        }
        panic!("the server did not get ready");
    };
    let server = tokio::time::timeout(LIMIT, ready).await.unwrap();

    let wav = place.folder.path().join("call.wav");
    let says = ["Do you have parking?", "Goodbye."];
    let dialling = place
        .offhook(&["dial", says[0], says[1], "--server", &server, "--wav", wav.to_str().unwrap()])
        .envs(demo)
        .output();
    let dialled = tokio::time::timeout(LIMIT, dialling).await.expect("the call ends").unwrap();
    let shown = String::from_utf8(dialled.stdout).unwrap();
    assert!(dialled.status.success(), "{shown}{}", String::from_utf8_lossy(&dialled.stderr));
    let mut from = 0;
    for expected in [
        "  answered\n",
        "  agent   Hello, this is the automatic receptionist of Willow Hair Salon. How can I help you?\n",
        "  caller  do you have parking\n",
        "  agent   There is free parking behind the building.",
        "  caller  ",
        "  hung up by agent\n",
        "turn 1: heard an answer after ",
        "turn 2: heard an answer after ",
        "ended: agent_hung_up\n",
    ] {
        let Some(at) = shown[from..].find(expected) else {
            panic!("no {expected:?} in its place in\n{shown}")
        };
        from += at + expected.len();
    }
    assert!(shown.contains("answered after ") && shown.contains("model asked "), "{shown}");
    assert!(!shown.contains("complains"), "{shown}");
    assert!(wav.is_file());
}
