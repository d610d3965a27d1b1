//! stub, to be replaced
#![allow(missing_docs)]
use bytes::BytesMut;
use http::HeaderMap;
pub trait Variables {}
#[derive(Debug)]
pub struct Template(String);
impl Template {
    pub fn parse(text: &str) -> Result<Self, String> { Ok(Template(text.into())) }
    pub fn render(&self, _: &impl Variables, out: &mut BytesMut) { out.extend_from_slice(self.0.as_bytes()) }
}
#[derive(Debug)]
pub struct Rewrite;
impl Rewrite { pub fn apply(&self, _: &super::Match<'_>, _: &impl Variables) -> String { String::new() } }
#[derive(Debug, Default)]
pub struct HeaderEdit;
impl HeaderEdit { pub fn apply(&self, _: &mut HeaderMap, _: &impl Variables) {} }
