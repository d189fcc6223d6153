-- Whether there is a checkpoint that the role may read.
SELECT coalesce(has_table_privilege(to_regclass('walrelay.progress'), 'SELECT'), false);
