//! The functions of a template: `Ref`, `Fn::Join`, `Fn::Select`, `Fn::Split`, `Fn::Sub`, `Fn::FindInMap`. Each
//! expression is a text; `Fn::Split` and JSON arrays are lists, where a function takes one.

use super::{CERTIFICATE_ID, DEPTH_LIMIT_LEVELS, TEXT_LIMIT_BYTES, TemplateError, error::at};
use serde_json::{Map, Value};
use std::collections::BTreeMap;

/// Most parts a text is split into.
const PARTS_LIMIT_ITEMS: usize = 1_000;

pub(super) type Mappings = BTreeMap<String, BTreeMap<String, BTreeMap<String, String>>>;

/// What an expression may refer to.
pub(super) struct Declared<'t> {
    pub(super) parameters: &'t BTreeMap<String, Option<String>>,
    pub(super) mappings: &'t Mappings,
}

impl Declared<'_> {
    fn has(&self, name: &str) -> bool {
        self.parameters.contains_key(name) || name == CERTIFICATE_ID
    }
}

/// What an expression is evaluated with.
#[derive(Clone, Copy)]
pub(super) struct Scope<'s> {
    pub(super) parameters: &'s BTreeMap<String, String>,
    pub(super) mappings: &'s Mappings,
    /// Parameters must not hold characters that mean something in a policy.
    pub(super) plain: bool,
}

#[derive(Debug, Clone)]
pub(super) enum Expression {
    Text(String),
    Ref(String),
    Join(String, List),
    Select(Box<Expression>, List),
    Sub(Vec<Piece>),
    FindInMap(Box<[Expression; 3]>),
}

#[derive(Debug, Clone)]
pub(super) enum List {
    Items(Vec<Expression>),
    Split(String, Box<Expression>),
}

#[derive(Debug, Clone)]
pub(super) enum Piece {
    Text(String),
    Value(Expression),
}

/// Whether an object is a call of a function rather than data.
pub(super) fn is_function(fields: &Map<String, Value>) -> bool {
    let mut names = fields.keys();
    match (names.next(), names.next()) {
        (Some(name), None) => name == "Ref" || name.starts_with("Fn::"),
        _ => false,
    }
}

pub(super) fn mappings(section: Option<&Value>) -> Result<Mappings, TemplateError> {
    let object = |value: &Value, place: &str| {
        value
            .as_object()
            .cloned()
            .ok_or_else(|| at(place, "is a JSON object"))
    };
    let mut mappings = Mappings::new();
    for (map, keys) in section
        .map(|s| object(s, "Mappings"))
        .transpose()?
        .unwrap_or_default()
    {
        let place = format!("Mappings.{map}");
        let rows = mappings.entry(map).or_default();
        for (key, fields) in object(&keys, &place)? {
            let place = format!("{place}.{key}");
            let row = rows.entry(key).or_default();
            for (field, value) in object(&fields, &place)? {
                let Some(text) = scalar(&value) else {
                    return Err(at(
                        &format!("{place}.{field}"),
                        "is a text: no functions here",
                    ));
                };
                row.insert(field, text);
            }
        }
    }
    Ok(mappings)
}

fn scalar(value: &Value) -> Option<String> {
    match value {
        Value::String(text) => Some(text.clone()),
        Value::Number(number) => Some(number.to_string()),
        Value::Bool(truth) => Some(truth.to_string()),
        Value::Null | Value::Array(_) | Value::Object(_) => None,
    }
}

fn deeper(depth: usize, place: &str) -> Result<usize, TemplateError> {
    if depth >= DEPTH_LIMIT_LEVELS {
        return Err(at(
            place,
            format!("is nested deeper than {DEPTH_LIMIT_LEVELS} levels"),
        ));
    }
    Ok(depth + 1)
}

impl Expression {
    pub(super) fn parse(
        value: &Value,
        place: &str,
        declared: &Declared<'_>,
        depth: usize,
    ) -> Result<Self, TemplateError> {
        if let Some(text) = scalar(value) {
            return Ok(Expression::Text(text));
        }
        let depth = deeper(depth, place)?;
        let fields = value.as_object().filter(|fields| is_function(fields));
        let Some((name, argument)) = fields.and_then(|fields| fields.iter().next()) else {
            return Err(at(
                place,
                "is a text or one of Ref, Fn::Join, Fn::Select, Fn::Split, Fn::Sub, Fn::FindInMap",
            ));
        };
        let place = format!("{place}.{name}");
        let one = |value: &Value| Expression::parse(value, &place, declared, depth);
        let words = |problem: &str| Err(at(&place, problem));
        match (name.as_str(), argument) {
            ("Ref", Value::String(name)) if declared.has(name) => Ok(Expression::Ref(name.clone())),
            ("Ref", Value::String(name)) => Err(at(
                &place,
                format!("names {name:?}, which Parameters does not declare"),
            )),
            ("Ref", _) => words("names a parameter"),
            ("Fn::Join", Value::Array(arguments)) => match arguments.as_slice() {
                [Value::String(separator), list] => Ok(Expression::Join(
                    separator.clone(),
                    List::parse(list, &place, declared, depth)?,
                )),
                _ => words("takes [separator, list]"),
            },
            ("Fn::Select", Value::Array(arguments)) => match arguments.as_slice() {
                [index, list] => Ok(Expression::Select(
                    Box::new(one(index)?),
                    List::parse(list, &place, declared, depth)?,
                )),
                _ => words("takes [index, list]"),
            },
            ("Fn::FindInMap", Value::Array(arguments)) => match arguments.as_slice() {
                [map, key, field] => {
                    if let Value::String(map) = map
                        && !declared.mappings.contains_key(map)
                    {
                        return Err(at(
                            &place,
                            format!("names {map:?}, which Mappings does not have"),
                        ));
                    }
                    Ok(Expression::FindInMap(Box::new([
                        one(map)?,
                        one(key)?,
                        one(field)?,
                    ])))
                }
                _ => words("takes [map, key, name]"),
            },
            ("Fn::Sub", Value::String(text)) => {
                pieces(text, &BTreeMap::new(), &place, declared).map(Expression::Sub)
            }
            ("Fn::Sub", Value::Array(arguments)) => match arguments.as_slice() {
                [Value::String(text)] => {
                    pieces(text, &BTreeMap::new(), &place, declared).map(Expression::Sub)
                }
                [Value::String(text), Value::Object(values)] => {
                    let mut own = BTreeMap::new();
                    for (name, value) in values {
                        own.insert(name.as_str(), one(value)?);
                    }
                    pieces(text, &own, &place, declared).map(Expression::Sub)
                }
                _ => words("takes a text, or [text, values]"),
            },
            ("Fn::Split", _) => words("gives a list: put it into Fn::Select or Fn::Join"),
            ("Fn::Join" | "Fn::Select" | "Fn::FindInMap" | "Fn::Sub", _) => {
                words("takes a list of arguments")
            }
            _ => words(
                "is no function: there are Ref, Fn::Join, Fn::Select, Fn::Split, Fn::Sub, Fn::FindInMap",
            ),
        }
    }

    /// The text it stands for.
    pub(super) fn text(&self, scope: &Scope<'_>, place: &str) -> Result<String, TemplateError> {
        let text = match self {
            Expression::Text(text) => text.clone(),
            Expression::Ref(name) => scope.parameter(name, place)?.to_owned(),
            Expression::Join(separator, list) => list.texts(scope, place)?.join(separator),
            Expression::Select(index, list) => {
                let index = index.text(scope, place)?;
                let items = list.texts(scope, place)?;
                let shown: String = index.chars().take(40).collect();
                let found = index
                    .parse::<usize>()
                    .ok()
                    .and_then(|index| items.get(index));
                found.cloned().ok_or_else(|| {
                    let count = items.len();
                    at(
                        place,
                        format!("selects {shown:?} of a list of {count} (the first is 0)"),
                    )
                })?
            }
            Expression::Sub(pieces) => {
                let mut text = String::new();
                for piece in pieces {
                    match piece {
                        Piece::Text(literal) => text.push_str(literal),
                        Piece::Value(value) => text.push_str(&value.text(scope, place)?),
                    }
                    within(&text, place)?;
                }
                text
            }
            Expression::FindInMap(path) => {
                let [map, key, field] = path.as_ref();
                let (map, key, field) = (
                    map.text(scope, place)?,
                    key.text(scope, place)?,
                    field.text(scope, place)?,
                );
                let found = scope
                    .mappings
                    .get(&map)
                    .and_then(|keys| keys.get(&key)?.get(&field));
                found.cloned().ok_or_else(|| {
                    let shown: String = key.chars().take(80).collect();
                    at(
                        place,
                        format!("finds no {field:?} under {shown:?} in the mapping {map:?}"),
                    )
                })?
            }
        };
        within(&text, place)?;
        Ok(text)
    }
}

fn within(text: &str, place: &str) -> Result<(), TemplateError> {
    if text.len() > TEXT_LIMIT_BYTES {
        return Err(at(
            place,
            format!("comes to more than {TEXT_LIMIT_BYTES} bytes"),
        ));
    }
    Ok(())
}

impl List {
    fn parse(
        value: &Value,
        place: &str,
        declared: &Declared<'_>,
        depth: usize,
    ) -> Result<Self, TemplateError> {
        match value {
            Value::Array(items) => items
                .iter()
                .map(|item| Expression::parse(item, place, declared, depth))
                .collect::<Result<_, _>>()
                .map(List::Items),
            Value::Object(fields) if is_function(fields) && fields.contains_key("Fn::Split") => {
                let depth = deeper(depth, place)?;
                match fields
                    .get("Fn::Split")
                    .and_then(Value::as_array)
                    .map(Vec::as_slice)
                {
                    Some([Value::String(separator), text]) if !separator.is_empty() => {
                        Ok(List::Split(
                            separator.clone(),
                            Box::new(Expression::parse(text, place, declared, depth)?),
                        ))
                    }
                    _ => Err(at(
                        place,
                        "Fn::Split takes [separator, text]; the separator is not empty",
                    )),
                }
            }
            _ => Err(at(place, "takes a list: an array or Fn::Split")),
        }
    }

    fn texts(&self, scope: &Scope<'_>, place: &str) -> Result<Vec<String>, TemplateError> {
        match self {
            List::Items(items) => {
                let mut texts = Vec::with_capacity(items.len());
                let mut bytes = 0_usize;
                for item in items {
                    let text = item.text(scope, place)?;
                    bytes = bytes.saturating_add(text.len());
                    if bytes > TEXT_LIMIT_BYTES {
                        return Err(at(
                            place,
                            format!("comes to more than {TEXT_LIMIT_BYTES} bytes"),
                        ));
                    }
                    texts.push(text);
                }
                Ok(texts)
            }
            List::Split(separator, text) => {
                let text = text.text(scope, place)?;
                let parts: Vec<String> = (text.split(separator.as_str()))
                    .take(PARTS_LIMIT_ITEMS + 1)
                    .map(str::to_owned)
                    .collect();
                if parts.len() > PARTS_LIMIT_ITEMS {
                    return Err(at(
                        place,
                        format!("splits into more than {PARTS_LIMIT_ITEMS} parts"),
                    ));
                }
                Ok(parts)
            }
        }
    }
}

impl Scope<'_> {
    fn parameter(&self, name: &str, place: &str) -> Result<&str, TemplateError> {
        let value = self
            .parameters
            .get(name)
            .ok_or_else(|| at(&format!("parameter {name}"), "is missing"))?;
        let means_something = |c: char| c.is_control() || "*?$+#/\"\\{}".contains(c);
        if self.plain
            && let Some(found) = value.chars().find(|c| means_something(*c))
        {
            return Err(at(
                place,
                format!(
                    "takes parameter {name}, whose value holds {found:?}: that would mean something in a policy"
                ),
            ));
        }
        Ok(value)
    }
}

/// Cuts a text of `Fn::Sub` at its `${Name}`s; `${!Name}` stands for `${Name}` itself.
fn pieces(
    text: &str,
    own: &BTreeMap<&str, Expression>,
    place: &str,
    declared: &Declared<'_>,
) -> Result<Vec<Piece>, TemplateError> {
    let mut pieces = Vec::new();
    let mut rest = text;
    while let Some((before, after)) = rest.split_once("${") {
        if !before.is_empty() {
            pieces.push(Piece::Text(before.to_owned()));
        }
        let (name, behind) = after
            .split_once('}')
            .ok_or_else(|| at(place, "has a ${ that is not closed"))?;
        pieces.push(match (name.strip_prefix('!'), own.get(name)) {
            (Some(literal), _) => Piece::Text(format!("${{{literal}}}")),
            (None, Some(value)) => Piece::Value(value.clone()),
            (None, None) if declared.has(name) => Piece::Value(Expression::Ref(name.to_owned())),
            (None, None) => {
                let shown: String = name.chars().take(80).collect();
                return Err(at(place, format!("has ${{{shown}}}, which is neither among its values nor a parameter (for a policy variable write ${{!{shown}}})")));
            }
        });
        rest = behind;
    }
    if !rest.is_empty() {
        pieces.push(Piece::Text(rest.to_owned()));
    }
    Ok(pieces)
}
