//! Where the data are: a directory that is kept, or one that is gone at the end.

use std::fs::{self, OpenOptions, Permissions};
use std::io::Write as _;
use std::os::unix::fs::{OpenOptionsExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};

use anyhow::{Context as _, ensure};
use tempfile::TempDir;
use usher_runtime::seal::PrivateKey;

/// File that marks a data directory as made by this program.
const MARK: &str = "usher-local";
const TOKEN_KEY: &str = "token-key";

/// The directories of a run.
#[derive(Debug)]
pub(crate) struct DataDir {
    /// Holds the PostgreSQL cluster and the key.
    path: PathBuf,
    /// For this run only; its path is short enough for a socket.
    run_dir: TempDir,
}

impl DataDir {
    /// Opens `path`, or makes a temporary directory.
    ///
    /// # Errors
    ///
    /// If the directory cannot be written, or holds something else.
    pub(crate) fn open(path: Option<&Path>) -> anyhow::Result<Self> {
        let run_dir = tempfile::Builder::new()
            .prefix("usher-")
            .tempdir()
            .context("cannot make a temporary directory")?;
        let path = match path {
            Some(path) => path.to_owned(),
            None => run_dir.path().join("data"),
        };
        let shown = path.display();
        let advice = || {
            let user = user_name();
            format!("{shown}: choose a directory that {user} can reach and write with --data-dir")
        };
        fs::create_dir_all(&path).with_context(advice)?;
        ensure_ours(&path)?;
        fs::set_permissions(&path, Permissions::from_mode(0o700))
            .and_then(|()| fs::write(path.join(MARK), "Data of usher-local.\n"))
            .with_context(advice)?;
        Ok(Self {
            path: path.canonicalize()?,
            run_dir,
        })
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    pub(crate) fn run_dir(&self) -> &Path {
        self.run_dir.path()
    }

    /// The key that opens sealed tokens: made at the first start, then kept, so that emails which were
    /// waiting at the end of one run can be sent by the next.
    ///
    /// # Errors
    ///
    /// If the file cannot be read or written, or holds no key.
    pub(crate) fn token_key(&self) -> anyhow::Result<PrivateKey> {
        let file = self.path.join(TOKEN_KEY);
        if file.exists() {
            let text = fs::read_to_string(&file)?;
            return PrivateKey::from_base64(text.trim())
                .with_context(|| format!("{} holds no key", file.display()));
        }
        let (key, _) = PrivateKey::generate()?;
        OpenOptions::new()
            .write(true)
            .create_new(true)
            .mode(0o600)
            .open(&file)
            .and_then(|mut file| file.write_all(key.to_base64().as_bytes()))
            .with_context(|| format!("cannot write {}", file.display()))?;
        Ok(key)
    }
}

/// Refuses a directory that is neither new, nor empty, nor made by this program.
///
/// # Errors
///
/// If it is somebody else's, or cannot be read.
pub(crate) fn ensure_ours(path: &Path) -> anyhow::Result<()> {
    let shown = path.display();
    let mut entries = fs::read_dir(path).with_context(|| format!("cannot read {shown}"))?;
    ensure!(
        entries.next().is_none() || path.join(MARK).exists(),
        "{shown} holds something else: choose an empty directory with --data-dir"
    );
    Ok(())
}

fn user_name() -> String {
    let user_id = nix::unistd::geteuid();
    let user = nix::unistd::User::from_uid(user_id).ok().flatten();
    user.map_or_else(
        || format!("user {user_id}"),
        |user| format!("the user {}", user.name),
    )
}
