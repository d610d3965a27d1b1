//! Finding again what was there before.

use std::collections::BTreeMap;
use std::fs;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::marks::{self, Marked};
use super::record::{Ended, Hold, Process, Record, file};
use super::{FORGET_AFTER, Instance, Shared, attend, lock, proc, unix_now};
use crate::scaler::Life;

impl Shared {
    /// Takes over what the folder and the marks tell of. Blocking: the `first` time all processes of the machine are looked at.
    pub(super) fn take_over(self: &Arc<Self>, first: bool) {
        self.forget_old();
        let known: Vec<String> = lock(&self.instances).keys().cloned().collect();
        let ids: Vec<String> = Record::ids(&self.folder).into_iter().filter(|id| !known.contains(id)).collect();
        if ids.is_empty() && !first {
            return;
        }
        let mut marked = marks::marked(&self.state, &self.pool);
        marked.retain(|id, _| !known.contains(id));
        for id in ids {
            // It may have been taken away since its name was read.
            let Some(record) = Record::read(&self.folder, &id) else { continue };
            self.recorded(record, &mut marked);
        }
        for (id, marked) in marked {
            self.unrecorded(&id, &marked);
        }
    }

    /// One that is written down.
    fn recorded(self: &Arc<Self>, mut record: Record, marked: &mut BTreeMap<String, Vec<Marked>>) {
        let marked = marked.remove(&record.id).unwrap_or_default();
        if let Some(Ended { how, asked, .. }) = record.ended.clone() {
            self.note(&record, Life::Ended { how, asked });
            return;
        }
        let mut process = record.process.clone();
        if record.process.is_none() {
            // Its proxy ended, or is, between its note and its number.
            let Some(leader) = marks::leader(&marked) else {
                if unix_now() - record.started > 10.0 {
                    Record::remove(&self.folder, &record.id);
                }
                return;
            };
            record.process = Some(Process::of(&leader.stat));
            if record.write(&self.folder).is_ok() {
                process.clone_from(&record.process);
            }
        }
        if record.process.as_ref().is_some_and(Process::is_alive) {
            self.resume(&record);
            return;
        }
        for left in marked {
            proc::kill(&left.stat);
        }
        let held = Hold::of(&self.folder);
        // Another proxy may have seen how it ended meanwhile, or have cleared that away: then the next look tells.
        if Record::read(&self.folder, &record.id).is_none_or(|now| now.process != process || now.ended.is_some()) {
            return;
        }
        let (how, asked) = ("it ended while Tidegate was away".to_owned(), record.stopping.is_some());
        record.ended = Some(Ended { how: how.clone(), asked, at: unix_now() });
        let _ = record.write(&self.folder);
        drop(held);
        self.note(&record, Life::Ended { how, asked });
    }

    /// One whose record is lost.
    fn unrecorded(self: &Arc<Self>, id: &str, marked: &[Marked]) {
        let Some(leader) = marks::leader(marked) else {
            // Its leader is gone: nobody will ever ask for what is left.
            marked.iter().for_each(|left| proc::kill(&left.stat));
            return;
        };
        let mut record = leader.record(id, &self.pool);
        record.proxy.clone_from(&self.proxy);
        record.output = Some(file(&self.folder, id, "out")).filter(|path| path.exists());
        let _ = fs::create_dir_all(&self.folder);
        let _ = record.write(&self.folder);
        self.resume(&record);
    }

    /// Goes on with one that lives.
    fn resume(self: &Arc<Self>, record: &Record) {
        let life = if record.stopping.is_some() { Life::Stopping } else { Life::Running };
        self.note(record, life);
        // What it has written while nobody followed is in its file.
        let written = record.output.as_deref().and_then(|path| fs::metadata(path).ok()).map_or(0, |file| file.len());
        if let Some(instance) = lock(&self.instances).get_mut(&record.id) {
            instance.read = written;
            if let Some(by) = record.stopping {
                let left = Duration::from_secs_f64((by - unix_now()).clamp(0.0, 86_400.0));
                instance.stop.send_replace(Some(Instant::now() + left));
            }
        }
        attend::begin(self, record, None);
    }

    /// Ended ones that nobody has cleared away for long, or that another proxy has, perhaps to give the name to a new one.
    fn forget_old(&self) {
        let instances = lock(&self.instances);
        let is_old = |Instance { record, .. }: &Instance| {
            record.ended.as_ref().is_some_and(|ended| {
                let since = unix_now() - ended.at;
                match Record::read(&self.folder, &record.id) {
                    Some(written) => written.process != record.process || since > FORGET_AFTER,
                    None => since > 30.0,
                }
            })
        };
        let old: Vec<String> = instances.iter().filter(|(_, one)| is_old(one)).map(|(id, _)| id.clone()).collect();
        drop(instances);
        old.iter().for_each(|id| self.clear_away(id));
    }

    /// Takes away what is left of an ended instance: its record, its socket, and its output where that is ours. Blocking, and not to be called
    /// under a lock.
    pub(super) fn clear_away(&self, id: &str) {
        let instance = lock(&self.instances).get(id).map(|instance| (instance.record.clone(), instance.read));
        let Some((record, read)) = instance else { return };
        let held = Hold::of(&self.folder);
        // The name can be another one's by now, whose files these are.
        if Record::read(&self.folder, id).is_none_or(|written| written.process == record.process) {
            let ours = file(&self.folder, id, "out");
            if record.output.as_ref() == Some(&ours) {
                self.last_words(id, &ours, read);
                let _ = fs::remove_file(ours);
            }
            Record::remove(&self.folder, id);
            if let Some(socket) = &record.socket {
                let _ = fs::remove_file(socket);
            }
        }
        drop(held);
        // Last: as long as it is known nobody takes its record for one that another proxy has left.
        lock(&self.instances).remove(id);
    }
}
