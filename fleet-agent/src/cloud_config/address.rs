//! Which of the machine's addresses `$public_ipv4` and `$private_ipv4` mean.
//!
//! On CoreOS the cloud's metadata said so. On a plain machine, what a person says comes first: a
//! flag, the environment, `/etc/environment`. Without those, the address from which packets to the
//! discovery host leave is the one under which the other machines, which talk to the same host,
//! can reach this one.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, ToSocketAddrs as _, UdpSocket};
use std::sync::mpsc;
use std::thread;
use std::time::Duration;

use super::config::Config;
use super::options::Section;
use super::substitute::Variable;

/// Longest wait for a name server, which at boot may not be reachable yet.
const RESOLVE_WAIT: Duration = Duration::from_secs(5);

/// Stands for "anywhere": reserved for documentation (RFC 5737), so only the default route fits.
const ANYWHERE: IpAddr = IpAddr::V4(Ipv4Addr::new(192, 0, 2, 1));

/// Any port does: connecting a datagram socket sends nothing, it only picks the route.
const ANY_PORT: u16 = 9;

/// An address and where it comes from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Found {
    /// The address as it goes into the text.
    pub value: String,
    /// Its origin, for the line that says so.
    pub source: String,
}

/// What people said about addresses.
#[derive(Clone, Debug, Default)]
pub struct Given {
    /// From flags.
    pub flags: BTreeMap<Variable, String>,
    /// The process's environment.
    pub environment: BTreeMap<String, String>,
    /// Text of `/etc/environment`.
    pub environment_file: String,
}

/// Finds the value of a variable; `route` is asked only when nobody said anything.
///
/// # Errors
/// A given value that is no address, or none from anywhere, with what to do.
pub fn find(
    variable: Variable,
    given: &Given,
    route: impl FnOnce() -> Result<Found, String>,
) -> Result<Found, String> {
    let name = variable.environment();
    let candidates = [
        (given.flags.get(&variable).cloned(), flag_name(variable)),
        (
            given.environment.get(name).cloned(),
            format!("environment variable {name}"),
        ),
        (
            in_environment_file(&given.environment_file, name),
            format!("{name} in /etc/environment"),
        ),
    ];
    for (value, source) in candidates {
        if let Some(value) = value.filter(|value| !value.is_empty()) {
            return check(variable, value, source);
        }
    }
    let token = variable.token();
    if variable.is_ipv4() {
        let flag = flag_name(variable);
        return route().map_err(|why| format!("{token} has no value: {why}; give it with {flag}"));
    }
    Err(format!("{token} has no value: set {name} in /etc/environment"))
}

fn flag_name(variable: Variable) -> String {
    format!("--{}", variable.token().trim_start_matches('$').replace('_', "-"))
}

fn check(variable: Variable, value: String, source: String) -> Result<Found, String> {
    let is_address = if variable.is_ipv4() {
        value.parse::<Ipv4Addr>().is_ok()
    } else {
        value.parse::<Ipv6Addr>().is_ok()
    };
    if is_address {
        return Ok(Found { value, source });
    }
    let kind = if variable.is_ipv4() { "IPv4" } else { "IPv6" };
    Err(format!("{source} is {value:?}, which is not an {kind} address"))
}

/// The value of a name in the format of `/etc/environment`: `NAME=value`, perhaps quoted.
fn in_environment_file(text: &str, name: &str) -> Option<String> {
    let mut lines = text.lines().rev();
    lines.find_map(|line| {
        let line = line.trim();
        let line = line.strip_prefix("export ").unwrap_or(line);
        let value = line.strip_prefix(name)?.strip_prefix('=')?.trim();
        Some(value.trim_matches(['"', '\'']).to_owned())
    })
}

/// The host that the machines of a configuration have in common, and what it is to them.
pub fn common_host(config: &Config) -> Option<(String, &'static str)> {
    let setting = |sections: &[Section], key: &str| {
        let service = config.services.iter().find(|it| sections.contains(&it.section))?;
        host_of(service.value(key)?)
    };
    const ETCDS: [Section; 2] = [Section::Etcd, Section::Etcd2];
    setting(&ETCDS, "discovery")
        .map(|host| (host, "discovery host"))
        .or_else(|| setting(&[Section::Fleet], "etcd_servers").map(|host| (host, "etcd server")))
        .or_else(|| setting(&ETCDS, "peers").map(|host| (host, "etcd peer")))
}

/// The host of the first URL or `host:port` of a list.
fn host_of(urls: &str) -> Option<String> {
    let first = urls.split(',').next()?.trim();
    let rest = first.split_once("://").map_or(first, |(_, rest)| rest);
    let authority = rest.split('/').next()?;
    let host = match authority.strip_prefix('[') {
        Some(bracketed) => bracketed.split(']').next()?,
        None => authority.split(':').next()?,
    };
    let is_usable = !host.is_empty() && !host.contains('$');
    is_usable.then(|| host.to_owned())
}

/// The IPv4 address of the interface that routes to a host, or else of the default route.
///
/// # Errors
/// When neither route exists or only loopback is left.
pub fn by_route(host: Option<(String, &'static str)>) -> Result<Found, String> {
    let to_host = host.and_then(|(host, role)| {
        let address = resolve(&host)?;
        let value = local_address(address)?;
        let source = format!("interface that routes to the {role} {host}");
        Some(Found { value, source })
    });
    let by_default = || {
        let value = local_address(ANYWHERE)?;
        let source = "interface of the default route".to_owned();
        Some(Found { value, source })
    };
    to_host
        .or_else(by_default)
        .ok_or_else(|| "no interface has a route to the other machines".to_owned())
}

/// The source address that the kernel would use; loopback reaches nobody and counts as none.
fn local_address(target: IpAddr) -> Option<String> {
    let socket = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0)).ok()?;
    socket.connect((target, ANY_PORT)).ok()?;
    match socket.local_addr().ok()?.ip() {
        IpAddr::V4(address) if !address.is_loopback() && !address.is_unspecified() => {
            Some(address.to_string())
        }
        IpAddr::V4(_) | IpAddr::V6(_) => None,
    }
}

/// The first IPv4 address of a host, within a limit.
fn resolve(host: &str) -> Option<IpAddr> {
    if let Ok(address) = host.parse() {
        return Some(address);
    }
    let name = host.to_owned();
    let addresses = within(RESOLVE_WAIT, move || {
        let found = (name.as_str(), ANY_PORT).to_socket_addrs();
        found.map(Iterator::collect::<Vec<SocketAddr>>)
    });
    let addresses = addresses?.ok()?;
    addresses
        .into_iter()
        .map(|address| address.ip())
        .find(IpAddr::is_ipv4)
}

/// Runs something that may hang; None when it takes too long. Its thread is then left behind,
/// which is bounded by the few calls of a run and ends with the process.
pub fn within<T: Send + 'static>(limit: Duration, work: impl FnOnce() -> T + Send + 'static) -> Option<T> {
    let (sender, receiver) = mpsc::sync_channel(1);
    thread::spawn(move || sender.send(work()).ok());
    receiver.recv_timeout(limit).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn no_route() -> Result<Found, String> {
        Err("no interface has a route to the other machines".to_owned())
    }

    fn given(flag: &str, environment: &str, file: &str) -> Given {
        Given {
            flags: BTreeMap::from([(Variable::PublicIpv4, flag.to_owned())]),
            environment: BTreeMap::from([("COREOS_PUBLIC_IPV4".to_owned(), environment.to_owned())]),
            environment_file: file.to_owned(),
        }
    }

    #[test]
    fn the_nearest_source_with_a_value_wins_and_is_named() {
        let file = "LANG=C\nCOREOS_PUBLIC_IPV4=\"10.0.0.3\"\n";
        for (given, value, source) in [
            (given("10.0.0.1", "10.0.0.2", file), "10.0.0.1", "--public-ipv4"),
            (
                given("", "10.0.0.2", file),
                "10.0.0.2",
                "environment variable COREOS_PUBLIC_IPV4",
            ),
            (
                given("", "", file),
                "10.0.0.3",
                "COREOS_PUBLIC_IPV4 in /etc/environment",
            ),
        ] {
            let found = find(Variable::PublicIpv4, &given, no_route).unwrap();
            assert_eq!((found.value.as_str(), found.source.as_str()), (value, source));
        }
    }

    #[test]
    fn no_value_and_no_address_are_errors_with_advice() {
        let nothing = Given::default();
        for (variable, given, expected) in [
            (
                Variable::PublicIpv4,
                &nothing,
                "$public_ipv4 has no value: no interface has a route to the other machines; give it with --public-ipv4",
            ),
            (
                Variable::PrivateIpv6,
                &nothing,
                "$private_ipv6 has no value: set COREOS_PRIVATE_IPV6 in /etc/environment",
            ),
            (
                Variable::PublicIpv4,
                &given("10.0.0", "", ""),
                "--public-ipv4 is \"10.0.0\", which is not an IPv4 address",
            ),
        ] {
            assert_eq!(find(variable, given, no_route).unwrap_err(), expected);
        }
    }

    #[test]
    fn hosts_are_taken_from_urls_and_lists() {
        for (text, host) in [
            ("http://172.17.8.1:4001/v2/keys/x", Some("172.17.8.1")),
            ("http://a.example,http://b.example", Some("a.example")),
            ("http://[fd00::1]:4001", Some("fd00::1")),
            ("10.0.0.1:7001,10.0.0.2:7001", Some("10.0.0.1")),
            ("http://$private_ipv4:4001", None),
            ("http://", None),
            ("", None),
        ] {
            assert_eq!(host_of(text).as_deref(), host, "{text}");
        }
    }

    #[test]
    fn loopback_is_no_address_for_others() {
        assert_eq!(local_address(IpAddr::V4(Ipv4Addr::LOCALHOST)), None);
    }
}
