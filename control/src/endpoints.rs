use std::fmt;

/// Where a listener is reached from outside: a name that stands in the server's certificate.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Endpoint {
    /// Host name, or an IP address (an IPv6 one without brackets).
    pub host: String,
    /// TCP port.
    pub port: u16,
}

impl fmt::Display for Endpoint {
    /// `HOST:PORT`, an IPv6 address in brackets.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.host.contains(':') {
            write!(f, "[{}]:{}", self.host, self.port)
        } else {
            write!(f, "{}:{}", self.host, self.port)
        }
    }
}

/// What the server tells clients of where to go.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Endpoints {
    /// MQTT over TLS.
    pub mqtt: Endpoint,
    /// MQTT in WebSocket over TLS.
    pub wss: Endpoint,
    /// This API, and firmware.
    pub https: Endpoint,
}

#[cfg(test)]
mod tests {
    use super::Endpoint;

    #[test]
    fn an_ipv6_address_stands_in_brackets() {
        let at = |host: &str| {
            Endpoint {
                host: host.into(),
                port: 8443,
            }
            .to_string()
        };
        assert_eq!(at("localhost"), "localhost:8443");
        assert_eq!(at("::1"), "[::1]:8443");
    }
}
