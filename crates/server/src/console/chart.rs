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

/// Distance of the lines: 1, 2 or 5 times a power of ten, so that `TICKS_MAX` of them or fewer reach `max`.
fn tick(max: f64) -> f64 {
    let raw = max.max(f64::MIN_POSITIVE) / TICKS_MAX;
    let power = 10_f64.powf(raw.log10().floor());
    let factor = [1.0, 2.0, 5.0, 10.0].into_iter().find(|factor| factor * power >= raw * 0.999_999);
    factor.unwrap_or(10.0) * power
}

/// Stacked bars, one a day; hovering or a screen reader tells each bar's numbers.
pub(super) fn bars(title: &str, days: &[String], series: &[Series], shown: fn(f64) -> String) -> Markup {
    let sums: Vec<f64> =
        (0..days.len()).map(|day| series.iter().map(|series| series.values[day]).sum()).collect();
    let total: f64 = sums.iter().sum();
    let max = sums.iter().copied().fold(0.0, f64::max);
    html! {
        figure.chart {
            figcaption { strong { (title) } " " span.sum { (shown(total)) } }
            svg viewBox=(format!("0 0 {WIDTH} {HEIGHT}")) role="img"
                aria-label=(format!("{title}: {} in all, at most {} a day", shown(total), shown(max))) {
                (axes(days, max, shown))
                @for (at, day) in days.iter().enumerate() { (bar(at, day, days.len(), series, max, shown)) }
            }
            @if series.len() > 1 { (legend(series)) }
        }
    }
}

fn height(value: f64, max: f64) -> f64 {
    let top = (max / tick(max)).ceil().max(1.0) * tick(max);
    if max > 0.0 { value / top * (HEIGHT - TOP - BOTTOM) } else { 0.0 }
}

fn axes(days: &[String], max: f64, shown: fn(f64) -> String) -> Markup {
    let base = HEIGHT - BOTTOM;
    let n_ticks = if max > 0.0 { (max / tick(max)).ceil() as usize } else { 0 };
    html! {
        @for at in 0..=n_ticks {
            @let value = at as f64 * tick(max);
            @let y = base - height(value, max);
            line.grid x1=(LEFT) x2=(WIDTH - RIGHT) y1=(format!("{y:.1}")) y2=(format!("{y:.1}")) {}
            text.axis x=(LEFT - 4.0) y=(format!("{:.1}", y + 3.5)) text-anchor="end" { (shown(value)) }
        }
        @if let (Some(first), Some(last)) = (days.first(), days.last()) {
            text.axis x=(LEFT) y=(HEIGHT - 6.0) { (first) }
            text.axis x=(WIDTH - RIGHT) y=(HEIGHT - 6.0) text-anchor="end" { (last) }
        }
    }
}

fn bar(at: usize, day: &str, n_days: usize, series: &[Series], max: f64, shown: fn(f64) -> String) -> Markup {
    let step = (WIDTH - LEFT - RIGHT) / n_days as f64;
    let (x, width) = (LEFT + step * (at as f64 + 0.1), step * 0.8);
    let mut base = HEIGHT - BOTTOM;
    let parts: Vec<(usize, &Series, f64, f64)> = series
        .iter()
        .enumerate()
        .filter(|(_, series)| series.values[at] > 0.0)
        .map(|(layer, series)| {
            let height = height(series.values[at], max);
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
    fn bars_are_as_high_as_their_numbers() {
        let days = ["2025-11-23".to_owned(), "2025-11-24".to_owned()];
        let layers = [
            Series { name: "low", values: vec![0.0, 30.0] },
            Series { name: "high", values: vec![10.0, 10.0] },
        ];
        let svg = bars("Things", &days, &layers, |value| format!("{value}")).into_string();
        // The drawing is 168 units high for 40, the highest line.
        assert!(svg.contains(r#"y="136.0" height="42.0"><title>2025-11-23: 10 high<"#), "{svg}");
        assert!(svg.contains(r#"y="52.0" height="126.0"><title>2025-11-24: 30 low<"#), "{svg}");
        assert!(svg.contains(r#"y="10.0" height="42.0"><title>2025-11-24: 10 high<"#), "{svg}");
        assert!(svg.contains("Things: 50 in all, at most 40 a day"), "{svg}");
    }

    #[test]
    fn nothing_makes_an_empty_chart() {
        let svg =
            bars("Nothing", &["2025-11-24".to_owned()], &[Series { name: "none", values: vec![0.0] }], |v| {
                format!("{v}")
            });
        let svg = svg.into_string();
        assert!(!svg.contains("NaN") && !svg.contains("<rect"), "{svg}");
    }
}
