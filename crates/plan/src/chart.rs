// SPDX-License-Identifier: Apache-2.0
//! Bar charts: for a terminal, and as an SVG file.

use std::fmt::Write as _;

/// One bar.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Bar {
    /// What it stands for.
    pub label: String,
    /// Its length; `None` is drawn as unknown.
    pub value: Option<u32>,
    /// A length behind it that the value is a part of.
    pub of: u32,
}

/// Eighths of a cell, for the end of a bar.
const EIGHTHS: [&str; 8] = ["", "▏", "▎", "▍", "▌", "▋", "▊", "▉"];

/// Lines of text, `width` columns at most (at least 40): solid what can be used, light what lies behind it.
#[must_use]
pub fn text(bars: &[Bar], width: usize) -> String {
    let label_width = bars
        .iter()
        .map(|bar| bar.label.chars().count())
        .max()
        .unwrap_or(0);
    let scale = scale(bars);
    let numbers = 14;
    let room = width.max(40).saturating_sub(label_width + numbers).max(10);
    let mut out = String::new();
    for bar in bars {
        let cells = |value: u32| u64::from(value) * room as u64 * 8 / u64::from(scale);
        let solid = cells(bar.value.unwrap_or(0));
        let behind = usize::try_from(cells(bar.of.min(scale)).div_ceil(8)).unwrap_or(room);
        let cut = if bar.of > scale { "▸" } else { "" };
        let whole = usize::try_from(solid / 8).unwrap_or(room);
        let end = usize::try_from(solid % 8)
            .ok()
            .and_then(|eighth| EIGHTHS.get(eighth))
            .copied()
            .unwrap_or("");
        let drawn = whole + usize::from(!end.is_empty());
        let _ = write!(out, "{:label_width$}  {}{end}", bar.label, "█".repeat(whole));
        let _ = write!(out, "{}{cut}", "░".repeat(behind.saturating_sub(drawn)));
        let _ = match bar.value {
            Some(value) if value == bar.of => writeln!(out, " {value}"),
            Some(value) => writeln!(out, " {value} of {}", bar.of),
            None => writeln!(out, " unknown, at most {}", bar.of),
        };
    }
    out
}

/// The length that fills the chart: half as much again as the longest value, so that a few huge lengths behind do not
/// make all values small. What is longer is cut.
fn scale(bars: &[Bar]) -> u32 {
    let longest = bars.iter().filter_map(|bar| bar.value).max().unwrap_or(0);
    let behind = bars
        .iter()
        .map(|bar| bar.of.max(bar.value.unwrap_or(0)))
        .max()
        .unwrap_or(1);
    if longest == 0 {
        behind
    } else {
        behind.min(longest + longest / 2)
    }
    .max(1)
}

/// Sizes in user units of the SVG.
const ROW: usize = 26;
const BAR_HEIGHT: usize = 16;
const LABELS: usize = 250;
const BARS: usize = 480;
const MARGIN: usize = 20;

/// A whole SVG document, readable on light and on dark ground.
#[must_use]
pub fn svg(title: &str, footer: &str, bars: &[Bar]) -> String {
    let height = MARGIN * 2 + ROW * (bars.len() + 2);
    let width = MARGIN * 2 + LABELS + BARS + 150;
    let scale = scale(bars);
    let length = |value: u32| u64::from(value.min(scale)) * BARS as u64 / u64::from(scale);
    let mut out = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {width} {height}\" role=\"img\" aria-label=\"{}\">\n",
        escape(title)
    );
    out.push_str(
        "<style>text{font:13px sans-serif;fill:#333}.t{font-weight:bold;font-size:15px}.f{font-size:11px;fill:#777}.v{fill:#1f77b4}.o{fill:#1f77b4;opacity:.22}@media(prefers-color-scheme:dark){text{fill:#ddd}.f{fill:#999}}</style>\n",
    );
    let _ = writeln!(
        out,
        "<text class=\"t\" x=\"{MARGIN}\" y=\"{}\">{}</text>",
        MARGIN + 6,
        escape(title)
    );
    for (row, bar) in bars.iter().enumerate() {
        let top = MARGIN + ROW * (row + 1);
        let base = top + 13;
        let x = MARGIN + LABELS;
        let _ = writeln!(
            out,
            "<text x=\"{}\" y=\"{base}\" text-anchor=\"end\">{}</text>",
            x - 10,
            escape(&bar.label)
        );
        let _ = writeln!(
            out,
            "<rect class=\"o\" x=\"{x}\" y=\"{top}\" width=\"{}\" height=\"{BAR_HEIGHT}\"/>",
            length(bar.of)
        );
        let end = x as u64 + length(bar.of.max(bar.value.unwrap_or(0))) + 8;
        let number = match bar.value {
            Some(value) => {
                let _ = writeln!(
                    out,
                    "<rect class=\"v\" x=\"{x}\" y=\"{top}\" width=\"{}\" height=\"{BAR_HEIGHT}\"/>",
                    length(value)
                );
                if value == bar.of {
                    value.to_string()
                } else {
                    format!("{value} of {}", bar.of)
                }
            }
            None => format!("unknown, at most {}", bar.of),
        };
        let _ = writeln!(out, "<text x=\"{end}\" y=\"{base}\">{number}</text>");
    }
    let _ = writeln!(
        out,
        "<text class=\"f\" x=\"{MARGIN}\" y=\"{}\">{}</text>\n</svg>",
        height - MARGIN,
        escape(footer)
    );
    out
}

fn escape(text: &str) -> String {
    text.replace('&', "&amp;")
        .replace('<', "&lt;")
        .replace('>', "&gt;")
        .replace('"', "&quot;")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bar(label: &str, value: Option<u32>, of: u32) -> Bar {
        Bar {
            label: label.to_owned(),
            value,
            of,
        }
    }

    #[test]
    fn bars_are_as_long_as_their_values() {
        let text = text(
            &[
                bar("a", Some(110), 220),
                bar("bb", Some(220), 220),
                bar("c", None, 55),
            ],
            56,
        );
        let lines: Vec<&str> = text.lines().collect();
        let count = |line: &str, sign| line.chars().filter(|other| *other == sign).count();
        assert_eq!((count(lines[0], '█'), count(lines[0], '░')), (20, 20));
        assert_eq!((count(lines[1], '█'), count(lines[1], '░')), (40, 0));
        assert!(
            lines[0].ends_with(" 110 of 220") && lines[1].ends_with("█ 220"),
            "{text}"
        );
        assert!(lines[2].ends_with("unknown, at most 55"), "{text}");
    }

    #[test]
    fn an_svg_is_well_formed_and_escaped() {
        let svg = svg(
            "pods & <nodes>",
            "source \"x\"",
            &[bar("m5.large eni", Some(27), 27)],
        );
        assert!(svg.contains("pods &amp; &lt;nodes&gt;") && svg.contains("&quot;x&quot;"));
        assert_eq!(svg.matches("<rect").count(), 2);
        assert_eq!(svg.matches("<text").count(), svg.matches("</text>").count());
        assert!(svg.trim_end().ends_with("</svg>"));
    }

    #[test]
    fn a_huge_length_behind_is_cut() {
        let text = text(&[bar("a", Some(100), 4000), bar("b", Some(50), 50)], 56);
        assert!(text.lines().next().unwrap().contains('▸'), "{text}");
        assert!(text.lines().all(|line| line.chars().count() <= 60), "{text}");
    }

    #[test]
    fn nothing_to_draw_is_no_error() {
        assert_eq!(text(&[], 80), "");
        assert!(svg("", "", &[]).contains("<svg"));
        assert!(text(&[bar("zero", Some(0), 0)], 80).contains("zero"));
    }
}
