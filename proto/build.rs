//! Compiles the schemas with a compiler written in Rust, so that no protoc is needed on the machine.

use std::error::Error;

fn main() -> Result<(), Box<dyn Error>> {
    println!("cargo:rerun-if-changed=schema");
    let files = protox::compile(
        [
            "etcd/kv.proto",
            "etcd/rpc.proto",
            "health.proto",
            "hawser/log.proto",
            "hawser/peer.proto",
            "hawser/snapshot.proto",
        ],
        ["schema"],
    )?;
    tonic_prost_build::configure().bytes(".").compile_fds(files)?;
    Ok(())
}
