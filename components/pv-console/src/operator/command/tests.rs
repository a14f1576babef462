use proptest::prelude::{ProptestConfig, proptest};

use super::{COMMANDS, Command, Error, Order, choose, parse};

fn spec(name: &str) -> &'static super::Spec {
    COMMANDS.iter().find(|s| s.name == name).unwrap()
}

#[test]
fn commands_are_read() {
    for (line, command) in [
        ("help", Command::Help(None)),
        ("help kill", Command::Help(Some(spec("kill")))),
        ("  list  ", Command::List),
        ("consoles", Command::Consoles),
        ("show one", Command::Show("one")),
        ("exits\tone", Command::Exits("one")),
        ("log one", Command::Log("one", None)),
        ("log one 20", Command::Log("one", Some(20))),
        ("attach 2", Command::Attach("2")),
        ("pause one", Command::Order(Order::Pause, "one")),
        ("resume one", Command::Order(Order::Resume, "one")),
        ("restart one", Command::Order(Order::Restart, "one")),
        ("kill one", Command::Order(Order::Kill, "one")),
        ("k one", Command::Order(Order::Kill, "one")),
        ("lo one", Command::Log("one", None)),
    ] {
        assert_eq!(parse(line), Ok(Some(command)), "{line}");
    }
    assert_eq!(parse(" \t "), Ok(None));
}

#[test]
fn errors_name_what_is_wrong() {
    for (line, message) in [
        ("frob", "unknown command \"frob\"; try help"),
        ("Kill one", "unknown command \"Kill\"; try help"),
        ("re one", "ambiguous command \"re\": resume, restart"),
        ("l", "ambiguous command \"l\": list, log"),
        ("kill", "usage: kill NAME"),
        ("kill one two", "usage: kill NAME"),
        ("list one", "usage: list"),
        ("log", "usage: log NAME [LINES]"),
        ("log one two", "\"two\" is no number of lines"),
        ("log one -1", "\"-1\" is no number of lines"),
        ("log one 1 2", "usage: log NAME [LINES]"),
        ("help frob", "unknown command \"frob\"; try help"),
        ("help list kill", "usage: help [COMMAND]"),
    ] {
        assert_eq!(parse(line).map_err(|e| e.to_string()), Err(message.to_owned()), "{line}");
    }
    assert!(matches!(parse("log"), Err(Error::Usage(_))));
}

#[test]
fn a_whole_name_is_not_ambiguous() {
    let names = ["one", "one-more", "two"];
    let choose = |word| choose(word, names.into_iter().map(|n| (n, n)));
    assert_eq!(choose("one"), Ok("one"));
    assert_eq!(choose("t"), Ok("two"));
    assert_eq!(choose("on"), Err(vec!["one", "one-more"]));
    assert_eq!(choose("x"), Err(vec![]));
    assert_eq!(choose(""), Err(names.to_vec()));
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]
    #[test]
    fn any_line_is_read_or_refused(line in "[a-z0-9 \\t\"-]{0,40}") {
        if let Err(error) = parse(&line) {
            assert!(!error.to_string().is_empty());
        }
    }
}
