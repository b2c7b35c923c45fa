//! How results are shown: aligned columns for people, one JSON document for programs. No colours, so NO_COLOR holds.

use std::io::Write as _;

use comfy_table::{Table, presets};
use serde::Serialize;

use crate::arguments::Format;

/// Writes a line to standard output. A reader that went away is no error of ours.
pub(crate) fn say(line: &str) {
    let mut out = std::io::stdout().lock();
    drop(writeln!(out, "{line}"));
    drop(out.flush());
}

/// Writes a line to standard error.
pub(crate) fn complain(line: &str) {
    drop(writeln!(std::io::stderr().lock(), "{line}"));
}

/// Shows a result as JSON, or as the text that `table` makes of it.
pub(crate) fn show<T: Serialize>(
    format: Format,
    result: &T,
    table: impl FnOnce(&T) -> String,
) -> anyhow::Result<()> {
    match format {
        Format::Json => say(&serde_json::to_string_pretty(result)?),
        Format::Table => say(table(result).trim_end()),
    }
    Ok(())
}

/// Columns under headings.
pub(crate) fn columns<const N: usize>(
    headings: [&str; N],
    rows: impl IntoIterator<Item = [String; N]>,
) -> String {
    let mut table = Table::new();
    table.load_style(presets::NOTHING);
    table.set_header(headings);
    for row in rows {
        table.add_row(row);
    }
    trimmed(&table)
}

/// Names and values, one a line.
pub(crate) fn facts<'a>(facts: impl IntoIterator<Item = (&'a str, String)>) -> String {
    let mut table = Table::new();
    table.load_style(presets::NOTHING);
    for (name, value) in facts {
        table.add_row([name.to_owned(), value]);
    }
    trimmed(&table)
}

/// The preset pads every cell on both sides.
fn trimmed(table: &Table) -> String {
    let lines: Vec<String> =
        table.lines().map(|line| line.strip_prefix(' ').unwrap_or(&line).trim_end().to_owned()).collect();
    lines.join("\n")
}

/// A size in bytes, for people.
pub(crate) fn bytes(size: u64) -> String {
    const UNITS: [&str; 5] = ["KiB", "MiB", "GiB", "TiB", "PiB"];
    if size < 1024 {
        return format!("{size} B");
    }
    let mut value = size as f64 / 1024.0;
    let mut unit = 0;
    while value >= 1024.0 && unit + 1 < UNITS.len() {
        value /= 1024.0;
        unit += 1;
    }
    format!("{value:.1} {}", UNITS[unit])
}

/// A digest short enough for a column.
pub(crate) fn short(digest: &str) -> String {
    digest.chars().take(19).collect()
}

/// A value that may not be known.
pub(crate) fn or_unknown<T: ToString>(value: Option<T>) -> String {
    value.map_or_else(|| "unknown".to_owned(), |value| value.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_read_at_a_glance() {
        assert_eq!(bytes(1023), "1023 B");
        assert_eq!(bytes(1536), "1.5 KiB");
        assert_eq!(bytes(300 << 20), "300.0 MiB");
    }

    #[test]
    fn columns_line_up_without_frames() {
        let text = columns(
            ["NAME", "ROLE"],
            [["paris".into(), "primary".into()], ["tokyo".into(), "secondary".into()]],
        );
        assert_eq!(text, "NAME   ROLE\nparis  primary\ntokyo  secondary");
    }
}
