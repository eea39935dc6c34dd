//! Lines over time as SVG: axes with round numbers, a legend, nothing that moves.

use std::fmt::Write;

/// Size of a plot, and what is around its frame: left, right, top, bottom.
const SIZE: (f64, f64) = (720.0, 220.0);
const AROUND: (f64, f64, f64, f64) = (64.0, 20.0, 28.0, 24.0);
/// Marks on an axis, about.
const MARKS: f64 = 5.0;

/// One line of a plot.
#[derive(Clone, Debug)]
pub struct Series {
    /// What the legend calls it; empty for nothing.
    pub name: String,
    /// Second and value, in order of time.
    pub points: Vec<(f64, f64)>,
}

/// A plot of some lines; the vertical axis begins at 0.
pub fn svg(title: &str, unit: &str, series: &[Series]) -> String {
    let points = || series.iter().flat_map(|series| &series.points);
    let x_max = points().map(|point| point.0).fold(1.0, f64::max);
    let highest = points().map(|point| point.1).fold(0.0, f64::max);
    let y_mark = mark(highest);
    let y_max = (highest / y_mark).ceil().max(1.0) * y_mark;
    let (left, right, top, bottom) = AROUND;
    let x = |value: f64| left + value / x_max * (SIZE.0 - left - right);
    let y = |value: f64| SIZE.1 - bottom - value / y_max * (SIZE.1 - top - bottom);

    let mut out = format!("<svg viewBox=\"0 0 {} {}\" role=\"img\">", SIZE.0, SIZE.1);
    let text = "a String takes all text";
    write!(out, "<title>{}</title>", escaped(title)).expect(text);
    write!(out, "<text x=\"{left}\" y=\"14\" class=\"title\">{}, {}</text>", escaped(title), escaped(unit))
        .expect(text);
    for value in marks(y_mark, y_max) {
        let (from, to, at) = (x(0.0), x(x_max), y(value));
        write!(out, "<line x1=\"{from:.1}\" x2=\"{to:.1}\" y1=\"{at:.1}\" y2=\"{at:.1}\" class=\"grid\"/>")
            .expect(text);
        let (from, below) = (from - 6.0, at + 4.0);
        write!(out, "<text x=\"{from:.1}\" y=\"{below:.1}\" class=\"y\">{}</text>", short(value))
            .expect(text);
    }
    for value in marks(mark(x_max), x_max) {
        let (at, below) = (x(value), SIZE.1 - 8.0);
        write!(out, "<text x=\"{at:.1}\" y=\"{below}\" class=\"x\">{} s</text>", short(value)).expect(text);
    }
    for (number, series) in series.iter().enumerate().rev() {
        let line: Vec<String> =
            series.points.iter().map(|point| format!("{:.1},{:.1}", x(point.0), y(point.1))).collect();
        write!(out, "<polyline class=\"line c{number}\" points=\"{}\"/>", line.join(" ")).expect(text);
    }
    write!(out, "<text x=\"{}\" y=\"14\" class=\"legend\">", SIZE.0 - right).expect(text);
    for (number, series) in series.iter().enumerate().filter(|(_, series)| !series.name.is_empty()) {
        let name = escaped(&series.name);
        write!(out, "<tspan class=\"dot c{number}\">\u{a0}\u{a0}\u{a0}●</tspan> {name}").expect(text);
    }
    out.push_str("</text>");
    out.push_str("</svg>");
    out
}

/// Text as HTML has it.
pub fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;")
}

/// A round distance of marks up to a value: 1, 2 or 5 times a power of ten.
fn mark(highest: f64) -> f64 {
    if highest <= 0.0 {
        return 1.0;
    }
    let rough = highest / MARKS;
    let power = 10_f64.powf(rough.log10().floor());
    [1.0, 2.0, 5.0, 10.0].map(|times| times * power).into_iter().find(|mark| *mark >= rough).unwrap_or(rough)
}

fn marks(mark: f64, highest: f64) -> impl Iterator<Item = f64> {
    (0..=(highest / mark + 1e-6) as u32).map(move |number| f64::from(number) * mark)
}

/// A number with as few digits as it needs.
fn short(value: f64) -> String {
    let (value, unit) = match value {
        value if value >= 1e9 => (value / 1e9, "G"),
        value if value >= 1e6 => (value / 1e6, "M"),
        value if value >= 1e4 => (value / 1e3, "k"),
        value => (value, ""),
    };
    let text = format!("{value:.3}");
    format!("{}{unit}", text.trim_end_matches('0').trim_end_matches('.'))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn axes_have_round_numbers() {
        assert_eq!([0.0, 0.9, 7.0, 42.0, 1e4].map(mark), [1.0, 0.2, 2.0, 10.0, 2_000.0]);
        assert_eq!(marks(10.0, 42.0).map(short).collect::<Vec<_>>(), ["0", "10", "20", "30", "40"]);
        assert_eq!([0.25, 9_999.0, 12_500.0, 2e6, 3.5e9].map(short), ["0.25", "9999", "12.5k", "2M", "3.5G"]);
    }

    #[test]
    fn plots_are_well_formed_and_stay_inside() {
        let series =
            |name: &str, points: &[(f64, f64)]| Series { name: name.into(), points: points.to_vec() };
        let plot = svg("a<b", "ms", &[series("p50", &[(1.0, 5.0), (2.0, 10.0)]), series("none", &[])]);
        assert!(plot.contains("a&lt;b") && !plot.contains("NaN") && !plot.contains("inf"));
        assert!(plot.contains("points=\"382.0,112.0 700.0,28.0\""), "{plot}");
        assert_eq!(plot.matches("<polyline").count(), 2);
        assert!(!svg("empty", "", &[]).contains("NaN"));
    }
}
