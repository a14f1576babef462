//! Sizes, ranges and names as text.

use config::Which;

/// Reads a size such as "512M": a number with K, M or G.
///
/// # Errors
/// Says what is wrong.
pub fn size(text: &str) -> Result<u64, String> {
    let digits = text.trim_end_matches(|c: char| !c.is_ascii_digit());
    let unit = text.get(digits.len()..).unwrap_or("");
    let shift = match unit {
        "K" | "KiB" => 10,
        "M" | "MiB" => 20,
        "G" | "GiB" => 30,
        _ => {
            return Err(format!("`{text}` is not a size: write a number with K, M or G"));
        }
    };
    let number: u64 = digits
        .parse()
        .map_err(|_| format!("`{text}` is not a size: write a number with K, M or G"))?;
    number
        .checked_mul(1 << shift)
        .filter(|&bytes| bytes <= 1 << 46)
        .ok_or_else(|| format!("`{text}` is more memory than any machine has"))
}

/// Writes bytes as a size, rounded to a readable unit.
#[must_use]
pub fn show(bytes: u64) -> String {
    const G: u64 = 1 << 30;
    const M: u64 = 1 << 20;
    match bytes {
        b if b >= G && b % G == 0 => format!("{}G", b / G),
        b if b >= M => format!("{}M", b.div_ceil(M)),
        b => format!("{}K", b.div_ceil(1 << 10)),
    }
}

/// Reads an inclusive range such as "0x3f8-0x3ff", or one number.
///
/// # Errors
/// Says what is wrong.
pub fn range(text: &str, limit: u64) -> Result<(u64, u64), String> {
    let bad = || format!("`{text}` is not a range: write first-last, as in \"0x3f8-0x3ff\"");
    let (first, last) = text.split_once('-').unwrap_or((text, text));
    let first = integer(first.trim()).ok_or_else(bad)?;
    let last = integer(last.trim()).ok_or_else(bad)?;
    if first > last {
        return Err(format!("`{text}` ends before it begins"));
    }
    if last > limit {
        return Err(format!("`{text}` goes beyond {limit:#x}"));
    }
    Ok((first, last))
}

/// Reads which PCI function is meant: its place as in "00:03.0", or vendor and device id as in
/// "1af4:1041".
///
/// # Errors
/// Says what is wrong.
pub fn pci(text: &str) -> Result<Which, String> {
    let bad = || {
        format!(
            "`{text}` is not a PCI function: write bus:device.function, as in \"00:03.0\", or \
             vendor:device, as in \"1af4:1041\""
        )
    };
    let hex = |part: &str, digits: usize| {
        let fits = part.len() == digits && part.chars().all(|c| c.is_ascii_hexdigit());
        if fits { u16::from_str_radix(part, 16).map_err(|_| bad()) } else { Err(bad()) }
    };
    let byte = |part: &str, digits, limit| {
        let number = hex(part, digits)?;
        u8::try_from(number).ok().filter(|&n| n < limit || limit == 0).ok_or_else(bad)
    };
    let (first, second) = text.split_once(':').ok_or_else(bad)?;
    match second.split_once('.') {
        Some((device, function)) => Ok(Which::Place {
            bus: byte(first, 2, 0)?,
            device: byte(device, 2, 32)?,
            function: byte(function, 1, 8)?,
        }),
        None => Ok(Which::Kind { vendor: hex(first, 4)?, device: hex(second, 4)? }),
    }
}

fn integer(text: &str) -> Option<u64> {
    match text.strip_prefix("0x") {
        Some(hex) => u64::from_str_radix(hex, 16).ok(),
        None => text.parse().ok(),
    }
}

/// Checks a name: it stands in logs, module names and paths.
///
/// # Errors
/// Says what is wrong.
pub fn name(text: &str) -> Result<(), String> {
    let fits = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-';
    if text.is_empty() || text.len() > 31 {
        return Err(format!("`{text}` is not a name: it needs 1 to 31 characters"));
    }
    if !text.starts_with(|c: char| c.is_ascii_lowercase()) || !text.chars().all(fits) {
        return Err(format!("`{text}` is not a name: use a-z, 0-9 and -, and begin with a letter"));
    }
    Ok(())
}
