package decode

import (
	"bytes"
	"encoding/json"
	"fmt"
	"strconv"

	"github.com/tidwall/gjson"
)

// message decodes a logical message, by which versions before walrelay.emitted
// emitted events. Anybody who can log in can write one, so only those count that
// were written before the schema was migrated.
func (d *Decoder) message(r *reader) (Change, error) {
	const transactional = 1
	flags := r.byte()
	r.uint64() // LSN
	prefix := r.string()
	content := r.bytes(r.uint32())
	if !r.ended() {
		return Change{}, wrongLength("Message", r)
	}
	if flags&transactional == 0 || prefix != d.prefix || !d.open || d.commitLSN >= d.messagesUntil {
		return Change{}, nil
	}
	position, err := d.position()
	if err != nil {
		return Change{}, err
	}
	first, rest, _ := bytes.Cut(content, []byte{'\n'})
	h := head{slot: d.slot}
	if err := h.parseMessage(first); err != nil {
		h = head{schema: "pg_catalog", table: "pg_logical_emit_message"}
		return d.undecodable(position, &h, RawMessage, content,
			fmt.Errorf("the first line of a message with the prefix %q is not a JSON object; use walrelay.emit_event", prefix))
	}
	if h.kind == "marker" {
		return Change{Kind: Marker, Marker: h.id}, nil
	}
	if h.schema == "" {
		h.schema, h.table = emittedSchema, "emit_event"
	}
	if h.kind == string(RawRow) {
		return d.rawRow(position, &h, rest)
	}
	return d.emittedEvent(position, &h, rest)
}

// parseMessage reads the first line of a message. What it does not know it passes
// over.
func (h *head) parseMessage(content []byte) error {
	return eachMember(content, func(name string, value gjson.Result) (err error) {
		switch name {
		case "marker":
			h.kind = "marker"
			return takeText(&h.id, name, value)
		case "kind":
			return takeText(&h.kind, name, value)
		case "schema":
			return takeText(&h.schema, name, value)
		case "table":
			return takeText(&h.table, name, value)
		case "scheduled_at":
			return takeText(&h.scheduledAt, name, value)
		case "origin":
			return takeText(&h.origin, name, value)
		case "max_retries":
			h.maxRetries = new(int64)
			*h.maxRetries, err = strconv.ParseInt(value.Raw, 10, 64)
		case "attempts":
			h.attempts, err = strconv.ParseInt(value.Raw, 10, 32)
		case "failures":
			err = json.Unmarshal([]byte(value.Raw), &h.failures)
		case "released":
			h.released = value.Raw == "true"
		}
		return err
	})
}
