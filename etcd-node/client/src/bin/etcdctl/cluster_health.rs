//! `etcdctl cluster-health`: every member is asked at the URLs that it advertises. The verdict is etcd
//! 3.4's (healthy means all members are), not 2's (any is).

use std::time::Duration;

use clap::Args;
use client::endpoint::Endpoint;
use client::v2::{Client, Member};

use crate::arguments::Global;
use crate::exit::{Exit, Failure};
use crate::{connection, output};

/// Between two checks with `--forever`.
const CHECK_INTERVAL: Duration = Duration::from_secs(10);

/// Check the health of the etcd cluster.
#[derive(Debug, Args)]
pub(crate) struct ClusterHealth {
    /// Check every 10 seconds until Ctrl-C
    #[arg(long, short)]
    forever: bool,
}

pub(crate) async fn run(global: &Global, arguments: ClusterHealth) -> Result<(), Failure> {
    let client = connection::plain(global)?;
    loop {
        let Ok(members) = client.members().await else {
            output::lines(&["cluster may be unhealthy: failed to list members"])?;
            return Err(Failure::new(Exit::Server, String::new()));
        };
        let verdict = check(&client, &members).await?;
        output::lines(&[verdict.text()])?;
        if !arguments.forever {
            return match verdict {
                Verdict::Healthy => Ok(()),
                Verdict::Degraded | Verdict::Unavailable => Err(Failure::new(Exit::Unhealthy, String::new())),
            };
        }
        output::text("\nnext check after 10 second...\n\n")?;
        tokio::time::sleep(CHECK_INTERVAL).await;
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Verdict {
    Healthy,
    Degraded,
    Unavailable,
}

impl Verdict {
    const fn new(healthy: usize, members: usize) -> Self {
        match healthy {
            0 => Self::Unavailable,
            _ if healthy == members => Self::Healthy,
            _ => Self::Degraded,
        }
    }

    const fn text(self) -> &'static str {
        match self {
            Self::Healthy => "cluster is healthy",
            Self::Degraded => "cluster is degraded",
            Self::Unavailable => "cluster is unavailable",
        }
    }
}

async fn check(client: &Client, members: &[Member]) -> Result<Verdict, Failure> {
    let mut healthy = 0;
    for member in members {
        if is_healthy(client, member).await? {
            healthy += 1;
        }
    }
    Ok(Verdict::new(healthy, members.len()))
}

/// Asks one URL after the other until one answers, and prints what each says.
async fn is_healthy(client: &Client, member: &Member) -> Result<bool, Failure> {
    let Member { id, client_urls, .. } = member;
    if client_urls.is_empty() {
        output::lines(&[&format!(
            "member {id} is unreachable: no available published client urls"
        )])?;
        return Ok(false);
    }
    for url in client_urls {
        let asked = match Endpoint::parse(url) {
            Ok(endpoint) => client
                .health_of(&endpoint)
                .await
                .map_err(|error| error.to_string()),
            Err(error) => Err(error.to_string()),
        };
        match asked {
            Ok(true) => {
                output::lines(&[&format!("member {id} is healthy: got healthy result from {url}")])?;
                return Ok(true);
            }
            Ok(false) => {
                output::lines(&[&format!(
                    "member {id} is unhealthy: got unhealthy result from {url}"
                )])?;
                return Ok(false);
            }
            Err(reason) => {
                let line = format!("failed to check the health of member {id} on {url}: {reason}");
                output::lines(&[&line])?;
            }
        }
    }
    let urls = client_urls.join(" ");
    output::lines(&[&format!(
        "member {id} is unreachable: [{urls}] are all unreachable"
    )])?;
    Ok(false)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn healthy_means_all_of_them() {
        assert_eq!(Verdict::new(3, 3), Verdict::Healthy);
        assert_eq!(Verdict::new(2, 3), Verdict::Degraded);
        assert_eq!(Verdict::new(0, 3), Verdict::Unavailable);
        assert_eq!(Verdict::new(0, 0), Verdict::Unavailable);
    }
}
