//! The conformance suite: a component that exercises the real kernel, on 1, 2 and 8 CPUs. It
//! writes a line `START name`, then `TEST name ... ok`, `... FAILED: why` or `... skipped: why` for each case, at last
//! `N passed, N failed`, and ends the machine through the test-exit port.

use std::time::Duration;

use anyhow::{Result, anyhow, bail};

use super::report::Report;
use super::{Context, Job};
use crate::qemu::{EXIT_PASS, Machine, Serial, Start};
use crate::session::{End, Finished, Session};
use crate::system;

const MEMORY: u64 = 1 << 30;
const TIMEOUT: Duration = Duration::from_secs(300);

/// One group for each number of CPUs.
#[must_use]
pub fn jobs() -> Vec<Job> {
    let group = |smp: u16| {
        let plural = if smp == 1 { "" } else { "s" };
        let name = format!("conformance/{smp}-cpu{plural}");
        Job::group(name.clone(), move |context, report| suite(context, report, &name, smp))
    };
    [1, 2, 8].map(group).into()
}

fn suite(context: &Context, report: &Report, name: &str, smp: u16) -> Result<()> {
    let compiled = system::check(&context.repo, &context.repo.config("conformance"), smp, MEMORY)?;
    let plan = system::assemble(&context.repo, context.images()?, &compiled)?;
    let iso = context.scratch(&format!("conformance-{smp}.iso"))?;
    plan.pack(&iso)?;
    let command = &mut Machine::plain(smp, MEMORY).command(&Start::Iso(iso), &Serial::Pipes);
    let session = Session { timeout: Some(TIMEOUT), to_the_end: true, ..Session::default() };
    let finished = session.run(command, Vec::new())?;

    let results = results(finished.conversation.text());
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
        report.note(&all, finished.time, complete(&finished, &results));
    }
    Ok(())
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

/// Whether the suite came to its end, and counted as we do.
fn complete(finished: &Finished, results: &[CaseResult]) -> Result<String> {
    let passed = results.iter().filter(|r| r.verdict == Verdict::Passed).count();
    let failed = results.iter().filter(|r| matches!(r.verdict, Verdict::Failed(_))).count();
    let closing = format!("{passed} passed, {failed} failed");
    let said = finished.conversation.text().lines().any(|line| line.ends_with(&closing));
    if !said || results.is_empty() {
        let tail = finished.conversation.tail(40);
        bail!("no closing line `{closing}` ({:?})\n--- last lines ---\n{tail}", finished.end);
    }
    let fine = End::Exit(Some(EXIT_PASS));
    if failed == 0 && finished.end != fine {
        bail!("all cases passed, but the machine ended with {:?}", finished.end);
    }
    Ok(format!("{} cases", results.len()))
}

#[cfg(test)]
mod tests {
    use super::*;

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
