//! Tidegate's own language: TOML with includes and variables, read into one tree whose every part knows its place.

mod include;
mod syntax;
mod tree;
mod variable;

pub(crate) use include::{Loaded, load};
