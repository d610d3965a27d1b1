use std::path::Path;

use serde::Serialize;

use super::arguments::SimulateArguments;
use super::ask::{Asking, one};
use super::manifest::Manifest;
use super::settings;
use super::status::{seconds, short};
use super::times::Times;
use super::traffic::{self, Traffic};
use crate::admin::scaling::{PoolScaler, Sample};
use crate::cli::Failure;
use crate::cli::operate::print;
use crate::cli::status::table;
use crate::scale::sim::{self, Contestant, Kpa, Ours, Service, View, World};
use crate::scale::{Capacity, Metric, Mode, Profile, Settings, Signal};

/// What somebody would have done with the traffic.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub(super) struct Row {
    pub(super) name: String,
    /// Requests that waited too long or were lost, in percent.
    pub(super) violations_percent: f64,
    /// Requests that were lost, in percent.
    pub(super) lost_percent: f64,
    pub(super) instance_hours: f64,
    /// Against the first row, in percent of it.
    pub(super) versus_now_percent: f64,
    /// Times what perfect packing needs.
    pub(super) over: f64,
    pub(super) starts_per_hour: f64,
    pub(super) reversals_per_hour: f64,
    /// The 99th percentile of lateness.
    pub(super) late_p99_seconds: f64,
    pub(super) largest: u32,
    pub(super) cost: f64,
}

/// All that is played against each other, and what with.
pub(super) struct Game {
    pub(super) world: World,
    pub(super) contestants: Vec<Box<dyn Contestant>>,
    pub(super) instance_hour: f64,
}

impl Game {
    pub(super) fn new(world: World, instance_hour: f64) -> Self {
        Game { world, contestants: Vec::new(), instance_hour }
    }

    /// The production decision as it is now, with these settings as far as they are known.
    pub(super) fn now(&mut self, now: Option<&Settings>, profile: Profile) {
        let settings = now.cloned().unwrap_or_else(|| Settings::of_profile(profile));
        self.play_with(settings, &format!("now ({})", profile.word()));
    }

    /// The same with the profiles that it does not have, each in place of its own.
    pub(super) fn others(&mut self, now: Option<&Settings>, profile: Profile, others: &[Profile]) {
        for other in others.iter().filter(|other| **other != profile) {
            let meant = Settings::of_profile(*other);
            let settings = match now {
                Some(now) => Settings {
                    headroom: meant.headroom,
                    hold: meant.hold,
                    max_step_down: meant.max_step_down,
                    down: meant.down,
                    ..now.clone()
                },
                None => meant,
            };
            self.play_with(settings, other.word());
        }
    }

    fn play_with(&mut self, settings: Settings, name: &str) {
        // What a simulation cannot see says nothing in it.
        let seen = |signal: &Signal| !matches!(signal.metric, Metric::Cpu | Metric::Memory | Metric::External(_));
        let capacity = match settings.capacity {
            Capacity::Learned { .. } => Capacity::Fixed(f64::from(self.world.slots)),
            fixed => fixed,
        };
        let settings = Settings {
            mode: Mode::On,
            min: self.world.min,
            max: self.world.max,
            capacity,
            first_lead: self.world.startup,
            signals: settings.signals.iter().filter(|signal| seen(signal)).cloned().collect(),
            ..settings
        };
        self.contestants.push(Box::new(Ours::new(settings).named(name)));
    }

    pub(super) fn hpa(&mut self, manifest: &Manifest, name: &str) {
        let inner = manifest.contestant(self.world.slots);
        self.contestants.push(Box::new(Bounded { inner, name: name.to_owned(), min: manifest.min, max: manifest.max }));
    }

    pub(super) fn kpa(&mut self, percent: u32) {
        let (inner, name) = (Box::new(Kpa::new(f64::from(percent) / 100.0)), format!("kpa {percent}%"));
        self.contestants.push(Box::new(Bounded { inner, name, min: 0, max: u32::MAX }));
    }

    /// Plays all of them; each gets the very same requests.
    pub(super) fn play(self, traffic: &Traffic) -> Vec<Row> {
        let Game { mut world, contestants, instance_hour } = self;
        world.first = traffic.workload.first_size(world.cores).clamp(world.min.max(1), world.max.max(1));
        let mut rows: Vec<Row> = Vec::new();
        for mut contestant in contestants {
            let outcome = sim::run(&traffic.workload, &world, contestant.as_mut());
            let now = rows.first().map_or(outcome.instance_hours, |row| row.instance_hours);
            rows.push(Row {
                violations_percent: outcome.violations(),
                lost_percent: outcome.drops(),
                instance_hours: outcome.instance_hours,
                versus_now_percent: if now > 0.0 { (outcome.instance_hours / now - 1.0) * 100.0 } else { 0.0 },
                over: if outcome.busy_hours > 0.0 { outcome.over() } else { 0.0 },
                starts_per_hour: outcome.starts_per_hour(),
                reversals_per_hour: outcome.reversals_per_hour(),
                late_p99_seconds: outcome.p99,
                largest: outcome.peak,
                cost: outcome.instance_hours * instance_hour,
                name: outcome.name,
            });
        }
        rows
    }
}

/// Somebody with bounds of their own beside the world's.
struct Bounded {
    inner: Box<dyn Contestant>,
    name: String,
    min: u32,
    max: u32,
}

impl Contestant for Bounded {
    fn name(&self) -> String {
        self.name.clone()
    }

    fn wants(&mut self, view: &View<'_>) -> Option<u32> {
        // Bounds that contradict each other: the lower one wins, as in Kubernetes none would be accepted at all.
        self.inner.wants(view).map(|wanted| wanted.min(self.max).max(self.min.min(self.max)))
    }

    fn victims(&self) -> sim::Victims {
        self.inner.victims()
    }
}

/// What instances are like, as far as a pool knows it.
pub(super) fn world(pool: &PoolScaler, samples: &[Sample]) -> World {
    let usual = World::default();
    let terms = pool.last.as_ref().map(|record| record.decision.terms.clone()).unwrap_or_default();
    let recorded = samples.iter().rev().map(|sample| sample.capacity).find(|capacity| *capacity > 0.0);
    let slots = Some(terms.capacity).filter(|capacity| *capacity > 0.0).or(recorded);
    let slots = slots.map_or(usual.slots, |slots| slots.round().clamp(1.0, 1e6) as u32);
    World {
        min: pool.min,
        max: pool.max.max(1),
        slots,
        cores: f64::from(slots),
        startup: if terms.lead > 0.0 { terms.lead } else { usual.startup },
        ..usual
    }
}

/// `tidegate scaler simulate`.
pub(super) async fn run(arguments: &SimulateArguments, times: &Times) -> Result<(), Failure> {
    let known = match (&arguments.rates, arguments.shape) {
        (None, None) => Some(recorded(arguments, times).await?),
        _ => None,
    };
    let mut world = known.as_ref().map_or_else(World::default, |known| known.world.clone());
    shape_world(&mut world, arguments)?;
    let traffic = match (known.as_ref(), &arguments.rates, arguments.shape) {
        (Some(known), ..) => traffic::recorded(&known.series, times, arguments.seed)?,
        (None, Some(file), _) => {
            let name = file.to_string_lossy();
            traffic::file(&name, &read(file)?, service(arguments), arguments.seed)?
        }
        (None, None, shape) => {
            let seconds = arguments.length.as_secs() as usize;
            let shape =
                shape.ok_or_else(|| Failure::Usage("name the traffic: --from, --rates or --shape".to_owned()))?;
            traffic::shape(shape, arguments.peak, seconds, service(arguments), arguments.seed)?
        }
    };
    let (price, currency) = known.as_ref().map_or((0.0, ""), |known| (known.price, known.currency.as_str()));
    let now = known.as_ref().map_or(Profile::Balanced, |known| known.profile);
    let mut game = Game::new(world.clone(), price);
    let in_force = known.as_ref().and_then(|known| known.in_force.as_ref());
    game.now(in_force, now);
    game.others(in_force, now, &arguments.profile);
    if let Some(file) = &arguments.hpa {
        let manifest = Manifest::read(&file.to_string_lossy(), &read(file)?)?;
        game.hpa(&manifest, &file.file_name().unwrap_or_default().to_string_lossy());
    }
    if let Some(percent) = arguments.kpa {
        game.kpa(percent);
    }
    let rows = game.play(&traffic);
    let text = if arguments.json {
        #[derive(Serialize)]
        struct Told<'a> {
            traffic: &'a str,
            requests: usize,
            seconds: u32,
            currency: &'a str,
            rows: &'a [Row],
        }
        let (requests, seconds) = (traffic.workload.requests.len(), traffic.workload.seconds);
        let told = Told { traffic: &traffic.source, requests, seconds, currency, rows: &rows };
        format!("{}\n", serde_json::to_string_pretty(&told)?)
    } else {
        render(&rows, &traffic, &world, currency)
    };
    print(text.as_bytes())
}

struct Known {
    series: crate::admin::scaling::Series,
    world: World,
    price: f64,
    currency: String,
    profile: Profile,
    in_force: Option<Settings>,
}

async fn recorded(arguments: &SimulateArguments, times: &Times) -> Result<Known, Failure> {
    let asking = Asking::of(&arguments.admin)?;
    let (status, _) = asking.status().await?;
    let pool = one(&status, arguments.pool.as_deref())?;
    let series = asking.series(&pool.pool, times.read("--from", &arguments.from)?).await?;
    let config = asking.config().await?;
    let (profile, in_force) = (settings::profile(&config, &pool.pool), settings::in_force(&config, &pool.pool));
    let world = world(pool, &series.samples);
    Ok(Known { series, world, price: status.instance_hour, currency: status.currency.clone(), profile, in_force })
}

/// What the command line says of instances.
fn shape_world(world: &mut World, arguments: &SimulateArguments) -> Result<(), Failure> {
    world.min = arguments.min.unwrap_or(world.min);
    world.max = arguments.max.unwrap_or(world.max);
    if world.max == 0 || world.min > world.max {
        let (min, max) = (world.min, world.max);
        return Err(Failure::Usage(format!(
            "--min {min} --max {max}: expected a maximum above zero and not below the minimum"
        )));
    }
    if let Some(slots) = arguments.concurrency {
        (world.slots, world.cores) = (slots.max(1), f64::from(slots.max(1)));
    }
    if let Some(start) = arguments.start {
        world.startup = start.as_secs_f64();
    }
    world.slack = arguments.slo.as_secs_f64();
    world.seed = arguments.seed;
    Ok(())
}

fn service(arguments: &SimulateArguments) -> Service {
    let usual = Service::default();
    arguments.service.map_or(usual, |span| Service { mean: span.as_secs_f64().max(1e-4), ..usual })
}

pub(super) fn read(file: &Path) -> Result<String, Failure> {
    let told = |error| Failure::Failed(anyhow::anyhow!("cannot read {}: {error}", file.display()));
    std::fs::read_to_string(file).map_err(told)
}

fn render(rows: &[Row], traffic: &Traffic, world: &World, currency: &str) -> String {
    let (min, max, slots, startup) = (world.min, world.max, world.slots, seconds(world.startup));
    let mut out = format!(
        "{} requests in {}: {}\ninstances: {min} to {max}, {slots} requests at once each, ready {startup} after the order\n\n",
        traffic.workload.requests.len(),
        crate::cli::status::span(f64::from(traffic.workload.seconds)),
        traffic.source,
    );
    out += &compared(rows, currency);
    out += &format!(
        "\nVIOLATED: answers later than their own work by more than {}, or lost. VS NOW: instance-hours against the first line.\n",
        seconds(world.slack)
    );
    out
}

/// The rows as a table.
pub(super) fn compared(rows: &[Row], currency: &str) -> String {
    let heads = [
        "POLICY",
        "VIOLATED",
        "LOST",
        "INST-HOURS",
        "VS NOW",
        "OVER",
        "STARTS/H",
        "REVERSALS/H",
        "LATE P99",
        "MOST",
        "COST",
    ];
    let mut lines = vec![heads.map(str::to_owned)];
    lines.extend(rows.iter().enumerate().map(|(index, row)| {
        [
            row.name.clone(),
            format!("{:.2} %", row.violations_percent),
            format!("{:.2} %", row.lost_percent),
            format!("{:.1}", row.instance_hours),
            if index == 0 { "-".to_owned() } else { format!("{:+.0} %", row.versus_now_percent) },
            format!("{:.2}", row.over),
            short(row.starts_per_hour),
            short(row.reversals_per_hour),
            seconds(row.late_p99_seconds),
            row.largest.to_string(),
            money(row.cost, currency),
        ]
    }));
    let mut out = String::new();
    table(&mut out, "", ['<', '>', '>', '>', '>', '>', '>', '>', '>', '>', '>'], &lines);
    out
}

/// `86.50 USD`; `-` where no price is known.
pub(super) fn money(amount: f64, currency: &str) -> String {
    if amount > 0.0 { format!("{amount:.2} {currency}").trim_end().to_owned() } else { "-".to_owned() }
}

#[cfg(test)]
mod tests {
    use super::super::sample::{day, mcp};
    use super::super::times::tests::berlin;
    use super::*;

    #[test]
    fn the_world_is_as_the_pool_has_measured_it() {
        let found = world(&mcp(), &[]);
        assert_eq!((found.min, found.max, found.slots, found.cores, found.startup), (2, 20, 4, 4.0, 2.1));
        let unknown = PoolScaler { last: None, ..mcp() };
        assert_eq!(world(&unknown, &day().samples).slots, 4);
        assert_eq!(world(&unknown, &[]).startup, World::default().startup);
    }

    #[test]
    fn all_play_the_same_requests_and_the_first_is_now() {
        let mut series = day();
        series.samples.truncate(6);
        let traffic = traffic::recorded(&series, &berlin(), 1).unwrap();
        let mut game = Game::new(world(&mcp(), &day().samples), 0.5);
        game.now(None, Profile::Balanced);
        game.kpa(60);
        game.hpa(&Manifest::cpu(0.7), "hpa");
        let rows = game.play(&traffic);
        assert_eq!(rows.iter().map(|row| row.name.as_str()).collect::<Vec<_>>(), ["now (balanced)", "kpa 60%", "hpa"]);
        assert_eq!(rows[0].versus_now_percent, 0.0);
        for row in &rows {
            assert!(row.instance_hours >= 0.9 && row.instance_hours <= 10.5, "{row:?}");
            assert_eq!(row.cost, row.instance_hours * 0.5);
            assert!((0.0..=100.0).contains(&row.violations_percent), "{row:?}");
        }
    }

    #[test]
    fn rows_are_a_table() {
        let row = Row {
            name: "now (balanced)".to_owned(),
            violations_percent: 0.314,
            lost_percent: 0.0,
            instance_hours: 412.04,
            versus_now_percent: 0.0,
            over: 2.04,
            starts_per_hour: 3.1,
            reversals_per_hour: 0.8,
            late_p99_seconds: 0.04,
            largest: 9,
            cost: 86.52,
        };
        let other = Row { name: "hpa.yaml".to_owned(), versus_now_percent: 5.12, cost: 0.0, ..row.clone() };
        let expected = "\
POLICY          VIOLATED    LOST  INST-HOURS  VS NOW  OVER  STARTS/H  REVERSALS/H  LATE P99  MOST       COST
now (balanced)    0.31 %  0.00 %       412.0       -  2.04       3.1          0.8      40ms     9  86.52 USD
hpa.yaml          0.31 %  0.00 %       412.0    +5 %  2.04       3.1          0.8      40ms     9          -
";
        assert_eq!(compared(&[row, other], "USD"), expected);
    }
}
