//! Languages that Usher speaks to people.

/// Languages that there are emails in, as BCP 47 primary subtags.
pub const LANGUAGES: [&str; 2] = ["en", "fr"];
