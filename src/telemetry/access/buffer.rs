use std::sync::Arc;

use super::clock::WallClock;
use super::writer::{AccessLog, Chunk, Refused};
use super::{Format, Line};

/// A worker's lines on their way to the access log.
///
/// **Bounds**: 64 KiB and one line. **Cost**: no allocation but one for each 64 KiB; nothing while the log is off.
#[derive(Debug)]
pub struct LineBuffer {
    log: Arc<AccessLog>,
    clock: WallClock,
    bytes: Vec<u8>,
    lines: u32,
}

impl LineBuffer {
    /// How much is gathered before it is handed on.
    const FULL: usize = 64 << 10;

    /// An empty buffer.
    pub fn new(log: Arc<AccessLog>) -> Self {
        LineBuffer { log, clock: WallClock::new(), bytes: Vec::new(), lines: 0 }
    }

    /// Writes the line of a finished request. Never waits: if the writer cannot keep up, lines are dropped and counted.
    pub fn write(&mut self, format: &Format, line: &Line<'_>) {
        format.write(line, &mut self.clock, &mut self.bytes);
        self.lines += 1;
        if self.bytes.len() >= Self::FULL {
            self.hand_on();
            if self.bytes.len() >= Self::FULL {
                self.log.lose(self.lines);
                self.bytes.clear();
                self.lines = 0;
            }
        }
    }

    /// Hands on what there is; the worker calls it a few times a second, so that lines are not late for long.
    pub fn tick(&mut self) {
        self.clock.set();
        self.hand_on();
    }

    /// Hands the lines on; keeps them if the writer has no room.
    fn hand_on(&mut self) {
        if self.lines == 0 {
            return;
        }
        // A small chunk is copied, so that what is queued is not mostly empty room.
        let copied = self.bytes.len() < Self::FULL / 2;
        let bytes = if copied { self.bytes.clone() } else { std::mem::take(&mut self.bytes) };
        match self.log.offer(Chunk { bytes, lines: self.lines }) {
            Ok(()) => {
                self.bytes.clear();
                self.lines = 0;
                self.bytes.reserve(if copied { 0 } else { Self::FULL + 1024 });
            }
            Err(Refused(chunk)) => self.bytes = chunk.bytes,
        }
    }
}

impl Drop for LineBuffer {
    fn drop(&mut self) {
        self.hand_on();
        self.log.lose(self.lines);
    }
}
