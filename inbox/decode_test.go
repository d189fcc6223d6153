package inbox_test

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/nats-io/nats.go"

	"github.com/walrelay/walrelay/inbox"
)

// vector is an event, and its message in both modes; testdata/vectors says what the
// members are.
type vector struct {
	Event struct {
		Attributes map[string]string `json:"attributes"`
		Data       *string           `json:"data"`
		DataBase64 []byte            `json:"data_base64"`
	} `json:"event"`
	Binary     message `json:"binary"`
	Structured message `json:"structured"`
}

type message struct {
	Headers    map[string]string `json:"headers"`
	Body       *string           `json:"body"`
	BodyBase64 []byte            `json:"body_base64"`
}

func (m message) decode() (inbox.CloudEvent, error) {
	header := nats.Header{}
	for name, value := range m.Headers {
		header[name] = []string{value}
	}
	body := m.BodyBase64
	if m.Body != nil {
		body = []byte(*m.Body)
	}
	return inbox.DecodeParts(header, body)
}

func (v vector) want(t *testing.T) inbox.CloudEvent {
	t.Helper()
	ev := inbox.CloudEvent{Data: v.Event.DataBase64}
	if v.Event.Data != nil {
		ev.Data = []byte(*v.Event.Data)
	}
	for name, value := range v.Event.Attributes {
		switch name {
		case "id":
			ev.ID = value
		case "type":
			ev.Type = value
		case "source":
			ev.Source = value
		case "subject":
			ev.Subject = value
		case "datacontenttype":
			ev.ContentType = value
		case "dataschema":
			ev.DataSchema = value
		case "partitionkey":
			ev.Key = value
		case "time":
			var err error
			if ev.Time, err = time.Parse(time.RFC3339Nano, value); err != nil {
				t.Fatal(err)
			}
		default:
			if ev.Extensions == nil {
				ev.Extensions = make(map[string]string)
			}
			ev.Extensions[name] = value
		}
	}
	return ev
}

func TestVectors(t *testing.T) {
	files, err := filepath.Glob("../testdata/vectors/*.json")
	if err != nil || len(files) < 5 {
		t.Fatalf("there are %d vectors (%v)", len(files), err)
	}
	for _, file := range files {
		content, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		var v vector
		if err := json.Unmarshal(content, &v); err != nil {
			t.Fatalf("%s: %v", file, err)
		}
		for mode, m := range map[string]message{"binary": v.Binary, "structured": v.Structured} {
			got, err := m.decode()
			if err != nil {
				t.Errorf("%s, %s: %v", file, mode, err)
			}
			if diff := cmp.Diff(v.want(t), got); diff != "" {
				t.Errorf("%s, %s (-want +got):\n%s", file, mode, diff)
			}
		}
	}
}

func TestWhatIsNoEventIsSaid(t *testing.T) {
	good := func(more ...string) nats.Header {
		h := nats.Header{"ce-specversion": {"1.0"}, "ce-id": {"1"}, "ce-type": {"t"}, "ce-source": {"/s"}}
		for i := 0; i+1 < len(more); i += 2 {
			h[more[i]] = []string{more[i+1]}
		}
		return h
	}
	structured := nats.Header{"Content-Type": {"application/cloudevents+json; charset=utf-8"}}
	for name, test := range map[string]struct {
		header nats.Header
		data   string
		want   string
	}{
		"no header":            {nil, "x", "no header ce-specversion"},
		"another version":      {good("ce-specversion", "0.3"), "", `version "0.3"`},
		"no id":                {good("ce-id", ""), "", "it has no id"},
		"time":                 {good("ce-time", "yesterday"), "", `"yesterday" is no RFC 3339 time`},
		"not UTF-8":            {good("ce-subject", "%FF"), "", "header ce-subject: decoded, it is not UTF-8"},
		"another format":       {nats.Header{"Content-Type": {"application/cloudevents+avro"}}, "", "only JSON is read"},
		"no JSON":              {structured, "{", "no JSON object"},
		"an array":             {structured, "[]", "no JSON object"},
		"no version":           {structured, `{"id": "1"}`, "no specversion"},
		"JSON version":         {structured, `{"specversion": "0.3"}`, `version "0.3"`},
		"base64":               {structured, `{"specversion": "1.0", "id": "1", "type": "t", "source": "/s", "data_base64": "?"}`, "data_base64"},
		"text that is no text": {structured, `{"specversion": "1.0", "id": "1", "type": "t", "source": "/s", "datacontenttype": "text/plain", "data": {}}`, "it is no JSON string"},
		"no source in JSON":    {structured, `{"specversion": "1.0", "id": "1", "type": "t"}`, "it has no source"},
	} {
		if _, err := inbox.DecodeParts(test.header, []byte(test.data)); !errors.Is(err, inbox.ErrNoEvent) || !strings.Contains(err.Error(), test.want) {
			t.Errorf("%s: %v, want ErrNoEvent with %q", name, err, test.want)
		}
	}
	ev, err := inbox.DecodeParts(good("CE-Subject", "100%25 %zz", "Content-Type", "text/plain", "Other", "x"), nil)
	if err != nil || ev.Subject != "100% %zz" || ev.ContentType != "text/plain" || ev.Data != nil || ev.Extensions != nil {
		t.Errorf("an event with headers in another case is %+v (%v)", ev, err)
	}
	ev, err = inbox.DecodeParts(structured, []byte(`{"specversion": "1.0", "id": "1", "type": "t", "source": "/s", "datacontenttype": "text/plain", "data": "text", "n": 3, "b": true, "x": null}`))
	if err != nil || string(ev.Data) != "text" || ev.Extensions["n"] != "3" || ev.Extensions["b"] != "true" || len(ev.Extensions) != 2 {
		t.Errorf("structured mode of others is %+v (%v)", ev, err)
	}
	var value struct{ N int }
	if err := ev.Unmarshal(&value); err == nil || !strings.Contains(err.Error(), "text/plain") {
		t.Errorf("a text is read as JSON: %v", err)
	}
}

func FuzzDecode(f *testing.F) {
	f.Add("application/cloudevents+json", "1.0", "a%20b", []byte(`{"specversion":"1.0","id":"1","type":"t","source":"/s","data":[1]}`))
	f.Add("", "1.0", "%", []byte("x"))
	f.Fuzz(func(t *testing.T, contentType, version, subject string, data []byte) {
		ev, err := inbox.DecodeParts(nats.Header{
			"Content-Type": {contentType}, "ce-specversion": {version}, "ce-subject": {subject}, "ce-id": {"1"}, "ce-type": {"t"}, "ce-source": {"/s"},
		}, data)
		if err == nil && (ev.ID == "" || ev.Type == "" || ev.Source == "") {
			t.Errorf("an event without what it must have: %+v", ev)
		}
		if err != nil && !errors.Is(err, inbox.ErrNoEvent) {
			t.Errorf("the error is no ErrNoEvent: %v", err)
		}
	})
}

func ExampleDecode() {
	// In a program, the message comes from a consumer of the stream.
	header := nats.Header{
		"ce-specversion": {"1.0"}, "ce-id": {"1"}, "ce-type": {"order.placed"}, "ce-source": {"/orders"}, "ce-subject": {"Order%20%2342"},
	}
	ev, err := inbox.DecodeParts(header, []byte(`{"number": 42}`))
	if err != nil {
		fmt.Println(err)
		return
	}
	var order struct{ Number int }
	if err := ev.Unmarshal(&order); err != nil {
		fmt.Println(err)
		return
	}
	fmt.Println(ev.Type, ev.Subject, order.Number)
	// Output: order.placed Order #42 42
}
