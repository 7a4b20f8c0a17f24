//! What may have been meant by a name that does not exist.

/// Names in one sentence at most.
const MOST: usize = 5;

/// ` Did you mean "a", "b", or "c"?`; nothing where no name is near.
pub(super) fn did_you_mean<'n>(given: &str, known: impl Iterator<Item = &'n str>) -> String {
    // Near names are as long, give or take.
    let near = given.len() * 2 / 5 + 1;
    let known = known.filter(|name| name.len().abs_diff(given.len()) <= near);
    let distance = |name: &str| strsim::osa_distance(&given.to_lowercase(), &name.to_lowercase());
    let known = known.map(|name| (distance(name), name)).filter(|(distance, _)| *distance <= near);
    let mut known: Vec<_> = known.collect();
    known.sort_unstable();
    known.truncate(MOST);
    let quoted: Vec<String> = known.iter().map(|(_, name)| format!("\"{name}\"")).collect();
    match quoted.as_slice() {
        [] => String::new(),
        [one] => format!(" Did you mean {one}?"),
        [one, other] => format!(" Did you mean {one} or {other}?"),
        [most @ .., last] => format!(" Did you mean {}, or {last}?", most.join(", ")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn near_names_are_suggested_nearest_first() {
        let known = ["createdAt", "creator", "updatedAt", "id", "ids"];
        for (given, wanted) in [
            ("createdat", " Did you mean \"createdAt\", \"updatedAt\", or \"creator\"?"),
            ("creatr", " Did you mean \"creator\"?"),
            ("ids_", " Did you mean \"ids\" or \"id\"?"),
            ("nothing", ""),
        ] {
            assert_eq!(did_you_mean(given, known.into_iter()), wanted, "{given}");
        }
        let many = ["aa", "ab", "ac", "ad", "ae", "af"];
        assert_eq!(did_you_mean("a", many.into_iter()).matches('"').count(), 10);
    }
}
