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

/// So many pieces go through between two looks at the sockets: a millisecond's work, where keys are of elliptic curves.
const AT_A_TIME: usize = 4;

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
            tokio::task::spawn_local(self.clone().turn());
        }
    }

    /// Makes room for the next ones, once the sockets have been looked at.
    async fn turn(self: Rc<Self>) {
        tokio::task::yield_now().await;
        self.turns.set(false);
        // One that was given a place and has gone without it may have left more than that.
        self.free.add_permits(AT_A_TIME.saturating_sub(self.free.available_permits()));
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
        let gone: Vec<_> = (0..20)
            .map(|_| {
                let turnstile = turnstile.clone();
                spawn_local(async move { turnstile.lead(std::future::pending::<()>()).await })
            })
            .collect();
        for _ in 0..20 {
            turnstile.lead(async {}).await;
        }
        // Who gives up while waiting does not take a place along.
        gone.into_iter().for_each(|task| task.abort());
        for _ in 0..20 {
            turnstile.lead(async {}).await;
        }
        tell.send(7).unwrap();
        assert_eq!(late.await.unwrap(), Ok(7));
    }
}
