//! A message above the limit is refused by the transport before any service sees it; its refusal is put into
//! the words that gRPC's original library uses for etcd, which clients look for.

use http::{HeaderValue, Response};
use tonic::{Code, Status};

/// What tonic says of a message that is too long.
const TRANSPORT_WORDS: (&str, &str, &str) = (
    "Error, decoded message length too large: found ",
    " bytes, the limit is: ",
    " bytes",
);

/// Leaves every other answer as it is.
pub(super) fn translate<B>(mut response: Response<B>) -> Response<B> {
    let Some(message) = response.extensions().get::<Status>().and_then(etcd_words) else {
        return response;
    };
    let status = Status::new(Code::ResourceExhausted, message);
    // The text is plain ASCII without `%`: it needs no escapes.
    if let Ok(text) = HeaderValue::from_str(status.message()) {
        response
            .headers_mut()
            .insert(Status::GRPC_STATUS, HeaderValue::from(status.code() as i32));
        response.headers_mut().insert(Status::GRPC_MESSAGE, text);
        response.extensions_mut().insert(status);
    }
    response
}

fn etcd_words(status: &Status) -> Option<String> {
    if status.code() != Code::OutOfRange {
        return None;
    }
    let (before, between, after) = TRANSPORT_WORDS;
    let (found, limit) = status
        .message()
        .strip_prefix(before)?
        .strip_suffix(after)?
        .split_once(between)?;
    Some(format!(
        "grpc: received message larger than max ({found} vs. {limit})"
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_transports_refusal_is_translated() {
        let translated = |status: Status| {
            let response = translate(status.into_http::<()>());
            let header = |name: &str| response.headers()[name].to_str().unwrap().to_owned();
            (header("grpc-status"), header("grpc-message"))
        };
        let long =
            "Error, decoded message length too large: found 2097160 bytes, the limit is: 2097152 bytes";
        assert_eq!(
            translated(Status::out_of_range(long)),
            (
                "8".to_owned(),
                "grpc: received message larger than max (2097160 vs. 2097152)".to_owned()
            )
        );
        assert_eq!(
            translated(Status::internal("x")),
            ("13".to_owned(), "x".to_owned())
        );
        assert_eq!(
            translated(Status::out_of_range("y")),
            ("11".to_owned(), "y".to_owned())
        );
    }
}
