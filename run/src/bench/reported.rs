//! Figures that components report on the console, as lines `BENCH name unit value`.

use super::Figure;

/// The figures in a console's text, in order.
pub(super) fn figures(text: &str) -> Vec<Figure> {
    text.lines().filter_map(figure).collect()
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
        let expected = [
            Figure::new("exits-to-init", "exits", 2711.0),
            Figure::new("cpuid", "us", 41.5),
        ];
        assert_eq!(figures(text), expected);
    }
}
