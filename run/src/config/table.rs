//! Typed access to a parsed TOML table that notes every error and goes on.

use toml::Spanned;
use toml::de::{DeArray, DeTable, DeValue};

use super::source::{Diagnostic, Located, Span};

/// A table of the configuration: its keys are known, everything else in it is an error.
pub struct Table<'a, 'i> {
    what: &'static str,
    table: &'a DeTable<'i>,
    span: Span,
}

impl<'a, 'i> Table<'a, 'i> {
    /// Takes a table and reports the keys that it should not have.
    pub fn new(
        what: &'static str,
        table: &'a DeTable<'i>,
        span: Span,
        keys: &[&str],
        errors: &mut Vec<Diagnostic>,
    ) -> Self {
        for key in table.keys() {
            if !keys.contains(&key.get_ref().as_ref()) {
                errors.push(unknown(&key.span(), "key", key.get_ref(), keys.iter().copied(), what));
            }
        }
        Self { what, table, span }
    }

    /// Where the table begins.
    #[must_use]
    pub fn span(&self) -> &Span {
        &self.span
    }

    fn get(&self, key: &str) -> Option<&'a Spanned<DeValue<'i>>> {
        self.table.get(key)
    }

    /// An optional value of one type.
    pub fn optional<T>(
        &self,
        key: &str,
        errors: &mut Vec<Diagnostic>,
        convert: impl FnOnce(&'a Spanned<DeValue<'i>>, &mut Vec<Diagnostic>) -> Option<T>,
    ) -> Option<Located<T>> {
        let value = self.get(key)?;
        convert(value, errors).map(|converted| Located::new(converted, value.span()))
    }

    /// A value that must be there.
    pub fn required<T>(
        &self,
        key: &str,
        errors: &mut Vec<Diagnostic>,
        convert: impl FnOnce(&'a Spanned<DeValue<'i>>, &mut Vec<Diagnostic>) -> Option<T>,
    ) -> Option<Located<T>> {
        if self.get(key).is_none() {
            errors.push(Diagnostic::new(&self.span, format!("{} has no `{key}`", self.what)));
        }
        self.optional(key, errors, convert)
    }
}

/// An unknown name, with the known one that it resembles.
pub fn unknown<'n>(
    span: &Span,
    kind: &str,
    name: &str,
    known: impl Iterator<Item = &'n str>,
    place: &str,
) -> Diagnostic {
    let known: Vec<&str> = known.collect();
    let near = known
        .iter()
        .max_by(|a, b| strsim::jaro_winkler(a, name).total_cmp(&strsim::jaro_winkler(b, name)));
    let error = Diagnostic::new(span, format!("unknown {kind} `{name}` in {place}"));
    match near {
        Some(near) if strsim::jaro_winkler(near, name) > 0.75 => {
            error.help(format!("did you mean `{near}`?"))
        }
        Some(_) => error.help(format!("known here: {}", known.join(", "))),
        None => error,
    }
}

fn wrong(value: &Spanned<DeValue<'_>>, expected: &str, errors: &mut Vec<Diagnostic>) {
    let found = value.get_ref().type_str();
    errors.push(Diagnostic::new(&value.span(), format!("expected {expected}, found {found}")));
}

/// A string.
pub fn string(value: &Spanned<DeValue<'_>>, errors: &mut Vec<Diagnostic>) -> Option<String> {
    let found = value.get_ref().as_str().map(str::to_owned);
    if found.is_none() {
        wrong(value, "a string", errors);
    }
    found
}

/// A whole number within a range.
pub fn number(
    value: &Spanned<DeValue<'_>>,
    range: std::ops::RangeInclusive<u16>,
    errors: &mut Vec<Diagnostic>,
) -> Option<u16> {
    let expected = format!("a number from {} to {}", range.start(), range.end());
    let Some(integer) = value.get_ref().as_integer() else {
        wrong(value, &expected, errors);
        return None;
    };
    let found = i64::from_str_radix(integer.as_str(), integer.radix())
        .ok()
        .and_then(|n| u16::try_from(n).ok())
        .filter(|n| range.contains(n));
    if found.is_none() {
        errors.push(Diagnostic::new(&value.span(), format!("expected {expected}")));
    }
    found
}

/// True or false.
pub fn boolean(value: &Spanned<DeValue<'_>>, errors: &mut Vec<Diagnostic>) -> Option<bool> {
    let found = value.get_ref().as_bool();
    if found.is_none() {
        wrong(value, "true or false", errors);
    }
    found
}

/// A list whose entries all convert; entries that do not are reported and left out.
pub fn list<'a, 'i, T>(
    value: &'a Spanned<DeValue<'i>>,
    errors: &mut Vec<Diagnostic>,
    mut convert: impl FnMut(&'a Spanned<DeValue<'i>>, &mut Vec<Diagnostic>) -> Option<T>,
) -> Option<Vec<Located<T>>> {
    let array = array(value, errors)?;
    let mut out = Vec::new();
    for entry in array.iter() {
        if let Some(converted) = convert(entry, errors) {
            out.push(Located::new(converted, entry.span()));
        }
    }
    Some(out)
}

fn array<'a, 'i>(
    value: &'a Spanned<DeValue<'i>>,
    errors: &mut Vec<Diagnostic>,
) -> Option<&'a DeArray<'i>> {
    let found = value.get_ref().as_array();
    if found.is_none() {
        wrong(value, "a list", errors);
    }
    found
}

/// A table.
pub fn table<'a, 'i>(
    value: &'a Spanned<DeValue<'i>>,
    errors: &mut Vec<Diagnostic>,
) -> Option<&'a DeTable<'i>> {
    let found = value.get_ref().as_table();
    if found.is_none() {
        wrong(value, "a table", errors);
    }
    found
}

/// One of a few words.
pub fn word<T: Copy>(
    value: &Spanned<DeValue<'_>>,
    words: &[(&str, T)],
    errors: &mut Vec<Diagnostic>,
) -> Option<T> {
    let text = string(value, errors)?;
    let found = words.iter().find(|(word, _)| *word == text).map(|&(_, meaning)| meaning);
    if found.is_none() {
        let known: Vec<String> = words.iter().map(|(word, _)| format!("\"{word}\"")).collect();
        let message = format!("expected {}", known.join(" or "));
        errors.push(Diagnostic::new(&value.span(), message));
    }
    found
}
