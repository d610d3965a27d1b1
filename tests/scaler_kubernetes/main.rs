//! The Kubernetes driver and the Lease against an API server that behaves like one, over real HTTP.
#![cfg(feature = "kubernetes")]
#![allow(unreachable_pub)] // Modules of one program.

#[path = "../support/mod.rs"]
mod support;

mod api;
mod cluster;
mod controller;
mod door;
mod following;
mod lease;
mod manifests;

mod scaling;
mod trouble;
mod world;
