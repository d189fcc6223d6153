package router

import (
	"bytes"
	"errors"
	"testing"

	"github.com/nats-io/nats.go"
)

func TestAck_Answers(t *testing.T) {
	t.Parallel()
	reader := newAckReader("EVENTS", "")
	for name, tc := range map[string]struct {
		msg   nats.Msg
		want  ack
		check func(error) bool
	}{
		"plain":           {nats.Msg{Data: []byte(`{"stream":"EVENTS","seq":123}`)}, ack{sequence: 123}, nil},
		"another domain":  {nats.Msg{Data: []byte(`{"stream":"EVENTS","domain":"leaf","seq":7}`)}, ack{}, func(err error) bool { return classify(err) == Outage }},
		"a duplicate":     {nats.Msg{Data: []byte(`{"stream":"EVENTS","seq":5,"duplicate": true}`)}, ack{sequence: 5, duplicate: true}, nil},
		"spread out":      {nats.Msg{Data: []byte(`{ "seq": 9, "stream": "EVENTS" }`)}, ack{sequence: 9}, nil},
		"another stream":  {nats.Msg{Data: []byte(`{"stream":"OTHER","seq":1}`)}, ack{}, func(err error) bool { return classify(err) == Configuration }},
		"no sequence":     {nats.Msg{Data: []byte(`{"stream":"EVENTS","seq":0}`)}, ack{}, nil},
		"garbage":         {nats.Msg{Data: []byte(`+OK`)}, ack{}, func(err error) bool { return classify(err) == Outage }},
		"nobody":          {nats.Msg{Header: nats.Header{"Status": {"503"}}}, ack{}, func(err error) bool { return errors.Is(err, nats.ErrNoResponders) }},
		"the fence":       {nats.Msg{Data: []byte(`{"error":{"code":400,"err_code":10071,"description":"wrong last sequence: 1"},"stream":"EVENTS","seq":0}`)}, ack{}, func(err error) bool { return errors.Is(err, errWrongLastSequence) }},
		"too large":       {nats.Msg{Data: []byte(`{"error":{"code":400,"err_code":10054,"description":"message size exceeds maximum allowed"}}`)}, ack{}, func(err error) bool { return classify(err) == Poison }},
		"full":            {nats.Msg{Data: []byte(`{"error":{"code":503,"err_code":10077,"description":"maximum bytes exceeded"}}`)}, ack{}, func(err error) bool { return classify(err) == Outage }},
		"full of subject": {nats.Msg{Data: []byte(`{"error":{"code":503,"err_code":10077,"description":"maximum messages per subject exceeded"}}`)}, ack{}, func(err error) bool { return classify(err) == Poison }},
		"sealed":          {nats.Msg{Data: []byte(`{"error":{"code":400,"err_code":10109,"description":"invalid operation on sealed stream"}}`)}, ack{}, func(err error) bool { return classify(err) == Configuration }},
		"no leader":       {nats.Msg{Data: []byte(`{"error":{"code":503,"err_code":10008,"description":"JetStream system temporarily unavailable"}}`)}, ack{}, func(err error) bool { return classify(err) == Outage }},
	} {
		got, err := reader.read(&tc.msg)
		if got != tc.want || (err == nil) != (tc.want.sequence > 0) {
			t.Errorf("%s: %+v (%v), want %+v", name, got, err, tc.want)
		}
		if tc.check != nil && !tc.check(err) {
			t.Errorf("%s: the error is %v, of class %s", name, err, classify(err))
		}
	}
}

func TestAck_Domain(t *testing.T) {
	t.Parallel()
	reader := newAckReader("EVENTS", "hub")
	for data, want := range map[string]ack{
		`{"stream":"EVENTS","domain":"hub","seq":7}`:                   {sequence: 7},
		`{"stream":"EVENTS","domain":"hub","seq":7,"duplicate": true}`: {sequence: 7, duplicate: true},
		`{"stream":"EVENTS","domain":"leaf","seq":7}`:                  {},
		`{"stream":"EVENTS","seq":7}`:                                  {},
	} {
		if got, err := reader.read(&nats.Msg{Data: []byte(data)}); got != want || (err == nil) != (want.sequence > 0) {
			t.Errorf("%s reads as %+v (%v), want %+v", data, got, err, want)
		}
	}
}

func FuzzAnswers(f *testing.F) {
	f.Add([]byte(`{"stream":"EVENTS","seq":123}`))
	f.Add([]byte(`{"stream":"EVENTS","seq":18446744073709551615}`))
	f.Add([]byte(`{"stream":"EVENTS","seq":99999999999999999999}`))
	f.Fuzz(func(t *testing.T, data []byte) {
		reader := newAckReader("EVENTS", "")
		got, err := reader.read(&nats.Msg{Data: data})
		// The slow way must say the same as the fast one.
		slow := ackReader{stream: "EVENTS", plain: []byte("\x00")}
		if bytes.HasPrefix(data, slow.plain) {
			t.Skip("it is the fast way here, too")
		}
		want, wantErr := slow.read(&nats.Msg{Data: data})
		if got != want || (err == nil) != (wantErr == nil) {
			t.Fatalf("%q reads as %+v (%v), and as JSON as %+v (%v)", data, got, err, want, wantErr)
		}
	})
}

func FuzzOrigin(f *testing.F) {
	origin := Origin{SystemID: "7", Slot: "s", Timeline: 2, Ended: map[int32]uint64{1: 250}, WAL: 1000}
	f.Add("0000000000000064.00000001 2 7/s")
	f.Add("0000000000000064.00000001 1 7/s")
	f.Add("0000000000000064.00000001 3 7/s")
	f.Add("x y z")
	f.Fuzz(func(t *testing.T, header string) {
		position, err := origin.parse("EVENTS", 1, header)
		if err == nil && position.IsZero() && header[:16] != "0000000000000000" {
			t.Fatalf("%q reads as the beginning of everything", header)
		}
	})
}
