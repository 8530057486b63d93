//! The registry in etcd, through its v3 API: byte for byte the keys and values that fleet 1.0 keeps there, with
//! leases in the place of v2's times to live.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use client::v3::{Client, Code, Error, LeaseId, Transaction, compare, operation};
use proto::etcdserverpb::request_op::Request;
use proto::etcdserverpb::response_op::Response;
use proto::etcdserverpb::{RequestOp, TxnResponse};
use proto::key::KeyRange;
use proto::mvccpb::KeyValue;
use tracing::warn;

use super::keys::{Keys, MachineKey};
use super::{Granted, Holder, MachineObject, Registry, RegistryError};

/// Unreadable objects that are remembered as complained about. More than a cluster has machines; beyond it
/// they are forgotten and complained about once more.
const COMPLAINTS_MAX: usize = 1000;

/// A registry in etcd. Clones share connections.
#[derive(Clone, Debug)]
pub struct EtcdRegistry {
    client: Client,
    keys: Keys,
    complaints: Complaints,
}

impl EtcdRegistry {
    /// The registry below this prefix.
    pub fn new(client: Client, key_prefix: &str) -> Self {
        Self {
            client,
            keys: Keys::new(key_prefix),
            complaints: Complaints::default(),
        }
    }
}

impl Registry for EtcdRegistry {
    async fn machines(&self) -> Result<Vec<MachineObject>, RegistryError> {
        let listing = self.client.get_prefix(self.keys.machines().as_bytes()).await?;
        Ok(assemble(&self.keys, &listing.key_values, &self.complaints))
    }

    async fn grant(&self, ttl: Duration) -> Result<Granted, RegistryError> {
        let seconds = i64::try_from(ttl.as_secs()).unwrap_or(i64::MAX);
        let grant = self.client.lease_grant(seconds, None).await?;
        Ok(Granted {
            lease: grant.id,
            ttl: grant.ttl,
        })
    }

    async fn beat(&self, lease: LeaseId) -> Result<Duration, RegistryError> {
        Ok(self.client.lease_keep_alive_once(lease).await?)
    }

    async fn revoke(&self, lease: LeaseId) -> Result<(), RegistryError> {
        Ok(self.client.lease_revoke(lease).await?)
    }

    async fn claim(&self, object: &MachineObject, lease: LeaseId) -> Result<Holder, RegistryError> {
        let key = Bytes::from(self.keys.machine_object(&object.id));
        let put = || operation::put(key.clone(), object.to_json(), Some(lease));
        let get = operation::get(KeyRange::One(key.clone()));
        let ours_already = Transaction::when([compare::lease(key.clone(), Some(lease))])
            .then([put()])
            .or_else([get]);
        let otherwise = RequestOp {
            request: Some(Request::RequestTxn(ours_already.into())),
        };
        let claim = Transaction::when([compare::absent(key.clone())])
            .then([put()])
            .or_else([otherwise]);
        match self.client.txn(claim).await {
            Ok(answer) => Ok(other_holder(answer).unwrap_or_else(|| Holder {
                lease: Some(lease),
                public_ip: object.public_ip.clone(),
            })),
            // The only thing in this transaction that can be missing is the lease.
            Err(Error::Refused {
                code: Code::NotFound, ..
            }) => Err(RegistryError::LeaseGone(lease)),
            Err(error) => Err(error.into()),
        }
    }

    async fn holder(&self, id: &str) -> Result<Option<Holder>, RegistryError> {
        Ok(self
            .client
            .get(self.keys.machine_object(id))
            .await?
            .as_ref()
            .map(holder_of))
    }
}

/// Who has the object, from the innermost branch of a claim; none when the claim was granted in one of the
/// outer ones.
fn other_holder(answer: TxnResponse) -> Option<Holder> {
    if answer.succeeded {
        return None;
    }
    match answer.responses.into_iter().next()?.response? {
        Response::ResponseTxn(inner) => other_holder(inner),
        Response::ResponseRange(range) => range.kvs.first().map(holder_of),
        Response::ResponsePut(_) | Response::ResponseDeleteRange(_) => None,
    }
}

fn holder_of(kv: &KeyValue) -> Holder {
    let object = MachineObject::parse(&kv.value).unwrap_or_default();
    Holder {
        lease: LeaseId::new(kv.lease),
        public_ip: object.public_ip,
    }
}

/// Puts the machines together from all keys below `machines/`. A directory without an object is a machine
/// that is away, and what cannot be read is left out.
fn assemble(keys: &Keys, key_values: &[KeyValue], complaints: &Complaints) -> Vec<MachineObject> {
    let mut objects = BTreeMap::new();
    let mut dynamic: BTreeMap<&str, BTreeMap<String, String>> = BTreeMap::new();
    for kv in key_values {
        match keys.read_machine_key(&kv.key) {
            Some(MachineKey::Object { id }) => match MachineObject::parse(&kv.value) {
                Ok(object) => drop(objects.insert(id, object)),
                Err(error) => complaints.once(id, kv.mod_revision, &error.to_string()),
            },
            Some(MachineKey::Metadata { id, key }) => {
                let value = String::from_utf8_lossy(&kv.value).into_owned();
                dynamic.entry(id).or_default().insert(key.to_owned(), value);
            }
            None => {}
        }
    }
    let merged = objects
        .into_iter()
        .map(|(id, object)| object.overlaid(dynamic.remove(id).unwrap_or_default()));
    let mut machines: Vec<MachineObject> = merged.filter(|machine| !machine.id.is_empty()).collect();
    machines.sort_by(|a, b| a.id.cmp(&b.id));
    machines
}

/// Says once per change, and not at every listing, that an object cannot be read.
#[derive(Clone, Debug, Default)]
struct Complaints(Arc<Mutex<BTreeMap<String, i64>>>);

impl Complaints {
    fn once(&self, id: &str, revision: i64, reason: &str) {
        if self.is_new(id, revision) {
            warn!(machine = id, revision, "a machine is left out: {reason}");
        }
    }

    fn is_new(&self, id: &str, revision: i64) -> bool {
        let mut said = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if said.len() >= COMPLAINTS_MAX {
            said.clear();
        }
        said.insert(id.to_owned(), revision) != Some(revision)
    }
}

#[cfg(test)]
mod tests {
    use proto::etcdserverpb::{PutResponse, RangeResponse, ResponseOp};

    use super::*;

    fn kv(key: &str, value: &str) -> KeyValue {
        KeyValue {
            key: Bytes::from(format!("/f/machines/{key}")),
            value: Bytes::copy_from_slice(value.as_bytes()),
            lease: 7,
            ..KeyValue::default()
        }
    }

    #[test]
    fn machines_are_put_together_sorted_and_merged() {
        let listed = [
            kv("a/metadata/role", "dynamic"),
            kv(
                "a/object",
                "{\"ID\":\"a\",\"PublicIP\":\"10.0.0.2\",\"Metadata\":{\"role\":\"own\",\"zone\":\"z\"}}",
            ),
            kv("away/metadata/role", "x"),
            kv("b/object", "{\"ID\":\"0\"}"),
            kv("broken/object", "{"),
            kv("empty/object", "{\"ID\":\"\"}"),
            kv("x/offer/1", "left over"),
        ];
        let machines = assemble(&Keys::new("/f"), &listed, &Complaints::default());
        let ids: Vec<&str> = machines.iter().map(|machine| machine.id.as_str()).collect();
        assert_eq!(ids, ["0", "a"]);
        let metadata: Vec<(&str, &str)> = machines[1]
            .metadata
            .iter()
            .map(|(k, v)| (k.as_str(), v.as_str()))
            .collect();
        assert_eq!(metadata, [("role", "dynamic"), ("zone", "z")]);
    }

    #[test]
    fn an_unreadable_object_is_complained_about_once_per_change() {
        let complaints = Complaints::default();
        assert!(complaints.is_new("a", 5));
        assert!(!complaints.is_new("a", 5));
        assert!(complaints.is_new("a", 6));
        assert!(complaints.is_new("b", 6));
        for n in 0..2 * COMPLAINTS_MAX {
            complaints.is_new(&n.to_string(), 1);
        }
        assert!(complaints.0.lock().unwrap().len() <= COMPLAINTS_MAX);
    }

    fn answer(succeeded: bool, response: Response) -> TxnResponse {
        let responses = vec![ResponseOp {
            response: Some(response),
        }];
        TxnResponse {
            succeeded,
            responses,
            ..TxnResponse::default()
        }
    }

    #[test]
    fn a_claim_is_ours_unless_the_innermost_branch_says_otherwise() {
        let put = || Response::ResponsePut(PutResponse::default());
        assert_eq!(other_holder(answer(true, put())), None);
        let updated = answer(false, Response::ResponseTxn(answer(true, put())));
        assert_eq!(other_holder(updated), None);
        let range = RangeResponse {
            kvs: vec![kv("a/object", "{\"PublicIP\":\"10.0.0.9\"}")],
            ..RangeResponse::default()
        };
        let foreign = answer(
            false,
            Response::ResponseTxn(answer(false, Response::ResponseRange(range))),
        );
        let holder = Holder {
            lease: LeaseId::new(7),
            public_ip: "10.0.0.9".to_owned(),
        };
        assert_eq!(other_holder(foreign), Some(holder));
    }
}
