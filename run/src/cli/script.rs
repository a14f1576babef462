//! `--expect` and `--send` in the order in which they stand on the command line.

use anyhow::{Context, Result, anyhow};
use clap::ArgMatches;

use crate::expect::{Step, unescape};

/// The script of a command line.
///
/// # Errors
/// A text holds an escape that is none.
pub(super) fn steps(matches: &ArgMatches) -> Result<Vec<Step>> {
    let mut found: Vec<(usize, Step)> = Vec::new();
    for (id, make) in [("expect", Step::Expect as fn(String) -> Step), ("send", Step::Send)] {
        let places = matches.indices_of(id).into_iter().flatten();
        let texts = matches.get_many::<String>(id).into_iter().flatten();
        for (place, text) in places.zip(texts) {
            let text = unescape(text).map_err(|e| anyhow!(e)).with_context(|| format!("--{id}"))?;
            found.push((place, make(text)));
        }
    }
    found.sort_by_key(|(place, _)| *place);
    Ok(found.into_iter().map(|(_, step)| step).collect())
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    fn parse(args: &[&str]) -> Result<Vec<Step>> {
        let words = ["run", "boot"].iter().chain(args);
        let matches = super::super::Cli::command().get_matches_from(words);
        steps(matches.subcommand_matches("boot").unwrap())
    }

    #[test]
    fn order_is_that_of_the_command_line() {
        let expect = |t: &str| Step::Expect(t.to_owned());
        let send = |t: &str| Step::Send(t.to_owned());
        let args = ["--expect", "a", "--headless", "--send=b\\n", "--send", "-c", "--expect", "# "];
        let script = parse(&args).unwrap();
        assert_eq!(script, [expect("a"), send("b\n"), send("-c"), expect("# ")]);
        assert_eq!(parse(&["--smp", "4"]).unwrap(), []);
    }

    #[test]
    fn bad_escape_is_told() {
        assert!(parse(&["--send", "\\q"]).is_err());
    }

    #[test]
    fn command_line_is_consistent() {
        super::super::Cli::command().debug_assert();
    }
}
