//! Real messages for the tests of this room.

pub(super) const CLIENT: &[&str] = &[
    r#"{"method":"tools/call","params":{"name":"run_sql","arguments":{"name":"x"},"_meta":{"progressToken":7}},"jsonrpc":"2.0","id":1}"#,
];

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
