"""A gRPC client that learns the contract from the server, by reflection. It knows no generated code."""

import threading

import grpc
from google.protobuf import descriptor_pool, json_format, message_factory
from google.protobuf.message import Message
from google.rpc import error_details_pb2, status_pb2
from grpc_reflection.v1alpha.proto_reflection_descriptor_database import ProtoReflectionDescriptorDatabase

DEADLINE_SECONDS = 30


class Refused(Exception):
    """The server answered a call with an error."""

    def __init__(self, method: str, code: grpc.StatusCode, message: str, reason: str, details: list):
        super().__init__(f"{method}: {code.name} {reason}: {message}")
        self.code = code
        self.reason = reason
        self.details = details

    @property
    def is_passing(self) -> bool:
        """Whether the same call may succeed later."""
        return self.code in (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.DEADLINE_EXCEEDED)

    def detail(self, name: str) -> Message:
        """The detail of this message type, for example `DuplicateReport`."""
        return next(detail for detail in self.details if detail.DESCRIPTOR.name == name)


class Connection:
    """Calls the services of one server."""

    def __init__(self, address: str):
        # A server that comes back is found again within half a second.
        options = [("grpc.max_reconnect_backoff_ms", 500), ("grpc.initial_reconnect_backoff_ms", 100)]
        self.channel = grpc.insecure_channel(address, options)
        self.pool = descriptor_pool.DescriptorPool(ProtoReflectionDescriptorDatabase(self.channel))
        self.lock = threading.Lock()
        self.stubs = {}

    def services(self) -> set[str]:
        """Names of all services that the server reflects."""
        return set(ProtoReflectionDescriptorDatabase(self.channel).get_services())

    def call(self, method: str, deadline: float = DEADLINE_SECONDS, **request) -> Message:
        """Calls `package.Service/Method` with the fields of the request, as in proto3 JSON.

        Raises Refused for an answer that is an error.
        """
        stub, request_type = self.stub(method)
        try:
            return stub(json_format.ParseDict(request, request_type()), timeout=deadline)
        except grpc.RpcError as error:
            raise self.refused(method, error) from None

    def stub(self, method: str):
        with self.lock:
            if method not in self.stubs:
                service, _, name = method.partition("/")
                described = self.pool.FindServiceByName(service).methods_by_name[name]
                request_type = message_factory.GetMessageClass(described.input_type)
                response_type = message_factory.GetMessageClass(described.output_type)
                stub = self.channel.unary_unary(
                    f"/{method}",
                    request_serializer=request_type.SerializeToString,
                    response_deserializer=response_type.FromString,
                )
                self.stubs[method] = stub, request_type
            return self.stubs[method]

    def refused(self, method: str, error: grpc.RpcError) -> Refused:
        trailers = dict(error.trailing_metadata() or ())
        status = status_pb2.Status.FromString(trailers.get("grpc-status-details-bin", b""))
        details = [self.unpacked(detail) for detail in status.details]
        infos = [detail for detail in details if detail.DESCRIPTOR.full_name == "google.rpc.ErrorInfo"]
        reason = infos[0].reason if infos else ""
        return Refused(method, error.code(), error.details(), reason, details)

    def unpacked(self, detail) -> Message:
        name = detail.type_url.rpartition("/")[2]
        if name.startswith("google.rpc."):
            message_type = getattr(error_details_pb2, name.removeprefix("google.rpc."))
        else:
            with self.lock:
                message_type = message_factory.GetMessageClass(self.pool.FindMessageTypeByName(name))
        return message_type.FromString(detail.value)

    def close(self):
        self.channel.close()
