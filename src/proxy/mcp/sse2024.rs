//! The first transport (2024-11-05): the session is in the URI that the stream's first event names. A mark is added to it that says where the
//! stream is.

use bytes::Bytes;
use http::HeaderValue;
use http::uri::PathAndQuery;

use super::exchange::Got;
use super::is_events;
use super::reply::End;
use super::stream::{LONGEST, Stop};
use super::talk::{Talk, unix_now};
use crate::mcp::Session;
use crate::mcp::sse::{self, Event, Events, Part};
use crate::proxy::Refusal;

/// The query parameter that holds the mark.
const MARK: &str = "tidegate";

/// Whether a query holds a mark.
pub(super) fn is_marked(query: Option<&str>) -> bool {
    query.is_some_and(|query| query.split('&').any(|pair| is_mark(pair).is_some()))
}

fn is_mark(pair: &str) -> Option<&str> {
    pair.strip_prefix(MARK)?.strip_prefix('=')
}

/// The target without its mark, and the mark.
pub(super) fn unmark(target: &PathAndQuery) -> Option<(PathAndQuery, String)> {
    let query = target.query()?;
    let mark = query.split('&').find_map(is_mark)?.to_owned();
    let rest: Vec<&str> = query.split('&').filter(|pair| is_mark(pair).is_none()).collect();
    let text = if rest.is_empty() { target.path().to_owned() } else { format!("{}?{}", target.path(), rest.join("&")) };
    Some((text.parse().ok()?, mark))
}

/// A URI with a mark.
fn mark(uri: &str, mark: &str) -> String {
    let (uri, fragment) = uri.split_once('#').map_or((uri, None), |(uri, fragment)| (uri, Some(fragment)));
    let joint = if uri.contains('?') { '&' } else { '?' };
    let fragment = fragment.map(|fragment| format!("#{fragment}")).unwrap_or_default();
    format!("{uri}{joint}{MARK}={mark}{fragment}")
}

impl Talk {
    /// A stream without a session: of the first transport if its first event names where to send messages, else as it is.
    pub(super) async fn first_transport(&mut self) -> Result<(), End> {
        let got = Box::pin(self.exchange()).await?;
        if !got.head.status.is_success() || !is_events(&got.head.headers) {
            return Box::pin(self.deliver(got)).await;
        }
        let Got { mut head, rest, .. } = got;
        if let Some(slot) = &mut self.life.slot {
            slot.becomes_stream();
        }
        self.dress(&mut head);
        self.open(head);
        let Some(mut body) = rest else { return Ok(()) };
        let mut events = Events::new(LONGEST);
        loop {
            match events.pop() {
                Some(Part::Event(Event { name: Some(name), data: Some(uri), .. })) if name == "endpoint" => {
                    self.out.put(self.endpoint(&uri));
                    break;
                }
                Some(part) => {
                    let ends =
                        matches!(&part, Part::Event(event) if event.data.is_some()) || matches!(part, Part::Passed(_));
                    self.out.put(part.raw().clone());
                    if ends {
                        break;
                    }
                }
                None => match http_body_util::BodyExt::frame(&mut body).await {
                    Some(Ok(frame)) => frame.data_ref().into_iter().for_each(|data| events.push(data)),
                    Some(Err(_)) => return Err(End::Broken(Refusal::UpstreamClosed)),
                    None => return Ok(()),
                },
            }
        }
        while let Some(part) = events.pop() {
            self.out.put(part.raw().clone());
        }
        self.out.taken().await;
        match self.pass_events(body, events, false, |_, _| {}).await {
            Stop::Over => Ok(()),
            Stop::Late => Err(End::Broken(Refusal::RequestTimeout)),
            Stop::Moved => Err(End::Broken(Refusal::DrainDeadline)),
            Stop::Broken => Err(End::Broken(Refusal::UpstreamClosed)),
        }
    }

    /// The event with the mark in its URI.
    fn endpoint(&self, uri: &Bytes) -> Bytes {
        let upstream = self.life.slot.as_ref().map_or(0, |slot| slot.member().upstream.identity);
        let session =
            Session { upstream, id: "".into(), version: "2024-11-05".into(), params: "".into(), born: unix_now() };
        let sealed = self.view.keys.seal(&session, &self.bound(), super::deliver::nonce());
        let uri = String::from_utf8_lossy(uri);
        let uri = sealed.map_or_else(|| uri.to_string(), |sealed| mark(&uri, &sealed));
        sse::event(Some("endpoint"), HeaderValue::from_str(&uri).map_or(&[][..], |_| uri.as_bytes()), None)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mark_comes_off_as_it_went_on() {
        for (uri, marked) in [
            ("/messages/?session_id=abc", "/messages/?session_id=abc&tidegate=X"),
            ("/messages", "/messages?tidegate=X"),
            ("/m?a=1&b", "/m?a=1&b&tidegate=X"),
        ] {
            assert_eq!(mark(uri, "X"), marked);
            let target: PathAndQuery = marked.parse().unwrap();
            assert!(is_marked(target.query()));
            assert_eq!(unmark(&target), Some((uri.parse().unwrap(), "X".to_owned())));
        }
        assert_eq!(mark("/m#f", "X"), "/m?tidegate=X#f");
        assert_eq!(unmark(&"/m?tidegated=1".parse().unwrap()), None);
        assert!(!is_marked(Some("xtidegate=1")));
    }
}
