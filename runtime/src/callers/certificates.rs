//! What client certificates are granted, from a file.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::Path,
    sync::{Arc, PoisonError, RwLock},
};

use anyhow::{Context as _, ensure};
use serde::Deserialize;
use usher_proto::rpc::RPCS;
use uuid::Uuid;

use super::Refusal;
use crate::{
    caller::{Caller, Grants, parse_subject},
    watched_files::WatchedFiles,
};

const SETTING: &str = "CALLER_GRANTS_FILE";

type ByName = BTreeMap<String, Caller>;

/// The grants of each certificate, by its name.
#[derive(Debug)]
pub(super) struct CertificateGrants {
    file: WatchedFiles,
    callers: RwLock<Arc<ByName>>,
}

/// What stands in the file for one name.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Entry {
    organization_id: Option<Uuid>,
    scopes: BTreeSet<String>,
}

impl CertificateGrants {
    pub(super) fn read(path: &Path) -> anyhow::Result<Self> {
        let (file, contents) = WatchedFiles::read(vec![(SETTING, path.to_owned())])?;
        let callers = parse(&contents.concat()).with_context(|| {
            let name = file.name(0);
            format!("{name} cannot be used; the README shows what it holds")
        })?;
        let callers = RwLock::new(Arc::new(callers));
        Ok(Self { file, callers })
    }

    /// Takes over the file whenever it changes; never ends.
    pub(super) async fn follow_file(&self) {
        self.file
            .follow(|contents| {
                let callers = Arc::new(parse(&contents.concat())?);
                *self.callers.write().unwrap_or_else(PoisonError::into_inner) = callers;
                Ok(())
            })
            .await;
    }

    pub(super) fn caller(&self, certificate_name: &str) -> Result<Caller, Refusal> {
        let callers = self.callers.read().unwrap_or_else(PoisonError::into_inner);
        let caller = callers.get(certificate_name).cloned();
        caller.ok_or(Refusal("certificate_not_granted"))
    }
}

fn parse(content: &[u8]) -> anyhow::Result<ByName> {
    let entries: BTreeMap<String, Entry> = serde_json::from_slice(content)?;
    entries
        .into_iter()
        .map(|(name, entry)| {
            let caller = caller(&name, entry).with_context(|| format!("`{name}`"))?;
            Ok((name, caller))
        })
        .collect()
}

fn caller(name: &str, entry: Entry) -> anyhow::Result<Caller> {
    let subject = parse_subject(name)?.to_owned();
    ensure!(
        entry.organization_id.is_none_or(|id| !id.is_nil()),
        "the nil UUID is no organization"
    );
    for scope in &entry.scopes {
        ensure!(
            RPCS.iter().any(|rpc| bare(rpc.scope) == bare(scope)),
            "no RPC has the scope `{scope}`"
        );
    }
    Ok(Caller {
        subject,
        organization_id: entry.organization_id,
        grants: Grants::Scopes(entry.scopes),
    })
}

fn bare(scope: &str) -> &str {
    scope.strip_prefix("platform/").unwrap_or(scope)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_certificate_has_its_own_grants() {
        let content = br#"{
            "spiffe://example.org/portal": {
                "organization_id": "0191aaaa-0000-7000-8000-000000000001", "scopes": ["portal"]},
            "operator.example.org": {"scopes": ["platform/accounts.read", "platform/organizations.write"]}
        }"#;
        let callers = parse(content).unwrap();
        let portal = &callers["spiffe://example.org/portal"];
        assert_eq!(portal.subject, "spiffe://example.org/portal");
        assert!(portal.organization_id.is_some());
        assert_eq!(callers["operator.example.org"].organization_id, None);
    }

    #[test]
    fn mistakes_in_the_file_are_refused() {
        for (content, said) in [
            ("{", "EOF"),
            (r#"{"a": {"scopes": ["accounts.raed"]}}"#, "accounts.raed"),
            (r#"{"a": {"scope": []}}"#, "unknown field"),
            (r#"{"a": {}}"#, "scopes"),
            (r#"{"person:1": {"scopes": []}}"#, "reserved"),
            (r#"{"a": {"organization_id": "x", "scopes": []}}"#, "UUID"),
        ] {
            let error = format!("{:#}", parse(content.as_bytes()).unwrap_err());
            assert!(error.contains(said), "{content}: {error}");
        }
    }
}
