use std::cell::{Cell, RefCell};
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, Waker};

use http_body::{Body, Frame, SizeHint};

/// What a connection is doing: its requests in progress, and how to wake its driver.
#[derive(Debug, Default)]
pub(super) struct Activity {
    busy: Cell<u32>,
    begun: Cell<u64>,
    /// The driver is running, and will look at all this before it sleeps.
    attended: Cell<bool>,
    /// It is to make room, if it is idle.
    unwanted: Cell<bool>,
    driver: RefCell<Option<Waker>>,
}

impl Activity {
    /// Requests in progress.
    pub(super) fn busy(&self) -> bool {
        self.busy.get() > 0
    }

    /// Requests so far.
    pub(super) fn begun(&self) -> u64 {
        self.begun.get()
    }

    /// A request begins. Its number, counted from 0.
    pub(super) fn begin(&self) -> u64 {
        let number = self.begun.get();
        self.begun.set(number + 1);
        number
    }

    pub(super) fn enter(self: &Rc<Self>) -> Busy {
        self.busy.set(self.busy.get() + 1);
        Busy(self.clone())
    }

    /// Asks it to make room, if it is idle between requests. Whether it may be.
    pub(super) fn ask_for_room(&self) -> bool {
        let idle = !self.busy() && self.begun() > 0;
        if idle {
            self.unwanted.set(true);
            self.wake();
        }
        idle
    }

    /// Whether it was asked to make room since the last look.
    pub(super) fn asked_for_room(&self) -> bool {
        self.unwanted.take()
    }

    /// The driver runs on this task.
    pub(super) fn attend(&self, cx: &Context<'_>) {
        let mut driver = self.driver.borrow_mut();
        match &mut *driver {
            Some(waker) => waker.clone_from(cx.waker()),
            None => *driver = Some(cx.waker().clone()),
        }
    }

    /// Runs the driver's work; what happens in it need not wake it.
    pub(super) fn attended<T>(&self, work: impl FnOnce() -> T) -> T {
        self.attended.set(true);
        let done = work();
        self.attended.set(false);
        done
    }

    /// Wakes the driver, unless it is running.
    pub(super) fn nudge(&self) {
        if !self.attended.get() {
            self.wake();
        }
    }

    /// Wakes the driver.
    pub(super) fn wake(&self) {
        if let Some(waker) = &*self.driver.borrow() {
            waker.wake_by_ref();
        }
    }
}

/// A request, or a tunnel, in progress: as long as this is held, its connection is not idle.
#[derive(Debug)]
#[must_use = "a connection is busy only as long as this is held"]
pub struct Busy(Rc<Activity>);

impl Drop for Busy {
    fn drop(&mut self) {
        let left = self.0.busy.get() - 1;
        self.0.busy.set(left);
        if left == 0 {
            self.0.nudge();
        }
    }
}

/// Whom an HTTP/2 stream waits for.
#[derive(Debug, Default)]
pub(super) struct Flow {
    frames: Cell<u64>,
    offered: Cell<bool>,
}

impl Flow {
    /// Pieces of the answer so far.
    pub(super) fn frames(&self) -> u64 {
        self.frames.get()
    }

    /// The last piece has not been taken yet: it is the client that is waited for.
    pub(super) fn awaits_client(&self) -> bool {
        self.offered.get()
    }
}

pin_project_lite::pin_project! {
    /// An answer's body; its connection is busy until it has been sent or dropped.
    #[derive(Debug)]
    pub struct Held<B> {
        #[pin]
        body: B,
        flow: Option<Rc<Flow>>,
        busy: Busy,
    }
}

impl<B> Held<B> {
    pub(super) fn new(body: B, flow: Option<Rc<Flow>>, busy: Busy) -> Self {
        Held { body, flow, busy }
    }
}

impl<B: Body> Body for Held<B> {
    type Data = B::Data;
    type Error = B::Error;

    fn poll_frame(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<B::Data>, B::Error>>> {
        let held = self.project();
        let frame = held.body.poll_frame(cx);
        if let Some(flow) = held.flow {
            flow.offered.set(frame.is_ready());
            flow.frames.set(flow.frames.get() + 1);
        }
        frame
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Arc;
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::task::Wake;

    struct Wakes(AtomicUsize);

    impl Wake for Wakes {
        fn wake(self: Arc<Self>) {
            self.0.fetch_add(1, Ordering::Relaxed);
        }
    }

    #[test]
    fn the_last_request_that_ends_wakes_the_driver_unless_it_is_running() {
        let wakes = Arc::new(Wakes(AtomicUsize::new(0)));
        let activity = Rc::new(Activity::default());
        activity.attend(&Context::from_waker(&wakes.clone().into()));
        let (first, second) = (activity.enter(), activity.enter());
        drop(first);
        assert!(activity.busy());
        assert_eq!(wakes.0.load(Ordering::Relaxed), 0);
        drop(second);
        assert!(!activity.busy());
        assert_eq!(wakes.0.load(Ordering::Relaxed), 1);
        let third = activity.enter();
        activity.attended(|| drop(third));
        assert_eq!(wakes.0.load(Ordering::Relaxed), 1);
    }
}
