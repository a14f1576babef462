//! A configuration's text, and errors that point into it.

use std::ops::Range;
use std::path::{Path, PathBuf};

use ariadne::{Config, IndexType, Label, Report, ReportKind};

/// A byte range in the text.
pub type Span = Range<usize>;

/// A value and where it stands.
#[derive(Clone, Debug)]
pub struct Located<T> {
    /// The value.
    pub value: T,
    /// Its place in the text.
    pub span: Span,
}

impl<T> Located<T> {
    /// Puts a value at a place.
    pub fn new(value: T, span: Span) -> Self {
        Self { value, span }
    }
}

/// One error.
#[derive(Clone, Debug)]
pub struct Diagnostic {
    /// Where.
    pub span: Span,
    /// What is wrong.
    pub message: String,
    /// What would be right.
    pub help: Option<String>,
    /// A second place that matters, and why.
    pub also: Option<(Span, String)>,
}

impl Diagnostic {
    /// An error at a place.
    pub fn new(span: &Span, message: impl Into<String>) -> Self {
        Self { span: span.clone(), message: message.into(), help: None, also: None }
    }

    /// Adds what would be right.
    #[must_use]
    pub fn help(mut self, help: impl Into<String>) -> Self {
        self.help = Some(help.into());
        self
    }

    /// Adds a second place.
    #[must_use]
    pub fn also(mut self, span: &Span, why: impl Into<String>) -> Self {
        self.also = Some((span.clone(), why.into()));
        self
    }
}

/// A configuration file's path and text.
#[derive(Clone, Debug)]
pub struct Source {
    /// As the user named it.
    pub path: PathBuf,
    /// The whole text.
    pub text: String,
}

impl Source {
    /// Reads a file.
    ///
    /// # Errors
    /// The file cannot be read, or is not UTF-8.
    pub fn read(path: &Path) -> anyhow::Result<Self> {
        use anyhow::Context;
        let text = std::fs::read_to_string(path)
            .with_context(|| format!("cannot read the configuration {}", path.display()))?;
        Ok(Self { path: path.to_path_buf(), text })
    }

    /// The folder against which the file's relative paths are meant.
    #[must_use]
    pub fn folder(&self) -> &Path {
        self.path.parent().unwrap_or(Path::new(""))
    }

    /// Line and column of a byte offset, both from 1, the column in characters.
    #[must_use]
    pub fn position(&self, offset: usize) -> (usize, usize) {
        let before = self.text.get(..offset).unwrap_or(&self.text);
        let line = before.matches('\n').count() + 1;
        let column = before.rsplit('\n').next().unwrap_or("").chars().count() + 1;
        (line, column)
    }

    /// Draws errors into the text, in the order of the text.
    #[must_use]
    pub fn render(&self, diagnostics: &[Diagnostic], color: bool) -> String {
        let mut sorted: Vec<&Diagnostic> = diagnostics.iter().collect();
        sorted.sort_by_key(|d| d.span.start);
        let mut out = String::new();
        for diagnostic in sorted {
            let (line, column) = self.position(diagnostic.span.start);
            out += &format!(
                "{}:{line}:{column}: error: {}\n",
                self.path.display(),
                diagnostic.message
            );
            out += &self.draw(diagnostic, color);
        }
        let n = diagnostics.len();
        out += &format!("{n} error{} in {}", if n == 1 { "" } else { "s" }, self.path.display());
        out
    }

    fn draw(&self, diagnostic: &Diagnostic, color: bool) -> String {
        let name = self.path.display().to_string();
        let config = Config::default().with_color(color).with_index_type(IndexType::Byte);
        let mut report = Report::build(ReportKind::Error, (name.clone(), diagnostic.span.clone()))
            .with_config(config)
            .with_message(&diagnostic.message)
            .with_label(Label::new((name.clone(), diagnostic.span.clone())).with_message("here"));
        if let Some((span, why)) = &diagnostic.also {
            report = report.with_label(Label::new((name.clone(), span.clone())).with_message(why));
        }
        if let Some(help) = &diagnostic.help {
            report = report.with_help(help);
        }
        let mut drawn = Vec::new();
        let source = ariadne::sources([(name, self.text.as_str())]);
        if report.finish().write(source, &mut drawn).is_err() {
            return String::new();
        }
        // The first line repeats the message without its place.
        let drawn = String::from_utf8_lossy(&drawn);
        drawn.split_once('\n').map(|(_, rest)| rest.to_owned()).unwrap_or_default()
    }
}
