//! Compiles PocketSphinx and prepares the model for embedding. The source is not ours and not in this repository:
//! scripts/fetch-pocketsphinx brings it, and is run from here when it has not been.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::{env, fs};

const SOURCE_FOLDERS: [&str; 7] =
    ["", "common_audio/signal_processing", "common_audio/vad", "fe", "feat", "lm", "util"];

/// What the build system of PocketSphinx would have found out about a machine with a C99 compiler.
const CONFIG_H: &str = "\
#define DEFAULT_RADIX 12
#define HAVE_LONG_LONG
#define HAVE_SNPRINTF
#define HAVE_SYS_STAT_H
#define HAVE_SYS_TYPES_H
#define HAVE_UNISTD_H
#define HAVE_STDINT_H
#define SIZEOF_LONG __SIZEOF_LONG__
#define SIZEOF_LONG_LONG __SIZEOF_LONG_LONG__
#if __BYTE_ORDER__ == __ORDER_BIG_ENDIAN__
#define WORDS_BIGENDIAN
#endif
";

fn main() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    let out = PathBuf::from(env::var_os("OUT_DIR").expect("cargo sets OUT_DIR"));
    let home = vendored(&root);
    write_dictionary(&home.join("model/en-us/cmudict-en-us.dict"), &out.join("en-us.dict"));
    println!("cargo::rustc-env=POCKETSPHINX_MODEL={}", home.join("model/en-us/en-us").display());
    compile(&home, &out);
}

/// The folder with the source and the model, fetched if need be.
fn vendored(root: &Path) -> PathBuf {
    let script = root.join("scripts/fetch-pocketsphinx");
    println!("cargo::rerun-if-env-changed=OFFHOOK_VENDOR");
    println!("cargo::rerun-if-changed={}", script.display());
    println!("cargo::rerun-if-changed=build.rs");
    let vendor = env::var_os("OFFHOOK_VENDOR").map_or_else(|| root.join("target/vendor"), PathBuf::from);
    let home = vendor.join("pocketsphinx");
    let fetched = Command::new("sh").arg(&script).output();
    if !home.join(".version").is_file() {
        let why = match fetched {
            Ok(output) => String::from_utf8_lossy(&output.stderr).trim().replace('\n', " | "),
            Err(error) => error.to_string(),
        };
        println!(
            "cargo::error=PocketSphinx is not in {}; run scripts/fetch-pocketsphinx ({why})",
            home.display()
        );
        std::process::exit(1);
    }
    println!("cargo::rerun-if-changed={}", home.join(".version").display());
    home.canonicalize().expect("the folder was there a moment ago")
}

/// Writes the pronunciations sorted by word, as `word<TAB>phones` lines, variants of a word in their order.
/// The original is sorted by the rules of some locale, which cannot be searched by halving.
fn write_dictionary(from: &Path, to: &Path) {
    let text = fs::read_to_string(from).unwrap_or_else(|error| panic!("{}: {error}", from.display()));
    let mut words: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
    for (word, phones) in text.lines().filter_map(|line| line.split_once(' ')) {
        let word = word.split_once('(').map_or(word, |(word, _variant)| word);
        words.entry(word).or_default().push(phones);
    }
    let mut sorted = String::with_capacity(text.len());
    for (word, variants) in words {
        for phones in variants {
            sorted.extend([word, "\t", phones, "\n"]);
        }
    }
    fs::write(to, sorted).unwrap_or_else(|error| panic!("{}: {error}", to.display()));
}

fn compile(home: &Path, out: &Path) {
    let include = out.join("include");
    fs::create_dir_all(include.join("pocketsphinx")).expect("OUT_DIR is writable");
    fs::write(include.join("config.h"), CONFIG_H).expect("OUT_DIR is writable");
    fs::write(include.join("pocketsphinx/sphinx_config.h"), CONFIG_H).expect("OUT_DIR is writable");

    let mut build = cc::Build::new();
    for folder in SOURCE_FOLDERS {
        let folder = home.join("src").join(folder);
        let files = fs::read_dir(&folder).unwrap_or_else(|error| panic!("{}: {error}", folder.display()));
        let mut sources: Vec<PathBuf> = files.flatten().map(|file| file.path()).collect();
        sources.retain(|path| path.extension().is_some_and(|extension| extension == "c"));
        sources.sort();
        build.files(sources);
    }
    build
        .include(&include)
        .include(home.join("include"))
        .include(home.join("src"))
        .define("HAVE_CONFIG_H", None)
        // Without it a debug build would recognise too slowly for a telephone.
        .opt_level(3)
        .warnings(false)
        .compile("pocketsphinx");
}
