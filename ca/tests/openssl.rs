//! A foreign judge: OpenSSL's command line makes requests and verifies what is issued.
#![expect(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "a test may fail loudly, its helpers too"
)]

use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::time::{Duration, SystemTime};

use ca::{
    Authority, AuthorityConfig, CertificateFacts, Csr, CsrError, Issued, IssuerNumber, KeyKind,
    KeyPair, Profile, RevocationReason, RevokedEntry, Subject,
};
use tempfile::TempDir;

struct Judge {
    dir: TempDir,
    authority: Authority,
}

impl Judge {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let config = AuthorityConfig {
            name: "Judge".to_owned(),
            public_url: "http://localhost:8880".to_owned(),
        };
        let authority =
            Authority::open_or_create(&dir.path().join("ca"), config, SystemTime::now()).unwrap();
        Self { dir, authority }
    }

    fn run(&self, arguments: &str) -> Output {
        Command::new("openssl")
            .args(arguments.split_whitespace())
            .current_dir(self.dir.path())
            .output()
            .expect("the openssl command is installed")
    }

    /// Standard output and error of a command that must succeed.
    fn ok(&self, arguments: &str) -> String {
        let output = self.run(arguments);
        let text = [output.stdout, output.stderr].concat();
        let text = String::from_utf8_lossy(&text).into_owned();
        assert!(output.status.success(), "openssl {arguments}\n{text}");
        text
    }

    fn path(&self, file: &str) -> PathBuf {
        self.dir.path().join(file)
    }

    fn issue(&self, profile: Profile, name: &str, names: &[&str]) -> Issued {
        let key = KeyPair::generate().unwrap();
        let issued = self
            .authority
            .issue(
                profile,
                &subject(name, names),
                key.public(),
                SystemTime::now(),
            )
            .unwrap();
        std::fs::write(self.path("leaf.crt"), &issued.chain_pem).unwrap();
        std::fs::write(self.path("leaf.key"), key.to_pem().as_bytes()).unwrap();
        issued
    }

    /// Whether the last leaf verifies for a purpose.
    fn verifies(&self, more: &str) -> bool {
        let arguments = format!(
            "verify -x509_strict -CAfile ca/root.crt -untrusted ca/issuing.crt {more} leaf.crt"
        );
        self.run(&arguments).status.success()
    }

    /// A request made by OpenSSL with the key options given.
    fn request(&self, options: &str) -> Vec<u8> {
        self.ok(&format!(
            "req -new -nodes -keyout req.key -out req.csr -subj /CN=liar {options}"
        ));
        std::fs::read(self.path("req.csr")).unwrap()
    }
}

fn subject(common_name: &str, names: &[&str]) -> Subject {
    Subject {
        common_name: common_name.to_owned(),
        names: names.iter().map(|&name| name.to_owned()).collect(),
    }
}

#[test]
fn chains_verify_for_their_purpose_alone() {
    let judge = Judge::new();
    for (profile, names, purpose, other) in [
        (Profile::OcspResponder, &[][..], "ocsphelper", "sslclient"),
        (Profile::Device, &[][..], "sslclient", "sslserver"),
        (Profile::Operator, &[][..], "sslclient", "sslserver"),
        (
            Profile::Server,
            &["localhost", "10.0.0.1", "::1"][..],
            "sslserver",
            "sslclient",
        ),
    ] {
        judge.issue(profile, &"x".repeat(64), names);
        assert!(
            judge.verifies(&format!("-purpose {purpose}")),
            "{profile:?}"
        );
        assert!(!judge.verifies(&format!("-purpose {other}")), "{profile:?}");
    }
    for (name, covered) in [
        ("-verify_hostname localhost", true),
        ("-verify_hostname example.org", false),
        ("-verify_ip 10.0.0.1", true),
        ("-verify_ip ::1", true),
        ("-verify_ip 10.0.0.2", false),
    ] {
        assert_eq!(judge.verifies(name), covered, "{name}");
    }
    // The key fits, and OpenSSL reads its file.
    let from_key = judge.ok("pkey -in leaf.key -pubout");
    assert_eq!(from_key, judge.ok("x509 -in leaf.crt -pubkey -noout"));
    // The longest thing name still verifies.
    judge.issue(Profile::Device, &"y".repeat(128), &[]);
    assert!(judge.verifies("-purpose sslclient"));
}

#[test]
fn certificates_as_openssl_reads_them() {
    let judge = Judge::new();
    judge.issue(Profile::Device, "lamp-1", &[]);
    let text = judge.ok("x509 -in leaf.crt -noout -text");
    for part in [
        "Subject: CN = lamp-1",
        "CA:FALSE",
        "X509v3 Basic Constraints: critical",
        "X509v3 Key Usage: critical",
        "TLS Web Client Authentication",
        "URI:http://localhost:8880/crl/16/",
        "OCSP - URI:http://localhost:8880/ocsp",
        "CA Issuers - URI:http://localhost:8880/issuing.crt",
        "X509v3 Authority Key Identifier",
        "X509v3 Subject Key Identifier",
    ] {
        assert!(text.contains(part), "{part} in\n{text}");
    }
    assert!(!text.contains("Subject Alternative Name"));
    let text = judge.ok("x509 -in ca/issuing.crt -noout -text");
    assert!(text.contains("CA:TRUE, pathlen:0") && text.contains("Certificate Sign, CRL Sign"));
    judge.issue(Profile::Operator, "ada", &[]);
    let text = judge.ok("x509 -in leaf.crt -noout -subject");
    assert_eq!(text.trim(), "subject=O = Muster operators, CN = ada");
}

#[test]
fn the_revocation_list_is_believed() {
    let judge = Judge::new();
    let now = SystemTime::now();
    let issued = judge.issue(Profile::Device, "lamp-1", &[]);
    let list = |entries: &[RevokedEntry], number| {
        let next = now + Duration::from_secs(86_400);
        let der = judge
            .authority
            .crl(IssuerNumber::FIRST, number, entries, now, next)
            .unwrap();
        std::fs::write(judge.path("0.crl"), der).unwrap();
        judge.ok("crl -inform DER -in 0.crl -out crl.pem");
        judge.ok("crl -inform DER -in 0.crl -noout -text -CAfile ca/issuing.crt")
    };
    let text = list(&[], 1);
    assert!(
        text.contains("No Revoked Certificates") && text.contains("verify OK"),
        "{text}"
    );
    assert!(judge.verifies("-crl_check -CRLfile crl.pem"));

    let text = list(
        &[RevokedEntry {
            serial: issued.serial.clone(),
            revoked_at: now,
            reason: RevocationReason::KeyCompromise,
        }],
        2,
    );
    assert!(
        text.contains("Key Compromise") && text.contains("verify OK"),
        "{text}"
    );
    assert!(
        text.contains(&issued.serial.to_string().to_uppercase()),
        "{text}"
    );
    assert!(text.contains("X509v3 CRL Number") && text.contains("Authority Key Identifier"));
    assert!(!judge.verifies("-crl_check -CRLfile crl.pem"));
    judge.issue(Profile::Device, "lamp-2", &[]);
    assert!(
        judge.verifies("-crl_check -CRLfile crl.pem"),
        "others are untouched"
    );
}

#[test]
fn requests_of_accepted_keys_become_certificates() {
    let judge = Judge::new();
    for (options, kind) in [
        ("-newkey ec -pkeyopt ec_paramgen_curve:P-256", KeyKind::P256),
        ("-newkey ec -pkeyopt ec_paramgen_curve:P-384", KeyKind::P384),
        ("-newkey ed25519", KeyKind::Ed25519),
        ("-newkey rsa:2048", KeyKind::Rsa(2048)),
        (
            "-newkey rsa:2048 -pkeyopt rsa_keygen_pubexp:3",
            KeyKind::Rsa(2048),
        ),
        (
            "-newkey rsa:2048 -sigopt rsa_padding_mode:pss -sigopt rsa_pss_saltlen:32",
            KeyKind::Rsa(2048),
        ),
    ] {
        let pem = judge.request(options);
        let csr = Csr::parse(&pem).unwrap_or_else(|error| panic!("{options}: {error}"));
        assert_eq!(csr.public_key().kind(), kind, "{options}");
        judge.ok("req -in req.csr -outform DER -out req.der");
        assert_eq!(
            Csr::parse(&std::fs::read(judge.path("req.der")).unwrap()).unwrap(),
            csr
        );
        let issued = judge
            .authority
            .issue(
                Profile::Device,
                &subject("lamp-1", &[]),
                csr.public_key(),
                SystemTime::now(),
            )
            .unwrap();
        std::fs::write(judge.path("leaf.crt"), issued.pem).unwrap();
        assert!(judge.verifies("-purpose sslclient"), "{options}");
    }
}

#[test]
fn other_keys_are_refused_by_name() {
    let judge = Judge::new();
    judge.ok("dsaparam -out dsa.pem -genkey 1024");
    for (options, named) in [
        ("-newkey rsa:1024", "RSA 1024"),
        ("-newkey ec -pkeyopt ec_paramgen_curve:P-521", "P-521"),
        (
            "-newkey ec -pkeyopt ec_paramgen_curve:secp256k1",
            "1.3.132.0.10",
        ),
        (
            "-newkey ec -pkeyopt ec_paramgen_curve:P-256 -pkeyopt ec_param_enc:explicit",
            "named curve",
        ),
        ("-key dsa.pem", "DSA"),
        ("-newkey ed448", "Ed448"),
        ("-newkey rsa-pss -pkeyopt rsa_keygen_bits:2048", "PSS"),
    ] {
        let error = Csr::parse(&judge.request(options)).unwrap_err();
        assert!(matches!(error, CsrError::Key(_)), "{options}: {error}");
        let text = error.to_string();
        assert!(
            text.contains(named) && text.contains("Ed25519 and RSA 2048"),
            "{text}"
        );
    }
    let error = Csr::parse(&judge.request("-newkey rsa:2048 -sha1")).unwrap_err();
    assert!(
        matches!(error, CsrError::SignatureAlgorithm { .. }),
        "{error}"
    );
}

#[test]
fn a_request_changed_on_its_way_is_refused() {
    let judge = Judge::new();
    judge.request("-newkey ec -pkeyopt ec_paramgen_curve:P-256");
    judge.ok("req -in req.csr -outform DER -out req.der");
    let mut der = std::fs::read(judge.path("req.der")).unwrap();
    let name = der.windows(4).position(|part| part == b"liar").unwrap();
    der[name] = b'L';
    assert_eq!(Csr::parse(&der), Err(CsrError::Signature));
}

#[test]
fn nothing_but_the_key_of_a_request_is_believed() {
    let judge = Judge::new();
    let key = "-newkey ec -pkeyopt ec_paramgen_curve:P-256";
    for extension in [
        "basicConstraints=critical,CA:TRUE",
        "subjectAltName=DNS:localhost,IP:127.0.0.1",
        "extendedKeyUsage=serverAuth",
        "keyUsage=critical,keyCertSign,cRLSign",
        "1.2.3.4=critical,ASN1:UTF8String:odd",
    ] {
        let csr = Csr::parse(&judge.request(&format!("{key} -addext {extension}"))).unwrap();
        let issued = judge
            .authority
            .issue(
                Profile::Device,
                &subject("lamp-1", &[]),
                csr.public_key(),
                SystemTime::now(),
            )
            .unwrap();
        let facts = CertificateFacts::read(&issued.der).unwrap();
        assert_eq!(facts.profile(), Some(Profile::Device), "{extension}");
        assert_eq!(
            facts.subject_common_names,
            ["lamp-1"],
            "not the request's subject"
        );
        assert!(facts.names.is_empty() && !facts.is_ca, "{extension}");
        std::fs::write(judge.path("leaf.crt"), issued.pem).unwrap();
        assert!(
            !judge
                .ok("x509 -in leaf.crt -noout -text")
                .contains("1.2.3.4")
        );
    }
}

#[test]
fn what_a_leaf_signs_is_nothing() {
    let judge = Judge::new();
    judge.issue(Profile::Device, "lamp-1", &[]);
    std::fs::rename(judge.path("leaf.crt"), judge.path("middle.crt")).unwrap();
    judge.ok("req -new -nodes -newkey ec -pkeyopt ec_paramgen_curve:P-256 -keyout e.key -subj /CN=lamp-2 -out e.csr");
    judge.ok("x509 -req -in e.csr -CA middle.crt -CAkey leaf.key -out leaf.crt -days 1");
    assert!(!judge.verifies("-untrusted middle.crt"));
    let der = judge.run("x509 -in leaf.crt -outform DER").stdout;
    assert!(!judge.authority.signed(&der));
    assert!(Path::new(&judge.path("leaf.crt")).exists());
}
