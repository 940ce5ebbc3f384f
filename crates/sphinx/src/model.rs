//! The acoustic model of American English, carried inside the program, on its way to the folder that PocketSphinx reads.
//! It does not know who recognises with it.

use crate::Error;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};
use std::{fs, io};

/// The model's folder; cheap to clone. Every [`crate::Recogniser`] is made from one.
#[derive(Clone, Debug)]
pub struct Model {
    folder: PathBuf,
}

macro_rules! model_file {
    ($name:literal) => {
        ($name, include_bytes!(concat!(env!("POCKETSPHINX_MODEL"), "/", $name)) as &[u8])
    };
}

static FILES: [(&str, &[u8]); 7] = [
    model_file!("feat.params"),
    model_file!("mdef"),
    model_file!("means"),
    model_file!("noisedict"),
    model_file!("sendump"),
    model_file!("transition_matrices"),
    model_file!("variances"),
];

impl Model {
    /// Writes the model (6.6 MB) below `cache`, unless it is there already, and names the folder after its version.
    ///
    /// # Errors
    /// [`Error::Unpack`] when the folder cannot be written.
    pub fn unpack(cache: &Path) -> Result<Self, Error> {
        static ONE_AT_A_TIME: Mutex<()> = Mutex::new(());
        let _guard = ONE_AT_A_TIME.lock().unwrap_or_else(PoisonError::into_inner);
        let folder = cache.join("pocketsphinx-5.1.1-en-us");
        write_missing(&folder).map_err(|source| Error::Unpack { folder: folder.clone(), source })?;
        Ok(Model { folder })
    }

    pub(crate) fn folder(&self) -> &Path {
        &self.folder
    }
}

fn write_missing(folder: &Path) -> io::Result<()> {
    fs::create_dir_all(folder)?;
    for (name, content) in FILES {
        let path = folder.join(name);
        if fs::metadata(&path).is_ok_and(|found| found.len() == content.len() as u64) {
            continue;
        }
        // Renaming keeps a second process that unpacks at the same time from reading half a file.
        let unfinished = folder.join(format!("{name}.{}", std::process::id()));
        fs::write(&unfinished, content)?;
        fs::rename(&unfinished, &path)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_damaged_file_is_written_again() {
        let cache = tempfile::tempdir().unwrap();
        let model = Model::unpack(cache.path()).unwrap();
        let mdef = model.folder().join("mdef");
        fs::write(&mdef, "half").unwrap();
        Model::unpack(cache.path()).unwrap();
        assert_eq!(fs::metadata(&mdef).unwrap().len(), 2_959_176);
        assert_eq!(fs::read_dir(model.folder()).unwrap().count(), FILES.len());
    }

    #[test]
    fn many_may_unpack_at_once() {
        let cache = tempfile::tempdir().unwrap();
        std::thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| Model::unpack(cache.path()).unwrap());
            }
        });
    }

    #[test]
    fn a_folder_that_cannot_be_written_is_named() {
        let cache = tempfile::NamedTempFile::new().unwrap();
        let error = Model::unpack(cache.path()).unwrap_err().to_string();
        assert!(error.starts_with("cannot unpack the speech model into /"), "{error}");
    }
}
