//! The simulated secure element: a SoftHSM token per device, whose key is generated inside and
//! can't leave. A process can load SoftHSM with one configuration only, so the work is done in a
//! child (the `lab` command) and this side only starts it; a test's own process never loads the
//! module.

use std::{
    path::{Path, PathBuf},
    process::Command,
};

use cryptoki::{
    context::{CInitializeArgs, CInitializeFlags, Pkcs11},
    mechanism::Mechanism,
    object::{Attribute, AttributeType, ObjectHandle},
    session::{Session, UserType},
    types::AuthPin,
};
use rcgen::{PublicKeyData, SignatureAlgorithm, SigningKey};
use ring::digest;
use rsa::{BigUint, RsaPublicKey, pkcs1::EncodeRsaPublicKey};

use crate::{
    error::{Error, Result},
    files::{make_directory, write_secret},
    pki::{KeyKind, device_request},
    tools,
};

const TOKEN_LABEL: &str = "edge";
const KEY_LABEL: &str = "device";
const USER_PIN: &str = "648219";
const SECURITY_OFFICER_PIN: &str = "90321455";

/// Where a device's new token is, for those who use it.
pub(crate) struct Token {
    pub(crate) uri: String,
    pub(crate) env: Vec<(String, String)>,
    /// The directory of SoftHSM's token files.
    pub(crate) store: PathBuf,
}

/// Makes a token under `directory`. The second value is the certificate request that its key
/// signed.
pub(crate) fn provision(
    directory: &Path,
    kind: KeyKind,
    common_name: &str,
) -> Result<(Token, String)> {
    let store = directory.join("tokens");
    make_directory(&store)?;
    let configuration = directory.join("softhsm2.conf");
    let text = format!(
        "directories.tokendir = {}\nobjectstore.backend = file\nlog.level = ERROR\n",
        store.display()
    );
    std::fs::write(&configuration, text).map_err(Error::doing(configuration.display()))?;
    let pin = directory.join("pin");
    write_secret(&pin, USER_PIN)?;

    let module = tools::softhsm_module()?;
    let env = vec![(
        "SOFTHSM2_CONF".to_owned(),
        configuration.display().to_string(),
    )];
    let request = run_lab_command(&module, kind, common_name, &env)?;
    let uri = format!(
        "pkcs11:token={TOKEN_LABEL};object={KEY_LABEL};type=private\
         ?module-path={}&pin-source=file:{}",
        percent_encoded(&module),
        percent_encoded(&pin)
    );
    Ok((Token { uri, env, store }, request))
}

fn run_lab_command(
    module: &Path,
    kind: KeyKind,
    common_name: &str,
    env: &[(String, String)],
) -> Result<String> {
    let output = Command::new(tools::lab_command()?)
        .args(["provision-token", kind.name(), common_name])
        .arg(module)
        .envs(env.iter().map(|(name, value)| (name, value)))
        .output()
        .map_err(Error::doing("the lab command can't be run"))?;
    if !output.status.success() {
        let reason = String::from_utf8_lossy(&output.stderr);
        return Err(Error::new(format!(
            "the token was not provisioned: {}",
            reason.trim()
        )));
    }
    String::from_utf8(output.stdout).map_err(Error::doing("the token's certificate request"))
}

/// The child's part: initialises a token in the empty slot of `module`, generates its key, and
/// returns a certificate request (PEM) signed by that key.
pub fn provision_in_this_process(
    module: &Path,
    kind: KeyKind,
    common_name: &str,
) -> Result<String> {
    let failed = || Error::doing::<cryptoki::error::Error>("the SoftHSM token");
    let pkcs11 = Pkcs11::new(module).map_err(Error::doing(module.display()))?;
    pkcs11
        .initialize(CInitializeArgs::new(CInitializeFlags::OS_LOCKING_OK))
        .map_err(Error::doing(
            "SoftHSM does not start, is SOFTHSM2_CONF set?",
        ))?;
    let slots = pkcs11.get_slots_with_token().map_err(failed())?;
    let slot = *slots
        .first()
        .ok_or_else(|| Error::new("SoftHSM shows no slot for a new token"))?;

    let officer_pin = AuthPin::new(SECURITY_OFFICER_PIN.into());
    let user_pin = AuthPin::new(USER_PIN.into());
    pkcs11
        .init_token(slot, &officer_pin, TOKEN_LABEL)
        .map_err(failed())?;
    let session = pkcs11.open_rw_session(slot).map_err(failed())?;
    session
        .login(UserType::So, Some(&officer_pin))
        .map_err(failed())?;
    session.init_pin(&user_pin).map_err(failed())?;
    session.logout().map_err(failed())?;
    session
        .login(UserType::User, Some(&user_pin))
        .map_err(failed())?;

    let key = TokenKey::generate(session, kind)?;
    device_request(common_name, &key)
}

/// A key pair in the token, as the maker of certificate requests sees it.
struct TokenKey {
    session: Session,
    private: ObjectHandle,
    kind: KeyKind,
    /// The point, or the PKCS#1 public key.
    public: Vec<u8>,
}

impl TokenKey {
    fn generate(session: Session, kind: KeyKind) -> Result<Self> {
        let failed = || Error::doing::<cryptoki::error::Error>("the token's new key pair");
        let (mechanism, parameters) = match kind {
            KeyKind::EcdsaP256 => (
                Mechanism::EccKeyPairGen,
                vec![Attribute::EcParams(P256_OID.to_vec())],
            ),
            KeyKind::Rsa2048 => (
                Mechanism::RsaPkcsKeyPairGen,
                vec![
                    Attribute::ModulusBits(2048.into()),
                    Attribute::PublicExponent(vec![1, 0, 1]),
                ],
            ),
        };
        let name = [
            Attribute::Token(true),
            Attribute::Label(KEY_LABEL.into()),
            Attribute::Id(vec![1]),
        ];
        let public = [&name[..], &parameters, &[Attribute::Verify(true)]].concat();
        let private_only = [
            Attribute::Private(true),
            Attribute::Sensitive(true),
            Attribute::Extractable(false),
            Attribute::Sign(true),
        ];
        let private = [&name[..], &private_only].concat();
        let (public, private) = session
            .generate_key_pair(&mechanism, &public, &private)
            .map_err(failed())?;
        let wanted = match kind {
            KeyKind::EcdsaP256 => vec![AttributeType::EcPoint],
            KeyKind::Rsa2048 => vec![AttributeType::Modulus, AttributeType::PublicExponent],
        };
        let attributes = session.get_attributes(public, &wanted).map_err(failed())?;
        let public = public_key(attributes)?;
        Ok(Self {
            session,
            private,
            kind,
            public,
        })
    }
}

impl PublicKeyData for TokenKey {
    fn der_bytes(&self) -> &[u8] {
        &self.public
    }

    fn algorithm(&self) -> &'static SignatureAlgorithm {
        match self.kind {
            KeyKind::EcdsaP256 => &rcgen::PKCS_ECDSA_P256_SHA256,
            KeyKind::Rsa2048 => &rcgen::PKCS_RSA_SHA256,
        }
    }
}

impl SigningKey for TokenKey {
    fn sign(&self, message: &[u8]) -> std::result::Result<Vec<u8>, rcgen::Error> {
        let signed = match self.kind {
            // The digest is made here: few secure elements hash by themselves.
            KeyKind::EcdsaP256 => {
                let digest = digest::digest(&digest::SHA256, message);
                self.session
                    .sign(&Mechanism::Ecdsa, self.private, digest.as_ref())
            }
            KeyKind::Rsa2048 => self
                .session
                .sign(&Mechanism::Sha256RsaPkcs, self.private, message),
        };
        let signature = signed.map_err(|_| rcgen::Error::RemoteKeyError)?;
        match self.kind {
            KeyKind::EcdsaP256 => ecdsa_der(&signature).ok_or(rcgen::Error::RemoteKeyError),
            KeyKind::Rsa2048 => Ok(signature),
        }
    }
}

/// prime256v1, DER.
const P256_OID: [u8; 10] = [0x06, 0x08, 0x2a, 0x86, 0x48, 0xce, 0x3d, 0x03, 0x01, 0x07];

fn public_key(attributes: Vec<Attribute>) -> Result<Vec<u8>> {
    let strange = || Error::new("the token shows a public key of an unknown form");
    match attributes.as_slice() {
        // An OCTET STRING around the uncompressed point.
        [Attribute::EcPoint(point)] => point
            .strip_prefix(&[0x04, 65])
            .map(<[u8]>::to_vec)
            .ok_or_else(strange),
        [
            Attribute::Modulus(modulus),
            Attribute::PublicExponent(exponent),
        ] => {
            let modulus = BigUint::from_bytes_be(modulus);
            let exponent = BigUint::from_bytes_be(exponent);
            let key = RsaPublicKey::new(modulus, exponent).map_err(|_| strange())?;
            key.to_pkcs1_der()
                .map(|der| der.into_vec())
                .map_err(|_| strange())
        }
        _ => Err(strange()),
    }
}

/// PKCS#11 gives `r` and `s` in 32 bytes each; X.509 wants a SEQUENCE of two INTEGERs.
fn ecdsa_der(raw: &[u8]) -> Option<Vec<u8>> {
    let (r, s) = raw.split_at_checked(32).filter(|(_, s)| s.len() == 32)?;
    let body = [integer_der(r), integer_der(s)].concat();
    Some([&[0x30, u8::try_from(body.len()).ok()?], body.as_slice()].concat())
}

fn integer_der(bytes: &[u8]) -> Vec<u8> {
    let first = bytes
        .iter()
        .position(|byte| *byte != 0)
        .unwrap_or(bytes.len() - 1);
    let digits = &bytes[first..];
    // A leading bit would make it negative.
    let sign: &[u8] = if digits[0] & 0x80 == 0 { &[] } else { &[0] };
    let length = u8::try_from(sign.len() + digits.len()).unwrap_or(u8::MAX);
    [&[0x02, length], sign, digits].concat()
}

/// As RFC 7512 wants a path in a query attribute.
fn percent_encoded(path: &Path) -> String {
    use std::os::unix::ffi::OsStrExt;

    let encode = |byte: &u8| match byte {
        b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'/' | b'-' | b'.' | b'_' | b'~' => {
            char::from(*byte).to_string()
        }
        other => format!("%{other:02X}"),
    };
    path.as_os_str().as_bytes().iter().map(encode).collect()
}
