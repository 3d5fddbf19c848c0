//! Both services as the programs that they are, for whoever looks at them from outside.

mod programs;
mod servers;

pub use self::{
    programs::{Program, token_keys},
    servers::{BrokerNames, Database, setting},
};
