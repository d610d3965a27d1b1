//! Results that servers allow to be kept (`ttlMs`, `cacheScope`), given again without asking.
//!
//! One struct without locks or a clock; who shares it wraps it. It never asks an upstream and never keeps what a server has not said may be
//! kept: errors, questions back (`input_required`) and results without both fields are not.

use std::collections::{BTreeMap, HashMap};
use std::ops::Range;
use std::sync::Arc;
use std::time::Duration;

use bytes::{BufMut, Bytes, BytesMut};

use super::answer::{Scope, outcome};
use super::json::{Scan, Stop};
use super::peek::{Peek, Shape};
use crate::types::Moment;

/// What an entry costs beyond its texts: its places in two tables.
const ENTRY: usize = 256;

/// How much is kept, and for how long at most.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Bounds {
    /// Entries.
    pub entries: usize,
    /// Bytes of all entries with their keys; none of more than a quarter of this is kept.
    pub bytes: usize,
    /// The longest life, whatever `ttlMs` says.
    pub ttl: Duration,
}

impl Default for Bounds {
    /// 1,000 entries, 16 MiB, an hour.
    fn default() -> Self {
        Bounds { entries: 1000, bytes: 16 << 20, ttl: Duration::from_secs(3600) }
    }
}

/// What kinds of results there are, by what makes them stale.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum Kind {
    Discover,
    Tools,
    Prompts,
    Resources,
    Resource,
}

impl Kind {
    fn of(method: &str) -> Option<Kind> {
        match method {
            "server/discover" => Some(Kind::Discover),
            "tools/list" => Some(Kind::Tools),
            "prompts/list" => Some(Kind::Prompts),
            "resources/list" | "resources/templates/list" => Some(Kind::Resources),
            "resources/read" => Some(Kind::Resource),
            _ => None,
        }
    }
}

/// What a server says has changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Changed<'a> {
    /// The list of tools.
    Tools,
    /// The list of prompts.
    Prompts,
    /// The lists of resources and of their templates.
    Resources,
    /// What is in the resource of this URI.
    Resource(&'a str),
}

impl<'a> Changed<'a> {
    /// What a notification says; `uri` is its `params.uri`.
    pub fn of(method: &str, uri: Option<&'a str>) -> Option<Self> {
        match method {
            "notifications/tools/list_changed" => Some(Changed::Tools),
            "notifications/prompts/list_changed" => Some(Changed::Prompts),
            "notifications/resources/list_changed" => Some(Changed::Resources),
            "notifications/resources/updated" => uri.map(Changed::Resource),
            _ => None,
        }
    }

    fn kind(self) -> Kind {
        match self {
            Changed::Tools => Kind::Tools,
            Changed::Prompts => Kind::Prompts,
            Changed::Resources => Kind::Resources,
            Changed::Resource(_) => Kind::Resource,
        }
    }
}

/// Which question a result answers.
///
/// **Shape**: method, protocol version, all params as they are written, and of `_meta` only what the client is capable of: who it is, its
/// progress token and its trace do not change a list. Params in another order are another question, which costs one call.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Key {
    kind: Kind,
    method: Box<str>,
    version: Option<Box<str>>,
    params: Box<str>,
    uri: Option<Box<str>>,
    principal: Option<Box<str>>,
}

impl Key {
    /// The key of the request `body`, asked by `principal` (whom authentication has named, if it is on); `None` where its answer may not
    /// be kept. `seen` is what [`peek`](super::peek::peek) has seen in all of `body`.
    pub fn of(seen: &Peek<'_>, body: &[u8], principal: Option<&str>) -> Option<Key> {
        let method = seen.method.as_deref()?;
        let kind = Kind::of(method)?;
        if seen.shape != Shape::Request || seen.request_state.is_some() {
            return None;
        }
        let params = match &seen.params {
            Some(range) => relevant(body.get(range.clone())?)?,
            None => String::new(),
        };
        Some(Key {
            kind,
            method: method.into(),
            version: seen.version.as_deref().map(Box::from),
            params: params.into(),
            uri: seen.name.as_deref().map(Box::from),
            principal: principal.map(Box::from),
        })
    }

    fn size(&self) -> usize {
        let optional = [&self.version, &self.uri, &self.principal].into_iter().flatten().map(|text| text.len());
        self.method.len() + self.params.len() + optional.sum::<usize>()
    }
}

/// The params that say which result is wanted; `None` where they answer a server's question.
fn relevant(params: &[u8]) -> Option<String> {
    let mut out = String::new();
    let mut answers = false;
    let mut scan = Scan::new(params);
    scan.object(|scan, key| {
        answers |= key == "inputResponses";
        if key == "_meta" && scan.next()? == b'{' {
            return scan.object(|scan, key| {
                let value = scan.value(2)?;
                if key == "io.modelcontextprotocol/clientCapabilities" {
                    out.push_str("_meta:");
                    out.push_str(value);
                }
                Ok(())
            });
        }
        // Quoted, so that no key can look like two members.
        out.push_str(&super::answer::quoted(key));
        out.push(':');
        out.push_str(scan.value(1)?);
        out.push(',');
        Ok::<(), Stop>(())
    })
    .ok()?;
    (!answers).then_some(out)
}

/// When a question was passed on to an upstream: an answer that was made before a change is not kept after it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Ticket(u64);

#[derive(Debug)]
struct Entry {
    response: Bytes,
    places: Places,
    until: Moment,
    used: u64,
}

/// Kept results, the least recently used of which go first.
///
/// **Bounds**: [`Bounds`], at any time.
/// **Cost**: a find is two lookups and a copy of the result; an invalidation looks at each entry.
#[derive(Debug)]
pub struct Cache {
    bounds: Bounds,
    entries: HashMap<Arc<Key>, Entry>,
    /// The entries by when they were last used.
    order: BTreeMap<u64, Arc<Key>>,
    bytes: usize,
    tick: u64,
    /// When each kind of result last changed, in ticks.
    changed: HashMap<Kind, u64>,
}

impl Cache {
    /// Nothing yet.
    pub fn new(bounds: Bounds) -> Self {
        Cache { bounds, entries: HashMap::new(), order: BTreeMap::new(), bytes: 0, tick: 0, changed: HashMap::new() }
    }

    /// How many results there are.
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// How many bytes they take.
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// The kept answer to this question, with the asker's `id` (JSON as it is written), and in `ttlMs` what is left of its life.
    ///
    /// The principal's own answer comes before the public one.
    pub fn find(&mut self, key: &Key, id: &str, now: Moment) -> Option<Bytes> {
        let own = key.principal.is_some().then(|| self.take(key, id, now)).flatten();
        own.or_else(|| self.take(&Key { principal: None, ..key.clone() }, id, now))
    }

    fn take(&mut self, key: &Key, id: &str, now: Moment) -> Option<Bytes> {
        let until = self.entries.get(key)?.until;
        if until <= now {
            self.remove(key);
            return None;
        }
        let tick = self.next_tick();
        let entry = self.entries.get_mut(key)?;
        if let Some(key) = self.order.remove(&std::mem::replace(&mut entry.used, tick)) {
            self.order.insert(tick, key);
        }
        let left = until.since(now).as_millis();
        Some(entry.places.fill(&entry.response, id, Some(left)))
    }

    /// The question is passed on now; the ticket comes back with its answer.
    pub fn ask(&mut self) -> Ticket {
        Ticket(self.next_tick())
    }

    /// Keeps an answer if its server allows that and nothing of its kind has changed since it was asked for; whether it was kept.
    pub fn store(&mut self, mut key: Key, ticket: Ticket, response: &Bytes, now: Moment) -> bool {
        let Some((scope, ttl)) = permission(response) else { return false };
        if self.changed.get(&key.kind).is_some_and(|changed| *changed > ticket.0) {
            return false;
        }
        match scope {
            Scope::Public => key.principal = None,
            // Nobody is nobody in particular.
            Scope::Private if key.principal.is_none() => return false,
            Scope::Private => {}
        }
        let Some(places) = Places::find(response) else { return false };
        let size = response.len() + key.size() + ENTRY;
        if size > self.bounds.bytes / 4 || self.bounds.entries == 0 {
            return false;
        }
        self.remove(&key);
        while self.len() >= self.bounds.entries || self.bytes + size > self.bounds.bytes {
            let Some((_, oldest)) = self.order.first_key_value() else { break };
            let oldest = oldest.clone();
            self.remove(&oldest);
        }
        let (used, key) = (self.next_tick(), Arc::new(key));
        let until = now + ttl.min(self.bounds.ttl);
        self.order.insert(used, key.clone());
        // A slice of a larger buffer would keep all of it.
        let response = Bytes::copy_from_slice(response);
        self.entries.insert(key, Entry { response, places, until, used });
        self.bytes += size;
        true
    }

    /// Forgets what a change has made stale, and whatever of its kind is being asked for right now; how many results went.
    pub fn invalidate(&mut self, changed: Changed<'_>) -> usize {
        let tick = self.next_tick();
        self.changed.insert(changed.kind(), tick);
        let stale = |key: &Key| match changed {
            Changed::Resource(uri) => key.kind == Kind::Resource && key.uri.as_deref() == Some(uri),
            _ => key.kind == changed.kind(),
        };
        let gone: Vec<Arc<Key>> = self.entries.keys().filter(|key| stale(key)).cloned().collect();
        gone.iter().for_each(|key| self.remove(key));
        gone.len()
    }

    /// Forgets everything, and whatever is being asked for right now: for when the pool's upstreams have changed.
    pub fn clear(&mut self) {
        let tick = self.next_tick();
        for kind in [Kind::Discover, Kind::Tools, Kind::Prompts, Kind::Resources, Kind::Resource] {
            self.changed.insert(kind, tick);
        }
        self.entries.clear();
        self.order.clear();
        self.bytes = 0;
    }

    fn remove(&mut self, key: &Key) {
        if let Some((key, entry)) = self.entries.remove_entry(key) {
            self.order.remove(&entry.used);
            self.bytes -= entry.response.len() + key.size() + ENTRY;
        }
    }

    fn next_tick(&mut self) -> u64 {
        self.tick += 1;
        self.tick
    }
}

/// Who may be given this answer again, and for how long; `None` where nobody may.
fn permission(response: &[u8]) -> Option<(Scope, Duration)> {
    let seen = outcome(response)?;
    let complete = seen.result_type.is_none_or(|kind| kind == "complete");
    let refused = !complete || seen.error_code.is_some() || seen.is_error || seen.method.is_some();
    let ttl = seen.ttl_ms.filter(|ms| *ms > 0 && !refused)?;
    Some((seen.cache_scope?, Duration::from_millis(ttl)))
}

/// Where in a response that differs from asker to asker is.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Places {
    id: Range<usize>,
    ttl: Option<Range<usize>>,
}

impl Places {
    /// `None` where there is no id, or one of the two is there twice.
    fn find(response: &[u8]) -> Option<Places> {
        let (mut ids, mut ttls) = (Vec::new(), Vec::new());
        let mut scan = Scan::new(response);
        scan.object(|scan, key| {
            let first = scan.next()?;
            if key == "result" && first == b'{' {
                return scan.object(|scan, key| note(scan, key == "ttlMs", &mut ttls, 2));
            }
            note(scan, key == "id", &mut ids, 1)
        })
        .ok()?;
        let (id, ttl) = (ids.pop()?, ttls.pop());
        (ids.is_empty() && ttls.is_empty()).then_some(Places { id, ttl })
    }

    /// The response for another asker.
    fn fill(&self, response: &[u8], id: &str, ttl_ms: Option<u128>) -> Bytes {
        let ttl = ttl_ms.map(|ms| ms.to_string());
        let mut changes = [(Some(&self.id), Some(id)), (self.ttl.as_ref(), ttl.as_deref())];
        changes.sort_by_key(|(place, _)| place.map_or(usize::MAX, |place| place.start));
        let mut out = BytesMut::with_capacity(response.len() + id.len() + 20);
        let mut from = 0;
        for change in changes {
            let (Some(place), Some(text)) = change else { continue };
            out.put_slice(&response[from..place.start]);
            out.put_slice(text.as_bytes());
            from = place.end;
        }
        out.put_slice(&response[from..]);
        out.freeze()
    }
}

/// Goes over a value, and notes where it is if it is `wanted`.
fn note(scan: &mut Scan<'_>, wanted: bool, places: &mut Vec<Range<usize>>, depth: u32) -> Result<(), Stop> {
    scan.next()?;
    let start = scan.at();
    scan.skip(depth)?;
    if wanted {
        places.push(start..scan.at());
    }
    Ok(())
}

/// The response with another `id` (JSON as it is written) in place of its own; `None` where it has none, or several.
pub fn splice_id(response: &[u8], id: &str) -> Option<Bytes> {
    Places::find(response).map(|places| places.fill(response, id, None))
}

#[cfg(test)]
#[path = "cache_tests.rs"]
mod tests;
