//! The life of the agent: how it starts, ends, and says how it is.

use std::net::SocketAddr;
use std::time::Instant;

use rustix::process::Signal;

use super::scene::{
    DEADLINE, Scene, Settings, append, assert_books_balance, http, number, problems, stop,
};
use crate::support::agent::Agent;
use crate::support::endpoint::{EntryFault, Script, Throttle};
use crate::support::oracle::{Layout, Order};

/// Returns the address that the agent says its metrics are served at.
fn metrics_address(agent: &Agent) -> SocketAddr {
    agent.wait_for_stderr("metrics are served", DEADLINE, |log| log.contains("metrics are served"));
    let log = agent.stderr();
    let line = log.lines().find(|line| line.contains("metrics are served")).unwrap();
    let event: serde_json::Value = serde_json::from_str(line).unwrap();
    event["address"].as_str().unwrap().parse().unwrap()
}

/// `--once` ends with 0 when every byte present at the start is acknowledged, and says what it did.
#[test]
fn once_ships_what_is_there_and_ends() {
    let scene = Scene::new(80, &Settings::default(), Script::healthy());
    for file in 0..3 {
        drop(scene.write(file, 1_000));
    }
    append(&scene.home.logs().join("empty.log"), b"");
    let finished = scene.home.once(DEADLINE);
    assert_eq!(finished.code(), Some(0), "{finished:?}");
    assert!(finished.stdout.contains("3,000 lines"), "{finished:?}");
    let records = scene.endpoint.accepted();
    scene.oracle.verify(&records, &Layout::Slices, Order::WithinFile).assert_exactly_once();
    scene.at_rest();
    let again = scene.home.once(DEADLINE);
    assert_eq!(again.code(), Some(0), "{again:?}");
    assert_eq!(scene.endpoint.with_log(|log| log.stored), records.len() as u64, "nothing was left");
}

/// `--once` over nothing is done at once.
#[test]
fn once_with_nothing_to_do_is_done() {
    let scene = Scene::new(81, &Settings::default(), Script::healthy());
    let finished = scene.home.once(DEADLINE);
    assert_eq!(finished.code(), Some(0), "{finished:?}");
}

/// `--once` that is interrupted says "try again" (75), and again goes on where it was.
#[test]
fn once_interrupted_says_try_again() {
    let settings = Settings {
        top: "drain_deadline: 200 ms\n",
        key: "{ regex: '^\\d+:(\\d)' }",
        ..Settings::default()
    };
    let scene = Scene::new(82, &settings, Script::healthy().throttle(1, Throttle::Always));
    drop(scene.write(0, 3_000));
    let mut command = scene.home.command(&["run", "--once", "--config"]);
    let agent = Agent::spawn(command.arg(scene.home.config()));
    scene.wait("some arrived", |log| log.stored > 50);
    agent.signal(Signal::INT);
    let finished = agent.wait(DEADLINE);
    assert_eq!(finished.code(), Some(75), "{finished:?}");
    assert!(finished.stderr.contains("run it again"), "{finished:?}");
    scene.endpoint.set_script(Script::healthy());
    scene.endpoint.begin_run();
    let finished = scene.home.once(DEADLINE);
    assert_eq!(finished.code(), Some(0), "{finished:?}");
    let records = scene.endpoint.accepted();
    let report = scene.oracle.verify(&records, &Layout::Slices, Order::WithinFile);
    assert_eq!(report.missing.count, 0, "{report}");
}

/// SIGTERM ends within `drain_deadline` also where the endpoint is dead, and commits what was settled:
/// it is not sent again.
#[test]
fn a_dead_endpoint_does_not_hold_up_the_end() {
    let settings = Settings {
        top: "checkpoint_interval: 1 min\ndrain_deadline: 300 ms\n",
        ..Settings::default()
    };
    let mut scene = Scene::new(83, &settings, Script::healthy());
    let minter = scene.write(0, 500);
    let agent = scene.home.start();
    scene.arrived().assert_exactly_once();
    scene.at_rest();
    let settled = scene.oracle.bytes();
    scene.endpoint.die();
    drop(scene.write_more(0, minter, 500));
    let status = scene
        .status("more was read", |status| number(status, "/flows/0/totals/in_flight_bytes") > 0);
    assert_books_balance(&status);
    stop(agent);
    let status = scene.status("what a stopped agent left", |_| true);
    assert_eq!(status["running"], false);
    assert_eq!(number(&status, "/flows/0/files/0/offset"), settled, "{status:#}");
    assert_books_balance(&status);
    scene.endpoint.listen();
    assert_eq!(scene.home.once(DEADLINE).code(), Some(0));
    let records = scene.endpoint.accepted();
    scene.oracle.verify(&records, &Layout::Slices, Order::WithinFile).assert_exactly_once();
}

/// What was read is still sent after SIGTERM, as long as the deadline allows.
#[test]
fn the_end_waits_for_what_was_read() {
    // Lines wait for company for an hour, unless the end comes.
    let settings = Settings { merge: "max_age: 1 h", ..Settings::default() };
    let scene = Scene::new(84, &settings, Script::seeded(84).entry(EntryFault::Throttled, 0.3));
    drop(scene.write(0, 20));
    let agent = scene.home.start();
    scene.status("all is read", |status| {
        number(status, "/flows/0/totals/read_bytes") == scene.oracle.bytes()
            && number(status, "/flows/0/totals/in_flight_bytes") == scene.oracle.bytes()
    });
    assert_eq!(scene.endpoint.with_log(|log| log.stored), 0);
    stop(agent);
    let records = scene.endpoint.accepted();
    scene.oracle.verify(&records, &Layout::Slices, Order::WithinFile).assert_exactly_once();
}

/// A second signal ends at once, as the shell tells it, whatever the deadline says.
#[test]
fn a_second_signal_ends_at_once() {
    for (signal, code) in [(Signal::TERM, 143), (Signal::INT, 130)] {
        let settings = Settings {
            top: "drain_deadline: 10 min\n",
            ship: "timeout: 5 min",
            ..Settings::default()
        };
        let scene = Scene::new(85, &settings, Script::black_hole());
        drop(scene.write(0, 100));
        let agent = scene.home.start();
        scene.wait("a call is out", |log| log.puts().next().is_some());
        agent.signal(signal);
        agent.wait_for_stderr("it drains", DEADLINE, |log| log.contains("draining"));
        let asked = Instant::now();
        agent.signal(signal);
        let finished = agent.wait(DEADLINE);
        assert_eq!(finished.code(), Some(code), "{finished:?}");
        // A hundred times what it takes; the deadlines above are a thousand times longer still.
        assert!(asked.elapsed().as_secs() < 10, "{:?}", asked.elapsed());
    }
}

/// Two agents never share a state directory: the second one exits 75, and the first one goes on.
#[test]
fn a_second_agent_on_a_state_directory_gives_way() {
    let scene = Scene::new(86, &Settings::default(), Script::healthy());
    let minter = scene.write(0, 100);
    let agent = scene.home.start();
    drop(scene.arrived());
    let second = scene.home.start().wait(DEADLINE);
    assert_eq!(second.code(), Some(75), "{second:?}");
    assert!(second.stderr.contains(&scene.home.state().display().to_string()), "{second:?}");
    let once = scene.home.once(DEADLINE);
    assert_eq!(once.code(), Some(75), "{once:?}");
    drop(scene.write_more(0, minter, 100));
    scene.arrived().assert_exactly_once();
    let status = scene.at_rest();
    assert_eq!(number(&status, "/pid"), u64::from(agent.id()), "the first one answers");
    stop(agent);
}

/// "**A mistake in the configuration is an error** at `agent.yaml:LINE:COLUMN`, with a hint, before
/// anything is read or sent. Unknown keys are mistakes. All mistakes are told at once."
#[test]
fn a_broken_configuration_opens_nothing() {
    let scene = Scene::new(87, &Settings::default(), Script::healthy());
    drop(scene.write(0, 10));
    scene.home.configure(
        "state_dir: {state}\naws: { endpoint_url: '{endpoint}' }\ncolour: blue\nproduce:\n  \
         - name: web\n    files: ['{logs}/*.log']\n    stream: web\n    merge: { max_bytes: 25 KX }\n    \
         partition_key: fil\n",
    );
    for arguments in [&["run"][..], &["run", "--once"], &["check"], &["status"]] {
        let mut command = scene.home.command(arguments);
        let finished =
            Agent::spawn(command.arg("--config").arg(scene.home.config())).wait(DEADLINE);
        assert_eq!(finished.code(), Some(78), "{arguments:?}: {finished:?}");
        for place in ["agent.yaml:3:1: ", "agent.yaml:8:", "agent.yaml:9:"] {
            assert!(finished.stderr.contains(place), "{place} in {finished:?}");
        }
        assert!(finished.stdout.is_empty(), "{finished:?}");
    }
    assert!(!scene.home.state().exists(), "nothing is made");
    assert_eq!(scene.endpoint.with_log(|log| log.requests.len()), 0, "nobody is asked");
}

/// A configuration that is not there is one, too.
#[test]
fn a_missing_configuration_is_told() {
    let scene = Scene::new(88, &Settings::default(), Script::healthy());
    std::fs::remove_file(scene.home.config()).unwrap();
    let finished = scene.home.start().wait(DEADLINE);
    assert_eq!(finished.code(), Some(78), "{finished:?}");
    assert!(finished.stderr.contains("agent.yaml"), "{finished:?}");
    let usage = scene.home.run(&["run", "--sideways"], DEADLINE);
    assert_eq!(usage.code(), Some(64), "{usage:?}");
}

/// Logs are JSON where stderr is no terminal, a line an event, each with time, level and message.
#[test]
fn logs_are_json() {
    let scene = Scene::new(89, &Settings::default(), Script::healthy());
    drop(scene.write(0, 100));
    let agent = scene.home.start();
    drop(scene.arrived());
    agent.terminate();
    let finished = agent.wait(DEADLINE);
    assert!(finished.stderr.lines().count() >= 2, "{finished:?}");
    for line in finished.stderr.lines() {
        let event: serde_json::Value =
            serde_json::from_str(line).unwrap_or_else(|error| panic!("{error}: {line}"));
        for field in ["timestamp", "level", "message"] {
            assert!(event[field].is_string(), "{field} in {line}");
        }
    }
    assert!(finished.stdout.is_empty(), "{finished:?}");
}

/// What a flow's log events tell of names the flow, in JSON too: with ten flows it is the first question.
#[test]
fn log_events_of_shipping_name_their_flow() {
    let fault = crate::support::endpoint::CallFault::AccessDenied;
    let scene = Scene::new(92, &Settings::default(), Script::healthy().call(fault, 1.0));
    drop(scene.write(0, 100));
    let agent = scene.home.start();
    agent.wait_for_stderr("it is told", DEADLINE, |log| log.contains("shipping is held up"));
    scene.endpoint.set_script(Script::healthy());
    scene.arrived().assert_exactly_once();
    agent.wait_for_stderr("it is over", DEADLINE, |log| log.contains("shipping goes on"));
    agent.terminate();
    let finished = agent.wait(DEADLINE);
    let told = finished.stderr.lines().filter(|line| line.contains("shipping "));
    let told: Vec<serde_json::Value> =
        told.map(|line| serde_json::from_str(line).unwrap()).collect();
    assert!(told.len() >= 2, "{finished:?}");
    for event in told {
        assert_eq!(event["span"]["flow"], "web", "{event}");
    }
}

/// Read = acknowledged + in flight + dead-lettered + skipped: while it works, at rest, and stopped.
#[test]
fn the_books_balance_at_every_moment() {
    let script = Script::seeded(90).entry(EntryFault::InternalFailure, 0.2);
    let scene = Scene::new(90, &Settings::default(), script);
    let agent = scene.home.start();
    for file in 0..4 {
        drop(scene.write(file, 500));
    }
    let mut looks = 0;
    loop {
        looks += 1;
        let status = scene.status("it answers", |status| status["running"] == true);
        assert_books_balance(&status);
        if number(&status, "/flows/0/totals/acknowledged_bytes") >= scene.oracle.bytes() {
            break;
        }
    }
    eprintln!("{looks} looks");
    let status = scene.at_rest();
    assert_eq!(number(&status, "/flows/0/totals/in_flight_bytes"), 0);
    let records = scene.endpoint.with_log(|log| log.stored);
    // What was sent is told a moment after it.
    scene.status("it counts as the stream does", |status| {
        number(status, "/flows/0/sent/records") == records
    });
    stop(agent);
    let stopped = scene.at_rest();
    assert_eq!(stopped["running"], false, "a stopped agent is read from its state directory");
}

/// What was sent, and what its lines would have been unmerged, costs what the configuration says: in
/// `status`, on its page and in `/metrics`.
#[test]
fn what_was_sent_costs_what_the_prices_say() {
    let top = "metrics: { listen: '127.0.0.1:0' }\ncheckpoint_interval: 50 ms\n\
               prices: { payload_units: 2000000, on_demand_ingest: 1048576, as_of: 'here, today' }\n";
    let scene = Scene::new(92, &Settings { top, ..Settings::default() }, Script::healthy());
    drop(scene.write(0, 500));
    let agent = scene.home.start();
    let address = metrics_address(&agent);
    drop(scene.arrived());
    let unmerged = "/flows/0/sent/payload_units_unmerged";
    let status = scene.status("all lines are counted", |status| number(status, unmerged) == 500);
    assert_eq!(status["prices"], "here, today");
    // Two dollars a unit, and one a KiB.
    let (unit, byte) = (2.0, 1.0 / 1024.0);
    let costs = [
        ("provisioned_dollars", "payload_units", unit),
        ("provisioned_dollars_unmerged", "payload_units_unmerged", unit),
        ("on_demand_dollars", "on_demand_bytes", byte),
        ("on_demand_dollars_unmerged", "on_demand_bytes_unmerged", byte),
    ];
    let metrics = http(address, "GET /metrics", "", "");
    for (name, counted, price) in costs {
        let counted = status["flows"][0]["sent"][counted].as_f64().unwrap();
        let told = status["flows"][0]["cost"][name].as_f64().unwrap();
        assert!(told > 0.0 && (told - counted * price).abs() < 1e-6, "{name}: {status:#}");
        let line = format!("kinetail_{name}_total{{flow=\"web\",stream=\"web\"}} {told:?}\n");
        assert!(metrics.contains(&line), "{line} in {metrics}");
    }
    assert_eq!(number(&status, "/flows/0/sent/calls_unmerged"), 1);
    assert!(metrics.contains("kinetail_prices_info{as_of=\"here, today\"} 1\n"), "{metrics}");
    let config = scene.home.config();
    let page = scene.home.run(&["status", "--config", config.to_str().unwrap()], DEADLINE).stdout;
    assert!(page.contains("$ 1,000 if every line were a record"), "{page}");
    assert!(page.contains("prices: here, today"), "{page}");
    stop(agent);
}

/// `/metrics` says what `status` says, and `/health` what is wrong.
#[test]
fn metrics_and_health_are_served() {
    let settings = Settings {
        top: "metrics: { listen: '127.0.0.1:0' }\ncheckpoint_interval: 50 ms\n",
        ship: "timeout: 5 s, backoff_max: 100 ms",
        ..Settings::default()
    };
    let scene = Scene::new(91, &settings, Script::healthy());
    let minter = scene.write(0, 500);
    let agent = scene.home.start();
    let address = metrics_address(&agent);
    drop(scene.arrived());
    let status = scene.at_rest();
    let metrics = http(address, "GET /metrics", "", "");
    for (name, pointer) in [
        ("read_bytes", "/flows/0/totals/read_bytes"),
        ("acknowledged_bytes", "/flows/0/totals/acknowledged_bytes"),
        ("acknowledged_lines", "/flows/0/totals/acknowledged_lines"),
        ("records", "/flows/0/sent/records"),
        ("calls", "/flows/0/sent/calls"),
    ] {
        let value = number(&status, pointer);
        let line = format!("kinetail_{name}_total{{flow=\"web\",stream=\"web\"}} {value}\n");
        assert!(metrics.contains(&line), "{line} in {metrics}");
    }
    let health = || http(address, "GET /health", "", "");
    assert!(health().starts_with("HTTP/1.1 200") && health().ends_with("ok\n"), "{}", health());
    let fault = crate::support::endpoint::CallFault::AccessDenied;
    scene.endpoint.set_script(Script::healthy().call(fault, 1.0));
    drop(scene.write_more(0, minter, 10));
    scene.status("trouble", |status| !problems(status).is_empty());
    let ill = health();
    assert!(ill.starts_with("HTTP/1.1 503"), "{ill}");
    assert!(ill.contains("web: the stream refuses access: "), "{ill}");
    scene.endpoint.set_script(Script::healthy());
    scene.arrived().assert_exactly_once();
    stop(agent);
}
