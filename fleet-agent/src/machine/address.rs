//! Which address to publish when nobody says: the one that this machine speaks to the world with.
//!
//! The kernel is asked, by connecting a UDP socket, which sends nothing: for an address behind the default route
//! it answers the first global IPv4 address of the interface that has that route. Without such a route, the
//! address that leads to an etcd server is the one by which the others of the cluster know us.

use std::net::{IpAddr, Ipv4Addr, SocketAddr, UdpSocket};

use client::endpoint::Endpoint;

/// Somewhere beyond the default route, without a route of its own: an address for documentation (RFC 5737).
const FAR_AWAY: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::new(198, 51, 100, 1)), 9);

/// The address to publish; none when the machine has no route to anywhere. Asks the resolver for servers that
/// are given by name, so it may block.
pub fn detect(etcd_servers: &[String]) -> Option<Ipv4Addr> {
    source_towards(FAR_AWAY).or_else(|| towards_servers(etcd_servers))
}

fn towards_servers(servers: &[String]) -> Option<Ipv4Addr> {
    servers
        .iter()
        .filter_map(|server| addresses(server))
        .flatten()
        .find_map(source_towards)
}

fn addresses(server: &str) -> Option<Vec<SocketAddr>> {
    use std::net::ToSocketAddrs;
    let Endpoint::Tcp { host, port, .. } = Endpoint::parse(server).ok()? else {
        return None;
    };
    (host.as_str(), port)
        .to_socket_addrs()
        .ok()
        .map(Iterator::collect)
}

/// The address that the kernel would send from.
fn source_towards(target: SocketAddr) -> Option<Ipv4Addr> {
    let socket = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0)).ok()?;
    socket.connect(target).ok()?;
    match socket.local_addr().ok()?.ip() {
        IpAddr::V4(address) if is_global_unicast(address) => Some(address),
        _ => None,
    }
}

/// As Go's `IsGlobalUnicast`: private addresses count, since clusters live on them.
fn is_global_unicast(address: Ipv4Addr) -> bool {
    !(address.is_unspecified()
        || address.is_loopback()
        || address.is_multicast()
        || address.is_broadcast()
        || address.is_link_local())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_addresses_that_others_can_reach_are_published() {
        for good in ["10.0.0.1", "172.17.8.101", "192.168.1.1", "8.8.8.8"] {
            assert!(is_global_unicast(good.parse().unwrap()), "{good}");
        }
        for bad in [
            "127.0.0.1",
            "0.0.0.0",
            "169.254.1.1",
            "224.0.0.1",
            "255.255.255.255",
        ] {
            assert!(!is_global_unicast(bad.parse().unwrap()), "{bad}");
        }
    }

    #[test]
    fn a_server_on_this_machine_says_nothing_about_our_address() {
        let servers = [
            "http://127.0.0.1:2379",
            "http://[::1]:2379",
            "not an endpoint",
            "unix:///x",
        ];
        assert_eq!(towards_servers(&servers.map(str::to_owned)), None);
    }
}
