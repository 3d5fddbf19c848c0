//! Types that cannot be wrong. Pure: no I/O, no clock, no randomness but where it is handed in.

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
