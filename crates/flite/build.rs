//! Compiles Flite and its voice slt. The source is not ours and not in this repository: scripts/fetch-flite brings it,
//! and is run from here when it has not been.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::{env, fs};

const SOURCE_FOLDERS: [&str; 12] = [
    "src/synth",
    "src/utils",
    "src/hrg",
    "src/cg",
    "src/lexicon",
    "src/regex",
    "src/speech",
    "src/stats",
    "src/wavesynth",
    "lang/cmu_us_slt",
    "lang/usenglish",
    "lang/cmulex",
];

/// Files for other systems, and tables that another file includes.
const LEFT_OUT: [&str; 9] = [
    "cst_mmap_win32.c",
    "cst_mmap_none.c",
    "cst_file_palmos.c",
    "cst_file_wince.c",
    "cmu_lex_phones_huff_table.c",
    "cmu_lex_entries_huff_table.c",
    "cmu_lex_num_bytes.c",
    "cmu_lex_data_raw.c",
    "cst_url.c",
];

const INCLUDE_FOLDERS: [&str; 5] = ["include", "src/cg", "lang/usenglish", "lang/cmulex", "lang/cmu_us_slt"];

fn main() {
    let home = vendored(&Path::new(env!("CARGO_MANIFEST_DIR")).join("../.."));
    let mut build = cc::Build::new();
    for folder in SOURCE_FOLDERS {
        let folder = home.join(folder);
        let files = fs::read_dir(&folder).unwrap_or_else(|error| panic!("{}: {error}", folder.display()));
        let mut sources: Vec<PathBuf> = files.flatten().map(|file| file.path()).collect();
        sources.retain(|path| path.extension().is_some_and(|extension| extension == "c"));
        sources.retain(|path| !LEFT_OUT.iter().any(|name| path.ends_with(name)));
        sources.sort();
        build.files(sources);
    }
    build
        .file(home.join("src/audio/au_streaming.c"))
        .includes(INCLUDE_FOLDERS.map(|folder| home.join(folder)))
        .define("CST_NO_SOCKETS", None)
        // Without it a debug build would speak too slowly for a telephone.
        .opt_level(3)
        .warnings(false)
        .compile("flite");
}

/// The folder with the source, fetched if need be.
fn vendored(root: &Path) -> PathBuf {
    let script = root.join("scripts/fetch-flite");
    println!("cargo::rerun-if-env-changed=OFFHOOK_VENDOR");
    println!("cargo::rerun-if-changed={}", script.display());
    println!("cargo::rerun-if-changed=build.rs");
    let vendor = env::var_os("OFFHOOK_VENDOR").map_or_else(|| root.join("target/vendor"), PathBuf::from);
    let home = vendor.join("flite");
    let fetched = Command::new("sh").arg(&script).output();
    if !home.join(".version").is_file() {
        let why = match fetched {
            Ok(output) => String::from_utf8_lossy(&output.stderr).trim().replace('\n', " | "),
            Err(error) => error.to_string(),
        };
        println!("cargo::error=Flite is not in {}; run scripts/fetch-flite ({why})", home.display());
        std::process::exit(1);
    }
    println!("cargo::rerun-if-changed={}", home.join(".version").display());
    home.canonicalize().expect("the folder was there a moment ago")
}
