//! Who the members are and how they do.

use serde::Deserialize;

use crate::endpoint::Endpoint;
use crate::http;
use crate::v2::{Call, Client, Error, Member, Version, decode, refused};

/// Which statistics.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stats {
    /// Of the member itself.
    Own,
    /// Of its store: counts of operations and watchers.
    Store,
    /// Of the leader about its followers; other members refuse.
    Leader,
}

impl Client {
    /// All members.
    ///
    /// # Errors
    /// As for every read.
    pub async fn members(&self) -> Result<Vec<Member>, Error> {
        #[derive(Deserialize)]
        struct Members {
            members: Vec<Member>,
        }
        let response = self.ok("/v2/members").await?;
        let Members { members } = decode(&response.endpoint, &response.body)?;
        Ok(members)
    }

    /// The leader; none during an election.
    ///
    /// # Errors
    /// As for every read.
    pub async fn leader(&self) -> Result<Option<Member>, Error> {
        match self.ok("/v2/members/leader").await {
            Ok(response) => Ok(Some(decode(&response.endpoint, &response.body)?)),
            Err(Error::Unavailable { failures })
                if failures
                    .iter()
                    .any(|failure| matches!(failure, crate::v2::Failure::NoLeader { .. })) =>
            {
                Ok(None)
            }
            Err(error) => Err(error),
        }
    }

    /// Where the members listen for clients: all that etcd 0.4 knows to say.
    ///
    /// # Errors
    /// As for every read.
    pub async fn machines(&self) -> Result<Vec<String>, Error> {
        let response = self.ok("/v2/machines").await?;
        let text = String::from_utf8_lossy(&response.body);
        Ok(text
            .split(',')
            .map(str::trim)
            .filter(|url| !url.is_empty())
            .map(str::to_owned)
            .collect())
    }

    /// What the server says it is.
    ///
    /// # Errors
    /// As for every read.
    pub async fn version(&self) -> Result<Version, Error> {
        let response = self.ok("/version").await?;
        decode(&response.endpoint, &response.body)
    }

    /// Statistics as the server writes them.
    ///
    /// # Errors
    /// As for every read.
    pub async fn stats(&self, stats: Stats) -> Result<serde_json::Value, Error> {
        let response = self
            .ok(match stats {
                Stats::Own => "/v2/stats/self",
                Stats::Store => "/v2/stats/store",
                Stats::Leader => "/v2/stats/leader",
            })
            .await?;
        decode(&response.endpoint, &response.body)
    }

    /// Whether the member at this endpoint can serve: it sees a leader and a quorum.
    ///
    /// # Errors
    /// When it does not answer, or says neither.
    pub async fn health_of(&self, endpoint: &Endpoint) -> Result<bool, Error> {
        let request = self.prepare(&Call::get("/health"), endpoint)?;
        let client = http::Client::new(endpoint.clone(), self.config.limits);
        // An unhealthy member answers 503 with a body that says so.
        let response = client.follow(request).await.map_err(|error| Error::Unavailable {
            failures: vec![crate::v2::Failure::Http(error)],
        })?;
        let health: Health = decode(endpoint, &response.body)?;
        Ok(match health.health {
            Word::Text(text) => text == "true",
            Word::Truth(truth) => truth,
        })
    }

    /// Learns all members' client endpoints. Those given stay first: they are what the caller knows to be
    /// reachable, while a member may advertise an address that only its own machine can use.
    ///
    /// # Errors
    /// As for every read. A server that has no `/v2/members` (etcd 0.4) is asked for its machines.
    pub async fn sync(&mut self) -> Result<(), Error> {
        let urls: Vec<String> = match self.members().await {
            Ok(members) => members
                .into_iter()
                .flat_map(|member| member.client_urls)
                .collect(),
            Err(Error::Status { .. } | Error::Refused(_)) => self.machines().await?,
            Err(error) => return Err(error),
        };
        for url in urls {
            // What a member advertises and we cannot use (https) is of no use to fail over to.
            if let Ok(endpoint) = Endpoint::parse(&url)
                && !self.config.endpoints.contains(&endpoint)
            {
                self.config.endpoints.push(endpoint);
            }
        }
        Ok(())
    }

    async fn ok(&self, target: &str) -> Result<http::Response, Error> {
        let response = self.call(&Call::get(target)).await?;
        if response.status.is_success() {
            return Ok(response);
        }
        Err(refused(&response.endpoint, response.status, &response.body))
    }
}

/// etcd 2 and 3 write `"true"`, some versions between them `true`.
#[derive(Deserialize)]
struct Health {
    health: Word,
}

#[derive(Deserialize)]
#[serde(untagged)]
enum Word {
    Text(String),
    Truth(bool),
}
