-- What the slot reads: inserts only, so tables need no replica identity, and
-- partitioned tables under their own name. The publication comes before the
-- slot: a slot cannot read what was written before its publication existed.

DO $walrelay$
BEGIN
    IF NOT EXISTS (
        SELECT FROM pg_catalog.pg_publication
        WHERE pubname = {{literal .Name}}
    ) THEN
        CREATE PUBLICATION {{ident .Name}}
            FOR TABLE {{range $i, $table := .Tables}}{{if $i}}, {{end}}{{$table.Ident}}{{end}}
            WITH (publish = 'insert', publish_via_partition_root = true);
    END IF;
{{- range .Tables}}

    IF NOT EXISTS (
        SELECT FROM pg_catalog.pg_publication_rel AS member
        JOIN pg_catalog.pg_publication AS publication
          ON publication.oid = member.prpubid
        WHERE publication.pubname = {{literal $.Name}}
          AND member.prrelid = {{literal .Ident}}::regclass
    ) THEN
        ALTER PUBLICATION {{ident $.Name}} ADD TABLE {{.Ident}};
    END IF;
{{- end}}
END
$walrelay$;
