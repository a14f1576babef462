//! The conformance suite: a component that exercises the real kernel, in all lanes and with several
//! numbers of CPUs. It writes a line `START name`, then `TEST name ... ok`, `... FAILED: why` or
//! `... skipped: why` for each case, at last `N passed, N failed`, and ends the machine through the
//! test-exit port where there is one.

use std::time::Duration;

use anyhow::{Context as _, Result, anyhow, bail};
use config::{Device, Pci, Which};

use super::lane::{Lane, with_model};
use super::report::Report;
use super::{Context, Job};
use crate::bochs::Model;
use crate::expect::Step;
use crate::machine::Machine;
use crate::qemu::EXIT_PASS;
use crate::session::{End, Finished, Session};
use crate::system;

const MEMORY: u64 = 1 << 30;
/// Bochs takes its time, the more so beside others.
const TIMEOUT: Duration = Duration::from_secs(900);
/// Name of the configuration and of the component in it.
const COMPONENT: &str = "conformance";

/// A processor without anything that the kernel uses only where it is there.
const BARE: &str = "EPYC,-svm,-x2apic,-tsc-deadline,-smep,-smap,-umip,-pcid,-pdpe1gb,-rdtscp,\
                    -fsgsbase,-xsaveopt,-avx,-mce,-mca,check=off";

/// A network card with nobody at the other end, for its interrupts.
const CARD: &[&str] =
    &["-netdev", "user,id=card,restrict=on", "-device", "e1000e,netdev=card,romfile=,addr=0x3"];

/// The card as a device of the component's. Only QEMU has it.
fn card() -> Device {
    let which = Which::Kind { vendor: 0x8086, device: 0x10d3 };
    let pci = Some(Pci { which, dma: 0 });
    Device { name: "card".to_owned(), ports: vec![], mmio: vec![], irqs: vec![], pci }
}

/// A machine that the suite runs on.
#[derive(Clone, Copy)]
struct Suite {
    lane: Lane,
    smp: u16,
    /// A CPU that is not the lane's usual one, and its name.
    model: Option<(&'static str, Model)>,
    /// Parts of the names of the cases that run, with commas between them.
    only: &'static str,
    /// Random operations instead of cases.
    stress: bool,
    /// The emulator's CPU lacks what the kernel can do without.
    bare: bool,
    /// The kernel is one whose guest entries fail on demand, with one vector for devices.
    sabotage: bool,
}

impl Suite {
    const fn new(lane: Lane, smp: u16) -> Self {
        Self { lane, smp, model: None, only: "", stress: false, bare: false, sabotage: false }
    }

    /// What depends on the CPU, on another one.
    const fn on(lane: Lane, name: &'static str, model: Model) -> Self {
        Self { model: Some((name, model)), only: "vcpu::", ..Self::new(lane, 1) }
    }

    const fn sabotaged(lane: Lane) -> Self {
        Self { sabotage: true, only: "vcpu::,where_no_vector_is_left", ..Self::new(lane, 1) }
    }

    fn name(&self) -> String {
        let plural = if self.smp == 1 { "" } else { "s" };
        let what = match self.model {
            Some((name, _)) => format!("{name}-"),
            None if self.stress => "stress-".to_owned(),
            None if self.bare => "bare-".to_owned(),
            None if self.sabotage => "failing-entries-".to_owned(),
            None => String::new(),
        };
        format!("conformance/{}/{what}{}-cpu{plural}", self.lane.name(), self.smp)
    }

    /// What kernel and root task say of the machine, so that it is known which ways of the kernel the
    /// cases have gone: both kinds of APIC and of timer, with and without tagged TLB.
    const fn ways(&self) -> &'static [&'static str] {
        match self.lane {
            Lane::QemuAmd if self.bare => &["interrupts: xAPIC, timer one-shot", "Features(0x0)"],
            Lane::QemuAmd => &["interrupts: x2APIC, timer one-shot", "VIRTUALIZATION | X2APIC"],
            Lane::BochsIntel => &["interrupts: x2APIC, timer TSC deadline", "TAGGED_TLB"],
            Lane::BochsAmd => &["interrupts: xAPIC, timer one-shot", "VIRTUALIZATION | NESTED_1G"],
        }
    }

    fn machine(&self) -> Result<Machine> {
        let mut machine = match self.model {
            Some((_, model)) => with_model(model, self.smp, MEMORY)?,
            None => self.lane.machine(self.smp, MEMORY)?,
        };
        if let Machine::Qemu(machine) = &mut machine {
            // The last one counts.
            let cpu: &[&str] = if self.bare { &["-cpu", BARE] } else { &[] };
            machine.extra = cpu.iter().chain(CARD).map(|word| (*word).to_owned()).collect();
        }
        Ok(machine)
    }
}

const SUITES: &[Suite] = &[
    Suite::new(Lane::QemuAmd, 1),
    Suite::new(Lane::QemuAmd, 2),
    Suite::new(Lane::QemuAmd, 8),
    Suite { bare: true, ..Suite::new(Lane::QemuAmd, 1) },
    Suite { stress: true, ..Suite::new(Lane::QemuAmd, 2) },
    Suite { stress: true, ..Suite::new(Lane::QemuAmd, 4) },
    Suite::sabotaged(Lane::QemuAmd),
    Suite::sabotaged(Lane::BochsIntel),
    Suite::sabotaged(Lane::BochsAmd),
    Suite::new(Lane::BochsIntel, 1),
    Suite::new(Lane::BochsIntel, 2),
    Suite::on(Lane::BochsIntel, "haswell", Model::Haswell),
    Suite::on(Lane::BochsIntel, "tigerlake", Model::Tigerlake),
    Suite::new(Lane::BochsAmd, 1),
    Suite::new(Lane::BochsAmd, 2),
];

/// A case that a lane's emulator cannot run.
struct Gap {
    lane: Lane,
    case: &'static str,
    why: &'static str,
}

/// What the emulators cannot do: each was looked into.
const GAPS: &[Gap] = &[
    Gap {
        lane: Lane::BochsAmd,
        case: "vcpu::a_deadline_ends_a_loop_with_interrupts_off",
        why: "Bochs: a guest entered with RFLAGS.IF clear keeps the host's interrupts off, too",
    },
    Gap {
        lane: Lane::BochsAmd,
        case: "vcpu::a_window_that_is_open_is_an_exit_at_once",
        why: "Bochs: a guest entered with RFLAGS.IF set runs on with a virtual interrupt pending",
    },
];

/// One group for each machine.
#[must_use]
pub fn jobs() -> Vec<Job> {
    let group = |suite: &Suite| {
        let suite = *suite;
        Job::group(suite.name(), move |context, report| run(context, report, suite))
    };
    SUITES.iter().map(group).collect()
}

fn run(context: &Context, report: &Report, suite: Suite) -> Result<()> {
    let name = suite.name();
    let gaps: Vec<&Gap> = GAPS.iter().filter(|gap| gap.lane == suite.lane).collect();
    let config = context.repo.config(if suite.stress { "stress" } else { COMPONENT });
    let mut compiled = system::check(&context.repo, &config, suite.smp, MEMORY)?;
    let machine = suite.machine()?;
    let component = compiled.system.components.iter_mut().find(|c| c.name == COMPONENT);
    let component = component.context("the configuration has no component of the suite")?;
    component.args = arguments(&component.args, suite.only, &gaps);
    if suite.sabotage {
        component.args.push_str(" sabotage");
    }
    if matches!(machine, Machine::Qemu(_)) {
        component.devices.push(card());
        component.trusted = true;
    }
    let mut plan = system::assemble(&context.repo, context.images()?, &compiled)?;
    if suite.sabotage {
        plan.kernel = context.sabotaged()?.clone();
    }
    let iso = context.scratch(&name.replace('/', "-"))?.with_extension("iso");
    plan.pack(&iso)?;

    let session = Session { timeout: Some(TIMEOUT), to_the_end: true, ..Session::default() };
    let finished = match machine {
        machine @ Machine::Qemu(_) => machine.run(&session, &iso, Vec::new())?,
        // It has no port to end through: the root task tells when the component is gone.
        machine @ Machine::Bochs(_) => {
            let gone = Step::Expect(format!("root: component \"{COMPONENT}\""));
            machine.run(&Session { to_the_end: false, ..session }, &iso, vec![gone])?
        }
    };

    let mut results = results(finished.conversation.text());
    let unknown = explain(&mut results, &gaps);
    let mut before = Duration::ZERO;
    for result in &results {
        let time = finished.time_at(result.end).unwrap_or(before);
        let case = format!("{name}/{}", result.name);
        if report.wanted(&case) {
            match &result.verdict {
                Verdict::Passed => {
                    report.note(&case, time.saturating_sub(before), Ok(String::new()))
                }
                Verdict::Failed(why) => {
                    report.note(&case, time.saturating_sub(before), Err(anyhow!("{why}")));
                }
                Verdict::Skipped(why) => report.skip(&case, why),
            }
        }
        before = time;
    }
    let all = format!("{name}/all-ran");
    if report.wanted(&all) {
        let verdict = match unknown {
            Some(case) => Err(anyhow!("{case} is said to be a gap, and there is no such case")),
            None => complete(&finished, &results, suite.ways()),
        };
        report.note(&all, finished.time, verdict);
    }
    Ok(())
}

/// The component's arguments.
fn arguments(own: &str, only: &str, gaps: &[&Gap]) -> String {
    let mut words = vec![own.to_owned()];
    if !only.is_empty() {
        words.push(format!("only={only}"));
    }
    if !gaps.is_empty() {
        let cases: Vec<&str> = gaps.iter().map(|gap| gap.case).collect();
        words.push(format!("skip={}", cases.join(",")));
    }
    words.retain(|word| !word.is_empty());
    words.join(" ")
}

/// Says why cases were left out. Returns a gap that is none: its case does not exist.
fn explain(results: &mut [CaseResult], gaps: &[&Gap]) -> Option<&'static str> {
    let mut unknown = None;
    for gap in gaps {
        match results.iter_mut().find(|result| result.name == gap.case) {
            Some(result) => result.verdict = Verdict::Skipped(gap.why.to_owned()),
            None => unknown = Some(gap.case),
        }
    }
    unknown
}

/// What came of a case.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Verdict {
    Passed,
    Failed(String),
    /// It does not apply to this machine.
    Skipped(String),
}

/// The result of a case, and where its line ends.
#[derive(Debug, PartialEq, Eq)]
struct CaseResult {
    name: String,
    verdict: Verdict,
    end: usize,
}

fn results(text: &str) -> Vec<CaseResult> {
    let mut results = Vec::new();
    let mut started = None;
    let mut end = 0;
    for line in text.split_inclusive('\n') {
        end += line.len();
        // A log prefix may come first.
        if let Some((_, name)) = line.split_once("START ") {
            results.extend(unfinished(started.replace(name.trim()), end));
        }
        let Some((_, case)) = line.split_once("TEST ") else {
            continue;
        };
        let Some((name, verdict)) = case.split_once(" ... ") else { continue };
        let (word, why) = verdict.trim().split_once(": ").unwrap_or((verdict.trim(), ""));
        let verdict = match word {
            "ok" => Verdict::Passed,
            "skipped" => Verdict::Skipped(why.to_owned()),
            "FAILED" => Verdict::Failed(why.to_owned()),
            _ => continue,
        };
        started = started.filter(|s| *s != name.trim());
        results.push(CaseResult { name: name.trim().to_owned(), verdict, end });
    }
    results.extend(unfinished(started, end));
    results
}

/// The result of a case that was started, and of which nothing was heard again.
fn unfinished(name: Option<&str>, end: usize) -> Option<CaseResult> {
    let verdict = Verdict::Failed("it did not end".to_owned());
    name.map(|name| CaseResult { name: name.to_owned(), verdict, end })
}

/// Whether the suite came to its end, and counted as we do, on the machine that was meant.
fn complete(finished: &Finished, results: &[CaseResult], ways: &[&str]) -> Result<String> {
    let text = finished.conversation.text();
    if let Some(way) = ways.iter().find(|way| !text.contains(**way)) {
        let said = text.lines().filter(|l| l.contains("interrupts: ") || l.contains("Features("));
        bail!("nothing says {way:?}, but {:?}", said.collect::<Vec<_>>());
    }
    let passed = results.iter().filter(|r| r.verdict == Verdict::Passed).count();
    let failed = results.iter().filter(|r| matches!(r.verdict, Verdict::Failed(_))).count();
    let closing = format!("{passed} passed, {failed} failed");
    let said = text.lines().any(|line| line.ends_with(&closing));
    if !said || results.is_empty() {
        let tail = finished.conversation.tail(40);
        bail!("no closing line `{closing}` ({:?})\n--- last lines ---\n{tail}", finished.end);
    }
    let fine = matches!(finished.end, End::Done | End::Exit(Some(EXIT_PASS)));
    if failed == 0 && !fine {
        bail!("all cases passed, but the machine ended with {:?}", finished.end);
    }
    Ok(format!("{} cases", results.len()))
}

#[cfg(test)]
mod tests {
    use super::*;

    const GAP: Gap = Gap { lane: Lane::BochsAmd, case: "vcpu::x", why: "because" };

    #[test]
    fn gaps_reach_the_component_and_are_explained() {
        assert_eq!(arguments("", "", &[]), "");
        assert_eq!(
            arguments("a=b", "vcpu::", &[&GAP, &GAP]),
            "a=b only=vcpu:: skip=vcpu::x,vcpu::x"
        );
        let mut found = results("TEST vcpu::x ... skipped: left out\nTEST y ... ok\n");
        assert_eq!(explain(&mut found, &[&GAP]), None);
        assert_eq!(found[0].verdict, Verdict::Skipped("because".to_owned()));
        assert_eq!(explain(&mut found[1..], &[&GAP]), Some("vcpu::x"));
    }

    #[test]
    fn names_of_suites_are_of_their_lane_and_differ() {
        let names: Vec<String> = SUITES.iter().map(Suite::name).collect();
        for (suite, name) in SUITES.iter().zip(&names) {
            assert_eq!(Lane::of(name), Some(suite.lane));
            assert_eq!(names.iter().filter(|n| *n == name).count(), 1);
            assert!(suite.machine().is_ok());
        }
    }

    #[test]
    fn lines_of_the_suite_are_understood() {
        let text = "boot\n[conformance] START create_pd\n[conformance] TEST create_pd ... ok\n\
                    TEST ipc ... FAILED: status 3\nTEST smp ... skipped: one CPU\n\
                    START lost\nSTART hangs\nnoise\n";
        let found = results(text);
        let names: Vec<&str> = found.iter().map(|r| r.name.as_str()).collect();
        assert_eq!(names, ["create_pd", "ipc", "smp", "lost", "hangs"]);
        assert_eq!(found[0].verdict, Verdict::Passed);
        assert_eq!(found[1].verdict, Verdict::Failed("status 3".to_owned()));
        assert_eq!(found[2].verdict, Verdict::Skipped("one CPU".to_owned()));
        assert_eq!(found[3].verdict, Verdict::Failed("it did not end".to_owned()));
        assert_eq!(found[4].verdict, found[3].verdict);
        assert!(text[..found[0].end].ends_with("TEST create_pd ... ok\n"));
    }
}
