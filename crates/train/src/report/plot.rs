//! Line plots as SVG.

use std::fmt::Write;

const WIDTH: f64 = 720.0;
const HEIGHT: f64 = 300.0;
const LEFT: f64 = 64.0;
const RIGHT: f64 = 12.0;
const TOP: f64 = 12.0;
const BOTTOM: f64 = 36.0;
/// Most points that a line is drawn with; longer ones are averaged.
const POINTS_MAX: usize = 400;
const COLOURS: [&str; 8] =
    ["#0b62a4", "#c2410c", "#15803d", "#7e22ce", "#b91c1c", "#0f766e", "#a16207", "#475569"];

/// One line.
#[derive(Clone, Debug)]
pub struct Line {
    /// Its name in the legend.
    pub name: String,
    /// Its points `(x, y)`, `x` rising; points that are not finite are left out.
    pub points: Vec<(f64, f64)>,
    /// Whether to draw it broken.
    pub is_dashed: bool,
}

/// A plot.
#[derive(Clone, Debug)]
pub struct Plot {
    /// What the horizontal axis counts.
    pub x_label: &'static str,
    /// What the vertical axis counts.
    pub y_label: &'static str,
    /// The lines.
    pub lines: Vec<Line>,
    /// Whether the vertical axis starts at 0.
    pub from_zero: bool,
}

impl Plot {
    /// The plot as an `svg` element; empty where there is nothing to draw.
    pub fn svg(&self) -> String {
        let lines: Vec<Vec<(f64, f64)>> = self.lines.iter().map(|line| thinned(&line.points)).collect();
        let all = || lines.iter().flatten();
        if all().next().is_none() {
            return String::new();
        }
        let span = |values: &mut dyn Iterator<Item = f64>| {
            values.fold((f64::INFINITY, f64::NEG_INFINITY), |(min, max), v| (min.min(v), max.max(v)))
        };
        let (x_min, x_max) = span(&mut all().map(|point| point.0));
        let (y_min, y_max) = span(&mut all().map(|point| point.1));
        let x_axis = Axis::new(x_min, x_max);
        let y_axis = Axis::new(if self.from_zero { y_min.min(0.0) } else { y_min }, y_max);
        let (x, y) = (
            |v: f64| LEFT + x_axis.share(v) * (WIDTH - LEFT - RIGHT),
            |v: f64| HEIGHT - BOTTOM - y_axis.share(v) * (HEIGHT - TOP - BOTTOM),
        );
        let mut svg = format!(
            "<svg viewBox=\"0 0 {WIDTH} {HEIGHT}\" role=\"img\" aria-label=\"{} by {}\">",
            self.y_label, self.x_label
        );
        let mut put = |text: std::fmt::Arguments<'_>| svg.write_fmt(text).expect("a String takes any text");
        for tick in y_axis.ticks() {
            let (at, text, end) = (y(tick), shown(tick), WIDTH - RIGHT);
            put(format_args!(
                "<line class=\"grid\" x1=\"{LEFT}\" y1=\"{at:.1}\" x2=\"{end}\" y2=\"{at:.1}\"/>"
            ));
            put(format_args!(
                "<text x=\"{}\" y=\"{:.1}\" text-anchor=\"end\">{text}</text>",
                LEFT - 6.0,
                at + 4.0
            ));
        }
        for tick in x_axis.ticks() {
            let (at, text, foot) = (x(tick), shown(tick), HEIGHT - BOTTOM + 16.0);
            put(format_args!("<text x=\"{at:.1}\" y=\"{foot}\" text-anchor=\"middle\">{text}</text>"));
        }
        let (middle, foot) = ((LEFT + WIDTH - RIGHT) / 2.0, HEIGHT - 4.0);
        put(format_args!("<text x=\"{middle}\" y=\"{foot}\" text-anchor=\"middle\">{}</text>", self.x_label));
        for (i, points) in lines.iter().enumerate() {
            let path: Vec<String> =
                points.iter().map(|point| format!("{:.1},{:.1}", x(point.0), y(point.1))).collect();
            let dashes = if self.lines[i].is_dashed { " stroke-dasharray=\"5 4\"" } else { "" };
            let (colour, path) = (colour(i), path.join(" "));
            put(format_args!(
                "<polyline fill=\"none\" stroke=\"{colour}\" stroke-width=\"1.6\"{dashes} points=\"{path}\"/>"
            ));
        }
        svg + "</svg>"
    }
}

/// The colour of line `i` of a plot, from 0, as CSS spells it; beyond the last colour they begin anew.
pub fn colour(i: usize) -> &'static str {
    COLOURS[i % COLOURS.len()]
}

/// A range that ends on round numbers.
struct Axis {
    min: f64,
    step: f64,
    n_steps: usize,
}

impl Axis {
    fn new(min: f64, max: f64) -> Axis {
        let room = (max - min).max(1e-9 * max.abs()).max(1e-12);
        let rough = room / 5.0;
        let power = 10f64.powf(rough.log10().floor());
        let step = [1.0, 2.0, 5.0, 10.0].into_iter().map(|m| m * power).find(|step| *step >= rough);
        let step = step.unwrap_or(10.0 * power);
        let min = (min / step).floor() * step;
        let n_steps = (((max - min) / step).ceil() as usize).max(1);
        Axis { min, step, n_steps }
    }

    fn share(&self, value: f64) -> f64 {
        (value - self.min) / (self.step * self.n_steps as f64)
    }

    fn ticks(&self) -> impl Iterator<Item = f64> + '_ {
        (0..=self.n_steps).map(|i| self.min + i as f64 * self.step)
    }
}

/// A tick's number: `1.5M`, `20k`, `0.25`.
fn shown(value: f64) -> String {
    let tidy = |value: f64| {
        let text = format!("{value:.4}");
        if text.contains('.') { text.trim_end_matches('0').trim_end_matches('.').to_owned() } else { text }
    };
    match value.abs() {
        size if size >= 1e9 => tidy(value / 1e9) + "G",
        size if size >= 1e6 => tidy(value / 1e6) + "M",
        size if size >= 1e4 => tidy(value / 1e3) + "k",
        size if size < 1e-4 => "0".to_owned(),
        _ => tidy(value),
    }
}

/// At most [`POINTS_MAX`] points: means of neighbours.
fn thinned(points: &[(f64, f64)]) -> Vec<(f64, f64)> {
    let finite: Vec<(f64, f64)> =
        points.iter().copied().filter(|(x, y)| x.is_finite() && y.is_finite()).collect();
    let size = finite.len().div_ceil(POINTS_MAX).max(1);
    let mean = |run: &[(f64, f64)]| {
        let n = run.len() as f64;
        (run.iter().map(|p| p.0).sum::<f64>() / n, run.iter().map(|p| p.1).sum::<f64>() / n)
    };
    finite.chunks(size).map(mean).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn axes_end_on_round_numbers_around_what_they_hold() {
        for (min, max) in [(0.0, 1.0), (0.37, 4.2), (-3.0, 88.0), (5.0, 5.0), (0.0, 1.23e7)] {
            let axis = Axis::new(min, max);
            assert!(axis.share(min) >= 0.0 && axis.share(max) <= 1.0 + 1e-9, "{min} {max}");
            assert!((2..=12).contains(&axis.ticks().count()), "{min} {max}");
        }
        assert_eq!([1.5e6, 20_000.0, 0.25, 0.0, 3.0].map(shown), ["1.5M", "20k", "0.25", "0", "3"]);
    }

    #[test]
    fn numbers_that_are_not_finite_are_left_out() {
        let points = vec![(0.0, 1.0), (1.0, f64::NAN), (2.0, f64::INFINITY), (3.0, 2.0)];
        let line = Line { name: "loss".into(), points, is_dashed: false };
        let plot = Plot { x_label: "tokens", y_label: "loss", lines: vec![line], from_zero: false };
        let svg = plot.svg();
        assert!(svg.contains("<polyline") && !svg.contains("NaN") && !svg.contains("inf"), "{svg}");
        assert_eq!(Plot { lines: Vec::new(), ..plot }.svg(), "");
    }
}
