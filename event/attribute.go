package event

// Attribute is a CloudEvents extension attribute in its canonical string form
// (spec 1.0.2, "Type System").
type Attribute struct {
	Name  string
	Value string
	// Bare says that the value is a boolean or an integer: in JSON it stands without
	// quotes ("JSON Event Format" 1.0.2, section 2.2).
	Bare bool
}

// ContextAttribute is an attribute of CloudEvents, or the extension partitionkey, that
// an [Event] has a field for.
type ContextAttribute struct {
	Name     string
	Header   string // of the NATS protocol binding, in binary mode
	Required bool
	// Of returns the field.
	Of func(*Event) *string
}

// ContextAttributes returns them in the order in which they are written; specversion,
// which is constant, comes before.
func ContextAttributes() []ContextAttribute { return contextAttributes[:] }

var contextAttributes = [...]ContextAttribute{ //nolint:gochecknoglobals // never written
	{"id", "ce-id", true, func(e *Event) *string { return &e.ID }},
	{"source", "ce-source", true, func(e *Event) *string { return &e.Source }},
	{"type", "ce-type", true, func(e *Event) *string { return &e.Type }},
	{"subject", "ce-subject", false, func(e *Event) *string { return &e.Subject }},
	{"time", "ce-time", false, func(e *Event) *string { return &e.Time }},
	{"datacontenttype", "ce-datacontenttype", false, func(e *Event) *string { return &e.DataContentType }},
	{"dataschema", "ce-dataschema", false, func(e *Event) *string { return &e.DataSchema }},
	{"partitionkey", "ce-partitionkey", false, func(e *Event) *string { return &e.PartitionKey }},
}
