//! Real messages for the tests of this room: written by the Python SDK 2.3 (servers and clients) and 1.30 (clients) in revisions
//! 2025-11-25 and 2026-07-28, and such as those SDKs define but rarely send.

/// What clients send.
pub(super) fn client() -> Vec<&'static str> {
    include_str!("samples/client.jsonl").lines().collect()
}

/// What servers send.
pub(super) fn server() -> Vec<&'static str> {
    include_str!("samples/server.jsonl").lines().collect()
}

/// Changes one to four places of a message.
pub(super) fn mutate(bytes: &mut Vec<u8>, random: &mut fastrand::Rng) {
    for _ in 0..random.usize(1..=4) {
        if bytes.is_empty() {
            return;
        }
        let at = random.usize(..bytes.len());
        match random.u8(..8) {
            0 => bytes[at] = random.u8(..),
            1 => bytes[at] ^= 1 << random.u8(..8),
            2 => drop(bytes.remove(at)),
            3 => bytes.insert(at, random.choice(*b"{}[]\",:\\0x\r\n 9-").unwrap_or(b'"')),
            4 => bytes.truncate(at),
            5 => {
                let from = random.usize(..=at);
                let copied = bytes[from..at].to_vec();
                bytes.splice(at..at, copied);
            }
            6 => bytes.swap(at, 0),
            _ => {
                let end = random.usize(at..bytes.len());
                bytes.drain(at..end);
            }
        }
    }
}
