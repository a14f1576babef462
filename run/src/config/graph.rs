//! Who uses whom: services, cycles, start order.

use super::model::{Domain, Model};
use super::source::Diagnostic;
use super::table::unknown;

/// Index of the domain with a name.
#[must_use]
pub fn find(model: &Model, name: &str) -> Option<usize> {
    model.domains.iter().position(|d| d.name.as_ref().is_some_and(|n| n.value == name))
}

/// Reports unknown providers, services nobody declares, and cycles.
pub fn check(model: &Model, errors: &mut Vec<Diagnostic>) {
    for wanted in model.domains.iter().flat_map(|d| &d.uses) {
        let name = &wanted.provider.value;
        let Some(provider) = find(model, name).and_then(|i| model.domains.get(i)) else {
            let known =
                model.domains.iter().filter_map(|d| d.name.as_ref().map(|n| n.value.as_str()));
            errors.push(unknown(&wanted.provider.span, "component", name, known, "this file"));
            continue;
        };
        let service = &wanted.service.value;
        if !provider.provides.iter().any(|p| p.value == *service) {
            let message = format!("`{name}` does not provide `{service}`");
            let error = Diagnostic::new(&wanted.service.span, message);
            let place = provider.name.as_ref().map_or(&provider.span, |n| &n.span);
            let offers: Vec<&str> = provider.provides.iter().map(|p| p.value.as_str()).collect();
            errors.push(error.also(
                place,
                match offers.as_slice() {
                    [] => "provides nothing".to_owned(),
                    some => format!("provides {}", some.join(", ")),
                },
            ));
        }
    }
    if let Err(cycle) = order(model) {
        report(model, &cycle, errors);
    }
}

fn providers<'a>(model: &'a Model, domain: &'a Domain) -> impl Iterator<Item = usize> + 'a {
    domain.uses.iter().filter_map(|u| find(model, &u.provider.value))
}

/// Start order: providers before users, otherwise as in the file.
///
/// # Errors
/// The domains of one cycle, each using the next, the last using the first.
pub fn order(model: &Model) -> Result<Vec<usize>, Vec<usize>> {
    let mut order: Vec<usize> = Vec::new();
    while order.len() < model.domains.len() {
        let ready = |(index, domain): &(usize, &Domain)| {
            !order.contains(index) && providers(model, domain).all(|p| order.contains(&p))
        };
        match model.domains.iter().enumerate().find(ready) {
            Some((index, _)) => order.push(index),
            None => return Err(cycle(model, &order)),
        }
    }
    Ok(order)
}

/// Follows unstarted providers from any unstarted domain until one comes again.
fn cycle(model: &Model, started: &[usize]) -> Vec<usize> {
    let mut path: Vec<usize> = Vec::new();
    let mut next = (0..model.domains.len()).find(|i| !started.contains(i));
    while let Some(index) = next {
        if let Some(first) = path.iter().position(|&p| p == index) {
            return path.split_off(first);
        }
        path.push(index);
        next = model
            .domains
            .get(index)
            .and_then(|d| providers(model, d).find(|p| !started.contains(p)));
    }
    path
}

fn report(model: &Model, cycle: &[usize], errors: &mut Vec<Diagnostic>) {
    let name = |i: &usize| {
        model.domains.get(*i).and_then(|d| d.name.as_ref()).map_or("?", |n| n.value.as_str())
    };
    let mut names: Vec<&str> = cycle.iter().map(name).collect();
    names.extend(cycle.first().map(name));
    let first = cycle.first().and_then(|i| model.domains.get(*i));
    let second = names.get(1).copied().unwrap_or("?");
    let span = first
        .and_then(|d| d.uses.iter().find(|u| u.provider.value == second))
        .map_or(0..0, |u| u.provider.span.clone());
    let message = format!("components use each other in a cycle: {}", names.join(" -> "));
    errors.push(Diagnostic::new(&span, message).help("a provider starts before its users"));
}
