//! The credentials that exist in the lab: what the provider issued, and when each set ends. The
//! provider writes this table and S3 reads it; neither knows the other.

use std::time::{Duration, Instant, SystemTime};

use base64::{Engine, prelude::BASE64_STANDARD};
use ring::rand::{SecureRandom, SystemRandom};
use time::{OffsetDateTime, format_description::well_known::Rfc3339};

use crate::sync::Shared;

/// The region that requests are signed for.
pub(crate) const REGION: &str = "us-east-1";

/// One set of AWS credentials, and what the lab knows about it.
#[derive(Clone, Debug)]
pub struct Session {
    /// `ASIA…` for a session, `AKIA…` for the lab's own that never ends; 20 characters.
    pub access_key_id: String,
    /// 40 characters, with `/` and `+` among them, which a careless quoting breaks.
    pub secret_access_key: String,
    /// `None` for the lab's own credentials.
    pub session_token: Option<String>,
    /// The thing that the session was issued to.
    pub thing_name: String,
    /// When it was issued.
    pub issued_at: Instant,
    /// From this moment S3 answers `ExpiredToken`; `None` means never.
    pub expires_at: Option<Instant>,
    /// The end as it was told to the client, by the provider's clock.
    pub expiration: String,
}

impl Session {
    /// The variables with which Litestream and every AWS SDK take these credentials.
    pub fn env(&self) -> Vec<(String, String)> {
        let mut env = vec![
            ("AWS_ACCESS_KEY_ID".to_owned(), self.access_key_id.clone()),
            (
                "AWS_SECRET_ACCESS_KEY".to_owned(),
                self.secret_access_key.clone(),
            ),
            ("AWS_REGION".to_owned(), REGION.to_owned()),
            ("AWS_EC2_METADATA_DISABLED".to_owned(), "true".to_owned()),
        ];
        if let Some(token) = &self.session_token {
            env.push(("AWS_SESSION_TOKEN".to_owned(), token.clone()));
        }
        env
    }

    /// Whether S3 still takes it at `now`.
    pub fn is_alive(&self, now: Instant) -> bool {
        self.expires_at.is_none_or(|end| now < end)
    }

    /// The credential provider's answer for this session.
    pub(crate) fn to_json(&self) -> String {
        serde_json::json!({ "credentials": {
            "accessKeyId": self.access_key_id,
            "secretAccessKey": self.secret_access_key,
            "sessionToken": self.session_token,
            "expiration": self.expiration,
        }})
        .to_string()
    }
}

/// Every session of one lab, in the order of issue. There are never so many that a search hurts.
#[derive(Default)]
pub(crate) struct Sessions(Shared<Vec<Session>>);

impl Sessions {
    /// A new session. `provider_clock` is what the provider believes the time to be; the end that
    /// S3 enforces runs on the machine's own monotonic clock.
    pub(crate) fn issue(
        &self,
        thing_name: &str,
        lifetime: Duration,
        provider_clock: SystemTime,
    ) -> Session {
        let now = Instant::now();
        // AWS speaks whole seconds, and S3 ends the session at the second that was told.
        let clock = OffsetDateTime::from(provider_clock);
        let told = clock + lifetime;
        let expiration = told.replace_nanosecond(0).unwrap_or(told);
        let left = Duration::try_from(expiration - clock).unwrap_or_default();
        let session = Session {
            access_key_id: access_key_id("ASIA"),
            secret_access_key: secret_access_key(),
            session_token: Some(session_token()),
            thing_name: thing_name.to_owned(),
            issued_at: now,
            expires_at: Some(now + left),
            expiration: rfc3339(expiration),
        };
        self.0.lock().push(session.clone());
        session
    }

    /// Credentials without an end, for the lab's own reading of the bucket.
    pub(crate) fn issue_root(&self) -> Session {
        let session = Session {
            access_key_id: access_key_id("AKIA"),
            secret_access_key: secret_access_key(),
            session_token: None,
            thing_name: "lab".to_owned(),
            issued_at: Instant::now(),
            expires_at: None,
            expiration: String::new(),
        };
        self.0.lock().push(session.clone());
        session
    }

    pub(crate) fn find(&self, access_key_id: &str) -> Option<Session> {
        let sessions = self.0.lock();
        sessions
            .iter()
            .rev()
            .find(|session| session.access_key_id == access_key_id)
            .cloned()
    }

    /// What was issued to devices, oldest first.
    pub(crate) fn issued(&self) -> Vec<Session> {
        let mut sessions = self.0.lock().clone();
        sessions.retain(|session| session.expires_at.is_some());
        sessions
    }
}

/// `2026-11-22T20:00:00Z`, the only form that the real provider uses.
pub(crate) fn rfc3339(time: OffsetDateTime) -> String {
    time.replace_nanosecond(0)
        .unwrap_or(time)
        .format(&Rfc3339)
        .unwrap_or_default()
}

fn access_key_id(prefix: &str) -> String {
    const ALPHABET: &[u8; 32] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZ234567";
    let random = random::<16>();
    let rest = random
        .iter()
        .map(|byte| char::from(ALPHABET[usize::from(byte % 32)]));
    prefix.chars().chain(rest).collect()
}

fn secret_access_key() -> String {
    let mut secret = BASE64_STANDARD.encode(random::<30>());
    secret.replace_range(13..14, "/");
    secret.replace_range(27..28, "+");
    secret
}

/// As long as a real one, so that buffers and files meet their true size.
fn session_token() -> String {
    format!(
        "IQoJb3JpZ2luX2VjE{}",
        BASE64_STANDARD.encode(random::<590>())
    )
}

pub(crate) fn random<const N: usize>() -> [u8; N] {
    let mut bytes = [0; N];
    SystemRandom::new()
        .fill(&mut bytes)
        .expect("the system has a source of randomness");
    bytes
}
