//! A JSON value with functions in it: a policy document that was not written as a text.

use super::{
    DEPTH_LIMIT_LEVELS, TemplateError,
    error::at,
    expression::{Declared, Expression, Scope, is_function},
};
use serde_json::{Map, Value};

#[derive(Debug, Clone)]
pub(super) enum Node {
    Plain(Value),
    Array(Vec<Node>),
    Object(Vec<(String, Node)>),
    Function(Expression),
}

impl Node {
    pub(super) fn parse(
        value: &Value,
        place: &str,
        declared: &Declared<'_>,
        depth: usize,
    ) -> Result<Self, TemplateError> {
        if depth >= DEPTH_LIMIT_LEVELS {
            return Err(at(
                place,
                format!("is nested deeper than {DEPTH_LIMIT_LEVELS} levels"),
            ));
        }
        match value {
            Value::Object(fields) if is_function(fields) => {
                Expression::parse(value, place, declared, depth).map(Node::Function)
            }
            Value::Object(fields) => fields
                .iter()
                .map(|(key, value)| {
                    let place = format!("{place}.{key}");
                    Ok((
                        key.clone(),
                        Node::parse(value, &place, declared, depth + 1)?,
                    ))
                })
                .collect::<Result<_, _>>()
                .map(Node::Object),
            Value::Array(items) => items
                .iter()
                .map(|item| Node::parse(item, place, declared, depth + 1))
                .collect::<Result<_, _>>()
                .map(Node::Array),
            plain => Ok(Node::Plain(plain.clone())),
        }
    }

    pub(super) fn value(&self, scope: &Scope<'_>, place: &str) -> Result<Value, TemplateError> {
        Ok(match self {
            Node::Plain(value) => value.clone(),
            Node::Function(expression) => Value::String(expression.text(scope, place)?),
            Node::Array(items) => Value::Array(
                items
                    .iter()
                    .map(|item| item.value(scope, place))
                    .collect::<Result<_, _>>()?,
            ),
            Node::Object(fields) => {
                let mut object = Map::new();
                for (key, node) in fields {
                    object.insert(key.clone(), node.value(scope, place)?);
                }
                Value::Object(object)
            }
        })
    }
}
