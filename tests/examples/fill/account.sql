-- What hangs on the accounts that were filled in.
INSERT INTO tokens (token_hash, organization_id, invitation_id, expire_time, used_time, revoked_time)
SELECT sha256(invitation_id::text::bytea), organization_id, invitation_id, expire_time,
    CASE WHEN end_state = 'ACCEPTED' THEN end_time END,
    CASE WHEN end_state IN ('REVOKED', 'DECLINED') THEN end_time END
FROM invitations;

INSERT INTO credentials (person_id, password_hash) SELECT person_id, '$argon2id$none' FROM persons;

-- As the service counts them.
INSERT INTO name_frequencies (organization_id, name_hash, as_given_name, as_family_name)
SELECT organization_id, name_hash, count(*) FILTER (WHERE is_given), count(*) FILTER (WHERE NOT is_given)
FROM accounts, LATERAL (VALUES (given_name_hash, true), (family_name_hash, false)) AS name (name_hash, is_given)
WHERE close_time IS NULL AND name_hash IS NOT NULL
GROUP BY organization_id, name_hash;

INSERT INTO name_counts (organization_id, accounts, count_time, next_count_time, keys_version)
SELECT organization_id, count(*), now(), now(), min(keys_version)
FROM accounts WHERE close_time IS NULL GROUP BY organization_id;

INSERT INTO audit_events (organization_id, audit_event_id, resource_id, actor, action, details, trace_id)
SELECT organization_id, gen_random_uuid(), account_id, 'staff', 'account.create', '{}', '' FROM accounts;

-- A day's answers, and what was not deleted yet of the day before.
INSERT INTO stored_responses (organization_id, request_id, request_hash, response, create_time)
SELECT (SELECT min(organization_id::text)::uuid FROM organizations), gen_random_uuid(),
    sha256(n::text::bytea), decode(repeat('00', 400), 'hex'), now() - n * interval '1 second'
FROM generate_series(1, 100000) AS n;

INSERT INTO login_throttles (throttle_key, arrival_time)
SELECT sha256(n::text::bytea), now() + (n % 2000 - 1000) * interval '1 second'
FROM generate_series(1, 100000) AS n;

INSERT INTO login_sources (source_key, last_login_time)
SELECT sha256(n::text::bytea), now() - n * interval '2 minutes' FROM generate_series(1, 300000) AS n;

-- 100,000 events wait; as many went out before and were not vacuumed away yet.
ALTER TABLE outbox SET (autovacuum_enabled = false);
INSERT INTO outbox (event_id, organization_id, event_type, payload, trace_context)
SELECT (lpad(to_hex(1790000000000 + n), 12, '0') || '7000' || '8000' || lpad(to_hex(n), 12, '0'))::uuid,
    (SELECT min(organization_id::text)::uuid FROM organizations), 'invitation.requested.v1',
    decode(repeat('00', 600), 'hex'), '00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01'
FROM generate_series(1, 200000) AS n;
DELETE FROM outbox WHERE event_id < (SELECT event_id FROM outbox ORDER BY event_id OFFSET 100000 LIMIT 1);
