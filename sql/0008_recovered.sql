-- Rows from before the slot read a table, that "walrelay recover" has emitted.
CREATE TABLE IF NOT EXISTS walrelay.recovered (
    slot          text     NOT NULL,
    relation      regclass NOT NULL,
    covered_since xid8     NOT NULL,
    seen_below    xid8     NOT NULL,
    emitted_by    xid8     NOT NULL,
    PRIMARY KEY (slot, relation)
);

COMMENT ON TABLE walrelay.recovered IS
    'Outbox tables of which a recovery has emitted what the slot does not read.';
COMMENT ON COLUMN walrelay.recovered.covered_since IS
    'That of walrelay.outboxes then: of a slot that is lost since, this says nothing.';
COMMENT ON COLUMN walrelay.recovered.seen_below IS
    'The recovery has seen every row of earlier transactions.';
COMMENT ON COLUMN walrelay.recovered.emitted_by IS
    'It has emitted them in this transaction or in earlier ones.';

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
        EXECUTE format('GRANT SELECT, INSERT, UPDATE ON walrelay.recovered TO %s', granted.role);
    END LOOP;
END
$walrelay$;
