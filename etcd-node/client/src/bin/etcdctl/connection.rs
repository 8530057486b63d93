//! From the global flags to a client that knows the cluster.

use std::io::{self, Write};

use client::endpoint::Endpoint;
use client::http::Limits;
use client::v2::{Client, Config, Sent};
use tokio::time::Instant;

use crate::arguments::Global;
use crate::exit::Failure;

/// A client of the endpoints as given.
pub(crate) fn plain(global: &Global) -> Result<Client, Failure> {
    let endpoints = global.endpoints().map_err(|error| Failure::usage(&error))?;
    let limits = Limits {
        connect: global.timeout,
        total: global.total_timeout,
        ..Limits::default()
    };
    let observer: Option<fn(&Sent<'_>)> = if global.debug { Some(show) } else { None };
    Client::new(Config {
        endpoints,
        limits,
        observer,
    })
    .map_err(|error| Failure::usage(&error))
}

/// A client that has asked the cluster for its endpoints, unless told not to. What that took is taken
/// from the time that the command has.
pub(crate) async fn synced(global: &Global) -> Result<Client, Failure> {
    let started = Instant::now();
    let mut client = plain(global)?;
    if !global.no_sync {
        note(global, || {
            format!(
                "start to sync cluster using endpoints({})",
                joined(client.endpoints(), ",")
            )
        });
        client.sync().await.map_err(|error| Failure::sync(&error))?;
        note(global, || {
            format!("got endpoints({}) after sync", joined(client.endpoints(), ","))
        });
    }
    note(global, || {
        format!("Cluster-Endpoints: {}", joined(client.endpoints(), ", "))
    });
    client.set_total_limit(global.total_timeout.saturating_sub(started.elapsed()));
    Ok(client)
}

fn joined(endpoints: &[Endpoint], separator: &str) -> String {
    endpoints
        .iter()
        .map(ToString::to_string)
        .collect::<Vec<_>>()
        .join(separator)
}

fn note(global: &Global, text: impl FnOnce() -> String) {
    if global.debug {
        // Of what only explains, a loss is no failure.
        let _written = writeln!(io::stderr(), "{}", text());
    }
}

/// A request as the command that would send it.
fn show(sent: &Sent<'_>) {
    let Sent {
        method,
        endpoint,
        target,
        form,
    } = sent;
    let data = if form.is_empty() {
        String::new()
    } else {
        format!(" -d \"{form}\"")
    };
    let _written = writeln!(
        io::stderr(),
        "cURL Command: curl -X {method} {endpoint}{target}{data}"
    );
}
