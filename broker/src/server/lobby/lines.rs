//! Who waits for a seat: each source in a line of its own, whose turns come one after the other. No I/O, no clock.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use super::guests::Source;

/// See the module. `T` is by which one that waits is called; where it is dropped uncalled it is told so.
///
/// What one newcomer costs grows with the logarithm of those who wait.
pub(super) struct Lines<T> {
    /// Numbers those who come, who become ready, and turns.
    next: u64,
    waiting: usize,
    lines: HashMap<Source, Line<T>>,
    /// How long each line is.
    lengths: BTreeSet<(usize, Source)>,
    /// Sources of which somebody is ready.
    turns: BTreeMap<u64, Source>,
}

/// Those who wait of one source, by when they came.
struct Line<T> {
    all: BTreeMap<u64, Waiter<T>>,
    /// Those of them who have said nothing.
    silent: BTreeSet<u64>,
    /// Those of them who have something to say, by when they had.
    ready: BTreeMap<u64, u64>,
    /// Its turn, while anybody of it is ready.
    turn: Option<u64>,
}

struct Waiter<T> {
    call: T,
    ready: Option<u64>,
}

impl<T> Line<T> {
    fn new() -> Self {
        Self {
            all: BTreeMap::new(),
            silent: BTreeSet::new(),
            ready: BTreeMap::new(),
            turn: None,
        }
    }
}

impl<T> Lines<T> {
    pub(super) fn new() -> Self {
        Self {
            next: 0,
            waiting: 0,
            lines: HashMap::new(),
            lengths: BTreeSet::new(),
            turns: BTreeMap::new(),
        }
    }

    fn number(&mut self) -> u64 {
        self.next += 1;
        self.next
    }

    /// How many wait.
    pub(super) fn len(&self) -> usize {
        self.waiting
    }

    /// A newcomer, by the number it gets.
    pub(super) fn join(&mut self, source: Source, call: T) -> u64 {
        let number = self.number();
        let line = self.lines.entry(source).or_insert_with(Line::new);
        self.lengths.remove(&(line.all.len(), source));
        line.all.insert(number, Waiter { call, ready: None });
        line.silent.insert(number);
        self.lengths.insert((line.all.len(), source));
        self.waiting += 1;
        number
    }

    /// It has something to say: from now on its turn comes.
    pub(super) fn is_ready(&mut self, source: Source, number: u64) {
        let order = self.number();
        let Some(line) = self.lines.get_mut(&source) else {
            return;
        };
        let waiter = line.all.get_mut(&number);
        let Some(waiter) = waiter.filter(|waiter| waiter.ready.is_none()) else {
            return;
        };
        waiter.ready = Some(order);
        line.silent.remove(&number);
        line.ready.insert(order, number);
        if line.turn.is_none() {
            line.turn = Some(order);
            self.turns.insert(order, source);
        }
    }

    /// It waits no more.
    pub(super) fn leave(&mut self, source: Source, number: u64) -> Option<T> {
        let line = self.lines.get_mut(&source)?;
        let Waiter { call, ready } = line.all.remove(&number)?;
        line.silent.remove(&number);
        if let Some(order) = ready {
            line.ready.remove(&order);
        }
        if line.ready.is_empty()
            && let Some(turn) = line.turn.take()
        {
            self.turns.remove(&turn);
        }
        let length = line.all.len();
        self.lengths.remove(&(length + 1, source));
        if length == 0 {
            self.lines.remove(&source);
        } else {
            self.lengths.insert((length, source));
        }
        self.waiting -= 1;
        Some(call)
    }

    /// The sources of which somebody is ready, in the order of their turns.
    pub(super) fn turns(&self) -> impl Iterator<Item = Source> {
        self.turns.values().copied()
    }

    /// The one of this source that has been ready longest, which waits no more. Its next has its turn after those of all
    /// other sources.
    pub(super) fn call(&mut self, source: Source) -> Option<T> {
        let turn = self.number();
        let line = self.lines.get_mut(&source)?;
        let (_, number) = line.ready.first_key_value()?;
        let number = *number;
        if let Some(had) = line.turn.replace(turn) {
            self.turns.remove(&had);
        }
        self.turns.insert(turn, source);
        self.leave(source, number)
    }

    /// Somebody makes room for one more of `newcomer`: of the longest line, where that is longer than its own will be, else
    /// of its own, the one that has said nothing for longest, or waits for longest where all have. `None` where nobody has
    /// to.
    pub(super) fn give_up(&mut self, newcomer: Option<Source>) -> Option<T> {
        let (length, longest) = *self.lengths.last()?;
        let own = newcomer.filter(|source| self.lines.contains_key(source));
        let of_own = own.and_then(|source| self.lines.get(&source));
        let of = match length > of_own.map_or(0, |line| line.all.len()) + 1 {
            true => longest,
            false => own?,
        };
        let line = self.lines.get(&of)?;
        let goes = line.silent.first().or(line.ready.values().next());
        let goes = *goes?;
        self.leave(of, goes)
    }

    /// Whether nothing is remembered.
    #[cfg(test)]
    pub(super) fn is_forgotten(&self) -> bool {
        let nothing = self.lines.is_empty() && self.lengths.is_empty() && self.turns.is_empty();
        nothing && self.waiting == 0
    }
}

#[cfg(test)]
mod tests {
    use std::net::SocketAddr;

    use super::*;

    fn source(number: u8) -> Source {
        Source::of(SocketAddr::from(([10, 0, 0, number], 9)))
    }

    #[test]
    fn sources_have_their_turn_one_after_the_other_and_each_calls_who_spoke_first() {
        let mut lines = Lines::new();
        let mut all = Vec::new();
        for name in ["a1", "a2", "a3", "a4", "b1", "c1", "c2"] {
            let of = source(name.as_bytes()[0]);
            all.push((of, lines.join(of, name)));
        }
        // a4 says nothing, and a2 speaks before a1.
        for at in [1, 0, 2, 4, 5, 6] {
            let (of, number) = all[at];
            lines.is_ready(of, number);
        }
        let mut called = Vec::new();
        loop {
            let next = lines.turns().next();
            let Some(of) = next else { break };
            called.extend(lines.call(of));
        }
        assert_eq!(called, ["a2", "b1", "c1", "a1", "c2", "a3"]);
        assert_eq!(lines.len(), 1);
        assert_eq!(lines.leave(all[3].0, all[3].1), Some("a4"));
        assert!(lines.is_forgotten());
    }

    #[test]
    fn who_has_left_is_not_called_and_holds_nobody_up() {
        let mut lines = Lines::new();
        let (one, other) = (source(1), source(2));
        let numbers = [(one, "x"), (one, "y"), (other, "z")].map(|(of, name)| {
            let number = lines.join(of, name);
            lines.is_ready(of, number);
            number
        });
        assert_eq!(lines.leave(one, numbers[0]), Some("x"));
        assert_eq!(lines.leave(one, numbers[0]), None);
        assert_eq!(lines.call(one), Some("y"));
        assert_eq!(lines.leave(other, numbers[2]), Some("z"));
        assert_eq!(lines.call(other), None);
        assert!(lines.is_forgotten());
    }

    #[test]
    fn the_longest_line_makes_room_by_those_who_say_nothing_first() {
        let mut lines = Lines::new();
        let (crowd, few, newcomer) = (source(1), source(2), source(3));
        let numbers = [0, 1, 2, 3].map(|name| lines.join(crowd, name));
        lines.is_ready(crowd, numbers[2]);
        lines.is_ready(crowd, numbers[0]);
        lines.join(few, 10);
        assert_eq!(lines.give_up(Some(newcomer)), Some(1));
        // For its own as well: who comes may have something to say.
        assert_eq!(lines.give_up(Some(crowd)), Some(3));
        // It would not be longer: its own line.
        assert_eq!(lines.give_up(Some(few)), Some(10));
        assert_eq!(
            lines.give_up(Some(few)),
            Some(2),
            "who spoke first has waited longest"
        );
        assert_eq!(lines.give_up(Some(newcomer)), None, "one each");
        assert_eq!(lines.give_up(None), None);
        assert_eq!(lines.give_up(Some(crowd)), Some(0));
        assert!(lines.is_forgotten());
    }
}
