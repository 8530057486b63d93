//! Pages of a listing, and the tokens that lead from one to the next: four bytes, the page's size and number in
//! little endian, as URL-safe base64.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE;

/// One page of a listing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Page {
    /// Entries on a page; never 0.
    limit: u16,
    /// From 1.
    number: u16,
}

/// What is wrong with the tokens of a request; the texts of fleet.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum TokenError {
    #[error("too many values for page token")]
    TooMany,
    #[error("page token is not four bytes in URL-safe base64: {0:?}")]
    Undecodable(String),
    #[error("token limit must be {0}")]
    Limit(u16),
    #[error("page token has no page 0: pages are counted from 1")]
    Zero,
}

impl Page {
    /// The page that a request asks for: the first without a token.
    pub(super) fn asked(tokens: &[String], limit: u16) -> Result<Self, TokenError> {
        assert!(limit > 0, "a page holds something");
        match tokens {
            [] => Ok(Self { limit, number: 1 }),
            [token] if token.is_empty() => Ok(Self { limit, number: 1 }),
            [token] => {
                let page = Self::decode(token)?;
                if page.limit != limit {
                    return Err(TokenError::Limit(limit));
                }
                if page.number == 0 {
                    return Err(TokenError::Zero);
                }
                Ok(page)
            }
            _ => Err(TokenError::TooMany),
        }
    }

    fn decode(token: &str) -> Result<Self, TokenError> {
        let undecodable = || TokenError::Undecodable(token.to_owned());
        let bytes = URL_SAFE.decode(token).map_err(|_| undecodable())?;
        let [a, b, c, d] = bytes[..] else {
            return Err(undecodable());
        };
        Ok(Self {
            limit: u16::from_le_bytes([a, b]),
            number: u16::from_le_bytes([c, d]),
        })
    }

    /// The token that leads here.
    pub(super) fn token(self) -> String {
        let [a, b] = self.limit.to_le_bytes();
        let [c, d] = self.number.to_le_bytes();
        URL_SAFE.encode([a, b, c, d])
    }

    /// The entries of this page, and the next page if there is more.
    pub(super) fn cut<T>(self, all: Vec<T>) -> (Vec<T>, Option<Self>) {
        let limit = usize::from(self.limit);
        let start = (usize::from(self.number) - 1) * limit;
        let has_more = all.len() > start + limit;
        let next = self.number.checked_add(1).filter(|_| has_more);
        let entries = all.into_iter().skip(start).take(limit).collect();
        (entries, next.map(|number| Self { number, ..self }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn asked(tokens: &[&str]) -> Result<Page, TokenError> {
        let tokens: Vec<String> = tokens.iter().map(|token| (*token).to_owned()).collect();
        Page::asked(&tokens, 100)
    }

    #[test]
    fn tokens_are_those_of_fleet() {
        let page = Page {
            limit: 100,
            number: 2,
        };
        assert_eq!(page.token(), "ZAACAA==");
        assert_eq!(asked(&["ZAACAA=="]), Ok(page));
        assert_eq!(
            asked(&[]),
            Ok(Page {
                limit: 100,
                number: 1
            })
        );
    }

    #[test]
    fn bad_tokens_say_what_is_wrong() {
        // From fleet's functional tests: limit 19, page 11852.
        assert_eq!(asked(&["EwBMLg=="]), Err(TokenError::Limit(100)));
        assert_eq!(asked(&["ZAAAAA=="]), Err(TokenError::Zero));
        assert_eq!(asked(&["ZAACAA==", "ZAACAA=="]), Err(TokenError::TooMany));
        for token in ["ZAAC", "ZAACAA", "ZAACAAAA", "!!", "ZAA+/A=="] {
            assert!(
                matches!(
                    asked(&[token]),
                    Err(TokenError::Undecodable(_) | TokenError::Limit(_))
                ),
                "{token}"
            );
        }
    }

    #[test]
    fn following_the_tokens_gives_everything_once() {
        for count in [0_usize, 1, 99, 100, 101, 200, 250] {
            let (mut seen, mut tokens) = (Vec::new(), Vec::new());
            loop {
                let page = Page::asked(&tokens, 100).unwrap();
                let (entries, next) = page.cut((0..count).collect());
                seen.extend(entries);
                let Some(next) = next else { break };
                tokens = vec![next.token()];
            }
            assert_eq!(seen, (0..count).collect::<Vec<_>>(), "of {count}");
        }
    }

    #[test]
    fn a_page_beyond_the_end_is_empty() {
        let page = Page {
            limit: 100,
            number: u16::MAX,
        };
        assert_eq!(page.cut(vec![1, 2]), (Vec::new(), None));
    }
}
