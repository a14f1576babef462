//! Figures that components report on the console, as lines `BENCH name unit value`.

use super::Figure;

/// The figures in a console's text, in order, their names with a prefix.
pub(super) fn figures(prefix: &str, text: &str) -> Vec<Figure> {
    let named = |f: Figure| Figure { name: format!("{prefix}{}", f.name), ..f };
    text.lines().filter_map(figure).map(named).collect()
}

fn figure(line: &str) -> Option<Figure> {
    // A log prefix may come first.
    let (_, rest) = line.split_once("BENCH ")?;
    let mut words = rest.split_whitespace();
    let (name, unit, value) = (words.next()?, words.next()?, words.next()?);
    Some(Figure::new(name, unit, value.parse().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_understood() {
        let text =
            "noise\n[linux] BENCH exits-to-init exits 2711\nBENCH cpuid us 41.5\nBENCH bad\n";
        let expected =
            [Figure::new("a/exits-to-init", "exits", 2711.0), Figure::new("a/cpuid", "us", 41.5)];
        assert_eq!(figures("a/", text), expected);
    }
}
