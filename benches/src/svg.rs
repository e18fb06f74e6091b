// SPDX-License-Identifier: Apache-2.0
//! A picture of the ratios: one bar per comparison, a whisker from the smallest to the largest, a line at 1 and a mark
//! at the goal.

use std::fmt::Write as _;

use crate::results::{Comparison, Results};

const LABEL: f64 = 330.0;
const PLOT: f64 = 460.0;
const ROW: f64 = 24.0;
const TOP: f64 = 56.0;
/// The scale ends here at the least.
const LEAST_SCALE: f64 = 1.5;

/// Draws the comparisons whose ends are on one CPU.
pub(crate) fn draw(results: &Results) -> String {
    let rows: Vec<_> = results.comparisons.iter().filter(|row| row.cpus == 1).collect();
    let largest = rows.iter().map(|row| row.ratio.max.max(row.goal.unwrap_or(0.0)));
    let scale = largest.fold(LEAST_SCALE, f64::max) * 1.08;
    let x = |ratio: f64| LABEL + ratio / scale * PLOT;
    let height = TOP + ROW * rows.len() as f64 + 34.0;
    let bottom = height - 28.0;
    let mut svg = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {:.0} {height:.0}\" font-family=\"sans-serif\" \
         font-size=\"12\">\n<rect width=\"100%\" height=\"100%\" fill=\"#fff\"/>\n\
         <text x=\"12\" y=\"22\" font-size=\"15\">Thalweg against its references, both ends on one CPU</text>\n\
         <text x=\"12\" y=\"40\" fill=\"#666\">ratio of rates, median of rounds; whisker: smallest to largest; \
         red: the goal</text>\n",
        LABEL + PLOT + 80.0
    );
    let mut tick = 0.0;
    while tick <= scale {
        let colour = if (tick - 1.0_f64).abs() < 0.01 {
            "#444"
        } else {
            "#ddd"
        };
        // Writing to a string cannot fail.
        let _ = writeln!(
            svg,
            "<line x1=\"{0:.1}\" y1=\"{TOP}\" x2=\"{0:.1}\" y2=\"{bottom:.1}\" stroke=\"{colour}\"/>\
             <text x=\"{0:.1}\" y=\"{1:.1}\" text-anchor=\"middle\" fill=\"#666\">{tick:.1}x</text>",
            x(tick),
            bottom + 16.0
        );
        tick += 0.5;
    }
    for (index, row) in rows.iter().enumerate() {
        svg.push_str(&bar(row, TOP + ROW * index as f64, x));
    }
    svg.push_str("</svg>\n");
    svg
}

fn bar(row: &Comparison, y: f64, x: impl Fn(f64) -> f64) -> String {
    let colour = match row.reached() {
        Some(true) => "#2a7f62",
        Some(false) => "#c77d2b",
        None => "#8a99a8",
    };
    let middle = y + ROW / 2.0;
    let (median, min, max) = (x(row.ratio.median), x(row.ratio.min), x(row.ratio.max));
    let label = format!("{}, {}, against {}", row.scope, row.work, row.reference);
    let mut bar = format!(
        "<text x=\"{:.1}\" y=\"{:.1}\" text-anchor=\"end\">{label}</text>\n\
         <rect x=\"{LABEL}\" y=\"{:.1}\" width=\"{:.1}\" height=\"14\" fill=\"{colour}\"/>\n\
         <path d=\"M{min:.1} {middle:.1}H{max:.1}M{min:.1} {:.1}v8M{max:.1} {:.1}v8\" stroke=\"#222\"/>\n\
         <text x=\"{:.1}\" y=\"{:.1}\">{:.2}x</text>\n",
        LABEL - 8.0,
        middle + 4.0,
        middle - 7.0,
        (median - LABEL).max(0.0),
        middle - 4.0,
        middle - 4.0,
        max.max(median) + 6.0,
        middle + 4.0,
        row.ratio.median,
    );
    if let Some(goal) = row.goal {
        let _ = writeln!(
            bar,
            "<line x1=\"{0:.1}\" y1=\"{1:.1}\" x2=\"{0:.1}\" y2=\"{2:.1}\" stroke=\"#d22\" stroke-width=\"2\"/>",
            x(goal),
            middle - 9.0,
            middle + 9.0
        );
    }
    bar
}
