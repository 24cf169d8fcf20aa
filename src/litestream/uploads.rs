//! What Litestream uploads, as far as it can be told without a request.
//!
//! Owns the lines for that in the usual log of Litestream 0.5: one for each object that S3 has taken with what
//! was compacted, or a snapshot. Its transactions are in no line; its answers number them. Never counts, and
//! knows no request: a large object takes several, and one that failed is in no line.

/// The beginnings of what they say.
const COMPACTED: &str = "msg=\"compaction complete\" ";
const SNAPSHOT: &str = "msg=\"snapshot complete\" ";

/// An object that S3 has taken.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) struct Upload {
    /// The file name of its database.
    pub(crate) name: String,
    /// Its size.
    pub(crate) bytes: u64,
}

/// What was uploaded of a database.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub(crate) struct Uploaded {
    /// Objects.
    pub(crate) uploads: u64,
    /// Their sizes together.
    pub(crate) bytes: u64,
}

impl Uploaded {
    /// More of it.
    pub(crate) fn add(&mut self, more: Self) {
        self.uploads = self.uploads.saturating_add(more.uploads);
        self.bytes = self.bytes.saturating_add(more.bytes);
    }
}

/// Whether a line shows that uploads are in this log: they are of the level INFO, in the form `text`.
pub(crate) fn are_told(line: &str) -> bool {
    line.starts_with("time=") && line.contains(" level=INFO msg=")
}

/// The upload that a line tells of.
pub(crate) fn of_line(line: &str) -> Option<Upload> {
    if !are_told(line) {
        return None;
    }
    let said = [COMPACTED, SNAPSHOT];
    let (_, rest) = said.iter().find_map(|said| line.split_once(said))?;
    Some(Upload {
        name: value(rest, "db=")?,
        bytes: value(rest, "size=")?.parse().ok()?,
    })
}

/// The value of a key, as Go's `slog` writes it: in quotes where it has to.
fn value(rest: &str, key: &str) -> Option<String> {
    let at = match rest.starts_with(key) {
        true => key.len(),
        false => rest.find(&format!(" {key}"))? + 1 + key.len(),
    };
    let value = &rest[at..];
    match value.strip_prefix('"') {
        // JSON's strings are Go's, for all that a file is called.
        Some(_) => serde_json::Deserializer::from_str(value)
            .into_iter::<String>()
            .next()?
            .ok(),
        None => value.split(' ').next().map(str::to_owned),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn upload(name: &str, bytes: u64) -> Option<Upload> {
        let name = name.to_owned();
        Some(Upload { name, bytes })
    }

    #[test]
    fn reads_each_line_that_tells_of_an_upload() {
        let line =
            |rest: &str| of_line(&format!("time=2026-12-01T00:30:00.000Z level=INFO {rest}"));
        let compacted = "msg=\"compaction complete\" system=store db=app.db level=1 \
                         txid.min=0000000000000001 txid.max=0000000000000004 size=1024";
        assert_eq!(line(compacted), upload("app.db", 1024));
        let snapshot = "msg=\"snapshot complete\" system=store db=\"my \\\"app\\\".db\" \
                        txid=0000000000000004 size=20480";
        assert_eq!(line(snapshot), upload("my \"app\".db", 20_480));
        for odd in [
            "",
            "msg=\"ltx file uploaded\" system=store db=app.db replica=s3 level=0 size=391",
            "msg=\"replica sync\" system=store db=app.db txid.replica=1 size=9",
            "msg=\"snapshot complete\" system=store db=app.db txid=4",
            "msg=\"snapshot complete\" system=store size=4",
            "msg=\"snapshot complete\" db=app.db size=-4",
            "msg=\"snapshot complete\" db=app.db size=99999999999999999999",
            "msg=\"snapshot complete\" db=\"app.db size=4",
            "msg=\"snapshot complete\" nodb=app.db resize=4",
        ] {
            assert_eq!(line(odd), None, "{odd}");
        }
        assert_eq!(of_line(compacted), None, "somebody else's line");
    }

    #[test]
    fn knows_a_log_that_tells_of_uploads() {
        assert!(are_told(
            "time=2026-12-01T00:30:00Z level=INFO msg=litestream version=0.5.17"
        ));
        assert!(!are_told(
            "time=2026-12-01T00:30:00Z level=WARN msg=litestream"
        ));
        assert!(!are_told(
            "{\"time\":\"2026\",\"level\":\"INFO\",\"msg\":\"litestream\"}"
        ));
        assert!(!are_told("the application says level=INFO msg=x"));
    }

    #[test]
    fn a_sum_ends_at_the_largest_number() {
        let most = Uploaded {
            uploads: u64::MAX,
            bytes: u64::MAX,
        };
        let mut sum = most;
        sum.add(most);
        assert_eq!(sum, most);
    }
}
