//! Pages of lists that are short by nature (a bound of the registry) and come whole.

use std::fmt::Display;

use crate::page::PageRequest;

/// The page asked for of `items`, which are in order of their text, and where the next begins.
pub(super) fn page_of<T: Display>(items: Vec<T>, asked: &PageRequest) -> (Vec<T>, Option<String>) {
    let after = asked.after.as_deref();
    let mut rest = items
        .into_iter()
        .filter(|item| after.is_none_or(|after| item.to_string().as_str() > after));
    let page: Vec<T> = rest.by_ref().take(asked.limit).collect();
    let next = match rest.next() {
        Some(_) => page.last().map(ToString::to_string),
        None => None,
    };
    (page, next)
}

#[cfg(test)]
mod tests {
    use super::page_of;
    use crate::page::PageRequest;

    #[test]
    fn pages_together_are_the_whole_list() {
        let all: Vec<String> = ["a", "b", "c", "d", "e"].map(String::from).to_vec();
        let (mut seen, mut token) = (Vec::new(), None);
        loop {
            let asked = PageRequest::read("l".into(), Some("2"), token.as_deref()).unwrap();
            let (page, next) = page_of(all.clone(), &asked);
            assert!(page.len() <= 2);
            seen.extend(page);
            token = asked.token(next);
            if token.is_none() {
                break;
            }
        }
        assert_eq!(seen, all);
    }
}
