//! The token, as it is when nothing goes wrong.
//!
//! Owns what PKCS#11 says of the order of calls, and the files that make up the token: `key.pem`
//! (PKCS#8, P-256); `pin`, where it wants a login; `tries`, how many wrong PINs there were: after
//! three the PIN is locked for good.

use std::fs::{self, File};
use std::io::Read;
use std::path::PathBuf;
use std::sync::{Mutex, MutexGuard, PoisonError};

use cryptoki_sys::{
    CK_ATTRIBUTE_TYPE, CK_FLAGS, CK_MECHANISM_TYPE, CK_OBJECT_HANDLE, CK_RV, CK_SESSION_HANDLE,
    CK_SLOT_ID, CKA_CLASS, CKA_EC_PARAMS, CKA_EC_POINT, CKA_ID, CKA_KEY_TYPE, CKA_LABEL, CKA_TOKEN,
    CKF_LOGIN_REQUIRED, CKF_TOKEN_INITIALIZED, CKF_USER_PIN_COUNT_LOW, CKF_USER_PIN_FINAL_TRY,
    CKF_USER_PIN_LOCKED, CKK_EC, CKM_EC_KEY_PAIR_GEN, CKM_ECDSA, CKO_PRIVATE_KEY, CKO_PUBLIC_KEY,
    CKR_ATTRIBUTE_TYPE_INVALID, CKR_CRYPTOKI_ALREADY_INITIALIZED, CKR_CRYPTOKI_NOT_INITIALIZED,
    CKR_DATA_LEN_RANGE, CKR_DEVICE_ERROR, CKR_KEY_HANDLE_INVALID, CKR_MECHANISM_INVALID,
    CKR_OBJECT_HANDLE_INVALID, CKR_OPERATION_ACTIVE, CKR_OPERATION_NOT_INITIALIZED,
    CKR_PIN_INCORRECT, CKR_PIN_LOCKED, CKR_SESSION_HANDLE_INVALID, CKR_SLOT_ID_INVALID,
    CKR_TEMPLATE_INCONSISTENT, CKR_USER_ALREADY_LOGGED_IN, CKR_USER_NOT_LOGGED_IN,
};
use p256::SecretKey;
use p256::ecdsa::signature::hazmat::PrehashSigner;
use p256::ecdsa::{Signature, SigningKey};
use p256::pkcs8::{DecodePrivateKey, EncodePrivateKey, LineEnding};

use crate::orders::folder;

pub(crate) const SLOT: CK_SLOT_ID = 7;

const SESSION: CK_SESSION_HANDLE = 1;
const PRIVATE_KEY: CK_OBJECT_HANDLE = 11;
const PUBLIC_KEY: CK_OBJECT_HANDLE = 12;

/// The label of both keys, and their id.
const LABEL: &[u8] = b"device";
const ID: &[u8] = &[1];

/// Wrong PINs until it is locked.
const TRIES: u8 = 3;

#[derive(Default)]
struct State {
    initialized: bool,
    session: bool,
    logged_in: bool,
    /// What a search has found and not yet given away.
    found: Option<Vec<CK_OBJECT_HANDLE>>,
    signing: bool,
}

fn state() -> MutexGuard<'static, State> {
    static STATE: Mutex<State> = Mutex::new(State {
        initialized: false,
        session: false,
        logged_in: false,
        found: None,
        signing: false,
    });
    STATE.lock().unwrap_or_else(PoisonError::into_inner)
}

pub(crate) fn initialize() -> Result<(), CK_RV> {
    let mut state = state();
    if state.initialized {
        return Err(CKR_CRYPTOKI_ALREADY_INITIALIZED);
    }
    state.initialized = true;
    Ok(())
}

pub(crate) fn finalize() -> Result<(), CK_RV> {
    is_initialized()?;
    *state() = State::default();
    Ok(())
}

pub(crate) fn is_initialized() -> Result<(), CK_RV> {
    match state().initialized {
        true => Ok(()),
        false => Err(CKR_CRYPTOKI_NOT_INITIALIZED),
    }
}

/// What kind of token it is, and how it stands with its PIN.
pub(crate) fn flags(slot: CK_SLOT_ID) -> Result<CK_FLAGS, CK_RV> {
    is_slot(slot)?;
    let login = if wants_pin() { CKF_LOGIN_REQUIRED } else { 0 };
    let tries = match tries() {
        0 => 0,
        TRIES.. => CKF_USER_PIN_LOCKED,
        last if last + 1 == TRIES => CKF_USER_PIN_COUNT_LOW | CKF_USER_PIN_FINAL_TRY,
        _ => CKF_USER_PIN_COUNT_LOW,
    };
    Ok(CKF_TOKEN_INITIALIZED | login | tries)
}

pub(crate) fn open_session(slot: CK_SLOT_ID) -> Result<CK_SESSION_HANDLE, CK_RV> {
    is_slot(slot)?;
    state().session = true;
    Ok(SESSION)
}

pub(crate) fn close_session(session: CK_SESSION_HANDLE) -> Result<(), CK_RV> {
    is_session(session)?;
    *state() = State {
        initialized: true,
        ..State::default()
    };
    Ok(())
}

pub(crate) fn login(session: CK_SESSION_HANDLE, pin: &[u8]) -> Result<(), CK_RV> {
    is_session(session)?;
    if state().logged_in {
        return Err(CKR_USER_ALREADY_LOGGED_IN);
    }
    let (file, tries) = (folder().join("tries"), tries());
    if tries >= TRIES {
        return Err(CKR_PIN_LOCKED);
    }
    if fs::read(folder().join("pin")).is_ok_and(|right| right != pin) {
        fs::write(file, [tries + 1]).map_err(|_| CKR_DEVICE_ERROR)?;
        return Err(CKR_PIN_INCORRECT);
    }
    let _ = fs::remove_file(file);
    state().logged_in = true;
    Ok(())
}

/// Looks for what has all these attributes; for nothing that there is where the search is `lost`.
pub(crate) fn find<'a>(
    session: CK_SESSION_HANDLE,
    wanted: impl Iterator<Item = (CK_ATTRIBUTE_TYPE, &'a [u8])>,
    lost: bool,
) -> Result<(), CK_RV> {
    is_session(session)?;
    let mut found = Vec::new();
    if key_file().exists() {
        found.push(PUBLIC_KEY);
        if !wants_pin() || state().logged_in {
            found.push(PRIVATE_KEY);
        }
    }
    for (kind, value) in wanted {
        found.retain(|object| is(*object, kind, value));
    }
    if lost {
        found.clear();
    }
    let mut state = state();
    if state.found.is_some() {
        return Err(CKR_OPERATION_ACTIVE);
    }
    state.found = Some(found);
    Ok(())
}

pub(crate) fn found(session: CK_SESSION_HANDLE) -> Result<Vec<CK_OBJECT_HANDLE>, CK_RV> {
    is_session(session)?;
    let mut state = state();
    let found = state.found.as_mut().ok_or(CKR_OPERATION_NOT_INITIALIZED)?;
    Ok(std::mem::take(found))
}

pub(crate) fn find_final(session: CK_SESSION_HANDLE) -> Result<(), CK_RV> {
    is_session(session)?;
    let ended = state().found.take();
    ended.map(drop).ok_or(CKR_OPERATION_NOT_INITIALIZED)
}

pub(crate) fn attribute(
    session: CK_SESSION_HANDLE,
    object: CK_OBJECT_HANDLE,
    kind: CK_ATTRIBUTE_TYPE,
) -> Result<Vec<u8>, CK_RV> {
    is_session(session)?;
    match (object, kind) {
        (PRIVATE_KEY | PUBLIC_KEY, CKA_KEY_TYPE) => Ok(CKK_EC.to_ne_bytes().to_vec()),
        (PRIVATE_KEY | PUBLIC_KEY, CKA_LABEL) => Ok(LABEL.to_vec()),
        (PRIVATE_KEY | PUBLIC_KEY, CKA_ID) => Ok(ID.to_vec()),
        (PUBLIC_KEY, CKA_EC_POINT) => {
            let point = key()?.verifying_key().to_sec1_point(false);
            Ok([&[0x04, 65], point.as_bytes()].concat())
        }
        (PRIVATE_KEY | PUBLIC_KEY, _) => Err(CKR_ATTRIBUTE_TYPE_INVALID),
        _ => Err(CKR_OBJECT_HANDLE_INVALID),
    }
}

pub(crate) fn sign_init(
    session: CK_SESSION_HANDLE,
    mechanism: CK_MECHANISM_TYPE,
    key: CK_OBJECT_HANDLE,
) -> Result<(), CK_RV> {
    is_session(session)?;
    let mut state = state();
    if key != PRIVATE_KEY {
        return Err(CKR_KEY_HANDLE_INVALID);
    }
    // As a secure element that hashes nothing.
    if mechanism != CKM_ECDSA {
        return Err(CKR_MECHANISM_INVALID);
    }
    if wants_pin() && !state.logged_in {
        return Err(CKR_USER_NOT_LOGGED_IN);
    }
    if std::mem::replace(&mut state.signing, true) {
        return Err(CKR_OPERATION_ACTIVE);
    }
    Ok(())
}

/// The signature, or 64 bytes in its place where only their number is `asked`.
pub(crate) fn sign(
    session: CK_SESSION_HANDLE,
    digest: &[u8],
    asked: bool,
) -> Result<Vec<u8>, CK_RV> {
    is_session(session)?;
    let mut state = state();
    if !state.signing {
        return Err(CKR_OPERATION_NOT_INITIALIZED);
    }
    if asked {
        return Ok(vec![0; 64]);
    }
    state.signing = false;
    if digest.len() != 32 {
        return Err(CKR_DATA_LEN_RANGE);
    }
    let signed: Signature = key()?.sign_prehash(digest).map_err(|_| CKR_DEVICE_ERROR)?;
    Ok(signed.to_bytes().to_vec())
}

/// A new key in place of the one that there is, whatever it is to be called: the public and the private
/// half. What `private` may hold is the standard's rule.
pub(crate) fn generate(
    session: CK_SESSION_HANDLE,
    mechanism: CK_MECHANISM_TYPE,
    mut private: impl Iterator<Item = CK_ATTRIBUTE_TYPE>,
) -> Result<(CK_OBJECT_HANDLE, CK_OBJECT_HANDLE), CK_RV> {
    is_session(session)?;
    if mechanism != CKM_EC_KEY_PAIR_GEN {
        return Err(CKR_MECHANISM_INVALID);
    }
    if private.any(|kind| kind == CKA_EC_PARAMS) {
        return Err(CKR_TEMPLATE_INCONSISTENT);
    }
    if wants_pin() && !state().logged_in {
        return Err(CKR_USER_NOT_LOGGED_IN);
    }
    let mut secret = [0; 32];
    let filled = File::open("/dev/urandom").and_then(|mut file| file.read_exact(&mut secret));
    filled.map_err(|_| CKR_DEVICE_ERROR)?;
    let key = SecretKey::from_slice(&secret).map_err(|_| CKR_DEVICE_ERROR)?;
    let pem = key
        .to_pkcs8_pem(LineEnding::LF)
        .map_err(|_| CKR_DEVICE_ERROR)?;
    fs::write(key_file(), pem).map_err(|_| CKR_DEVICE_ERROR)?;
    Ok((PUBLIC_KEY, PRIVATE_KEY))
}

fn is_slot(slot: CK_SLOT_ID) -> Result<(), CK_RV> {
    is_initialized()?;
    match slot {
        SLOT => Ok(()),
        _ => Err(CKR_SLOT_ID_INVALID),
    }
}

fn is_session(session: CK_SESSION_HANDLE) -> Result<(), CK_RV> {
    is_initialized()?;
    match session == SESSION && state().session {
        true => Ok(()),
        false => Err(CKR_SESSION_HANDLE_INVALID),
    }
}

fn is(object: CK_OBJECT_HANDLE, kind: CK_ATTRIBUTE_TYPE, value: &[u8]) -> bool {
    let class = match object {
        PRIVATE_KEY => CKO_PRIVATE_KEY,
        _ => CKO_PUBLIC_KEY,
    };
    match kind {
        CKA_TOKEN => value == [1],
        CKA_CLASS => value == class.to_ne_bytes(),
        CKA_LABEL => value == LABEL,
        CKA_ID => value == ID,
        _ => false,
    }
}

fn wants_pin() -> bool {
    folder().join("pin").exists()
}

fn tries() -> u8 {
    let tries = fs::read(folder().join("tries")).unwrap_or_default();
    tries.first().copied().unwrap_or_default()
}

fn key() -> Result<SigningKey, CK_RV> {
    let pem = fs::read_to_string(key_file()).map_err(|_| CKR_DEVICE_ERROR)?;
    let key = SecretKey::from_pkcs8_pem(&pem).map_err(|_| CKR_DEVICE_ERROR)?;
    Ok(SigningKey::from(key))
}

fn key_file() -> PathBuf {
    folder().join("key.pem")
}
