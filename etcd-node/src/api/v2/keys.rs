//! `/v2/keys`: reads at the applied state, writes through the log (section 1.3 to 1.6 of the v2 facts).

use std::time::Instant;

use bytes::Bytes;
use http::{Method, Request, Response, StatusCode};
use hyper::body::Body as HttpBody;
use proto::log::V2Command;
use proto::log::v2_command::Operation;
use store::v2::{Action, Event, Listing, NodeQuery, path};
use store::{Command, Outcome};

use super::error::{Code, Error};
use super::params::Parameters;
use super::respond::Place;
use super::{BoxError, Front, json};
use crate::api::answer::Body;
use crate::metrics;

/// Records that one closure reads: the raft thread waits for it (keyspace rules, section 5).
const SLICE_RECORDS: usize = 1000;

impl Front {
    /// Answers a request for the key with this raw name: what follows `/v2/keys`, decoded.
    pub(super) async fn keys<B>(&self, request: Request<B>, key: &str) -> Response<Body>
    where
        B: HttpBody<Data = Bytes> + Send,
        B::Error: Into<BoxError>,
    {
        let began = Instant::now();
        let (head, body) = request.into_parts();
        let mut counted = counted_method(&head.method);
        let result = async {
            let form = self.forms.read(&head.method, &head.headers, body).await?;
            let query = head.uri.query().unwrap_or_default();
            let parameters = Parameters::parse(&head.method, query, form.bytes.as_ref())?;
            if parameters.quorum && head.method == Method::GET {
                counted = metrics::Method::QuorumGet;
            }
            self.run(&head.method, path::clean(key), parameters).await
        };
        let result = result.await;
        let http = &self.context.metrics.http;
        http.received(counted);
        match result {
            Ok(Done::Answer(response)) => {
                http.succeeded(counted, began.elapsed().as_secs_f64());
                response
            }
            Ok(Done::Watch(response)) => response,
            Err(error) => {
                http.failed(counted, error.status().as_u16());
                self.failure(&error)
            }
        }
    }

    async fn run(&self, method: &Method, path: String, parameters: Parameters) -> Result<Done, Error> {
        if path != "/" && !path::is_clean(path.as_bytes()) {
            return Err(Error::key_too_long());
        }
        if !matches!(*method, Method::GET | Method::HEAD) {
            return self
                .write(write_command(method, path, &parameters), &parameters)
                .await
                .map(Done::Answer);
        }
        if parameters.wait && !parameters.quorum {
            return self.watch(path, &parameters).map(Done::Watch);
        }
        self.read(path, &parameters).await.map(Done::Answer)
    }

    async fn read(&self, path: String, parameters: &Parameters) -> Result<Response<Body>, Error> {
        let handle = &self.context.handle;
        if parameters.quorum {
            handle.read_barrier().await?;
        }
        let recursive = parameters.recursive;
        let mut listing = Listing::new(NodeQuery {
            path,
            recursive,
            now: handle.now(),
        });
        let (raft_index, read) = loop {
            let (applied, step) = handle.view(|view| (view.applied(), listing.step(view, SLICE_RECORDS)));
            match step.transpose() {
                Some(read) => break (applied, read),
                None => tokio::task::yield_now().await,
            }
        };
        let operation = if recursive {
            metrics::Operation::GetRecursive
        } else {
            metrics::Operation::Get
        };
        self.context.metrics.store.counts(operation).count(read.is_ok());
        let event = read?;
        let place = Place {
            v2_index: event.index,
            raft_index,
            term: handle.status().term,
        };
        Ok(self.success(StatusCode::OK, place, Body::Whole(json::event(&event))))
    }

    async fn write(&self, command: V2Command, parameters: &Parameters) -> Result<Response<Body>, Error> {
        let operation = counted_operation(command.operation());
        let answer = self.context.handle.propose(Command::V2(command)).await?;
        let Outcome::V2(result) = answer.outcome else {
            return Err(Error::early(Code::RaftInternal, "Empty result from raft"));
        };
        self.context.metrics.store.counts(operation).count(result.is_ok());
        let event = result?;
        let place = Place {
            v2_index: event.index,
            raft_index: answer.index,
            term: answer.term,
        };
        let body = if parameters.no_value_on_success && may_be_short(event.action) {
            json::action_only(event.action)
        } else {
            json::event(&event)
        };
        Ok(self.success(status_of(&event), place, Body::Whole(body)))
    }
}

/// A request that was not refused.
enum Done {
    Answer(Response<Body>),
    /// Goes on as long as it likes, so its time is not counted.
    Watch(Response<Body>),
}

/// The decision tables of section 1.4 to 1.6 of the v2 facts: which write a request means.
fn write_command(method: &Method, path: String, parameters: &Parameters) -> V2Command {
    let operation = match *method {
        Method::POST => Operation::CreateInOrder,
        Method::DELETE if has_condition(parameters) => Operation::CompareAndDelete,
        Method::DELETE => Operation::Delete,
        _ => put_operation(parameters),
    };
    let writes_directory = parameters.dir
        && matches!(
            operation,
            Operation::Set | Operation::Create | Operation::CreateInOrder
        );
    let mut command = V2Command {
        path,
        ..V2Command::default()
    };
    command.set_operation(operation);
    match operation {
        Operation::Delete => {
            command.recursive = parameters.recursive;
            command.dir = parameters.dir || parameters.recursive;
        }
        Operation::CompareAndDelete => compare(&mut command, parameters),
        Operation::Set
        | Operation::Create
        | Operation::CreateInOrder
        | Operation::Update
        | Operation::CompareAndSwap => {
            command.dir = writes_directory;
            command.value = if writes_directory {
                Bytes::new()
            } else {
                parameters.value.clone()
            };
            command.ttl = parameters.ttl;
            command.refresh = parameters.refresh
                && matches!(
                    operation,
                    Operation::Set | Operation::Update | Operation::CompareAndSwap
                );
            if operation == Operation::CompareAndSwap {
                compare(&mut command, parameters);
            }
        }
    }
    command
}

fn put_operation(parameters: &Parameters) -> Operation {
    match parameters.prev_exist {
        Some(false) => Operation::Create,
        _ if has_condition(parameters) => Operation::CompareAndSwap,
        Some(true) => Operation::Update,
        None => Operation::Set,
    }
}

fn has_condition(parameters: &Parameters) -> bool {
    parameters.prev_index > 0 || parameters.prev_value.is_some()
}

fn compare(command: &mut V2Command, parameters: &Parameters) {
    command.prev_index = parameters.prev_index;
    command.prev_value.clone_from(&parameters.prev_value);
}

/// 201 when something new stands there.
fn status_of(event: &Event) -> StatusCode {
    let is_new = event.action == Action::Create || (event.action == Action::Set && event.prev_node.is_none());
    if is_new {
        StatusCode::CREATED
    } else {
        StatusCode::OK
    }
}

fn may_be_short(action: Action) -> bool {
    matches!(
        action,
        Action::Set | Action::Create | Action::Update | Action::CompareAndSwap
    )
}

fn counted_method(method: &Method) -> metrics::Method {
    match *method {
        Method::HEAD => metrics::Method::Head,
        Method::PUT => metrics::Method::Put,
        Method::POST => metrics::Method::Post,
        Method::DELETE => metrics::Method::Delete,
        _ => metrics::Method::Get,
    }
}

fn counted_operation(operation: Operation) -> metrics::Operation {
    match operation {
        Operation::Set => metrics::Operation::Set,
        Operation::Create | Operation::CreateInOrder => metrics::Operation::Create,
        Operation::Update => metrics::Operation::Update,
        Operation::CompareAndSwap => metrics::Operation::CompareAndSwap,
        Operation::Delete => metrics::Operation::Delete,
        Operation::CompareAndDelete => metrics::Operation::CompareAndDelete,
    }
}

#[cfg(test)]
mod tests {
    use proto::ids::V2Index;
    use store::v2::Node;

    use super::*;

    fn command(method: &Method, query: &str) -> V2Command {
        write_command(
            method,
            "/a".into(),
            &Parameters::parse(method, query, None).unwrap(),
        )
    }

    /// The table of section 1.4, with checks 40, 68, 69 and 72 of the v2 facts.
    #[test]
    fn a_put_means_what_its_conditions_say() {
        let cases = [
            ("value=x", Operation::Set),
            ("prevIndex=0", Operation::Set),
            ("prevExist=false", Operation::Create),
            ("prevExist=false&prevValue=x&prevIndex=3", Operation::Create),
            ("prevExist=true", Operation::Update),
            ("prevExist=true&prevIndex=0", Operation::Update),
            ("prevExist=true&prevIndex=5", Operation::CompareAndSwap),
            ("prevExist=true&prevValue=v", Operation::CompareAndSwap),
            ("prevIndex=5", Operation::CompareAndSwap),
            ("prevValue=v", Operation::CompareAndSwap),
        ];
        for (query, operation) in cases {
            assert_eq!(command(&Method::PUT, query).operation(), operation, "{query}");
        }
    }

    #[test]
    fn each_write_carries_only_what_it_means() {
        let create = command(
            &Method::PUT,
            "prevExist=false&prevValue=x&prevIndex=3&refresh=true&ttl=5",
        );
        assert_eq!(
            (create.prev_value, create.prev_index, create.refresh),
            (None, 0, false)
        );
        assert_eq!(create.ttl, Some(5));
        let directory = command(&Method::PUT, "dir=true&value=ignored");
        assert!(directory.dir && directory.value.is_empty());
        let update = command(&Method::PUT, "prevExist=true&dir=true&value=v");
        assert!(!update.dir && update.value == "v");
        let swap = command(&Method::PUT, "prevIndex=3&prevValue=x&dir=true&value=y");
        assert_eq!(
            (swap.dir, swap.prev_index, swap.prev_value.unwrap()),
            (false, 3, "x".into())
        );
        let refresh = command(&Method::PUT, "refresh=true&ttl=9");
        assert!(refresh.refresh && refresh.ttl == Some(9));
        let post = command(
            &Method::POST,
            "prevExist=true&prevValue=a&dir=true&ttl=5&refresh=true",
        );
        assert_eq!(post.operation(), Operation::CreateInOrder);
        assert!(post.dir && !post.refresh && post.prev_value.is_none() && post.ttl == Some(5));
    }

    /// Section 1.6: conditions win over flags, `recursive` implies `dir`, prevExist means nothing.
    #[test]
    fn a_delete_means_what_its_query_says() {
        let plain = command(&Method::DELETE, "prevExist=false&prevIndex=0");
        assert_eq!(
            (plain.operation(), plain.dir, plain.recursive),
            (Operation::Delete, false, false)
        );
        let recursive = command(&Method::DELETE, "recursive=true&dir=false");
        assert_eq!(
            (recursive.operation(), recursive.dir, recursive.recursive),
            (Operation::Delete, true, true)
        );
        let compared = command(&Method::DELETE, "prevValue=x&prevIndex=7&recursive=true&dir=true");
        assert_eq!(compared.operation(), Operation::CompareAndDelete);
        assert!(!compared.recursive && !compared.dir);
        assert_eq!(
            (compared.prev_index, compared.prev_value.unwrap()),
            (7, "x".into())
        );
    }

    /// Check 196 of the v2 facts.
    #[test]
    fn only_what_is_new_is_answered_with_201() {
        let event = |action, replaced: bool| Event {
            action,
            node: Node::default(),
            prev_node: replaced.then(Node::default),
            index: V2Index::ZERO,
            is_refresh: false,
        };
        assert_eq!(status_of(&event(Action::Create, false)), StatusCode::CREATED);
        assert_eq!(status_of(&event(Action::Set, false)), StatusCode::CREATED);
        assert_eq!(status_of(&event(Action::Set, true)), StatusCode::OK);
        assert_eq!(status_of(&event(Action::Update, true)), StatusCode::OK);
        assert_eq!(status_of(&event(Action::Delete, true)), StatusCode::OK);
    }
}
