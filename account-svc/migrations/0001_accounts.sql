-- The tables of account-svc.
--
-- Every table that belongs to an organization has `organization_id`, first in its indexes, and is
-- protected by row-level security: a transaction sees the rows of the organization that it names in
-- `usher.organization_id`, or, with `usher.scope = 'platform'`, all rows. A transaction that says neither
-- sees none. The service works as `account_service`, which owns nothing, and FORCE binds the owner too.
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
    IF NOT EXISTS (SELECT FROM pg_roles WHERE rolname = 'account_service') THEN
        CREATE ROLE account_service NOLOGIN;
    END IF;
EXCEPTION
    WHEN duplicate_object OR unique_violation THEN NULL;
    WHEN insufficient_privilege THEN
        RAISE EXCEPTION 'the role account_service is missing: run deploy/postgres/roles.sql as an administrator'
            USING HINT = 'Or CREATE ROLE account_service NOLOGIN and grant it to the login of the service.';
END $$;

-- Nobody but the service gets in, and it can make nothing here: no temporary table that takes the place of
-- another one, no function.
DO $$
BEGIN
    EXECUTE format('REVOKE ALL ON DATABASE %I FROM PUBLIC', current_database());
    EXECUTE format('GRANT CONNECT ON DATABASE %I TO account_service', current_database());
END $$;
REVOKE ALL ON SCHEMA public FROM PUBLIC;
GRANT USAGE ON SCHEMA public TO account_service;

CREATE FUNCTION public.usher_organization() RETURNS uuid
    LANGUAGE sql STABLE PARALLEL SAFE
    RETURN nullif(current_setting('usher.organization_id', true), '')::uuid;

CREATE FUNCTION public.usher_is_platform() RETURNS boolean
    LANGUAGE sql STABLE PARALLEL SAFE
    RETURN current_setting('usher.scope', true) IS NOT DISTINCT FROM 'platform';

CREATE TABLE organizations (
    organization_id uuid PRIMARY KEY,
    slug text NOT NULL CONSTRAINT organizations_slug_key UNIQUE,
    display_name text NOT NULL,
    default_locale text NOT NULL,
    portal_url text NOT NULL,
    allowed_return_origins text[] NOT NULL,
    sender_name text NOT NULL,
    reply_to text NOT NULL,
    logo_url text NOT NULL,
    color text NOT NULL,
    minimum_age integer NOT NULL CHECK (minimum_age BETWEEN 0 AND 120),
    -- Where a day begins: a name of the IANA time zone database.
    time_zone text NOT NULL,
    invitation_lifetime_seconds bigint NOT NULL,
    reinvite_after_seconds bigint NOT NULL,
    link_prompt_lifetime_seconds bigint NOT NULL,
    -- Each `{"after_sent_seconds": n}` or `{"before_expiry_seconds": n}`.
    reminders jsonb NOT NULL,
    -- Which duplicates are shown: see `DuplicateRules` in the contract.
    front_desk_threshold double precision NOT NULL CHECK (front_desk_threshold BETWEEN 0.05 AND 0.95),
    front_desk_expected_share double precision NOT NULL CHECK (front_desk_expected_share BETWEEN 0.001 AND 0.9),
    import_threshold double precision NOT NULL CHECK (import_threshold BETWEEN 0.05 AND 0.95),
    import_expected_share double precision NOT NULL CHECK (import_expected_share BETWEEN 0.001 AND 0.9),
    version bigint NOT NULL DEFAULT 1,
    create_time timestamptz NOT NULL DEFAULT now(),
    update_time timestamptz NOT NULL DEFAULT now()
);

-- The humans behind accounts, platform-wide. A row exists only once its email was proved.
CREATE TABLE persons (
    person_id uuid PRIMARY KEY,
    -- In canonical form: case-folded, the domain in A-label form.
    email text NOT NULL CONSTRAINT persons_email_key UNIQUE,
    create_time timestamptz NOT NULL DEFAULT now()
);

-- Apart from the Persons, because an organization may see those of its own clients.
CREATE TABLE credentials (
    person_id uuid PRIMARY KEY REFERENCES persons,
    -- Argon2id in PHC format.
    password_hash text NOT NULL,
    update_time timestamptz NOT NULL DEFAULT now()
);

-- The one thing that an organization may learn about Persons that are not its clients: whether an email is one's.
-- A table of hashes says no more than that, and needs no function that runs with the rights of its owner.
CREATE TABLE proven_emails (
    -- SHA-256 of `persons.email`.
    email_hash bytea PRIMARY KEY CHECK (length(email_hash) = 32)
);

CREATE TABLE accounts (
    organization_id uuid NOT NULL,
    account_id uuid NOT NULL,
    given_name text NOT NULL,
    family_name text NOT NULL,
    -- As staff typed it, with the domain in A-label form.
    email text,
    -- What emails are compared by.
    email_canonical text,
    birth_date date,
    phone text,
    members jsonb NOT NULL,
    addresses jsonb NOT NULL,
    contacts jsonb NOT NULL,
    plan text NOT NULL,
    assigned_staff text NOT NULL,
    attributes jsonb NOT NULL,
    locale text NOT NULL,
    -- Hashes of the folded names, to count how often names occur; null for a filler such as `-`.
    given_name_hash bigint,
    family_name_hash bigint,
    -- The keys of its rows in the table of this name, which are found by them, whichever release derived them: an index
    -- of that table by account would cost a create several times as much.
    duplicate_keys bigint[] NOT NULL DEFAULT '{}',
    -- `KEYS_VERSION` of the release that derived these hashes and keys.
    keys_version smallint NOT NULL,
    -- The newest invitation.
    last_invitation_id uuid,
    -- The Person who took the account over.
    person_id uuid REFERENCES persons,
    activate_time timestamptz,
    -- Last login through this organization.
    last_login_time timestamptz,
    close_time timestamptz,
    version bigint NOT NULL DEFAULT 1,
    create_time timestamptz NOT NULL DEFAULT now(),
    update_time timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (organization_id, account_id),
    CHECK ((email IS NULL) = (email_canonical IS NULL)),
    CHECK ((person_id IS NULL) = (activate_time IS NULL))
);
-- Decides races between two creates of one email.
CREATE UNIQUE INDEX accounts_email_key ON accounts (organization_id, email_canonical)
    WHERE close_time IS NULL;
CREATE INDEX accounts_person ON accounts (person_id) WHERE person_id IS NOT NULL;

-- What open accounts are found by when duplicates are searched: several hashes each of names and birth date.
-- Without foreign keys, which would cost every create a look-up for each key.
CREATE TABLE duplicate_keys (
    organization_id uuid NOT NULL,
    key bigint NOT NULL,
    account_id uuid NOT NULL,
    PRIMARY KEY (organization_id, key, account_id)
);

-- How many open accounts have a name, as of the organization's last count.
CREATE TABLE name_frequencies (
    organization_id uuid NOT NULL,
    -- As `accounts.given_name_hash` and `accounts.family_name_hash`.
    name_hash bigint NOT NULL,
    as_given_name bigint NOT NULL,
    as_family_name bigint NOT NULL,
    PRIMARY KEY (organization_id, name_hash)
);

-- The last count of an organization's names.
CREATE TABLE name_counts (
    organization_id uuid PRIMARY KEY,
    -- Open accounts.
    accounts bigint NOT NULL,
    count_time timestamptz NOT NULL,
    -- Not counted again before: counting takes a small part of the time.
    next_count_time timestamptz NOT NULL,
    -- No account had an older `keys_version` then; 0 if one had.
    keys_version smallint NOT NULL
);

CREATE TABLE invitations (
    organization_id uuid NOT NULL,
    invitation_id uuid NOT NULL,
    account_id uuid NOT NULL,
    kind text NOT NULL CHECK (kind IN ('ACTIVATION', 'SHARE_REQUEST')),
    recipient text NOT NULL,
    recipient_canonical text NOT NULL,
    locale text NOT NULL,
    send_count integer NOT NULL DEFAULT 1,
    requested_by text NOT NULL,
    form_id text NOT NULL,
    return_url text NOT NULL,
    -- The path of the latest email, as notify-svc reports it.
    delivery_state text NOT NULL DEFAULT 'QUEUED' CHECK (delivery_state IN
        ('QUEUED', 'THROTTLED', 'SENT', 'DELIVERED', 'BOUNCED', 'FAILED', 'SUPPRESSED')),
    -- Orders the reports on one email, which may arrive in any order.
    delivery_send_number integer NOT NULL DEFAULT 0,
    delivery_revision bigint NOT NULL DEFAULT 0,
    throttled_until timestamptz,
    failure_reason text NOT NULL DEFAULT '',
    sent_time timestamptz,
    -- When another invitation took the place of this one, of whose email nothing was reported. A report that it waits,
    -- which comes later, does not count: it would wait beside the other.
    given_up_time timestamptz,
    expire_time timestamptz NOT NULL,
    -- How it ended. Expiry is decided by the clock at the moment of use; it is stored only when something
    -- else would have ended the invitation later.
    end_state text CHECK (end_state IN ('ACCEPTED', 'DECLINED', 'EXPIRED', 'REVOKED', 'SUPERSEDED')),
    end_time timestamptz,
    create_time timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (organization_id, invitation_id),
    FOREIGN KEY (organization_id, account_id) REFERENCES accounts,
    CHECK ((end_state IS NULL) = (end_time IS NULL))
);
-- Several invitations of an account can be open: those whose email has left and at most one that waits. The lock
-- of the account decides races between two sends, because a unique index on the state of the email would be
-- rewritten by each report.
CREATE INDEX invitations_account ON invitations (organization_id, account_id, invitation_id);

-- Tokens are looked up before their organization is known, so the hash alone is the key.
CREATE TABLE tokens (
    -- SHA-256 of the token. The token itself is kept nowhere.
    token_hash bytea PRIMARY KEY CHECK (length(token_hash) = 32),
    organization_id uuid NOT NULL,
    invitation_id uuid NOT NULL,
    expire_time timestamptz NOT NULL,
    used_time timestamptz,
    revoked_time timestamptz,
    superseded_time timestamptz,
    FOREIGN KEY (organization_id, invitation_id) REFERENCES invitations
);
CREATE INDEX tokens_invitation ON tokens (organization_id, invitation_id);
CREATE INDEX tokens_age ON tokens (expire_time);

-- The next three tables are alike in notify-svc, and the queries on them are in `usher-runtime`.

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
    -- What it was done to: an account; null for what concerns the organization.
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

-- Attempts to guess a password: one row for each source, each email, and each pair of them.
CREATE TABLE login_throttles (
    -- SHA-256 of what is limited: no address is kept here.
    throttle_key bytea PRIMARY KEY,
    -- Theoretical arrival time of the generic cell rate algorithm (ITU-T I.371, annex A).
    arrival_time timestamptz NOT NULL
);
CREATE INDEX login_throttles_age ON login_throttles (arrival_time);

-- Sources from which a Person logged in: others who guess the password cannot lock them out.
CREATE TABLE login_sources (
    -- SHA-256 of email and source.
    source_key bytea PRIMARY KEY,
    last_login_time timestamptz NOT NULL DEFAULT now()
);
CREATE INDEX login_sources_age ON login_sources (last_login_time);

-- Where an account stands, derived from facts and from the newest invitation. The clock is that of the
-- statement, not that of the transaction, which may have waited for a lock since it began.
--
-- The newest invitation is enough, although an older link works until the newer email has left: the newest one
-- lives at least as long as every older one that is open (`greatest` where invitations are created), and whatever
-- withdraws or accepts one of them ends all. So while any link works, the newest invitation is open, also when its
-- own email waits, bounced or failed; and when it has expired or was withdrawn, no link works.
CREATE FUNCTION public.account_state(account public.accounts, invitation public.invitations) RETURNS text
    LANGUAGE sql STABLE PARALLEL SAFE
    RETURN CASE
        WHEN account.close_time IS NOT NULL THEN 'CLOSED'
        WHEN account.person_id IS NOT NULL THEN 'ACTIVE'
        WHEN account.email IS NULL THEN 'MANAGED'
        WHEN invitation.end_state = 'DECLINED' THEN 'SHARE_DECLINED'
        WHEN invitation.invitation_id IS NULL
            OR invitation.end_state IS NOT NULL
            OR invitation.expire_time <= statement_timestamp() THEN 'NOT_INVITED'
        WHEN invitation.kind = 'SHARE_REQUEST' THEN 'SHARE_REQUESTED'
        ELSE 'INVITED'
    END;

-- Where an invitation stands, derived from facts.
CREATE FUNCTION public.invitation_state(invitation public.invitations) RETURNS text
    LANGUAGE sql STABLE PARALLEL SAFE
    RETURN coalesce(
        invitation.end_state,
        CASE WHEN invitation.expire_time <= statement_timestamp() THEN 'EXPIRED' END,
        invitation.delivery_state
    );

REVOKE EXECUTE ON FUNCTION public.usher_organization, public.usher_is_platform, public.account_state,
    public.invitation_state FROM PUBLIC;
GRANT EXECUTE ON FUNCTION public.usher_organization, public.usher_is_platform, public.account_state,
    public.invitation_state TO account_service;

DO $$
DECLARE
    owned text;
BEGIN
    FOREACH owned IN ARRAY ARRAY['organizations', 'accounts', 'duplicate_keys',
        'name_frequencies', 'name_counts', 'invitations', 'tokens', 'stored_responses', 'outbox', 'audit_events'] LOOP
        EXECUTE format('ALTER TABLE %I ENABLE ROW LEVEL SECURITY, FORCE ROW LEVEL SECURITY', owned);
        EXECUTE format('CREATE POLICY organization ON %I USING '
            '(organization_id = (SELECT usher_organization()) OR (SELECT usher_is_platform()))', owned);
    END LOOP;
END $$;

ALTER TABLE persons ENABLE ROW LEVEL SECURITY, FORCE ROW LEVEL SECURITY;
CREATE POLICY platform ON persons USING ((SELECT usher_is_platform()));
-- An organization sees the Persons who took over accounts of its own.
CREATE POLICY own_clients ON persons FOR SELECT USING (EXISTS (
    SELECT FROM accounts
    WHERE accounts.person_id = persons.person_id
        AND accounts.organization_id = (SELECT usher_organization())));

ALTER TABLE proven_emails ENABLE ROW LEVEL SECURITY, FORCE ROW LEVEL SECURITY;
CREATE POLICY organization ON proven_emails FOR SELECT USING
    ((SELECT usher_organization()) IS NOT NULL OR (SELECT usher_is_platform()));
CREATE POLICY platform ON proven_emails FOR INSERT WITH CHECK ((SELECT usher_is_platform()));

DO $$
DECLARE
    owned text;
BEGIN
    FOREACH owned IN ARRAY ARRAY['credentials', 'login_throttles', 'login_sources'] LOOP
        EXECUTE format('ALTER TABLE %I ENABLE ROW LEVEL SECURITY, FORCE ROW LEVEL SECURITY', owned);
        EXECUTE format('CREATE POLICY platform ON %I USING ((SELECT usher_is_platform()))', owned);
    END LOOP;
END $$;

-- The audit log is append-only: nothing changes an entry, and only what is older than ten years can be removed.
CREATE POLICY retention ON audit_events AS RESTRICTIVE FOR DELETE
    USING (occur_time < now() - interval '10 years');
CREATE POLICY present ON audit_events AS RESTRICTIVE FOR INSERT
    WITH CHECK (occur_time > now() - interval '1 hour' AND occur_time < now() + interval '1 minute');

GRANT SELECT, INSERT, UPDATE ON organizations, persons, credentials, accounts, invitations TO account_service;
GRANT SELECT, INSERT, UPDATE, DELETE
    ON duplicate_keys, name_frequencies, name_counts, tokens, stored_responses, outbox, login_throttles, login_sources
    TO account_service;
GRANT SELECT, INSERT ON proven_emails TO account_service;
GRANT SELECT, INSERT, DELETE ON audit_events TO account_service;
