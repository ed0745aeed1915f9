//! Whole configurations: broken ones with their exact messages, good ones, the example, and any
//! text at all.

use std::collections::BTreeSet;
use std::fs;
use std::time::Instant;

use proptest::prelude::*;

use super::*;

const SMALL: &str = "produce: [{ name: a, files: [/a.log], stream: s }]\n";

/// The head of a flow that lacks nothing; more settings may follow.
const FLOW: &str = "produce:\n  - name: a\n    files: [/a.log]\n    stream: s\n";

fn mistakes(text: &str) -> String {
    Config::parse(text, "agent.yaml").map_or_else(|all| all.to_string(), |_| "none".to_owned())
}

/// One case of `broken.txt`: the YAML as the agent sees it, and what it must say.
struct Case {
    yaml: String,
    says: String,
}

/// Reads the table: a kind in brackets, YAML, then the messages, each after `=> `.
fn cases(table: &str) -> Vec<Case> {
    let mut cases = Vec::new();
    let (mut kind, mut yaml, mut says) = ("", String::new(), Vec::new());
    for line in table.lines().filter(|line| !line.starts_with("##")).chain(["[end]"]) {
        if let Some(message) = line.strip_prefix("=> ") {
            says.push(format!("agent.yaml:{message}"));
        } else if matches!(line, "[file]" | "[top]" | "[flow]" | "[end]") {
            if !kind.is_empty() {
                let yaml = whole(kind, &yaml);
                cases.push(Case { yaml, says: says.join("\n") });
            }
            (kind, yaml, says) = (line, String::new(), Vec::new());
        } else if !line.is_empty() {
            yaml.extend([line, "\n"]);
        }
    }
    cases
}

fn whole(kind: &str, yaml: &str) -> String {
    match kind {
        "[top]" => format!("{SMALL}{yaml}"),
        "[flow]" => {
            let lines = yaml.lines().map(|line| format!("    {line}\n"));
            FLOW.to_owned() + &lines.collect::<String>()
        }
        _ => yaml.to_owned(),
    }
}

#[test]
fn every_broken_configuration_has_its_exact_messages() {
    let cases = cases(include_str!("tests/broken.txt"));
    assert!(cases.len() >= 60, "only {} cases", cases.len());
    let mut wrong = Vec::new();
    for Case { yaml, says } in &cases {
        let said = mistakes(yaml);
        if said != *says {
            wrong.push(format!("--- {yaml}says\n{said}\nand not\n{says}\n"));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.concat());
}

#[test]
fn all_mistakes_are_told_together() {
    let text = "\
state_dir: here
checkpoint_interval: 1
aws: { regoin: eu-west-1, password: hunter2 }
produce:
  - name: a b
    files: [a.log]
    stream: s
    merge: { max_lines: 0, max_bytes: 20 MiB, format: xml }
  - files: []
    start_at: now
metrics: { listen: here }
";
    let all = Config::parse(text, "agent.yaml").unwrap_err();
    let places: Vec<String> = all.list().iter().map(|one| one.at.unwrap().to_string()).collect();
    let expected = [
        "1:12", "2:22", "3:8", "3:27", "5:11", "6:13", "8:25", "8:39", "8:55", "9:5", "9:5",
        "9:12", "10:15", "11:20",
    ];
    assert_eq!(places, expected, "{all}");
    assert!(!all.to_string().contains("hunter2"));
}

#[test]
fn a_small_configuration_has_the_defaults() {
    let config = Config::parse(SMALL, "agent.yaml").unwrap();
    assert_eq!(config.state_dir, Path::new(defaults::STATE_DIR));
    assert_eq!(config.aws, Aws::default());
    assert_eq!(config.metrics, None);
    let flow = &config.produce[0];
    assert_eq!((&*flow.name, &*flow.stream), ("a", "s"));
    assert_eq!(flow.merge, Merge::default());
    assert_eq!(flow.tail, Tail::default());
    assert_eq!(flow.ship, Ship::default());
    assert_eq!((flow.start_at, flow.on_oversize), (StartAt::Beginning, OnOversize::Split));
    assert!(matches!(flow.partition_key, PartitionKey::File));
    assert!(flow.multiline.is_none());
}

#[test]
fn prices_that_are_others_go_under_another_name() {
    let prices = |block: &str| {
        Config::parse(&format!("{SMALL}prices: {block}\n"), "agent.yaml").unwrap().prices
    };
    assert_eq!(prices("{ shard_hour: 0.015 }"), Prices::default());
    let own = prices("{ shard_hour: 1, payload_units: 0.0165 }");
    assert_eq!((own.shard_hour, own.payload_units, &*own.as_of), (1.0, 0.0165, "as configured"));
    let named = prices("{ shard_hour: 0.018, as_of: \"eu-central-1, May 2027\" }");
    assert_eq!((named.shard_hour, &*named.as_of), (0.018, "eu-central-1, May 2027"));
}

#[test]
fn settings_are_read_as_written() {
    let text = "\u{feff}produce:\r
  - name: trace.1\r
    files: [\"/srv/*/log/**/*.log\", '/var/log/{a,b}?.log']\r
    exclude: ['*.gz', '**/tmp/*', /srv/a/log/b.log]\r
    stream: arn:aws:kinesis:eu-west-1:123456789012:stream/web.trace_1\r
    start_at: end\r
    merge: { delimiter: \"#-#\", max_lines: 10, max_bytes: 1 MB, max_age: 0, compression: none }\r
    partition_key: { regex: '^(\\S+) ' }\r
    multiline: { start: '^\\d{4}-', max_age: 250 ms }\r
    on_oversize: skip\r
    ship: { request_records: 1 }\r
metrics: { listen: \"[::1]:9598\" }\r
aws:\r
";
    let config = Config::parse(text, "agent.yaml").unwrap_or_else(|all| panic!("{all}"));
    assert_eq!(config.metrics, Some("[::1]:9598".parse().unwrap()));
    let flow = &config.produce[0];
    assert_eq!(flow.files, ["/srv/*/log/**/*.log", "/var/log/{a,b}?.log"]);
    assert_eq!(flow.exclude, ["*.gz", "**/tmp/*", "/srv/a/log/b.log"]);
    assert_eq!((flow.start_at, flow.on_oversize), (StartAt::End, OnOversize::Skip));
    let merge = Merge {
        format: Format::Lines { delimiter: b"#-#".to_vec() },
        max_lines: Some(10),
        max_bytes: 1_000_000,
        max_age: Duration::ZERO,
        compression: None,
    };
    assert_eq!(flow.merge, merge);
    assert!(matches!(&flow.partition_key, PartitionKey::Regex(regex) if regex.is_match(b"a b")));
    assert_eq!(flow.multiline.as_ref().unwrap().max_age, Duration::from_millis(250));
    assert_eq!(flow.ship, Ship { request_records: 1, ..Ship::default() });
}

#[test]
fn consuming_flows_are_read_as_written() {
    let text = "consume:
  - name: tree
    stream: arn:aws:kinesis:eu-west-1:123456789012:stream/web
    directory: /srv/tree/
    layout: mirror
    path: \"{path}\"
    split: kpl
    start_at: \"2026-11-26T08:00:00.5+01:00\"
    read: { buffer: 10 MiB }
  - name: lines
    stream: web
    directory: /srv/lines
    path: \"{file}-{shard}\"
    split: { delimiter: \"#-#\" }
    start_at: latest
    rotate: { max_age: 1 h, compression: zstd }
    write: { max_files: 3 }
";
    let config = Config::parse(text, "agent.yaml").unwrap_or_else(|all| panic!("{all}"));
    assert!(config.produce.is_empty());
    let [tree, lines] = &config.consume[..] else { panic!() };
    assert_eq!((&*tree.name, tree.stream_name(), tree.layout), ("tree", "web", Layout::Mirror));
    assert_eq!(tree.directory.as_os_str(), "/srv/tree");
    assert_eq!((tree.path.to_string(), &tree.split), ("{path}".to_owned(), &By::Kpl));
    assert_eq!(tree.start_at, ConsumeStart::Time(1_795_676_400_500));
    assert_eq!(tree.read, Reading { buffer: 10 << 20, ..Reading::default() });
    assert_eq!(lines.split, By::Delimiter(b"#-#".to_vec()));
    assert_eq!((lines.start_at, lines.write.max_files), (ConsumeStart::Latest, 3));
    let max_age = Some(Duration::from_hours(1));
    let rotate = Rotate { max_bytes: None, max_age, compression: Some(Algorithm::Zstd) };
    assert_eq!(lines.rotate, rotate);
}

#[test]
fn every_form_of_partition_key_is_read() {
    let key = |form: &str| {
        let text = format!("{FLOW}    partition_key: {form}\n");
        Config::parse(&text, "agent.yaml").unwrap().produce[0].partition_key.clone()
    };
    assert!(matches!(key("file"), PartitionKey::File));
    assert!(matches!(key("random"), PartitionKey::Random));
    assert!(matches!(key("host"), PartitionKey::Host));
    assert!(matches!(key("{ constant: é }"), PartitionKey::Constant(key) if &*key == "é"));
    assert!(
        matches!(key("{ json_field: a.b }"), PartitionKey::JsonField(path) if path == ["a", "b"])
    );
}

#[test]
fn blocks_can_be_shared_by_an_alias() {
    let text = "produce:
  - { name: a, files: [/a], stream: s, merge: &fast { max_age: 10 ms } }
  - { name: b, files: [/b], stream: s, merge: *fast }
";
    let config = Config::parse(text, "agent.yaml").unwrap();
    assert_eq!(config.produce[0].merge, config.produce[1].merge);
}

#[test]
fn the_longest_names_are_taken() {
    let text = format!(
        "produce: [{{ name: {}, files: [/a], stream: {}, partition_key: {{ constant: {} }} }}]",
        "n".repeat(64),
        "s".repeat(128),
        "é".repeat(256),
    );
    assert_eq!(mistakes(&text), "none");
    let text = text.replacen("é", "éé", 1);
    assert!(mistakes(&text).ends_with("must have 1 to 256 characters, not 257"));
}

/// The example without the comment marks before optional settings: all keys at once.
fn uncommented(example: &str) -> String {
    let is_setting = |text: &str| {
        text.trim_start().split_once(':').is_some_and(|(name, value)| {
            let known = schema::ALL.iter().any(|block| block.keys.contains(&name));
            known && (value.is_empty() || value.starts_with(' '))
        })
    };
    let lines = example.lines().skip_while(|line| !line.starts_with("state_dir:"));
    let lines = lines.map(|line| match line.split_once("# ") {
        Some((indent, text)) if indent.trim().is_empty() && is_setting(text) => {
            format!("{indent}{text}\n")
        }
        _ => format!("{line}\n"),
    });
    lines.collect()
}

const EXAMPLE: &str = include_str!("../../agent.yaml.example");

#[test]
fn the_example_is_equal_to_the_defaults() {
    let example =
        Config::parse(EXAMPLE, "agent.yaml.example").unwrap_or_else(|all| panic!("{all}"));
    let flow = &example.produce[0];
    let consumer = &example.consume[0];
    let small = format!(
        "produce: [{{ name: {}, files: {:?}, stream: {} }}]\n\
         consume: [{{ name: {}, stream: {}, directory: {:?} }}]",
        flow.name, flow.files, flow.stream, consumer.name, consumer.stream, consumer.directory
    );
    let small = Config::parse(&small, "agent.yaml").unwrap();
    assert_eq!(format!("{example:#?}"), format!("{small:#?}"));
}

#[test]
fn the_example_holds_every_key_and_its_optional_settings_are_sound() {
    let text = uncommented(EXAMPLE);
    let full =
        Config::parse(&text, "agent.yaml.example").unwrap_or_else(|all| panic!("{all}\n{text}"));
    assert!(full.aws.assume_role.is_some() && full.metrics.is_some(), "{text}");
    let multiline = full.produce[0].multiline.as_ref().unwrap();
    assert_eq!(multiline.max_age, defaults::MULTILINE_MAX_AGE);
    assert_eq!(multiline.max_bytes, defaults::MULTILINE_MAX_BYTES);
    assert_eq!(full.aws.assume_role.unwrap().session_name, defaults::SESSION_NAME);
    let rotate = full.consume[0].rotate;
    assert!(rotate.max_bytes.is_some() && rotate.max_age.is_some(), "{text}");
    let words: BTreeSet<&str> =
        EXAMPLE.split(|c: char| !(c.is_ascii_alphanumeric() || c == '_')).collect();
    for key in schema::ALL.iter().flat_map(|block| block.keys) {
        assert!(words.contains(key), "`{key}` is not in agent.yaml.example");
    }
}

#[test]
fn an_unreadable_file_is_a_diagnostic() {
    let directory = tempfile::tempdir().unwrap();
    let said = |name: &str| {
        let all = Config::load(&directory.path().join(name)).unwrap_err().to_string();
        all.replace(&directory.path().display().to_string(), "")
    };
    let hint = "name another with --config, or begin with agent.yaml.example";
    assert_eq!(
        said("missing.yaml"),
        format!("/missing.yaml: cannot be read: No such file or directory ({hint})")
    );
    assert_eq!(said(""), "/: cannot be read: Is a directory");
    fs::write(directory.path().join("latin1.yaml"), b"a: b\nc: d\xe9").unwrap();
    assert_eq!(said("latin1.yaml"), "/latin1.yaml:2:5: not UTF-8 text (save the file as UTF-8)");
    fs::write(directory.path().join("log.yaml"), "x".repeat(300_000)).unwrap();
    assert_eq!(
        said("log.yaml"),
        "/log.yaml:1:1: the file is longer than 256 KiB (is this the right file?)"
    );
    fs::write(directory.path().join("good.yaml"), SMALL).unwrap();
    assert!(Config::load(&directory.path().join("good.yaml")).is_ok());
}

#[test]
fn a_hundred_flows_are_read_quickly() {
    let flows = (0..100)
        .map(|n| format!("  - {{ name: f{n}, files: [/var/log/{n}/**/*.log], stream: s{n} }}\n"));
    let text = format!("produce:\n{}", flows.collect::<String>());
    let started = Instant::now();
    assert_eq!(Config::parse(&text, "agent.yaml").unwrap().produce.len(), 100);
    assert!(started.elapsed() < Duration::from_secs(1), "{:?}", started.elapsed());
}

/// Texts that look like YAML more often than chance would have it.
fn yamlish() -> impl Strategy<Value = String> {
    let words = prop::sample::select(vec![
        "produce:",
        "name:",
        "files:",
        "stream:",
        "aws:",
        "merge:",
        "max_bytes:",
        "max_age:",
        "- ",
        "\n",
        "\n  ",
        "\n    ",
        "{",
        "}",
        "[",
        "]",
        ",",
        ": ",
        "&a ",
        "*a",
        "!t ",
        "'",
        "\"",
        "#",
        "|\n",
        ">\n",
        "---",
        "...",
        "\t",
        "?",
        "<<:",
        "25 KB",
        "1 s",
        "/a/*",
        "null",
        "0",
        "%",
        "@",
        "\u{0}",
        "\u{feff}",
        "é",
        "\\",
        "partition_key:",
        "regex:",
        "(a)",
        "consume:",
        "directory:",
        "path:",
        "{host}/",
        "start_at:",
    ]);
    prop::collection::vec(words, 0..60).prop_map(|words| words.concat())
}

proptest! {
    /// forall text: reading it ends within a second in a configuration or in mistakes.
    #[test]
    fn any_text_is_answered(text in prop_oneof![any::<String>(), yamlish(), "(?s).{0,400}"]) {
        let started = Instant::now();
        if let Err(all) = Config::parse(&text, "agent.yaml") {
            prop_assert!(!all.list().is_empty());
            prop_assert!(!all.to_string().contains('\x1b'));
        }
        prop_assert!(started.elapsed() < Duration::from_secs(1));
    }

    /// forall damage to a good file: reading it ends within a second.
    #[test]
    fn a_damaged_example_is_answered(
        from in 0..EXAMPLE.len(),
        length in 0_usize..40,
        put in yamlish(),
    ) {
        let mut text: Vec<u8> = EXAMPLE.bytes().collect();
        let to = (from + length).min(text.len());
        text.splice(from..to, put.bytes());
        let started = Instant::now();
        let _ = Config::parse(&String::from_utf8_lossy(&text), "agent.yaml");
        prop_assert!(started.elapsed() < Duration::from_secs(1));
    }
}

#[test]
fn defaults_are_within_limits() {
    let (merge, tail, ship) = (Merge::default(), Tail::default(), Ship::default());
    assert!(limits::MAX_BYTES.contains(&merge.max_bytes));
    assert!(limits::MAX_AGE.contains(&merge.max_age));
    assert!(limits::GZIP_LEVEL.contains(&(defaults::GZIP_LEVEL as usize)));
    assert!(limits::ZSTD_LEVEL.contains(&(defaults::ZSTD_LEVEL as usize)));
    assert!(limits::BUFFER.contains(&tail.buffer));
    assert!(limits::OPEN_FILES.contains(&tail.open_files));
    assert!(limits::SCAN_INTERVAL.contains(&tail.scan_interval));
    assert!(limits::POLL_INTERVAL.contains(&tail.poll_interval));
    assert!(limits::HOLD_ROTATED.contains(&tail.hold_rotated));
    assert!(limits::HOLD_UNREAD.contains(&tail.hold_unread));
    assert!(limits::HOLD_DELETED_BYTES.contains(&tail.hold_deleted_bytes));
    assert!(limits::REQUEST_RECORDS.contains(&ship.request_records));
    assert!(limits::REQUEST_BYTES.contains(&ship.request_bytes));
    assert!(limits::JOINED_BYTES.contains(&ship.joined_bytes));
    assert!(limits::IN_FLIGHT.contains(&ship.in_flight));
    assert!(limits::TIMEOUT.contains(&ship.timeout));
    assert!(limits::BACKOFF_MAX.contains(&ship.backoff_max));
    let (write, read) = (Writing::default(), Reading::default());
    assert!(limits::OPEN_FILES.contains(&write.open_files));
    assert!(limits::MAX_FILES.contains(&write.max_files));
    assert!(limits::READ_POLL_INTERVAL.contains(&read.poll_interval));
    assert!(limits::READ_BUFFER.contains(&read.buffer));
    assert!(limits::FAILOVER.contains(&defaults::FAILOVER));
    assert_eq!(defaults::append_path().to_string(), "{stream}/{host}/{file}");
    assert_eq!(defaults::mirror_path().to_string(), "{host}/{path}");
    assert_eq!(defaults::other_path().to_string(), "{stream}/{shard}.log");
    assert!(limits::CHECKPOINT_INTERVAL.contains(&defaults::CHECKPOINT_INTERVAL));
    assert!(limits::DRAIN_DEADLINE.contains(&defaults::DRAIN_DEADLINE));
    assert!(limits::MULTILINE_MAX_AGE.contains(&defaults::MULTILINE_MAX_AGE));
    assert!(limits::MAX_BYTES.contains(&defaults::MULTILINE_MAX_BYTES));
}
