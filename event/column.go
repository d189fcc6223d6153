package event

// Column is a column of an outbox by what it makes: an attribute of the event, its
// payload, or when and how often it is published. All that is known of the columns stands
// in one table of this file: mappings, the decoder, the NATS message, the JSON form and the
// SQL of walrelay's own outbox ask it.
type Column uint8

// The columns, in the order of an outbox of walrelay's own form.
const (
	ColumnID Column = iota
	ColumnType
	ColumnSource
	ColumnSubject
	ColumnData
	ColumnDataBytes
	ColumnDataContentType
	ColumnDataSchema
	ColumnExtensions
	ColumnPartitionKey
	ColumnScheduledAt
	ColumnMaxRetries
	ColumnTime
	// NumColumns is how many there are.
	NumColumns
)

// columnSpec is what is known of a column.
type columnSpec struct {
	// part is what mappings call what it makes.
	part string
	// name, definition and comment are those of walrelay's own form.
	name, definition, comment string
	required                  bool
	// constant says that a text can take the place of the column.
	constant bool

	// attribute is the name in CloudEvents of what it makes (spec 1.0.2, "Context
	// Attributes", and the extension partitionkey), header that of the NATS protocol
	// binding in binary mode, and field where it stands in an event: all empty if it makes
	// no attribute.
	attribute, header string
	field             func(*Event) *string
}

var columnSpecs = [NumColumns]columnSpec{ //nolint:gochecknoglobals // never written
	ColumnID: {
		part: "id", name: "id", definition: "uuid PRIMARY KEY DEFAULT gen_random_uuid()", required: true,
		comment:   "CloudEvents id.",
		attribute: "id", header: "ce-id", field: func(e *Event) *string { return &e.ID },
	},
	ColumnType: {
		part: "type", name: "event_type", definition: "text NOT NULL CHECK (event_type <> '')", required: true, constant: true,
		comment:   "CloudEvents type, such as order.created; required.",
		attribute: "type", header: "ce-type", field: func(e *Event) *string { return &e.Type },
	},
	ColumnSource: {
		part: "source", name: "source", definition: "text NOT NULL CHECK (source <> '')", required: true, constant: true,
		comment:   "CloudEvents source, a URI reference such as /orders; required.",
		attribute: "source", header: "ce-source", field: func(e *Event) *string { return &e.Source },
	},
	ColumnSubject: {
		part: "subject", name: "subject", definition: "text", constant: true,
		comment:   "CloudEvents subject: what within the source the event is about.",
		attribute: "subject", header: "ce-subject", field: func(e *Event) *string { return &e.Subject },
	},
	ColumnData: {
		part: "data", name: "data", definition: "jsonb",
		comment: "The payload, if it is JSON.",
	},
	ColumnDataBytes: {
		part: "data_bytes", name: "data_bytes", definition: "bytea",
		comment: "The payload, if it is not JSON; instead of data.",
	},
	ColumnDataContentType: {
		part: "datacontenttype", name: "content_type", definition: "text", constant: true,
		comment:   "CloudEvents datacontenttype; application/json when data is given.",
		attribute: "datacontenttype", header: "ce-datacontenttype", field: func(e *Event) *string { return &e.DataContentType },
	},
	ColumnDataSchema: {
		part: "dataschema", name: "data_schema", definition: "text", constant: true,
		comment:   "CloudEvents dataschema: an absolute URI.",
		attribute: "dataschema", header: "ce-dataschema", field: func(e *Event) *string { return &e.DataSchema },
	},
	ColumnExtensions: {
		part: "extensions", name: "extensions", definition: "jsonb",
		comment: "CloudEvents extension attributes: a JSON object of strings, booleans and integers.",
	},
	ColumnPartitionKey: {
		part: "partition_key", name: "partition_key", definition: "text", constant: true,
		comment:   "Events of one key keep their order; published as the extension partitionkey.",
		attribute: "partitionkey", header: "ce-partitionkey", field: func(e *Event) *string { return &e.PartitionKey },
	},
	ColumnScheduledAt: {
		part: "scheduled_at", name: "scheduled_at", definition: "timestamptz",
		comment: "Do not publish before this time.",
	},
	ColumnMaxRetries: {
		part: "max_retries", name: "max_retries", definition: "integer",
		comment: "Overrides how often walrelay tries again to publish the event.",
	},
	ColumnTime: {
		part: "time", name: "created_at", definition: "timestamptz NOT NULL DEFAULT now()",
		comment:   "CloudEvents time.",
		attribute: "time", header: "ce-time", field: func(e *Event) *string { return &e.Time },
	},
}

// ColumnOf returns the column that makes the part of that name.
func ColumnOf(part string) (Column, bool) {
	for c := range NumColumns {
		if columnSpecs[c].part == part {
			return c, true
		}
	}
	return 0, false
}

// ColumnOfAttribute returns the column that makes the attribute of that name.
func ColumnOfAttribute(attribute string) (Column, bool) {
	for c := range NumColumns {
		if attribute != "" && columnSpecs[c].attribute == attribute {
			return c, true
		}
	}
	return 0, false
}

// String returns what mappings call the part of an event that the column makes.
func (c Column) String() string { return columnSpecs[c].part }

// Name returns the column's name in an outbox of walrelay's own form.
func (c Column) Name() string { return columnSpecs[c].name }

// Definition returns its type, constraints and default there, as SQL.
func (c Column) Definition() string { return columnSpecs[c].definition }

// Comment says in one sentence what it is for.
func (c Column) Comment() string { return columnSpecs[c].comment }

// Required reports whether every event needs a value of it.
func (c Column) Required() bool { return columnSpecs[c].required }

// Constant reports whether a text can take its place.
func (c Column) Constant() bool { return columnSpecs[c].constant }

// Attribute returns the name in CloudEvents of the attribute that it makes; "" if it makes
// none.
func (c Column) Attribute() string { return columnSpecs[c].attribute }

// Header returns the header of that attribute in binary mode.
func (c Column) Header() string { return columnSpecs[c].header }

// Field returns where the attribute stands in an event; nil if the column makes none.
func (c Column) Field(e *Event) *string {
	if field := columnSpecs[c].field; field != nil {
		return field(e)
	}
	return nil
}
