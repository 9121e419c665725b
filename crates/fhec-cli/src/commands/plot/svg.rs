//! The drawing itself: a bar per layer, stacked by what the time went into, readable on light and on dark ground.

use super::{Bar, Kind, Picture};
use crate::format;
use std::fmt::Write;

/// Sizes in pixels.
const WIDTH: f64 = 960.0;
const MARGIN: f64 = 16.0;
const LABELS: f64 = 260.0;
/// Right of the bars, for their times.
const TIMES: f64 = 80.0;
const TOP: f64 = 96.0;
const ROW: f64 = 20.0;
const THICK: f64 = 14.0;
const AXIS: f64 = 44.0;
/// Most characters of a layer's name; the rest is in the tooltip.
const NAME: usize = 36;

/// Colours on light ground, and what replaces them on dark ground; those of the kinds differ in brightness too. Plain
/// rules without variables, which not every viewer knows.
const STYLE: &str = "
text { font: 12px system-ui, sans-serif; fill: #1f2328; }
.title { font-size: 18px; font-weight: 600; } .end { text-anchor: end; } .middle { text-anchor: middle; }
.faint { fill: #59636e; } .ground { fill: #ffffff; } .grid { stroke: #d8dee4; }
.mark { stroke: #1f2328; stroke-width: 2; }
.linear { fill: #2f6fb5; } .activation { fill: #e08e2b; } .bootstrap { fill: #8153b0; } .other { fill: #9aa4ae; }
@media (prefers-color-scheme: dark) {
  text { fill: #e6edf3; } .faint { fill: #9198a1; } .ground { fill: #0d1117; } .grid { stroke: #30363d; }
  .mark { stroke: #e6edf3; }
  .linear { fill: #58a6e8; } .activation { fill: #f0b35a; } .bootstrap { fill: #b990e6; } .other { fill: #6e7781; }
}
";

/// The picture as an SVG file.
pub(super) fn draw(picture: &Picture) -> String {
    let bars = &picture.bars;
    let predicted = |b: &Bar| if picture.compared { b.predicted } else { 0.0 };
    let longest = bars.iter().map(|b| b.seconds().max(predicted(b))).fold(0.0, f64::max);
    let (unit, factor) = if longest >= 1.0 { ("s", 1.0) } else { ("ms", 1e3) };
    let step = step(longest * factor);
    let end = ((longest * factor / step).ceil() * step).max(step);
    let room = WIDTH - 2.0 * MARGIN - LABELS - TIMES;
    let left = MARGIN + LABELS;
    let x = |seconds: f64| left + seconds * factor / end * room;
    let (bottom, height) = (TOP + bars.len() as f64 * ROW, TOP + bars.len() as f64 * ROW + AXIS);
    let mut out = String::new();
    // Writing to a string cannot fail.
    let _ = write!(
        out,
        "<svg xmlns=\"http://www.w3.org/2000/svg\" role=\"img\" viewBox=\"0 0 {WIDTH} {height}\" \
         width=\"{WIDTH}\" height=\"{height}\">\n<title>{title}</title>\n<style>{STYLE}</style>\n\
         <rect class=\"ground\" width=\"100%\" height=\"100%\"/>\n\
         <text class=\"title\" x=\"{MARGIN}\" y=\"30\">{title}</text>\n\
         <text class=\"faint\" x=\"{MARGIN}\" y=\"50\">{}</text>\n",
        escape(&picture.subtitle),
        title = escape(&picture.title),
    );
    legend(&mut out, picture);
    for i in 0..=(end / step).round() as usize {
        let (value, at) = (i as f64 * step, x(i as f64 * step / factor));
        let _ = writeln!(
            out,
            "<path class=\"grid\" d=\"M{at:.1} {TOP}V{bottom:.1}\"/>\
             <text class=\"faint middle\" x=\"{at:.1}\" y=\"{:.1}\">{}</text>",
            bottom + 16.0,
            format!("{value:.6}").trim_end_matches('0').trim_end_matches('.')
        );
    }
    let middle = left + room / 2.0;
    let _ = writeln!(
        out,
        "<text class=\"faint middle\" x=\"{middle:.1}\" y=\"{:.1}\">time of a layer, {unit}</text>",
        bottom + 34.0
    );
    for (i, bar) in bars.iter().enumerate() {
        let top = TOP + i as f64 * ROW + (ROW - THICK) / 2.0;
        let _ = writeln!(out, "<g><title>{}</title>", escape(&tooltip(bar, picture.compared)));
        let base = top + THICK - 3.0;
        let _ = writeln!(
            out,
            "<text class=\"end\" x=\"{:.1}\" y=\"{base:.1}\">{}</text>",
            left - 8.0,
            escape(&shortened(&bar.name))
        );
        let mut from = 0.0;
        for kind in Kind::ALL {
            let part = bar.parts[kind as usize];
            if part > 0.0 {
                let (a, b) = (x(from), x(from + part));
                let _ = writeln!(
                    out,
                    "<rect class=\"{}\" x=\"{a:.2}\" y=\"{top:.1}\" width=\"{:.2}\" height=\"{THICK}\"/>",
                    kind.name(),
                    b - a
                );
                from += part;
            }
        }
        if picture.compared {
            let _ = writeln!(
                out,
                "<path class=\"mark\" d=\"M{:.2} {:.1}v{:.1}\"/>",
                x(bar.predicted),
                top - 2.0,
                THICK + 4.0
            );
        }
        let _ = writeln!(
            out,
            "<text class=\"faint\" x=\"{:.1}\" y=\"{base:.1}\">{}</text></g>",
            x(from.max(predicted(bar))) + 6.0,
            format::seconds(bar.seconds())
        );
    }
    out.push_str("</svg>\n");
    out
}

/// A square and the sum for each kind that occurs.
fn legend(out: &mut String, picture: &Picture) {
    let mut at = MARGIN;
    for kind in Kind::ALL {
        let sum: f64 = picture.bars.iter().map(|b| b.parts[kind as usize]).sum();
        if sum > 0.0 {
            let text = format!("{} {}", kind.name(), format::seconds(sum));
            let _ = writeln!(
                out,
                "<rect class=\"{}\" x=\"{at}\" y=\"66\" width=\"12\" height=\"12\"/>\
                 <text x=\"{}\" y=\"76\">{text}</text>",
                kind.name(),
                at + 18.0
            );
            at += 18.0 + 7.5 * text.chars().count() as f64 + 16.0;
        }
    }
}

fn tooltip(bar: &Bar, compared: bool) -> String {
    let mut text = format!("{}: {}", bar.name, format::seconds(bar.seconds()));
    for kind in Kind::ALL.into_iter().filter(|&k| bar.parts[k as usize] > 0.0) {
        let _ = write!(text, "\n{} {}", kind.name(), format::seconds(bar.parts[kind as usize]));
    }
    if compared {
        let _ = write!(text, "\npredicted {}", format::seconds(bar.predicted));
    }
    text
}

/// A round distance of marks, so that there are four to ten of them up to `longest`.
fn step(longest: f64) -> f64 {
    let rough = (longest / 5.0).max(1e-6);
    let power = 10f64.powf(rough.log10().floor());
    let round = [1.0, 2.0, 5.0, 10.0].into_iter().find(|r| r * power >= rough * 0.999);
    round.unwrap_or(10.0) * power
}

/// A name that fits its column.
fn shortened(name: &str) -> String {
    let count = name.chars().count();
    if count <= NAME {
        return name.to_owned();
    }
    // The end of an ONNX name tells more than its beginning.
    format!("…{}", name.chars().skip(count + 1 - NAME).collect::<String>())
}

/// Text inside of XML; what XML cannot hold is replaced.
fn escape(text: &str) -> String {
    text.chars().fold(String::new(), |mut out, c| {
        match c {
            '&' => out.push_str("&amp;"),
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '"' => out.push_str("&quot;"),
            c if c.is_control() && c != '\n' => out.push('\u{fffd}'),
            c => out.push(c),
        }
        out
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn picture(compared: bool) -> Picture {
        let bar = |name: &str, parts: [f64; 4]| Bar { name: name.into(), parts, predicted: 1.5 };
        let bars = vec![bar("conv<1>", [1.0, 0.0, 0.0, 0.0]), bar("relu & \u{1}", [0.0, 0.5, 2.0, 0.25])];
        Picture { title: "a \"net\"".into(), subtitle: "here".into(), bars, compared }
    }

    #[test]
    fn bars_are_stacked_to_scale() {
        let text = draw(&picture(true));
        assert!(text.starts_with("<svg ") && text.ends_with("</svg>\n"));
        assert_eq!(text.matches("<rect class=\"bootstrap\"").count(), 2, "one of the legend, one of the bar");
        assert_eq!(text.matches("<path class=\"mark\"").count(), 2);
        let widths: Vec<f64> = text
            .lines()
            .filter(|l| l.starts_with("<rect") && l.contains("height=\"14\""))
            .filter_map(|l| l.split("width=\"").nth(1)?.split('"').next()?.parse().ok())
            .collect();
        assert_eq!(widths.len(), 4);
        for (width, seconds) in widths.iter().zip([1.0, 0.5, 2.0, 0.25]) {
            assert!((width / widths[0] - seconds).abs() < 1e-2, "{widths:?}");
        }
        assert!(text.contains("time of a layer, s") && text.contains("prefers-color-scheme: dark"));
        assert!(!draw(&picture(false)).contains("<path class=\"mark\""));
    }

    #[test]
    fn names_stay_text() {
        let text = draw(&picture(true));
        assert!(text.contains("conv&lt;1&gt;") && text.contains("relu &amp; \u{fffd}") && !text.contains('\u{1}'));
        assert!(text.contains("a &quot;net&quot;"));
        assert_eq!(shortened(&"x".repeat(40)).chars().count(), NAME);
    }

    #[test]
    fn axes_have_a_few_round_marks() {
        for longest in [1e-3, 0.9, 1.0, 7.3, 49.0, 512.0, 1e4] {
            let step = step(longest);
            let marks = longest / step;
            assert!((2.0..=10.0).contains(&marks), "{longest}: {step}");
        }
        assert!(step(0.0) > 0.0);
    }
}
