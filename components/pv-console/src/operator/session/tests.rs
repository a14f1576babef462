use ipc::proto::root::{Cause, Entry, State};
use proptest::prelude::{ProptestConfig, any, prop, prop_assert, proptest};

use super::super::command::Order;
use super::super::table::tests::entry;
use super::{AHEAD, OUTPUT, PATIENCE_MS, PROMPT, Refused, Session, System};

/// A system of which everything is known.
struct World {
    entries: Vec<Entry>,
    denied: bool,
    /// How often the root task is still busy.
    busy: u32,
    orders: Vec<(Order, String)>,
    attached: Option<usize>,
    /// First position that is kept, and what is there on.
    log: (u64, Vec<u8>),
}

impl World {
    fn new() -> Self {
        let mut console = entry("console");
        (console.vm, console.ram) = (false, 0);
        Self {
            entries: vec![console, entry("one"), entry("one-more")],
            denied: false,
            busy: 0,
            orders: vec![],
            attached: None,
            log: (0, b"[    0.001] [one] starts\r\nLinux\r\n# ".to_vec()),
        }
    }

    fn state(&mut self, name: &str, state: State) {
        self.entries.iter_mut().find(|e| e.name == name).unwrap().state = state;
    }
}

impl System for World {
    fn entry(&mut self, index: u16) -> Result<Entry, Refused> {
        if self.denied {
            return Err(Refused::Denied);
        }
        self.entries.get(usize::from(index)).cloned().ok_or(Refused::NotFound)
    }

    fn order(&mut self, order: Order, name: &str) -> Result<(), Refused> {
        if self.busy > 0 {
            self.busy -= 1;
            return Err(Refused::Busy);
        }
        self.orders.push((order, name.into()));
        Ok(())
    }

    fn consoles(&self) -> Vec<String> {
        vec!["one".into(), "one-more".into()]
    }

    fn attach(&mut self, console: usize) {
        self.attached = Some(console);
    }

    fn back(&mut self) -> bool {
        self.attached = Some(0);
        true
    }

    fn logs(&self) -> Vec<String> {
        vec!["root".into(), "one".into()]
    }

    fn log(&self, log: usize) -> (u64, u64) {
        let length = self.log.1.len() as u64;
        if log == 1 { (self.log.0, self.log.0 + length) } else { (0, 0) }
    }

    fn read(&self, _log: usize, at: u64, to: &mut [u8]) -> usize {
        let Some(from) = at.checked_sub(self.log.0) else { return 0 };
        let rest = self.log.1.get(from as usize..).unwrap_or(&[]);
        let count = rest.len().min(to.len());
        to[..count].copy_from_slice(&rest[..count]);
        count
    }
}

fn drain(session: &mut Session) -> String {
    let text = String::from_utf8_lossy(session.output()).into_owned();
    session.shown(text.len());
    text
}

/// Types it and waits until nothing more comes.
fn say_to(session: &mut Session, world: &mut World, now: u64, text: &str) -> String {
    for byte in text.bytes() {
        session.key(byte, now, world);
    }
    let mut all = drain(session);
    while session.work(now, world) {
        all += &drain(session);
    }
    all + &drain(session)
}

/// The answer to a line.
fn answer(world: &mut World, line: &str) -> String {
    let text = say_to(&mut Session::default(), world, 0, &format!("{line}\r"));
    let text = text.strip_prefix(&format!("{line}\r\n")).unwrap().to_owned();
    text.strip_suffix(PROMPT).unwrap_or(&text).to_owned()
}

#[test]
fn who_comes_is_greeted() {
    let mut session = Session::default();
    session.enter();
    let text = drain(&mut session);
    assert!(text.starts_with("--- operator's console") && text.ends_with(PROMPT), "{text}");
    assert!(session.is_at_prompt());
}

#[test]
fn components_are_listed() {
    let text = answer(&mut World::new(), "list");
    assert_eq!(text.lines().count(), 4);
    assert!(text.contains("\r\none-more"), "{text}");
}

#[test]
fn nothing_is_an_answer_to_nothing() {
    assert_eq!(answer(&mut World::new(), "  "), "");
}

#[test]
fn errors_are_told() {
    for (line, part) in [
        ("frob", "unknown command \"frob\""),
        ("re one", "ambiguous command \"re\": resume, restart"),
        ("show", "usage: show NAME"),
        ("show two", "no component \"two\"; there are: console, one, one-more"),
        ("show on", "ambiguous component \"on\": one, one-more"),
        ("exits console", "console is no VM"),
        ("log two", "no log \"two\"; there are: root, one"),
        ("attach two", "no console \"two\"; there are: one, one-more"),
        ("attach 3", "no console \"3\""),
        ("attach 0", "no console \"0\""),
        ("pause console", "console is no VM (running)"),
        ("resume one", "one does not stand still (running)"),
        ("kill o", "no component \"o\"; there are"),
        ("help frob", "unknown command \"frob\""),
    ] {
        let mut world = World::new();
        let text = answer(&mut world, line);
        assert!(text.starts_with(part), "{line}: {text}");
        assert!(world.orders.is_empty() && world.attached.is_none(), "{line}");
    }
}

#[test]
fn orders_that_make_no_sense_are_not_given() {
    for (line, state, part) in [
        ("pause one", State::Failed, "one does not run (failed)"),
        ("pause one", State::Paused, "one stands still already (paused)"),
        ("resume one", State::Ended, "one does not run (ended)"),
        ("kill one", State::Ended, "one does not run (ended)"),
        ("kill one", State::Failed, "one does not run (failed)"),
    ] {
        let mut world = World::new();
        world.state("one", state);
        let text = answer(&mut world, line);
        assert!(text.starts_with(part), "{line}: {text}");
        assert!(world.orders.is_empty(), "{line}");
    }
}

#[test]
fn who_is_no_operator_is_told() {
    let mut world = World::new();
    world.denied = true;
    for line in ["list", "show one", "exits one", "kill one"] {
        assert!(answer(&mut world, line).contains("operator = true"), "{line}");
    }
    // What the console knows by itself it tells.
    assert!(answer(&mut world, "log one").contains("Linux"));
    assert!(answer(&mut world, "consoles").contains("one-more"));
}

#[test]
fn an_order_is_followed_until_it_is_carried_out() {
    let (mut session, mut world) = (Session::default(), World::new());
    world.busy = 2;
    assert_eq!(say_to(&mut session, &mut world, 0, "pause one\r"), "pause one\r\n");
    for now in [20, 40] {
        assert_eq!(session.deadline(), Some(now));
        assert!(world.orders.is_empty(), "it was busy");
        assert_eq!(say_to(&mut session, &mut world, now, ""), "");
    }
    assert_eq!(world.orders, [(Order::Pause, "one".into())]);
    assert_eq!(say_to(&mut session, &mut world, 60, ""), "", "nothing happened so far");
    world.state("one", State::Paused);
    let text = say_to(&mut session, &mut world, 80, "");
    assert_eq!(text, format!("one: paused\r\n{PROMPT}"));
    assert_eq!((world.orders.len(), session.deadline()), (1, None));
}

#[test]
fn a_restart_is_seen_by_its_count() {
    let (mut session, mut world) = (Session::default(), World::new());
    say_to(&mut session, &mut world, 0, "restart one\r");
    assert_eq!(say_to(&mut session, &mut world, 20, ""), "", "it still runs as before");
    world.entries[1].restarts += 1;
    world.state("one", State::Waiting);
    assert_eq!(say_to(&mut session, &mut world, 40, ""), "");
    world.state("one", State::Running);
    assert!(say_to(&mut session, &mut world, 60, "").starts_with("one: running"));
}

#[test]
fn a_kill_is_seen_by_the_end() {
    let (mut session, mut world) = (Session::default(), World::new());
    say_to(&mut session, &mut world, 0, "kill one\r");
    world.state("one", State::Restarting);
    assert!(say_to(&mut session, &mut world, 20, "").starts_with("one: restarting"));
}

#[test]
fn patience_has_an_end() {
    let (mut session, mut world) = (Session::default(), World::new());
    say_to(&mut session, &mut world, 0, "pause one\r");
    let text = say_to(&mut session, &mut world, PATIENCE_MS, "");
    assert!(text.starts_with("one: running so far"), "{text}");
    // Nor does a root task that is always busy keep the prompt away.
    world.busy = u32::MAX;
    say_to(&mut session, &mut world, 0, "pause one\r");
    let text = say_to(&mut session, &mut world, PATIENCE_MS, "");
    assert!(text.starts_with("the root task is busy"), "{text}");
}

#[test]
fn waiting_can_be_given_up_and_typing_goes_on() {
    let (mut session, mut world) = (Session::default(), World::new());
    assert_eq!(say_to(&mut session, &mut world, 0, "pause one\rconsoles\r"), "pause one\r\n");
    assert_eq!(say_to(&mut session, &mut world, 0, "\x03"), format!("^C\r\n{PROMPT}"));
    say_to(&mut session, &mut world, 0, "pause one\rconsoles\rsho");
    world.state("one", State::Paused);
    let text = say_to(&mut session, &mut world, 40, "");
    assert!(text.contains("1  one\r\n") && text.ends_with(&format!("{PROMPT}sho")), "{text}");
}

#[test]
fn what_is_typed_ahead_is_bounded() {
    let (mut session, mut world) = (Session::default(), World::new());
    say_to(&mut session, &mut world, 0, "pause one\r");
    say_to(&mut session, &mut world, 0, &"x".repeat(10 * AHEAD));
    assert_eq!(session.ahead.len(), AHEAD);
}

#[test]
fn a_log_is_shown() {
    let mut world = World::new();
    assert_eq!(answer(&mut world, "log one"), "[    0.001] [one] starts\r\nLinux\r\n# \r\n");
    assert_eq!(answer(&mut world, "log one 2"), "Linux\r\n# \r\n");
    assert_eq!(answer(&mut world, "log one 99").lines().count(), 3);
    assert_eq!(answer(&mut world, "log one 0"), "\r\n");
    assert_eq!(answer(&mut world, "log root"), "\r\n");
}

#[test]
fn a_log_says_what_is_gone() {
    let mut world = World::new();
    world.log.0 = 77;
    assert!(answer(&mut world, "log one").starts_with("--- 77 bytes older are gone ---\r\n[  "));
    // And what goes while it is shown.
    world.log.1 = b"0123456789\n".repeat(400);
    let mut session = Session::default();
    for byte in b"log one\r" {
        session.key(*byte, 0, &mut world);
    }
    while session.work(0, &mut world) {}
    drain(&mut session);
    world.log.1.drain(..3300);
    world.log.0 += 3300;
    let text = say_to(&mut session, &mut world, 0, "");
    assert!(text.starts_with("--- "), "{text}");
    assert!(text.contains(" bytes were overwritten meanwhile ---\r\n0123456789"), "{text}");
}

#[test]
fn a_log_waits_for_the_port_and_can_be_left() {
    let mut world = World::new();
    world.log.1 = vec![b'x'; 100_000];
    let mut session = Session::default();
    for byte in b"log one\r" {
        session.key(*byte, 0, &mut world);
    }
    while session.work(0, &mut world) {}
    assert!(session.output().len() < OUTPUT + 2 * super::PIECE);
    session.key(3, 0, &mut world);
    assert_eq!(drain(&mut session), format!("^C\r\n{PROMPT}"));
    assert!(session.is_at_prompt());
}

#[test]
fn a_guest_cannot_take_the_terminal_over() {
    let mut world = World::new();
    world.log.1 = b"a\x1b[2Jb\x07\n".to_vec();
    assert_eq!(answer(&mut world, "log one"), "ab?\r\n");
}

#[test]
fn consoles_are_attached_by_name_and_number() {
    for (line, console) in [("attach one", 0), ("attach 2", 1), ("attach one-", 1)] {
        let mut world = World::new();
        let text = answer(&mut world, line);
        assert_eq!((world.attached, text.as_str()), (Some(console), ""), "{line}");
    }
    let (mut session, mut world) = (Session::default(), World::new());
    say_to(&mut session, &mut world, 0, "\x04");
    assert_eq!(world.attached, Some(0));
}

#[test]
fn exits_are_compared_with_the_last_look_at_this_life() {
    let (mut session, mut world) = (Session::default(), World::new());
    let first = say_to(&mut session, &mut world, 0, "exits one\r");
    assert!(first.contains("Io         30   75.0%    -"), "{first}");
    world.entries[1].exits[10] += 7;
    let second = say_to(&mut session, &mut world, 0, "exits one\r");
    assert!(second.contains("+7"), "{second}");
    world.entries[1].restarts += 1;
    assert!(!say_to(&mut session, &mut world, 0, "exits one\r").contains('+'));
}

#[test]
fn help_explains() {
    let mut world = World::new();
    let all = answer(&mut world, "help");
    for command in super::super::command::COMMANDS {
        assert!(all.contains(command.summary));
        let one = answer(&mut world, &format!("help {}", command.name));
        assert!(one.starts_with(&format!("{command}\r\n{}\r\n", command.summary)), "{one}");
        assert!(one.lines().all(|line| line.len() < 90), "{one}");
    }
}

#[test]
fn causes_are_shown() {
    let mut world = World::new();
    (world.entries[1].cause, world.entries[1].detail) = (Cause::Fault, 13);
    assert!(answer(&mut world, "show one").contains("exception 13"));
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]
    #[test]
    fn any_input_is_survived(keys in prop::collection::vec(any::<u8>(), 0..300), pick in any::<u8>()) {
        let (mut session, mut world) = (Session::default(), World::new());
        world.denied = pick & 1 != 0;
        world.busy = u32::from(pick >> 1);
        for (now, key) in (0..).zip(keys) {
            session.key(key, now, &mut world);
            session.work(now, &mut world);
            drain(&mut session);
        }
        session.key(3, 0, &mut world);
        drain(&mut session);
        prop_assert!(session.is_at_prompt());
    }
}
