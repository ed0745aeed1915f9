//! The state directory: made, kept private, and held by one process at a time.

use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{Read, Write};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

use rustix::fs::{FlockOperation, flock};
use rustix::io::Errno;

use super::{Error, io_error};

/// The lock file's name.
const LOCK_NAME: &str = "lock";

/// The state directory, held until this is dropped or the process ends, however it ends.
#[derive(Debug)]
pub(super) struct Lock {
    _file: File,
}

impl Lock {
    /// Takes the lock of `state_dir`, without waiting.
    ///
    /// # Errors
    /// [`Error::InUse`] where another holds it.
    pub(super) fn take(state_dir: &Path) -> Result<Self, Error> {
        let path = state_dir.join(LOCK_NAME);
        // Not truncated on opening: it may hold the id of the process that has the lock.
        let mut file = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .mode(0o600)
            .open(&path)
            .map_err(io_error("open", &path))?;
        match flock(&file, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => {}
            Err(Errno::WOULDBLOCK) => {
                let mut text = String::new();
                let pid =
                    file.read_to_string(&mut text).ok().and_then(|_| text.trim().parse().ok());
                return Err(Error::InUse { path: state_dir.to_owned(), pid });
            }
            Err(errno) => return Err(io_error("lock", &path)(errno.into())),
        }
        // For people and for the error above only: on a full disk it stays empty.
        let _ = file.set_len(0).and_then(|()| writeln!(file, "{}", std::process::id()));
        Ok(Self { _file: file })
    }
}

/// Makes `state_dir` where it is missing, for its owner alone; tightens a wider mode.
///
/// # Errors
/// [`Error::Io`] where it can neither be made nor looked at.
pub(super) fn prepare(state_dir: &Path) -> Result<(), Error> {
    if let Err(error) = fs::metadata(state_dir) {
        if error.kind() != std::io::ErrorKind::NotFound {
            return Err(io_error("look at", state_dir)(error));
        }
        return create(state_dir);
    }
    tighten(state_dir)
}

fn create(state_dir: &Path) -> Result<(), Error> {
    let parent = parent_of(state_dir);
    fs::create_dir_all(&parent).map_err(io_error("create", &parent))?;
    DirBuilder::new().mode(0o700).create(state_dir).map_err(io_error("create", state_dir))?;
    sync(&parent)
}

fn tighten(state_dir: &Path) -> Result<(), Error> {
    let metadata = fs::metadata(state_dir).map_err(io_error("look at", state_dir))?;
    let mode = metadata.permissions().mode();
    let for_others = mode & 0o077;
    if for_others == 0 || !metadata.is_dir() {
        return Ok(());
    }
    let path = state_dir.display();
    let mode = format!("{:04o}", mode & 0o7777);
    // Somebody who writes `state_dir: /var/lib` must not find that closed to everybody else.
    if metadata.uid() != rustix::process::geteuid().as_raw() || !holds_only_state(state_dir)? {
        tracing::warn!(
            %path, mode,
            "the state directory is open to other users and not kinetail's alone; its mode is left"
        );
        return Ok(());
    }
    match fs::set_permissions(state_dir, fs::Permissions::from_mode(0o700)) {
        Ok(()) => tracing::warn!(%path, mode, "the state directory was open to others; now 0700"),
        Err(error) => {
            tracing::warn!(%path, mode, %error, "the state directory is open to others");
        }
    }
    Ok(())
}

/// Returns true where every entry is one that kinetail makes: `lock`, `kinetail.db…`, a socket.
fn holds_only_state(state_dir: &Path) -> Result<bool, Error> {
    for entry in fs::read_dir(state_dir).map_err(io_error("list", state_dir))? {
        let name = entry.map_err(io_error("list", state_dir))?.file_name();
        let name = name.to_string_lossy();
        let is_ours = name == LOCK_NAME
            || name.starts_with("kinetail")
            || name.rsplit('.').next() == Some("sock");
        if !is_ours {
            return Ok(false);
        }
    }
    Ok(true)
}

/// Syncs a directory, so that names made in it outlive a power cut.
///
/// # Errors
/// [`Error::Io`] where the directory cannot be opened or synced.
pub(super) fn sync(directory: &Path) -> Result<(), Error> {
    File::open(directory)
        .and_then(|directory| directory.sync_all())
        .map_err(io_error("sync", directory))
}

fn parent_of(path: &Path) -> PathBuf {
    match path.parent() {
        Some(parent) if parent != Path::new("") => parent.to_owned(),
        _ => PathBuf::from("."),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mode(path: &Path) -> u32 {
        fs::metadata(path).unwrap().permissions().mode() & 0o7777
    }

    #[test]
    fn a_missing_directory_is_made_for_its_owner_alone() {
        let root = tempfile::tempdir().unwrap();
        let state = root.path().join("a/b/state");
        prepare(&state).unwrap();
        assert_eq!(mode(&state), 0o700);
        assert_ne!(mode(&root.path().join("a")), 0o700);
    }

    #[test]
    fn a_wider_mode_is_tightened_only_where_the_directory_is_ours_alone() {
        let root = tempfile::tempdir().unwrap();
        for (name, tightened) in [("lock", true), ("kinetail.db", true), ("passwd", false)] {
            let state = root.path().join(format!("with-{name}"));
            fs::create_dir(&state).unwrap();
            fs::write(state.join(name), b"").unwrap();
            fs::set_permissions(&state, fs::Permissions::from_mode(0o755)).unwrap();
            prepare(&state).unwrap();
            assert_eq!(mode(&state), if tightened { 0o700 } else { 0o755 }, "{name}");
        }
    }

    #[test]
    fn the_second_lock_says_who_has_the_first() {
        let root = tempfile::tempdir().unwrap();
        let first = Lock::take(root.path()).unwrap();
        let error = Lock::take(root.path()).unwrap_err();
        let Error::InUse { path, pid } = &error else { panic!("{error}") };
        assert_eq!(path, root.path());
        assert_eq!(*pid, Some(std::process::id()));
        drop(first);
        Lock::take(root.path()).unwrap();
    }

    #[test]
    fn a_file_in_place_of_the_directory_is_an_error_with_its_name() {
        let root = tempfile::tempdir().unwrap();
        let path = root.path().join("state");
        fs::write(&path, b"").unwrap();
        prepare(&path).unwrap();
        let error = Lock::take(&path).unwrap_err();
        assert!(error.to_string().contains("state"), "{error}");
    }
}
