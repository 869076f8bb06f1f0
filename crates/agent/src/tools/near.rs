//! The name that was probably meant where nothing is called as it was written.

/// Of a name's letters before its last point, the part that may be wrong.
const WRONG_PART: usize = 3;

/// The nearest of `names` to `name`, where at most a third of its letters before the last point were left out, added,
/// changed or swapped; the first of equally near ones.
pub(super) fn nearest<'n>(name: &str, names: impl Iterator<Item = &'n str>) -> Option<&'n str> {
    let stem = name.rsplit_once('.').map_or(name, |(stem, _)| stem);
    let n_wrong_max = stem.chars().count() / WRONG_PART;
    let far = names.map(|other| (strsim::damerau_levenshtein(name, other), other));
    far.filter(|(n_wrong, _)| *n_wrong <= n_wrong_max).min().map(|(_, other)| other)
}

#[cfg(test)]
mod tests {
    use super::nearest;

    #[test]
    fn a_slip_is_seen_through_and_another_name_is_not() {
        let names = ["start.txt", "stare.csv", "bb.txt", "route_17.log"];
        let near = |name| nearest(name, names.into_iter());
        for (name, meant) in [
            ("startt.txt", Some("start.txt")),
            ("strat.txt", Some("start.txt")),
            ("route_71.log", Some("route_17.log")),
            ("route17.log", Some("route_17.log")),
            ("other.txt", None),
            ("ab.txt", None),
            ("", None),
        ] {
            assert_eq!(near(name), meant, "{name}");
        }
    }
}
