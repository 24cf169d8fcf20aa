//! PKCS#11 URIs (RFC 7512): the subset that names one private key on an unattended device.
//!
//! Owns the text form. A [`Pkcs11Uri`] names a module and at least one property of the key, and
//! never holds a PIN. Refuses what RFC 7512 allows a consumer to ignore if it is likely to be a
//! typing error: a configuration that is only half understood is worse than none.

use std::ffi::OsStr;
use std::fmt;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::str::FromStr;

/// The scheme, with its colon.
pub(super) const SCHEME: &str = "pkcs11:";

/// Where a private key is: which module, which token, which object.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Pkcs11Uri {
    /// `token`: the token's label.
    pub token: Option<String>,
    /// `serial`: the token's serial number.
    pub serial: Option<String>,
    /// `manufacturer`: the token's manufacturer.
    pub manufacturer: Option<String>,
    /// `model`: the token's model.
    pub model: Option<String>,
    /// `object`: the key's label (CKA_LABEL). Here or in `id` there is something.
    pub object: Option<String>,
    /// `id`: the key's CKA_ID, any bytes.
    pub id: Option<Vec<u8>>,
    /// `module-path`: the shared library, absolute.
    pub module_path: PathBuf,
    /// `pin-source`: the file that holds the PIN, absolute; `None` for a token without login.
    pub pin_source: Option<PathBuf>,
}

impl FromStr for Pkcs11Uri {
    type Err = String;

    /// Each error is one sentence without any attribute's value: one of them might be a PIN.
    fn from_str(text: &str) -> Result<Self, String> {
        let rest = match text.split_at_checked(SCHEME.len()) {
            Some((scheme, rest)) if scheme.eq_ignore_ascii_case(SCHEME) => rest,
            _ => return Err(format!("a PKCS#11 URI begins with {SCHEME:?}")),
        };
        if rest.chars().any(|c| !c.is_ascii_graphic() || c == '#') {
            let why = "the PKCS#11 URI holds a blank or another character that has to be %-escaped";
            return Err(why.to_owned());
        }
        let (path, query) = rest.split_once('?').unwrap_or((rest, ""));

        let mut path = Attributes::parse(path, ';')?;
        let token = path.text("token")?;
        let serial = path.text("serial")?;
        let manufacturer = path.text("manufacturer")?;
        let model = path.text("model")?;
        let object = path.text("object")?;
        let id = path.bytes("id");
        if path.text("type")?.is_some_and(|t| t != "private") {
            return Err(
                "the PKCS#11 URI's type must be private: edgerepl needs the private key".to_owned(),
            );
        }
        if let Some(name) = path.rest() {
            return Err(match name {
                "slot-id" => "the PKCS#11 URI names a slot-id, which may change at any boot: name \
                    the token or its serial instead"
                    .to_owned(),
                "slot-description"
                | "slot-manufacturer"
                | "library-description"
                | "library-manufacturer"
                | "library-version" => format!(
                    "the PKCS#11 URI's {name} is not used to find a key: name the token or its \
                     serial instead"
                ),
                name if is_pin(name) => PIN_IN_URI.to_owned(),
                name => format!("the PKCS#11 URI's path has {}", unknown(name)),
            });
        }
        if object.is_none() && id.is_none() {
            return Err("the PKCS#11 URI names no key: it needs object or id".to_owned());
        }

        let mut query = Attributes::parse(query, '&')?;
        if query.0.iter().any(|(name, _)| is_pin(name)) {
            return Err(PIN_IN_URI.to_owned());
        }
        if query.bytes("module-name").is_some() {
            return Err(
                "the PKCS#11 URI's module-name depends on where a system keeps its \
                modules: name the file with module-path=/path"
                    .to_owned(),
            );
        }
        let module_path = query.path("module-path")?.ok_or(
            "the PKCS#11 URI names no module: it needs ?module-path=/path/of/the/module.so",
        )?;
        let pin_source = query.path("pin-source")?;
        query.0.retain(|(name, _)| !name.starts_with("x-"));
        if let Some(name) = query.rest() {
            return Err(format!("the PKCS#11 URI's query has {}", unknown(name)));
        }
        Ok(Self {
            token,
            serial,
            manufacturer,
            model,
            object,
            id,
            module_path,
            pin_source,
        })
    }
}

/// Writes the canonical form, which reads back as the same.
impl fmt::Display for Pkcs11Uri {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(SCHEME)?;
        for (name, value) in [
            ("token", self.token.as_deref().map(str::as_bytes)),
            ("serial", self.serial.as_deref().map(str::as_bytes)),
            (
                "manufacturer",
                self.manufacturer.as_deref().map(str::as_bytes),
            ),
            ("model", self.model.as_deref().map(str::as_bytes)),
            ("object", self.object.as_deref().map(str::as_bytes)),
        ] {
            if let Some(value) = value {
                write!(f, "{name}={};", Escaped(value))?;
            }
        }
        if let Some(id) = &self.id {
            f.write_str("id=")?;
            id.iter().try_for_each(|byte| write!(f, "%{byte:02X}"))?;
            f.write_str(";")?;
        }
        write!(
            f,
            "type=private?module-path={}",
            escaped_path(&self.module_path)
        )?;
        if let Some(path) = &self.pin_source {
            write!(f, "&pin-source=file:{}", escaped_path(path))?;
        }
        Ok(())
    }
}

/// The attributes that have a name here, or a reason of their own why they have none.
const NAMES: [&str; 17] = [
    "token",
    "serial",
    "manufacturer",
    "model",
    "object",
    "id",
    "type",
    "slot-id",
    "slot-description",
    "slot-manufacturer",
    "library-description",
    "library-manufacturer",
    "library-version",
    "module-path",
    "module-name",
    "pin-source",
    "pin-value",
];

const PIN_IN_URI: &str = "the PKCS#11 URI holds a PIN, as it seems, and a configuration is no \
                          place for one: put it into a file and name that with \
                          pin-source=file:/path";

/// Whether an attribute is meant to hold a PIN, by what people call it.
fn is_pin(name: &str) -> bool {
    name != "pin-source" && name.to_ascii_lowercase().contains("pin")
}

/// An attribute in a message. A name that is none may be a part of a PIN, and is not quoted.
fn named(name: &str) -> &'static str {
    let known = NAMES.into_iter().find(|known| *known == name);
    known.unwrap_or("attribute of an unknown name")
}

fn unknown(name: &str) -> String {
    let lower = name.to_ascii_lowercase().replace('_', "-");
    let meant = NAMES.into_iter().find(|known| {
        let length = known.len().abs_diff(lower.len());
        let same = known.chars().filter(|c| lower.contains(*c)).count();
        length <= 2 && same + 1 >= known.len()
    });
    let hint = meant.map_or(String::new(), |known| format!(": is {known:?} meant?"));
    format!("an attribute of an unknown name{hint}")
}

/// The attributes of one component, decoded, of which each may be taken once.
struct Attributes<'a>(Vec<(&'a str, Vec<u8>)>);

impl<'a> Attributes<'a> {
    fn parse(component: &'a str, separator: char) -> Result<Self, String> {
        let mut found: Vec<(&str, Vec<u8>)> = Vec::new();
        let pieces = component.split(separator);
        for piece in pieces.filter(|_| !component.is_empty()) {
            let (name, value) = piece
                .split_once('=')
                .filter(|(name, _)| !name.is_empty())
                .ok_or("the PKCS#11 URI has an attribute that is not name=value")?;
            if found.iter().any(|(other, _)| *other == name) {
                return Err(format!("the PKCS#11 URI gives {} twice", named(name)));
            }
            let value = unescape(value)
                .ok_or_else(|| format!("the PKCS#11 URI's {} has a bad %-escape", named(name)))?;
            if value.is_empty() {
                return Err(format!("the PKCS#11 URI's {} is empty", named(name)));
            }
            found.push((name, value));
        }
        Ok(Self(found))
    }

    fn bytes(&mut self, name: &str) -> Option<Vec<u8>> {
        let at = self.0.iter().position(|(other, _)| *other == name);
        at.map(|at| self.0.swap_remove(at).1)
    }

    fn text(&mut self, name: &str) -> Result<Option<String>, String> {
        let Some(bytes) = self.bytes(name) else {
            return Ok(None);
        };
        match String::from_utf8(bytes) {
            Ok(text) if !text.contains('\0') => Ok(Some(text)),
            _ => Err(format!("the PKCS#11 URI's {name} is not text")),
        }
    }

    fn path(&mut self, name: &str) -> Result<Option<PathBuf>, String> {
        let Some(bytes) = self.bytes(name) else {
            return Ok(None);
        };
        let bare = match bytes.strip_prefix(b"file:") {
            // file:///path, file://localhost/path, and file:/path as RFC 7512 itself writes it.
            Some(path) => match path.strip_prefix(b"//") {
                Some(path) => path.strip_prefix(b"localhost").unwrap_or(path),
                None => path,
            },
            None => &bytes,
        };
        let path = Path::new(OsStr::from_bytes(bare));
        if !path.is_absolute() || bare.contains(&0) {
            return Err(format!("the PKCS#11 URI's {name} must be an absolute path"));
        }
        // Without what means nothing: a "//" at its begin would read as a host.
        Ok(Some(path.components().collect()))
    }

    /// The name of one that nobody took.
    fn rest(&self) -> Option<&'a str> {
        self.0.first().map(|(name, _)| *name)
    }
}

fn unescape(text: &str) -> Option<Vec<u8>> {
    let mut bytes = text.bytes();
    let mut plain = Vec::with_capacity(text.len());
    while let Some(byte) = bytes.next() {
        plain.push(match byte {
            b'%' => {
                let mut digit = || char::from(bytes.next()?).to_digit(16);
                u8::try_from(digit()? << 4 | digit()?).ok()?
            }
            other => other,
        });
    }
    Some(plain)
}

fn escaped_path(path: &Path) -> Escaped<'_> {
    Escaped(path.as_os_str().as_bytes())
}

/// Shows bytes with all but RFC 3986's unreserved characters and the slash escaped.
struct Escaped<'a>(&'a [u8]);

impl fmt::Display for Escaped<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for byte in self.0 {
            match byte {
                b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' | b'/' => {
                    write!(f, "{}", char::from(*byte))?;
                }
                other => write!(f, "%{other:02X}")?,
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MODULE: &str = "module-path=/usr/lib/m.so";

    fn parse(path: &str, query: &str) -> Result<Pkcs11Uri, String> {
        format!("pkcs11:{path}?{query}").parse()
    }

    #[test]
    fn reads_what_a_device_needs() {
        let text = "pkcs11:token=edge%20one;object=device;id=%00%01;type=private?\
                    module-path=/usr/lib/libcryptoauth.so&pin-source=file:/run/edgerepl/pin";
        let uri: Pkcs11Uri = text.parse().expect("valid");
        assert_eq!(uri.token.as_deref(), Some("edge one"));
        assert_eq!(uri.object.as_deref(), Some("device"));
        assert_eq!(uri.id.as_deref(), Some(&[0, 1][..]));
        assert_eq!(uri.module_path, Path::new("/usr/lib/libcryptoauth.so"));
        assert_eq!(
            uri.pin_source.as_deref(),
            Some(Path::new("/run/edgerepl/pin"))
        );
        assert_eq!(uri.to_string(), text);
    }

    #[test]
    fn reads_back_what_it_writes() {
        for (path, query) in [
            ("object=device", ""),
            (
                "id=%ff%00;serial=0123;manufacturer=SoftHSM%20project;model=v2",
                "",
            ),
            ("token=a%3bb%3Fc%25d&e;object=%e9%8d%b5", ""),
            ("type=private;object=o", "&pin-source=/run/p%20in"),
            ("object=o", "&pin-source=file:///run/pin&x-vendor=1"),
        ] {
            let uri = parse(path, &format!("{MODULE}{query}")).expect(path);
            let text = uri.to_string();
            assert_eq!(text.parse(), Ok(uri), "{text}");
        }
        assert_eq!(
            parse("object=o", MODULE),
            "PKCS11:object=o?module-path=/usr/lib/m.so".parse()
        );
    }

    #[test]
    fn whatever_is_accepted_reads_back_equal() {
        let pieces = [
            "/",
            "//",
            "/./",
            "/../",
            "pin",
            "run",
            "file:",
            "file://",
            "localhost",
            "host",
            "%2F",
            "%66",
            "%",
            "%00",
            "%ff",
            "%e9%8d%b5",
            "~",
            "a.b",
            ".",
            "&",
            ";",
            "=",
            "?",
            ":",
            "|",
            "x-y=1",
            "FILE:",
        ];
        let mut chance = 7_u64;
        let mut pick = |most: usize| -> usize {
            chance = chance
                .wrapping_mul(6_364_136_223_846_793_005)
                .wrapping_add(1);
            usize::try_from(chance >> 33).expect("31 bits") % most
        };
        let mut accepted = 0;
        for _ in 0..200_000 {
            let count = pick(6);
            let value: String = (0..=count).map(|_| pieces[pick(pieces.len())]).collect();
            for text in [
                format!("pkcs11:object=o?module-path=/m.so&pin-source={value}"),
                format!("pkcs11:object=o?module-path={value}"),
                format!("pkcs11:object={value}?module-path=/m.so"),
                format!("pkcs11:id={value};token=t?module-path=/m.so"),
            ] {
                if let Ok(uri) = text.parse::<Pkcs11Uri>() {
                    accepted += 1;
                    let canonical = uri.to_string();
                    assert_eq!(canonical.parse(), Ok(uri), "{text} as {canonical}");
                    let again = canonical.parse::<Pkcs11Uri>().expect("valid").to_string();
                    assert_eq!(again, canonical, "{text}");
                }
            }
        }
        assert!(accepted > 10_000, "{accepted} were accepted");
    }

    #[test]
    fn a_pin_source_is_one_path_however_it_is_written() {
        let of = |source: &str| parse("object=o", &format!("{MODULE}&pin-source={source}"));
        for source in [
            "/run/pin",
            "//run/pin",
            "/run//pin",
            "/run/./pin",
            "/./run/pin",
            "/run/pin/",
            "/%72un/pin",
            "file:/run/pin",
            "file:///run/pin",
            "file:////run/pin",
            "file://localhost/run/pin",
            "file:%2Frun%2fpin",
            "file:/run/pin/.",
        ] {
            let uri = of(source).expect(source);
            assert_eq!(uri.pin_source.as_deref(), Some(Path::new("/run/pin")));
            let text = uri.to_string();
            assert!(text.ends_with("&pin-source=file:/run/pin"), "{text}");
            assert_eq!(text.parse(), Ok(uri), "{source}");
        }
        for source in ["file://host/run/pin", "file://localhostrun/pin", "file:"] {
            let error = of(source).expect_err(source);
            assert!(
                error.contains("pin-source must be an absolute path"),
                "{error}"
            );
        }
    }

    #[test]
    fn names_what_is_wrong() {
        for (path, query, why) in [
            ("", MODULE, "names no key"),
            ("token=edge", MODULE, "names no key"),
            ("object=o", "", "names no module"),
            (
                "object=o",
                "module-path=m.so",
                "module-path must be an absolute path",
            ),
            (
                "object=o",
                "module-path=/m%00.so",
                "module-path must be an absolute path",
            ),
            ("object=o", "module-name=softhsm2", "module-name depends"),
            (
                "object=o",
                &format!("{MODULE}&pin-value=hunter2"),
                "pin-source=file:/path",
            ),
            (
                "object=o",
                &format!("{MODULE}&pin_value=hunter2"),
                "holds a PIN",
            ),
            (
                "object=o",
                &format!("{MODULE}&pin-source=|cat"),
                "pin-source must be an absolute",
            ),
            (
                "object=o",
                &format!("{MODULE}&pin-source=file:pin"),
                "pin-source must be an absolute",
            ),
            (
                "object=o",
                &format!("{MODULE}&{MODULE}"),
                "module-path twice",
            ),
            ("object=o;object=p", MODULE, "object twice"),
            ("object=o;hunter2=p;hunter2=p", MODULE, "twice"),
            ("object=o;hunter2=%zz", MODULE, "bad %-escape"),
            ("object=o;hunter2=", MODULE, "is empty"),
            ("object=o;hunter2", MODULE, "not name=value"),
            ("object=o;pin-value=hunter2", MODULE, "holds a PIN"),
            ("object=o;PIN=hunter2", MODULE, "holds a PIN"),
            ("object=o;hunter2=1", MODULE, "an unknown name"),
            ("object=o;", MODULE, "not name=value"),
            ("object=o;token", MODULE, "not name=value"),
            ("object=o;=x", MODULE, "not name=value"),
            ("object=o;token=", MODULE, "token is empty"),
            ("object=%2", MODULE, "object has a bad %-escape"),
            ("object=%zz", MODULE, "object has a bad %-escape"),
            ("object=%+1", MODULE, "object has a bad %-escape"),
            ("object=a%00b", MODULE, "object is not text"),
            ("object=%ff", MODULE, "object is not text"),
            ("object=a b", MODULE, "%-escaped"),
            ("object=鍵", MODULE, "%-escaped"),
            ("object=o;type=public", MODULE, "type must be private"),
            ("object=o;slot-id=0", MODULE, "slot-id"),
            (
                "object=o;library-version=3",
                MODULE,
                "library-version is not used",
            ),
            (
                "object=o;x-vendor=1",
                MODULE,
                "an attribute of an unknown name",
            ),
            ("object=o;tokn=edge", MODULE, "is \"token\" meant?"),
        ] {
            let error = parse(path, query).expect_err(path);
            assert!(error.contains(why), "{path}?{query}: {error}");
            assert!(!error.contains("hunter2"), "{error}");
        }
    }
}
