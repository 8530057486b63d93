//! Where fleetctl gets its answers: from a fleetd's API, or straight from the registry in etcd.

use std::io;
use std::path::Path;
use std::time::Duration;

use bytes::Bytes;
use client::endpoint::Endpoint;
use client::http::{Client as HttpClient, Error as HttpError, Limits, Response};
use client::v3;
use http::Request;

use super::{Failure, Globals};
use crate::api::{ErrorBody, Machine, MachinePage};
use crate::registry::{EtcdRegistry, Registry};

/// Pages that are followed before a server is taken for broken: fleet's tokens cannot count further.
const PAGES_MAX: usize = 65_536;

/// Somebody who knows the cluster.
#[derive(Debug)]
pub(super) enum Source {
    /// A fleetd.
    Api { http: HttpClient, endpoint: Endpoint },
    /// The registry itself.
    Etcd(EtcdRegistry),
}

impl Source {
    /// The one that the flags ask for. Nobody is asked yet.
    pub(super) fn new(globals: &Globals) -> Result<Self, Failure> {
        let refused = |reason: String| Failure::failed(format!("Unable to initialize client: {reason}"));
        match globals.driver.as_str() {
            "API" => {
                let endpoint = api_endpoint(&globals.endpoint).map_err(refused)?;
                let limits = Limits {
                    connect: globals.timeout,
                    total: globals.timeout,
                    ..Limits::default()
                };
                Ok(Self::Api {
                    http: HttpClient::new(endpoint.clone(), limits),
                    endpoint,
                })
            }
            "etcd" => etcd(globals).map(Self::Etcd).map_err(refused),
            other => Err(refused(format!("unrecognized driver {other:?}"))),
        }
    }

    /// All machines, by id.
    pub(super) async fn machines(&self) -> Result<Vec<Machine>, Failure> {
        match self {
            Self::Api { http, endpoint } => api_machines(http).await.map_err(|error| error.explain(endpoint)),
            Self::Etcd(registry) => {
                let machines = registry
                    .machines()
                    .await
                    .map_err(|error| listing_failed("etcd", &error.to_string()))?;
                Ok(machines.into_iter().map(Machine::from).collect())
            }
        }
    }
}

/// The endpoint of an API, with the texts of fleet for what cannot be one.
fn api_endpoint(text: &str) -> Result<Endpoint, String> {
    let Some((scheme, rest)) = text.split_once("://") else {
        return Err(format!(
            "URL scheme undefined: {text:?}; write unix:///var/run/fleet.sock or http://host:port"
        ));
    };
    match scheme {
        "unix" | "file" => match rest.split_once('/') {
            Some(("", path)) => Ok(Endpoint::Unix {
                path: format!("/{path}").into(),
            }),
            _ => {
                let host = rest.split('/').next().unwrap_or_default();
                Err(format!(
                    "unable to connect to host {host:?} with scheme {scheme:?}"
                ))
            }
        },
        "http" | "https" => Endpoint::parse(text).map_err(|error| error.to_string()),
        other => Err(format!("URL scheme {other:?} is not one of unix, file, http")),
    }
}

fn etcd(globals: &Globals) -> Result<EtcdRegistry, String> {
    let listed = globals.endpoints();
    if listed
        .iter()
        .any(|endpoint| endpoint.starts_with("unix:") || endpoint.starts_with("file:"))
    {
        return Err("--driver etcd needs an etcd server: add --endpoint http://H:4001".to_owned());
    }
    let mut config = v3::Config::new(&listed).map_err(|error| error.to_string())?;
    config.connect_timeout = globals.timeout;
    config.request_timeout = globals.timeout;
    let client = v3::Client::new(&config).map_err(|error| error.to_string())?;
    Ok(EtcdRegistry::new(client, &globals.key_prefix))
}

async fn api_machines(http: &HttpClient) -> Result<Vec<Machine>, ApiError> {
    let mut machines = Vec::new();
    let mut token = String::new();
    for _ in 0..PAGES_MAX {
        let page = api_page(http, &token).await?;
        machines.extend(page.machines);
        if page.next_page_token.is_empty() {
            return Ok(machines);
        }
        token = page.next_page_token;
    }
    Err(ApiError::Answer("the pages of the list have no end".to_owned()))
}

async fn api_page(http: &HttpClient, token: &str) -> Result<MachinePage, ApiError> {
    let mut target = "/fleet/v1/machines?alt=json".to_owned();
    if !token.is_empty() {
        let escaped = percent_encoding::utf8_percent_encode(token, percent_encoding::NON_ALPHANUMERIC);
        target.push_str(&format!("&nextPageToken={escaped}"));
    }
    let request = Request::get(target)
        .body(Bytes::new())
        .map_err(|error| ApiError::Answer(error.to_string()))?;
    let response = http.send(request).await.map_err(ApiError::Http)?;
    if !response.status.is_success() {
        return Err(ApiError::Answer(complaint(&response)));
    }
    serde_json::from_slice(&response.body)
        .map_err(|error| ApiError::Answer(format!("unreadable answer: {error}")))
}

/// An answer that is an error, in the words of fleet's client.
fn complaint(response: &Response) -> String {
    let status = response.status.as_u16();
    match serde_json::from_slice::<ErrorBody>(&response.body) {
        Ok(body) if !body.error.message.is_empty() => {
            format!("googleapi: Error {status}: {}", body.error.message)
        }
        _ => {
            let body = String::from_utf8_lossy(&response.body);
            format!("googleapi: got HTTP response code {status} with body: {body}")
        }
    }
}

enum ApiError {
    Http(HttpError),
    Answer(String),
}

impl ApiError {
    fn explain(self, endpoint: &Endpoint) -> Failure {
        match (self, endpoint) {
            (Self::Http(HttpError::Connect { source, .. }), Endpoint::Unix { path }) => {
                no_connection(path, &source)
            }
            (Self::Http(error), _) => listing_failed("fleet API", &error.to_string()),
            (Self::Answer(text), _) => listing_failed("fleet API", &text),
        }
    }
}

fn no_connection(path: &Path, error: &io::Error) -> Failure {
    let path = path.display();
    Failure::failed(match error.kind() {
        io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused => {
            format!(
                "no fleetd here ({path}): run it on a fleet machine or use --driver etcd --endpoint http://H:4001"
            )
        }
        io::ErrorKind::PermissionDenied => {
            format!("permission denied on {path}: join group fleet or use sudo")
        }
        _ => format!("fleetd cannot be reached ({path}): {error}"),
    })
}

/// The four lines of fleet.
fn listing_failed(whence: &str, reason: &str) -> Failure {
    Failure::failed(format!(
        "Error retrieving list of active machines from {whence} ({reason})\n\
         Possible issues:\n  \
         etcd is unhealthy and/or lost quorum\n  \
         connection cannot be established to any etcd servers"
    ))
}

/// How long one request may take, from a number of seconds.
pub(super) fn request_timeout(text: &str) -> Result<Duration, Failure> {
    let seconds: Option<f64> = text.parse().ok();
    let duration = seconds
        .filter(|seconds| *seconds > 0.0)
        .and_then(|seconds| Duration::try_from_secs_f64(seconds).ok());
    duration.ok_or_else(|| {
        Failure::usage(format!(
            "--request-timeout {text:?} is not a number of seconds above 0"
        ))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn endpoints_of_the_api_are_sockets_or_urls() {
        let path = "/var/run/fleet.sock".into();
        assert_eq!(
            api_endpoint("unix:///var/run/fleet.sock"),
            Ok(Endpoint::Unix { path })
        );
        assert!(matches!(api_endpoint("file:///x"), Ok(Endpoint::Unix { .. })));
        assert!(matches!(
            api_endpoint("http://127.0.0.1:49153"),
            Ok(Endpoint::Tcp { .. })
        ));
    }

    #[test]
    fn what_is_no_endpoint_is_refused_in_the_words_of_fleet() {
        assert!(
            api_endpoint("/var/run/fleet.sock")
                .unwrap_err()
                .starts_with("URL scheme undefined")
        );
        let error = api_endpoint("unix://var/run/fleet.sock").unwrap_err();
        assert_eq!(error, "unable to connect to host \"var\" with scheme \"unix\"");
        assert!(api_endpoint("ftp://x").is_err());
        assert!(api_endpoint("https://x").unwrap_err().contains("TLS"));
    }

    #[test]
    fn a_missing_fleetd_says_where_to_go() {
        let path = Path::new("/var/run/fleet.sock");
        let failure = no_connection(path, &io::ErrorKind::NotFound.into());
        let message = "no fleetd here (/var/run/fleet.sock): run it on a fleet machine or use --driver etcd --endpoint http://H:4001";
        assert_eq!((failure.code, failure.message.as_str()), (1, message));
        assert_eq!(
            no_connection(path, &io::ErrorKind::ConnectionRefused.into()).message,
            message
        );
        let denied = no_connection(path, &io::ErrorKind::PermissionDenied.into());
        assert_eq!(
            denied.message,
            "permission denied on /var/run/fleet.sock: join group fleet or use sudo"
        );
    }

    #[test]
    fn a_dead_backend_gets_fleets_four_lines() {
        let lines: Vec<String> = listing_failed("fleet API", "x")
            .message
            .lines()
            .map(str::to_owned)
            .collect();
        assert_eq!(
            lines,
            [
                "Error retrieving list of active machines from fleet API (x)",
                "Possible issues:",
                "  etcd is unhealthy and/or lost quorum",
                "  connection cannot be established to any etcd servers",
            ]
        );
    }
}
