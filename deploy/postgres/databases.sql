-- The databases of Usher, one for each service, made once by an administrator after roles.sql.
--
--     psql ADMINISTRATOR_URL -f deploy/postgres/databases.sql
--
-- Without a superuser, PostgreSQL 16 and newer ask first for: GRANT usher_owner TO CURRENT_USER;

CREATE DATABASE usher_account OWNER usher_owner;
CREATE DATABASE usher_notify OWNER usher_owner;
