-- Keeps the logins of Usher out of the databases `postgres` and `template1`, which PostgreSQL lets everybody enter
-- and make temporary tables in. For a server that Usher has to itself; by the superuser, after roles.sql.
--
--     psql SUPERUSER_URL -f deploy/postgres/maintenance_databases.sql
--
-- It concerns every login of the server but superusers: grant CONNECT again to those that have to get in, for example
-- a monitoring login. New databases are not concerned: they do not inherit these privileges from template1.

REVOKE CONNECT, TEMPORARY ON DATABASE postgres, template1 FROM PUBLIC;
