//! Charts as SVG: stacked bars over days, and one bar in parts. Colours are classes of the style sheet.

use maud::{Markup, html};

/// One layer of the bars, lowest first.
pub(super) struct Series {
    pub(super) name: &'static str,
    /// A value a day.
    pub(super) values: Vec<f64>,
}

/// Width and height of the drawing, and the room of its axes; units of the view box.
const WIDTH: f64 = 360.0;
const HEIGHT: f64 = 200.0;
const LEFT: f64 = 48.0;
const RIGHT: f64 = 6.0;
const TOP: f64 = 10.0;
const BOTTOM: f64 = 22.0;
/// Lines across the drawing, the base line aside.
const TICKS_MAX: f64 = 4.0;

/// How the values of a chart are written, and the smallest distance of its lines: 1 for what is counted.
#[derive(Clone, Copy)]
pub(super) struct Scale {
    pub(super) shown: fn(f64) -> String,
    pub(super) tick_min: f64,
}

/// The lines across a drawing, and how far apart they are.
#[derive(Clone, Copy)]
struct Axis {
    tick: f64,
    n_ticks: usize,
}

impl Axis {
    fn new(max: f64, tick_min: f64) -> Self {
        let tick = tick(max).max(tick_min);
        Self { tick, n_ticks: (max / tick).ceil() as usize }
    }

    /// Height of a value in the drawing.
    fn height(self, value: f64) -> f64 {
        value / (self.n_ticks.max(1) as f64 * self.tick) * (HEIGHT - TOP - BOTTOM)
    }
}

/// Distance of the lines: 1, 2 or 5 times a power of ten, so that `TICKS_MAX` of them or fewer reach `max`.
fn tick(max: f64) -> f64 {
    let raw = max.max(f64::MIN_POSITIVE) / TICKS_MAX;
    let power = 10_f64.powf(raw.log10().floor());
    let factor = [1.0, 2.0, 5.0, 10.0].into_iter().find(|factor| factor * power >= raw * 0.999_999);
    factor.unwrap_or(10.0) * power
}

/// Stacked bars, one a day; hovering or a screen reader tells each bar's numbers.
pub(super) fn bars(title: &str, days: &[String], series: &[Series], scale: Scale) -> Markup {
    let shown = scale.shown;
    let sums: Vec<f64> =
        (0..days.len()).map(|day| series.iter().map(|series| series.values[day]).sum()).collect();
    let total: f64 = sums.iter().sum();
    let max = sums.iter().copied().fold(0.0, f64::max);
    let axis = Axis::new(max, scale.tick_min);
    html! {
        figure.chart {
            figcaption { strong { (title) } " " span.sum { (shown(total)) } }
            svg viewBox=(format!("0 0 {WIDTH} {HEIGHT}")) role="img"
                aria-label=(format!("{title}: {} in all, at most {} a day", shown(total), shown(max))) {
                (axes(days, axis, shown))
                @for (at, day) in days.iter().enumerate() { (bar(at, day, days.len(), series, axis, shown)) }
            }
            @if series.len() > 1 { (legend(series)) }
        }
    }
}

fn axes(days: &[String], axis: Axis, shown: fn(f64) -> String) -> Markup {
    let base = HEIGHT - BOTTOM;
    html! {
        @for at in 0..=axis.n_ticks {
            @let value = at as f64 * axis.tick;
            @let y = base - axis.height(value);
            line.grid x1=(LEFT) x2=(WIDTH - RIGHT) y1=(format!("{y:.1}")) y2=(format!("{y:.1}")) {}
            text.axis x=(LEFT - 4.0) y=(format!("{:.1}", y + 3.5)) text-anchor="end" { (shown(value)) }
        }
        @if let (Some(first), Some(last)) = (days.first(), days.last()) {
            text.axis x=(LEFT) y=(HEIGHT - 6.0) { (first) }
            text.axis x=(WIDTH - RIGHT) y=(HEIGHT - 6.0) text-anchor="end" { (last) }
        }
    }
}

fn bar(
    at: usize,
    day: &str,
    n_days: usize,
    series: &[Series],
    axis: Axis,
    shown: fn(f64) -> String,
) -> Markup {
    let step = (WIDTH - LEFT - RIGHT) / n_days as f64;
    let (x, width) = (LEFT + step * (at as f64 + 0.1), step * 0.8);
    let mut base = HEIGHT - BOTTOM;
    let parts: Vec<(usize, &Series, f64, f64)> = series
        .iter()
        .enumerate()
        .filter(|(_, series)| series.values[at] > 0.0)
        .map(|(layer, series)| {
            let height = axis.height(series.values[at]);
            base -= height;
            (layer, series, base, height)
        })
        .collect();
    html! {
        g {
            @for (layer, series, y, height) in parts {
                rect class=(format!("layer{layer}")) x=(format!("{x:.1}")) width=(format!("{width:.1}"))
                    y=(format!("{y:.1}")) height=(format!("{height:.1}")) {
                    title { (day) ": " (shown(series.values[at])) " " (series.name) }
                }
            }
        }
    }
}

fn legend(series: &[Series]) -> Markup {
    html! {
        ul.legend {
            @for (layer, series) in series.iter().enumerate() {
                li { svg viewBox="0 0 10 10" aria-hidden="true" {
                    rect class=(format!("layer{layer}")) width="10" height="10" {}
                } (series.name) }
            }
        }
    }
}

/// One bar in parts: names, sizes, and how a size is written.
pub(super) fn parts(title: &str, parts: &[(&str, u64)], shown: fn(u64) -> String) -> Markup {
    let total: u64 = parts.iter().map(|(_, size)| size).sum();
    let mut x = 0.0;
    let placed: Vec<(usize, &str, u64, f64, f64)> = parts
        .iter()
        .enumerate()
        .map(|(layer, (name, size))| {
            let width = *size as f64 / total.max(1) as f64 * WIDTH;
            x += width;
            (layer, *name, *size, x - width, width)
        })
        .collect();
    html! {
        figure.chart.wide {
            svg viewBox=(format!("0 0 {WIDTH} 14")) preserveAspectRatio="none" role="img"
                aria-label=(format!("{title}: {}", shown(total))) {
                @for (layer, name, size, x, width) in &placed {
                    rect class=(format!("layer{layer}")) x=(format!("{x:.2}")) y="0" height="14"
                        width=(format!("{width:.2}")) { title { (name) ": " (shown(*size)) } }
                }
            }
            ul.legend {
                @for (layer, name, size, ..) in &placed {
                    li { svg viewBox="0 0 10 10" aria-hidden="true" {
                        rect class=(format!("layer{layer}")) width="10" height="10" {}
                    } (name) ": " (shown(*size)) }
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_round_and_few() {
        for (max, expected) in
            [(1.0, 0.5), (3.9, 1.0), (4.0, 1.0), (4.1, 2.0), (1234.0, 500.0), (0.000_3, 0.000_1)]
        {
            assert!((tick(max) / expected - 1.0).abs() < 1e-9, "{max}: {}", tick(max));
        }
    }

    #[test]
    fn what_is_counted_has_whole_lines() {
        for (max, tick_min, expected) in [(2.0, 1.0, 1.0), (2.0, 0.0, 0.5), (1.0, 1.0, 1.0), (9.0, 1.0, 5.0)]
        {
            let axis = Axis::new(max, tick_min);
            assert!((axis.tick / expected - 1.0).abs() < 1e-9, "{max}: {}", axis.tick);
            assert!(axis.n_ticks as f64 * axis.tick >= max);
        }
    }

    #[test]
    fn bars_are_as_high_as_their_numbers() {
        let days = ["2025-11-23".to_owned(), "2025-11-24".to_owned()];
        let layers = [
            Series { name: "low", values: vec![0.0, 30.0] },
            Series { name: "high", values: vec![10.0, 10.0] },
        ];
        let scale = Scale { shown: |value| format!("{value}"), tick_min: 0.0 };
        let svg = bars("Things", &days, &layers, scale).into_string();
        // The drawing is 168 units high for 40, the highest line.
        assert!(svg.contains(r#"y="136.0" height="42.0"><title>2025-11-23: 10 high<"#), "{svg}");
        assert!(svg.contains(r#"y="52.0" height="126.0"><title>2025-11-24: 30 low<"#), "{svg}");
        assert!(svg.contains(r#"y="10.0" height="42.0"><title>2025-11-24: 10 high<"#), "{svg}");
        assert!(svg.contains("Things: 50 in all, at most 40 a day"), "{svg}");
    }

    #[test]
    fn nothing_makes_an_empty_chart() {
        let scale = Scale { shown: |value| format!("{value}"), tick_min: 0.0 };
        let none = [Series { name: "none", values: vec![0.0] }];
        let svg = bars("Nothing", &["2025-11-24".to_owned()], &none, scale).into_string();
        assert!(!svg.contains("NaN") && !svg.contains("<rect"), "{svg}");
    }
}
