//! A PKCS#11 module for tests: one slot, one token, one P-256 key in software, and any fault at any
//! call, on order.
//!
//! Owns the interface: C's names, raw pointers, and the fault that a call has before the token hears
//! of it. Everything is in the folder that `EDGEREPL_FAULTY_TOKEN` names, so that a test can order,
//! and see, what happens in a process that it did not start: [`orders`] and [`token`] say what is
//! there. It has the functions that edgerepl calls, and no other.

mod orders;
mod token;

use std::ffi::c_void;
use std::slice;

use cryptoki_sys::{
    CK_ATTRIBUTE, CK_BBOOL, CK_FLAGS, CK_FUNCTION_LIST, CK_INFO, CK_MECHANISM, CK_NOTIFY,
    CK_OBJECT_HANDLE, CK_RV, CK_SESSION_HANDLE, CK_SLOT_ID, CK_TOKEN_INFO, CK_ULONG, CK_USER_TYPE,
    CK_VERSION, CKR_ARGUMENTS_BAD, CKR_BUFFER_TOO_SMALL, CKR_OK,
};

use orders::Fault;

/// Has the fault that is ordered for this call. What is left is to corrupt the answer, or not to.
macro_rules! call {
    ($name:literal) => {
        match orders::next($name) {
            Some(Fault::Code(code)) => return code,
            Some(Fault::Hang) => orders::hang(),
            Some(Fault::Crash) => return orders::crash(),
            Some(Fault::Corrupt) => true,
            Some(Fault::Delay) => orders::delay(),
            None => false,
        }
    };
}

/// Goes on with what is there, or returns the code.
macro_rules! ok {
    ($result:expr) => {
        match $result {
            Ok(value) => value,
            Err(code) => return code,
        }
    };
}

/// # Safety
/// `list` points to where a pointer can be written. So it is throughout: callers are held to what
/// PKCS#11 2.40 asks of them.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn C_GetFunctionList(list: *mut *mut CK_FUNCTION_LIST) -> CK_RV {
    let corrupt = call!("C_GetFunctionList");
    let there = (&raw const FUNCTIONS).cast_mut();
    unsafe { *list = if corrupt { std::ptr::null_mut() } else { there } };
    CKR_OK
}

unsafe extern "C" fn C_Initialize(_: *mut c_void) -> CK_RV {
    // There is no answer to corrupt.
    let _ = call!("C_Initialize");
    ok!(token::initialize());
    CKR_OK
}

unsafe extern "C" fn C_Finalize(_: *mut c_void) -> CK_RV {
    let _ = call!("C_Finalize");
    ok!(token::finalize());
    CKR_OK
}

unsafe extern "C" fn C_GetInfo(info: *mut CK_INFO) -> CK_RV {
    let corrupt = call!("C_GetInfo");
    ok!(token::is_initialized());
    let info = unsafe { &mut *info };
    *info = CK_INFO {
        cryptokiVersion: CK_VERSION {
            major: 2,
            minor: 40,
        },
        ..CK_INFO::default()
    };
    padded(&mut info.manufacturerID, "edgerepl");
    padded(&mut info.libraryDescription, "faults on order");
    if corrupt {
        info.manufacturerID = [0xff; 32];
    }
    CKR_OK
}

unsafe extern "C" fn C_GetSlotList(
    _: CK_BBOOL,
    slots: *mut CK_SLOT_ID,
    count: *mut CK_ULONG,
) -> CK_RV {
    let corrupt = call!("C_GetSlotList");
    ok!(token::is_initialized());
    unsafe {
        if !slots.is_null() {
            if *count < 1 {
                return CKR_BUFFER_TOO_SMALL;
            }
            // A slot that no other function knows.
            *slots = if corrupt {
                CK_SLOT_ID::MAX
            } else {
                token::SLOT
            };
        }
        *count = 1;
    }
    CKR_OK
}

unsafe extern "C" fn C_GetTokenInfo(slot: CK_SLOT_ID, info: *mut CK_TOKEN_INFO) -> CK_RV {
    let corrupt = call!("C_GetTokenInfo");
    let flags = ok!(token::flags(slot));
    let info = unsafe { &mut *info };
    *info = CK_TOKEN_INFO {
        flags,
        ..CK_TOKEN_INFO::default()
    };
    padded(&mut info.label, "faulty");
    padded(&mut info.manufacturerID, "edgerepl");
    padded(&mut info.model, "faults");
    padded(&mut info.serialNumber, "0123456789ABCDEF");
    info.utcTime = [b'0'; 16];
    if corrupt {
        info.label = [0xff; 32];
    }
    CKR_OK
}

unsafe extern "C" fn C_OpenSession(
    slot: CK_SLOT_ID,
    _: CK_FLAGS,
    _: *mut c_void,
    _: CK_NOTIFY,
    session: *mut CK_SESSION_HANDLE,
) -> CK_RV {
    let corrupt = call!("C_OpenSession");
    let opened = ok!(token::open_session(slot));
    unsafe { *session = if corrupt { !opened } else { opened } };
    CKR_OK
}

unsafe extern "C" fn C_CloseSession(session: CK_SESSION_HANDLE) -> CK_RV {
    let _ = call!("C_CloseSession");
    ok!(token::close_session(session));
    CKR_OK
}

unsafe extern "C" fn C_Login(
    session: CK_SESSION_HANDLE,
    _: CK_USER_TYPE,
    pin: *mut u8,
    length: CK_ULONG,
) -> CK_RV {
    let _ = call!("C_Login");
    ok!(token::login(session, unsafe { bytes(pin, length) }));
    CKR_OK
}

unsafe extern "C" fn C_FindObjectsInit(
    session: CK_SESSION_HANDLE,
    template: *mut CK_ATTRIBUTE,
    count: CK_ULONG,
) -> CK_RV {
    // A search for something else.
    let corrupt = call!("C_FindObjectsInit");
    let template = unsafe { bytes(template, count) };
    let wanted = template.iter().map(|a| {
        let value = unsafe { bytes(a.pValue.cast::<u8>(), a.ulValueLen) };
        (a.type_, value)
    });
    ok!(token::find(session, wanted, corrupt));
    CKR_OK
}

unsafe extern "C" fn C_FindObjects(
    session: CK_SESSION_HANDLE,
    objects: *mut CK_OBJECT_HANDLE,
    most: CK_ULONG,
    count: *mut CK_ULONG,
) -> CK_RV {
    let corrupt = call!("C_FindObjects");
    let found = ok!(token::found(session));
    unsafe {
        *count = 0;
        for object in found.into_iter().take(usize::try_from(most).unwrap_or(0)) {
            *objects.add(*count as usize) = if corrupt { !object } else { object };
            *count += 1;
        }
    }
    CKR_OK
}

unsafe extern "C" fn C_FindObjectsFinal(session: CK_SESSION_HANDLE) -> CK_RV {
    let _ = call!("C_FindObjectsFinal");
    ok!(token::find_final(session));
    CKR_OK
}

unsafe extern "C" fn C_GetAttributeValue(
    session: CK_SESSION_HANDLE,
    object: CK_OBJECT_HANDLE,
    template: *mut CK_ATTRIBUTE,
    count: CK_ULONG,
) -> CK_RV {
    let corrupt = call!("C_GetAttributeValue");
    if template.is_null() {
        return CKR_ARGUMENTS_BAD;
    }
    let template = unsafe { slice::from_raw_parts_mut(template, count as usize) };
    for attribute in template {
        let mut value = ok!(token::attribute(session, object, attribute.type_));
        if corrupt {
            value.fill(0x55);
        }
        let room = attribute.ulValueLen as usize;
        attribute.ulValueLen = value.len() as CK_ULONG;
        if attribute.pValue.is_null() {
            continue;
        }
        if room < value.len() {
            return CKR_BUFFER_TOO_SMALL;
        }
        unsafe { value.as_ptr().copy_to(attribute.pValue.cast(), value.len()) };
    }
    CKR_OK
}

unsafe extern "C" fn C_SignInit(
    session: CK_SESSION_HANDLE,
    mechanism: *mut CK_MECHANISM,
    key: CK_OBJECT_HANDLE,
) -> CK_RV {
    let _ = call!("C_SignInit");
    let mechanism = unsafe { (*mechanism).mechanism };
    ok!(token::sign_init(session, mechanism, key));
    CKR_OK
}

unsafe extern "C" fn C_Sign(
    session: CK_SESSION_HANDLE,
    data: *mut u8,
    data_length: CK_ULONG,
    signature: *mut u8,
    length: *mut CK_ULONG,
) -> CK_RV {
    let corrupt = call!("C_Sign");
    let digest = unsafe { bytes(data, data_length) };
    let asked = signature.is_null();
    let mut signed = ok!(token::sign(session, digest, asked));
    if corrupt {
        signed[40] ^= 1;
    }
    unsafe {
        if !asked {
            if (*length as usize) < signed.len() {
                return CKR_BUFFER_TOO_SMALL;
            }
            signed.as_ptr().copy_to(signature, signed.len());
        }
        *length = signed.len() as CK_ULONG;
    }
    CKR_OK
}

unsafe extern "C" fn C_GenerateKeyPair(
    session: CK_SESSION_HANDLE,
    mechanism: *mut CK_MECHANISM,
    _: *mut CK_ATTRIBUTE,
    _: CK_ULONG,
    private: *mut CK_ATTRIBUTE,
    private_count: CK_ULONG,
    public_handle: *mut CK_OBJECT_HANDLE,
    private_handle: *mut CK_OBJECT_HANDLE,
) -> CK_RV {
    let corrupt = call!("C_GenerateKeyPair");
    let mechanism = unsafe { (*mechanism).mechanism };
    let private = unsafe { bytes(private, private_count) };
    let (public, private) = ok!(token::generate(
        session,
        mechanism,
        private.iter().map(|a| a.type_)
    ));
    unsafe {
        *public_handle = if corrupt { !public } else { public };
        *private_handle = if corrupt { !private } else { private };
    }
    CKR_OK
}

/// What C has as a pointer and a length.
unsafe fn bytes<'a, T>(start: *const T, length: CK_ULONG) -> &'a [T] {
    if start.is_null() {
        return &[];
    }
    unsafe { slice::from_raw_parts(start, length as usize) }
}

/// Text as PKCS#11 has it: to the end of its field with blanks.
fn padded(field: &mut [u8], text: &str) {
    field.fill(b' ');
    field[..text.len()].copy_from_slice(text.as_bytes());
}

static FUNCTIONS: CK_FUNCTION_LIST = CK_FUNCTION_LIST {
    version: CK_VERSION {
        major: 2,
        minor: 40,
    },
    C_Initialize: Some(C_Initialize),
    C_Finalize: Some(C_Finalize),
    C_GetInfo: Some(C_GetInfo),
    C_GetFunctionList: Some(C_GetFunctionList),
    C_GetSlotList: Some(C_GetSlotList),
    C_GetSlotInfo: None,
    C_GetTokenInfo: Some(C_GetTokenInfo),
    C_GetMechanismList: None,
    C_GetMechanismInfo: None,
    C_InitToken: None,
    C_InitPIN: None,
    C_SetPIN: None,
    C_OpenSession: Some(C_OpenSession),
    C_CloseSession: Some(C_CloseSession),
    C_CloseAllSessions: None,
    C_GetSessionInfo: None,
    C_GetOperationState: None,
    C_SetOperationState: None,
    C_Login: Some(C_Login),
    C_Logout: None,
    C_CreateObject: None,
    C_CopyObject: None,
    C_DestroyObject: None,
    C_GetObjectSize: None,
    C_GetAttributeValue: Some(C_GetAttributeValue),
    C_SetAttributeValue: None,
    C_FindObjectsInit: Some(C_FindObjectsInit),
    C_FindObjects: Some(C_FindObjects),
    C_FindObjectsFinal: Some(C_FindObjectsFinal),
    C_EncryptInit: None,
    C_Encrypt: None,
    C_EncryptUpdate: None,
    C_EncryptFinal: None,
    C_DecryptInit: None,
    C_Decrypt: None,
    C_DecryptUpdate: None,
    C_DecryptFinal: None,
    C_DigestInit: None,
    C_Digest: None,
    C_DigestUpdate: None,
    C_DigestKey: None,
    C_DigestFinal: None,
    C_SignInit: Some(C_SignInit),
    C_Sign: Some(C_Sign),
    C_SignUpdate: None,
    C_SignFinal: None,
    C_SignRecoverInit: None,
    C_SignRecover: None,
    C_VerifyInit: None,
    C_Verify: None,
    C_VerifyUpdate: None,
    C_VerifyFinal: None,
    C_VerifyRecoverInit: None,
    C_VerifyRecover: None,
    C_DigestEncryptUpdate: None,
    C_DecryptDigestUpdate: None,
    C_SignEncryptUpdate: None,
    C_DecryptVerifyUpdate: None,
    C_GenerateKey: None,
    C_GenerateKeyPair: Some(C_GenerateKeyPair),
    C_WrapKey: None,
    C_UnwrapKey: None,
    C_DeriveKey: None,
    C_SeedRandom: None,
    C_GenerateRandom: None,
    C_GetFunctionStatus: None,
    C_CancelFunction: None,
    C_WaitForSlotEvent: None,
};
