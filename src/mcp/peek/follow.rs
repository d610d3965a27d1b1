use super::Malformed;
use super::keys::{META, PARAMS, Seen, TOP, about, doubtful};
use crate::mcp::json::{LONGEST_KEY, MAX_DEPTH, unescaped};

/// Follows a body that is too long to be looked into whole, and refuses what would make the part that was seen a lie: a key that comes
/// again, after everything was decided by the first.
///
/// Fed from the body's first byte on, ahead of what is sent. Where it refuses the request to the upstream has to be broken off: no server
/// acts on half a body. It is no JSON parser: what is not JSON the server refuses.
///
/// **Bounds**: constant memory; 128 levels.
/// **Cost**: a search for quotes inside strings, about 1 ns for each byte of structure.
#[derive(Debug)]
pub struct Follow {
    /// A bit for each open container, the innermost lowest, set for objects.
    kinds: u128,
    depth: u32,
    /// 1 inside a batch.
    base: u32,
    /// How many of the innermost objects are read: a message, its params, their `_meta`.
    watched: usize,
    levels: [Level; 3],
    method: Option<String>,
    state: State,
    /// The string that is being read, if it is a key or the method.
    gathered: Option<Vec<u8>>,
    key_next: bool,
}

#[derive(Debug)]
struct Level {
    seen: Seen,
    key: Option<&'static str>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    Structure,
    Text,
    Escape,
}

impl Default for Follow {
    fn default() -> Self {
        Self::new()
    }
}

impl Follow {
    /// At the start of a body.
    pub fn new() -> Self {
        let level = |keys| Level { seen: Seen::of(keys), key: None };
        Follow {
            kinds: 0,
            depth: 0,
            base: 0,
            watched: 0,
            levels: [level(&TOP), level(&PARAMS), level(&META)],
            method: None,
            state: State::Structure,
            gathered: None,
            key_next: false,
        }
    }

    /// Reads on.
    ///
    /// **Errors**: [`Malformed::Duplicate`] and [`Malformed::TooDeep`], as [`peek`](super::peek) would say of the whole body.
    pub fn feed(&mut self, chunk: &[u8]) -> Result<(), Malformed> {
        let mut rest = chunk;
        while let Some(&byte) = rest.first() {
            match self.state {
                State::Structure => {
                    self.structure(byte)?;
                    rest = &rest[1..];
                }
                State::Escape => {
                    self.gather(&rest[..1]);
                    self.state = State::Text;
                    rest = &rest[1..];
                }
                State::Text => {
                    let end = memchr::memchr2(b'"', b'\\', rest).unwrap_or(rest.len());
                    self.gather(&rest[..end]);
                    rest = &rest[end..];
                    match rest.first() {
                        Some(b'"') => {
                            self.state = State::Structure;
                            self.end_text()?;
                        }
                        Some(slash) => {
                            self.gather(&[*slash]);
                            self.state = State::Escape;
                        }
                        None => {}
                    }
                    rest = rest.get(1..).unwrap_or_default();
                }
            }
        }
        Ok(())
    }

    fn structure(&mut self, byte: u8) -> Result<(), Malformed> {
        match byte {
            b'"' => {
                self.state = State::Text;
                let method = self.watched == 1 && self.inner() && self.levels[0].key == Some("method");
                self.gathered = (self.inner() && self.key_next || method).then(Vec::new);
            }
            b'{' | b'[' => {
                if self.depth == MAX_DEPTH {
                    return Err(Malformed::TooDeep);
                }
                if byte == b'[' && self.depth == 0 {
                    self.base = 1;
                }
                self.kinds = self.kinds << 1 | u128::from(byte == b'{');
                self.depth += 1;
                self.key_next = byte == b'{';
                self.watch(byte == b'{');
            }
            b'}' | b']' => {
                if self.inner() {
                    self.leave()?;
                }
                self.kinds >>= 1;
                self.depth = self.depth.saturating_sub(1);
                self.key_next = false;
            }
            b',' => self.key_next = self.kinds & 1 == 1,
            b':' => self.key_next = false,
            _ => {}
        }
        Ok(())
    }

    /// Whether we are directly inside the innermost object that is read.
    fn inner(&self) -> bool {
        self.watched > 0 && self.depth == self.base + self.watched as u32
    }

    /// A container has been opened: begins to read it if it is one of ours.
    fn watch(&mut self, object: bool) {
        let ours = match self.watched {
            0 => true,
            1 => self.levels[0].key == Some("params"),
            2 => self.levels[1].key == Some("_meta"),
            _ => false,
        };
        if !object || !ours || self.depth != self.base + self.watched as u32 + 1 {
            return;
        }
        if self.watched == 0 {
            // Each member of a batch is a message of its own, and may have no params.
            self.method = None;
            self.levels[1].seen = Seen::of(&PARAMS);
        }
        let keys: &'static [&'static str] = [&TOP[..], &PARAMS, &META][self.watched];
        self.levels[self.watched] = Level { seen: Seen::of(keys), key: None };
        self.watched += 1;
    }

    /// The innermost object that is read ends.
    fn leave(&mut self) -> Result<(), Malformed> {
        self.watched -= 1;
        if self.watched != 1 {
            self.levels[self.watched].seen.none_alike()?;
        }
        if self.watched == 0 {
            let about = self.method.as_deref().and_then(about);
            if let Some(ours) = doubtful(self.levels[1].seen.alike, about) {
                return Err(Malformed::Duplicate(ours));
            }
        }
        Ok(())
    }

    fn gather(&mut self, piece: &[u8]) {
        if let Some(gathered) = &mut self.gathered {
            // One more than fits shows that it did not.
            let room = (LONGEST_KEY + 1).saturating_sub(gathered.len());
            gathered.extend_from_slice(&piece[..piece.len().min(room)]);
        }
    }

    fn end_text(&mut self) -> Result<(), Malformed> {
        let Some(gathered) = self.gathered.take() else { return Ok(()) };
        let text = unescaped(&gathered);
        let level = &mut self.levels[self.watched - 1];
        if self.key_next {
            level.key = text.map_or(Ok(None), |key| level.seen.take(&key))?;
        } else {
            self.method = text.map(|method| method.into_owned());
        }
        Ok(())
    }
}
