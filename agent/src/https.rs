//! HTTPS to the server under the device's own certificate: documents and image ranges.

use std::io::Read;
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use rustls::ClientConfig;
use rustls::client::Resumption;
use ureq::http::Response;
use ureq::http::header::{AUTHORIZATION, CONTENT_RANGE, CONTENT_TYPE, RANGE, RETRY_AFTER};
use ureq::unversioned::resolver::DefaultResolver;
use ureq::unversioned::transport::{Connector as _, TcpConnector};
use ureq::{Agent, Body};

use crate::dial::Tls;
use crate::identity::Identity;
use crate::pace::{self, Least, Pace};
use crate::tls;

/// The largest document (trust root, manifest) that is read.
pub(crate) const DOCUMENT_BYTES_MAX: u64 = 8 << 20;

/// As much as is read of an answer to a request for a certificate.
const ENROLLED_BYTES_MAX: u64 = 64 << 10;

/// TLS sessions that are remembered for the next connection.
const SESSIONS_MAX: usize = 8;

/// How long each part of a request may take. A read that stalls ends; the download then goes on
/// from where it stood.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Timeouts {
    /// Dialling, TLS included.
    pub connect: Duration,
    /// From the request to the first byte of the answer.
    pub answer: Duration,
    /// Between two reads of a body.
    pub read: Duration,
    /// How much of an image must come at least.
    pub least: Least,
    /// How much of a document or a certificate must come at least: nobody can call off one that is being read.
    pub document: Least,
}

impl Default for Timeouts {
    fn default() -> Self {
        Self {
            connect: Duration::from_secs(15),
            answer: Duration::from_secs(30),
            read: Duration::from_secs(30),
            least: Least::default(),
            document: Least {
                within: Duration::from_secs(60),
                ..Least::default()
            },
        }
    }
}

/// What went wrong with a request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum HttpFault {
    /// Worth trying again: the network, or a server that is busy or down.
    Passing(String),
    /// The server has no such thing (404).
    NotFound(String),
    /// The server says no, or something no repetition mends.
    Final(String),
}

impl HttpFault {
    /// The words.
    #[must_use]
    pub(crate) fn words(&self) -> &str {
        match self {
            Self::Passing(words) | Self::NotFound(words) | Self::Final(words) => words,
        }
    }
}

/// Why there is no certificate (RFC 7030 §4.2.3).
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum CertificateFault {
    /// No answer came.
    Unanswered(HttpFault),
    /// The server said something else.
    Answered {
        /// HTTP's.
        status: u16,
        /// How long to wait before the next request, where it said so in seconds.
        retry_after: Option<Duration>,
        /// What it said to people.
        words: String,
    },
}

/// An answer with image bytes.
pub(crate) struct ImageAnswer {
    /// Offset of the first byte that will be read.
    pub start: u64,
    /// The whole image's size as the server has it, where it says so.
    pub total: Option<u64>,
    /// The bytes.
    pub body: Box<dyn Read>,
}

/// The device's HTTPS client.
#[derive(Clone)]
pub(crate) struct Client {
    /// Shared by all clones: a renewed certificate is every one's.
    agent: Arc<RwLock<Agent>>,
    host: String,
    port: u16,
    timeouts: Timeouts,
}

impl Client {
    /// A client of one server.
    #[must_use]
    pub(crate) fn new(identity: &Identity, host: &str, port: u16, timeouts: Timeouts) -> Self {
        Self::over(&identity.tls(), host, port, timeouts)
    }

    /// A client of one server, for whom `tls` speaks.
    pub(crate) fn over(tls: &ClientConfig, host: &str, port: u16, timeouts: Timeouts) -> Self {
        Self {
            agent: Arc::new(RwLock::new(agent(tls, timeouts))),
            host: host.to_string(),
            port,
            timeouts,
        }
    }

    /// From the next request on, this and all its clones are another identity.
    pub(crate) fn adopt(&self, identity: &Identity) {
        let fresh = agent(&identity.tls(), self.timeouts);
        *self.agent.write().unwrap_or_else(PoisonError::into_inner) = fresh;
    }

    /// That of an answer which begins now.
    pub(crate) fn pace(&self) -> Pace {
        Pace::new(self.timeouts.least)
    }

    fn agent(&self) -> Agent {
        self.agent
            .read()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }

    /// Asks for a certificate under the present one (RFC 7030 §4.2.2); `request` is base64.
    ///
    /// # Errors
    /// [`HttpFault`].
    pub(crate) fn enrol(&self, request: &str) -> Result<Vec<u8>, HttpFault> {
        self.certificate("/.well-known/est/simplereenroll", request, None)
            .map_err(|fault| match fault {
                CertificateFault::Unanswered(fault) => fault,
                CertificateFault::Answered { status, words, .. } => {
                    HttpFault::Final(format!("{status}: {words}"))
                }
            })
    }

    /// Asks for a certificate; `request` is base64, `basic` what follows `Basic ` in the header (RFC 7617).
    ///
    /// # Errors
    /// [`CertificateFault`].
    pub(crate) fn certificate(
        &self,
        path: &str,
        request: &str,
        basic: Option<&str>,
    ) -> Result<Vec<u8>, CertificateFault> {
        let mut asking = self
            .agent()
            .post(format!("https://{}:{}{path}", self.host, self.port))
            .header(CONTENT_TYPE, "application/pkcs10");
        if let Some(basic) = basic {
            asking = asking.header(AUTHORIZATION, format!("Basic {basic}"));
        }
        let answer = asking
            .send(request)
            .map_err(|error| CertificateFault::Unanswered(self.fault(path, error)))?;
        let status = answer.status().as_u16();
        let retry_after = answer
            .headers()
            .get(RETRY_AFTER)
            .and_then(|value| value.to_str().ok())
            .and_then(|seconds| seconds.trim().parse().ok())
            .map(Duration::from_secs);
        let reader = answer
            .into_body()
            .into_with_config()
            .limit(u64::MAX)
            .reader();
        let body = pace::read_all(reader, ENROLLED_BYTES_MAX, self.timeouts.document).map_err(
            |error| CertificateFault::Unanswered(HttpFault::Passing(self.read_words(&error))),
        )?;
        if status == 200 {
            return Ok(body);
        }
        Err(CertificateFault::Answered {
            status,
            retry_after,
            // Why stands in the body, in words.
            words: String::from_utf8_lossy(&body).trim().to_owned(),
        })
    }

    /// Gets a small document as a whole.
    ///
    /// # Errors
    /// [`HttpFault`]; one longer than [`DOCUMENT_BYTES_MAX`] is final.
    pub(crate) fn document(&self, path: &str) -> Result<Vec<u8>, HttpFault> {
        let answer = self.get(path, None)?;
        if answer.status().as_u16() != 200 {
            return Err(HttpFault::Final(format!(
                "GET {path}: the server answered {}",
                answer.status()
            )));
        }
        let reader = answer
            .into_body()
            .into_with_config()
            .limit(u64::MAX)
            .reader();
        let bytes = pace::read_all(reader, DOCUMENT_BYTES_MAX + 1, self.timeouts.document)
            .map_err(|error| {
                HttpFault::Passing(format!("GET {path}: {}", self.read_words(&error)))
            })?;
        if bytes.len() as u64 > DOCUMENT_BYTES_MAX {
            return Err(HttpFault::Final(format!(
                "GET {path}: the document is longer than {DOCUMENT_BYTES_MAX} bytes"
            )));
        }
        Ok(bytes)
    }

    /// Gets an image from byte `from` on.
    ///
    /// # Errors
    /// [`HttpFault`]; an answer with another range than asked for is final.
    pub(crate) fn image(&self, path: &str, from: u64) -> Result<ImageAnswer, HttpFault> {
        let range = format!("bytes={from}-");
        let answer = self.get(path, (from > 0).then_some(range.as_str()))?;
        let stated = answer
            .headers()
            .get(CONTENT_RANGE)
            .and_then(|value| value.to_str().ok())
            .map(str::to_string);
        let (start, total) = match (answer.status().as_u16(), stated) {
            // RFC 9110 §14.2: a server may ignore the range and send the whole.
            (200, _) => (0, answer.body().content_length()),
            (206, Some(stated)) => content_range(&stated).ok_or_else(|| {
                HttpFault::Final(format!("GET {path}: unreadable Content-Range {stated:?}"))
            })?,
            (206, None) => {
                return Err(HttpFault::Final(format!(
                    "GET {path}: 206 without Content-Range"
                )));
            }
            // RFC 9110 §15.5.17: the server's image ends before `from`.
            (416, stated) => {
                let size = stated
                    .as_deref()
                    .and_then(|stated| stated.strip_prefix("bytes */"))
                    .and_then(|size| size.parse::<u64>().ok());
                return Err(HttpFault::Final(match size {
                    Some(size) => format!(
                        "size mismatch: the server's image ends at byte {size}, this device needs it from byte {from}"
                    ),
                    None => format!("size mismatch: the server's image ends before byte {from}"),
                }));
            }
            (_, _) => {
                return Err(HttpFault::Final(format!(
                    "GET {path}: the server answered {}",
                    answer.status()
                )));
            }
        };
        if start != 0 && start != from {
            return Err(HttpFault::Final(format!(
                "GET {path}: asked from byte {from}, the server answers from byte {start}"
            )));
        }
        // The caller stops at the size the signed manifest says.
        let body = answer
            .into_body()
            .into_with_config()
            .limit(u64::MAX)
            .reader();
        Ok(ImageAnswer {
            start,
            total,
            body: Box::new(body),
        })
    }

    fn get(&self, path: &str, range: Option<&str>) -> Result<Response<Body>, HttpFault> {
        let mut request = self
            .agent()
            .get(format!("https://{}:{}{path}", self.host, self.port));
        if let Some(range) = range {
            request = request.header(RANGE, range);
        }
        let answer = request.call().map_err(|error| self.fault(path, error))?;
        let status = answer.status();
        let words = || format!("GET {path}: the server answered {status}");
        match status.as_u16() {
            200..=299 | 416 => Ok(answer),
            404 => Err(HttpFault::NotFound(words())),
            408 | 429 | 500..=599 => Err(HttpFault::Passing(words())),
            _ => Err(HttpFault::Final(words())),
        }
    }

    fn fault(&self, path: &str, error: ureq::Error) -> HttpFault {
        match error {
            ureq::Error::Io(error) => {
                HttpFault::Passing(tls::explain_io(&error, &self.host, self.port))
            }
            ureq::Error::Rustls(error) => HttpFault::Passing(tls::explain(&error, &self.host)),
            ureq::Error::BadUri(_) | ureq::Error::Http(_) => {
                HttpFault::Final(format!("GET {path}: not a usable path"))
            }
            other => HttpFault::Passing(format!("GET {path}: {other}")),
        }
    }

    /// Words for an error while reading a body.
    #[must_use]
    pub(crate) fn read_words(&self, error: &std::io::Error) -> String {
        tls::explain_io(error, &self.host, self.port)
    }
}

fn agent(tls: &ClientConfig, timeouts: Timeouts) -> Agent {
    let config = Agent::config_builder()
        .https_only(true)
        // Bytes come from the server named by --server or not at all.
        .max_redirects(0)
        .proxy(None)
        .http_status_as_error(false)
        .user_agent(concat!("muster-agent/", env!("CARGO_PKG_VERSION")))
        .timeout_connect(Some(timeouts.connect))
        .timeout_recv_response(Some(timeouts.answer))
        .timeout_per_read(Some(timeouts.read))
        .max_idle_connections(1)
        .build();
    // Tickets of its own: those of one port are of no use at the other, though both have one name.
    let mut tls = tls.clone();
    tls.resumption = Resumption::in_memory_sessions(SESSIONS_MAX);
    let dial = TcpConnector::default().chain(Tls(Arc::new(tls)));
    Agent::with_parts(config, dial, DefaultResolver::default())
}

/// `bytes 5-9/10` → (5, Some(10)); RFC 9110 §14.4.
fn content_range(value: &str) -> Option<(u64, Option<u64>)> {
    let (range, total) = value.strip_prefix("bytes ")?.split_once('/')?;
    let (first, last) = range.split_once('-')?;
    let (first, last) = (first.parse::<u64>().ok()?, last.parse::<u64>().ok()?);
    let total = if total == "*" {
        None
    } else {
        Some(total.parse::<u64>().ok()?)
    };
    (first <= last && total.is_none_or(|total| last < total)).then_some((first, total))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_content_range_is_read_or_refused() {
        assert_eq!(content_range("bytes 5-9/10"), Some((5, Some(10))));
        assert_eq!(content_range("bytes 0-0/*"), Some((0, None)));
        for bad in [
            "bytes 5-10/10",
            "bytes 9-5/10",
            "bytes */10",
            "5-9/10",
            "bytes -9/10",
            "",
        ] {
            assert_eq!(content_range(bad), None, "{bad}");
        }
    }

    proptest! {
        #[test]
        fn no_content_range_makes_trouble(value in ".{0,60}") {
            if let Some((first, Some(total))) = content_range(&value) {
                prop_assert!(first < total);
            }
        }
    }
}
