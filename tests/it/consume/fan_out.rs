//! Enhanced fan-out: records that the endpoint pushes.
//!
//! Invariant: the lines do not say where they come from, so that nothing but the place in the shard tells
//! what was dealt with. Ferrokinesis begins a subscription at the oldest record, whatever place it is asked
//! for: that the place is asked for, `tests/interop` shows with another endpoint.

use std::fs;
use std::io::{Read, Write};
use std::net::{Ipv4Addr, Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant};

use fastrand::Rng;
use ferrokinesis::actions::{Operation, dispatch};
use ferrokinesis::create_app;
use ferrokinesis::store::StoreOptions;
use serde_json::json;

use super::{CONSUMER, PRODUCE, both, consume, endpoint, files};
use crate::resharding::{self, Reading};
use crate::scene::{DEADLINE, status, stop};
use crate::sharing::{self, Place};
use crate::support::agent::Home;
use crate::support::dynamodb::DynamoDb;
use crate::support::generator;
use crate::support::oracle::{Oracle, Shape};
use crate::support::writer::{LogWriter, Pace};

const FAN_OUT: &str = "    fan_out: kinetail\n";

/// How long a subscription lasts.
const SESSION: Duration = Duration::from_secs(2);

/// Starts an endpoint with the stream `web`, whose subscriptions are short.
fn hasty_endpoint(shards: u32) -> String {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let (app, store) = create_app(StoreOptions {
        create_stream_ms: 0,
        subscribe_to_shard_session_ms: u64::try_from(SESSION.as_millis()).unwrap(),
        ..StoreOptions::default()
    });
    let request = json!({ "StreamName": "web", "ShardCount": shards });
    runtime.block_on(dispatch(&store, Operation::CreateStream, request)).unwrap();
    let listener =
        runtime.block_on(tokio::net::TcpListener::bind((Ipv4Addr::LOCALHOST, 0))).unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    thread::spawn(move || runtime.block_on(async { axum::serve(listener, app).await }));
    url
}

/// A relay that breaks all connections off when it is told to.
struct Breaker {
    address: SocketAddr,
    open: Arc<Mutex<Vec<TcpStream>>>,
}

impl Breaker {
    fn before(url: &str) -> Self {
        let endpoint: SocketAddr = url.strip_prefix("http://").unwrap().parse().unwrap();
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let address = listener.local_addr().unwrap();
        let open = Arc::new(Mutex::new(Vec::new()));
        let opened = Arc::clone(&open);
        thread::spawn(move || {
            for client in listener.incoming().map_while(Result::ok) {
                let server = TcpStream::connect(endpoint).unwrap();
                opened.lock().unwrap().push(client.try_clone().unwrap());
                for (from, to) in [(&client, &server), (&server, &client)] {
                    let (from, to) = (from.try_clone().unwrap(), to.try_clone().unwrap());
                    thread::spawn(move || pass_on(from, to));
                }
            }
        });
        Self { address, open }
    }

    fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    fn break_off(&self) {
        for connection in self.open.lock().unwrap().drain(..) {
            // One that has ended is no longer to be broken off.
            let _ended = connection.shutdown(Shutdown::Both);
        }
    }
}

/// Passes bytes on in small pieces, so that what is broken off is often in the middle of an event.
fn pass_on(mut from: TcpStream, mut to: TcpStream) {
    let mut buffer = [0; 1024];
    while let Ok(read @ 1..) = from.read(&mut buffer) {
        if to.write_all(&buffer[..read]).is_err() {
            break;
        }
    }
    let _gone = to.shutdown(Shutdown::Both);
}

/// "appended files hold each line once", in order, while subscriptions end, connections break off in the
/// middle of an event, and the consumer is killed and stopped.
#[test]
fn what_is_pushed_is_written_once_whatever_ends_the_subscription() {
    let seed = 87;
    eprintln!("seed {seed}");
    let url = hasty_endpoint(3);
    let breaker = Breaker::before(&url);
    let source = Home::new(&url, &PRODUCE.replace("format: kpl, ", ""));
    let settings = [CONSUMER, &consume(FAN_OUT)].concat();
    let home = Home::new(&breaker.url(), &settings);
    let oracle = Oracle::new(seed, Shape::Wild);
    let shipping = source.start();
    let writers: Vec<LogWriter> = (0..4)
        .map(|n| source.logs().join(format!("{n}.log")))
        .map(|path| LogWriter::start(&path, oracle.minter(), Pace::rate(200)))
        .collect();
    let mut draws = Rng::with_seed(seed);
    for round in 0..6 {
        let agent = home.start();
        if round % 3 == 2 {
            let before = lines(&home);
            more_than(&home, before);
            stop(agent);
        } else {
            // Any moment is a fair one.
            thread::sleep(Duration::from_millis(draws.u64(0..2500)));
            agent.kill();
        }
    }
    let agent = home.start();
    for _ in 0..3 {
        more_than(&home, lines(&home));
        breaker.break_off();
    }
    // By now the last subscription is one that was begun after a break.
    more_than(&home, lines(&home));
    for writer in writers {
        drop(writer.stop());
    }
    let end = Instant::now() + DEADLINE;
    while oracle.judge_files(&home.out()).missing.count > 0 && Instant::now() < end {
        thread::sleep(Duration::from_millis(50));
    }
    oracle.judge_files(&home.out()).assert_exactly_once();
    let told = status(&home, "its shards are read", |status| {
        let shards = status["consumers"][0]["shards"].as_array();
        shards.is_some_and(|all| all.iter().all(|shard| shard["millis_behind_latest"] == 0))
    });
    assert_eq!(told["consumers"][0]["shards"].as_array().unwrap().len(), 3, "{told:#}");
    stop(shipping);
    stop(agent);
    oracle.judge_files(&home.out()).assert_exactly_once();
}

fn lines(home: &Home) -> usize {
    let count = |file| memchr::memchr_iter(b'\n', &fs::read(file).unwrap()).count();
    files(&home.out()).into_iter().map(count).sum()
}

fn more_than(home: &Home, before: usize) {
    let end = Instant::now() + DEADLINE;
    while lines(home) <= before {
        assert!(Instant::now() < end, "{:#}", home.status(DEADLINE));
        thread::sleep(Duration::from_millis(20));
    }
}

/// `run --once` ends once all that is in the stream is written, and a second run adds nothing.
#[test]
fn a_run_that_ends_by_itself_writes_all_that_is_pushed() {
    let home = Home::new(&endpoint("web", 2), &both(FAN_OUT));
    generator::generate(&home.logs(), 88, 4, 400_000).unwrap();
    for _ in 0..2 {
        let finished = home.once(DEADLINE);
        assert_eq!(finished.code(), Some(0), "{finished:?}");
    }
    super::assert_appended(&home);
}

/// Shards split and merged under subscriptions: nothing is lost, and children come after their parents.
#[test]
fn across_splits_and_merges_what_is_pushed_is_each_log() {
    let url = endpoint("resharded", 2);
    assert_eq!(resharding::reshard(&url, 85, Reading::Pushed), 2 + 4 + 2 + 4 + 2);
}

/// Three consumers of one table and one name: a lease that is lost ends the subscription, and every line is
/// written once, or repeated where one was killed or paused.
#[test]
fn consumers_that_share_a_table_and_a_name_write_every_line() {
    let (kinesis, dynamodb) = (endpoint("shared", 12), DynamoDb::start());
    let url = dynamodb.url();
    let place = Place { kinesis: &kinesis, dynamodb: &url, table: "leases", fan_out: "kinetail" };
    let outcome = sharing::share(&place, 89, Duration::ZERO, 3);
    assert_eq!(outcome.stops, [1, 1, 1]);
    assert_eq!(dynamodb.refused(), 0);
}
