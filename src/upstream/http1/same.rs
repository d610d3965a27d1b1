//! hyper's client judges ours: what ours takes for an answer, hyper's reads alike. Ours is stricter. `tests/judge.rs` holds both to it with
//! whole connections, and the law here what is pure of ours, for any bytes.

use http::Method;
use http::header::CONTENT_LENGTH;

use super::decode::{Decoder, read};
use super::link::MOST_INTERIM;
use super::response;
use crate::judge::{self, Answered, Content, fields};
use crate::upstream::answer::{self, Kind};
use crate::upstream::connections::HEAD_SIZE;
use crate::upstream::error::BadResponse;

/// What was read of an answer. An error without a reason is one of the connection: it has ended too early, for the most part.
pub(in crate::upstream) type Outcome = Result<Answered, Option<BadResponse>>;

/// Whether both may have read `bytes` like this.
pub(in crate::upstream) fn agree(bytes: &[u8], ours: &Outcome, hypers: Option<&Answered>) -> bool {
    match (ours.as_ref().map(|ours| sorted(ours.clone())), hypers.map(settled)) {
        (Ok(ours), Some(hypers)) if ours == hypers => true,
        // A broken body: how much of it was seen before that is a matter of pieces.
        (Ok(ours), Some(hypers)) => {
            let heads_agree = (ours.status, &ours.headers) == (hypers.status, &hypers.headers);
            heads_agree && !ours.body.whole && (!hypers.body.whole || stricter(bytes))
        }
        (Ok(_), None) => false,
        (Err(_), None) => true,
        // A wrong length is one too where no body follows.
        (Err(Some(BadResponse::ContentLength)), Some(_)) => true,
        // We bound what hyper does not, or not as closely.
        (Err(Some(BadResponse::InterimWithoutEnd)), Some(_)) => true,
        (Err(Some(BadResponse::HeadTooLarge)), Some(_)) if bytes.len() > HEAD_SIZE => true,
        (Err(bad), Some(_)) => bad.is_some() && stricter(bytes),
    }
}

/// Whether there is something in it that we refuse and hyper does not: bare line feeds, doubtful framing, a 101 that nobody asked for.
fn stricter(answer: &[u8]) -> bool {
    let text = String::from_utf8_lossy(answer).to_ascii_lowercase();
    let bare = text.replace("\r\n", "").contains('\n');
    let lengths = text.matches("content-length").count();
    bare || text.contains("transfer-encoding") || lengths > 1 || text.contains(" 101")
}

/// What is only about framing does not get by us, and lengths become one; hyper leaves them as they came.
fn settled(answer: &Answered) -> Answered {
    let mut answer = answer.clone();
    let is_length = |name: &str| name == CONTENT_LENGTH.as_str();
    answer.headers.retain(|(name, _)| name != "transfer-encoding" && !(answer.status == 204 && is_length(name)));
    let lengths: Vec<usize> = (0..answer.headers.len()).filter(|at| is_length(&answer.headers[*at].0)).collect();
    if let [first, rest @ ..] = &lengths[..] {
        let value = &mut answer.headers[*first].1;
        if !rest.is_empty() || value.contains(&b',') {
            let text = String::from_utf8_lossy(value);
            let number = text.split(',').next().and_then(|number| number.trim().parse::<u64>().ok());
            *value = number.map_or_else(|| value.clone(), |number| number.to_string().into_bytes());
        }
        rest.iter().rev().for_each(|at| drop(answer.headers.remove(*at)));
    }
    sorted(answer)
}

/// The order of names says nothing (RFC 9110 §5.3), and to take one out changes it.
fn sorted(mut answer: Answered) -> Answered {
    answer.headers.sort_by(|(one, _), (other, _)| one.cmp(other));
    answer
}

/// Reads an answer as a connection does, where all of it is there.
fn ours(method: &Method, bytes: &[u8]) -> Outcome {
    let mut rest = bytes;
    for _ in 0..=MOST_INTERIM {
        let (mut parts, length, _) = response::read_head(rest).map_err(Some)?.ok_or(None)?;
        rest = &rest[length..];
        let Kind::Final(framing) = answer::check(&mut parts, None).map_err(Some)? else { continue };
        let decoder = Decoder::answering(method, parts.status, framing);
        let may_end = decoder.may_end();
        let mut body = read(decoder, rest, rest.len()).map_or_else(|_| Content::default(), |(body, _)| body);
        body.whole |= may_end;
        return Ok(Answered { status: parts.status.as_u16(), headers: fields(&parts.headers), body });
    }
    Err(Some(BadResponse::InterimWithoutEnd))
}

/// What must hold for any bytes: hyper reads what we take alike, plain or not, and of no beginning of a head anything else is believed than
/// of the whole.
pub(crate) fn law(bytes: &[u8]) {
    response::law(bytes);
    for method in [Method::GET, Method::HEAD] {
        let (ours, hypers) = (ours(&method, bytes), judge::answer(&method, bytes));
        assert!(agree(bytes, &ours, hypers.as_ref()), "{method}: {ours:?} {hypers:?}");
    }
}
