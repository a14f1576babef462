//! What the outside world is for guests: a page to fetch, and an echo for what they post.
//!
//! The emulator's network starts `run page` for each connection to [`ADDRESS`] and joins the two by
//! their standard streams. So no port of the host is taken, and nothing stays when the emulator ends.

use std::io::{BufRead, BufReader, ErrorKind, Read, Write};

use anyhow::{Context, Result};

/// Where guests find the page, port 80.
pub const ADDRESS: &str = "10.0.2.100";
/// The word on this tool's command line that answers one request.
pub const COMMAND: &str = "page";

/// What `/` holds.
const PAGE: &str = "Portico: this page comes from outside the machine.\n";
/// Bytes of a request before its body.
const MAX_HEAD: u64 = 8 << 10;
/// Bytes that are sent back at most.
const MAX_ECHO: u64 = 64 << 20;

/// Answers one request.
///
/// # Errors
/// The guest went away.
pub fn serve(from: impl Read, mut to: impl Write) -> Result<()> {
    let (status, body) = answer(&mut BufReader::new(from))?;
    let length = body.len();
    let head = format!(
        "HTTP/1.0 {status}\r\nContent-Type: text/plain\r\nContent-Length: {length}\r\n\
         Connection: close\r\n\r\n"
    );
    to.write_all(head.as_bytes())?;
    to.write_all(&body)?;
    to.flush().context("the guest does not listen")
}

/// A command for QEMU's network that does this for each connection.
///
/// # Errors
/// The system does not say where this program is.
pub fn command() -> Result<String> {
    let program = std::env::current_exe().context("where is this program?")?;
    // QEMU splits the command as a shell would.
    let program = program.to_string_lossy().replace('\'', r"'\''");
    Ok(format!("'{program}' {COMMAND}"))
}

/// Status line and body.
fn answer(from: &mut impl BufRead) -> Result<(&'static str, Vec<u8>)> {
    const BAD: (&str, Vec<u8>) = ("400 Bad Request", Vec::new());
    let mut head = from.by_ref().take(MAX_HEAD);
    let mut line = String::new();
    let mut read = |line: &mut String| {
        line.clear();
        match head.read_line(line) {
            Ok(_) => Ok(line.ends_with('\n')),
            Err(error) if error.kind() == ErrorKind::InvalidData => Ok(false),
            Err(error) => Err(error),
        }
    };
    if !read(&mut line)? {
        return Ok(BAD);
    }
    let mut words = line.split_whitespace().map(str::to_owned);
    let (method, path) = (words.next().unwrap_or_default(), words.next().unwrap_or_default());
    let mut length = None;
    loop {
        if !read(&mut line)? {
            return Ok(BAD);
        }
        let field = line.trim_end();
        if field.is_empty() {
            break;
        }
        if let Some((name, value)) = field.split_once(':')
            && name.eq_ignore_ascii_case("content-length")
        {
            length = value.trim().parse::<u64>().ok();
        }
    }
    match (method.as_str(), path.as_str()) {
        ("GET", "/") => Ok(("200 OK", PAGE.into())),
        ("POST", "/echo") => {
            let Some(length) = length else { return Ok(("411 Length Required", Vec::new())) };
            if length > MAX_ECHO {
                return Ok(("413 Content Too Large", Vec::new()));
            }
            let mut body = Vec::new();
            from.take(length).read_to_end(&mut body)?;
            if u64::try_from(body.len()) == Ok(length) { Ok(("200 OK", body)) } else { Ok(BAD) }
        }
        ("GET" | "POST", _) => Ok(("404 Not Found", Vec::new())),
        _ => Ok(BAD),
    }
}

#[cfg(test)]
mod tests;
