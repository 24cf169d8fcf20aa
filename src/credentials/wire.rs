//! The messages in the pipes between the daemon and the fetch child.
//!
//! Owns the JSON: one object for the request, then one line for each [`Reply`]. Never trusts a
//! child more than a server: it shares its memory with a vendor's module.

use std::path::PathBuf;
use std::time::Duration;

use serde_json::{Map, Value, json};

use super::answer::check_lifetime;
use super::json::{parse_strictly, text};
use super::stage::Stage;
use super::{Credentials, FailureClass, FetchFailure, Grant, LONGEST_WAIT, witness};
use crate::clock::WallTime;
use crate::config::{Identity, Provider, RuntimeDirectory, Settings, is_thing_name};

/// The longest reason of a failure that is believed, in characters.
const MAX_MESSAGE: usize = 1000;

/// The request on the child's standard input. Holds no secret.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct FetchRequest {
    /// Who asks.
    pub identity: Identity,
    /// Who is asked.
    pub provider: Provider,
    /// The file with the server's certificate that passed last: certificates are judged at the
    /// system's clock, but at no time before that one began.
    pub witness: PathBuf,
    /// The file that remembers a refused PIN, on tmpfs.
    pub refused_pin: PathBuf,
    /// How many fetches failed since the last one that did not: each tries the server's addresses
    /// in another order.
    pub failures: usize,
}

impl FetchRequest {
    /// What these settings ask for, after so many failures in a row.
    pub(crate) fn of(settings: &Settings, runtime: &RuntimeDirectory, failures: usize) -> Self {
        Self {
            identity: settings.identity.clone(),
            provider: settings.provider.clone(),
            witness: witness::path(runtime),
            refused_pin: runtime.refused_pin(),
            failures,
        }
    }

    /// The request as one JSON object. Paths travel as text, which those of a configuration are.
    pub fn to_json(&self) -> String {
        json!({
            "identity": {
                "thing_name": self.identity.thing_name,
                "certificate": self.identity.certificate.to_string_lossy(),
                "private_key": self.identity.private_key.to_string(),
            },
            "provider": {
                "endpoint": self.provider.endpoint.to_string(),
                "role_alias": self.provider.role_alias,
                "ca_file": self.provider.ca_file.to_string_lossy(),
            },
            "witness": self.witness.to_string_lossy(),
            "refused_pin": self.refused_pin.to_string_lossy(),
            "failures": self.failures,
        })
        .to_string()
    }

    /// Reads what [`Self::to_json`] wrote.
    ///
    /// # Errors
    /// A sentence that names what is missing or malformed.
    pub fn from_json(request: &[u8]) -> Result<Self, String> {
        let request = parse_strictly(request)?;
        let request = request.as_object().ok_or("it is no object")?;
        let section = |name: &str| {
            let section = request.get(name).and_then(Value::as_object);
            section.ok_or_else(|| format!("it has no object {name:?}"))
        };
        let (identity, provider) = (section("identity")?, section("provider")?);
        Ok(Self {
            identity: Identity {
                thing_name: match identity.get("thing_name") {
                    None | Some(Value::Null) => None,
                    Some(_) => Some(text(identity, "thing_name")?.to_owned()),
                },
                certificate: text(identity, "certificate")?.into(),
                private_key: text(identity, "private_key")?.parse()?,
            },
            provider: Provider {
                endpoint: text(provider, "endpoint")?.parse()?,
                role_alias: text(provider, "role_alias")?.to_owned(),
                ca_file: text(provider, "ca_file")?.into(),
            },
            witness: text(request, "witness")?.into(),
            refused_pin: text(request, "refused_pin")?.into(),
            failures: request
                .get("failures")
                .and_then(Value::as_u64)
                .and_then(|failures| failures.try_into().ok())
                .ok_or("it has no number \"failures\"")?,
        })
    }
}

/// One line of the child's answer. A `Granted` or a `Failed` is the last.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Reply {
    /// Where the child is now.
    Stage(Stage),
    /// It has credentials.
    Granted(Grant),
    /// It has none.
    Failed(FetchFailure),
}

impl Reply {
    /// The longest line that a child of ours writes, in bytes: who reads more is being flooded.
    pub const MAX_LINE: usize = 64 * 1024;

    /// The reply as a line of JSON, newline included. Holds the secrets where it is a grant.
    pub fn to_line(&self) -> String {
        let reply = match self {
            Self::Stage(stage) => json!({ "stage": stage.name() }),
            Self::Granted(grant) => json!({ "grant": {
                "access_key_id": grant.credentials.access_key_id,
                "secret_access_key": grant.credentials.secret_access_key,
                "session_token": grant.credentials.session_token,
                "expiration": grant.expiration.unix(),
                "lifetime": grant.lifetime.as_secs(),
                "server_time": grant.server_time.map(WallTime::unix),
                "thing_name": grant.thing_name,
            } }),
            Self::Failed(failure) => json!({ "failure": {
                "class": failure.class.name(),
                "message": failure.message,
                "retry_after": failure.retry_after.map(|wait| wait.as_secs()),
            } }),
        };
        format!("{reply}\n")
    }

    /// Reads a line that a child wrote, and believes it no more than a server's answer: the child
    /// shares its memory with a vendor's module.
    ///
    /// # Errors
    /// A failure of class `Key` where the line is no reply; it never quotes the line.
    pub fn parse(line: &str) -> Result<Self, FetchFailure> {
        Self::parse_strictly(line).map_err(|why| {
            let message = format!("the fetch child's answer is malformed: {why}");
            FetchFailure::new(FailureClass::Key, message)
        })
    }

    fn parse_strictly(line: &str) -> Result<Self, String> {
        let reply = parse_strictly(line.as_bytes())?;
        let reply = reply.as_object().filter(|object| object.len() == 1);
        let (kind, value) = reply
            .and_then(|o| o.iter().next())
            .ok_or("it is not one member")?;
        match (kind.as_str(), value) {
            ("stage", Value::String(name)) => Stage::ALL
                .into_iter()
                .find(|stage| stage.name() == name)
                .map(Self::Stage)
                .ok_or_else(|| "its stage is unknown".to_owned()),
            ("grant", Value::Object(grant)) => read_grant(grant).map(Self::Granted),
            ("failure", Value::Object(failure)) => read_failure(failure).map(Self::Failed),
            _ => Err("its kind is unknown".to_owned()),
        }
    }
}

fn read_grant(grant: &Map<String, Value>) -> Result<Grant, String> {
    let thing_name = text(grant, "thing_name")?;
    if !is_thing_name(thing_name) {
        return Err("its thing_name is not one".to_owned());
    }
    let lifetime = seconds(grant, "lifetime").ok_or("it has no lifetime")?;
    check_lifetime(lifetime)?;
    Ok(Grant {
        credentials: Credentials::checked(
            text(grant, "access_key_id")?,
            text(grant, "secret_access_key")?,
            text(grant, "session_token")?,
        )?,
        expiration: time(grant, "expiration")?.ok_or("it has no expiration")?,
        lifetime,
        server_time: time(grant, "server_time")?,
        thing_name: thing_name.to_owned(),
    })
}

fn read_failure(failure: &Map<String, Value>) -> Result<FetchFailure, String> {
    let class = text(failure, "class")?;
    let class = FailureClass::ALL.into_iter().find(|c| c.name() == class);
    let message = text(failure, "message")?;
    Ok(FetchFailure {
        class: class.ok_or("its class is unknown")?,
        message: message
            .chars()
            .filter(|c| !c.is_control())
            .take(MAX_MESSAGE)
            .collect(),
        retry_after: seconds(failure, "retry_after").map(|wait| wait.min(LONGEST_WAIT)),
    })
}

/// A time that can be written as a date, which every one that a server tells can.
fn time(object: &Map<String, Value>, name: &str) -> Result<Option<WallTime>, String> {
    match object.get(name) {
        None | Some(Value::Null) => Ok(None),
        Some(time) => match time.as_i64().map(WallTime::from_unix) {
            Some(time) if (WallTime::EPOCH..=WallTime::LAST).contains(&time) => Ok(Some(time)),
            _ => Err(format!("its {name} is not a time")),
        },
    }
}

fn seconds(object: &Map<String, Value>, name: &str) -> Option<Duration> {
    object.get(name)?.as_u64().map(Duration::from_secs)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::PrivateKey;

    fn request() -> FetchRequest {
        FetchRequest {
            identity: Identity {
                thing_name: Some("thing-1".to_owned()),
                certificate: "/data/device \"1\".crt".into(),
                private_key: "pkcs11:token=edge;object=device?module-path=/usr/lib/m.so\
                              &pin-source=file:/run/pin"
                    .parse()
                    .expect("valid"),
            },
            provider: Provider {
                endpoint: "[::1]:8443".parse().expect("valid"),
                role_alias: "edge,repl@=-".to_owned(),
                ca_file: "/usr/share/ca.pem".into(),
            },
            witness: "/var/lib/edgerepl/server.pem".into(),
            refused_pin: "/run/edgerepl/refused-pin".into(),
            failures: 77,
        }
    }

    fn grant() -> Grant {
        Grant {
            credentials: Credentials {
                access_key_id: "ASIAIOSFODNN7EXAMPLE".to_owned(),
                secret_access_key: "wJalrXUtnFEMI/K7MDENG+=".to_owned(),
                session_token: "FwoGZXIvYXdzEEMa//=".to_owned(),
            },
            expiration: WallTime::from_unix(1_675_662_886),
            lifetime: Duration::from_secs(3600),
            server_time: Some(WallTime::from_unix(1_675_659_286)),
            thing_name: "thing-1".to_owned(),
        }
    }

    #[test]
    fn a_request_reads_back_as_it_was() {
        let full = request();
        assert_eq!(
            FetchRequest::from_json(full.to_json().as_bytes()),
            Ok(full.clone())
        );
        let mut bare = full;
        bare.identity.thing_name = None;
        bare.identity.private_key = PrivateKey::Pem("/data/key.pem".into());
        assert_eq!(FetchRequest::from_json(bare.to_json().as_bytes()), Ok(bare));
    }

    #[test]
    fn a_malformed_request_is_named() {
        let good = request().to_json();
        for (from, to, why) in [
            ("{", "", "not JSON"),
            ("\"identity\"", "\"identities\"", "no object \"identity\""),
            (
                "\"thing_name\":\"thing-1\"",
                "\"thing_name\":1",
                "no text \"thing_name\"",
            ),
            (
                "pkcs11:token=edge;object=device",
                "pkcs11:token=edge",
                "names no key",
            ),
            ("[::1]:8443", "[::1]:0", "port"),
            ("77", "-1", "failures"),
            ("\"/var/lib/edgerepl/server.pem\"", "7", "witness"),
        ] {
            assert!(good.contains(from), "{from}");
            let error = FetchRequest::from_json(good.replacen(from, to, 1).as_bytes());
            let error = error.expect_err(why);
            assert!(error.contains(why), "{error}");
        }
        assert!(FetchRequest::from_json(b"").is_err());
    }

    #[test]
    fn replies_read_back_as_they_were() {
        let undated = Grant {
            server_time: None,
            ..grant()
        };
        let mut replies = vec![Reply::Granted(grant()), Reply::Granted(undated)];
        replies.extend(Stage::ALL.map(Reply::Stage));
        for class in FailureClass::ALL {
            for retry_after in [None, Some(Duration::from_secs(7))] {
                let message = "a \"reason\" – with all sorts\\".to_owned();
                replies.push(Reply::Failed(FetchFailure {
                    class,
                    message,
                    retry_after,
                }));
            }
        }
        for reply in replies {
            let line = reply.to_line();
            assert_eq!(line.find('\n'), Some(line.len() - 1));
            assert_eq!(Reply::parse(&line), Ok(reply));
        }
    }

    #[test]
    fn the_longest_grant_fits_a_line() {
        let mut grant = grant();
        grant.credentials.session_token = "/".repeat(16 * 1024);
        assert!(Reply::Granted(grant).to_line().len() <= Reply::MAX_LINE);
    }

    #[test]
    fn believes_no_child_that_talks_nonsense() {
        let good = Reply::Granted(grant()).to_line();
        let with = |from: &str, to: &str| {
            assert!(good.contains(from), "{from}");
            good.replace(from, to)
        };
        for line in [
            String::new(),
            "SoftHSM: could not open the log\n".to_owned(),
            "{}".to_owned(),
            "{\"stage\":\"lunch\"}".to_owned(),
            "{\"stage\":\"key\",\"stage\":\"network\"}".to_owned(),
            "{\"stage\":\"key\",\"grant\":{}}".to_owned(),
            "{\"failure\":{\"class\":\"huge\",\"message\":\"\"}}".to_owned(),
            "{\"failure\":{\"class\":\"key\"}}".to_owned(),
            with("ASIAIOSFODNN7EXAMPLE", "short"),
            with("wJalrXUtnFEMI", "a\\nb"),
            with("FwoGZXIvYXdzEEMa", "$(reboot)"),
            with("thing-1", "../thing"),
            with("3600", "0"),
            with("3600", "999999"),
            with("3600", "-1"),
            with("\"expiration\":1675662886", "\"expiration\":\"soon\""),
            with(
                "\"expiration\":1675662886",
                "\"expiration\":9223372036854775807",
            ),
            with("\"expiration\":1675662886", "\"expiration\":-1"),
            with("1675659286", "253402300800"),
            with("1675659286", "18446744073709551615"),
            with("1675659286", "1e300"),
            with("3600", "18446744073709551615"),
        ] {
            let failure = Reply::parse(&line).expect_err(&line);
            assert_eq!(failure.class, FailureClass::Key);
            assert!(!failure.message.contains("reboot"), "{}", failure.message);
        }
        for wait in ["18446744073709551615", "9223372036854775808", "901"] {
            let line = format!(
                r#"{{"failure":{{"class":"transient","message":"","retry_after":{wait}}}}}"#
            );
            let Ok(Reply::Failed(failure)) = Reply::parse(&line) else {
                panic!("it is a failure");
            };
            assert_eq!(failure.retry_after, Some(LONGEST_WAIT), "{wait}");
        }
        let shouting = Reply::Failed(FetchFailure::new(
            FailureClass::Key,
            format!("a\u{1b}[2J\n{}", "x".repeat(5000)),
        ));
        let Ok(Reply::Failed(failure)) = Reply::parse(&shouting.to_line()) else {
            panic!("it is a failure");
        };
        assert_eq!(failure.message.len(), MAX_MESSAGE);
        assert!(failure.message.starts_with("a[2Jx"));
    }
}
