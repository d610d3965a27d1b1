mod unit;

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::net::{Ipv4Addr, SocketAddr};
use std::process::{Output, Stdio};
use std::time::{Duration, Instant};

use futures_util::future::LocalBoxFuture;
use tokio::process::Command;

use self::unit::Unit;
use super::driver::{Driver, DriverError, ErrorKind, Found, InstanceId, Life, Order, Usage, spec_hash};
use super::http::first_line;
use crate::config::model;
use crate::types::Address;

/// How long one call of `systemctl` may take. All of them only ask or order; none waits for a unit.
const TIMEOUT: Duration = Duration::from_secs(5);

/// What is asked of each unit.
const PROPERTIES: &str = "--property=Id,ActiveState,SubState,Result,ExecMainStatus,MainPID,InactiveExitTimestampMonotonic,MemoryCurrent,MemoryMax,CPUUsageNSec,CPUQuotaPerSecUSec";

/// Instances are units of a systemd template, reached at `127.0.0.1`; systemd keeps them while Tidegate restarts.
///
/// Their template is best written without `Restart=`: the scaler starts what has failed again, with growing pauses, and stops where that does not help.
///
/// An instance's name is its port: `POOL-1` is the first port of the range (`app@8101.service`), `POOL-2` the second. So what runs is found again
/// by anybody at any time, and nothing has to be remembered. Orders of other numbers are refused as [`ErrorKind::Full`].
///
/// A unit that does not stop within the time for it is killed when it is next looked at; where Tidegate is gone by then, by its template's
/// `TimeoutStopSec`.
///
/// The units are reached through `systemctl`, systemd's own client: it finds the bus or the private socket, asks polkit, and is there wherever
/// systemd is. Why not D-Bus: 34 more crates, for the same calls.
#[derive(Debug)]
pub struct Systemd {
    pool: String,
    settings: model::Systemd,
    /// The template without its suffix: `app@`.
    stem: String,
    ports: (u16, u16),
    spec: String,
    /// CPU time of each unit at the last look.
    cpu: RefCell<BTreeMap<InstanceId, (u64, Instant)>>,
    /// Those that were asked to stop, and until when they may.
    stopping: RefCell<BTreeMap<InstanceId, Instant>>,
}

impl Systemd {
    /// For a pool, as it is configured.
    ///
    /// **Errors**: the unit is no template, or the ports are no range.
    pub fn new(pool: &str, settings: &model::Systemd) -> Result<Systemd, DriverError> {
        let stem = settings.unit.strip_suffix(".service").filter(|stem| stem.ends_with('@') && stem.len() > 1);
        let stem = stem.ok_or_else(|| DriverError {
            what: format!("{:?} is no template of a service", settings.unit),
            advice: "name one such as \"app@.service\" in `systemd.unit`; its instances are called by their ports"
                .to_owned(),
            kind: ErrorKind::Refused,
        })?;
        let ports = ports(&settings.ports).ok_or_else(|| DriverError {
            what: format!("{:?} is no range of ports", settings.ports),
            advice: "write one such as \"8101-8199\" in `systemd.ports`".to_owned(),
            kind: ErrorKind::Refused,
        })?;
        Ok(Systemd {
            pool: pool.to_owned(),
            stem: stem.to_owned(),
            ports,
            spec: spec_hash(&(&settings.unit, settings.user)),
            cpu: RefCell::default(),
            stopping: RefCell::default(),
            settings: settings.clone(),
        })
    }

    /// How many instances the ports are enough for.
    pub fn room(&self) -> u32 {
        u32::from(self.ports.1 - self.ports.0) + 1
    }

    fn unit(&self, port: u16) -> String {
        format!("{}{port}.service", self.stem)
    }

    /// The port of an instance.
    fn port(&self, id: &str) -> Result<u16, DriverError> {
        let number =
            id.strip_prefix(&self.pool).and_then(|rest| rest.strip_prefix('-')).and_then(|number| number.parse().ok());
        let port = number.and_then(|number: u32| number.checked_sub(1)).map(|offset| u32::from(self.ports.0) + offset);
        let port = port.and_then(|port| u16::try_from(port).ok()).filter(|port| *port <= self.ports.1);
        port.ok_or_else(|| DriverError {
            what: format!("there is no port for {id} in {}", self.settings.ports),
            advice: "widen the range in `systemd.ports`, or lower the scaler's `max`".to_owned(),
            kind: ErrorKind::Full,
        })
    }

    /// The instance of a unit; none where it is not one of ours.
    fn id(&self, unit: &str) -> Option<(InstanceId, u16)> {
        let port = unit.strip_prefix(&self.stem)?.strip_suffix(".service")?;
        let port: u16 = port.parse().ok().filter(|port| (self.ports.0..=self.ports.1).contains(port))?;
        Some((format!("{}-{}", self.pool, u32::from(port - self.ports.0) + 1), port))
    }

    /// All units of the template that systemd has in memory, with our ports.
    async fn units(&self) -> Result<Vec<(InstanceId, u16, Unit)>, DriverError> {
        let pattern = format!("{}*.service", self.stem);
        let shown = self.ask(&["show", PROPERTIES, &pattern]).await?;
        let units = shown.split("\n\n").map(Unit::read);
        Ok(units.filter_map(|unit| self.id(unit.get("Id")?).map(|(id, port)| (id, port, unit))).collect())
    }

    async fn look(&self) -> Result<Vec<Found>, DriverError> {
        let units = self.units().await?;
        self.stopping.borrow_mut().retain(|id, _| units.iter().any(|(other, ..)| other == id));
        let mut found = Vec::new();
        for (id, port, unit) in units {
            let Some(mut life) = unit.life() else { continue };
            let until = self.stopping.borrow().get(&id).copied();
            match (&mut life, until) {
                (Life::Stopping, Some(until)) if Instant::now() >= until => {
                    self.run(&["kill", "--signal=KILL", &self.unit(port)]).await?;
                }
                // It went as it was asked to, if not in peace: that is no failure to be kept.
                (Life::Ended { asked, .. }, Some(_)) => {
                    *asked = true;
                    self.run(&["reset-failed", &self.unit(port)]).await?;
                }
                _ => {}
            }
            found.push(self.found(id, port, &unit, life));
        }
        Ok(found)
    }

    async fn begin(&self, order: &Order) -> Result<(), DriverError> {
        let unit = self.unit(self.port(&order.id)?);
        self.stopping.borrow_mut().remove(&order.id);
        // A unit that has failed too often in too short a time is not started again before its count is taken back. It may never have been there.
        self.run(&["reset-failed", &unit]).await?;
        self.ask(&["start", "--no-block", "--quiet", &unit]).await.map(drop)
    }

    async fn end(&self, id: &InstanceId, grace: Duration) -> Result<(), DriverError> {
        let unit = self.unit(self.port(id)?);
        // What has failed and is not wanted any more is forgotten.
        self.run(&["reset-failed", &unit]).await?;
        self.stopping.borrow_mut().insert(id.clone(), Instant::now() + grace);
        self.ask(&["stop", "--no-block", "--quiet", &unit]).await.map(drop)
    }

    /// Runs `systemctl` and returns what it says.
    async fn ask(&self, arguments: &[&str]) -> Result<String, DriverError> {
        let output = self.run(arguments).await?;
        if output.status.success() {
            return Ok(String::from_utf8_lossy(&output.stdout).into_owned());
        }
        Err(self.refused(&output))
    }

    async fn run(&self, arguments: &[&str]) -> Result<Output, DriverError> {
        let mut command = Command::new("systemctl");
        command.arg(if self.settings.user { "--user" } else { "--system" }).arg("--no-ask-password").args(arguments);
        // Its words are read: they have to be English ones.
        command.env("LC_ALL", "C").env("SYSTEMD_COLORS", "0").stdin(Stdio::null()).kill_on_drop(true);
        match tokio::time::timeout(TIMEOUT, command.output()).await {
            Ok(Ok(output)) => Ok(output),
            Ok(Err(error)) => Err(DriverError {
                what: format!("cannot run systemctl: {error}"),
                advice: "this driver needs a machine that runs systemd; use `process` or `docker` elsewhere".to_owned(),
                kind: ErrorKind::Unreachable,
            }),
            Err(_) => Err(DriverError {
                what: format!("systemctl {} has not answered within 5 s", arguments.first().unwrap_or(&"")),
                advice: "see with `systemctl status` whether systemd answers at all".to_owned(),
                kind: ErrorKind::Unreachable,
            }),
        }
    }

    fn refused(&self, output: &Output) -> DriverError {
        let said = first_line(&output.stderr);
        let has = |words: &str| said.to_ascii_lowercase().contains(words);
        let unreachable =
            has("failed to connect to bus") || has("not been booted with systemd") || has("transport endpoint");
        let (advice, kind) = if unreachable && self.settings.user {
            (
                "see that the user's manager runs (`loginctl enable-linger USER`) and that XDG_RUNTIME_DIR is set",
                ErrorKind::Unreachable,
            )
        } else if unreachable {
            (
                "this driver needs a machine that runs systemd, and its bus; use `process` or `docker` elsewhere",
                ErrorKind::Unreachable,
            )
        } else if has("authentication") || has("access denied") || has("not permitted") || has("permission denied") {
            (
                "allow this process's user org.freedesktop.systemd1.manage-units for these units with a polkit rule (see systemd/50-tidegate.rules), or use `systemd.user = true`",
                ErrorKind::Refused,
            )
        } else if has("not found") || has("not loaded") {
            (
                "install the template (`systemctl cat` shows whether it is found), run `systemctl daemon-reload`, or correct `systemd.unit`",
                ErrorKind::Refused,
            )
        } else if has("masked") {
            ("unmask the template: `systemctl unmask`", ErrorKind::Refused)
        } else {
            ("see `systemctl status` and the journal of the unit", ErrorKind::Refused)
        };
        DriverError { what: format!("systemd refuses: {said}"), advice: advice.to_owned(), kind }
    }

    fn found(&self, id: InstanceId, port: u16, unit: &Unit, life: Life) -> Found {
        let mut detail = self.unit(port);
        match unit.number("MainPID") {
            Some(pid) if pid != 0 => detail.push_str(&format!(", pid {pid}")),
            _ if unit.restarts() => detail.push_str(&format!(", systemd starts it again after {}", unit.how())),
            _ => {}
        }
        Found {
            id,
            address: Some(Address::Ip(SocketAddr::from((Ipv4Addr::LOCALHOST, port)))),
            life,
            spec: Some(self.spec.clone()),
            started: unit.started(),
            generation: 0,
            detail,
            zone: None,
        }
    }

    fn used(&self, id: &InstanceId, unit: &Unit) -> Usage {
        let memory = unit.number("MemoryCurrent");
        let share = |used: u64, most: u64| (most > 0).then(|| used as f64 / most as f64);
        let (now, mut before) = (Instant::now(), self.cpu.borrow_mut());
        let cpus = unit.number("CPUUsageNSec").and_then(|nanos| {
            let (earlier, at) = before.insert(id.clone(), (nanos, now))?;
            let span = now.duration_since(at).as_nanos() as f64;
            // A unit that was started again counts anew.
            (span > 0.0 && nanos >= earlier).then(|| (nanos - earlier) as f64 / span)
        });
        Usage {
            cpus,
            cpu_share: cpus.zip(unit.quota()).map(|(cpus, quota)| cpus / quota),
            memory,
            memory_share: memory.zip(unit.number("MemoryMax")).and_then(|(used, most)| share(used, most)),
        }
    }
}

impl Driver for Systemd {
    fn kind(&self) -> &'static str {
        "systemd"
    }

    fn list(&self) -> LocalBoxFuture<'_, Result<Vec<Found>, DriverError>> {
        Box::pin(self.look())
    }

    fn start<'a>(&'a self, order: &'a Order) -> LocalBoxFuture<'a, Result<(), DriverError>> {
        Box::pin(self.begin(order))
    }

    fn stop<'a>(&'a self, id: &'a InstanceId, grace: Duration) -> LocalBoxFuture<'a, Result<(), DriverError>> {
        Box::pin(self.end(id, grace))
    }

    fn usage(&self) -> LocalBoxFuture<'_, Result<Vec<(InstanceId, Usage)>, DriverError>> {
        Box::pin(async {
            let units = self.units().await?;
            self.cpu.borrow_mut().retain(|id, _| units.iter().any(|(other, ..)| other == id));
            let running = units.into_iter().filter(|(.., unit)| unit.life() == Some(Life::Running));
            Ok(running.map(|(id, _, unit)| (id.clone(), self.used(&id, &unit))).collect())
        })
    }
}

fn ports(text: &str) -> Option<(u16, u16)> {
    let (first, last) = text.split_once('-').unwrap_or((text, text));
    let (first, last) = (first.trim().parse().ok()?, last.trim().parse().ok()?);
    (first > 0 && first <= last).then_some((first, last))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn driver(user: bool) -> Systemd {
        let settings = model::Systemd {
            unit: "app@.service".to_owned(),
            ports: "8101-8103".to_owned(),
            user,
            grace: Duration::from_secs(1),
        };
        Systemd::new("tools-a", &settings).unwrap()
    }

    #[test]
    fn an_instance_is_a_port_and_a_port_an_instance() {
        let driver = driver(false);
        assert_eq!(driver.room(), 3);
        for (id, port) in [("tools-a-1", 8101), ("tools-a-3", 8103)] {
            assert_eq!(driver.port(id), Ok(port));
            assert_eq!(driver.id(&driver.unit(port)), Some((id.to_owned(), port)));
        }
        for id in ["tools-a-0", "tools-a-4", "tools-a-99999999", "tools-b-1", "tools-a", "tools-a-x"] {
            assert_eq!(driver.port(id).unwrap_err().kind, ErrorKind::Full, "{id}");
        }
        for unit in ["app@8104.service", "app@x.service", "other@8101.service", "app@8101.socket"] {
            assert_eq!(driver.id(unit), None, "{unit}");
        }
    }

    #[test]
    fn what_cannot_be_a_template_or_a_range_is_refused() {
        let with = |unit: &str, ports: &str| {
            let settings =
                model::Systemd { unit: unit.into(), ports: ports.into(), user: false, grace: Duration::ZERO };
            Systemd::new("tools", &settings).map(|driver| driver.ports)
        };
        assert_eq!(with("app@.service", "8101"), Ok((8101, 8101)));
        for (unit, ports) in
            [("app.service", "1-2"), ("@.service", "1-2"), ("app@.service", "9-8"), ("app@.service", "a-b")]
        {
            assert!(with(unit, ports).is_err(), "{unit} {ports}");
        }
    }

    fn shown(lines: &str) -> Unit {
        Unit::read(&lines.replace(' ', "\n"))
    }

    #[test]
    fn cpu_is_the_time_used_since_the_last_look() {
        let (driver, id) = (driver(false), "tools-a-1".to_owned());
        let unit = |nanos: u64| {
            shown(&format!("CPUUsageNSec={nanos} CPUQuotaPerSecUSec=1.500000s MemoryCurrent=512 MemoryMax=2048"))
        };
        let first = driver.used(&id, &unit(1_000));
        assert_eq!((first.cpus, first.memory, first.memory_share), (None, Some(512), Some(0.25)));
        let earlier = Instant::now() - Duration::from_secs(10);
        driver.cpu.borrow_mut().insert(id.clone(), (1_000, earlier));
        let second = driver.used(&id, &unit(5_000_001_000));
        let cpus = second.cpus.unwrap();
        assert!((0.45..=0.5).contains(&cpus), "{cpus}");
        assert!((second.cpu_share.unwrap() - cpus / 1.5).abs() < 1e-9);
        assert_eq!(driver.used(&id, &unit(5)).cpus, None, "it was started again");
        let bare =
            driver.used(&id, &shown("CPUUsageNSec=[not set] MemoryCurrent=18446744073709551615 MemoryMax=infinity"));
        assert_eq!(bare, Usage::default());
    }

    #[test]
    fn refusals_come_with_what_to_do() {
        let refusal = |user: bool, said: &str| {
            let output = Output { status: Default::default(), stdout: Vec::new(), stderr: said.as_bytes().to_vec() };
            driver(user).refused(&output)
        };
        for (user, said, kind, advice) in [
            (
                false,
                "Failed to start app@8101.service: Interactive authentication required.",
                ErrorKind::Refused,
                "polkit",
            ),
            (false, "Failed to start app@8101.service: Access denied", ErrorKind::Refused, "polkit"),
            (
                false,
                "Failed to start app@8101.service: Unit app@8101.service not found.",
                ErrorKind::Refused,
                "daemon-reload",
            ),
            (false, "Failed to start app@8101.service: Unit app@8101.service is masked.", ErrorKind::Refused, "unmask"),
            (
                false,
                "System has not been booted with systemd as init system (PID 1). Can't operate.",
                ErrorKind::Unreachable,
                "runs systemd",
            ),
            (true, "Failed to connect to bus: No medium found", ErrorKind::Unreachable, "enable-linger"),
        ] {
            let error = refusal(user, said);
            assert_eq!(error.kind, kind, "{said}");
            assert!(error.what.ends_with(said) && error.advice.contains(advice), "{error}");
        }
    }
}
