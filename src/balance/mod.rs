//! Which upstream takes the next request.
//!
//! A [`Table`] is built for each snapshot from the members of a pool that are fit, and read by every worker. What
//! changes while it is read is outside it: one [`Load`] for each upstream and one [`Cursor`] for each pool, both of
//! which survive reloads.
//!
//! Never here: a clock, a random number generator, a lock, an allocation in a pick. Time and chance come with the
//! [`Draw`].
//!
//! **How a pick ends.** An algorithm proposes a member that was open (has room, was not tried) when it looked, then the
//! member's [`Load`] is entered, which is where `max` is held to exactly. If another worker was quicker the algorithm
//! proposes again, twice at most; after that, or when it has nothing to propose, the tier is walked once and the first
//! member that lets us in is it. So a pick always ends, and it says [`NoPick::Full`] only when every member that was
//! not tried was seen full.
//!
//! **Why not a heap** of members ordered by load, which HAProxy keeps: each request would move its member twice, in a
//! structure that all workers share, so under a lock. A scan of a few hundred counters is cheaper than one contended
//! lock.
//!
//! **Why not choose at random everywhere** (power of two choices): it is the right answer for thousands of upstreams.
//! With the usual handful, two draws out of five miss the idle one more often than not; looking at all five costs
//! nanoseconds.

mod dice;
mod ewma;
mod hash;
mod least;
mod load;
mod random;
mod ring;
mod round_robin;
mod scan;
mod sequence;
mod setting;
mod table;

#[cfg(test)]
mod laws;

pub use hash::stable_hash;
pub use load::Load;
pub use setting::{Algorithm, HashKey, SettingError};
pub use table::{Cursor, Draw, Member, NoPick, Table};
