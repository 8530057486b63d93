//! Where a server listens, as people write it: `http://host:port`, or `unix:///path/of.sock`.

use std::fmt;
use std::path::PathBuf;

use ::http::Uri;

/// The port of `http://host` without one.
const HTTP_PORT: u16 = 80;

/// Why a text is not an endpoint that can be used.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum EndpointError {
    /// `https://` was asked for.
    #[error("TLS is not available in this version: {url:?} has to begin with http://")]
    TlsUnavailable {
        /// The text that was given.
        url: String,
    },
    /// The text is not a URL of a kind that is understood.
    #[error("{url:?} is not an endpoint ({reason}): write it like http://127.0.0.1:2379")]
    Malformed {
        /// The text that was given.
        url: String,
        /// What is wrong with it.
        reason: String,
    },
    /// A list of endpoints was empty.
    #[error("no endpoint is given: name one like http://127.0.0.1:2379")]
    NoneGiven,
}

/// One place where a server may listen. Names stay names: they are resolved anew at each connection.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Endpoint {
    /// A TCP port.
    Tcp {
        /// Name or address, without the brackets of IPv6.
        host: String,
        /// Port.
        port: u16,
        /// What stands before every path, without a trailing slash; mostly empty.
        path: String,
    },
    /// A unix socket.
    Unix {
        /// The socket's file.
        path: PathBuf,
    },
}

impl Endpoint {
    /// Reads `http://host[:port][/path]`, `host:port` (http is meant), or `unix:///path`.
    ///
    /// # Errors
    /// When the text is something else; `https` has an error of its own.
    pub fn parse(text: &str) -> Result<Self, EndpointError> {
        let (endpoint, target) = Self::split(text)?;
        Ok(match endpoint {
            Self::Tcp { host, port, .. } => {
                let path = target.split('?').next().unwrap_or_default();
                Self::Tcp {
                    host,
                    port,
                    path: path.trim_end_matches('/').to_owned(),
                }
            }
            unix @ Self::Unix { .. } => unix,
        })
    }

    /// Reads a whole URL into the endpoint and the target (path and query) of a request there.
    ///
    /// # Errors
    /// As [`Self::parse`].
    pub fn split(text: &str) -> Result<(Self, String), EndpointError> {
        let malformed = |reason: &str| EndpointError::Malformed {
            url: text.to_owned(),
            reason: reason.to_owned(),
        };
        let text = text.trim();
        if let Some(path) = text.strip_prefix("unix://") {
            if !path.starts_with('/') {
                return Err(malformed("a unix socket needs an absolute path"));
            }
            return Ok((
                Self::Unix {
                    path: PathBuf::from(path),
                },
                "/".to_owned(),
            ));
        }
        let with_scheme = if text.contains("://") {
            text.to_owned()
        } else {
            format!("http://{text}")
        };
        let uri: Uri = with_scheme
            .parse()
            .map_err(|error: ::http::uri::InvalidUri| malformed(&error.to_string()))?;
        match uri.scheme_str() {
            Some("http") => {}
            Some("https") => return Err(EndpointError::TlsUnavailable { url: text.to_owned() }),
            _ => return Err(malformed("the scheme is not http")),
        }
        let authority = uri.authority().ok_or_else(|| malformed("no host"))?;
        if authority.as_str().contains('@') {
            return Err(malformed("a user name in a URL is not understood"));
        }
        let host = authority.host().trim_start_matches('[').trim_end_matches(']');
        if host.is_empty() {
            return Err(malformed("no host"));
        }
        let port = match authority.port() {
            Some(port) => port.as_u16(),
            None if authority.as_str() == authority.host() => HTTP_PORT,
            None => return Err(malformed("the port is not a number up to 65535")),
        };
        let target = uri.path_and_query().map_or("/", |target| target.as_str());
        Ok((
            Self::Tcp {
                host: host.to_owned(),
                port,
                path: String::new(),
            },
            target.to_owned(),
        ))
    }

    /// Reads several, separated by commas; empty pieces vanish.
    ///
    /// # Errors
    /// When a piece is not an endpoint, or none is left.
    pub fn parse_list(text: &str) -> Result<Vec<Self>, EndpointError> {
        let endpoints: Vec<Self> = text
            .split(',')
            .map(str::trim)
            .filter(|piece| !piece.is_empty())
            .map(Self::parse)
            .collect::<Result<_, _>>()?;
        if endpoints.is_empty() {
            Err(EndpointError::NoneGiven)
        } else {
            Ok(endpoints)
        }
    }

    /// `host:port` with IPv6 in brackets; `localhost` for a unix socket, whose requests need some Host.
    pub fn authority(&self) -> String {
        match self {
            Self::Tcp { host, port, .. } if host.contains(':') => format!("[{host}]:{port}"),
            Self::Tcp { host, port, .. } => format!("{host}:{port}"),
            Self::Unix { .. } => "localhost".to_owned(),
        }
    }

    /// What stands before every path of requests to this endpoint; mostly empty.
    pub fn base_path(&self) -> &str {
        match self {
            Self::Tcp { path, .. } => path,
            Self::Unix { .. } => "",
        }
    }
}

impl fmt::Display for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp { path, .. } => write!(f, "http://{}{path}", self.authority()),
            Self::Unix { path } => write!(f, "unix://{}", path.display()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shown(text: &str) -> String {
        Endpoint::parse(text).unwrap().to_string()
    }

    #[test]
    fn the_forms_that_people_write() {
        assert_eq!(shown("http://127.0.0.1:4001"), "http://127.0.0.1:4001");
        assert_eq!(shown("127.0.0.1:4001"), "http://127.0.0.1:4001");
        assert_eq!(shown("http://core-01:2379/"), "http://core-01:2379");
        assert_eq!(shown("core-01"), "http://core-01:80");
        assert_eq!(shown("http://[::1]:2379/under/"), "http://[::1]:2379/under");
        assert_eq!(shown("unix:///var/run/fleet.sock"), "unix:///var/run/fleet.sock");
    }

    #[test]
    fn a_whole_url_is_split_into_endpoint_and_target() {
        let (endpoint, target) = Endpoint::split("http://h:4001/v2/keys/t?wait=true").unwrap();
        assert_eq!(endpoint.to_string(), "http://h:4001");
        assert_eq!(target, "/v2/keys/t?wait=true");
    }

    #[test]
    fn tls_is_refused_by_name() {
        let error = Endpoint::parse("https://h:2379").unwrap_err();
        assert_eq!(
            error.to_string(),
            "TLS is not available in this version: \"https://h:2379\" has to begin with http://"
        );
    }

    #[test]
    fn what_cannot_be_used_is_refused() {
        for text in [
            "http://:7001",
            "ftp://h:1",
            "http://h:99999",
            "unix://relative",
            "http://u:p@h:1",
            "",
        ] {
            assert!(Endpoint::parse(text).is_err(), "{text:?} was taken");
        }
        assert_eq!(Endpoint::parse_list(" , "), Err(EndpointError::NoneGiven));
        assert_eq!(Endpoint::parse_list("http://a:1, b:2").unwrap().len(), 2);
    }
}
