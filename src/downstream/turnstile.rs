//! Lets work that takes long through a few pieces at a time, so that what is short does not wait behind all of it.
//!
//! A TLS handshake costs as much as ten requests and more. When hundreds of clients come at once, each request of the others would wait
//! for hundreds of handshakes: tasks that are ready run in the order in which they became so. Of handshakes only a few run between two
//! looks at the sockets; whatever has arrived meanwhile then goes first.

use std::cell::Cell;
use std::future::poll_fn;
use std::pin::pin;
use std::rc::Rc;
use std::task::Poll;

use tokio::sync::Semaphore;

/// So many pieces go through between two looks at the sockets: one or two milliseconds of work, where keys are of elliptic curves.
const AT_A_TIME: usize = 8;

thread_local! {
    /// This worker's, for handshakes.
    pub(super) static HANDSHAKES: Rc<Turnstile> = Rc::new(Turnstile::new());
}

/// For one thread. First come, first served.
#[derive(Debug)]
pub(super) struct Turnstile {
    free: Semaphore,
    /// It will turn at the next look at the sockets.
    turns: Cell<bool>,
}

impl Turnstile {
    fn new() -> Self {
        Turnstile { free: Semaphore::new(AT_A_TIME), turns: Cell::new(false) }
    }

    /// Runs `future`, each step of it when its turn has come.
    ///
    /// **Cost**: a small task for each look at the sockets between which there was something to let through.
    pub(super) async fn lead<F: Future>(self: &Rc<Self>, future: F) -> F::Output {
        let mut future = pin!(future);
        loop {
            self.pass().await;
            if let Poll::Ready(output) = poll_fn(|cx| Poll::Ready(future.as_mut().poll(cx))).await {
                return output;
            }
            woken().await;
        }
    }

    async fn pass(self: &Rc<Self>) {
        if let Ok(place) = self.free.acquire().await {
            place.forget();
        }
        if !self.turns.replace(true) {
            let turn = Turn(self.clone());
            tokio::task::spawn_local(async move {
                // Behind the next look at the sockets.
                tokio::task::yield_now().await;
                drop(turn);
            });
        }
    }
}

/// Makes room for the next ones when it is dropped: also with the runtime it waits in.
struct Turn(Rc<Turnstile>);

impl Drop for Turn {
    fn drop(&mut self) {
        self.0.turns.set(false);
        // One that was given a place and has gone without it may have left more than that.
        self.0.free.add_permits(AT_A_TIME.saturating_sub(self.0.free.available_permits()));
    }
}

/// Until the task is woken by something it has asked to be.
async fn woken() {
    let mut asleep = false;
    poll_fn(|_| if std::mem::replace(&mut asleep, true) { Poll::Ready(()) } else { Poll::Pending }).await;
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::cell::RefCell;
    use tokio::task::{spawn_local, yield_now};

    #[tokio::test(flavor = "local")]
    async fn what_is_short_waits_for_a_few_long_ones_only() {
        let turnstile = Rc::new(Turnstile::new());
        let done = Rc::new(RefCell::new(Vec::new()));
        for number in 0..50 {
            let (turnstile, done) = (turnstile.clone(), done.clone());
            spawn_local(async move {
                turnstile.lead(async { done.borrow_mut().push(number) }).await;
            });
        }
        let mut seen = vec![0];
        while *seen.last().unwrap() < 50 {
            // As a request does that waits for its socket.
            yield_now().await;
            seen.push(done.borrow().len());
        }
        assert!(seen.windows(2).all(|two| two[1] - two[0] <= AT_A_TIME), "{seen:?}");
        assert!(*done.borrow() == (0..50).collect::<Vec<_>>(), "first come, first served");
    }

    #[tokio::test(flavor = "local")]
    async fn a_step_that_waits_takes_nobodys_place() {
        let turnstile = Rc::new(Turnstile::new());
        let (tell, told) = tokio::sync::oneshot::channel::<u32>();
        let late = spawn_local({
            let turnstile = turnstile.clone();
            async move { turnstile.lead(told).await }
        });
        let waits = || {
            let turnstile = turnstile.clone();
            spawn_local(async move { turnstile.lead(std::future::pending::<()>()).await })
        };
        for _ in 0..20 {
            turnstile.lead(async {}).await;
        }
        // Some of these are through by then, some have been given their place, and some are still waiting for one.
        for looks in 0..4 {
            let gone: Vec<_> = (0..50).map(|_| waits()).collect();
            for _ in 0..looks {
                yield_now().await;
            }
            gone.into_iter().for_each(|task| task.abort());
            for _ in 0..50 {
                turnstile.lead(async {}).await;
            }
        }
        tell.send(7).unwrap();
        assert_eq!(late.await.unwrap(), Ok(7));
    }

    #[test]
    fn a_runtime_that_ends_leaves_a_turnstile_that_turns() {
        let turnstile = Rc::new(Turnstile::new());
        for _ in 0..3 {
            let runtime =
                tokio::runtime::Builder::new_current_thread().enable_all().build_local(Default::default()).unwrap();
            runtime.block_on(async {
                for _ in 0..AT_A_TIME * 3 {
                    turnstile.lead(async {}).await;
                }
            });
        }
    }
}
