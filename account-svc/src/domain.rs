//! Types that cannot be wrong. Pure: no I/O, no clock, no randomness but where it is handed in.

/// `Debug` of types that hold personal data: their names alone, so that no log or panic shows more.
macro_rules! hidden_debug {
    ($($type:ident),+) => {$(
        impl std::fmt::Debug for $type {
            fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                formatter.debug_struct(stringify!($type)).finish_non_exhaustive()
            }
        }
    )+};
}

pub mod acknowledgement;
pub mod audit;
pub mod autolink;
pub mod birth_date;
pub mod duplicate;
pub mod email;
pub mod link;
pub mod locale;
pub mod name;
pub mod organization;
pub mod password;
mod personal_words;
pub mod phone;
pub mod portal;
pub mod profile;
pub mod state;
pub mod text;
pub mod token;
