//! What the configuration says of a card, as `key=value` words of a session.

use core::fmt;

use crate::frame::Mac;

/// A card as it was configured.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Options<'a> {
    /// `network=NAME`: whom it can reach.
    pub network: &'a str,
    /// `mac=ADDRESS`: its address.
    pub mac: Mac,
    /// `rate=BYTES`: bytes in a second that it may send.
    pub rate: Option<u64>,
}

/// Words that make no sense.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OptionsError<'a> {
    /// There is no `network=`.
    NoNetwork,
    /// There is no `mac=`.
    NoMac,
    /// It is no address of a single station.
    Mac(&'a str),
    /// The number is none.
    Rate(&'a str),
    /// A word that nobody knows.
    Unknown(&'a str),
}

impl fmt::Display for OptionsError<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NoNetwork => write!(f, "no network is named"),
            Self::NoMac => write!(f, "no address is given"),
            Self::Mac(text) => write!(f, "{text} is no address of a station"),
            Self::Rate(text) => write!(f, "{text} is no number of bytes"),
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
        let (mut network, mut mac, mut rate) = (None, None, None);
        for word in args.split_ascii_whitespace() {
            match word.split_once('=') {
                Some(("network", name)) if !name.is_empty() => network = Some(name),
                Some(("mac", text)) => {
                    let address = Mac::parse(text).filter(|m| !m.is_group() && m.0 != [0; 6]);
                    mac = Some(address.ok_or(OptionsError::Mac(text))?);
                }
                Some(("rate", text)) => {
                    let number = text.parse().ok().filter(|n| *n > 0);
                    rate = Some(number.ok_or(OptionsError::Rate(text))?);
                }
                _ => return Err(OptionsError::Unknown(word)),
            }
        }
        Ok(Self {
            network: network.ok_or(OptionsError::NoNetwork)?,
            mac: mac.ok_or(OptionsError::NoMac)?,
            rate,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::{Options, OptionsError};
    use crate::frame::Mac;

    #[test]
    fn all_words() {
        let all = Options::parse("network=lan mac=52:54:00:00:00:01 rate=1000").unwrap();
        let mac = Mac([0x52, 0x54, 0, 0, 0, 1]);
        assert_eq!(all, Options { network: "lan", mac, rate: Some(1000) });
    }

    #[test]
    fn mistakes_are_named() {
        let mac = "mac=52:54:00:00:00:01";
        for (args, error) in [
            (mac.to_owned(), OptionsError::NoNetwork),
            ("network=lan".to_owned(), OptionsError::NoMac),
            (
                "network=lan mac=01:00:5e:00:00:01".to_owned(),
                OptionsError::Mac("01:00:5e:00:00:01"),
            ),
            (format!("network=lan {mac} rate=0"), OptionsError::Rate("0")),
            (format!("network=lan {mac} fast"), OptionsError::Unknown("fast")),
        ] {
            assert_eq!(Options::parse(&args), Err(error));
        }
    }
}
