//! Calls of any method with any bytes, for what the generated clients cannot say.

use prost::Message as _;
use prost::bytes::{Buf as _, BufMut as _};
use tonic::codec::{Codec, DecodeBuf, Decoder, EncodeBuf, Encoder};
use tonic::{Request, Status};

use super::client::Caller;

/// Messages as the bytes they are.
#[derive(Clone, Copy, Default)]
struct Bytes;

impl Codec for Bytes {
    type Encode = Vec<u8>;
    type Decode = Vec<u8>;
    type Encoder = Self;
    type Decoder = Self;

    fn encoder(&mut self) -> Self {
        Self
    }

    fn decoder(&mut self) -> Self {
        Self
    }
}

impl Encoder for Bytes {
    type Item = Vec<u8>;
    type Error = Status;

    fn encode(&mut self, item: Vec<u8>, to: &mut EncodeBuf<'_>) -> Result<(), Status> {
        to.put_slice(&item);
        Ok(())
    }
}

impl Decoder for Bytes {
    type Item = Vec<u8>;
    type Error = Status;

    fn decode(&mut self, from: &mut DecodeBuf<'_>) -> Result<Option<Vec<u8>>, Status> {
        Ok(Some(from.copy_to_bytes(from.remaining()).to_vec()))
    }
}

impl Caller {
    /// Calls the method at `path` with the bytes of a message; of a stream, the first answer.
    pub async fn raw(&self, path: &str, message: Vec<u8>) -> Result<Vec<u8>, Status> {
        let mut client = tonic::client::Grpc::new(self.transport());
        client
            .ready()
            .await
            .map_err(|error| Status::unknown(error.to_string()))?;
        let answers = client
            .server_streaming(Request::new(message), path.parse().unwrap(), Bytes)
            .await?;
        let first = answers.into_inner().message().await?;
        first.ok_or_else(|| Status::unknown("neither an answer nor a refusal"))
    }
}

impl Caller {
    /// As [`Caller::raw`], with the head of the call sent at once and the message only when `ready` is.
    pub async fn raw_when(
        &self,
        path: &str,
        message: Vec<u8>,
        ready: impl Future<Output = ()> + Send + 'static,
    ) -> Result<Vec<u8>, Status> {
        let mut client = tonic::client::Grpc::new(self.transport());
        client
            .ready()
            .await
            .map_err(|error| Status::unknown(error.to_string()))?;
        let messages = futures_util::stream::once(async move {
            ready.await;
            message
        });
        let answers = client
            .streaming(Request::new(messages), path.parse().unwrap(), Bytes)
            .await?;
        Ok(answers.into_inner().message().await?.unwrap_or_default())
    }
}

/// Every call of the API's own services: its path, and the message it takes.
pub fn methods() -> Vec<(String, String)> {
    let files = prost_types::FileDescriptorSet::decode(credbroker::proto::DESCRIPTORS).unwrap();
    let mut methods = Vec::new();
    for file in files.file {
        for service in &file.service {
            methods.extend(service.method.iter().map(|method| {
                let path = format!("/{}.{}/{}", file.package(), service.name(), method.name());
                (path, method.input_type().to_owned())
            }));
        }
    }
    methods
}

/// All that a caller learns from a refusal, to be compared whole.
pub fn told(status: &Status) -> (tonic::Code, String, Vec<u8>) {
    (
        status.code(),
        status.message().to_owned(),
        status.details().to_vec(),
    )
}
