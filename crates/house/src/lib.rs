//! The rules of ARCHITECTURE.md that a machine can hold: which crate may import which, and which words belong where.
//! It reads manifests and source text; it compiles nothing and knows nothing of telephones.

use serde::Deserialize;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::{fs, io};

/// The workspace, as far as the rules look at it.
#[derive(Clone, Debug, Default)]
pub struct House {
    /// Its crates.
    pub crates: Vec<Crate>,
    /// The text of `clippy.toml` at the root.
    pub clippy: String,
}

/// One crate.
#[derive(Clone, Debug, Default)]
pub struct Crate {
    /// Its folder in `crates/`.
    pub name: String,
    /// The text of its `Cargo.toml`.
    pub manifest: String,
    /// The text of its own `clippy.toml`; empty where it has none.
    pub clippy: String,
    /// What it depends on.
    pub imports: Vec<Import>,
    /// Its sources.
    pub files: Vec<File>,
}

/// A dependency.
#[derive(Clone, Debug)]
pub struct Import {
    /// The package's name.
    pub package: String,
    /// Only tests, examples and benches have it.
    pub for_tests: bool,
}

/// A source file below `src/`.
#[derive(Clone, Debug)]
pub struct File {
    /// Its path from the crate's folder: `src/call/mod.rs`.
    pub path: String,
    /// Its text.
    pub text: String,
}

/// A crate's place: which of ours it may import.
struct Place {
    name: &'static str,
    imports: &'static [&'static str],
    /// Beyond that, in tests.
    for_tests: &'static [&'static str],
}

/// The drawing of ARCHITECTURE.md. A crate that is not here has no place yet: give it one there first.
const PLACES: &[Place] = &[
    Place { name: "core", imports: &[], for_tests: &[] },
    Place { name: "media", imports: &[], for_tests: &[] },
    Place { name: "flite", imports: &[], for_tests: &[] },
    Place { name: "sphinx", imports: &[], for_tests: &["flite", "media"] },
    Place { name: "carriers", imports: &["core", "media"], for_tests: &["sim"] },
    Place { name: "providers", imports: &["core", "media", "flite", "sphinx"], for_tests: &["sim"] },
    Place { name: "store", imports: &["core"], for_tests: &[] },
    Place {
        name: "server",
        imports: &["core", "media", "carriers", "providers", "store"],
        for_tests: &["sim"],
    },
    Place { name: "sim", imports: &["core", "media"], for_tests: &[] },
    Place {
        name: "offhook",
        imports: &["core", "media", "carriers", "providers", "store", "server", "sim"],
        for_tests: &[],
    },
    Place { name: "house", imports: &[], for_tests: &[] },
];

/// All that the pure crates may import from others: each of these is pure as well.
const PURE: &[(&str, &[&str])] =
    &[("core", &["jiff", "serde", "serde_json", "thiserror"]), ("media", &["earshot", "ropus", "thiserror"])];
/// Words that are not in the sources of a pure crate, and those that core's replay forbids besides.
const IMPURE: &[&str] =
    &["tokio", "rand::", "std::net", "std::fs", "std::thread", "std::process", "Instant", "SystemTime"];
const UNORDERED: &[&str] = &["HashMap", "HashSet"];
/// How packages of databases begin.
const DATABASES: &[&str] =
    &["sea-orm", "sea-query", "sqlx", "rusqlite", "libsqlite3", "diesel", "tokio-postgres", "postgres"];
/// Words of carriers.
const CARRIER_WORDS: &[&str] = &["TwiML", "CallSid", "AccountSid", "StreamSid", "call_control_id"];
/// SQL, as it stands in a text.
const SQL: &[(&str, &str)] = &[
    ("select ", " from "),
    ("insert into ", ""),
    ("update ", " set "),
    ("delete from ", ""),
    ("create table ", ""),
];
const PRINTING: &[&str] = &["println!", "eprintln!", "print!(", "dbg!("];
const ENVIRONMENT: &[&str] = &["env::var"];
/// The one place beside the command that reads the environment: where a user's programs keep what they can make again.
const CACHE_FOLDER: (&str, &str) = ("providers", "src/offline/mod.rs");
/// Crates that bind a C library.
const BINDINGS: &[&str] = &["flite", "sphinx"];

impl House {
    /// Reads the workspace at `root`.
    ///
    /// # Errors
    /// When a file cannot be read, or cargo does not describe the workspace.
    pub fn read(root: &Path) -> io::Result<House> {
        #[derive(Deserialize)]
        struct Metadata {
            packages: Vec<Package>,
        }
        #[derive(Deserialize)]
        struct Package {
            manifest_path: PathBuf,
            dependencies: Vec<Dependency>,
        }
        #[derive(Deserialize)]
        struct Dependency {
            name: String,
            kind: Option<String>,
        }
        let told = Command::new("cargo")
            .args(["metadata", "--no-deps", "--offline", "--format-version", "1"])
            .current_dir(root)
            .output()?;
        if !told.status.success() {
            return Err(io::Error::other(String::from_utf8_lossy(&told.stderr).into_owned()));
        }
        let metadata: Metadata = serde_json::from_slice(&told.stdout)?;
        let mut house = House { crates: Vec::new(), clippy: fs::read_to_string(root.join("clippy.toml"))? };
        for package in metadata.packages {
            let folder = package.manifest_path.parent().unwrap_or(root);
            let name = folder.file_name().unwrap_or_default().to_string_lossy().into_owned();
            let mut files = Vec::new();
            // This crate names every forbidden word, to find it.
            if name != env!("CARGO_PKG_NAME").trim_start_matches("offhook-") {
                sources(folder, Path::new("src"), &mut files)?;
            }
            house.crates.push(Crate {
                name,
                manifest: fs::read_to_string(&package.manifest_path)?,
                clippy: fs::read_to_string(folder.join("clippy.toml")).unwrap_or_default(),
                imports: (package.dependencies.into_iter())
                    .map(|d| Import { package: d.name, for_tests: d.kind.as_deref() == Some("dev") })
                    .collect(),
                files,
            });
        }
        Ok(house)
    }

    /// Every breach of a rule, each a sentence that names the place.
    pub fn breaches(&self) -> Vec<String> {
        let mut found = Vec::new();
        for one in &self.crates {
            imports_point_down(one, &mut found);
            pure_crates_stay_pure(one, &self.clippy, &mut found);
            only_the_store_knows_databases(one, &mut found);
            carriers_words_stay_with_carriers(one, &mut found);
            only_the_command_prints(one, &mut found);
            only_the_command_reads_the_environment(one, &mut found);
            lints_are_the_workspace_s(one, &mut found);
            modules_introduce_themselves(one, &mut found);
        }
        found
    }
}

fn sources(folder: &Path, below: &Path, files: &mut Vec<File>) -> io::Result<()> {
    let mut entries: Vec<_> = fs::read_dir(folder.join(below))?.collect::<io::Result<_>>()?;
    entries.sort_by_key(fs::DirEntry::file_name);
    for entry in entries {
        let path = below.join(entry.file_name());
        if entry.file_type()?.is_dir() {
            sources(folder, &path, files)?;
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            files.push(File {
                text: fs::read_to_string(entry.path())?,
                path: path.to_string_lossy().into_owned(),
            });
        }
    }
    Ok(())
}

fn imports_point_down(one: &Crate, found: &mut Vec<String>) {
    let Some(place) = PLACES.iter().find(|place| place.name == one.name) else {
        found.push(format!("crates/{} has no place in the architecture", one.name));
        return;
    };
    for import in &one.imports {
        let Some(ours) = import.package.strip_prefix("offhook").map(|rest| rest.trim_start_matches('-'))
        else {
            continue;
        };
        let ours = if ours.is_empty() { "offhook" } else { ours };
        let may = place.imports.contains(&ours) || import.for_tests && place.for_tests.contains(&ours);
        if !may {
            let when = if import.for_tests { "even in tests" } else { "by the architecture" };
            found.push(format!("crates/{} imports {ours}, which it may not {when}", one.name));
        }
    }
}

fn pure_crates_stay_pure(one: &Crate, shared: &str, found: &mut Vec<String>) {
    let Some((_, allowed)) = PURE.iter().find(|(name, _)| *name == one.name) else { return };
    let product = one.imports.iter().filter(|i| !i.for_tests && !i.package.starts_with("offhook"));
    for import in product.filter(|i| !allowed.contains(&i.package.as_str())) {
        found.push(format!("crates/{} is pure and imports {}", one.name, import.package));
    }
    let banned = |text: &str| -> Vec<String> {
        text.lines()
            .filter_map(|line| Some(line.split_once("path = \"")?.1.split('"').next()?.to_owned()))
            .collect()
    };
    let own = banned(&one.clippy);
    for path in banned(shared).into_iter().filter(|path| !own.contains(path)) {
        found.push(format!("crates/{}/clippy.toml does not repeat {path} of the root's", one.name));
    }
    find(one, IMPURE, "has no place in a pure crate", found);
    if one.name == "core" {
        find(one, UNORDERED, "has an order of its own on every run", found);
    }
}

fn only_the_store_knows_databases(one: &Crate, found: &mut Vec<String>) {
    if one.name == "store" {
        return;
    }
    // Tests may make a database to be tested on.
    let databases =
        one.imports.iter().filter(|i| !i.for_tests && DATABASES.iter().any(|d| i.package.starts_with(d)));
    for import in databases {
        found.push(format!("crates/{} imports {}: only the store knows databases", one.name, import.package));
    }
    for file in &one.files {
        for (number, line) in file.product() {
            let line = line.to_ascii_lowercase();
            // A statement begins a string, or a line of a longer one.
            let mut texts = line.split('"').map(str::trim_start);
            let is_sql = |text: &str| {
                SQL.iter().any(|(begin, within)| text.starts_with(begin) && text.contains(within))
            };
            if texts.any(is_sql) {
                found.push(format!("crates/{}/{}:{number}: SQL belongs in the store", one.name, file.path));
            }
        }
    }
}

fn carriers_words_stay_with_carriers(one: &Crate, found: &mut Vec<String>) {
    let mut elsewhere = one.clone();
    elsewhere.files.retain(|file| {
        let folders = file.path.matches('/').count() - 1;
        match one.name.as_str() {
            "carriers" => folders == 0,
            "sim" => !file.path.starts_with("src/carrier/"),
            _ => true,
        }
    });
    find(&elsewhere, CARRIER_WORDS, "is a carrier's word and stays in that carrier's folder", found);
}

fn only_the_command_prints(one: &Crate, found: &mut Vec<String>) {
    if one.name != "offhook" {
        find(one, PRINTING, "prints, which only the command does: use tracing", found);
    }
}

fn only_the_command_reads_the_environment(one: &Crate, found: &mut Vec<String>) {
    if one.name != "offhook" {
        let mut others = one.clone();
        others.files.retain(|file| (one.name.as_str(), file.path.as_str()) != CACHE_FOLDER);
        find(&others, ENVIRONMENT, "is a setting that only the command reads", found);
    }
}

fn lints_are_the_workspace_s(one: &Crate, found: &mut Vec<String>) {
    if !one.manifest.contains("[lints]\nworkspace = true") {
        found.push(format!("crates/{}/Cargo.toml does not take the workspace's lints", one.name));
    }
    if !BINDINGS.contains(&one.name.as_str()) {
        find(one, &["allow(unsafe_code", "expect(unsafe_code"], "is for crates that bind a C library", found);
    }
}

fn modules_introduce_themselves(one: &Crate, found: &mut Vec<String>) {
    for file in one.files.iter().filter(|file| !file.is_tests() && !file.text.starts_with("//! ")) {
        found.push(format!("crates/{}/{} does not say first what it is", one.name, file.path));
    }
}

/// Finds words in the product's lines.
fn find(one: &Crate, words: &[&str], why: &str, found: &mut Vec<String>) {
    for file in &one.files {
        for (number, line) in file.product() {
            for word in words.iter().filter(|word| line.contains(**word)) {
                found.push(format!("crates/{}/{}:{number}: `{word}` {why}", one.name, file.path));
            }
        }
    }
}

impl File {
    fn is_tests(&self) -> bool {
        self.path.ends_with("/tests.rs")
    }

    /// The numbered lines of the product: without comments, and without the tests at the end.
    fn product(&self) -> impl Iterator<Item = (usize, &str)> {
        let end = if self.is_tests() { Some(0) } else { self.text.find("\n#[cfg(test)]\nmod tests") };
        let product = &self.text[..end.unwrap_or(self.text.len())];
        product
            .lines()
            .zip(1..)
            .map(|(line, number)| (number, line))
            .filter(|(_, line)| !line.trim_start().starts_with("//"))
    }
}
