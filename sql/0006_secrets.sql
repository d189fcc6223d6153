-- What authenticates the positions of messages. Whoever knows a key can write
-- messages that the relay takes for its own.
CREATE TABLE IF NOT EXISTS walrelay.secrets (
    slot text  PRIMARY KEY,
    key  bytea NOT NULL
);

COMMENT ON TABLE walrelay.secrets IS
    'The key by which each slot''s relay authenticates the positions of its messages. Nobody else should read it.';

-- The rights that init gave to the relay's role were given before this existed.
DO $walrelay$
DECLARE
    granted record;
BEGIN
    FOR granted IN
        SELECT DISTINCT acl.grantee::regrole AS role
        FROM pg_catalog.pg_class AS c, pg_catalog.aclexplode(c.relacl) AS acl
        WHERE c.oid = 'walrelay.progress'::regclass AND acl.privilege_type = 'UPDATE'
            AND acl.grantee <> 0 AND acl.grantee <> c.relowner
    LOOP
        EXECUTE format('GRANT SELECT, INSERT ON walrelay.secrets TO %s', granted.role);
    END LOOP;
END
$walrelay$;
