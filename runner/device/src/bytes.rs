//! Bytes in the host's memory, whoever owns them.

use std::fmt;
use std::ops::{Deref, Range};
use std::sync::Arc;

/// A part of a buffer that others may share: a file's mapping, or memory of its own. Cheap to clone.
#[derive(Clone)]
pub struct Bytes {
    owner: Arc<dyn AsRef<[u8]> + Send + Sync>,
    range: Range<usize>,
}

impl Bytes {
    /// The whole of `owner`.
    pub fn new(owner: impl AsRef<[u8]> + Send + Sync + 'static) -> Bytes {
        let range = 0..owner.as_ref().len();
        Bytes { owner: Arc::new(owner), range }
    }

    /// A part of these bytes; `None` where it does not lie within them.
    pub fn slice(&self, range: Range<usize>) -> Option<Bytes> {
        let start = self.range.start.checked_add(range.start)?;
        let end = self.range.start.checked_add(range.end)?;
        (start <= end && end <= self.range.end).then(|| Bytes { owner: Arc::clone(&self.owner), range: start..end })
    }
}

impl Deref for Bytes {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        &(*self.owner).as_ref()[self.range.clone()]
    }
}

impl From<Vec<u8>> for Bytes {
    fn from(bytes: Vec<u8>) -> Bytes {
        Bytes::new(bytes)
    }
}

impl fmt::Debug for Bytes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Bytes({})", self.len())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_part_stays_within_its_whole() {
        let whole = Bytes::from(vec![0, 1, 2, 3, 4, 5]);
        let part = whole.slice(2..5).unwrap();
        assert_eq!(&*part, [2, 3, 4]);
        assert_eq!(&*part.slice(1..2).unwrap(), [3]);
        assert_eq!(part.slice(3..3).unwrap().len(), 0);
        assert!(part.slice(0..4).is_none());
        assert!(part.slice(1..usize::MAX).is_none());
        #[allow(clippy::reversed_empty_ranges)]
        let backwards = 2..1;
        assert!(part.slice(backwards).is_none());
    }
}
