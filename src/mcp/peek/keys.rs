use super::Malformed;

/// The keys that are read, each with the bit that says it was seen.
pub(super) const TOP: [&str; 6] = ["jsonrpc", "method", "id", "params", "result", "error"];
pub(super) const PARAMS: [&str; 6] = ["name", "uri", "taskId", "_meta", "protocolVersion", "requestState"];
pub(super) const META: [&str; 2] = [VERSION, "progressToken"];
pub(super) const VERSION: &str = "io.modelcontextprotocol/protocolVersion";

/// Which keys of one object were seen.
#[derive(Debug)]
pub(super) struct Seen {
    keys: &'static [&'static str],
    bits: u32,
    /// Which of ours some readers would take a key for that was there.
    pub(super) alike: u32,
}

impl Seen {
    pub(super) fn of(keys: &'static [&'static str]) -> Self {
        Seen { keys, bits: 0, alike: 0 }
    }

    /// Which of our keys this is.
    pub(super) fn take(&mut self, key: &str) -> Result<Option<&'static str>, Malformed> {
        let Some(place) = self.keys.iter().position(|ours| *ours == key) else {
            self.alike |= self.keys.iter().position(|ours| alike(key, ours)).map_or(0, |place| 1 << place);
            return Ok(None);
        };
        if self.bits & 1 << place != 0 {
            return Err(Malformed::Duplicate(self.keys[place]));
        }
        self.bits |= 1 << place;
        Ok(Some(self.keys[place]))
    }

    pub(super) fn none_alike(&self) -> Result<(), Malformed> {
        match self.keys.get(self.alike.trailing_zeros() as usize) {
            Some(ours) => Err(Malformed::Duplicate(ours)),
            None => Ok(()),
        }
    }
}

/// Whether a reader that compares without regard to case takes `key` for `ours`.
///
/// Two letters beyond ASCII fold into it: ſ into s and the Kelvin sign into k.
fn alike(key: &str, ours: &str) -> bool {
    // Those two have two and three bytes.
    if key.len() < ours.len() || key.len() > 3 * ours.len() {
        return false;
    }
    let folded = key.chars().map(|letter| match letter {
        'ſ' => 's',
        '\u{212a}' => 'k',
        other => other.to_ascii_lowercase(),
    });
    folded.eq(ours.chars().map(|letter| letter.to_ascii_lowercase()))
}

/// Which of [`PARAMS`] names what a method is about.
pub(super) fn about(method: &str) -> Option<usize> {
    match method {
        "tools/call" | "prompts/get" => Some(0),
        "resources/read" | "resources/subscribe" | "resources/unsubscribe" => Some(1),
        _ if method.starts_with("tasks/") => Some(2),
        _ => None,
    }
}

/// Which of [`PARAMS`] is in doubt, where there are keys `alike` and the method is about `about`.
pub(super) fn doubtful(alike: u32, about: Option<usize>) -> Option<&'static str> {
    // Params of methods that are not ours to know may have keys like these three.
    let mine = !0b111 | about.map_or(0, |at| 1 << at);
    PARAMS.get((alike & mine).trailing_zeros() as usize).copied()
}
