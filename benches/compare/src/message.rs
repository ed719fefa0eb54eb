//! What a worker tells the runner: one JSON line each, behind a mark that no engine prints.

use serde::{Deserialize, Serialize};

/// Begins every line that is meant for the runner.
pub const MARK: &str = "@compare ";

/// What a figure counts, and so which way is better.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Unit {
    PerSecond,
    Bytes,
    Seconds,
    Millis,
    Micros,
    Count,
    /// A count of which less is better.
    Pieces,
}

impl Unit {
    pub fn more_is_better(self) -> bool {
        matches!(self, Self::PerSecond | Self::Count)
    }

    pub fn name(self) -> &'static str {
        match self {
            Self::PerSecond => "1/s",
            Self::Bytes => "bytes",
            Self::Seconds => "s",
            Self::Millis => "ms",
            Self::Micros => "us",
            Self::Count => "records",
            Self::Pieces => "crates",
        }
    }
}

/// A row of the table.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Row {
    /// `suite/name`, the same in every version.
    pub id: String,
    pub label: String,
    pub unit: Unit,
}

/// How a row went in one engine.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Result {
    Figure {
        value: f64,
        /// Syncs while it was measured.
        syncs: u64,
        #[serde(default, skip_serializing_if = "Option::is_none")]
        note: Option<String>,
    },
    NotAvailable(String),
    Failed(String),
    /// It was stopped after so many seconds.
    TooLong(u64),
    /// It was not begun, because something before it took too long.
    NotRun(String),
}

#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Message {
    /// These rows begin, which are measured together.
    Begin(Vec<Row>),
    Row(Row, Result),
    /// The suite is over. Rows it did not tell of went as this says.
    End(Option<Result>),
    /// The answer of a helper process of a suite.
    Helper(Vec<f64>),
}

impl Message {
    pub fn print(&self) {
        println!("{}", self.line());
    }

    pub fn line(&self) -> String {
        let text = serde_json::to_string(self).unwrap_or_default();
        format!("{MARK}{text}")
    }

    pub fn parse(line: &str) -> Option<Self> {
        serde_json::from_str(line.strip_prefix(MARK)?).ok()
    }
}
