-- A million emails of which 100,000 are due (most of them bulk), and what hangs on them.
INSERT INTO deliveries (organization_id, delivery_id, invitation_id, send_number, kind, mail_class, locale,
    recipient, content, expire_time, encapsulated_key, ciphertext, trace_context, state,
    create_time, sent_time)
SELECT lpad(to_hex(CASE WHEN n % 100 = 0 THEN n / 100 % 100 + 1 ELSE 0 END), 32, '0')::uuid,
    (lpad(to_hex(1790000000000 + n), 12, '0') || '7000' || '8000' || lpad(to_hex(n), 12, '0'))::uuid,
    (lpad(to_hex(1790000000000 + n), 12, '0') || '7001' || '8000' || lpad(to_hex(n), 12, '0'))::uuid,
    1, 'ACTIVATION', CASE WHEN n % 10 = 0 THEN 'INTERACTIVE' ELSE 'BULK' END, 'en',
    'client' || n || '@mail.example',
    '{"given_name": "Anna", "family_name": "Novak", "organization": {"display_name": "Organization"}}',
    now() + interval '20 days',
    CASE WHEN n > 900000 THEN decode(repeat('00', 32), 'hex') END,
    CASE WHEN n > 900000 THEN decode(repeat('00', 59), 'hex') END,
    '00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01',
    CASE WHEN n > 900000 THEN 'QUEUED' WHEN n % 5003 = 0 THEN 'BOUNCED' ELSE 'SENT' END,
    now() - interval '1 hour', CASE WHEN n <= 900000 THEN now() END
FROM generate_series(1, 1000000) AS n;

-- A fifth of them waits for its time.
INSERT INTO delivery_queue (organization_id, delivery_id, mail_class, next_attempt_time, ready)
SELECT organization_id, delivery_id, mail_class,
    now() + CASE WHEN n % 5 = 0 THEN 1 ELSE -1 END * (n % 600) * interval '1 second', n % 5 <> 0
FROM (SELECT *, row_number() OVER () AS n FROM deliveries WHERE state = 'QUEUED') AS queued;

INSERT INTO inbox (event_id, receive_time)
SELECT gen_random_uuid(), now() - n * interval '3 seconds' FROM generate_series(1, 1000000) AS n;

INSERT INTO throttles (limit_name, key_hash, arrival_micros)
SELECT name, sha256(n::text::bytea), (extract(epoch FROM now()) * 1000000)::bigint + (n % 7200 - 3600) * 1000000::bigint
FROM generate_series(1, 300000) AS n, unnest(ARRAY['domain', 'organization']) AS name;

INSERT INTO recipient_slots (delivery_id, slot_number, recipient_key, mail_class, state, from_time, slot_time)
SELECT delivery_id, 1, hashtextextended(recipient, 0), mail_class,
    CASE WHEN sent_time IS NULL THEN 'WAITING' ELSE 'GONE' END, create_time, coalesce(sent_time, create_time)
FROM deliveries;

INSERT INTO suppressions (organization_id, recipient, reason)
SELECT lpad('', 32, '0')::uuid, 'client' || n * 20 || '@mail.example', 'BOUNCE'
FROM generate_series(1, 20000) AS n;

INSERT INTO revocations (organization_id, invitation_id, send_number)
SELECT organization_id, invitation_id, 1 FROM deliveries WHERE state = 'SENT' LIMIT 20000;

ALTER TABLE outbox SET (autovacuum_enabled = false);
INSERT INTO outbox (event_id, organization_id, event_type, payload)
SELECT gen_random_uuid(), lpad('', 32, '0')::uuid, 'delivery.changed.v1', decode(repeat('00', 200), 'hex')
FROM generate_series(1, 200000) AS n;
DELETE FROM outbox WHERE event_id IN (SELECT event_id FROM outbox LIMIT 100000);
