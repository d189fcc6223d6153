-- Where published rows are marked: the mark, and an index of those without.

ALTER TABLE {{.Ident}} ADD COLUMN IF NOT EXISTS published_at timestamptz;

COMMENT ON COLUMN {{.Ident}}.published_at IS
    'When walrelay noted that the event is published, or never will be.';

CREATE INDEX IF NOT EXISTS {{ident (print .Name "_unmarked_idx")}} ON {{.Ident}} (created_at)
    WHERE published_at IS NULL;
