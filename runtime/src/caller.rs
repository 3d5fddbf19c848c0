//! Who calls, and what they were granted.

use std::collections::BTreeSet;

use usher_proto::rpc::Rpc;
use uuid::Uuid;

/// Prefix of a scope that covers every organization.
const PLATFORM: &str = "platform/";

/// An identity, with what it was granted. Handlers find it in the extensions of a request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Caller {
    /// Name for the audit log and `requested_by`, up to 128 characters.
    pub subject: String,
    /// The organization whose data it works with; `None` for callers of the platform.
    pub organization_id: Option<Uuid>,
    /// What it was granted.
    pub grants: Grants,
}

/// The scopes that a caller was granted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Grants {
    /// Everything, for every organization: where callers are not authenticated.
    All,
    /// These scopes: `accounts.read` for its own organization, `platform/accounts.read` for all.
    Scopes(BTreeSet<String>),
}

/// Why a name cannot be the subject of a caller.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum SubjectError {
    /// Too long, empty, or not printable.
    #[error("a subject is 1 to 128 visible ASCII characters")]
    Malformed,
    /// It stands for Usher itself or for a Person in the audit log.
    #[error("the subject `usher` and those that begin with `person:` are reserved")]
    Reserved,
}

/// Which organizations a caller may name in an RPC.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reach {
    /// Every organization.
    Platform,
    /// This one.
    Organization(Uuid),
}

/// Why a caller may not call an RPC.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum NotGranted {
    /// The scope was not granted.
    #[error("the caller lacks the scope `{0}`")]
    Scope(&'static str),
    /// The scope was granted for the caller's own organization, and the caller has none.
    #[error("the caller's identity names no organization")]
    NoOrganization,
}

/// Checks the name under which a caller stands in the audit log.
///
/// # Errors
/// If it is malformed, or reserved for those whom Usher writes there by itself.
pub fn parse_subject(subject: &str) -> Result<&str, SubjectError> {
    if !(1..=128).contains(&subject.len()) || !subject.bytes().all(|byte| byte.is_ascii_graphic()) {
        return Err(SubjectError::Malformed);
    }
    let is_person = subject
        .get(..7)
        .is_some_and(|start| start.eq_ignore_ascii_case("person:"));
    if is_person || subject.eq_ignore_ascii_case("usher") {
        return Err(SubjectError::Reserved);
    }
    Ok(subject)
}

impl Caller {
    /// A caller that may do everything.
    #[must_use]
    pub fn unrestricted(subject: String) -> Self {
        Self {
            subject,
            organization_id: None,
            grants: Grants::All,
        }
    }

    /// Which organizations the caller may name in `rpc`.
    ///
    /// # Errors
    /// If the RPC's scope was not granted.
    pub fn reach(&self, rpc: &Rpc) -> Result<Reach, NotGranted> {
        let Grants::Scopes(scopes) = &self.grants else {
            return Ok(Reach::Platform);
        };
        let bare = rpc.scope.strip_prefix(PLATFORM).unwrap_or(rpc.scope);
        // An RPC whose scope is missing is granted to nobody.
        if !bare.is_empty() && scopes.contains(&format!("{PLATFORM}{bare}")) {
            return Ok(Reach::Platform);
        }
        if bare.is_empty() || rpc.is_of_platform() || !scopes.contains(bare) {
            return Err(NotGranted::Scope(rpc.scope));
        }
        self.organization_id
            .map(Reach::Organization)
            .ok_or(NotGranted::NoOrganization)
    }
}

impl Reach {
    /// Whether an organization is within reach.
    #[must_use]
    pub fn covers(self, organization_id: Uuid) -> bool {
        match self {
            Self::Platform => true,
            Self::Organization(own) => own == organization_id,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const RPC: Rpc = Rpc {
        service: "s",
        path: "/s/M",
        scope: "accounts.read",
        is_client_streaming: false,
        is_server_streaming: false,
    };
    const PLATFORM_RPC: Rpc = Rpc {
        scope: "platform/accounts.read",
        ..RPC
    };

    fn caller(organization_id: Option<Uuid>, scope: &str) -> Caller {
        Caller {
            subject: "someone".to_owned(),
            organization_id,
            grants: Grants::Scopes(scope.split(' ').map(str::to_owned).collect()),
        }
    }

    #[test]
    fn nobody_calls_under_a_reserved_name() {
        assert_eq!(parse_subject("staff:7"), Ok("staff:7"));
        for reserved in ["usher", "Usher", "person:", "person:1", "PERSON:1"] {
            assert_eq!(parse_subject(reserved), Err(SubjectError::Reserved));
        }
        for malformed in ["", "a b", "a\u{7f}", "é", &"x".repeat(129)] {
            assert_eq!(parse_subject(malformed), Err(SubjectError::Malformed));
        }
        assert!(parse_subject(&"x".repeat(128)).is_ok());
    }

    #[test]
    fn a_scope_covers_the_own_organization_alone() {
        let own = Uuid::now_v7();
        let reach = caller(Some(own), "accounts.read").reach(&RPC).unwrap();
        assert!(reach.covers(own));
        assert!(!reach.covers(Uuid::now_v7()));
        assert_eq!(
            caller(None, "accounts.read").reach(&RPC),
            Err(NotGranted::NoOrganization)
        );
    }

    #[test]
    fn platform_scopes_are_apart() {
        let own = Some(Uuid::now_v7());
        let platform = caller(None, "platform/accounts.read");
        assert_eq!(platform.reach(&RPC), Ok(Reach::Platform));
        assert_eq!(platform.reach(&PLATFORM_RPC), Ok(Reach::Platform));
        assert!(caller(own, "accounts.read").reach(&PLATFORM_RPC).is_err());
        assert!(caller(own, "accounts.write platform/").reach(&RPC).is_err());
    }

    #[test]
    fn an_rpc_without_a_scope_is_granted_to_nobody() {
        let rpc = Rpc { scope: "", ..RPC };
        let caller = caller(Some(Uuid::now_v7()), "accounts.read platform/ ");
        assert_eq!(caller.reach(&rpc), Err(NotGranted::Scope("")));
    }
}
