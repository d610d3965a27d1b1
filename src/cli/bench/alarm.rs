use std::io;
use std::os::fd::OwnedFd;
use std::time::Duration;

use rustix::time::{
    Itimerspec, TimerfdClockId, TimerfdFlags, TimerfdTimerFlags, Timespec, timerfd_create, timerfd_settime,
};
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

/// A timer of the kernel's.
///
/// Why not tokio's: it wakes at whole milliseconds, and a request that is sent up to a millisecond after it was due makes every
/// latency look longer by that.
pub(super) struct Alarm(AsyncFd<OwnedFd>);

impl Alarm {
    /// **Errors**: no descriptor is left.
    pub(super) fn new() -> io::Result<Alarm> {
        let timer = timerfd_create(TimerfdClockId::Monotonic, TimerfdFlags::NONBLOCK | TimerfdFlags::CLOEXEC)?;
        #[expect(
            deprecated,
            reason = "unsound for types that lie about their descriptor only; what replaces it is an unsafe function"
        )]
        AsyncFd::with_interest(timer, Interest::READABLE).map(Alarm)
    }

    /// Waits so long; others run meanwhile even where that is no time at all.
    pub(super) async fn after(&self, span: Duration) -> io::Result<()> {
        if span.is_zero() {
            tokio::task::yield_now().await;
            return Ok(());
        }
        let out_of_range = |_| io::Error::from(io::ErrorKind::InvalidInput);
        let once = Itimerspec {
            it_interval: Timespec { tv_sec: 0, tv_nsec: 0 },
            it_value: span.try_into().map_err(out_of_range)?,
        };
        timerfd_settime(self.0.get_ref(), TimerfdTimerFlags::empty(), &once)?;
        loop {
            let mut ready = self.0.readable().await?;
            let mut times = [0; 8];
            let read = ready.try_io(|timer| Ok(rustix::io::read(timer.get_ref(), &mut times)?));
            if let Ok(rung) = read {
                return rung.map(drop);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Instant;

    use super::*;

    #[tokio::test]
    async fn it_never_rings_early() {
        let alarm = Alarm::new().unwrap();
        for micros in [0, 1, 300, 2500] {
            let span = Duration::from_micros(micros);
            let begun = Instant::now();
            alarm.after(span).await.unwrap();
            assert!(begun.elapsed() >= span);
        }
    }
}
