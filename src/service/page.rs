//! Paging by opaque tokens: the key after which the next page begins, bound to the list it came from.
//!
//! A token is no permission: whoever presents it must be allowed to list, and gets rows of that list only.

use std::collections::VecDeque;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use ring::digest::{SHA256, digest};

use super::Broker;
use crate::domain::refusal::Refusal;
use crate::store::keys::Key;
use crate::store::record::{Record, Stored};

/// What a caller asks for.
#[derive(Clone, Copy, Debug)]
pub struct PageRequest<'a> {
    /// How many at most; 0 for the default.
    pub size: i32,
    /// From the last page; empty for the first.
    pub token: &'a str,
}

/// A page.
#[derive(Clone, Debug)]
pub struct Page<T> {
    /// The rows.
    pub rows: Vec<T>,
    /// Where the next page begins; empty on the last.
    pub next: String,
}

const DEFAULT: usize = 50;
const MAX: usize = 200;
/// How many records one call of a filtered list looks at.
const LOOKED_THROUGH: usize = 2_000;
/// How many bytes of a token say which list it is of.
const TAG: usize = 8;
/// No token is longer, so that none is longer than a key may be.
const MAX_TOKEN: usize = 128;

/// What tells a list from all others.
fn tag(list: &Key) -> [u8; TAG] {
    let mut tag = [0; TAG];
    tag.copy_from_slice(&digest(&SHA256, list.as_bytes()).as_ref()[..TAG]);
    tag
}

impl PageRequest<'_> {
    fn size(&self) -> Result<usize, Refusal> {
        match usize::try_from(self.size) {
            Ok(0) => Ok(DEFAULT),
            Ok(size) => Ok(size.min(MAX)),
            Err(_) => Err(Refusal::invalid("page_size", "page_size is not negative")),
        }
    }

    /// The key to begin after. A token of another list, or of another org's, is refused: its place would mean
    /// nothing here.
    fn after(&self, list: &Key) -> Result<Option<Key>, Refusal> {
        if self.token.is_empty() {
            return Ok(None);
        }
        let decoded = (self.token.len() <= MAX_TOKEN)
            .then(|| URL_SAFE_NO_PAD.decode(self.token).ok())
            .flatten();
        decoded
            .as_deref()
            .and_then(|token| token.strip_prefix(&tag(list)))
            .map(|place| Some(Key::from_bytes([list.as_bytes(), place].concat())))
            .ok_or_else(|| Refusal::invalid("page_token", "page_token is not one this list gave out"))
    }
}

impl Broker {
    /// One page of the records below `list`.
    pub(super) async fn page<T: Record>(
        &self,
        list: &Key,
        request: PageRequest<'_>,
    ) -> Result<Page<Stored<T>>, Refusal> {
        let page = self.page_with_keys(list, request).await?;
        Ok(page.map(|(_, row)| row))
    }

    /// One page of the records below `list`, with their keys.
    pub(super) async fn page_with_keys<T: Record>(
        &self,
        list: &Key,
        request: PageRequest<'_>,
    ) -> Result<Page<(Key, Stored<T>)>, Refusal> {
        let size = request.size()?;
        let after = request.after(list)?;
        let mut rows = self
            .records
            .scan::<T>(list.as_bytes(), after.as_ref(), size + 1)
            .await?;
        let more = rows.len() > size;
        rows.truncate(size);
        let next = match rows.last() {
            Some((key, _)) if more => place_after(list, key),
            _ => String::new(),
        };
        Ok(Page { rows, next })
    }

    /// A search through the records below `list`, for one page of those that are wanted.
    pub(super) fn search<T: Record, U>(
        &self,
        list: Key,
        request: PageRequest<'_>,
    ) -> Result<Search<'_, T, U>, Refusal> {
        Ok(Search {
            size: request.size()?,
            after: request.after(&list)?,
            broker: self,
            list,
            left: LOOKED_THROUGH,
            rows: VecDeque::new(),
            at_end: false,
            taken: Vec::new(),
        })
    }
}

/// A search for one page. At most [`LOOKED_THROUGH`] records are looked at, so that a page may be short, or
/// empty, and have a next one.
pub(super) struct Search<'a, T, U> {
    broker: &'a Broker,
    list: Key,
    size: usize,
    after: Option<Key>,
    left: usize,
    rows: VecDeque<(Key, Stored<T>)>,
    at_end: bool,
    taken: Vec<U>,
}

impl<T: Record, U> Search<'_, T, U> {
    /// The next record to look at; `None`: the page is done.
    pub(super) async fn next(&mut self) -> Result<Option<Stored<T>>, Refusal> {
        if self.taken.len() == self.size {
            return Ok(None);
        }
        if self.rows.is_empty() && !self.at_end && self.left > 0 {
            let records = &self.broker.records;
            let wanted = MAX.min(self.left);
            let rows = records
                .scan::<T>(self.list.as_bytes(), self.after.as_ref(), wanted)
                .await?;
            self.at_end = rows.len() < wanted;
            self.left -= rows.len();
            self.rows = rows.into();
        }
        Ok(self.rows.pop_front().map(|(key, row)| {
            self.after = Some(key);
            row
        }))
    }

    /// Puts what was made of the last record on the page.
    pub(super) fn take(&mut self, row: U) {
        self.taken.push(row);
    }

    /// The page.
    pub(super) fn page(self) -> Page<U> {
        let more = !self.at_end || !self.rows.is_empty();
        let next = self.after.filter(|_| more);
        Page {
            next: next.map(|key| place_after(&self.list, &key)).unwrap_or_default(),
            rows: self.taken,
        }
    }
}

/// The token of the page that begins after `key`.
fn place_after(list: &Key, key: &Key) -> String {
    let place = &key.as_bytes()[list.as_bytes().len()..];
    URL_SAFE_NO_PAD.encode([&tag(list)[..], place].concat())
}

/// One page of a list that is in memory: `names`, in their order, which is that of their bytes.
pub(super) fn page_of<'a>(
    list: &str,
    names: impl Iterator<Item = &'a str>,
    request: PageRequest<'_>,
) -> Result<Page<&'a str>, Refusal> {
    let list = Key::from_bytes(list.as_bytes().to_vec());
    let size = request.size()?;
    let after = request.after(&list)?;
    let place = |key: &'a str| [list.as_bytes(), key.as_bytes()].concat();
    let later = |name: &&'a str| {
        after
            .as_ref()
            .is_none_or(|after| place(name) > after.as_bytes().to_vec())
    };
    let mut rows: Vec<_> = names.filter(later).take(size + 1).collect();
    let more = rows.len() > size;
    rows.truncate(size);
    let next = match rows.last() {
        Some(last) if more => URL_SAFE_NO_PAD.encode([&tag(&list)[..], last.as_bytes()].concat()),
        _ => String::new(),
    };
    Ok(Page { rows, next })
}

impl<T> Page<T> {
    /// The same page with each row turned into something else.
    pub fn map<U>(self, turn: impl FnMut(T) -> U) -> Page<U> {
        Page {
            rows: self.rows.into_iter().map(turn).collect(),
            next: self.next,
        }
    }
}
