//! The carrier's official package for Python against the real command: it signs, and it reads.

use crate::house::{ACCOUNT, House, LIMIT, NUMBER, Place, TOKEN};
use serde_json::json;
use tokio::process::Command;

on_both!(requests_signed_by_the_official_package_are_calls);

async fn requests_signed_by_the_official_package_are_calls(place: Place) {
    let house = House::open(place, json!({})).await;
    let server = format!("http://{}", house.door.address);
    let run = Command::new("python3")
        .arg(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/twilio_signs.py"))
        .args([&server, &server, ACCOUNT, TOKEN, NUMBER])
        .kill_on_drop(true)
        .output();
    let output = tokio::time::timeout(LIMIT, run).await.expect("the script hangs").unwrap();
    let text = |bytes: Vec<u8>| String::from_utf8_lossy(&bytes).into_owned();
    let (said, wrong) = (text(output.stdout), text(output.stderr));
    assert!(output.status.success(), "without the package: pip install twilio, or `make test`\n{wrong}");
    let socket = format!("ws://{}/hooks/twilio/media/cnv_", house.door.address);
    assert!(said.starts_with(&socket), "{said}");
    let calls = house.calls().await;
    assert_eq!(calls.len(), 4, "as many calls as were signed, each once: {calls:#?}");
    house.close().await;
}
