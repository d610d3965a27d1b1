use super::random::Random;

/// What comes.
#[derive(Debug, Clone, PartialEq)]
pub struct Workload {
    /// By arrival.
    pub requests: Vec<Request>,
    /// How long it lasts, in seconds.
    pub seconds: u32,
}

/// One request.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Request {
    /// When it comes, in seconds from the beginning.
    pub at: f64,
    /// How long it takes where nobody is in its way, in seconds.
    pub demand: f64,
}

/// How long requests take: log-normally distributed.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Service {
    /// The mean, in seconds.
    pub mean: f64,
    /// The coefficient of variation; 0 where all take the same time.
    pub variation: f64,
}

/// A step of a recording.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Step {
    /// When it ended, in seconds from wherever.
    pub at: f64,
    /// How long it was, in seconds.
    pub span: f64,
    /// Requests that came in it.
    pub arrivals: f64,
    /// The mean time of those that were answered in it; none where none was.
    pub service_time: Option<f64>,
}

impl Default for Service {
    fn default() -> Self {
        Service { mean: 0.1, variation: 1.0 }
    }
}

impl Service {
    /// No request takes less than 2 ms or more than a minute (unless the mean itself does).
    fn draw(self, random: &mut Random) -> f64 {
        if self.variation <= 0.0 {
            return self.mean;
        }
        let variance = (1.0 + self.variation * self.variation).ln();
        let drawn = (self.mean.ln() - variance / 2.0 + variance.sqrt() * random.normal()).exp();
        drawn.clamp(self.mean.min(0.002), self.mean.max(60.0))
    }
}

impl Workload {
    /// A Poisson stream whose rate is given for each second.
    pub fn of_rates(rates: &[f64], service: Service, seed: u64) -> Workload {
        let mut random = Random::new(seed);
        let mut requests = Vec::with_capacity(rates.iter().map(|rate| rate.max(0.0)).sum::<f64>() as usize + 1024);
        for (second, rate) in rates.iter().enumerate().filter(|(_, rate)| rate.is_finite() && **rate > 0.0) {
            let mut within = random.exponential() / rate;
            while within < 1.0 {
                requests.push(Request { at: second as f64 + within, demand: service.draw(&mut random) });
                within += random.exponential() / rate;
            }
        }
        Workload { requests, seconds: rates.len() as u32 }
    }

    /// Exactly these; their times count from the first's second.
    pub fn of_requests(mut requests: Vec<Request>) -> Workload {
        requests.retain(|request| request.at.is_finite() && request.demand.is_finite() && request.demand > 0.0);
        requests.sort_by(|a, b| a.at.total_cmp(&b.at));
        let begin = requests.first().map_or(0.0, |request| request.at.floor());
        requests.iter_mut().for_each(|request| request.at -= begin);
        let seconds = requests.last().map_or(0, |request| request.at as u32 + 1);
        Workload { requests, seconds }
    }

    /// A recording played again: as many requests in each step, evenly spread by chance, each about as long as those of its step were.
    ///
    /// Where steps are missing nothing comes. `variation` is that of the service time within a step, which recordings do not have.
    pub fn of_steps(steps: &[Step], variation: f64, seed: u64) -> Workload {
        let mut random = Random::new(seed);
        let begin = steps.first().map_or(0.0, |step| step.at - step.span);
        let mut mean = steps.iter().find_map(|step| step.service_time).unwrap_or(Service::default().mean);
        let mut requests = Vec::new();
        for step in steps.iter().filter(|step| step.span > 0.0 && step.arrivals > 0.0) {
            mean = step.service_time.filter(|time| *time > 0.0).unwrap_or(mean);
            let count = (step.arrivals + random.uniform()) as usize;
            requests.extend((0..count).map(|_| Request {
                at: (step.at - begin - random.uniform() * step.span).max(0.0),
                demand: Service { mean, variation }.draw(&mut random),
            }));
        }
        requests.sort_by(|a, b| a.at.total_cmp(&b.at));
        let seconds = steps.last().map_or(0, |step| (step.at - begin).ceil().max(0.0) as u32);
        Workload { requests, seconds }
    }

    /// The mean number of requests in service, were there room for all, by second.
    pub fn mean_load(&self) -> f64 {
        self.requests.iter().map(|request| request.demand).sum::<f64>() / f64::from(self.seconds.max(1))
    }

    /// A size that suits its first minute at 60 % utilisation; at least two.
    pub fn first_size(&self, cores: f64) -> u32 {
        let early = self.requests.iter().take_while(|request| request.at < 60.0).count() as f64 / 60.0;
        let mean = self.mean_load() * f64::from(self.seconds) / self.requests.len().max(1) as f64;
        ((early * mean / (cores * 0.6)).ceil() as u32).max(2)
    }
}
