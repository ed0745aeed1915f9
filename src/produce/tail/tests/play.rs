//! Drawn stories of one log and of the agent: whatever happens, every line is passed on once.

use super::*;

/// What can happen to a log and to the agent.
#[derive(Clone, Debug)]
enum Op {
    /// Whole lines are written.
    Write(u8),
    /// A line is written in two goes, with this op in between.
    Torn(Box<Op>),
    /// Renamed, and begun anew.
    Rotate,
    /// Copied, and truncated.
    CopyTruncate,
    /// The oldest rotated file is deleted, after a look at it.
    Expire,
    /// The agent looks.
    Look,
    /// The agent is stopped and started again.
    Restart,
}

fn ops() -> impl proptest::strategy::Strategy<Value = Vec<Op>> {
    use proptest::prelude::*;
    let op = prop_oneof![
        4 => (1..20_u8).prop_map(Op::Write),
        2 => Just(Op::Rotate),
        2 => Just(Op::CopyTruncate),
        1 => Just(Op::Expire),
        3 => Just(Op::Look),
        1 => Just(Op::Restart),
        1 => prop_oneof![Just(Op::Look), Just(Op::Rotate), Just(Op::Restart)]
            .prop_map(|between| Op::Torn(Box::new(between))),
    ];
    proptest::collection::vec(op, 1..24)
}

/// Plays ops on one log whose rotations are all covered by the pattern.
struct Play {
    bench: Bench,
    written: Vec<String>,
    rotations: Vec<PathBuf>,
    names: u32,
}

impl Play {
    fn line(&mut self) -> String {
        let line = format!("line {} of all that were written\n", self.written.len());
        self.written.push(line.clone());
        line
    }

    fn play(&mut self, op: &Op) {
        match op {
            Op::Write(count) => {
                for _ in 0..*count {
                    let line = self.line();
                    self.bench.append("app.log", line.as_bytes());
                }
            }
            Op::Torn(between) => {
                let line = self.line();
                let (one, other) = line.split_at(7);
                self.bench.append("app.log", one.as_bytes());
                // The writer has the file open, and goes on in it whatever its name.
                let path = self.bench.path("app.log");
                let mut writer = OpenOptions::new().append(true).open(path).unwrap();
                self.play(between);
                writer.write_all(other.as_bytes()).unwrap();
            }
            Op::Rotate => {
                let to = self.rotated();
                if fs::rename(self.bench.path("app.log"), &to).is_ok() {
                    self.rotations.push(to);
                }
            }
            Op::CopyTruncate => {
                let (from, to) = (self.bench.path("app.log"), self.rotated());
                if fs::copy(&from, &to).is_ok() {
                    File::options().write(true).open(&from).unwrap().set_len(0).unwrap();
                    self.rotations.push(to);
                }
            }
            Op::Expire => {
                if !self.rotations.is_empty() {
                    self.bench.step();
                    fs::remove_file(self.rotations.remove(0)).unwrap();
                }
            }
            Op::Look => self.bench.step(),
            Op::Restart => {
                self.bench.tailer = None;
                self.bench.start(false);
            }
        }
    }

    /// A name that no rotation had before.
    fn rotated(&mut self) -> PathBuf {
        self.names += 1;
        self.bench.path(&format!("app.log.{}", self.names))
    }
}

proptest::proptest! {
    #![proptest_config(proptest::prelude::ProptestConfig::with_cases(96))]

    /// Every whole line that was written is passed on exactly once, and in order within a generation.
    #[test]
    fn whatever_happens_every_line_is_passed_on_once(ops in ops()) {
        let mut bench = Bench::new(&["app.log*"]);
        bench.start(false);
        let mut play = Play { bench, written: Vec::new(), rotations: Vec::new(), names: 0 };
        for op in &ops {
            play.play(op);
        }
        let last = play.line();
        play.bench.append("app.log", last.as_bytes());
        play.bench.step();
        play.bench.step();
        play.bench.pass(Duration::from_secs(15));
        let mut passed: Vec<String> = Vec::new();
        for seen in play.bench.seen.values() {
            let text = String::from_utf8_lossy(&seen.bytes);
            passed.extend(text.split_inclusive('\n').map(str::to_owned));
        }
        passed.sort();
        play.written.sort();
        proptest::prop_assert_eq!(passed, play.written);
        proptest::prop_assert_eq!(play.bench.lost(), 0);
    }
}
