//! What the configuration says of a disk, as `key=value` words of a session.

use core::fmt;

/// A disk as it was configured.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Options<'a> {
    /// `disk=NAME`: the store or device.
    pub disk: &'a str,
    /// `partition=N`: a partition of it.
    pub partition: Option<u32>,
    /// `ro`: nothing may be written.
    pub read_only: bool,
    /// `cow=STORE`: what is written goes there.
    pub overlay: Option<&'a str>,
    /// `serial=TEXT`: cut off at 20 bytes.
    pub serial: &'a str,
}

/// Words that make no sense.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OptionsError<'a> {
    /// There is no `disk=`.
    NoDisk,
    /// The number is none.
    Partition(&'a str),
    /// A word that nobody knows.
    Unknown(&'a str),
}

impl fmt::Display for OptionsError<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NoDisk => write!(f, "no disk is named"),
            Self::Partition(text) => write!(f, "{text} is no number of a partition"),
            Self::Unknown(word) => write!(f, "unknown word {word}"),
        }
    }
}

impl core::error::Error for OptionsError<'_> {}

impl<'a> Options<'a> {
    /// Reads the words.
    ///
    /// # Errors
    /// [`OptionsError`]
    pub fn parse(args: &'a str) -> Result<Self, OptionsError<'a>> {
        let mut options = Self::default();
        for word in args.split_ascii_whitespace() {
            match word.split_once('=') {
                Some(("disk", name)) => options.disk = name,
                Some(("partition", text)) => {
                    let number = text.parse().ok().filter(|n| *n > 0);
                    options.partition = Some(number.ok_or(OptionsError::Partition(text))?);
                }
                Some(("cow", name)) => options.overlay = Some(name),
                Some(("serial", text)) => options.serial = text,
                None if word == "ro" => options.read_only = true,
                _ => return Err(OptionsError::Unknown(word)),
            }
        }
        if options.disk.is_empty() { Err(OptionsError::NoDisk) } else { Ok(options) }
    }
}

#[cfg(test)]
mod tests {
    use super::{Options, OptionsError};

    #[test]
    fn all_words() {
        let all = Options::parse("disk=one ro cow=changes partition=2 serial=ABC-1").unwrap();
        let expect = Options {
            disk: "one",
            partition: Some(2),
            read_only: true,
            overlay: Some("changes"),
            serial: "ABC-1",
        };
        assert_eq!(all, expect);
        assert_eq!(Options::parse("disk=x").unwrap(), Options { disk: "x", ..Options::default() });
    }

    #[test]
    fn words_that_make_no_sense() {
        assert_eq!(Options::parse("ro"), Err(OptionsError::NoDisk));
        assert_eq!(Options::parse("disk="), Err(OptionsError::NoDisk));
        assert_eq!(Options::parse("disk=a partition=0"), Err(OptionsError::Partition("0")));
        assert_eq!(Options::parse("disk=a partition=x"), Err(OptionsError::Partition("x")));
        assert_eq!(Options::parse("disk=a rw"), Err(OptionsError::Unknown("rw")));
        assert_eq!(Options::parse("disk=a size=3"), Err(OptionsError::Unknown("size=3")));
    }
}
