use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::rc::Rc;

use futures_util::FutureExt;
use hickory_resolver::Resolver;
use hickory_resolver::config::{ConnectionConfig, NameServerConfig, ResolveHosts, ResolverConfig};
use hickory_resolver::net::runtime::TokioRuntimeProvider;
use hickory_resolver::proto::op::{Message, OpCode, ResponseCode};
use hickory_resolver::proto::rr::rdata::{A, AAAA, SRV};
use hickory_resolver::proto::rr::{Name, RecordType};
use tokio::net::UdpSocket;

use super::*;

/// Names as a test knows them, changing as it likes.
#[derive(Default)]
struct Fake {
    addresses: RefCell<HashMap<String, Found<IpAddr>>>,
    services: RefCell<HashMap<String, Found<Service>>>,
    asked: Cell<u32>,
}

impl Fake {
    fn set(&self, name: &str, addresses: &[&str], ttl: u64) {
        let records = addresses.iter().map(|text| text.parse().unwrap()).collect();
        self.addresses.borrow_mut().insert(name.to_owned(), Found { records, ttl: Duration::from_secs(ttl) });
    }

    fn forget(&self, name: &str) {
        self.addresses.borrow_mut().remove(name);
    }
}

impl Lookup for Fake {
    async fn addresses(&self, name: &str) -> Result<Found<IpAddr>, LookupError> {
        self.asked.set(self.asked.get() + 1);
        self.addresses.borrow().get(name).cloned().ok_or(LookupError("no such name".to_owned()))
    }

    async fn services(&self, name: &str) -> Result<Found<Service>, LookupError> {
        self.services.borrow().get(name).cloned().ok_or(LookupError("no such name".to_owned()))
    }
}

/// What a watch of a name tells in `seconds`, with the second of each; `change` is called before each second's questions.
fn watched(fake: &Fake, seconds: u64, change: impl Fn(u64)) -> Vec<String> {
    let (mut name, mut next, mut news) = (super::Watched::default(), Duration::ZERO, Vec::new());
    let address = Address::Host { name: "api.test".to_owned(), port: 80 };
    for second in 0..seconds {
        change(second);
        while next <= Duration::from_secs(second) {
            let answer = resolve(fake, &address).now_or_never().unwrap();
            let (told, pause) = name.learn(answer);
            next += pause;
            news.extend(told.map(|told| match told {
                Resolution::Found(found) => {
                    let addresses: Vec<_> = found.iter().map(|resolved| resolved.address.to_string()).collect();
                    format!("{second}: {}", addresses.join(" "))
                }
                Resolution::Failed(error) => format!("{second}: {error}"),
            }));
        }
    }
    news
}

#[test]
fn names_are_asked_for_again_when_their_records_run_out() {
    let fake = Fake::default();
    fake.set("api.test", &["10.0.0.2", "10.0.0.1", "fd00::1"], 20);
    let change = |second| {
        if second == 30 {
            fake.set("api.test", &["10.0.0.3"], 20);
        }
    };
    let news = watched(&fake, 60, change);
    assert_eq!(news, ["0: 10.0.0.1:80 10.0.0.2:80 [fd00::1]:80", "40: 10.0.0.3:80"]);
    assert_eq!(fake.asked.get(), 3);
}

#[test]
fn failures_keep_what_was_known_and_are_asked_again_less_and_less_often() {
    let fake = Fake::default();
    let change = |second| match second {
        // Asked at 0, 1, 3, 7, 15, 31.
        20 => fake.set("api.test", &["10.0.0.1"], 60),
        // Known since 31 for a minute; then it fails at 91, 92, 94, 98, 106.
        40 => fake.forget("api.test"),
        100 => fake.set("api.test", &["10.0.0.1"], 60),
        _ => {}
    };
    let news = watched(&fake, 160, change);
    assert_eq!(news, ["0: no such name", "31: 10.0.0.1:80", "91: no such name", "106: 10.0.0.1:80"]);
    assert_eq!(fake.asked.get(), 11);
}

#[test]
fn nobody_is_asked_more_than_once_a_second_nor_less_than_every_five_minutes() {
    for (ttl, asked) in [(0, 3000), (1_000_000, 10)] {
        let fake = Fake::default();
        fake.set("api.test", &["10.0.0.1"], ttl);
        watched(&fake, 3000, |_| {});
        assert_eq!(fake.asked.get(), asked);
    }
    let fake = Fake::default();
    watched(&fake, 3031, |_| {});
    assert_eq!(fake.asked.get(), 5 + 100, "five growing pauses, then every 30 seconds");
}

#[tokio::test(flavor = "local")]
async fn a_watch_tells_what_it_learns() {
    let fake = Fake::default();
    fake.set("api.test", &["10.0.0.1"], 60);
    let address = Address::Host { name: "api.test".to_owned(), port: 80 };
    let told = RefCell::new(Vec::new());
    let watching = watch(&fake, &address, |news| told.borrow_mut().push(news));
    let _ = tokio::time::timeout(Duration::from_millis(10), watching).await;
    assert!(matches!(&told.borrow()[..], [Resolution::Found(found)] if found[0].address.port() == 80));
}

#[tokio::test]
async fn services_bring_their_ports_weights_and_backups() {
    let fake = Fake::default();
    fake.set("a.test", &["10.0.0.1"], 30);
    fake.set("b.test", &["10.0.0.2", "10.0.0.3"], 10);
    let service = |priority, weight, port, target: &str| Service { priority, weight, port, target: target.to_owned() };
    let records = [service(10, 5, 8001, "a.test"), service(20, 0, 8002, "b.test"), service(0, 0, 0, "")];
    let ttl = Duration::from_secs(60);
    fake.services.borrow_mut().insert("_http._tcp.test".to_owned(), Found { records: records[..2].to_vec(), ttl });
    let address = Address::Srv("_http._tcp.test".to_owned());
    let found = resolve(&fake, &address).await.unwrap();
    let brief: Vec<_> =
        found.records.iter().map(|r| (r.address.to_string(), &*r.host, r.weight.unwrap(), r.backup)).collect();
    assert_eq!(
        brief,
        [
            ("10.0.0.1:8001".to_owned(), "a.test", 5, false),
            ("10.0.0.2:8002".to_owned(), "b.test", 1, true),
            ("10.0.0.3:8002".to_owned(), "b.test", 1, true)
        ]
    );
    assert_eq!(found.ttl, Duration::from_secs(10));

    fake.forget("b.test");
    assert!(resolve(&fake, &address).await.is_err(), "half an answer is none");
    fake.services.borrow_mut().insert("_http._tcp.test".to_owned(), Found { records: records[2..].to_vec(), ttl });
    assert!(resolve(&fake, &address).await.is_err());
}

type Zone = HashMap<(String, RecordType), Vec<Record>>;

/// A little name server on loopback; what it answers is looked up in `zone` by name and type.
struct Server {
    zone: Rc<RefCell<Zone>>,
    port: u16,
}

impl Server {
    async fn start() -> Self {
        let socket = UdpSocket::bind("127.0.0.1:0").await.unwrap();
        let port = socket.local_addr().unwrap().port();
        let zone: Rc<RefCell<Zone>> = Rc::default();
        let served = zone.clone();
        tokio::task::spawn_local(async move {
            let mut packet = [0; 1500];
            loop {
                let (bytes, client) = socket.recv_from(&mut packet).await.unwrap();
                let asked = Message::from_vec(&packet[..bytes]).unwrap();
                let query = asked.queries[0].clone();
                let name = query.name().to_ascii().to_ascii_lowercase();
                let zone = served.borrow().clone();
                let mut answer = Message::response(asked.metadata.id, OpCode::Query);
                if !zone.keys().any(|(known, _)| *known == name) {
                    answer.metadata.response_code = ResponseCode::NXDomain;
                }
                answer.add_answers(zone.get(&(name, query.query_type())).cloned().unwrap_or_default());
                answer.add_query(query);
                socket.send_to(&answer.to_vec().unwrap(), client).await.unwrap();
            }
        });
        Server { zone, port }
    }

    fn set(&self, name: &str, kind: RecordType, ttl: u32, records: Vec<RData>) {
        let owner = Name::from_ascii(name).unwrap();
        let records = records.into_iter().map(|data| Record::from_rdata(owner.clone(), ttl, data)).collect();
        self.zone.borrow_mut().insert((name.to_owned(), kind), records);
    }

    /// A resolver that asks this server and nobody else.
    fn resolver(&self) -> TokioResolver {
        let mut connection = ConnectionConfig::udp();
        connection.port = self.port;
        let mut server = NameServerConfig::udp(IpAddr::from([127, 0, 0, 1]));
        server.connections = vec![connection];
        let config = ResolverConfig::from_parts(None, vec![], vec![server]);
        let mut builder = Resolver::builder_with_config(config, TokioRuntimeProvider::default());
        let options = builder.options_mut();
        options.ip_strategy = LookupIpStrategy::Ipv4AndIpv6;
        options.cache_size = 0;
        options.use_hosts_file = ResolveHosts::Never;
        builder.build().unwrap()
    }
}

#[tokio::test(flavor = "local")]
async fn real_name_servers_are_understood_and_their_changes_seen() {
    let server = Server::start().await;
    let resolver = server.resolver();
    server.set("api.test.", RecordType::A, 7, vec![RData::A(A::new(10, 0, 0, 1)), RData::A(A::new(10, 0, 0, 2))]);
    server.set("api.test.", RecordType::AAAA, 5, vec![RData::AAAA(AAAA::new(0xfd00, 0, 0, 0, 0, 0, 0, 1))]);
    let mut found = addresses(&resolver, "api.test").await.unwrap();
    found.records.sort();
    assert_eq!(found.records.iter().map(IpAddr::to_string).collect::<Vec<_>>(), ["10.0.0.1", "10.0.0.2", "fd00::1"]);
    assert_eq!(found.ttl, Duration::from_secs(5));

    server.set("api.test.", RecordType::A, 7, vec![RData::A(A::new(10, 0, 0, 9))]);
    server.set("api.test.", RecordType::AAAA, 7, vec![]);
    let found = addresses(&resolver, "api.test").await.unwrap();
    assert_eq!(found.records.iter().map(IpAddr::to_string).collect::<Vec<_>>(), ["10.0.0.9"]);

    let target = Name::from_ascii("API.test.").unwrap();
    server.set("_http._tcp.test.", RecordType::SRV, 9, vec![RData::SRV(SRV::new(1, 2, 8001, target))]);
    let found = services(&resolver, "_http._tcp.test").await.unwrap();
    let service = Service { priority: 1, weight: 2, port: 8001, target: "api.test".to_owned() };
    assert_eq!(found, Found { records: vec![service], ttl: Duration::from_secs(9) });

    assert_eq!(addresses(&resolver, "absent.test").await, Err(LookupError("no such name".to_owned())));
    assert!(services(&resolver, "api.test").await.is_err());
}

#[tokio::test(flavor = "local")]
async fn localhost_needs_no_name_server() {
    let found = SystemLookup::new().addresses("localhost").await.unwrap();
    assert!(found.records.iter().any(|ip| ip.is_loopback()), "{found:?}");
    assert!(found.records.iter().all(|ip| ip.is_loopback()), "{found:?}");
}

#[test]
fn a_watch_can_run_on_any_runtime() {
    fn sendable<T: Send>(_: T) {}
    let (system, address) = (SystemLookup::new(), Address::Srv("_http._tcp.test".to_owned()));
    sendable(watch(&system, &address, |_| {}));
}
