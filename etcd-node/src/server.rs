//! The client port: HTTP/1, HTTP/2 and gRPC on every listener, each request handed to the front it means.

use std::convert::Infallible;
use std::sync::{Arc, OnceLock};

use bytes::Bytes;
use daemon::http::Options;
use daemon::listen::Listener;
use http::header::CONTENT_TYPE;
use http::{HeaderMap, HeaderValue, Method, Request, Response, StatusCode};
use hyper::body::{Body as HttpBody, Incoming};
use hyper::service::service_fn;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;
use tonic::service::Routes;
use tower::Service;
use tracing::warn;

use crate::api::answer::{self, Body};
use crate::api::{Context, admin, path, v2};

type BoxError = Box<dyn std::error::Error + Send + Sync>;

/// Everything that answers on the client port.
pub struct ClientPort {
    v2: v2::Front,
    admin: admin::Front,
    grpc: Routes,
}

impl ClientPort {
    /// The fronts of one node, and its gRPC services.
    pub fn new(context: &Arc<Context>, grpc: Routes) -> Self {
        Self {
            v2: v2::Front::new(Arc::clone(context)),
            admin: admin::Front::new(Arc::clone(context)),
            grpc,
        }
    }

    /// Answers one request.
    pub async fn answer<B>(&self, request: Request<B>) -> Response<Body>
    where
        B: HttpBody<Data = Bytes> + Send + 'static,
        B::Error: Into<BoxError>,
    {
        if is_grpc(request.headers()) {
            return self.grpc(request).await;
        }
        let is_head = request.method() == Method::HEAD;
        let response = self.route(request).await;
        if is_head {
            answer::without_body(response)
        } else {
            response
        }
    }

    async fn grpc<B>(&self, request: Request<B>) -> Response<Body>
    where
        B: HttpBody<Data = Bytes> + Send + 'static,
        B::Error: Into<BoxError>,
    {
        let Ok(response) = self.grpc.clone().call(request).await;
        response.map(Body::Grpc)
    }

    async fn route<B>(&self, request: Request<B>) -> Response<Body>
    where
        B: HttpBody<Data = Bytes> + Send + 'static,
        B::Error: Into<BoxError>,
    {
        // Browsers ask this before they know whether a path exists.
        if request.method() == Method::OPTIONS {
            return answer::empty();
        }
        let uri = request.uri().clone();
        let Ok(path) = path::decode(uri.path()) else {
            return answer::text_error(StatusCode::BAD_REQUEST, "400 Bad Request");
        };
        if let Some(mut location) = path::cleaned(&path) {
            if let Some(query) = uri.query() {
                location.push('?');
                location.push_str(query);
            }
            return answer::moved(&location, request.method());
        }
        if path.starts_with("/v2/") {
            return self.v2.answer(request, &path).await;
        }
        self.admin
            .answer(request.method(), &path, uri.query().unwrap_or_default())
            .await
    }
}

fn is_grpc(headers: &HeaderMap) -> bool {
    let content_type = headers.get(CONTENT_TYPE).map(HeaderValue::as_bytes);
    content_type.is_some_and(|text| text.starts_with(b"application/grpc"))
}

/// The client port from its first moment on: until the node can serve, it says so.
#[derive(Default)]
pub struct Entrance(OnceLock<ClientPort>);

impl Entrance {
    /// From now on requests are answered. Only the first call counts.
    pub fn open(&self, port: ClientPort) {
        let _was_open = self.0.set(port);
    }

    async fn answer<B>(&self, request: Request<B>) -> Response<Body>
    where
        B: HttpBody<Data = Bytes> + Send + 'static,
        B::Error: Into<BoxError>,
    {
        match self.0.get() {
            Some(port) => port.answer(request).await,
            None if is_grpc(request.headers()) => {
                let status = tonic::Status::unavailable("etcdserver: not ready: waiting for the cluster");
                status.into_http::<tonic::body::Body>().map(Body::Grpc)
            }
            None if request.uri().path() == "/health" => {
                let body = r#"{"health":"false","reason":"waiting for the cluster"}"#;
                answer::whole(
                    StatusCode::SERVICE_UNAVAILABLE,
                    HeaderValue::from_static("application/json"),
                    body,
                )
            }
            // Clients of the v2 API take any 503 for "no leader here" and ask another endpoint.
            None => answer::text_error(
                StatusCode::SERVICE_UNAVAILABLE,
                "not ready: waiting for the cluster",
            ),
        }
    }
}

/// Serves the client port on all listeners until `stop` is cancelled and the last connection is gone. Never
/// fails: see [`daemon::http::serve`]. Watches end with the node ([`crate::driver::Handle::stopping`]).
pub async fn serve(
    listeners: Vec<Listener>,
    entrance: Arc<Entrance>,
    options: Options,
    stop: CancellationToken,
) {
    let mut loops = JoinSet::new();
    for listener in listeners {
        let entrance = Arc::clone(&entrance);
        let service = service_fn(move |request: Request<Incoming>| {
            let entrance = Arc::clone(&entrance);
            async move { Ok::<_, Infallible>(entrance.answer(request).await) }
        });
        loops.spawn(daemon::http::serve(
            listener,
            service,
            options.clone(),
            stop.clone(),
        ));
    }
    while let Some(ended) = loops.join_next().await {
        if let Err(error) = ended {
            warn!(%error, "an accept loop of the client port ended");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn grpc_is_known_by_its_content_type() {
        let with = |text: &'static str| HeaderMap::from_iter([(CONTENT_TYPE, text.parse().unwrap())]);
        assert!(is_grpc(&with("application/grpc")));
        assert!(is_grpc(&with("application/grpc+proto")));
        assert!(!is_grpc(&with("application/json")));
        assert!(!is_grpc(&HeaderMap::new()));
    }
}
