use std::io::Read;
use std::path::Path;

use super::*;
use crate::telemetry::access::{Format, Line, LineBuffer};

const WAIT: Duration = Duration::from_secs(20);

fn to_file(path: &Path) -> (Arc<AccessLog>, Arc<LogStats>) {
    let stats = Arc::<LogStats>::default();
    (AccessLog::start(Target::File(path.to_owned()), stats.clone()).unwrap(), stats)
}

/// Writes lines `from..to`, each its own number.
fn write(buffer: &mut LineBuffer, numbers: std::ops::Range<u64>) {
    let format = Format::parse("{bytes_in} {user_agent}").unwrap();
    for received in numbers {
        buffer.write(&format, &Line { received, user_agent: b"some agent", ..Line::default() });
    }
}

fn numbers(text: &str) -> Vec<u64> {
    text.lines().map(|line| line.strip_suffix(" some agent").unwrap().parse().unwrap()).collect()
}

fn read(path: &Path) -> String {
    std::fs::read_to_string(path).unwrap_or_default()
}

/// A named pipe, and its reading end (which also may write, so that opening it waits for nobody).
fn pipe(directory: &Path) -> (PathBuf, File) {
    let path = directory.join("pipe");
    rustix::fs::mknodat(
        rustix::fs::CWD,
        &path,
        rustix::fs::FileType::Fifo,
        rustix::fs::Mode::RUSR | rustix::fs::Mode::WUSR,
        0,
    )
    .unwrap();
    let reader = OpenOptions::new().read(true).write(true).open(&path).unwrap();
    (path, reader)
}

/// Reads up to the line `end`.
fn read_to(mut reader: File, end: &str) -> String {
    let mut text = Vec::new();
    let mut part = [0; 1 << 16];
    while !text.ends_with(end.as_bytes()) {
        let count = reader.read(&mut part).unwrap();
        text.extend_from_slice(&part[..count]);
    }
    String::from_utf8(text).unwrap()
}

#[test]
fn every_line_of_every_worker_is_written_once_and_in_order() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("access.log");
    std::fs::write(&path, "0 some agent\n").unwrap();
    let (log, stats) = to_file(&path);
    thread::scope(|scope| {
        for worker in 0..4u64 {
            let mut buffer = LineBuffer::new(log.clone());
            scope.spawn(move || write(&mut buffer, worker * 10_000 + 1..worker * 10_000 + 5_001));
        }
    });
    assert!(log.close(WAIT));
    let mut found = numbers(&read(&path));
    for worker in 0..4 {
        let own: Vec<_> = found.iter().filter(|number| **number > 0 && **number / 10_000 == worker).collect();
        assert!(own.is_sorted());
    }
    found.sort_unstable();
    let expected = (0..4).flat_map(|worker| worker * 10_000 + 1..worker * 10_000 + 5_001);
    assert_eq!(found, std::iter::once(0).chain(expected).collect::<Vec<_>>());
    assert_eq!((stats.written(), stats.lost()), (20_000, 0));
}

#[test]
fn reopening_while_lines_are_written_loses_none() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("access.log");
    let (log, stats) = to_file(&path);
    let mut files = Vec::new();
    thread::scope(|scope| {
        let mut buffer = LineBuffer::new(log.clone());
        let writing = scope.spawn(move || {
            for hundred in 0..300 {
                write(&mut buffer, hundred * 100..(hundred + 1) * 100);
                buffer.tick();
                thread::sleep(Duration::from_micros(200));
            }
        });
        while !writing.is_finished() {
            let old = directory.path().join(format!("access.log.{}", files.len()));
            std::fs::rename(&path, &old).unwrap();
            files.push(old);
            log.reopen();
            while !path.exists() {
                thread::yield_now();
            }
        }
    });
    assert!(log.close(WAIT));
    files.push(path);
    assert!(files.len() > 2);
    let text: String = files.iter().map(|file| read(file)).collect();
    assert_eq!(numbers(&text), (0..30_000).collect::<Vec<_>>());
    assert_eq!((stats.written(), stats.lost()), (30_000, 0));
}

#[test]
fn a_failed_reopen_goes_on_with_the_old_file() {
    let directory = tempfile::tempdir().unwrap();
    let (place, moved) = (directory.path().join("logs"), directory.path().join("moved"));
    std::fs::create_dir(&place).unwrap();
    let (log, stats) = to_file(&place.join("access.log"));
    std::fs::rename(&place, &moved).unwrap();
    log.reopen();
    let mut buffer = LineBuffer::new(log.clone());
    write(&mut buffer, 0..3);
    drop(buffer);
    assert!(log.close(WAIT));
    assert_eq!(numbers(&read(&moved.join("access.log"))), [0, 1, 2]);
    assert_eq!(stats.written(), 3);
}

#[test]
fn a_reader_that_stalls_costs_counted_lines_and_no_waiting() {
    let directory = tempfile::tempdir().unwrap();
    let (path, reader) = pipe(directory.path());
    let (log, stats) = to_file(&path);
    let mut buffer = LineBuffer::new(log.clone());
    let (count, started) = (700_000, Instant::now());
    write(&mut buffer, 0..count);
    assert!(started.elapsed() < WAIT);
    assert!(stats.lost() > 0, "more than the queue holds");
    let reading = thread::spawn(move || read_to(reader, "\n9 some agent\n"));
    while log.queued.load(Ordering::Relaxed) > 0 {
        thread::sleep(Duration::from_millis(1));
    }
    write(&mut buffer, 9..10);
    drop(buffer);
    assert!(log.close(WAIT));
    let found = numbers(&reading.join().unwrap());
    assert_eq!(stats.written(), found.len() as u64);
    assert_eq!(stats.written() + stats.lost(), count + 1);
    assert!(found[..found.len() - 1].is_sorted(), "whole lines, in order");
}

#[test]
fn a_full_disk_costs_counted_lines_until_the_target_is_changed() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("access.log");
    let (log, stats) = to_file(Path::new("/dev/full"));
    let mut buffer = LineBuffer::new(log.clone());
    write(&mut buffer, 0..10);
    buffer.tick();
    while stats.lost() < 10 {
        thread::yield_now();
    }
    assert!(log.switch(Target::File(directory.path().join("no/such/place"))).is_err());
    log.switch(Target::File(path.clone())).unwrap();
    write(&mut buffer, 10..20);
    drop(buffer);
    assert!(log.close(WAIT));
    assert_eq!(numbers(&read(&path)), (10..20).collect::<Vec<_>>());
    assert_eq!((stats.written(), stats.lost()), (10, 10));
}

#[test]
fn a_log_that_is_off_can_be_switched_on_and_off_again() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("access.log");
    let log = AccessLog::start(Target::Off, Arc::default()).unwrap();
    log.reopen();
    log.switch(Target::File(path.clone())).unwrap();
    let mut buffer = LineBuffer::new(log.clone());
    write(&mut buffer, 0..2);
    log.switch(Target::Off).unwrap();
    drop(buffer);
    assert!(log.close(WAIT));
    assert_eq!(numbers(&read(&path)), [0, 1]);
}

#[test]
fn a_torn_line_does_not_swallow_the_next() {
    let directory = tempfile::tempdir().unwrap();
    let (path, mut reader) = pipe(directory.path());
    let target = Target::File(path);
    let orders = Orders { close_by: Some(Instant::now()), ..Orders::default() };
    let mut writer = Writer {
        file: target.open().unwrap(),
        target,
        orders: Arc::new(Mutex::new(orders)),
        queued: Arc::default(),
        stats: Arc::default(),
        torn: false,
        complained: None,
    };
    let long = [b"first\n".as_slice(), &[b'x'; 300_000], b"\nlast\n"].concat();
    assert_eq!(writer.write(&long), 2);
    let mut part = vec![0; 300_000];
    let count = reader.read(&mut part).unwrap();
    assert!(part[..count].starts_with(b"first\nxxx") && !part[..count].ends_with(b"\n"));
    assert_eq!(writer.write(b"next\n"), 0);
    let count = reader.read(&mut part).unwrap();
    assert_eq!(&part[..count], b"\nnext\n");
}

#[test]
fn a_pipe_nobody_reads_is_refused_at_once() {
    let directory = tempfile::tempdir().unwrap();
    let (path, reader) = pipe(directory.path());
    drop(reader);
    assert!(AccessLog::start(Target::File(path), Arc::default()).is_err());
}

#[test]
fn after_the_close_lines_are_counted_as_lost() {
    let directory = tempfile::tempdir().unwrap();
    let (log, stats) = to_file(&directory.path().join("access.log"));
    assert!(log.close(WAIT));
    assert!(log.close(WAIT));
    let mut buffer = LineBuffer::new(log);
    write(&mut buffer, 0..5);
    drop(buffer);
    assert_eq!((stats.written(), stats.lost()), (0, 5));
}
