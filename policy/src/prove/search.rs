//! Whether a text exists that several patterns want and others do not, character by character.
//!
//! All automata walk the same text at once. What must match is followed place by place, each
//! choice a state of its own; what must not match is followed as the set of all its places. Of
//! the characters only those count that a pattern writes, and one each for all the others. A
//! device's own name and another's are words of the text: where both would begin and end at the
//! same places they are one name, and that way is closed.

use std::collections::{HashSet, VecDeque};
use std::sync::Arc;

use super::places::Places;
use super::topic::{Inside, Spot, next_chars};

/// States of the largest search; what would take more is not decided.
const STATES_MAX: usize = 1 << 20;

/// A piece of a pattern of a policy.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) enum Step {
    Char(char),
    One,
    Star,
    /// The device's own name, whatever it is.
    Own,
    /// A value that the device chooses, or that nobody knows.
    Free,
}

/// A piece of the topics that are asked about.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) enum Seek {
    Char(char),
    /// What stands between two slashes.
    Level,
    /// Anything.
    Rest,
    /// The name of another device.
    Other,
}

/// What is asked.
pub(super) struct Query<'q> {
    /// The topics; any of these.
    pub(super) wanted: &'q [Vec<Seek>],
    /// Of each of these, one must match.
    pub(super) some: Vec<Vec<Vec<Step>>>,
    /// None of these may; without words in them.
    pub(super) none: Vec<Vec<Step>>,
    /// Whether the text is a topic filter that reaches the topics, and not one of them.
    pub(super) filter: bool,
    /// Whether patterns take a filter's wildcards for what they stand for.
    pub(super) coverage: bool,
    /// The names that there are, in order; any, where it is `None`.
    pub(super) names: Option<&'q [Arc<str>]>,
    /// The one that is no other's.
    pub(super) own: Option<&'q str>,
}

/// A text that is found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Found {
    pub(super) text: String,
    /// Whose name it has been read with; by its number among the names.
    pub(super) other: Option<usize>,
}

/// The search was too large.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct TooLarge;

/// A character of the text, or a wildcard of the filter.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Symbol {
    Char(char),
    Plus,
    Hash,
}

/// Where a pattern is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
struct Place {
    which: u16,
    at: u16,
    /// Within the word that stands there.
    inside: bool,
    /// Since its word began, it has been read with the other's.
    aligned: bool,
}

/// Where the filter is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum Shape {
    /// At the beginning of a level.
    Start,
    Middle,
    /// Behind a `+`.
    Plus,
    /// Behind a `#`.
    End,
    /// Within `$share/`, so many characters of it.
    Share(u8),
    /// Within the name of a share, whether it has begun.
    Group(bool),
}

const SHARE: &str = "$share/";

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct State {
    spot: Spot,
    some: Vec<Place>,
    none: Vec<Places>,
    /// The same patterns over the filter within a share.
    inner: Vec<Places>,
    shape: Shape,
    /// Nothing has been read of what the topic is held against.
    first: bool,
}

struct Node {
    parent: usize,
    symbol: Symbol,
    other: Option<usize>,
}

/// What a step of a word automaton has done.
pub(super) type Moved<T> = Vec<(T, Crossed)>;

/// Whether a word was left or begun.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct Crossed {
    pub(super) left: bool,
    pub(super) entered: bool,
    /// The name that was left.
    pub(super) other: Option<usize>,
}

/// Whether a character may stand in the name of a thing.
pub(super) fn is_name_char(c: char) -> bool {
    c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | ':')
}

impl Query<'_> {
    /// The shortest text, or where names are given, one of some length.
    pub(super) fn run(&self) -> Result<Option<Found>, TooLarge> {
        let letters = self.letters();
        let mut nodes: Vec<Node> = Vec::new();
        let mut seen: HashSet<State> = HashSet::new();
        let mut queue: VecDeque<(State, usize)> = VecDeque::new();
        for state in self.starts() {
            if seen.insert(state.clone()) {
                queue.push_back((state, usize::MAX));
            }
        }
        let mut next = Vec::new();
        // With names the deepest way first: one name is enough, and there may be a million.
        while let Some((state, node)) = match self.names {
            Some(_) => queue.pop_back(),
            None => queue.pop_front(),
        } {
            if let Some(other) = self.accepts(&state) {
                return Ok(Some(found(&nodes, node, other)));
            }
            for symbol in self.symbols(&state, &letters) {
                next.clear();
                self.step(&state, symbol, &mut next);
                for (state, other) in next.drain(..) {
                    if !seen.insert(state.clone()) {
                        continue;
                    }
                    if seen.len() > STATES_MAX {
                        return Err(TooLarge);
                    }
                    nodes.push(Node {
                        parent: node,
                        symbol,
                        other,
                    });
                    queue.push_back((state, nodes.len() - 1));
                }
            }
        }
        Ok(None)
    }

    /// The characters that some pattern tells from others, and one each for the rest of those
    /// that may stand in names, and of those that may not.
    fn letters(&self) -> Vec<char> {
        let patterns = self.some.iter().flatten().chain(&self.none).flatten();
        let written = patterns.filter_map(|step| match step {
            Step::Char(c) => Some(*c),
            _ => None,
        });
        let wanted = self.wanted.iter().flatten().filter_map(|seek| match seek {
            Seek::Char(c) => Some(*c),
            _ => None,
        });
        let mut letters: Vec<char> = written.chain(wanted).chain(['/']).collect();
        if self.filter {
            letters.extend(SHARE.chars());
        }
        letters.sort_unstable();
        letters.dedup();
        let plain = ('a'..='z')
            .rev()
            .chain('A'..='Z')
            .chain('0'..='9')
            .chain(['-', '_', ':']);
        let fresh = plain.clone().find(|c| !letters.contains(c));
        let strange = ('!'..='~').chain('\u{a1}'..='\u{2fff}');
        let strange = strange
            .filter(|c| !is_name_char(*c) && !matches!(c, '+' | '#' | '/' | '$'))
            .find(|c| !letters.contains(c));
        letters.extend(fresh.into_iter().chain(strange));
        letters.retain(|c| !matches!(c, '+' | '#' | '\0'));
        letters
    }

    fn starts(&self) -> Vec<State> {
        let mut some: Vec<Vec<Place>> = vec![Vec::new()];
        for union in &self.some {
            let mut longer = Vec::new();
            for begun in &some {
                for which in 0..union.len() {
                    let mut places = begun.clone();
                    places.push(Place {
                        which: u16::try_from(which).unwrap_or(u16::MAX),
                        at: 0,
                        inside: false,
                        aligned: false,
                    });
                    longer.push(places);
                }
            }
            some = longer;
        }
        let none: Vec<Places> = self.none.iter().map(|p| Places::start(p)).collect();
        let mut starts = Vec::new();
        for places in some {
            for which in 0..self.wanted.len() {
                let mut state = State {
                    spot: Spot {
                        which: u16::try_from(which).unwrap_or(u16::MAX),
                        at: 0,
                        inside: Inside::No,
                    },
                    some: places.clone(),
                    none: none.clone(),
                    inner: Vec::new(),
                    shape: Shape::Start,
                    first: true,
                };
                starts.push(state.clone());
                if self.filter {
                    state.shape = Shape::Share(0);
                    starts.push(state);
                }
            }
        }
        starts
    }

    fn symbols(&self, state: &State, letters: &[char]) -> Vec<Symbol> {
        let mut symbols: Vec<Symbol> = Vec::with_capacity(letters.len() + 2);
        match state.shape {
            Shape::End => return symbols,
            Shape::Share(done) => {
                let next = SHARE.chars().nth(usize::from(done));
                return next.map(Symbol::Char).into_iter().collect();
            }
            Shape::Group(begun) => {
                let group = letters.iter().filter(|c| begun || **c != '/');
                return group.map(|c| Symbol::Char(*c)).collect();
            }
            Shape::Plus => return vec![Symbol::Char('/')],
            Shape::Start if self.filter => symbols.extend([Symbol::Hash, Symbol::Plus]),
            Shape::Start | Shape::Middle => {}
        }
        symbols.extend(letters.iter().map(|c| Symbol::Char(*c)));
        if let Some(names) = self.names {
            let mut more = |from, to, depth| {
                for c in next_chars(names, from, to, depth) {
                    if !letters.contains(&c) {
                        symbols.push(Symbol::Char(c));
                    }
                }
            };
            let seek = self.seek(&state.spot);
            match state.spot.inside {
                Inside::Of { from, to, depth } => {
                    more(from as usize, to as usize, usize::from(depth))
                }
                Inside::No if seek == Some(Seek::Other) => more(0, names.len(), 0),
                _ => {}
            }
        }
        symbols
    }

    fn pattern(&self, union: usize, place: Place) -> &[Step] {
        let union = self.some.get(union);
        let pattern = union.and_then(|union| union.get(usize::from(place.which)));
        pattern.map(Vec::as_slice).unwrap_or_default()
    }

    /// Whether the text may end here; with the name that ends with it.
    fn accepts(&self, state: &State) -> Option<Option<usize>> {
        if state.first && state.shape != Shape::End {
            return None;
        }
        let ended = match state.shape {
            Shape::Share(_) | Shape::Group(_) => return None,
            Shape::End => Crossed::default(),
            _ => self.spot_ends(&state.spot)?,
        };
        for (union, place) in state.some.iter().enumerate() {
            let pattern = self.pattern(union, *place);
            let mut at = usize::from(place.at);
            if place.inside {
                if place.aligned && ended.left {
                    return None;
                }
                at += 1;
            }
            let rest = pattern.get(at..).unwrap_or_default();
            if rest.iter().any(|step| *step != Step::Star) {
                return None;
            }
        }
        let none = self
            .none
            .iter()
            .cycle()
            .zip(state.none.iter().chain(&state.inner));
        for (pattern, places) in none {
            if places.matched(pattern) {
                return None;
            }
        }
        Some(ended.other)
    }

    fn step(&self, state: &State, symbol: Symbol, next: &mut Vec<(State, Option<usize>)>) {
        let mut shape = match (state.shape, symbol) {
            (_, Symbol::Plus) => Shape::Plus,
            (_, Symbol::Hash) => Shape::End,
            (Shape::Share(done), _) if usize::from(done) + 1 == SHARE.len() => Shape::Group(false),
            (Shape::Share(done), _) => Shape::Share(done + 1),
            (Shape::Group(_), Symbol::Char('/')) => Shape::Start,
            (Shape::Group(_), _) => Shape::Group(true),
            (_, Symbol::Char('/')) => Shape::Start,
            _ => Shape::Middle,
        };
        if !self.filter {
            shape = Shape::Middle;
        }
        let outer = matches!(state.shape, Shape::Share(_) | Shape::Group(_));
        let spots: Moved<Spot> = if outer {
            vec![(state.spot, Crossed::default())]
        } else {
            let mut spots = Vec::new();
            self.move_spot(&state.spot, symbol, state.first, &mut spots);
            spots
        };
        if spots.is_empty() {
            return;
        }
        let advance = |places: &[Places], first: bool| -> Option<Vec<Places>> {
            let moved = self.none.iter().zip(places);
            moved
                .map(|(pattern, places)| places.step(pattern, symbol, self.coverage, first))
                .collect()
        };
        // What a Deny finds in the filter is lost for good.
        let Some(none) = advance(&state.none, state.first && !outer) else {
            return;
        };
        let Some(mut inner) = advance(&state.inner, state.first && !outer) else {
            return;
        };
        let mut first = false;
        if outer {
            first = true;
            if shape == Shape::Start && self.coverage {
                inner = self.none.iter().map(|p| Places::start(p)).collect();
            }
        }
        for (spot, crossed) in spots {
            let mut combined: Vec<Vec<Place>> = vec![Vec::new()];
            for (union, place) in state.some.iter().enumerate() {
                let moved = self.move_place(union, *place, symbol, crossed);
                let mut longer = Vec::with_capacity(combined.len() * moved.len());
                for begun in &combined {
                    for place in &moved {
                        let mut places = begun.clone();
                        places.push(*place);
                        longer.push(places);
                    }
                }
                combined = longer;
            }
            for some in combined {
                let state = State {
                    spot,
                    some,
                    none: none.clone(),
                    inner: inner.clone(),
                    shape,
                    first,
                };
                next.push((state, crossed.other));
            }
        }
    }

    fn move_place(&self, union: usize, place: Place, symbol: Symbol, topic: Crossed) -> Vec<Place> {
        let pattern = self.pattern(union, place);
        let mut moved = Vec::new();
        self.read_place(pattern, place, symbol, Crossed::default(), &mut moved);
        let mut places = Vec::with_capacity(moved.len());
        for (next, crossed) in moved {
            if place.aligned && crossed.left && topic.left {
                // The same word from end to end: no other's name.
                continue;
            }
            let stays = place.aligned && !crossed.left && !topic.left;
            let own = pattern.get(usize::from(next.at)) == Some(&Step::Own);
            let begins = crossed.entered && topic.entered && own;
            places.push(Place {
                aligned: stays || begins,
                ..next
            });
        }
        places
    }

    fn read_place(
        &self,
        pattern: &[Step],
        place: Place,
        symbol: Symbol,
        crossed: Crossed,
        moved: &mut Moved<Place>,
    ) {
        let step = pattern.get(usize::from(place.at)).copied();
        let behind = Place {
            at: place.at + 1,
            inside: false,
            ..place
        };
        let c = match symbol {
            Symbol::Char(c) => c,
            Symbol::Plus => '+',
            Symbol::Hash => '#',
        };
        let wild = matches!(symbol, Symbol::Plus | Symbol::Hash);
        let in_word = |step| match step {
            Some(Step::Own) => is_name_char(c),
            Some(Step::Free) => !wild,
            _ => false,
        };
        if place.inside {
            if in_word(step) {
                moved.push((place, crossed));
            }
            let crossed = Crossed {
                left: true,
                ..crossed
            };
            return self.read_place(pattern, behind, symbol, crossed, moved);
        }
        match step {
            Some(Step::Char(x)) if x == c => moved.push((behind, crossed)),
            Some(Step::One) if !(wild && self.coverage) => moved.push((behind, crossed)),
            Some(Step::Star) => {
                moved.push((place, crossed));
                self.read_place(pattern, behind, symbol, crossed, moved);
            }
            Some(Step::Own | Step::Free) if in_word(step) => {
                let crossed = Crossed {
                    entered: true,
                    ..crossed
                };
                let inside = true;
                moved.push((Place { inside, ..place }, crossed));
            }
            _ => {}
        }
    }
}

fn found(nodes: &[Node], mut node: usize, mut other: Option<usize>) -> Found {
    let mut text = Vec::new();
    while let Some(step) = nodes.get(node) {
        text.push(match step.symbol {
            Symbol::Char(c) => c,
            Symbol::Plus => '+',
            Symbol::Hash => '#',
        });
        other = other.or(step.other);
        node = step.parent;
    }
    Found {
        text: text.into_iter().rev().collect(),
        other,
    }
}
