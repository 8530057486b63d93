//! URLs of members, clients and discovery: `scheme://host:port/path`, nothing more.

use std::fmt;
use std::net::{IpAddr, SocketAddr, ToSocketAddrs};

/// A URL, taken apart.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Url {
    /// `http` or `https`.
    pub scheme: String,
    /// A name or an address, without brackets.
    pub host: String,
    /// The port.
    pub port: u16,
    /// With a leading `/`, or empty.
    pub path: String,
}

/// Why a URL cannot be used.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum UrlError {
    /// Neither http nor https.
    #[error("{0:?} does not begin with http:// or https://")]
    Scheme(String),
    /// TLS is not built in yet.
    #[error("{0:?}: TLS is not available in this version, use http://")]
    Tls(String),
    /// No host.
    #[error("{0:?} has no host: other nodes could not reach it")]
    Host(String),
    /// No port.
    #[error("{0:?} has no port: write http://HOST:PORT")]
    Port(String),
    /// A wildcard address where one must be reachable.
    #[error("{0:?} is a wildcard address: name the address at which others reach this node")]
    Wildcard(String),
    /// A path where none belongs.
    #[error("{0:?} must not have a path")]
    Path(String),
    /// A host name without an address.
    #[error("{host:?} has no address: {reason}")]
    Resolve {
        /// The name.
        host: String,
        /// What the resolver said.
        reason: String,
    },
}

impl Url {
    /// Reads a URL.
    ///
    /// # Errors
    /// [`UrlError`] when a part is missing.
    pub fn parse(text: &str) -> Result<Self, UrlError> {
        let whole = || text.to_owned();
        let (scheme, rest) = text.split_once("://").ok_or_else(|| UrlError::Scheme(whole()))?;
        match scheme {
            "http" => {}
            "https" => return Err(UrlError::Tls(whole())),
            _ => return Err(UrlError::Scheme(whole())),
        }
        let at = rest.find('/').unwrap_or(rest.len());
        let (authority, path) = rest.split_at(at);
        let (host, port) = match authority.strip_prefix('[') {
            Some(bracketed) => {
                let (host, port) = bracketed.split_once(']').ok_or_else(|| UrlError::Host(whole()))?;
                (
                    host,
                    port.strip_prefix(':').ok_or_else(|| UrlError::Port(whole()))?,
                )
            }
            None => authority
                .rsplit_once(':')
                .ok_or_else(|| UrlError::Port(whole()))?,
        };
        if host.is_empty() {
            return Err(UrlError::Host(whole()));
        }
        let port: u16 = port.parse().map_err(|_| UrlError::Port(whole()))?;
        Ok(Self {
            scheme: scheme.to_owned(),
            host: host.to_owned(),
            port,
            path: path.to_owned(),
        })
    }

    /// The host's address, when it is one.
    pub fn ip(&self) -> Option<IpAddr> {
        self.host.parse().ok()
    }

    /// `http://host:port`, brackets around IPv6 addresses.
    pub fn origin(&self) -> String {
        if self.host.contains(':') {
            format!("{}://[{}]:{}", self.scheme, self.host, self.port)
        } else {
            format!("{}://{}:{}", self.scheme, self.host, self.port)
        }
    }

    /// Whether others could reach it as it stands.
    ///
    /// # Errors
    /// A wildcard address, port 0, or a path.
    pub fn check_reachable(&self) -> Result<(), UrlError> {
        if self.ip().is_some_and(|ip| ip.is_unspecified()) {
            return Err(UrlError::Wildcard(self.origin()));
        }
        if self.port == 0 {
            return Err(UrlError::Port(self.origin()));
        }
        if !self.path.trim_matches('/').is_empty() {
            return Err(UrlError::Path(self.to_string()));
        }
        Ok(())
    }

    /// The addresses to listen on.
    ///
    /// # Errors
    /// A name without an address, or a path.
    pub fn listen_addresses(&self) -> Result<Vec<SocketAddr>, UrlError> {
        if !self.path.trim_matches('/').is_empty() {
            return Err(UrlError::Path(self.to_string()));
        }
        let resolved = (self.host.as_str(), self.port).to_socket_addrs();
        let mut addresses: Vec<SocketAddr> = resolved
            .map_err(|error| UrlError::Resolve {
                host: self.host.clone(),
                reason: error.to_string(),
            })?
            .collect();
        addresses.sort();
        addresses.dedup();
        Ok(addresses)
    }
}

impl fmt::Display for Url {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}{}", self.origin(), self.path)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn urls_read_what_they_print() {
        for text in ["http://a:1", "http://[::1]:4001/v2/keys/x", "http://1.2.3.4:80/"] {
            assert_eq!(Url::parse(text).unwrap().to_string(), text);
        }
    }

    #[test]
    fn what_is_missing_is_named() {
        assert!(matches!(Url::parse("a:1"), Err(UrlError::Scheme(_))));
        assert!(matches!(Url::parse("http://:1"), Err(UrlError::Host(_))));
        assert!(matches!(Url::parse("http://a"), Err(UrlError::Port(_))));
        assert!(matches!(Url::parse("http://a:b"), Err(UrlError::Port(_))));
        assert!(matches!(Url::parse("http://[::1]"), Err(UrlError::Port(_))));
        assert!(matches!(Url::parse("https://a:1"), Err(UrlError::Tls(_))));
        assert!(Url::parse("http://0.0.0.0:1").unwrap().check_reachable().is_err());
        assert!(Url::parse("http://a:1/x").unwrap().check_reachable().is_err());
    }
}
