//! Which upstream takes the next request. Pure: the clock and the random draw come from the caller.

mod setting;

pub use setting::{Algorithm, HashKey, SettingError};
