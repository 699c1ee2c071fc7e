//! Questions about all things that a query fits at once: GetStatistics, GetCardinality, GetPercentiles and
//! GetBucketsAggregation. The registry itself is looked through, so answers are exact and as new as it is.

use std::collections::{BTreeMap, HashMap, HashSet};

use fleet::{Found, LIST_LIMIT_ITEMS};
use http::{Method, StatusCode};
use serde::{Deserialize, Serialize};
use serde_json::json;

use super::ids::thing_id;
use super::index;
use crate::answer::Answer;
use crate::api_error::ApiError;
use crate::call::Call;
use crate::operation::{Operation, Run};
use crate::operators::Role;
use crate::rooms::Rooms;

pub(super) const STATISTICS: Operation =
    operation("GetStatistics", "/indices/statistics", statistics);
pub(super) const CARDINALITY: Operation =
    operation("GetCardinality", "/indices/cardinality", cardinality);
pub(super) const PERCENTILES: Operation =
    operation("GetPercentiles", "/indices/percentiles", percentiles);
pub(super) const BUCKETS: Operation =
    operation("GetBucketsAggregation", "/indices/buckets", buckets);

/// Percentiles where none are named (AWS's).
const PERCENTS: [f64; 7] = [1.0, 5.0, 25.0, 50.0, 75.0, 95.0, 99.0];
/// Most percentiles of one question.
const PERCENTS_LIMIT_ITEMS: usize = 100;
/// Buckets where no number is named, and the most of them (AWS's).
const BUCKETS_ITEMS: u32 = 10;
const BUCKETS_LIMIT_ITEMS: u32 = 10_000;

const fn operation(
    name: &'static str,
    path: &'static str,
    run: fn(&Rooms, &Call) -> Result<Answer, ApiError>,
) -> Operation {
    Operation {
        name,
        method: Method::POST,
        path,
        least: Role::Viewer,
        query: &[],
        undone: &[],
        run: Run::WithBody(run),
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
struct Body {
    index_name: Option<String>,
    query_string: String,
    aggregation_field: Option<String>,
    query_version: Option<String>,
    percents: Option<Vec<f64>>,
    buckets_aggregation_type: Option<BucketsType>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
struct BucketsType {
    terms_aggregation: Option<Terms>,
}

#[derive(Deserialize, Default)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
struct Terms {
    max_buckets: Option<u32>,
}

fn invalid(message: impl Into<String>) -> ApiError {
    ApiError::new(
        StatusCode::BAD_REQUEST,
        "InvalidAggregationException",
        message.into(),
    )
}

/// What is asked of each thing.
enum Field {
    Name,
    Id,
    Type,
    Groups,
    Version,
    Attribute(String),
    Connected,
    ConnectedSince,
}

impl Field {
    fn read(name: &str) -> Result<Self, ApiError> {
        Ok(match name {
            "thingName" => Self::Name,
            "thingId" => Self::Id,
            "thingTypeName" | "registry.thingTypeName" => Self::Type,
            "thingGroupNames" | "registry.thingGroupNames" => Self::Groups,
            "registry.version" => Self::Version,
            "connectivity.connected" => Self::Connected,
            "connectivity.timestamp" => Self::ConnectedSince,
            other => match other.strip_prefix("attributes.") {
                Some(attribute) if !attribute.is_empty() => Self::Attribute(attribute.to_owned()),
                _ => {
                    let shown: String = other.chars().take(80).collect();
                    return Err(invalid(format!(
                        "aggregationField {shown:?} is not indexed; there are thingName, thingId, thingTypeName, thingGroupNames, attributes.NAME, registry.version, connectivity.connected and connectivity.timestamp"
                    )));
                }
            },
        })
    }

    /// The values that a thing has; none where it has not the field.
    fn values(&self, found: &Found) -> Vec<String> {
        let thing = &found.thing;
        let one = |value: Option<String>| value.into_iter().collect();
        match self {
            Self::Name => one(Some(thing.name.to_string())),
            Self::Id => one(Some(thing_id(thing))),
            Self::Type => one(thing.type_name.as_ref().map(ToString::to_string)),
            Self::Groups => found.groups.iter().map(ToString::to_string).collect(),
            Self::Version => one(Some(thing.version.to_string())),
            Self::Attribute(name) => one(thing.attributes.get(name).cloned()),
            Self::Connected => one(Some(found.connected_since.is_some().to_string())),
            Self::ConnectedSince => one(found.connected_since.map(|since| {
                let since = since.duration_since(std::time::SystemTime::UNIX_EPOCH);
                since.map_or(0, |since| since.as_millis()).to_string()
            })),
        }
    }
}

/// Has each thing's values told, of all things that the query fits. How many there are.
fn each(rooms: &Rooms, body: &Body, mut told: impl FnMut(Vec<String>)) -> Result<u64, ApiError> {
    index::check(body.index_name.as_deref(), body.query_version.as_deref())?;
    let query = index::query(&body.query_string)?;
    let field = Field::read(
        body.aggregation_field
            .as_deref()
            .unwrap_or("registry.version"),
    )?;
    let (mut after, mut count): (Option<String>, u64) = (None, 0);
    loop {
        let page = rooms
            .fleet
            .search(&query, after.as_deref(), LIST_LIMIT_ITEMS)?;
        for found in &page.items {
            count += 1;
            told(field.values(found));
        }
        after = page.next;
        if after.is_none() {
            return Ok(count);
        }
    }
}

fn read(call: &Call) -> Result<Body, ApiError> {
    let body: Body = call.body()?;
    let name = call.operation.name;
    for (field, there, of) in [
        ("percents", body.percents.is_some(), "GetPercentiles"),
        (
            "bucketsAggregationType",
            body.buckets_aggregation_type.is_some(),
            "GetBucketsAggregation",
        ),
    ] {
        if there && name != of {
            return Err(ApiError::invalid(format!("{field} is for {of}")));
        }
    }
    Ok(body)
}

fn number(text: &str) -> Option<f64> {
    text.parse::<f64>().ok().filter(|number| number.is_finite())
}

/// Of texts the count alone, as AWS has it.
#[derive(Serialize, Default)]
#[serde(rename_all = "camelCase")]
struct Statistics {
    count: u64,
    #[serde(flatten, skip_serializing_if = "Option::is_none")]
    of_numbers: Option<OfNumbers>,
}

#[derive(Serialize, Clone, Copy)]
#[serde(rename_all = "camelCase")]
struct OfNumbers {
    average: f64,
    sum: f64,
    minimum: f64,
    maximum: f64,
    sum_of_squares: f64,
    variance: f64,
    std_deviation: f64,
}

/// Sums as they come; the variance by Welford's rule, which loses nothing where values are large and alike.
#[derive(Default)]
struct Sums {
    count: u64,
    texts: bool,
    sum: f64,
    squares: f64,
    least: Option<f64>,
    most: Option<f64>,
    mean: f64,
    spread: f64,
}

impl Sums {
    fn add(&mut self, value: &str) {
        self.count += 1;
        let Some(number) = number(value) else {
            self.texts = true;
            return;
        };
        self.sum += number;
        self.squares += number * number;
        self.least = Some(self.least.map_or(number, |least| least.min(number)));
        self.most = Some(self.most.map_or(number, |most| most.max(number)));
        let off = number - self.mean;
        self.mean += off / self.count();
        self.spread += off * (number - self.mean);
    }

    #[expect(clippy::cast_precision_loss, reason = "no registry has 2^53 things")]
    fn count(&self) -> f64 {
        self.count as f64
    }

    fn told(&self) -> Statistics {
        let of_numbers = match (self.least, self.most) {
            (Some(minimum), Some(maximum)) if !self.texts => {
                let variance = self.spread / self.count();
                Some(OfNumbers {
                    average: self.sum / self.count(),
                    sum: self.sum,
                    minimum,
                    maximum,
                    sum_of_squares: self.squares,
                    variance,
                    std_deviation: variance.sqrt(),
                })
            }
            _ => None,
        };
        Statistics {
            count: self.count,
            of_numbers,
        }
    }
}

fn statistics(rooms: &Rooms, call: &Call) -> Result<Answer, ApiError> {
    let body = read(call)?;
    let mut sums = Sums::default();
    each(rooms, &body, |values| {
        values.iter().for_each(|value| sums.add(value));
    })?;
    Answer::json(&json!({ "statistics": sums.told() }))
}

fn cardinality(rooms: &Rooms, call: &Call) -> Result<Answer, ApiError> {
    let body = read(call)?;
    let mut seen = HashSet::new();
    each(rooms, &body, |values| seen.extend(values))?;
    Answer::json(&json!({ "cardinality": seen.len() }))
}

fn percentiles(rooms: &Rooms, call: &Call) -> Result<Answer, ApiError> {
    let body = read(call)?;
    let percents = body.percents.clone().unwrap_or_else(|| PERCENTS.to_vec());
    if percents.len() > PERCENTS_LIMIT_ITEMS {
        return Err(ApiError::invalid(format!(
            "percents are at most {PERCENTS_LIMIT_ITEMS}"
        )));
    }
    if let Some(wrong) = percents.iter().find(|p| !(0.0..=100.0).contains(*p)) {
        return Err(ApiError::invalid(format!(
            "percents: {wrong} is not from 0 to 100"
        )));
    }
    let mut numbers = Vec::new();
    let mut text = None;
    each(rooms, &body, |values| {
        for value in values {
            match number(&value) {
                Some(number) => numbers.push(number),
                None => text = Some(value),
            }
        }
    })?;
    if let Some(text) = text {
        let shown: String = text.chars().take(80).collect();
        return Err(invalid(format!(
            "percentiles are of numbers, and one of the things has {shown:?} there: narrow the query"
        )));
    }
    numbers.sort_by(f64::total_cmp);
    let all: Vec<_> = percents
        .iter()
        .filter_map(|percent| Some(json!({ "percent": percent, "value": at(&numbers, *percent)? })))
        .collect();
    Answer::json(&json!({ "percentiles": all }))
}

/// The value below which so many of a hundred lie, between two by their distance; `None` of nothing.
#[expect(
    clippy::cast_precision_loss,
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "a place among them: not negative, and no registry has 2^53 things"
)]
fn at(sorted: &[f64], percent: f64) -> Option<f64> {
    let last = sorted.len().checked_sub(1)?;
    let place = percent / 100.0 * last as f64;
    let (below, above) = (place.floor() as usize, place.ceil() as usize);
    let (low, high) = (*sorted.get(below)?, *sorted.get(above.min(last))?);
    Some(low + (high - low) * (place - place.floor()))
}

fn buckets(rooms: &Rooms, call: &Call) -> Result<Answer, ApiError> {
    let body = read(call)?;
    if body.aggregation_field.is_none() {
        return Err(ApiError::invalid("aggregationField is missing"));
    }
    let Some(asked) = &body.buckets_aggregation_type else {
        return Err(ApiError::invalid(
            "bucketsAggregationType is missing: {\"termsAggregation\": {\"maxBuckets\": 10}}",
        ));
    };
    let terms = asked.terms_aggregation.as_ref();
    let most = terms
        .and_then(|terms| terms.max_buckets)
        .unwrap_or(BUCKETS_ITEMS);
    if !(1..=BUCKETS_LIMIT_ITEMS).contains(&most) {
        return Err(ApiError::invalid(format!(
            "maxBuckets is from 1 to {BUCKETS_LIMIT_ITEMS}"
        )));
    }
    let mut counts: HashMap<String, u64> = HashMap::new();
    let total = each(rooms, &body, |values| {
        for value in values {
            *counts.entry(value).or_default() += 1;
        }
    })?;
    // The largest first; among equals in order of the value, so that the answer is the same each time.
    let mut ordered: BTreeMap<(std::cmp::Reverse<u64>, String), ()> = BTreeMap::new();
    for (value, count) in counts {
        ordered.insert((std::cmp::Reverse(count), value), ());
        if ordered.len() > most as usize {
            ordered.pop_last();
        }
    }
    let buckets: Vec<_> = ordered
        .into_keys()
        .map(|(count, value)| json!({ "keyValue": value, "count": count.0 }))
        .collect();
    Answer::json(&json!({ "totalCount": total, "buckets": buckets }))
}

#[cfg(test)]
mod tests {
    use super::{Sums, at};

    #[test]
    fn numbers_have_their_statistics_and_texts_are_counted() {
        let mut sums = Sums::default();
        for value in ["2", "4", "4", "4", "5", "5", "7", "9"] {
            sums.add(value);
        }
        let told = sums.told();
        let numbers = told.of_numbers.unwrap();
        assert_eq!(told.count, 8);
        assert!((numbers.average - 5.0).abs() < 1e-9 && (numbers.std_deviation - 2.0).abs() < 1e-9);
        assert!((numbers.sum - 40.0).abs() < 1e-9 && (numbers.sum_of_squares - 232.0).abs() < 1e-9);
        assert!((numbers.minimum - 2.0).abs() < 1e-9 && (numbers.maximum - 9.0).abs() < 1e-9);
        sums.add("nine");
        assert!(sums.told().of_numbers.is_none() && sums.told().count == 9);
        assert!(Sums::default().told().of_numbers.is_none());
    }

    #[test]
    fn percentiles_lie_between_the_values() {
        let sorted: Vec<f64> = (0..=10).map(f64::from).collect();
        for (percent, value) in [(0.0, 0.0), (25.0, 2.5), (50.0, 5.0), (100.0, 10.0)] {
            assert!((at(&sorted, percent).unwrap() - value).abs() < 1e-9);
        }
        assert_eq!(at(&[], 50.0), None);
    }
}
