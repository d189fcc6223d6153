{{- /* What the two clean-ups have in common. */ -}}
{{- define "waiting"}}, waiting AS (
    -- Events that left the delay table a moment ago.
    SELECT u.id
    FROM walrelay.underway AS u
)
{{- end}}
{{- define "done"}}NOT EXISTS (
        SELECT FROM walrelay.delayed AS d
        WHERE d.id = f.id::text AND d.state <> 'discarded'
    ) AND f.id::text NOT IN (SELECT w.id FROM waiting AS w)
{{- end}}
{{- define "last"}}, last AS (
    SELECT f.xact
    FROM first AS f
    ORDER BY f.xact DESC
    LIMIT 1
)
SELECT
    (SELECT count(*) FROM first),
    (SELECT count(*) FROM gone),
    coalesce((SELECT l.xact FROM last AS l), '0'),
    (SELECT count(*) FROM first AS f JOIN last AS l ON f.xact = l.xact)
        - (SELECT count(*) FROM gone AS g JOIN last AS l ON g.xact = l.xact)
{{- end}}
