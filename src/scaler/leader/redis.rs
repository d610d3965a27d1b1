use std::time::{Duration, Instant};

use futures_util::future::LocalBoxFuture;
use redis::aio::MultiplexedConnection;
use redis::{AsyncConnectionConfig, Client, ErrorKind, RedisError, Script};
use ring::rand::{SecureRandom, SystemRandom};

use super::{Election, ElectionError, Standing};
use crate::config::model::Secret;

/// Takes the key where nobody has it, renews it where it is ours, and tells who has it. One step for Redis, so that no two can both succeed.
///
/// The generation grows with each change of leader, also over what a Redis that has lost its data says: candidates bring the highest they have seen.
const CAMPAIGN: &str = r"
local holder = redis.call('GET', KEYS[1])
local generation = math.max(tonumber(redis.call('GET', KEYS[2]) or '0'), tonumber(ARGV[3]))
if not holder then
    generation = generation + 1
    redis.call('SET', KEYS[2], generation)
    redis.call('SET', KEYS[1], ARGV[1], 'NX', 'PX', ARGV[2])
    holder = ARGV[1]
elseif holder == ARGV[1] then
    redis.call('PEXPIRE', KEYS[1], ARGV[2])
end
return {holder, generation}
";

const RESIGN: &str = "if redis.call('GET', KEYS[1]) == ARGV[1] then return redis.call('DEL', KEYS[1]) end return 0";

/// An election on a key in Redis that expires: whoever holds it leads.
///
/// A leader that cannot renew in time does not lead, by its own clock, before its key can expire: each campaign takes half a lease at most, and the
/// next one comes after a third. One Redis is asked; where several copy each other, two can lead for a moment after a failover, and only the
/// generation tells them apart.
///
/// Why not Redlock: it needs several independent Redis servers, which nobody has who asks for this.
#[derive(Debug)]
pub struct RedisLock {
    client: Result<Client, ElectionError>,
    connection: Option<MultiplexedConnection>,
    key: String,
    identity: String,
    /// The identity made unique: two processes may have the same name.
    token: String,
    lease: Duration,
    /// The highest that was seen.
    generation: u64,
}

impl RedisLock {
    /// A candidate of this name for the key `name` of the Redis at this URL. Nothing is connected yet.
    pub fn new(url: &Secret, name: &str, identity: String, lease: Duration) -> RedisLock {
        let client = Client::open(url.expose()).map_err(|error| ElectionError {
            // Not the URL: it may hold a password.
            what: format!("`scaler.leader.redis` is no address of a Redis: {error}"),
            advice: "write it as redis://[:password@]host:port/db or unix:/path/of/socket".to_owned(),
        });
        let mut random = [0; 8];
        // Without randomness the process's own number still tells most apart.
        let _ = SystemRandom::new().fill(&mut random);
        let token = format!("{identity}/{}-{:016x}", std::process::id(), u64::from_le_bytes(random));
        RedisLock { client, connection: None, key: name.to_owned(), identity, token, lease, generation: 0 }
    }

    async fn stand(&mut self) -> Result<Standing, ElectionError> {
        let (began, bound) = (Instant::now(), self.lease / 2);
        let answer = tokio::time::timeout(bound, self.ask()).await;
        let (holder, generation) = match answer {
            Ok(Ok(told)) => told,
            Ok(Err(error)) => {
                self.connection = None;
                return Err(error);
            }
            Err(_) => {
                self.connection = None;
                let seconds = bound.as_secs_f64();
                return Err(unreached(format!("Redis has not answered within {seconds} s, half a lease")));
            }
        };
        self.generation = self.generation.max(generation);
        let ours = holder == self.token;
        // This process may have been stopped while the answer lay ready; the key counts from before the question.
        if ours && began.elapsed() >= self.lease {
            return Err(unreached("the answer of Redis was read only after the lease was over".to_owned()));
        }
        let leader = if ours {
            self.identity.clone()
        } else {
            holder.rsplit_once('/').map_or(holder.clone(), |(name, _)| name.to_owned())
        };
        Ok(Standing { leads: ours, leader: Some(leader), generation })
    }

    async fn ask(&mut self) -> Result<(String, u64), ElectionError> {
        let mut connection = self.connected().await?;
        let lease = u64::try_from(self.lease.as_millis()).unwrap_or(u64::MAX);
        let script = Script::new(CAMPAIGN);
        let mut campaign = script.key(&self.key);
        campaign.key(format!("{}:generation", self.key)).arg(&self.token).arg(lease).arg(self.generation);
        campaign.invoke_async(&mut connection).await.map_err(|error| failed(&error))
    }

    async fn connected(&mut self) -> Result<MultiplexedConnection, ElectionError> {
        if let Some(connection) = &self.connection {
            return Ok(connection.clone());
        }
        let client = self.client.as_ref().map_err(Clone::clone)?;
        let config = AsyncConnectionConfig::new()
            .set_connection_timeout(Some(self.lease / 2))
            .set_response_timeout(Some(self.lease / 2));
        let connection =
            client.get_multiplexed_async_connection_with_config(&config).await.map_err(|error| failed(&error))?;
        Ok(self.connection.insert(connection).clone())
    }

    async fn give_up(&mut self) -> Result<(), ElectionError> {
        let mut connection = self.connected().await?;
        let script = Script::new(RESIGN);
        let resigned = script.key(&self.key).arg(&self.token).invoke_async::<u64>(&mut connection).await;
        resigned.map(drop).map_err(|error| failed(&error))
    }
}

impl Election for RedisLock {
    fn campaign(&mut self) -> LocalBoxFuture<'_, Result<Standing, ElectionError>> {
        Box::pin(self.stand())
    }

    fn resign(&mut self) -> LocalBoxFuture<'_, ()> {
        Box::pin(async {
            // Where it cannot be said, the key expires.
            let _ = tokio::time::timeout(self.lease / 2, self.give_up()).await;
        })
    }
}

fn unreached(what: String) -> ElectionError {
    let advice = "see that Redis runs and is reached at `scaler.leader.redis`; until then nobody leads and the pools stay as they are";
    ElectionError { what, advice: advice.to_owned() }
}

fn failed(error: &RedisError) -> ElectionError {
    if error.is_io_error() || error.is_timeout() {
        return unreached(format!("Redis cannot be reached: {error}"));
    }
    let advice = match error.kind() {
        ErrorKind::AuthenticationFailed => "correct the password in `scaler.leader.redis`",
        _ => {
            "see what Redis says; it needs version 2.6 or later, has to be writable (no replica), and its user has to be allowed GET, SET, PEXPIRE, DEL and EVALSHA"
        }
    };
    ElectionError { what: format!("Redis refuses: {error}"), advice: advice.to_owned() }
}
