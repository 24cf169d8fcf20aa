//! A private key in a PKCS#11 token.
//!
//! Owns a process's only session, and the response to each error of the module. The rules come from
//! vendors' modules: exactly one session; no login unless the token requires it; the key is looked up
//! once and its handle kept; hashing in software, because a secure element may not hash; one reload per
//! process after a failure that it may cure, and none after a refused PIN.

mod public;

use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use cryptoki::context::{CInitializeArgs, CInitializeFlags, Pkcs11};
use cryptoki::error::{Error, RvError};
use cryptoki::mechanism::rsa::{PkcsMgfType, PkcsPssParams};
use cryptoki::mechanism::{Mechanism, MechanismType};
use cryptoki::object::{Attribute, AttributeType, KeyType, ObjectClass, ObjectHandle};
use cryptoki::session::{Session, UserType};
use cryptoki::slot::{Slot, TokenInfo};
use rustls::sign::{Signer, SigningKey};
use rustls::{SignatureAlgorithm, SignatureScheme};

use super::pin::{Pin, RefusedPin};
use super::{SignerFailed, sha256};
use crate::config::Pkcs11Uri;
use crate::credentials::{FailureClass, FetchFailure};

pub(super) use public::generate;

/// Opens the key of `uri`. The file `refused_pin` records a PIN that was refused.
pub(super) fn open(uri: &Pkcs11Uri, refused_pin: &Path) -> Result<Arc<TokenKey>, FetchFailure> {
    let mut token = Token {
        uri: uri.clone(),
        refused_pin: refused_pin.to_owned(),
        key: None,
        reloaded: false,
    };
    let algorithm = token.with_key(|key| Ok(key.algorithm))?;
    Ok(Arc::new(TokenKey {
        algorithm,
        token: Arc::new(Mutex::new(token)),
    }))
}

/// The description of the module and the token of `uri`, for a person.
pub(super) fn describe(uri: &Pkcs11Uri) -> Result<String, FetchFailure> {
    let module = Module::load(&uri.module_path).map_err(|fault| fault.failure)?;
    let maker = match module.0.get_library_info() {
        Ok(info) => format!(
            "{} ({}, {})",
            info.library_description(),
            info.manufacturer_id(),
            info.library_version()
        ),
        Err(error) => format!("a module without information ({error})"),
    };
    let (_, token) = find_token(&module.0, uri).map_err(|fault| fault.failure)?;
    let login = match token.login_required() {
        true => "asks for a PIN",
        false => "asks for no PIN",
    };
    let (label, serial) = (token.label(), token.serial_number());
    Ok(format!(
        "{maker} has the token {label:?}, serial {serial}, which {login}"
    ))
}

/// The key as rustls sees it.
pub(super) struct TokenKey {
    algorithm: SignatureAlgorithm,
    token: Arc<Mutex<Token>>,
}

impl TokenKey {
    /// The SubjectPublicKeyInfo, DER. It costs time that a fetch can save, so it is not
    /// [`SigningKey::public_key`].
    pub(super) fn read_public_key(&self) -> Result<Vec<u8>, FetchFailure> {
        let mut token = self.token.lock().unwrap_or_else(PoisonError::into_inner);
        let uri = token.uri.clone();
        token.with_key(|key| key.public_key(&uri))
    }
}

impl SigningKey for TokenKey {
    fn choose_scheme(&self, offered: &[SignatureScheme]) -> Option<Box<dyn Signer>> {
        let own: &[SignatureScheme] = match self.algorithm {
            SignatureAlgorithm::ECDSA => &[SignatureScheme::ECDSA_NISTP256_SHA256],
            _ => &[
                SignatureScheme::RSA_PSS_SHA256,
                SignatureScheme::RSA_PKCS1_SHA256,
            ],
        };
        let scheme = *own.iter().find(|scheme| offered.contains(scheme))?;
        Some(Box::new(TokenSigner {
            scheme,
            token: Arc::clone(&self.token),
        }))
    }

    fn algorithm(&self) -> SignatureAlgorithm {
        self.algorithm
    }
}

impl fmt::Debug for TokenKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "TokenKey({:?})", self.algorithm)
    }
}

struct TokenSigner {
    scheme: SignatureScheme,
    token: Arc<Mutex<Token>>,
}

impl Signer for TokenSigner {
    fn sign(&self, message: &[u8]) -> Result<Vec<u8>, rustls::Error> {
        let digest = sha256(message);
        let mut token = self.token.lock().unwrap_or_else(PoisonError::into_inner);
        let signature = token.with_key(|key| key.sign(self.scheme, digest.as_ref()));
        signature.map_err(|failure| SignerFailed(failure).into())
    }

    fn scheme(&self) -> SignatureScheme {
        self.scheme
    }
}

impl fmt::Debug for TokenSigner {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "TokenSigner({:?})", self.scheme)
    }
}

/// The token, which may have to be reopened.
struct Token {
    uri: Pkcs11Uri,
    refused_pin: PathBuf,
    key: Option<OpenKey>,
    reloaded: bool,
}

impl Token {
    /// Does `work` with the key, which is opened if necessary; once per process, reloads the module and
    /// retries.
    fn with_key<T>(
        &mut self,
        work: impl Fn(&OpenKey) -> Result<T, Fault>,
    ) -> Result<T, FetchFailure> {
        loop {
            match self.opened().and_then(&work) {
                Ok(done) => return Ok(done),
                Err(fault) if fault.curable && !self.reloaded => {
                    log::warn!(
                        "{}; reloading the module for a retry",
                        fault.failure.message
                    );
                    self.reloaded = true;
                    // Closes the session, finalizes the module and unloads it. Only unloading
                    // cures cryptoauthlib, which leaks its object slots when C_Initialize fails.
                    self.key = None;
                }
                Err(fault) => return Err(fault.failure),
            }
        }
    }

    fn opened(&mut self) -> Result<&OpenKey, Fault> {
        let key = match self.key.take() {
            Some(open) => open,
            None => OpenKey::open(&self.uri, &self.refused_pin)?,
        };
        Ok(self.key.insert(key))
    }
}

/// A session with the key. The fields are closed in their order.
struct OpenKey {
    session: Session,
    handle: ObjectHandle,
    algorithm: SignatureAlgorithm,
    token: TokenInfo,
    _module: Module,
}

impl OpenKey {
    fn open(uri: &Pkcs11Uri, refused_pin: &Path) -> Result<Self, Fault> {
        let (session, token, module) = open_session(uri, refused_pin, Access::Read)?;
        let handle = find_key(&session, &token, uri)?;
        // No other attribute is read: cryptoauthlib answers other attributes with errors, and the
        // public ones with a computation on the chip.
        let attributes = session.get_attributes(handle, &[AttributeType::KeyType]);
        let algorithm = match attributes
            .map_err(said(&token, "read the key's type"))?
            .as_slice()
        {
            [Attribute::KeyType(KeyType::EC)] => SignatureAlgorithm::ECDSA,
            [Attribute::KeyType(KeyType::RSA)] => SignatureAlgorithm::RSA,
            _ => {
                let message = format!("{} is neither an EC nor an RSA key", Wanted(uri));
                return Err(Fault::lasting(FailureClass::Key, message));
            }
        };
        Ok(Self {
            session,
            handle,
            algorithm,
            token,
            _module: module,
        })
    }

    fn sign(&self, scheme: SignatureScheme, digest: &[u8]) -> Result<Vec<u8>, Fault> {
        let sign = |mechanism: Mechanism<'_>, data: &[u8]| {
            let signature = self.session.sign(&mechanism, self.handle, data);
            signature.map_err(|error| Fault::of(&"the token failed to sign", error))
        };
        let unfit = |why: &str| Fault::lasting(FailureClass::Key, why);
        if scheme == SignatureScheme::ECDSA_NISTP256_SHA256 {
            let raw = sign(Mechanism::Ecdsa, digest)?;
            return ecdsa_der(&raw).ok_or_else(|| {
                unfit("the token's signature is not 64 bytes long: its key is not on P-256")
            });
        }
        let signature = match scheme {
            SignatureScheme::RSA_PSS_SHA256 => {
                let parameters = PkcsPssParams {
                    hash_alg: MechanismType::SHA256,
                    mgf: PkcsMgfType::MGF1_SHA256,
                    s_len: 32.into(),
                };
                sign(Mechanism::RsaPkcsPss(parameters), digest)?
            }
            SignatureScheme::RSA_PKCS1_SHA256 => {
                sign(Mechanism::RsaPkcs, &[&SHA256_DIGEST_INFO, digest].concat())?
            }
            _ => {
                return Err(unfit(
                    "the token was asked for a signature scheme it never offered",
                ));
            }
        };
        match signature.len() {
            256.. => Ok(signature),
            _ => Err(unfit("the token's RSA key is shorter than 2048 bits")),
        }
    }
}

/// The access of a session.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Access {
    Read,
    /// Objects can be created.
    Write,
}

/// A session with the token, logged in if it requires that. The parts must be dropped in this order.
fn open_session(
    uri: &Pkcs11Uri,
    refused_pin: &Path,
    access: Access,
) -> Result<(Session, TokenInfo, Module), Fault> {
    spare_refused_pin(uri, refused_pin)?;
    let module = Module::load(&uri.module_path)?;
    let (slot, token) = find_token(&module.0, uri)?;
    let session = match access {
        Access::Read => module.0.open_ro_session(slot),
        Access::Write => module.0.open_rw_session(slot),
    };
    let session = session.map_err(said(&token, "open a session"))?;
    if token.login_required() {
        login(&session, &token, uri, refused_pin)?;
    }
    Ok((session, token, module))
}

/// A loaded and initialized module. Dropping it finalizes and unloads it.
struct Module(Pkcs11);

impl Module {
    fn load(path: &Path) -> Result<Self, Fault> {
        let unusable = |why: &dyn fmt::Display| {
            let message = format!(
                "the PKCS#11 module {} cannot be used: {why}",
                path.display()
            );
            Fault::lasting(FailureClass::Refused, message)
        };
        match path.metadata() {
            Ok(metadata) if !metadata.is_file() => return Err(unusable(&"it is not a file")),
            Ok(_) => (),
            Err(error) => return Err(unusable(&error)),
        }
        let context = Pkcs11::new(path).map_err(|error| match error {
            Error::LibraryLoading(error) => unusable(&error),
            Error::MissingSymbol(_) => unusable(&"it has no C_GetFunctionList"),
            error => Fault::of(&"the PKCS#11 module has no function list", error),
        })?;
        let arguments = CInitializeArgs::new(CInitializeFlags::OS_LOCKING_OK);
        match context.initialize(arguments) {
            Ok(()) | Err(Error::Pkcs11(RvError::CryptokiAlreadyInitialized, _)) => {
                Ok(Self(context))
            }
            Err(error) => Err(Fault::of(
                &format_args!("the module {} did not start", path.display()),
                error,
            )),
        }
    }
}

impl Drop for Module {
    fn drop(&mut self) {
        if let Err(error) = self.0.clone().finalize() {
            log::debug!("the PKCS#11 module did not finalize: {error:?}");
        }
    }
}

fn find_token(module: &Pkcs11, uri: &Pkcs11Uri) -> Result<(Slot, TokenInfo), Fault> {
    let slots = module.get_slots_with_token();
    let slots = slots.map_err(|error| Fault::of(&"the module lists no tokens", error))?;
    let mut unread = None;
    let mut tokens = Vec::new();
    for slot in slots {
        match module.get_token_info(slot) {
            Ok(info) => tokens.push((slot, info)),
            Err(error) => unread = Some(error),
        }
    }
    let labels = tokens.iter().filter(|(_, token)| token.token_initialized());
    let labels: Vec<_> = labels
        .map(|(_, token)| format!("{:?}", token.label()))
        .collect();
    tokens.retain(|(_, token)| {
        let agrees = |wanted: &Option<String>, is: &str| wanted.as_deref().is_none_or(|w| w == is);
        agrees(&uri.token, token.label())
            && agrees(&uri.serial, token.serial_number())
            && agrees(&uri.manufacturer, token.manufacturer_id())
            && agrees(&uri.model, token.model())
    });
    if tokens.len() > 1 {
        // SoftHSM always shows one more token, not initialized.
        tokens.retain(|(_, token)| token.token_initialized());
    }
    let found = tokens.len();
    let serials: Vec<_> = tokens
        .iter()
        .map(|(_, token)| token.serial_number().to_owned())
        .collect();
    match (tokens.pop(), unread) {
        (Some(token), _) if found == 1 => Ok(token),
        // A bus error while reading a token is not the absence of that token.
        (None, Some(error)) => Err(Fault::of(&"a token could not be read", error)),
        (None, None) => {
            let others = match labels.as_slice() {
                [] => "none at all".to_owned(),
                labels => labels.join(", "),
            };
            let message = format!("no token matches {}: the module has {others}", Wanted(uri));
            Err(Fault::lasting(FailureClass::Key, message))
        }
        (Some(_), _) => Err(Fault::lasting(
            FailureClass::Key,
            format!(
                "{found} tokens match {}: add serial=, one of {serials:?}",
                Wanted(uri)
            ),
        )),
    }
}

/// Fails early if the PIN was refused before, without using the token.
fn spare_refused_pin(uri: &Pkcs11Uri, refused_pin: &Path) -> Result<(), Fault> {
    let Some(path) = uri.pin_source.as_ref().filter(|_| refused_pin.exists()) else {
        return Ok(());
    };
    match (Pin::read(path), RefusedPin::open(refused_pin)) {
        (Ok(pin), Ok(refused)) if refused.is(&pin) => Err(wrong_pin(refused.why(path))),
        // Other faults matter only to a token that requires a PIN.
        _ => Ok(()),
    }
}

fn login(
    session: &Session,
    token: &TokenInfo,
    uri: &Pkcs11Uri,
    refused_pin: &Path,
) -> Result<(), Fault> {
    let label = token.label();
    let locked = || {
        wrong_pin(format!(
            "the PIN of token {label:?} is locked: reset the PIN"
        ))
    };
    if token.user_pin_locked() {
        return Err(locked());
    }
    if token.user_pin_final_try() {
        return Err(wrong_pin(format!(
            "the token {label:?} has one try left before it locks, and edgerepl does not use it: \
             log in by hand with the right PIN"
        )));
    }
    let outcome = match &uri.pin_source {
        Some(path) => log_in_with(path, session, refused_pin)?,
        None if token.protected_authentication_path() => session.login(UserType::User, None),
        None => {
            let message =
                format!("the token {label:?} needs a PIN: add pin-source=file:/path to the URI");
            return Err(Fault::lasting(FailureClass::Refused, message));
        }
    };
    match outcome {
        Ok(()) | Err(Error::Pkcs11(RvError::UserAlreadyLoggedIn, _)) => Ok(()),
        Err(Error::Pkcs11(RvError::PinLocked, _)) => Err(locked()),
        Err(Error::Pkcs11(RvError::PinExpired, _)) => Err(wrong_pin(format!(
            "the PIN of token {label:?} has expired: set a new one"
        ))),
        Err(Error::Pkcs11(code, _)) if is_refusal(code) => Err(wrong_pin(format!(
            "the token {label:?} refused the PIN ({}); edgerepl does not retry it because the \
             token counts tries: put the right PIN into the PIN file",
            code_name(code)
        ))),
        Err(error) => Err(said(token, "log in")(error)),
    }
}

/// Offers the PIN, unless it was refused before, and records the result. The outer error is about that
/// record.
fn log_in_with(
    pin_file: &Path,
    session: &Session,
    refused_pin: &Path,
) -> Result<Result<(), Error>, Fault> {
    let pin = &Pin::read(pin_file)?;
    let refused = RefusedPin::open(refused_pin)?;
    // Another process may have offered it while this one opened its session.
    if refused.is(pin) {
        return Err(wrong_pin(refused.why(pin_file)));
    }
    let outcome = session.login_with_raw(UserType::User, &pin.secret);
    match &outcome {
        Err(Error::Pkcs11(code, _)) if is_refusal(*code) => refused.keep(pin),
        Ok(()) => refused.forget().unwrap_or_default(),
        Err(_) => (),
    }
    Ok(outcome)
}

fn is_refusal(code: RvError) -> bool {
    matches!(
        code,
        RvError::PinIncorrect | RvError::PinInvalid | RvError::PinLenRange
    )
}

fn wrong_pin(why: String) -> Fault {
    Fault::lasting(FailureClass::WrongPin, why)
}

/// The attributes of the object that `uri` names.
fn is_named(uri: &Pkcs11Uri) -> impl Iterator<Item = Attribute> + use<'_> {
    let label = uri.object.as_ref().map(|label| label.clone().into_bytes());
    let id = uri.id.clone();
    label
        .map(Attribute::Label)
        .into_iter()
        .chain(id.map(Attribute::Id))
}

fn look_for(
    session: &Session,
    token: &TokenInfo,
    uri: &Pkcs11Uri,
    class: ObjectClass,
) -> Result<Vec<ObjectHandle>, Fault> {
    let mut template = vec![Attribute::Token(true), Attribute::Class(class)];
    template.extend(is_named(uri));
    session
        .find_objects(&template)
        .map_err(said(token, "look for the key"))
}

fn find_key(session: &Session, token: &TokenInfo, uri: &Pkcs11Uri) -> Result<ObjectHandle, Fault> {
    let found = look_for(session, token, uri, ObjectClass::PRIVATE_KEY)?;
    let message = match found.as_slice() {
        [handle] => return Ok(*handle),
        [] => format!(
            "the token {:?} has no private key {}",
            token.label(),
            Wanted(uri)
        ),
        many => {
            let names: Vec<_> = many
                .iter()
                .map(|handle| name_of(session, *handle))
                .collect();
            format!(
                "{} private keys of token {:?} match {}: set both object and id, which are {}",
                many.len(),
                token.label(),
                Wanted(uri),
                names.join(" and ")
            )
        }
    };
    Err(Fault::lasting(FailureClass::Key, message))
}

/// The attributes that identify an object, in the form of a URI.
fn name_of(session: &Session, handle: ObjectHandle) -> String {
    let attribute = |kind| session.get_attributes(handle, &[kind]).ok()?.pop();
    let object = match attribute(AttributeType::Label) {
        Some(Attribute::Label(label)) => String::from_utf8_lossy(&label).into_owned(),
        _ => String::new(),
    };
    let id = match attribute(AttributeType::Id) {
        Some(Attribute::Id(id)) => id.iter().map(|byte| format!("%{byte:02X}")).collect(),
        _ => String::new(),
    };
    format!("object={object:?};id={id}")
}

/// The searched object, in words.
struct Wanted<'a>(&'a Pkcs11Uri);

impl fmt::Display for Wanted<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let uri = self.0.to_string();
        f.write_str(uri.split('?').next().unwrap_or(&uri))
    }
}

/// A failure, and whether a reload of the module may cure it.
struct Fault {
    failure: FetchFailure,
    curable: bool,
}

impl Fault {
    fn lasting(class: FailureClass, message: impl Into<String>) -> Self {
        Self {
            failure: FetchFailure::new(class, message),
            curable: false,
        }
    }

    fn of(what: &dyn fmt::Display, error: Error) -> Self {
        let (why, code) = match error {
            Error::Pkcs11(code, function) => (
                format!("{} from C_{function:?}", code_name(code)),
                Some(code),
            ),
            other => (other.to_string(), None),
        };
        let class = match code {
            Some(code) if is_unfit(code) => FailureClass::Refused,
            _ => FailureClass::Key,
        };
        let message = format!("{what}: {why}");
        Self {
            failure: FetchFailure::new(class, message),
            curable: code.is_some_and(is_curable),
        }
    }
}

/// A failure that is not about the token.
impl From<FetchFailure> for Fault {
    fn from(failure: FetchFailure) -> Self {
        Self {
            failure,
            curable: false,
        }
    }
}

fn said<'a>(token: &'a TokenInfo, what: &'a str) -> impl FnOnce(Error) -> Fault + 'a {
    move |error| {
        Fault::of(
            &format_args!("the token {:?} failed to {what}", token.label()),
            error,
        )
    }
}

/// Stale sessions and handles, devices that went away or lost a command, and a module that leaked all
/// its resources.
fn is_curable(code: RvError) -> bool {
    matches!(
        code,
        RvError::SessionHandleInvalid
            | RvError::SessionClosed
            | RvError::ObjectHandleInvalid
            | RvError::KeyHandleInvalid
            | RvError::OperationActive
            | RvError::UserNotLoggedIn
            | RvError::DeviceRemoved
            | RvError::DeviceError
            | RvError::TokenNotPresent
            | RvError::TokenNotRecognized
            | RvError::CryptokiNotInitialized
            | RvError::GeneralError
            | RvError::FunctionFailed
            | RvError::SlotIdInvalid
            | RvError::HostMemory
    )
}

/// The key can't do what TLS needs, so a retry does not help: another key is needed.
fn is_unfit(code: RvError) -> bool {
    matches!(
        code,
        RvError::MechanismInvalid
            | RvError::MechanismParamInvalid
            | RvError::KeyTypeInconsistent
            | RvError::KeyFunctionNotPermitted
            | RvError::KeySizeRange
            | RvError::CurveNotSupported
            | RvError::FunctionNotSupported
    )
}

/// `CKR_DEVICE_ERROR` for `DeviceError`: the name in manuals and search engines.
fn code_name(code: RvError) -> String {
    if let RvError::VendorDefined(number) | RvError::UnknownErrorCode(number) = code {
        return format!("CKR {number:#x}");
    }
    let mut name = "CKR".to_owned();
    for letter in format!("{code:?}").chars() {
        if letter.is_ascii_uppercase() {
            name.push('_');
        }
        name.push(letter.to_ascii_uppercase());
    }
    name
}

/// The DER of DigestInfo before a SHA-256 digest (RFC 8017, 9.2).
const SHA256_DIGEST_INFO: [u8; 19] = [
    0x30, 0x31, 0x30, 0x0d, 0x06, 0x09, 0x60, 0x86, 0x48, 0x01, 0x65, 0x03, 0x04, 0x02, 0x01, 0x05,
    0x00, 0x04, 0x20,
];

/// Turns PKCS#11's r‖s into TLS's SEQUENCE of two INTEGERs; `None` unless it is 64 bytes long.
fn ecdsa_der(raw: &[u8]) -> Option<Vec<u8>> {
    if raw.len() != 64 {
        return None;
    }
    let mut body = Vec::with_capacity(70);
    for number in raw.chunks(32) {
        let zeros = number
            .iter()
            .take(31)
            .take_while(|byte| **byte == 0)
            .count();
        let number = &number[zeros..];
        let negative = number[0] & 0x80 != 0;
        body.extend([0x02, number.len() as u8 + u8::from(negative)]);
        body.extend(negative.then_some(0));
        body.extend(number);
    }
    Some([&[0x30, body.len() as u8], body.as_slice()].concat())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn writes_signatures_as_der() {
        let raw = |r: &[u8], s: &[u8]| {
            let mut raw = [0; 64];
            raw[32 - r.len()..32].copy_from_slice(r);
            raw[64 - s.len()..].copy_from_slice(s);
            ecdsa_der(&raw).expect("64 bytes")
        };
        assert_eq!(raw(&[1], &[2]), [0x30, 6, 2, 1, 1, 2, 1, 2]);
        assert_eq!(raw(&[0x80], &[0x7f]), [0x30, 7, 2, 2, 0, 0x80, 2, 1, 0x7f]);
        assert_eq!(raw(&[1, 0], &[]), [0x30, 7, 2, 2, 1, 0, 2, 1, 0]);
        let high = raw(&[0xff; 32], &[0xff; 32]);
        assert_eq!(high.len(), 72);
        assert_eq!(high[..6], [0x30, 70, 2, 33, 0, 0xff]);
        let low = raw(&[0x7f; 32], &[0x7f; 31]);
        assert_eq!(low[..5], [0x30, 67, 2, 32, 0x7f]);
        for length in [0, 63, 65, 96, 128] {
            assert_eq!(ecdsa_der(&vec![1; length]), None);
        }
    }

    #[test]
    fn names_errors_as_manuals_do() {
        assert_eq!(code_name(RvError::DeviceError), "CKR_DEVICE_ERROR");
        assert_eq!(code_name(RvError::PinLenRange), "CKR_PIN_LEN_RANGE");
        assert_eq!(
            code_name(RvError::VendorDefined(0x8000_0001)),
            "CKR 0x80000001"
        );
    }

    #[test]
    fn a_module_that_is_none_is_named() {
        for (path, why) in [
            ("/nonexistent/module.so", "No such file"),
            ("/", "not a file"),
            ("/etc/passwd", "cannot be used"),
        ] {
            let uri = format!("pkcs11:object=o?module-path={path}")
                .parse()
                .expect("valid");
            let failure = open(&uri, Path::new("/nonexistent")).expect_err(path);
            assert_eq!(failure.class, FailureClass::Refused, "{path}");
            assert!(failure.message.contains(why), "{}", failure.message);
        }
    }
}
