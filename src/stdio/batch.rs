//! Batches, which the 2025-03-26 revision has and no other.

use bytes::Bytes;
use futures_util::future::join_all;
use http::Response;
use serde_json::value::RawValue;

use super::answer::Body;
use super::call::{Call, Exchange};
use super::http::{Head, Refusal, accepted, invalid, is_ours, notified, responded};
use super::message::{self, Fault, Kind, Message};
use super::queue::Queue;
use super::session::Session;

/// More members are refused.
const MOST: usize = 100;

/// The members of a batch; none where it is none.
///
/// **Errors**: as of a message, where it is a list but cannot be read.
pub(super) fn members(text: &Bytes) -> Option<Result<Vec<Bytes>, Fault>> {
    if !text.trim_ascii_start().starts_with(b"[") {
        return None;
    }
    let fault = |code: i64, what: String| Some(Err(Fault { code, what }));
    match serde_json::from_slice::<Vec<&RawValue>>(text) {
        Err(error) => fault(message::PARSE_ERROR, error.to_string()),
        Ok(members) if members.is_empty() => fault(message::INVALID_REQUEST, "the batch is empty".to_owned()),
        Ok(members) if members.len() > MOST => {
            fault(message::INVALID_REQUEST, format!("a batch has at most {MOST} members"))
        }
        Ok(members) => Some(Ok(members.iter().map(|member| text.slice_ref(member.get().as_bytes())).collect())),
    }
}

impl Head {
    /// Answers all requests of a batch at once, when the last of them has been answered. What comes before goes to the session's stream.
    pub(super) async fn batch(self, members: Vec<Bytes>) -> Result<Response<Body>, Refusal> {
        if self.version.as_deref().is_some_and(|version| version != "2025-03-26") {
            return Err(invalid("null", "a message is one JSON object; send the members of a batch one by one"));
        }
        let messages = members.into_iter().map(Message::parse).collect::<Result<Vec<_>, _>>();
        let messages = messages.map_err(|fault| invalid("null", &format!("a member of the batch: {}", fault.what)))?;
        if messages.iter().any(|message| message.method == "initialize") {
            return Err(invalid("null", "initialize cannot be in a batch"));
        }
        let session = self.named_session("null")?;
        let calls: Vec<Begun> = messages.into_iter().filter_map(|message| begin(&session, message)).collect();
        if calls.is_empty() {
            return Ok(accepted());
        }
        let answers = join_all(calls.iter().map(Begun::answer)).await;
        let mut text = Vec::with_capacity(answers.iter().map(|answer| answer.len() + 1).sum::<usize>() + 1);
        for (at, answer) in answers.iter().enumerate() {
            text.push(if at == 0 { b'[' } else { b',' });
            text.extend_from_slice(answer);
        }
        text.push(b']');
        Ok(self.whole(text.into()))
    }
}

/// A member of a batch that is answered.
enum Begun {
    Call(Call),
    Answered(Bytes),
}

impl Begun {
    async fn answer(&self) -> Bytes {
        match self {
            Begun::Answered(answer) => answer.clone(),
            // Its answer is all that comes to one that takes no events.
            Begun::Call(call) => Queue::next(&call.exchange.queue).await.unwrap_or_default(),
        }
    }
}

fn begin(session: &std::rc::Rc<Session>, message: Message) -> Option<Begun> {
    match message.kind {
        Kind::Notification => drop(notified(session, &message)),
        Kind::Response => drop(responded(session, &message)),
        Kind::Request if is_ours(session, &message) => {
            return Some(Begun::Answered(message::result(message.id(), "{}")));
        }
        Kind::Request => {
            let (exchange, server) = (Exchange::new(false), session.server.clone());
            let held = Some(session.hold());
            let call = Call { exchange: exchange.clone(), server: server.clone(), cancels: false, _held: held };
            tokio::task::spawn_local(server.call(message, exchange, Some(session.clone())));
            return Some(Begun::Call(call));
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn members_are_told() {
        let of = |text: &'static str| members(&Bytes::from_static(text.as_bytes()));
        assert_eq!(of(r#"{"a":[1]}"#), None);
        assert_eq!(of(r#" [{"a":1}, 2]"#), Some(Ok(vec![Bytes::from_static(br#"{"a":1}"#), Bytes::from_static(b"2")])));
        let code = |text: &'static str| of(text).expect("a list").expect_err(text).code;
        assert_eq!((code("[1"), code("[]")), (message::PARSE_ERROR, message::INVALID_REQUEST));
    }
}
