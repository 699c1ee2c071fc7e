//! What is wrong with a template, or with what it was given.

/// Where in a template, and what.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{}{problem}", prefix(place))]
pub struct TemplateError {
    /// The place, as a path of names; empty for the document as a whole.
    pub place: String,
    /// What is wrong, as the rest of a sentence that begins with the place.
    pub problem: String,
}

fn prefix(place: &str) -> String {
    if place.is_empty() {
        "template: ".to_owned()
    } else {
        format!("template: {place} ")
    }
}

pub(super) fn at(place: &str, problem: impl Into<String>) -> TemplateError {
    TemplateError {
        place: place.to_owned(),
        problem: problem.into(),
    }
}
