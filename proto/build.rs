//! Generates the Rust types of the contract without a `protoc` on the machine.

use std::{
    env,
    error::Error,
    fs,
    path::{Path, PathBuf},
};

use prost::Message as _;

fn main() -> Result<(), Box<dyn Error>> {
    let root = PathBuf::from(env::var("CARGO_MANIFEST_DIR")?);
    println!("cargo:rerun-if-changed={}", root.join("usher").display());
    let mut files = Vec::new();
    collect_proto_files(&root.join("usher"), &mut files)?;
    files.sort();

    let mut compiler = protox::Compiler::new([&root])?;
    compiler.include_imports(true).include_source_info(true);
    compiler.open_files(&files)?;
    // Encoded by protox: a round trip through prost would drop custom options, and with them the
    // scopes that reflection shows.
    let descriptors = compiler.encode_file_descriptor_set();
    fs::write(
        PathBuf::from(env::var("OUT_DIR")?).join("descriptors.bin"),
        &descriptors,
    )?;

    tonic_prost_build::configure()
        // What is not served yet answers UNIMPLEMENTED instead of not compiling.
        .generate_default_stubs(true)
        // Encoded in one order always: repeated requests are recognized by their bytes.
        .btree_map(".")
        .compile_fds(tonic_prost_build::FileDescriptorSet::decode(
            descriptors.as_slice(),
        )?)?;
    Ok(())
}

fn collect_proto_files(directory: &Path, files: &mut Vec<PathBuf>) -> Result<(), Box<dyn Error>> {
    for entry in fs::read_dir(directory)? {
        let path = entry?.path();
        if path.is_dir() {
            collect_proto_files(&path, files)?;
        } else if path
            .extension()
            .is_some_and(|extension| extension == "proto")
        {
            files.push(path);
        }
    }
    Ok(())
}
