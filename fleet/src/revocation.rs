//! The two faces that revocation shows to the world beside the registry itself: signed lists and OCSP answers. Both
//! are made of the registry's rows when they are asked for, so they cannot lag behind it.

mod lists;
mod responder;
mod sweep;

use crate::{Fleet, FleetError, keys};
use ca::{Authority, CrlShard, CrlShards, IssuerNumber};
use lists::Lists;
use parking_lot::Mutex;
use responder::Responder;
use serde::{Deserialize, Serialize};
use std::{fmt, str::FromStr, sync::Arc};
use store::Stored;
use sweep::Progress;

pub use responder::Staple;
pub use sweep::ListSweeper;

/// Public URLs that lists still answer to; the oldest beyond this are let go of.
const PUBLIC_URLS_KEPT_ITEMS: usize = 16;

/// One of the lists.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum ListName {
    /// Every revoked certificate of the first issuer, as certificates of before there were several lists expect it.
    Whole,
    /// The revoked certificates of an issuer, of a part of the serial numbers.
    Shard(CrlShard),
}

impl fmt::Display for ListName {
    /// The path below the public URL, without a slash at its beginning.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            ListName::Whole => f.write_str("crl/0.crl"),
            ListName::Shard(shard) => shard.fmt(f),
        }
    }
}

impl FromStr for ListName {
    type Err = ();

    fn from_str(path: &str) -> Result<Self, ()> {
        if path == "crl/0.crl" {
            return Ok(ListName::Whole);
        }
        let parts = path
            .strip_prefix("crl/")
            .and_then(|path| path.strip_suffix(".crl"))
            .ok_or(())?;
        let parts: Vec<&str> = parts.split('/').collect();
        let (issuer, count, index) = match parts[..] {
            [count, index] => (IssuerNumber::FIRST, count, index),
            [issuer, count, index] => {
                let issuer = issuer.parse().ok().and_then(IssuerNumber::new);
                (issuer.ok_or(())?, count, index)
            }
            _ => return Err(()),
        };
        let shard = CrlShard::new(count.parse().map_err(drop)?, index.parse().map_err(drop)?);
        let name = ListName::Shard(shard.ok_or(())?.by(issuer));
        // One way to write each: `+8` and `08` are numbers too.
        if name.to_string() == path {
            Ok(name)
        } else {
            Err(())
        }
    }
}

/// Where certificates say that their list is found, ever since the first.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
struct Distribution {
    /// Public URLs, the newest last.
    urls: Vec<String>,
    /// Numbers of lists.
    counts: Vec<u16>,
}

impl Stored for Distribution {}

/// Revocation lists and OCSP. Clones share it. Everything here blocks.
#[derive(Clone)]
pub struct RevocationFaces {
    inner: Arc<Inner>,
}

struct Inner {
    fleet: Fleet,
    urls: Vec<String>,
    counts: Vec<CrlShards>,
    lists: Lists,
    responder: Responder,
    /// Held for a turn.
    sweeping: Mutex<Progress>,
}

impl RevocationFaces {
    /// Opens both faces, and remembers the public URL and the number of lists that new certificates name.
    ///
    /// # Errors
    /// When the store fails.
    pub fn open(fleet: &Fleet) -> Result<Self, FleetError> {
        let authority = fleet.authority();
        let (url, count) = (
            authority.public_url().to_owned(),
            authority.terms().crl_shards.count(),
        );
        let known = fleet.transact(|t| {
            let before: Distribution = t.get(keys::DISTRIBUTION)?.unwrap_or_default();
            let mut known = before.clone();
            known.urls.retain(|one| *one != url);
            known.urls.push(url.clone());
            let surplus = known.urls.len().saturating_sub(PUBLIC_URLS_KEPT_ITEMS);
            known.urls.drain(..surplus);
            if !known.counts.contains(&count) {
                known.counts.push(count);
            }
            if known != before {
                t.put(keys::DISTRIBUTION.to_owned(), &known)?;
            }
            Ok(known)
        })?;
        let counts = known.counts.iter().map(|count| CrlShards::new(*count));
        Ok(RevocationFaces {
            inner: Arc::new(Inner {
                fleet: fleet.clone(),
                urls: known.urls,
                counts: counts.collect::<Result<_, _>>()?,
                lists: Lists::default(),
                responder: Responder::default(),
                sweeping: Mutex::default(),
            }),
        })
    }

    /// Every list that some certificate may name.
    pub fn names(&self) -> impl Iterator<Item = ListName> {
        let issuers = self.authority().issuers().into_iter();
        let shards = issuers.flat_map(|issuer| {
            let shards = self.inner.counts.iter().flat_map(|shards| shards.all());
            shards.map(move |shard| ListName::Shard(shard.by(issuer)))
        });
        std::iter::once(ListName::Whole).chain(shards)
    }

    /// Whether certificates may name such a list.
    fn exists(&self, name: ListName) -> bool {
        match name {
            ListName::Whole => true,
            ListName::Shard(shard) => {
                self.inner.counts.contains(&shard.shards())
                    && self.authority().issuers().contains(&shard.issuer())
            }
        }
    }

    /// The registry they speak of.
    pub fn fleet(&self) -> &Fleet {
        &self.inner.fleet
    }

    fn authority(&self) -> &Authority {
        self.inner.fleet.authority()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lists_by_their_paths() {
        for path in [
            "crl/0.crl",
            "crl/1/0.crl",
            "crl/16/15.crl",
            "crl/256/255.crl",
            "crl/2/16/3.crl",
        ] {
            assert_eq!(path.parse::<ListName>().unwrap().to_string(), path);
        }
        for path in [
            "",
            "0.crl",
            "crl/1.crl",
            "crl/16/16.crl",
            "crl/3/1.crl",
            "crl/1/16/3.crl",
            "crl/0/16/3.crl",
            "crl/02/16/3.crl",
            "crl/2/2/16/3.crl",
            "crl/16/+1.crl",
            "crl/16/01.crl",
            "crl/016/1.crl",
            "crl/512/1.crl",
            "crl/16/1",
            "crl/16/1.crl/",
            "crl/-1/0.crl",
            "crl/99999/0.crl",
        ] {
            assert!(path.parse::<ListName>().is_err(), "{path}");
        }
    }
}
