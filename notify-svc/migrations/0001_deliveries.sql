-- Everything that notify-svc keeps: what came in, what is to be sent, what goes out again.
--
-- Two walls stand around an organization's rows: the code names the organization in every transaction, and
-- row-level security shows nothing else, not even to the owner of the tables (FORCE). The service connects as
-- `notify_service`, which owns nothing and cannot take the second wall down.

-- Roles belong to the whole cluster: another database of it may be making the same role at this moment.
do $$
begin
    create role notify_service nologin;
exception
    when duplicate_object or unique_violation then null;
end
$$;

grant usage on schema public to notify_service;

-- Events that were taken in. One that comes again is dropped.
create table inbox (
    event_id uuid primary key,
    receive_time timestamptz not null default now()
);

create index inbox_receive_time on inbox (receive_time);

-- Emails, one row each. Rows are claimed by the sender with a lease.
create table deliveries (
    organization_id uuid not null,
    delivery_id uuid not null,
    invitation_id uuid not null,
    -- Which email of the invitation.
    send_number integer not null check (send_number > 0),
    kind text not null check (kind in ('ACTIVATION', 'SHARE_REQUEST')),
    mail_class text not null check (mail_class in ('INTERACTIVE', 'BULK', 'SECURITY')),
    locale text not null,
    recipient text not null,
    -- What the templates need: names, and the organization as the recipient sees it.
    content jsonb not null,
    expire_time timestamptz not null,
    -- The token, sealed to this service; wiped when the email can no longer be sent.
    encapsulated_key bytea,
    ciphertext bytea,
    -- The W3C trace context of the event, so that the SMTP reply ends the trace that an RPC began.
    traceparent text,

    state text not null check (state in ('QUEUED', 'THROTTLED', 'SENT', 'DELIVERED', 'BOUNCED',
        'FAILED', 'SUPPRESSED', 'CANCELLED', 'UNKNOWN')),
    -- Counts the changes of the state that were published.
    revision bigint not null default 1,
    -- When the sender takes it up; null once nothing is to be done any more.
    next_attempt_time timestamptz,
    -- Attempts that reached the relay.
    attempt_count integer not null default 0,
    -- Attempts whose answer was lost.
    unknown_count integer not null default 0,
    -- Whether the limits of domain, organization and relay were passed already.
    slots_reserved boolean not null default false,
    smtp_status text,
    reason text,

    -- Proves that the sender still holds the row: whoever took it over has another token.
    lease_token uuid,
    lease_end_time timestamptz,
    -- Set before the relay can accept the email. A lease that ends with this mark left nobody knows what.
    handing_over boolean not null default false,

    create_time timestamptz not null default now(),
    update_time timestamptz not null default now(),
    sent_time timestamptz,

    primary key (organization_id, delivery_id),
    unique (organization_id, invitation_id, send_number),
    -- What can still be sent has its token, what cannot has lost it.
    check ((next_attempt_time is null) = (ciphertext is null)),
    check ((ciphertext is null) = (encapsulated_key is null)),
    check ((lease_token is null) = (lease_end_time is null))
);

-- The sender works across organizations and knows its emails by their ids.
create index deliveries_id on deliveries (delivery_id);

-- What staff look for: emails in a rare state, the newest first.
create index deliveries_state on deliveries (organization_id, state, delivery_id);

-- The sender's queues, one for each class that shares the sender fairly.
create index deliveries_due_urgent on deliveries (next_attempt_time)
    where next_attempt_time is not null and mail_class <> 'BULK';
create index deliveries_due_bulk on deliveries (next_attempt_time)
    where next_attempt_time is not null and mail_class = 'BULK';

-- Invitations that are void. A revocation may arrive before the request that it revokes.
create table revocations (
    organization_id uuid not null,
    invitation_id uuid not null,
    -- All emails up to this number are void.
    send_number integer not null,
    receive_time timestamptz not null default now(),
    primary key (organization_id, invitation_id)
);

-- Mailboxes that an organization does not write to any more.
create table suppressions (
    organization_id uuid not null,
    -- The address in canonical form.
    recipient text not null,
    reason text not null check (reason in ('BOUNCE', 'COMPLAINT', 'UNSUBSCRIBE', 'STAFF')),
    -- The delivery that found it out.
    delivery_id uuid,
    create_time timestamptz not null default now(),
    primary key (organization_id, recipient)
);

-- Limits (GCRA), one row for each key that was used.
create table throttles (
    -- Which limit, for example `recipient`.
    limit_name text not null,
    -- SHA-256 of what is limited: no address stands here.
    key_hash bytea not null,
    -- Theoretical arrival time of the next email, in microseconds since 1970.
    arrival_micros bigint not null,
    primary key (limit_name, key_hash)
);

create index throttles_arrival on throttles (arrival_micros);

-- Events on their way to the broker.
create table outbox (
    event_id uuid primary key,
    organization_id uuid not null,
    event_type text not null,
    body bytea not null,
    traceparent text,
    lease_end_time timestamptz,
    create_time timestamptz not null default now()
);

create index outbox_create_time on outbox (create_time);

grant select, insert, update, delete
    on inbox, deliveries, revocations, suppressions, throttles, outbox
    to notify_service;

-- Without a scope, `current_setting` is null or empty and no row passes. The selects make PostgreSQL
-- evaluate it once for a query instead of once for a row, and not take the policy for a rare condition: it
-- would sort all due emails to find the first.
do $$
declare
    name text;
begin
    foreach name in array array['deliveries', 'revocations', 'suppressions', 'outbox'] loop
        execute format('alter table %I enable row level security', name);
        execute format('alter table %I force row level security', name);
        execute format(
            'create policy scope on %I using (
                organization_id = (select nullif(current_setting(''usher.organization_id'', true), '''')::uuid)
                or (select current_setting(''usher.scope'', true) = ''platform''))', name);
    end loop;
    -- What belongs to no organization is for the service's own work.
    foreach name in array array['inbox', 'throttles'] loop
        execute format('alter table %I enable row level security', name);
        execute format('alter table %I force row level security', name);
        execute format(
            'create policy scope on %I using (
                (select current_setting(''usher.scope'', true) = ''platform''))', name);
    end loop;
end
$$;
