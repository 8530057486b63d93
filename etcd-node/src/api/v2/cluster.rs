//! Who belongs to the cluster: machines, leader, members (sections 4.1 and 4.4 of the v2 facts).

use http::{Method, Response, StatusCode};
use proto::ids::V2Index;
use store::members::Member;

use super::error::{Code, Error};
use super::respond::message;
use super::{Endpoint, Front, json};
use crate::api::answer::{self, Body, TEXT};

impl Front {
    /// All client URLs, sorted, separated as clients split them.
    pub(super) fn machines(&self) -> Response<Body> {
        let urls = self.context.handle.view(|view| {
            let mut urls: Vec<String> = Vec::new();
            for member in view.members().present.values() {
                urls.extend_from_slice(&member.client_urls);
            }
            urls
        });
        answer::whole(StatusCode::OK, TEXT, machines_text(urls))
    }

    /// The leader's peer URL, as etcd 0.4 answers.
    pub(super) fn leader(&self) -> Response<Body> {
        let (leader, index) = self.known_leader();
        let url = leader.and_then(|leader| leader.peer_urls.into_iter().next());
        match url {
            Some(url) => answer::whole(StatusCode::OK, TEXT, url),
            None => self.failure(&Error::at(Code::DuringElection, "", index)),
        }
    }

    fn known_leader(&self) -> (Option<Member>, V2Index) {
        let id = self.context.handle.status().leader;
        self.context
            .handle
            .view(|view| (view.members().present.get(&id).cloned(), view.v2_index()))
    }

    /// `/v2/members` and what is below it.
    pub(super) fn members(&self, method: &Method, id: &str) -> Response<Body> {
        match (method, id) {
            (&Method::GET, "") => {
                let list = self
                    .context
                    .handle
                    .view(|view| members_json(view.members().present.values()));
                self.of_members(StatusCode::OK, list)
            }
            (&Method::GET, "leader") => match self.known_leader().0 {
                Some(leader) => self.of_members(StatusCode::OK, leader_json(&leader)),
                None => self.of_members(StatusCode::SERVICE_UNAVAILABLE, message("During election")),
            },
            (&Method::GET, _) => self.of_members(StatusCode::NOT_FOUND, message("Not found")),
            (&Method::PUT | &Method::DELETE, "") => answer::method_not_allowed(Endpoint::Members(id).allow()),
            _ => self.of_members(
                StatusCode::NOT_IMPLEMENTED,
                message("this version cannot change the members through the v2 API"),
            ),
        }
    }
}

fn machines_text(mut urls: Vec<String>) -> String {
    urls.sort_unstable();
    urls.join(", ")
}

fn members_json<'a>(members: impl Iterator<Item = &'a Member>) -> Vec<u8> {
    let mut body = Vec::new();
    let mut fields = json::Fields::open(&mut body);
    json::array(fields.next("members"), members, member_json);
    fields.close();
    body.push(b'\n');
    body
}

fn leader_json(leader: &Member) -> Vec<u8> {
    let mut body = Vec::new();
    member_json(&mut body, leader);
    body.push(b'\n');
    body
}

fn member_json(body: &mut Vec<u8>, member: &Member) {
    let text = |body: &mut Vec<u8>, url: &String| json::string(body, url.as_bytes());
    let mut fields = json::Fields::open(body);
    json::id(fields.next("id"), member.id);
    json::string(fields.next("name"), member.name.as_bytes());
    json::array(fields.next("peerURLs"), &member.peer_urls, text);
    json::array(fields.next("clientURLs"), &member.client_urls, text);
    fields.close();
}

#[cfg(test)]
mod tests {
    use proto::ids::NodeId;

    use super::*;

    fn member(id: u64, name: &str, client_urls: &[&str]) -> Member {
        Member {
            id: NodeId::new(id),
            name: name.into(),
            peer_urls: vec!["http://127.0.0.1:7002".into()],
            client_urls: client_urls.iter().map(|&url| url.into()).collect(),
            ..Member::default()
        }
    }

    /// Recorded with etcd 2.3.8, a member that was added and never started included.
    #[test]
    fn members_are_rendered_as_etcd_does() {
        let members = [
            member(0x2f74_aac3_06f9_093a, "n238", &["http://127.0.0.1:4002"]),
            member(0xff, "", &[]),
        ];
        let json = String::from_utf8(members_json(members.iter())).unwrap();
        assert_eq!(
            json,
            concat!(
                r#"{"members":[{"id":"2f74aac306f9093a","name":"n238","peerURLs":["http://127.0.0.1:7002"],"#,
                r#""clientURLs":["http://127.0.0.1:4002"]},{"id":"ff","name":"","#,
                r#""peerURLs":["http://127.0.0.1:7002"],"clientURLs":[]}]}"#,
                "\n"
            )
        );
    }

    #[test]
    fn machines_are_sorted_and_separated_by_comma_and_space() {
        let urls = vec!["http://b:4001".into(), "http://a:4001".into()];
        assert_eq!(machines_text(urls), "http://a:4001, http://b:4001");
        assert_eq!(machines_text(Vec::new()), "");
    }
}
