//! The message in a request's body, as far as it has been read.

use bytes::Bytes;

use crate::mcp::peek::{Malformed, Peek, Shape, members, peek};

/// What is known of a client's message.
#[derive(Debug)]
pub(super) struct Message {
    /// What it is.
    pub shape: Shape,
    /// Its method; empty for responses and batches.
    pub method: Box<str>,
    /// Its id, as JSON text.
    pub id: Option<Box<str>>,
    /// What it is about: a tool, a prompt, a resource, a task.
    pub name: Option<Box<str>>,
    /// The revision it names.
    pub version: Option<Box<str>>,
    /// What an earlier answer wants back.
    pub request_state: Option<Box<str>>,
    /// Its params, as JSON text.
    pub params: Option<Bytes>,
    /// What the members of a batch that ask for something are: method and what it is about.
    pub members: Vec<(Box<str>, Option<Box<str>>)>,
    /// What was read of it.
    pub body: Bytes,
    /// Whether that is all.
    pub whole: bool,
}

impl Message {
    /// Reads what is there of it; `whole` says whether that is all.
    pub(super) fn read(bytes: &Bytes, whole: bool) -> Result<Self, Malformed> {
        let peek = peek(bytes, whole)?;
        let mut batch = Vec::new();
        if peek.shape == Shape::Batch && whole {
            for member in members(bytes) {
                let member = member?;
                if member.shape == Shape::Request {
                    batch.push((own(member.method.unwrap_or_default()), member.name.map(own)));
                }
            }
        }
        let Peek { shape, method, id, name, version, request_state, params, .. } = peek;
        Ok(Message {
            shape,
            method: method.map(own).unwrap_or_default(),
            id: id.map(Box::from),
            name: name.map(own),
            version: version.map(own),
            request_state: request_state.map(own),
            params: params.map(|range| bytes.slice(range)),
            members: batch,
            body: bytes.clone(),
            whole,
        })
    }

    /// Whether what limits go by may still come.
    pub(super) fn is_unclear(&self) -> bool {
        let unknown =
            self.method.is_empty() || self.id.is_none() || self.name.is_none() && &*self.method == "tools/call";
        !self.whole && (self.shape == Shape::Batch || self.shape == Shape::Request && unknown)
    }

    /// What it asks for: method and what that is about, once for each member of a batch. Nothing for what is no request.
    pub(super) fn asks(&self) -> impl Iterator<Item = (&str, Option<&str>)> {
        let one = (self.shape == Shape::Request).then(|| (&*self.method, self.name.as_deref()));
        one.into_iter().chain(self.members.iter().map(|(method, name)| (&**method, name.as_deref())))
    }

    /// Whether an answer is waited for.
    pub(super) fn wants_answer(&self) -> bool {
        matches!(self.shape, Shape::Request | Shape::Batch)
    }

    /// Whether a session begins with it.
    pub(super) fn begins(&self) -> bool {
        &*self.method == "initialize"
    }

    /// Whether doing it twice is the same as doing it once.
    pub(super) fn is_repeatable(&self) -> bool {
        crate::mcp::is_repeatable(&self.method)
    }
}

fn own(text: std::borrow::Cow<'_, str>) -> Box<str> {
    Box::from(text.as_ref())
}
