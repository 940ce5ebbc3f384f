//! Files that hold a secret: whole or not there at all, readable by their owner only. It does not know what they open.

use anyhow::{Context as _, Result};
use offhook_core::Secret;
use std::fs::OpenOptions;
use std::io::{ErrorKind, Write as _};
use std::path::Path;

/// What the file says; `None` where there is none. One that is empty was never written to its end, and says nothing.
pub fn read(path: &Path) -> Result<Option<Secret<String>>> {
    match std::fs::read_to_string(path) {
        Ok(text) => {
            Ok(Some(text.trim()).filter(|text| !text.is_empty()).map(|text| Secret::new(text.to_owned())))
        }
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error).with_context(|| format!("{} cannot be read", path.display())),
    }
}

/// Writes the file where there is none, and gives back what stands in it: another process may have been first.
pub fn read_or_create(path: &Path, secret: Secret<String>) -> Result<Secret<String>> {
    if let Some(there) = read(path)? {
        return Ok(there);
    }
    create(path, &secret).with_context(|| format!("{} cannot be written", path.display()))?;
    Ok(read(path)?.unwrap_or(secret))
}

/// Writes the file anew: whoever reads it meanwhile has the old text or the new one, whole.
pub fn replace(path: &Path, secret: &Secret<String>) -> Result<()> {
    written(path, secret, |unfinished| {
        keep_owner(path, unfinished)?;
        std::fs::rename(unfinished, path)
    })
    .with_context(|| format!("{} cannot be written", path.display()))
}

/// Gives a file the owner of the one whose place it takes: what root writes must stay readable to the server's own user.
#[cfg(unix)]
fn keep_owner(path: &Path, unfinished: &Path) -> std::io::Result<()> {
    use std::os::unix::fs::{MetadataExt as _, chown};
    let (before, now) = (path.metadata()?, unfinished.metadata()?);
    if (before.uid(), before.gid()) == (now.uid(), now.gid()) {
        return Ok(());
    }
    chown(unfinished, Some(before.uid()), Some(before.gid()))
}

#[cfg(not(unix))]
fn keep_owner(_: &Path, _: &Path) -> std::io::Result<()> {
    Ok(())
}

fn create(path: &Path, secret: &Secret<String>) -> std::io::Result<()> {
    written(path, secret, |unfinished| put_in_place(unfinished, path))
}

/// Writes a secret beside a file, then lets it be put in the file's place.
fn written(
    path: &Path,
    secret: &Secret<String>,
    put: impl FnOnce(&Path) -> std::io::Result<()>,
) -> std::io::Result<()> {
    let mut name = path.file_name().unwrap_or_default().to_owned();
    name.push(format!(".{}.new", std::process::id()));
    let unfinished = path.with_file_name(name);
    let mut options = OpenOptions::new();
    options.write(true).create(true).truncate(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    let written = options
        .open(&unfinished)
        .and_then(|mut file| writeln!(file, "{}", secret.expose()).and_then(|()| file.sync_all()))
        .and_then(|()| put(&unfinished));
    let _ = std::fs::remove_file(&unfinished);
    written
}

/// Unlike a rename, a link does not replace what another process has put there meanwhile.
fn put_in_place(unfinished: &Path, path: &Path) -> std::io::Result<()> {
    match std::fs::hard_link(unfinished, path) {
        Err(error) if error.kind() == ErrorKind::AlreadyExists => {
            match std::fs::read_to_string(path)?.trim().is_empty() {
                true => std::fs::rename(unfinished, path),
                false => Ok(()),
            }
        }
        done => done,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn made(path: &Path, secret: &str) -> String {
        read_or_create(path, Secret::new(secret.into())).unwrap().expose().clone()
    }

    #[test]
    fn a_secret_is_written_once_and_read_afterwards() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("simulator.token");
        assert_eq!(read(&path).unwrap(), None);
        assert_eq!(made(&path, "first"), "first");
        assert_eq!(made(&path, "second"), "first");
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 1, "something unfinished was left");
        #[cfg(unix)]
        {
            use std::os::unix::fs::PermissionsExt;
            assert_eq!(path.metadata().unwrap().permissions().mode() & 0o777, 0o600);
        }
    }

    #[test]
    fn what_a_crash_left_empty_is_as_if_it_were_not_there() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("simulator.token");
        for empty in ["", "\n"] {
            std::fs::write(&path, empty).unwrap();
            assert_eq!(read(&path).unwrap(), None);
        }
        assert_eq!(made(&path, "new"), "new");
        assert_eq!(made(&path, "newer"), "new");
    }

    #[test]
    fn where_nothing_can_be_written_the_file_is_named() {
        let nowhere = Path::new("/nonexistent/vault.key");
        let refused = read_or_create(nowhere, Secret::new("k".into())).unwrap_err();
        assert!(format!("{refused:#}").contains("/nonexistent/vault.key"), "{refused:#}");
    }
}
