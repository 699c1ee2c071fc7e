//! A value with wildcards: `*` stands for any characters or none, `?` for one.

/// A value, taken apart.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Pattern {
    parts: Vec<Part>,
    /// What stands before the first wildcard.
    prefix: String,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Part {
    One(char),
    AnyOne,
    Any,
}

impl Pattern {
    pub(super) fn new(parts: Vec<Part>) -> Self {
        let plain = parts.iter().map_while(|part| match part {
            Part::One(c) => Some(*c),
            Part::AnyOne | Part::Any => None,
        });
        Pattern {
            prefix: plain.collect(),
            parts,
        }
    }

    /// What every match begins with.
    pub(super) fn prefix(&self) -> &str {
        &self.prefix
    }

    /// The one match, where there is only one.
    pub(super) fn exact(&self) -> Option<&str> {
        let plain = self.parts.iter().all(|part| matches!(part, Part::One(_)));
        plain.then_some(self.prefix())
    }

    /// Whether nothing but `*` stands there.
    pub(super) fn is_anything(&self) -> bool {
        !self.parts.is_empty() && self.parts.iter().all(|part| *part == Part::Any)
    }

    /// Greedy with one step back: linear for what people write, and never more than both lengths multiplied.
    pub(super) fn matches(&self, value: &str) -> bool {
        let text: Vec<char> = value.chars().collect();
        let (mut part, mut at) = (0, 0);
        let mut back: Option<(usize, usize)> = None;
        while at < text.len() {
            let step = match (self.parts.get(part), text.get(at)) {
                (Some(Part::One(wanted)), Some(found)) => wanted == found,
                (Some(Part::AnyOne), Some(_)) => true,
                (Some(Part::Any), _) => {
                    back = Some((part, at));
                    part += 1;
                    continue;
                }
                _ => false,
            };
            if step {
                part += 1;
                at += 1;
            } else if let Some((star, from)) = back {
                back = Some((star, from + 1));
                part = star + 1;
                at = from + 1;
            } else {
                return false;
            }
        }
        let rest = self.parts.get(part..).unwrap_or_default();
        rest.iter().all(|part| *part == Part::Any)
    }
}
