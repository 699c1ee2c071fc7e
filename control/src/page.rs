//! Lists come in pages. The token that leads to the next one is opaque to clients: it names its
//! list, so that the token of another list, or one that was made up, is refused.

use data_encoding::BASE64;

use crate::api_error::ApiError;

/// Most items of a page, as AWS bounds it; also what a client gets that does not say.
pub(crate) const MAX_PAGE_ITEMS: usize = 250;
/// Longest item that a token leads on behind, in bytes: with three bytes for each of its base64's it fits into a request's head.
pub(crate) const MAX_TOKEN_ITEM_BYTES: usize = 6_000;
/// Longest token read.
const MAX_TOKEN_BYTES: usize = (MAX_TOKEN_ITEM_BYTES + 100) / 3 * 4;
const VERSION: &str = "1";

/// Which page of which list is asked for.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct PageRequest {
    list: String,
    /// The last item of the page before.
    pub(crate) after: Option<String>,
    /// Most items of this page.
    pub(crate) limit: usize,
}

impl PageRequest {
    /// Reads size and token as a client gave them; `list` tells the list apart from all others.
    pub(crate) fn read(
        list: String,
        size: Option<&str>,
        token: Option<&str>,
    ) -> Result<Self, ApiError> {
        let limit = match size {
            None => MAX_PAGE_ITEMS,
            Some(text) => text
                .parse()
                .ok()
                .filter(|size| (1..=MAX_PAGE_ITEMS).contains(size))
                .ok_or_else(|| {
                    ApiError::invalid(format!("a page has 1 to {MAX_PAGE_ITEMS} items"))
                })?,
        };
        let after = token.map(|token| open_token(&list, token)).transpose()?;
        Ok(Self { list, after, limit })
    }

    /// The token of the page that begins after `last`.
    pub(crate) fn token(&self, last: Option<String>) -> Option<String> {
        last.map(|last| {
            let list = &self.list;
            BASE64.encode(format!("{VERSION}\0{list}\0{last}").as_bytes())
        })
    }
}

fn open_token(list: &str, token: &str) -> Result<String, ApiError> {
    let bad = || {
        ApiError::invalid(
            "the token is not one of this list: pass what the page before gave, or none",
        )
    };
    if token.len() > MAX_TOKEN_BYTES {
        return Err(bad());
    }
    let bytes = BASE64.decode(token.as_bytes()).map_err(|_| bad())?;
    let text = String::from_utf8(bytes).map_err(|_| bad())?;
    let mut parts = text.splitn(3, '\0');
    match (parts.next(), parts.next(), parts.next()) {
        (Some(VERSION), Some(of), Some(last))
            if of == list && !last.is_empty() && !last.contains('\0') =>
        {
            Ok(last.to_owned())
        }
        _ => Err(bad()),
    }
}

#[cfg(test)]
mod tests {
    use super::{MAX_PAGE_ITEMS, PageRequest};

    fn read(list: &str, size: Option<&str>, token: Option<&str>) -> Option<PageRequest> {
        PageRequest::read(list.into(), size, token).ok()
    }

    #[test]
    fn a_token_leads_on_in_its_own_list_only() {
        let first = read("ListThings", None, None).unwrap();
        assert_eq!(first.after, None);
        assert_eq!(first.token(None), None);
        let token = first.token(Some("lamp-9".into())).unwrap();
        let next = read("ListThings", Some("1"), Some(&token)).unwrap();
        assert_eq!((next.after.as_deref(), next.limit), (Some("lamp-9"), 1));
        assert_eq!(read("ListPolicies", None, Some(&token)), None);
    }

    #[test]
    fn sizes_are_bounded() {
        for good in [1, MAX_PAGE_ITEMS] {
            assert!(read("l", Some(&good.to_string()), None).is_some());
        }
        for bad in ["0", "251", "-1", "", "ten", "99999999999999999999"] {
            assert_eq!(read("l", Some(bad), None), None, "{bad}");
        }
    }

    proptest::proptest! {
        #[test]
        fn made_up_tokens_are_refused(token in ".{0,60}") {
            proptest::prop_assert_eq!(read("ListThings", None, Some(&token)), None);
        }

        #[test]
        fn every_name_survives_its_token(name in "[a-zA-Z0-9:_=+,.@-]{1,128}") {
            let token = read("l", None, None).unwrap().token(Some(name.clone())).unwrap();
            proptest::prop_assert_eq!(read("l", None, Some(&token)).unwrap().after, Some(name));
        }
    }
}
