use std::cell::RefCell;
use std::collections::BTreeMap;
use std::rc::Rc;
use std::time::{Duration, Instant};

use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use serde::Deserialize;
use serde_json::Value;
use tokio::task::JoinHandle;

use super::http::{Answer, HttpClient, first_line};
use crate::admin::scaling::Finding;
use crate::config::model;
use crate::scale::Metric;

/// One question takes no longer than this, and no longer than its interval.
const TIMEOUT: Duration = Duration::from_secs(10);

/// Values that a pool is scaled by and that come from elsewhere: Prometheus, or a JSON document.
///
/// Each is asked for at its own interval by a task that ends with this. A value that could not be renewed in time counts as missing, and a
/// [`Finding`] says why; what is missing never removes an instance.
#[derive(Debug)]
pub struct External {
    watched: Vec<Watched>,
}

#[derive(Debug)]
struct Watched {
    name: String,
    max_age: Duration,
    seen: Rc<RefCell<Seen>>,
    task: JoinHandle<()>,
}

/// What is known of a value.
#[derive(Debug, Default)]
struct Seen {
    value: Option<(f64, Instant)>,
    /// Why the last question had no answer.
    wrong: Option<String>,
}

/// A question that is asked again and again.
#[derive(Debug, Clone)]
struct Question {
    url: String,
    /// Where the value is in the answer: a JSON pointer; none for Prometheus' own form.
    pointer: Option<String>,
}

impl External {
    /// Begins to ask for those of a pool's signals that are external and say where they come from.
    ///
    /// Has to be called within a local runtime (`LocalRuntime` or `LocalSet`).
    pub fn new(signals: &[model::Signal], client: &HttpClient) -> External {
        let watched = signals.iter().filter_map(|signal| {
            let Metric::External(name) = &signal.metric else { return None };
            let question = Question::of(signal)?;
            let seen = Rc::new(RefCell::new(Seen::default()));
            let task = tokio::task::spawn_local(ask_on(client.clone(), question, signal.interval, seen.clone()));
            Some(Watched { name: name.clone(), max_age: signal.max_age, seen, task })
        });
        External { watched: watched.collect() }
    }

    /// The values by name; those that are too old or not known yet are not there.
    pub fn values(&self) -> BTreeMap<String, f64> {
        let now = Instant::now();
        let fresh =
            self.watched.iter().filter_map(|one| Some((one.name.clone(), one.seen.borrow().fresh(one.max_age, now)?)));
        fresh.collect()
    }

    /// Those that are missing, and why.
    pub fn findings(&self) -> Vec<Finding> {
        let now = Instant::now();
        self.watched.iter().filter_map(|one| one.finding(now)).collect()
    }
}

impl Drop for External {
    fn drop(&mut self) {
        for one in &self.watched {
            one.task.abort();
        }
    }
}

impl Watched {
    fn finding(&self, now: Instant) -> Option<Finding> {
        let seen = self.seen.borrow();
        if seen.fresh(self.max_age, now).is_some() {
            return None;
        }
        // Nothing to say before the first question is through.
        let why = seen.wrong.as_deref().or(seen.value.map(|_| "it is not being answered"))?;
        let age = match seen.value {
            Some((_, at)) => format!("is {:.0} s old", now.saturating_duration_since(at).as_secs_f64()),
            None => "has never been answered".to_owned(),
        };
        Some(Finding {
            code: "EXTERNAL_STALE".to_owned(),
            severity: "warning".to_owned(),
            pool: None,
            text: format!("the external signal {:?} {age}: {why}", self.name),
            advice: "see to what is asked there, or correct the signal's `url`, `query` or `pointer`; until then the signal counts as missing, which never removes an instance".to_owned(),
        })
    }
}

impl Seen {
    fn fresh(&self, max_age: Duration, now: Instant) -> Option<f64> {
        self.value.filter(|(_, at)| now.saturating_duration_since(*at) <= max_age).map(|(value, _)| value)
    }
}

impl Question {
    fn of(signal: &model::Signal) -> Option<Question> {
        let url = signal.url.as_deref()?;
        let url = match &signal.query {
            None => url.to_owned(),
            Some(query) => {
                let query = utf8_percent_encode(query, NON_ALPHANUMERIC);
                format!("{}/api/v1/query?query={query}", url.trim_end_matches('/'))
            }
        };
        let pointer = signal.query.is_none().then(|| signal.pointer.clone().unwrap_or_default());
        Some(Question { url, pointer })
    }

    fn read(&self, answer: &Answer) -> Result<f64, String> {
        match &self.pointer {
            Some(pointer) => read_pointer(answer, pointer),
            None => read_prometheus(answer),
        }
    }
}

async fn ask_on(client: HttpClient, question: Question, interval: Duration, seen: Rc<RefCell<Seen>>) {
    // A server that was slow once is not asked twice at once afterwards.
    let mut ticks = tokio::time::interval(interval);
    ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        ticks.tick().await;
        let asked = Instant::now();
        let answer = client.get(&question.url, interval.min(TIMEOUT)).await;
        let read = answer.map_err(|error| error.to_string()).and_then(|answer| question.read(&answer));
        let mut seen = seen.borrow_mut();
        match read {
            // As old as the question: the answer may have been long on its way.
            Ok(value) => *seen = Seen { value: Some((value, asked)), wrong: None },
            Err(why) => seen.wrong = Some(why),
        }
    }
}

#[derive(Deserialize)]
struct Prometheus {
    status: String,
    #[serde(default)]
    error: String,
    data: Option<Found>,
}

#[derive(Deserialize)]
struct Found {
    #[serde(rename = "resultType")]
    kind: String,
    result: Value,
}

/// The value of an instant query.
///
/// **Source**: Prometheus' HTTP API, "Instant queries" and "Expression query result formats".
fn read_prometheus(answer: &Answer) -> Result<f64, String> {
    let unreadable =
        || format!("status {} with what is no answer of Prometheus ({:?})", answer.status, first_line(&answer.body));
    let told: Prometheus = serde_json::from_slice(&answer.body).map_err(|_| unreadable())?;
    if told.status != "success" {
        return Err(format!("Prometheus refuses the query: {}", first_line(told.error.as_bytes())));
    }
    let found = told.data.ok_or_else(unreadable)?;
    let sample = match found.kind.as_str() {
        "scalar" => &found.result[1],
        "vector" => match found.result.as_array().map(Vec::as_slice) {
            Some([one]) => &one["value"][1],
            Some([]) => return Err("the query finds no series".to_owned()),
            Some(series) => {
                let count = series.len();
                return Err(format!("the query finds {count} series; make them one with sum(…), max(…) or avg(…)"));
            }
            None => return Err(unreadable()),
        },
        kind => {
            return Err(format!(
                "the query gives a {kind}; it has to give one number: take the range or the quotes off it"
            ));
        }
    };
    finite(sample.as_str().and_then(|text| text.parse().ok()).ok_or_else(unreadable)?)
}

/// The number at a place in a JSON document.
fn read_pointer(answer: &Answer, pointer: &str) -> Result<f64, String> {
    if !(200..300).contains(&answer.status) {
        return Err(format!("status {}", answer.status));
    }
    let document: Value =
        serde_json::from_slice(&answer.body).map_err(|error| format!("the document is no JSON: {error}"))?;
    let found = document.pointer(pointer).ok_or_else(|| format!("there is nothing at {pointer:?} in the document"))?;
    let number = found.as_f64().or_else(|| found.as_str()?.trim().parse().ok());
    finite(number.ok_or_else(|| format!("what is at {pointer:?} in the document is no number"))?)
}

fn finite(value: f64) -> Result<f64, String> {
    if value.is_finite() { Ok(value) } else { Err(format!("the value is {value}")) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answer(status: u16, body: &str) -> Answer {
        Answer { status, body: body.to_owned().into() }
    }

    fn vector(samples: &[&str]) -> String {
        let series: Vec<_> =
            samples.iter().map(|value| serde_json::json!({ "metric": {}, "value": [1.5, value] })).collect();
        serde_json::json!({ "status": "success", "data": { "resultType": "vector", "result": series } }).to_string()
    }

    #[test]
    fn prometheus_answers_are_read_or_refused_with_a_reason() {
        let read = |body: &str| read_prometheus(&answer(200, body));
        assert_eq!(read(&vector(&["12.5"])), Ok(12.5));
        assert_eq!(read(r#"{"status":"success","data":{"resultType":"scalar","result":[1.0,"3"]}}"#), Ok(3.0));
        for (body, expected) in [
            (vector(&[]), "no series"),
            (vector(&["1", "2"]), "2 series; make them one"),
            (vector(&["NaN"]), "the value is NaN"),
            (vector(&["+Inf"]), "the value is inf"),
            (vector(&["x"]), "no answer of Prometheus"),
            (r#"{"status":"success","data":{"resultType":"matrix","result":[]}}"#.into(), "gives a matrix"),
            (
                r#"{"status":"error","errorType":"bad_data","error":"parse error"}"#.into(),
                "refuses the query: parse error",
            ),
            ("<html>".into(), "status 200 with what is no answer"),
        ] {
            let error = read(&body).unwrap_err();
            assert!(error.contains(expected), "{error}");
        }
    }

    #[test]
    fn a_pointer_finds_a_number_or_says_what_is_there() {
        let read = |pointer: &str| read_pointer(&answer(200, r#"{"queue":{"depth":[7,"8.5"]},"name":"x"}"#), pointer);
        assert_eq!((read("/queue/depth/0"), read("/queue/depth/1")), (Ok(7.0), Ok(8.5)));
        assert!(read("/queue/width").unwrap_err().contains("nothing at"));
        assert!(read("/name").unwrap_err().contains("no number"));
        assert_eq!(read_pointer(&answer(200, "4"), ""), Ok(4.0));
        assert_eq!(read_pointer(&answer(503, "4"), ""), Err("status 503".to_owned()));
    }

    #[test]
    fn a_query_is_part_of_the_url() {
        let signal = model::Signal {
            metric: "external:jobs".parse().unwrap(),
            target: "value:5".parse().unwrap(),
            url: Some("http://prometheus:9090/".into()),
            query: Some("sum(a{b=\"c d\"})".into()),
            pointer: None,
            interval: Duration::from_secs(15),
            max_age: Duration::from_secs(60),
            up_only: false,
        };
        let question = Question::of(&signal).unwrap();
        assert_eq!(question.url, "http://prometheus:9090/api/v1/query?query=sum%28a%7Bb%3D%22c%20d%22%7D%29");
    }

    #[test]
    fn a_value_is_fresh_up_to_its_age() {
        let at = Instant::now();
        let seen = Seen { value: Some((4.0, at)), wrong: None };
        let age = Duration::from_secs(60);
        assert_eq!(seen.fresh(age, at + age), Some(4.0));
        assert_eq!(seen.fresh(age, at + age + Duration::from_millis(1)), None);
    }
}
