//! Names, addresses, units and time: the words every other room is written in.
//!
//! Nothing here decides, reads a clock or touches a socket, with one exception that says so:
//! [`Clock`], which the rooms that act use to make the [`Moment`]s they hand to those that decide.

mod address;
pub(crate) mod lines;
mod time;
mod unit;

pub use address::{Address, AddressError, Bind};
pub use lines::{Line, Lines, Marks};
pub use time::{Clock, Moment};
pub use unit::{Rate, Share, Size, UnitError, format_duration, parse_duration};
