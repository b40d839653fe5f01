//! Compiles `proto/` with protox, so that no `protoc` is needed.

use std::path::Path;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    println!("cargo:rerun-if-changed=proto");
    let mut files: Vec<_> = std::fs::read_dir("proto/credbroker/v1")?
        .map(|entry| entry.map(|e| e.path()))
        .collect::<Result<_, _>>()?;
    files.sort();
    let descriptors = protox::compile(&files, ["proto"])?;
    let out = std::env::var("OUT_DIR")?;
    std::fs::write(
        Path::new(&out).join("credbroker.v1.bin"),
        prost::Message::encode_to_vec(&descriptors),
    )?;
    tonic_prost_build::configure()
        .build_transport(true)
        // Secret's Debug is written by hand in src/proto.rs, and never prints.
        .skip_debug(["credbroker.v1.Secret"])
        .compile_fds(descriptors)?;
    Ok(())
}
