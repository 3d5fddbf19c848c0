//! What tests share: databases and queues of their own, a network that fails, refusals as they read them, what
//! must hold for every database, and both services as the programs that they are.

pub mod attack;
pub mod catalogue;
mod database;
mod own_process;
mod programs;
pub mod proxy;
pub mod random;
pub mod refusal;
mod servers;

pub use self::{
    database::{Database, ServiceName},
    own_process::in_own_process,
    programs::{Program, token_keys},
    servers::{BrokerNames, setting},
};
