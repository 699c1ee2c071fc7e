//! Asks a pre-provisioning hook over HTTPS: one POST of JSON, one JSON answer, within its deadline; no redirect, no
//! proxy, no other trust than the template names (the server's own roots where it names none).

use fleet::provisioning::HookCaller;
use rustls::pki_types::CertificateDer;
use serde_json::Value;
use std::time::Duration;
use ureq::{
    Agent,
    tls::{Certificate, PemItem, RootCerts, TlsConfig, TlsProvider, parse_pem},
};

/// Longest answer that is read.
const ANSWER_LIMIT_BYTES: u64 = 256 * 1024;

/// Calls hooks.
pub(super) struct HttpsHook {
    own: OwnRoots,
}

/// The server's own roots, as of now.
type OwnRoots = Box<dyn Fn() -> Vec<CertificateDer<'static>> + Send + Sync>;

impl HttpsHook {
    /// Hooks that name no roots of their own are trusted by these.
    pub(super) fn new(
        own: impl Fn() -> Vec<CertificateDer<'static>> + Send + Sync + 'static,
    ) -> Self {
        HttpsHook { own: Box::new(own) }
    }

    fn roots(&self, pem: Option<&str>) -> Result<RootCerts, String> {
        let Some(pem) = pem else {
            let own = (self.own)();
            let own = own.iter().map(|der| Certificate::from_der(der).to_owned());
            return Ok(RootCerts::new_with_certs(&own.collect::<Vec<_>>()));
        };
        let mut roots = Vec::new();
        for item in parse_pem(pem.as_bytes()) {
            match item {
                Ok(PemItem::Certificate(certificate)) => roots.push(certificate),
                Ok(_) => {}
                Err(error) => return Err(format!("the roots it is trusted by: {error}")),
            }
        }
        match roots.is_empty() {
            true => Err("the roots it is trusted by hold no certificate".to_owned()),
            false => Ok(RootCerts::new_with_certs(&roots)),
        }
    }
}

impl HookCaller for HttpsHook {
    fn call(
        &self,
        url: &str,
        roots: Option<&str>,
        body: &Value,
        deadline: Duration,
    ) -> Result<Value, String> {
        let provider = std::sync::Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let tls = TlsConfig::builder()
            .provider(TlsProvider::Rustls)
            .unversioned_rustls_crypto_provider(provider)
            .root_certs(self.roots(roots)?)
            .build();
        let agent: Agent = Agent::config_builder()
            .tls_config(tls)
            .https_only(true)
            .max_redirects(0)
            .proxy(None)
            .http_status_as_error(false)
            .user_agent(concat!("muster/", env!("CARGO_PKG_VERSION")))
            .timeout_global(Some(deadline))
            .build()
            .new_agent();
        let mut answer = agent
            .post(url)
            .header("content-type", "application/json")
            .send(body.to_string())
            .map_err(|error| error.to_string())?;
        if answer.status().as_u16() != 200 {
            return Err(format!("it answered {}", answer.status()));
        }
        let text = answer
            .body_mut()
            .with_config()
            .limit(ANSWER_LIMIT_BYTES)
            .read_to_string()
            .map_err(|error| error.to_string())?;
        serde_json::from_str(&text).map_err(|error| format!("its answer is not JSON: {error}"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn roots_that_are_none_are_refused_before_anything_is_sent() {
        let hook = HttpsHook::new(|| vec![CertificateDer::from(vec![0x30, 0x00])]);
        for bad in ["", "no pem", "-----BEGIN CERTIFICATE-----\n"] {
            let error = hook
                .call(
                    "https://localhost:1/",
                    Some(bad),
                    &Value::Null,
                    Duration::from_secs(1),
                )
                .unwrap_err();
            assert!(error.contains("trusted by"), "{error}");
        }
    }
}
