//! Where the authority's keys are made, and how those that are there are opened: each is a file of
//! its own, with the key in it (`NAME.key`) or with where in a token it is (`NAME.pkcs11`).

use std::fmt;
use std::path::{Path, PathBuf};

use x509_parser::pem::parse_x509_pem;

use super::token::{self, Token};
use super::{Custody, FileKey};
use crate::durable::{self, Readers};
use crate::error::CaError;
use crate::public_key::{KeyKind, PublicKey};
use crate::sealed::Passphrase;
use crate::secret_key::SecretKey;
use crate::{pem, sealed};

const KEY: &str = "key";
const TOKEN: &str = "pkcs11";

/// What keeps a key that is made.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum KeyCustody {
    /// A file that only its owner may read.
    #[default]
    File,
    /// The same, encrypted under a passphrase.
    EncryptedFile,
    /// A token behind PKCS #11, where the key is made and stays.
    Pkcs11,
}

/// What it takes to make and to open keys.
#[derive(Default)]
pub struct Keyring {
    /// What keeps a key that is made from now on.
    pub custody: KeyCustody,
    /// Opens encrypted files, and is what new ones are encrypted under.
    pub passphrase: Option<Passphrase>,
    /// Where keys in a token are.
    pub token: Option<Token>,
}

impl fmt::Debug for Keyring {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Keyring")
            .field("custody", &self.custody)
            .field("token", &self.token)
            .finish_non_exhaustive()
    }
}

impl Keyring {
    /// Makes a key and the file that leads to it; durable on return.
    pub(crate) fn make(
        &self,
        dir: &Path,
        name: &str,
        kind: KeyKind,
    ) -> Result<Box<dyn Custody>, CaError> {
        if self.custody != KeyCustody::Pkcs11 {
            return self.keep(SecretKey::generate(kind)?, dir, name);
        }
        let key = self.token()?.generate(kind)?;
        let public = pem::encode("PUBLIC KEY", key.public_key().der());
        let text = format!("{}\n{}", key.uri(), public.as_str());
        let written = durable::write(&file(dir, name, TOKEN), text.as_bytes(), Readers::Owner);
        match written {
            Ok(()) => Ok(Box::new(key)),
            // Nothing leads to it.
            Err(failed) => Err(match key.destroy() {
                Ok(()) => failed,
                Err(why) => orphaned(failed, key.uri(), &why),
            }),
        }
    }

    /// Removes a directory that something was cut short in, and the keys that were made for it. One
    /// whose key is in a token that is away stays for another time.
    ///
    /// # Errors
    /// [`CaError::File`].
    pub(crate) fn sweep(&self, dir: &Path, names: &[&str], unless: &Path) -> Result<(), CaError> {
        for name in names {
            let path = file(dir, name, TOKEN);
            if !same(&path, unless) && self.forget(&path).is_err() {
                return Ok(());
            }
        }
        std::fs::remove_dir_all(dir).map_err(durable::failed("remove", dir))
    }

    /// What failed after keys were made in `dir`: those of a token go with it, or are named. A key
    /// that the file `unless` leads to is another's, and stays.
    pub(crate) fn abandon(
        &self,
        dir: &Path,
        names: &[&str],
        unless: &Path,
        failed: CaError,
    ) -> CaError {
        let mut failed = failed;
        for name in names {
            let path = file(dir, name, TOKEN);
            if same(&path, unless) {
                continue;
            }
            if let Err(why) = self.forget(&path)
                && let Ok(Some((text, _))) = durable::read(&path)
            {
                let text = String::from_utf8_lossy(&text);
                let uri = text.lines().next().unwrap_or_default().to_owned();
                failed = orphaned(failed, uri, &why);
            }
        }
        failed
    }

    /// Keeps a key that was made elsewhere.
    pub(crate) fn keep(
        &self,
        secret: SecretKey,
        dir: &Path,
        name: &str,
    ) -> Result<Box<dyn Custody>, CaError> {
        let path = file(dir, name, KEY);
        match self.custody {
            KeyCustody::File => {
                durable::write(&path, secret.to_pem().as_bytes(), Readers::Owner)?;
            }
            KeyCustody::EncryptedFile => {
                let text = secret.to_sealed_pem(self.passphrase()?)?;
                durable::write(&path, text.as_bytes(), Readers::Owner)?;
            }
            KeyCustody::Pkcs11 => {
                let reason = "keys are made in the token and nowhere else: have a request of the server's signed";
                return Err(CaError::invalid("private key", "(not shown)", reason));
            }
        }
        Ok(Box::new(FileKey::from(secret)))
    }

    /// Opens a key. One that lies in the clear and should not is encrypted. Whether a token is
    /// there shows when it is used.
    ///
    /// # Errors
    /// [`CaError::Missing`], [`CaError::Exposed`], [`CaError::Locked`], [`CaError::Damaged`] and
    /// [`CaError::File`], each naming the file.
    pub(crate) fn open(&self, dir: &Path, name: &str) -> Result<Box<dyn Custody>, CaError> {
        let in_token = file(dir, name, TOKEN);
        if let Some((text, _)) = durable::read(&in_token)? {
            let damaged = || CaError::Damaged {
                path: in_token.clone(),
                problem: "holds no PKCS #11 URI with a public key behind it".to_owned(),
            };
            let (label, id, public) = read_reference(&text).ok_or_else(damaged)?;
            return match &self.token {
                Some(token) if token.label() == label => Ok(Box::new(token.key(id, public))),
                _ => Err(CaError::Locked {
                    path: in_token,
                    mend: format!(
                        "it is in the token {label:?}: set ca.pkcs11_module and ca.pkcs11_token"
                    ),
                }),
            };
        }
        let path = file(dir, name, KEY);
        let key = FileKey::open_with(&path, self.passphrase.as_ref())?;
        if self.custody == KeyCustody::EncryptedFile
            && let Some((text, _)) = durable::read(&path)?
            && !sealed::is_sealed(&text)
        {
            let text = key.secret.to_sealed_pem(self.passphrase()?)?;
            durable::write(&path, text.as_bytes(), Readers::Owner)?;
        }
        Ok(Box::new(key))
    }

    /// Whether keys of this kind can be made.
    pub(crate) fn makes(&self, kind: KeyKind) -> bool {
        match self.custody {
            KeyCustody::Pkcs11 => kind != KeyKind::Ed25519,
            KeyCustody::File | KeyCustody::EncryptedFile => !matches!(kind, KeyKind::Rsa(_)),
        }
    }

    /// Removes a key for good, by the file that leads to it.
    ///
    /// # Errors
    /// [`CaError::File`]; [`CaError::Custody`] where the key is in a token and that cannot be asked.
    pub(crate) fn forget(&self, path: &Path) -> Result<(), CaError> {
        if path.extension().is_some_and(|ending| ending == TOKEN)
            && let Some((text, _)) = durable::read(path)?
            && let Some((label, id, _)) = read_reference(&text)
            && let Some(token) = self.token.as_ref().filter(|token| token.label() == label)
        {
            token.destroy(&id)?;
        }
        match std::fs::remove_file(path) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                Err(durable::failed("remove", path)(error))
            }
            _ => Ok(()),
        }
    }

    fn token(&self) -> Result<&Token, CaError> {
        self.token.as_ref().ok_or_else(|| {
            let reason = "keys are kept in a token, and which is not said: set ca.pkcs11_module and ca.pkcs11_token";
            CaError::invalid("ca.key_custody", "pkcs11", reason)
        })
    }

    fn passphrase(&self) -> Result<&Passphrase, CaError> {
        self.passphrase.as_ref().ok_or_else(|| {
            let reason = "keys are encrypted, and there is no passphrase: set ca.key_passphrase_file, the variable MUSTER_CA_PASSPHRASE or the systemd credential muster-ca-passphrase";
            CaError::invalid("ca.key_custody", "encrypted-file", reason)
        })
    }
}

/// An error, and a key that was made and could not be removed.
fn orphaned(failed: CaError, uri: String, why: &dyn fmt::Display) -> CaError {
    CaError::Orphaned {
        failed: Box::new(failed),
        uri,
        why: why.to_string(),
    }
}

/// Whether two files lead to one key.
fn same(one: &Path, other: &Path) -> bool {
    match (durable::read(one), durable::read(other)) {
        (Ok(Some((one, _))), Ok(Some((other, _)))) => *one == *other,
        _ => false,
    }
}

fn file(dir: &Path, name: &str, ending: &str) -> PathBuf {
    dir.join(format!("{name}.{ending}"))
}

fn read_reference(text: &[u8]) -> Option<(String, Vec<u8>, PublicKey)> {
    let text = std::str::from_utf8(text).ok()?;
    let (uri, public) = text.split_once('\n')?;
    let (label, id) = token::read_uri(uri)?;
    let (_, public) = parse_x509_pem(public.as_bytes()).ok()?;
    Some((label, id, PublicKey::from_der(&public.contents).ok()?))
}

/// The file that leads to a key, where there is one.
pub(crate) fn find(dir: &Path, name: &str) -> Result<Option<PathBuf>, CaError> {
    for ending in [TOKEN, KEY] {
        let path = file(dir, name, ending);
        if durable::read(&path)?.is_some() {
            return Ok(Some(path));
        }
    }
    Ok(None)
}

/// Copies the file that leads to a key to another directory and name.
pub(crate) fn copy(from: &Path, dir: &Path, name: &str) -> Result<(), CaError> {
    let Some((text, _)) = durable::read(from)? else {
        return Err(CaError::Missing {
            path: from.to_owned(),
        });
    };
    let ending = from.extension().and_then(|ending| ending.to_str());
    let to = file(dir, name, ending.unwrap_or(KEY));
    durable::write(&to, &text, Readers::Owner)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::path::Path;

    fn keyring(custody: KeyCustody, passphrase: Option<&str>) -> Keyring {
        Keyring {
            custody,
            passphrase: passphrase.map(|text| Passphrase::new(text.as_bytes()).unwrap()),
            token: None,
        }
    }

    #[test]
    fn an_encrypted_file_opens_under_its_passphrase_alone() {
        let dir = tempfile::tempdir().unwrap();
        let own = keyring(KeyCustody::EncryptedFile, Some("a long passphrase"));
        let made = own.make(dir.path(), "issuing", KeyKind::P256).unwrap();
        let opened = own.open(dir.path(), "issuing").unwrap();
        assert_eq!(made.public_key(), opened.public_key());
        let text = std::fs::read_to_string(dir.path().join("issuing.key")).unwrap();
        assert!(text.contains("ENCRYPTED PRIVATE KEY"));
        for wrong in [None, Some("another passphrase")] {
            let error = keyring(KeyCustody::EncryptedFile, wrong)
                .open(dir.path(), "issuing")
                .map(drop)
                .unwrap_err();
            assert!(matches!(error, CaError::Locked { .. }), "{error}");
            assert!(error.to_string().contains("ca.key_passphrase_file"));
        }
        let error = keyring(KeyCustody::EncryptedFile, None).make(dir.path(), "x", KeyKind::P256);
        assert!(
            error
                .map(drop)
                .unwrap_err()
                .to_string()
                .contains("no passphrase")
        );
        assert!(
            keyring(KeyCustody::Pkcs11, None)
                .make(dir.path(), "x", KeyKind::P256)
                .is_err()
        );
        assert!(!dir.path().join("x.key").exists());
    }

    #[test]
    fn a_key_in_the_clear_is_encrypted_when_that_is_asked_for() {
        let dir = tempfile::tempdir().unwrap();
        let made = Keyring::default()
            .make(dir.path(), "root", KeyKind::P256)
            .unwrap();
        let own = keyring(KeyCustody::EncryptedFile, Some("a long passphrase"));
        let opened = own.open(dir.path(), "root").unwrap();
        assert_eq!(made.public_key(), opened.public_key());
        assert!(Keyring::default().open(dir.path(), "root").is_err());
        own.open(dir.path(), "root").unwrap();
    }

    #[test]
    fn references_into_tokens() {
        let dir = tempfile::tempdir().unwrap();
        let key = SecretKey::generate(KeyKind::P256).unwrap();
        let public = pem::encode("PUBLIC KEY", key.public().der());
        let write = |text: String| std::fs::write(dir.path().join("a.pkcs11"), text).unwrap();
        let open = |keyring: &Keyring| keyring.open(dir.path(), "a").map(drop).unwrap_err();
        let uri = "pkcs11:token=my%20token;id=%01%FF;type=private";
        write(format!("{uri}\n{}", public.as_str()));
        let said = open(&Keyring::default()).to_string();
        assert!(
            said.contains("my token") && said.contains("ca.pkcs11_module"),
            "{said}"
        );
        let token = Token::new(
            "/no/such.so".into(),
            "my token".to_owned(),
            String::new().into(),
        );
        let own = Keyring {
            token: Some(token),
            ..Keyring::default()
        };
        let opened = own.open(dir.path(), "a").unwrap();
        assert_eq!(opened.public_key(), key.public());
        let failed = opened.sign(b"x").unwrap_err().to_string();
        assert!(failed.contains("/no/such.so"), "{failed}");
        assert!(opened.ready().is_err());
        for bad in ["", uri, "pkcs11:id=%01\n", "x\n"] {
            write(format!(
                "{bad}{}",
                if bad.ends_with('\n') {
                    public.as_str()
                } else {
                    ""
                }
            ));
            assert!(matches!(open(&own), CaError::Damaged { .. }), "{bad:?}");
        }
        assert_eq!(
            find(dir.path(), "a").unwrap().as_deref(),
            Some(Path::new(&dir.path().join("a.pkcs11")))
        );
    }
}
