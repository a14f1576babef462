//! Counts code lines: neither blank, nor comment, nor test.

use std::path::Path;

use anyhow::{Context, Result};

/// Code lines of all sources in a folder.
///
/// # Errors
/// A file cannot be read.
pub fn folder(path: &Path) -> Result<usize> {
    let mut lines = 0;
    let entries = path.read_dir().with_context(|| format!("cannot read {}", path.display()))?;
    for entry in entries {
        let path = entry?.path();
        let name = path.file_name().map(|n| n.to_string_lossy().into_owned()).unwrap_or_default();
        if ["tests", "tests.rs"].contains(&name.as_str()) {
            continue;
        }
        if path.is_dir() {
            lines += folder(&path)?;
        } else if let Some("rs" | "S" | "s" | "ld") = path.extension().and_then(|e| e.to_str()) {
            let text = std::fs::read_to_string(&path)
                .with_context(|| format!("cannot read {}", path.display()))?;
            lines += code_lines(&text);
        }
    }
    Ok(lines)
}

/// Code lines of one source.
#[must_use]
pub fn code_lines(source: &str) -> usize {
    let text = without_tests(&bare(source));
    text.lines().filter(|line| !line.trim().is_empty()).count()
}

/// The source without comments; the contents of literals are dots, so that no brace, quote or
/// slash in them means anything.
fn bare(source: &str) -> String {
    let chars: Vec<char> = source.chars().collect();
    let at = |i: usize| chars.get(i).copied().unwrap_or('\0');
    let mut out = String::with_capacity(source.len());
    let mut i = 0;
    while i < chars.len() {
        let end = match at(i) {
            '/' if at(i + 1) == '/' => comment_end(&chars, i),
            '/' if at(i + 1) == '*' => block_end(&chars, i),
            '"' => string_end(&chars, i),
            'r' if !word_before(&chars, i) && raw_hashes(&chars, i).is_some() => raw_end(&chars, i),
            '\'' if at(i + 1) == '\\' || at(i + 2) == '\'' => char_end(&chars, i),
            c => {
                out.push(c);
                i += 1;
                continue;
            }
        };
        let literal = at(i) != '/';
        for &c in chars.get(i..end.min(chars.len())).unwrap_or(&[]) {
            match c {
                '\n' => out.push('\n'),
                _ if literal => out.push('.'),
                _ => {}
            }
        }
        i = end;
    }
    out
}

/// `r` or `b` as the last letter of a word starts no literal.
fn word_before(chars: &[char], i: usize) -> bool {
    let before = i.checked_sub(1).and_then(|b| chars.get(b));
    before.is_some_and(|c| (c.is_alphanumeric() && *c != 'b') || *c == '_')
}

fn comment_end(chars: &[char], start: usize) -> usize {
    let rest = chars.iter().skip(start);
    start + rest.take_while(|&&c| c != '\n').count()
}

fn block_end(chars: &[char], start: usize) -> usize {
    let mut depth = 0;
    let mut i = start;
    while i < chars.len() {
        match (chars.get(i), chars.get(i + 1)) {
            (Some('/'), Some('*')) => depth += 1,
            (Some('*'), Some('/')) => depth -= 1,
            _ => {
                i += 1;
                continue;
            }
        }
        i += 2;
        if depth == 0 {
            break;
        }
    }
    i
}

fn string_end(chars: &[char], start: usize) -> usize {
    let mut i = start + 1;
    while let Some(c) = chars.get(i) {
        match c {
            '\\' => i += 2,
            '"' => return i + 1,
            _ => i += 1,
        }
    }
    i
}

fn char_end(chars: &[char], start: usize) -> usize {
    // What follows a backslash never ends the literal.
    let from = if chars.get(start + 1) == Some(&'\\') { start + 3 } else { start + 2 };
    let rest = chars.iter().skip(from);
    from + rest.take_while(|&&c| c != '\'').count() + 1
}

fn raw_hashes(chars: &[char], start: usize) -> Option<usize> {
    let hashes = chars.iter().skip(start + 1).take_while(|&&c| c == '#').count();
    (chars.get(start + 1 + hashes) == Some(&'"')).then_some(hashes)
}

fn raw_end(chars: &[char], start: usize) -> usize {
    let hashes = raw_hashes(chars, start).unwrap_or(0);
    let mut i = start + hashes + 2;
    while i < chars.len() {
        let closes = chars.get(i) == Some(&'"')
            && chars.iter().skip(i + 1).take(hashes).filter(|&&c| c == '#').count() == hashes;
        i += 1;
        if closes {
            return i + hashes;
        }
    }
    i
}

/// Cuts out the items that only exist under test.
fn without_tests(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some((before, item)) = rest.split_once("#[cfg(test)]") {
        out += before;
        rest = item.get(item_end(item)..).unwrap_or("");
    }
    out + rest
}

/// An item, statement or field ends with its first `;` or `,`, the brace that closes its first one,
/// or before that of whatever it is in.
fn item_end(item: &str) -> usize {
    let mut depth = 0_usize;
    for (i, c) in item.char_indices() {
        match c {
            ';' | ',' if depth == 0 => return i + 1,
            '{' | '(' | '[' => depth += 1,
            '}' | ')' | ']' if depth == 0 => return i,
            '}' if depth == 1 => return i + 1,
            '}' | ')' | ']' => depth -= 1,
            _ => {}
        }
    }
    item.len()
}

#[cfg(test)]
mod tests {
    use super::code_lines;

    #[test]
    fn comments_and_blanks_do_not_count() {
        let text =
            "//! Doc.\n\n/* a\n b /* nested */\n*/\nfn f() {} // tail\n/// Doc.\nfn g() {}\n";
        assert_eq!(code_lines(text), 2);
    }

    #[test]
    fn literals_are_no_comments() {
        let text = "let a = \"// no\";\nlet b = r#\"/* \" no\"#;\nlet c = '\"';\nlet d = '\\'';\n\
                    fn e<'a>(x: &'a str) {}\nlet f = b\"/*\";\nlet g = br\"/*\";\n";
        assert_eq!(code_lines(text), 7);
    }

    #[test]
    fn assembly_in_a_raw_string_counts() {
        assert_eq!(code_lines("asm!(r#\"\n  cli\n\n  hlt\n\"#);\n"), 4);
    }

    #[test]
    fn tests_do_not_count() {
        let text = "fn a() {}\n#[cfg(test)]\nmod tests {\n  fn b() { \"}\"; }\n}\nfn c() {}\n\
                    #[cfg(test)]\nuse x;\n#[cfg(test)]\nmod more;\n\
                    #[cfg(feature = \"x\")]\nfn d() {}\n";
        assert_eq!(code_lines(text), 4);
        let text = "struct A {\n  #[cfg(test)]\n  a: [u8; 2],\n  b: u8,\n}\n\
                    fn f(\n  #[cfg(test)] x: u8\n) {\n}\n";
        assert_eq!(code_lines(text), 6);
    }
}
