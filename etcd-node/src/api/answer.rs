//! What every answer of the client port is made of: one body type for all fronts, and the plain answers that
//! they share.

use std::convert::Infallible;
use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::Bytes;
use http::header::{ALLOW, CONTENT_LENGTH, CONTENT_TYPE, LOCATION, X_CONTENT_TYPE_OPTIONS};
use http::{HeaderName, HeaderValue, Response, StatusCode};
use hyper::body::{Body as HttpBody, Frame, SizeHint};

/// The media type of every JSON answer, without a charset, as etcd sends it.
pub const JSON: HeaderValue = HeaderValue::from_static("application/json");
/// The media type of plain texts.
pub const TEXT: HeaderValue = HeaderValue::from_static("text/plain; charset=utf-8");
const HTML: HeaderValue = HeaderValue::from_static("text/html; charset=utf-8");
const NOSNIFF: HeaderValue = HeaderValue::from_static("nosniff");

/// A body that goes on while the answer is being sent.
pub type Live = Pin<Box<dyn HttpBody<Data = Bytes, Error = Infallible> + Send>>;

/// The body of an answer.
pub enum Body {
    /// Known whole.
    Whole(Bytes),
    /// Written as it comes: a watch.
    Live(Live),
    /// Of the gRPC services.
    Grpc(tonic::body::Body),
}

impl Body {
    /// No bytes.
    pub const fn empty() -> Self {
        Self::Whole(Bytes::new())
    }
}

impl HttpBody for Body {
    type Data = Bytes;
    type Error = tonic::Status;

    fn poll_frame(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Self::Error>>> {
        match self.get_mut() {
            Self::Whole(bytes) if bytes.is_empty() => Poll::Ready(None),
            Self::Whole(bytes) => Poll::Ready(Some(Ok(Frame::data(std::mem::take(bytes))))),
            Self::Live(live) => live.as_mut().poll_frame(context).map_err(|never| match never {}),
            Self::Grpc(body) => Pin::new(body).poll_frame(context),
        }
    }

    fn is_end_stream(&self) -> bool {
        match self {
            Self::Whole(bytes) => bytes.is_empty(),
            Self::Live(live) => live.is_end_stream(),
            Self::Grpc(body) => body.is_end_stream(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Self::Whole(bytes) => SizeHint::with_exact(bytes.len() as u64),
            Self::Live(_) => SizeHint::default(),
            Self::Grpc(body) => body.size_hint(),
        }
    }
}

/// An answer with a status, a media type and its bytes.
pub fn whole(status: StatusCode, media_type: HeaderValue, body: impl Into<Bytes>) -> Response<Body> {
    with_headers(status, [(CONTENT_TYPE, media_type)], body)
}

/// 200 without anything.
pub fn empty() -> Response<Body> {
    Response::new(Body::empty())
}

/// A plain-text error; a line feed is added, as Go does.
pub fn text_error(status: StatusCode, text: &str) -> Response<Body> {
    with_headers(
        status,
        [(CONTENT_TYPE, TEXT), (X_CONTENT_TYPE_OPTIONS, NOSNIFF)],
        format!("{text}\n"),
    )
}

/// 404 for a path that nobody serves.
pub fn not_found() -> Response<Body> {
    text_error(StatusCode::NOT_FOUND, "404 page not found")
}

/// 405 with the methods that the path has, comma-joined in declared order.
pub fn method_not_allowed(allow: &'static str) -> Response<Body> {
    let mut response = text_error(StatusCode::METHOD_NOT_ALLOWED, "Method Not Allowed");
    response
        .headers_mut()
        .insert(ALLOW, HeaderValue::from_static(allow));
    response
}

/// 301 to the cleaned path. `GET` gets Go's page with one link, `HEAD` its headers, all others nothing.
pub fn moved(location: &str, method: &http::Method) -> Response<Body> {
    let Ok(target) = HeaderValue::from_str(location) else {
        return text_error(StatusCode::BAD_REQUEST, "400 Bad Request");
    };
    let has_page = matches!(*method, http::Method::GET | http::Method::HEAD);
    let mut response = if has_page {
        let page = format!(
            "<a href=\"{}\">Moved Permanently</a>.\n\n",
            html_escaped(location)
        );
        whole(StatusCode::MOVED_PERMANENTLY, HTML, page)
    } else {
        let mut response = empty();
        *response.status_mut() = StatusCode::MOVED_PERMANENTLY;
        response
    };
    response.headers_mut().insert(LOCATION, target);
    response
}

/// The same answer for `HEAD`: its headers, with the length that the body would have, and no body.
pub fn without_body(response: Response<Body>) -> Response<Body> {
    let (mut parts, body) = response.into_parts();
    if let Body::Whole(bytes) = &body {
        parts
            .headers
            .insert(CONTENT_LENGTH, HeaderValue::from(bytes.len()));
    }
    Response::from_parts(parts, Body::empty())
}

fn with_headers<const N: usize>(
    status: StatusCode,
    headers: [(HeaderName, HeaderValue); N],
    body: impl Into<Bytes>,
) -> Response<Body> {
    let mut response = Response::new(Body::Whole(body.into()));
    *response.status_mut() = status;
    response.headers_mut().extend(headers);
    response
}

fn html_escaped(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for letter in text.chars() {
        match letter {
            '&' => escaped.push_str("&amp;"),
            '<' => escaped.push_str("&lt;"),
            '>' => escaped.push_str("&gt;"),
            '"' => escaped.push_str("&#34;"),
            '\'' => escaped.push_str("&#39;"),
            other => escaped.push(other),
        }
    }
    escaped
}

#[cfg(test)]
mod tests {
    use http::Method;

    use super::*;

    fn text(response: Response<Body>) -> String {
        match response.into_body() {
            Body::Whole(bytes) => String::from_utf8(bytes.to_vec()).unwrap(),
            Body::Live(_) | Body::Grpc(_) => panic!("not a whole body"),
        }
    }

    #[test]
    fn a_redirect_has_a_page_for_get_alone() {
        let page = moved("/v2/keys/a?x=1&y=2", &Method::GET);
        assert_eq!(page.status(), 301);
        assert_eq!(page.headers()[LOCATION], "/v2/keys/a?x=1&y=2");
        assert_eq!(page.headers()[CONTENT_TYPE], "text/html; charset=utf-8");
        assert_eq!(
            text(page),
            "<a href=\"/v2/keys/a?x=1&amp;y=2\">Moved Permanently</a>.\n\n"
        );
        let bare = moved("/v2/keys/a", &Method::PUT);
        assert_eq!(bare.headers()[LOCATION], "/v2/keys/a");
        assert!(bare.headers().get(CONTENT_TYPE).is_none());
        assert_eq!(text(bare), "");
    }

    #[test]
    fn head_keeps_the_length_and_loses_the_body() {
        let head = without_body(not_found());
        assert_eq!(head.headers()[CONTENT_LENGTH], "19");
        assert_eq!(text(head), "");
    }

    #[test]
    fn a_refused_method_names_the_allowed_ones() {
        let refused = method_not_allowed("GET,HEAD");
        assert_eq!(refused.status(), 405);
        assert_eq!(refused.headers()[ALLOW], "GET,HEAD");
        assert_eq!(text(refused), "Method Not Allowed\n");
    }
}
