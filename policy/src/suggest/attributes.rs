//! Which attribute a level of a topic stands for, judged by all devices that were seen with such a topic.
//!
//! One device has the same value in several attributes by mere chance: in room 2 on floor 2. What holds for one says
//! little; of the attributes that fit, it is the one that fits for most. Where no two devices have different values
//! there, the value is a word like any other.

use std::collections::{BTreeMap, BTreeSet};

use super::Level;

/// Levels of one topic that may stand for attributes; those beyond are words.
const PLACES_MAX: usize = 4;

/// What a device was seen with.
pub(super) struct Row<'d> {
    pub(super) levels: Vec<Level>,
    pub(super) attributes: &'d BTreeMap<String, String>,
}

/// Topics that are alike but for what stands in some places: `None` there.
type Shape<'r> = Vec<Option<&'r Level>>;

/// What each row is: with attributes in the places of their values where the data supports it, else as it was seen.
pub(super) fn general(rows: &[Row<'_>]) -> BTreeSet<Vec<Level>> {
    let mut of_shape: BTreeMap<Shape<'_>, Vec<usize>> = BTreeMap::new();
    for (number, row) in rows.iter().enumerate() {
        for shape in shapes(row) {
            of_shape.entry(shape).or_default().push(number);
        }
    }
    // How many values an attribute has among all: of two that fit alike, the one that tells devices better apart opens
    // less.
    let mut values: BTreeMap<&str, BTreeSet<&str>> = BTreeMap::new();
    for (name, value) in rows.iter().flat_map(|row| row.attributes) {
        values.entry(name).or_default().insert(value);
    }
    let tells_apart = |name: &str| values.get(name).map_or(0, BTreeSet::len);
    // Of each row, what most others are too.
    let mut best: Vec<(usize, usize, Vec<Level>)> = vec![(0, 0, Vec::new()); rows.len()];
    for (shape, members) in &of_shape {
        let Some((found, covered)) = attributes_of(shape, members, rows, tells_apart) else {
            continue;
        };
        let places = shape.iter().filter(|level| level.is_none()).count();
        let rank = (covered.len(), places);
        for number in covered {
            if let Some(known) = best.get_mut(number)
                && rank > (known.0, known.1)
            {
                *known = (rank.0, rank.1, found.clone());
            }
        }
    }
    let each = rows.iter().zip(best);
    each.map(|(row, (fits, _, found))| match fits {
        0 => row.levels.clone(),
        _ => found,
    })
    .collect()
}

/// The topic of a row with each choice of places left open whose words are values of an attribute of its device.
fn shapes<'r>(row: &'r Row<'_>) -> Vec<Shape<'r>> {
    let is_value = |level: &Level| matches!(level, Level::Text(text) if !text.is_empty() && row.attributes.values().any(|value| value == text));
    let levels = row.levels.iter().enumerate();
    let places = levels.filter(|(_, level)| is_value(level));
    let places: Vec<usize> = places.map(|(place, _)| place).take(PLACES_MAX).collect();
    (1_usize..1 << places.len())
        .map(|chosen| {
            let levels = row.levels.iter().enumerate();
            let shape = levels.map(|(place, level)| {
                let bit = places.iter().position(|one| *one == place);
                let open = bit.is_some_and(|bit| chosen & (1 << bit) != 0);
                (!open).then_some(level)
            });
            shape.collect()
        })
        .collect()
}

/// The attributes for a shape's open places, and the rows that they hold for; `None` where they have no different
/// values there.
fn attributes_of(
    shape: &[Option<&Level>],
    members: &[usize],
    rows: &[Row<'_>],
    tells_apart: impl Fn(&str) -> usize,
) -> Option<(Vec<Level>, Vec<usize>)> {
    let mut covered = members.to_vec();
    let mut found = Vec::new();
    for (place, level) in shape.iter().enumerate() {
        if let Some(level) = level {
            found.push((*level).clone());
            continue;
        }
        let mut fits: BTreeMap<&str, Vec<usize>> = BTreeMap::new();
        for number in &covered {
            let row = rows.get(*number)?;
            let Some(Level::Text(text)) = row.levels.get(place) else {
                continue;
            };
            for (name, _) in row.attributes.iter().filter(|(_, value)| *value == text) {
                fits.entry(name).or_default().push(*number);
            }
        }
        let most = fits
            .into_iter()
            .max_by_key(|(name, rows)| (rows.len(), tells_apart(name), std::cmp::Reverse(*name)));
        let (name, holds) = most?;
        covered = holds;
        found.push(Level::Attribute(name.to_owned()));
    }
    let differ = |place: usize| {
        let words = covered
            .iter()
            .filter_map(|row| rows.get(*row)?.levels.get(place));
        words.collect::<BTreeSet<_>>().len() > 1
    };
    let mut open = shape
        .iter()
        .enumerate()
        .filter(|(_, level)| level.is_none());
    open.all(|(place, _)| differ(place))
        .then_some((found, covered))
}
