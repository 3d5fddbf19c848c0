//! Generates the Rust types of the contract without a `protoc` on the machine, and beside them what the
//! contract says about each RPC: its scope, and where its request names the organization.

use std::{
    env,
    error::Error,
    fmt::Write as _,
    fs,
    path::{Path, PathBuf},
};

use prost::Message as _;
use prost_reflect::{DescriptorPool, FieldDescriptor, Kind, MessageDescriptor, MethodDescriptor};

fn main() -> Result<(), Box<dyn Error>> {
    let root = PathBuf::from(env::var("CARGO_MANIFEST_DIR")?);
    let out = PathBuf::from(env::var("OUT_DIR")?);
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
    fs::write(out.join("descriptors.bin"), &descriptors)?;
    fs::write(out.join("rpc.rs"), rpc_code(&compiler.descriptor_pool())?)?;

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

/// The table `RPCS`, and an implementation of `RpcRequest`, and of `PageRequest` where it asks for a page, for each
/// request that comes as one message.
fn rpc_code(pool: &DescriptorPool) -> Result<String, Box<dyn Error>> {
    let mut table = String::from("/// Every RPC of the contract.\npub const RPCS: &[Rpc] = &[\n");
    let mut requests = String::new();
    for method in pool.services().flat_map(|service| {
        let methods: Vec<_> = service.methods().collect();
        methods
    }) {
        let scope = scope(pool, &method);
        writeln!(
            table,
            "    Rpc {{ service: {:?}, path: \"/{}/{}\", scope: {scope:?}, \
             is_client_streaming: {}, is_server_streaming: {} }},",
            method.parent_service().full_name(),
            method.parent_service().full_name(),
            method.name(),
            method.is_client_streaming(),
            method.is_server_streaming(),
        )?;
        if !method.is_client_streaming() {
            requests.push_str(&request_code(&method, scope.starts_with("platform/"))?);
            requests.push_str(&page_code(&method.input()));
        }
    }
    Ok(format!("{table}];\n{requests}"))
}

fn scope(pool: &DescriptorPool, method: &MethodDescriptor) -> String {
    pool.get_extension_by_name("usher.options.v1.scope")
        .and_then(|extension| {
            let options = method.options();
            let scope = options.get_extension(&extension);
            scope.as_str().map(str::to_owned)
        })
        .unwrap_or_default()
}

fn request_code(method: &MethodDescriptor, is_platform: bool) -> Result<String, Box<dyn Error>> {
    let message = method.input();
    let (organization, organization_path) = match organization_field(&message) {
        _ if is_platform => ("None".to_owned(), ""),
        Some(Organization::Named) => ("Some(&self.organization_id)".to_owned(), "organization_id"),
        Some(Organization::Inside) => (
            "Some(self.organization.as_ref().map_or(\"\", |value| &value.organization_id))"
                .to_owned(),
            "organization.organization_id",
        ),
        None => ("None".to_owned(), ""),
    };
    let request_id = match message.get_field_by_name("request_id") {
        Some(_) => "&self.request_id",
        None => "\"\"",
    };
    let mut without = String::new();
    for field in message.fields().filter(is_no_content) {
        write!(without, "content.{}.clear(); ", field.name())?;
    }
    let has_secret = message.fields().any(|field| is_secret(&field));
    let mutability = if without.is_empty() { "" } else { "mut " };
    Ok(format!(
        "impl RpcRequest for {} {{\n\
             const PATH: &'static str = \"/{}/{}\";\n\
             const ORGANIZATION_FIELD: &'static str = {organization_path:?};\n\
             const HAS_SECRET: bool = {has_secret};\n\
             fn organization_id(&self) -> Option<&str> {{ {organization} }}\n\
             fn request_id(&self) -> &str {{ {request_id} }}\n\
             fn content(&self) -> Vec<u8> {{ let {mutability}content = self.clone(); {without}content.encode_to_vec() }}\n\
         }}\n",
        rust_path(&message),
        method.parent_service().full_name(),
        method.name(),
    ))
}

/// An implementation of `PageRequest` for a request that has the fields of a page.
fn page_code(message: &MessageDescriptor) -> String {
    if ["page_size", "page_token"]
        .iter()
        .any(|field| message.get_field_by_name(field).is_none())
    {
        return String::new();
    }
    format!(
        "impl PageRequest for {} {{\n\
             fn page_size(&self) -> i32 {{ self.page_size }}\n\
             fn page_token(&self) -> &str {{ &self.page_token }}\n\
             fn query(&self) -> Vec<u8> {{ \
                 let mut query = self.clone(); query.page_size = 0; query.page_token.clear(); query.encode_to_vec() }}\n\
         }}\n",
        rust_path(message),
    )
}

/// Where a request names its organization.
enum Organization {
    /// In `organization_id`.
    Named,
    /// In `organization.organization_id`.
    Inside,
}

fn organization_field(message: &MessageDescriptor) -> Option<Organization> {
    if message.get_field_by_name("organization_id").is_some() {
        return Some(Organization::Named);
    }
    match message.get_field_by_name("organization")?.kind() {
        Kind::Message(inner) => inner
            .get_field_by_name("organization_id")
            .map(|_| Organization::Inside),
        _ => None,
    }
}

/// The request id names a call and says nothing of what it asks for; a fast hash of a password must not be
/// kept.
fn is_no_content(field: &FieldDescriptor) -> bool {
    field.name() == "request_id" || is_secret(field)
}

fn is_secret(field: &FieldDescriptor) -> bool {
    field
        .options()
        .get_field_by_name("debug_redact")
        .is_some_and(|value| value.as_bool() == Some(true))
}

/// The Rust type of a top-level message, as `lib.rs` names its module.
fn rust_path(message: &MessageDescriptor) -> String {
    let module = message
        .package_name()
        .trim_start_matches("usher.")
        .replace('.', "::");
    format!("crate::{module}::{}", message.name())
}
