//! Tests of the v3 front: [`front`] against a node inside the test, [`differential`] beside a stock etcd,
//! [`etcdctl`] with Debian's client.

mod calls;
mod differential;
mod etcdctl;
mod front;
mod support;
