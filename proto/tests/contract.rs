//! The contract is complete, and agrees with itself.

#![expect(
    clippy::expect_used,
    reason = "a contract that cannot be read fails its tests"
)]

use std::collections::{BTreeMap, BTreeSet};

use prost::Message as _;
use prost_reflect::DescriptorPool;
use prost_types::{DescriptorProto, FileDescriptorProto, FileDescriptorSet};
use usher_proto::{
    rpc::{RPCS, Rpc},
    topology::{self, Queue},
};

/// Every service with its RPCs: what a reader of the contract may rely on.
const SERVICES: &[(&str, &[&str])] = &[
    (
        "usher.account.v1.AccountService",
        &[
            "CheckDuplicates",
            "CreateAccount",
            "GetAccount",
            "BatchGetAccounts",
            "ListAccounts",
            "UpdateAccount",
            "CloseAccount",
            "ReopenAccount",
            "EraseAccount",
            "ImportAccounts",
            "ExportAccounts",
        ],
    ),
    (
        "usher.account.v1.ActivationService",
        &[
            "InspectToken",
            "ActivateAccount",
            "RequestNewInvitation",
            "SignUp",
            "VerifyEmail",
            "RequestPasswordReset",
            "ResetPassword",
            "Authenticate",
        ],
    ),
    ("usher.account.v1.AuditService", &["ListAuditEvents"]),
    (
        "usher.account.v1.DuplicateService",
        &[
            "StartDuplicateScan",
            "GetDuplicateScan",
            "ListSuspectedDuplicates",
            "DismissDuplicate",
            "MergeAccounts",
            "UnmergeAccounts",
        ],
    ),
    (
        "usher.account.v1.GroupService",
        &[
            "CreateGroup",
            "GetGroup",
            "ListGroups",
            "AddGroupMember",
            "UpdateGroupMember",
            "RemoveGroupMember",
        ],
    ),
    (
        "usher.account.v1.InvitationService",
        &[
            "SendInvitation",
            "GetInvitation",
            "ListInvitations",
            "RevokeInvitation",
            "StartBulkInvitation",
            "GetBulkInvitation",
            "ListBulkInvitations",
            "WatchBulkInvitation",
            "ListBulkInvitationResults",
            "CancelBulkInvitation",
        ],
    ),
    (
        "usher.account.v1.OrganizationService",
        &[
            "CreateOrganization",
            "GetOrganization",
            "UpdateOrganization",
            "ListOrganizations",
        ],
    ),
    (
        "usher.account.v1.RecordService",
        &["FileRecord", "ListRecords"],
    ),
    (
        "usher.account.v1.SharingService",
        &[
            "ListLinkPrompts",
            "AcceptLink",
            "DismissLink",
            "AcceptShare",
            "DeclineShare",
            "ListShares",
            "RevokeShare",
            "GetSharedProfile",
        ],
    ),
    (
        "usher.notify.v1.DeadLetterService",
        &["ListDeadLetters", "ReplayDeadLetter", "DiscardDeadLetter"],
    ),
    (
        "usher.notify.v1.DeliveryService",
        &[
            "GetDelivery",
            "ListDeliveries",
            "WatchDeliveries",
            "CancelDelivery",
            "RetryDelivery",
            "GetThrottle",
        ],
    ),
    ("usher.notify.v1.FeedbackService", &["ReportFeedback"]),
    (
        "usher.notify.v1.SuppressionService",
        &["ListSuppressions", "AddSuppression", "RemoveSuppression"],
    ),
    (
        "usher.notify.v1.TemplateService",
        &[
            "ListTemplates",
            "GetTemplate",
            "PreviewTemplate",
            "PutTemplate",
            "RollBackTemplate",
        ],
    ),
];

/// First words of RPCs that change nothing, and of those that are repeated on purpose. All others need a
/// request id.
const READS: &[&str] = &[
    "Authenticate",
    "BatchGet",
    "Check",
    "Export",
    "Get",
    "Inspect",
    "List",
    "Preview",
    "Watch",
];

fn files() -> Vec<FileDescriptorProto> {
    FileDescriptorSet::decode(usher_proto::FILE_DESCRIPTOR_SET)
        .expect("the descriptor set decodes")
        .file
        .into_iter()
        .filter(|file| file.package().starts_with("usher."))
        .collect()
}

fn messages() -> BTreeMap<String, DescriptorProto> {
    files()
        .into_iter()
        .flat_map(|file| {
            let package = file.package().to_owned();
            file.message_type
                .into_iter()
                .map(move |message| (format!(".{package}.{}", message.name()), message))
        })
        .collect()
}

/// Payload field of the envelope → routing key: `account_created` → `account.created.v1`.
fn payload_routing_keys() -> BTreeSet<String> {
    messages()[".usher.event.v1.Event"]
        .field
        .iter()
        .filter(|field| field.oneof_index.is_some())
        .map(|field| format!("{}.v1", field.name().replacen('_', ".", 1)))
        .collect()
}

#[test]
fn every_service_has_its_rpcs() {
    let mut described = BTreeSet::new();
    for file in files() {
        for service in &file.service {
            let service_name = format!("{}.{}", file.package(), service.name());
            for method in &service.method {
                described.insert(format!("{service_name}/{}", method.name()));
            }
        }
    }
    let listed: BTreeSet<String> = SERVICES
        .iter()
        .flat_map(|(service, methods)| methods.iter().map(move |name| format!("{service}/{name}")))
        .collect();
    let differing: Vec<_> = described.symmetric_difference(&listed).collect();
    assert_eq!(
        differing,
        [] as [&String; 0],
        "RPCs that only the contract or only SERVICES lists"
    );
}

#[test]
fn every_change_is_safe_to_retry() {
    let messages = messages();
    for file in files() {
        for method in file.service.iter().flat_map(|service| &service.method) {
            let reads = READS.iter().any(|verb| method.name().starts_with(verb));
            // A stream carries its request id in the message that opens it.
            if reads || method.client_streaming() {
                continue;
            }
            let request = &messages[method.input_type()];
            assert!(
                request
                    .field
                    .iter()
                    .any(|field| field.name() == "request_id"),
                "{} has no request_id, and {} begins with no verb of READS",
                request.name(),
                method.name()
            );
        }
    }
}

#[test]
fn every_enum_starts_with_unspecified() {
    for file in files() {
        for enumeration in &file.enum_type {
            let first = &enumeration.value[0];
            assert_eq!(first.number(), 0, "{}", enumeration.name());
            assert!(first.name().ends_with("_UNSPECIFIED"), "{}", first.name());
        }
    }
}

#[test]
fn the_envelope_documents_the_routing_key_of_each_payload() {
    let file = files()
        .into_iter()
        .find(|file| file.name() == "usher/event/v1/event.proto")
        .expect("the envelope is part of the contract");
    let comments: String = file
        .source_code_info
        .expect("reflection shows comments")
        .location
        .iter()
        .map(|location| location.leading_comments().to_owned())
        .collect();
    for key in payload_routing_keys() {
        assert!(
            comments.contains(&format!("Routing key `{key}`")),
            "event.proto does not say `{key}`"
        );
    }
}

#[test]
fn queues_are_bound_to_events_that_exist() {
    let known = payload_routing_keys();
    for Queue {
        name, routing_keys, ..
    } in topology::QUEUES
    {
        for key in routing_keys {
            assert!(known.contains(*key), "{name} is bound to {key}");
            assert!(topology::is_internal(key));
        }
    }
}

#[test]
fn news_need_no_queue() {
    assert!(!topology::is_internal(
        topology::routing_key::ACCOUNT_CREATED
    ));
}

#[test]
fn queues_do_not_share_names() {
    let names: BTreeSet<&str> = topology::QUEUES
        .iter()
        .flat_map(|queue| [queue.name, queue.dead_letter_queue])
        .collect();
    assert_eq!(names.len(), 2 * topology::QUEUES.len());
}

/// `accounts.read`, `portal`, `platform/accounts.read`: what RFC 6749 section 3.3 allows in a scope, and narrower.
fn is_scope(scope: &str) -> bool {
    let bare = scope.strip_prefix("platform/").unwrap_or(scope);
    let parts: Vec<&str> = bare.split('.').collect();
    let is_part = |part: &&str| {
        !part.is_empty()
            && part
                .bytes()
                .all(|byte| byte.is_ascii_lowercase() || byte == b'_')
    };
    parts.len() <= 2 && parts.iter().all(is_part)
}

#[test]
fn every_rpc_declares_a_scope() {
    for wrong in [
        "",
        "platform/",
        "Accounts.read",
        "a.b.c",
        "a.",
        "a b",
        "a/b",
    ] {
        assert!(!is_scope(wrong), "{wrong}");
    }
    for rpc in RPCS {
        assert!(is_scope(rpc.scope), "{}: `{}`", rpc.path, rpc.scope);
    }
}

#[test]
fn reflection_shows_the_scopes() {
    let pool = DescriptorPool::decode(usher_proto::FILE_DESCRIPTOR_SET)
        .expect("the descriptor set decodes");
    let extension = pool
        .get_extension_by_name("usher.options.v1.scope")
        .expect("the option is part of the contract");
    let mut seen = 0;
    for method in pool
        .services()
        .flat_map(|service| service.methods().collect::<Vec<_>>())
    {
        let path = format!("/{}/{}", method.parent_service().full_name(), method.name());
        let rpc = Rpc::find(&path).expect("the table holds every RPC");
        let options = method.options();
        assert_eq!(
            options.get_extension(&extension).as_str(),
            Some(rpc.scope),
            "{path}"
        );
        seen += 1;
    }
    assert_eq!(seen, RPCS.len());
}
