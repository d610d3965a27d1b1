//! The worker threads: each with its runtime, its doors and its share of everything.

use std::collections::HashMap;
use std::rc::Rc;
use std::thread::JoinHandle;
use std::time::Duration;

use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};

use super::event::Event;
use super::listeners::Step;
use super::pool::PoolState;
use super::state::Control;
use super::systemd;
use crate::downstream::{Door, Seats, Share, Socket};
use crate::proxy::{self, Site, Worker};
use crate::telemetry::Lane;
use crate::types::{Bind, Clock, Moment};

/// What a worker is told.
enum Order {
    /// Accept on this socket.
    Open { listener: usize, bind: Bind, seats: std::sync::Arc<Seats>, socket: Socket, share: Share },
    /// Accept for another listener there.
    Move { from: usize, to: usize, bind: Bind, seats: std::sync::Arc<Seats> },
    /// Accept there no longer.
    Close { listener: usize, bind: Bind },
    /// Accept nowhere, and end what is open: idle connections now, the others at this moment.
    Drain(Moment),
}

/// A running worker.
#[derive(Debug)]
pub(super) struct WorkerThread {
    orders: UnboundedSender<Order>,
    thread: JoinHandle<()>,
}

impl Control {
    /// Starts the worker threads.
    ///
    /// **Errors**: the system gives no thread.
    pub(super) fn start_workers(&mut self, workers: usize) -> Result<(), String> {
        for number in 0..workers {
            let parts = proxy::Parts {
                cell: self.cell.clone(),
                registry: self.keep.registry.clone(),
                log: self.keep.log.clone(),
                events: self.sender.clone(),
                cut_epoch: self.cut_epoch.clone(),
            };
            let (orders, queue) = unbounded_channel();
            let builder = std::thread::Builder::new().name(format!("worker-{number}"));
            let thread = builder.spawn(move || work(Lane::worker(number), parts, queue));
            let thread = thread.map_err(|error| format!("cannot start a worker thread: {error}"))?;
            self.workers.push(WorkerThread { orders, thread });
        }
        Ok(())
    }

    /// Passes steps on to the workers.
    pub(super) fn take_steps(&self, steps: Vec<Step>) {
        for step in steps {
            match step {
                Step::Open { listener, bind, seats, sockets } => {
                    let shares = Share::among(self.workers.len());
                    for ((worker, socket), share) in self.workers.iter().zip(sockets).zip(shares) {
                        let (bind, seats) = (bind.clone(), seats.clone());
                        worker.tell(Order::Open { listener, bind, seats, socket, share });
                    }
                }
                Step::Move { from, to, bind, seats } => self.workers.iter().for_each(|worker| {
                    worker.tell(Order::Move { from, to, bind: bind.clone(), seats: seats.clone() });
                }),
                Step::Close { listener, bind } => {
                    self.workers.iter().for_each(|worker| worker.tell(Order::Close { listener, bind: bind.clone() }));
                }
            }
        }
    }

    /// Finishes what runs, within `shutdown_timeout`, and ends the threads.
    pub(super) async fn stop(mut self, events: &mut UnboundedReceiver<Event>) {
        self.stopping.store(true, std::sync::atomic::Ordering::Relaxed);
        if self.options.signals {
            systemd::stopping();
        }
        let timeout = self.current.config.shutdown_timeout;
        tracing::info!("stopping: no new connections; what runs has {timeout:?} to finish");
        let until = Clock::now() + timeout;
        self.listeners.let_go();
        self.workers.iter().for_each(|worker| worker.tell(Order::Drain(until)));
        // A worker cuts what is left at the moment itself; what has not ended a little later is stuck, and ends with the process.
        let patience = until + Duration::from_secs(2);
        while self.workers.iter().any(|worker| !worker.thread.is_finished()) && Clock::now() < patience {
            tokio::select! {
                Some(event) = events.recv() => self.take(event).await,
                () = tokio::time::sleep(Duration::from_millis(20)) => {}
            }
        }
        for worker in self.workers.drain(..) {
            if worker.thread.is_finished() {
                // A worker that panicked has said so.
                let _ = worker.thread.join();
            }
        }
        self.end_scalers(events).await;
        self.pools.values_mut().chain(&mut self.leaving).for_each(PoolState::end_bridge);
        self.keep.log.close(Duration::from_secs(1));
        if let Some((_, stop)) = &self.api {
            stop.notify_one();
        }
        // The admin API finishes its answers.
        tokio::task::yield_now().await;
        tracing::info!("stopped");
    }
}

impl WorkerThread {
    fn tell(&self, order: Order) {
        // A worker whose thread has ended takes no orders.
        let _ = self.orders.send(order);
    }
}

/// A worker's thread, from its start to its end.
fn work(lane: Lane, parts: proxy::Parts, orders: UnboundedReceiver<Order>) {
    match tokio::runtime::Builder::new_current_thread().enable_all().build_local(Default::default()) {
        Ok(runtime) => runtime.block_on(obey(lane, parts, orders)),
        Err(error) => tracing::error!("a worker cannot start its runtime: {error}"),
    }
}

async fn obey(lane: Lane, parts: proxy::Parts, mut orders: UnboundedReceiver<Order>) {
    let worker = Worker::new(lane, parts);
    tokio::task::spawn_local(worker.clone().keep_house());
    let mut doors: HashMap<(usize, Bind), Rc<Door<Site>>> = HashMap::new();
    // Doors that are closed and whose connections go on: the end of the process ends them too.
    let mut closed: Vec<Rc<Door<Site>>> = Vec::new();
    while let Some(order) = orders.recv().await {
        match order {
            Order::Open { listener, bind, seats, socket, share } => {
                let site = Site::new(worker.clone(), listener);
                match Door::open(socket, share, site, seats, worker.sweep.clone()) {
                    Ok(door) => drop(doors.insert((listener, bind), door)),
                    Err(error) => tracing::error!("a worker cannot accept on {bind}: {error}"),
                }
            }
            Order::Move { from, to, bind, seats } => {
                if let Some(door) = doors.remove(&(from, bind.clone())) {
                    doors.insert((to, bind), door.hand_over(Site::new(worker.clone(), to), seats));
                    closed.push(door);
                }
            }
            Order::Close { listener, bind } => {
                closed.retain(|door| door.connections() > 0);
                if let Some(door) = doors.remove(&(listener, bind)) {
                    door.close();
                    closed.push(door);
                }
            }
            Order::Drain(until) => {
                let all: Vec<_> = doors.drain().map(|(_, door)| door).chain(closed.drain(..)).collect();
                all.iter().for_each(|door| door.drain(until));
                for door in all {
                    door.emptied().await;
                }
                break;
            }
        }
    }
    worker.flush_log();
}
