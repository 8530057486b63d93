//! fleet's HTTP API, version 1: what this machine's fleetd answers about the cluster.
//!
//! The same below `/fleet/v1` and the older `/v1-alpha`. While this machine has no place in the registry, every
//! path answers 503 and says why.

mod page;

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::sync::Arc;

use bytes::Bytes;
use daemon::http::Options;
use daemon::listen::Listener;
use http::header::{CONTENT_TYPE, LOCATION, SERVER};
use http::{HeaderValue, Method, Request, Response, StatusCode, Uri};
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::service::service_fn;
use percent_encoding::percent_decode_str;
use serde::{Deserialize, Serialize};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use self::page::Page;
use crate::machine::describe;
use crate::machine::registration::Status;
use crate::registry::{MachineObject, Registry, RegistryError};

/// What fleet 1.0 says whenever it has lost its store; scripts look for it. The reason follows.
pub const UNAVAILABLE: &str = "fleet server unable to communicate with etcd";
/// Clients at once: people and scripts of one machine.
const CONNECTIONS_MAX: usize = 256;
/// Where the resources stand.
const ROOTS: [&str; 2] = ["/fleet/v1", "/v1-alpha"];
const SERVER_NAME: &str = concat!("fleetd/", env!("CARGO_PKG_VERSION"));

/// One machine, as the API shows it; empty fields are left out.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Machine {
    /// The machine's id.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub id: String,
    /// What it says about itself, and what was set from outside.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub metadata: BTreeMap<String, String>,
    /// Where others reach it.
    #[serde(rename = "primaryIP", skip_serializing_if = "String::is_empty")]
    pub primary_ip: String,
}

impl From<MachineObject> for Machine {
    fn from(object: MachineObject) -> Self {
        Self {
            id: object.id,
            metadata: object.metadata,
            primary_ip: object.public_ip,
        }
    }
}

/// One page of machines.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct MachinePage {
    /// By id.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub machines: Vec<Machine>,
    /// Leads to the next page; empty on the last.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub next_page_token: String,
}

/// The body of an answer that is not 2xx.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ErrorBody {
    /// What went wrong.
    pub error: ErrorDetail,
}

/// What went wrong.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct ErrorDetail {
    /// The HTTP status.
    pub code: u16,
    /// For people; may be empty.
    pub message: String,
}

/// The API of one fleetd.
#[derive(Debug)]
pub struct Api<R> {
    registry: R,
    status: watch::Receiver<Status>,
    object: watch::Receiver<MachineObject>,
    token_limit: u16,
}

impl<R: Registry> Api<R> {
    /// An API over this registry, open while `status` says that the machine has its place there. Pages have
    /// `token_limit` entries.
    pub fn new(
        registry: R,
        status: watch::Receiver<Status>,
        object: watch::Receiver<MachineObject>,
        token_limit: u16,
    ) -> Self {
        Self {
            registry,
            status,
            object,
            token_limit,
        }
    }

    /// Serves a socket until the stop.
    pub async fn serve(self: Arc<Self>, listener: Listener, stop: CancellationToken) {
        let service = service_fn(move |request: Request<Incoming>| {
            let api = Arc::clone(&self);
            async move { Ok::<_, Infallible>(api.answer(request.method(), request.uri()).await) }
        });
        let options = Options {
            connections_max: CONNECTIONS_MAX,
            ..Options::default()
        };
        daemon::http::serve(listener, service, options, stop).await;
    }

    /// Answers one request. Bodies are not read: nothing that is served takes one.
    pub async fn answer(&self, method: &Method, uri: &Uri) -> Response<Full<Bytes>> {
        let answered = match self.refusal() {
            Some(refusal) => Err(refusal),
            None => self.route(method, uri).await,
        };
        let mut response = answered.unwrap_or_else(Failure::into_response);
        response
            .headers_mut()
            .insert(SERVER, HeaderValue::from_static(SERVER_NAME));
        response
    }

    /// Why nothing is answered now.
    fn refusal(&self) -> Option<Failure> {
        let status = self.status.borrow();
        let reason = || describe(&status, &self.object.borrow());
        match &*status {
            // The store may be back before we noticed: let the request find out.
            Status::Registered(_)
            | Status::StoreLost {
                was_registered: true, ..
            } => None,
            Status::Foreign(_) => Some(Failure::new(StatusCode::SERVICE_UNAVAILABLE, reason())),
            Status::Registering | Status::StoreLost { .. } | Status::Leaving => Some(Failure::new(
                StatusCode::SERVICE_UNAVAILABLE,
                format!("{UNAVAILABLE}: {}", reason()),
            )),
        }
    }

    async fn route(&self, method: &Method, uri: &Uri) -> Result<Response<Full<Bytes>>, Failure> {
        let path = percent_decode_str(uri.path()).decode_utf8_lossy().into_owned();
        if let Some(clean) = cleaned(&path) {
            return Ok(moved(&clean, uri.query()));
        }
        if path == "/" || ROOTS.contains(&path.as_str()) {
            return Err(Failure::new(StatusCode::METHOD_NOT_ALLOWED, String::new()));
        }
        let resource = ROOTS.iter().find_map(|root| path.strip_prefix(root));
        match resource {
            Some("/machines") if method == Method::GET => self.machines(uri).await,
            Some("/machines") => {
                let only = "only GET supported against this resource".to_owned();
                Err(Failure::new(StatusCode::METHOD_NOT_ALLOWED, only))
            }
            _ => Err(Failure::new(StatusCode::NOT_FOUND, String::new())),
        }
    }

    async fn machines(&self, uri: &Uri) -> Result<Response<Full<Bytes>>, Failure> {
        let page = Page::asked(&query_values(uri, "nextPageToken"), self.token_limit)
            .map_err(|error| Failure::new(StatusCode::BAD_REQUEST, error.to_string()))?;
        let all = self.registry.machines().await.map_err(Failure::from)?;
        let (machines, next) = page.cut(all);
        let body = MachinePage {
            machines: machines.into_iter().map(Machine::from).collect(),
            next_page_token: next.map(Page::token).unwrap_or_default(),
        };
        Ok(json(StatusCode::OK, &body))
    }
}

/// An answer that is not 2xx.
#[derive(Debug)]
struct Failure {
    status: StatusCode,
    message: String,
}

impl Failure {
    fn new(status: StatusCode, message: String) -> Self {
        Self { status, message }
    }

    fn into_response(self) -> Response<Full<Bytes>> {
        let error = ErrorDetail {
            code: self.status.as_u16(),
            message: self.message,
        };
        json(self.status, &ErrorBody { error })
    }
}

impl From<RegistryError> for Failure {
    fn from(error: RegistryError) -> Self {
        if error.is_unreachable() {
            return Self::new(StatusCode::SERVICE_UNAVAILABLE, format!("{UNAVAILABLE}: {error}"));
        }
        Self::new(StatusCode::INTERNAL_SERVER_ERROR, format!("etcd: {error}"))
    }
}

fn json(status: StatusCode, body: &impl Serialize) -> Response<Full<Bytes>> {
    let text = serde_json::to_vec(body).expect("maps with text keys always serialize");
    let mut response = Response::new(Full::new(Bytes::from(text)));
    *response.status_mut() = status;
    response
        .headers_mut()
        .insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    response
}

/// The clean form of a path that is not clean, as Go's servers redirect to; none when it is clean.
fn cleaned(path: &str) -> Option<String> {
    let mut clean = crate::path::clean(path);
    if clean.is_empty() || path.ends_with('/') {
        clean.push('/');
    }
    (clean != path).then_some(clean)
}

fn moved(path: &str, query: Option<&str>) -> Response<Full<Bytes>> {
    let escaped = percent_encoding::utf8_percent_encode(path, PATH_ESCAPES).to_string();
    let target = query.map_or_else(|| escaped.clone(), |query| format!("{escaped}?{query}"));
    let mut response = Response::new(Full::new(Bytes::new()));
    *response.status_mut() = StatusCode::MOVED_PERMANENTLY;
    let location = HeaderValue::from_str(&target).expect("everything outside of plain text is escaped");
    response.headers_mut().insert(LOCATION, location);
    response
}

/// What cannot stand in the path of a `Location`.
const PATH_ESCAPES: &percent_encoding::AsciiSet = &percent_encoding::CONTROLS
    .add(b' ')
    .add(b'"')
    .add(b'#')
    .add(b'<')
    .add(b'>')
    .add(b'?')
    .add(b'%')
    .add(b'\\');

/// All values of one query parameter; others are ignored, as clients add their own.
fn query_values(uri: &Uri, name: &str) -> Vec<String> {
    let pairs = uri.query().unwrap_or_default().split('&');
    pairs
        .filter_map(|pair| pair.split_once('='))
        .filter(|(key, _)| *key == name)
        .map(|(_, value)| percent_decode_str(value).decode_utf8_lossy().into_owned())
        .collect()
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use client::v3::LeaseId;
    use http_body_util::BodyExt;

    use super::*;
    use crate::registry::{Holder, MemoryRegistry};

    struct Fixture {
        api: Api<MemoryRegistry>,
        status: watch::Sender<Status>,
        registry: MemoryRegistry,
    }

    fn machine(id: &str, public_ip: &str) -> MachineObject {
        MachineObject {
            id: id.to_owned(),
            public_ip: public_ip.to_owned(),
            ..MachineObject::default()
        }
    }

    fn fixture() -> Fixture {
        let registry = MemoryRegistry::default();
        let status = watch::Sender::new(Status::Registered(LeaseId::new(1).unwrap()));
        let object = watch::Sender::new(machine("m1", "10.0.0.1"));
        let api = Api::new(registry.clone(), status.subscribe(), object.subscribe(), 100);
        Fixture {
            api,
            status,
            registry,
        }
    }

    impl Fixture {
        async fn ask(&self, method: Method, uri: &str) -> (StatusCode, String) {
            let response = self.api.answer(&method, &uri.parse().unwrap()).await;
            assert_eq!(response.headers()[SERVER], SERVER_NAME);
            if response.status() != StatusCode::MOVED_PERMANENTLY {
                assert_eq!(response.headers()[CONTENT_TYPE], "application/json");
            }
            let status = response.status();
            let body = response.into_body().collect().await.unwrap().to_bytes();
            (status, String::from_utf8(body.to_vec()).unwrap())
        }

        #[track_caller]
        fn check(&self, method: Method, uri: &str, status: u16, body: &str) {
            let runtime = tokio::runtime::Builder::new_current_thread()
                .enable_time()
                .build()
                .unwrap();
            let answer = runtime.block_on(self.ask(method, uri));
            assert_eq!((answer.0.as_u16(), answer.1.as_str()), (status, body), "of {uri}");
        }
    }

    #[test]
    fn machines_are_listed_below_both_roots_and_foreign_parameters_ignored() {
        let fixture = fixture();
        fixture.check(Method::GET, "/fleet/v1/machines", 200, "{}");
        let metadata = BTreeMap::from([("role".to_owned(), "core".to_owned())]);
        fixture.registry.put_foreign(MachineObject {
            metadata,
            ..machine("b", "10.0.0.2")
        });
        fixture.registry.put_foreign(machine("a", ""));
        let body =
            r#"{"machines":[{"id":"a"},{"id":"b","metadata":{"role":"core"},"primaryIP":"10.0.0.2"}]}"#;
        fixture.check(Method::GET, "/fleet/v1/machines", 200, body);
        fixture.check(Method::GET, "/v1-alpha/machines?alt=json", 200, body);
        fixture.check(Method::GET, "/fleet/v1/%6dachines?nextPageToken=", 200, body);
    }

    #[test]
    fn other_paths_and_methods_are_refused_as_fleet_does() {
        let fixture = fixture();
        let (not_found, not_allowed) = (
            r#"{"error":{"code":404,"message":""}}"#,
            r#"{"error":{"code":405,"message":""}}"#,
        );
        fixture.check(Method::GET, "/", 405, not_allowed);
        fixture.check(Method::GET, "/fleet/v1", 405, not_allowed);
        fixture.check(Method::GET, "/v1-alpha", 405, not_allowed);
        for path in [
            "/fleet/v1/",
            "/fleet/v1/machines/x",
            "/fleet/v1/units",
            "/fleet/v2/machines",
            "/machines",
        ] {
            fixture.check(Method::GET, path, 404, not_found);
        }
        let only = r#"{"error":{"code":405,"message":"only GET supported against this resource"}}"#;
        fixture.check(Method::PATCH, "/fleet/v1/machines", 405, only);
        fixture.check(Method::DELETE, "/v1-alpha/machines", 405, only);
    }

    #[tokio::test]
    async fn unclean_paths_are_redirected() {
        let fixture = fixture();
        for (path, clean) in [
            ("//fleet/v1/machines", "/fleet/v1/machines"),
            ("/fleet/./v1/../v1/machines?a=b", "/fleet/v1/machines?a=b"),
            ("/fleet//", "/fleet/"),
        ] {
            let response = fixture.api.answer(&Method::GET, &path.parse().unwrap()).await;
            assert_eq!(response.status(), StatusCode::MOVED_PERMANENTLY, "{path}");
            assert_eq!(response.headers()[LOCATION], clean, "{path}");
        }
    }

    #[test]
    fn tokens_lead_through_all_pages() {
        let fixture = fixture();
        for number in 0..250 {
            fixture.registry.put_foreign(machine(&format!("{number:03}"), ""));
        }
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_time()
            .build()
            .unwrap();
        let (mut uri, mut seen) = ("/fleet/v1/machines".to_owned(), Vec::new());
        loop {
            let (status, body) = runtime.block_on(fixture.ask(Method::GET, &uri));
            assert_eq!(status, StatusCode::OK);
            let page: MachinePage = serde_json::from_str(&body).unwrap();
            seen.extend(page.machines.into_iter().map(|machine| machine.id));
            if page.next_page_token.is_empty() {
                break;
            }
            uri = format!(
                "/fleet/v1/machines?nextPageToken={}",
                page.next_page_token.replace('=', "%3D")
            );
        }
        assert_eq!(
            seen,
            (0..250).map(|number| format!("{number:03}")).collect::<Vec<_>>()
        );
    }

    #[test]
    fn bad_tokens_are_400_with_a_reason() {
        let fixture = fixture();
        let bad = r#"{"error":{"code":400,"message":"token limit must be 100"}}"#;
        fixture.check(Method::GET, "/fleet/v1/machines?nextPageToken=EwBMLg==", 400, bad);
        let two = r#"{"error":{"code":400,"message":"too many values for page token"}}"#;
        fixture.check(
            Method::GET,
            "/fleet/v1/machines?nextPageToken=ZAACAA==&nextPageToken=ZAACAA==",
            400,
            two,
        );
    }

    #[test]
    fn without_a_place_in_the_registry_every_path_is_503_with_the_reason() {
        let fixture = fixture();
        for path in ["/", "/fleet/v1/machines", "/nothing"] {
            fixture.status.send_replace(Status::Registering);
            let starting = r#"{"error":{"code":503,"message":"fleet server unable to communicate with etcd: registering with etcd"}}"#;
            fixture.check(Method::GET, path, 503, starting);
            let reason = "http://h:1: refused".to_owned();
            fixture.status.send_replace(Status::StoreLost {
                reason,
                was_registered: false,
            });
            let lost = r#"{"error":{"code":503,"message":"fleet server unable to communicate with etcd: waiting for etcd: http://h:1: refused"}}"#;
            fixture.check(Method::GET, path, 503, lost);
        }
        let holder = Holder {
            lease: None,
            public_ip: "10.0.0.9".to_owned(),
        };
        fixture.status.send_replace(Status::Foreign(holder));
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_time()
            .build()
            .unwrap();
        let (status, body) = runtime.block_on(fixture.ask(Method::GET, "/fleet/v1/machines"));
        assert_eq!(status, StatusCode::SERVICE_UNAVAILABLE);
        assert!(body.contains("machine id m1 is registered at 10.0.0.9"), "{body}");
    }

    #[test]
    fn a_store_that_fails_under_a_request_is_503_and_answers_when_it_is_back() {
        let fixture = fixture();
        let lost = Status::StoreLost {
            reason: "refused".to_owned(),
            was_registered: true,
        };
        fixture.status.send_replace(lost);
        fixture.registry.set_down(true);
        let body = r#"{"error":{"code":503,"message":"fleet server unable to communicate with etcd: no endpoint answers: memory: taken away"}}"#;
        fixture.check(Method::GET, "/fleet/v1/machines", 503, body);
        fixture.registry.set_down(false);
        fixture.check(Method::GET, "/fleet/v1/machines", 200, "{}");
    }

    #[tokio::test]
    async fn it_is_served_on_a_unix_socket() {
        let fixture = fixture();
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("fleet.sock");
        let listener = daemon::listen::unix(&path, 0o660, None).unwrap();
        let stop = CancellationToken::new();
        let served = tokio::spawn(Arc::new(fixture.api).serve(listener, stop.clone()));
        let endpoint = client::endpoint::Endpoint::Unix { path };
        let http = client::http::Client::new(endpoint, client::http::Limits::default());
        let request = Request::get("/fleet/v1/machines").body(Bytes::new()).unwrap();
        let response = http.send(request).await.unwrap();
        assert_eq!(
            (response.status, response.body.as_ref()),
            (StatusCode::OK, &b"{}"[..])
        );
        stop.cancel();
        tokio::time::timeout(Duration::from_secs(20), served)
            .await
            .unwrap()
            .unwrap();
    }
}
