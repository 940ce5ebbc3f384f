//! The house keeps its rules, and whoever looks finds it out when it does not.

use offhook_house::{Crate, File, House, Import};
use std::path::Path;

#[test]
fn the_house_keeps_its_rules() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    let house = House::read(&root).unwrap();
    assert!(house.crates.iter().any(|one| one.name == "core" && one.files.len() > 10), "{:?}", house.crates);
    let breaches = house.breaches();
    assert!(breaches.is_empty(), "\n{}\n", breaches.join("\n"));
}

#[test]
fn a_house_in_order_has_no_breach() {
    assert_eq!(house(|_| {}).breaches(), Vec::<String>::new());
}

#[test]
fn every_breach_is_found() {
    check("crates/attic has no place in the architecture", |h| h[0].name = "attic".into());
    check("crates/core imports media, which it may not by the architecture", |h| {
        import(&mut h[0], "offhook-media")
    });
    check("crates/core is pure and imports tokio", |h| import(&mut h[0], "tokio"));
    check("crates/sim imports carriers, which it may not even in tests", |h| {
        test_import(&mut h[2], "offhook-carriers")
    });
    check("crates/carriers imports offhook, which it may not by the architecture", |h| {
        import(&mut h[1], "offhook")
    });
    check("crates/sim imports sqlx: only the store knows databases", |h| import(&mut h[2], "sqlx"));
    check("crates/core/clippy.toml does not repeat std::time::Instant::now of the root's", |h| {
        h[0].clippy.clear()
    });
    check("crates/core/src/lib.rs:3: `HashMap` has an order of its own on every run", |h| {
        write(&mut h[0], "use std::collections::HashMap;");
    });
    check("crates/core/src/lib.rs:3: `std::fs` has no place in a pure crate", |h| {
        write(&mut h[0], "use std::fs;")
    });
    check("crates/sim/src/lib.rs:3: `CallSid` is a carrier's word and stays in that carrier's folder", |h| {
        write(&mut h[2], r#"const ID: &str = "CallSid";"#);
    });
    check(
        "crates/carriers/src/lib.rs:3: `TwiML` is a carrier's word and stays in that carrier's folder",
        |h| {
            write(&mut h[1], r#"const WHAT: &str = "TwiML";"#);
        },
    );
    check("crates/sim/src/lib.rs:3: SQL belongs in the store", |h| {
        write(&mut h[2], r#"let all = "SELECT id FROM call";"#);
    });
    check("crates/sim/src/lib.rs:3: `println!` prints, which only the command does: use tracing", |h| {
        write(&mut h[2], r#"println!("hello");"#);
    });
    check("crates/sim/src/lib.rs:3: `env::var` is a setting that only the command reads", |h| {
        write(&mut h[2], r#"let home = std::env::var("HOME");"#);
    });
    check("crates/sim/Cargo.toml does not take the workspace's lints", |h| {
        h[2].manifest = "[package]".into()
    });
    check("crates/sim/src/lib.rs:3: `allow(unsafe_code` is for crates that bind a C library", |h| {
        write(&mut h[2], "#![allow(unsafe_code)]");
    });
    check("crates/sim/src/lib.rs does not say first what it is", |h| h[2].files[0].text = "mod a;\n".into());
}

#[test]
fn what_is_said_in_tests_and_comments_is_no_breach() {
    let house = house(|h| {
        write(&mut h[0], "// A HashMap would not do.");
        write(&mut h[0], "#[cfg(test)]\nmod tests {\n    use std::fs;\n}");
        h[0].files.push(File { path: "src/call/tests.rs".into(), text: "use std::env;".into() });
        h[1].files.push(File {
            path: "src/twilio/webhook.rs".into(),
            text: "//! CallSid and so on.\nlet id = \"CallSid\";".into(),
        });
        write(&mut h[2], r#"tracing::info!("Update from the carrier");"#);
        test_import(&mut h[1], "offhook-sim");
    });
    assert_eq!(house.breaches(), Vec::<String>::new());
}

/// Breaks one rule and expects one breach.
fn check(breach: &str, plant: impl FnOnce(&mut [Crate])) {
    assert_eq!(house(plant).breaches(), [breach]);
}

fn house(plant: impl FnOnce(&mut [Crate])) -> House {
    const BANS: &str = "disallowed-methods = [\n    { path = \"std::time::Instant::now\", reason = \"time is given\" },\n]\n";
    let one = |name: &str| Crate {
        name: name.into(),
        manifest: "[package]\n\n[lints]\nworkspace = true\n".into(),
        clippy: BANS.into(),
        imports: Vec::new(),
        files: vec![File {
            path: "src/lib.rs".into(),
            text: "//! What it is. What it does not know.\n\n".into(),
        }],
    };
    let mut crates = ["core", "carriers", "sim"].map(one);
    plant(&mut crates);
    House { crates: crates.into(), clippy: BANS.into() }
}

fn write(one: &mut Crate, line: &str) {
    one.files[0].text.push_str(line);
    one.files[0].text.push('\n');
}

fn import(one: &mut Crate, package: &str) {
    one.imports.push(Import { package: package.into(), for_tests: false });
}

fn test_import(one: &mut Crate, package: &str) {
    one.imports.push(Import { package: package.into(), for_tests: true });
}
