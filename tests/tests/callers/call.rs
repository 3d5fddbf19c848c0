//! Calls RPCs by their path, with messages that are built from the contract.

use std::sync::LazyLock;

use prost::{
    Message as _,
    bytes::{Buf as _, BufMut as _},
};
use prost_reflect::{
    DescriptorPool, DynamicMessage, MessageDescriptor, ReflectMessage as _, Value,
};
use tonic::{
    Code, Request, Status,
    client::Grpc,
    codec::{Codec, DecodeBuf, Decoder, EncodeBuf, Encoder},
    codegen::http::uri::PathAndQuery,
    metadata::MetadataMap,
    transport::Channel,
};
use tonic_types::StatusExt as _;
use usher_proto::rpc::Rpc;

static CONTRACT: LazyLock<DescriptorPool> = LazyLock::new(|| {
    DescriptorPool::decode(usher_proto::FILE_DESCRIPTOR_SET).expect("the contract decodes")
});

/// What came back.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Answer {
    pub code: Code,
    pub message: String,
    /// The encoded details.
    pub details: Vec<u8>,
}

impl Answer {
    pub fn reason(&self) -> String {
        let status = Status::with_details(self.code, "", self.details.clone().into());
        let details = status.get_error_details();
        details
            .error_info()
            .map(|info| info.reason.clone())
            .unwrap_or_default()
    }

    pub fn scope(&self) -> Option<String> {
        let status = Status::with_details(self.code, "", self.details.clone().into());
        let details = status.get_error_details();
        details.error_info()?.metadata.get("scope").cloned()
    }
}

/// Sends an encoded message to `path`.
pub async fn call(
    channel: &Channel,
    path: &str,
    body: Vec<u8>,
    headers: &[(&'static str, String)],
) -> Answer {
    let mut metadata = MetadataMap::new();
    for (name, value) in headers {
        metadata.insert(*name, value.parse().expect("header"));
    }
    let request = Request::from_parts(metadata, tonic::Extensions::new(), body);
    let mut client = Grpc::new(channel.clone());
    client.ready().await.expect("the service is there");
    let path = PathAndQuery::try_from(path).expect("path");
    // An answer begins alike whether it is a stream or not, and a refusal is all that comes.
    match client.server_streaming(request, path, Bytes).await {
        Ok(_) => Answer {
            code: Code::Ok,
            message: String::new(),
            details: Vec::new(),
        },
        Err(status) => Answer {
            code: status.code(),
            message: status.message().to_owned(),
            details: status.details().to_vec(),
        },
    }
}

/// A request of `rpc` that says nothing but which organization it is about, and whether it says that.
pub fn request_about(rpc: &Rpc, organization_id: &str) -> (Vec<u8>, bool) {
    let (message, names_it) = about(&input(rpc), organization_id);
    (message.encode_to_vec(), names_it)
}

/// A request of `rpc` with a token from a link, and a password where one belongs to it.
pub fn request_with_token(rpc: &Rpc, token: &str) -> Vec<u8> {
    let mut message = DynamicMessage::new(input(rpc));
    message.set_field_by_name("token", Value::String(token.to_owned()));
    if message.descriptor().get_field_by_name("password").is_some() {
        let password = Value::String("correct horse battery staple".to_owned());
        message.set_field_by_name("password", password);
    }
    message.encode_to_vec()
}

fn input(rpc: &Rpc) -> MessageDescriptor {
    let service = CONTRACT.get_service_by_name(rpc.service).expect("service");
    let method = service
        .methods()
        .find(|method| rpc.path.ends_with(&format!("/{}", method.name())))
        .expect("method");
    method.input()
}

fn about(descriptor: &MessageDescriptor, organization_id: &str) -> (DynamicMessage, bool) {
    let id = Value::String(organization_id.to_owned());
    let mut message = DynamicMessage::new(descriptor.clone());
    if descriptor.get_field_by_name("organization_id").is_some() {
        message.set_field_by_name("organization_id", id);
        return (message, true);
    }
    let inner = descriptor
        .get_field_by_name("organization")
        .and_then(|field| field.kind().as_message().cloned());
    let Some(inner) = inner else {
        return (message, false);
    };
    let (inner, names_it) = about(&inner, organization_id);
    message.set_field_by_name("organization", Value::Message(inner));
    (message, names_it)
}

/// Messages as the bytes that they are encoded to; answers are not looked at.
#[derive(Debug, Clone, Copy)]
struct Bytes;

impl Codec for Bytes {
    type Encode = Vec<u8>;
    type Decode = ();
    type Encoder = Self;
    type Decoder = Self;

    fn encoder(&mut self) -> Self {
        *self
    }

    fn decoder(&mut self) -> Self {
        *self
    }
}

impl Encoder for Bytes {
    type Item = Vec<u8>;
    type Error = Status;

    fn encode(&mut self, item: Vec<u8>, buffer: &mut EncodeBuf<'_>) -> Result<(), Status> {
        buffer.put_slice(&item);
        Ok(())
    }
}

impl Decoder for Bytes {
    type Item = ();
    type Error = Status;

    fn decode(&mut self, buffer: &mut DecodeBuf<'_>) -> Result<Option<()>, Status> {
        buffer.advance(buffer.remaining());
        Ok(Some(()))
    }
}
