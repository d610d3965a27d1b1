//! Instances that are processes of this machine.

mod spec;

pub use spec::spec;
