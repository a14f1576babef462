//! How often a guest leaves to its VMM until its init runs: the configuration `test/init-off`
//! powers the guest off in place of init, and the VMM counts.

use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result};

use crate::images::Images;
use crate::qemu::{Machine, Serial, Start};
use crate::repo::Repo;
use crate::session::{End, Session};
use crate::system;

/// Most exits that the guest may need (the quiet configuration's promise).
pub const BUDGET: u64 = 3000;
/// Name of the sum among the reasons.
pub const TOTAL: &str = "total";

const SMP: u16 = 2;
const MEMORY: u64 = 2 << 30;
const TIMEOUT: Duration = Duration::from_secs(240);

/// Boots the configuration from an image at `iso` and returns reasons and their numbers.
///
/// # Errors
/// The guest does not come to its init, or the VMM reports no numbers.
pub fn until_init(repo: &Repo, images: &Images, iso: &Path) -> Result<Vec<(String, u64)>> {
    let compiled = system::check(repo, &repo.config("test/init-off"), SMP, MEMORY)?;
    system::assemble(repo, images, &compiled)?.pack(iso)?;
    let session = Session { timeout: Some(TIMEOUT), to_the_end: true, ..Session::default() };
    let command =
        &mut Machine::plain(SMP, MEMORY).command(&Start::Iso(iso.to_path_buf()), &Serial::Pipes);
    let finished = session.run(command, Vec::new())?;
    if finished.end != End::Exit(Some(0)) {
        finished.require_done()?;
    }
    parse(finished.conversation.text()).context("the VMM did not report its exits")
}

/// Reads a line `... exits total=N reason=N ...`.
fn parse(text: &str) -> Option<Vec<(String, u64)>> {
    let (_, line) = text.lines().find_map(|line| line.split_once("exits total="))?;
    let line = format!("{TOTAL}={line}");
    let pair = |word: &str| {
        let (reason, count) = word.split_once('=')?;
        Some((reason.to_owned(), count.parse().ok()?))
    };
    line.trim_end_matches(')').split_whitespace().map(pair).collect()
}

#[cfg(test)]
mod tests {
    use super::parse;

    #[test]
    fn line_of_the_vmm_is_understood() {
        let text = "[ 1.0] [linux] guest powered off\n[ 1.0] [linux] exits total=7 io=3 hlt=4\n";
        let expected = [("total", 7), ("io", 3), ("hlt", 4)].map(|(n, c)| (n.to_owned(), c));
        assert_eq!(parse(text).as_deref(), Some(&expected[..]));
        assert_eq!(parse("nothing of the kind"), None);
    }
}
