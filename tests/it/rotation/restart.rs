//! Restarts under load: what a clean stop has settled is known to the next run.

use super::{DEADLINE, Rig, until};
use crate::support::oracle::{Layout, Oracle, Order, Shape};
use crate::support::writer::{LogWriter, Pace};

/// Stopped by SIGTERM thirty times while a server writes and rotates, with commits so often that one is
/// under way at most of the stops: nothing is lost, and nothing comes twice.
#[test]
fn clean_stops_under_load_lose_and_repeat_nothing() {
    let rig = Rig::new(r#"["{logs}/app.log*"]"#, "");
    let oracle = Oracle::new(71, Shape::Plain);
    let writer = LogWriter::start(&rig.log("app.log"), oracle.minter(), Pace::rate(5_000));
    for stop in 1..=30 {
        let agent = rig.home.start();
        agent.wait_for_stderr("it runs", DEADLINE, |text| text.contains("running"));
        let lines = oracle.lines() + 250;
        until("the server writes on", || oracle.lines() >= lines);
        agent.terminate();
        if stop % 3 == 0 {
            writer.rotate_by_rename(&rig.log(&format!("app.log.{stop}")), 100);
        }
        let finished = agent.wait(DEADLINE);
        assert_eq!(finished.code(), Some(0), "{finished:?}");
    }
    drop(writer.stop());
    let agent = rig.start();
    let endpoint = &rig.endpoint;
    let report = oracle.wait_for_all(endpoint, &Layout::Slices, Order::WithinFile, DEADLINE);
    agent.terminate();
    assert_eq!(agent.wait(DEADLINE).code(), Some(0));
    report.assert_exactly_once();
    let all = oracle.verify(&endpoint.accepted(), &Layout::Slices, Order::WithinFile);
    all.assert_exactly_once();
}
