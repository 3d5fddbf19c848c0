-- The roles of Usher, made once for a PostgreSQL cluster (version 15 or newer) by an administrator: a superuser,
-- or a login that may create roles. Roles that exist are left as they are.
--
--     psql ADMINISTRATOR_URL -f deploy/postgres/roles.sql
--
-- The logins have no password yet: set one for each with psql's \password, or let clients authenticate by other
-- means. None of them is a superuser, and none may create roles or databases.

DO $$
BEGIN
    -- Owns both databases and migrates them. No service runs as this login.
    IF to_regrole('usher_owner') IS NULL THEN
        CREATE ROLE usher_owner LOGIN;
    END IF;
    -- What the services may do; the migrations grant it.
    IF to_regrole('account_service') IS NULL THEN
        CREATE ROLE account_service NOLOGIN;
    END IF;
    IF to_regrole('notify_service') IS NULL THEN
        CREATE ROLE notify_service NOLOGIN;
    END IF;
    -- What the services log in as.
    IF to_regrole('account_login') IS NULL THEN
        CREATE ROLE account_login LOGIN IN ROLE account_service;
    END IF;
    IF to_regrole('notify_login') IS NULL THEN
        CREATE ROLE notify_login LOGIN IN ROLE notify_service;
    END IF;
END $$;
