//! What this node is to others: nobody yet, then a founder or a newcomer, then a member.

use std::sync::{OnceLock, PoisonError, RwLock};

use bytes::Bytes;
use proto::ids::{ClusterId, NodeId};
use proto::peer::hello_response::State;
use proto::peer::{BootedMember, HelloResponse};
use store::members::Member;
use tokio::sync::Notify;

use super::PROTOCOL;
use crate::driver::{CheckpointFiles, Handle};

/// What a data directory and a process are bound to for good.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Identity {
    /// This member's name.
    pub name: String,
    /// 16 random bytes, made with the data directory: tells "same name, new disk".
    pub incarnation: Bytes,
    /// Drawn at each start of the process: tells "same disk, two processes".
    pub boot: u64,
    /// What others are told, sorted.
    pub peer_urls: Vec<String>,
    /// What clients are told, sorted.
    pub client_urls: Vec<String>,
}

/// How far this node has come.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Phase {
    /// Looks for its cluster.
    #[default]
    Waiting,
    /// Founds one.
    Founding,
    /// Asks to be let in.
    Joining,
    /// Belongs to one.
    Member,
    /// Is about to end.
    Stopping,
}

impl Phase {
    fn state(self) -> State {
        match self {
            Self::Waiting => State::Waiting,
            Self::Founding => State::Founding,
            Self::Joining => State::Joining,
            Self::Member => State::Member,
            Self::Stopping => State::Stopping,
        }
    }
}

/// What exists once this node belongs to a cluster.
pub struct Membership {
    /// The cluster.
    pub cluster: ClusterId,
    /// This node in it.
    pub node: NodeId,
    /// The way to the replica.
    pub handle: Handle,
    /// Where received checkpoints go.
    pub checkpoints: CheckpointFiles,
}

/// This node, as its peer port shows it.
pub struct Station {
    /// Who it is.
    pub identity: Identity,
    phase: RwLock<Phase>,
    membership: OnceLock<Membership>,
    /// A member has told us that we may join now.
    pub invited: Notify,
}

impl Station {
    /// A node that belongs nowhere yet.
    pub fn new(identity: Identity) -> Self {
        Self {
            identity,
            phase: RwLock::default(),
            membership: OnceLock::new(),
            invited: Notify::new(),
        }
    }

    /// How far it has come.
    pub fn phase(&self) -> Phase {
        *self.phase.read().unwrap_or_else(PoisonError::into_inner)
    }

    /// It has come so far.
    pub fn enter(&self, phase: Phase) {
        *self.phase.write().unwrap_or_else(PoisonError::into_inner) = phase;
    }

    /// It belongs to a cluster.
    ///
    /// # Panics
    /// When it did already.
    pub fn belong(&self, membership: Membership) {
        assert!(
            self.membership.set(membership).is_ok(),
            "a node belongs to one cluster, once"
        );
        self.enter(Phase::Member);
    }

    /// Its cluster, if any.
    pub fn membership(&self) -> Option<&Membership> {
        self.membership.get()
    }

    /// The answer to a hello.
    pub fn hello(&self) -> HelloResponse {
        let mut response = HelloResponse {
            protocol: PROTOCOL,
            name: self.identity.name.clone(),
            incarnation: self.identity.incarnation.clone(),
            boot: self.identity.boot,
            state: self.phase().state().into(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            ..HelloResponse::default()
        };
        if let Some(membership) = self.membership() {
            let leader = membership.handle.status().leader;
            response.cluster = membership.cluster.get();
            response.node = membership.node.get();
            response.leader = leader.get();
            response.members = membership
                .handle
                .view(|view| view.members().present.values().map(booted_member).collect());
            response.leader_peer_urls = response
                .members
                .iter()
                .find(|member| member.id == leader.get() && leader != NodeId::NONE)
                .map(|member| member.peer_urls.clone())
                .unwrap_or_default();
        }
        response
    }
}

/// A member as peers describe it to each other.
pub(super) fn booted_member(member: &Member) -> BootedMember {
    BootedMember {
        id: member.id.get(),
        name: member.name.clone(),
        peer_urls: member.peer_urls.clone(),
        client_urls: member.client_urls.clone(),
        is_learner: member.is_learner,
        incarnation: member.incarnation.clone(),
    }
}
