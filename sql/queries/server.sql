-- What the server and the role are like: one row.
SELECT
    current_setting('server_version_num')::integer AS version,
    current_setting('server_version') AS version_text,
    current_setting('wal_level') AS wal_level,
    pg_catalog.pg_is_in_recovery() AS standby,
    current_setting('max_replication_slots')::integer AS max_slots,
    (SELECT count(*)::integer FROM pg_catalog.pg_replication_slots) AS slots,
    current_setting('max_wal_senders')::integer AS max_walsenders,
    (SELECT count(*)::integer FROM pg_catalog.pg_stat_replication) AS walsenders,
    current_setting('synchronous_standby_names') AS synchronous_standby_names,
    current_setting('hot_standby_feedback') = 'on' AS feedback,
    -- In megabytes; -1 is no limit.
    (
        SELECT coalesce(max(setting::bigint), -1)
        FROM pg_catalog.pg_settings
        WHERE name = 'max_slot_wal_keep_size'
    ) AS max_slot_wal_keep_size,
    current_user::text AS role,
    current_database()::text AS database,
    login.rolreplication OR login.rolsuper OR coalesce(managed.member, false) AS may_replicate
FROM pg_catalog.pg_roles AS login
LEFT JOIN LATERAL (
    -- Amazon RDS gives the right to stream by membership.
    SELECT bool_or(pg_catalog.pg_has_role(current_user, candidate.oid, 'MEMBER')) AS member
    FROM pg_catalog.pg_roles AS candidate
    WHERE candidate.rolname = 'rds_replication'
) AS managed ON true
WHERE login.rolname = current_user;
