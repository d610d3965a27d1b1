//! Configuration: from text to a checked model, every error pointed at.

/// Defines a section of the configuration: its struct, keys, types, defaults and documentation, in one place.
macro_rules! section {
    ($(#[doc = $doc:literal])* pub struct $name:ident ($path:literal) {
        $($(#[doc = $kdoc:literal])* $key:ident : $ty:ty $(= $default:expr)? ,)*
    }) => {
        $(#[doc = $doc])*
        #[derive(Debug, Clone, PartialEq)]
        pub struct $name { $($(#[doc = $kdoc])* pub $key: $ty,)* }
        section!(@default $name [$($key : $ty $(= $default)?,)*] []);
    };
    (@default $name:ident [] [$($key:ident = $default:expr,)*]) => {
        impl Default for $name { fn default() -> Self { Self { $($key: $default,)* } } }
    };
    (@default $name:ident [$key:ident : $ty:ty = $default:expr, $($rest:tt)*] [$($done:tt)*]) => {
        section!(@default $name [$($rest)*] [$($done)* $key = $default,]);
    };
    // A section with a required key has no default.
    (@default $name:ident [$key:ident : $ty:ty, $($rest:tt)*] [$($done:tt)*]) => {};
}
use section;

pub mod model;
