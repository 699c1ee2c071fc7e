//! A repository over HTTP. Nothing that comes from it is believed, so plain `http://` will do.

use std::io::Read;
use std::path::Path;

use ota::tuf::{Repository, TufError};
use percent_encoding::{AsciiSet, CONTROLS, utf8_percent_encode};
use ureq::tls::{Certificate, PemItem, RootCerts, TlsConfig, TlsProvider, parse_pem};
use ureq::unversioned::resolver::DefaultResolver;
use ureq::unversioned::transport::{Connector as _, TcpConnector};
use ureq::{Agent, Body};

use super::Source;
use crate::dial::Tls;
use crate::https::Timeouts;
use crate::pace::{self, Paced};

/// What may not stand in a URL's path. TARGETPATH is a path-relative URL (TUF 1.0 §4.5), so `%` and `?`
/// are its own.
const UNFIT: &AsciiSet = &CONTROLS
    .add(b' ')
    .add(b'"')
    .add(b'#')
    .add(b'<')
    .add(b'>')
    .add(b'\\')
    .add(b'^')
    .add(b'`')
    .add(b'{')
    .add(b'|')
    .add(b'}');

/// Files below one URL.
pub(super) struct Remote {
    agent: Agent,
    base: String,
}

impl Remote {
    /// Files below `base`. For `https://` there must be a `ca` or an identity to judge the server by.
    pub(super) fn new(base: &str, source: &Source) -> Result<Self, TufError> {
        let fault = |why: String| TufError::Fetch { why };
        let secure = match base.split_once("://") {
            Some(("http", rest)) if !rest.is_empty() => false,
            Some(("https", rest)) if !rest.is_empty() => true,
            _ => {
                return Err(fault(format!(
                    "`{}` is no http:// or https:// URL",
                    base.escape_debug()
                )));
            }
        };
        let mut tls = TlsConfig::builder()
            .provider(TlsProvider::Rustls)
            .unversioned_rustls_crypto_provider(std::sync::Arc::new(
                rustls::crypto::aws_lc_rs::default_provider(),
            ));
        match &source.ca {
            _ if source.identity.is_some() => {}
            Some(ca) => tls = tls.root_certs(RootCerts::new_with_certs(&certificates(ca)?)),
            None if secure => {
                return Err(fault(format!(
                    "{base}: give the certificates its server is known by with --ca PEM, or who asks with --identity DIR"
                )));
            }
            None => {}
        }
        let timeouts = Timeouts::default();
        let config = Agent::config_builder()
            .tls_config(tls.build())
            .max_redirects(0)
            .proxy(None)
            .http_status_as_error(false)
            .user_agent(concat!("muster-agent/", env!("CARGO_PKG_VERSION")))
            .timeout_connect(Some(timeouts.connect))
            .timeout_recv_response(Some(timeouts.answer))
            .timeout_per_read(Some(timeouts.read))
            .max_idle_connections(1)
            .build();
        let agent = match &source.identity {
            Some(identity) if secure => {
                let dial = TcpConnector::default().chain(Tls(identity.tls()));
                Agent::with_parts(config, dial, DefaultResolver::default())
            }
            _ => config.new_agent(),
        };
        let mut base = base.to_owned();
        if !base.ends_with('/') {
            base.push('/');
        }
        Ok(Self { agent, base })
    }

    /// A target's bytes as they come. Whoever reads them stops at its length.
    pub(super) fn target(&mut self, path: &str) -> Result<impl Read + use<>, TufError> {
        let path = utf8_percent_encode(path, UNFIT).to_string();
        let body = self.get(&path)?.ok_or(TufError::Missing { file: path })?;
        let body = body.into_with_config().limit(u64::MAX).reader();
        Ok(Paced::new(body, Timeouts::default().least))
    }

    /// `None` where there is no such file. Stores of the kind of S3 say 403 where listing is not allowed.
    fn get(&mut self, path: &str) -> Result<Option<Body>, TufError> {
        let url = format!("{}{path}", self.base);
        let answer = self
            .agent
            .get(&url)
            .call()
            .map_err(|error| TufError::Fetch {
                why: format!("GET {url}: {error}"),
            })?;
        match answer.status().as_u16() {
            200 => Ok(Some(answer.into_body())),
            403 | 404 => Ok(None),
            status => Err(TufError::Fetch {
                why: format!("GET {url}: the server answered {status}"),
            }),
        }
    }
}

impl Repository for Remote {
    fn metadata(&mut self, file: &str, bound: u64) -> Result<Option<Vec<u8>>, TufError> {
        let Some(body) = self.get(file)? else {
            return Ok(None);
        };
        let body = body.into_with_config().limit(u64::MAX).reader();
        let least = Timeouts::default().document;
        let bytes = pace::read_all(body, bound.saturating_add(1), least).map_err(|error| {
            TufError::Fetch {
                why: format!("GET {}{file}: {error}", self.base),
            }
        })?;
        if bytes.len() as u64 > bound {
            return Err(TufError::TooLarge {
                what: format!("`{file}`"),
                bound,
            });
        }
        Ok(Some(bytes))
    }
}

fn certificates(path: &Path) -> Result<Vec<Certificate<'static>>, TufError> {
    let fault = |why: String| TufError::Fetch {
        why: format!("--ca {}: {why}", path.display()),
    };
    let pem = std::fs::read(path).map_err(|error| fault(error.to_string()))?;
    let mut found = Vec::new();
    for item in parse_pem(&pem) {
        if let PemItem::Certificate(certificate) = item.map_err(|error| fault(error.to_string()))? {
            found.push(certificate);
        }
    }
    if found.is_empty() {
        return Err(fault("it holds no certificate".into()));
    }
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_http_and_https_are_asked_and_https_with_a_ca() {
        let source = Source {
            metadata_dir: "m".into(),
            metadata_url: "http://h/".into(),
            ca: None,
            identity: None,
        };
        for (base, ok) in [
            ("http://localhost:1/m", true),
            ("http://localhost:1/m/", true),
            ("https://localhost/m", false),
            ("file:///etc", false),
            ("http://", false),
            ("localhost", false),
            ("", false),
        ] {
            assert_eq!(Remote::new(base, &source).is_ok(), ok, "{base}");
        }
        let remote = Remote::new("http://h/m", &source).unwrap();
        assert_eq!(remote.base, "http://h/m/");
    }

    #[test]
    fn a_target_path_is_a_url_already() {
        let url = |path| utf8_percent_encode(path, UNFIT).to_string();
        assert_eq!(url("a/b c#d.bin"), "a/b%20c%23d.bin");
        assert_eq!(url("a%20b?c"), "a%20b?c");
        assert_eq!(url("ä"), "%C3%A4");
    }
}
