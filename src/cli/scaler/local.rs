//! What this machine lacks for a configuration's scalers; needs no running proxy.

use std::path::PathBuf;

use super::host::Host;
use super::status::bytes;
use crate::admin::scaling::Finding;
use crate::config::Config;
use crate::config::model::{MaxConcurrency, Scaler};
use crate::types::Bind;

/// Fewer connections than this waiting for an accept are soon full.
const ENOUGH_WAITING: u64 = 1024;

/// The machine, looked at for what a configuration names.
pub(super) fn look(config: &Config) -> Host {
    let (mut sockets, mut programs, mut folders) = (Vec::new(), Vec::new(), Vec::new());
    for (_, scaler) in scalers(config) {
        sockets.extend(scaler.docker.as_ref().map(|docker| docker.socket.clone()));
        programs.extend(program(scaler));
    }
    folders.extend(config.scaler.state.clone());
    Host::look(&sockets, &programs, &folders)
}

fn scalers(config: &Config) -> impl Iterator<Item = (&str, &Scaler)> {
    config.pool.iter().filter_map(|(name, pool)| Some((name.as_str(), pool.scaler.as_ref()?)))
}

fn program(scaler: &Scaler) -> Option<PathBuf> {
    let process = scaler.process.as_ref().map(|process| &process.command);
    let command = process.or(scaler.exec.as_ref().map(|exec| &exec.command))?;
    command.first().filter(|program| !program.contains('{')).map(PathBuf::from)
}

/// What is missing, in no particular order.
pub(super) fn findings(config: &Config, host: &Host) -> Vec<Finding> {
    let mut found = Vec::new();
    if scalers(config).next().is_none() {
        found.push(finding("info", "NO_SCALER", None, "no pool has a scaler", "give one a section [pool.NAME.scaler]"));
        return found;
    }
    files(config, host, &mut found);
    processes(config, host, &mut found);
    memory(config, host, &mut found);
    kernel(config, host, &mut found);
    ports(config, host, &mut found);
    for (pool, scaler) in scalers(config) {
        drivers(pool, scaler, host, &mut found);
    }
    if let Some(state) = config.scaler.state.as_ref().filter(|state| !host.usable.contains(*state)) {
        let text = format!("{} cannot be written to", state.display());
        found.push(finding(
            "critical",
            "STATE_FOLDER",
            None,
            &text,
            "make it, and give it to the user that Tidegate runs as",
        ));
    }
    found
}

fn finding(severity: &str, code: &str, pool: Option<&str>, text: &str, advice: &str) -> Finding {
    Finding {
        code: code.to_owned(),
        severity: severity.to_owned(),
        pool: pool.map(str::to_owned),
        text: text.to_owned(),
        advice: advice.to_owned(),
    }
}

fn files(config: &Config, host: &Host, found: &mut Vec<Finding>) {
    let slots = |name: &str| match config.pool[name].max_concurrency {
        Some(MaxConcurrency::Count(count)) => u64::from(count),
        _ => 100,
    };
    // Each request in progress has a socket on either side.
    let wanted: u64 = scalers(config).map(|(name, scaler)| 2 * u64::from(scaler.max) * slots(name)).sum::<u64>() + 1000;
    if let Some(files) = host.files.filter(|files| *files < wanted) {
        let text = format!("a process may have {files} files open; all pools at their largest want about {wanted}");
        found.push(finding("warning", "FILE_LIMIT", None, &text, "raise it: LimitNOFILE= of the unit, or `ulimit -n`"));
    }
}

fn processes(config: &Config, host: &Host, found: &mut Vec<Finding>) {
    let most: u64 =
        scalers(config).filter(|(_, scaler)| scaler.process.is_some()).map(|(_, scaler)| u64::from(scaler.max)).sum();
    // Runtimes have a dozen threads each, and each counts.
    if let Some(limit) = host.processes.filter(|limit| *limit < most * 16 && most > 0) {
        let text = format!("this user may have {limit} processes and threads; {most} instances may be started");
        found.push(finding("warning", "PROCESS_LIMIT", None, &text, "raise it: LimitNPROC= or TasksMax= of the unit"));
    }
}

fn memory(config: &Config, host: &Host, found: &mut Vec<Finding>) {
    let of = |scaler: &Scaler| {
        let process = scaler.process.as_ref().and_then(|process| process.memory);
        process.or(scaler.docker.as_ref().and_then(|docker| docker.memory))
    };
    let here = |scaler: &Scaler| scaler.process.is_some() || scaler.docker.is_some();
    let wanted: u64 =
        scalers(config).filter_map(|(_, scaler)| Some(of(scaler)?.0.saturating_mul(u64::from(scaler.max)))).sum();
    let floor = config.scaler.host_memory_floor.0;
    let Some(free) = host.memory else { return };
    if wanted.saturating_add(floor) > free && wanted > 0 {
        let text = format!(
            "all instances at their limits use {}, {} are to stay free, and {} can be had now",
            bytes(wanted),
            bytes(floor),
            bytes(free)
        );
        found.push(finding("warning", "HOST_MEMORY", None, &text, "lower `max` or `memory`, or take a larger machine"));
    }
    if floor > free {
        let text =
            format!("{} are to stay free and only {} are now: nothing would be started", bytes(floor), bytes(free));
        found.push(finding("critical", "HOST_MEMORY", None, &text, "lower `scaler.host_memory_floor`"));
    }
    for (pool, scaler) in scalers(config).filter(|(_, scaler)| here(scaler) && of(scaler).is_none()) {
        let text = format!("its {} instances may use any amount of memory", scaler.max);
        found.push(finding(
            "info",
            "NO_MEMORY_LIMIT",
            Some(pool),
            &text,
            "set `memory`, or `scaler.host_memory_floor`",
        ));
    }
}

fn kernel(config: &Config, host: &Host, found: &mut Vec<Finding>) {
    if let Some(waiting) = host.somaxconn.filter(|waiting| *waiting < ENOUGH_WAITING) {
        let text = format!("only {waiting} connections may wait to be accepted");
        found.push(finding("warning", "SOMAXCONN", None, &text, "sysctl -w net.core.somaxconn=4096"));
    }
    let cpus: f64 =
        scalers(config).filter_map(|(_, scaler)| Some(scaler.process.as_ref()?.cpus? * f64::from(scaler.max))).sum();
    if cpus > host.cpus as f64 {
        let text = format!("all instances may use {cpus:.1} CPUs; this machine has {}", host.cpus);
        found.push(finding("info", "HOST_CPUS", None, &text, "more instances than that do not make it faster"));
    }
}

/// Ranges of ports are nobody else's; that they are large enough the configuration's own checks see to.
fn ports(config: &Config, host: &Host, found: &mut Vec<Finding>) {
    let mut ranges: Vec<(&str, (u16, u16))> = Vec::new();
    for (pool, scaler) in scalers(config) {
        let process = scaler.process.as_ref().and_then(|process| process.ports.as_deref());
        let Some(text) = process.or(scaler.systemd.as_ref().map(|systemd| systemd.ports.as_str())) else { continue };
        let Some(range) = range(text) else { continue };
        for (other, _) in ranges.iter().filter(|(_, known)| overlap(*known, range)) {
            let text = format!("its range {text} overlaps that of pool {other}");
            found.push(finding("critical", "PORT_RANGE", Some(pool), &text, "give each pool ports of its own"));
        }
        let listeners =
            config.listener.iter().flat_map(|(name, listener)| listener.bind.iter().map(move |bind| (name, bind)));
        for (name, port) in listeners.filter_map(|(name, bind)| Some((name, port(bind)?))) {
            if (range.0..=range.1).contains(&port) {
                let text = format!("its range {text} holds port {port} of listener {name}");
                found.push(finding("critical", "PORT_RANGE", Some(pool), &text, "move one of them"));
            }
        }
        if host.ephemeral.is_some_and(|ephemeral| overlap(ephemeral, range)) {
            let (low, high) = host.ephemeral.unwrap_or_default();
            let text = format!(
                "its range {text} lies within the ports {low}-{high} that the kernel gives to outgoing connections"
            );
            found.push(finding(
                "warning",
                "PORT_RANGE",
                Some(pool),
                &text,
                "take ports below, or set net.ipv4.ip_local_reserved_ports",
            ));
        }
        ranges.push((pool, range));
    }
}

fn overlap(a: (u16, u16), b: (u16, u16)) -> bool {
    a.0 <= b.1 && b.0 <= a.1
}

/// `18100-18199`.
fn range(text: &str) -> Option<(u16, u16)> {
    let (low, high) = text.split_once('-').unwrap_or((text, text));
    let range: (u16, u16) = (low.trim().parse().ok()?, high.trim().parse().ok()?);
    (range.0 <= range.1).then_some(range)
}

fn port(bind: &Bind) -> Option<u16> {
    match bind {
        Bind::Tcp(address) => Some(address.port()),
        Bind::Unix(_) => None,
    }
}

fn drivers(pool: &str, scaler: &Scaler, host: &Host, found: &mut Vec<Finding>) {
    if let Some(docker) = scaler.docker.as_ref().filter(|docker| !host.usable.contains(&docker.socket)) {
        let text = format!("nothing answers at {}", docker.socket.display());
        let advice = "start the engine, or let Tidegate's user use the socket (group `docker`, or a rootless engine)";
        found.push(finding("critical", "DRIVER_UNREACHABLE", Some(pool), &text, advice));
    }
    if let Some(program) = program(scaler).filter(|program| !host.usable.contains(program)) {
        let text = format!("there is no program `{}` that can be run", program.display());
        found.push(finding("critical", "NO_PROGRAM", Some(pool), &text, "install it, or name it by its whole path"));
    }
    let limits = scaler.process.as_ref().is_some_and(|process| process.memory.is_some() || process.cpus.is_some());
    if let (true, Some(why)) = (limits, &host.no_cgroups) {
        let text = format!("`memory` and `cpus` cannot be enforced: {why}");
        found.push(finding("warning", "CGROUPS", Some(pool), &text, "run Tidegate as a unit with Delegate=yes"));
    }
    if scaler.systemd.as_ref().is_some_and(|systemd| !systemd.user) && !host.systemd {
        let text = "its instances are units, and systemd does not run here";
        found.push(finding(
            "critical",
            "DRIVER_UNREACHABLE",
            Some(pool),
            text,
            "use `process` or `docker` on this machine",
        ));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{Memory, read_text, render};

    fn codes(text: &str, host: &Host) -> Vec<(String, String)> {
        let text = format!("[listener.web]\nbind = \"127.0.0.1:18150\"\n[[route]]\npool = \"a\"\n{text}");
        let outcome = read_text("t.toml", &text, &Memory::default());
        let config = outcome.config.unwrap_or_else(|| panic!("{}", render(&outcome.problems, false)));
        findings(&config, host).into_iter().map(|finding| (finding.code, finding.text)).collect()
    }

    fn roomy() -> Host {
        Host {
            memory: Some(64 << 30),
            cpus: 64,
            somaxconn: Some(4096),
            ephemeral: Some((32768, 60999)),
            usable: ["app".into(), "/var/run/docker.sock".into()].into(),
            systemd: true,
            ..Host::default()
        }
    }

    const PROCESS: &str = r#"
[pool.a.scaler]
max = 20
process = { command = ["app", "{port}"], ports = "18000-18099", memory = "1GiB", cpus = 1.0 }
"#;

    #[test]
    fn a_machine_with_room_lacks_nothing() {
        assert_eq!(codes(PROCESS, &roomy()), []);
    }

    #[test]
    fn each_thing_that_is_missing_is_told() {
        let poor = Host {
            files: Some(1024),
            processes: Some(100),
            memory: Some(4 << 30),
            cpus: 2,
            somaxconn: Some(128),
            no_cgroups: Some("read-only".to_owned()),
            ..Host::default()
        };
        let found = codes(PROCESS, &poor);
        let names: Vec<&str> = found.iter().map(|(code, _)| code.as_str()).collect();
        let expected =
            ["FILE_LIMIT", "PROCESS_LIMIT", "HOST_MEMORY", "SOMAXCONN", "HOST_CPUS", "NO_PROGRAM", "CGROUPS"];
        assert_eq!(names, expected, "{found:?}");
        assert!(found[2].1.contains("use 20 GiB, 0 B are to stay free, and 4 GiB can be had now"), "{found:?}");
    }

    #[test]
    fn ports_are_nobody_else_s() {
        let pool = |name: &str, max: u32, ports: &str| {
            format!(
                "[pool.{name}.scaler]\nmax = {max}\nprocess = {{ command = [\"app\", \"{{port}}\"], ports = \"{ports}\", memory = \"1MiB\" }}\n"
            )
        };
        let text = pool("a", 20, "18100-18129") + &pool("b", 2, "18105-18160") + &pool("c", 2, "40000-40010");
        let told: Vec<String> = codes(&text, &roomy()).into_iter().map(|(_, text)| text).collect();
        let expected = [
            "its range 18105-18160 overlaps that of pool a",
            "its range 18105-18160 holds port 18150 of listener web",
            "its range 40000-40010 lies within the ports 32768-60999 that the kernel gives to outgoing connections",
        ];
        assert_eq!(told, expected);
    }

    #[test]
    fn an_engine_that_does_not_answer_and_a_folder_that_cannot_be_written_to() {
        let text = "[pool.a.scaler]\ndocker = { image = \"x\", port = 80 }\n[scaler]\nstate = \"/var/lib/x\"\n";
        let host = Host { usable: [].into(), ..roomy() };
        let names: Vec<String> = codes(text, &host).into_iter().map(|(code, _)| code).collect();
        assert_eq!(names, ["NO_MEMORY_LIMIT", "DRIVER_UNREACHABLE", "STATE_FOLDER"]);
        let none = codes("[pool.a]\nupstreams = [\"127.0.0.1:1\"]\n", &roomy());
        assert_eq!(none[0].0, "NO_SCALER");
    }
}
