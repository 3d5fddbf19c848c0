//! From messages to types that cannot be wrong. Every fault of a request is named in one answer.

mod organization;
mod profile;

use usher_proto::account::v1::{self as proto, AccountFilter, InvitePolicy, PlatformMatchPolicy};
use usher_runtime::fields::FieldParser;

pub(super) use self::{
    organization::organization_change,
    profile::{identity, profile_change},
};
use crate::{
    domain::{acknowledgement, organization::EntryMode, text},
    use_cases::{accounts::Decisions, invitations::InvitationOptions},
};

/// The version that an `etag` stands for; `None` if it is empty.
pub(super) fn etag(fields: &mut FieldParser, field: &str, etag: &str) -> Option<i64> {
    if etag.is_empty() {
        return None;
    }
    fields.take(
        field,
        etag.strip_prefix('"')
            .and_then(|rest| rest.strip_suffix('"')?.parse().ok())
            .ok_or("not an etag; send the `etag` that the resource was read with, quotes included, or none"),
    )
}

/// A filter that is silently ignored would show the wrong accounts.
pub(super) fn refuse_unserved_filters(fields: &mut FieldParser, filter: &AccountFilter) {
    let AccountFilter {
        states: _,
        plan,
        assigned_staff,
        group_id,
        created_from,
        created_before,
        last_login_from,
        last_login_before,
        text,
    } = filter;
    for (field, is_given) in [
        ("filter.plan", plan.is_some()),
        ("filter.assigned_staff", assigned_staff.is_some()),
        ("filter.group_id", group_id.is_some()),
        ("filter.created_from", created_from.is_some()),
        ("filter.created_before", created_before.is_some()),
        ("filter.last_login_from", last_login_from.is_some()),
        ("filter.last_login_before", last_login_before.is_some()),
        ("filter.text", text.is_some()),
    ] {
        if is_given {
            fields.refuse_unserved(field);
        }
    }
}

/// What staff add to an invitation.
pub(super) fn invitation_options(
    fields: &mut FieldParser,
    form_id: Option<String>,
    return_url: Option<String>,
) -> Option<InvitationOptions> {
    let form_id = form_id.map(|form_id| text::optional(&form_id, 128));
    let form_id = fields.take("form_id", form_id.transpose());
    Some(InvitationOptions {
        form_id: form_id?,
        // Judged by the use case, which knows the organization's origins.
        return_url,
    })
}

/// Where an entry comes from.
pub(super) fn entry_mode(fields: &mut FieldParser, entry_mode: i32) -> Option<EntryMode> {
    let entry_mode: proto::EntryMode = fields.known_enum(
        "entry_mode",
        entry_mode,
        "ENTRY_MODE_FRONT_DESK, ENTRY_MODE_IMPORT",
    )?;
    Some(match entry_mode {
        proto::EntryMode::Unspecified | proto::EntryMode::FrontDesk => EntryMode::FrontDesk,
        proto::EntryMode::Import => EntryMode::Import,
    })
}

/// What the caller decided about duplicates and whether to invite, without the options of the invitation.
pub(super) fn decisions(
    fields: &mut FieldParser,
    invite: i32,
    on_platform_match: i32,
    acknowledgement: &str,
    reason: &str,
    entry_mode: i32,
) -> Option<Decisions> {
    let invite: Option<InvitePolicy> =
        fields.known_enum("invite", invite, "INVITE_POLICY_AUTO, INVITE_POLICY_HOLD");
    let on_platform_match: Option<PlatformMatchPolicy> = fields.known_enum(
        "on_platform_match",
        on_platform_match,
        "PLATFORM_MATCH_POLICY_REFUSE, PLATFORM_MATCH_POLICY_REQUEST_SHARE",
    );
    let acknowledgement = fields.take(
        "duplicate_acknowledgement",
        text::optional(acknowledgement, acknowledgement::MAX_LENGTH),
    );
    let reason = fields.take("acknowledgement_reason", text::optional(reason, 500));
    let entry_mode = self::entry_mode(fields, entry_mode);
    Some(Decisions {
        hold_invitation: invite? == InvitePolicy::Hold,
        request_share: on_platform_match? == PlatformMatchPolicy::RequestShare,
        acknowledgement: acknowledgement?,
        acknowledgement_reason: reason?,
        entry_mode: entry_mode?,
        invitation: InvitationOptions::default(),
    })
}
