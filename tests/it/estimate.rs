//! `estimate`: what it shows of real files, and what it says where there is nothing to show.

use std::fs;

use serde_json::Value;

use crate::support::agent::Home;
use crate::support::endpoint::{FaultEndpoint, Script};

use super::scene::DEADLINE;

fn home() -> (FaultEndpoint, Home) {
    let endpoint = FaultEndpoint::start(Script::healthy());
    let home = Home::new(
        &endpoint.url(),
        r#"
state_dir: {state}
aws: { region: us-east-1, endpoint_url: "{endpoint}" }
prices: { payload_units: 0.028, as_of: "twice, today" }
produce:
  - name: access
    stream: web
    files: ["{logs}/*.log"]
    merge: { format: kpl, max_bytes: 50 KB }
"#,
    );
    let lines: Vec<_> = (0..30_000).map(|line| format!("{line:0200}\n")).collect();
    fs::write(home.logs().join("access.log"), lines.concat()).unwrap();
    (endpoint, home)
}

/// The ways that files are merged in.
const WAYS: [&str; 6] =
    ["a line a record", "10 lines", "25 KB", "25 KB + gzip", "25 KB + zstd", "25 KB, kpl"];

/// Returns what a way costs a month in PUT payload units, provisioned.
fn put(report: &Value, way: &str) -> f64 {
    let ways = report["ways"].as_array().unwrap();
    let way = ways.iter().find(|one| one["way"] == way).unwrap_or_else(|| panic!("{report}"));
    way["month"]["provisioned_put"].as_f64().unwrap()
}

/// 30,000 lines a second unmerged are 30,000 units a second: 0.00042 dollars, 2,592,000 times a month.
#[test]
fn files_are_estimated_at_the_rate_given() {
    let (endpoint, home) = home();
    let log = home.logs().join("access.log");
    let log = log.to_str().unwrap();
    let run = |more: &[&str]| {
        let arguments = [&["estimate", "--rate", "30000", log], more].concat();
        let finished = home.run(&arguments, DEADLINE);
        assert_eq!(finished.code(), Some(0), "{finished:?}");
        finished.stdout
    };
    let page = run(&[]);
    for words in ["files: 1 file, 5.8 MiB, 30,000 lines\n", "(given)", "us-east-1", "█"] {
        assert!(page.contains(words), "{words} in {page}");
    }
    // In the table, and again in the chart.
    for way in WAYS {
        assert_eq!(page.matches(&format!("\n  {way}  ")).count(), 2, "{way} in {page}");
    }
    let reports: Value = serde_json::from_str(&run(&["--json"])).unwrap();
    assert!((put(&reports[0], "a line a record") - 1_088.64).abs() < 0.01, "{reports}");
    assert!(put(&reports[0], "25 KB") < 1_088.64 / 115.0, "{reports}");
    let ways = reports[0]["ways"].as_array().unwrap().iter();
    assert_eq!(ways.map(|way| way["way"].as_str().unwrap()).collect::<Vec<_>>(), WAYS);
    for way in ["25 KB + gzip", "25 KB + zstd"] {
        assert!(put(&reports[0], way) < put(&reports[0], "25 KB") / 2.0, "{reports}");
    }
    let reports = run(&["--json", "--price", "payload_units=0.14", "--sample", "1 MB"]);
    let reports: Value = serde_json::from_str(&reports).unwrap();
    assert!((put(&reports[0], "a line a record") - 10_886.4).abs() < 0.1, "{reports}");
    let sampled = reports[0]["sampled_bytes"].as_u64().unwrap();
    assert!((900_000..=1_000_000).contains(&sampled), "{reports}");
    assert_eq!(reports[0]["prices"], "as given");
    assert_eq!(endpoint.with_log(|log| log.requests.len()), 0);
    assert!(!home.state().exists());
}

#[test]
fn a_configuration_is_estimated_as_it_merges_and_by_its_prices() {
    let (_endpoint, home) = home();
    let config = home.config();
    let arguments = ["estimate", "--json", "--rate", "30000", "--config", config.to_str().unwrap()];
    let finished = home.run(&arguments, DEADLINE);
    assert_eq!(finished.code(), Some(0), "{finished:?}");
    let reports: Value = serde_json::from_str(&finished.stdout).unwrap();
    let report = &reports[0];
    assert_eq!((&report["flow"], &report["prices"]), (&"access".into(), &"twice, today".into()));
    assert!((put(report, "a line a record") - 2_177.28).abs() < 0.01, "{report}");
    let ways = report["ways"].as_array().unwrap();
    let own = ways.iter().find(|way| way["way"] == "as configured").unwrap();
    let (records, units) = (own["records"].as_u64().unwrap(), own["payload_units"].as_u64());
    assert!(records < 130 && units.unwrap() > 2 * records - 4, "{own}");
}

#[test]
fn what_cannot_be_estimated_is_said() {
    let (_endpoint, home) = home();
    let missing = home.logs().join("missing.log");
    let finished = home.run(&["estimate", missing.to_str().unwrap()], DEADLINE);
    assert_eq!(finished.code(), Some(74), "{finished:?}");
    assert!(finished.stderr.contains("missing.log: No such file"), "{finished:?}");
    for wrong in [
        &["estimate"][..],
        &["estimate", "a", "--price", "put=1"],
        &["estimate", "a", "--rate", "0"],
    ] {
        assert_eq!(home.run(wrong, DEADLINE).code(), Some(64), "{wrong:?}");
    }
}
