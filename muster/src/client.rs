//! The operator's end of the API: finds the server, proves who it is, signs each request (SigV4), reads the answer.

use crate::credentials::Credentials;
use anyhow::{Context as _, anyhow, bail};
use aws_sigv4::{
    http_request::{SignableBody, SignableRequest, SigningSettings, sign},
    sign::v4,
};
use bytes::Bytes;
use http::{Method, Request, StatusCode, header};
use http_body_util::{BodyExt as _, Full, Limited};
use hyper_util::rt::TokioIo;
use rustls::{ClientConfig, RootCertStore, pki_types::ServerName};
use serde_json::Value;
use std::{
    net::{Ipv4Addr, Ipv6Addr, SocketAddr},
    path::Path,
    sync::Arc,
    time::{Duration, SystemTime},
};
use tokio::net::{TcpStream, lookup_host};

/// An answer longer than this is not one of ours.
const ANSWER_LIMIT_BYTES: usize = 64 * 1024 * 1024;
/// A server that does not take the connection within this is not there.
const CONNECT_LIMIT: Duration = Duration::from_secs(10);
/// The region requests are signed for; the server takes any.
const SIGNING_REGION: &str = "local";

/// Where the server is and what speaks for the operator there.
pub(crate) struct Client {
    host: String,
    port: u16,
    credentials: Credentials,
    tls: Arc<ClientConfig>,
    /// How the server was found, for sentences.
    found: String,
    /// Who is to mend it where the server knows no such operator, and how.
    stranger: String,
}

impl Client {
    /// The server whose data directory is on this machine.
    pub(crate) fn local(data: &Path) -> anyhow::Result<Self> {
        let endpoints = data.join("run/endpoints.json");
        let start = format!("start one with `muster serve --data {}`", data.display());
        let text = match std::fs::read_to_string(&endpoints) {
            Ok(text) => text,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
                bail!(
                    "no server runs on data directory {} (it has no run/endpoints.json): {start}, or name one with --server URL --credentials FILE",
                    data.display()
                )
            }
            Err(error) => {
                return Err(error).with_context(|| format!("read {}", endpoints.display()));
            }
        };
        let parsed: Value = serde_json::from_str(&text)
            .with_context(|| format!("{} is not what a server writes", endpoints.display()))?;
        let https = parsed
            .get("https")
            .and_then(Value::as_str)
            .with_context(|| format!("{} names no https endpoint", endpoints.display()))?;
        let file = data.join("operators/admin.credentials");
        let credentials = Credentials::read(&file).with_context(|| {
            format!("verbs on --data speak for the operator admin, whose credentials are not in {}: where admin was deleted, name your own file with --credentials FILE", file.display())
        })?;
        let stranger = format!(
            "the server knows no operator with the credentials in {}: where admin was deleted or has other keys, name your own file with --credentials FILE (an admin makes one with `muster operator create`)",
            file.display()
        );
        Self::new(
            &format!("https://{https}"),
            credentials,
            endpoints.display().to_string(),
            stranger,
        )
    }

    /// A server elsewhere.
    pub(crate) fn remote(server: Option<&str>, credentials: &Path) -> anyhow::Result<Self> {
        let read = Credentials::read(credentials)?;
        let url = server.map(str::to_owned).or_else(|| read.endpoint.clone()).with_context(|| {
            format!("credentials file {} names no muster_endpoint: say where the server is with --server https://HOST:PORT", credentials.display())
        })?;
        let file = credentials.display().to_string();
        let stranger = format!(
            "the server knows no operator with the credentials in {file}: it was deleted or has other keys, or they are another server's (an admin makes new ones with `muster operator rotate` or `create`)"
        );
        Self::new(&url, read, file, stranger)
    }

    fn new(
        url: &str,
        credentials: Credentials,
        found: String,
        stranger: String,
    ) -> anyhow::Result<Self> {
        let uri: http::Uri = url
            .parse()
            .with_context(|| format!("server URL {url:?}: https://HOST:PORT"))?;
        let (Some("https"), Some(host)) = (uri.scheme_str(), uri.host()) else {
            bail!("server URL {url:?}: it must be https://HOST:PORT; nothing is sent without TLS");
        };
        let mut roots = RootCertStore::empty();
        roots
            .add(credentials.root.clone().into())
            .with_context(|| {
                format!("muster_root ({found}) is not a certificate that can be trusted")
            })?;
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let tls = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .context("TLS 1.3 and 1.2 with aws-lc-rs")?
            .with_root_certificates(roots)
            .with_no_client_auth();
        Ok(Client {
            host: host
                .trim_start_matches('[')
                .trim_end_matches(']')
                .to_owned(),
            port: uri.port_u16().unwrap_or(8443),
            credentials,
            tls: Arc::new(tls),
            found,
            stranger,
        })
    }

    /// Sends one request and returns the JSON it is answered with (`Null` for an empty answer).
    pub(crate) fn call(
        &self,
        method: Method,
        path_and_query: &str,
        body: Option<&Value>,
    ) -> anyhow::Result<Value> {
        let body = match body {
            Some(value) => Bytes::from(serde_json::to_vec(value).context("request body")?),
            None => Bytes::new(),
        };
        self.send(method, path_and_query, body)
    }

    /// Reads a list page by page to its end.
    pub(crate) fn pages(&self, path_and_query: &str, list: &str) -> anyhow::Result<Vec<Value>> {
        let mut all = Vec::new();
        let mut next: Option<String> = None;
        loop {
            let joint = if path_and_query.contains('?') {
                '&'
            } else {
                '?'
            };
            let page = match &next {
                Some(token) => {
                    // AWS names the token of the policy lists otherwise.
                    let name = if path_and_query.starts_with("/policies") {
                        "marker"
                    } else {
                        "nextToken"
                    };
                    self.call(
                        Method::GET,
                        &format!("{path_and_query}{joint}{name}={}", encode(token)),
                        None,
                    )?
                }
                None => self.call(Method::GET, path_and_query, None)?,
            };
            all.extend(
                page.get(list)
                    .and_then(Value::as_array)
                    .cloned()
                    .unwrap_or_default(),
            );
            let token = ["nextToken", "nextMarker"]
                .iter()
                .find_map(|key| page.get(*key)?.as_str());
            next = token.map(str::to_owned);
            if next.is_none() {
                return Ok(all);
            }
        }
    }

    /// As [`Self::call`] with a body that is not JSON.
    pub(crate) fn send(
        &self,
        method: Method,
        path_and_query: &str,
        body: Bytes,
    ) -> anyhow::Result<Value> {
        runtime()?.block_on(self.exchange(method, path_and_query, body))
    }

    /// Reads what a server that may have gone away meanwhile has at a path.
    pub(crate) fn get_within(
        &self,
        limit: Duration,
        path_and_query: &str,
    ) -> anyhow::Result<Value> {
        let asked = self.exchange(Method::GET, path_and_query, Bytes::new());
        let answer = async { tokio::time::timeout(limit, asked).await };
        runtime()?.block_on(answer).map_err(|_| {
            anyhow!(
                "no answer from {} within {} s",
                self.place(),
                limit.as_secs()
            )
        })?
    }

    async fn exchange(
        &self,
        method: Method,
        path_and_query: &str,
        body: Bytes,
    ) -> anyhow::Result<Value> {
        let request = self.signed(method, path_and_query, body)?;
        let stream = self.connect().await?;
        let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream))
            .await
            .context("begin HTTP")?;
        let driver = tokio::spawn(connection);
        let response = sender
            .send_request(request)
            .await
            .with_context(|| format!("no answer from {}", self.place()))?;
        let status = response.status();
        let error_type = response
            .headers()
            .get("x-amzn-errortype")
            .and_then(|value| value.to_str().ok())
            .map(|value| value.split(':').next().unwrap_or(value).to_owned());
        let bytes = Limited::new(response.into_body(), ANSWER_LIMIT_BYTES)
            .collect()
            .await
            .map_err(|error| anyhow!("answer of {} broke off: {error}", self.place()))?
            .to_bytes();
        driver.abort();
        answer(status, error_type, &bytes, &self.stranger)
    }

    fn place(&self) -> String {
        format!("{}:{}", self.host, self.port)
    }

    fn signed(
        &self,
        method: Method,
        path_and_query: &str,
        body: Bytes,
    ) -> anyhow::Result<Request<Full<Bytes>>> {
        let host = if self.host.contains(':') {
            format!("[{}]:{}", self.host, self.port)
        } else {
            self.place()
        };
        let mut request = Request::builder()
            .method(method)
            .uri(path_and_query)
            .header(header::HOST, &host)
            .header(header::CONTENT_LENGTH, body.len())
            .body(Full::new(body.clone()))
            .with_context(|| format!("request path {path_and_query:?}"))?;
        let identity = aws_credential_types::Credentials::new(
            &self.credentials.access_key,
            &self.credentials.secret_key,
            None,
            None,
            "muster",
        )
        .into();
        let mut settings = SigningSettings::default();
        settings.payload_checksum_kind = aws_sigv4::http_request::PayloadChecksumKind::XAmzSha256;
        let params = v4::SigningParams::builder()
            .identity(&identity)
            .region(SIGNING_REGION)
            .name("iot")
            .time(SystemTime::now())
            .settings(settings)
            .build()
            .context("signing parameters")?
            .into();
        let url = format!("https://{host}{path_and_query}");
        let headers = [("host", host.as_str())];
        let signable = SignableRequest::new(
            request.method().as_str(),
            url,
            headers.into_iter(),
            SignableBody::Bytes(&body),
        )
        .context("prepare the signature")?;
        let (instructions, _signature) = sign(signable, &params)
            .context("sign the request")?
            .into_parts();
        instructions.apply_to_request_http1x(&mut request);
        Ok(request)
    }

    async fn connect(&self) -> anyhow::Result<tokio_rustls::client::TlsStream<TcpStream>> {
        let tcp = self.dial().await?;
        tcp.set_nodelay(true).context("TCP_NODELAY")?;
        let name = ServerName::try_from(self.host.clone())
            .with_context(|| format!("server name {:?}", self.host))?;
        let connector = tokio_rustls::TlsConnector::from(Arc::clone(&self.tls));
        connector
            .connect(name, tcp)
            .await
            .map_err(|error| self.explain_tls(error))
    }

    /// The name is tried as the world knows it, then on this machine: a server may be called what its devices call
    /// it without this machine's resolver knowing. Who answers must prove itself either way.
    async fn dial(&self) -> anyhow::Result<TcpStream> {
        let mut candidates: Vec<SocketAddr> =
            match lookup_host((self.host.as_str(), self.port)).await {
                Ok(found) => found.collect(),
                Err(_) => Vec::new(),
            };
        candidates.push((Ipv4Addr::LOCALHOST, self.port).into());
        candidates.push((Ipv6Addr::LOCALHOST, self.port).into());
        let mut last = None;
        for address in candidates {
            match tokio::time::timeout(CONNECT_LIMIT, TcpStream::connect(address)).await {
                Ok(Ok(stream)) => return Ok(stream),
                Ok(Err(error)) => last = Some(error.to_string()),
                Err(_) => last = Some(format!("no answer within {} s", CONNECT_LIMIT.as_secs())),
            }
        }
        bail!(
            "no server answers at {} (from {}): {}; start it with `muster serve`, or name another with --server and --credentials",
            self.place(),
            self.found,
            last.unwrap_or_default()
        )
    }

    fn explain_tls(&self, error: std::io::Error) -> anyhow::Error {
        use rustls::CertificateError as Bad;
        let inner = error
            .get_ref()
            .and_then(|inner| inner.downcast_ref::<rustls::Error>());
        match inner {
            Some(rustls::Error::InvalidCertificate(Bad::UnknownIssuer | Bad::BadSignature)) => {
                anyhow!(
                    "the server at {} is not the one these credentials are for (its certificate does not descend from the root in {}): use the credentials file of that server",
                    self.place(),
                    self.found
                )
            }
            Some(rustls::Error::InvalidCertificate(
                Bad::NotValidForName | Bad::NotValidForNameContext { .. },
            )) => anyhow!(
                "the certificate of the server at {} does not carry the name {}: start the server with --name {}, or dial a name it has",
                self.place(),
                self.host,
                self.host
            ),
            Some(rustls::Error::InvalidCertificate(
                Bad::NotValidYet
                | Bad::NotValidYetContext { .. }
                | Bad::Expired
                | Bad::ExpiredContext { .. },
            )) => anyhow!(
                "the certificate of the server at {} is not valid at this machine's time: set the clock right here or there ({error})",
                self.place()
            ),
            _ => anyhow!("TLS with {}: {error}", self.place()),
        }
    }
}

/// The server has read the request and will not do it.
#[derive(Debug, thiserror::Error)]
#[error("{message} ({kind})")]
pub(crate) struct Refused {
    /// AWS's name of the error.
    pub(crate) kind: String,
    /// The server's sentence.
    pub(crate) message: String,
}

/// The server knows no operator with these credentials.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
struct Stranger(String);

/// Whether asking again later is of no use: the server has read the request, and it is not that it has too much to do.
pub(crate) fn is_for_good(error: &anyhow::Error) -> bool {
    let busy = [
        "InternalFailureException",
        "ServiceUnavailableException",
        "ThrottlingException",
    ];
    let refused = error.downcast_ref::<Refused>();
    refused.is_some_and(|refused| !busy.contains(&&*refused.kind)) || error.is::<Stranger>()
}

fn runtime() -> anyhow::Result<tokio::runtime::Runtime> {
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .context("start the runtime")
}

fn answer(
    status: StatusCode,
    error_type: Option<String>,
    bytes: &[u8],
    stranger: &str,
) -> anyhow::Result<Value> {
    let body = if bytes.is_empty() {
        Value::Null
    } else {
        serde_json::from_slice(bytes).with_context(|| format!("answer {status} is not JSON"))?
    };
    if status.is_success() {
        return Ok(body);
    }
    let message = ["message", "Message"]
        .iter()
        .find_map(|key| body.get(*key)?.as_str())
        .unwrap_or("no reason given");
    match error_type {
        Some(kind)
            if matches!(
                &*kind,
                "UnrecognizedClientException" | "SignatureDoesNotMatch"
            ) =>
        {
            Err(Stranger(format!("{message} ({kind}): {stranger}")).into())
        }
        Some(kind) => Err(Refused {
            kind,
            message: message.to_owned(),
        }
        .into()),
        None => bail!("{message} (HTTP {status})"),
    }
}

/// A path segment or query value, percent-encoded.
pub(crate) fn encode(text: &str) -> String {
    percent_encoding::utf8_percent_encode(text, SEGMENT).to_string()
}

/// Everything but RFC 3986's unreserved characters.
const SEGMENT: &percent_encoding::AsciiSet = &percent_encoding::NON_ALPHANUMERIC
    .remove(b'-')
    .remove(b'_')
    .remove(b'.')
    .remove(b'~');

#[cfg(test)]
mod tests {
    use super::*;
    use ca::{Authority, AuthorityConfig};

    #[test]
    fn the_hybrid_group_is_negotiated() {
        let dir = tempfile::tempdir().unwrap();
        let now = SystemTime::now();
        let config = AuthorityConfig {
            name: "test".into(),
            public_url: "http://localhost:8880".into(),
        };
        let authority = Authority::open_or_create(&dir.path().join("ca"), config, now).unwrap();
        let credentials = Credentials {
            access_key: "key".into(),
            secret_key: "secret".into(),
            endpoint: None,
            root: authority.root_der().to_vec(),
        };
        let client = Client::new(
            "https://localhost:8443",
            credentials,
            "here".into(),
            String::new(),
        )
        .unwrap();
        let names = ["localhost".to_owned()];
        let identity = authority
            .server_identity(&dir.path().join("tls"), &names, now)
            .unwrap();
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let server = rustls::ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(identity.chain(), identity.private_key())
            .unwrap();
        let mut server = rustls::ServerConnection::new(Arc::new(server)).unwrap();
        let name = "localhost".try_into().unwrap();
        let mut client = rustls::ClientConnection::new(client.tls, name).unwrap();
        while client.is_handshaking() || server.is_handshaking() {
            let mut wire = Vec::new();
            client.write_tls(&mut wire).unwrap();
            server.read_tls(&mut wire.as_slice()).unwrap();
            server.process_new_packets().unwrap();
            let mut wire = Vec::new();
            server.write_tls(&mut wire).unwrap();
            client.read_tls(&mut wire.as_slice()).unwrap();
            client.process_new_packets().unwrap();
        }
        let group = client.negotiated_key_exchange_group().unwrap().name();
        assert_eq!(group, rustls::NamedGroup::X25519MLKEM768);
    }
}
