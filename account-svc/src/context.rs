//! What every use case works with.

use std::sync::Arc;

use usher_runtime::{change::Store, seal::PublicKey, workers::Workers};

use crate::{
    db::time_zone::TimeZones,
    domain::{link::LinkRules, password::PasswordPolicy},
    passwords::Passwords,
    use_cases::name_frequencies::ChangedNames,
};

/// Rules that the deployment sets.
#[derive(Debug, Clone)]
pub struct Rules {
    /// What a password must be.
    pub password: PasswordPolicy,
    /// Which URLs organizations may give.
    pub links: LinkRules,
}

/// Database, keys and rules. Cheap to clone.
#[derive(Clone)]
pub struct Context {
    /// The service's database.
    pub store: Store,
    /// What tokens are sealed to.
    pub notify_key: Arc<PublicKey>,
    /// Rules of the deployment.
    pub rules: Arc<Rules>,
    /// Hashes passwords.
    pub passwords: Passwords,
    /// Names of time zones.
    pub time_zones: TimeZones,
    /// Told of names to be counted.
    pub changed_names: ChangedNames,
    /// What goes on when a call has ended.
    pub workers: Workers,
}
