package event

// ReplayAttribute is the extension attribute of an event that was published again on
// purpose: the name of that replay.
const ReplayAttribute = "walrelayreplay"

// ReplayTable is the table, in the schema walrelay, that replayed events name as theirs: it
// does not exist. An event that was replayed is another one than its original to the relay.
const ReplayTable = "replay"

// Replayed makes the event one of a replay.
func (e *Event) Replayed(name string) {
	for i := range e.Extensions {
		if e.Extensions[i].Name == ReplayAttribute {
			e.Extensions[i] = Attribute{Name: ReplayAttribute, Value: name}
			return
		}
	}
	e.Extensions = append(e.Extensions, Attribute{Name: ReplayAttribute, Value: name})
}

// Replay returns the name of the replay that the event is of; "" if it is of none.
func (e *Event) Replay() string {
	if e.Table != ReplayTable {
		return ""
	}
	for i := range e.Extensions {
		if e.Extensions[i].Name == ReplayAttribute {
			return e.Extensions[i].Value
		}
	}
	return ""
}
