//! The authority: keys and their custody, certificate profiles, requests, revocation lists.
//!
//! A root made once signs one issuing certificate; the issuing key signs everything else, by a
//! [`Profile`] that the caller names and a subject that the registry decided. What a request asks
//! for beyond its key is never believed, and what is signed is read back before it is handed out.
//! Pure apart from the authority's own directory: no network, no clock (time is an argument).
//! Above it, `fleet` knows whose certificate is alive, `broker` and `control` speak TLS with it.

mod authority;
mod blocked;
mod crl;
mod csr;
pub mod custody;
mod durable;
mod error;
pub mod est;
mod facts;
mod foreign;
mod identifier;
mod key_pair;
mod lint;
mod ocsp;
mod pem;
mod pointers;
mod profile;
mod public_key;
mod roca;
mod sealed;
mod secret_key;
mod server;
mod times;

pub use authority::{
    Authority, AuthorityConfig, Issued, IssuerNumber, IssuingPlan, Made, Plan, RootList,
    RootNumber, RootPlan, RootState, Successor, Terms, check_public_url, cross_sign,
    sign_issuing_request, sign_root_list,
};
pub use blocked::{BlockedKeys, BlockedKeysError};
pub use crl::{MAX_CRL_ENTRIES, RevocationList, RevocationReason, RevokedEntry};
pub use csr::{Csr, CsrError, MAX_CSR_BYTES, RequestedNames};
pub use custody::{KeyCustody, Keyring, Token, TokenSigner, token_of};
pub use error::CaError;
pub use facts::key_id;
pub use facts::{CertificateFacts, CertificateName, KeyUsages, MAX_CERTIFICATE_BYTES, NameValue};
pub use foreign::{ForeignAuthority, ForeignCertificate, ForeignError};
pub use identifier::{CertificateId, InvalidIdentifier, Serial};
pub use key_pair::KeyPair;
pub use ocsp::{CertificateState, MAX_OCSP_REQUEST_BYTES, OcspRefusal, OcspRequest, OcspResponder};
pub use pem::{certificate as certificate_pem, certificate_der, crl as crl_pem};
pub use pointers::{CrlShard, CrlShards, Pointers};
pub use profile::{
    DEVICE_VALIDITY, MAX_COMMON_NAME_CHARS, MAX_SERVER_NAMES, OCSP_RESPONDER_VALIDITY,
    OPERATOR_ORGANIZATION, OPERATOR_VALIDITY, Profile, SERVER_VALIDITY, Subject,
};
pub use public_key::{KeyKind, KeyRefused, PublicKey};
pub use sealed::Passphrase;
pub use secret_key::SecretKey;
pub use server::ServerIdentity;
