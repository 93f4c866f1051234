//! Parses `Content-Range`: which part of a blob a response contains (RFC 9110 §14.4).

/// `bytes start-end/total`; a total of `*` is unknown (RFC 9110 §14.4).
pub(super) struct ContentRange {
    pub start: u64,
    pub end: u64,
    pub total: Option<u64>,
}

impl ContentRange {
    pub fn parse(header: &str) -> Option<ContentRange> {
        let (range, total) = header.trim().strip_prefix("bytes")?.trim_start().split_once('/')?;
        let (start, end) = range.split_once('-')?;
        let total = match total.trim() {
            "*" => None,
            total => Some(total.parse().ok()?),
        };
        Some(ContentRange { start: start.trim().parse().ok()?, end: end.trim().parse().ok()?, total })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn content_range_is_read_strictly() {
        let read = |header| ContentRange::parse(header).map(|range| (range.start, range.end, range.total));
        assert_eq!(read("bytes 5-9/10"), Some((5, 9, Some(10))));
        assert_eq!(read("bytes 5-9/*"), Some((5, 9, None)));
        for header in ["", "bytes", "bytes 5-9", "bytes */10", "bytes -9/10", "items 5-9/10", "bytes 5-9/x"] {
            assert_eq!(read(header), None, "{header}");
        }
    }
}
