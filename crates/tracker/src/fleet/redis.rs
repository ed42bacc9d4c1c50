//! The store: Redis or Valkey, as one server or as a cluster.
//!
//! This file and [`target`] are the only ones that name the client crate. `redis` was chosen over `fred` because it has more users and more frequent
//! releases, and shares its versions of `rand`, `socket2` and `tokio` with the rest of Shoal.

mod target;

use std::{collections::BTreeMap, time::Duration};

use redis::{
    AsyncConnectionConfig, Client, Cmd, FromRedisValue, Pipeline, RedisError, Value,
    aio::{MultiplexedConnection, PubSubStream},
    cluster::ClusterClient,
    cluster_async::ClusterConnection,
    cluster_routing::{Route, RoutingInfo, SingleNodeRoutingInfo, SlotAddr},
};
use tokio::{task::JoinSet, time::timeout};
use tokio_stream::StreamExt;

use super::{
    feed::{Change, TrackerId, encode},
    layout::{self, Bucket},
    members::{Tag, peer_member, records_of, tag, title_members},
    record::{Record, Score},
    secret::FleetSecret,
    time::StoreTime,
};
pub use target::{Credentials, StoreError, Target};

/// Maximum time to connect.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(3);

/// A store that does not answer a command for this long counts as gone.
const RESPONSE_TIMEOUT: Duration = Duration::from_secs(3);

/// The oldest version that has all commands which are used.
const MIN_VERSION: (u32, u32) = (6, 2);

/// Maximum members that one waiting lookup reads of the bucket of its share: the newest. It is more than an answer has, and takes the store
/// two milliseconds.
const MAX_READ: usize = 2_000;

/// Keys that one step of a scan looks at. With a million shares that is 1,600 of them, and takes the store some milliseconds.
const SCAN_STEP: usize = 100;

/// The secret of the fleet goes when no tracker has renewed it for this long.
const FLEET_LASTS: Duration = Duration::from_secs(24 * 60 * 60);

/// A bucket lasts longer than its last registration by this.
const KEY_MARGIN: Duration = Duration::from_secs(10);

/// In one batch of this many, the expired members of its buckets are removed. Readers leave them out anyway.
const TRIM_EVERY: u64 = 8;

/// A connection to the store. Clones share it.
#[derive(Clone)]
pub(super) struct Store {
    connection: Connection,
    /// A hash slot of each primary, in a cluster.
    slots: Vec<u16>,
    batches: u64,
}

#[derive(Clone)]
enum Connection {
    One(MultiplexedConnection),
    Cluster(ClusterConnection),
}

/// What others publish.
pub(super) struct Feed(PubSubStream);

/// A message that was published.
pub(super) struct Message(redis::Msg);

/// What the store says about itself and the fleet.
pub(super) struct Check {
    pub(super) now: StoreTime,
    pub(super) secret: FleetSecret,
    /// Since when the registrations of the fleet are in the store.
    pub(super) since: StoreTime,
}

/// Where a batch is written, and how long it lasts there.
pub(super) struct Lasting {
    pub(super) secret: FleetSecret,
    /// How long a peer stays without an announce.
    pub(super) expire: Duration,
    pub(super) now: StoreTime,
}

/// How far a scan of all buckets is.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Cursor {
    node: usize,
    at: u64,
}

impl Store {
    /// Connects, and finds out whether this is a cluster, and whether its version will do.
    pub(super) async fn connect(target: &Target) -> Result<Store, StoreError> {
        within(CONNECT_TIMEOUT, async {
            // It fails if the process has another provider already, which is as good.
            let _ = rustls::crypto::ring::default_provider().install_default();
            let client = Client::open(target.info.clone())?;
            let config = AsyncConnectionConfig::new()
                .set_connection_timeout(Some(CONNECT_TIMEOUT))
                .set_response_timeout(Some(RESPONSE_TIMEOUT));
            let mut one = client.get_multiplexed_async_connection_with_config(&config).await?;
            let info: String = redis::cmd("INFO").query_async(&mut one).await?;
            check_version(&info)?;
            if field(&info, "cluster_enabled") != Some("1") {
                return Ok(Store { connection: Connection::One(one), slots: Vec::new(), batches: 0 });
            }
            let slots: Value = redis::cmd("CLUSTER").arg("SLOTS").query_async(&mut one).await?;
            let client = ClusterClient::builder([target.info.clone()])
                .connection_timeout(CONNECT_TIMEOUT)
                .response_timeout(RESPONSE_TIMEOUT)
                .retries(2)
                .build()?;
            let connection = Connection::Cluster(client.get_async_connection().await?);
            Ok(Store { connection, slots: slots_of_primaries(&slots), batches: 0 })
        })
        .await
    }

    /// Subscribes to what others publish.
    pub(super) async fn subscribe(target: &Target) -> Result<Feed, StoreError> {
        within(CONNECT_TIMEOUT, async {
            let mut subscriber = Client::open(target.info.clone())?.get_async_pubsub().await?;
            subscriber.subscribe(layout::FEED).await?;
            Ok(Feed(subscriber.into_on_message()))
        })
        .await
    }

    /// Asks for the time and the secret of the fleet, and sets the secret to `own` if there is none. Publishes nothing but that this tracker
    /// is there.
    pub(super) async fn check(&mut self, from: TrackerId, own: &FleetSecret) -> Result<Check, StoreError> {
        let lasts_ms = millis(FLEET_LASTS);
        let mut asking = redis::pipe();
        asking
            .cmd("TIME")
            .cmd("GET")
            .arg(layout::FLEET)
            .cmd("PEXPIRE")
            .arg(layout::FLEET)
            .arg(lasts_ms)
            .ignore();
        let ((seconds, micros), mut known): ((u64, u64), Option<Vec<u8>>) = self.run(&asking).await?;
        let now = StoreTime(seconds.saturating_mul(1_000).saturating_add(micros / 1_000));
        if known.is_none() {
            let value = [&own.0[..], &now.0.to_le_bytes()].concat();
            let mut setting = redis::pipe();
            setting.cmd("SET").arg(layout::FLEET).arg(value).arg("NX").arg("PX").arg(lasts_ms).ignore();
            setting.cmd("GET").arg(layout::FLEET);
            (known,) = self.run(&setting).await?;
        }
        self.publish(encode(from, &[])).await?;
        let known = known.unwrap_or_default();
        let (Some(secret), Some(since)) = (known.first_chunk::<32>(), known.last_chunk::<8>()) else {
            return Err(StoreError::Unusable(format!("{} holds something else", layout::FLEET)));
        };
        Ok(Check { now, secret: FleetSecret(*secret), since: StoreTime(u64::from_le_bytes(*since)) })
    }

    /// Writes a batch of changes, and publishes it. It is published even if the store has no room for it.
    pub(super) async fn write(
        &mut self,
        from: TrackerId,
        changes: &[Change],
        rules: &Lasting,
    ) -> Result<(), StoreError> {
        self.batches += 1;
        let is_cluster = matches!(self.connection, Connection::Cluster(_));
        let node_of = |bucket: Bucket| if is_cluster { bucket.part() } else { 0 };
        let mut sorted: Vec<(Bucket, &Change)> = changes
            .iter()
            .map(|change| (Bucket::of(&change.record().known.infohash, &rules.secret), change))
            .collect();
        sorted.sort_unstable_by_key(|&(bucket, _)| (node_of(bucket), bucket));
        let mut work = Vec::new();
        for changes in sorted.chunk_by(|(one, _), (other, _)| node_of(*one) == node_of(*other)) {
            let mut pipeline = Pipeline::with_capacity(2 * changes.len() + 1);
            for changes in changes.chunk_by(|(one, _), (other, _)| one == other) {
                add_bucket(&mut pipeline, changes, rules, self.batches);
            }
            work.push(pipeline);
        }
        let message = encode(from, changes);
        match &mut self.connection {
            Connection::One(_) => {
                let mut pipeline = work.pop().unwrap_or_default();
                pipeline.cmd("PUBLISH").arg(layout::FEED).arg(message);
                self.run(&pipeline).await
            }
            Connection::Cluster(_) => {
                let mut written = JoinSet::new();
                for pipeline in work {
                    let mut store = self.clone();
                    written.spawn(async move { store.run::<()>(&pipeline).await });
                }
                let published = self.publish(message).await;
                let mut result = published;
                while let Some(part) = written.join_next().await {
                    let part = part.unwrap_or_else(|error| Err(StoreError::Lost(error.to_string())));
                    result = result.and(part);
                }
                result
            }
        }
    }

    /// The registrations in a share and in those that lie with it, the newest if there are many.
    pub(super) async fn read(&mut self, bucket: Bucket, now: StoreTime) -> Result<Vec<Record>, StoreError> {
        let mut reading = redis::pipe();
        reading.cmd("ZREVRANGEBYSCORE").arg(bucket.key()).arg("+inf").arg(after(now));
        reading.arg("WITHSCORES").arg("LIMIT").arg(0).arg(MAX_READ);
        let (members,): (Vec<(Vec<u8>, String)>,) = self.run(&reading).await?;
        Ok(records(&members))
    }

    /// The registrations in some buckets from `cursor` on, and where to go on.
    pub(super) async fn scan(
        &mut self,
        cursor: Cursor,
        now: StoreTime,
    ) -> Result<(Vec<Record>, Option<Cursor>), StoreError> {
        let mut scanning = redis::cmd("SCAN");
        scanning.arg(cursor.at).arg("MATCH").arg(layout::BUCKETS).arg("COUNT").arg(SCAN_STEP);
        let (at, keys): (u64, Vec<Vec<u8>>) = match &mut self.connection {
            Connection::One(connection) => scanning.query_async(connection).await?,
            Connection::Cluster(_) => {
                let slot = self.slots.get(cursor.node).copied().unwrap_or(0);
                self.ask_node(scanning, slot).await?
            }
        };
        let mut parts: BTreeMap<u16, Vec<Bucket>> = BTreeMap::new();
        for bucket in keys.iter().filter_map(|key| Bucket::with_key(key)) {
            let part = if let Connection::One(_) = self.connection { 0 } else { bucket.part() };
            parts.entry(part).or_default().push(bucket);
        }
        let mut found = Vec::new();
        for buckets in parts.values() {
            let mut reading = redis::pipe();
            for bucket in buckets {
                reading.cmd("ZRANGEBYSCORE").arg(bucket.key()).arg(after(now)).arg("+inf").arg("WITHSCORES");
            }
            let members: Vec<Vec<(Vec<u8>, String)>> = self.run(&reading).await?;
            found.extend(members.iter().flat_map(|members| records(members)));
        }
        let next = match at {
            0 => Cursor { node: cursor.node + 1, at: 0 },
            at => Cursor { at, ..cursor },
        };
        let nodes = self.slots.len().max(1);
        Ok((found, Some(next).filter(|next| next.node < nodes)))
    }

    async fn publish(&mut self, message: Vec<u8>) -> Result<(), StoreError> {
        let mut publishing = redis::cmd("PUBLISH");
        publishing.arg(layout::FEED).arg(message);
        let _: u64 = match &mut self.connection {
            Connection::One(connection) => publishing.query_async(connection).await?,
            Connection::Cluster(connection) => publishing.query_async(connection).await?,
        };
        Ok(())
    }

    async fn run<T: FromRedisValue>(&mut self, pipeline: &Pipeline) -> Result<T, StoreError> {
        Ok(match &mut self.connection {
            Connection::One(connection) => pipeline.query_async(connection).await?,
            Connection::Cluster(connection) => pipeline.query_async(connection).await?,
        })
    }

    /// Asks the primary that has `slot`.
    async fn ask_node<T: FromRedisValue>(&mut self, command: Cmd, slot: u16) -> Result<T, StoreError> {
        Ok(match &mut self.connection {
            Connection::One(connection) => command.query_async(connection).await?,
            Connection::Cluster(connection) => {
                let route = SingleNodeRoutingInfo::SpecificNode(Route::new(slot, SlotAddr::Master));
                let value = connection.route_command(command, RoutingInfo::SingleNode(route)).await?;
                redis::from_redis_value(value).map_err(RedisError::from)?
            }
        })
    }
}

impl Feed {
    /// The next message; `None` when the connection is over.
    pub(super) async fn next(&mut self) -> Option<Message> {
        self.0.next().await.map(Message)
    }
}

impl Message {
    pub(super) fn bytes(&self) -> &[u8] {
        self.0.get_payload_bytes()
    }
}

/// Adds the commands that write what changed in one bucket.
fn add_bucket(pipeline: &mut Pipeline, changes: &[(Bucket, &Change)], rules: &Lasting, batch: u64) {
    let Some(&(bucket, _)) = changes.first() else { return };
    let key = bucket.key();
    let mut gone = Vec::new();
    let mut adding = Cmd::with_capacity(3 + 4 * changes.len(), 96 + 128 * changes.len());
    adding.arg("ZADD").arg(&key).arg("GT");
    // Nearly always one.
    let mut titles: Vec<(&Record, Tag, Score)> = Vec::new();
    for (_, change) in changes {
        let record = match change {
            Change::Present(record) => record,
            Change::Gone(record) => {
                gone.push(peer_member(record, tag(record)));
                continue;
            }
        };
        let score = record.score();
        let tag = match titles.iter_mut().find(|(of, ..)| have_one_title(of, record)) {
            Some((_, tag, latest)) => {
                *latest = score.max(*latest);
                *tag
            }
            None => {
                let tag = tag(record);
                titles.push((record, tag, score));
                tag
            }
        };
        adding.arg(score.0).arg(peer_member(record, tag));
    }
    if !gone.is_empty() {
        pipeline.cmd("ZREM").arg(&key).arg(gone);
    }
    if !titles.is_empty() {
        for (record, tag, Score(latest)) in titles {
            title_members(record, tag).into_iter().for_each(|member| {
                adding.arg(latest).arg(member);
            });
        }
        let mut lasting = Cmd::with_capacity(3, 64);
        lasting.arg("PEXPIRE").arg(&key).arg(millis(rules.expire + KEY_MARGIN));
        pipeline.add_command(adding).add_command(lasting);
    }
    if batch.wrapping_add(bucket.0.into()).is_multiple_of(TRIM_EVERY) {
        pipeline.cmd("ZREMRANGEBYSCORE").arg(&key).arg("-inf").arg(Score::over_at(rules.now).0);
    }
}

/// Whether two records are of one share, with one name.
fn have_one_title(one: &Record, other: &Record) -> bool {
    let (one, other) = (&one.known, &other.known);
    one.infohash == other.infohash && one.size == other.size && one.name == other.name
}

/// The bound of scores of what is not over at `now`.
fn after(now: StoreTime) -> String {
    format!("({}", Score::over_at(now).0)
}

fn records(members: &[(Vec<u8>, String)]) -> Vec<Record> {
    records_of(members.iter().filter_map(|(member, score)| Some((&member[..], Score(score.parse().ok()?)))))
}

/// A line `name:value` of the answer to `INFO`.
fn field<'a>(info: &'a str, name: &str) -> Option<&'a str> {
    info.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':')).map(str::trim)
}

fn check_version(info: &str) -> Result<(), StoreError> {
    let Some(version) = field(info, "redis_version") else { return Ok(()) };
    let mut numbers = version.split('.').map_while(|part| part.parse().ok());
    let found: (u32, u32) = (numbers.next().unwrap_or(0), numbers.next().unwrap_or(0));
    if found < MIN_VERSION {
        let (major, minor) = MIN_VERSION;
        return Err(StoreError::Unusable(format!("its version {version} is older than {major}.{minor}")));
    }
    Ok(())
}

/// A hash slot of each primary, from the answer to `CLUSTER SLOTS`.
fn slots_of_primaries(answer: &Value) -> Vec<u16> {
    let mut slots = Vec::new();
    let mut seen = Vec::new();
    let Value::Array(ranges) = answer else { return slots };
    for range in ranges {
        if let Value::Array(range) = range
            && let [Value::Int(first), _, Value::Array(primary), ..] = &range[..]
            && let (Ok(first), Some(address)) = (u16::try_from(*first), primary.get(..2))
            && !seen.contains(&address)
        {
            seen.push(address);
            slots.push(first);
        }
    }
    slots
}

async fn within<T>(
    time: Duration,
    work: impl Future<Output = Result<T, StoreError>>,
) -> Result<T, StoreError> {
    let late = || StoreError::Lost(format!("no answer within {} seconds", time.as_secs()));
    timeout(time, work).await.unwrap_or_else(|_| Err(late()))
}

fn millis(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn old_versions_are_refused_and_those_of_valkey_count_by_what_they_are_compatible_with() {
        let info = |version: &str| format!("# Server\r\nredis_version:{version}\r\nvalkey_version:8.0.1\r\n");
        assert!(
            ["6.2.0", "7.0.15", "7.2.4", "10.0", "255.255.255"]
                .iter()
                .all(|version| check_version(&info(version)).is_ok())
        );
        assert!(["6.0.16", "5.0.3", "2.8"].iter().all(|version| check_version(&info(version)).is_err()));
    }

    #[test]
    fn a_cluster_is_scanned_once_at_each_primary() {
        let node = |port| Value::Array(vec![Value::BulkString(b"127.0.0.1".to_vec()), Value::Int(port)]);
        let range = |first, last, port| {
            Value::Array(vec![Value::Int(first), Value::Int(last), node(port), node(port + 100)])
        };
        let answer = Value::Array(vec![range(0, 99, 1), range(100, 199, 2), range(200, 16_383, 1)]);
        assert_eq!(slots_of_primaries(&answer), [0, 100]);
    }
}
