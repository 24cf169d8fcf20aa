//! The picture of docs/cost.md: a bar for each device.
//!
//! Owns how it looks. Counts nothing.

use std::fmt::Write;

/// What the widest bar takes, and where bars begin.
const WIDEST: f64 = 420.0;
const LEFT: f64 = 340.0;

/// Each row, and the first one's distance from the top.
const ROW: f64 = 40.0;
const TOP: f64 = 56.0;

const STYLE: &str = "\
  <style>
    .page { fill: #ffffff }
    .bar { fill: #54aeff }
    .head { fill: #1f2328; font-size: 14px; font-weight: 600 }
    .say { fill: #57606a; font-size: 12px }
    @media (prefers-color-scheme: dark) {
      .page { fill: #0d1117 }
      .bar { fill: #1f6feb }
      .head { fill: #e6edf3 }
      .say { fill: #adb6c0 }
    }
  </style>
";

/// US dollars a month by device, as SVG.
pub(super) fn of(bars: &[(&str, f64)]) -> String {
    let most = bars
        .iter()
        .map(|(_, dollars)| *dollars)
        .fold(0.01, f64::max);
    let height = TOP + ROW * bars.len() as f64;
    let told: Vec<String> = bars
        .iter()
        .map(|(name, dollars)| format!("{}: {dollars:.2}", escaped(name)))
        .collect();
    let mut svg = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 900 {height}\" width=\"900\" height=\"{height}\" \
         font-family=\"system-ui, -apple-system, 'Segoe UI', 'DejaVu Sans', sans-serif\" role=\"img\">\n  \
         <title>What S3’s requests cost a device in a month</title>\n  <desc>US dollars. {}.</desc>\n{STYLE}  \
         <rect class=\"page\" width=\"900\" height=\"{height}\"/>\n  \
         <text class=\"head\" x=\"20\" y=\"30\">US dollars a month for S3’s requests, one device</text>\n",
        told.join("; ")
    );
    for (number, (name, dollars)) in bars.iter().enumerate() {
        let middle = TOP + ROW * number as f64;
        let width = (dollars / most * WIDEST).max(2.0);
        let _ = write!(
            svg,
            "  <text class=\"say\" x=\"{:.0}\" y=\"{:.0}\" text-anchor=\"end\">{}</text>\n  \
             <rect class=\"bar\" x=\"{LEFT:.0}\" y=\"{middle:.0}\" width=\"{width:.0}\" height=\"24\" rx=\"3\"/>\n  \
             <text class=\"head\" x=\"{:.0}\" y=\"{:.0}\">{dollars:.2}</text>\n",
            LEFT - 12.0,
            middle + 17.0,
            escaped(name),
            LEFT + width + 8.0,
            middle + 17.0,
        );
    }
    svg + "</svg>\n"
}

fn escaped(text: &str) -> String {
    text.replace('&', "&amp;")
        .replace('<', "&lt;")
        .replace('"', "&quot;")
}
