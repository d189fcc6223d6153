-- A B-tree refuses an id of more than about 2700 bytes, so that an event with one
-- could not wait.
DROP INDEX IF EXISTS walrelay.delayed_id_idx;
CREATE INDEX IF NOT EXISTS delayed_id_hash_idx
    ON walrelay.delayed USING hash (id);
