//! The first and last lines of PEM blocks.
//!
//! Owns one rule: each stands alone on its line, and they come in pairs. PEM readers silently skip
//! a block that breaks the rule, and a certificate is lost: the second one if two files were joined
//! without a newline, the first one after a byte order mark. Never looks into a block.

/// Whether all markers in `pem` are sound.
///
/// # Errors
/// The end of a sentence that begins with the file: which line, which block, and what is wrong.
pub(super) fn check(pem: &[u8]) -> Result<(), String> {
    let mut open: Option<(usize, &[u8])> = None;
    let mut blocks = 0;
    for (number, line) in (1..).zip(pem.split(|byte| *byte == b'\n')) {
        let line = line.trim_ascii_end();
        if !holds_marker(line) {
            continue;
        }
        let odd = |what: &str| {
            Err(format!(
                "line {number} (of PEM block {}): {what}",
                blocks + 1
            ))
        };
        match (marker(line), open) {
            (Some((true, label)), None) => open = Some((number, label)),
            (Some((false, label)), Some((_, begun))) if label == begun => {
                open = None;
                blocks += 1;
            }
            (Some((true, _)), Some((begun, _))) => {
                return odd(&format!(
                    "a block begins, and the one of line {begun} has no end"
                ));
            }
            (Some((false, _)), _) => return odd("this END belongs to no BEGIN"),
            (None, _) if line.starts_with(b"\xef\xbb\xbf") => {
                return odd("there is a byte order mark before the BEGIN: remove it");
            }
            (None, _) => {
                return odd(
                    "a BEGIN or END marker does not stand alone on its line: put a newline before \
                     and after it",
                );
            }
        }
    }
    match open {
        Some((begun, _)) => Err(format!(
            "it is cut short: the PEM block of line {begun} has no end"
        )),
        None => Ok(()),
    }
}

/// Whether this is meant for a marker, by the words or by the dashes.
fn holds_marker(line: &[u8]) -> bool {
    let upper = line.to_ascii_uppercase();
    let has = |word: &[u8]| upper.windows(word.len()).any(|window| window == word);
    let dashed = upper.first() == Some(&b'-') && (has(b"BEGIN ") || has(b"END "));
    dashed || has(b"--BEGIN") || has(b"--END") || has(b"-----")
}

/// Whether a sound marker begins a block, and its label.
fn marker(line: &[u8]) -> Option<(bool, &[u8])> {
    let words = line.strip_prefix(b"-----")?.strip_suffix(b"-----")?;
    let (begins, label) = match words.strip_prefix(b"BEGIN ") {
        Some(label) => (true, label),
        None => (false, words.strip_prefix(b"END ")?),
    };
    let fits = |b: &u8| b.is_ascii_uppercase() || b.is_ascii_digit() || b" #".contains(b);
    (!label.is_empty() && label.iter().all(fits)).then_some((begins, label))
}

#[cfg(test)]
mod tests {
    use super::*;

    const ONE: &str = "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n";

    #[test]
    fn sound_files_pass() {
        for pem in [
            ONE.to_owned(),
            format!("{ONE}{ONE}"),
            format!("# a comment - with dashes --\n{ONE}\n\nsubject=x\n{ONE}"),
            format!("\u{feff}# a comment\n{ONE}"),
            ONE.replace('\n', "\r\n"),
            ONE.replace('\n', " \n"),
            ONE.trim_end().to_owned(),
            ONE.replace("CERTIFICATE", "RSA PRIVATE KEY") + ONE,
            "no PEM at all".to_owned(),
            String::new(),
        ] {
            assert_eq!(check(pem.as_bytes()), Ok(()), "{pem:?}");
        }
    }

    #[test]
    fn a_marker_that_does_not_stand_alone_is_named_by_its_line() {
        let joined = format!("{ONE}{}{ONE}", ONE.trim_end());
        for (pem, why) in [
            (
                joined.as_str(),
                "line 6 (of PEM block 2): a BEGIN or END marker does not stand alone",
            ),
            (
                &format!("\u{feff}{ONE}"),
                "line 1 (of PEM block 1): there is a byte order mark",
            ),
            (
                &format!("{ONE}\u{feff}{ONE}"),
                "line 4 (of PEM block 2): there is a byte order mark",
            ),
            (&format!(" {ONE}"), "line 1 "),
            (&format!("# {ONE}"), "line 1 "),
            (&format!("{ONE}x{ONE}"), "line 4 "),
            (&ONE.replace("\nAAAA", "AAAA"), "line 1 "),
            (&ONE.replace("AAAA\n", "AAAA"), "line 2 "),
            (&ONE.replace("-----BEGIN", "----BEGIN"), "line 1 "),
            (&ONE.replace("-----BEGIN", "------BEGIN"), "line 1 "),
            (&ONE.replace("-----BEGIN", "- BEGIN"), "line 1 "),
            (&ONE.replace("-----BEGIN", "-----begin"), "line 1 "),
            (&ONE.replace("-----END", "-----ENDE"), "line 3 "),
            (&ONE.replace('\n', "\r"), "line 1 "),
            (
                &ONE.replace("END CERTIFICATE", "END PRIVATE KEY"),
                "belongs to no BEGIN",
            ),
            (
                &ONE.replace("-----END CERTIFICATE-----\n", ONE),
                "the one of line 1 has no end",
            ),
            ("-----END CERTIFICATE-----\n", "belongs to no BEGIN"),
            (&ONE[..40], "line 3 "),
            (
                &ONE[..30],
                "it is cut short: the PEM block of line 1 has no end",
            ),
        ] {
            let found = check(pem.as_bytes()).expect_err(pem);
            assert!(found.contains(why), "{pem:?}: {found}");
        }
    }
}
