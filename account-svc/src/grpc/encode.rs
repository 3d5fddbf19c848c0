//! From what use cases answer to messages.

use prost_types::Duration;
use time::Date;
use usher_proto::account::v1::{self as proto, reminder::Moment};
use usher_runtime::{email, timestamp::encode as timestamp};
use uuid::Uuid;

use crate::{
    db::{account::Account, invitation::Invitation},
    domain::{
        audit::AuditEvent,
        duplicate::{
            Candidate, DuplicateReport, DuplicateRules, EmailVerdict, FieldComparison, FieldMatch,
            Nearness,
        },
        email::Email,
        organization::{Organization, Reminder},
        profile::{Address, Contact, Member},
        state::InvitationState,
    },
};

pub(super) fn organization(organization: Organization) -> proto::Organization {
    let profile = organization.profile;
    let duration = |seconds| Some(Duration { seconds, nanos: 0 });
    proto::Organization {
        organization_id: organization.organization_id.to_string(),
        slug: organization.slug,
        display_name: profile.display_name,
        default_locale: profile.default_locale,
        portal_url: profile.portal_url,
        allowed_return_origins: profile.allowed_return_origins,
        sender_name: profile.sender_name,
        reply_to: profile.reply_to,
        brand: Some(proto::Brand {
            logo_url: profile.logo_url,
            color: profile.color,
        }),
        settings: Some(proto::OrganizationSettings {
            minimum_age: u32::try_from(profile.minimum_age).ok(),
            invitation_lifetime: duration(profile.invitation_lifetime_seconds),
            reinvite_after: duration(profile.reinvite_after_seconds),
            link_prompt_lifetime: duration(profile.link_prompt_lifetime_seconds),
            reminders: profile.reminders.into_iter().map(reminder).collect(),
            time_zone: Some(profile.time_zone),
            front_desk_duplicates: Some(duplicate_rules(profile.front_desk_duplicates)),
            import_duplicates: Some(duplicate_rules(profile.import_duplicates)),
        }),
        create_time: Some(timestamp(organization.create_time)),
        update_time: Some(timestamp(organization.update_time)),
        etag: etag(organization.version),
    }
}

const fn duplicate_rules(rules: DuplicateRules) -> proto::DuplicateRules {
    proto::DuplicateRules {
        threshold: Some(rules.threshold),
        expected_share: Some(rules.expected_share),
    }
}

fn reminder(reminder: Reminder) -> proto::Reminder {
    let duration = |seconds| Duration { seconds, nanos: 0 };
    let moment = match reminder {
        Reminder::AfterSentSeconds(seconds) => Moment::AfterSent(duration(seconds)),
        Reminder::BeforeExpirySeconds(seconds) => Moment::BeforeExpiry(duration(seconds)),
    };
    proto::Reminder {
        moment: Some(moment),
    }
}

pub(super) fn account(account: Account) -> proto::Account {
    let profile = account.profile;
    proto::Account {
        account_id: account.account_id.to_string(),
        organization_id: account.organization_id.to_string(),
        state: proto::AccountState::from(account.state).into(),
        given_name: profile.name.given,
        family_name: profile.name.family,
        email: profile
            .email
            .as_ref()
            .map(|email| Email::address(email).to_owned()),
        birth_date: profile.birth_date.map(date),
        phone: profile.phone,
        members: profile.members.into_iter().map(member).collect(),
        addresses: profile.addresses.into_iter().map(address).collect(),
        contacts: profile.contacts.into_iter().map(contact).collect(),
        plan: profile.plan,
        assigned_staff: profile.assigned_staff,
        attributes: profile.attributes,
        locale: profile.locale,
        // Groups and sharing come with their services.
        group_id: String::new(),
        profile_shared: false,
        create_time: Some(timestamp(account.create_time)),
        update_time: Some(timestamp(account.update_time)),
        etag: etag(account.version),
        last_invitation: account.last_invitation.map(invitation),
        last_login_time: account.last_login_time.map(timestamp),
    }
}

pub(super) fn audit_event(organization_id: Uuid, event: AuditEvent) -> proto::AuditEvent {
    proto::AuditEvent {
        audit_event_id: event.audit_event_id.to_string(),
        organization_id: organization_id.to_string(),
        account_id: event
            .account_id
            .map(|id| id.to_string())
            .unwrap_or_default(),
        // Erasure comes with its service.
        pseudonym: String::new(),
        actor: event.actor,
        action: event.action,
        details: event.details,
        occur_time: Some(timestamp(event.occur_time)),
        trace_id: event.trace_id,
    }
}

fn member(member: Member) -> proto::Member {
    proto::Member {
        given_name: member.given_name,
        family_name: member.family_name,
        birth_date: member.birth_date.map(date),
        relation: member.relation,
    }
}

fn address(address: Address) -> proto::Address {
    proto::Address {
        label: address.label,
        lines: address.lines,
        locality: address.locality,
        region: address.region,
        postal_code: address.postal_code,
        country_code: address.country_code,
    }
}

fn contact(contact: Contact) -> proto::Contact {
    proto::Contact {
        name: contact.name,
        relation: contact.relation,
        email: contact.email,
        phone: contact.phone,
    }
}

pub(super) fn invitation(invitation: Invitation) -> proto::Invitation {
    proto::Invitation {
        invitation_id: invitation.invitation_id.to_string(),
        organization_id: invitation.organization_id.to_string(),
        account_id: invitation.account_id.to_string(),
        kind: proto::InvitationKind::from(invitation.kind).into(),
        state: proto::InvitationState::from(invitation.state).into(),
        recipient: email::masked(&invitation.recipient),
        send_count: invitation.send_count.try_into().unwrap_or_default(),
        create_time: Some(timestamp(invitation.create_time)),
        sent_time: invitation.sent_time.map(timestamp),
        expire_time: Some(timestamp(invitation.expire_time)),
        end_time: invitation.end_time.map(timestamp),
        throttled_until: invitation
            .throttled_until
            .filter(|_| invitation.state == InvitationState::Throttled)
            .map(timestamp),
        // What is known of an email that goes on, or whose invitation ended, is no failure.
        failure_reason: if invitation.state.has_failed() {
            invitation.failure_reason
        } else {
            String::new()
        },
        requested_by: invitation.requested_by,
        bulk_invitation_id: String::new(),
        form_id: invitation.form_id,
        return_url: invitation.return_url,
    }
}

/// A report in full.
pub(super) fn report(report: &DuplicateReport) -> proto::DuplicateReport {
    let candidates = report
        .candidates
        .iter()
        .map(|found| proto::DuplicateCandidate {
            evidence: Some(evidence(found)),
            ..candidate(found)
        });
    proto::DuplicateReport {
        candidates: candidates.collect(),
        ..warning(report)
    }
}

/// A report as an error has room for it: without the evidence.
pub(super) fn warning(report: &DuplicateReport) -> proto::DuplicateReport {
    let (verdict, account_id) = match report.email {
        EmailVerdict::NotGiven => (proto::EmailVerdict::NotGiven, None),
        EmailVerdict::Available => (proto::EmailVerdict::Available, None),
        EmailVerdict::OnPlatform => (proto::EmailVerdict::OnPlatform, None),
        EmailVerdict::InOrganization(id) => (proto::EmailVerdict::InOrganization, Some(id)),
    };
    proto::DuplicateReport {
        email: verdict.into(),
        email_account_id: account_id.map(|id| id.to_string()).unwrap_or_default(),
        candidates: report.candidates.iter().map(candidate).collect(),
        more_candidates: report.more_candidates,
        acknowledgement: report.acknowledgement.clone(),
    }
}

fn candidate(candidate: &Candidate) -> proto::DuplicateCandidate {
    let comparison = |field: &FieldMatch| i32::from(comparison(field.nearness.comparison()));
    proto::DuplicateCandidate {
        account_id: candidate.account_id.to_string(),
        score: candidate.score,
        given_name: comparison(&candidate.given_name),
        family_name: comparison(&candidate.family_name),
        email: comparison(&candidate.email),
        birth_date: comparison(&candidate.birth_date),
        phone: comparison(&candidate.phone),
        evidence: None,
    }
}

const fn comparison(comparison: FieldComparison) -> proto::FieldComparison {
    match comparison {
        FieldComparison::Agrees => proto::FieldComparison::Agrees,
        FieldComparison::Similar => proto::FieldComparison::Similar,
        FieldComparison::Differs => proto::FieldComparison::Differs,
        FieldComparison::Missing => proto::FieldComparison::Missing,
    }
}

fn evidence(candidate: &Candidate) -> proto::DuplicateEvidence {
    proto::DuplicateEvidence {
        names_swapped: candidate.names_swapped,
        given_name: Some(field_evidence(&candidate.given_name)),
        family_name: Some(field_evidence(&candidate.family_name)),
        email: Some(field_evidence(&candidate.email)),
        birth_date: Some(field_evidence(&candidate.birth_date)),
        phone: Some(field_evidence(&candidate.phone)),
    }
}

fn field_evidence(field: &FieldMatch) -> proto::FieldEvidence {
    let nearness = match field.nearness {
        Nearness::Equal => proto::Nearness::Equal,
        Nearness::OneEdit => proto::Nearness::OneEdit,
        Nearness::TwoEdits => proto::Nearness::TwoEdits,
        Nearness::CloseSpelling => proto::Nearness::CloseSpelling,
        Nearness::Nickname => proto::Nearness::Nickname,
        Nearness::PartOfName => proto::Nearness::PartOfName,
        Nearness::Initial => proto::Nearness::Initial,
        Nearness::DayMonthSwapped => proto::Nearness::DayMonthSwapped,
        Nearness::OneDateDigit => proto::Nearness::OneDateDigit,
        Nearness::TwoDateParts => proto::Nearness::TwoDateParts,
        Nearness::Other => proto::Nearness::Other,
        Nearness::Missing => proto::Nearness::Missing,
    };
    proto::FieldEvidence {
        nearness: nearness.into(),
        weight: field.weight,
        share: field.share,
    }
}

fn date(date: Date) -> proto::Date {
    proto::Date {
        year: date.year(),
        month: u8::from(date.month()).into(),
        day: date.day().into(),
    }
}

/// Quoted, as an entity tag is (RFC 9110, section 8.8.3).
fn etag(version: i64) -> String {
    format!("\"{version}\"")
}
