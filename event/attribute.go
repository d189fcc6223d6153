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
