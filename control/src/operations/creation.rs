//! Lists in order of creation, where `isAscendingOrder` asks for one. What is kept is in order of names, so all of a list is
//! looked through for each page, and one page of it is held.

use std::collections::BTreeMap;
use std::time::SystemTime;

use fleet::Page;

use crate::api_error::ApiError;
use crate::call::Call;
use crate::page::PageRequest;

/// Which order is asked for, and which page of it; `None` where it is that of the names.
pub(super) fn asked(call: &Call, scope: &str) -> Result<Option<(bool, PageRequest)>, ApiError> {
    let Some(ascending) = call.query::<bool>("isAscendingOrder")? else {
        return Ok(None);
    };
    let order = if ascending { "oldest" } else { "newest" };
    Ok(Some((ascending, call.page(&format!("{order}/{scope}"))?)))
}

/// One page in order of creation, and where the next begins. `pages` are those of the whole list, in any order; `made` says
/// when an item was made and what tells it from others.
pub(super) fn page<T, E: Into<ApiError>>(
    ascending: bool,
    asked: &PageRequest,
    mut pages: impl FnMut(Option<&str>) -> Result<Page<T>, E>,
    made: impl Fn(&T) -> (SystemTime, String),
) -> Result<Page<T>, ApiError> {
    let mut nearest: BTreeMap<String, T> = BTreeMap::new();
    let mut after: Option<String> = None;
    loop {
        let page = pages(after.as_deref()).map_err(Into::into)?;
        for item in page.items {
            let (at, name) = made(&item);
            let since = at.duration_since(SystemTime::UNIX_EPOCH);
            let nanos = since.map_or(0, |since| since.as_nanos());
            let place = format!("{nanos:032}/{name}");
            let is_behind = match asked.after.as_deref() {
                None => true,
                Some(after) if ascending => place.as_str() > after,
                Some(after) => place.as_str() < after,
            };
            if !is_behind {
                continue;
            }
            nearest.insert(place, item);
            // One more than the page has tells whether there is another.
            if nearest.len() > asked.limit + 1 {
                if ascending {
                    nearest.pop_last();
                } else {
                    nearest.pop_first();
                }
            }
        }
        after = page.next;
        if after.is_none() {
            break;
        }
    }
    let more = nearest.len() > asked.limit;
    let mut ordered: Vec<(String, T)> = nearest.into_iter().collect();
    if !ascending {
        ordered.reverse();
    }
    ordered.truncate(asked.limit);
    let last = ordered.last().map(|(place, _)| place.clone());
    Ok(Page {
        next: last.filter(|_| more),
        items: ordered.into_iter().map(|(_, item)| item).collect(),
    })
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, SystemTime};

    use fleet::Page;

    use super::page;
    use crate::api_error::ApiError;
    use crate::page::PageRequest;

    #[test]
    fn pages_lead_through_all_in_order_of_creation() {
        let list = [("a", 3), ("b", 1), ("c", 2), ("d", 2), ("e", 0)];
        let all = |after: Option<&str>| {
            let from = after.map_or(0, |after| after.parse().unwrap());
            let items = list.iter().skip(from).take(2).copied().collect();
            let next = (from + 2 < list.len()).then(|| (from + 2).to_string());
            Ok::<_, ApiError>(Page { items, next })
        };
        let made = |(name, at): &(&str, u64)| {
            let at = SystemTime::UNIX_EPOCH + Duration::from_secs(*at);
            (at, (*name).to_owned())
        };
        for (ascending, order) in [(true, "ebcda"), (false, "adcbe")] {
            let (mut seen, mut token) = (String::new(), None);
            loop {
                let asked = PageRequest::read("l".into(), Some("2"), token.as_deref()).unwrap();
                let page = page(ascending, &asked, all, made).unwrap();
                assert!(page.items.len() <= 2);
                seen.extend(page.items.iter().map(|(name, _)| *name));
                token = asked.token(page.next);
                if token.is_none() {
                    break;
                }
            }
            assert_eq!(seen, order);
        }
    }
}
