//! Looking at a discovery token: a small server plays the discovery service.

#![expect(clippy::unwrap_used, reason = "helpers of tests may panic as the tests do")]

use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpListener};
use std::thread;
use std::time::{Duration, Instant};

use fleet_agent::cloud_config::discovery::{Finding, check};

const NOT_FOUND: &str = "HTTP/1.1 404 Not Found\r\nContent-Type: application/json\r\n\r\n{\"errorCode\":100,\"message\":\"Key not found\"}";
const STATE: &str =
    "HTTP/1.1 200 OK\r\n\r\n{\"action\":\"get\",\"node\":{\"key\":\"/x/_state\",\"value\":\"started\"}}";

/// Answers each request by its path, until the test's process ends.
fn serve(answer: impl Fn(&str) -> String + Send + 'static) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    thread::spawn(move || {
        for stream in listener.incoming() {
            let mut stream = stream.unwrap();
            let mut request = Vec::new();
            let mut buffer = [0; 1024];
            while !request.ends_with(b"\r\n\r\n") {
                match stream.read(&mut buffer) {
                    Ok(0) | Err(_) => break,
                    Ok(count) => request.extend_from_slice(&buffer[..count]),
                }
            }
            let request = String::from_utf8_lossy(&request);
            let path = request.split(' ').nth(1).unwrap_or_default();
            stream.write_all(answer(path).as_bytes()).ok();
        }
    });
    address
}

fn listing(members: &[&str]) -> String {
    let nodes: Vec<String> = members
        .iter()
        .enumerate()
        .map(|(index, value)| format!("{{\"key\":\"/x/{index}\",\"value\":\"{value}\"}}"))
        .collect();
    format!(
        "HTTP/1.1 200 OK\r\n\r\n{{\"action\":\"get\",\"node\":{{\"key\":\"/x\",\"dir\":true,\"nodes\":[{}]}}}}",
        nodes.join(",")
    )
}

/// A service whose token was used by these members.
fn used_by(members: &[&str]) -> String {
    let listing = listing(members);
    let address = serve(move |path| match path {
        "/v2/keys/x/_state" => STATE.to_owned(),
        "/v2/keys/x" => listing.clone(),
        _ => NOT_FOUND.to_owned(),
    });
    format!("http://{address}/v2/keys/x")
}

/// A port of this machine that refuses connections: it was ours and is closed.
fn refusing() -> SocketAddr {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap()
}

#[test]
fn a_token_without_a_founding_is_good() {
    let address = serve(|_| NOT_FOUND.to_owned());
    assert_eq!(check(&format!("http://{address}/v2/keys/x/")), Finding::Good);
}

#[test]
fn a_token_with_a_living_member_is_good() {
    let living = TcpListener::bind("127.0.0.1:0").unwrap();
    let members = [
        format!("http://{}", refusing()),
        format!("core-02=http://{}", living.local_addr().unwrap()),
    ];
    let members: Vec<&str> = members.iter().map(String::as_str).collect();
    assert_eq!(check(&used_by(&members)), Finding::Good);
}

#[test]
fn a_token_whose_members_are_all_gone_is_used_up() {
    let gone = refusing();
    assert_eq!(
        check(&used_by(&[&format!("http://{gone}")])),
        Finding::UsedUp(vec![gone.to_string()])
    );
    assert_eq!(check(&used_by(&[])), Finding::UsedUp(Vec::new()));
}

#[test]
fn a_service_that_can_not_be_asked_is_left_in_peace() {
    let unknown = |why: &str| Finding::Unknown(why.to_owned());
    assert_eq!(
        check("https://discovery.etcd.io/x"),
        unknown("only http:// is looked at")
    );
    let broken = serve(|_| "HTTP/1.1 500 Oh\r\n\r\n".to_owned());
    assert_eq!(check(&format!("http://{broken}/x")), unknown("it answers 500"));
    let babbling = serve(|_| "hello\r\n".to_owned());
    assert_eq!(
        check(&format!("http://{babbling}/x")),
        unknown("it does not answer in HTTP")
    );
    let refused = format!("http://{}/x", refusing());
    assert!(matches!(check(&refused), Finding::Unknown(_)));
}

#[test]
fn a_silent_service_holds_nobody_up() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}/x", listener.local_addr().unwrap());
    let started = Instant::now();
    let found = check(&url);
    assert!(matches!(found, Finding::Unknown(_)), "{found:?}");
    assert!(started.elapsed() < Duration::from_secs(10));
}
