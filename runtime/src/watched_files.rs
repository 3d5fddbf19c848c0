//! Files whose changes are taken over while a service runs.

use std::{fs, io, path::PathBuf, time::Duration};

use anyhow::Context as _;
use aws_lc_rs::digest;

/// Time between two looks at the files. Contents are compared and not times: mounted secrets are replaced by
/// links, and copies may keep their times.
const INTERVAL: Duration = Duration::from_secs(2);

/// Files that are read together, because they belong together.
#[derive(Debug)]
pub(crate) struct WatchedFiles {
    /// Each with the setting that names it.
    files: Vec<(&'static str, PathBuf)>,
    /// Of the contents at the start; the contents may be secret.
    digest: digest::Digest,
}

impl WatchedFiles {
    /// Reads the files for the first time.
    ///
    /// # Errors
    /// If one cannot be read; the message names the setting.
    pub(crate) fn read(
        files: Vec<(&'static str, PathBuf)>,
    ) -> anyhow::Result<(Self, Vec<Vec<u8>>)> {
        let contents = files
            .iter()
            .map(|(setting, path)| {
                fs::read(path).with_context(|| {
                    let path = path.display();
                    format!("{setting}: cannot read {path}; name a file that exists and that this program may read")
                })
            })
            .collect::<Result<Vec<_>, _>>()?;
        let digest = digest_of(&contents);
        Ok((Self { files, digest }, contents))
    }

    /// The setting and the path of a file, for messages.
    pub(crate) fn name(&self, index: usize) -> String {
        let file = self.files.get(index);
        file.map_or_else(String::new, |(setting, path)| {
            format!("{setting}: {}", path.display())
        })
    }

    /// Calls `apply` with the contents whenever they have changed; never ends. What cannot be read or used is
    /// logged once and tried again after the next change.
    pub(crate) async fn follow(&self, apply: impl Fn(&[Vec<u8>]) -> anyhow::Result<()>) {
        let settings = self.files.iter().map(|(setting, _)| *setting);
        let settings = settings.collect::<Vec<_>>().join(", ");
        let mut last = Some(self.digest);
        loop {
            tokio::time::sleep(INTERVAL).await;
            match self.read_again().await {
                Ok(contents) => {
                    let digest = digest_of(&contents);
                    if last.is_some_and(|last| last.as_ref() == digest.as_ref()) {
                        continue;
                    }
                    last = Some(digest);
                    match apply(&contents) {
                        Ok(()) => tracing::info!(settings, "took over changed files"),
                        Err(error) => tracing::warn!(
                            settings,
                            error = format!("{error:#}"),
                            "changed files cannot be used; the last good ones stay in use"
                        ),
                    }
                }
                Err(error) if last.is_some() => {
                    last = None;
                    tracing::warn!(
                        settings,
                        %error,
                        "files cannot be read; the last good ones stay in use"
                    );
                }
                Err(_) => {}
            }
        }
    }

    async fn read_again(&self) -> io::Result<Vec<Vec<u8>>> {
        let mut contents = Vec::with_capacity(self.files.len());
        for (_, path) in &self.files {
            contents.push(tokio::fs::read(path).await?);
        }
        Ok(contents)
    }
}

fn digest_of(contents: &[Vec<u8>]) -> digest::Digest {
    let mut context = digest::Context::new(&digest::SHA256);
    for content in contents {
        context.update(&(content.len() as u64).to_be_bytes());
        context.update(content);
    }
    context.finish()
}

#[cfg(test)]
mod tests {
    use tempfile::TempDir;
    use tokio::{sync::mpsc, time::timeout};

    use super::*;

    #[tokio::test]
    async fn each_change_is_offered_once_also_after_a_bad_one() {
        let directory = TempDir::new().unwrap();
        let file = directory.path().join("file");
        fs::write(&file, "first").unwrap();
        let (files, contents) = WatchedFiles::read(vec![("SETTING", file.clone())]).unwrap();
        assert_eq!(contents, [b"first"]);
        let (offers, mut offered) = mpsc::unbounded_channel();
        tokio::spawn(async move {
            let apply = |contents: &[Vec<u8>]| {
                let content = String::from_utf8(contents.concat())?;
                offers.send(content.clone())?;
                anyhow::ensure!(content != "bad", "bad");
                Ok(())
            };
            files.follow(apply).await;
        });
        for content in ["bad", "good", "better"] {
            // At once as a whole, as deployments do it.
            let next = directory.path().join("next");
            fs::write(&next, content).unwrap();
            fs::rename(&next, &file).unwrap();
            let offer = timeout(INTERVAL * 5, offered.recv()).await;
            assert_eq!(offer.unwrap().unwrap(), content);
            if content == "good" {
                fs::remove_file(&file).unwrap();
            }
        }
        assert!(offered.is_empty());
    }

    #[test]
    fn a_missing_file_is_named() {
        let missing = PathBuf::from("/none");
        let error = WatchedFiles::read(vec![("SETTING", missing)]).unwrap_err();
        assert!(error.to_string().contains("SETTING"));
    }
}
