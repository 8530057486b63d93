//! Requests to the v2 keys API in numbers.

use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::histogram::{Histogram, exponential_buckets};
use prometheus_client::registry::Registry;

type Labels<const N: usize> = [(&'static str, String); N];

/// The methods that are told apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Method {
    /// A read at the applied state.
    Get,
    /// A linearizable read.
    QuorumGet,
    /// A read of the headers.
    Head,
    /// A write.
    Put,
    /// An in-order creation.
    Post,
    /// A deletion.
    Delete,
}

impl Method {
    const ALL: [Self; 6] = [
        Self::Get,
        Self::QuorumGet,
        Self::Head,
        Self::Put,
        Self::Post,
        Self::Delete,
    ];

    fn label(self) -> &'static str {
        match self {
            Self::Get => "GET",
            Self::QuorumGet => "QGET",
            Self::Head => "HEAD",
            Self::Put => "PUT",
            Self::Post => "POST",
            Self::Delete => "DELETE",
        }
    }
}

/// Looked up once here, not at each request.
struct OfMethod {
    received: Counter,
    duration: Histogram,
}

/// See the help text of each.
pub struct HttpMetrics {
    of_method: [OfMethod; Method::ALL.len()],
    failed: Family<Labels<2>, Counter>,
}

impl HttpMetrics {
    pub(super) fn register(registry: &mut Registry) -> Self {
        let received = Family::<Labels<1>, Counter>::default();
        let duration = Family::<Labels<1>, Histogram>::new_with_constructor(|| {
            Histogram::new(exponential_buckets(0.0005, 2.0, 13))
        });
        let failed = Family::<Labels<2>, Counter>::default();
        let of_method = Method::ALL.map(|method| {
            let labels = [("method", method.label().to_owned())];
            OfMethod {
                received: received.get_or_create_owned(&labels),
                duration: duration.get_or_create_owned(&labels),
            }
        });
        registry.register("etcd_http_received", "Requests to the keys API", received);
        registry.register(
            "etcd_http_failed",
            "Requests to the keys API that were answered with an error",
            failed.clone(),
        );
        registry.register(
            "etcd_http_successful_duration_seconds",
            "How long requests to the keys API took that succeeded, watches left out",
            duration,
        );
        Self { of_method, failed }
    }

    /// A request came.
    pub fn received(&self, method: Method) {
        self.of_method[method as usize].received.inc();
    }

    /// It was answered with an error.
    pub fn failed(&self, method: Method, status: u16) {
        let labels = [
            ("method", method.label().to_owned()),
            ("code", status.to_string()),
        ];
        self.failed.get_or_create(&labels).inc();
    }

    /// It was answered, after this many seconds.
    pub fn succeeded(&self, method: Method, seconds: f64) {
        self.of_method[method as usize].duration.observe(seconds);
    }
}
