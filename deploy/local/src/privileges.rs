//! PostgreSQL refuses to run as root, for good reasons: so does everything here.

use std::fs;
use std::os::unix::fs::chown;
use std::path::Path;

use anyhow::Context as _;
use nix::unistd::{self, User};

use crate::data_dir;

/// Unprivileged users, in the order in which they are taken.
const USERS: [&str; 2] = ["postgres", "nobody"];

/// Turns a process that was started as root into one of an unprivileged user, for good; hands the data
/// directory over first. Must be called before any thread starts.
///
/// # Errors
///
/// If there is no unprivileged user, or the data directory cannot be handed over.
pub(crate) fn drop_root(data_dir: Option<&Path>) -> anyhow::Result<()> {
    if !unistd::geteuid().is_root() {
        return Ok(());
    }
    let user = USERS
        .iter()
        .find_map(|name| User::from_name(name).ok().flatten())
        .with_context(|| {
            format!(
                "started as root, and none of the users {USERS:?} exists: start it as another user"
            )
        })?;
    if let Some(data_dir) = data_dir {
        hand_over(data_dir, &user)?;
    }
    #[cfg(not(target_os = "macos"))]
    unistd::setgroups(&[user.gid]).context("cannot drop the groups of root")?;
    unistd::setgid(user.gid).context("cannot drop the group of root")?;
    unistd::setuid(user.uid).context("cannot drop the user root")?;
    Ok(())
}

/// Gives the data directory to `user`. Only a directory that is new, empty or ours: anything else would
/// be taken away from its owner.
fn hand_over(data_dir: &Path, user: &User) -> anyhow::Result<()> {
    let shown = data_dir.display();
    fs::create_dir_all(data_dir).with_context(|| format!("cannot create {shown}"))?;
    data_dir::ensure_ours(data_dir)?;
    chown(data_dir, Some(user.uid.as_raw()), Some(user.gid.as_raw()))
        .with_context(|| format!("cannot give {shown} to the user {}", user.name))
}
