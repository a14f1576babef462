//! Whole systems: what a machine says that boots a configuration.

mod devices;
mod hostile;
mod isolation;
mod shell;

use std::time::Duration;

use anyhow::{Context as _, Result, bail};

use super::lane::{Lane, with_model};
use super::{Context, Job, operator};
use crate::bochs::Model;
use crate::expect::Step;
use crate::iso::{Contents, Medium, Plan};
use crate::machine::Machine;
use crate::qemu::{self, Firmware};
use crate::session::{End, Session};
use crate::{exits, system};

const MEMORY: u64 = 2 << 30;
/// Bochs takes its time, the more so beside others.
const TIMEOUT: Duration = Duration::from_secs(900);

/// Waits for and sends; the texts of a case.
pub(super) enum Say {
    Hear(&'static str),
    /// Hears it so many times.
    Often(usize, &'static str),
    /// Hears each of these so many times, in any order.
    Together(&'static [Times]),
    Type(&'static str),
    /// So many times: hears the one text and types the other.
    Answer(usize, &'static str, &'static str),
    /// The machine ends by itself, without an error.
    Off,
}

/// So many times, a text that is heard beside others.
pub(super) struct Times(pub(super) usize, pub(super) &'static str);

/// A machine that boots and what is said.
pub(super) struct Boot {
    lane: Lane,
    /// A CPU that is not the lane's usual one, in Bochs.
    model: Option<Model>,
    /// The same in QEMU.
    cpu: Option<&'static str>,
    name: &'static str,
    config: &'static str,
    /// In QEMU.
    firmware: Firmware,
    /// In QEMU.
    medium: Medium,
    smp: u16,
    /// RAM of the machine, where it is not what the configuration was checked against.
    memory: u64,
    /// Changes the boot image before it is packed.
    damage: fn(&mut Plan) -> Result<()>,
    script: &'static [Say],
    /// Looks at all that was said.
    check: fn(&str) -> Result<String>,
}

impl Boot {
    pub(super) const fn new(
        name: &'static str,
        config: &'static str,
        script: &'static [Say],
    ) -> Self {
        Self {
            lane: Lane::QemuAmd,
            model: None,
            cpu: None,
            name,
            config,
            firmware: Firmware::Bios,
            medium: Medium::Disc,
            smp: 2,
            memory: MEMORY,
            damage: |_| Ok(()),
            script,
            check: |_| Ok(String::new()),
        }
    }

    /// The same, and all that was said has to stand this look.
    pub(super) const fn checked(self, check: fn(&str) -> Result<String>) -> Self {
        Self { check, ..self }
    }

    /// A quiet guest to its shell on a lane's usual machine.
    const fn shell(lane: Lane, name: &'static str, smp: u16) -> Self {
        Self { lane, smp, ..Self::new(name, "quiet", shell::TO_SHELL_QUIET) }
    }

    fn name(&self) -> String {
        format!("system/{}/{}", self.lane.name(), self.name)
    }

    fn machine(&self) -> Result<Machine> {
        match (self.lane, self.model) {
            (_, Some(model)) => with_model(model, self.smp, self.memory),
            (Lane::QemuAmd, None) => Ok(Machine::Qemu(qemu::Machine {
                firmware: self.firmware,
                medium: self.medium,
                // The last one counts.
                extra: self.cpu.iter().flat_map(|cpu| ["-cpu".into(), (*cpu).into()]).collect(),
                ..qemu::Machine::plain(self.smp, self.memory)
            })),
            (lane, None) => lane.machine(self.smp, self.memory),
        }
    }
}

/// The cases.
#[must_use]
pub fn jobs() -> Vec<Job> {
    let boots = [shell::BOOTS, devices::BOOTS, hostile::BOOTS, isolation::BOOTS, operator::BOOTS];
    let boots = boots.into_iter().flatten();
    let boots = boots.map(|boot| Job::case(boot.name(), move |context| run(context, boot)));
    let host = [
        Job::case("system/exits-to-init-are-within-budget", exits_to_init),
        Job::case("system/missing-kernel-file-is-told", missing_kernel),
        Job::case("system/shipped-configurations-are-good", shipped),
    ];
    boots.chain(host).collect()
}

fn run(context: &Context, boot: &Boot) -> Result<String> {
    let config = context.repo.config(boot.config);
    let compiled = system::check(&context.repo, &config, boot.smp, MEMORY)?;
    let mut plan = system::assemble(&context.repo, context.images()?, &compiled)?;
    (boot.damage)(&mut plan)?;
    let iso = context.scratch(&boot.name().replace('/', "-"))?.with_extension("iso");
    plan.pack_for(boot.medium, &iso)?;

    let texts = |&Times(count, text): &Times| (0..count).map(|_| text.to_owned()).collect();
    let mut script = Vec::new();
    let mut off = false;
    for say in boot.script {
        match say {
            Say::Hear(text) => script.push(Step::Expect((*text).to_owned())),
            Say::Often(count, text) => {
                script.extend((0..*count).map(|_| Step::Expect((*text).to_owned())));
            }
            Say::Together(all) => {
                script.push(Step::Together(all.iter().map(texts).collect()));
            }
            Say::Type(text) => script.push(Step::Send((*text).to_owned())),
            Say::Answer(count, heard, typed) => {
                let turn = [Step::Expect((*heard).to_owned()), Step::Send((*typed).to_owned())];
                script.extend(std::iter::repeat_n(turn, *count).flatten());
            }
            Say::Off => off = true,
        }
    }
    let log = iso.with_extension("log");
    let session =
        Session { timeout: Some(TIMEOUT), log: Some(&log), to_the_end: off, ..Session::default() };
    let mut machine = boot.machine()?;
    machine.plug_in(compiled.hardware.arguments(&context.repo, &compiled.system.name)?)?;
    let finished = machine.run(&session, &iso, script)?;
    // Only failures are worth keeping the image for.
    let keep = |result: Result<String>| {
        if result.is_ok() {
            let _ = std::fs::remove_file(&iso);
        }
        result
    };
    if off && finished.end == End::Exit(Some(0)) && finished.conversation.done() {
        return keep(Ok(String::new()));
    }
    let done = finished.require_done();
    keep(done.and_then(|()| (boot.check)(finished.conversation.text())))
}

fn contents<'p>(plan: &'p mut Plan, name: &str) -> Result<&'p mut Contents> {
    let module = plan.modules.iter_mut().find(|(module, _)| module == name);
    module.map(|(_, contents)| contents).with_context(|| format!("there is no module {name}"))
}

fn bytes(contents: &Contents) -> Result<Vec<u8>> {
    match contents {
        Contents::Bytes(bytes) => Ok(bytes.clone()),
        Contents::File(path) => Ok(std::fs::read(path)?),
    }
}

fn exits_to_init(context: &Context) -> Result<String> {
    let iso = context.scratch("exits-to-init.iso")?;
    let exits = exits::until_init(&context.repo, context.images()?, &iso)?;
    let all: Vec<String> = exits.iter().map(|(reason, n)| format!("{reason} {n}")).collect();
    let all = all.join(", ");
    let total = exits.iter().find(|(reason, _)| reason == exits::TOTAL);
    if total.is_none_or(|(_, count)| *count > exits::BUDGET) {
        bail!("more than {} exits: {all}", exits::BUDGET);
    }
    Ok(all)
}

fn missing_kernel(context: &Context) -> Result<String> {
    let path = context.scratch("missing-kernel.toml")?;
    std::fs::write(&path, "[[vm]]\nname = \"a\"\nmemory = \"64M\"\nkernel = \"no/vmlinuz\"\n")?;
    let Err(error) = system::check(&context.repo, &path, 2, MEMORY) else {
        bail!("a configuration without its kernel passed the check");
    };
    let text = error.to_string();
    let missing = path.with_file_name("no/vmlinuz");
    for part in [format!("{}:4:10", path.display()), missing.display().to_string()] {
        if !text.contains(&part) {
            bail!("`{part}` is not in the message:\n{text}");
        }
    }
    Ok(String::new())
}

fn shipped(context: &Context) -> Result<String> {
    let mut count = 0;
    for folder in ["run/configs", "run/configs/test"] {
        for entry in context.repo.root.join(folder).read_dir()? {
            let path = entry?.path();
            if path.extension().is_some_and(|e| e == "toml") {
                system::check(&context.repo, &path, 2, MEMORY)?;
                count += 1;
            }
        }
    }
    Ok(format!("{count} configurations"))
}
