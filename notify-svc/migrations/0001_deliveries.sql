-- The tables of notify-svc: what came in, what is to be sent, what goes out again.
--
-- Every table that belongs to an organization has `organization_id`, first in its keys, and is protected by
-- row-level security: a transaction sees the rows of the organization that it names in
-- `usher.organization_id`, or, with `usher.scope = 'platform'`, all rows. A transaction that says neither
-- sees none. The service works as `notify_service`, which owns nothing, and FORCE binds the owner too.
--
-- Functions name their schema and have a body that is parsed now, not at each call: what a caller has in its
-- search path or in its temporary schema does not change what they do.

-- Administrators prepare roles and database: deploy/postgres. Roles belong to the whole cluster: another
-- database's migration may be making this one at the same moment.
DO $$
BEGIN
    IF NOT (SELECT pg_has_role(current_user, datdba, 'USAGE')
            FROM pg_database WHERE datname = current_database()) THEN
        RAISE EXCEPTION 'the login % does not own the database %: migrate as its owner',
            current_user, current_database();
    END IF;
    IF NOT EXISTS (SELECT FROM pg_roles WHERE rolname = 'notify_service') THEN
        CREATE ROLE notify_service NOLOGIN;
    END IF;
EXCEPTION
    WHEN duplicate_object OR unique_violation THEN NULL;
    WHEN insufficient_privilege THEN
        RAISE EXCEPTION 'the role notify_service is missing: run deploy/postgres/roles.sql as an administrator'
            USING HINT = 'Or CREATE ROLE notify_service NOLOGIN and grant it to the login of the service.';
END $$;

-- Nobody but the service gets in, and it can make nothing here: no temporary table that takes the place of
-- another one, no function.
DO $$
BEGIN
    EXECUTE format('REVOKE ALL ON DATABASE %I FROM PUBLIC', current_database());
    EXECUTE format('GRANT CONNECT ON DATABASE %I TO notify_service', current_database());
END $$;
REVOKE ALL ON SCHEMA public FROM PUBLIC;
GRANT USAGE ON SCHEMA public TO notify_service;

CREATE FUNCTION public.usher_organization() RETURNS uuid
    LANGUAGE sql STABLE PARALLEL SAFE
    RETURN nullif(current_setting('usher.organization_id', true), '')::uuid;

CREATE FUNCTION public.usher_is_platform() RETURNS boolean
    LANGUAGE sql STABLE PARALLEL SAFE
    RETURN current_setting('usher.scope', true) IS NOT DISTINCT FROM 'platform';

REVOKE EXECUTE ON FUNCTION public.usher_organization, public.usher_is_platform FROM PUBLIC;
GRANT EXECUTE ON FUNCTION public.usher_organization, public.usher_is_platform TO notify_service;

-- Events that were taken in. One that comes again is dropped.
CREATE TABLE inbox (
    event_id uuid PRIMARY KEY,
    receive_time timestamptz NOT NULL DEFAULT now()
);
CREATE INDEX inbox_receive_time ON inbox (receive_time);

-- Emails, one row each: written when they are asked for, and when what staff see of them changes. What changes
-- with each attempt stands in `delivery_queue`.
CREATE TABLE deliveries (
    organization_id uuid NOT NULL,
    delivery_id uuid NOT NULL,
    -- Null for mail that belongs to none.
    invitation_id uuid,
    -- Which email of the invitation.
    send_number integer NOT NULL CHECK (send_number > 0),
    -- Its template. Not checked: a kind that only newer versions know waits for them.
    kind text NOT NULL,
    mail_class text NOT NULL CHECK (mail_class IN ('INTERACTIVE', 'BULK', 'SECURITY')),
    locale text NOT NULL,
    recipient text NOT NULL,
    -- What the templates need: names, and the organization as the recipient sees it.
    content jsonb NOT NULL,
    expire_time timestamptz NOT NULL,
    -- The token, sealed to this service; null for mail without a link, and once the email cannot be sent any more. A
    -- failed email keeps it until its link expires, so that it can be sent again.
    encapsulated_key bytea,
    ciphertext bytea,
    -- The W3C trace context of the event, so that the SMTP reply ends the trace that an RPC began.
    trace_context text,

    state text NOT NULL CHECK (state IN ('QUEUED', 'THROTTLED', 'SENT', 'DELIVERED', 'BOUNCED',
        'FAILED', 'SUPPRESSED', 'CANCELLED', 'UNKNOWN')),
    -- Counts the changes of the state that were published.
    revision bigint NOT NULL DEFAULT 1,
    -- Attempts that reached the relay.
    attempt_count integer NOT NULL DEFAULT 0,
    -- Attempts whose answer was lost.
    unknown_count integer NOT NULL DEFAULT 0,
    -- The relay that answered last, and what it said.
    relay text,
    smtp_status text,
    reason text,

    create_time timestamptz NOT NULL DEFAULT now(),
    update_time timestamptz NOT NULL DEFAULT now(),
    sent_time timestamptz,
    -- The transaction that changed the state last. Who watches reads on from the oldest transaction that was still running:
    -- times would not do, since a change can be committed after one that is younger.
    change_xid xid8 NOT NULL DEFAULT pg_current_xact_id(),

    PRIMARY KEY (organization_id, delivery_id),
    UNIQUE (organization_id, invitation_id, send_number),
    CHECK ((ciphertext IS NULL) = (encapsulated_key IS NULL)),
    CHECK (ciphertext IS NULL OR state IN ('QUEUED', 'THROTTLED', 'UNKNOWN', 'FAILED'))
);

-- Purges work across organizations, and slots of recipients know emails by their ids.
CREATE INDEX deliveries_id ON deliveries (delivery_id);

-- What staff look for: emails in a rare state, the newest first.
CREATE INDEX deliveries_state ON deliveries (organization_id, state, delivery_id);

-- What changed since a moment.
CREATE INDEX deliveries_changes ON deliveries (organization_id, change_xid, delivery_id);

-- Tokens that are kept after the end.
CREATE INDEX deliveries_kept_token ON deliveries (expire_time) WHERE state = 'FAILED' AND ciphertext IS NOT NULL;

-- Emails that are still to be sent, one narrow row each, deleted with the end of the email. Taking one changes no column
-- of an index, so that the row's new version stays in its page (HOT).
CREATE TABLE delivery_queue (
    organization_id uuid NOT NULL,
    delivery_id uuid NOT NULL,
    mail_class text NOT NULL,
    -- Not before.
    next_attempt_time timestamptz NOT NULL,
    -- That time has come: the sender looks for these emails, and so finds them without reading those that wait.
    ready boolean NOT NULL,
    -- Set while a process has the email and may be handing it over. If it ends before the outcome is recorded, nobody
    -- knows what became of the email.
    lease_expire_time timestamptz,
    -- The handover that was last begun: its outcome is recorded also if the lease has ended, as long as no other one was
    -- begun.
    handover_token uuid,
    -- How often it was put back for a fault of the installation and not of the email.
    put_back_count integer NOT NULL DEFAULT 0,
    -- When a relay last refused it for a reason of policy.
    refuse_time timestamptz,
    PRIMARY KEY (organization_id, delivery_id)
) WITH (fillfactor = 50, autovacuum_vacuum_scale_factor = 0.02, autovacuum_vacuum_cost_delay = 0);

-- What the sender takes: each organization's ready emails of a class, the oldest first.
CREATE INDEX delivery_queue_ready ON delivery_queue (mail_class, organization_id, next_attempt_time) WHERE ready;
-- What becomes ready next.
CREATE INDEX delivery_queue_waiting ON delivery_queue (next_attempt_time) WHERE NOT ready;

-- Invitations that are void. A revocation may arrive before the request that it revokes.
CREATE TABLE revocations (
    organization_id uuid NOT NULL,
    invitation_id uuid NOT NULL,
    -- All emails up to this number are void.
    send_number integer NOT NULL,
    receive_time timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (organization_id, invitation_id)
);
CREATE INDEX revocations_receive_time ON revocations (receive_time);

-- Mailboxes that are not written to any more.
CREATE TABLE suppressions (
    -- The nil UUID for all organizations.
    organization_id uuid NOT NULL,
    -- The address in canonical form.
    recipient text NOT NULL,
    reason text NOT NULL CHECK (reason IN ('BOUNCE', 'COMPLAINT', 'UNSUBSCRIBE', 'STAFF')),
    -- What is not sent: security mail, for example, is sent to whoever unsubscribed.
    mail_classes text[] NOT NULL DEFAULT ARRAY['INTERACTIVE', 'BULK', 'SECURITY'],
    -- The delivery that found it out.
    delivery_id uuid,
    -- Null for ever.
    expire_time timestamptz,
    create_time timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (organization_id, recipient, reason)
);

-- When emails to a recipient went or are to go: no period holds more than the limit. An email whose answer was lost may
-- have arrived, and has another slot for being sent once more.
CREATE TABLE recipient_slots (
    delivery_id uuid NOT NULL,
    slot_number integer NOT NULL,
    -- Hash of limit and address, across organizations: no address stands here.
    recipient_key bigint NOT NULL,
    -- Decides the limit, and bulk mail goes last.
    mail_class text NOT NULL CHECK (mail_class IN ('INTERACTIVE', 'BULK', 'SECURITY')),
    -- GOING: the sender has it, and it may arrive at any moment. GONE: it has arrived, or may have.
    state text NOT NULL CHECK (state IN ('WAITING', 'GOING', 'GONE')),
    -- Not before, because the relay refused it for now.
    from_time timestamptz NOT NULL,
    slot_time timestamptz NOT NULL,
    PRIMARY KEY (delivery_id, slot_number)
) WITH (fillfactor = 80);
CREATE INDEX recipient_slots_key ON recipient_slots (recipient_key);

-- Limits (GCRA), one row for each key that was used.
CREATE TABLE throttles (
    -- Which limit, for example `domain`.
    limit_name text NOT NULL,
    -- SHA-256 of what is limited: no address stands here.
    key_hash bytea NOT NULL,
    -- Theoretical arrival time of the next email, in microseconds since 1970.
    arrival_micros bigint NOT NULL,
    PRIMARY KEY (limit_name, key_hash)
);
CREATE INDEX throttles_arrival ON throttles (arrival_micros);

-- The next three tables are alike in account-svc, and the queries on them are in `usher-runtime`.

-- Responses of mutating calls, so that a repeated call gets the same one (AIP-155).
CREATE TABLE stored_responses (
    -- The nil UUID for calls that belong to no organization.
    organization_id uuid NOT NULL,
    request_id uuid NOT NULL,
    -- SHA-256 of RPC and request, without passwords.
    request_hash bytea NOT NULL,
    -- The encoded response message.
    response bytea NOT NULL,
    create_time timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (organization_id, request_id)
);
CREATE INDEX stored_responses_age ON stored_responses (create_time);

-- Events on their way to the broker, written in the transaction that makes them true.
CREATE TABLE outbox (
    event_id uuid PRIMARY KEY,
    organization_id uuid NOT NULL,
    -- What the broker can carry, and what consumers take: anything else could never leave.
    event_type text NOT NULL CHECK (octet_length(event_type) <= 255),
    payload bytea NOT NULL CHECK (octet_length(payload) <= 262144),
    -- W3C traceparent of the call that wrote it.
    trace_context text,
    -- Not before, because the broker refused it.
    retry_time timestamptz NOT NULL DEFAULT '-infinity',
    create_time timestamptz NOT NULL DEFAULT now()
);

-- Who did what.
CREATE TABLE audit_events (
    organization_id uuid NOT NULL,
    audit_event_id uuid NOT NULL,
    -- What it was done to: an email; null for what concerns the organization.
    resource_id uuid,
    actor text NOT NULL,
    action text NOT NULL,
    -- Text by name, without personal data.
    details jsonb NOT NULL,
    -- W3C trace id of the call.
    trace_id text NOT NULL,
    occur_time timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (organization_id, audit_event_id)
);
CREATE INDEX audit_events_resource ON audit_events (organization_id, resource_id, audit_event_id);
CREATE INDEX audit_events_age ON audit_events (occur_time);

-- The selects in the policies make PostgreSQL evaluate them once for a query instead of once for a row, and not
-- take them for rare conditions: it would sort all due emails to find the first.
DO $$
DECLARE
    owned text;
    internal text;
BEGIN
    FOREACH owned IN ARRAY ARRAY['deliveries', 'delivery_queue', 'revocations', 'suppressions', 'stored_responses', 'outbox',
        'audit_events'] LOOP
        EXECUTE format('ALTER TABLE %I ENABLE ROW LEVEL SECURITY, FORCE ROW LEVEL SECURITY', owned);
        EXECUTE format('CREATE POLICY organization ON %I USING '
            '(organization_id = (SELECT usher_organization()) OR (SELECT usher_is_platform()))', owned);
    END LOOP;
    -- What belongs to no organization is for the service's own work.
    FOREACH internal IN ARRAY ARRAY['inbox', 'recipient_slots', 'throttles'] LOOP
        EXECUTE format('ALTER TABLE %I ENABLE ROW LEVEL SECURITY, FORCE ROW LEVEL SECURITY', internal);
        EXECUTE format('CREATE POLICY platform ON %I USING ((SELECT usher_is_platform()))', internal);
    END LOOP;
END $$;

-- The audit log is append-only: nothing changes an entry, and only what is older than ten years can be removed.
CREATE POLICY retention ON audit_events AS RESTRICTIVE FOR DELETE
    USING (occur_time < now() - interval '10 years');
CREATE POLICY present ON audit_events AS RESTRICTIVE FOR INSERT
    WITH CHECK (occur_time > now() - interval '1 hour' AND occur_time < now() + interval '1 minute');

GRANT SELECT, INSERT, UPDATE, DELETE
    ON inbox, deliveries, delivery_queue, revocations, suppressions, recipient_slots, throttles, stored_responses, outbox
    TO notify_service;
GRANT SELECT, INSERT, DELETE ON audit_events TO notify_service;
