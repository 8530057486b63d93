//! What is said on wires, disks and between crates: generated messages, identifiers with their forms,
//! and the textual contracts of etcd v2, discovery and fleet. Knows no transport and imports nothing of ours.

pub mod ids;
pub mod key;
pub mod time;

#[expect(
    unreachable_pub,
    unused_qualifications,
    clippy::allow_attributes,
    clippy::large_enum_variant,
    clippy::allow_attributes_without_reason,
    reason = "generated from schema/, where the documentation stands"
)]
mod generated {
    pub mod etcdserverpb {
        tonic::include_proto!("etcdserverpb");
    }
    pub mod mvccpb {
        tonic::include_proto!("mvccpb");
    }
    pub mod health {
        tonic::include_proto!("grpc.health.v1");
    }
    pub mod hawser {
        pub mod log {
            pub mod v1 {
                tonic::include_proto!("hawser.log.v1");
            }
        }
        pub mod peer {
            pub mod v1 {
                tonic::include_proto!("hawser.peer.v1");
            }
        }
        pub mod snapshot {
            pub mod v1 {
                tonic::include_proto!("hawser.snapshot.v1");
            }
        }
    }
}

/// Messages and services of the etcd v3 API.
pub use generated::etcdserverpb;
/// What stands in the replicated log.
pub use generated::hawser::log::v1 as log;
/// What nodes say to each other.
pub use generated::hawser::peer::v1 as peer;
/// The content of a checkpoint.
pub use generated::hawser::snapshot::v1 as snapshot;
/// The standard gRPC health protocol.
pub use generated::health;
/// Keys and events of the etcd v3 API.
pub use generated::mvccpb;
