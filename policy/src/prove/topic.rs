//! The topics that are asked about, read along with the text: with another's name in them, which
//! is any name, or one of a sorted list that is walked as an automaton.

use std::sync::Arc;

use super::search::{Crossed, Moved, Query, Seek, Symbol, is_name_char};

/// Where the topic is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) struct Spot {
    pub(super) which: u16,
    pub(super) at: u16,
    pub(super) inside: Inside,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) enum Inside {
    No,
    /// Any name.
    Any,
    /// Those names, which begin alike for so many bytes.
    Of {
        from: u32,
        to: u32,
        depth: u16,
    },
    /// A `/` behind the topic: only `#` may follow.
    Parent,
}

impl Query<'_> {
    pub(super) fn seek(&self, spot: &Spot) -> Option<Seek> {
        let wanted = self.wanted.get(usize::from(spot.which))?;
        wanted.get(usize::from(spot.at)).copied()
    }

    pub(super) fn rest(&self, spot: &Spot) -> &[Seek] {
        let wanted = self.wanted.get(usize::from(spot.which));
        wanted
            .and_then(|w| w.get(usize::from(spot.at)..))
            .unwrap_or_default()
    }

    pub(super) fn spot_ends(&self, spot: &Spot) -> Option<Crossed> {
        let mut crossed = Crossed::default();
        let mut at = spot.at;
        match spot.inside {
            Inside::Parent => return None,
            Inside::No => {}
            Inside::Any => {
                crossed.left = true;
                at += 1;
            }
            Inside::Of { from, depth, .. } => {
                crossed.other = Some(self.whole(from, depth)?);
                crossed.left = true;
                at += 1;
            }
        }
        let rest = self.rest(&Spot { at, ..*spot });
        let empty = |seek: &Seek| matches!(seek, Seek::Level | Seek::Rest);
        rest.iter().all(empty).then_some(crossed)
    }

    /// The name that is read whole, if it is another's.
    fn whole(&self, from: u32, depth: u16) -> Option<usize> {
        let index = from as usize;
        let name = self.names?.get(index)?;
        (name.len() == usize::from(depth) && self.own != Some(&**name)).then_some(index)
    }

    pub(super) fn move_spot(
        &self,
        spot: &Spot,
        symbol: Symbol,
        first: bool,
        moved: &mut Moved<Spot>,
    ) {
        match symbol {
            Symbol::Char(c) => {
                // A filter's `/#` also reaches what stands before it.
                if self.filter && c == '/' && !first && self.spot_ends(spot).is_some() {
                    let parent = Spot {
                        inside: Inside::Parent,
                        ..*spot
                    };
                    let other = self.spot_ends(spot).and_then(|crossed| crossed.other);
                    let crossed = Crossed {
                        left: spot.inside != Inside::No,
                        entered: false,
                        other,
                    };
                    moved.push((parent, crossed));
                }
                self.read_spot(*spot, c, first, Crossed::default(), moved);
            }
            Symbol::Plus | Symbol::Hash => {
                if spot.inside == Inside::Parent {
                    if symbol == Symbol::Hash {
                        moved.push((*spot, Crossed::default()));
                    }
                    return;
                }
                let rest = self.rest(spot);
                // Wildcards do not reach topics that begin with `$` [MQTT-4.7.2-1].
                if spot.inside != Inside::No || first && rest.first() == Some(&Seek::Char('$')) {
                    return;
                }
                let level = match symbol {
                    Symbol::Plus => {
                        let ends = |seek: &Seek| matches!(seek, Seek::Char('/') | Seek::Rest);
                        rest.iter().position(ends).unwrap_or(rest.len())
                    }
                    _ => rest.len(),
                };
                let passed = rest.get(..level).unwrap_or_default();
                let mut crossed = Crossed::default();
                if passed.contains(&Seek::Other)
                    && let Some(names) = self.names
                {
                    let another = names.iter().position(|name| self.own != Some(&**name));
                    let Some(another) = another else { return };
                    crossed.other = Some(another);
                }
                let at = spot
                    .at
                    .saturating_add(u16::try_from(level).unwrap_or(u16::MAX));
                moved.push((Spot { at, ..*spot }, crossed));
            }
        }
    }

    fn read_spot(
        &self,
        spot: Spot,
        c: char,
        first: bool,
        crossed: Crossed,
        moved: &mut Moved<Spot>,
    ) {
        let behind = Spot {
            at: spot.at + 1,
            inside: Inside::No,
            ..spot
        };
        match spot.inside {
            Inside::Parent => return,
            Inside::Any => {
                if is_name_char(c) {
                    moved.push((spot, crossed));
                }
                let crossed = Crossed {
                    left: true,
                    ..crossed
                };
                return self.read_spot(behind, c, first, crossed, moved);
            }
            Inside::Of { from, to, depth } => {
                self.read_name(spot, (from, to, depth), c, crossed, moved);
                if let Some(index) = self.whole(from, depth) {
                    let crossed = Crossed {
                        left: true,
                        other: Some(index),
                        ..crossed
                    };
                    self.read_spot(behind, c, first, crossed, moved);
                }
                return;
            }
            Inside::No => {}
        }
        match self.seek(&spot) {
            Some(Seek::Char(x)) if x == c => moved.push((behind, crossed)),
            Some(Seek::Level) => {
                if c != '/' && !(first && c == '$') {
                    moved.push((spot, crossed));
                }
                self.read_spot(behind, c, first, crossed, moved);
            }
            Some(Seek::Rest) if !(first && c == '$') => moved.push((spot, crossed)),
            Some(Seek::Other) => {
                let crossed = Crossed {
                    entered: true,
                    ..crossed
                };
                match self.names {
                    None if is_name_char(c) => {
                        let inside = Inside::Any;
                        moved.push((Spot { inside, ..spot }, crossed));
                    }
                    None => {}
                    Some(names) => {
                        let all = u32::try_from(names.len()).unwrap_or(u32::MAX);
                        self.read_name(spot, (0, all, 0), c, crossed, moved);
                    }
                }
            }
            _ => {}
        }
    }

    fn read_name(
        &self,
        spot: Spot,
        (from, to, depth): (u32, u32, u16),
        c: char,
        crossed: Crossed,
        moved: &mut Moved<Spot>,
    ) {
        let Some(names) = self.names else { return };
        let (from, to) = narrow(names, from as usize, to as usize, usize::from(depth), c);
        if from < to
            && let (Ok(from), Ok(to)) = (u32::try_from(from), u32::try_from(to))
        {
            let inside = Inside::Of {
                from,
                to,
                depth: depth + 1,
            };
            moved.push((Spot { inside, ..spot }, crossed));
        }
    }
}

/// Of names in order that are alike for `depth` bytes, those whose next character is `c`.
fn narrow(names: &[Arc<str>], from: usize, to: usize, depth: usize, c: char) -> (usize, usize) {
    let Ok(c) = u8::try_from(c) else {
        return (from, from);
    };
    let range = names.get(from..to).unwrap_or_default();
    let byte = |name: &Arc<str>| name.as_bytes().get(depth).copied();
    let begin = range.partition_point(|name| byte(name) < Some(c));
    let end = range.partition_point(|name| byte(name) <= Some(c));
    (from + begin, from + end)
}

/// The characters that come next in names in order that are alike for `depth` bytes.
pub(super) fn next_chars(names: &[Arc<str>], from: usize, to: usize, depth: usize) -> Vec<char> {
    let mut chars = Vec::new();
    let mut rest = names.get(from..to).unwrap_or_default();
    while let Some(first) = rest.first() {
        let byte = first.as_bytes().get(depth).copied();
        chars.extend(byte.map(char::from));
        let alike = rest.partition_point(|name| name.as_bytes().get(depth).copied() <= byte);
        rest = rest.get(alike..).unwrap_or_default();
    }
    chars
}
