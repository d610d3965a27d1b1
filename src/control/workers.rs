//! Placeholder workers.
use super::state::Control;
use crate::proxy::{self, Worker};
use crate::telemetry::Lane;
use std::rc::Rc;
use std::thread::JoinHandle;
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};

pub enum Order {
    Accept(usize, std::net::TcpListener),
    End,
}
pub struct WorkerThread {
    pub orders: UnboundedSender<Order>,
    pub thread: JoinHandle<()>,
}

impl Control {
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
            let thread = std::thread::Builder::new()
                .name(format!("worker-{number}"))
                .spawn(move || run(number, parts, queue))
                .map_err(|e| e.to_string())?;
            self.workers.push(WorkerThread { orders, thread });
        }
        for (index, _, sockets) in &mut self.listeners.bound {
            for (worker, socket) in self.workers.iter().zip(sockets.drain(..)) {
                let _ = worker.orders.send(Order::Accept(*index, socket));
            }
        }
        Ok(())
    }
    pub(super) async fn stop(mut self, _events: &mut UnboundedReceiver<super::Event>) {
        for worker in self.workers.drain(..) {
            let _ = worker.orders.send(Order::End);
            let _ = worker.thread.join();
        }
        self.admin_stop.notify_one();
    }
}

fn run(number: usize, parts: proxy::Parts, mut orders: UnboundedReceiver<Order>) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build_local(Default::default()).unwrap();
    runtime.block_on(async {
        let worker = Worker::new(Lane::worker(number), parts);
        tokio::task::spawn_local(worker.clone().keep_house());
        while let Some(order) = orders.recv().await {
            match order {
                Order::Accept(index, socket) => {
                    let worker = worker.clone();
                    let handler = move |connection: Rc<proxy::Connection>, request| {
                        proxy::handle(worker.clone(), connection, request)
                    };
                    tokio::task::spawn_local(crate::downstream::placeholder::accept(socket, index, handler));
                }
                Order::End => break,
            }
        }
        worker.flush_log();
    });
}
