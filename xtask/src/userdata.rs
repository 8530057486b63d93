//! User-data of the simulated machines: the two sample files, word for word, except for what must be new in
//! each cluster - the last part of the discovery URL - and the list of etcd servers when there are not three.

use anyhow::{Context as _, Result};

const CORE: &str = include_str!("../user-data/core.yaml");
const WORKER: &str = include_str!("../user-data/worker.yaml");

/// The discovery URL of the sample, with `token` as its last part.
pub(crate) fn discovery_url(token: &str) -> Result<String> {
    let url = value_of(CORE, "discovery: ").context("the sample core.yaml has no discovery URL")?;
    let (base, _) = url
        .rsplit_once('/')
        .context("the sample's discovery URL has no parts")?;
    Ok(format!("{base}/{token}"))
}

/// A core machine's user-data.
pub(crate) fn core(discovery_url: &str) -> String {
    with_value(CORE, "discovery: ", discovery_url)
}

/// A worker's user-data; `etcd_servers` is a list of URLs, joined by commas.
pub(crate) fn worker(etcd_servers: &str) -> String {
    with_value(WORKER, "etcd_servers: ", &format!("\"{etcd_servers}\""))
}

fn value_of<'text>(text: &'text str, key: &str) -> Option<&'text str> {
    text.lines().find_map(|line| line.trim_start().strip_prefix(key))
}

/// The text with the value of one key replaced, and every other byte as it was.
fn with_value(text: &str, key: &str, value: &str) -> String {
    let replace = |line: &str| match line.split_once(key) {
        Some((indent, _)) if indent.trim().is_empty() => format!("{indent}{key}{value}\n"),
        _ => line.to_owned(),
    };
    text.split_inclusive('\n').map(replace).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_last_part_of_the_discovery_url_changes() {
        let url = discovery_url("11111111-2222-3333-4444-555555555555").unwrap();
        assert_eq!(
            url,
            "http://172.17.8.1:4001/v2/keys/11111111-2222-3333-4444-555555555555"
        );
        let changed: Vec<_> = CORE
            .lines()
            .zip(core(&url).lines().map(str::to_owned).collect::<Vec<_>>())
            .filter(|(before, after)| before != after)
            .map(|(_, after)| after)
            .collect();
        assert_eq!(changed, [format!("    discovery: {url}")]);
        assert_eq!(core(&url).lines().count(), CORE.lines().count());
    }

    #[test]
    fn three_servers_give_the_sample_itself() {
        let servers = "http://172.17.8.101:4001,http://172.17.8.102:4001,http://172.17.8.103:4001";
        assert_eq!(worker(servers), WORKER);
        assert!(
            worker("http://172.17.8.101:4001").contains("    etcd_servers: \"http://172.17.8.101:4001\"\n")
        );
    }
}
